"""The differential phase ends with equal tables and writes nothing but differences, whatever the order of the scans."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.core import differential
from handlers.core.clock import Deadline
from handlers.core.differential import Differential
from handlers.core.digest import canonical_item
from handlers.core.engine import BatchWriter, Phase, Scans, Step, Walk, WalkingPhase, Work
from handlers.core.ledger import PageResult

from .fake_dynamodb import StoppedError, refuse
from .profile import few, many
from .strategies import KEY, Item, tables
from .test_recovery import (
    Serial,
    World,
    after_pages,
    always,
    moments,
    no_sleep,
    page_size,
    pages,
    segment_counts,
    timed,
)

EQUAL, CHANGED, MISSING, RESPELT = "equal", "changed", "missing", "respelt"
fates = st.lists(st.sampled_from([EQUAL, EQUAL, CHANGED, MISSING, RESPELT]), min_size=30, max_size=30)
seeds = st.integers(min_value=0, max_value=2**32)
# How the destination lies beside the source, and how many items fit on a page of each.
layouts = st.sampled_from([("", ""), ("other segments", ""), ("", "other order"), ("other segments", "other order")])
page_items = st.tuples(st.sampled_from([1, 3, 10**6]), st.sampled_from([1, 2, 10**6]))


def key_of(item: Item) -> str:
    """The key as the fake writes it down."""
    return repr([item[name] for name in KEY])


@dataclass
class Damaged(World):
    """A world whose destination is a damaged copy of its source."""

    layout: tuple[str, str] = ("", "")
    page_items: tuple[int, int] = (10**6, 10**6)
    most_waiting: list[int] = field(default_factory=list)
    """Pages in the window of a side, after each step."""

    def __post_init__(self) -> None:
        super().__post_init__()
        source, destination = (self.dynamodb.tables[name] for name in ("source", "destination"))
        destination.layout, destination.order = self.layout
        source.page_items, destination.page_items = self.page_items
        self.expected = self.content("source")
        self.before = {key_of(item): item for item in self.content("destination")}

    def differing(self) -> dict[str, str]:
        """Key → the request that mends it, of all that differs in the beginning."""
        wanted = {key_of(item): item for item in self.source}
        puts = {
            key: "put"
            for key, item in wanted.items()
            if key not in self.before or canonical_item(self.before[key]) != canonical_item(item)
        }
        return puts | dict.fromkeys(set(self.before) - set(wanted), "delete")

    def phase(self, name: str) -> Phase | WalkingPhase:  # type: ignore[override]
        """The differential phase, or one of the others."""
        if name != "differential":
            return super().phase(name)
        client: Any = self.dynamodb
        writer = BatchWriter(dynamodb=client, table_name="destination", executor=Serial(), sleep=no_sleep)
        return Watched(
            source=self.reader("source"),
            destination=self.reader("destination"),
            writer=writer,
            most_waiting=self.most_waiting,
        )

    def mended(self) -> bool:
        """Whether the tables are equal: as DynamoDB compares, for an equal item may keep its spelling."""
        ours, theirs = self.content("destination"), self.expected
        assert self.content("source") == theirs
        return [*map(canonical_item, ours)] == [*map(canonical_item, theirs)]


@dataclass(frozen=True, kw_only=True)
class Watched(Differential):
    """The phase itself, with a look at its window after each step."""

    most_waiting: list[int]

    def walk(self, scans: Scans, cursor: Any, deadline: Deadline) -> Walk:
        """The phase's own way."""
        return WatchedWalk(super().walk(scans, cursor, deadline), self.most_waiting)


@dataclass
class WatchedWalk:
    """The phase's own way, with a look at its window after each step."""

    walk: Any
    most_waiting: list[int]
    pages_at_once: int = 1

    def pages(self) -> Iterator[Work]:
        """The phase's own."""
        return map(self._watched, self.walk.pages())

    def rest(self) -> Iterator[Work]:
        """The phase's own."""
        return map(self._watched, self.walk.rest())

    def _watched(self, work: Work) -> Work:
        def act(before: PageResult) -> Step:
            step = work(before)
            for side in (self.walk.source, self.walk.destination):
                waiting = {identity for page in side.waiting for identity in page.waiting}
                assert waiting == set(side.place_of), "the index and the window are not of the same items"
                assert all(page.waiting for page in side.waiting)
                self.most_waiting.append(len(side.waiting))
            return step

        return act


