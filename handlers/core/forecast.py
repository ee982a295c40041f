"""How long the recovery of a table will take, what it will cost, and what bounds it: before anything is changed.

Pure functions of a table's facts, its options and prices. A forecast is for planning, not a promise. The rules:

- **Units** (DynamoDB's documentation of capacity). A put costs one write unit for each KB begun of the new item, a
  delete one for each KB of the *deleted* item; every index that has the item is written as well. A scan costs one read
  unit for each 4 KB that it looks at (strongly consistent), whatever it projects: reading keys only is not cheaper.
- **A hard reset** purges (scan the table, delete each item), copies (scan the restored table, put each item) and
  verifies (scan both). All items are taken to have the mean size.
- **A differential reset** scans both sides, writes what differs, and verifies. How much differs is not known
  beforehand: :data:`DAMAGE_SHARE` is assumed, and the worst case given beside it: every item is to be deleted and
  another one put, after every key of each side was looked up on the other.
- **Capacity.** A provisioned table has what is provisioned. An on-demand table has its warm throughput at once, and
  twice the traffic that it has sustained for half an hour after that, up to its own maximum and the quota. A restored
  table is new, and on demand. Burst capacity is not counted on: DynamoDB does not promise it. A partition serves
  1,000 write units and 3,000 read units a second; workers on the same one share that.
- **Restore.** AWS says that 95 % of restores end within an hour, and that the size does not always decide: an hour is
  taken whatever the size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .facts import NEW_READ_UNITS, NEW_WRITE_UNITS, CapacityFacts, TableFacts
from .prices import Prices, Usage, backup_dollars_per_month

RESTORE_SECONDS = 3600.0
"""A PITR restore, by the 95 % that AWS names. Also more than the drain and the backup beside it take."""
CONCURRENT_RESTORES = 50
"""Restores that DynamoDB runs at once in an account."""
DAMAGE_SHARE = 0.01
"""Share of the items that a differential reset is taken to find damaged. Nobody knows before it has looked."""
PARTITION_WRITE_UNITS, PARTITION_READ_UNITS = 1_000.0, 3_000.0
"""What one partition serves in a second."""
PARTITION_BYTES = 10 * 1024**3
"""DynamoDB splits a partition that grows beyond about 10 GB."""
TABLE_QUOTA = 40_000.0
"""Default quota of an on-demand table, for reads and for writes, in units a second."""
SCALING_SECONDS = 1800.0
"""An on-demand table serves twice the peak of the half hours before."""
CAPACITY_USED = 0.95
"""Share of the allowed capacity that a paced reset uses: it feels its way, and is throttled now and then."""
DEFAULT_CONCURRENCY = 25
"""Segments worked on at once where the options do not say; see ``components/settings.py``."""
SEGMENT_ORDER = "spread"
"""In which order a reset visits its segments: see :func:`active_partitions`."""
_SPREAD_USED = 0.9  # of the partitions that a spread order could reach, as the simulation in bench/ has it
_KB = 1024
_TABLE_OVERHEAD_TRANSITIONS = 40  # states of a hard reset itself, and of its preparation
_CHILD_TRANSITIONS = 3  # of a Map's child: work, check, done
_LEDGER_WRITES_PER_TASK = 3  # a first checkpoint, a last one, and one that is read back

RESTORE = "restore"
TABLE_WRITES = "table write capacity"
TABLE_READS = "table read capacity"
INDEX_WRITES = "index write capacity"
PARTITIONS = "partition throughput"
WORKERS = "workers"
OPERATOR = "operator's limit"

ASSUMPTIONS = (
    "Items and bytes are DynamoDB's counts of the tables as they are now, up to six hours old. What was deleted since "
    "the restore point, or added within those hours, is not in them.",
    "A restore is taken as one hour: 95 % end within that, not always by size.",
    "All items have the mean size, and no partition has more than its share.",
    "Freeze, drain and release are not in it, nor what stream consumers do afterwards.",
    "A differential reset is taken to find 1 % of the items damaged; its worstCase is for all of them.",
    "Prices are list prices, us-east-1's where the stack is not configured otherwise.",
)
"""What the operator has to know of every forecast."""


@dataclass(frozen=True, kw_only=True)
class WorkerSpeed:
    """What one worker moves, where nothing but itself bounds it: one Lambda function of 1,769 MB, that is one vCPU.

    The bench (``make bench``) measures these; a change of the engine has to be measured again.

    Args:
        purge_items, copy_items, digest_items: items of 1 KB or less in a second.
        megabytes: MiB in a second, of larger items, whatever is done with them.
        start_seconds: from a segment's turn to its first page: a child execution, a cold start.
        next_seconds: between two invocations of one segment.
        invocation_seconds: working time of one invocation: 15 minutes but for what is kept to save the checkpoint.
        memory_gb: what Lambda charges for.
    """

    purge_items: float = 8_000.0
    copy_items: float = 5_000.0
    digest_items: float = 7_000.0
    megabytes: float = 40.0
    start_seconds: float = 3.0
    next_seconds: float = 0.5
    invocation_seconds: float = 870.0
    memory_gb: float = 1769 / 1024

    def rate(self, items_per_second: float, item_bytes: float) -> float:
        """Items of this size in a second."""
        return min(items_per_second, self.megabytes * 1024 * 1024 / max(item_bytes, 1.0))


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a table's reset is to be run.

    Args:
        segments: number of scan segments.
        concurrency: how many are worked on at once.
        max_write_units_per_second: the operator's limit, or None.
        capacity_share: the share of the table's write capacity that the reset may take, or None.
        order: in which segments are visited.
    """

    segments: int
    concurrency: int = DEFAULT_CONCURRENCY
    max_write_units_per_second: float | None = None
    capacity_share: float | None = None
    order: str = SEGMENT_ORDER

    @classmethod
    def parse(cls, options: Mapping[str, Any], segments: int) -> Options:
        """Read a table's options of the stack's configuration."""
        return cls(
            segments=segments,
            concurrency=options.get("concurrency") or DEFAULT_CONCURRENCY,
            max_write_units_per_second=options.get("maxWriteUnitsPerSecond"),
            capacity_share=options.get("capacityShare"),
        )

    @property
    def workers(self) -> int:
        """How many workers run at once."""
        return min(self.segments, self.concurrency)


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """A table's forecast. Durations are in seconds, units are those that DynamoDB bills.

    ``bound``: what bounds it. ``worst``: of a differential reset, the forecast if everything is damaged.
    """

    restore_seconds: float
    purge_seconds: float
    copy_seconds: float
    verify_seconds: float
    write_units: float
    read_units: float
    dollars: float
    bound: str
    phase_bounds: Mapping[str, str]
    workers: int
    worst: Forecast | None = None

    @property
    def reset_seconds(self) -> float:
        """Purge, copy and verify."""
        return self.purge_seconds + self.copy_seconds + self.verify_seconds

    @property
    def total_seconds(self) -> float:
        """All of it, the restore included."""
        return self.restore_seconds + self.reset_seconds

    def to_json(self) -> dict[str, Any]:
        """A small object: a hundred and twenty of them share a state's 256 KiB with much else."""
        seconds = {
            "restoreSeconds": round(self.restore_seconds),
            "purgeSeconds": round(self.purge_seconds),
            "copySeconds": round(self.copy_seconds),
            "verifySeconds": round(self.verify_seconds),
        }
        # The sum of what is shown, so that it adds up.
        output = {**seconds, "totalSeconds": sum(seconds.values()), **self._amounts(), "boundBy": self.bound}
        if self.worst is not None:
            output["worstCase"] = {"totalSeconds": round(self.worst.total_seconds), **self.worst._amounts()}
        return output

    def _amounts(self) -> dict[str, float]:
        return {
            "writeUnits": round(self.write_units),
            "readUnits": round(self.read_units),
            "usd": round_dollars(self.dollars),
        }


