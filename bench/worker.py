"""The worker that is measured: the product's engine against an endpoint, with checkpoints kept in memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import boto3
from botocore.config import Config

from handlers.core.clock import Deadline
from handlers.core.engine import BatchWriter, Engine, Phase, WalkingPhase
from handlers.core.ledger import Checkpoint, SegmentId
from handlers.core.pacing import Pacer
from handlers.core.wire import WireClient
from handlers.runtime import PAGE_THREADS, WORKER_THREADS

from .endpoint import Endpoint

UNLIMITED = {
    "mode": "provisioned",
    "write_units": 1e9,
    "read_units": 1e9,
    "quota": 1e9,
    "partition_limits": False,
}
"""A table that is never the bottleneck."""
_LONGEST_SECONDS = 3600.0


@dataclass
class MemoryLedger:
    """As much of the ledger as the engine uses."""

    checkpoints: dict[SegmentId, Checkpoint] = field(default_factory=dict)

    def load_checkpoint(self, segment: SegmentId) -> Checkpoint:
        """The segment's checkpoint."""
        return self.checkpoints.get(segment, Checkpoint())

    def save_checkpoint(self, segment: SegmentId, checkpoint: Checkpoint) -> Checkpoint:
        """Move it on."""
        self.checkpoints[segment] = saved = replace(checkpoint, version=checkpoint.version + 1)
        return saved


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One worker, as one Lambda function is: clients, threads, and the engine."""

    client: WireClient
    batches: ThreadPoolExecutor
    engine: Engine

    def writer(self, table: str, pacer: Pacer | None = None) -> BatchWriter:
        """What writes to a table."""
        return BatchWriter(dynamodb=self.client, table_name=table, executor=self.batches, pacer=pacer)

    def run(self, phase: Phase | WalkingPhase, *, segment: int = 0, segments: int = 1) -> Checkpoint:
        """Work on one segment to its end.

        Raises:
            RuntimeError: it was not completed.
        """
        work = SegmentId(incident_id="bench", table_name="bench", phase="bench", generation=1, segment=segment)
        done = self.engine.run(work, segments, phase, Deadline.after(_LONGEST_SECONDS))
        if not done.complete:
            raise RuntimeError(f"segment {segment} of {segments} was not completed within {_LONGEST_SECONDS:.0f} s")
        return done


def session() -> boto3.Session:
    """A session with credentials that the endpoint takes."""
    return boto3.Session(aws_access_key_id="bench", aws_secret_access_key="bench", region_name="us-east-1")  # noqa: S106


@contextmanager
def worker(target: Endpoint) -> Iterator[Worker]:
    """A worker with the threads and connections that it has in Lambda."""
    made = session()
    config = Config(max_pool_connections=WORKER_THREADS + PAGE_THREADS, connect_timeout=5, read_timeout=60)
    client: Any = made.client("dynamodb", endpoint_url=target.url, config=config)
    credentials: Any = made.get_credentials()
    with (
        ThreadPoolExecutor(max_workers=WORKER_THREADS) as batches,
        ThreadPoolExecutor(max_workers=PAGE_THREADS) as pages,
    ):
        wire = WireClient(client=client, credentials=credentials)
        ledger: Any = MemoryLedger()
        yield Worker(client=wire, batches=batches, engine=Engine(dynamodb=wire, ledger=ledger, executor=pages))


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time that this process spends on ``work``, of all its threads."""
    before = time.process_time()
    work()
    return time.process_time() - before
