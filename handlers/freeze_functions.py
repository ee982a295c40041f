"""Freezes the system's Lambda functions; with ``plan`` true only counts them and names the tables' stream consumers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from handlers.core.clock import utc_now
from handlers.core.freeze import Selection
from handlers.core.incident import Incident
from handlers.runtime import deadline, freezer, ledger, logger, next_polls

# A cause must stay readable; the report has all of them.
_MOST_NAMES = 20


@logger.inject_lambda_context(clear_state=True)
def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Entry point of the function freeze-functions.

    ``pass`` numbers the passes of one execution; ``polls`` is what this function answered to the call before, 0 at
    first. Answers ``complete``, ``functions``, ``drainedAt``, ``waitSeconds`` (pause before the next call), ``polls``,
    and ``changed`` with ``changedNames``: what a later pass found that did not stay frozen. A later pass that found
    nothing lets the resets begin.
    """
    selection = Selection.from_event(event["selection"])
    if event["plan"]:
        functions, consumers = freezer(event).plan(selection, event["tables"])
        return {"functions": functions, "streamConsumers": [consumer.as_dict() for consumer in consumers]}
    progress = freezer(event).freeze(
        selection, deadline(context), number=event["pass"], polls=event["polls"], tables=event["tables"]
    )
    logger.info(
        "functions frozen",
        incident_id=event["incidentId"],
        functions=progress.functions,
        complete=progress.complete,
        freeze_pass=event["pass"],
        changed=list(progress.changed),
    )
    if progress.complete and event["pass"] > 1 and not progress.changed:
        Incident(
            ledger=ledger(), clock=utc_now, incident_id=event["incidentId"], execution_arn=event["executionArn"]
        ).begin_resets()
    return {
        "complete": progress.complete,
        "functions": progress.functions,
        "drainedAt": progress.drained_at,
        "waitSeconds": progress.wait_seconds,
        "polls": next_polls(event, progress),
        "changed": len(progress.changed),
        "changedNames": _some(progress.changed),
    }


def _some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
