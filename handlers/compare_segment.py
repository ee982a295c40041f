"""Compares the items of one segment of one side with the other side, and lists the keys of those that differ."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from handlers.core.compare import Compare, Listing, differences_prefix
from handlers.runtime import client, logger
from handlers.segment_event import SegmentEvent, Sides, work, worker_pool


def _put(key: str, body: bytes) -> None:
    client("s3").put_object(
        Bucket=os.environ["REPORT_BUCKET"], Key=key, Body=body, ContentType="application/x-ndjson; charset=utf-8"
    )


@logger.inject_lambda_context(clear_state=True)
def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Entry point of the function compare-segment. ``side`` is ``source`` or ``destination``."""
    segment = SegmentEvent.parse(event, f"compare-{event['side']}")
    listing = Listing(
        put=_put,
        prefix=differences_prefix(segment.id.incident_id, segment.execution_arn, segment.id.table_name),
        segment=f"{event['side']}-{segment.id.segment:06d}",
    )
    with worker_pool() as pool:
        sides = Sides.parse(event, pool)
        compare = Compare(
            table_name=sides.table_name,
            other=sides.other,
            is_source=sides.is_source,
            expiry=sides.expiry,
            act=listing,
        )
        return work(segment, compare, context)
