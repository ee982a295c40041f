"""The checks of one hard reset: whatever they let through is purged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from handlers import runtime
from handlers.core import errors
from handlers.core.clock import from_iso, to_iso

from .conftest import Aws
from .support import (
    LEDGER,
    REGION,
    RESTORE_POINT,
    Steps,
    create_table,
    hold_lock,
    ledger_items,
    lock_names,
    make_items,
    open_incident,
    put_all,
    scan_all,
    table_arn,
)

KEY = (("country", "S"), ("code", "N"))
TEN = 10


@pytest.fixture
def tables(aws: Aws, steps: Steps) -> Steps:
    """A source and a destination with ten items each."""
    for name in (steps.source, steps.table):
        create_table(aws.dynamodb, name, KEY)
        put_all(aws.dynamodb, name, make_items(KEY, TEN, rich=False))
    return steps


def assert_untouched(aws: Aws, steps: Steps) -> None:
    """Nothing was locked, recorded or deleted."""
    assert ledger_items(aws.dynamodb) == {}
    assert len(scan_all(aws.dynamodb, steps.table)) == TEN


def orchestrated(aws: Aws, steps: Steps) -> Steps:
    """The same steps as the child of an orchestrator that runs the incident and holds the locks."""
    parent = aws.start_execution("parent")
    for name in ("ENVIRONMENT", f"TABLE#{steps.table}"):
        hold_lock(aws.dynamodb, name, parent, incident=steps.incident_id)
    open_incident(aws.dynamodb, parent, incident=steps.incident_id, tables=[steps.table])
    aws.restore_anew(steps.table, steps.source)
    return replace(steps, parent=parent)


@contextmanager
def table_status(name: str, status: str) -> Iterator[None]:
    """DescribeTable answers another status: moto's tables are always ACTIVE."""

    def change(parsed: dict[str, Any], **_: Any) -> None:
        if parsed["Table"]["TableName"] == name:
            parsed["Table"]["TableStatus"] = status

    events = runtime.client("dynamodb").meta.events
    events.register("after-call.dynamodb.DescribeTable", change)
    yield
    events.unregister("after-call.dynamodb.DescribeTable", change)


def test_a_fresh_reset(aws: Aws, tables: Steps) -> None:
    """The plan lacks what a later state needs, or the lock is not taken."""
    plan = tables.preflight()
    # Nobody held the lock before: there is nobody to wait for.
    assert from_iso(plan.pop("settledAt")) <= datetime.now(UTC)
    assert plan == {
        "incidentId": "incident",
        "tableName": "test-licenses",
        "sourceTableName": "dr-test.licenses.restored",
        "mode": "hard-reset",
        "phase": "purge",
        "attempt": 1,
        "verification": 1,
        "segments": 2,
        "stride": 1,
        "pacing": {"startUnitsPerSecond": 4000.0, "limitUnitsPerSecond": None, "workers": 2},
        "keyNames": ["country", "code"],
        "ttlAttribute": None,
        "expirySeconds": 6 * 3600,
        "backupArn": None,
        "orchestratorExecutionArn": None,
    }
    assert lock_names(aws.dynamodb) == {"TABLE#test-licenses": tables.execution_arn}
    assert len(scan_all(aws.dynamodb, tables.table)) == TEN
    assert tables.preflight()["attempt"] == 1  # the same execution again: its answer was lost


def test_segments_are_chosen_when_the_configuration_leaves_them(tables: Steps) -> None:
    """Null for a number of segments makes a Map without items: nothing is purged and nothing copied."""
    assert replace(tables, segments=None).preflight()["segments"] == 4


