"""An order-independent digest of a table's items.

Each item is written in one canonical form and hashed (BLAKE2b, 256 bits); the hashes are added modulo 2**256. Addition
makes the digest independent of the order of items, so segments can be digested apart and added up; and, unlike XOR,
it does not let two equal items cancel out.

Canonical form: DynamoDB's JSON with attributes and map entries in the order of their names, set members in order,
numbers without exponent, sign of zero or trailing zeros (DynamoDB treats ``1``, ``1.0`` and ``1E0`` as one value),
binary as base64. List order and every other character count.
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
"""An item as DynamoDB's JSON has it: ``{"name": {"S": "…"}}``. Binary is base64 text; bytes mean the same."""

_MODULUS = 1 << 256
_PLAIN = r"(?:0|-?[1-9][0-9]*|-?(?:0|[1-9][0-9]*)\.[0-9]*[1-9])"
_PLAIN_NUMBER = re.compile(_PLAIN)
# What in an item's JSON may have more than one spelling: a number that is not in its plain one, and a set. Neither
# pattern can be part of a string, where a quote is escaped. It may find what needs no care, but misses nothing.
_MAY_VARY = re.compile(rf'"N":"(?!{_PLAIN}")|"[SNB]S":\[')
# DynamoDB keeps 38 significant digits; Python's default context keeps 28 and would round the rest away.
_PRECISE = Context(prec=200)


def canonical_number(text: str) -> str:
    """One spelling for each number: ``-0``, ``0.0`` → ``0``; ``1.0``, ``1E0`` → ``1``; ``1E-3`` → ``0.001``."""
    if _PLAIN_NUMBER.fullmatch(text):
        return text
    number = Decimal(text).normalize(_PRECISE)
    return "0" if number == 0 else format(number, "f")


def _binary(value: bytes | str) -> str:
    return value if isinstance(value, str) else base64.b64encode(value).decode("ascii")


# sort_keys sorts maps at every depth. Made once: making it for each small item would take a tenth longer.
_write = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=_binary).encode


def _canonical_value(attribute: Mapping[str, Any]) -> dict[str, Any]:
    """The attribute with its value in canonical form."""
    ((kind, value),) = attribute.items()
    if kind == "N":
        value = canonical_number(value)
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
    return {kind: value}


def write_item(item: Item) -> str:
    """The item as JSON: every value as it is, every set in its order, only attributes and map entries sorted."""
    return _write(item)


def canonical_item(item: Item, text: str | None = None) -> bytes:
    """The item's canonical form, as UTF-8 JSON. Unequal items have unequal forms.

    ``text`` is the item by :func:`write_item`, where the caller has it.
    """
    form = write_item(item) if text is None else text
    if _MAY_VARY.search(form):
        form = _write({name: _canonical_value(attribute) for name, attribute in item.items()})
    # Lone surrogates, which DynamoDB cannot hold, shall not end a digest either.
    return form.encode("utf-8", "surrogatepass")


def item_digest(item: Item, text: str | None = None) -> int:
    """The item's hash as a number of 256 bits; ``text`` as for :func:`canonical_item`."""
    return int.from_bytes(hashlib.blake2b(canonical_item(item, text), digest_size=32).digest(), "big")


def digest_items(items: Iterable[Item], start: int = 0) -> int:
    """Add the digests of ``items`` to ``start``, modulo 2**256."""
    return add_digests([start, *map(item_digest, items)])


def add_digests(digests: Iterable[int]) -> int:
    """Combine the digests of disjoint parts of a table."""
    return sum(digests) % _MODULUS


def to_hex(digest: int) -> str:
    """64 hexadecimal digits, the form in which a digest is stored and reported."""
    return f"{digest:064x}"


def from_hex(text: str) -> int:
    """Read back :func:`to_hex`."""
    return int(text, 16)
