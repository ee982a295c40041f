"""Tables and values as DynamoDB may hold them."""

from __future__ import annotations

import base64
from typing import Any

from hypothesis import strategies as st

Item = dict[str, Any]

# Few letters and awkward ones: collisions and escapes matter more than variety.
text = st.text(alphabet='ab"\\,:[]{}\u00e9\u0301\U0001f600\x00 ', max_size=6)
# At the wire binary is base64 text.
binary = st.binary(max_size=4).map(lambda octets: base64.b64encode(octets).decode())
digits = st.integers(min_value=-(10**38) + 1, max_value=10**38 - 1)
number = st.one_of(
    digits.map(str),
    st.tuples(digits, st.integers(min_value=-80, max_value=80)).map(lambda parts: f"{parts[0]}E{parts[1]}"),
    st.sampled_from(["0", "-0", "1", "1.0", "0.1", "1E-130", "9.9E125", "1.50"]),
)
# One spelling a value, so that two members of a set are never the same number.
set_number = digits.map(str)

scalar = st.one_of(
    text.map(lambda value: {"S": value}),
    number.map(lambda value: {"N": value}),
    binary.map(lambda value: {"B": value}),
    st.booleans().map(lambda value: {"BOOL": value}),
    st.just({"NULL": True}),
    st.lists(text, min_size=1, max_size=4, unique=True).map(lambda value: {"SS": value}),
    st.lists(set_number, min_size=1, max_size=4, unique=True).map(lambda value: {"NS": value}),
    st.lists(binary, min_size=1, max_size=4, unique=True).map(lambda value: {"BS": value}),
)
value: st.SearchStrategy[dict[str, Any]] = st.recursive(
    scalar,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda entries: {"L": entries}),
        st.dictionaries(text, inner, max_size=3).map(lambda entries: {"M": entries}),
    ),
    max_leaves=5,
)
attributes = st.dictionaries(st.sampled_from(["a", "b", "name", "x.y", ""]), value, max_size=3)

keys = st.one_of(
    st.integers(min_value=-50, max_value=50).map(lambda number: {"id": {"N": str(number)}}),
    st.text(alphabet="abc", min_size=1, max_size=3).map(lambda letters: {"id": {"S": letters}}),
    st.binary(min_size=1, max_size=2).map(lambda octets: {"id": {"B": base64.b64encode(octets).decode()}}),
)


def _with_key(entry: tuple[Item, int, Item]) -> Item:
    key, sort, other = entry
    return {**other, **key, "sort": {"N": str(sort)}}


item = st.tuples(keys, st.integers(min_value=0, max_value=5), attributes).map(_with_key)
KEY = ("id", "sort")


def tables(min_size: int = 0, max_size: int = 30) -> st.SearchStrategy[list[Item]]:
    """Items with distinct keys."""
    return st.lists(
        item, min_size=min_size, max_size=max_size, unique_by=lambda entry: repr((entry["id"], entry["sort"]))
    )