def test_segments_stay_what_they_were(aws: Aws, tables: Steps) -> None:
    """A deployment between two executions changes the number of segments: items fall between the checkpoints."""
    plan = tables.preflight()
    assert plan["segments"] == 2
    aws.abort(tables.execution_arn)
    resumed = replace(tables, segments=7, execution_arn=aws.start_execution("second")).preflight()
    assert resumed["segments"] == 2


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"incidentId": None}, errors.InvalidRequest),
        ({"incidentId": "a#b"}, errors.InvalidRequest),
        ({"dryRun": True}, errors.InvalidRequest),
        ({"tableNameRecoveryConfirmation": "test-license"}, errors.ConfirmationMismatch),
        ({"tableNameRecoveryConfirmation": None}, errors.ConfirmationMismatch),
        ({"destinationTableArn": table_arn("test-languages")}, errors.InvalidRequest),
        ({"destinationTableArn": table_arn("test-licenses") + "/index/i"}, errors.InvalidRequest),
        ({"sourceTableArn": "dr-test.licenses.restored"}, errors.InvalidRequest),
        ({"sourceTableArn": table_arn("test-licenses")}, errors.InvalidRequest),
        ({"sourceTableArn": table_arn("test-ssn")}, errors.SensitiveTable),
        ({"sourceTableArn": table_arn("someone-elses")}, errors.InvalidRequest),
        ({"sourceTableArn": table_arn("dr-test2.licenses")}, errors.InvalidRequest),
        ({"sourceTableArn": table_arn("dr-test.nothing-here")}, errors.UnknownTable),
        (
            {"sourceTableArn": table_arn("dr-test.licenses.restored").replace(REGION, "eu-west-1")},
            errors.InvalidRequest,
        ),
        ({"sourceTableArn": table_arn("dr-test.licenses.restored").replace("1234", "9999")}, errors.InvalidRequest),
        ({"backupArn": table_arn("test-licenses") + "/backup/01489602797149-73d8d5bc"}, errors.InvalidRequest),
        ({"backupArn": 5}, errors.InvalidRequest),
    ],
)
def test_refusals(aws: Aws, tables: Steps, changes: dict[str, Any], error: type[Exception]) -> None:
    """A refused reset leaves a lock behind, or is not refused at all and its table is purged."""
    with pytest.raises(error) as refusal:
        tables.preflight(tables.request(**changes))
    assert "Expected" in str(refusal.value) or "choose another source" in str(refusal.value)
    assert_untouched(aws, tables)


@pytest.mark.parametrize("value", [None, [], "x", 5, {}])
def test_an_input_that_is_no_request(aws: Aws, tables: Steps, value: Any) -> None:
    """An input that is no object crashes the function with an error that has no public name."""
    with pytest.raises(errors.InvalidRequest):
        tables.preflight(value)
    assert_untouched(aws, tables)


def test_a_destination_that_is_gone(aws: Aws, tables: Steps) -> None:
    """A deleted table is recorded and locked before anyone looks."""
    aws.dynamodb.delete_table(TableName=tables.table)
    with pytest.raises(errors.UnknownTable, match="test-licenses does not exist"):
        tables.preflight()
    assert ledger_items(aws.dynamodb) == {}


def test_a_source_restored_from_a_sensitive_table(aws: Aws, tables: Steps) -> None:
    """The sensitive table's data comes in by way of a restore under an innocent name."""
    create_table(aws.dynamodb, "test-ssn", KEY)
    aws.dynamodb.update_continuous_backups(
        TableName="test-ssn", PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
    )
    aws.dynamodb.restore_table_to_point_in_time(
        SourceTableName="test-ssn", TargetTableName="dr-test.innocent", UseLatestRestorableTime=True
    )
    with pytest.raises(errors.SensitiveTable, match="was restored from test-ssn"):
        replace(tables, source="dr-test.innocent").preflight()
    assert_untouched(aws, tables)


def test_the_mode_stays_what_it_was(aws: Aws, tables: Steps) -> None:
    """A table that is half purged is gone on with as if only little of it differed, or the other way round."""
    differential = replace(tables, mode="differential")
    plan = differential.preflight()
    assert (plan["mode"], plan["phase"]) == ("differential", "differential")
    for other in (tables, replace(tables, mode="hard-reset")):
        with pytest.raises(errors.InvalidRequest, match="in mode differential, not hard-reset"):
            other.preflight()
    assert differential.preflight()["verification"] == 2
    by_default = replace(tables, incident_id="another")
    assert by_default.preflight()["mode"] == "hard-reset"
    assert replace(by_default, mode="hard-reset").preflight()["phase"] == "purge"
    with pytest.raises(errors.InvalidRequest, match="in mode hard-reset, not differential"):
        replace(by_default, mode="differential").preflight()
    assert len(scan_all(aws.dynamodb, tables.table)) == TEN


