"""How executions end: what is recorded, what stays frozen, which locks go, what is reported, and who may follow."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from handlers import freeze_functions, record_outcome, release_functions, runtime, validate_request, write_report
from handlers.core import errors
from handlers.core.clock import from_iso, to_iso
from handlers.core.tables import restored_table_name

from .conftest import Aws
from .fake_lambda import FakeFunction, FakeLambda, FakeMapping, FakeTagging
from .support import (
    ACCOUNT,
    BUCKET,
    REGION,
    Context,
    FailCalls,
    Steps,
    begin_resets,
    create_table,
    give_up_locks,
    hold_lock,
    invoke,
    ledger_items,
    lock_names,
    make_items,
    put_all,
    scan_all,
    stand_in,
    throttling,
)

NOW = datetime.now(UTC).replace(microsecond=0)
TABLES = ("test-languages", "test-licenses")
KEY = (("id", "S"),)


def validate(
    execution: str, *, incident: str = "incident", tables: tuple[str, ...] = TABLES, hours: int = 1, **more: Any
) -> Any:
    """Validate, lock and open."""
    return invoke(
        validate_request.handler,
        {
            "request": {
                "incidentId": incident,
                "restoreDateTime": to_iso(NOW - timedelta(hours=hours)),
                "tables": [{"tableName": name, "tableNameRecoveryConfirmation": name} for name in tables],
                **more,
            },
            "executionArn": execution,
            "environment": "test",
            "protectedTables": {name: {"segments": 2} for name in TABLES},
            "sensitiveTables": ["test-ssn"],
        },
    )


def record(
    execution: str, error: Any = None, cause: Any = None, *, incident: Any = "incident", whole: bool = True
) -> Any:
    """Record an outcome; success unless ``error`` is given."""
    event = {
        "wholeIncident": whole,
        "incidentId": incident,
        "executionArn": execution,
        "error": error,
        "cause": cause,
    }
    return invoke(record_outcome.handler, event)


@pytest.fixture
def first(aws: Aws) -> str:
    """An execution that has opened the incident of two tables."""
    for name in TABLES:
        create_table(aws.dynamodb, name)
        put_all(aws.dynamodb, name, make_items(KEY, 3, rich=False))
        aws.set_pitr_window(name, NOW - timedelta(days=1), NOW)
    execution = aws.start_execution("first")
    assert len(validate(execution)["tables"]) == 2
    return execution


def reset(aws: Aws, table: str, plan_only: bool = False, *, incident: str = "incident", name: str = "reset") -> Steps:
    """Prepare the hard reset of a table by a child execution; unless ``plan_only``, run it to its end."""
    asked = json.loads(run_record(aws, incident)["request"]["S"])
    moment = from_iso(asked["restoreDateTime"])
    source = restored_table_name("test", table, moment, incident)
    aws.restore(table, source, moment)
    put_all(aws.dynamodb, source, make_items(KEY, 4, rich=False))
    # The orchestrator's lock is there: the child takes it from its parent.
    steps = Steps(
        execution_arn=aws.start_execution(f"{name}-{table}"),
        incident_id=incident,
        source=source,
        table=table,
        segments=2,
        parent=lock_names(aws.dynamodb)[f"TABLE#{table}"],
    )
    begin_resets(aws.dynamodb, steps.parent, incident)
    plan = steps.preflight()
    if not plan_only:
        steps.empty(plan)
        steps.copy(plan)
        steps.digest(plan)
        assert steps.verify(plan)["verified"] is True
        steps.unlock()
    return steps


def run_record(aws: Aws, incident: str = "incident") -> dict[str, Any]:
    """The incident's record."""
    return ledger_items(aws.dynamodb)[f"INCIDENT#{incident}", "RUN"]


def test_a_failure_before_any_purge_releases(aws: Aws, first: str) -> None:
    """The system stays down although not one item was touched."""
    answer = record(first, "RestoreNotActive", "The restored table is CREATING.")
    assert answer["error"] == "RestoreNotActive"
    assert "The restored table is CREATING." in answer["cause"]
    assert (answer["recorded"], answer["stayFrozen"]) == (True, False)
    assert run_record(aws)["status"] == {"S": "FAILED"}
    assert run_record(aws)["error"] == {"S": "RestoreNotActive"}


