"""Counts and digests the items of one segment of the source or of the destination."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.core.engine import Digest
from handlers.runtime import logger
from handlers.segment_event import SegmentEvent, work, worker_pool


@logger.inject_lambda_context(clear_state=True)
def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Entry point of the function digest-segment. ``side`` is ``source`` or ``destination``."""
    side = event["side"]
    table_name = {"source": event["sourceTableName"], "destination": event["tableName"]}[side]
    digest = Digest(table_name=table_name, ttl_attribute=event["ttlAttribute"], expiry_horizon=event["expiryHorizon"])
    with worker_pool() as pool:
        return work(SegmentEvent.parse(event, f"verify-{side}"), digest, pool, context)