def test_a_record_of_before_there_was_a_choice(aws: Aws, tables: Steps) -> None:
    """A reset that an earlier version has begun cannot be finished by this one."""
    tables.preflight()
    aws.dynamodb.update_item(
        TableName=LEDGER,
        Key={"pk": {"S": "INCIDENT#incident"}, "sk": {"S": f"TABLE#{tables.table}"}},
        UpdateExpression="REMOVE #mode",
        ExpressionAttributeNames={"#mode": "mode"},
    )
    assert tables.preflight()["mode"] == "hard-reset"


@pytest.mark.parametrize("which", ["source", "table"])
@pytest.mark.parametrize("status", ["CREATING", "DELETING", "INACCESSIBLE_ENCRYPTION_CREDENTIALS", "ARCHIVED"])
def test_a_table_that_is_not_in_service(aws: Aws, tables: Steps, which: str, status: str) -> None:
    """A restore that is under way is half empty: the table is reset to half of its items, and verified."""
    with (
        table_status(getattr(tables, which), status),
        pytest.raises(errors.InvalidRequest, match=f"is {status}. Expected ACTIVE"),
    ):
        tables.preflight()
    assert_untouched(aws, tables)


def test_a_table_whose_capacity_is_being_changed(tables: Steps) -> None:
    """An operator raises the capacity for the recovery, and the recovery is refused for it."""
    with table_status(tables.table, "UPDATING"):
        assert tables.preflight()["phase"] == "purge"


@pytest.mark.parametrize(
    "key",
    [
        (("country", "S"),),
        (("country", "S"), ("code", "S")),
        (("code", "N"), ("country", "S")),
        (("country", "S"), ("number", "N")),
        (("country", "S"), ("code", "B")),
    ],
    ids=["no sort key", "another type", "other roles", "another name", "binary"],
)
def test_another_key(aws: Aws, tables: Steps, key: Any) -> None:
    """The destination is purged, and then not one item of the source can be written."""
    create_table(aws.dynamodb, "dr-test.other", key)
    with pytest.raises(errors.KeySchemaMismatch, match="Expected the same names, roles and types"):
        replace(tables, source="dr-test.other").preflight()
    assert_untouched(aws, tables)


def test_the_lock_of_a_running_execution(aws: Aws, tables: Steps) -> None:
    """Two executions purge and copy one table at once: each deletes what the other writes."""
    tables.preflight()
    other = replace(tables, execution_arn=aws.start_execution("other"), incident_id="other")
    before = ledger_items(aws.dynamodb)
    with pytest.raises(errors.RecoveryInProgress, match="incident 'incident'"):
        other.preflight()
    assert ledger_items(aws.dynamodb) == before


@pytest.mark.parametrize("forgotten", [False, True], ids=["aborted", "forgotten"])
def test_the_lock_of_an_ended_execution(aws: Aws, tables: Steps, forgotten: bool) -> None:
    """An aborted execution runs no clean-up: its lock would keep the operator out for ever."""
    if forgotten:
        tables = replace(tables, execution_arn=tables.execution_arn + "-90-days-ago")
    tables.preflight()
    if forgotten:
        aws.dynamodb.update_item(
            TableName=LEDGER,
            Key={"pk": {"S": "LOCK"}, "sk": {"S": "TABLE#test-licenses"}},
            UpdateExpression="SET acquiredAt = :then",
            ExpressionAttributeValues={":then": {"S": "2026-01-01T00:00:00Z"}},
        )
    else:
        aws.abort(tables.execution_arn)
    second = replace(tables, execution_arn=aws.start_execution("second"))
    assert second.preflight()["phase"] == "purge"
    assert lock_names(aws.dynamodb) == {"TABLE#test-licenses": second.execution_arn}


