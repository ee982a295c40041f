"""The picture of the simulation: recovery time, cost, what bounds it, and how near the forecast is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator

# Colours that people with any colour vision tell apart (Okabe and Ito).
_COLOURS = ("#0072B2", "#D55E00", "#009E73")
_BOUNDS: Mapping[str, str] = {
    "restore": "#BBBBBB",
    "table write capacity": "#E69F00",
    "table read capacity": "#F0E442",
    "partition throughput": "#56B4E9",
    "workers": "#CC79A7",
    "operator's limit": "#000000",
}
_TIMES = (
    (3600, "1 h"),
    (2 * 3600, "2 h"),
    (6 * 3600, "6 h"),
    (86_400, "1 day"),
    (3 * 86_400, "3 days"),
    (7 * 86_400, "1 week"),
    (30 * 86_400, "1 month"),
)
_SHARE = 0.2


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Draw ``build/bench/simulation.json`` into ``path``, a PNG file."""
    rows = report["scenarios"]
    curve_sizes = _curve_sizes(rows)
    capacities = list(dict.fromkeys(row["capacity"] for row in rows))
    plt.rcParams.update({"font.size": 10, "axes.titlesize": 12, "axes.titleweight": "bold"})
    figure, axes = plt.subplots(2, 2, figsize=(15, 11.5), dpi=110, constrained_layout=True)
    figure.suptitle("Recovery of one table with 25 workers, simulated", fontsize=15, fontweight="bold")
    _durations(axes[0][0], rows, curve_sizes, capacities)
    _costs(axes[0][1], rows, curve_sizes, capacities)
    _bounds(axes[1][0], rows, curve_sizes, capacities)
    _ratios(axes[1][1], rows, capacities)
    figure.savefig(path)
    plt.close(figure)


