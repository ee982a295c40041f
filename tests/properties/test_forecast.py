"""What holds of every forecast, whatever the table."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from handlers.core.facts import CapacityFacts, IndexFacts, TableFacts, read_facts
from handlers.core.forecast import Forecast, Options, describe_all, forecast
from handlers.core.prices import Prices

from .profile import many

capacities = st.one_of(
    st.builds(
        CapacityFacts,
        write=st.floats(1, 200_000),
        read=st.floats(1, 200_000),
        most_write=st.none() | st.floats(1, 100_000),
        most_read=st.none() | st.floats(1, 100_000),
    ),
    st.builds(CapacityFacts, on_demand=st.just(False), write=st.floats(1, 200_000), read=st.floats(1, 200_000)),
)
indexes = st.builds(
    IndexFacts, items=st.integers(0, 10**10), bytes=st.integers(0, 10**13), capacity=st.none() | capacities
)
tables = st.builds(
    TableFacts,
    items=st.integers(0, 10**10),
    bytes=st.integers(0, 10**13),
    capacity=capacities,
    indexes=st.lists(indexes, max_size=3).map(tuple),
    replicas=st.integers(0, 3),
)
options = st.builds(
    Options,
    segments=st.integers(1, 1000),
    concurrency=st.integers(1, 1000),
    max_write_units_per_second=st.none() | st.floats(1, 100_000),
    capacity_share=st.none() | st.floats(0.01, 1),
)
# A hundred of these fit into one partition of 10 GB: more partitions would let more through, which is no contradiction.
small_tables = st.builds(
    replace,
    tables,
    items=st.integers(0, 10**7),
    bytes=st.integers(0, 10**8),
    indexes=st.lists(indexes, max_size=2).map(tuple),
)
modes = st.sampled_from(("hard-reset", "differential"))
shares = st.floats(0, 1)


def amounts(found: Forecast) -> tuple[float, ...]:
    """Everything that must not be negative, and grows with the table."""
    return (
        found.purge_seconds,
        found.copy_seconds,
        found.verify_seconds,
        found.total_seconds,
        found.write_units,
        found.read_units,
        found.dollars,
    )


@many
@given(facts=tables, chosen=options, mode=modes, hot=shares)
def test_never_negative_and_small_enough_for_120_tables(
    facts: TableFacts, chosen: Options, mode: str, hot: float
) -> None:
    """Catches a forecast that is negative, no number, or too long for a plan of 120 tables."""
    found = forecast(facts, chosen, Prices(), mode=mode, hot_share=hot)
    assert all(0 <= amount < float("inf") for amount in amounts(found))
    assert len(json.dumps(found.to_json())) < 440
    together = describe_all(dict.fromkeys(map(str, range(120)), found), {}, Prices())
    assert together["totalSeconds"] >= found.to_json()["totalSeconds"]
    assert len(json.dumps(together)) < 1500


@many
@given(facts=small_tables, chosen=options, mode=modes, times=st.integers(2, 100))
def test_more_items_never_take_less(facts: TableFacts, chosen: Options, mode: str, times: int) -> None:
    """Catches a larger table of the same items that is forecast to be faster or cheaper on the same capacity."""
    larger = replace(
        facts,
        items=facts.items * times,
        bytes=facts.bytes * times,
        indexes=tuple(replace(each, items=each.items * times, bytes=each.bytes * times) for each in facts.indexes),
    )
    grows = zip(
        amounts(forecast(facts, chosen, Prices(), mode=mode)),
        amounts(forecast(larger, chosen, Prices(), mode=mode)),
        strict=True,
    )
    assert all(after >= before * (1 - 1e-9) for before, after in grows)


@many
@given(facts=small_tables, chosen=options, mode=modes, more=st.integers(1, 10**9))
def test_larger_items_never_take_less(facts: TableFacts, chosen: Options, mode: str, more: int) -> None:
    """Catches bytes that make a forecast faster or cheaper."""
    larger = replace(facts, bytes=facts.bytes + more)
    grows = zip(
        amounts(forecast(facts, chosen, Prices(), mode=mode)),
        amounts(forecast(larger, chosen, Prices(), mode=mode)),
        strict=True,
    )
    assert all(after >= before * (1 - 1e-9) for before, after in grows)


@many
@given(facts=tables, chosen=options, mode=modes)
def test_a_lower_limit_never_makes_it_faster(facts: TableFacts, chosen: Options, mode: str) -> None:
    """Catches an operator's limit that does the opposite."""
    unlimited = replace(chosen, max_write_units_per_second=None, capacity_share=None)
    limited = replace(unlimited, max_write_units_per_second=10.0)
    fast, slow = (forecast(facts, each, Prices(), mode=mode) for each in (unlimited, limited))
    assert slow.reset_seconds >= fast.reset_seconds * (1 - 1e-9)
    assert slow.write_units == fast.write_units


json_numbers = st.none() | st.integers(-1, 10**13)
described = st.fixed_dictionaries(
    {},
    optional={
        "ItemCount": json_numbers,
        "TableSizeBytes": json_numbers,
        "BillingModeSummary": st.sampled_from(({}, {"BillingMode": "PAY_PER_REQUEST"}, {"BillingMode": "PROVISIONED"})),
        "ProvisionedThroughput": st.fixed_dictionaries({}, optional={"WriteCapacityUnits": json_numbers}),
        "WarmThroughput": st.fixed_dictionaries({}, optional={"WriteUnitsPerSecond": json_numbers}),
        "OnDemandThroughput": st.fixed_dictionaries({}, optional={"MaxWriteRequestUnits": json_numbers}),
        "GlobalSecondaryIndexes": st.lists(st.fixed_dictionaries({}, optional={"ItemCount": json_numbers}), max_size=2),
    },
)


@many
@given(table=described, mode=modes)
def test_no_description_of_a_table_stops_a_recovery(table: dict[str, Any], mode: str) -> None:
    """Catches a forecast that fails on what DescribeTable leaves out, and with it the recovery."""
    found = forecast(read_facts(table), Options(segments=4), Prices(), mode=mode)
    assert found.total_seconds >= 3600
