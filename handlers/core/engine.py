"""Purge, copy and digest of one scan segment.

One loop serves all three: read a page, do the phase's work on it, move the checkpoint on, until the segment is
complete or the deadline nears. Items stay in DynamoDB's wire form (``{"N": "1.50"}``), so every type and every digit
arrives unchanged. Reads are strongly consistent. While a page is being written the next one is already being read.

A page that was interrupted is worked on again: deleting a deleted item and putting the same item twice change nothing,
and counts are part of the checkpoint, so they cover each page once. (What a killed purge worker deleted after its last
checkpoint is not found again, and so not counted.)
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, wait
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from botocore.exceptions import ClientError

from .clock import Clock, Deadline
from .digest import Item, canonical_item, digest_items
from .errors import CapacityExhausted
from .ledger import Checkpoint, Ledger, PageResult, SegmentId

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

# Small enough that a page is written well within the shortest useful deadline even on a throttled table, large
# enough that the page's overhead does not matter. A page of at most 1 MB also keeps each batch of 25 far below
# BatchWriteItem's 16 MB.
PAGE_ITEMS = 500
_BATCH_ITEMS = 25  # BatchWriteItem's limit
_KEYS_PER_GET = 100  # BatchGetItem's limit
_CHECKPOINT_SECONDS = 1.0  # at most one ledger write a second and worker
_FIRST_BACKOFF_SECONDS = 0.05
_LONGEST_BACKOFF_SECONDS = 5.0
# TTL leaves items alone whose timestamp is more than five years past.
_TTL_LOOKBACK_SECONDS = 5 * 366 * 86_400
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

    def scan_arguments(self) -> Mapping[str, Any]:
        """Arguments of Scan beyond segment and cursor."""

    def apply(self, items: Sequence[Item], deadline: Deadline) -> PageResult:
        """Do the page's work; raises :class:`DeadlineReached` when it cannot be finished in time."""


@dataclass(frozen=True, kw_only=True)
class Engine:
    """Runs phases over segments.

    Args:
        dynamodb: a DynamoDB client that may be shared by threads.
        ledger: where checkpoints go.
        executor: runs the writes of a page and the read of the next one.
        sleep, monotonic: replaced by tests.
    """

    dynamodb: DynamoDBClient
    ledger: Ledger
    executor: Executor
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic

    def run(
        self,
        segment: SegmentId,
        total_segments: int,
        phase: Phase,
        deadline: Deadline,
        guard: Callable[[], None] = lambda: None,
    ) -> Checkpoint:
        """Work on a segment until it is complete or the deadline nears; returns its saved checkpoint.

        ``guard`` is called before the work on every page; what it raises ends the run.

        Raises:
            CapacityExhausted: not one page could be finished in the whole invocation.
            CheckpointConflict: another worker is on the same segment.
        """
        saved = current = self.ledger.load_checkpoint(segment)
        if saved.complete:
            return saved
        last_save, pages_done = self.monotonic(), 0
        try:
            for page in self._pages(phase, segment.segment, total_segments, saved.cursor, deadline):
                guard()
                result = phase.apply(page["Items"], deadline)
                scan_units = page.get("ConsumedCapacity", {}).get("CapacityUnits", 0.0)
                current = current.advance(
                    page.get("LastEvaluatedKey"), replace(result, read_units=result.read_units + scan_units)
                )
                pages_done += 1
                if current.complete or deadline.reached():
                    break
                if self.monotonic() - last_save >= _CHECKPOINT_SECONDS:
                    saved = current = self.ledger.save_checkpoint(segment, current)
                    last_save = self.monotonic()
        except DeadlineReached:
            if pages_done == 0:
                raise CapacityExhausted(
                    f"Segment {segment.segment} of the {segment.phase} of {segment.table_name} got no page of up to "
                    f"{PAGE_ITEMS} items through in a whole invocation, after {saved.items} items before it. Expected "
                    "some capacity to be free: raise the table's capacity or its limit, then start the same incident "
                    "again; it goes on from here."
                ) from None
        return saved if current is saved else self.ledger.save_checkpoint(segment, current)

    def _pages(
        self, phase: Phase, segment: int, total_segments: int, cursor: Mapping[str, Any] | None, deadline: Deadline
    ) -> Iterator[Mapping[str, Any]]:
        """The segment's pages from ``cursor`` on, each read while the one before is in work."""

        def read(start: Mapping[str, Any] | None) -> Future[Any]:
            arguments: dict[str, Any] = {
                "Segment": segment,
                "TotalSegments": total_segments,
                "ConsistentRead": True,
                "Limit": PAGE_ITEMS,
                "ReturnConsumedCapacity": "TOTAL",
                **phase.scan_arguments(),
            }
            if start is not None:
                arguments["ExclusiveStartKey"] = start
            backoff = Backoff(deadline=deadline, sleep=self.sleep)
            return self.executor.submit(backoff.call, partial(self.dynamodb.scan, **arguments))

        pending = read(cursor)
        while True:
            page = pending.result()
            following = page.get("LastEvaluatedKey")
            if following is not None:
                pending = read(following)
            yield page
            if following is None:
                return


