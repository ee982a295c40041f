"""What differs between source and destination, found by reading both side by side, and mended at once.

Each worker reads the same scan segment of both tables as two streams. Items met on one side wait in a window for the
item of the same key on the other side. Equal pairs drop out and cost nothing more; of an unequal pair the source's item
is put. What leaves the window unmatched is a candidate: *missing* (only the source's stream had it) or *extra* (only
the destination's had it).

AWS documents no order of a scan, so none is believed. That both tables are scanned in the same order only makes the
window work; every candidate is looked up by its key on the other side, strongly consistent, before anything is written:

- from the source, absent in the destination or unequal there: put; equal: nothing. Also what has expired: if TTL has
  deleted it, it will again, and if it was TTL that did the damage, the items are what the recovery is for;
- from the destination, absent in the source: delete; present: nothing, for the source's stream decides about it.

So each key is decided once, by the source's stream where the source has it, and where the orders have nothing in common
this is the comparison by keys, for the price of it. The window is bounded in pages a side, and by that in items and in
bytes: a page has at most ``engine.PAGE_ITEMS`` items and the 1 MB that DynamoDB reads for one.

A side's cursor stands before its oldest page that still has an undecided item. What a killed worker had decided behind
it is met again: as an equal pair, or as a candidate that the look-up finds equal. Nothing is written twice for that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from .clock import Deadline
from .digest import Item, canonical_item
from .engine import BatchReader, BatchWriter, Scans, Step, Walk, Work, scan_units
from .ledger import PageResult

# Both streams run less than a page apart while their orders agree: one has read a page that the other begins. The rest
# is slack for a stretch that one side alone has. More would be memory, and work to do again after a kill.
WINDOW_PAGES = 4

Position = Mapping[str, Any]
"""Where a side goes on: ``{}`` at its beginning, ``{"M": key}`` after a key, ``{"NULL": True}`` at its end."""

_BEGINNING: Position = {}
_END: Position = {"NULL": True}


@dataclass(frozen=True, kw_only=True)
class Differential:
    """Makes the destination equal to the source by writing only what differs.

    Its cursor is ``{"source": position, "destination": position}``; a side at its beginning is left out.

    Args:
        source: reads the source by keys.
        destination: reads the destination by keys.
        writer: writes to the destination.
    """

    source: BatchReader
    destination: BatchReader
    writer: BatchWriter

    def walk(self, scans: Scans, cursor: Mapping[str, Any] | None, deadline: Deadline) -> Walk:
        """The way on from ``cursor``."""
        positions = cursor or {}

        def side(name: str, reader: BatchReader) -> _Side:
            position: Position = positions.get(name, _BEGINNING)
            pages: Iterator[Mapping[str, Any]] = iter(())
            if position != _END:
                arguments = {"TableName": reader.table_name, "Limit": self.writer.page_items}
                pages = scans.pages(arguments, position.get("M"))
            return _Side(name=name, reader=reader, pages=pages, next=position)

        return _SideBySide(
            differential=self,
            source=side("source", self.source),
            destination=side("destination", self.destination),
            deadline=deadline,
        )


@dataclass(kw_only=True, eq=False)
class _Page:
    """A page that has been read. ``begin``: where its side stands before it; ``end``: items of its side up to its end.

    ``waiting``: its undecided items by their keys' identity, each with its place among the items of its side.
    """

    begin: Position
    end: int = 0
    waiting: dict[bytes, tuple[int, Item]] = field(default_factory=dict)


@dataclass(kw_only=True, eq=False)
class _Side:
    """One of the two streams, and the part of the window that waits for the other one."""

    name: str
    reader: BatchReader
    pages: Iterator[Mapping[str, Any]]
    next: Position
    """Where the page after the last one begins."""
    waiting: list[_Page] = field(default_factory=list)
    """Pages with undecided items, oldest first."""
    place_of: dict[bytes, _Page] = field(default_factory=dict)
    """In which page an item waits."""
    read: int = 0
    """How many items were read."""
    matched: int = 0
    """How many items were read when the last of them that has met its like was."""

    @property
    def ended(self) -> bool:
        """Whether the stream is read to its end."""
        return self.next == _END

    @property
    def position(self) -> Position:
        """What is before it is decided."""
        return self.waiting[0].begin if self.waiting else self.next

    @property
    def ahead(self) -> int:
        """Items read after the last one that has met its like: how far this side may be ahead of the other."""
        return self.read - self.matched

    @property
    def stuck(self) -> bool:
        """Whether its window is full of items for which the other side may be too far behind."""
        return len(self.waiting) >= WINDOW_PAGES and not self.has_passed(self.waiting[0])

    def has_passed(self, page: _Page) -> bool:
        """Whether an item after the page has met its like: in a common order what waits in it waits in vain."""
        return page.end <= self.matched

    def take(self) -> tuple[Position, Mapping[str, Any]]:
        """Read the next page; returns it, and where it begins. Not after the end."""
        begin, page = self.next, next(self.pages)
        following = page.get("LastEvaluatedKey")
        self.next = _END if following is None else {"M": following}
        return begin, page

    def release(self, identity: bytes) -> Item | None:
        """Take the item with this key out of the window, or None when it does not wait there: it has met its like."""
        page = self.place_of.pop(identity, None)
        if page is None:
            return None
        place, item = page.waiting.pop(identity)
        self.matched = max(self.matched, place)
        if not page.waiting:
            self.waiting.remove(page)
        return item

    def hold(self, page: _Page) -> None:
        """Put a page's items into the window."""
        if page.waiting:
            self.waiting.append(page)
            # Should a scan ever give a key twice, each is looked up by itself.
            for identity in page.waiting:
                self.place_of.setdefault(identity, page)

    def let_go(self) -> tuple[_Page, list[Item]]:
        """Take the oldest page out of the window; returns it, and what waited in it."""
        page = self.waiting.pop(0)
        for identity in page.waiting:
            if self.place_of.get(identity) is page:
                del self.place_of[identity]
        return page, [item for _, item in page.waiting.values()]


