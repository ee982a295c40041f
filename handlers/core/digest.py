"""An order-independent digest of a table's items.

Each item is written in one canonical form and hashed (BLAKE2b, 256 bits); the hashes are added modulo 2**256. Addition
makes the digest independent of the order of items, so segments can be digested apart and added up; and, unlike XOR,
it does not let two equal items cancel out.

Canonical form: attributes and map entries in the order of their names, set members in order, numbers without exponent,
sign of zero or trailing zeros (DynamoDB treats ``1``, ``1.0`` and ``1E0`` as one value), binary as base64. List
order and every other character count.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from decimal import Context, Decimal
from typing import Any

Item = Mapping[str, Any]
"""An item as DynamoDB's API gives it: ``{"name": {"S": "…"}}``."""

_MODULUS = 1 << 256
_PLAIN_INTEGER = re.compile(r"-?[1-9][0-9]*|0")
# DynamoDB keeps 38 significant digits; Python's default context keeps 28 and would round the rest away.
_PRECISE = Context(prec=200)
# ASCII escapes keep lone surrogates representable; sort_keys sorts maps at every depth. Made once: making it for each
# small item would take a tenth longer.
_write = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


def canonical_number(text: str) -> str:
    """One spelling for each number: ``-0``, ``0.0`` → ``0``; ``1.0``, ``1E0`` → ``1``; ``1E-3`` → ``0.001``."""
    if _PLAIN_INTEGER.fullmatch(text):
        return text
    number = Decimal(text).normalize(_PRECISE)
    return "0" if number == 0 else format(number, "f")


def _binary(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")


def _canonical_value(attribute: Mapping[str, Any]) -> list[Any]:
    """``[type, value]`` with the value in canonical form."""
    ((kind, value),) = attribute.items()
    if kind == "N":
        value = canonical_number(value)
    elif kind == "B":
        value = _binary(value)
    elif kind == "M":
        value = {name: _canonical_value(entry) for name, entry in value.items()}
    elif kind == "L":
        value = [_canonical_value(entry) for entry in value]
    elif kind == "SS":
        value = sorted(value)
    elif kind == "NS":
        value = sorted(canonical_number(member) for member in value)
    elif kind == "BS":
        value = sorted(_binary(member) for member in value)
    return [kind, value]


def canonical_item(item: Item) -> bytes:
    """The item's canonical form, as UTF-8 JSON. Unequal items have unequal forms."""
    form = {name: _canonical_value(attribute) for name, attribute in item.items()}
    return _write(form).encode("ascii")


def item_digest(item: Item) -> int:
    """The item's hash as a number of 256 bits."""
    return int.from_bytes(hashlib.blake2b(canonical_item(item), digest_size=32).digest(), "big")


def digest_items(items: Iterable[Item], start: int = 0) -> int:
    """Add the digests of ``items`` to ``start``, modulo 2**256."""
    return (start + sum(item_digest(item) for item in items)) % _MODULUS


def add_digests(digests: Iterable[int]) -> int:
    """Combine the digests of disjoint parts of a table."""
    return sum(digests) % _MODULUS


def to_hex(digest: int) -> str:
    """64 hexadecimal digits, the form in which a digest is stored and reported."""
    return f"{digest:064x}"


def from_hex(text: str) -> int:
    """Read back :func:`to_hex`."""
    return int(text, 16)
