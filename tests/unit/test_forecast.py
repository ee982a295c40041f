"""Forecasts that one can do by hand, and what a table's description says."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from handlers.core.facts import CapacityFacts, IndexFacts, TableFacts, read_facts
from handlers.core.forecast import (
    ASSUMPTIONS,
    Basis,
    Forecast,
    Options,
    WorkerSpeed,
    active_partitions,
    actual_dollars,
    describe_all,
    forecast,
)
from handlers.core.prices import Prices

MILLION = 10**6
PROVISIONED = CapacityFacts(on_demand=False, write=1000, read=1000)
TABLE = TableFacts(items=10 * MILLION, bytes=10 * MILLION * 1024, capacity=PROVISIONED)
OPTIONS = Options(segments=40)
# Nothing but the table bounds it, and all that is allowed is used.
FAST = WorkerSpeed(purge_items=1e9, copy_items=1e9, digest_items=1e9, megabytes=1e9, start_seconds=0, next_seconds=0)


def foresee(facts: TableFacts = TABLE, options: Options = OPTIONS, **more: Any) -> Forecast:
    """A forecast at list prices."""
    return forecast(facts, options, Prices(), **more)


def test_units_of_a_hard_reset() -> None:
    """A delete is forecast as free, a keys-only scan as cheap, or a side of the verification is left out."""
    found = foresee()
    assert found.write_units == 2 * 10 * MILLION
    assert found.read_units == pytest.approx(4 * 10 * MILLION / 4)
    larger = foresee(replace(TABLE, bytes=10 * MILLION * 1025))
    assert larger.write_units == 4 * 10 * MILLION, "1,025 bytes are two write units, also to delete"


def test_durations_at_provisioned_capacity() -> None:
    """10 million writes at 950 a second (95 % of 1,000), 2.5 million reads at 950, and at the restored table's rate."""
    found = foresee(speed=FAST)
    assert found.purge_seconds == found.copy_seconds == pytest.approx(10 * MILLION / 950, rel=1e-3)
    assert found.verify_seconds >= 2.5 * MILLION / 950
    assert found.bound == "table write capacity"
    assert found.restore_seconds == 3600


def test_dollars_on_demand() -> None:
    """The documented example: 12.50 USD for writes and 1.25 USD for reads, and on top what is no capacity."""
    facts = replace(TABLE, capacity=CapacityFacts())
    capacity_only = Prices.parse(
        dict.fromkeys(("restoreGB", "storageGBMonth", "lambdaGBSecond", "lambdaMillion", "transitionThousand"), 0)
    )
    found = forecast(facts, OPTIONS, capacity_only)
    ledger = found.dollars - 13.75
    assert 0 < ledger < 0.2, "one checkpoint a second and worker"
    assert foresee(facts).dollars > found.dollars + 9.5 * 0.15, "9.5 GB restored"


def test_workers_bound_a_fast_table() -> None:
    """Workers are forecast faster than they are: four of 5,000 items a second take 50 seconds for a million."""
    fast = CapacityFacts(on_demand=False, write=400_000, read=400_000)
    facts = TableFacts(items=MILLION, bytes=MILLION * 200, capacity=fast)
    found = foresee(facts, Options(segments=4), speed=replace(WorkerSpeed(), start_seconds=0, copy_items=500))
    assert found.copy_seconds == pytest.approx(500, rel=0.01)
    assert found.phase_bounds["copy"] == "workers"


def test_large_items_are_bound_by_bytes() -> None:
    """A worker that moves 5,000 items of 400 KB a second."""
    facts = TableFacts(
        items=10_000, bytes=10_000 * 400 * 1024, capacity=CapacityFacts(on_demand=False, write=4e5, read=4e5)
    )
    found = foresee(facts, Options(segments=4))
    assert found.copy_seconds >= 10_000 * 400 / 1024 / 40 / 4


@pytest.mark.parametrize(
    ("limit", "units"),
    [({"max_write_units_per_second": 100.0}, 100), ({"capacity_share": 0.25}, 250)],
)
def test_the_operators_limit(limit: dict[str, float], units: float) -> None:
    """A limit that is configured, and not in the forecast."""
    found = foresee(options=replace(OPTIONS, **limit), speed=FAST)  # type: ignore[arg-type] # numbers by their names
    assert found.copy_seconds == pytest.approx(10 * MILLION / (0.95 * units), rel=1e-3)
    assert found.bound == "operator's limit"
    assert found.write_units == foresee().write_units


