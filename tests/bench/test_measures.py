"""Every part of the benchmarks on small tables: that it measures what it says, not how fast this machine is."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bench import __main__ as runner
from bench import cpu, memory, modes, pacing, scaling
from bench.latency import Latency
from handlers.core.clock import Deadline
from handlers.core.digest import Item
from handlers.core.engine import Copy
from handlers.core.ledger import PageResult


def test_copies_and_purges_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that does nothing, or fails, only when somebody wants figures."""
    for name, value in (("BASELINE_ITEMS", 60), ("ITEMS", 1200), ("RUNS", 1)):
        monkeypatch.setattr(cpu, name, value)
    found = cpu.measure()
    assert found["copyCpuRatio"] > 1
    assert found["purgeCpuRatio"] > 0
    assert found["noise"]["copyCpuRatio"]["runs"] == 1


def test_a_copy_that_is_none_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that loses half of the items is twice as fast."""
    for name, value in (("BASELINE_ITEMS", 60), ("ITEMS", 1200), ("RUNS", 1)):
        monkeypatch.setattr(cpu, name, value)

    class Lazy(Copy):
        def apply(self, items: Sequence[Item], deadline: Deadline, before: PageResult, /) -> PageResult:
            return super().apply(items[1:], deadline, before)

    monkeypatch.setattr(cpu, "Copy", Lazy)
    with pytest.raises(RuntimeError, match="not a copy"):
        cpu.measure()


def test_paces_are_measured_in_simulated_time() -> None:
    """Figures of a run in which items were lost, or which was too short to have a steady state."""
    row = pacing.Simulated(allowed=400, seconds=15, workers=4, segments=8).run()
    assert row["lostItems"] == 0
    assert row["items"] == 6000
    assert 0.5 < row["utilisation"] < 1.5
    with pytest.raises(RuntimeError, match="too few"):
        pacing.Simulated(allowed=400, seconds=5, workers=4, segments=8).run()


def test_modes_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A ratio of two runs that did not do the same work."""
    monkeypatch.setattr(modes, "ITEMS", 800)
    found = modes.measure()
    # Units and dollars do not depend on the machine.
    assert found["differentialCostRatio"] >= 5
    assert found["differentialWorstRatio"] <= 1.3
    assert found["differentialWritesPerDifference"] <= 1.05


def test_memory_and_scaling_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peak of the wrong process, or a throughput of nothing."""
    monkeypatch.setattr(memory, "SMALL", 300)
    monkeypatch.setattr(memory, "LARGE", 900)
    # A child's getrusage begins with the peak of its parent, which has held more than a worker may.
    held = len(b"x" * 300_000_000)
    found = memory.measure()
    assert 20 < found["peakMemoryMb"] < 200 < held / 1e6
    assert found["memoryGrowth"] > 0.5
    monkeypatch.setattr(scaling, "ITEMS", 800)
    monkeypatch.setattr(scaling, "RUNS", 1)
    monkeypatch.setattr(scaling, "LATENCY", Latency(median=0.02, p99=0.021))
    assert scaling.measure()["segmentScaling"] > 0


def test_an_unknown_part_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt name runs nothing and exits 0."""
    assert runner.main(["cpus"]) == 2
    assert "cpus" in capsys.readouterr().out
