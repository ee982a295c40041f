"""Records how an execution ended, and finds the real cause of a failure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.core.clock import utc_now
from handlers.core.failure import explain
from handlers.core.incident import Incident
from handlers.runtime import ledger, logger

_STAYS_FROZEN = (
    " The functions stay frozen, because not every table that was purged is restored and verified yet: starting the "
    "same incident again finishes the work and releases them."
)


@logger.inject_lambda_context(clear_state=True)
def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001 - Lambda's signature
    """Entry point of the function record-outcome.

    ``error`` null means success. A hard reset passes ``wholeIncident`` false: it owns no incident, and only wants its
    failure explained. Answers ``error``, ``cause`` (a sentence), ``recorded`` (the execution owned the incident) and
    ``stayFrozen`` (the point of no return is passed, and the work is not finished).
    """
    incident_id = event["incidentId"]
    failed = event["error"] is not None
    error, cause = explain(event["error"], event["cause"]) if failed else ("", "")
    if failed:
        logger.error("execution failed", incident_id=incident_id, error=error, cause=cause)
    answer = {"error": error, "cause": cause, "recorded": False, "stayFrozen": False}
    # A request so malformed that it has no usable incidentId has opened nothing.
    if not event["wholeIncident"] or not isinstance(incident_id, str):
        return answer
    incident = Incident(ledger=ledger(), clock=utc_now, incident_id=incident_id, execution_arn=event["executionArn"])
    if not incident.owned():
        return answer
    if failed and incident.must_stay_frozen():
        answer |= {"stayFrozen": True, "cause": cause + _STAYS_FROZEN}
    incident.close("FAILED" if failed else "SUCCEEDED", error=error, cause=str(answer["cause"]))
    if not failed:
        incident.end()
    return answer | {"recorded": True}
