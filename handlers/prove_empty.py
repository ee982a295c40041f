"""Proves that the destination is empty after its purge, and only then lets the copy begin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.core.clock import utc_now
from handlers.core.engine import find_any_item
from handlers.core.hard_reset import HardReset
from handlers.runtime import data_client, deadline, ledger, logger


@logger.inject_lambda_context(clear_state=True)
def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Entry point of the function prove-empty."""
    reset = HardReset(ledger=ledger(), clock=utc_now, incident_id=event["incidentId"], table_name=event["tableName"])
    reset.purged(find_any_item(data_client(), event["tableName"], deadline(context)))
    return {"empty": True}
