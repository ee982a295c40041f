"""Puts back every setting that the freeze changed; with ``discard`` true lets streams skip the reset before that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.core.clock import utc_now
from handlers.core.freeze import Progress, discard_seconds
from handlers.core.incident import Incident
from handlers.runtime import deadline, freezer, ledger, logger, next_polls


@logger.inject_lambda_context(clear_state=True)
def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Entry point of the function release-functions.

    ``recovered``: every table is verified, and the streams' consumers have skipped what they were to skip. ``polls`` is
    what this function answered to the call before, 0 at first. Answers ``complete``, ``functions``
    (released; of a discard the event source mappings that take part), ``waitSeconds`` (pause before the next call, and
    after a complete discard before the release) and ``polls``.
    """
    if event["discard"]:
        progress = freezer(event).discard(event["tables"], deadline(context), polls=event["polls"])
        wait = (
            discard_seconds(_incident(event).finished_tables()) + progress.lag_seconds
            if progress.complete and progress.functions
            else progress.wait_seconds
        )
        logger.info(
            "stream records are being discarded",
            incident_id=event["incidentId"],
            mappings=progress.functions,
            complete=progress.complete,
        )
        return _answer(event, progress, wait)
    if event["recovered"]:
        _incident(event).begin_release()
    progress = freezer(event).release(deadline(context), polls=event["polls"])
    logger.info(
        "functions released",
        incident_id=event["incidentId"],
        functions=progress.functions,
        complete=progress.complete,
    )
    return _answer(event, progress, progress.wait_seconds)


def _incident(event: Mapping[str, Any]) -> Incident:
    return Incident(
        ledger=ledger(), clock=utc_now, incident_id=event["incidentId"], execution_arn=event["executionArn"]
    )


def _answer(event: Mapping[str, Any], progress: Progress, wait_seconds: int) -> dict[str, Any]:
    return {
        "complete": progress.complete,
        "functions": progress.functions,
        "waitSeconds": wait_seconds,
        "polls": next_polls(event, progress),
    }