def test_indexes_are_written_too() -> None:
    """Index writes are forgotten in the units, or an index with little capacity does not hold the table back."""
    own = IndexFacts(items=10 * MILLION, bytes=10 * MILLION * 100, capacity=replace(PROVISIONED, write=500))
    local = IndexFacts(items=5 * MILLION, bytes=5 * MILLION * 100, capacity=None)
    found = foresee(replace(TABLE, indexes=(local, own)), speed=FAST)
    assert found.write_units == 2 * (10 + 5 + 10) * MILLION
    assert found.copy_seconds == pytest.approx(10 * MILLION / (0.95 * 500), rel=1e-3)
    assert found.phase_bounds["copy"] == "index write capacity"
    with_local = foresee(replace(TABLE, indexes=(local,)), speed=FAST)
    assert with_local.copy_seconds == pytest.approx(15 * MILLION / 950, rel=1e-3), "a local index takes the table's"


def test_an_on_demand_table_grows() -> None:
    """A table on demand that stays at 4,000 for days, or is at 40,000 at once."""
    small, large = (TableFacts(items=items, bytes=items * 1000) for items in (10 * MILLION, 1000 * MILLION))
    options = Options(segments=1000, concurrency=1000)
    quick = foresee(small, options, speed=FAST)
    assert 0.95 * 4000 * 1800 < 10 * MILLION < quick.purge_seconds * 0.95 * 8000
    long = foresee(large, options, speed=FAST)
    assert 1000 * MILLION / 40_000 < long.purge_seconds < 1000 * MILLION / 20_000
    limited = foresee(replace(large, capacity=CapacityFacts(most_write=5000)), options, speed=FAST)
    assert limited.copy_seconds == pytest.approx(1000 * MILLION / (0.95 * 5000), rel=1e-2)


def test_a_hot_partition() -> None:
    """A partition that is known to hold half of the items does not bound the forecast."""
    facts = replace(TABLE, capacity=CapacityFacts(write=40_000, read=40_000))
    found = foresee(facts, hot_share=0.5)
    assert found.purge_seconds >= 5 * MILLION / 1000
    assert found.bound == "partition throughput"


def test_few_partitions_are_worked_on_by_few_workers() -> None:
    """25 workers that are taken to use all of 40 partitions at once."""
    assert active_partitions(40, 400, 25, "shuffled") < 18
    assert active_partitions(4, 4, 25) == 4
    assert active_partitions(4, 1000, 25, "shuffled") == pytest.approx(25 / (1 + 24 * 249 / 999))
    assert active_partitions(1024, 1000, 25, "shuffled") == 25
    assert active_partitions(40, 400, 25) == active_partitions(40, 400, 25, "spread")
    assert active_partitions(40, 400, 25, "sorted") < 4 < active_partitions(40, 400, 25, "shuffled") < 20
    assert 20 < active_partitions(40, 400, 25, "spread") <= 25


def test_a_differential_reset_and_its_worst_case() -> None:
    """The unknown damage is forecast as none, or the worst case is missing."""
    hard, found = foresee(), foresee(mode="differential")
    assert found.write_units == pytest.approx(0.01 * 10 * MILLION)
    assert found.worst is not None
    assert found.worst.write_units == hard.write_units
    assert found.worst.read_units > found.read_units
    assert found.worst.dollars > found.dollars
    assert found.worst.total_seconds > found.total_seconds
    on_demand = replace(TABLE, capacity=CapacityFacts())
    capacity = Prices.parse({"restoreGB": 0})
    assert (
        forecast(on_demand, OPTIONS, capacity, mode="differential").dollars
        < forecast(on_demand, OPTIONS, capacity).dollars / 3
    )
    assert set(found.to_json()["worstCase"]) == {"totalSeconds", "writeUnits", "readUnits", "usd"}


