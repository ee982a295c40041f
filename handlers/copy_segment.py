"""Copies the items of one segment of the source into the destination."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.core.engine import BatchWriter, Copy
from handlers.runtime import data_client, logger
from handlers.segment_event import SegmentEvent, guard, work, worker_pool


@logger.inject_lambda_context(clear_state=True)
def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Entry point of the function copy-segment."""
    segment = SegmentEvent.parse(event, "copy")
    with worker_pool() as pool:
        writer = BatchWriter(dynamodb=data_client(), table_name=event["tableName"], executor=pool, guard=guard(segment))
        return work(segment, Copy(source_table_name=event["sourceTableName"], writer=writer), pool, context)