def test_a_failure_after_preflight_releases(aws: Aws, first: str) -> None:
    """A reset that was only planned counts as one that purged."""
    reset(aws, "test-licenses", plan_only=True)
    assert record(first, "X", "y")["stayFrozen"] is False


def test_a_child_that_outlives_its_parent_purges_nothing(aws: Aws, first: str) -> None:
    """The functions are released on a table that a child, which Step Functions failed to stop, purges after that."""
    child = reset(aws, "test-licenses", plan_only=True)
    plan = child.preflight()
    before = scan_all(aws.dynamodb, "test-licenses")
    assert before
    assert record(first, "States.Timeout", "y")["stayFrozen"] is False
    lock = ledger_items(aws.dynamodb)["LOCK", "TABLE#test-licenses"]
    assert lock["owner"]["S"] == first
    assert from_iso(lock["settledAt"]["S"]) > datetime.now(UTC) + timedelta(minutes=15)
    with pytest.raises(errors.StaleWorker):
        child.purge(plan, lambda: Context(seconds=900))
    assert scan_all(aws.dynamodb, "test-licenses") == before
    # A child that only begins now finds the door closed, and takes nothing along.
    later = replace(child, execution_arn=aws.start_execution("later"))
    with pytest.raises((errors.StaleWorker, errors.InvalidRequest)):
        later.preflight()
    assert lock_names(aws.dynamodb)["TABLE#test-licenses"] == first


def test_a_lock_taken_back_of_one_that_ended_is_not_waited_for_anew(aws: Aws, first: str) -> None:
    """A resumption waits sixteen minutes that are long over."""
    child = reset(aws, "test-licenses", plan_only=True)
    aws.abort(child.execution_arn)
    ended = runtime.client("stepfunctions").describe_execution(executionArn=child.execution_arn)["stopDate"]
    record(first, "X", "y")
    lock = ledger_items(aws.dynamodb)["LOCK", "TABLE#test-licenses"]
    assert (lock["owner"]["S"], lock["settledAt"]["S"]) == (first, to_iso(ended + timedelta(seconds=960)))


def test_streams_to_be_skipped_are_not_released_by_another_incident(aws: Aws, first: str) -> None:
    """The incident of another table releases everything, and the consumers get the reset that was to be discarded."""
    validate(first, tables=("test-licenses", "test-languages"), streamPolicy="discard")
    reset(aws, "test-licenses")
    reset(aws, "test-languages")
    assert record(first, "DiscardIncomplete", "y")["stayFrozen"] is True
    give_up_locks(first)
    with pytest.raises(errors.RecoveryInProgress, match="skip"):
        validate(aws.start_execution("other"), incident="other", tables=("test-languages",), hours=2)
    assert validate(aws.start_execution("again"))["streamPolicy"] == "discard", "left out: as at the last start"


def test_locks_of_others_are_not_taken_back(aws: Aws, first: str) -> None:
    """A failing orchestrator takes the lock from under a reset of another incident."""
    hold_lock(aws.dynamodb, "TABLE#test-licenses", "somebody-else", incident="another")
    record(first, "X", "y")
    assert lock_names(aws.dynamodb)["TABLE#test-licenses"] == "somebody-else"


def test_a_failure_after_a_purge_began_keeps_the_functions_frozen(aws: Aws, first: str) -> None:
    """The functions are released on a table of which half the items are gone."""
    steps = reset(aws, "test-licenses", plan_only=True)
    plan = steps.preflight()
    steps.purge(plan, lambda: Context(seconds=900))
    answer = record(first, "VerificationFailed", json.dumps({"errorMessage": "Differs.", "errorType": "Differs"}))
    assert (answer["error"], answer["recorded"], answer["stayFrozen"]) == ("Differs", True, True)
    assert "stay frozen" in answer["cause"]
    assert "stay frozen" in run_record(aws)["cause"]["S"]


def test_one_verified_table_of_two_is_not_enough(aws: Aws, first: str) -> None:
    """The functions are released while one table is recovered and the other one still damaged."""
    reset(aws, "test-licenses")
    assert record(first, "X", "y")["stayFrozen"] is True


