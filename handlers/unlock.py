"""Gives up the locks that an execution holds, as the last thing it does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.core.clock import utc_now
from handlers.core.incident import Incident
from handlers.core.locks import Locks, table_lock
from handlers.core.request import is_incident_id
from handlers.core.validation import orchestrator_locks
from handlers.runtime import client, ledger, logger


@logger.inject_lambda_context(clear_state=True)
def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001 - Lambda's signature
    """Entry point of the function unlock.

    ``tableName``: a hard reset's table; null from the orchestrator. ``orchestratorExecutionArn``: to whom the lock goes
    back, or null.
    """
    incident_id, table_name, parent = event["incidentId"], event["tableName"], event["orchestratorExecutionArn"]
    if not is_incident_id(incident_id) or not isinstance(parent, str | None):
        return {}  # a malformed request has taken no lock
    book = ledger()
    locks = Locks(
        ledger=book,
        stepfunctions=client("stepfunctions"),
        clock=utc_now,
        execution_arn=event["executionArn"],
        incident_id=incident_id,
        parent_arn=parent,
    )
    if table_name is None:
        incident = Incident(ledger=book, clock=utc_now, incident_id=incident_id, execution_arn=event["executionArn"])
        # That of the environment last: a start that comes in between is told of it, and not of a table's.
        locks.release(reversed(orchestrator_locks(incident.tables())))
    else:
        locks.release([table_lock(table_name)])
    return {}
