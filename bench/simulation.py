"""A reset of one table, simulated: sizes and capacities that no machine at hand can try.

``python -m bench.simulation`` runs all of it. A discrete-event simulation: between two events every worker moves at a
constant rate; an event is a worker that crosses into another partition, ends its segment or its invocation, a capacity
that grows, or a pacer that has found its rate. It shares no formula with ``handlers/core/forecast.py``; only what both
have to be told: prices, the speed of one worker, and AWS's documented numbers.

What is modelled:

- **Table**: items in the order of their keys' hashes, 0 to 1. Partitions are ranges of it, as many as throughput and
  10 GB a partition ask for; a *hot* table has half of its items in one partition's range (of more than 10 GB, that is
  split by size). Each partition gives 1,000 write and 3,000 read units a second, the table what it is provisioned or,
  on demand, has warmed up to; on demand that is twice the traffic of the last half hour, up to the quota of 40,000.
  The restored table is on demand and new. Burst capacity, which is not promised, is left out.
- **Workers**: each walks through a segment, which is a range of hashes too. It is bound by its own speed, by its share
  of the partition that it is on, and by its share of the table, found by a pacer that takes some seconds.
- **Step Functions and Lambda**: a Distributed Map of so many children at once, each started against StartExecution's
  bucket, with a cold start or a warm one, invocations of 15 minutes less the time kept to save the checkpoint,
  history events and state transitions; one checkpoint a second and worker in the ledger.

Every quota that is met is written down with the largest value met: :data:`QUOTAS`.
"""

from __future__ import annotations

import json
import math
import random
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from handlers.core.engine import PAGE_ITEMS
from handlers.core.facts import CapacityFacts, TableFacts
from handlers.core.forecast import Options, WorkerSpeed, forecast
from handlers.core.prices import Prices, Usage
from handlers.core.tables import choose_segments, choose_stride, expiry_seconds
from statemachines import hard_reset

FOLDER = Path(__file__).resolve().parent.parent / "build" / "bench"

GB, KIB = 10**9, 1024
PARTITION_WRITES, PARTITION_READS = 1_000.0, 3_000.0
NEW_TABLE_WRITES, NEW_TABLE_READS = 4_000.0, 12_000.0
TABLE_QUOTA = 40_000.0
PARTITION_BYTES = 10 * 1024**3
HALF_HOUR = 1800.0
PAGE_BYTES = 1024 * 1024
RESTORE_SECONDS = 3600.0
"""95 % of restores end within an hour; the simulation says nothing new about it."""
PACED, FEELING, FEELING_SECONDS = 0.97, 0.6, 10.0
"""Share of the allowed units that a pacer uses; at first, and for how long: it starts low and feels its way."""
MAP_SECONDS = 1.0
"""From one phase's end to the next one's children: states, a call between them, the Map run."""
CHILD_SECONDS, COLD_SECONDS, WARM_SECONDS = 0.4, 1.8, 0.1
"""A child's first state; a new Lambda environment with its imports; one that is there already."""
MOST_EXACT = 300
"""Above so many in a phase invocations are counted, and not each simulated: their pauses are 0.06 % of the time."""

TABLE_WRITES, TABLE_READS = "table write capacity", "table read capacity"
PARTITIONS, WORKERS, OPERATOR, RESTORE = "partition throughput", "workers", "operator's limit", "restore"

_NEAR = 1e-12  # of a hash: a billionth of the narrowest segment

QUOTAS: Mapping[str, tuple[float, str]] = {
    "historyEvents": (25_000, "events of one Standard execution, here a Map's child"),
    "mapChildren": (10_000, "children of a Distributed Map at once"),
    "mapResultBytes": (262_144, "a state's output, here a Map's result"),
    "startExecutionBurst": (
        800,
        "tokens of StartExecution's bucket used at once (800 in small regions, 1,300 in large)",
    ),
    "stateTransitionsPerSecond": (800, "state transitions in a second (800 in small regions, 5,000 in large)"),
    "lambdaConcurrency": (1_000, "running invocations of an account"),
    "lambdaEnvironmentsPer10s": (1_000, "new environments of one function in ten seconds"),
    "ledgerWritesPerSecond": (1_000, "writes a second to the ledger's partition of one table"),
    "scanSegments": (1_000_000, "TotalSegments of a Scan"),
    "executionSeconds": (365 * 86_400, "an execution's duration"),
}
"""AWS's quotas: name → (quota, what it is of). From the documentation of Step Functions, Lambda and DynamoDB."""

