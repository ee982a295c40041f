"""Purge, copy and digest end in the same state, whatever the table, the segments, the pages and the interruptions."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from handlers.core import engine
from handlers.core.clock import Deadline
from handlers.core.digest import digest_items
from handlers.core.engine import BatchWriter, Copy, Digest, Engine, Phase, Purge
from handlers.core.errors import CapacityExhausted
from handlers.core.ledger import Checkpoint, Ledger, SegmentId

from .fake_dynamodb import FakeDynamoDB, FakeTable, StoppedError, refuse
from .profile import few
from .strategies import KEY, Item, tables

pages = st.integers(min_value=1, max_value=9)
segment_counts = st.integers(min_value=1, max_value=5)


class Serial(Executor):
    """Runs what is submitted at once: the same interface as threads, and the same order every time."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``fn`` now."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it surfaces from the future, as it does with threads
            future.set_exception(error)
        return future


def no_sleep(_: float) -> None:
    """Time does not pass here."""


@dataclass
class World:
    """A source, a destination and a ledger; and the engine over them.

    ``tick``: seconds between two looks at the clock; 1 saves a checkpoint after every page, 0 only at the end.
    """

    source: list[Item]
    damaged: list[Item]
    tick: float = 1.0
    dynamodb: FakeDynamoDB = field(init=False)

    def __post_init__(self) -> None:
        self.dynamodb = FakeDynamoDB(
            {"source": FakeTable(KEY), "destination": FakeTable(KEY), "ledger": FakeTable(("pk", "sk"))}
        )
        for name, items in (("source", self.source), ("destination", self.damaged)):
            for item in items:
                self.dynamodb.tables[name].put(item)

    def content(self, table: str) -> list[Item]:
        """All items of a table."""
        return self.dynamodb.tables[table].content()

    def phase(self, name: str) -> Phase:
        """One of the engine's phases."""
        client: Any = self.dynamodb
        writer = BatchWriter(dynamodb=client, table_name="destination", executor=Serial(), sleep=no_sleep)
        phases: dict[str, Phase] = {
            "purge": Purge(writer=writer, key_names=KEY),
            "copy": Copy(source_table_name="source", writer=writer),
            "verify-source": Digest(table_name="source"),
            "verify-destination": Digest(table_name="destination"),
        }
        return phases[name]

    def work(self, phase: str, segment: int, total: int, deadline: Deadline) -> Checkpoint:
        """One invocation of a worker."""
        client: Any = self.dynamodb
        ticks = itertools.count()
        worker = Engine(
            dynamodb=client,
            ledger=Ledger(client, "ledger"),
            executor=Serial(),
            sleep=no_sleep,
            monotonic=lambda: next(ticks) * self.tick,
        )
        identity = SegmentId(incident_id="i", table_name="t", phase=phase, generation=1, segment=segment)
        return worker.run(identity, total, self.phase(phase), deadline)

    def finish(self, phase: str, total: int, deadline: Callable[[], Deadline]) -> int:
        """Work on every segment until it is complete, through stops and exhausted capacity; returns the items."""
        items = 0
        for segment in range(total):
            for _ in range(1000):
                try:
                    checkpoint = self.work(phase, segment, total, deadline())
                except (StoppedError, CapacityExhausted):
                    continue
                if checkpoint.complete:
                    items += checkpoint.items
                    break
            else:
                raise AssertionError("never complete")
        return items

    def totals(self, phase: str) -> Any:
        """Sums over the segments, from the ledger."""
        client: Any = self.dynamodb
        return Ledger(client, "ledger").totals("i", "t", phase, 1)


def always() -> Deadline:
    """Time enough for everything."""
    return Deadline(lambda: 900.0)


def after_pages(count: int) -> Deadline:
    """A deadline that is reached when it is looked at for the ``count``-th time (it is looked at after each page)."""
    looks = iter([900.0] * count)
    return Deadline(lambda: next(looks, 0.0))


@contextmanager
def page_size(size: int) -> Iterator[None]:
    """Pages of ``size`` items."""
    with patch.object(engine, "PAGE_ITEMS", size):
        yield


@few
@given(items=tables(), total=segment_counts, size=pages)
def test_segments_cover_every_item_exactly_once(items: list[Item], total: int, size: int) -> None:
    """An item belongs to no segment, or to two, or is lost or doubled where a page ends."""
    world = World(items, [])
    with page_size(size):
        assert world.finish("verify-source", total, always) == len(items)
    totals = world.totals("verify-source")
    assert (totals.complete_segments, totals.items) == (total, len(items))
    assert totals.digest == digest_items(items)


@few
@given(source=tables(), damaged=tables(), total=segment_counts, size=pages)
def test_purge_and_copy_make_both_equal(source: list[Item], damaged: list[Item], total: int, size: int) -> None:
    """An item is left over, lost or changed."""
    world = World(source, damaged)
    expected = world.content("source")
    with page_size(size):
        assert world.finish("purge", total, always) == len(damaged)
        assert world.content("destination") == []
        assert world.finish("copy", total, always) == len(source)
    assert world.content("destination") == expected == world.content("source")


@few
@given(
    source=tables(min_size=1),
    damaged=tables(),
    total=segment_counts,
    size=pages,
    allowed=st.lists(st.integers(min_value=1, max_value=4), min_size=1, max_size=5),
)
def test_stopping_after_any_page_equals_one_run(
    source: list[Item], damaged: list[Item], total: int, size: int, allowed: list[int]
) -> None:
    """A resumed worker begins a page too early or too late, or forgets what it has counted."""
    world = World(source, damaged)
    turns = iter(range(10**6))

    def deadline() -> Deadline:
        return after_pages(allowed[next(turns) % len(allowed)])

    with page_size(size):
        assert world.finish("purge", total, deadline) == len(damaged)
        assert world.content("destination") == []
        assert world.finish("copy", total, deadline) == len(source)
        assert world.content("destination") == world.content("source")
        assert world.finish("verify-destination", total, deadline) == len(source)
    assert world.totals("verify-destination").digest == digest_items(source)


@few
@given(
    source=tables(min_size=1),
    damaged=tables(min_size=1),
    total=segment_counts,
    size=pages,
    seed=st.integers(min_value=0),
    saved=st.booleans(),
)
def test_interruptions_anywhere_lose_nothing(
    source: list[Item], damaged: list[Item], total: int, size: int, seed: int, saved: bool
) -> None:
    """A worker that dies between any two calls, throttled requests and unprocessed items lose or double something."""
    world, chance = World(source, damaged), random.Random(seed)
    world.tick = 1.0 if saved else 0.0
    troubles: list[str] = []

    def trouble(operation: str) -> None:
        roll = chance.random()
        if roll < 0.12:
            troubles.append("stopped")
            raise StoppedError
        if roll < 0.3 and operation in ("Scan", "BatchWriteItem"):
            troubles.append("throttled")
            raise refuse("ThrottlingException", operation)

    world.dynamodb.before = world.dynamodb.after = trouble
    world.dynamodb.unprocessed = lambda: chance.random() < 0.2
    with page_size(size):
        purged = world.finish("purge", total, always)
        assert world.content("destination") == []
        # What a worker deleted after its last checkpoint is not found again.
        assert purged <= len(damaged)
        assert world.finish("copy", total, always) == len(source)
        assert world.content("destination") == world.content("source")
        assert world.finish("verify-source", total, always) == len(source)
    assert troubles
    world.dynamodb.before = lambda _: None
    totals = world.totals("verify-source")
    assert (totals.items, totals.digest) == (len(source), digest_items(source))
