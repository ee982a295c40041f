"""The sample application's items: public ISO lists, and every awkward value DynamoDB allows.

Everything is deterministic: two calls return the same items in the same order. Items are in the API's own notation
({"S": ...}, {"N": "..."}), because boto3's high-level types refuse some numbers that DynamoDB stores.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pycountry

from localaws.batches import Item

LICENSES = "local-licenses"
LANGUAGES = "local-languages"
MEASUREMENTS = "local-measurements"
SSN = "local-ssn"

SENSITIVE_ITEMS = 36
PLAIN_MEASUREMENTS = 480
DEEPEST_NESTING = 30
"""DynamoDB allows 32 levels of maps and lists."""

LARGE_BYTES = 180_000
LARGE_CHARACTERS = 150_000
"""Together above 300 KB, and below the 400 KB (409,600 bytes) DynamoDB allows an item."""

NUMBERS = (
    "0",
    "1",
    "-1",
    "0.1",
    "12345678901234567890123456789012345678",
    "-12345678901234567890123456789012345678",
    "1.2345678901234567890123456789012345678",
    "-0.00012345678901234567890123456789012345678",
    "9.9999999999999999999999999999999999999E+125",
    "-9.9999999999999999999999999999999999999E+125",
    "1E-130",
    "-1E-130",
    "1.2345678901234567890123456789012345678E-100",
    "1E+125",
    "9007199254740993",
    "0.30000000000000004",
)
"""Where careless code loses digits: 38 digits, both ends of the exponent's range, beyond a double's 53 bits."""

TEXTS = (
    "",
    " ",
    "plain",
    "Ünïcödé, ελληνικά, 日本語, العربية",
    "👩🏽‍🚀 emoji of several code points 🏴‍☠️",
    "caf\u00e9",  # the same word twice: composed here,
    "cafe\u0301",  # and decomposed here. DynamoDB keeps them apart.
    "".join(chr(code) for code in range(1, 32)) + "\u007f",
    "line\u2028separator, right-to-left \u202e override, zero\u200bwidth",
    '{"looks": "like JSON"}',
    "<script>alert('hello')</script> & \"quotes\" \\ backslash",
    "NULL",
    "\U0001f600\U0010fffd",
)

AWKWARD_NAMES = (
    "name",
    "size",
    "status",
    "order",
    "table",
    "with.dot",
    "with space",
    "#hash",
    ":colon",
    "a[0]",
    "emoji🙂",
    "tab\there",
    "_",
)
"""Reserved words, and names that expressions would read as paths or placeholders."""


def all_items() -> dict[str, list[Item]]:
    """Every table's items: table name -> items."""
    return {LICENSES: licenses(), LANGUAGES: languages(), MEASUREMENTS: measurements(), SSN: ssn()}


def licenses() -> list[Item]:
    """About 5,000 items, one a subdivision of ISO 3166-2; hash key `country`, range key `code`."""
    return [_license(entry) for entry in sorted(pycountry.subdivisions, key=lambda entry: str(entry.code))]


def _license(entry: Any) -> Item:
    checksum = zlib.crc32(str(entry.code).encode())
    item: Item = {
        "country": {"S": entry.country_code},
        "code": {"S": entry.code},
        "name": {"S": entry.name},
        "type": {"S": entry.type},
        "fee": {"N": str(Decimal(checksum % 100_000).scaleb(-2))},
        "active": {"BOOL": checksum % 7 != 0},
        "renewal": {"M": {"months": {"N": str(12 + checksum % 4 * 12)}, "online": {"BOOL": checksum % 2 == 0}}},
    }
    if getattr(entry, "parent_code", None):
        item["parent"] = {"S": entry.parent_code}
    return item


def languages() -> list[Item]:
    """About 7,900 items, one a language of ISO 639-3; hash key `code`."""
    return [_language(entry) for entry in sorted(pycountry.languages, key=lambda entry: str(entry.alpha_3))]


def _language(entry: Any) -> Item:
    item: Item = {
        "code": {"S": entry.alpha_3},
        "name": {"S": entry.name},
        "scope": {"S": entry.scope},
        "living": {"BOOL": entry.type == "L"},
    }
    alternatives = {getattr(entry, name, None) for name in ("alpha_2", "bibliographic")} - {None}
    if alternatives:
        item["otherCodes"] = {"SS": sorted(str(code) for code in alternatives)}
    if getattr(entry, "common_name", None):
        item["commonName"] = {"S": entry.common_name}
    return item


