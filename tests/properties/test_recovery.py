"""Purge, copy and digest end in the same state, whatever the table, the segments, the pages and the interruptions."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.core import engine
from handlers.core.clock import Deadline
from handlers.core.compare import Compare, Difference
from handlers.core.digest import canonical_item, digest_items
from handlers.core.engine import BatchReader, BatchWriter, Copy, Digest, Engine, Expiry, Phase, Purge
from handlers.core.errors import CapacityExhausted, VerificationFailed
from handlers.core.hard_reset import HardReset
from handlers.core.ledger import Checkpoint, Ledger, PageResult, SegmentId

from .fake_dynamodb import FakeDynamoDB, FakeTable, StoppedError, refuse
from .profile import few, many
from .strategies import KEY, Item, tables

pages = st.integers(min_value=1, max_value=9)
segment_counts = st.integers(min_value=1, max_value=5)
NOW = 1_795_000_000
HORIZON = NOW + 6 * 3600


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
    ttl_attribute: str | None = None
    dynamodb: FakeDynamoDB = field(init=False)
    found: list[tuple[str, str]] = field(default_factory=list)
    """Differences: kind and key."""

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
            "verify-source": self.digest("source", "destination"),
            "verify-destination": self.digest("destination", "source"),
            "compare-source": self.compare("source", "destination"),
            "compare-destination": self.compare("destination", "source"),
        }
        return phases[name]

    def digest(self, side: str, other: str) -> Digest:
        """The digest of one side."""
        return Digest(table_name=side, other=self.reader(other), may_be_absent=side == "source", expiry=self.expiry())

    def compare(self, side: str, other: str) -> Compare:
        """The comparison of one side, item by item; what it finds goes into ``found``."""

        def act(differences: Sequence[Difference], _before: PageResult, _deadline: Deadline) -> PageResult:
            self.found.extend((difference.kind, repr(difference.key)) for difference in differences)
            return PageResult(listed=len(differences))

        return Compare(
            table_name=side, other=self.reader(other), is_source=side == "source", expiry=self.expiry(), act=act
        )

    def reader(self, table: str) -> BatchReader:
        """Reads a table by keys."""
        client: Any = self.dynamodb
        return BatchReader(dynamodb=client, table_name=table, key_names=KEY, executor=Serial(), sleep=no_sleep)

    def expiry(self) -> Expiry:
        """What TTL may delete."""
        return Expiry(attribute=self.ttl_attribute, horizon=HORIZON, clock=lambda: datetime.fromtimestamp(NOW, UTC))

    def work(
        self, phase: str, segment: int, total: int, deadline: Deadline, guard: Callable[[], None] = lambda: None
    ) -> Checkpoint:
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
        return worker.run(identity, total, self.phase(phase), deadline, guard)

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
    assert (totals.complete_segments, totals.result.items) == (total, len(items))
    assert totals.result.digest == digest_items(items)


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
    assert world.totals("verify-destination").result.digest == digest_items(source)


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
    assert (totals.result.items, totals.result.digest) == (len(source), digest_items(source))


@few
@given(source=tables(min_size=1), damaged=tables(min_size=1), size=pages, allowed=st.integers(min_value=0, max_value=6))
def test_nothing_is_touched_once_the_guard_has_spoken(
    source: list[Item], damaged: list[Item], size: int, allowed: int
) -> None:
    """The fence is looked at once an invocation rather than before every page, or after the page's work."""
    for phase, items in (("purge", damaged), ("copy", source)):
        world, looks = World(source, damaged if phase == "purge" else []), iter(range(10**6))

        def guard(looks: Iterator[int] = looks) -> None:
            if next(looks) >= allowed:
                raise StoppedError

        with page_size(size), suppress(StoppedError):
            world.work(phase, 0, 1, always(), guard)
        done = min(allowed * size, len(items))
        assert len(world.content("destination")) == (len(damaged) - done if phase == "purge" else done)


moments = st.sampled_from(
    [None, HORIZON + 5, HORIZON, HORIZON - 1, NOW + 60, NOW, NOW - 1, NOW - 86_400, NOW - 6 * 366 * 86_400, 0]
)


def timed(item: Item, moment: int | None) -> Item:
    """The item with an expiry, or as it is."""
    return item if moment is None else {**item, "ttl": {"N": str(moment)}}


def _expiry(item: Item) -> int | None:
    return int(item["ttl"]["N"]) if "ttl" in item else None


