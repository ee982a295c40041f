"""Watching a recovery from outside: what an operator can see in the ledger, in DescribeTable and in the execution.

`Observer` takes one look, `Tracker` turns looks into phases with a start and an end, and a view shows them: bars on a
terminal, one plain line a change elsewhere. Nothing here calls into the recovery's code.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

PHASES = ("restore", "backup", "purge", "copy", "verify")
"""What happens to a table, in order; the first two at the same time."""

LEDGER_PHASES = ("purge", "copy", "verify", "verified")
"""The ledger's words for where a table stands, in order; a later one ends the ones before it."""

LOOK_EVERY_SECONDS = 0.4
"""Often enough for bars that move, rare enough to leave the emulator's single process to the recovery."""

State = Literal["waiting", "running", "done"]
_RANK: dict[State, int] = {"waiting": 0, "running": 1, "done": 2}


@dataclass(frozen=True, kw_only=True)
class Expected:
    """How many items a table's phases will touch, known to the rehearsal beforehand."""

    damaged: int
    """Items in the table before the recovery: what the purge deletes."""
    original: int
    """Items at the restore point: what the copy writes, and the verification reads on each side."""

    def items(self, phase: str) -> int | None:
        """The phase's total, or None where items are not counted."""
        return {"purge": self.damaged, "copy": self.original, "verify": self.original}.get(phase)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What was seen at one moment; ledger items in plain Python values."""

    at: datetime
    status: str
    """The execution's: RUNNING, SUCCEEDED, FAILED, TIMED_OUT or ABORTED."""
    run: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Table name -> the ledger's TABLE# item."""
    segments: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Table name -> its segments' checkpoints."""
    functions: Mapping[str, str] = field(default_factory=dict)
    """Function name -> frozen, released or gone."""
    restored: Mapping[str, str] = field(default_factory=dict)
    """Table name -> the state of its temporary table."""
    backups: Mapping[str, str] = field(default_factory=dict)
    """Table name -> the state of its backup."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One phase of one table, as known so far."""

    state: State = "waiting"
    items: int = 0
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Change:
    """A phase that began or ended between two looks."""

    table: str
    phase: str
    state: State
    items: int


class Observer:
    """Takes a look at a running recovery through the public APIs."""

    def __init__(
        self,
        client: Callable[[str], Any],
        *,
        ledger: str,
        incident_id: str,
        execution_arn: str,
        tables: Sequence[str],
        environment: str,
        since: datetime,
    ) -> None:
        self._dynamodb = client("dynamodb")
        self._stepfunctions = client("stepfunctions")
        self._ledger = ledger
        self._incident_id = incident_id
        self._execution_arn = execution_arn
        self._tables = tables
        self._environment = environment
        self._since = since

    def look(self) -> Look:
        """One look; costs about a dozen requests."""
        # The execution comes first: what is read after it ended is final.
        status = self._stepfunctions.describe_execution(executionArn=self._execution_arn)["status"]
        named = self._query_named(f"INCIDENT#{self._incident_id}")
        frozen = _under(self._query_named("FROZEN"), "FUNCTION#")
        return Look(
            at=datetime.now(UTC),
            status=status,
            run=named.get("RUN", {}),
            tables=_under(named, "TABLE#"),
            functions={name: str(entry.get("state", "")) for name, entry in frozen.items()},
            segments={table: self._query(f"SEGMENTS#{self._incident_id}#{table}") for table in self._tables},
            restored=self._restored(),
            backups=self._backups(),
        )

    def _query_named(self, partition: str) -> dict[str, dict[str, Any]]:
        return {str(entry["sk"]): entry for entry in self._query(partition)}

    def _query(self, partition: str) -> list[dict[str, Any]]:
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._ledger,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": partition}},
            ConsistentRead=True,
        )
        return [{name: plain(value) for name, value in item.items()} for page in pages for item in page["Items"]]

    def _restored(self) -> dict[str, str]:
        states: dict[str, str] = {}
        for page in self._dynamodb.get_paginator("list_tables").paginate():
            for name in page["TableNames"]:
                for table in self._tables:
                    if name.startswith(f"dr-{self._environment}.{table}."):
                        states[table] = self._table_state(name)
        return states

    def _table_state(self, name: str) -> str:
        try:
            return str(self._dynamodb.describe_table(TableName=name)["Table"]["TableStatus"])
        except self._dynamodb.exceptions.ResourceNotFoundException:
            return "DELETING"  # it went away between the list and the question

    def _backups(self) -> dict[str, str]:
        states: dict[str, str] = {}
        for table in self._tables:
            summaries = self._dynamodb.list_backups(TableName=table, BackupType="ALL").get("BackupSummaries", [])
            recent = [
                each for each in summaries if each["BackupCreationDateTime"].timestamp() >= int(self._since.timestamp())
            ]
            if recent:
                states[table] = str(max(recent, key=lambda each: each["BackupCreationDateTime"])["BackupStatus"])
        return states


