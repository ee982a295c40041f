"""Freezes the system's Lambda functions; with ``plan`` true only counts them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.core.freeze import Selection
from handlers.runtime import deadline, freezer, logger


@logger.inject_lambda_context(clear_state=True)
def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Entry point of the function freeze-functions."""
    selection = Selection.from_event(event["selection"])
    if event["plan"]:
        return {"functions": len(freezer(event).select(selection))}
    progress = freezer(event).freeze(selection, deadline(context))
    logger.info(
        "functions frozen",
        incident_id=event["incidentId"],
        functions=progress.functions,
        complete=progress.complete,
    )
    return {"complete": progress.complete, "functions": progress.functions, "drainedAt": progress.drained_at}
