"""Compares the digests of both sides and gives the verdict on one hard reset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.core.clock import utc_now
from handlers.core.hard_reset import HardReset
from handlers.runtime import ledger, logger


@logger.inject_lambda_context(clear_state=True)
def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001 - Lambda's signature
    """Entry point of the function verify."""
    reset = HardReset(ledger=ledger(), clock=utc_now, incident_id=event["incidentId"], table_name=event["tableName"])
    summary = reset.verify(event.get("verifyingSince"))
    logger.info(
        "table verified", incident_id=event["incidentId"], table=event["tableName"], items=summary["verifiedItems"]
    )
    return summary