@many
@given(
    items=tables(min_size=1),
    moments=st.lists(moments, min_size=30, max_size=30),
    dropped=st.sets(st.integers(min_value=0, max_value=29), max_size=4),
    corrupted=st.sets(st.integers(min_value=0, max_value=29), max_size=1),
    added=st.lists(moments, max_size=1),
    total=segment_counts,
    size=pages,
    seed=st.integers(min_value=0),
)
def test_the_verdict_allows_what_ttl_does_and_nothing_else(
    items: list[Item],
    moments: list[int | None],
    dropped: set[int],
    corrupted: set[int],
    added: list[int | None],
    total: int,
    size: int,
    seed: int,
) -> None:
    """An item that expires soon is lost, changed or added, and the verdict is good; or TTL's own work makes it bad."""
    source = [timed(item, moment) for item, moment in zip(items, moments, strict=False)]
    corrupted = {index for index in corrupted if index < len(source)} - dropped
    dropped = {index for index in dropped if index < len(source)}
    left = [
        {**item, "a": {"S": "corrupted"}} if index in corrupted else item
        for index, item in enumerate(source)
        if index not in dropped
    ]
    extra = [timed({"id": {"S": "extra"}, "sort": {"N": str(number)}}, moment) for number, moment in enumerate(added)]
    world, chance = World(source, [*left, *extra], ttl_attribute="ttl"), random.Random(seed)
    world.dynamodb.unprocessed = lambda: chance.random() < 0.2
    # What DynamoDB itself deletes: expired, but not more than five years ago.
    gone = {index for index in dropped if NOW - 5 * 365 * 86_400 < (_expiry(source[index]) or NOW) < NOW}
    good = not corrupted and not extra and gone == dropped
    with page_size(size):
        world.finish("verify-source", total, always)
        world.finish("verify-destination", total, always)
    client: Any = world.dynamodb
    ledger = Ledger(client, "ledger")
    ledger.create(
        "INCIDENT#i",
        "TABLE#t",
        {"phase": "copy", "attempt": 1, "verification": 1, "segments": total, "startedAt": "2026-11-20T00:00:00Z"},
    )
    reset = HardReset(ledger=ledger, clock=lambda: datetime.fromtimestamp(NOW, UTC), incident_id="i", table_name="t")
    if good:
        summary = reset.verify()
        assert (summary["verifiedItems"], summary["expiredItems"]) == (len(source) - len(gone), len(gone))
    else:
        with pytest.raises(VerificationFailed):
            reset.verify()


@few
@given(
    counts=st.lists(st.integers(min_value=0, max_value=10**12), min_size=8, max_size=8),
    units=st.lists(st.integers(min_value=0, max_value=10**9).map(lambda halves: halves / 2), min_size=2, max_size=2),
    digest=st.integers(min_value=0, max_value=2**256 - 1),
    cursor=st.one_of(st.none(), st.just({"id": {"B": "/w=="}, "sort": {"N": "1"}})),
)
def test_a_checkpoint_is_read_as_it_was_saved(
    counts: list[int], units: list[float], digest: int, cursor: Item | None
) -> None:
    """A count is dropped on its way through the ledger: items that differ are forgotten by the next invocation."""
    names = ("items", "expiring", "expired", "different", "missing", "extra", "changed", "listed")
    numbers = dict(zip(names, counts, strict=True))
    result = PageResult(**numbers, read_units=units[0], write_units=units[1], digest=digest)
    assert {field.name for field in fields(result)} == {*names, "read_units", "write_units", "digest"}
    client: Any = FakeDynamoDB({"ledger": FakeTable(("pk", "sk"))})
    ledger = Ledger(client, "ledger")
    segment = SegmentId(incident_id="i", table_name="t", phase="verify-source", generation=1, segment=0)
    saved = ledger.save_checkpoint(segment, ledger.load_checkpoint(segment).advance(cursor, result))
    assert ledger.load_checkpoint(segment) == saved
    assert (saved.result, saved.cursor, saved.complete) == (result, cursor, cursor is None)
    twice = ledger.save_checkpoint(segment, saved.advance(None, result))
    assert {name: getattr(twice.result, name) for name in names} == {name: 2 * numbers[name] for name in names}


@many
@given(
    items=tables(min_size=1),
    others=tables(),
    moments=st.lists(moments, min_size=30, max_size=30),
    dropped=st.sets(st.integers(min_value=0, max_value=29), max_size=4),
    changed=st.sets(st.integers(min_value=0, max_value=29), max_size=3),
    total=segment_counts,
    size=pages,
    seed=st.integers(min_value=0),
)
def test_the_comparison_finds_every_difference_once(
    items: list[Item],
    others: list[Item],
    moments: list[int | None],
    dropped: set[int],
    changed: set[int],
    total: int,
    size: int,
    seed: int,
) -> None:
    """A differing key is in no list, in two, or under the wrong kind; or one that TTL has deleted is in it."""
    source = [timed(item, moment) for item, moment in zip(items, moments, strict=False)]
    left = [
        {**item, "a": {"S": "changed"}} if index in changed else item
        for index, item in enumerate(source)
        if index not in dropped
    ]
    by_key = {repr((item["id"], item["sort"])): item for item in others}
    taken = {repr((item["id"], item["sort"])) for item in source}
    extra = [item for key, item in by_key.items() if key not in taken]
    world, chance = World(source, [*left, *extra], ttl_attribute="ttl"), random.Random(seed)
    world.dynamodb.unprocessed = lambda: chance.random() < 0.2
    key = {index: repr({name: item[name] for name in KEY}) for index, item in enumerate(source)}
    gone = {
        index
        for index in dropped
        if index < len(source) and NOW - 5 * 365 * 86_400 < (_expiry(source[index]) or NOW) < NOW
    }
    expected = sorted(
        [("missing", key[index]) for index in dropped & set(key) - gone]
        + [
            ("changed", key[index])
            for index in changed & set(key) - dropped
            # Where "a" was already what it is changed to, nothing is changed.
            if canonical_item(source[index]) != canonical_item({**source[index], "a": {"S": "changed"}})
        ]
        + [("extra", repr({name: item[name] for name in KEY})) for item in extra]
    )
    with page_size(size):
        assert world.finish("compare-source", total, always) == len(source)
        assert world.finish("compare-destination", total, always) == len(left) + len(extra)
    assert sorted(world.found) == expected
    counts = world.totals("compare-source").result.plus(world.totals("compare-destination").result)
    assert (counts.missing, counts.extra, counts.changed, counts.expired, counts.listed) == (
        *(sum(kind == wanted for kind, _ in expected) for wanted in ("missing", "extra", "changed")),
        len(gone),
        len(expected),
    )
    assert counts.read_units > 0
