"""Items in DynamoDB's JSON: their size, what DynamoDB refuses of them, and the order of their keys.

Sizes are those of "DynamoDB item sizes and formats" in the Amazon DynamoDB Developer Guide. It calls the size of a
number approximate, and says nothing of sets, which count as the sum of their members here.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation
from typing import Any, Literal

LONGEST_ITEM_BYTES = 400 * 1024
LONGEST_PARTITION_KEY_BYTES = 2048
LONGEST_SORT_KEY_BYTES = 1024
MOST_DIGITS = 38

KeyType = Literal["S", "N", "B"]

_CONTAINER_BYTES = 3
_ELEMENT_BYTES = 1
_PLAIN_NUMBER = re.compile(r"-?[1-9][0-9]{0,37}|0")
_PLAIN_NUMBERS = re.compile(r'"N": ?"(-?[1-9][0-9]{0,37}|0)"')
_NAMED_LIKE_A_MAP = re.compile(r'"M":\s*\{\s*"(?:S|N|B|M|L|BOOL|NULL|SS|NS|BS)":')
_PRECISE = Context(prec=200)
_LARGEST_EXPONENT = 125
_SMALLEST_EXPONENT = -130
_COMPACT = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class InvalidItem(Exception):  # noqa: N818 - named after what it tells; becomes a ValidationException
    """DynamoDB refuses the item; the message says why, as it does."""


def compact(value: Any) -> bytes:
    """JSON without blanks, in UTF-8."""
    return _COMPACT(value).encode("utf-8", "surrogatepass")


def normal_number(text: str) -> str:
    """The number as DynamoDB keeps it: without leading or trailing zeros, sign of zero or exponent.

    Raises:
        InvalidItem: no number, more than 38 digits, or out of range.
    """
    if _PLAIN_NUMBER.fullmatch(text):
        return text
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise InvalidItem(f"The parameter cannot be converted to a numeric value: {text}") from None
    if not number.is_finite():
        raise InvalidItem(f"The parameter cannot be converted to a numeric value: {text}")
    number = number.normalize(_PRECISE)
    if number == 0:
        return "0"
    if len(number.as_tuple().digits) > MOST_DIGITS:
        raise InvalidItem("Attempting to store more than 38 significant digits in a Number")
    if not _SMALLEST_EXPONENT <= number.adjusted() <= _LARGEST_EXPONENT:
        raise InvalidItem("Number overflow or underflow. Attempting to store a number out of the supported range")
    return format(number, "f")


def _text_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _number_size(text: str) -> int:
    """One byte, and one for each two significant digits begun."""
    digits = text.lstrip("-0.").replace(".", "")
    if digits[-1:] == "0" or not digits:
        digits = digits.rstrip("0")
    return (len(digits) + 1) // 2 + 1


def _binary_size(text: str) -> int:
    try:
        return len(base64.b64decode(text, validate=True))
    except (binascii.Error, ValueError):
        raise InvalidItem("Base64 encoded length is not a multiple of four bytes, or a character is invalid") from None


class _Measure:
    """Measures an item; ``changed`` tells whether a number had to be brought into its normal form, in place."""

    __slots__ = ("changed",)

    def __init__(self) -> None:
        self.changed = False

    def number(self, holder: Any, place: Any, text: Any) -> int:
        if not isinstance(text, str):
            raise InvalidItem("A Number must be sent as a string")
        normal = normal_number(text)
        if normal != text:
            holder[place] = normal
            self.changed = True
        return _number_size(normal)

    def value(self, attribute: Any) -> int:
        try:
            ((kind, value),) = attribute.items()
        except (AttributeError, ValueError):
            raise InvalidItem("Supplied AttributeValue has other than exactly one data type") from None
        if kind == "S" and isinstance(value, str):
            return len(value) if value.isascii() else _text_size(value)
        if kind == "N":
            return self.number(attribute, "N", value)
        if kind == "M" and isinstance(value, dict):
            return _CONTAINER_BYTES + sum(
                _text_size(name) + self.value(entry) + _ELEMENT_BYTES for name, entry in value.items()
            )
        if kind == "L" and isinstance(value, list):
            return _CONTAINER_BYTES + sum(self.value(entry) + _ELEMENT_BYTES for entry in value)
        if kind == "B" and isinstance(value, str):
            return _binary_size(value)
        if kind in ("BOOL", "NULL"):
            return 1
        if kind in ("SS", "NS", "BS") and isinstance(value, list):
            return self.set(kind, value)
        raise InvalidItem(f"Supplied AttributeValue is empty or of a wrong type: {kind}")

    def set(self, kind: str, members: list[Any]) -> int:
        if not members:
            raise InvalidItem("One or more parameter values were invalid: An set may not be empty")
        if kind == "SS":
            size = sum(map(_text_size, members))
        elif kind == "BS":
            size = sum(map(_binary_size, members))
        else:
            size = sum(self.number(members, place, member) for place, member in enumerate(members))
        if len(set(members)) != len(members):
            raise InvalidItem("One or more parameter values were invalid: Input collection contains duplicates")
        return size


def measure(item: Mapping[str, Any]) -> tuple[int, bool]:
    """The item's size in bytes, and whether numbers in it were brought into their normal form, in place.

    Raises:
        InvalidItem: DynamoDB refuses the item.
    """
    meter, size = _Measure(), 0
    for name, attribute in item.items():
        size += (len(name) if name.isascii() else _text_size(name)) + meter.value(attribute)
    if size > LONGEST_ITEM_BYTES:
        raise InvalidItem("Item size has exceeded the maximum allowed size")
    return size, meter.changed


def quick_size(text: str, attributes: int) -> int | None:
    """The size of an item of ``attributes`` attributes from its JSON without walking it; None where it takes more.

    JSON must be ASCII, and either without blanks or with one after each comma and colon. In a text without escapes each
    quotation mark begins or ends a string, so whatever pattern holds one is found outside strings only. Items with
    binary values, sets or numbers that are no plain integers are left to :func:`measure`.
    """
    if "\\" in text or not text.isascii():
        return None
    colon = ": " if '": ' in text else ":"
    strings, numbers = text.count(f'"S"{colon}"'), text.count(f'"N"{colon}"')
    maps, lists = text.count(f'"M"{colon}{{'), text.count(f'"L"{colon}[')
    truths = text.count(f'"BOOL"{colon}') + text.count(f'"NULL"{colon}')
    plain = _PLAIN_NUMBERS.findall(text)
    names = text.count(f'"{colon}{{') - maps
    types = strings + numbers + maps + lists + truths
    parts = text.split('"')
    # Every string is a name, a type or a value, or this is no item to measure so.
    if len(parts) - 1 != 2 * (names + types + strings + numbers) or len(plain) != numbers:
        return None
    # An attribute named M looks like a map.
    if maps and _NAMED_LIKE_A_MAP.search(text):
        return None
    size = sum(map(len, parts[1::2])) - (strings + numbers + maps + lists) - 4 * truths
    size += sum(map(_number_size, plain)) - sum(map(len, plain))
    # Each value but the attributes' own is an element of a map or list.
    size += _CONTAINER_BYTES * (maps + lists) + truths + _ELEMENT_BYTES * (types - attributes)
    return size if size <= LONGEST_ITEM_BYTES else None


def item_size(item: Mapping[str, Any]) -> int:
    """The item's size in bytes, as DynamoDB counts it. Binary values are base64 text."""
    return measure(json.loads(json.dumps(item)))[0]