class Tracker:
    """Turns looks into phases. A phase only ever moves forward, whatever is cleaned away later."""

    def __init__(self, expected: Mapping[str, Expected]) -> None:
        self.expected = expected
        self.phases: dict[tuple[str, str], Phase] = {(table, phase): Phase() for table in expected for phase in PHASES}
        self.last: Look | None = None

    def feed(self, look: Look) -> list[Change]:
        """Take in a look; returns what began or ended since the one before."""
        changes: list[Change] = []
        for (table, name), known in self.phases.items():
            state, items = _seen(look, table, name)
            now = _advance(known, state, items, look.at)
            if now.state != known.state:
                changes.append(Change(table=table, phase=name, state=now.state, items=now.items))
            self.phases[table, name] = now
        self.last = look
        return changes

    def timeline(self) -> list[dict[str, Any]]:
        """Every phase that began: {phase, tableName, start, end}, times as `datetime`, end None if it never ended."""
        return [
            {"phase": name, "tableName": table, "start": phase.start, "end": phase.end}
            for (table, name), phase in self.phases.items()
            if phase.start
        ]


class View(Protocol):
    """Shows a tracker's state to a person."""

    def update(self, tracker: Tracker, changes: Sequence[Change], elapsed: float) -> None:
        """Show what is known after `elapsed` seconds."""


class PlainView:
    """A line for each phase that began or ended: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._frozen: dict[str, str] = {}

    def update(self, tracker: Tracker, changes: Sequence[Change], elapsed: float) -> None:
        """Print what changed, nothing otherwise."""
        functions = dict(tracker.last.functions) if tracker.last else {}
        if functions != self._frozen:
            self._frozen = functions
            self._print(elapsed, _functions_line(functions))
        for change in changes:
            counted = f", {change.items:,} items" if change.state == "done" and change.items else ""
            verb = "done" if change.state == "done" else "started"
            self._print(elapsed, f"{change.table}: {change.phase} {verb}{counted}")

    def _print(self, elapsed: float, text: str) -> None:
        self._console.print(f"  {elapsed:6.1f} s  {text}", highlight=False, soft_wrap=True)


class LiveView:
    """Bars that move, one a table and phase: for terminals."""

    def __init__(self, live: Live) -> None:
        self._live = live

    def update(self, tracker: Tracker, changes: Sequence[Change], elapsed: float) -> None:  # noqa: ARG002
        """Redraw; the bars hold the changes already."""
        self._live.update(dashboard(tracker, elapsed))


@contextmanager
def view(console: Console) -> Iterator[View]:
    """The view that suits where the output goes."""
    if not console.is_terminal:
        yield PlainView(console)
        return
    with Live(console=console, refresh_per_second=8) as live:
        yield LiveView(live)


def watch(
    observer: Observer,
    tracker: Tracker,
    shown: View,
    *,
    on_look: Callable[[Look], None],
    timeout_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Look:
    """Look again and again until the execution ended; returns the last look.

    Raises:
        TimeoutError: it had not ended after `timeout_seconds`.
    """
    started = clock()
    while True:
        look = observer.look()
        elapsed = clock() - started
        shown.update(tracker, tracker.feed(look), elapsed)
        on_look(look)
        if look.status != "RUNNING":
            return look
        if elapsed > timeout_seconds:
            raise TimeoutError(
                f"The recovery had not ended after {timeout_seconds:.0f} seconds. Is this computer busy?"
            )
        sleep(LOOK_EVERY_SECONDS)


def dashboard(tracker: Tracker, elapsed: float) -> RenderableType:
    """The live picture: functions above, a row of bars for each table below."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column("table")
    grid.add_row(Text(f"{elapsed:.0f} s", style="dim"), *(Text(phase, style="bold") for phase in PHASES))
    for table in tracker.expected:
        grid.add_row(table, *(_bar(tracker, table, phase) for phase in PHASES))
    functions = tracker.last.functions if tracker.last else {}
    return Group(Text(_functions_line(functions)), grid)


