"""Validation of a recovery: what it refuses changes nothing, what it admits is locked and recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from handlers import record_outcome, runtime, validate_request
from handlers.core import errors
from handlers.core.clock import from_iso, to_iso

from .conftest import Aws
from .support import (
    LEDGER,
    FailCalls,
    KilledError,
    Steps,
    create_table,
    give_up_locks,
    hold_lock,
    invoke,
    ledger_items,
    lock_names,
    make_items,
    put_all,
)

NOW = datetime.now(UTC).replace(microsecond=0)
EARLIEST, LATEST = NOW - timedelta(days=35), NOW - timedelta(minutes=5)
TIME = NOW - timedelta(hours=1)
TABLES = ("test-languages", "test-licenses")


@pytest.fixture
def protected(aws: Aws) -> Aws:
    """Two tables with PITR since 35 days ago."""
    for name in TABLES:
        create_table(aws.dynamodb, name)
        aws.set_pitr_window(name, EARLIEST, LATEST)
    assert ledger_items(aws.dynamodb) == {}
    return aws


def request(**changes: Any) -> dict[str, Any]:
    """A valid request with changes; ``...`` takes a field out."""
    value = {
        "incidentId": "incident",
        "restoreDateTime": to_iso(TIME),
        "tables": [{"tableName": name, "tableNameRecoveryConfirmation": name} for name in TABLES],
        **changes,
    }
    return {name: entry for name, entry in value.items() if entry is not ...}


def only(*names: str) -> list[dict[str, str]]:
    """``tables`` of these names."""
    return [{"tableName": name, "tableNameRecoveryConfirmation": name} for name in names]


def validate(execution_arn: str, value: Any = ..., prices: Any = None) -> Any:
    """Call the entry point."""
    return invoke(
        validate_request.handler,
        {
            "request": request() if value is ... else value,
            "executionArn": execution_arn,
            "environment": "test",
            "protectedTables": {"test-licenses": {"segments": 7}, "test-languages": {}, "test-missing": {}},
            "sensitiveTables": ["test-ssn"],
            "prices": prices,
        },
    )


def fail(aws: Aws, execution_arn: str) -> None:
    """An execution that has failed and ended."""
    invoke(
        record_outcome.handler,
        {
            "wholeIncident": True,
            "incidentId": "incident",
            "executionArn": execution_arn,
            "error": "States.Timeout",
            "cause": "",
        },
    )
    aws.abort(execution_arn)


def test_a_valid_request(protected: Aws) -> None:
    """A later state finds no table, another time, or another name of a restored table than the one that is made."""
    execution = protected.start_execution("first")
    plan = validate(execution)
    assert (plan["incidentId"], plan["mode"], plan["dryRun"], plan["resumed"]) == (
        "incident",
        "hard-reset",
        False,
        False,
    )
    assert plan["restoreDateTime"] == to_iso(TIME)
    assert plan["finishedTables"] == []
    assert [table["tableName"] for table in plan["tables"]] == list(TABLES)
    # Of a table without a count of its items nobody knows how large it is.
    assert [table["segments"] for table in plan["tables"]] == [100, 7]
    for table in plan["tables"]:
        assert table["restoredTableName"].startswith(f"dr-test.{table['tableName']}.")
        assert table["restoredTableArn"].endswith(f":table/{table['restoredTableName']}")
        assert table["tableArn"].endswith(f":table/{table['tableName']}")
        assert (table["items"], table["bytes"]) == (0, 0)
    assert plan["temporaryTables"] == [table["restoredTableName"] for table in plan["tables"]]
    locks = lock_names(protected.dynamodb)
    assert locks == dict.fromkeys(("ENVIRONMENT", "TABLE#test-languages", "TABLE#test-licenses"), execution)
    run = ledger_items(protected.dynamodb)["INCIDENT#incident", "RUN"]
    assert (run["status"], run["executionArn"]) == ({"S": "RUNNING"}, {"S": execution})


def test_a_retried_validation_finds_itself(protected: Aws) -> None:
    """The answer was lost: the second call refuses the execution because of its own locks."""
    execution = protected.start_execution("first")
    first = validate(execution)
    second = validate(execution)
    assert second == {**first, "resumed": True, "settledAt": second["settledAt"]}


def test_a_dry_run_changes_nothing(protected: Aws) -> None:
    """A rehearsal leaves a lock or an incident behind, and the real recovery is refused."""
    plan = validate(protected.start_execution("dry"), request(dryRun=True))
    assert plan["dryRun"] is True
    assert [table["tableName"] for table in plan["tables"]] == list(TABLES)
    assert ledger_items(protected.dynamodb) == {}


def test_a_dry_run_forecasts(protected: Aws) -> None:
    """The forecast is of another table, of other options or prices than the stack's, or forgets that counts are old."""
    put_all(protected.dynamodb, "test-licenses", make_items((("id", "S"),), 40))
    described = protected.dynamodb.describe_table(TableName="test-licenses")["Table"]
    assert described["ItemCount"] == 40, "moto counts at once; AWS every six hours"
    plan = validate(protected.start_execution("dry"), request(dryRun=True))
    empty, full = plan["tables"]
    assert set(full) == {
        "tableName", "restoredTableName", "items", "bytes", "ttlAttribute", "segments", "forecast",
    }  # fmt: skip
    forecast = full["forecast"]
    assert (full["items"], forecast["writeUnits"]) == (40, 80)
    assert empty["forecast"]["writeUnits"] == 0
    assert forecast["totalSeconds"] >= forecast["restoreSeconds"] == 3600
    assert forecast["boundBy"] == "restore"
    assert plan["forecast"]["usd"] > 0
    assert "up to six hours old" in " ".join(plan["forecast"]["assumptions"])

    dear = validate(protected.start_execution("dear"), request(dryRun=True), prices={"transitionThousand": 25.0})
    assert dear["tables"][1]["forecast"]["usd"] > 100 * forecast["usd"]
    with pytest.raises(ValueError, match="unknown key"):
        validate(protected.start_execution("wrong"), request(dryRun=True), prices={"transition": 25.0})


