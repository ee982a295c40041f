"""Counts and digests the items of one segment of the source or of the destination."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.core.engine import Digest
from handlers.runtime import logger
from handlers.segment_event import SegmentEvent, Sides, work, worker_pool


@logger.inject_lambda_context(clear_state=True)
def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:
    """Entry point of the function digest-segment. ``side`` is ``source`` or ``destination``."""
    with worker_pool() as pool:
        sides = Sides.parse(event, pool)
        digest = Digest(
            table_name=sides.table_name, other=sides.other, may_be_absent=sides.is_source, expiry=sides.expiry
        )
        return work(SegmentEvent.parse(event, f"verify-{event['side']}"), digest, context)