LIMITS: Mapping[str, tuple[float, str]] = {
    "hardResetSeconds": (hard_reset.TIMEOUT_SECONDS, "the hard reset's own timeout, statemachines/hard_reset.py"),
    "recoverySeconds": (86_400, "what a DynamoDB stream keeps for consumers that are frozen meanwhile"),
    "verifyPercentOfHorizon": (100, "of the time within which TTL may delete unnoticed, what a verification takes"),
}
"""Not AWS's quotas but limits all the same, held against the same runs: name → (limit, what it is)."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A table and how it is reset.

    Args:
        capacity: the table's name for its capacity → units a second.
        hot_share: share of the items in one partition's range; 0: evenly spread.
        order: of the segments: ``spread``, as preflight has it, ``shuffled`` or ``sorted``.
    """

    items: int
    bytes: int
    capacity_name: str
    capacity: CapacityFacts
    hot_share: float = 0.0
    concurrency: int = 25
    order: str = "spread"
    max_write_units: float | None = None

    @property
    def segments(self) -> int:
        """As the program chooses them."""
        return choose_segments(self.items, self.bytes)

    @property
    def facts(self) -> TableFacts:
        """The table as a forecast sees it."""
        return TableFacts(items=self.items, bytes=self.bytes, capacity=self.capacity)

    @property
    def options(self) -> Options:
        """How the reset is to be run."""
        return Options(
            segments=self.segments,
            concurrency=self.concurrency,
            max_write_units_per_second=self.max_write_units,
            order=self.order,
        )


@dataclass
class Meter:
    """Everything that is counted, and the largest value of what has a quota."""

    largest: dict[str, float] = field(default_factory=dict)
    write_units: float = 0.0
    read_units: float = 0.0
    source_read_units: float = 0.0
    worker_seconds: float = 0.0
    invocations: int = 0
    transitions: int = 0
    ledger_writes: float = 0.0
    bounds: dict[str, float] = field(default_factory=dict)

    def met(self, quota: str, value: float) -> None:
        """Note a value against its quota."""
        self.largest[quota] = max(self.largest.get(quota, 0.0), value)


@dataclass
class Recent:
    """How much happened within the last ``seconds``."""

    seconds: float
    total: float = 0.0
    events: deque[tuple[float, float]] = field(default_factory=deque)

    def add(self, now: float, amount: float) -> float:
        """Note something; returns the sum within the window."""
        self.events.append((now, amount))
        self.total += amount
        while self.events[0][0] <= now - self.seconds:
            self.total -= self.events.popleft()[1]
        return self.total


@dataclass
class Bucket:
    """Units a second of a table in one direction."""

    units: float
    most: float
    on_demand: bool
    window_units: float = 0.0

    def half_hour_over(self) -> bool:
        """Grow with the traffic of the last half hour; whether it did."""
        traffic, self.window_units = self.window_units / HALF_HOUR, 0.0
        grown = min(self.most, 2 * traffic)
        if not self.on_demand or grown <= self.units * 1.001:
            return False
        self.units = grown
        return True

    @property
    def may_grow(self) -> bool:
        """Whether half hours still matter."""
        return self.on_demand and self.units < self.most * 0.999


@dataclass
class Zone:
    """A range of hashes with one density of items and equal partitions."""

    start: float
    end: float
    items: float
    partitions: int = 1

    @property
    def density(self) -> float:
        """Items per unit of hash."""
        return self.items / (self.end - self.start)


