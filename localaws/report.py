"""The drill's two reports: `report.json` for scripts, `report.html` for people.

The page is one file without any outside asset; it is made from the JSON alone, so both say the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

TEMPLATES = Path(__file__).parent / "templates"

HEADING_HEIGHT = 24
GROUP_GAP = 14
BAR_HEIGHT = 14
AXIS_HEIGHT = 26
SHORTEST_BAR = 3.0
"""Pixels; a phase that took no time at all is still to be seen."""

TICK_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a timeline is laid out on screens of one kind, in pixels."""

    name: str
    """The CSS class."""
    width: int
    bars_from: int
    """Where the time axis begins."""
    room_after: int
    """What is kept free at the axis's end, e.g. for the last duration."""
    row_height: int
    bar_offset: int
    """From a row's top to its bar's."""
    label_x: int
    duration_with_label: bool
    """Whether the duration stands next to the label, not behind the bar."""
    most_ticks: int


WIDE = Layout(
    name="wide",
    width=860,
    bars_from=250,
    room_after=60,
    row_height=24,
    bar_offset=4,
    label_x=14,
    duration_with_label=False,
    most_ticks=9,
)
"""Labels beside the bars."""

NARROW = Layout(
    name="narrow",
    width=340,
    bars_from=10,
    room_after=10,
    row_height=38,
    bar_offset=20,
    label_x=14,
    duration_with_label=True,
    most_ticks=5,
)
"""Labels above the bars: nothing to scroll on a telephone."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One row of the timeline, in pixels."""

    label: str
    label_x: float
    label_y: float
    duration_x: float
    kind: str
    """The CSS class: a phase's name, or "step"."""
    x: float
    y: float
    """Its upper edge."""
    width: float
    height: float
    start_seconds: float
    duration_seconds: float
    open: bool
    """It never ended: the recovery failed during it."""


@dataclass(frozen=True, kw_only=True)
class Heading:
    """A line above a group of rows."""

    label: str
    y: float


@dataclass(frozen=True, kw_only=True)
class Chart:
    """The timeline as SVG coordinates."""

    name: str
    duration_with_label: bool
    bars: Sequence[Bar]
    headings: Sequence[Heading]
    ticks: Sequence[tuple[float, int]]
    """(x, seconds since the start)."""
    width: float
    height: float


def write(report: Mapping[str, Any], folder: Path) -> tuple[Path, Path]:
    """Write both reports into `folder`; returns (report.json, report.html)."""
    folder.mkdir(parents=True, exist_ok=True)
    json_path, html_path = folder / "report.json", folder / "report.html"
    json_path.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    html_path.write_text(render(report), encoding="utf-8")
    return json_path, html_path


def render(report: Mapping[str, Any]) -> str:
    """The report as one HTML page.

    Every value is escaped: names of tables and functions, and above all an error's text, are not the page's own.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = count
    environment.filters["clock"] = clock_time
    environment.filters["moment"] = moment
    environment.filters["seconds"] = seconds
    environment.filters["short"] = short_digest
    environment.filters["dollars"] = dollars
    charts = [chart(report.get("timeline", []), layout) for layout in (WIDE, NARROW)]
    return environment.get_template("report.html.j2").render(
        report=report, charts=[each for each in charts if each], words=words, units=units, beside=beside
    )


def chart(timeline: Sequence[Mapping[str, Any]], layout: Layout) -> Chart | None:
    """Lay the timeline out, the whole recovery's steps first, then each table; None if nothing was seen."""
    known = [entry for entry in timeline if entry.get("start")]
    if not known:
        return None
    origin = min(_moment(entry["start"]) for entry in known)
    last = max(_moment(entry.get("end") or entry["start"]) for entry in known)
    total = max((last - origin).total_seconds(), 1.0)
    scale = (layout.width - layout.bars_from - layout.room_after) / total
    bars: list[Bar] = []
    headings: list[Heading] = []
    y = float(AXIS_HEIGHT)
    for group in _groups(known):
        headings.append(Heading(label=group or "The recovery", y=y + 15))
        y += HEADING_HEIGHT
        for entry in (entry for entry in known if (entry.get("tableName") or "") == group):
            bars.append(_bar(entry, origin, last, y, scale, layout))
            y += layout.row_height
        y += GROUP_GAP
    return Chart(
        name=layout.name,
        duration_with_label=layout.duration_with_label,
        bars=bars,
        headings=headings,
        ticks=_ticks(total, scale, layout),
        width=layout.width,
        height=y,
    )


