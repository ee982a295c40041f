"""The simulation: it can be trusted where the answer is known, the forecast agrees with it, and no quota is broken."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from bench import curves, simulation
from bench.simulation import CAPACITIES, GB, LIMITS, QUOTAS, Scenario, Simulation, checks, compare
from handlers.core.facts import CapacityFacts

SLOW = CapacityFacts(on_demand=False, write=500, read=500)


def scenario(**changes: Any) -> Scenario:
    """A table of ten million items on 5,000 provisioned units, with changes."""
    capacity = CAPACITIES["provisioned, 5,000 WCU"]
    values = {"items": 10**7, "bytes": 10 * GB, "capacity_name": "provisioned", "capacity": capacity, **changes}
    return Scenario(**values)


@pytest.fixture(scope="module")
def report() -> Mapping[str, Any]:
    """The whole grid, simulated once."""
    return simulation.simulate_all()


def test_a_table_of_one_partition_takes_what_its_capacity_says() -> None:
    """Catches units that are lost or doubled: a million items at 500 units a second take 2,000 seconds."""
    found = Simulation(scenario(items=10**6, bytes=10**9, capacity=SLOW)).run()
    assert found["writeUnits"] == pytest.approx(2 * 10**6, rel=1e-6)
    assert found["readUnits"] == pytest.approx(4 * 10**9 / 4096, rel=0.01)
    for phase in ("purge", "copy"):
        assert 2000 <= found["seconds"][phase] <= 2000 / simulation.PACED * 1.02


def test_workers_alone_take_what_their_speed_says() -> None:
    """Catches a worker that is faster than it is: four segments, a table that never bounds them."""
    big = CapacityFacts(on_demand=False, write=40_000, read=40_000)
    found = Simulation(scenario(items=10**6, bytes=10**8, capacity=big)).run()
    # 100 bytes: 5,000 a second and worker, but for partitions, each of which lets 1,000 through.
    assert found["seconds"]["copy"] >= 10**6 / 4 / 1000
    assert found["phaseBounds"]["verify"] == "workers"
    assert found["seconds"]["verify"] == pytest.approx(10**6 / 4 / 7000, abs=8)


def test_a_hot_partition_holds_the_run() -> None:
    """Catches a simulation in which half of the writes to one partition pass faster than 1,000 a second."""
    even, hot = (Simulation(scenario(hot_share=share)).run() for share in (0.0, 0.5))
    assert even["seconds"]["purge"] < 3000
    assert hot["seconds"]["purge"] >= 10**7 / 2 / 1000
    assert hot["writeUnits"] == even["writeUnits"]


def test_the_order_of_segments_decides_how_many_partitions_work() -> None:
    """Catches a change of the order that nobody sees: sorted segments keep all workers on a few partitions."""
    seconds = {
        order: Simulation(
            scenario(items=10**8, bytes=100 * GB, capacity=CAPACITIES["on demand, 40,000 WCU"], order=order)
        ).run()["seconds"]["copy"]
        for order in ("spread", "shuffled", "sorted")
    }
    assert seconds["spread"] < seconds["shuffled"] / 1.3
    assert seconds["shuffled"] < seconds["sorted"] / 3


def test_an_operators_limit_is_kept() -> None:
    """Catches a limit that the simulation ignores."""
    found = Simulation(scenario(max_write_units=100.0, items=10**5, bytes=10**8)).run()
    assert found["seconds"]["copy"] >= 10**5 / 100
    assert found["phaseBounds"]["copy"] == "operator's limit"


def test_it_is_deterministic() -> None:
    """Catches a report that differs from run to run."""
    one = scenario(hot_share=0.5, capacity=CapacityFacts())
    assert compare(one) == compare(one)


def test_the_grid_is_what_was_asked_for(report: Mapping[str, Any]) -> None:
    """Catches a grid from which the hard cases were taken out."""
    rows = report["scenarios"]
    assert {row["items"] for row in rows} == {10**power for power in range(4, 11)}
    assert (min(row["bytes"] for row in rows), max(row["bytes"] for row in rows)) == (GB, 10_000 * GB)
    assert {row["hotShare"] for row in rows} == {0.0, 0.5}
    assert {row["capacity"] for row in rows} == set(CAPACITIES)
    for row in rows:
        # Whatever happens in between, every item is deleted and put: of up to 1 KB, one unit each.
        units = 2 * row["items"] * max(1, -(-row["bytes"] // row["items"] // 1024))
        assert row["simulated"]["writeUnits"] == pytest.approx(units, rel=1e-3), row


def test_the_forecast_is_within_a_fifth(report: Mapping[str, Any]) -> None:
    """Catches a forecast that has lost touch: no case may be off by more than 20 %, the hot ones once it is told."""
    rows = [*report["scenarios"], *report["variations"]]
    assert len(rows) >= 70
    for row in rows:
        assert 0.8 <= row["ratio"] <= 1.2, row
        assert 0.8 <= row["totalRatio"] <= 1.2, row
        # Of a hot table the price is too high, never too low: most workers are done long before the last one.
        assert 0.8 <= row["usdRatio"] <= (1.5 if row["hotShare"] else 1.2), row


def test_no_quota_of_aws_is_broken(report: Mapping[str, Any]) -> None:
    """Catches a change of segments, concurrency or states that some size of table does not bear."""
    found = {check["name"]: check for check in report["checks"]}
    assert set(found) == {*QUOTAS, *LIMITS}
    for name in QUOTAS:
        assert found[name]["largest"] > 0, f"{name} was never met: nothing was proven"
        assert found[name]["holds"], found[name]
    # What the largest tables break, and what the report must not hide.
    assert found["hardResetSeconds"]["broken"] == sum(
        row["simulated"]["seconds"]["reset"] > LIMITS["hardResetSeconds"][0]
        for row in (*report["scenarios"], *report["variations"])
    )


def test_a_broken_quota_is_told() -> None:
    """Catches checks that can only hold."""
    row = compare(scenario(items=10**4, bytes=GB))
    row["simulated"]["largest"]["historyEvents"] = 25_001.0
    found = {check["name"]: check for check in checks([row])}
    assert (found["historyEvents"]["holds"], found["historyEvents"]["broken"]) == (False, 1)
    assert found["mapChildren"]["holds"] is True


def test_the_picture_is_drawn(report: Mapping[str, Any], tmp_path: Path) -> None:
    """Catches a picture that fails, or is empty."""
    curves.draw(report, tmp_path / "curves.png")
    content = (tmp_path / "curves.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 50_000