class SimulatedTable:
    """Partitions and token buckets of one table."""

    def __init__(self, scenario: Scenario, capacity: CapacityFacts, zones: list[Zone] | None = None) -> None:
        self._scenario = scenario
        on_demand = capacity.on_demand
        self.write = Bucket(
            capacity.write, min(TABLE_QUOTA, capacity.most_write or TABLE_QUOTA) if on_demand else capacity.write,
            on_demand,
        )  # fmt: skip
        self.read = Bucket(
            capacity.read, min(TABLE_QUOTA, capacity.most_read or TABLE_QUOTA) if on_demand else capacity.read,
            on_demand,
        )  # fmt: skip
        for bucket in (self.write, self.read):
            bucket.units = min(bucket.units, bucket.most)
        # The same ranges in both tables: they hold the same keys.
        self.zones = zones or self._zones()
        self.split()

    def _zones(self) -> list[Zone]:
        share, items = self._scenario.hot_share, float(self._scenario.items)
        if not share:
            return [Zone(0.0, 1.0, items)]
        width = 1.0 / self._by_throughput()
        if width == 1.0:
            return [Zone(0.0, 1.0, items)]
        start = math.floor(0.5 / width) * width
        cold = items * (1 - share) / (1 - width)
        zones = [
            Zone(0.0, start, cold * start),
            Zone(start, start + width, items * share),
            Zone(start + width, 1.0, cold * (1 - start - width)),
        ]
        return [zone for zone in zones if zone.end - zone.start > 1e-9]

    def _by_throughput(self) -> int:
        write, read = self.write.units / PARTITION_WRITES, self.read.units / PARTITION_READS
        return max(1, math.ceil(max(write, read) if self.write.on_demand else write + read))

    def split(self) -> None:
        """As many partitions as throughput and size ask for."""
        for zone in self.zones:
            by_throughput = max(1, round(self._by_throughput() * (zone.end - zone.start)))
            # Heat alone does not split what one partition's range holds; size does.
            hot = self._scenario.hot_share and zone.items >= self._scenario.items * self._scenario.hot_share * 0.999
            by_size = math.ceil(zone.items / self._scenario.items * self._scenario.bytes / PARTITION_BYTES)
            zone.partitions = max(1 if hot and len(self.zones) > 1 else by_throughput, by_size)

    def half_hour_over(self) -> bool:
        """Let both buckets grow; whether partitions changed."""
        grown = [bucket.half_hour_over() for bucket in (self.write, self.read)]
        if any(grown):
            self.split()
        return any(grown)


@dataclass(frozen=True, eq=False)
class Side:
    """One pass's work on an item: read units of a table, write units of the destination, at a worker's speed."""

    speed: float
    reads: float
    read_from: SimulatedTable
    writes: float = 0.0
    write_to: SimulatedTable | None = None

    @property
    def tables(self) -> tuple[SimulatedTable, ...]:
        """The tables whose partitions it is on."""
        if self.write_to is None or self.write_to is self.read_from:
            return (self.read_from,)
        return (self.read_from, self.write_to)


@dataclass(eq=False)
class Worker:
    """A child of the Map on its segment: where it was at ``since``, and how fast it has moved from there on."""

    side: Side
    at: float
    end: float
    since: float
    running: bool = False
    event: float = 0.0
    border: float = 0.0
    zone: int = 0
    density: float = 0.0
    keys: tuple[tuple[int, int, int], ...] = ()
    rate: float = 0.0
    worked: float = 0.0
    invocation_left: float = math.inf
    invocations: int = 1


