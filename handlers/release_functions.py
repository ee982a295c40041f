"""Puts back every setting that the incident's freeze changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.runtime import deadline, freezer, logger


@logger.inject_lambda_context(clear_state=True)
def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Entry point of the function release-functions."""
    progress = freezer(event).release(deadline(context))
    logger.info(
        "functions released",
        incident_id=event["incidentId"],
        functions=progress.functions,
        complete=progress.complete,
    )
    return {"complete": progress.complete, "functions": progress.functions}
