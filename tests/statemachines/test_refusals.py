"""Requests that must be refused: by name, with a sentence, and before anything is changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from .conftest import FUNCTIONS, OTHER_SCHEMA, OUTSIDE, SENSITIVE, TABLES, Deployed, request

TABLE = "local-licenses"


def iso(**ago: float) -> str:
    """A whole second some time ago."""
    return (datetime.now(UTC) - timedelta(**ago)).strftime("%Y-%m-%dT%H:%M:%SZ")


def table(name: object, *confirmation: object) -> dict[str, Any]:
    """An entry of ``tables``."""
    return {"tableName": name, **({"tableNameRecoveryConfirmation": confirmation[0]} if confirmation else {})}


NOW = iso()
ORCHESTRATOR: dict[str, tuple[Any, str]] = {
    "wrong confirmation": ({"tables": [table(TABLE, "local-license")]}, "ConfirmationMismatch"),
    "confirmation of another table": ({"tables": [table(TABLE, "local-languages")]}, "ConfirmationMismatch"),
    "one of two not confirmed": (
        {"tables": [table("local-languages", "local-languages"), table(TABLE, "")]},
        "ConfirmationMismatch",
    ),
    "no confirmation": ({"tables": [table(TABLE)]}, "ConfirmationMismatch"),
    "unknown table": ({"tables": [table("local-nothing", "local-nothing")]}, "UnknownTable"),
    "table of the account that is not protected": ({"tables": [table(OTHER_SCHEMA, OTHER_SCHEMA)]}, "UnknownTable"),
    "sensitive table": ({"tables": [table(SENSITIVE, SENSITIVE)]}, "SensitiveTable"),
    "sensitive table behind a good one": (
        {"tables": [table(TABLE, TABLE), table(SENSITIVE, SENSITIVE)]},
        "SensitiveTable",
    ),
    "future": ({"restoreDateTime": iso(hours=-1)}, "RestoreTimeOutOfRange"),
    "before the window": ({"restoreDateTime": iso(days=40)}, "RestoreTimeOutOfRange"),
    "before PITR was switched on": ({"restoreDateTime": iso(hours=1)}, "RestoreTimeOutOfRange"),
    "no time": ({"restoreDateTime": None}, "InvalidRequest"),
    "not a time": ({"restoreDateTime": "yesterday"}, "InvalidRequest"),
    "time without offset": ({"restoreDateTime": "2026-11-20T09:00:00"}, "InvalidRequest"),
    "no tables": ({"tables": []}, "InvalidRequest"),
    "tables are no list": ({"tables": TABLE}, "InvalidRequest"),
    "the same table twice": ({"tables": [table(TABLE, TABLE)] * 2}, "InvalidRequest"),
    "no incident": ({"incidentId": ""}, "InvalidRequest"),
    "incident that is no name": ({"incidentId": ["a"]}, "InvalidRequest"),
    "misspelt dryRun": ({"dryrun": True}, "InvalidRequest"),
    "dryRun that is no boolean": ({"dryRun": "yes"}, "InvalidRequest"),
    "unknown mode": ({"mode": "soft"}, "InvalidRequest"),
}
NOT_AN_OBJECT = {"array": "[]", "string": '"local-licenses"', "number": "7", "null": "null", "empty": "{}"}


class Untouched:
    """Everything that a refused request must leave as it is."""

    def __init__(self, deployed: Deployed) -> None:
        self._deployed = deployed
        names = (*TABLES, SENSITIVE, OTHER_SCHEMA)
        for name in names:
            deployed.fill(name, range(3))
        self._items = {name: deployed.items(name) for name in names}
        assert all(self._items.values())

    def check(self) -> None:
        """Assert that nothing has changed."""
        assert {name: self._deployed.items(name) for name in self._items} == self._items
        assert self._deployed.concurrency() == {**FUNCTIONS, OUTSIDE: 3}
        assert self._deployed.temporary_tables() == []
        assert self._deployed.locks() == []


def assert_refused(ended: dict[str, Any], error: str) -> None:
    """The execution failed with the named error and a sentence that says what to do."""
    assert (ended["status"], ended["error"]) == ("FAILED", error), ended.get("cause")
    assert "Expected" in ended["cause"] or "No part of the system" in ended["cause"]
    assert ended["cause"].rstrip().endswith(".")
    assert not ended["cause"].startswith("{")


def started(deployed: Deployed, ended: dict[str, Any]) -> set[str]:
    """Names of the states that an execution entered."""
    return {
        event["stateEnteredEventDetails"]["name"]
        for event in deployed.history(ended["executionArn"])
        if "stateEnteredEventDetails" in event
    }


@pytest.mark.parametrize("case", sorted(ORCHESTRATOR))
def test_orchestrator_refuses(deployed: Deployed, case: str) -> None:
    """Catches a request that is wrong in one point and changes something before that is noticed."""
    change, error = ORCHESTRATOR[case]
    untouched = Untouched(deployed)
    ended = deployed.recover({**request(NOW, TABLE, incident="refused"), **change})
    assert_refused(ended, error)
    assert "Freeze the functions" not in started(deployed, ended)
    untouched.check()


@pytest.mark.parametrize("case", sorted(NOT_AN_OBJECT))
def test_machines_refuse_what_is_no_request(deployed: Deployed, case: str) -> None:
    """Catches an input of another shape that ends in an error without a name, or in none."""
    untouched = Untouched(deployed)
    assert_refused(deployed.recover(NOT_AN_OBJECT[case]), "InvalidRequest")
    expected = "ConfirmationMismatch" if case == "empty" else "InvalidRequest"
    assert_refused(deployed.reset(TABLE, NOT_AN_OBJECT[case]), expected)
    untouched.check()


def test_orchestrator_refuses_a_table_without_pitr(deployed: Deployed) -> None:
    """Catches a freeze of the whole system for a table that cannot be restored at all."""
    untouched = Untouched(deployed)
    dynamodb = deployed.client("dynamodb")
    for enabled in (False, True):
        dynamodb.update_continuous_backups(
            TableName="local-measurements", PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": enabled}
        )
        if not enabled:
            ended = deployed.recover(request(iso(), "local-measurements", incident="no-pitr"))
            assert_refused(ended, "RestoreTimeOutOfRange")
            assert "PITR is switched off" in ended["cause"]
    untouched.check()


def hard_reset_request(deployed: Deployed, source: str, **change: Any) -> dict[str, Any]:
    """The hard reset's input."""
    return {
        "incidentId": "refused",
        "sourceTableArn": deployed.arn(TABLE).removesuffix(TABLE) + source,
        "destinationTableArn": deployed.arn(TABLE),
        "tableNameRecoveryConfirmation": TABLE,
        **change,
    }