def test_the_output_adds_up_and_is_small() -> None:
    """Phases that are not the total, or an output of which 120 do not fit a state."""
    for found in (foresee(), foresee(mode="differential"), foresee(replace(TABLE, items=10**12, bytes=10**16))):
        shown = found.to_json()
        parts = [shown[f"{phase}Seconds"] for phase in ("restore", "purge", "copy", "verify")]
        assert shown["totalSeconds"] == sum(parts)
        assert len(json.dumps(shown)) < 420


def test_all_tables_together() -> None:
    """Tables that are added up although they are reset at once, or restores that are not waited for."""
    fast, slow = foresee(replace(TABLE, items=1000, bytes=10**6)), foresee()
    facts = {"a": replace(TABLE, items=1000, bytes=10**6), "b": TABLE}
    found = describe_all({"a": fast, "b": slow}, facts, Prices())
    assert found["totalSeconds"] == slow.to_json()["totalSeconds"]
    assert found["usd"] == pytest.approx(fast.dollars + slow.dollars, abs=0.01)
    assert found["workers"] == 50
    assert found["backupUsdPerMonth"] == pytest.approx(sum(f.bytes for f in facts.values()) / 1024**3 * 0.1, rel=1e-2)
    assert found["assumptions"] == list(ASSUMPTIONS)
    assert "six hours" in " ".join(ASSUMPTIONS)
    many = {str(number): fast for number in range(51)}
    assert describe_all(many, {}, Prices())["totalSeconds"] > 2 * 3600, "50 restores run at once"
    assert describe_all({}, {}, Prices())["totalSeconds"] == 0


def test_what_it_has_cost_by_the_same_rules() -> None:
    """A reset that went as forecast, and a price that differs."""
    for capacity in (PROVISIONED, CapacityFacts()):
        facts = replace(TABLE, capacity=capacity)
        found, basis = foresee(facts), Basis.from_json(json.loads(json.dumps(Basis.of(facts, OPTIONS).to_json())))
        cost = actual_dollars(
            basis,
            Prices(),
            write_units=found.write_units,
            read_units=found.read_units,
            seconds=found.reset_seconds,
        )
        assert cost == pytest.approx(found.dollars, rel=1e-6)


def test_facts_of_a_provisioned_table() -> None:
    """Indexes, capacities or the size are read wrongly."""
    described = {
        "ItemCount": 5,
        "TableSizeBytes": 500,
        "ProvisionedThroughput": {"ReadCapacityUnits": 7, "WriteCapacityUnits": 3},
        "LocalSecondaryIndexes": [{"ItemCount": 4, "IndexSizeBytes": 40}],
        "GlobalSecondaryIndexes": [
            {
                "ItemCount": 2,
                "IndexSizeBytes": 20,
                "ProvisionedThroughput": {"ReadCapacityUnits": 1, "WriteCapacityUnits": 2},
            }
        ],
        "StreamSpecification": {"StreamEnabled": True},
    }
    assert read_facts(described) == TableFacts(
        items=5,
        bytes=500,
        capacity=CapacityFacts(on_demand=False, write=3, read=7),
        indexes=(
            IndexFacts(items=4, bytes=40, capacity=None),
            IndexFacts(items=2, bytes=20, capacity=CapacityFacts(on_demand=False, write=2, read=1)),
        ),
        stream=True,
    )


def test_facts_of_an_on_demand_table() -> None:
    """Warm throughput or the maximum is not seen; -1, which is no maximum, becomes one."""
    described: dict[str, Any] = {
        "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
        "ProvisionedThroughput": {"ReadCapacityUnits": 0, "WriteCapacityUnits": 0},
        "WarmThroughput": {"ReadUnitsPerSecond": 30_000, "WriteUnitsPerSecond": 9_000},
        "OnDemandThroughput": {"MaxReadRequestUnits": -1, "MaxWriteRequestUnits": 6_000},
        "Replicas": [{"RegionName": "eu-west-1"}],
    }
    assert read_facts(described) == TableFacts(
        capacity=CapacityFacts(write=9_000, read=30_000, most_write=6_000), replicas=1
    )
    del described["WarmThroughput"]
    assert read_facts(described).capacity.write == 4_000


def test_an_empty_table() -> None:
    """A division by no items, or by no capacity."""
    for facts in (TableFacts(), read_facts({}), read_facts({"ItemCount": 3})):
        found = foresee(facts, Options(segments=4))
        assert found.total_seconds >= 3600
        assert found.dollars >= 0
