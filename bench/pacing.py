"""How much of the allowed write units is used, and how often a request is throttled.

At 1,000 and 4,000 units a second workers copy over HTTP in real time. At 40,000, more than a small machine can serve,
the product's pacers drive the same model of DynamoDB in simulated time, each with the workers' slots and back-offs.
"""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from handlers.core.engine import BATCHES_AT_ONCE, Copy, is_throttling
from handlers.core.facts import CapacityFacts, TableFacts
from handlers.core.forecast import Options, WorkerSpeed, forecast
from handlers.core.pacing import Pacer
from handlers.core.prices import Prices
from handlers.core.tables import choose_stride

from .capacity import CapacityOptions
from .endpoint import Endpoint, endpoint
from .items import KeyAttribute, KeySchema
from .latency import Latency
from .store import LocalClient, Store
from .worker import UNLIMITED, worker

LATENCY = Latency(median=0.005, p99=0.025)
_ITEM_BYTES = 1024
_EDGE_SECONDS = 3  # of the start, with full buckets, and of the end, with fewer workers: not the steady state
_BATCH = 25


def provisioned(units: float) -> dict[str, Any]:
    """A table that lets so many write units a second pass."""
    return {"mode": "provisioned", "write_units": units, "read_units": 40_000, "quota": 40_000}


def _steady(by_second: Sequence[float], allowed: float) -> float:
    steady = by_second[_EDGE_SECONDS:-_EDGE_SECONDS]
    if len(steady) < 2 * _EDGE_SECONDS:
        raise RuntimeError(f"only {len(by_second)} seconds were measured: too few for a steady state")
    return sum(steady) / len(steady) / allowed


def _forecast(allowed: int, items: int, segments: int, workers: int) -> float:
    """Seconds that the product forecasts for the copy; this machine's workers start at once."""
    facts = TableFacts(
        items=items, bytes=items * _ITEM_BYTES, capacity=CapacityFacts(on_demand=False, write=allowed, read=40_000)
    )
    options = Options(segments=segments, concurrency=workers)
    return round(forecast(facts, options, Prices(), speed=WorkerSpeed(start_seconds=0.0)).copy_seconds, 1)


def real(allowed: int, seconds: int, workers: int = 4, segments: int = 16) -> dict[str, Any]:
    """Copy a table of ``allowed * seconds`` items over HTTP, with as many workers, each on one segment at a time."""
    with endpoint(latency=LATENCY) as target:
        target.create_table("source", capacity=UNLIMITED)
        target.fill("source", allowed * seconds, size=_ITEM_BYTES)
        target.create_table("copy", like="source", capacity=provisioned(allowed))
        target.reset_stats()
        stride = choose_stride(segments)
        queue = iter([number * stride % segments for number in range(segments)])
        began = time.monotonic()
        with ThreadPoolExecutor(max_workers=workers) as pool:
            shares = [pool.submit(_work_off, target, queue, segments, allowed / workers) for _ in range(workers)]
            copied = sum(share.result() for share in shares)
        took = time.monotonic() - began
        stats = target.stats()
        differences = target.differences("source", "copy")
    table = stats["tables"]["copy"]
    return {
        "allowedWcu": allowed,
        "utilisation": round(_steady(table["written_by_second"], allowed), 4),
        "throttledShare": round(table["throttled_requests"] / stats["requests"]["BatchWriteItem"], 4),
        "lostItems": sum(differences.values()) + abs(copied - allowed * seconds),
        "time": "real",
        "items": allowed * seconds,
        "workers": workers,
        "seconds": round(took, 1),
        "forecastSeconds": _forecast(allowed, allowed * seconds, segments, workers),
    }


def _work_off(target: Endpoint, segments: Iterator[int], total: int, start: float) -> int:
    copied = 0
    with worker(target) as one:
        for segment in segments:
            # A pacer for each segment, as each is an invocation of its own.
            writer = one.writer("copy", Pacer(start=start))
            copied += one.run(Copy(source_table_name="source", writer=writer), segment=segment, segments=total).items
    return copied


@dataclass
class _Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class _Slot:
    """One of a worker's threads: a batch on its way, its attempts, and the pages of the worker's segment."""

    worker: _SimulatedWorker
    batch: list[Any] = field(default_factory=list)
    reserved: float = 0.0
    attempt: int = 0


@dataclass
class _SimulatedWorker:
    """A worker's pacer and what is left of its segment."""

    pacer: Pacer
    batches: Iterator[list[Any]]