@pytest.mark.parametrize(
    ("source", "change", "error"),
    [
        ("local-languages", {"tableNameRecoveryConfirmation": "local-languages"}, "ConfirmationMismatch"),
        ("local-languages", {"tableNameRecoveryConfirmation": None}, "ConfirmationMismatch"),
        ("local-languages", {"tableNameRecoveryConfirmation": TABLE.upper()}, "ConfirmationMismatch"),
        (OTHER_SCHEMA, {}, "KeySchemaMismatch"),
        ("local-measurements", {}, "KeySchemaMismatch"),
        (SENSITIVE, {}, "SensitiveTable"),
        (TABLE, {}, "InvalidRequest"),
        ("does-not-exist", {}, "UnknownTable"),
        (OTHER_SCHEMA, {"incidentId": None}, "InvalidRequest"),
        (OTHER_SCHEMA, {"sourceTableArn": "local-languages"}, "InvalidRequest"),
        (OTHER_SCHEMA, {"destinationTableArn": None}, "InvalidRequest"),
        (OTHER_SCHEMA, {"backupARN": "x"}, "InvalidRequest"),
        (OTHER_SCHEMA, {"backupArn": 7}, "InvalidRequest"),
    ],
)
def test_hard_reset_refuses(deployed: Deployed, source: str, change: dict[str, Any], error: str) -> None:
    """Catches a reset from the wrong source, or without confirmation, that purges first and fails afterwards."""
    untouched = Untouched(deployed)
    ended = deployed.reset(TABLE, hard_reset_request(deployed, source, **change))
    assert_refused(ended, error)
    assert "Purge every segment" not in started(deployed, ended)
    untouched.check()


def test_hard_reset_refuses_another_machines_table(deployed: Deployed) -> None:
    """Catches a machine that resets a table other than its own."""
    untouched = Untouched(deployed)
    wrong = hard_reset_request(deployed, OTHER_SCHEMA, destinationTableArn=deployed.arn("local-languages"))
    assert_refused(deployed.reset(TABLE, wrong), "InvalidRequest")
    untouched.check()


def test_hard_reset_refuses_a_copy_of_the_sensitive_table(deployed: Deployed) -> None:
    """Catches sensitive data that leaves through a restored copy under a harmless name."""
    untouched = Untouched(deployed)
    dynamodb = deployed.client("dynamodb")
    dynamodb.restore_table_to_point_in_time(
        SourceTableName=SENSITIVE, TargetTableName="harmless", UseLatestRestorableTime=True
    )
    dynamodb.get_waiter("table_exists").wait(TableName="harmless", WaiterConfig={"Delay": 1})
    assert_refused(deployed.reset(TABLE, hard_reset_request(deployed, "harmless")), "SensitiveTable")
    untouched.check()


def test_confirmation_comes_before_anything_else(deployed: Deployed) -> None:
    """Catches a hard reset that calls a Lambda, or AWS, before the confirmation is checked."""
    ended = deployed.reset(TABLE, {"tableNameRecoveryConfirmation": "x"})
    assert started(deployed, ended) == {
        "Is the input an object?",
        "Confirm the table name",
        "Refuse without confirmation",
    }
