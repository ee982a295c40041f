"""Sizes, refusals, order of keys, and generated items."""

from __future__ import annotations

import base64
import json
import random
from decimal import Decimal
from typing import Any

import pytest

from bench.fill import Generator
from bench.items import (
    InvalidItem,
    KeyAttribute,
    KeySchema,
    item_size,
    measure,
    normal_number,
    ordered_number,
    quick_size,
)

PK = KeyAttribute(name="pk", type="S")
SK = KeyAttribute(name="sk", type="N")


@pytest.mark.parametrize(
    ("item", "size"),
    [
        # Names and UTF-8, from the guide's rules.
        ({"name": {"S": "Bob"}}, 4 + 3),
        ({"näme": {"S": "Zoë€"}}, 5 + 7),
        # A byte for each two digits begun, and one more; zeros at either end do not count.
        ({"n": {"N": "27"}}, 1 + 1 + 1),
        ({"n": {"N": "-27"}}, 1 + 1 + 1),
        ({"n": {"N": "461"}}, 1 + 2 + 1),
        ({"n": {"N": "17895.57"}}, 1 + 4 + 1),
        ({"n": {"N": "1000000"}}, 1 + 1 + 1),
        ({"n": {"N": "0.00120"}}, 1 + 1 + 1),
        ({"n": {"N": "0"}}, 1 + 1),
        ({"n": {"N": "9" * 38}}, 1 + 19 + 1),
        # Raw bytes, not base64.
        ({"b": {"B": base64.b64encode(b"12345").decode()}}, 1 + 5),
        ({"t": {"BOOL": True}}, 1 + 1),
        ({"t": {"NULL": True}}, 1 + 1),
        # Three bytes for a list or map, one for each element.
        ({"m": {"M": {}}}, 1 + 3),
        ({"l": {"L": []}}, 1 + 3),
        ({"m": {"M": {"a": {"S": "xy"}}}}, 1 + 3 + 1 + 2 + 1),
        ({"l": {"L": [{"S": "xy"}, {"N": "1"}]}}, 1 + 3 + 2 + 1 + 2 + 1),
        ({"s": {"SS": ["a", "bc"]}}, 1 + 3),
        ({"s": {"NS": ["1", "234"]}}, 1 + 2 + 3),
        ({"s": {"BS": [base64.b64encode(b"xyz").decode()]}}, 1 + 3),
    ],
)
def test_sizes_are_those_that_aws_documents(item: dict[str, Any], size: int) -> None:
    """Would misjudge every unit that a bench counts."""
    assert item_size(item) == size


def random_value(source: random.Random, depth: int) -> dict[str, Any]:
    """A value of any type, with names and texts that look like types and punctuation."""
    words = ["S", "M", "L", "N", "BOOL", "a", "count", "{", '{"M":{"S":', "}", ": ", '"', "\\", "é", ",", ""]
    kind = source.choice(["S", "N", "BOOL", "NULL", "B", "SS", "NS"] + ["M", "L"] * 2 * (depth > 0))
    if kind == "M":
        return {"M": {source.choice(words): random_value(source, depth - 1) for _ in range(source.randrange(4))}}
    if kind == "L":
        return {"L": [random_value(source, depth - 1) for _ in range(source.randrange(4))]}
    return {
        kind: {
            "S": source.choice(words) * source.randrange(3),
            "N": source.choice(["0", "1", "-12", "120", "1.5", "1E3", "9" * 38]),
            "BOOL": source.random() < 0.5,
            "NULL": True,
            "B": "aGk=",
            "SS": ["S", "M"],
            "NS": ["1", "2.0"],
        }[kind]
    }


def test_the_quick_size_is_the_size_or_none() -> None:
    """Would charge wrong units for items whose names or texts look like DynamoDB's JSON."""
    source, quick = random.Random(7), 0
    for _ in range(4000):
        names = source.sample(["S", "M", "L", "N", "a", "bc", "é", "BOOL", "BS"], source.randrange(1, 4))
        item = {name: random_value(source, 3) for name in names}
        size = item_size(item)
        for text in (json.dumps(item), json.dumps(item, separators=(",", ":")), json.dumps(item, ensure_ascii=False)):
            found = quick_size(text, len(item))
            assert found in (None, size), text
            quick += found is not None
    assert quick > 500, "the quick way was hardly taken"


def test_generated_items_are_measured_the_quick_way() -> None:
    """Would make the server slow: its processor is the worker's too."""
    item = Generator(schema=KeySchema(partition=PK)).item_json(5).decode()
    assert quick_size(item, 11) == 1024
    assert quick_size(json.dumps(json.loads(item)), 11) == 1024


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("1.50", "1.5"),
        ("-0", "0"),
        ("0.000", "0"),
        ("1E3", "1000"),
        ("007", "7"),
        ("+5", "5"),
        ("1e-3", "0.001"),
        ("9" * 38, "9" * 38),
        ("1" + "0" * 45, "1" + "0" * 45),
    ],
)
def test_numbers_lose_their_zeros_and_nothing_else(text: str, normal: str) -> None:
    """Would hand back another number than AWS does."""
    assert normal_number(text) == normal