class Simulation:
    """One scenario."""

    def __init__(self, scenario: Scenario, speed: WorkerSpeed | None = None) -> None:
        self.scenario = scenario
        self.speed = speed or WorkerSpeed()
        self.meter = Meter()
        self.table = SimulatedTable(scenario, scenario.capacity)
        new = CapacityFacts(write=NEW_TABLE_WRITES, read=NEW_TABLE_READS)
        self.source = SimulatedTable(scenario, new, [replace(zone) for zone in self.table.zones])
        self.now = 0.0
        self._half_hour = HALF_HOUR
        self._random = random.Random(7)
        self._transitions = Recent(1.0)
        self._ledger = Recent(1.0)
        self._starts = Recent(1.0)
        self._environments = Recent(10.0)
        self._warm = 0
        self._paced_from = 0.0
        self._crowd: dict[tuple[int, int, int], int] = {}

    def run(self) -> dict[str, Any]:
        """Simulate; returns durations, cost, what bounds it, and the largest values met."""
        size = self.scenario.bytes / self.scenario.items
        writes = float(max(1, math.ceil(size / KIB)))
        # A page ends at 500 items or 1 MB, and its units are rounded up.
        on_page = max(1.0, min(PAGE_ITEMS, PAGE_BYTES / size))
        reads = math.ceil(on_page * size / 4096) / on_page
        purge = Side(self._speed("purge_items", size), reads, self.table, writes, self.table)
        copy = Side(self._speed("copy_items", size), reads, self.source, writes, self.table)
        digest = self._speed("digest_items", size)
        seconds: dict[str, float] = {}
        phases: dict[str, str] = {}
        for phase, sides in (
            ("purge", [purge]),
            ("copy", [copy]),
            ("verify", [Side(digest, reads, self.source), Side(digest, reads, self.table)]),
        ):
            began, self.meter.bounds = self.now, {}
            self._phase(sides)
            seconds[phase] = self.now - began
            phases[phase] = max(self.meter.bounds, key=lambda name: self.meter.bounds[name])
        return self._result(seconds, phases)

    def _speed(self, name: str, size: float) -> float:
        return self.speed.rate(getattr(self.speed, name), size)

    def _result(self, seconds: dict[str, float], phases: dict[str, str]) -> dict[str, Any]:
        scenario, meter = self.scenario, self.meter
        reset = sum(seconds.values())
        meter.met("executionSeconds", reset)
        meter.met("hardResetSeconds", reset)
        meter.met("recoverySeconds", RESTORE_SECONDS + reset)
        meter.met("verifyPercentOfHorizon", 100 * seconds["verify"] / expiry_seconds(self.scenario.bytes))
        provisioned = not scenario.capacity.on_demand
        usage = Usage(
            write_units=meter.write_units,
            read_units=meter.read_units,
            source_read_units=meter.source_read_units,
            on_demand=not provisioned,
            provisioned_write=scenario.capacity.write if provisioned else 0,
            provisioned_read=scenario.capacity.read if provisioned else 0,
            restored_bytes=scenario.bytes,
            reset_seconds=reset,
            kept_seconds=RESTORE_SECONDS + reset,
            worker_seconds=meter.worker_seconds,
            worker_gb=self.speed.memory_gb,
            invocations=meter.invocations,
            transitions=meter.transitions,
            ledger_writes=meter.ledger_writes,
        )
        slowest = max(seconds, key=lambda phase: seconds[phase])
        return {
            "seconds": {**{phase: round(value, 1) for phase, value in seconds.items()}, "reset": round(reset, 1)},
            "totalSeconds": round(RESTORE_SECONDS + reset, 1),
            "writeUnits": round(meter.write_units),
            "readUnits": round(meter.read_units + meter.source_read_units),
            "usd": round(usage.dollars(Prices()), 4),
            "boundBy": RESTORE if reset <= RESTORE_SECONDS else phases[slowest],
            "phaseBounds": phases,
            "largest": {name: round(value, 1) for name, value in meter.largest.items()},
        }

    # --- one phase ----------------------------------------------------------------------------------------------------

    def _order(self) -> list[int]:
        segments = self.scenario.segments
        if self.scenario.order == "sorted":
            return list(range(segments))
        if self.scenario.order == "spread":
            stride = choose_stride(segments)
            return [index * stride % segments for index in range(segments)]
        order = list(range(segments))
        self._random.shuffle(order)
        return order

    def _tasks(self, sides: Sequence[Side]) -> Iterator[tuple[Side, float, float]]:
        segments = self.scenario.segments
        for side in sides:
            for index in self._order():
                yield side, index / segments, (index + 1) / segments

    def _phase(self, sides: Sequence[Side]) -> None:
        scenario, meter = self.scenario, self.meter
        children = scenario.segments * len(sides)
        meter.met("mapChildren", min(scenario.concurrency, children))
        meter.met("mapResultBytes", len(json.dumps(list(range(scenario.segments)))) * len(sides))
        meter.met("scanSegments", scenario.segments)
        self.now += MAP_SECONDS
        self._paced_from = self.now + CHILD_SECONDS + COLD_SECONDS + FEELING_SECONDS
        self._warm, self._crowd = 0, {}
        exact = self._fewest_seconds(sides) * scenario.concurrency / self.speed.invocation_seconds <= MOST_EXACT
        tasks = self._tasks(sides)
        workers: list[Worker] = []
        while len(workers) < scenario.concurrency and (task := next(tasks, None)):
            workers.append(self._start(*task, exact=exact))
        bound = WORKERS
        while workers:
            until = min(self._next_change(), min([worker.event for worker in workers]))
            meter.bounds[bound] = meter.bounds.get(bound, 0.0) + until - self.now
            self.now = until
            if until >= self._half_hour - 1e-9:
                self._half_hour_over(workers)
            for worker in [each for each in workers if each.event <= until + 1e-9]:
                if not self._turn(worker):
                    continue
                workers.remove(worker)
                self._finish(worker, exact=exact)
                if task := next(tasks, None):
                    workers.append(self._start(*task, exact=exact))
            bound = self._share([worker for worker in workers if worker.running])

    def _fewest_seconds(self, sides: Sequence[Side]) -> float:
        """About how long the phase takes at least, to choose how finely to simulate it."""
        return sum(
            self.scenario.items / min(side.speed * self.scenario.concurrency, self._table_rate(side)[0])
            for side in sides
        )

    def _start(self, side: Side, start: float, end: float, *, exact: bool) -> Worker:
        meter = self.meter
        cold = self._warm < self.scenario.concurrency
        delay = CHILD_SECONDS + (COLD_SECONDS * (0.85 + 0.3 * self._random.random()) if cold else WARM_SECONDS)
        self._warm += cold
        worker = Worker(side, start, end, self.now + delay, event=self.now + delay)
        worker.invocation_left = self.speed.invocation_seconds if exact else math.inf
        worker.zone = next(index for index, zone in enumerate(side.read_from.zones) if start < zone.end - 1e-12)
        meter.met("startExecutionBurst", self._starts.add(self.now, 1))
        meter.met("stateTransitionsPerSecond", self._transitions.add(self.now, 1))
        # Read, created, read again; the saves of those at work come on top.
        meter.met("ledgerWritesPerSecond", self._ledger.add(self.now, 1) + self.scenario.concurrency)
        meter.met("lambdaConcurrency", min(self.scenario.concurrency, self._warm))
        if cold:
            meter.met("lambdaEnvironmentsPer10s", self._environments.add(self.now, 1))
        meter.transitions += 1
        meter.ledger_writes += 1
        return worker

    def _finish(self, worker: Worker, *, exact: bool) -> None:
        meter = self.meter
        if not exact:
            worker.invocations = max(1, math.ceil(worker.worked / self.speed.invocation_seconds))
        meter.invocations += worker.invocations
        # Started; task and choice of each invocation; the last state; succeeded.
        meter.met("historyEvents", 1 + worker.invocations * 7 + 2 + 1)
        meter.transitions += 2 * worker.invocations + 1
        meter.met("stateTransitionsPerSecond", self._transitions.add(self.now, 3))
        meter.met("ledgerWritesPerSecond", self._ledger.add(self.now, 1) + self.scenario.concurrency)
        meter.ledger_writes += worker.worked + 1
        meter.worker_seconds += worker.worked + worker.invocations * 0.1

    # --- between two events -------------------------------------------------------------------------------------------

    def _next_change(self) -> float:
        """When something changes for all: a capacity grows, or the pacer has found its rate."""
        if any(bucket.may_grow for table in (self.table, self.source) for bucket in (table.write, table.read)):
            change = self._half_hour
        else:
            change, self._half_hour = math.inf, math.inf
        return min(change, self._paced_from) if self.now < self._paced_from else change

    def _half_hour_over(self, workers: Sequence[Worker]) -> None:
        self._half_hour += HALF_HOUR
        running = [worker for worker in workers if worker.running]
        for worker in running:
            self._settle(worker)
        grown = [table.half_hour_over() for table in (self.table, self.source)]
        if any(grown):
            for worker in running:
                self._leave(worker)
                self._enter(worker)

    def _settle(self, worker: Worker) -> None:
        """Move a worker to where it is by now, and count what it has done on the way."""
        seconds, worker.since = self.now - worker.since, self.now
        side, items = worker.side, worker.rate * seconds
        worker.at += items / worker.density
        worker.worked += seconds
        worker.invocation_left -= seconds
        reads, writes = items * side.reads, items * side.writes
        side.read_from.read.window_units += reads
        if side.read_from is self.source:
            self.meter.source_read_units += reads
        else:
            self.meter.read_units += reads
        if side.write_to is not None:
            side.write_to.write.window_units += writes
            self.meter.write_units += writes

    def _turn(self, worker: Worker) -> bool:
        """What a worker does at its event: begin, cross a border, go on in another invocation; whether it is done."""
        if not worker.running:
            worker.running, worker.since = True, self.now
            self._enter(worker)
            return False
        self._settle(worker)
        if worker.at >= worker.end - _NEAR:
            self._leave(worker)
            return True
        if worker.at >= worker.border - _NEAR:
            worker.at = max(worker.at, worker.border)
            self._leave(worker)
            if worker.at >= worker.side.read_from.zones[worker.zone].end - _NEAR:
                worker.zone += 1
            self._enter(worker)
        if worker.invocation_left <= 1e-6:
            self._leave(worker)
            worker.running, worker.rate = False, 0.0
            worker.event = self.now + self.speed.next_seconds
            worker.invocation_left = self.speed.invocation_seconds
            worker.invocations += 1
            self.meter.met("stateTransitionsPerSecond", self._transitions.add(self.now, 2))
        return False

    def _enter(self, worker: Worker) -> None:
        """Take a place among those on the same partitions, up to the next border."""
        worker.density = worker.side.read_from.zones[worker.zone].density
        worker.border, keys = worker.end, []
        for table in worker.side.tables:
            zone = table.zones[worker.zone]
            width = zone.end - zone.start
            place = min(zone.partitions - 1, math.floor((worker.at - zone.start) / width * zone.partitions + 1e-6))
            worker.border = min(worker.border, zone.end, zone.start + (place + 1) / zone.partitions * width)
            key = (id(table), worker.zone, place)
            keys.append(key)
            self._crowd[key] = self._crowd.get(key, 0) + 1
        worker.keys = tuple(keys)
        worker.event = 0.0

    def _leave(self, worker: Worker) -> None:
        for key in worker.keys:
            self._crowd[key] -= 1
        worker.keys = ()

    def _share(self, running: Sequence[Worker]) -> str:
        """Set the rates of all that run; returns what bounds most of them."""
        crowd = self._crowd
        paced = PACED if self.now >= self._paced_from - 1e-9 else FEELING
        votes: dict[str, float] = {WORKERS: 0.0 if running else 1.0}
        for side in dict.fromkeys(worker.side for worker in running):
            group = [worker for worker in running if worker.side is side]
            shares = [paced * self._partition_rate(side, table) for table in side.tables]
            rates = []
            for worker in group:
                rate = side.speed
                for share, key in zip(shares, worker.keys, strict=True):
                    rate = min(rate, share / crowd[key])
                rates.append(rate)
            most, name = self._table_rate(side)
            if sum(rates) > most * paced:
                rates = self._fill(rates, most * paced)
                votes[name] = votes.get(name, 0.0) + len(group)
            else:
                at_partition = sum(rate < side.speed for rate in rates)
                votes[PARTITIONS] = votes.get(PARTITIONS, 0.0) + at_partition
                votes[WORKERS] += len(group) - at_partition
            for worker, rate in zip(group, rates, strict=True):
                if worker.event and abs(rate - worker.rate) <= 1e-9 * rate:
                    continue
                self._settle(worker)
                worker.rate = rate
                seconds = max(0.0, worker.border - worker.at) * worker.density / rate
                worker.event = self.now + max(min(seconds, worker.invocation_left), 1e-6)
        return max(votes, key=lambda name: votes[name])

    def _partition_rate(self, side: Side, table: SimulatedTable) -> float:
        """Items a second that one partition of the table lets through."""
        rate = math.inf
        if table is side.read_from and side.reads:
            rate = PARTITION_READS / side.reads
        if table is side.write_to:
            rate = min(rate, PARTITION_WRITES / side.writes)
        return rate

    def _table_rate(self, side: Side) -> tuple[float, str]:
        """Items a second that the tables, and the operator, let through."""
        rates = [(side.read_from.read.units / side.reads, TABLE_READS)] if side.reads else []
        if side.write_to is not None:
            rates.append((side.write_to.write.units / side.writes, TABLE_WRITES))
            if self.scenario.max_write_units:
                rates.append((self.scenario.max_write_units / side.writes, OPERATOR))
        return min(rates)

    @staticmethod
    def _fill(rates: Sequence[float], most: float) -> list[float]:
        """Share ``most`` items a second: alike, but nobody more than it can take."""
        left, level = most, most / len(rates)
        for done, rate in enumerate(sorted(rates)):
            level = left / (len(rates) - done)
            if rate > level:
                break
            left -= rate
        return [min(rate, level) for rate in rates]