def _curve_sizes(rows: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """One size for each number of items: the first of the grid, items of about 1 KB where there are many."""
    first: dict[int, int] = {}
    for row in rows:
        first.setdefault(row["items"], row["bytes"])
    return sorted(first.items())


def _curve(
    rows: Sequence[Mapping[str, Any]], sizes: Sequence[tuple[int, int]], capacity: str, hot: bool
) -> list[Mapping[str, Any]]:
    wanted = set(sizes)
    chosen = [
        row
        for row in rows
        if row["capacity"] == capacity and bool(row["hotShare"]) == hot and (row["items"], row["bytes"]) in wanted
    ]
    return sorted(chosen, key=lambda row: int(row["items"]))


def _items_axis(axis: Axes, sizes: Sequence[tuple[int, int]]) -> None:
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator([items for items, _ in sizes]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticklabels([_size_label(items, size) for items, size in sizes])
    axis.set_xlabel("items in the table, and its size")
    axis.grid(visible=True, which="major", alpha=0.3)


def _size_label(items: int, size: int) -> str:
    gb = size / 1e9
    return f"$10^{{{len(str(items)) - 1}}}$\n{f'{gb / 1000:,.0f} TB' if gb >= 1000 else f'{gb:,.0f} GB'}"


def _lines(axis: Axes, rows: Sequence[Mapping[str, Any]], sizes: Sequence[tuple[int, int]], capacities: Sequence[str],
           value: Any) -> None:  # fmt: skip
    for colour, capacity in zip(_COLOURS, capacities, strict=True):
        for hot in (False, True):
            curve = _curve(rows, sizes, capacity, hot)
            axis.plot(
                [row["items"] for row in curve], [value(row) for row in curve], color=colour,
                marker="s" if hot else "o",
                markersize=5, linestyle="--" if hot else "-", linewidth=1.8,
            )  # fmt: skip
    legend = [
        Line2D([], [], color=colour, marker="o", label=name) for colour, name in zip(_COLOURS, capacities, strict=True)
    ]
    legend += [
        Line2D([], [], color="#444444", marker="o", linestyle="-", label="evenly spread"),
        Line2D([], [], color="#444444", marker="s", linestyle="--", label="half of it in one partition's range"),
    ]
    axis.legend(handles=legend, loc="upper left", fontsize=9)
    axis.set_yscale("log")
    _items_axis(axis, sizes)


def _durations(axis: Axes, rows: Sequence[Mapping[str, Any]], sizes: Sequence[tuple[int, int]],
               capacities: Sequence[str]) -> None:  # fmt: skip
    _lines(axis, rows, sizes, capacities, lambda row: row["simulated"]["totalSeconds"])
    axis.set_title("How long: restore (one hour), purge, copy, verify")
    axis.set_ylabel("recovery time")
    low, high = axis.get_ylim()
    axis.yaxis.set_major_locator(FixedLocator([seconds for seconds, _ in _TIMES if low <= seconds <= high]))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.set_yticklabels([name for seconds, name in _TIMES if low <= seconds <= high])
    axis.set_ylim(2400, high)


def _costs(axis: Axes, rows: Sequence[Mapping[str, Any]], sizes: Sequence[tuple[int, int]],
           capacities: Sequence[str]) -> None:  # fmt: skip
    _lines(axis, rows, sizes, capacities, lambda row: row["simulated"]["usd"])
    axis.set_title("How much: capacity, restore, Lambda, Step Functions")
    axis.set_ylabel("cost in US dollars (us-east-1)")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")


def _bounds(axis: Axes, rows: Sequence[Mapping[str, Any]], sizes: Sequence[tuple[int, int]],
            capacities: Sequence[str]) -> None:  # fmt: skip
    kinds = [(capacity, hot) for capacity in capacities for hot in (False, True)]
    met = set()
    for y, (capacity, hot) in enumerate(kinds):
        for x, row in enumerate(_curve(rows, sizes, capacity, hot)):
            bound = row["simulated"]["boundBy"]
            met.add(bound)
            axis.barh(y, 0.96, left=x - 0.48, height=0.92, color=_BOUNDS[bound])
            axis.text(x, y, _duration(row["simulated"]["totalSeconds"]), ha="center", va="center", fontsize=9)
    axis.set_yticks(range(len(kinds)), [f"{capacity}\n{'hot' if hot else 'even'}" for capacity, hot in kinds])
    axis.set_xticks(range(len(sizes)), [_size_label(items, size) for items, size in sizes])
    axis.set_xlim(-0.5, len(sizes) - 0.5)
    axis.set_ylim(len(kinds) - 0.5, -0.5)
    axis.set_xlabel("items in the table, and its size")
    axis.set_title("What bounds it, and the recovery time")
    axis.legend(
        handles=[Patch(color=colour, label=name) for name, colour in _BOUNDS.items() if name in met],
        loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=4, fontsize=9, frameon=False,
    )  # fmt: skip


def _duration(seconds: float) -> str:
    for unit, name in ((86_400, "d"), (3600, "h")):
        if seconds >= 2 * unit:
            value = seconds / unit
            return f"{value:,.0f} {name}" if value >= 10 else f"{value:.1f} {name}"
    return f"{seconds / 60:.0f} min"


def _ratios(axis: Axes, rows: Sequence[Mapping[str, Any]], capacities: Sequence[str]) -> None:
    sizes = sorted({(row["items"], row["bytes"]) for row in rows})
    axis.axhspan(1 - _SHARE, 1 + _SHARE, color="#009E73", alpha=0.12)
    axis.axhline(1.0, color="#444444", linewidth=1)
    for number, (colour, capacity) in enumerate(zip(_COLOURS, capacities, strict=True)):
        for hot in (False, True):
            chosen = [row for row in rows if row["capacity"] == capacity and bool(row["hotShare"]) == hot]
            axis.scatter(
                [sizes.index((row["items"], row["bytes"])) + (number - 1) * 0.2 for row in chosen],
                [row["ratio"] for row in chosen], color=colour if not hot else "none", edgecolors=colour,
                s=42, zorder=3, marker="s" if hot else "o",
            )  # fmt: skip
    axis.set_xticks(range(len(sizes)), [_size_label(items, size) for items, size in sizes])
    axis.set_ylim(0.6, 1.4)
    axis.set_ylabel("forecast duration / simulated duration")
    axis.set_xlabel("items in the table, and its size")
    axis.set_title("Forecast ÷ simulation of the reset (shaded: 20 %)")
    axis.grid(visible=True, axis="y", alpha=0.3)
    axis.legend(
        handles=[
            Line2D([], [], color="#444444", marker="o", linestyle="none", label="evenly spread"),
            Line2D([], [], color="#444444", marker="s", linestyle="none", mfc="none", label="hot, and told so"),
            *(Patch(color=colour, label=name) for colour, name in zip(_COLOURS, capacities, strict=True)),
        ],
        loc="upper left", ncols=2, fontsize=9,
    )  # fmt: skip