def test_the_lock_of_the_orchestrator_that_started_it(aws: Aws, tables: Steps) -> None:
    """The child is kept out by its own parent; or anyone may say whose child he is and a stranger's lock is taken."""
    stranger = aws.start_execution("stranger")
    parent = orchestrated(aws, tables).parent
    before = ledger_items(aws.dynamodb)
    with pytest.raises(errors.InvalidRequest, match="no orchestrator that runs incident 'incident' now"):
        replace(tables, parent=stranger).preflight()
    assert ledger_items(aws.dynamodb) == before
    assert lock_names(aws.dynamodb) == {"ENVIRONMENT": parent, "TABLE#test-licenses": parent}
    assert replace(tables, parent=parent).preflight()["orchestratorExecutionArn"] == parent
    assert lock_names(aws.dynamodb) == {"ENVIRONMENT": parent, "TABLE#test-licenses": tables.execution_arn}


def test_a_backup_of_this_table(aws: Aws, tables: Steps) -> None:
    """The backup is lost on the way: another one is taken, of what the purge has left."""
    child = orchestrated(aws, tables)
    backup = aws.dynamodb.create_backup(TableName=tables.table, BackupName="dr-b")["BackupDetails"]["BackupArn"]
    assert child.preflight(child.request(backupArn=backup))["backupArn"] == backup


def change_run(aws: Aws, name: str, value: str) -> None:
    """Change a field of the incident's record."""
    aws.dynamodb.update_item(
        TableName=LEDGER,
        Key={"pk": {"S": "INCIDENT#incident"}, "sk": {"S": "RUN"}},
        UpdateExpression="SET #name = :value",
        ExpressionAttributeNames={"#name": name},
        ExpressionAttributeValues={":value": {"S": value}},
    )


def test_an_old_backup_of_this_table(aws: Aws, tables: Steps) -> None:
    """A backup of last week stands for the one that was to be taken: what was written since is purged for good."""
    child = orchestrated(aws, tables)
    backup = aws.dynamodb.create_backup(TableName=tables.table, BackupName="dr-b")["BackupDetails"]["BackupArn"]
    change_run(aws, "openedAt", to_iso(datetime.now(UTC) + timedelta(hours=1)))
    before = ledger_items(aws.dynamodb)
    with pytest.raises(errors.InvalidRequest, match="taken after"):
        child.preflight(child.request(backupArn=backup))
    assert ledger_items(aws.dynamodb) == before


def test_a_reset_before_the_orchestrators_own(aws: Aws, tables: Steps) -> None:
    """By naming the running orchestrator a reset by hand purges a table whose functions and backup are not ready."""
    child = orchestrated(aws, tables)
    change_run(aws, "resetsBegun", "")
    with pytest.raises(errors.StaleWorker, match="still preparing"):
        child.preflight()
    assert lock_names(aws.dynamodb)[f"TABLE#{tables.table}"] == child.parent
    assert len(scan_all(aws.dynamodb, tables.table)) == TEN


def test_a_source_that_the_orchestrator_did_not_restore(aws: Aws, tables: Steps) -> None:
    """In the orchestrator's name a table is reset from somewhere else, and the incident can never be resumed."""
    child = orchestrated(aws, tables)
    aws.restore(tables.table, "dr-test.other", RESTORE_POINT - timedelta(days=1))
    before = ledger_items(aws.dynamodb)
    with pytest.raises(errors.InvalidRequest, match="Expected what the orchestrator restores"):
        replace(child, source="dr-test.other").preflight()
    assert ledger_items(aws.dynamodb) == before


def test_a_backup_of_another_table(aws: Aws, tables: Steps) -> None:
    """The table is purged with no way back, because a backup of another table was taken for its own."""
    backup = aws.dynamodb.create_backup(TableName=tables.source, BackupName="dr-b")["BackupDetails"]["BackupArn"]
    child = orchestrated(aws, tables)
    before = ledger_items(aws.dynamodb)
    with pytest.raises(errors.InvalidRequest, match=r"is of table dr-test\.licenses\.restored"):
        child.preflight(child.request(backupArn=backup))
    assert ledger_items(aws.dynamodb) == before
    assert len(scan_all(aws.dynamodb, tables.table)) == TEN