@dataclass
class Simulated:
    """Workers on simulated time: slots take batches in turn, wait for the pacer, send, and back off."""

    allowed: int
    seconds: int
    workers: int = 160
    segments: int = 160
    clock: _Clock = field(default_factory=_Clock)
    throttled: int = 0
    requests: int = 0

    def run(self) -> dict[str, Any]:
        """Copy to the end; the measure."""
        self.random = random.Random(1)
        items = self.allowed * self.seconds
        store = Store()
        schema = KeySchema(partition=KeyAttribute(name="pk", type="S"))
        store.create_table("copy", schema, CapacityOptions(**provisioned(self.allowed)), 0.0)
        # The segments' items in the order of a scan. Of a key alone: it takes one write unit as any item up to 1 KB.
        keys = sorted(
            (f"item-{number:09d}" for number in range(items)), key=lambda key: schema.place({"pk": {"S": key}})
        )
        self.keys = [keys[items * n // self.segments : items * (n + 1) // self.segments] for n in range(self.segments)]
        self.client = LocalClient(store, self.clock, latency=LATENCY, seed=2)
        stride = choose_stride(self.segments)
        self.queue = iter([number * stride % self.segments for number in range(self.segments)])
        events: list[tuple[float, int, str, _Slot]] = []
        for _ in range(self.workers):
            one = _SimulatedWorker(pacer=self._pacer(), batches=iter(()))
            for _ in range(BATCHES_AT_ONCE):
                self._next_batch(_Slot(one), events)
        while events:
            self.clock.now, _, step, slot = heapq.heappop(events)
            if step == "send":
                self._send(slot, events)
            elif slot.batch:
                self._reserve(slot, events)
            else:
                self._next_batch(slot, events)
        copied = store.stats()["tables"]["copy"]
        return {
            "allowedWcu": self.allowed,
            "utilisation": round(_steady(copied["written_by_second"], self.allowed), 4),
            "throttledShare": round(self.throttled / self.requests, 4),
            # Every key is written once, or the counts differ.
            "lostItems": abs(copied["items"] - items) + abs(copied["puts"] - items),
            "time": "simulated",
            "items": items,
            "workers": self.workers,
            "seconds": round(self.clock.now, 1),
            "forecastSeconds": _forecast(self.allowed, items, self.segments, self.workers),
        }

    def _pacer(self) -> Pacer:
        return Pacer(start=self.allowed / self.workers, monotonic=self.clock)

    def _batches(self, segment: int) -> Iterator[list[Any]]:
        keys = self.keys[segment]
        for start in range(0, len(keys), _BATCH):
            yield [{"PutRequest": {"Item": {"pk": {"S": key}}}} for key in keys[start : start + _BATCH]]

    def _next_batch(self, slot: _Slot, events: list[Any]) -> None:
        while True:
            batch = next(slot.worker.batches, None)
            if batch is not None:
                break
            segment = next(self.queue, None)
            if segment is None:
                return
            slot.worker.batches, slot.worker.pacer = self._batches(segment), self._pacer()
        slot.batch, slot.attempt = batch, 0
        self._reserve(slot, events)

    def _reserve(self, slot: _Slot, events: list[Any]) -> None:
        slot.reserved = slot.worker.pacer.expect(len(slot.batch))
        self._at(events, slot.worker.pacer.reserve(slot.reserved), "send", slot)

    def _send(self, slot: _Slot, events: list[Any]) -> None:
        self.requests += 1
        sent = len(slot.batch)
        try:
            answer, latency = self.client.call(
                "BatchWriteItem", self.clock.now, RequestItems={"copy": slot.batch}, ReturnConsumedCapacity="TOTAL"
            )
        except ClientError as error:
            if not is_throttling(error):
                raise
            answer, latency = {"UnprocessedItems": {"copy": slot.batch}}, 0.005
        slot.batch = list(answer.get("UnprocessedItems", {}).get("copy", ()))
        consumed = sum(entry["CapacityUnits"] for entry in answer.get("ConsumedCapacity", ()))
        self.throttled += bool(slot.batch)
        slot.worker.pacer.report(slot.reserved, consumed, sent=sent, written=sent - len(slot.batch))
        delay = self.random.uniform(0, min(5.0, 0.05 * 2**slot.attempt)) if slot.batch else 0.0
        slot.attempt += 1
        self._at(events, latency + delay, "next", slot)

    def _at(self, events: list[Any], seconds: float, step: str, slot: _Slot) -> None:
        self.order = getattr(self, "order", 0) + 1
        heapq.heappush(events, (self.clock.now + seconds, self.order, step, slot))


def measure() -> list[Mapping[str, Any]]:
    """The three rows of the report."""
    return [real(1_000, 40), real(4_000, 30), Simulated(allowed=40_000, seconds=25).run()]