def count(value: Any) -> str:
    """A number with its thousands set apart; a dash where there is none."""
    if not isinstance(value, int | float):
        return "—"
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"


def seconds(value: Any) -> str:
    """A duration a person reads: 0.4 s, 42 s, 3 min 5 s."""
    if not isinstance(value, int | float):
        return "—"
    if 0 < value < 0.05:
        return "< 0.1 s"
    if value < 10:
        # A whole number was counted in seconds: a decimal would be made up.
        return f"{value} s" if isinstance(value, int) else f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def clock_time(value: Any) -> str:
    """The time of day of an ISO 8601 moment, in UTC."""
    return _moment(value).strftime("%H:%M:%S") if value else "—"


def moment(value: Any) -> str:
    """Date and time of day of an ISO 8601 moment, in UTC."""
    return _moment(value).strftime("%Y-%m-%d %H:%M:%S") if value else "—"


def short_digest(value: Any) -> str:
    """The first characters of a digest: enough to tell two apart by eye."""
    return f"{str(value)[:12]}…" if value else "none"


def dollars(value: Any) -> str:
    """An amount of money; of less than a dollar four decimals."""
    if not isinstance(value, int | float):
        return "—"
    return f"{value:,.2f} USD" if value >= 1 else f"{value:.4f} USD"


def beside(table: Mapping[str, Any]) -> Sequence[tuple[str, str, str]]:
    """What was forecast of a table, beside what happened, as (name, forecast, actual); empty where nothing was."""
    foreseen = table.get("forecast")
    if not foreseen:
        return ()
    took, capacity = table.get("phaseSeconds") or {}, table.get("consumedCapacity") or {}
    return (
        *(
            (phase.capitalize(), seconds(foreseen.get(f"{phase}Seconds")), seconds(took.get(phase)))
            for phase in ("purge", "copy", "verify")
        ),
        ("Write units", count(foreseen.get("writeUnits")), count(capacity.get("writeUnits"))),
        ("Read units", count(foreseen.get("readUnits")), count(capacity.get("readUnits"))),
        ("Cost", dollars(foreseen.get("usd")), dollars(table.get("usd"))),
    )


def words(value: Any) -> str:
    """A setting in words: a reserved concurrency, or a mapping's state."""
    if value is None:
        return "none reserved"
    return "enabled" if value is True else "disabled" if value is False else str(value)


def units(capacity: Any) -> Sequence[tuple[str, str]]:
    """A `consumedCapacity` object as (name, amount) pairs."""
    if not isinstance(capacity, Mapping):
        return ()
    names = {"readUnits": "Read units", "writeUnits": "Write units"}
    return tuple((label, count(capacity[name])) for name, label in names.items() if name in capacity)


def _groups(timeline: Sequence[Mapping[str, Any]]) -> list[str]:
    """The whole recovery ("") first, then tables in order of appearance."""
    names = dict.fromkeys(entry.get("tableName") or "" for entry in timeline)
    return sorted(names, key=lambda name: bool(name))


def _bar(entry: Mapping[str, Any], origin: datetime, last: datetime, y: float, scale: float, layout: Layout) -> Bar:
    start = (_moment(entry["start"]) - origin).total_seconds()
    end = (_moment(entry["end"]) - origin if entry.get("end") else last - origin).total_seconds()
    x, width = layout.bars_from + start * scale, max((end - start) * scale, SHORTEST_BAR)
    return Bar(
        label=str(entry["phase"]),
        label_x=layout.label_x,
        label_y=y + 15,
        duration_x=round(x + width + 6, 1),
        kind=str(entry["phase"]) if entry.get("tableName") else "step",
        x=round(x, 1),
        y=y + layout.bar_offset,
        width=round(width, 1),
        height=BAR_HEIGHT,
        start_seconds=start,
        duration_seconds=max(end - start, 0.0),
        open=not entry.get("end"),
    )


def _ticks(total: float, scale: float, layout: Layout) -> list[tuple[float, int]]:
    most = layout.most_ticks
    step = next((step for step in TICK_STEPS if total / step <= most), round(total / most))
    return [(round(layout.bars_from + at * scale, 1), at) for at in range(0, int(total) + 1, step)]


def _moment(value: Any) -> datetime:
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    return datetime.fromisoformat(str(value)).astimezone(UTC)