def test_the_forecast_of_the_first_start_is_kept(protected: Aws) -> None:
    """The report compares with what was forecast of a half-purged table; or a plan of many tables outgrows a state."""
    execution = protected.start_execution("first")
    plan = validate(execution)
    assert "forecast" not in plan
    assert all("forecast" not in table for table in plan["tables"])
    kept = ledger_items(protected.dynamodb)["INCIDENT#incident", "FORECAST"]
    put_all(protected.dynamodb, "test-licenses", make_items((("id", "S"),), 40))
    fail(protected, execution)
    assert validate(protected.start_execution("second"))["resumed"] is True
    assert ledger_items(protected.dynamodb)["INCIDENT#incident", "FORECAST"] == kept
    assert set(json.loads(kept["kept"]["S"])["tables"]) == set(TABLES)


REFUSALS: dict[str, tuple[Any, type[Exception]]] = {
    "no object": ("x", errors.InvalidRequest),
    "null": (None, errors.InvalidRequest),
    "misspelt dryRun": (request(dryrun=True), errors.InvalidRequest),
    "unknown mode": (request(mode="incremental"), errors.InvalidRequest),
    "no tables": (request(tables=[]), errors.InvalidRequest),
    "listed twice": (request(tables=only("test-licenses", "test-licenses")), errors.InvalidRequest),
    "not confirmed": (request(tables=[{"tableName": "test-licenses"}]), errors.ConfirmationMismatch),
    "sensitive": (request(tables=only("test-licenses", "test-ssn")), errors.SensitiveTable),
    "unknown": (request(tables=only("other-teams")), errors.UnknownTable),
    "does not exist": (request(tables=only("test-licenses", "test-missing")), errors.UnknownTable),
    "too early": (request(restoreDateTime=to_iso(EARLIEST - timedelta(seconds=1))), errors.RestoreTimeOutOfRange),
    "too late": (request(restoreDateTime=to_iso(LATEST + timedelta(seconds=1))), errors.RestoreTimeOutOfRange),
    "future": (request(restoreDateTime=to_iso(NOW + timedelta(days=1))), errors.RestoreTimeOutOfRange),
    "fraction": (request(restoreDateTime="2026-11-20T09:00:00.5Z"), errors.InvalidRequest),
    "no offset": (request(restoreDateTime="2026-11-20T09:00:00"), errors.InvalidRequest),
}


@pytest.mark.parametrize(("value", "error"), REFUSALS.values(), ids=REFUSALS.keys())
def test_refusals(protected: Aws, value: Any, error: type[Exception]) -> None:
    """A refused request leaves a lock or a record behind; or is not refused."""
    with pytest.raises(error, match=r"Expected|leave it out"):
        validate(protected.start_execution("refused"), value)
    assert ledger_items(protected.dynamodb) == {}


@pytest.mark.parametrize("moment", [EARLIEST, LATEST], ids=["earliest", "latest"])
def test_the_edges_of_the_window_belong_to_it(protected: Aws, moment: datetime) -> None:
    """The oldest good state is refused although DynamoDB would restore it."""
    assert validate(protected.start_execution("edge"), request(restoreDateTime=to_iso(moment)))["tables"]


