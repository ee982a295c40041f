"""A writer between copy and verification, executed: the machines notice, list what differs, and can be resumed."""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import FUNCTIONS, OUTSIDE, TABLES, Deployed, create_table, deployed_stack, request
from .test_recovery import Revoked, prepared

TABLE = "local-measurements"  # its key is a number and bytes
SETTINGS = {**FUNCTIONS, OUTSIDE: 3}
DIGEST = "local-dr-digest-segment"


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployed]:
    """The local stack, with retries that wait long enough (half a second) to write something meanwhile."""
    yield from deployed_stack({}, wait_scale="0.01")


def start_held_before_the_digest(deployed: Deployed, machine: str, wanted: Any) -> tuple[str, Any]:
    """Start an execution whose digest workers get no concurrency, and wait until the copy is done.

    The state machine retries such a worker for more than an hour of its time, so whatever the caller writes now comes
    after the copy and before the digest. Returns the execution, and what lets the workers go.
    """
    lambdas = deployed.client("lambda")
    lambdas.put_function_concurrency(FunctionName=DIGEST, ReservedConcurrentExecutions=0)
    execution = deployed.start(machine, wanted)
    hard_resets = deployed.outputs["hardResetStateMachineArns"][TABLE]
    end = time.monotonic() + 120
    while time.monotonic() < end:
        running = deployed.client("stepfunctions").list_executions(stateMachineArn=hard_resets, statusFilter="RUNNING")[
            "executions"
        ]
        for reset in running:
            if "Digest every segment of both sides" in str(deployed.history(reset["executionArn"])):
                return execution, lambda: lambdas.delete_function_concurrency(FunctionName=DIGEST)
        described = deployed.client("stepfunctions").describe_execution(executionArn=execution)
        assert described["status"] == "RUNNING", described.get("cause")
        time.sleep(0.02)  # Step Functions has no event to wait for from outside
    raise AssertionError("the digest did not begin")


def written(entry: dict[str, Any]) -> dict[str, Any]:
    """An item's key as the lists have it."""
    return {"sensor": entry["sensor"], "token": {"B": base64.b64encode(entry["token"]["B"]).decode()}}


def mutate(deployed: Deployed) -> list[dict[str, Any]]:
    """Every mutation at once, on items of their own; answers what must be listed."""
    dynamodb = deployed.client("dynamodb")

    def put(entry: dict[str, Any], **changes: Any) -> None:
        dynamodb.put_item(TableName=TABLE, Item={**entry, **changes})

    items = deployed.items(TABLE)
    assert len(items) > 20, "the copy is not done"
    dropped, digit, one, other, reordered, respelled, *_ = items[3:]
    dynamodb.delete_item(TableName=TABLE, Key={name: dropped[name] for name, _ in TABLES[TABLE]})
    added = {**dropped, "token": {"B": b"\x00\xff new"}}
    put(added)
    put(digit, exact={"N": "12345678901234567890123456789012345679"})
    put(one, note={"S": "of the other"})
    put(other, small={"N": "-1.6E-120"})
    # These two are equal, whatever they look like.
    put(reordered, strings={"SS": ["b", "a"]}, numbers={"NS": ["2.5", "1"]})
    put(respelled, numbers={"NS": ["1.0", "2.50"]}, small={"N": "-15E-121"})
    return sorted(
        [
            {"difference": "missing", "key": written(dropped)},
            {"difference": "extra", "key": written(added)},
            *({"difference": "changed", "key": written(entry)} for entry in (digit, one, other)),
        ],
        key=repr,
    )


def listed(deployed: Deployed, cause: str) -> list[dict[str, Any]]:
    """Every line of the objects under the place that a cause names."""
    place = next(word for word in cause.split() if word.startswith("s3://"))
    bucket, prefix = place.removeprefix("s3://").split("/", 1)
    assert bucket == deployed.outputs["reportBucketName"]
    s3 = deployed.client("s3")
    names = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])]
    assert names
    bodies = [s3.get_object(Bucket=bucket, Key=name)["Body"].read() for name in names]
    return sorted((json.loads(line) for body in bodies for line in body.splitlines()), key=repr)


def test_a_writer_after_the_copy_is_noticed_and_its_keys_are_listed(deployed: Deployed) -> None:
    """Catches a recovery that serves what somebody wrote meanwhile, or says that something differs, but not what."""
    point, good = prepared(deployed, TABLE)
    wanted = request(point, TABLE, incident="concurrent-writer")
    execution, let_go = start_held_before_the_digest(deployed, deployed.outputs["orchestratorStateMachineArn"], wanted)
    try:
        expected = mutate(deployed)
    finally:
        let_go()
    ended = deployed.finish(execution)
    assert (ended["status"], ended["error"]) == ("FAILED", "VerificationFailed"), ended.get("cause")
    assert ended["cause"].startswith("1 missing, 1 extra and 3 changed item(s); their keys: s3://")
    assert "Stop that writer, then start the same incident again" in ended["cause"]
    assert "stay frozen" in ended["cause"]
    assert listed(deployed, ended["cause"]) == expected
    reset = deployed.client("stepfunctions").list_executions(
        stateMachineArn=deployed.outputs["hardResetStateMachineArns"][TABLE]
    )["executions"][0]
    history = str(deployed.history(reset["executionArn"])) + str(deployed.history(execution))
    assert not [line for line in expected if line["key"]["token"]["B"] in history], "a key in an execution's history"

    resumed = deployed.recover(wanted)
    assert resumed["status"] == "SUCCEEDED", resumed.get("cause")
    assert deployed.items(TABLE) == good[TABLE]
    assert deployed.concurrency() == SETTINGS
    assert deployed.locks() == []


@pytest.mark.parametrize("broken", ["compare-segment", "report-differences"])
def test_a_comparison_that_fails_does_not_hide_the_verdict(deployed: Deployed, broken: str) -> None:
    """Catches an operator who reads of a permission, and not that the table is wrong."""
    source = f"source-{broken}"
    create_table(deployed.aws, source, TABLES[TABLE], pitr=False)
    deployed.fill(source, range(60), like=TABLE)
    wanted = {
        "incidentId": f"no-{broken}",
        "sourceTableArn": deployed.arn(source),
        "destinationTableArn": deployed.arn(TABLE),
        "tableNameRecoveryConfirmation": TABLE,
    }
    with Revoked(deployed, broken):
        execution, let_go = start_held_before_the_digest(
            deployed, deployed.outputs["hardResetStateMachineArns"][TABLE], wanted
        )
        try:
            mutate(deployed)
        finally:
            let_go()
        ended = deployed.finish(execution)
    assert (ended["status"], ended["error"]) == ("FAILED", "VerificationFailed"), ended.get("cause")
    assert ended["cause"].startswith(f"After the copy the source of {TABLE} has 60 items")
    assert "start the same incident again" in ended["cause"]
    assert re.search(r"keys could not (all )?be listed", ended["cause"])
    assert "errorMessage" not in ended["cause"]
    assert deployed.locks() == []

    assert deployed.reset(TABLE, wanted)["status"] == "SUCCEEDED"
    assert deployed.items(TABLE) == deployed.items(source)