@dataclass(kw_only=True)
class Backoff:
    """Waits longer and longer, with full jitter, and never beyond the deadline.

    Throttling is answered here rather than by the SDK, whose own retries could outlast the invocation.
    """

    deadline: Deadline
    sleep: Callable[[float], None]
    attempt: int = 0

    def wait(self) -> None:
        """Wait before the next attempt; raises :class:`DeadlineReached` where that would take too long."""
        delay = random.uniform(0, min(_LONGEST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2**self.attempt))
        if self.deadline.reached(delay):
            raise DeadlineReached
        self.attempt += 1
        self.sleep(delay)

    def call(self, request: Callable[[], Any]) -> Any:
        """Send a request until it is no longer throttled."""
        while True:
            try:
                return request()
            except ClientError as error:
                if error.response["Error"]["Code"] not in _THROTTLED:
                    raise
            self.wait()


@dataclass(frozen=True, kw_only=True)
class BatchWriter:
    """Writes any number of put or delete requests to one table, in concurrent batches of 25."""

    dynamodb: DynamoDBClient
    table_name: str
    executor: Executor
    sleep: Callable[[float], None] = time.sleep

    def write(self, requests: Sequence[Mapping[str, Any]], deadline: Deadline) -> float:
        """Write all the requests; returns the write units consumed.

        Returns only when every request was processed and no write is under way any more, and so does every error.
        """
        batches = [requests[start : start + _BATCH_ITEMS] for start in range(0, len(requests), _BATCH_ITEMS)]
        futures = [self.executor.submit(self._write_batch, batch, deadline) for batch in batches]
        done, pending = wait(futures, return_when=FIRST_EXCEPTION)
        for future in pending:
            future.cancel()
        wait(futures)
        return sum(future.result() for future in done) + sum(future.result() for future in pending)

    def _write_batch(self, batch: Sequence[Mapping[str, Any]], deadline: Deadline) -> float:
        units, backoff = 0.0, Backoff(deadline=deadline, sleep=self.sleep)
        left: Any = {self.table_name: batch}
        while True:
            request = partial(self.dynamodb.batch_write_item, RequestItems=left, ReturnConsumedCapacity="TOTAL")
            answer = backoff.call(request)
            units += sum(float(entry["CapacityUnits"]) for entry in answer.get("ConsumedCapacity", ()))
            left = answer.get("UnprocessedItems")
            if not left:
                return units
            backoff.wait()


@dataclass(frozen=True, kw_only=True)
class Purge:
    """Deletes every item of the destination. Reads keys only."""

    writer: BatchWriter
    key_names: tuple[str, ...]

    def scan_arguments(self) -> Mapping[str, Any]:
        """Scan the destination, keys only; through placeholders, because a key may be named with a reserved word."""
        placeholders = {f"#k{index}": name for index, name in enumerate(self.key_names)}
        return {
            "TableName": self.writer.table_name,
            "ProjectionExpression": ", ".join(placeholders),
            "ExpressionAttributeNames": placeholders,
        }

    def apply(self, items: Sequence[Item], deadline: Deadline) -> PageResult:
        """Delete the page's items."""
        units = self.writer.write([{"DeleteRequest": {"Key": key}} for key in items], deadline)
        return PageResult(items=len(items), write_units=units)


