"""What a DynamoDB table lets through, as AWS documents it, on a clock that the caller gives.

Units are DynamoDB's read and write units, sizes are bytes, times are seconds of any monotonic clock. Nothing here waits
or asks for the time, so a simulation can drive it as well as a server.

A table has a bucket of tokens for writes and one for reads; each of its partitions has two of its own. A request passes
when all the buckets that it touches have enough. Sources, all of the Amazon DynamoDB Developer Guide:

- units of an operation: "DynamoDB read and write operations";
- 1,000 write and 3,000 read units a second a partition: "Designing partition keys", which names them side by side, so
  reads take nothing from a partition's writes here;
- 4,000 and 12,000 at the start, twice the previous peak, 30 minutes: "DynamoDB on-demand capacity mode";
- 300 seconds of unused capacity: "DynamoDB burst and adaptive capacity"; a partition keeps none, since burst capacity
  does not lift a partition's own limit;
- 40,000 units a second and table, 10 GB a partition: "Quotas in Amazon DynamoDB".

Adaptive capacity is modelled as if it were instant: a partition may take any share of the table's capacity up to its
own limit.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

WRITE_UNIT_BYTES = 1024
READ_UNIT_BYTES = 4096
PARTITION_WRITE_UNITS = 1000.0
PARTITION_READ_UNITS = 3000.0
PARTITION_BYTES = 10 * 1024**3
ON_DEMAND_WRITE_UNITS = 4000.0
ON_DEMAND_READ_UNITS = 12_000.0
TABLE_QUOTA_UNITS = 40_000.0
LONGEST_BURST_SECONDS = 300.0
GROWTH_SECONDS = 30 * 60.0
HASH_BITS = 64

_PEAK_WINDOW_SECONDS = 60.0
# Sums of fractions fall short by some 1e-16 of themselves; a unit of 1 must pass where 1 is due.
_ROUNDING = 1e-6
_SMALLEST_READ = 0.5

Mode = Literal["on-demand", "provisioned"]
Kind = Literal["Read", "Write"]


def write_units(size: int) -> int:
    """Units to write an item of ``size`` bytes: one for each 1 KB begun, and at least one."""
    return max(1, -(-size // WRITE_UNIT_BYTES))


def read_units(size: int, *, consistent: bool = True) -> float:
    """Units to read ``size`` bytes: one for each 4 KB begun, and at least one; half where eventually consistent.

    ``size`` is that of one item for GetItem and BatchGetItem, and of all items of the page for Scan.
    """
    units = max(1, -(-size // READ_UNIT_BYTES))
    return float(units) if consistent else units / 2


@dataclass(frozen=True, kw_only=True)
class CapacityOptions:
    """How much a table lets through.

    Args:
        mode: ``on-demand`` or ``provisioned``.
        write_units, read_units: a second. What is provisioned; on demand, what the table carries from the start.
        quota: the most that the table can ever have of either, a second.
        bucket_seconds: how many seconds of capacity a bucket holds. What is not used within them is lost.
        burst_seconds: how many seconds of unused capacity a provisioned table keeps; DynamoDB keeps up to 300. None by
            default, so that what passes is the steady state.
        grows: whether an on-demand table comes to carry twice its previous peak.
        partition_limits: whether partitions have limits of their own.
        indexes: global secondary indexes. Each is written whenever an item changes, and its units count too.
        index_write_units: a second, of the slowest index; None where the indexes never hold the table back.
        partitions: how many there are at the start; None derives it from the capacity.
    """

    mode: Mode = "on-demand"
    write_units: float = ON_DEMAND_WRITE_UNITS
    read_units: float = ON_DEMAND_READ_UNITS
    quota: float = TABLE_QUOTA_UNITS
    bucket_seconds: float = 1.0
    burst_seconds: float = 0.0
    grows: bool = True
    partition_limits: bool = True
    indexes: int = 0
    index_write_units: float | None = None
    partitions: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in ("on-demand", "provisioned"):
            raise ValueError(f"mode is {self.mode!r}; expected 'on-demand' or 'provisioned'.")
        for name, units in (("write_units", self.write_units), ("read_units", self.read_units)):
            if not 0 < units <= self.quota:
                raise ValueError(f"{name} is {units}; expected more than 0 and at most the quota of {self.quota}.")
        if self.bucket_seconds <= 0:
            raise ValueError(f"bucket_seconds is {self.bucket_seconds}; expected more than 0.")
        if not 0 <= self.burst_seconds <= LONGEST_BURST_SECONDS:
            raise ValueError(f"burst_seconds is {self.burst_seconds}; expected 0 to {LONGEST_BURST_SECONDS}.")
        if self.burst_seconds and self.mode == "on-demand":
            raise ValueError("burst_seconds is set on an on-demand table; expected a provisioned one.")
        if self.indexes < 0:
            raise ValueError(f"indexes is {self.indexes}; expected 0 or more.")
        if self.index_write_units is not None and self.index_write_units <= 0:
            raise ValueError(f"index_write_units is {self.index_write_units}; expected more than 0.")
        if self.partitions is not None and self.partitions < 1:
            raise ValueError(f"partitions is {self.partitions}; expected 1 or more.")


def partition_count(mode: Mode, write: float, read: float, size: int) -> int:
    """How many partitions carry ``write`` and ``read`` units a second and ``size`` bytes.

    A provisioned table's partitions must carry the sum of both. An on-demand table starts with the four that 4,000
    write or 12,000 read units need.
    """
    if mode == "provisioned":
        by_load = math.ceil(write / PARTITION_WRITE_UNITS + read / PARTITION_READ_UNITS)
    else:
        by_load = math.ceil(max(write / PARTITION_WRITE_UNITS, read / PARTITION_READ_UNITS))
    return max(1, by_load, -(-size // PARTITION_BYTES))


class TokenBucket:
    """Fills at ``rate`` tokens a second up to ``depth``.

    Args:
        rate: tokens a second.
        depth: the most it holds.
        tokens: what it holds at the start.
        now: when the start is.
    """

    __slots__ = ("_since", "_tokens", "depth", "rate")

    def __init__(self, rate: float, depth: float, tokens: float, now: float) -> None:
        self.rate = rate
        self.depth = depth
        self._tokens = tokens
        self._since = now

    def available(self, now: float) -> float:
        """The tokens it holds; below zero after an overdraft."""
        if now > self._since:
            self._tokens = min(self.depth, self._tokens + (now - self._since) * self.rate)
            self._since = now
        return self._tokens

    def has(self, units: float, now: float) -> bool:
        """Whether ``units`` may be taken. What is more than a full bucket may be taken from a full one."""
        return self.available(now) + _ROUNDING >= min(units, self.depth)

    def take(self, units: float, now: float) -> None:
        """Take ``units``, whether they are there or not: an overdraft is paid back before anything else passes."""
        self._tokens = self.available(now) - units

    def change(self, rate: float, depth: float, now: float) -> None:
        """Fill at another rate from now on."""
        self.available(now)
        self.rate, self.depth = rate, depth


class _Growth:
    """What an on-demand table carries: its start, or twice its previous peak if that is more.

    The peak is the busiest minute. It counts as previous 30 minutes after: AWS says that more than twice the peak
    within 30 minutes may be throttled.
    """

    __slots__ = ("_ended", "_minute", "_units", "limit", "quota")

    def __init__(self, start: float, quota: float) -> None:
        self.limit = start
        self.quota = quota
        self._minute = 0
        self._units = 0.0
        self._ended: deque[tuple[int, float]] = deque()

    def record(self, units: float, now: float) -> bool:
        """Count what passed; returns whether the limit has risen."""
        minute = int(now // _PEAK_WINDOW_SECONDS)
        if minute == self._minute:
            self._units += units
            return False
        if self._units:
            self._ended.append((self._minute, self._units / _PEAK_WINDOW_SECONDS))
        self._minute, self._units = minute, units
        before = self.limit
        while self._ended and (minute - self._ended[0][0] - 1) * _PEAK_WINDOW_SECONDS >= GROWTH_SECONDS:
            self.limit = max(self.limit, min(self.quota, 2 * self._ended.popleft()[1]))
        return self.limit > before


class TableCapacity:
    """The buckets of one table and its partitions.

    A position on the table's ring of hashes, ``0 <= point < 2**64``, says which partition an item belongs to:
    partitions are equal, contiguous parts of the ring.

    Writes pass if their units are there. The size of a read is known only after it, so a read passes if the smallest
    would, and may overdraw; either way, what passes over time is what the rate allows.
    """

    def __init__(self, options: CapacityOptions, now: float) -> None:
        self.options = options
        self._grows = options.mode == "on-demand" and options.grows
        self._growth = {
            "Write": _Growth(options.write_units, options.quota),
            "Read": _Growth(options.read_units, options.quota),
        }
        self._write = self._table_bucket(options.write_units, now)
        self._read = self._table_bucket(options.read_units, now)
        self._index: TokenBucket | None = None
        if options.indexes and options.index_write_units is not None:
            self._index = self._table_bucket(options.index_write_units, now)
        self._size = 0
        self.partitions = 0
        self._partition_writes: list[TokenBucket] = []
        self._partition_reads: list[TokenBucket] = []
        self._split(now)

    @property
    def write_limit(self) -> float:
        """Write units a second that the table carries now."""
        return self._growth["Write"].limit

    @property
    def read_limit(self) -> float:
        """Read units a second that the table carries now."""
        return self._growth["Read"].limit

    def partition(self, point: int) -> int:
        """The partition that a point of the ring belongs to."""
        return point * self.partitions >> HASH_BITS

    def write(self, units: float, index_units: float, point: int, now: float) -> str | None:
        """Take the units of a write; returns None, or the ThrottlingReason for which it does not pass.

        ``units`` are those of the table, ``index_units`` those of one index.
        """
        if not self._write.has(units, now):
            return self._reason("Write")
        partition = None
        if self._partition_writes:
            partition = self._partition_writes[point * self.partitions >> HASH_BITS]
            if not partition.has(units, now):
                return "TableWriteKeyRangeThroughputExceeded"
        if self._index is not None and index_units:
            if not self._index.has(index_units, now):
                return "IndexWriteProvisionedThroughputExceeded"
            self._index.take(index_units, now)
        if partition is not None:
            partition.take(units, now)
        self._write.take(units, now)
        if self._grows and self._growth["Write"].record(units, now):
            self._grow(now)
        return None

    def may_read(self, point: int, now: float) -> str | None:
        """None where a read at this point passes, or the ThrottlingReason for which it does not."""
        if not self._read.has(_SMALLEST_READ, now):
            return self._reason("Read")
        if self._partition_reads:
            partition = self._partition_reads[point * self.partitions >> HASH_BITS]
            if not partition.has(_SMALLEST_READ, now):
                return "TableReadKeyRangeThroughputExceeded"
        return None

    def read(self, units: float, point: int, now: float) -> None:
        """Take the units of a read that passed."""
        self._read.take(units, now)
        if self._partition_reads:
            self._partition_reads[point * self.partitions >> HASH_BITS].take(units, now)
        if self._grows and self._growth["Read"].record(units, now):
            self._grow(now)

    def resize(self, size: int, now: float) -> None:
        """Tell how many bytes the table holds; more than 10 GB a partition splits them."""
        if size > self._size:
            self._size = size
            if size > self.partitions * PARTITION_BYTES:
                self._split(now)

    def _reason(self, kind: Kind) -> str:
        if self.options.mode == "provisioned":
            return f"Table{kind}ProvisionedThroughputExceeded"
        # Below its quota an on-demand table is held back by the partitions that it has so far.
        reached = self._growth[kind].limit >= self.options.quota
        return f"Table{kind}{'AccountLimit' if reached else 'KeyRangeThroughput'}Exceeded"

    def _table_bucket(self, rate: float, now: float) -> TokenBucket:
        return TokenBucket(rate, self._depth(rate), rate * self.options.bucket_seconds, now)

    def _depth(self, rate: float) -> float:
        return rate * max(self.options.bucket_seconds, self.options.burst_seconds)

    def _grow(self, now: float) -> None:
        self._write.change(self.write_limit, self._depth(self.write_limit), now)
        self._read.change(self.read_limit, self._depth(self.read_limit), now)
        self._split(now)

    def _split(self, now: float) -> None:
        """Partitions only ever become more."""
        wanted = partition_count(self.options.mode, self.write_limit, self.read_limit, self._size)
        if self.options.partitions is not None and not self.partitions:
            wanted = self.options.partitions
        if wanted <= self.partitions:
            return
        self.partitions = wanted
        if not self.options.partition_limits:
            return
        seconds = self.options.bucket_seconds
        writes, reads = PARTITION_WRITE_UNITS * seconds, PARTITION_READ_UNITS * seconds
        self._partition_writes = [TokenBucket(PARTITION_WRITE_UNITS, writes, writes, now) for _ in range(wanted)]
        self._partition_reads = [TokenBucket(PARTITION_READ_UNITS, reads, reads, now) for _ in range(wanted)]