def plain(value: Mapping[str, Any]) -> Any:
    """A ledger attribute as a Python value; numbers as int or float, which the view only counts with."""
    ((kind, content),) = value.items()
    match kind:
        case "N":
            return float(content) if "." in content else int(float(content))
        case "M":
            return {name: plain(part) for name, part in content.items()}
        case "L":
            return [plain(part) for part in content]
        case "NULL":
            return None
    return content


def _under(named: Mapping[str, dict[str, Any]], prefix: str) -> dict[str, dict[str, Any]]:
    return {name.removeprefix(prefix): entry for name, entry in named.items() if name.startswith(prefix)}


def _seen(look: Look, table: str, phase: str) -> tuple[State, int]:
    if phase == "restore":
        return _from_status(look.restored.get(table), working=("CREATING",)), 0
    if phase == "backup":
        return _from_status(look.backups.get(table), working=("CREATING",)), 0
    entry, checkpoints = look.tables.get(table, {}), look.segments.get(table, ())
    mine = _of_phase(checkpoints, phase)
    items = sum(int(segment.get("items") or 0) for segment in mine)
    if phase == "verify":
        items //= 2  # each item is read on both sides, and only equal sides are done
    reached = entry.get("phase")
    # The ledger says "purge" before a purge begins and "copy" until the verdict, so checkpoints tell the rest.
    beyond = reached in LEDGER_PHASES and LEDGER_PHASES.index(str(reached)) > LEDGER_PHASES.index(phase)
    followed = any(_of_phase(checkpoints, later) for later in PHASES[PHASES.index(phase) + 1 :])
    if beyond or followed:
        return "done", items
    return ("running" if mine else "waiting"), items


def _of_phase(segments: Sequence[Mapping[str, Any]], phase: str) -> list[Mapping[str, Any]]:
    """The checkpoints of the newest attempt at `phase`; sort keys are `{attempt}#{phase}#{segment}`."""
    named = [(str(segment["sk"]).split("#"), segment) for segment in segments]
    mine = [(parts[0], segment) for parts, segment in named if len(parts) > 1 and parts[1].split("-")[0] == phase]
    newest = max((attempt for attempt, _ in mine), default="")
    return [segment for attempt, segment in mine if attempt == newest]


def _from_status(status: str | None, *, working: Sequence[str]) -> State:
    if status is None:
        return "waiting"
    return "running" if status in working else "done"


def _advance(known: Phase, state: State, items: int, at: datetime) -> Phase:
    now = replace(known, items=max(known.items, items))
    if _RANK[state] <= _RANK[known.state]:
        return now
    return replace(now, state=state, start=known.start or at, end=at if state == "done" else None)


def _bar(tracker: Tracker, table: str, name: str) -> RenderableType:
    phase, total = tracker.phases[table, name], tracker.expected[table].items(name)
    if total is None or phase.state != "running":
        share = 1.0 if phase.state == "done" else 0.0
        waiting = phase.state == "running"
        return ProgressBar(total=1.0, completed=share, width=14, pulse=waiting)
    return ProgressBar(total=float(max(total, 1)), completed=float(phase.items), width=14)


def _functions_line(functions: Mapping[str, str]) -> str:
    if not functions:
        return "functions: none frozen yet"
    counts: dict[str, int] = {}
    for state in functions.values():
        counts[state] = counts.get(state, 0) + 1
    return "functions: " + ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
