"""The event and the answer that the segment workers (purge, copy, differential, digest, compare) share."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any

from handlers.core.clock import utc_now
from handlers.core.engine import BatchReader, BatchWriter, Engine, Expiry, Phase, WalkingPhase
from handlers.core.hard_reset import WRITING_PHASES, HardReset
from handlers.core.ledger import SegmentId
from handlers.core.locks import require_lock, table_lock
from handlers.core.pacing import Pacer
from handlers.runtime import PAGE_THREADS, WORKER_THREADS, data_client, deadline, ledger, logger


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


@dataclass(frozen=True, kw_only=True)
class Sides:
    """Which side a worker reads whole, and how it looks at the other. ``side``: ``source`` or ``destination``."""

    is_source: bool
    table_name: str
    other: BatchReader
    expiry: Expiry

    @classmethod
    def parse(cls, event: Mapping[str, Any], pool: ThreadPoolExecutor) -> Sides:
        """Read the state machine's payload."""
        tables = {"source": event["sourceTableName"], "destination": event["tableName"]}
        other = {"source": "destination", "destination": "source"}[event["side"]]
        return cls(
            is_source=event["side"] == "source",
            table_name=tables[event["side"]],
            other=BatchReader(
                dynamodb=data_client(),
                table_name=tables[other],
                key_names=tuple(event["keyNames"]),
                executor=pool,
            ),
            expiry=Expiry(attribute=event["ttlAttribute"], horizon=event["expiryHorizon"], clock=utc_now),
        )


GUARD_SECONDS = 1.0
"""How long a good answer of the ledger stands where nothing is written, or is tried again that was allowed before.

All locks are in one partition of the ledger, which gives 3,000 reads a second (DynamoDB's limit), and one worker reads
fourteen pages of small items a second.
"""


def guard(event: SegmentEvent, *, stands_seconds: float = 0.0) -> Callable[[], None]:
    """What stops a worker that has outlived its execution or its phase: to be called before every page and every retry.

    What it returns raises :class:`handlers.core.errors.StaleWorker`. It asks the ledger unless the last good answer was
    asked for less than ``stands_seconds`` ago.
    """
    book = ledger()
    asking, stands_until = Lock(), -math.inf
    reset = HardReset(ledger=book, clock=utc_now, incident_id=event.id.incident_id, table_name=event.id.table_name)

    def check() -> None:
        nonlocal stands_until
        with asking:
            asked = time.monotonic()
            if asked < stands_until:
                return
            require_lock(book, table_lock(event.id.table_name), event.execution_arn)
            if event.id.phase in WRITING_PHASES:
                reset.require_phase(event.id.phase, event.id.generation)
            stands_until = asked + stands_seconds

    return check


def writer(event: Mapping[str, Any], segment: SegmentEvent, pool: ThreadPoolExecutor) -> BatchWriter:
    """What writes to the destination, at the worker's share of the pace."""
    pacing, book = event["pacing"], ledger()
    pacer = Pacer(
        start=pacing["startUnitsPerSecond"] / pacing["workers"],
        limit=pacing["limitUnitsPerSecond"],
        workers=pacing["workers"],
        count_workers=lambda: min(pacing["workers"], book.segments_left(segment.id, segment.total_segments)),
    )
    return BatchWriter(
        dynamodb=data_client(),
        table_name=segment.id.table_name,
        executor=pool,
        pacer=pacer,
        guard=guard(segment, stands_seconds=GUARD_SECONDS),
    )


def worker_pool() -> ThreadPoolExecutor:
    """The threads of one invocation's batches; leaving its context waits for them."""
    return ThreadPoolExecutor(max_workers=WORKER_THREADS)


def work(event: SegmentEvent, phase: Phase | WalkingPhase, context: Any) -> dict[str, Any]:
    """Work on the segment until it is complete or the invocation's time is up; the answer says which."""
    with ThreadPoolExecutor(max_workers=PAGE_THREADS) as pages:
        engine = Engine(dynamodb=data_client(), ledger=ledger(), executor=pages)
        own_guard = guard(event, stands_seconds=0.0 if event.id.phase in WRITING_PHASES else GUARD_SECONDS)
        checkpoint = engine.run(event.id, event.total_segments, phase, deadline(context), own_guard)
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
