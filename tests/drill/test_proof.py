"""The proof must see every difference, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from localaws.proof import compare, exact

KEYS = ("id",)


def item(number: int, **attributes: dict[str, Any]) -> dict[str, Any]:
    """An item with a numeric key."""
    return {"id": {"N": str(number)}, **attributes}


BEFORE = [item(1, name={"S": "a"}), item(2, name={"S": "b"}), item(3, name={"S": "c"})]


def test_equal_in_any_order() -> None:
    """A scan returns items in another order after a recovery: the proof would fail every time."""
    found = compare(BEFORE, list(reversed(BEFORE)), KEYS)
    assert found.to_json() == {"equal": True, "missing": 0, "extra": 0, "changed": 0, "items": 3}


def test_missing_item() -> None:
    """A lost item goes unnoticed."""
    found = compare(BEFORE, BEFORE[1:], KEYS)
    assert (found.equal, found.missing, found.extra, found.changed) == (False, 1, 0, 0)


def test_extra_item() -> None:
    """A junk item survives the purge and goes unnoticed."""
    found = compare(BEFORE, [*BEFORE, item(4)], KEYS)
    assert (found.equal, found.missing, found.extra, found.changed) == (False, 0, 1, 0)


def test_as_many_missing_as_extra() -> None:
    """Counts alone agree although an item was replaced by another."""
    found = compare(BEFORE, [*BEFORE[1:], item(4)], KEYS)
    assert (found.equal, found.missing, found.extra, found.changed) == (False, 1, 1, 0)


def test_values_swapped_between_items() -> None:
    """The same values in the wrong items: a comparison of values without keys would pass."""
    after = [item(1, name={"S": "b"}), item(2, name={"S": "a"}), BEFORE[2]]
    found = compare(BEFORE, after, KEYS)
    assert (found.equal, found.changed) == (False, 2)


def test_empty_table_is_not_equal() -> None:
    """An emptied table passes for a recovered one."""
    assert compare(BEFORE, [], KEYS).missing == 3


DIFFERENT: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "the last of 38 digits": ({"N": "1" * 38}, {"N": "1" * 37 + "2"}),
    "beyond a double's precision": ({"N": "9007199254740993"}, {"N": "9007199254740992"}),
    "the smallest number and zero": ({"N": "1E-130"}, {"N": "0"}),
    "a sign": ({"N": "1"}, {"N": "-1"}),
    "true and one": ({"BOOL": True}, {"N": "1"}),
    "false and zero": ({"BOOL": False}, {"N": "0"}),
    "true and false": ({"BOOL": True}, {"BOOL": False}),
    "null and true": ({"NULL": True}, {"BOOL": True}),
    "null and its word": ({"NULL": True}, {"S": "NULL"}),
    "text and number": ({"S": "1"}, {"N": "1"}),
    "text and bytes": ({"S": "1"}, {"B": b"1"}),
    "empty text and empty bytes": ({"S": ""}, {"B": b""}),
    "composed and decomposed": ({"S": "caf\u00e9"}, {"S": "cafe\u0301"}),
    "a trailing space": ({"S": "a"}, {"S": "a "}),
    "one bit": ({"B": b"\x00"}, {"B": b"\x01"}),
    "a set and a list": ({"SS": ["a"]}, {"L": [{"S": "a"}]}),
    "sets of two types": ({"SS": ["1"]}, {"NS": ["1"]}),
    "a set's member": ({"NS": ["1", "2"]}, {"NS": ["1", "3"]}),
    "a list's order": ({"L": [{"N": "1"}, {"N": "2"}]}, {"L": [{"N": "2"}, {"N": "1"}]}),
    "a list's repetition": ({"L": [{"N": "1"}]}, {"L": [{"N": "1"}, {"N": "1"}]}),
    "deep inside": ({"M": {"a": {"L": [{"M": {"b": {"N": "1"}}}]}}}, {"M": {"a": {"L": [{"M": {"b": {"N": "2"}}}]}}}),
    "swapped names": ({"M": {"a": {"N": "1"}, "b": {"N": "2"}}}, {"M": {"a": {"N": "2"}, "b": {"N": "1"}}}),
    "empty list and map": ({"L": []}, {"M": {}}),
}


@pytest.mark.parametrize("pair", DIFFERENT.values(), ids=DIFFERENT.keys())
def test_different_values(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """A value that Python or JSON confuses with another counts as unchanged."""
    left, right = pair
    found = compare([item(1, value=left)], [item(1, value=right)], KEYS)
    assert (found.equal, found.changed) == (False, 1)


SAME: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "1.0 and 1": ({"N": "1.0"}, {"N": "1"}),
    "notations": ({"N": "1E+3"}, {"N": "1000"}),
    "set order": ({"SS": ["a", "b"]}, {"SS": ["b", "a"]}),
    "number set order and notation": ({"NS": ["1.0", "2"]}, {"NS": ["2", "1"]}),
    "binary set order": ({"BS": [b"a", b"b"]}, {"BS": [b"b", b"a"]}),
    "map order": ({"M": {"a": {"N": "1"}, "b": {"N": "2"}}}, {"M": {"b": {"N": "2"}, "a": {"N": "1"}}}),
    "bytes and bytearray": ({"B": b"a"}, {"B": bytearray(b"a")}),
}


@pytest.mark.parametrize("pair", SAME.values(), ids=SAME.keys())
def test_same_values(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """DynamoDB's own freedom in how it writes a value raises a false alarm."""
    left, right = pair
    assert compare([item(1, value=left)], [item(1, value=right)], KEYS).equal


def test_attribute_gone() -> None:
    """A dropped attribute counts as unchanged."""
    assert compare([item(1, value={"NULL": True})], [item(1)], KEYS).changed == 1


def test_keys_of_equal_text_and_bytes_are_two() -> None:
    """A text key and a byte key that print alike are taken for one item."""
    with_text, with_bytes = {"id": {"S": "a"}}, {"id": {"B": b"a"}}
    found = compare([with_text], [with_bytes], KEYS)
    assert (found.missing, found.extra) == (1, 1)


def test_a_key_twice_is_refused() -> None:
    """A broken reader hands items over twice, and the second hides the first."""
    with pytest.raises(ValueError, match="same key"):
        compare(BEFORE, [*BEFORE, BEFORE[0]], KEYS)


def test_an_item_without_key_is_refused() -> None:
    """Items of another table are compared, and every one collapses onto the same key."""
    with pytest.raises(ValueError, match="key attributes"):
        compare([{"other": {"S": "a"}}], [], KEYS)


def test_unknown_type_is_refused() -> None:
    """A type this module does not know is skipped and so never compared."""
    with pytest.raises(ValueError, match="unknown type"):
        exact({"X": "?"})
