"""The event and the answer that the three segment workers (purge, copy, digest) share."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from handlers.core.clock import utc_now
from handlers.core.engine import Engine, Phase
from handlers.core.hard_reset import HardReset
from handlers.core.ledger import Ledger, SegmentId
from handlers.core.locks import require_lock, table_lock
from handlers.runtime import WORKER_THREADS, data_client, deadline, ledger, logger


@dataclass(frozen=True, kw_only=True)
class SegmentEvent:
    """One segment of one phase of a hard reset."""

    id: SegmentId
    total_segments: int
    execution_arn: str

    @classmethod
    def parse(cls, event: Mapping[str, Any], phase: str) -> SegmentEvent:
        """Read the state machine's payload."""
        return cls(
            id=SegmentId(
                incident_id=event["incidentId"],
                table_name=event["tableName"],
                phase=phase,
                generation=event["generation"],
                segment=event["segment"],
            ),
            total_segments=event["totalSegments"],
            execution_arn=event["executionArn"],
        )


def _guard(book: Ledger, event: SegmentEvent) -> None:
    """Stop a worker that has outlived its execution or its phase, before it touches one more page."""
    require_lock(book, table_lock(event.id.table_name), event.execution_arn)
    if event.id.phase in ("purge", "copy"):
        reset = HardReset(ledger=book, clock=utc_now, incident_id=event.id.incident_id, table_name=event.id.table_name)
        reset.require_phase(event.id.phase, event.id.generation)


def worker_pool() -> ThreadPoolExecutor:
    """The threads of one invocation; leaving its context waits for them."""
    return ThreadPoolExecutor(max_workers=WORKER_THREADS)


def work(event: SegmentEvent, phase: Phase, pool: ThreadPoolExecutor, context: Any) -> dict[str, Any]:
    """Work on the segment until it is complete or the invocation's time is up; the answer says which."""
    book = ledger()
    engine = Engine(dynamodb=data_client(), ledger=book, executor=pool)
    checkpoint = engine.run(event.id, event.total_segments, phase, deadline(context), lambda: _guard(book, event))
    logger.info(
        "segment worked on",
        incident_id=event.id.incident_id,
        table=event.id.table_name,
        phase=event.id.phase,
        segment=event.id.segment,
        complete=checkpoint.complete,
        items=checkpoint.items,
    )
    return {"complete": checkpoint.complete, "items": checkpoint.items}
