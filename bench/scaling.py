"""Throughput of eight segments at once against that of one, where the endpoint's latency is what bounds it."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from statistics import median
from typing import Any

from handlers.core.engine import Copy

from .cpu import summary
from .endpoint import Endpoint, endpoint
from .latency import Latency
from .worker import UNLIMITED, worker

SEGMENTS = 8
ITEMS = 32_000
RUNS = 3
# Long enough that all eight together keep one core half idle.
LATENCY = Latency(median=0.6, p99=0.61)


def _throughput(target: Endpoint, segments: range, run: str) -> float:
    """Items a second while these segments are copied at once, by workers that have started."""
    copy = f"copy-{run}"
    target.create_table(copy, like="source", capacity=UNLIMITED)
    with ExitStack() as stack:
        # Each segment's worker starts in a Lambda of its own; here they would start one after the other.
        workers = [stack.enter_context(worker(target)) for _ in segments]

        def one(segment: int) -> int:
            phase = Copy(source_table_name="source", writer=workers[segment].writer(copy))
            return workers[segment].run(phase, segment=segment, segments=SEGMENTS).items

        pool = stack.enter_context(ThreadPoolExecutor(max_workers=len(segments)))
        began = time.monotonic()
        items = sum(pool.map(one, segments))
        return items / (time.monotonic() - began)


def measure() -> dict[str, Any]:
    """The ratio, of runs in which one segment and all eight follow each other."""
    ratios = []
    with endpoint(latency=LATENCY) as target:
        target.create_table("source", capacity=UNLIMITED)
        target.fill("source", ITEMS)
        for run in range(RUNS):
            alone = _throughput(target, range(1), f"alone-{run}")
            together = _throughput(target, range(SEGMENTS), f"together-{run}")
            ratios.append(together / alone)
        if any(target.differences("source", "copy-together-0").values()):
            raise RuntimeError("eight segments did not copy the table")
    return {
        "segmentScaling": round(median(ratios), 2),
        "noise": {"segmentScaling": summary(ratios)},
        "fixture": f"{ITEMS:,} items of 1 KB, every request {LATENCY.median:g} s",
    }