@dataclass(kw_only=True, eq=False)
class _SideBySide:
    """Reads both sides, and decides: every step reads a page at most, and looks up a page of candidates at most.

    Which page is read next follows from what was done with the one before, so they are worked on one by one.
    """

    pages_at_once: ClassVar[int] = 1
    differential: Differential
    source: _Side
    destination: _Side
    deadline: Deadline
    runs_alone: _Side = field(init=False)
    """The side that goes on when both are stuck: it seems to be in a stretch that the other does not have."""

    def __post_init__(self) -> None:
        self.runs_alone = self.destination

    def pages(self) -> Iterator[Work]:
        """Read on where it helps most; without a page once both sides are read."""
        while True:
            side = self._next_to_read()
            if side is None:
                yield self._decide_next
            else:
                yield partial(self._work_on, side, *side.take())

    def rest(self) -> Iterator[Work]:
        """Look up all that waits, so that nothing before the cursors is undecided."""
        while self.source.waiting or self.destination.waiting:
            yield self._decide_next

    def _other(self, side: _Side) -> _Side:
        return self.destination if side is self.source else self.source

    def _next_to_read(self) -> _Side | None:
        """The side that is behind, as far as that can be told; None when both are read to their ends."""
        going = [side for side in (self.source, self.destination) if not side.ended]
        if len(going) < 2:
            return going[0] if going else None
        # In a common order one side is ahead, and all of it after the last match waits; of the other only differences.
        free = [side for side in going if not side.stuck]
        return min(free, key=lambda side: side.ahead) if free else self.runs_alone

    def _work_on(self, side: _Side, begin: Position, page: Mapping[str, Any], _before: PageResult, /) -> Step:
        """Match a page that has just been read, and decide about what the window has no room for."""
        unequal = self._match(side, begin, page["Items"])
        result = PageResult(items=len(unequal), changed=len(unequal), read_units=scan_units(page))
        requests = [_put(item) for item in unequal]
        if self._must_let_go(side):
            decided, more = self._decide(side)
            result, requests = result.plus(decided), [*requests, *more]
        return self._write(result, requests)

    def _match(self, side: _Side, begin: Position, items: Sequence[Item]) -> list[Item]:
        """Pair the page's items with those that wait on the other side; returns the source's item of unequal pairs."""
        other, page, unequal = self._other(side), _Page(begin=begin), []
        for item in items:
            side.read += 1
            identity = side.reader.identity(item)
            like = other.release(identity)
            if like is None:
                page.waiting[identity] = (side.read, item)
                continue
            side.matched = side.read
            if not same(item, like):
                unequal.append(item if side is self.source else like)
        page.end = side.read
        side.hold(page)
        return unequal

    def _must_let_go(self, side: _Side) -> bool:
        if not side.waiting:
            return False
        other = self._other(side)
        # Whatever the other side had is decided: nothing can meet its like any more.
        in_vain = other.ended and not other.waiting
        return in_vain or len(side.waiting) > WINDOW_PAGES

    def _decide_next(self, _before: PageResult, /) -> Step:
        """Decide about a page that waits on either side, if there is one."""
        side = self.source if self.source.waiting else self.destination
        return self._write(*self._decide(side)) if side.waiting else self._write(PageResult(), [])

    def _decide(self, side: _Side) -> tuple[PageResult, list[Mapping[str, Any]]]:
        """Look up what waits in a side's oldest page; returns what is to be done, counted, and the requests for it."""
        passed = side.has_passed(side.waiting[0])
        page, items = side.let_go()
        look_up = self._look_up_destination if side is self.source else self._look_up_source
        found, result, requests = look_up(items)
        if not passed:
            # Most of it is on the other side: this one is ahead, and the other has to come after.
            self.runs_alone = self._other(side) if 2 * found > len(page.waiting) else side
        return result, requests

    def _look_up_destination(self, items: Sequence[Item]) -> tuple[int, PageResult, list[Mapping[str, Any]]]:
        reader = self.differential.destination
        others, units = reader.read(items, self.deadline)
        puts, missing = [], 0
        for item in items:
            other = others.get(reader.identity(item))
            if other is not None and same(item, other):
                continue
            missing += other is None
            puts.append(_put(item))
        result = PageResult(items=len(puts), missing=missing, changed=len(puts) - missing, read_units=units)
        return len(others), result, puts

    def _look_up_source(self, items: Sequence[Item]) -> tuple[int, PageResult, list[Mapping[str, Any]]]:
        reader = self.differential.source
        others, units = reader.read(items, self.deadline, keys_only=True)
        deletes: list[Mapping[str, Any]] = [
            {"DeleteRequest": {"Key": reader.key(item)}} for item in items if reader.identity(item) not in others
        ]
        return len(others), PageResult(items=len(deletes), extra=len(deletes), read_units=units), deletes

    def _write(self, result: PageResult, requests: Sequence[Mapping[str, Any]]) -> Step:
        """Write, and only then let the cursors pass what was decided."""
        units = 0.0
        if requests:
            # Asked before the look-ups, too; but throttled ones may have taken minutes.
            self.differential.writer.guard()
            units = self.differential.writer.write(requests, self.deadline)
        return Step(cursor=self._cursor(), result=result.plus(PageResult(write_units=units)))

    def _cursor(self) -> Mapping[str, Any] | None:
        sides = (self.source, self.destination)
        if all(side.position == _END for side in sides):
            return None
        return {side.name: side.position for side in sides if side.position != _BEGINNING}


def _put(item: Item) -> Mapping[str, Any]:
    return {"PutRequest": {"Item": item}}


def same(one: Item, other: Item) -> bool:
    """Whether two items are equal for DynamoDB; items in the same spelling, nearly all, need no canonical form."""
    return one == other or canonical_item(one) == canonical_item(other)
