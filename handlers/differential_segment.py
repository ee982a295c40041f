"""Finds what differs between one segment of the source and of the destination, and writes only that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.core.clock import utc_now
from handlers.core.differential import Differential
from handlers.core.engine import BatchReader, Expiry
from handlers.runtime import data_client, logger
from handlers.segment_event import SegmentEvent, work, worker_pool, writer

# TTL leaves alone what expired five years ago or longer, and the verification comes later than this: what is within a
# year of that limit is put back rather than believed to be TTL's.
_YEAR_SECONDS = 366 * 86_400


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
            expiry=Expiry(
                attribute=event["ttlAttribute"], horizon=int(utc_now().timestamp()) + _YEAR_SECONDS, clock=utc_now
            ),
        )
        return work(segment, differential, context)