def test_a_failure_after_every_table_is_verified_releases(aws: Aws, first: str) -> None:
    """The report could not be written, and the recovered system stays down for it."""
    reset(aws, "test-licenses")
    reset(aws, "test-languages")
    answer = record(first, "X", "y")
    assert (answer["stayFrozen"], answer["recorded"]) == (False, True)
    assert run_record(aws)["status"] == {"S": "FAILED"}


@pytest.mark.parametrize("error", ["DiscardIncomplete", "RecoveryAborted"])
def test_streams_that_are_not_skipped_keep_the_functions_frozen(aws: Aws, first: str, error: str) -> None:
    """The functions are released, and their consumers get the reset that the operator wanted to be discarded."""
    validate(first, streamPolicy="discard")
    reset(aws, "test-licenses")
    reset(aws, "test-languages")
    answer = record(first, error, "The mapping m-1 does not discard. Look, then start the same incident again.")
    assert (answer["stayFrozen"], answer["recorded"]) == (True, True)
    assert answer["error"] == error
    assert ("have not skipped" in answer["cause"]) is (error != "DiscardIncomplete")


def test_streams_that_were_skipped_keep_nothing_frozen(aws: Aws, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One function cannot be put back, and all the others go back to zero for records that were discarded long ago."""
    functions = FakeLambda()
    stand_in(monkeypatch, {"lambda": functions, "resourcegroupstaggingapi": FakeTagging({})})
    validate(first, streamPolicy="discard")
    reset(aws, "test-licenses")
    reset(aws, "test-languages")
    event = {"incidentId": "incident", "executionArn": first, "discard": False, "recovered": True, "polls": 0}
    invoke(release_functions.handler, event)
    assert record(first, "ReleaseIncomplete", "y")["stayFrozen"] is False


def test_success(aws: Aws, first: str) -> None:
    """A success is not recorded, and the incident can be started over the recovered tables."""
    assert record(first) == {"error": "", "cause": "", "recorded": True, "stayFrozen": False}
    assert run_record(aws)["status"] == {"S": "SUCCEEDED"}


@pytest.mark.parametrize("error", ["", "States.TaskFailed"])
def test_a_failure_without_a_name_is_no_success(aws: Aws, first: str, error: str) -> None:
    """A child failed without a name: recorded as success, functions released on a purged table."""
    steps = reset(aws, "test-licenses", plan_only=True)
    steps.purge(steps.preflight())
    answer = record(first, error, json.dumps({"Error": "", "Cause": ""}))
    assert answer["error"]
    assert answer["stayFrozen"] is True
    assert run_record(aws)["status"] == {"S": "FAILED"}


def test_a_refused_execution_records_nothing(aws: Aws, first: str) -> None:
    """A second start that was refused marks the running incident as failed, and releases its functions."""
    before = ledger_items(aws.dynamodb)
    answer = record(aws.start_execution("second"), "RecoveryInProgress", "x")
    assert (answer["recorded"], answer["stayFrozen"], answer["error"]) == (False, False, "RecoveryInProgress")
    assert first
    assert ledger_items(aws.dynamodb) == before


@pytest.mark.parametrize("incident", [None, 5, ["incident"], {"a": 1}, "unknown"])
def test_a_request_without_an_incident(aws: Aws, first: str, incident: Any) -> None:
    """A malformed request crashes the recording of its own refusal: the operator sees that instead."""
    before = ledger_items(aws.dynamodb)
    assert record(first, "InvalidRequest", "x", incident=incident)["recorded"] is False
    give_up_locks(aws.start_execution("second"), incident=incident)
    assert ledger_items(aws.dynamodb) == before


@pytest.mark.parametrize("incident", ["", "i" * 3000, "a\x00b", " incident", "\ud800"])
def test_an_incident_that_cannot_be_one_is_not_looked_up(aws: Aws, first: str, incident: str) -> None:
    """DynamoDB refuses a key of more than 2,048 bytes: the refusal is hidden behind that, after minutes of retries."""
    client = runtime.client("dynamodb")
    # Whatever the emulator takes: nothing is asked at all.
    with FailCalls(client, "GetItem", lambda: throttling("GetItem"), lambda _: True) as asked:
        assert record(first, "InvalidRequest", "x", incident=incident)["recorded"] is False
        give_up_locks(first, incident=incident)
    assert asked.calls == 0
    assert len(lock_names(aws.dynamodb)) == 3


@pytest.mark.parametrize("parent", [7.5, ["a"], {"a": None}, True])
def test_a_parent_that_cannot_be_one_has_lent_no_lock(aws: Aws, first: str, parent: Any) -> None:
    """A refused hard reset crashes while it gives up locks it never had; or gives somebody's lock to a number."""
    before = ledger_items(aws.dynamodb)
    give_up_locks(first, "test-licenses", parent=parent)
    assert ledger_items(aws.dynamodb) == before


def test_a_hard_reset_explains_and_records_nothing(aws: Aws, first: str) -> None:
    """A child that fails closes its parent's incident."""
    before = ledger_items(aws.dynamodb)
    cause = json.dumps({"errorMessage": "Stop that writer, then start again.", "errorType": "DestinationNotEmpty"})
    answer = record(first, "DestinationNotEmpty", cause, whole=False)
    assert answer == {
        "error": "DestinationNotEmpty",
        "cause": "Stop that writer, then start again.",
        "recorded": False,
        "stayFrozen": False,
    }
    assert ledger_items(aws.dynamodb) == before


def test_unlock_gives_up_every_lock_of_its_own(aws: Aws, first: str) -> None:
    """A lock stays behind on every success."""
    assert len(lock_names(aws.dynamodb)) == 3
    give_up_locks(first)
    assert lock_names(aws.dynamodb) == {}
    give_up_locks(first)


def test_unlock_leaves_the_locks_of_others(aws: Aws, first: str) -> None:
    """A refused execution frees the running one's locks: a third one starts beside it."""
    second = aws.start_execution("second")
    give_up_locks(second)
    give_up_locks(second, "test-licenses")
    assert set(lock_names(aws.dynamodb).values()) == {first}
    assert len(lock_names(aws.dynamodb)) == 3
    child = reset(aws, "test-licenses", plan_only=True).execution_arn
    give_up_locks(first)
    assert lock_names(aws.dynamodb) == {"TABLE#test-licenses": child}
    give_up_locks(child, "test-languages", parent=first)
    assert lock_names(aws.dynamodb) == {"TABLE#test-licenses": child}
    give_up_locks(child, "test-licenses")
    assert lock_names(aws.dynamodb) == {}


def report(execution: str, status: str = "SUCCEEDED", error: str = "", cause: str = "") -> Any:
    """Write a report."""
    event = {
        "incidentId": "incident",
        "executionArn": execution,
        "status": status,
        "error": error,
        "cause": cause,
    }
    return invoke(write_report.handler, event)


def use(monkeypatch: pytest.MonkeyPatch, fake: FakeLambda) -> None:
    """Put the stand-in for Lambda (see there why) into the two handlers that need it."""
    stand_in(monkeypatch, {"lambda": fake, "resourcegroupstaggingapi": FakeTagging(fake.functions)})


STREAM = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{TABLES[0]}/stream/2026-11-20T08:00:00.000"


def freeze(execution: str, incident: str = "incident") -> None:
    """Freeze every function of the system."""
    selection: dict[str, Any] = {"namePrefix": "test-app-", "tag": None, "exclude": [], "eventSourceMappings": True}
    event = {
        "incidentId": incident,
        "executionArn": execution,
        "selection": selection,
        "plan": False,
        "pass": 1,
        "polls": 0,
        "tables": TABLES,
    }
    assert invoke(freeze_functions.handler, event)["complete"] is True


def release(execution: str, incident: str = "incident") -> Any:
    """Release them."""
    event = {"incidentId": incident, "executionArn": execution, "discard": False, "recovered": False, "polls": 0}
    return invoke(release_functions.handler, event)


def test_the_report(aws: Aws, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output lacks what the contract promises, or what is stored is not what is answered."""
    use(monkeypatch, FakeLambda({"test-app-a": FakeFunction(5), "test-app-b": FakeFunction(None)}))
    freeze(first)
    reset(aws, "test-licenses")
    reset(aws, "test-languages")
    assert release(first)["functions"] == 2
    output = report(first)
    assert (output["incidentId"], output["status"]) == ("incident", "SUCCEEDED")
    assert (output["frozenFunctions"], output["releasedFunctions"]) == (2, 2)
    assert [table["tableName"] for table in output["tables"]] == list(TABLES)
    assert all(table["verified"] is True and table["copiedItems"] == 4 for table in output["tables"])
    # The forecast is of the tables as they were at the start, with three items each; four were copied.
    for table in output["tables"]:
        assert (table["forecast"]["writeUnits"], table["forecast"]["restoreSeconds"]) == (6, 3600)
        capacity = table["consumedCapacity"]
        # At list prices at least what its units cost on demand: moto's tables are.
        least = capacity["writeUnits"] / 1e6 * 0.625 + capacity["readUnits"] / 1e6 * 0.125
        assert least < table["usd"] < least + 1
    assert "error" not in output
    key = output["reportUri"].removeprefix(f"s3://{BUCKET}/")
    stored = json.loads(aws.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    assert {name: stored[name] for name in output} == output
    settings = {entry["functionName"]: entry["reservedConcurrency"] for entry in stored["functions"]}
    assert settings == {"test-app-a": 5, "test-app-b": None}
    assert stored["executionArn"] == first
    assert stored["startedAt"] <= stored["reportedAt"]


def test_the_report_of_a_failure(aws: Aws, first: str) -> None:
    """A table that was not recovered is missing from the report, or appears as verified."""
    reset(aws, "test-licenses")
    output = report(first, "FAILED", "X", "Because.")
    assert (output["status"], output["error"], output["cause"]) == ("FAILED", "X", "Because.")
    assert [table["verified"] for table in output["tables"]] == [False, True]
    assert ["usd" in table for table in output["tables"]] == [False, True]
    assert all(table["forecast"]["totalSeconds"] >= 3600 for table in output["tables"])
    assert (output["frozenFunctions"], output["releasedFunctions"]) == (0, 0)


def test_reports_do_not_overwrite_each_other(aws: Aws, first: str) -> None:
    """The report of the failure is gone once the resumed execution has reported its success."""
    one = report(first, "FAILED", "X", "y")["reportUri"]
    two = report(aws.start_execution("second"))["reportUri"]
    assert one != two
    assert len(aws.s3.list_objects_v2(Bucket=BUCKET)["Contents"]) == 2


# --- another incident after one that failed half-way --------------------------------------------------------------


@pytest.fixture
def half_way(aws: Aws, first: str, monkeypatch: pytest.MonkeyPatch) -> FakeLambda:
    """The first incident has frozen the functions, purged a table, failed and ended."""
    fake = FakeLambda({"test-app-a": FakeFunction(5), "test-app-b": FakeFunction(None)})
    use(monkeypatch, fake)
    freeze(first)
    steps = reset(aws, "test-licenses", plan_only=True)
    steps.purge(steps.preflight())
    steps.unlock()
    assert lock_names(aws.dynamodb)["TABLE#test-licenses"] == first
    assert record(first, "X", "y")["stayFrozen"] is True
    give_up_locks(first)
    aws.abort(first)
    assert lock_names(aws.dynamodb) == {}
    assert fake.settings()[0] == {"test-app-a": 0, "test-app-b": 0}
    return fake


def test_another_incident_takes_over(aws: Aws, half_way: FakeLambda) -> None:
    """The zeros of the first incident are the second's originals: it succeeds, and the system stays down."""
    second = aws.start_execution("second")
    assert validate(second, incident="better-time", hours=2)["resumed"] is False
    freeze(second, "better-time")
    for table in TABLES:
        reset(aws, table, incident="better-time", name="better")
    assert release(second, "better-time")["functions"] == 2
    assert half_way.settings()[0] == {"test-app-a": 5, "test-app-b": None}
    assert record(second, incident="better-time")["recorded"] is True
    assert run_record(aws)["status"] == {"S": "SUPERSEDED"}
    give_up_locks(second, incident="better-time")
    aws.abort(second)
    with pytest.raises(errors.InvalidRequest, match="SUPERSEDED"):
        validate(aws.start_execution("third"))
    assert validate(aws.start_execution("fourth"), incident="much-later", tables=("test-licenses",))["tables"]


def test_another_incident_must_include_the_half_restored_tables(aws: Aws, half_way: FakeLambda) -> None:
    """The second incident recovers one table, and releases the functions on the other, which is half purged."""
    before = ledger_items(aws.dynamodb)
    with pytest.raises(errors.RecoveryInProgress, match="lacks test-licenses"):
        validate(aws.start_execution("second"), incident="other", tables=("test-languages",))
    assert ledger_items(aws.dynamodb) == before
    assert set(half_way.settings()[0].values()) == {0}


def test_the_second_incident_fails_before_it_purges(aws: Aws, half_way: FakeLambda) -> None:
    """It has purged nothing itself: the functions are released on what the first one left half purged."""
    second = aws.start_execution("second")
    validate(second, incident="better-time", hours=2)
    freeze(second, "better-time")
    assert record(second, "RestoreNotActive", "x", incident="better-time")["stayFrozen"] is True
    give_up_locks(second, incident="better-time")
    aws.abort(second)
    third = aws.start_execution("third")
    assert validate(third, incident="better-time", hours=2)["resumed"] is True
    assert record(third, "RestoreNotActive", "x", incident="better-time")["stayFrozen"] is True
    assert set(half_way.settings()[0].values()) == {0}


def test_the_same_incident_goes_on(aws: Aws, half_way: FakeLambda) -> None:
    """The first incident's own resumption is refused because of itself."""
    second = aws.start_execution("second")
    assert validate(second)["resumed"] is True
    freeze(second)
    assert release(second)["functions"] == 2
    assert half_way.settings()[0] == {"test-app-a": 5, "test-app-b": None}


@pytest.mark.parametrize("table", TABLES)
def test_a_reset_by_hand_of_a_half_restored_incident_is_refused(aws: Aws, half_way: FakeLambda, table: str) -> None:
    """One table is reset by hand to another time, and the incident's resumption releases the functions on the mix."""
    moment = NOW - timedelta(hours=2)
    aws.restore(table, "dr-test.by-hand", moment)
    steps = Steps(
        execution_arn=aws.start_execution("by-hand"), incident_id="by-hand", source="dr-test.by-hand", table=table
    )
    before = ledger_items(aws.dynamodb)
    with pytest.raises(errors.RecoveryInProgress, match=f"'incident' has not finished {table}"):
        steps.preflight()
    assert ledger_items(aws.dynamodb) == before
    assert set(half_way.settings()[0].values()) == {0}


def test_the_report_names_event_source_mappings(aws: Aws, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that stays off after the recovery is in no report: nobody looks for it."""
    fake = FakeLambda(
        {"test-app-a": FakeFunction(5, provisioned={"live": 3}), "test-app-b": FakeFunction(None)},
        {
            "m-a": FakeMapping("test-app-a", source=STREAM),
            "m-b": FakeMapping("test-app-b"),
            "m-off": FakeMapping("test-app-a", False),
        },
    )
    use(monkeypatch, fake)
    freeze(first)
    del fake.mappings["m-b"]
    release(first)
    output = report(first)
    key = output["reportUri"].removeprefix(f"s3://{BUCKET}/")
    stored = json.loads(aws.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    assert stored["eventSourceMappings"] == [
        {"uuid": "m-a", "functionName": "test-app-a", "state": "released", "discarded": False},
        {"uuid": "m-b", "functionName": "test-app-b", "state": "gone", "discarded": False},
    ]
    assert stored["streamConsumers"] == [
        {"tableName": TABLES[0], "functionName": "test-app-a", "uuid": "m-a", "enabled": True, "frozen": True}
    ]
    provisioned = {entry["functionName"]: entry["provisionedConcurrency"] for entry in stored["functions"]}
    assert provisioned == {"test-app-a": {"live": 3}, "test-app-b": {}}
    assert len(stored["functions"]) == 2
