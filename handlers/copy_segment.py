"""Copies the items of one segment of the source into the destination."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.core.engine import Copy
from handlers.runtime import logger
from handlers.segment_event import SegmentEvent, work, worker_pool, writer


@logger.inject_lambda_context(clear_state=True)
def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Entry point of the function copy-segment."""
    segment = SegmentEvent.parse(event, "copy")
    with worker_pool() as pool:
        return work(
            segment, Copy(source_table_name=event["sourceTableName"], writer=writer(event, segment, pool)), context
        )