# --- the grid ---------------------------------------------------------------------------------------------------------

CAPACITIES: Mapping[str, CapacityFacts] = {
    "on demand, 4,000 WCU": CapacityFacts(),
    "on demand, 40,000 WCU": CapacityFacts(write=40_000, read=40_000),
    "provisioned, 5,000 WCU": CapacityFacts(on_demand=False, write=5_000, read=5_000),
}
SIZES: Sequence[tuple[int, int]] = (
    (10**4, GB),
    (10**5, GB),
    (10**6, GB),
    (10**7, 10 * GB),
    (10**8, 100 * GB),
    (10**9, 1_000 * GB),
    (10**10, 10_000 * GB),
    # The same items again, smaller or larger than about 1 KB.
    (10**6, 10 * GB),
    (10**8, 10 * GB),
    (10**8, 1_000 * GB),
    (10**9, 10_000 * GB),
)
"""Items, bytes: 10⁴ to 10¹⁰ items, 1 GB to 10 TB."""


def grid() -> list[Scenario]:
    """All scenarios: every size on every capacity, even and hot."""
    return [
        Scenario(items=items, bytes=size, capacity_name=name, capacity=capacity, hot_share=hot)
        for hot in (0.0, 0.5)
        for name, capacity in CAPACITIES.items()
        for items, size in SIZES
    ]


