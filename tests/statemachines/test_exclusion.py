"""Two at once, ids used twice, tables that are not what they seem: each refused, or harmless."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from .conftest import FUNCTIONS, OUTSIDE, SENSITIVE, TABLES, Deployed, create_table, deployed_stack, request
from .test_recovery import Revoked, prepared

TABLE = "local-licenses"
SETTINGS = {**FUNCTIONS, OUTSIDE: 3}


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployed]:
    """The local stack, with waits short enough to look at and long enough to act in."""
    yield from deployed_stack({}, wait_scale="0.002")


def by_hand(deployed: Deployed, source: str, incident: str, **more: Any) -> dict[str, Any]:
    """The input of a hard reset of the table."""
    return {
        "incidentId": incident,
        "sourceTableArn": deployed.arn(source),
        "destinationTableArn": deployed.arn(TABLE),
        "tableNameRecoveryConfirmation": TABLE,
        **more,
    }


def source_of(deployed: Deployed, name: str, items: range, note: str) -> str:
    """A table that may be copied from."""
    create_table(deployed.aws, name, TABLES[TABLE], pitr=False)
    deployed.fill(name, items, note, like=TABLE)
    return name


def refused(ended: dict[str, Any], error: str) -> str:
    """The cause of a refusal."""
    assert (ended["status"], ended["error"]) == ("FAILED", error), ended.get("cause")
    return str(ended["cause"])


class Held:
    """A lock held for as long as the context lasts by an execution that runs, or ran."""

    def __init__(self, deployed: Deployed, name: str, owner: str, incident: str = "theirs") -> None:
        self._dynamodb = deployed.client("dynamodb")
        self._table = deployed.outputs["ledgerTableName"]
        self._key = {"pk": {"S": "LOCK"}, "sk": {"S": name}}
        self._record = {**self._key, "owner": {"S": owner}, "incidentId": {"S": incident}}

    def __enter__(self) -> None:
        """Take the lock."""
        self._dynamodb.put_item(TableName=self._table, Item=self._record)

    def __exit__(self, *_: object) -> None:
        """Give it up."""
        self._dynamodb.delete_item(TableName=self._table, Key=self._key)


@pytest.fixture(scope="module")
def running(deployed: Deployed) -> Iterator[str]:
    """An execution that runs as long as the module's tests: it waits."""
    role = deployed.client("iam").get_role(RoleName="local-dr-orchestrator-us-east-1")["Role"]["Arn"]
    machine = deployed.client("stepfunctions").create_state_machine(
        name="local-dr-sleeper",
        roleArn=role,
        definition='{"QueryLanguage": "JSONata", "StartAt": "Wait", "States": {"Wait": {"Type": "Wait", '
        '"Seconds": 1000000, "End": true}}}',
    )
    execution = deployed.start(machine["stateMachineArn"], {})
    yield execution
    deployed.client("stepfunctions").stop_execution(executionArn=execution)


def test_an_id_used_by_hand_is_not_taken_for_a_finished_table(deployed: Deployed) -> None:
    """Catches an orchestrator that skips a table because some hard reset had the same incidentId."""
    point, _ = prepared(deployed, TABLE)
    source = source_of(deployed, "wrong-source", range(5), "wrong")
    assert deployed.reset(TABLE, by_hand(deployed, source, "one-id"))["status"] == "SUCCEEDED"
    before = deployed.items(TABLE)
    assert len(before) == 5
    for _ in range(2):
        assert "another incidentId" in refused(
            deployed.recover(request(point, TABLE, incident="one-id")), "InvalidRequest"
        )
    assert deployed.items(TABLE) == before
    assert deployed.concurrency() == SETTINGS


def test_a_resumed_copy_is_backed_up_first(deployed: Deployed) -> None:
    """Catches items written between a failed copy and its resumption that are overwritten and in no backup."""
    source = source_of(deployed, "resumed-source", range(40), "good")
    wanted = by_hand(deployed, source, "resumed-by-hand")
    with Revoked(deployed, "copy-segment"):
        assert deployed.reset(TABLE, wanted)["status"] == "FAILED"
    deployed.fill(TABLE, range(10), "written meanwhile")
    backups = deployed.client("dynamodb").list_backups(TableName=TABLE)["BackupSummaries"]
    assert deployed.reset(TABLE, wanted)["status"] == "SUCCEEDED"
    after = deployed.client("dynamodb").list_backups(TableName=TABLE)["BackupSummaries"]
    assert len(after) == len(backups) + 1
    newest = max(after, key=lambda backup: backup["BackupCreationDateTime"])
    deployed.client("dynamodb").restore_table_from_backup(
        BackupArn=newest["BackupArn"], TargetTableName="what-was-written"
    )
    deployed.client("dynamodb").get_waiter("table_exists").wait(TableName="what-was-written", WaiterConfig={"Delay": 1})
    assert [entry["note"]["S"] for entry in deployed.items("what-was-written")] == ["written meanwhile"] * 10


def test_by_hand_and_orchestrator_exclude_each_other(deployed: Deployed, running: str) -> None:
    """Catches a hard reset that empties a table while the orchestrator verifies it, or releases the functions."""
    point, _ = prepared(deployed, "local-languages")
    source = source_of(deployed, "excluded-source", range(5), "x")
    before = deployed.items(TABLE)
    with Held(deployed, "ENVIRONMENT", running):
        refused(deployed.reset(TABLE, by_hand(deployed, source, "excluded")), "RecoveryInProgress")
    with Held(deployed, f"TABLE#{TABLE}", running):
        refused(deployed.recover(request(point, "local-languages", incident="other-table")), "RecoveryInProgress")
    assert deployed.items(TABLE) == before
    assert deployed.concurrency() == SETTINGS
    assert deployed.locks() == []


