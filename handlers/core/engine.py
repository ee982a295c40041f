"""Purge, copy and digest of one scan segment.

One loop serves all three, the comparison in ``compare.py`` and the two streams of ``differential.py``: read a page, do
the phase's work on it, move the checkpoint on, until the segment is complete or the deadline nears. Items stay in
DynamoDB's wire form (``{"N": "1.50"}``), so every type and every digit arrives unchanged. Reads are strongly
consistent. While some pages are being written the next one is already being read, so that no round trip is waited for;
never more than a few pages are in memory, whatever the table's size.

A page that was interrupted is worked on again: deleting a deleted item and putting the same item twice change nothing,
and counts are part of the checkpoint, which moves on in the order of the pages, so they cover each page once. (What a
killed purge worker deleted after its last checkpoint is not found again, and so not counted.)
"""

from __future__ import annotations

import gc
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

from botocore.exceptions import ClientError, HTTPClientError

from .clock import Clock, Deadline
from .digest import Item, add_digests, canonical_item, digest_items, item_digest, write_item
from .errors import CapacityExhausted
from .ledger import Checkpoint, Ledger, PageResult, SegmentId
from .pacing import Pacer
from .wire import DataPlane, PutRequest, RequestTooLarge, may_pass

_T = TypeVar("_T")

# Small enough that a page is written well within the shortest useful deadline even on a throttled table, large
# enough that the page's overhead does not matter.
PAGE_ITEMS = 500
_PAGE_SECONDS = 15.0  # at one unit an item; items of ten units still take a small part of fifteen minutes
WRITTEN_AT_ONCE = 3
"""Pages in work at once in a phase that writes: while the last batches of one are under way, those of the next are."""
BATCHES_AT_ONCE = 8
"""Batches of a page that are under way at once: enough to hide a round trip of some 10 ms behind one vCPU's work."""
_BATCH_ITEMS = 25  # BatchWriteItem's limit
_KEYS_PER_GET = 100  # BatchGetItem's limit
_CHECKPOINT_SECONDS = 1.0  # at most one ledger write a second and worker
_FIRST_BACKOFF_SECONDS = 0.05
_LONGEST_BACKOFF_SECONDS = 5.0
_GUARDED_SECONDS = 1.0  # after a longer wait a worker looks whether it may still write
# TTL leaves items alone whose timestamp is more than five years past.
_TTL_LOOKBACK_SECONDS = 5 * 366 * 86_400
# A minute or so, each with the wire's own three attempts: outlasts a failover, not an outage, which has a name to tell.
_TRANSIENT_ERRORS = 20
# Written by another region of a strongly consistent global table at the same moment.
_TRANSIENT = frozenset({"ReplicatedWriteConflictException"})
_THROTTLED = frozenset(
    {
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "ThrottlingException",
    }
)


class DeadlineReached(Exception):  # noqa: N818 - a signal between the functions of this module, not an error
    """The page could not be finished in time; it belongs to the next invocation."""


class Phase(Protocol):
    """The work of one phase: what to read, and what to do with a page."""

    pages_at_once: ClassVar[int]
    """How many pages may be in work at once."""

    def scan_arguments(self) -> Mapping[str, Any]:
        """Arguments of Scan beyond segment and cursor."""

    def apply(self, items: Sequence[Item], deadline: Deadline, before: PageResult, /) -> PageResult:
        """Do the page's work; raises :class:`DeadlineReached` when it cannot be finished in time.

        ``before`` is what the segment has done up to this page, where pages are worked on one at a time. It is the
        same when a page is worked on again.
        """


@dataclass(frozen=True, kw_only=True)
class Step:
    """What was done with a page, and how far the segment is by it. ``cursor`` None means that it is complete."""

    cursor: Mapping[str, Any] | None
    result: PageResult


Work = Callable[[PageResult], Step]
"""The work on a page that has been read; takes what the segment had done before it. Raises :class:`DeadlineReached`."""


class Walk(Protocol):
    """One invocation's way through a segment."""

    @property
    def pages_at_once(self) -> int:
        """How many pages may be in work at once."""

    def pages(self) -> Iterator[Work]:
        """Each page is read when it is taken from here, and worked on when it is called."""

    def rest(self) -> Iterator[Work]:
        """What was read and not worked on, for want of the pages to come: called for where the invocation ends."""


