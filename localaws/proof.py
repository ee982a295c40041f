"""The independent proof: is a table, item by item, what it was before?

This module shares no code with the recovery (no digests, no segments, no serialiser), so that a mistake there cannot
hide itself here. It reads with a plain Scan, turns every attribute into an exact value that carries its type, and
compares whole items by key. It never prints or returns an item's content, only counts.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

Item = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What a comparison found; every field but `equal` is a number of items."""

    equal: bool
    """True only if nothing is missing, extra or changed."""
    missing: int
    """In the table before, not in it now."""
    extra: int
    """In the table now, not in it before."""
    changed: int
    """In both, with different content."""
    items: int
    """How many the table held before, and so how many were compared."""

    def to_json(self) -> dict[str, bool | int]:
        """The fields as a plain dict."""
        return asdict(self)


def scan_table(client: Any, table: str) -> list[Item]:
    """Every item of `table`, read consistently, in the API's notation."""
    items: list[Item] = []
    for page in client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True):
        items.extend(page["Items"])
    return items


def key_names(client: Any, table: str) -> tuple[str, ...]:
    """The names of the table's key attributes, hash key first."""
    schema = client.describe_table(TableName=table)["Table"]["KeySchema"]
    return tuple(part["AttributeName"] for part in sorted(schema, key=lambda part: str(part["KeyType"])))


def compare(before: Iterable[Item], after: Iterable[Item], keys: Sequence[str]) -> Proof:
    """Compare two states of one table.

    Args:
        before: the items the table should hold.
        after: the items it holds.
        keys: the names of the key attributes.

    Raises:
        ValueError: a key occurs twice on one side, or an item lacks a key: then the input is no table's content.
    """
    expected, found = _by_key(before, keys), _by_key(after, keys)
    missing = len(expected.keys() - found.keys())
    extra = len(found.keys() - expected.keys())
    changed = sum(1 for key in expected.keys() & found.keys() if expected[key] != found[key])
    return Proof(
        equal=not (missing or extra or changed), missing=missing, extra=extra, changed=changed, items=len(expected)
    )


def exact(value: dict[str, Any]) -> Hashable:
    """One attribute value as something comparable: its type's name with its content.

    The type stays beside the content because Python finds True == 1 and 1 == Decimal(1), which DynamoDB keeps apart.
    Numbers compare by value, as DynamoDB stores them (1.0 and 1 are one number); sets have no order; lists have.

    Raises:
        ValueError: the value is of no known type.
    """
    ((kind, content),) = value.items()
    match kind:
        case "N":
            return kind, Decimal(content)
        case "NS":
            return kind, frozenset(Decimal(number) for number in content)
        case "SS":
            return kind, frozenset(content)
        case "BS":
            return kind, frozenset(bytes(part) for part in content)
        case "B":
            return kind, bytes(content)
        case "L":
            return kind, tuple(exact(part) for part in content)
        case "M":
            return kind, _exact_item(content)
        case "S" | "BOOL" | "NULL":
            return kind, content
    raise ValueError(f"an attribute of unknown type {kind!r}")


def _exact_item(item: Item) -> frozenset[tuple[str, Hashable]]:
    return frozenset((name, exact(value)) for name, value in item.items())


def _by_key(items: Iterable[Item], keys: Sequence[str]) -> dict[Hashable, frozenset[tuple[str, Hashable]]]:
    result: dict[Hashable, frozenset[tuple[str, Hashable]]] = {}
    for item in items:
        if any(name not in item for name in keys):
            raise ValueError("an item lacks one of its key attributes")
        key = tuple(exact(item[name]) for name in keys)
        if key in result:
            raise ValueError("two items with the same key")
        result[key] = _exact_item(item)
    return result
