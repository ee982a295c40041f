"""Checks one hard reset before anything is changed, locks its table, and finds where to go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handlers.core.clock import to_iso, utc_now
from handlers.core.errors import RecoveryInProgress, StaleWorker
from handlers.core.hard_reset import HardReset, Options, check_tables
from handlers.core.incident import Incident
from handlers.core.locks import ENVIRONMENT, Locks, table_lock
from handlers.core.request import HardResetRequest
from handlers.core.tables import check_backup, choose_stride, expiry_seconds, ttl_attribute
from handlers.runtime import client, ledger, logger


@dataclass(frozen=True, kw_only=True)
class Event:
    """``request``: the hard reset's input as it came. The rest is the stack's configuration."""

    request: Any
    execution_arn: str
    table_name: str
    sensitive: tuple[str, ...]
    options: Options

    @classmethod
    def parse(cls, event: Mapping[str, Any]) -> Event:
        """Read the state machine's payload."""
        options = event["options"]
        return cls(
            request=event.get("request"),
            execution_arn=event["executionArn"],
            table_name=event["tableName"],
            sensitive=tuple(event["sensitiveTables"]),
            options=Options(
                segments=options["segments"],
                concurrency=options["concurrency"],
                max_write_units=options["maxWriteUnitsPerSecond"],
                capacity_share=options["capacityShare"],
                source_patterns=tuple(event["sourceTables"]),
            ),
        )


@logger.inject_lambda_context(clear_state=True)
def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001 - Lambda's signature
    """Entry point of the function preflight."""
    parsed = Event.parse(event)
    request = HardResetRequest.parse(parsed.request, table_name=parsed.table_name)
    dynamodb, book = client("dynamodb"), ledger()
    source, destination = check_tables(dynamodb, request, parsed.sensitive, parsed.options)
    locks = Locks(
        ledger=book,
        stepfunctions=client("stepfunctions"),
        clock=utc_now,
        execution_arn=parsed.execution_arn,
        incident_id=request.incident_id,
        parent_arn=request.orchestrator_execution_arn,
    )
    by_hand = request.orchestrator_execution_arn is None
    incident = Incident(ledger=book, clock=utc_now, incident_id=request.incident_id, execution_arn=parsed.execution_arn)
    if by_hand:
        incident.check_by_hand(destination.name)
    else:
        locks.check_parent()
        not_before = incident.check_preparation(source, destination)
        if request.backup_arn is not None:
            check_backup(dynamodb, request.backup_arn, destination.name, not_before)
    lock_name = table_lock(destination.name)
    taken = locks.acquire([lock_name])
    if by_hand:
        try:
            # After the table's lock was taken: an orchestrator takes its own first and looks for this one then.
            locks.check([ENVIRONMENT])
        except RecoveryInProgress:
            locks.release([lock_name])
            raise
    elif not incident.resets_may_begin():
        # Asked after the lock was taken: the orchestrator closes the incident first, and then takes its locks back.
        locks.release([lock_name])
        raise StaleWorker(
            f"The orchestrator of incident {request.incident_id!r} is still preparing the tables, or has failed "
            "meanwhile and may be releasing the functions. Expected it to be at its resets: start the orchestrator "
            "again with the same incidentId."
        )
    reset = HardReset(ledger=book, clock=utc_now, incident_id=request.incident_id, table_name=destination.name)
    record = reset.open(source, destination, parsed.options.segments, request.mode)
    plan = reset.plan(record, ttl_attribute(dynamodb, destination.name))
    logger.info(
        "hard reset may begin",
        incident_id=request.incident_id,
        table=destination.name,
        mode=plan.mode,
        phase=plan.phase,
        attempt=plan.attempt,
        segments=plan.segments,
    )
    return {
        "incidentId": request.incident_id,
        "tableName": plan.table_name,
        "sourceTableName": plan.source_table_name,
        "mode": plan.mode,
        "phase": plan.phase,
        "attempt": plan.attempt,
        "verification": plan.verification,
        "segments": plan.segments,
        "stride": choose_stride(plan.segments),
        "pacing": parsed.options.pacing(destination, plan.segments),
        "keyNames": list(destination.key_names),
        "ttlAttribute": plan.ttl_attribute,
        "expirySeconds": expiry_seconds(
            max(source.size_bytes, destination.size_bytes),
            counted=source.counted and destination.counted,
        ),
        "backupArn": request.backup_arn,
        "orchestratorExecutionArn": request.orchestrator_execution_arn,
        "settledAt": to_iso(taken.settled_at),
    }