def test_one_table_without_pitr(protected: Aws) -> None:
    """The lack is found out after the other tables were frozen and restored."""
    protected.dynamodb.update_continuous_backups(
        TableName="test-licenses", PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": False}
    )
    with pytest.raises(errors.RestoreTimeOutOfRange, match="PITR is switched off on table test-licenses"):
        validate(protected.start_execution("refused"))
    assert ledger_items(protected.dynamodb) == {}


def test_a_recovery_that_is_running(protected: Aws) -> None:
    """Two recoveries run at once, or the refused one takes the running one's locks away."""
    validate(protected.start_execution("first"))
    before = ledger_items(protected.dynamodb)
    for value in (request(incidentId="other"), request(), request(incidentId="dry", dryRun=True)):
        with pytest.raises(errors.RecoveryInProgress, match="ENVIRONMENT"):
            validate(protected.start_execution(f"second-{value['incidentId']}"), value)
    assert ledger_items(protected.dynamodb) == before


def test_a_hard_reset_that_is_running(protected: Aws) -> None:
    """A table that somebody resets by hand is recovered at the same time; or the other locks stay taken."""
    owner = protected.start_execution("by-hand")
    hold_lock(protected.dynamodb, "TABLE#test-licenses", owner, incident="i")
    with pytest.raises(errors.RecoveryInProgress, match="TABLE#test-licenses"):
        validate(protected.start_execution("first"))
    assert lock_names(protected.dynamodb) == {"TABLE#test-licenses": owner}
    # The reset of a table that this recovery is not about: it would end under functions that are released around it.
    with pytest.raises(errors.RecoveryInProgress, match="TABLE#test-licenses"):
        validate(protected.start_execution("second"), request(tables=only("test-languages")))
    assert lock_names(protected.dynamodb) == {"TABLE#test-licenses": owner}
    protected.abort(owner)
    assert validate(protected.start_execution("third"), request(tables=only("test-languages")))["tables"]


def test_a_lock_that_is_taken_in_the_last_moment(protected: Aws) -> None:
    """Between check and acquisition another execution takes a table: the locks taken before it are kept for ever."""
    owner, execution = protected.start_execution("by-hand"), protected.start_execution("first")

    def interfere(**_: Any) -> None:
        hold_lock(protected.dynamodb, "TABLE#test-licenses", owner, incident="i")

    runtime.client("dynamodb").meta.events.register("before-call.dynamodb.PutItem", interfere)
    with pytest.raises(errors.RecoveryInProgress, match="TABLE#test-licenses"):
        validate(execution)
    assert lock_names(protected.dynamodb) == {"TABLE#test-licenses": owner}
    assert ledger_items(protected.dynamodb, "INCIDENT#") == {}


def test_the_locks_of_an_aborted_execution(protected: Aws) -> None:
    """An aborted recovery keeps its locks: the operator can never start again."""
    first = protected.start_execution("first")
    validate(first)
    protected.abort(first)
    second = protected.start_execution("second")
    assert validate(second)["resumed"] is True
    assert set(lock_names(protected.dynamodb).values()) == {second}


def test_killed_between_locks_and_record(protected: Aws) -> None:
    """The worker dies holding locks without an incident: neither a retry nor the next execution gets in."""
    first = protected.start_execution("first")
    fault = FailCalls(runtime.client("dynamodb"), "PutItem", KilledError, lambda call: call == 4)
    with fault, pytest.raises(KilledError):
        validate(first)
    assert len(lock_names(protected.dynamodb)) == 3
    assert validate(first)["incidentId"] == "incident"
    protected.abort(first)
    assert validate(protected.start_execution("second"))["resumed"] is True


def test_a_resumption_does_not_need_the_window_any_more(protected: Aws) -> None:
    """The restored table is there, and the incident is refused because its time has left the PITR window since."""
    first = protected.start_execution("first")
    plan = validate(first)
    fail(protected, first)
    for table in plan["tables"]:
        protected.restore(table["tableName"], table["restoredTableName"], TIME)
        protected.set_pitr_window(table["tableName"], TIME + timedelta(minutes=1), LATEST)
    resumed = validate(protected.start_execution("second"))
    assert resumed == {**plan, "resumed": True, "settledAt": resumed["settledAt"]}