@dataclass(frozen=True, kw_only=True)
class KeyAttribute:
    """One attribute of a table's key."""

    name: str
    type: KeyType


@dataclass(frozen=True, kw_only=True)
class KeySchema:
    """A table's key, and the ring of hashes on which its partition keys lie.

    Args:
        partition: the partition key.
        sort: the sort key, or None.
        order_seed: tables of the same seed have the same order of scan; AWS documents no order at all.
    """

    partition: KeyAttribute
    sort: KeyAttribute | None = None
    order_seed: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """The key's attributes."""
        return (self.partition.name,) if self.sort is None else (self.partition.name, self.sort.name)

    def place(self, item: Mapping[str, Any], *, whole: bool = False) -> bytes:
        """Where the item is in the order of a scan: no two keys share it, and it sorts as the scan goes.

        Eight bytes of hash of the partition key, the partition key, and the sort key in DynamoDB's order.

        Args:
            item: holds the key.
            whole: whether ``item`` must be a key and nothing else.

        Raises:
            InvalidItem: the key is not there, empty, too long or of another type.
        """
        if whole and len(item) != (1 if self.sort is None else 2):
            raise InvalidItem("The provided key element does not match the schema")
        partition = self._bytes(item, self.partition, LONGEST_PARTITION_KEY_BYTES)
        point = hashlib.blake2b(partition, digest_size=8, salt=self.order_seed.to_bytes(16, "big")).digest()
        if self.sort is None:
            return point + partition
        sort = self._bytes(item, self.sort, LONGEST_SORT_KEY_BYTES)
        return point + len(partition).to_bytes(2, "big") + partition + sort

    def key(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """The item's key."""
        return {name: item[name] for name in self.names}

    @staticmethod
    def _bytes(item: Mapping[str, Any], attribute: KeyAttribute, longest: int) -> bytes:
        try:
            ((kind, value),) = item[attribute.name].items()
        except KeyError:
            raise InvalidItem(
                f"One or more parameter values were invalid: Missing the key {attribute.name} in the item"
            ) from None
        except (AttributeError, ValueError):
            raise InvalidItem("Supplied AttributeValue has other than exactly one data type") from None
        if kind != attribute.type or not isinstance(value, str):
            raise InvalidItem(
                f"One or more parameter values were invalid: Type mismatch for key {attribute.name} "
                f"expected: {attribute.type} actual: {kind}"
            )
        if kind == "S":
            encoded = value.encode("utf-8", "surrogatepass")
        elif kind == "N":
            encoded = ordered_number(value)
        else:
            _binary_size(value)
            encoded = base64.b64decode(value)
        if not encoded:
            raise InvalidItem(
                "One or more parameter values are not valid. The AttributeValue for a key attribute cannot contain an "
                f"empty {'string' if kind == 'S' else 'binary'} value. Key: {attribute.name}"
            )
        if len(encoded) > longest:
            raise InvalidItem(f"One or more parameter values were invalid: Size of key has exceeded {longest} bytes")
        return encoded


def ordered_number(text: str) -> bytes:
    """Bytes that sort as the numbers do, and are equal where the numbers are.

    A byte for the sign, one for the exponent, and the digits with a terminator; all but the sign complemented where the
    number is negative.
    """
    number = Decimal(normal_number(text))
    if number == 0:
        return b"\x01"
    digits = number.normalize(_PRECISE).as_tuple().digits
    # From 0 to 255, since exponents go from -130 to 125.
    magnitude = bytes((number.adjusted() - _SMALLEST_EXPONENT, *(digit + 1 for digit in digits), 0))
    return b"\x02" + magnitude if number > 0 else b"\x00" + bytes(255 - byte for byte in magnitude)


def project(item: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The named attributes, as far as the item has them."""
    return {name: item[name] for name in names if name in item}