def round_dollars(dollars: float) -> float:
    """Cents, and of less than a dollar hundredths of a cent."""
    return round(dollars, 2 if dollars >= 1 else 4)


def forecast(
    facts: TableFacts,
    options: Options,
    prices: Prices,
    *,
    mode: str = "hard-reset",
    speed: WorkerSpeed | None = None,
    hot_share: float = 0.0,
) -> Forecast:
    """Forecast the recovery of one table.

    Args:
        facts: the table as it is; the restored one is taken to be as large.
        options: how the reset is to be run.
        prices: of the stack's region.
        mode: ``hard-reset`` or ``differential``.
        speed: of one worker; measured by the bench.
        hot_share: share of the items that lie in one partition, where that is known; 0: evenly spread.
    """
    speed = speed or WorkerSpeed()
    if mode == "differential":
        expected = _forecast(facts, options, prices, speed, _differential(facts, DAMAGE_SHARE), hot_share)
        worst = _forecast(facts, options, prices, speed, _differential(facts, 1.0, worst=True), hot_share)
        return replace(expected, worst=worst)
    return _forecast(facts, options, prices, speed, _hard_reset(facts), hot_share)


def describe_all(forecasts: Mapping[str, Forecast], facts: Mapping[str, TableFacts], prices: Prices) -> dict[str, Any]:
    """The forecast of a whole incident: every table is restored before the first is reset, and all are reset at once.

    ``workers`` run at once at most: the sum over the tables, to be held against the account's Lambda concurrency.
    """
    shown = [each.to_json() for each in forecasts.values()]
    restores = max((each["restoreSeconds"] for each in shown), default=0)
    resets = max((each["totalSeconds"] - each["restoreSeconds"] for each in shown), default=0)
    backups = sum(backup_dollars_per_month(table.bytes, prices) for table in facts.values())
    return {
        "totalSeconds": restores * math.ceil(len(shown) / CONCURRENT_RESTORES) + resets,
        "usd": round_dollars(sum(each.dollars for each in forecasts.values())),
        "backupUsdPerMonth": round_dollars(backups),
        "workers": sum(each.workers for each in forecasts.values()),
        "assumptions": list(ASSUMPTIONS),
    }


