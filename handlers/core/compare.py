"""The differences between source and destination, item by item, and their list for the operator.

The source's segments show what is missing from the destination and what is changed there; the destination's show what
is extra. Together they are every difference, each found once. What is done with the differences of a page is the
caller's: :class:`Listing` writes their keys to the report bucket.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from .clock import Deadline
from .digest import Item, canonical_item
from .engine import BatchReader, Expiry, key_projection
from .ledger import PageResult

# A list that nobody reads to its end helps nobody, and a segment's share of it stays at some tens of MB.
LISTED_KEYS = 100_000


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One item that is not the same on both sides.

    Args:
        kind: ``missing`` from the destination, ``extra`` in the destination, or ``changed`` there.
        key: the item's primary key, in wire form.
        source: the item as the source has it; None for an extra one.
    """

    kind: Literal["missing", "extra", "changed"]
    key: Item
    source: Item | None


Act = Callable[[Sequence[Difference], PageResult, Deadline], PageResult]
"""What is done with the differences of a page, at least one: takes them, what the segment had done before the page, and
the deadline; returns what it has done itself. The same page may come again after an interruption."""


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Compares every item of one side with the other side.

    An item of the source that has expired and that TTL has deleted from the destination is no difference: the digest's
    rule.

    Args:
        table_name: the side to read.
        other: reads the other side.
        is_source: whether the side to read is the source.
        expiry: what TTL may delete from the destination.
        act: what to do with the differences of a page.
    """

    # What is listed depends on what was listed before.
    pages_at_once: ClassVar[int] = 1
    table_name: str
    other: BatchReader
    is_source: bool
    expiry: Expiry
    act: Act

    def scan_arguments(self) -> Mapping[str, Any]:
        """Scan the source, whole items; the destination, keys only: whether an item is extra its key tells."""
        return {"TableName": self.table_name, **({} if self.is_source else key_projection(self.other.key_names))}

    def apply(self, items: Sequence[Item], deadline: Deadline, before: PageResult, /) -> PageResult:
        """Find the page's differences and act on them."""
        others, read_units = self.other.read(items, deadline, keys_only=not self.is_source)
        differences: list[Difference] = []
        expired = 0
        for item in items:
            other = others.get(self.other.identity(item))
            if other is None and self.is_source and self.expiry.passed(item):
                expired += 1
            elif difference := self._difference(item, other):
                differences.append(difference)
        kinds = Counter(difference.kind for difference in differences)
        result = PageResult(
            items=len(items),
            expired=expired,
            missing=kinds["missing"],
            extra=kinds["extra"],
            changed=kinds["changed"],
            read_units=read_units,
        )
        return result.plus(self.act(differences, before, deadline)) if differences else result

    def _difference(self, item: Item, other: Item | None) -> Difference | None:
        key = self.other.key(item)
        if not self.is_source:
            # What both sides have is the source's to compare.
            return Difference(kind="extra", key=key, source=None) if other is None else None
        if other is None:
            return Difference(kind="missing", key=key, source=item)
        if canonical_item(other) != canonical_item(item):
            return Difference(kind="changed", key=key, source=item)
        return None


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Lists the keys of a segment's differences: one object of JSON lines a page that has any.

    A line is ``{"difference": "missing", "key": {…}}``, the key as DynamoDB's JSON has it (binary as base64). An
    object's name follows from how many items were compared before its page, so a page that is worked on again
    overwrites its own object.

    Args:
        put: writes an object: its key in the bucket, and its content.
        prefix: where the table's objects go; see :func:`differences_prefix`.
        segment: the segment's name, e.g. ``source-000012``.
    """

    put: Callable[[str, bytes], object]
    prefix: str
    segment: str

    def __call__(self, differences: Sequence[Difference], before: PageResult, _deadline: Deadline) -> PageResult:
        """List the page's differences, as far as the segment's list is not full."""
        listed = differences[: max(0, LISTED_KEYS - before.listed)]
        if listed:
            lines = (_line(difference) for difference in listed)
            self.put(f"{self.prefix}{self.segment}-{before.items:012d}.jsonl", "".join(lines).encode("ascii"))
        return PageResult(listed=len(listed))


def _line(difference: Difference) -> str:
    return json.dumps({"difference": difference.kind, "key": difference.key}) + "\n"


def differences_prefix(incident_id: str, execution_arn: str, table_name: str) -> str:
    """Where the report bucket has the differences that one execution found in a table."""
    return f"differences/{incident_id}/{execution_arn.rsplit(':', 1)[-1]}/{table_name}/"


def describe_differences(found: PageResult, keys_at: str) -> str:
    """Counts and place in a few words, without an item's key: ``1 missing, 0 extra and 2 changed items; …``."""
    total = found.missing + found.extra + found.changed
    keys = "their keys" if found.listed == total else f"keys of {found.listed} of them"
    return f"{found.missing} missing, {found.extra} extra and {found.changed} changed item(s); {keys}: {keys_at}"