def test_nobody_can_pose_as_the_orchestrator(deployed: Deployed, running: str) -> None:
    """Catches a lock stolen with the ARN that the refusal itself prints, and an old backup passed for a new one."""
    source = source_of(deployed, "spoofed-source", range(5), "x")
    before = deployed.items(TABLE)
    pose = by_hand(deployed, source, "pose", orchestratorExecutionArn=running)
    with Held(deployed, f"TABLE#{TABLE}", running, "pose"):
        refused(deployed.reset(TABLE, pose), "InvalidRequest")
    with Held(deployed, "ENVIRONMENT", running, "another incident"):
        refused(deployed.reset(TABLE, pose), "InvalidRequest")
    backup = deployed.client("dynamodb").create_backup(TableName=TABLE, BackupName="old")["BackupDetails"]["BackupArn"]
    refused(deployed.reset(TABLE, by_hand(deployed, source, "pose", backupArn=backup)), "InvalidRequest")
    assert deployed.items(TABLE) == before


def test_a_table_under_the_restored_name_must_be_the_restore(deployed: Deployed) -> None:
    """Catches a recovery from whatever somebody put under the name of the restored table."""
    point, _ = prepared(deployed, TABLE)
    planned = deployed.recover(request(point, TABLE, incident="squatted", dryRun=True))["output"]
    name = planned.split('"restoredTableName": "')[1].split('"')[0]
    deployed.client("dynamodb").restore_table_to_point_in_time(
        SourceTableName=TABLE,
        TargetTableName=name,
        RestoreDateTime=datetime.fromisoformat(deployed.restore_point()),  # after the damage
    )
    deployed.client("dynamodb").get_waiter("table_exists").wait(TableName=name, WaiterConfig={"Delay": 1})
    refused(deployed.recover(request(point, TABLE, incident="squatted")), "InvalidRequest")
    assert deployed.concurrency() == SETTINGS
    deployed.client("dynamodb").delete_table(TableName=name)


def test_no_copy_of_a_copy_of_the_sensitive_table(deployed: Deployed) -> None:
    """Catches sensitive data that leaves in two steps: only the last of them shows in the table's description."""
    dynamodb = deployed.client("dynamodb")
    deployed.fill(SENSITIVE, range(3))
    deployed.restore_point()
    for origin, copy in ((SENSITIVE, "first-copy"), ("first-copy", "second-copy")):
        dynamodb.restore_table_to_point_in_time(
            SourceTableName=origin, TargetTableName=copy, UseLatestRestorableTime=True
        )
        dynamodb.get_waiter("table_exists").wait(TableName=copy, WaiterConfig={"Delay": 1})
        dynamodb.update_continuous_backups(
            TableName=copy, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
        )
        deployed.restore_point()
    for copy, error in (("first-copy", "SensitiveTable"), ("second-copy", "InvalidRequest")):
        refused(deployed.reset(TABLE, by_hand(deployed, copy, "leak")), error)


def test_settings_made_during_the_freeze_survive(deployed: Deployed) -> None:
    """Catches a release that puts an old number over one that the operator set since."""
    point, good = prepared(deployed, TABLE)
    wanted = request(point, TABLE, incident="by-hand-meanwhile")
    with Revoked(deployed, "copy-segment"):
        deployed.recover(wanted)
    assert deployed.concurrency()["local-app-api"] == 0
    lambdas = deployed.client("lambda")
    lambdas.put_function_concurrency(FunctionName="local-app-api", ReservedConcurrentExecutions=9)
    assert deployed.recover(wanted)["status"] == "SUCCEEDED"
    assert deployed.items(TABLE) == good[TABLE]
    assert deployed.concurrency() == {**SETTINGS, "local-app-api": 9}
    lambdas.put_function_concurrency(FunctionName="local-app-api", ReservedConcurrentExecutions=5)


def test_an_aborted_recovery_is_resumed_after_its_workers_must_have_ended(deployed: Deployed) -> None:
    """Catches a resumption that starts while a Lambda of the aborted execution may still delete."""
    point, good = prepared(deployed, TABLE, "local-measurements")
    wanted = request(point, TABLE, "local-measurements", incident="aborted")
    first = deployed.start(deployed.outputs["orchestratorStateMachineArn"], wanted)
    while not any("Reset every table" in str(event) for event in deployed.history(first)):
        assert deployed.client("stepfunctions").describe_execution(executionArn=first)["status"] == "RUNNING"
        time.sleep(0.01)
    deployed.client("stepfunctions").stop_execution(executionArn=first)
    second = deployed.start(deployed.outputs["orchestratorStateMachineArn"], wanted)
    ended = deployed.finish(second)
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    plan = next(
        event["lambdaFunctionSucceededEventDetails"]["output"]
        if "lambdaFunctionSucceededEventDetails" in event
        else event["taskSucceededEventDetails"]["output"]
        for event in deployed.history(second)
        if event["type"] in ("TaskSucceeded", "LambdaFunctionSucceeded")
    )
    settled_at = plan.split('settledAt": "')[1].split('"')[0]
    stopped = deployed.client("stepfunctions").describe_execution(executionArn=first)["stopDate"]
    assert (datetime.fromisoformat(settled_at) - stopped).total_seconds() >= 900
    assert {name: deployed.items(name) for name in good} == good
    assert deployed.concurrency() == SETTINGS