# --- what is to be done ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Task:
    """A pass over segments. All amounts are per item of the pass, in units.

    ``writes``: of the table and its local indexes. ``index_writes``: of each global index, in their order.
    """

    phase: str
    speed: str
    passes: float = 1.0
    writes: float = 0.0
    index_writes: tuple[float, ...] = ()
    reads: float = 0.0
    source_reads: float = 0.0

    @property
    def all_writes(self) -> float:
        return self.writes + sum(self.index_writes)


def _units_per_item(facts: TableFacts) -> tuple[float, tuple[float, ...], float, float]:
    """Write units of the table, of each global index, read units of a scan, and of a get; per item of the table."""
    items = max(facts.items, 1)
    size = facts.bytes / items
    writes = float(max(1, math.ceil(size / _KB)))
    index_writes = []
    for index in facts.indexes:
        share = index.items / items
        units = share * max(1, math.ceil(index.bytes / max(index.items, 1) / _KB))
        if index.capacity is None:
            writes += units
        else:
            index_writes.append(units)
    return writes, tuple(index_writes), size / 4096, math.ceil(size / 4096) or 1


def _hard_reset(facts: TableFacts) -> list[_Task]:
    writes, index_writes, scan, _ = _units_per_item(facts)
    return [
        _Task(phase="purge", speed="purge_items", writes=writes, index_writes=index_writes, reads=scan),
        _Task(phase="copy", speed="copy_items", writes=writes, index_writes=index_writes, source_reads=scan),
        *_verification(scan),
    ]


def _differential(facts: TableFacts, share: float, *, worst: bool = False) -> list[_Task]:
    writes, index_writes, scan, get = _units_per_item(facts)
    # Every key may be another one on each side: a delete and a put each.
    writing = share * (2 if worst else 1)
    # What only one side's scan has met is looked up on the other side before anything is written.
    gets = get * share
    look = _Task(
        phase="copy",
        speed="digest_items",
        passes=2.0,
        writes=writes * writing,
        index_writes=tuple(units * writing for units in index_writes),
        reads=scan + gets,
        source_reads=scan + gets,
    )
    return [look, *_verification(scan)]


def _verification(scan: float) -> list[_Task]:
    """The restored table's segments come first, then the table's."""
    return [
        _Task(phase="verify", speed="digest_items", source_reads=scan),
        _Task(phase="verify", speed="digest_items", reads=scan),
    ]