def measurements() -> list[Item]:
    """About 550 items that hold every attribute type; hash key `sensor` (a number), range key `token` (bytes)."""
    generator = random.Random(20261120)
    makers: tuple[Callable[[random.Random], list[dict[str, Any]]], ...] = (
        _number_attributes,
        _text_attributes,
        _small_attributes,
        _set_attributes,
        _nested_attributes,
        _named_attributes,
        _large_attributes,
        _plain_attributes,
    )
    contents = [attributes for maker in makers for attributes in maker(generator)]
    return [_measurement(index, attributes, generator) for index, attributes in enumerate(contents)]


def _measurement(index: int, attributes: Item, generator: random.Random) -> Item:
    # Keys are awkward too: negative and fractional numbers, bytes that are no valid text.
    sensor = Decimal(index % 23 - 11) / Decimal(4)
    key: Item = {
        "sensor": {"N": format(sensor, "f")},
        "token": {"B": b"\x00\xff" + index.to_bytes(2, "big") + generator.randbytes(4)},
        "recordedAt": {"S": f"2026-11-{1 + index % 19:02d}T{index % 24:02d}:{index % 60:02d}:00Z"},
    }
    return key | attributes


def _number_attributes(_: random.Random) -> list[Item]:
    return [{"value": {"N": number}} for number in NUMBERS]


def _text_attributes(_: random.Random) -> list[Item]:
    return [{"note": {"S": text}} for text in TEXTS]


def _small_attributes(_: random.Random) -> list[Item]:
    return [
        {},  # nothing but its key
        {"gone": {"NULL": True}},
        {"flag": {"BOOL": True}},
        {"flag": {"BOOL": False}},
        {"raw": {"B": b""}},
        {"raw": {"B": bytes(range(256))}},
        {"kind": {"N": "1"}},
        {"kind": {"S": "1"}},
        {"kind": {"B": b"1"}},
        {"kind": {"SS": ["1"]}},
        {"kind": {"NS": ["1"]}},
        {"kind": {"L": [{"S": "1"}]}},
        {"empty": {"M": {}}},
        {"empty": {"L": []}},
    ]


def _set_attributes(_: random.Random) -> list[Item]:
    return [
        {"tags": {"SS": ["zebra", "ant", "Zebra", "", "日本"]}},
        {"tags": {"NS": [number for number in NUMBERS if number not in ("0", "1")]}},
        {"tags": {"BS": [b"\xff", b"\x00", b"\x00\x00", b"text"]}},
        {"tags": {"SS": [f"tag-{number:03d}" for number in range(200)]}},
    ]


def _nested_attributes(generator: random.Random) -> list[Item]:
    chain: dict[str, Any] = {"S": "the bottom"}
    for level in range(DEEPEST_NESTING):
        chain = {"M": {f"level {level}": chain}} if level % 2 else {"L": [{"N": str(level)}, chain]}
    wide = {f"key {number}": {"L": [{"N": str(generator.randrange(10**12))}, {"NULL": True}]} for number in range(300)}
    mixed = {
        "L": [
            {"S": ""},
            {"N": "1E-130"},
            {"B": b"\x00"},
            {"BOOL": False},
            {"NULL": True},
            {"SS": ["b", "a"]},
            {"NS": ["2", "1"]},
            {"BS": [b"b", b"a"]},
            {"L": [{"L": []}, {"M": {}}]},
            {"M": {"": {"S": "an empty name inside a map"}}},
        ]
    }
    return [{"deep": chain}, {"wide": {"M": wide}}, {"mixed": mixed}]


def _named_attributes(_: random.Random) -> list[Item]:
    together: Item = {name: {"N": str(index)} for index, name in enumerate(AWKWARD_NAMES)}
    return [{name: {"S": f"named {index}"}} for index, name in enumerate(AWKWARD_NAMES)] + [together]


def _large_attributes(generator: random.Random) -> list[Item]:
    text = "".join(generator.choices("abcdefghijklmnopqrstuvwxyz ", k=LARGE_CHARACTERS))
    return [{"payload": {"B": generator.randbytes(LARGE_BYTES)}, "transcript": {"S": text}}]


def _plain_attributes(generator: random.Random) -> list[Item]:
    return [
        {
            "value": {"N": str(Decimal(generator.randrange(-(10**9), 10**9)).scaleb(-4))},
            "unit": {"S": generator.choice(("K", "Pa", "lx", "m/s"))},
            "raw": {"B": generator.randbytes(16)},
            "valid": {"BOOL": generator.random() < 0.9},
        }
        for _ in range(PLAIN_MEASUREMENTS)
    ]


def ssn() -> list[Item]:
    """A few dozen sensitive items, obviously made up: numbers that begin with 000 are never issued."""
    return [
        {
            "ssn": {"S": f"000-00-{number:04d}"},
            "holder": {"S": f"Nobody Number {number}"},
            "note": {"S": "synthetic, for the rehearsal only"},
        }
        for number in range(1, SENSITIVE_ITEMS + 1)
    ]