def test_a_resumption_goes_on_where_it_stopped(aws: Aws, tables: Steps) -> None:
    """A resumed reset purges what was copied already, or trusts digests of before the interruption."""
    plan = tables.preflight()
    tables.purge(plan)
    tables.prove_empty(plan)
    aws.abort(tables.execution_arn)
    resumed = replace(tables, execution_arn=aws.start_execution("second")).preflight()
    assert (resumed["phase"], resumed["attempt"], resumed["verification"]) == ("copy", 1, 2)


def test_another_source_for_the_same_incident(aws: Aws, tables: Steps) -> None:
    """Half of the table comes from one source and half from another."""
    create_table(aws.dynamodb, "dr-test.other", KEY)
    tables.preflight()
    with pytest.raises(errors.InvalidRequest, match="Expected the same source on every start"):
        replace(tables, source="dr-test.other").preflight()


def test_a_verified_reset_is_not_done_again(aws: Aws, tables: Steps) -> None:
    """The operator starts the same input once more by mistake: a table in service is purged."""
    assert tables.run()["verified"] is True
    aws.abort(tables.execution_arn)
    before = scan_all(aws.dynamodb, tables.table)
    with pytest.raises(errors.InvalidRequest, match="already reset and verified"):
        replace(tables, execution_arn=aws.start_execution("second")).preflight()
    assert scan_all(aws.dynamodb, tables.table) == before


def test_the_same_table_under_another_partition(aws: Aws, tables: Steps) -> None:
    """A table is reset from itself: purged, nothing to copy, empty equals empty, verified."""
    request = tables.request(sourceTableArn=table_arn(tables.table).replace("arn:aws:", "arn:aws-cn:"))
    with pytest.raises(errors.InvalidRequest):
        replace(tables, source_tables=("*",)).preflight(request)
    assert_untouched(aws, tables)


# --- by hand beside the orchestrator ----------------------------------------------------------------------------------


def test_by_hand_a_backup_is_refused(aws: Aws, tables: Steps) -> None:
    """A backup of last week is passed: what was written since is purged with no way back."""
    backup = aws.dynamodb.create_backup(TableName=tables.table, BackupName="dr-b")["BackupDetails"]["BackupArn"]
    with pytest.raises(errors.InvalidRequest, match="backupArn is given without orchestratorExecutionArn"):
        tables.preflight(tables.request(backupArn=backup))
    assert_untouched(aws, tables)


def test_by_hand_an_incident_of_the_orchestrator_is_refused(aws: Aws, tables: Steps) -> None:
    """A reset by hand marks a table of the incident as verified, and the orchestrator leaves it as it is."""
    run = {"pk": {"S": "INCIDENT#incident"}, "sk": {"S": "RUN"}, "status": {"S": "FAILED"}}
    aws.dynamodb.put_item(TableName="test-dr-ledger", Item=run)
    before = ledger_items(aws.dynamodb)
    with pytest.raises(errors.InvalidRequest, match=r"one of the orchestrator's\. Expected an id of its own"):
        tables.preflight()
    assert ledger_items(aws.dynamodb) == before
    assert replace(tables, incident_id="by-hand").preflight()["phase"] == "purge"


def test_by_hand_while_an_orchestrator_runs(aws: Aws, tables: Steps) -> None:
    """A table that the running recovery is not about is purged below functions that it releases; or its lock stays."""
    orchestrator = aws.start_execution("orchestrator")
    hold_lock(aws.dynamodb, "ENVIRONMENT", orchestrator, incident="theirs")
    before = ledger_items(aws.dynamodb)
    with pytest.raises(errors.RecoveryInProgress, match=r"(?=.*'theirs')(?=.*ENVIRONMENT)"):
        tables.preflight()
    assert ledger_items(aws.dynamodb) == before
    assert len(scan_all(aws.dynamodb, tables.table)) == TEN
    aws.abort(orchestrator)
    assert tables.preflight()["phase"] == "purge"


