"""Everything that is checked before the orchestrator changes anything."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from .clock import Clock, to_iso
from .errors import InvalidRequest, RecoveryError, RestoreTimeOutOfRange, UnknownTable
from .forecast import Basis, Forecast, Options, describe_all, forecast
from .incident import Incident
from .ledger import Ledger
from .locks import ENVIRONMENT, Locks, table_lock
from .prices import Prices
from .request import RecoveryRequest
from .tables import (
    TableDescription,
    choose_segments,
    describe_table,
    pitr_window,
    restored_table_name,
    ttl_attribute,
)

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_stepfunctions import SFNClient


@dataclass(frozen=True, kw_only=True)
class Stack:
    """The stack's configuration as far as validation needs it.

    Args:
        environment: the stack's environment.
        protected: table name → its options (``segments``, ``concurrency`` and limits: numbers or null).
        sensitive: names of the sensitive tables.
        prices: what AWS charges.
    """

    environment: str
    protected: Mapping[str, Mapping[str, Any]]
    sensitive: Sequence[str]
    prices: Prices = field(default_factory=Prices)


def validate(
    request: object,
    *,
    stack: Stack,
    execution_arn: str,
    dynamodb: DynamoDBClient,
    stepfunctions: SFNClient,
    ledger: Ledger,
    clock: Clock,
) -> dict[str, Any]:
    """Check a request; unless it is a dry run, take the locks and open the incident. Returns the plan.

    The plan has ``incidentId``, ``restoreDateTime``, ``mode``, ``dryRun``, ``streamPolicy``, ``resumed``,
    ``releaseBegun`` (nothing is left but to release and report); ``tables``: what is to be done; ``finishedTables``:
    summaries of what earlier executions of the incident have finished; ``temporaryTables``: names of all the tables
    that the incident restores; ``settledAt``: when no worker of an aborted execution can be alive any more, in the past
    where there was none. In a dry run each table has its ``forecast`` instead of ARNs, and the plan has the one of them
    all as ``forecast``; otherwise they are kept in the ledger for the report.

    Raises:
        InvalidRequest, ConfirmationMismatch, SensitiveTable, UnknownTable, RestoreTimeOutOfRange, RecoveryInProgress:
            nothing was changed.
    """
    asked = RecoveryRequest.parse(request, protected=stack.protected, sensitive=stack.sensitive)
    incident = Incident(ledger=ledger, clock=clock, incident_id=asked.incident_id, execution_arn=execution_arn)
    locks = Locks(
        ledger=ledger,
        stepfunctions=stepfunctions,
        clock=clock,
        execution_arn=execution_arn,
        incident_id=asked.incident_id,
    )
    lock_names = orchestrator_locks(asked.tables)
    restored_names = {
        name: restored_table_name(stack.environment, name, asked.restore_time, asked.incident_id)
        for name in asked.tables
    }

    def check_incident() -> tuple[bool, str | None]:
        locks.check_all_tables()
        resumed = incident.check(asked) is not None
        incident.check_sources(restored_names)
        return resumed, incident.check_unfinished(asked.tables)

    locks.check(lock_names)
    resumed, _ = check_incident()
    finished = incident.finished_tables() if resumed else []
    finished_names = {summary["tableName"] for summary in finished}
    described = {
        name: _describe(dynamodb, name, restored_names[name], asked, clock())
        for name in asked.tables
        if name not in finished_names
    }
    forecasts = {name: _forecast(table, asked, stack) for name, table in described.items()}
    tables = [
        _plan_table(dynamodb, table, restored_names[name], stack)
        | (
            # Instead of ARNs: a plan of many tables with long names must fit the payload of a state.
            {"forecast": forecasts[name].to_json()} if asked.dry_run else _arns(table, restored_names[name])
        )
        for name, table in described.items()
    ]
    settled_at = clock()
    if not asked.dry_run:
        settled_at = locks.acquire(lock_names).settled_at
        try:
            # Once more: another execution may have come and gone between the first look and the lock.
            _, supersede = check_incident()
            incident.open(asked, supersede=supersede)
            incident.keep_forecast(_kept(described, forecasts, stack))
        except RecoveryError:
            locks.release(lock_names)
            raise
    plan = {
        "incidentId": asked.incident_id,
        "restoreDateTime": to_iso(asked.restore_time),
        "mode": asked.mode,
        "dryRun": asked.dry_run,
        "streamPolicy": incident.stream_policy(asked),
        "resumed": resumed,
        # Then nothing is frozen again: the system may be live, and its streams' records are of its own work.
        "releaseBegun": resumed and incident.only_release_left(),
        "tables": tables,
        "finishedTables": finished,
        "temporaryTables": list(restored_names.values()),
        "settledAt": to_iso(settled_at),
    }
    if asked.dry_run:
        facts = {name: table.facts for name, table in described.items()}
        plan["forecast"] = describe_all(forecasts, facts, stack.prices)
    return plan


def _describe(
    dynamodb: DynamoDBClient, name: str, restored_name: str, asked: RecoveryRequest, now: datetime
) -> TableDescription:
    """The table, which can be restored to the restore point."""
    table = describe_table(dynamodb, name)
    if table.status not in ("ACTIVE", "UPDATING"):
        raise InvalidRequest(f"Table {name} is {table.status}. Expected ACTIVE: wait until it is, then start again.")
    # What an earlier execution restored is used again, even if its time has since left the PITR window.
    if not _is_restored(dynamodb, table, restored_name, asked.restore_time):
        _check_restore_time(dynamodb, name, asked.restore_time, now)
    return table


def _plan_table(dynamodb: DynamoDBClient, table: TableDescription, restored_name: str, stack: Stack) -> dict[str, Any]:
    return {
        "tableName": table.name,
        "restoredTableName": restored_name,
        "items": table.item_count,
        "bytes": table.size_bytes,
        # TTL goes on deleting what has expired, also after the copy: an operator who sees it here can switch it off.
        "ttlAttribute": ttl_attribute(dynamodb, table.name),
        "segments": _segments(table, stack),
    }


def _arns(table: TableDescription, restored_name: str) -> dict[str, str]:
    return {"tableArn": table.arn, "restoredTableArn": table.arn.removesuffix(table.name) + restored_name}


def _segments(table: TableDescription, stack: Stack) -> int:
    fixed = stack.protected[table.name].get("segments")
    return choose_segments(table.item_count, table.size_bytes, fixed, counted=table.counted)


def _options(table: TableDescription, stack: Stack) -> Options:
    return Options.parse(stack.protected[table.name], _segments(table, stack))


def _forecast(table: TableDescription, asked: RecoveryRequest, stack: Stack) -> Forecast:
    return forecast(table.facts, _options(table, stack), stack.prices, mode=asked.mode)


def _kept(described: Mapping[str, TableDescription], forecasts: Mapping[str, Forecast], stack: Stack) -> dict[str, Any]:
    """What the report will put beside what happened."""
    return {
        "prices": stack.prices.to_json(),
        "tables": {
            name: {
                "forecast": forecasts[name].to_json(),
                "basis": Basis.of(table.facts, _options(table, stack)).to_json(),
            }
            for name, table in described.items()
        },
    }


def _is_restored(dynamodb: DynamoDBClient, table: TableDescription, restored_name: str, restore_time: datetime) -> bool:
    """Whether the restored table is there already.

    Raises:
        InvalidRequest: a table of that name is there, but is no restore of this table to this time.
    """
    try:
        restored = describe_table(dynamodb, restored_name)
    except UnknownTable:
        return False
    if (restored.restored_from_arn, restored.restored_to) != (table.arn, restore_time):
        raise InvalidRequest(
            f"Table {restored_name} exists, but is not {table.name} restored to {to_iso(restore_time)}. Expected that "
            "name to be free: delete that table, or use another incidentId."
        )
    return restored.status in ("ACTIVE", "CREATING")


def _check_restore_time(dynamodb: DynamoDBClient, name: str, restore_time: datetime, now: datetime) -> None:
    window = pitr_window(dynamodb, name)
    if window is None:
        raise RestoreTimeOutOfRange(
            f"PITR is switched off on table {name}, so it can be restored to no time at all. Expected PITR to be on "
            "since before the damage: recover this table from a backup, leave it out of tables, and switch PITR on."
        )
    earliest, latest = window
    if not earliest <= restore_time <= latest:
        future = " (in the future)" if restore_time > now else ""
        raise RestoreTimeOutOfRange(
            f"restoreDateTime is {to_iso(restore_time)}{future}, and table {name} can be restored to any second from "
            f"{to_iso(earliest)} to {to_iso(latest)}; the latest trails the present by about five minutes. Expected a "
            "time in that window: choose one before the damage, or wait, then start again."
        )


def orchestrator_locks(tables: Iterable[str]) -> list[str]:
    """The locks an orchestrator holds for these tables, in the order in which they are taken."""
    return [ENVIRONMENT, *map(table_lock, sorted(tables))]