@runtime_checkable
class WalkingPhase(Protocol):
    """A phase that finds its own way through the segment: one that reads more than one table."""

    def walk(self, scans: Scans, cursor: Mapping[str, Any] | None, deadline: Deadline) -> Walk:
        """The way on from ``cursor``, which is what the last step answered, or None at the beginning."""


@dataclass(frozen=True, kw_only=True)
class Scans:
    """Reads the pages of one segment of any table, strongly consistent, each while those before are in work."""

    dynamodb: DataPlane
    executor: Executor
    sleep: Callable[[float], None]
    segment: int
    total_segments: int
    deadline: Deadline

    def pages(self, arguments: Mapping[str, Any], cursor: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
        """The segment's pages from ``cursor`` on; ``arguments`` of Scan name the table at least."""

        def read(start: Mapping[str, Any] | None) -> Future[Any]:
            request: dict[str, Any] = {
                "Segment": self.segment,
                "TotalSegments": self.total_segments,
                "ConsistentRead": True,
                "Limit": PAGE_ITEMS,
                "ReturnConsumedCapacity": "TOTAL",
                **arguments,
            }
            if start is not None:
                request["ExclusiveStartKey"] = start
            backoff = Backoff(deadline=self.deadline, sleep=self.sleep)
            return self.executor.submit(backoff.call, partial(self.dynamodb.scan, **request))

        pending = read(cursor)
        while True:
            page = pending.result()
            following = page.get("LastEvaluatedKey")
            if following is not None:
                pending = read(following)
            yield page
            if following is None:
                return


def scan_units(page: Mapping[str, Any]) -> float:
    """The read units that a page of a scan consumed."""
    return float(page.get("ConsumedCapacity", {}).get("CapacityUnits", 0.0))


@dataclass(frozen=True, kw_only=True)
class _PageByPage:
    """The way of a phase that reads one table: what it reads it works on at once."""

    phase: Phase
    scans: Scans
    cursor: Mapping[str, Any] | None
    deadline: Deadline

    @property
    def pages_at_once(self) -> int:
        return self.phase.pages_at_once

    def pages(self) -> Iterator[Work]:
        for page in self.scans.pages(self.phase.scan_arguments(), self.cursor):
            yield partial(self._work_on, page)

    def rest(self) -> Iterator[Work]:
        return iter(())

    def _work_on(self, page: Mapping[str, Any], before: PageResult) -> Step:
        result = self.phase.apply(page["Items"], self.deadline, before)
        return Step(
            cursor=page.get("LastEvaluatedKey"),
            result=replace(result, read_units=result.read_units + scan_units(page)),
        )


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Runs phases over segments.

    Args:
        dynamodb: moves items; may be shared by threads.
        ledger: where checkpoints go.
        executor: works on the pages and reads the next one; not the executor of the phase's own requests, for which
            a page's work waits.
        sleep, monotonic: replaced by tests.
    """

    dynamodb: DataPlane
    ledger: Ledger
    executor: Executor
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic

    def run(
        self,
        segment: SegmentId,
        total_segments: int,
        phase: Phase | WalkingPhase,
        deadline: Deadline,
        guard: Callable[[], None] = lambda: None,
    ) -> Checkpoint:
        """Work on a segment until it is complete or the deadline nears; returns its saved checkpoint.

        ``guard`` is called before the work on every page; what it raises ends the run. No work is under way any more
        when this returns or raises.

        Raises:
            CapacityExhausted: not one page could be finished in the whole invocation.
            CheckpointConflict: another worker is on the same segment.
        """
        saved = self.ledger.load_checkpoint(segment)
        if saved.complete:
            return saved
        with _rare_collections():
            walk = self._walk(phase, segment.segment, total_segments, saved.cursor, deadline)
            return self._work(segment, walk, deadline, guard, saved)

    def _work(
        self, segment: SegmentId, walk: Walk, deadline: Deadline, guard: Callable[[], None], saved: Checkpoint
    ) -> Checkpoint:
        """Work on, from the checkpoint that is saved; returns the newest one."""
        begun = current = saved
        last_save = self.monotonic()
        in_work: deque[Future[Step]] = deque()

        def take_the_oldest() -> None:
            nonlocal current
            current = _advance(current, in_work[0])
            # Only now: one that is not done stays in the way of those after it.
            in_work.popleft()

        try:
            for work in walk.pages():
                guard()
                in_work.append(self.executor.submit(work, current.result))
                out_of_time = deadline.reached()
                while in_work and (out_of_time or len(in_work) >= walk.pages_at_once):
                    take_the_oldest()
                if current.complete or out_of_time or deadline.reached():
                    break
                if self.monotonic() - last_save >= _CHECKPOINT_SECONDS:
                    saved = current = self.ledger.save_checkpoint(segment, current)
                    last_save = self.monotonic()
            while in_work:
                take_the_oldest()
            for work in walk.rest():
                guard()
                in_work.append(self.executor.submit(work, current.result))
                take_the_oldest()
        except DeadlineReached:
            # What is done counts, though the next page could not be read in time.
            with suppress(DeadlineReached):
                while in_work:
                    take_the_oldest()
            # Not even the oldest page is done: the next invocation would begin just where this one did.
            if (current.cursor or {}) == (begun.cursor or {}):
                raise CapacityExhausted(
                    f"Segment {segment.segment} of the {segment.phase} of {segment.table_name} got no page of up to "
                    f"{PAGE_ITEMS} items through in a whole invocation, after {saved.items} items before it. Expected "
                    "some capacity to be free: raise the table's capacity or its limit, then start the same incident "
                    "again; it goes on from here."
                ) from None
        finally:
            wait(in_work)
        return saved if current is saved else self.ledger.save_checkpoint(segment, current)

    def _walk(
        self,
        phase: Phase | WalkingPhase,
        segment: int,
        total_segments: int,
        cursor: Mapping[str, Any] | None,
        deadline: Deadline,
    ) -> Walk:
        scans = Scans(
            dynamodb=self.dynamodb,
            executor=self.executor,
            sleep=self.sleep,
            segment=segment,
            total_segments=total_segments,
            deadline=deadline,
        )
        if isinstance(phase, WalkingPhase):
            return phase.walk(scans, cursor, deadline)
        return _PageByPage(phase=phase, scans=scans, cursor=cursor, deadline=deadline)


@contextmanager
def _rare_collections() -> Iterator[None]:
    """Let the garbage collector look for cycles rarely.

    A page is some hundred thousand small objects without a cycle among them, freed as soon as its work is done. To look
    through them again and again takes as long as reading them.
    """
    with _COLLECTIONS.lock:
        _COLLECTIONS.runs += 1
        if _COLLECTIONS.runs == 1:
            _COLLECTIONS.before = gc.get_threshold()
            gc.set_threshold(1_000_000, *_COLLECTIONS.before[1:])
    try:
        yield
    finally:
        with _COLLECTIONS.lock:
            _COLLECTIONS.runs -= 1
            if not _COLLECTIONS.runs:
                gc.set_threshold(*_COLLECTIONS.before)


@dataclass
class _Collections:
    """How many runs of this process want few collections, and what was set before the first of them."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    runs: int = 0
    before: tuple[int, int, int] = (700, 10, 10)


_COLLECTIONS = _Collections()


def _advance(checkpoint: Checkpoint, work: Future[Step]) -> Checkpoint:
    """The checkpoint after one more page, whose work is waited for."""
    step = work.result()
    return checkpoint.advance(step.cursor, step.result)


@dataclass(kw_only=True)
class Backoff:
    """Waits longer and longer, with full jitter, and never beyond the deadline.

    Throttling is answered here rather than by the SDK, whose own retries could outlast the invocation.
    """

    deadline: Deadline
    sleep: Callable[[float], None]
    attempt: int = 0
    errors: int = 0

    def wait(self) -> None:
        """Wait before the next attempt; raises :class:`DeadlineReached` where that would take too long."""
        self.pause(random.uniform(0, min(_LONGEST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2**self.attempt)))
        self.attempt += 1

    def pause(self, seconds: float) -> None:
        """Wait; raises :class:`DeadlineReached` where that would take too long."""
        if self.deadline.reached(seconds):
            raise DeadlineReached
        self.sleep(seconds)

    def call(self, request: Callable[[], Any]) -> Any:
        """Send a request until it is neither throttled nor in the way of what will pass."""
        while True:
            try:
                return request()
            except (ClientError, HTTPClientError) as error:
                self.bear(error)
            self.wait()

    def bear(self, error: ClientError | HTTPClientError) -> None:
        """Let throttling pass, and so many errors that may be over in a moment; raise any other error, and one more."""
        if is_throttling(error):
            return
        self.errors += 1
        if not (may_pass(error) or _has_code(error, _TRANSIENT)) or self.errors > _TRANSIENT_ERRORS:
            raise error


def is_throttling(error: Exception) -> bool:
    """Whether DynamoDB refused a request only because it came too soon."""
    return _has_code(error, _THROTTLED)


def _has_code(error: Exception, codes: frozenset[str]) -> bool:
    return isinstance(error, ClientError) and error.response["Error"]["Code"] in codes


def _units_of_the_table(consumed: Mapping[str, Any]) -> float:
    """Write units that were taken from the table's own capacity: all but those of its global indexes."""
    of_indexes = sum(float(each["CapacityUnits"]) for each in consumed.get("GlobalSecondaryIndexes", {}).values())
    return float(consumed["CapacityUnits"]) - of_indexes


def _all_batches(
    executor: Executor,
    work: Callable[[Sequence[Any], Deadline], _T],
    entries: Sequence[Any],
    size: int,
    deadline: Deadline,
) -> list[_T]:
    """Do ``work`` on the entries in batches, at once; nothing is under way any more when this returns or raises.

    What the batches answer comes in any order. After an error no other batch is begun.
    """
    waiting = deque(entries[start : start + size] for start in range(0, len(entries), size))
    answers: list[_T] = []

    def work_off() -> None:
        # A task a thread, not a task a batch: handing over takes as long as half of a small batch.
        while True:
            try:
                batch = waiting.popleft()
            except IndexError:
                return
            try:
                answers.append(work(batch, deadline))
            except BaseException:
                waiting.clear()
                raise

    futures = [executor.submit(work_off) for _ in range(min(len(waiting), BATCHES_AT_ONCE))]
    wait(futures)
    for future in futures:
        future.result()
    return answers


@dataclass(frozen=True, kw_only=True)
class BatchReader:
    """Reads any number of items of one table by their keys, strongly consistent, in concurrent batches of 100."""

    dynamodb: DataPlane
    table_name: str
    key_names: tuple[str, ...]
    executor: Executor
    sleep: Callable[[float], None] = time.sleep

    def read(
        self, items: Sequence[Item], deadline: Deadline, *, keys_only: bool = False
    ) -> tuple[dict[bytes, Item], float]:
        """The items with the keys of ``items``, by :meth:`identity`, and the read units consumed."""
        projection = key_projection(self.key_names) if keys_only else {}
        read_batch = partial(self._read_batch, projection)
        found: dict[bytes, Item] = {}
        units = 0.0
        for answers, batch_units in _all_batches(self.executor, read_batch, items, _KEYS_PER_GET, deadline):
            found.update(answers)
            units += batch_units
        return found, units

    def key(self, item: Item) -> dict[str, Any]:
        """The item's primary key."""
        return {name: item[name] for name in self.key_names}

    def identity(self, item: Item) -> bytes:
        """What two items share if, and only if, they have the same primary key."""
        return canonical_item(self.key(item))

    def _read_batch(
        self, projection: Mapping[str, Any], batch: Sequence[Item], deadline: Deadline
    ) -> tuple[dict[bytes, Item], float]:
        found: dict[bytes, Item] = {}
        units, backoff = 0.0, Backoff(deadline=deadline, sleep=self.sleep)
        wanted = {"Keys": [self.key(item) for item in batch], "ConsistentRead": True, **projection}
        left: Any = {self.table_name: wanted}
        while True:
            request = partial(self.dynamodb.batch_get_item, RequestItems=left, ReturnConsumedCapacity="TOTAL")
            answer = backoff.call(request)
            units += sum(float(entry["CapacityUnits"]) for entry in answer.get("ConsumedCapacity", ()))
            for item in answer["Responses"].get(self.table_name, ()):
                found[self.identity(item)] = item
            left = answer.get("UnprocessedKeys")
            if not left:
                return found, units
            backoff.wait()


def key_projection(key_names: Sequence[str]) -> dict[str, Any]:
    """Arguments that read keys only; through placeholders, because a key may be named with a reserved word."""
    placeholders = {f"#k{index}": name for index, name in enumerate(key_names)}
    return {"ProjectionExpression": ", ".join(placeholders), "ExpressionAttributeNames": placeholders}


@dataclass(frozen=True, kw_only=True)
class Expiry:
    """Tells which items TTL may delete, or has deleted, from the destination.

    Args:
        attribute: the destination's TTL attribute, or None where TTL is off.
        horizon: epoch second, well after the end of the verification.
        clock: tells what has expired.
    """

    attribute: str | None
    horizon: int
    clock: Clock

    def soon(self, item: Item) -> bool:
        """Whether the item expires before the horizon: TTL may delete it while both sides are being read."""
        return self._before(item, self.horizon)

    def passed(self, item: Item) -> bool:
        """Whether the item has expired: TTL may have deleted it already."""
        return self._before(item, int(self.clock().timestamp()))

    def _before(self, item: Item, moment: int) -> bool:
        if self.attribute is None:
            return False
        # Only a Number is a TTL timestamp; DynamoDB ignores any other type.
        expiry = item.get(self.attribute, {}).get("N")
        if expiry is None:
            return False
        return self.horizon - _TTL_LOOKBACK_SECONDS < Decimal(expiry) < moment


@dataclass(frozen=True, kw_only=True)
class BatchWriter:
    """Writes any number of put or delete requests to one table, in concurrent batches of 25.

    Args:
        dynamodb: moves items; may be shared by threads.
        table_name: the table.
        executor: sends the batches.
        pacer: tells when; None sends at once.
        sleep: replaced by tests.
        guard: called before a batch is sent after a wait; what it raises ends the write. A worker may be stale by
            then.
    """

    dynamodb: DataPlane
    table_name: str
    executor: Executor
    pacer: Pacer | None = None
    sleep: Callable[[float], None] = time.sleep
    guard: Callable[[], None] = lambda: None

    @property
    def page_items(self) -> int:
        """How many items to read at once, so that a page is written well within an invocation whatever the pace."""
        if self.pacer is None:
            return PAGE_ITEMS
        return max(1, min(PAGE_ITEMS, int(_PAGE_SECONDS * self.pacer.pace)))

    def write(self, requests: Sequence[Mapping[str, Any]], deadline: Deadline) -> float:
        """Write all the requests; returns the write units consumed.

        Returns only when every request was processed and no write is under way any more, and so does every error.
        """
        return sum(_all_batches(self.executor, self._write_batch, requests, _BATCH_ITEMS, deadline))

    def _write_batch(self, batch: Sequence[Mapping[str, Any]], deadline: Deadline) -> float:
        units, backoff = 0.0, Backoff(deadline=deadline, sleep=self.sleep)
        left = batch
        while True:
            try:
                answer = self._send(left, backoff)
            except RequestTooLarge:
                # 25 of the largest items, whose JSON is several times what DynamoDB counts.
                half = len(left) // 2
                return units + sum(self._write_batch(part, deadline) for part in (left[:half], left[half:]))
            units += sum(float(entry["CapacityUnits"]) for entry in answer.get("ConsumedCapacity", ()))
            left = answer.get("UnprocessedItems", {}).get(self.table_name, ())
            if not left:
                return units
            backoff.wait()
            self.guard()

    def _send(self, batch: Sequence[Mapping[str, Any]], backoff: Backoff) -> Any:
        """Send a batch in its turn; one that was refused as a whole for now comes back unprocessed."""
        reserved = self.pacer.expect(len(batch)) if self.pacer else 0.0
        if self.pacer:
            turn = self.pacer.reserve(reserved)
            if turn > 0:
                backoff.pause(turn)
            if turn > _GUARDED_SECONDS:
                self.guard()
        unwritten: Any = {"UnprocessedItems": {self.table_name: batch}}
        try:
            # INDEXES tells the units of the table from those of its global indexes: the sum is what is paid.
            answer = self.dynamodb.batch_write_item(
                RequestItems={self.table_name: batch}, ReturnConsumedCapacity="INDEXES"
            )
        except (ClientError, HTTPClientError) as error:
            backoff.bear(error)
            answer = unwritten
            if not is_throttling(error):
                return answer  # which says nothing about the pace
        if self.pacer:
            consumed = sum(map(_units_of_the_table, answer.get("ConsumedCapacity", ())))
            written = len(batch) - len(answer.get("UnprocessedItems", {}).get(self.table_name, ()))
            self.pacer.report(reserved, consumed, sent=len(batch), written=written)
        return answer


@dataclass(frozen=True, kw_only=True)
class Purge:
    """Deletes every item of the destination. Reads keys only."""

    pages_at_once: ClassVar[int] = WRITTEN_AT_ONCE
    writer: BatchWriter
    key_names: tuple[str, ...]

    def scan_arguments(self) -> Mapping[str, Any]:
        """Scan the destination, keys only."""
        return {
            "TableName": self.writer.table_name,
            "Limit": self.writer.page_items,
            **key_projection(self.key_names),
        }

    def apply(self, items: Sequence[Item], deadline: Deadline, _before: PageResult, /) -> PageResult:
        """Delete the page's items."""
        units = self.writer.write([{"DeleteRequest": {"Key": key}} for key in items], deadline)
        return PageResult(items=len(items), write_units=units)


@dataclass(frozen=True, kw_only=True)
class Copy:
    """Puts every item of the source into the destination, and digests what it has read."""

    pages_at_once: ClassVar[int] = WRITTEN_AT_ONCE
    source_table_name: str
    writer: BatchWriter

    def scan_arguments(self) -> Mapping[str, Any]:
        """Scan the source, whole items."""
        return {"TableName": self.source_table_name, "Limit": self.writer.page_items}

    def apply(self, items: Sequence[Item], deadline: Deadline, _before: PageResult, /) -> PageResult:
        """Put the page's items."""
        texts = list(map(write_item, items))  # once for the write and the digest
        requests = [PutRequest(item, text) for item, text in zip(items, texts, strict=True)]
        units = self.writer.write(requests, deadline)
        digest = add_digests(map(item_digest, items, texts))
        return PageResult(items=len(items), digest=digest, write_units=units)


@dataclass(frozen=True, kw_only=True)
class Digest:
    """Counts and digests every item of one side.

    Where the destination has TTL on (a restored table has it off), an item whose time has come may be gone from the
    destination at any moment. Such items, those that expire before the horizon, are left out of the digest and
    compared one by one with the other side instead: they must be equal there, or, seen from the source, absent because
    they have expired.

    Args:
        table_name: the side to read.
        other: reads the other side.
        may_be_absent: whether an expired item may be absent from the other side: true when reading the source.
        expiry: what TTL may delete.
    """

    pages_at_once: ClassVar[int] = 1
    table_name: str
    other: BatchReader
    may_be_absent: bool
    expiry: Expiry

    def scan_arguments(self) -> Mapping[str, Any]:
        """Scan the table, whole items."""
        return {"TableName": self.table_name}

    def apply(self, items: Sequence[Item], deadline: Deadline, _before: PageResult, /) -> PageResult:
        """Digest the page's items; compare those that expire soon."""
        expiring = [item for item in items if self.expiry.soon(item)]
        if not expiring:
            return PageResult(items=len(items), digest=digest_items(items))
        lasting = [item for item in items if not self.expiry.soon(item)]
        others, read_units = self.other.read(expiring, deadline)
        equal = absent = 0
        for item in expiring:
            other = others.get(self.other.identity(item))
            equal += other is not None and canonical_item(other) == canonical_item(item)
            absent += other is None and self.may_be_absent and self.expiry.passed(item)
        return PageResult(
            items=len(lasting),
            digest=digest_items(lasting),
            expiring=equal,
            expired=absent,
            different=len(expiring) - equal - absent,
            read_units=read_units,
        )


def find_any_item(
    dynamodb: DataPlane, table_name: str, deadline: Deadline, sleep: Callable[[float], None] = time.sleep
) -> int:
    """How many items the first page that holds any has; 0 when the whole table is empty. Reads no item's content.

    Raises:
        CapacityExhausted: the table could not be read through in time.
    """
    backoff = Backoff(deadline=deadline, sleep=sleep)
    arguments: dict[str, Any] = {"TableName": table_name, "Select": "COUNT", "ConsistentRead": True}
    while True:
        try:
            page = backoff.call(partial(dynamodb.scan, **arguments))
        except DeadlineReached:
            raise CapacityExhausted(
                f"{table_name} could not be read through within one invocation to see that it is empty. Expected some "
                "read capacity to be free: raise it, then start the same incident again; it goes on from here."
            ) from None
        backoff.attempt = 0
        if page["Count"] or "LastEvaluatedKey" not in page:
            return int(page["Count"])
        arguments["ExclusiveStartKey"] = page["LastEvaluatedKey"]
