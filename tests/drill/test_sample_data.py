"""The rehearsal's items must be worth rehearsing on."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest

from localaws import proof, sample, sample_data
from localaws.batches import Item

ALL = sample_data.all_items()
KEYS = {table.name: tuple(name for name, _ in table.keys) for table in sample.TABLES}


def values(item: Item) -> Iterator[dict[str, Any]]:
    """Every attribute value of an item, nested ones too."""
    stack = list(item.values())
    while stack:
        value = stack.pop()
        yield value
        ((kind, content),) = value.items()
        stack.extend(content if kind == "L" else content.values() if kind == "M" else ())


def size(item: Item) -> int:
    """A lower bound of the item's size in bytes as DynamoDB counts it: names, texts and bytes."""
    total = 0
    for name, value in item.items():
        ((_, content),) = value.items()
        total += len(name.encode()) + (len(content.encode()) if isinstance(content, str) else 0)
        total += len(content) if isinstance(content, bytes) else 0
    return total


def test_at_least_ten_thousand_items() -> None:
    """A rehearsal on a handful of items never gets to a second page."""
    assert sum(len(items) for items in ALL.values()) >= 10_000
    assert set(ALL) == {table.name for table in sample.TABLES}
    assert all(len(items) >= 30 for items in ALL.values())


@pytest.mark.parametrize("table", sorted(ALL))
def test_keys_are_unique_and_deterministic(table: str) -> None:
    """Two items with one key: the table holds fewer than were counted. Random data: no failure can be repeated."""
    assert proof.compare(ALL[table], sample_data.all_items()[table], KEYS[table]).equal


@pytest.mark.parametrize("table", sample.TABLES, ids=lambda table: table.name)
def test_key_and_index_attributes_have_their_types(table: sample.TableSpec) -> None:
    """An item is refused, or is not in the index that the recovery has to fill."""
    for item in ALL[table.name]:
        for name, kind in (*table.keys, *(index for index in (table.global_index, table.local_index) if index)):
            assert list(item[name]) == [kind]


def test_every_attribute_type_occurs() -> None:
    """A type is never rehearsed, and the copy loses it."""
    kinds = {next(iter(value)) for item in ALL[sample_data.MEASUREMENTS] for value in values(item)}
    assert kinds == {"S", "N", "B", "BOOL", "NULL", "SS", "NS", "BS", "L", "M"}


def test_one_item_is_large() -> None:
    """The copy's batches are never tested near their limits, or the item is refused by DynamoDB."""
    sizes = [size(item) for item in ALL[sample_data.MEASUREMENTS]]
    assert [each for each in sizes if each > 300_000]
    assert max(sizes) < 400 * 1024


def test_numbers_beyond_a_double() -> None:
    """A copy through floats passes the rehearsal."""
    numbers = [Decimal(value["N"]) for item in ALL[sample_data.MEASUREMENTS] for value in values(item) if "N" in value]
    lossy = [number for number in numbers if Decimal(float(number)) != number]
    assert any(len(number.as_tuple().digits) == 38 for number in lossy)
    assert any(0 < abs(number) < Decimal("1E-129") for number in numbers)
    assert any(number < 0 for number in lossy)


def test_awkward_texts_and_names() -> None:
    """Empty values, emoji, control characters or reserved names are never rehearsed."""
    items = ALL[sample_data.MEASUREMENTS]
    texts = {value["S"] for item in items for value in values(item) if "S" in value}
    assert "" in texts
    assert any("\u0001" in text for text in texts)
    assert any("\U0001f680" in text for text in texts)
    assert any(value.get("B") == b"" for item in items for value in values(item))
    assert {"name", "status", "with.dot", "with space", "#hash"} <= {name for item in items for name in item}


def test_sensitive_values_are_obviously_made_up() -> None:
    """A number that could be a person's appears in a repository."""
    assert all(item["ssn"]["S"].startswith("000-00-") for item in ALL[sample_data.SSN])