def variations() -> list[Scenario]:
    """What other settings would do for a large table on 40,000 WCU: workers, order, an operator's limit."""
    base = Scenario(
        items=10**8,
        bytes=100 * GB,
        capacity_name="on demand, 40,000 WCU",
        capacity=CAPACITIES["on demand, 40,000 WCU"],
    )
    return [
        *(replace(base, concurrency=workers) for workers in (10, 50, 100, 200)),
        *(replace(base, order=order) for order in ("shuffled", "sorted")),
        replace(base, order="shuffled", concurrency=50),
        replace(base, max_write_units=2_000),
    ]


def compare(scenario: Scenario, speed: WorkerSpeed | None = None) -> dict[str, Any]:
    """Simulate a scenario and forecast it; ``ratio`` is the forecast's reset duration by the simulated one."""
    simulated = Simulation(scenario, speed).run()
    foreseen = forecast(
        scenario.facts, scenario.options, Prices(), speed=speed, hot_share=_hot_share_of_a_partition(scenario)
    )
    return {
        "items": scenario.items,
        "bytes": scenario.bytes,
        "capacity": scenario.capacity_name,
        "hotShare": scenario.hot_share,
        "concurrency": scenario.concurrency,
        "order": scenario.order,
        "maxWriteUnitsPerSecond": scenario.max_write_units,
        "segments": scenario.segments,
        "simulated": simulated,
        "forecast": {**foreseen.to_json(), "phaseBounds": dict(foreseen.phase_bounds)},
        "ratio": round(foreseen.reset_seconds / simulated["seconds"]["reset"], 3),
        "totalRatio": round(foreseen.total_seconds / simulated["totalSeconds"], 3),
        "usdRatio": round(foreseen.dollars / simulated["usd"], 3),
    }