def damage(source: list[Item], fates: list[str], others: list[Item]) -> list[Item]:
    """A damaged copy: items that are changed, missing, spelt in another way, and some of ``others`` added."""
    copy = []
    for item, fate in zip(source, fates, strict=False):
        if fate == CHANGED:
            copy.append({**item, "a": {"S": "changed"}})
        elif fate == RESPELT:
            copy.append({**item, "n": {"NS": ["2", "1"]}})
        elif fate == EQUAL:
            copy.append(item)
    taken = {key_of(item) for item in source}
    return [*copy, *(item for item in others if key_of(item) not in taken)]


def spelt(source: list[Item], fates: list[str]) -> list[Item]:
    """The source of such a copy: what is spelt in another way there has the same value here."""
    return [
        {**item, "n": {"NS": ["1.0", "2E0"]}} if fate == RESPELT else item
        for item, fate in zip(source, fates, strict=False)
    ]


@many
@given(
    items=tables(min_size=1),
    fates=fates,
    others=tables(max_size=12),
    total=segment_counts,
    size=pages,
    layout=layouts,
    limits=page_items,
)
def test_only_what_differs_is_written_and_once(
    items: list[Item],
    fates: list[str],
    others: list[Item],
    total: int,
    size: int,
    layout: tuple[str, str],
    limits: tuple[int, int],
) -> None:
    """A difference stays, an equal item is written, a key is written twice: perhaps only where the orders differ."""
    world = Damaged(spelt(items, fates), damage(items, fates, others), layout=layout, page_items=limits)
    differing = world.differing()
    with page_size(size):
        world.finish("differential", total, always)
    assert world.mended()
    assert sorted(world.dynamodb.written) == sorted((kind, key) for key, kind in differing.items())
    # One more than the window has room for is decided about in the step that reads it.
    assert max(world.most_waiting) <= differential.WINDOW_PAGES
    result = world.totals("differential").result
    kinds = list(differing.values())
    assert (result.missing + result.changed, result.extra) == (kinds.count("put"), kinds.count("delete"))
    assert result.missing == sum(key not in world.before for key, kind in differing.items() if kind == "put")
    assert result.items == len(differing)


def test_the_damage_of_these_examples_is_real() -> None:
    """The examples above have nothing to mend, or nothing to leave alone, and pass for nothing."""
    source = [{"id": {"N": str(number)}, "sort": {"N": "0"}} for number in range(4)]
    fates = [EQUAL, CHANGED, MISSING, RESPELT]
    extra = {"id": {"S": "extra"}, "sort": {"N": "0"}}
    world = Damaged(spelt(source, fates), damage(source, fates, [extra, source[0]]))
    assert sorted(world.differing().values()) == ["delete", "put", "put"]
    assert not world.mended()
    segments = {
        name: [world.dynamodb.tables[name].segment(item, 4) for item in source] for name in ("source", "destination")
    }
    assert segments["source"] == segments["destination"]
    world.dynamodb.tables["destination"].layout = "other segments"
    assert [world.dynamodb.tables["destination"].segment(item, 4) for item in source] != segments["source"]


