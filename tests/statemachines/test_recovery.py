"""The main job, executed: damaged tables come back, nothing else changes, and a failed recovery can be finished."""

from __future__ import annotations

import json
from typing import Any

from .conftest import FUNCTIONS, OUTSIDE, SENSITIVE, TABLES, Deployed, request

SETTINGS = {**FUNCTIONS, OUTSIDE: 3}
OUTPUT_PER_TABLE = {
    "tableName", "mode", "purgedItems", "copiedItems", "verifiedItems", "sourceDigest", "destinationDigest", "verified",
    "durationSeconds", "consumedCapacity",
}  # fmt: skip


def damage(deployed: Deployed, table: str) -> None:
    """Change some items, delete some, add junk."""
    dynamodb = deployed.client("dynamodb")
    names = [name for name, _ in TABLES[table]]
    before = deployed.items(table)
    for entry in before[::3]:
        dynamodb.delete_item(TableName=table, Key={name: entry[name] for name in names})
    for entry in before[1::3]:
        dynamodb.put_item(TableName=table, Item={**entry, "note": {"S": "damaged"}})
    deployed.fill(table, range(90_000, 90_040), "junk")


def prepared(deployed: Deployed, *tables: str, items: int = 120) -> tuple[str, dict[str, list[dict[str, Any]]]]:
    """Fill tables, take a restore point, damage them; returns the point and what the tables held then."""
    for table in tables:
        deployed.fill(table, range(items))
    point = deployed.restore_point()
    good = {table: deployed.items(table) for table in tables}
    for table in tables:
        damage(deployed, table)
        assert len(good[table]) >= items
        assert deployed.items(table) != good[table], "there is nothing to recover"
    return point, good