def test_by_hand_an_orchestrator_starts_in_the_last_moment(aws: Aws, tables: Steps) -> None:
    """Both look before either locks: each finds the other's lock free, and both go on."""
    orchestrator = aws.start_execution("orchestrator")

    def start(**_: Any) -> None:
        # The first PutItem of the preflight is the table's lock.
        hold_lock(aws.dynamodb, "ENVIRONMENT", orchestrator, incident="theirs")

    events = runtime.client("dynamodb").meta.events
    events.register("before-call.dynamodb.PutItem", start)
    with pytest.raises(errors.RecoveryInProgress, match="ENVIRONMENT"):
        tables.preflight()
    assert lock_names(aws.dynamodb) == {"ENVIRONMENT": orchestrator}
    assert ledger_items(aws.dynamodb, "INCIDENT#") == {}


def environment_is_free(aws: Aws, _: Steps) -> None:
    """No orchestrator runs at all."""
    aws.dynamodb.delete_item(TableName="test-dr-ledger", Key={"pk": {"S": "LOCK"}, "sk": {"S": "ENVIRONMENT"}})


def environment_is_of_another_incident(aws: Aws, child: Steps) -> None:
    """The parent runs another incident."""
    assert child.parent
    hold_lock(aws.dynamodb, "ENVIRONMENT", child.parent, incident="theirs")


def environment_is_of_another_execution(aws: Aws, child: Steps) -> None:
    """Another execution runs this incident."""
    hold_lock(aws.dynamodb, "ENVIRONMENT", aws.start_execution("another"), incident=child.incident_id)


def parent_has_ended(aws: Aws, child: Steps) -> None:
    """The parent was aborted."""
    assert child.parent
    aws.abort(child.parent)


@pytest.mark.parametrize(
    "spoof",
    [
        environment_is_free,
        environment_is_of_another_incident,
        environment_is_of_another_execution,
        parent_has_ended,
    ],
)
def test_a_spoofed_parent(aws: Aws, tables: Steps, spoof: Callable[[Aws, Steps], None]) -> None:
    """By naming any execution as his parent an operator gets past the backup, the locks and the orchestrator."""
    child = orchestrated(aws, tables)
    spoof(aws, child)
    before = ledger_items(aws.dynamodb)
    with pytest.raises(errors.InvalidRequest, match="which is no orchestrator that runs incident 'incident' now"):
        child.preflight()
    assert ledger_items(aws.dynamodb) == before
    assert len(scan_all(aws.dynamodb, tables.table)) == TEN


def test_an_execution_is_not_its_own_parent(aws: Aws, tables: Steps) -> None:
    """A reset by hand passes for its own orchestrator."""
    with pytest.raises(errors.InvalidRequest, match="no orchestrator"):
        replace(tables, parent=tables.execution_arn).preflight()
    assert_untouched(aws, tables)


# --- restored sources -------------------------------------------------------------------------------------------------


def test_a_source_restored_from_the_destination(aws: Aws, tables: Steps) -> None:
    """The very table that the recovery restored is refused as its source."""
    aws.restore(tables.table, "dr-test.genuine", datetime(2026, 11, 20, tzinfo=UTC))
    assert replace(tables, source="dr-test.genuine").preflight()["sourceTableName"] == "dr-test.genuine"


def test_a_source_restored_from_another_table(aws: Aws, tables: Steps) -> None:
    """Two restored tables with equal keys are mixed up: a table gets another's items, and every digest agrees."""
    create_table(aws.dynamodb, "test-languages", KEY)
    aws.restore("test-languages", "dr-test.languages", datetime(2026, 11, 20, tzinfo=UTC))
    with pytest.raises(errors.InvalidRequest, match=r"restored from test-languages\. Expected a restored table to be"):
        replace(tables, source="dr-test.languages").preflight()
    assert_untouched(aws, tables)


def test_a_source_restored_from_a_copy_of_a_sensitive_table(aws: Aws, tables: Steps) -> None:
    """The restore of a restore names its own source only: the sensitive table's data comes in at the second step."""
    moment = datetime(2026, 11, 20, tzinfo=UTC)
    create_table(aws.dynamodb, "test-ssn", KEY)
    aws.restore("test-ssn", "innocent", moment)
    aws.restore("innocent", "dr-test.twice", moment)
    with pytest.raises(errors.InvalidRequest, match="was restored from innocent"):
        replace(tables, source="dr-test.twice").preflight()
    assert_untouched(aws, tables)