def test_a_table_that_only_bears_the_name_of_the_restored_one(protected: Aws) -> None:
    """A table that merely bears the name of the restored one is taken for a restore that never happened."""
    plan = validate(protected.start_execution("dry"), request(dryRun=True))
    for table in plan["tables"]:
        create_table(protected.dynamodb, table["restoredTableName"])
        protected.set_pitr_window(table["tableName"], TIME + timedelta(minutes=1), LATEST)
    with pytest.raises(errors.InvalidRequest, match="exists, but is not test-languages restored to"):
        validate(protected.start_execution("first"))
    assert ledger_items(protected.dynamodb) == {}


def test_a_resumption_without_the_restored_table_needs_the_window(protected: Aws) -> None:
    """The restored table is gone and its time too: the failure comes hours later, with the functions frozen."""
    first = protected.start_execution("first")
    validate(first)
    fail(protected, first)
    protected.set_pitr_window("test-licenses", TIME + timedelta(minutes=1), LATEST)
    with pytest.raises(errors.RestoreTimeOutOfRange, match="test-licenses"):
        validate(protected.start_execution("second"))


@pytest.mark.parametrize(
    "changes", [{"restoreDateTime": to_iso(TIME - timedelta(hours=1))}, {"tables": only("test-licenses")}]
)
def test_a_resumption_that_asks_for_something_else(protected: Aws, changes: dict[str, Any]) -> None:
    """One incident restores some tables to one time and others to another."""
    first = protected.start_execution("first")
    validate(first)
    fail(protected, first)
    before = ledger_items(protected.dynamodb)
    with pytest.raises(errors.InvalidRequest, match="Expected the same on every start"):
        validate(protected.start_execution("second"), request(**changes))
    assert ledger_items(protected.dynamodb) == before


def test_an_incident_that_is_over(protected: Aws) -> None:
    """The operator starts a finished incident by mistake, and everything since is overwritten."""
    first = protected.start_execution("first")
    validate(first)
    outcome = {"wholeIncident": True, "incidentId": "incident", "executionArn": first, "error": None, "cause": None}
    assert invoke(record_outcome.handler, outcome)["recorded"] is True
    give_up_locks(first)
    assert lock_names(protected.dynamodb) == {}
    protected.abort(first)
    before = ledger_items(protected.dynamodb)
    with pytest.raises(errors.InvalidRequest, match="Expected an unfinished one"):
        validate(protected.start_execution("second"))
    assert ledger_items(protected.dynamodb) == before


def test_finished_tables_are_left_out(protected: Aws) -> None:
    """A resumption resets a table that is recovered and verified already."""
    first = protected.start_execution("first")
    restored = {table["tableName"]: table["restoredTableName"] for table in validate(first)["tables"]}
    fail(protected, first)
    protected.dynamodb.put_item(
        TableName=LEDGER,
        Item={
            "pk": {"S": "INCIDENT#incident"},
            "sk": {"S": "TABLE#test-licenses"},
            "phase": {"S": "verified"},
            "sourceTableName": {"S": restored["test-licenses"]},
            "summary": {"S": '{"tableName": "test-licenses", "verified": true}'},
        },
    )
    plan = validate(protected.start_execution("second"))
    assert [table["tableName"] for table in plan["tables"]] == ["test-languages"]
    assert plan["finishedTables"] == [{"tableName": "test-licenses", "verified": True}]
    assert len(plan["temporaryTables"]) == 2


def by_hand(aws: Aws, incident: str, source: str = "dr-test.by-hand") -> Steps:
    """A hard reset of test-licenses that was started by hand."""
    create_table(aws.dynamodb, source)
    steps = Steps(execution_arn=aws.start_execution("by-hand"), incident_id=incident, source=source)
    assert steps.preflight()["phase"] == "purge"
    return steps


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_running_hard_reset_of_a_table_outside_the_recovery(protected: Aws, dry_run: bool) -> None:
    """Functions are released around a table that is being purged, because the recovery looks at its own tables only."""
    steps = by_hand(protected, "theirs")
    before = ledger_items(protected.dynamodb)
    value = request(tables=only("test-languages"), dryRun=dry_run)
    with pytest.raises(errors.RecoveryInProgress, match=r"(?=.*'theirs')(?=.*TABLE#test-licenses)"):
        validate(protected.start_execution("first"), value)
    assert ledger_items(protected.dynamodb) == before
    steps.unlock()
    assert validate(protected.start_execution("second"), value)["tables"]


