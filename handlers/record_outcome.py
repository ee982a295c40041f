"""Records how an execution ended, and finds the real cause of a failure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.core.clock import utc_now
from handlers.core.errors import DiscardIncomplete
from handlers.core.failure import explain
from handlers.core.incident import Incident
from handlers.core.locks import Locks, table_lock
from handlers.core.request import is_incident_id
from handlers.runtime import client, ledger, logger

_STAYS_FROZEN = (
    " The functions stay frozen, because not every table that was purged is restored and verified yet: starting the "
    "same incident again finishes the work and releases them."
)
_NOT_SKIPPED = (
    " The functions stay frozen, because the consumers of the tables' streams have not skipped the reset's records "
    "yet: starting the same incident again lets them, and releases the functions."
)


@logger.inject_lambda_context(clear_state=True)
def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001 - Lambda's signature
    """Entry point of the function record-outcome.

    ``error`` null means success. A hard reset passes ``wholeIncident`` false: it owns no incident, and only wants its
    failure explained. Answers ``error``, ``cause`` (a sentence), ``recorded`` (the execution owned the incident) and
    ``stayFrozen`` (the point of no return is passed and the work is not finished, or stream records that should be
    discarded are not).
    """
    incident_id = event["incidentId"]
    failed = event["error"] is not None
    error, cause = explain(event["error"], event["cause"]) if failed else ("", "")
    if failed:
        logger.error("execution failed", incident_id=incident_id, error=error, cause=cause)
    answer = {"error": error, "cause": cause, "recorded": False, "stayFrozen": False}
    # A request so malformed that it has no usable incidentId has opened nothing, and its id may be no key at all.
    if not event["wholeIncident"] or not is_incident_id(incident_id):
        return answer
    incident = Incident(ledger=ledger(), clock=utc_now, incident_id=incident_id, execution_arn=event["executionArn"])
    if not incident.owned():
        return answer
    if failed:
        # In this order: a purge either has left its first checkpoint by the time of the question below, or finds its
        # lock taken away before it deletes anything, or is refused by its preflight.
        incident.stop_resets()
        _locks(event).reclaim(map(table_lock, incident.tables()))
    if failed and incident.must_stay_frozen():
        answer |= {"stayFrozen": True, "cause": cause + _STAYS_FROZEN}
    elif failed and incident.must_discard():
        # Once released, the consumers would see the records: that cannot be undone.
        answer |= {"stayFrozen": True, "cause": cause + ("" if error == DiscardIncomplete.__name__ else _NOT_SKIPPED)}
    incident.close("FAILED" if failed else "SUCCEEDED", error=error, cause=str(answer["cause"]))
    if not failed:
        incident.end()
    return answer | {"recorded": True}


def _locks(event: Mapping[str, Any]) -> Locks:
    return Locks(
        ledger=ledger(),
        stepfunctions=client("stepfunctions"),
        clock=utc_now,
        execution_arn=event["executionArn"],
        incident_id=event["incidentId"],
    )
