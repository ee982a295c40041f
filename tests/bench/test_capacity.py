"""The capacity model against the numbers that AWS documents."""

from __future__ import annotations

import pytest

from bench.capacity import CapacityOptions, TableCapacity, TokenBucket, partition_count, read_units, write_units

RING = 2**64
KB = 1024
GB = 1024**3


def passed_writes(capacity: TableCapacity, points: list[int], start: float, seconds: float, offered: int) -> int:
    """How many of ``offered`` writes of one unit a second pass, spread evenly over the seconds and the points."""
    total = round(offered * seconds)
    return sum(
        capacity.write(1, 0, points[index % len(points)], start + index / offered) is None for index in range(total)
    )


def even(count: int = 997) -> list[int]:
    """Points all over the ring, in no order of partitions."""
    return [(index * 0x9E3779B97F4A7C15) % RING for index in range(count)]


@pytest.mark.parametrize(("size", "units"), [(1, 1), (1024, 1), (1025, 2), (3 * KB + 512, 4), (400 * KB, 400)])
def test_a_write_costs_a_unit_for_each_kilobyte_begun(size: int, units: int) -> None:
    """Would catch a copy that seems to cost less than AWS bills; 3.5 KB is the guide's example."""
    assert write_units(size) == units


@pytest.mark.parametrize(
    ("size", "consistent", "units"),
    [
        (1, True, 1),
        (3584, True, 1),
        (4096, True, 1),
        (4097, True, 2),
        (8 * KB, True, 2),
        (8 * KB, False, 1),
        (0, False, 0.5),
    ],
)
def test_a_read_costs_a_unit_for_each_four_kilobytes_begun(size: int, consistent: bool, units: float) -> None:
    """Would catch wrong prices of reads; 3.5 KB and 8 KB are the guide's examples."""
    assert read_units(size, consistent=consistent) == units


def test_a_provisioned_table_passes_what_is_provisioned() -> None:
    """Would catch a bench that is too generous or too strict: a table of 1,000 units passes 1,000 ± 1 % a second."""
    capacity = TableCapacity(CapacityOptions(mode="provisioned", write_units=1000, read_units=1000), 0.0)
    passed_writes(capacity, even(), 0.0, 5.0, 3000)  # the first second's worth that the bucket held
    for second in range(5, 15):
        assert passed_writes(capacity, even(), float(second), 1.0, 3000) == pytest.approx(1000, rel=0.01)


def test_less_than_the_capacity_passes_whole() -> None:
    """Would catch a bench that throttles a worker that stays below the limit."""
    capacity = TableCapacity(CapacityOptions(mode="provisioned", write_units=1000, read_units=1000), 0.0)
    assert passed_writes(capacity, even(), 0.0, 20.0, 950) == 19_000


