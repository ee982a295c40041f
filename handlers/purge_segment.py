"""Deletes the items of one segment of the destination."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.core.engine import Purge
from handlers.runtime import logger
from handlers.segment_event import SegmentEvent, work, worker_pool, writer


@logger.inject_lambda_context(clear_state=True)
def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Entry point of the function purge-segment."""
    segment = SegmentEvent.parse(event, "purge")
    with worker_pool() as pool:
        return work(segment, Purge(writer=writer(event, segment, pool), key_names=tuple(event["keyNames"])), context)
