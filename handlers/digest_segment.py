"""Counts and digests the items of one segment of the source or of the destination."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.core.clock import utc_now
from handlers.core.engine import Digest
from handlers.runtime import data_client, logger
from handlers.segment_event import SegmentEvent, work, worker_pool


@logger.inject_lambda_context(clear_state=True)
def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Entry point of the function digest-segment. ``side`` is ``source`` or ``destination``."""
    side = event["side"]
    sides = {"source": event["sourceTableName"], "destination": event["tableName"]}
    other = {"source": "destination", "destination": "source"}[side]
    digest = Digest(
        dynamodb=data_client(),
        table_name=sides[side],
        other_table_name=sides[other],
        key_names=tuple(event["keyNames"]),
        may_be_absent=side == "source",
        ttl_attribute=event["ttlAttribute"],
        expiry_horizon=event["expiryHorizon"],
        clock=utc_now,
    )
    with worker_pool() as pool:
        return work(SegmentEvent.parse(event, f"verify-{side}"), digest, pool, context)