def test_a_hot_partition_has_a_limit_of_its_own() -> None:
    """Would hide hot partitions: one gets 1,000 units a second while the table has 4,000, and says why."""
    capacity = TableCapacity(CapacityOptions(), 0.0)
    assert capacity.partitions == 4
    hot = [RING // 8]
    passed_writes(capacity, hot, 0.0, 5.0, 4000)
    assert passed_writes(capacity, hot, 5.0, 10.0, 4000) == pytest.approx(10_000, rel=0.01)
    assert capacity.write(1000, 0, hot[0], 15.0) == "TableWriteKeyRangeThroughputExceeded"
    # The other three partitions are free.
    assert capacity.write(900, 0, 7 * RING // 8, 15.0) is None


def test_a_new_on_demand_table_passes_4000_writes_and_12000_reads() -> None:
    """Would catch a bench that starts where no new table does."""
    capacity = TableCapacity(CapacityOptions(), 0.0)
    points = [index * RING // 4 + 17 for index in range(4)]
    passed_writes(capacity, points, 0.0, 3.0, 9000)
    assert passed_writes(capacity, points, 3.0, 10.0, 9000) == pytest.approx(40_000, rel=0.01)
    assert capacity.write(4000, 0, points[0], 13.0) is not None

    def reads(start: float, seconds: float) -> int:
        passed = 0
        for index in range(round(20_000 * seconds)):
            point, now = points[index % 4], start + index / 20_000
            if capacity.may_read(point, now) is None:
                capacity.read(1, point, now)
                passed += 1
        return passed

    reads(20.0, 3.0)
    assert reads(23.0, 5.0) == pytest.approx(60_000, rel=0.01)


def test_an_on_demand_table_grows_to_twice_its_peak_after_30_minutes_up_to_the_quota() -> None:
    """Would catch growth that comes at once, never, or beyond the quota of 40,000."""
    capacity = TableCapacity(CapacityOptions(), 0.0)

    def minute(start: int) -> None:
        """Use all that the table carries, a second at a time and all over it."""
        for second in range(start, start + 60):
            for partition in range(capacity.partitions):
                point = partition * RING // capacity.partitions + 1
                capacity.write(capacity.write_limit / capacity.partitions, 0, point, float(second))

    limits = []
    for start in range(0, 4 * 3600, 60):
        minute(start)
        limits.append(capacity.write_limit)
    assert limits[29] == 4000
    assert limits[31] == pytest.approx(8000, rel=0.05)
    assert limits[-1] == 40_000
    assert capacity.partitions == 40
    assert capacity.write(40_000, 0, 1, 14_399.5) == "TableWriteAccountLimitExceeded"


def test_a_table_may_be_told_not_to_grow() -> None:
    """Would make a long bench drift."""
    capacity = TableCapacity(CapacityOptions(grows=False), 0.0)
    for second in range(0, 7200, 10):
        assert capacity.write(900, 0, 5, float(second)) is None
    assert capacity.write_limit == 4000


def test_the_quota_is_40000() -> None:
    """Would allow a bench that no account has; a warm table at the quota passes 40,000."""
    with pytest.raises(ValueError, match="at most the quota"):
        CapacityOptions(write_units=40_001)
    capacity = TableCapacity(CapacityOptions(write_units=40_000, read_units=12_000), 0.0)
    assert capacity.partitions == 40
    points = [index * RING // 40 + 3 for index in range(40)]
    passed_writes(capacity, points, 0.0, 2.0, 60_000)
    assert passed_writes(capacity, points, 2.0, 3.0, 60_000) == pytest.approx(120_000, rel=0.01)


def test_300_seconds_of_unused_capacity_are_kept() -> None:
    """The guide's example: 150 units unused for 5 minutes carry 200 a second for 15 minutes."""
    options = CapacityOptions(mode="provisioned", write_units=150, read_units=150, burst_seconds=300)
    capacity = TableCapacity(options, 0.0)
    idle = 3600.0  # longer than what is kept
    assert passed_writes(capacity, even(), idle, 899.0, 200) == 200 * 899
    passed_writes(capacity, even(), idle + 899, 2.0, 200)
    after = passed_writes(capacity, even(), idle + 901, 10.0, 200)
    assert after == pytest.approx(1500, rel=0.02)


def test_without_burst_what_is_unused_is_lost() -> None:
    """Would let a bench of the steady state begin with a windfall."""
    capacity = TableCapacity(CapacityOptions(mode="provisioned", write_units=150, read_units=150), 0.0)
    assert passed_writes(capacity, even(), 3600.0, 10.0, 400) == pytest.approx(1500 + 150, rel=0.02)


def test_burst_does_not_lift_the_limit_of_a_partition() -> None:
    """Burst capacity cannot ease throttling of a partition, says AWS."""
    options = CapacityOptions(mode="provisioned", write_units=2000, read_units=3000, burst_seconds=300)
    capacity = TableCapacity(options, 0.0)
    passed_writes(capacity, [5], 3600.0, 2.0, 5000)
    assert passed_writes(capacity, [5], 3602.0, 5.0, 5000) == pytest.approx(5000, rel=0.01)


@pytest.mark.parametrize(
    ("mode", "write", "read", "size", "partitions"),
    [
        ("provisioned", 1, 1, 0, 1),
        ("provisioned", 1000, 1000, 0, 2),
        ("provisioned", 4000, 6000, 0, 6),
        ("provisioned", 1, 1, 25 * GB, 3),
        ("on-demand", 4000, 12_000, 0, 4),
        ("on-demand", 4000, 12_000, 200 * GB, 20),
    ],
)
def test_partitions_follow_from_capacity_and_size(mode, write, read, size, partitions) -> None:  # type: ignore[no-untyped-def]
    """Would give a table more or fewer partitions, and with them more or less than it has."""
    assert partition_count(mode, write, read, size) == partitions


def test_a_table_that_grows_in_size_splits() -> None:
    """Would keep a table of terabytes on four partitions."""
    capacity = TableCapacity(CapacityOptions(), 0.0)
    capacity.resize(1024 * GB, 1.0)
    assert capacity.partitions == 103
    capacity.resize(GB, 2.0)
    assert capacity.partitions == 103


def test_an_index_with_less_capacity_holds_the_table_back() -> None:
    """Would hide the back-pressure of an index, and take from the table what the index refused."""
    options = CapacityOptions(mode="provisioned", write_units=1000, read_units=10, indexes=1, index_write_units=100)
    capacity = TableCapacity(options, 0.0)
    reasons = [capacity.write(1, 1, point, 0.0) for point in even(200)]
    assert reasons.count(None) == 100
    assert reasons[-1] == "IndexWriteProvisionedThroughputExceeded"
    # Writes that change no index still have the rest of the table's thousand.
    assert [capacity.write(1, 0, point, 0.0) for point in even(1000)].count(None) == 900


def test_an_item_larger_than_a_bucket_passes_and_is_paid_back() -> None:
    """Would lock out an item of 400 KB from a table of 100 units for ever, or let it through for less than it costs."""
    capacity = TableCapacity(CapacityOptions(mode="provisioned", write_units=100, read_units=100), 0.0)
    assert capacity.write(400, 0, 1, 0.0) is None
    assert capacity.write(1, 0, 1, 2.9) is not None
    assert capacity.write(1, 0, 1, 3.02) is None


def test_a_bucket_does_not_run_backwards() -> None:
    """Would mint tokens where requests arrive out of order."""
    bucket = TokenBucket(10, 10, 10, 100.0)
    bucket.take(10, 100.0)
    assert bucket.available(99.0) == 0
    assert bucket.available(100.5) == pytest.approx(5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "both"},
        {"write_units": 0},
        {"bucket_seconds": 0},
        {"burst_seconds": 301, "mode": "provisioned"},
        {"burst_seconds": 10},
        {"indexes": -1},
        {"index_write_units": 0},
        {"partitions": 0},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, object]) -> None:
    """Would run a bench of something that no table is."""
    with pytest.raises(ValueError, match="expected"):
        CapacityOptions(**wrong)  # type: ignore[arg-type]