# --- how fast --------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Capacity:
    """Units a second of one table or index and one direction; an on-demand one grows with what it sustains."""

    units: float
    most: float
    grows: bool
    partition_units: float
    peak: float = 0.0

    @classmethod
    def of(cls, facts: CapacityFacts, *, write: bool) -> _Capacity:
        units, limit = (facts.write, facts.most_write) if write else (facts.read, facts.most_read)
        most = min(TABLE_QUOTA, limit or TABLE_QUOTA) if facts.on_demand else units
        return cls(
            units=min(units, most),
            most=most,
            grows=facts.on_demand,
            partition_units=PARTITION_WRITE_UNITS if write else PARTITION_READ_UNITS,
        )

    def grow(self) -> None:
        """Half an hour at ``peak`` is over."""
        if self.grows:
            self.units = max(self.units, min(self.most, 2 * self.peak))
        self.peak = 0.0


def active_partitions(partitions: float, segments: int, workers: int, order: str = SEGMENT_ORDER) -> float:
    """How many partitions are worked on at once, on average.

    ``order`` of the segments: ``shuffled``, ``spread`` (neighbours in time are far apart in the table) or ``sorted``.

    A segment is a range of key hashes, and so is a partition: a worker is on one partition at a time, and those that
    meet on one share it. In a closed queue of ``workers`` at equal stations ``workers / (1 + (workers - 1) * q)`` are
    busy, where q is how likely two of them are at the same one (with q = 1 / stations that is Gordon and Newell's
    formula). Here no two are on the same segment, so q is the share of the other segments in a worker's partition.
    """
    busy = segments / math.ceil(segments / workers)  # the last wave of segments may be a small one
    if segments <= partitions:
        return busy
    if order == "spread":
        return _SPREAD_USED * min(busy, partitions)
    if order == "sorted":
        # All are side by side, and few partitions wide.
        return min(partitions, busy * partitions / segments + 1)
    meet = (segments / partitions - 1) / (segments - 1)
    return busy / (1 + (busy - 1) * meet)