def _hot_share_of_a_partition(scenario: Scenario) -> float:
    """What one partition holds at most: 10 GB."""
    return min(scenario.hot_share, PARTITION_BYTES / scenario.bytes) if scenario.hot_share else 0.0


def checks(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every quota and limit with the largest value met over all runs, and whether it holds."""
    output = []
    for kind, table in (("quota", QUOTAS), ("limit", LIMITS)):
        for name, (limit, meaning) in table.items():
            worst = max(rows, key=lambda row: float(row["simulated"]["largest"][name]))
            value = float(worst["simulated"]["largest"][name])
            output.append(
                {
                    "kind": kind,
                    "name": name,
                    "meaning": meaning,
                    "largest": value,
                    "limit": limit,
                    "holds": value <= limit,
                    "at": {key: worst[key] for key in ("items", "bytes", "capacity", "hotShare", "concurrency")},
                    "broken": sum(float(row["simulated"]["largest"][name]) > limit for row in rows),
                }
            )
    return output


def simulate_all() -> dict[str, Any]:
    """The whole report."""
    rows = [compare(scenario) for scenario in grid()]
    others = [compare(scenario) for scenario in variations()]
    return {
        "scenarios": rows,
        "variations": others,
        "checks": checks([*rows, *others]),
        "forecast": {
            "evenRatios": _spread([row["ratio"] for row in rows if not row["hotShare"]]),
            "hotRatios": _spread([row["ratio"] for row in rows if row["hotShare"]]),
            "variationRatios": _spread([row["ratio"] for row in others]),
            "usdRatios": _spread([row["usdRatio"] for row in rows]),
        },
    }


def _spread(values: Sequence[float]) -> list[float]:
    return [min(values), max(values)]


_NUMBERS = ("purge", "copy", "verify", "forecast/simulated", "USD")


# --- for people -------------------------------------------------------------------------------------------------------


def main() -> int:
    """Simulate, print, write ``build/bench/simulation.json`` and ``curves.png``; returns 1 if a quota is broken."""
    from bench import curves

    began = time.monotonic()
    report = simulate_all()
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "simulation.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    curves.draw(report, FOLDER / "curves.png")
    show(report, Console(width=170))
    Console().print(f"{len(report['scenarios']) + len(report['variations'])} runs, {time.monotonic() - began:.0f} s. "
                    f"{FOLDER / 'simulation.json'}, {FOLDER / 'curves.png'}", soft_wrap=True)  # fmt: skip
    return 0 if all(check["holds"] for check in report["checks"] if check["kind"] == "quota") else 1


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print the runs and the checks."""
    for title, rows in (("Simulated resets", report["scenarios"]), ("Other settings", report["variations"])):
        table = RichTable(title=title)
        texts = ("capacity", "order", "bound by")
        for column in ("items", "GB", *texts[:1], "hot", "workers", *texts[1:2], *_NUMBERS, *texts[2:]):
            table.add_column(column, justify="left" if column in texts else "right")
        for row in rows:
            seconds, found = row["simulated"]["seconds"], row["simulated"]
            table.add_row(
                f"{row['items']:.0e}",
                f"{row['bytes'] / GB:,.0f}",
                row["capacity"],
                "50 %" if row["hotShare"] else "",
                str(row["concurrency"]),
                row["order"]
                + (f", at most {row['maxWriteUnitsPerSecond']:,} WCU" if row["maxWriteUnitsPerSecond"] else ""),
                *(duration(seconds[name]) for name in ("purge", "copy", "verify")),
                f"{row['ratio']:.2f}",
                f"{found['usd']:,.2f}",
                found["boundBy"] + (" > 24 h" if found["totalSeconds"] > LIMITS["recoverySeconds"][0] else ""),
            )
        console.print(table)
    table = RichTable(title="Quotas of AWS, limits of this program: the largest value met")
    for column in ("name", "largest", "allowed", "holds", "of what"):
        table.add_column(column)
    for check in report["checks"]:
        holds = "yes" if check["holds"] else f"NO, in {check['broken']} runs"
        table.add_row(check["name"], f"{check['largest']:,.0f}", f"{check['limit']:,.0f}", holds, check["meaning"])
    console.print(table)


def duration(seconds: float) -> str:
    """A duration a person reads."""
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:,.1f} {name}"
    return f"{seconds:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