@pytest.mark.parametrize(
    "item",
    [
        {"n": {"N": "1" * 39}},
        {"n": {"N": "x"}},
        {"n": {"N": "NaN"}},
        {"n": {"N": "1E126"}},
        {"n": {"N": "1E-131"}},
        {"n": {"N": 5}},
        {"s": {"S": 5}},
        {"s": {"SS": []}},
        {"s": {"SS": ["a", "a"]}},
        {"s": {"NS": ["1", "1.0"]}},
        {"b": {"B": "a"}},
        {"x": {"X": "a"}},
        {"x": {"S": "a", "N": "1"}},
        {"x": {}},
        {"x": "a"},
        {"x": {"S": "x" * 400 * 1024}},
    ],
)
def test_what_dynamodb_refuses_is_refused(item: dict[str, Any]) -> None:
    """Would let a worker write what AWS would not take."""
    with pytest.raises(InvalidItem):
        measure(item)


def test_the_largest_item_has_400_kilobytes_names_included() -> None:
    """Would refuse an item that AWS takes."""
    assert measure({"x": {"S": "x" * (400 * 1024 - 1)}})[0] == 400 * 1024


def test_sort_keys_are_in_dynamodbs_order() -> None:
    """Would scan the items of a partition key in an order of no meaning."""
    texts = [
        "-1E125",
        "-100.5",
        "-100",
        "-12",
        "-1.5",
        "-1",
        "-1E-130",
        "0",
        "1E-130",
        "0.5",
        "1",
        "1.05",
        "1.5",
        "2",
        "10",
        "99",
        "1E125",
    ]
    assert sorted(texts, key=lambda text: ordered_number(text)) == sorted(texts, key=Decimal)
    assert ordered_number("1.0") == ordered_number("1")


def test_keys_have_one_place_each() -> None:
    """Would take two items for one, or one for two."""
    schema = KeySchema(partition=PK, sort=KeyAttribute(name="sk", type="S"))
    places = {
        schema.place({"pk": {"S": pk}, "sk": {"S": sk}})
        for pk, sk in [("a", "bc"), ("ab", "c"), ("a", "b"), ("abc", "d")]
    }
    assert len(places) == 4
    numbers = KeySchema(partition=PK, sort=SK)
    assert numbers.place({"pk": {"S": "a"}, "sk": {"N": "1.0"}}) == numbers.place({"pk": {"S": "a"}, "sk": {"N": "1"}})


@pytest.mark.parametrize(
    "key",
    [
        {},
        {"pk": {"N": "1"}},
        {"pk": {"S": ""}},
        {"pk": {"S": "x" * 2049}},
        {"pk": {"S": "a"}, "more": {"S": "b"}},
        {"pk": 5},
    ],
)
def test_wrong_keys_are_refused(key: dict[str, Any]) -> None:
    """Would let a worker ask for what AWS would not look for."""
    with pytest.raises(InvalidItem):
        KeySchema(partition=PK).place(key, whole=True)


@pytest.mark.parametrize("schema", [KeySchema(partition=PK), KeySchema(partition=PK, sort=SK)])
@pytest.mark.parametrize("size", [800, 1024, 4000])
def test_every_generated_item_has_the_size_asked_for(schema: KeySchema, size: int) -> None:
    """Would make the units of a bench differ from item to item."""
    generator = Generator(schema=schema, size=size, seed=3)
    items = [json.loads(generator.item_json(number)) for number in (*range(200), 10**9)]
    assert {item_size(item) for item in items} == {size}
    assert len({json.dumps(schema.key(item)) for item in items}) == len(items)
    assert len({json.dumps(item["attribute0"]) for item in items}) == len(items)
    assert sum("M" in attribute for attribute in items[0].values()) == 10
    assert all(json.loads(generator.key_json(number)) == schema.key(items[number]) for number in range(200))


@pytest.mark.parametrize("schema", [KeySchema(partition=PK), KeySchema(partition=PK, sort=SK)])
def test_a_generated_item_is_found_again_and_no_other(schema: KeySchema) -> None:
    """Would keep a damaged item as if it were whole: the worst that a bench of recoveries could do."""
    generator = Generator(schema=schema)
    text = generator.item_json(41).decode()
    spaced = json.dumps(json.loads(text))
    assert generator.find(f"xx{text}yy", 2) == (41, 2 + len(text))
    assert generator.find(f"{spaced}}}", 0) == (41, len(spaced))
    assert Generator(schema=schema, seed=1).find(text, 0) is None
    assert generator.find(text.replace("fixed", "fixes", 1), 0) is None
    assert generator.find(text[:-1], 0) is None
    assert generator.find(text[:-1] + ',"more":{"S":"x"}}', 0) is None
    reordered = dict(reversed(json.loads(text).items()))
    assert generator.find(json.dumps(reordered), 0) is None


def test_a_share_of_the_items_can_be_hot() -> None:
    """Would call an even load hot."""
    generator = Generator(schema=KeySchema(partition=PK, sort=SK), hot_share=0.3)
    keys = [generator.partition_key(number) for number in range(1, 1001)]
    assert keys.count("item-000000000000") == pytest.approx(300, abs=1)
    shared = Generator(schema=KeySchema(partition=PK, sort=SK), partition_keys=10)
    assert len({shared.partition_key(number) for number in range(1000)}) == 10