@few
@given(
    items=tables(min_size=12),
    fates=fates,
    others=tables(max_size=12),
    total=segment_counts,
    size=pages,
    layout=layouts,
    seed=seeds,
    first=st.integers(min_value=0, max_value=5),
    saved=st.booleans(),
    allowed=st.lists(st.integers(min_value=1, max_value=5), min_size=1, max_size=5),
)
def test_interruptions_anywhere_lose_nothing_and_write_nothing_twice(
    items: list[Item],
    fates: list[str],
    others: list[Item],
    total: int,
    size: int,
    layout: tuple[str, str],
    seed: int,
    first: int,
    saved: bool,
    allowed: list[int],
) -> None:
    """A worker that dies between any two calls resumes behind an item that nobody has decided about."""
    world, chance = Damaged(spelt(items, fates), damage(items, fates, others), layout=layout), random.Random(seed)
    world.tick = 1.0 if saved else 0.0
    differing, troubles, turns, calls = world.differing(), [], iter(range(10**6)), iter(range(10**6))

    def stop(_: str) -> None:
        # Once for certain, and after that by chance.
        if next(calls) == first or chance.random() < 0.1:
            troubles.append("stopped")
            raise StoppedError

    def trouble(operation: str) -> None:
        stop(operation)
        if chance.random() < 0.15 and operation in ("Scan", "BatchWriteItem", "BatchGetItem"):
            troubles.append("throttled")
            raise refuse("ThrottlingException", operation)

    def deadline() -> Deadline:
        return after_pages(allowed[next(turns) % len(allowed)]) if chance.random() < 0.5 else always()

    # What was done is not sent again: that would count as written twice, and be harmless.
    world.dynamodb.before, world.dynamodb.after = trouble, stop
    world.dynamodb.unprocessed = lambda: chance.random() < 0.2
    with page_size(size):
        world.finish("differential", total, deadline)
    assert world.mended()
    assert sorted(world.dynamodb.written) == sorted((kind, key) for key, kind in differing.items())
    assert troubles
    world.dynamodb.before = lambda _: None
    # What a killed worker wrote after its last checkpoint is found to be equal, and so not counted.
    assert world.totals("differential").result.items <= len(differing)


@few
@given(
    items=tables(min_size=1),
    fates=fates,
    others=tables(max_size=12),
    total=segment_counts,
    size=pages,
    layout=layouts,
    limits=page_items,
    allowed=st.lists(st.integers(min_value=1, max_value=4), min_size=1, max_size=5),
)
def test_stopping_after_any_page_counts_as_one_run(
    items: list[Item],
    fates: list[str],
    others: list[Item],
    total: int,
    size: int,
    layout: tuple[str, str],
    limits: tuple[int, int],
    allowed: list[int],
) -> None:
    """An invocation's end loses what waits in the window, or an invocation ends where it began, for ever."""
    world = Damaged(spelt(items, fates), damage(items, fates, others), layout=layout, page_items=limits)
    differing, turns = world.differing(), iter(range(10**6))

    def deadline() -> Deadline:
        return after_pages(allowed[next(turns) % len(allowed)])

    with page_size(size):
        assert world.finish("differential", total, deadline) == len(differing)
    assert world.mended()
    assert sorted(world.dynamodb.written) == sorted((kind, key) for key, kind in differing.items())


@few
@given(items=tables(min_size=2), size=pages, layout=layouts, allowed=st.integers(min_value=0, max_value=8))
def test_nothing_is_written_once_the_guard_has_spoken(
    items: list[Item], size: int, layout: tuple[str, str], allowed: int
) -> None:
    """A worker that has outlived its execution still mends what waits in its window."""
    world, looks, written = Damaged(items, [], layout=layout), iter(range(10**6)), []

    def guard() -> None:
        written.append(len(world.dynamodb.written))
        if next(looks) >= allowed:
            raise StoppedError

    with page_size(size), suppress(StoppedError):
        world.work("differential", 0, 1, after_pages(allowed + 2), guard)
        assert next(looks) <= allowed, "the guard was not asked"
    assert len(world.dynamodb.written) == written[-1] or len(written) <= allowed


@few
@given(
    items=tables(min_size=1),
    moments=st.lists(moments, min_size=30, max_size=30),
    fates=fates,
    total=segment_counts,
    size=pages,
    layout=layouts,
)
def test_what_ttl_has_deleted_is_put_back(
    items: list[Item], moments: list[int | None], fates: list[str], total: int, size: int, layout: tuple[str, str]
) -> None:
    """TTL itself did the damage: all its work passes for what would have gone anyway, and nothing is recovered."""
    source = [timed(item, moment) for item, moment in zip(items, moments, strict=False)]
    world = Damaged(source, damage(source, fates, []), layout=layout, ttl_attribute="ttl")
    with page_size(size):
        world.finish("differential", total, always)
    assert sorted(world.dynamodb.written) == sorted((kind, key) for key, kind in world.differing().items())
    assert world.mended()