@dataclass(frozen=True, kw_only=True)
class Copy:
    """Puts every item of the source into the destination."""

    source_table_name: str
    writer: BatchWriter

    def scan_arguments(self) -> Mapping[str, Any]:
        """Scan the source, whole items."""
        return {"TableName": self.source_table_name}

    def apply(self, items: Sequence[Item], deadline: Deadline) -> PageResult:
        """Put the page's items."""
        units = self.writer.write([{"PutRequest": {"Item": item}} for item in items], deadline)
        return PageResult(items=len(items), write_units=units)


@dataclass(frozen=True, kw_only=True)
class Digest:
    """Counts and digests every item of one side.

    Where the destination has TTL on (a restored table has it off), an item whose time has come may be gone from the
    destination at any moment. Such items, those that expire before the horizon, are left out of the digest and
    compared one by one with the other side instead: they must be equal there, or, seen from the source, absent because
    they have expired.

    Args:
        dynamodb: a DynamoDB client.
        table_name, other_table_name: the side to read, and the other one.
        key_names: the key's attribute names.
        may_be_absent: whether an expired item may be absent from the other side: true when reading the source.
        ttl_attribute: the destination's TTL attribute, or None.
        expiry_horizon: epoch second, well after the end of the verification.
        clock: tells what has expired.
    """

    dynamodb: DynamoDBClient
    table_name: str
    other_table_name: str
    key_names: tuple[str, ...]
    may_be_absent: bool
    ttl_attribute: str | None
    expiry_horizon: int
    clock: Clock
    sleep: Callable[[float], None] = time.sleep

    def scan_arguments(self) -> Mapping[str, Any]:
        """Scan the table, whole items."""
        return {"TableName": self.table_name}

    def apply(self, items: Sequence[Item], deadline: Deadline) -> PageResult:
        """Digest the page's items; compare those that expire soon."""
        expiring = [item for item in items if self._expires_before(item, self.expiry_horizon)]
        if not expiring:
            return PageResult(items=len(items), digest=digest_items(items))
        lasting = [item for item in items if not self._expires_before(item, self.expiry_horizon)]
        others, read_units = self._read_other_side(expiring, deadline)
        now = int(self.clock().timestamp())
        equal = absent = 0
        for item in expiring:
            other = others.get(self._identity(item))
            equal += other is not None and canonical_item(other) == canonical_item(item)
            absent += other is None and self.may_be_absent and self._expires_before(item, now)
        return PageResult(
            items=len(lasting),
            digest=digest_items(lasting),
            expiring=equal,
            expired=absent,
            different=len(expiring) - equal - absent,
            read_units=read_units,
        )

    def _expires_before(self, item: Item, moment: int) -> bool:
        if self.ttl_attribute is None:
            return False
        # Only a Number is a TTL timestamp; DynamoDB ignores any other type.
        expiry = item.get(self.ttl_attribute, {}).get("N")
        if expiry is None:
            return False
        return self.expiry_horizon - _TTL_LOOKBACK_SECONDS < Decimal(expiry) < moment

    def _identity(self, item: Item) -> bytes:
        return canonical_item({name: item[name] for name in self.key_names})

    def _read_other_side(self, items: Sequence[Item], deadline: Deadline) -> tuple[dict[bytes, Item], float]:
        found: dict[bytes, Item] = {}
        units = 0.0
        for start in range(0, len(items), _KEYS_PER_GET):
            keys = [{name: item[name] for name in self.key_names} for item in items[start : start + _KEYS_PER_GET]]
            left: Any = {self.other_table_name: {"Keys": keys, "ConsistentRead": True}}
            backoff = Backoff(deadline=deadline, sleep=self.sleep)
            while left:
                request = partial(self.dynamodb.batch_get_item, RequestItems=left, ReturnConsumedCapacity="TOTAL")
                answer = backoff.call(request)
                units += sum(float(entry["CapacityUnits"]) for entry in answer.get("ConsumedCapacity", ()))
                for item in answer["Responses"].get(self.other_table_name, ()):
                    found[self._identity(item)] = item
                left = answer.get("UnprocessedKeys")
                if left:
                    backoff.wait()
        return found, units


def find_any_item(dynamodb: DynamoDBClient, table_name: str) -> int:
    """How many items the first page that holds any has; 0 when the whole table is empty. Reads no item's content."""
    pages = dynamodb.get_paginator("scan").paginate(TableName=table_name, Select="COUNT", ConsistentRead=True)
    return next((page["Count"] for page in pages if page["Count"]), 0)