@dataclass(kw_only=True)
class _Run:
    """The reset as it goes on: what the capacities have grown to, how long it took."""

    facts: TableFacts
    options: Options
    speed: WorkerSpeed
    hot_share: float
    write: _Capacity = field(init=False)
    read: _Capacity = field(init=False)
    source_read: _Capacity = field(init=False)
    indexes: list[_Capacity] = field(init=False)
    operator: float = field(init=False)
    window: float = SCALING_SECONDS

    def __post_init__(self) -> None:
        self.write = _Capacity.of(self.facts.capacity, write=True)
        self.read = _Capacity.of(self.facts.capacity, write=False)
        self.source_read = _Capacity.of(CapacityFacts(write=NEW_WRITE_UNITS, read=NEW_READ_UNITS), write=False)
        self.indexes = [_Capacity.of(index.capacity, write=True) for index in self.facts.indexes if index.capacity]
        share = self.options.capacity_share
        self.operator = min(
            self.options.max_write_units_per_second or math.inf, share * self.write.units if share else math.inf
        )

    def seconds(self, task: _Task) -> tuple[float, str]:
        """How long a pass takes, and what bounds it most of the time."""
        items = float(self.facts.items)
        left, elapsed = items, 0.0
        by_bound: dict[str, float] = {}
        while left > 0:
            rate, bound = min(self._rates(task), key=lambda each: each[0])
            for capacity, units in self._used(task):
                capacity.peak = max(capacity.peak, rate * units)
            step = rest = left / rate
            if any(each.grows and min(each.most, 2 * each.peak) > each.units for each, _ in self._used(task)):
                step = min(step, self.window)
            left = left - step * rate if step < rest else 0.0
            elapsed += step
            by_bound[bound] = by_bound.get(bound, 0.0) + step
            self._pass_time(step)
        worked = elapsed + self._overhead(task, by_bound)
        bound = max(by_bound, key=lambda name: by_bound[name], default=WORKERS)
        hot_seconds = self._hot_seconds(task)
        if hot_seconds > worked:
            return hot_seconds + self.speed.start_seconds, PARTITIONS
        return worked, bound

    def _rates(self, task: _Task) -> Iterator[tuple[float, str]]:
        """Items a second by what bounds them; of two that are equal the first is named."""
        for capacity, units, name in (
            (self.write, task.writes, TABLE_WRITES),
            (self.read, task.reads, TABLE_READS),
            (self.source_read, task.source_reads, TABLE_READS),
        ):
            if units:
                yield CAPACITY_USED * capacity.units / units, name
                yield CAPACITY_USED * self._partition_units(capacity) / units, PARTITIONS
        for capacity, units in zip(self.indexes, task.index_writes, strict=True) if task.index_writes else ():
            if units:
                yield CAPACITY_USED * capacity.units / units, INDEX_WRITES
        if task.writes and self.operator < math.inf:
            yield CAPACITY_USED * self.operator / task.writes, OPERATOR
        yield self._workers_rate(task), WORKERS

    def _partition_units(self, capacity: _Capacity) -> float:
        """Units a second of the partitions that are worked on."""
        options = self.options
        partitions = self._partitions(restored=capacity is self.source_read)
        active = active_partitions(partitions, options.segments, options.workers, options.order)
        return active * capacity.partition_units

    def _partitions(self, *, restored: bool = False) -> float:
        """How many partitions the table has by now, or the restored one."""
        if restored:
            partitions = max(self.source_read.units / PARTITION_READ_UNITS, NEW_WRITE_UNITS / PARTITION_WRITE_UNITS)
        elif self.facts.capacity.on_demand:
            partitions = max(self.write.units / PARTITION_WRITE_UNITS, self.read.units / PARTITION_READ_UNITS)
        else:
            partitions = self.write.units / PARTITION_WRITE_UNITS + self.read.units / PARTITION_READ_UNITS
        return max(1.0, math.ceil(partitions), math.ceil(self.facts.bytes / PARTITION_BYTES))

    def _item_rate(self, task: _Task) -> float:
        size = self.facts.bytes / max(self.facts.items, 1)
        return self.speed.rate(getattr(self.speed, task.speed), size) / task.passes

    def _workers_rate(self, task: _Task) -> float:
        # The last wave of segments may be a small one.
        waves = math.ceil(self.options.segments / self.options.workers)
        busy = self.options.segments / waves
        return busy * self._item_rate(task) / (1 + self.speed.next_seconds / self.speed.invocation_seconds)

    def _overhead(self, task: _Task, by_bound: Mapping[str, float]) -> float:
        """Starting workers: hidden behind the others' work where that is bound by something else."""
        waves = math.ceil(self.options.segments / self.options.workers)
        own = self.facts.items / self._workers_rate(task) + waves * self.speed.start_seconds
        return max(self.speed.start_seconds, own - sum(by_bound.values()))

    def _hot_seconds(self, task: _Task) -> float:
        """How long the hottest partition takes, and the rest of its segment where that is wider."""
        if not self.hot_share:
            return 0.0
        by_partition = [
            CAPACITY_USED * limit / units
            for limit, units in (
                (PARTITION_WRITE_UNITS, task.writes),
                (PARTITION_READ_UNITS, task.reads + task.source_reads),
            )
            if units
        ]
        partition = 1 / self._partitions()
        beside = max(0.0, 1 / self.options.segments - partition) / (1 - partition) if partition < 1 else 0.0
        items = self.hot_share + (1 - self.hot_share) * beside
        return items * self.facts.items / min([*by_partition, self._item_rate(task)])

    def _used(self, task: _Task) -> Iterable[tuple[_Capacity, float]]:
        return [
            (self.write, task.writes),
            (self.read, task.reads),
            (self.source_read, task.source_reads),
            *zip(self.indexes, task.index_writes, strict=False),
        ]

    def _pass_time(self, seconds: float) -> None:
        self.window -= seconds
        if self.window <= 0:
            for capacity in (self.write, self.read, self.source_read, *self.indexes):
                capacity.grow()
            self.window = SCALING_SECONDS