def plain(count: int, *, first: int = 0) -> list[Item]:
    """Items of a partition each."""
    return [{"id": {"N": str(number)}, "sort": {"N": "0"}} for number in range(first, first + count)]


def run(world: Damaged, *, size: int = 50, total: int = 1, deadline: Callable[[], Deadline] = always) -> int:
    """Mend a world; returns how many keys were looked up."""
    with page_size(size):
        world.finish("differential", total, deadline)
    assert world.mended()
    return len(world.dynamodb.looked_up)


def test_equal_tables_cost_two_scans_and_nothing_else() -> None:
    """Every item is looked up, although both tables are scanned in the same order."""
    world = Damaged(plain(1000), plain(1000))
    assert run(world, total=3) == 0
    assert world.dynamodb.written == []


def test_in_a_common_order_only_candidates_are_looked_up() -> None:
    """One per cent of damage makes the streams drift apart, and from there on every item is looked up."""
    items = plain(1000)
    left = [{**item, "a": {"S": "x"}} if index % 100 == 7 else item for index, item in enumerate(items)]
    damaged = [item for index, item in enumerate(left) if index % 100 != 50] + plain(10, first=5000)
    world = Damaged(items, damaged)
    assert len(world.differing()) == 30
    assert run(world) == 20
    assert len(world.dynamodb.written) == 30


@pytest.mark.parametrize("alone", ["source", "destination", "in turn"])
def test_a_stretch_of_one_side_does_not_part_the_streams(alone: str) -> None:
    """Junk in one partition, longer than the window: behind it every item is looked up, to the segment's end."""
    size, stretches = 10, 4
    sides: dict[str, list[Item]] = {"source": plain(800), "destination": plain(800)}
    for partition in range(stretches):
        stretch = [{"id": {"S": f"junk {partition}"}, "sort": {"N": str(number)}} for number in range(100, 200)]
        sides[("source", "destination")[partition % 2] if alone == "in turn" else alone] += stretch
    world = Damaged(sides["source"], sides["destination"])
    tables = world.dynamodb.tables
    after = [
        sum(tables["source"].position(item) > tables["source"].position(stretch) for item in plain(800))
        for stretch in ({"id": {"S": f"junk {partition}"}, "sort": {"N": "0"}} for partition in range(stretches))
    ]
    assert sum(100 < items < 700 for items in after) >= 3, "hardly any stretch has the streams go on behind it"
    looked_up = run(world, size=size)
    assert len(world.dynamodb.written) == stretches * 100 > stretches * size * differential.WINDOW_PAGES
    # At a stretch's beginning a page or two of the side that is ahead, and each page's items once more as they come.
    assert stretches * 100 <= looked_up <= stretches * (100 + 4 * size)


def test_without_a_common_order_each_item_is_looked_up_once() -> None:
    """The way to fall back on costs more than a comparison by keys, or never ends."""
    world = Damaged(plain(600), plain(600), layout=("other segments", "other order"))
    assert 600 < run(world, size=10, total=4) <= 1200
    assert world.dynamodb.written == []


def test_an_empty_destination_is_filled_without_a_window() -> None:
    """Pages wait for a side that has ended, and a kill has them all done again."""
    world = Damaged(plain(500), [])
    assert run(world) == 500
    assert max(world.most_waiting) <= 1
    assert len(world.dynamodb.written) == 500


def test_invocations_that_end_do_not_part_the_streams() -> None:
    """The side that was ahead when an invocation ended stays ahead for ever: from then on every item is looked up."""
    size, invocations = 10, iter(range(10**6))

    def deadline() -> Deadline:
        next(invocations)
        return after_pages(12)

    world = Damaged(plain(1000), plain(1000))
    looked_up = run(world, size=size, deadline=deadline)
    # A page that was ahead at the end of one, and its like at the beginning of the next.
    assert looked_up <= 2 * size * next(invocations) <= 1000
    assert next(invocations) > 10
    assert world.dynamodb.written == []
