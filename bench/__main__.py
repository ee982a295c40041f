"""``make bench``: measure, print what the figures are held against, and write ``build/bench/report.json``."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

from rich.console import Console
from rich.table import Table

from . import cpu, curves, memory, modes, pacing, scaling, simulation

COMMAND = "make bench"


def _simulate() -> dict[str, Any]:
    found = simulation.simulate_all()
    simulation.FOLDER.mkdir(parents=True, exist_ok=True)
    (simulation.FOLDER / "simulation.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    curves.draw(found, simulation.FOLDER / "curves.png")
    return {
        "forecastRatios": {name: found["forecast"][f"{name}Ratios"] for name in ("even", "hot", "variation")},
        "brokenQuotas": [check["name"] for check in found["checks"] if check["kind"] == "quota" and not check["holds"]],
        "fixture": f"{len(found['scenarios'])} recoveries of 10^4 to 10^10 items, even and hot (the forecast is "
        f"told of the hot partition), and {len(found['variations'])} with other settings",
    }


PARTS: Mapping[str, tuple[str, Callable[[], Any]]] = {
    "cpu": ("CPU of a worker against boto3's resource", cpu.measure),
    "capacity": ("capacity used at 1,000, 4,000 and 40,000 write units a second", pacing.measure),
    "memory": ("peak memory for 10 thousand and 1 million items", memory.measure),
    "modes": ("cost of a differential reset against a hard reset", modes.measure),
    "scaling": ("eight segments against one", scaling.measure),
    "simulation": ("recoveries beyond one machine, simulated", _simulate),
}


def _noise() -> dict[str, Any]:
    """How much the same loop varies on this machine."""

    def loop() -> float:
        began = time.perf_counter()
        sum(range(3_000_000))
        return time.perf_counter() - began

    return {"sameLoopTenTimes": cpu.summary([loop() for _ in range(10)]), "loadAverage": os.getloadavg()[0]}


def _rows(found: Mapping[str, Any]) -> list[tuple[str, Any, str, bool]]:
    """Name, figure, what it is held against, and whether it holds."""
    capacity, error = found["capacity"], found["forecastError"]
    one, mode = found["cpu"], found["modes"]
    return [
        ("copyCpuRatio", one["copyCpuRatio"], "at least 7", one["copyCpuRatio"] >= 7),
        ("purgeCpuRatio", one["purgeCpuRatio"], "at least 7", one["purgeCpuRatio"] >= 7),
        *(
            row
            for entry in capacity
            for row in (
                (f"utilisation at {entry['allowedWcu']:,} WCU", entry["utilisation"], "at least 0.95",
                 entry["utilisation"] >= 0.95),
                (f"throttled at {entry['allowedWcu']:,} WCU", entry["throttledShare"], "at most 0.03",
                 entry["throttledShare"] <= 0.03),
                (f"lost or doubled at {entry['allowedWcu']:,} WCU", entry["lostItems"], "0", entry["lostItems"] == 0),
            )
        ),
        ("peakMemoryMb", found["memory"]["peakMemoryMb"], "at most 200", found["memory"]["peakMemoryMb"] <= 200),
        ("memoryGrowth", found["memory"]["memoryGrowth"], "at most 1.1", found["memory"]["memoryGrowth"] <= 1.1),
        ("differentialCostRatio", mode["differentialCostRatio"], "at least 5", mode["differentialCostRatio"] >= 5),
        ("differentialWorstRatio", mode["differentialWorstRatio"], "at most 1.3",
         mode["differentialWorstRatio"] <= 1.3),
        ("writes for each difference", mode["differentialWritesPerDifference"], "at most 1.05",
         mode["differentialWritesPerDifference"] <= 1.05),
        ("segmentScaling", found["scaling"]["segmentScaling"], "at least 7", found["scaling"]["segmentScaling"] >= 7),
        ("forecastError", error, "at most 0.2", error <= 0.2),
        ("quotas broken in simulation", len(found["simulation"]["brokenQuotas"]), "0",
         not found["simulation"]["brokenQuotas"]),
    ]  # fmt: skip


def _report(found: Mapping[str, Any]) -> dict[str, Any]:
    """The report: the figures by name, and how they were come by."""
    return {
        "command": COMMAND,
        "machine": {
            "cpus": os.cpu_count(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "noise": found["noise"],
        },
        **{name: found["cpu"][name] for name in ("copyCpuRatio", "purgeCpuRatio")},
        "capacity": found["capacity"],
        **{name: found["memory"][name] for name in ("peakMemoryMb", "memoryGrowth")},
        **{name: found["modes"][name] for name in ("differentialCostRatio", "differentialWorstRatio")},
        "segmentScaling": found["scaling"]["segmentScaling"],
        "forecastError": found["forecastError"],
        "details": {name: found[name] for name in ("cpu", "memory", "modes", "scaling", "simulation")},
    }


def main(names: list[str]) -> int:
    """Run the parts, or those that are named; returns 1 if a figure misses what it is held against."""
    console = Console()
    unknown = sorted(set(names) - set(PARTS))
    if unknown:
        console.print(f"unknown: {', '.join(unknown)}. Expected some of {', '.join(PARTS)}, or none for all.")
        return 2
    found: dict[str, Any] = {"noise": _noise()}
    for name in names or PARTS:
        title, measure = PARTS[name]
        console.print(f"{title} …")
        began = time.monotonic()
        found[name] = measure()
        console.print(f"  {time.monotonic() - began:.0f} s")
    if names:
        console.print_json(json.dumps(found))
        return 0
    # Of all simulated recoveries, and of the copies that were measured here.
    ratios = [
        *chain.from_iterable(found["simulation"]["forecastRatios"].values()),
        *(entry["forecastSeconds"] / entry["seconds"] for entry in found["capacity"]),
    ]
    found["forecastError"] = round(max(abs(ratio - 1) for ratio in ratios), 3)
    rows = _rows(found)
    table = Table("figure", "measured", "held against", "", title="Benchmarks")
    for name, figure, target, holds in rows:
        table.add_row(name, f"{figure:g}", target, "✓" if holds else "✗")
    console.print(table)
    path = simulation.FOLDER / "report.json"
    path.write_text(json.dumps(_report(found), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    console.print(f"{path}, {simulation.FOLDER / 'curves.png'}", soft_wrap=True)
    return 0 if all(holds for *_, holds in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
