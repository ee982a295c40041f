"""The differential mode, executed: what differs is mended, and nothing else is written."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from .conftest import FUNCTIONS, OUTSIDE, TABLES, Deployed, create_table, deployed_stack, request
from .test_recovery import OUTPUT_PER_TABLE, SETTINGS, Revoked, prepared

TABLE = "local-licenses"
ITEMS = 120
MISSING = CHANGED = EXTRA = 40  # what test_recovery's damage does to 120 items


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployed]:
    """The local stack, with a stream on one table that tells every write which changed anything."""

    def stream(aws: Any) -> Mapping[str, Any]:
        aws.client("dynamodb").update_table(
            TableName=TABLE, StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}
        )
        return {"sourceTables": ["dr-local.*", "by-hand*"]}

    yield from deployed_stack({}, before=stream)


def written(deployed: Deployed) -> list[tuple[str, str]]:
    """Every record of the table's stream so far: kind of change, and key."""
    streams = deployed.client("dynamodbstreams")
    (stream,) = streams.list_streams(TableName=TABLE)["Streams"]
    records = []
    for shard in streams.describe_stream(StreamArn=stream["StreamArn"])["StreamDescription"]["Shards"]:
        iterator = streams.get_shard_iterator(
            StreamArn=stream["StreamArn"], ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while iterator:
            answer = streams.get_records(ShardIterator=iterator)
            records += [(record["eventName"], repr(record["dynamodb"]["Keys"])) for record in answer["Records"]]
            iterator = answer.get("NextShardIterator") if answer["Records"] else None
    return records


def batch_writes(deployed: Deployed) -> Counter[str]:
    """How many batches each of the recovery's roles has written to the table."""
    return Counter(
        entry["principal"].split("/")[1]
        for entry in deployed.aws.access_log(TABLE)
        if "assumed-role" in entry["principal"] and entry["action"] == "BatchWriteItem"
    )


def states_of(deployed: Deployed, table: str) -> set[str]:
    """Names of the states that the executions of a table's hard reset have entered."""
    machine = deployed.outputs["hardResetStateMachineArns"][table]
    listed = deployed.client("stepfunctions").list_executions(stateMachineArn=machine)["executions"]
    return {
        event["stateEnteredEventDetails"]["name"]
        for execution in listed
        for event in deployed.history(execution["executionArn"])
        if "stateEnteredEventDetails" in event
    }


def test_only_what_differs_is_written(deployed: Deployed) -> None:
    """Catches a mode that is a hard reset by another name, one that misses a difference, and one nobody verified."""
    point, good = prepared(deployed, *TABLES, items=ITEMS)
    before = written(deployed)
    assert len(before) > ITEMS, "the stream tells nothing"
    batches = batch_writes(deployed)

    ended = deployed.recover(request(point, *TABLES, incident="everything", mode="differential"))

    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    # Nothing of the recovery's own code compares here: the items as boto3 reads them.
    assert {table: deployed.items(table) for table in TABLES} == good
    assert deployed.concurrency() == SETTINGS
    assert deployed.temporary_tables() == []
    assert deployed.locks() == []
    output = json.loads(ended["output"])
    assert {entry["tableName"] for entry in output["tables"]} == set(TABLES)
    for entry in output["tables"]:
        assert set(entry) >= OUTPUT_PER_TABLE
        assert entry["mode"] == "differential"
        assert (entry["purgedItems"], entry["copiedItems"]) == (EXTRA, MISSING + CHANGED)
        assert entry["verifiedItems"] == ITEMS
        assert entry["sourceDigest"] == entry["destinationDigest"] != "0" * 64
        assert entry["verified"] is True

    changes = written(deployed)[len(before) :]
    assert Counter(kind for kind, _ in changes) == {"INSERT": MISSING, "MODIFY": CHANGED, "REMOVE": EXTRA}
    assert len(set(changes)) == len(changes), "a key was written twice"
    assert set(batch_writes(deployed) - batches) == {"local-dr-differential-segment-us-east-1"}
    entered = states_of(deployed, TABLE)
    assert "Apply the differences to every segment" in entered
    assert entered.isdisjoint({"Purge every segment", "Prove the destination is empty", "Copy every segment"})


def test_a_failure_after_the_first_write_stays_frozen_and_can_be_resumed(deployed: Deployed) -> None:
    """Catches half-mended data that is served, and a resumption that mends anew or in the other mode."""
    point, good = prepared(deployed, TABLE, "local-languages", items=ITEMS)
    wanted = request(point, TABLE, "local-languages", incident="no-digest", mode="differential")
    with Revoked(deployed, "digest-segment"):
        failed = deployed.recover(wanted)
    assert failed["status"] == "FAILED"
    assert "stay frozen" in failed["cause"]
    assert deployed.items(TABLE) == good[TABLE], "the differences were not written; nothing was tested"
    assert deployed.concurrency() == {**dict.fromkeys(FUNCTIONS, 0), OUTSIDE: 3}

    other = deployed.recover({**wanted, "mode": "hard-reset"})
    assert (other["status"], other["error"]) == ("FAILED", "InvalidRequest")
    assert "differential" in other["cause"]
    assert deployed.concurrency() == {**dict.fromkeys(FUNCTIONS, 0), OUTSIDE: 3}

    before = len(written(deployed))
    ended = deployed.recover(wanted)
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    assert written(deployed)[before:] == []
    assert {table: deployed.items(table) for table in good} == good
    assert deployed.concurrency() == SETTINGS
    for entry in json.loads(ended["output"])["tables"]:
        assert (entry["purgedItems"], entry["copiedItems"]) == (EXTRA, MISSING + CHANGED), "forgot the first execution"


def test_a_failure_before_the_first_write_releases(deployed: Deployed) -> None:
    """Catches a system that stays frozen over tables which nobody has touched."""
    point, good = prepared(deployed, TABLE, items=ITEMS)
    damaged = deployed.items(TABLE)
    wanted = request(point, TABLE, incident="no-worker", mode="differential")
    with Revoked(deployed, "differential-segment"):
        failed = deployed.recover(wanted)
    assert failed["status"] == "FAILED"
    assert "not authorized" in failed["cause"]
    assert deployed.items(TABLE) == damaged
    assert deployed.concurrency() == SETTINGS, "the functions were not released"
    ended = deployed.recover(wanted)
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    assert deployed.items(TABLE) == good[TABLE]


def test_by_hand_until_verified(deployed: Deployed) -> None:
    """Catches a verdict that a later attempt cannot mend, a mode that changes midway, counts of one attempt only."""
    source = "by-hand"
    create_table(deployed.aws, source, TABLES[TABLE], pitr=False)
    deployed.fill(source, range(30), like=TABLE)
    for entry in deployed.items(TABLE):
        deployed.client("dynamodb").delete_item(TableName=TABLE, Key={name: entry[name] for name, _ in TABLES[TABLE]})
    deployed.fill(TABLE, range(20, 45))
    good = deployed.items(source)
    wanted = {
        "incidentId": "by-hand",
        "sourceTableArn": deployed.arn(source),
        "destinationTableArn": deployed.arn(TABLE),
        "tableNameRecoveryConfirmation": TABLE,
        "mode": "differential",
    }
    with Revoked(deployed, "digest-segment"):
        assert deployed.reset(TABLE, wanted)["status"] == "FAILED"
    assert deployed.items(TABLE) == good, "the differences were not written; nothing was tested"
    deployed.fill(TABLE, range(500, 503), "by a stranger")

    in_the_other_mode = deployed.reset(TABLE, {**wanted, "mode": "hard-reset"})
    assert (in_the_other_mode["status"], in_the_other_mode["error"]) == ("FAILED", "InvalidRequest")
    assert "differential, not hard-reset" in in_the_other_mode["cause"]

    unequal = deployed.reset(TABLE, wanted)
    assert (unequal["status"], unequal["error"]) == ("FAILED", "VerificationFailed")
    assert "0 missing, 3 extra and 0 changed" in unequal["cause"]
    before = len(written(deployed))
    ended = deployed.reset(TABLE, wanted)
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    assert deployed.items(TABLE) == good
    assert Counter(kind for kind, _ in written(deployed)[before:]) == {"REMOVE": 3}
    output = json.loads(ended["output"])
    assert (output["mode"], output["purgedItems"], output["copiedItems"]) == ("differential", 15 + 3, 20)
    assert deployed.locks() == []
