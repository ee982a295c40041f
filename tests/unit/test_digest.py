"""The digest must see every difference between two tables, and nothing that DynamoDB does not keep."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from handlers.core.digest import (
    add_digests,
    canonical_item,
    canonical_number,
    digest_items,
    from_hex,
    item_digest,
    to_hex,
)

Value = dict[str, Any]


def item(value: Value, key: str = "1") -> dict[str, Value]:
    """An item with one attribute besides its key."""
    return {"id": {"S": key}, "value": value}


SPELLINGS = {
    "0": ["0", "-0", "0.0", "-0.00", "0E5", "0E-130", "00"],
    "1": ["1", "1.0", "1.00", "1E0", "10E-1", "0.1E1", "+1", "01"],
    "-1": ["-1", "-1.0", "-1E0", "-0.1E+1"],
    "10": ["10", "1E1", "1e+1", "10.0"],
    "0.001": ["0.001", "1E-3", "0.0010", "10E-4"],
    "12345678901234567890123456789012345678": [
        "12345678901234567890123456789012345678",
        "1.2345678901234567890123456789012345678E37",
        "12345678901234567890123456789012345678.0",
    ],
    "0.12345678901234567890123456789012345678": ["0.12345678901234567890123456789012345678"],
    "1" + "0" * 125: ["1E125", "1E+125", "10E124", "1" + "0" * 125],
    "0." + "0" * 129 + "1": ["1E-130", "0.1E-129"],
    "9." + "9" * 37: ["9." + "9" * 37],
}


@pytest.mark.parametrize(
    ("canonical", "spelling"), [(canonical, text) for canonical, texts in SPELLINGS.items() for text in texts]
)
def test_one_spelling_for_each_number(canonical: str, spelling: str) -> None:
    """A number that DynamoDB writes back in another spelling would fail the verification of a good recovery."""
    assert canonical_number(spelling) == canonical


def test_numbers_that_differ_stay_different() -> None:
    """Digits beyond a float's or a default Decimal's precision are rounded away: a changed item passes as equal."""
    numbers = [
        "9007199254740992",
        "9007199254740993",
        "1" * 38,
        "1" * 37 + "2",
        "0." + "1" * 38,
        "0." + "1" * 37 + "2",
        "1E-130",
        "-1E-130",
        "2E-130",
        "0",
        "9." + "9" * 37 + "E125",
        "9." + "9" * 36 + "8E125",
    ]
    assert len({canonical_number(number) for number in numbers}) == len(numbers)


EVERY_TYPE: dict[str, Value] = {
    "text": {"S": "a"},
    "empty text": {"S": ""},
    "number": {"N": "1"},
    "text of a number": {"S": "1"},
    "bytes": {"B": b"a"},
    "empty bytes": {"B": b""},
    "text of the bytes' base64": {"S": "YQ=="},
    "true": {"BOOL": True},
    "false": {"BOOL": False},
    "null": {"NULL": True},
    "text of true": {"S": "true"},
    "empty map": {"M": {}},
    "empty list": {"L": []},
    "map": {"M": {"a": {"N": "1"}}},
    "map with another name": {"M": {"b": {"N": "1"}}},
    "map with another value": {"M": {"a": {"N": "2"}}},
    "map with another type": {"M": {"a": {"S": "1"}}},
    "map in a map": {"M": {"a": {"M": {"a": {"N": "1"}}}}},
    "list": {"L": [{"N": "1"}]},
    "list with a repetition": {"L": [{"N": "1"}, {"N": "1"}]},
    "list in a list": {"L": [{"L": [{"N": "1"}]}]},
    "list of two": {"L": [{"N": "1"}, {"N": "2"}]},
    "list of two in another order": {"L": [{"N": "2"}, {"N": "1"}]},
    "list of a type and a value": {"L": [{"S": "N"}, {"S": "1"}]},
    "strings": {"SS": ["1"]},
    "strings of two": {"SS": ["1", "2"]},
    "one string of two": {"SS": ['1","2']},
    "numbers": {"NS": ["1"]},
    "numbers of two": {"NS": ["1", "2"]},
    "binaries": {"BS": [b"1"]},
    "binaries of two": {"BS": [b"1", b"2"]},
    "text that looks like JSON": {"S": '["N","1"]'},
    "text that breaks out of JSON": {"S": '"],"x":["N","1'},
    "text of an escape": {"S": "\\u00e9"},
    "composed": {"S": "caf\u00e9"},
    "decomposed": {"S": "cafe\u0301"},
    "beyond the basic plane": {"S": "\U0001f600"},
    "control character": {"S": "\x00"},
    "trailing space": {"S": "a "},
    "upper case": {"S": "A"},
}


def test_every_type_and_value_has_a_form_of_its_own() -> None:
    """Two values share one canonical form: the recovery replaced one by the other and the digests agree."""
    forms = {canonical_item(item(value)): name for name, value in EVERY_TYPE.items()}
    assert len(forms) == len(EVERY_TYPE)


def test_names_and_values_do_not_run_into_each_other() -> None:
    """A value that moved to another attribute, or a name that holds a delimiter, gives the same form."""
    items: list[dict[str, Value]] = [
        {"a": {"S": "b"}, "c": {"S": "d"}},
        {"a": {"S": "d"}, "c": {"S": "b"}},
        {"c": {"S": "b"}, "b": {"S": "d"}},
        {'a":["S","b"],"c': {"S": "d"}},
        {"a": {"S": 'b"],"c":["S","d'}},
        {"a": {"M": {"a": {"S": "b"}, "c": {"S": "d"}}}},
        {"a": {"S": "b"}},
        {},
    ]
    assert len({canonical_item(entry) for entry in items}) == len(items)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"SS": ["a", "b", "c"]}, {"SS": ["c", "a", "b"]}),
        ({"NS": ["1", "2", "10"]}, {"NS": ["10.0", "1E0", "2.00"]}),
        ({"BS": [b"a", b"\xff", b""]}, {"BS": [b"", b"a", b"\xff"]}),
        ({"M": {"a": {"N": "1"}, "b": {"N": "2"}}}, {"M": {"b": {"N": "2"}, "a": {"N": "1.0"}}}),
        ({"L": [{"M": {"s": {"SS": ["x", "y"]}}}]}, {"L": [{"M": {"s": {"SS": ["y", "x"]}}}]}),
    ],
    ids=["SS", "NS", "BS", "M", "nested"],
)
def test_order_that_dynamodb_does_not_keep_is_ignored(one: Value, other: Value) -> None:
    """A set that comes back in another order would fail the verification of a good recovery."""
    assert one != other
    assert item_digest(item(one)) == item_digest(item(other))


def test_the_order_of_attributes_is_ignored() -> None:
    """Attributes that arrive in another order would fail the verification of a good recovery."""
    one = {"a": {"S": "1"}, "b": {"S": "2"}}
    assert list(one) != list(reversed(one))
    assert item_digest(one) == item_digest(dict(reversed(one.items())))


def test_equal_items_do_not_cancel_out() -> None:
    """With XOR a pair of equal items adds nothing: a table that lost both has the same digest."""
    twin = item({"N": "1"})
    other = item({"N": "2"}, key="2")
    assert digest_items([other, twin, twin]) != digest_items([other])
    assert len({digest_items([twin] * times) for times in range(5)}) == 5


def test_values_swapped_between_two_items_are_seen() -> None:
    """A digest of attributes rather than of items is blind to values in the wrong items."""
    before = [item({"N": "1"}, key="1"), item({"N": "2"}, key="2")]
    after = [item({"N": "2"}, key="1"), item({"N": "1"}, key="2")]
    assert digest_items(before) != digest_items(after)


def test_digests_add_up_in_any_order() -> None:
    """Segments that finish in another order would give another digest of the same table."""
    items = [item({"N": str(number)}, key=str(number)) for number in range(4)]
    whole = digest_items(items)
    assert whole != 0
    for order in itertools.permutations(items):
        assert add_digests((digest_items(order[:1]), digest_items(order[1:]))) == whole
        assert digest_items(order[2:], start=digest_items(order[:2])) == whole


def test_the_stored_form_keeps_leading_zeros_and_the_largest_digest() -> None:
    """A digest that lost its leading zeros in the ledger compares unequal, or wraps around."""
    for digest in (0, 1, 2**256 - 1):
        assert len(to_hex(digest)) == 64
        assert from_hex(to_hex(digest)) == digest
    assert add_digests((2**256 - 1, 1)) == 0