def test_a_hard_reset_that_starts_in_the_last_moment(protected: Aws) -> None:
    """It locks between the look and the lock: the recovery keeps the environment, or goes on beside it."""
    owner, execution = protected.start_execution("by-hand"), protected.start_execution("first")

    def interfere(**_: Any) -> None:
        hold_lock(protected.dynamodb, "TABLE#test-licenses", owner, incident="theirs")

    runtime.client("dynamodb").meta.events.register("before-call.dynamodb.PutItem", interfere)
    with pytest.raises(errors.RecoveryInProgress, match="TABLE#test-licenses"):
        validate(execution, request(tables=only("test-languages")))
    assert lock_names(protected.dynamodb) == {"TABLE#test-licenses": owner}
    assert ledger_items(protected.dynamodb, "INCIDENT#") == {}


@pytest.mark.parametrize("tables", [TABLES, ("test-licenses",), ("test-languages",)], ids=["both", "same", "other"])
def test_an_incident_that_was_used_by_hand(protected: Aws, tables: tuple[str, ...]) -> None:
    """A table that was reset from something else counts as recovered to this incident's restore point."""
    by_hand(protected, "incident").unlock()
    before = ledger_items(protected.dynamodb)
    with pytest.raises(errors.InvalidRequest, match=r"hard reset of test-licenses from dr-test\.by-hand. Expected"):
        validate(protected.start_execution("first"), request(tables=only(*tables)))
    assert ledger_items(protected.dynamodb) == before
    assert validate(protected.start_execution("second"), request(incidentId="of-its-own"))["tables"]


def another_time(aws: Aws, name: str) -> None:
    """A restore of this table to a second later."""
    aws.restore("test-licenses", name, TIME + timedelta(seconds=1))


def another_table(aws: Aws, name: str) -> None:
    """A restore of another table to this time."""
    aws.restore("test-languages", name, TIME)


def no_restore(aws: Aws, name: str) -> None:
    """A table that somebody made."""
    create_table(aws.dynamodb, name)


@pytest.mark.parametrize("make", [another_time, another_table, no_restore])
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_table_in_the_place_of_the_restored_one(
    protected: Aws, make: Callable[[Aws, str], None], dry_run: bool
) -> None:
    """A table is recovered to another time or from another table's items, proven equal, and nobody sees it."""
    plan = validate(protected.start_execution("look"), request(dryRun=True))
    (name,) = (table["restoredTableName"] for table in plan["tables"] if table["tableName"] == "test-licenses")
    make(protected, name)
    protected.set_pitr_window("test-languages", EARLIEST, LATEST)
    protected.set_pitr_window("test-licenses", EARLIEST, LATEST)
    with pytest.raises(errors.InvalidRequest, match="exists, but is not test-licenses restored to"):
        validate(protected.start_execution("first"), request(dryRun=dry_run))
    assert ledger_items(protected.dynamodb) == {}


def test_a_fresh_recovery_waits_for_nobody(protected: Aws) -> None:
    """Every recovery begins with sixteen minutes of waiting."""
    for dry_run in (True, False):
        plan = validate(protected.start_execution(f"first-{dry_run}"), request(dryRun=dry_run))
        assert NOW <= from_iso(plan["settledAt"]) <= datetime.now(UTC)


@pytest.mark.parametrize("lock", ["ENVIRONMENT", "TABLE#test-languages", "TABLE#test-licenses"])
def test_any_lock_that_was_taken_over_has_to_settle(protected: Aws, lock: str) -> None:
    """A stray worker of an aborted execution, or of a child of it, is still at work when the recovery freezes."""
    owner = protected.start_execution("aborted")
    hold_lock(protected.dynamodb, lock, owner, incident="theirs")
    protected.abort(owner)
    stopped = protected.stepfunctions.describe_execution(executionArn=owner)["stopDate"]
    execution = protected.start_execution("first")
    settled_at = validate(execution)["settledAt"]
    assert settled_at == to_iso(stopped + timedelta(seconds=960))
    kept = {key[1]: item.get("settledAt") for key, item in ledger_items(protected.dynamodb, "LOCK").items()}
    assert kept[lock] == {"S": settled_at}
    assert validate(execution)["settledAt"] == settled_at  # a retried invocation waits as long


def test_the_latest_of_all_taken_over_locks_counts(protected: Aws) -> None:
    """The wait ends with the first lock's workers, and another table's are still alive."""
    late = to_iso(NOW + timedelta(hours=1))
    owner = protected.start_execution("aborted")
    hold_lock(protected.dynamodb, "ENVIRONMENT", owner)
    hold_lock(protected.dynamodb, "TABLE#test-languages", owner, settled_at=late)
    hold_lock(protected.dynamodb, "TABLE#test-licenses", owner)
    protected.abort(owner)
    first = protected.start_execution("first")
    assert validate(first)["settledAt"] == late
    protected.abort(first)
    assert validate(protected.start_execution("second"))["settledAt"] == late
