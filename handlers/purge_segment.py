"""Deletes the items of one segment of the destination."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.core.engine import BatchWriter, Purge
from handlers.core.tables import describe_table
from handlers.runtime import client, data_client, logger
from handlers.segment_event import SegmentEvent, work, worker_pool


@logger.inject_lambda_context(clear_state=True)
def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Entry point of the function purge-segment."""
    segment = SegmentEvent.parse(event, "purge")
    destination = describe_table(client("dynamodb"), event["tableName"])
    with worker_pool() as pool:
        writer = BatchWriter(dynamodb=data_client(), table_name=destination.name, executor=pool)
        return work(segment, Purge(writer=writer, key_names=destination.key_names), pool, context)
