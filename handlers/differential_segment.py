"""Finds what differs between one segment of the source and of the destination, and writes only that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.core.differential import Differential
from handlers.core.engine import BatchReader
from handlers.runtime import data_client, logger
from handlers.segment_event import SegmentEvent, work, worker_pool, writer


@logger.inject_lambda_context(clear_state=True)
def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Entry point of the function differential-segment."""
    segment = SegmentEvent.parse(event, "differential")
    with worker_pool() as pool:

        def reader(table_name: str) -> BatchReader:
            return BatchReader(
                dynamodb=data_client(), table_name=table_name, key_names=tuple(event["keyNames"]), executor=pool
            )

        differential = Differential(
            source=reader(event["sourceTableName"]),
            destination=reader(event["tableName"]),
            writer=writer(event, segment, pool),
        )
        return work(segment, differential, context)