def _forecast(
    facts: TableFacts, options: Options, prices: Prices, speed: WorkerSpeed, tasks: list[_Task], hot_share: float
) -> Forecast:
    run = _Run(facts=facts, options=options, speed=speed, hot_share=hot_share)
    # Both sides of a verification are one Map: the second begins where workers are left over by the first.
    overlap = min(1.0, max(0.0, options.concurrency / options.segments - 1))
    seconds = dict.fromkeys(("purge", "copy", "verify"), 0.0)
    bounds: dict[str, str] = {}
    longest: dict[str, float] = {}
    for task in tasks:
        took, bound = run.seconds(task)
        before = longest.get(task.phase, 0.0)
        seconds[task.phase] += took - overlap * min(took, before)
        if took >= before:
            bounds[task.phase], longest[task.phase] = bound, took
    reset = sum(seconds.values())
    # Every region of a global table is billed, from a capacity of its own.
    write_units = facts.items * sum(task.all_writes for task in tasks) * (1 + facts.replicas)
    read_units = facts.items * sum(task.reads for task in tasks)
    source_read_units = facts.items * sum(task.source_reads for task in tasks)
    usage = planned_usage(Basis.of(facts, options), speed, reset_seconds=reset, passes=len(tasks))
    usage = replace(usage, write_units=write_units, read_units=read_units, source_read_units=source_read_units)
    slowest = max(bounds, key=lambda phase: seconds[phase])
    return Forecast(
        restore_seconds=RESTORE_SECONDS,
        purge_seconds=seconds["purge"],
        copy_seconds=seconds["copy"],
        verify_seconds=seconds["verify"],
        write_units=write_units,
        read_units=read_units + source_read_units,
        dollars=usage.dollars(prices),
        bound=RESTORE if reset <= RESTORE_SECONDS else bounds[slowest],
        phase_bounds=bounds,
        workers=options.workers,
    )


# --- what it costs ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Basis:
    """What the price of a reset depends on besides its units and its duration; kept from the plan to the report."""

    on_demand: bool
    provisioned_write: float
    provisioned_read: float
    bytes: int
    segments: int
    workers: int

    @classmethod
    def of(cls, facts: TableFacts, options: Options) -> Basis:
        """The basis of a table's reset."""
        indexes = [index.capacity for index in facts.indexes if index.capacity]
        owners = [] if facts.capacity.on_demand else [facts.capacity, *indexes]
        return cls(
            on_demand=facts.capacity.on_demand,
            provisioned_write=sum(owner.write for owner in owners),
            provisioned_read=sum(owner.read for owner in owners),
            bytes=facts.bytes,
            segments=options.segments,
            workers=options.workers,
        )

    def to_json(self) -> dict[str, Any]:
        """What :meth:`from_json` reads back."""
        return dict(vars(self))

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Basis:
        """Read back :meth:`to_json`."""
        return cls(**value)


def planned_usage(basis: Basis, speed: WorkerSpeed, *, reset_seconds: float, passes: int) -> Usage:
    """What a reset of this duration uses beside read and write units; ``passes`` go over all the segments."""
    worker_seconds = basis.workers * reset_seconds
    tasks = passes * basis.segments
    invocations = tasks + worker_seconds / speed.invocation_seconds
    return Usage(
        on_demand=basis.on_demand,
        provisioned_write=basis.provisioned_write,
        provisioned_read=basis.provisioned_read,
        restored_bytes=basis.bytes,
        reset_seconds=reset_seconds,
        kept_seconds=RESTORE_SECONDS + reset_seconds,
        worker_seconds=worker_seconds,
        worker_gb=speed.memory_gb,
        invocations=invocations,
        transitions=_TABLE_OVERHEAD_TRANSITIONS + _CHILD_TRANSITIONS * tasks + 2 * (invocations - tasks),
        # One checkpoint a second and worker, of less than a KB.
        ledger_writes=worker_seconds + _LEDGER_WRITES_PER_TASK * tasks,
    )


def actual_dollars(basis: Basis, prices: Prices, *, write_units: float, read_units: float, seconds: float) -> float:
    """What a reset has cost that consumed these units and took these seconds, by the forecast's own rules.

    Half of the reads are taken to be of the restored table: it is read as often as the table itself.
    """
    usage = planned_usage(basis, WorkerSpeed(), reset_seconds=seconds, passes=4)
    used = replace(usage, write_units=write_units, read_units=read_units / 2, source_read_units=read_units / 2)
    return used.dollars(prices)