def test_every_table_comes_back_and_nothing_else_changes(deployed: Deployed) -> None:
    """Catches a recovery that says SUCCEEDED over wrong tables, changed functions, or a sensitive table it read."""
    deployed.fill(SENSITIVE, range(5))
    secret = deployed.items(SENSITIVE)
    point, good = prepared(deployed, *TABLES)
    assert deployed.concurrency() == SETTINGS
    seen = len(deployed.aws.access_log(SENSITIVE))

    ended = deployed.recover(request(point, *TABLES, incident="everything"))

    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    touched = deployed.aws.access_log(SENSITIVE)[seen:]
    assert [entry for entry in touched if "assumed-role" in entry["principal"]] == []
    assert [entry for entry in deployed.aws.access_log("local-licenses") if "assumed-role" in entry["principal"]]
    assert {table: deployed.items(table) for table in TABLES} == good
    assert deployed.items(SENSITIVE) == secret
    assert deployed.concurrency() == SETTINGS
    assert deployed.temporary_tables() == []
    assert deployed.locks() == []

    output = json.loads(ended["output"])
    assert set(output) == {"incidentId", "status", "tables", "frozenFunctions", "releasedFunctions", "reportUri"}
    assert (output["incidentId"], output["status"]) == ("everything", "SUCCEEDED")
    assert (output["frozenFunctions"], output["releasedFunctions"]) == (3, 3)
    by_name = {entry["tableName"]: entry for entry in output["tables"]}
    assert set(by_name) == set(TABLES)
    for table, entry in by_name.items():
        assert set(entry) >= OUTPUT_PER_TABLE
        assert entry["copiedItems"] == entry["verifiedItems"] == len(good[table])
        assert entry["purgedItems"] == 120 - 40 + 40
        assert entry["sourceDigest"] == entry["destinationDigest"] != "0" * 64
        assert entry["verified"] is True
        assert entry["consumedCapacity"]["writeUnits"] > 0
        # What was forecast stands beside what happened; the table was damaged, so it may not be the same.
        assert entry["forecast"]["writeUnits"] > 0
        assert entry["usd"] > 0
        assert set(entry["phaseSeconds"]) == {"purge", "copy", "verify"}
        assert sum(entry["phaseSeconds"].values()) <= entry["durationSeconds"] + 3

    bucket, key = output["reportUri"].removeprefix("s3://").split("/", 1)
    report = json.loads(deployed.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
    assert report["tables"] == output["tables"]
    assert {entry["functionName"]: entry["reservedConcurrency"] for entry in report["functions"]} == FUNCTIONS


def test_a_finished_incident_cannot_be_started_again(deployed: Deployed) -> None:
    """Catches an old input that is sent once more by mistake, and takes the tables back to the old time."""
    point, good = prepared(deployed, "local-languages")
    assert deployed.recover(request(point, "local-languages", incident="once"))["status"] == "SUCCEEDED"
    again = deployed.recover(request(point, "local-languages", incident="once"))
    assert (again["status"], again["error"]) == ("FAILED", "InvalidRequest")
    assert deployed.items("local-languages") == good["local-languages"]


def test_a_dry_run_plans_and_changes_nothing(deployed: Deployed) -> None:
    """Catches a dry run that freezes, restores, locks or writes anything."""
    point, _ = prepared(deployed, "local-licenses")
    before = deployed.items("local-licenses")
    ledger = deployed.client("dynamodb").scan(TableName=deployed.outputs["ledgerTableName"])["Items"]
    ended = deployed.recover(request(point, "local-licenses", incident="only-a-plan", dryRun=True))
    assert ended["status"] == "SUCCEEDED"
    output = json.loads(ended["output"])
    assert output["status"] == "PLANNED"
    assert output["functionsToFreeze"] == 3
    assert output["tables"][0]["tableName"] == "local-licenses"
    assert output["tables"][0]["segments"] >= 1
    forecast = output["tables"][0]["forecast"]
    assert forecast["writeUnits"] == 2 * output["tables"][0]["items"] == 2 * len(before)
    assert forecast["totalSeconds"] == sum(
        forecast[f"{phase}Seconds"] for phase in ("restore", "purge", "copy", "verify")
    )
    assert 0 < forecast["usd"] <= output["forecast"]["usd"]
    assert output["forecast"]["assumptions"]
    assert deployed.items("local-licenses") == before
    assert deployed.client("dynamodb").scan(TableName=deployed.outputs["ledgerTableName"])["Items"] == ledger
    assert deployed.concurrency() == SETTINGS
    assert deployed.temporary_tables() == []


class Revoked:
    """Takes all permissions of a role away for as long as the context lasts, but keeps its Deny."""

    def __init__(self, deployed: Deployed, thing: str) -> None:
        self._iam = deployed.client("iam")
        self._role = {"RoleName": f"local-dr-{thing}-us-east-1", "PolicyName": "least-privilege"}
        self._document = self._iam.get_role_policy(**self._role)["PolicyDocument"]

    def __enter__(self) -> None:
        """Revoke."""
        statements = [entry for entry in self._document["Statement"] if entry["Effect"] == "Deny"]
        self._put({**self._document, "Statement": statements})

    def __exit__(self, *_: object) -> None:
        """Give back."""
        self._put(self._document)

    def _put(self, document: dict[str, Any]) -> None:
        self._iam.put_role_policy(**self._role, PolicyDocument=json.dumps(document))


def test_a_failure_before_the_purge_releases_and_can_be_resumed(deployed: Deployed) -> None:
    """Catches a recovery that could not begin and leaves the system frozen, or its incident unusable."""
    point, good = prepared(deployed, "local-licenses", "local-languages")
    damaged = deployed.items("local-licenses")
    wanted = request(point, "local-licenses", "local-languages", incident="no-preflight")
    with Revoked(deployed, "preflight"):
        failed = deployed.recover(wanted)
    assert failed["status"] == "FAILED"
    assert "not authorized" in failed["cause"]
    assert "same incident again" in failed["cause"]
    assert deployed.items("local-licenses") == damaged
    assert deployed.concurrency() == SETTINGS, "the functions were not released"
    assert deployed.locks() == []

    ended = deployed.recover(wanted)
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    assert {table: deployed.items(table) for table in good} == good
    assert deployed.concurrency() == SETTINGS
    assert deployed.temporary_tables() == []


def test_a_failure_after_the_purge_stays_frozen_and_can_be_resumed(deployed: Deployed) -> None:
    """Catches half-restored data that is served, and frozen settings lost to a second freeze."""
    point, good = prepared(deployed, "local-licenses", "local-measurements")
    wanted = request(point, "local-licenses", "local-measurements", incident="no-copy")
    with Revoked(deployed, "copy-segment"):
        failed = deployed.recover(wanted)
    assert failed["status"] == "FAILED"
    assert "stay frozen" in failed["cause"]
    assert deployed.items("local-licenses") == [], "the purge did not happen; nothing was tested"
    assert deployed.concurrency() == {**dict.fromkeys(FUNCTIONS, 0), OUTSIDE: 3}

    other = deployed.recover(request(point, "local-languages", incident="another"))
    assert (other["status"], other["error"]) == ("FAILED", "RecoveryInProgress")
    assert deployed.concurrency() == {**dict.fromkeys(FUNCTIONS, 0), OUTSIDE: 3}, "another incident released"
    by_hand = deployed.reset(
        "local-licenses",
        {
            "incidentId": "by-hand",
            "sourceTableArn": deployed.arn(next(name for name in deployed.temporary_tables() if "licenses" in name)),
            "destinationTableArn": deployed.arn("local-licenses"),
            "tableNameRecoveryConfirmation": "local-licenses",
        },
    )
    assert (by_hand["status"], by_hand["error"]) == ("FAILED", "RecoveryInProgress"), by_hand.get("cause")

    ended = deployed.recover(wanted)
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    assert {table: deployed.items(table) for table in good} == good
    assert deployed.concurrency() == SETTINGS


def test_a_later_incident_may_take_over_all_the_tables(deployed: Deployed) -> None:
    """Catches zeros of the first freeze that the second incident takes for settings, and puts back."""
    point, good = prepared(deployed, "local-licenses")
    with Revoked(deployed, "copy-segment"):
        deployed.recover(request(point, "local-licenses", incident="given-up"))
    assert deployed.concurrency()["local-app-api"] == 0
    ended = deployed.recover(request(point, "local-licenses", incident="instead"))
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    assert deployed.items("local-licenses") == good["local-licenses"]
    assert deployed.concurrency() == SETTINGS
    late = deployed.recover(request(point, "local-licenses", incident="given-up"))
    assert (late["status"], late["error"]) == ("FAILED", "InvalidRequest")


def test_only_the_release_is_left_of_a_recovered_incident(deployed: Deployed) -> None:
    """Catches a resumption that freezes a live system again, and would discard what its streams carry by now."""
    point, good = prepared(deployed, "local-licenses")
    wanted = request(point, "local-licenses", incident="no-report")
    of_others = deployed.temporary_tables()
    with Revoked(deployed, "write-report"):
        failed = deployed.recover(wanted)
    assert failed["status"] == "FAILED"
    assert deployed.items("local-licenses") == good["local-licenses"]
    assert deployed.concurrency() == SETTINGS, "the functions were not released"
    execution = deployed.start(deployed.outputs["orchestratorStateMachineArn"], wanted)
    ended = deployed.finish(execution)
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    entered = {
        event["stateEnteredEventDetails"]["name"]
        for event in deployed.history(execution)
        if "stateEnteredEventDetails" in event
    }
    assert "Release the functions" in entered
    assert entered.isdisjoint({"Freeze the functions", "Discard the stream records", "Reset every table"})
    output = json.loads(ended["output"])
    assert [table["verified"] for table in output["tables"]] == [True]
    assert deployed.concurrency() == SETTINGS
    assert deployed.temporary_tables() == of_others
    assert deployed.locks() == []
