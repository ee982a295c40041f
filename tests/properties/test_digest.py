"""The digest of a table: blind to order, to nothing else."""

from __future__ import annotations

import copy
import random
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from handlers.core.digest import add_digests, canonical_item, canonical_number, digest_items, item_digest

from .profile import many
from .strategies import Item, digits, tables, value


@many
@given(items=tables(min_size=1), seed=st.integers(), cut=st.integers(min_value=0, max_value=30))
def test_order_and_division_do_not_matter(items: list[Item], seed: int, cut: int) -> None:
    """The same table in other segments, or read in another order, fails a good recovery."""
    whole = digest_items(items)
    shuffled = copy.deepcopy(items)
    random.Random(seed).shuffle(shuffled)
    assert digest_items(shuffled) == whole
    assert add_digests((digest_items(items[:cut]), digest_items(items[cut:]))) == whole
    assert digest_items(items[cut:], start=digest_items(items[:cut])) == whole


def _shuffle_sets(entry: Any, shuffle: random.Random) -> Any:
    if isinstance(entry, list):
        return [_shuffle_sets(member, shuffle) for member in entry]
    if not isinstance(entry, dict):
        return entry
    changed = {}
    for name, inner in shuffle.sample(list(entry.items()), len(entry)):
        is_set = name in ("SS", "NS", "BS") and isinstance(inner, list)
        changed[name] = shuffle.sample(inner, len(inner)) if is_set else _shuffle_sets(inner, shuffle)
    return changed


@many
@given(entry=value, seed=st.integers())
def test_the_order_of_sets_and_names_does_not_matter(entry: dict[str, Any], seed: int) -> None:
    """DynamoDB returns a set in another order, and a good recovery fails."""
    other = _shuffle_sets(entry, random.Random(seed))
    assert item_digest({"a": entry}) == item_digest({"a": other})


@many
@given(items=tables(min_size=1), which=st.integers(min_value=0))
def test_a_lost_item_is_seen(items: list[Item], which: int) -> None:
    """A dropped item adds nothing to the digest."""
    less = [item for index, item in enumerate(items) if index != which % len(items)]
    assert digest_items(less) != digest_items(items)


@many
@given(items=tables(min_size=1), which=st.integers(min_value=0))
def test_an_item_written_twice_is_seen(items: list[Item], which: int) -> None:
    """An item that was counted twice cancels out, or hides one that is missing."""
    assert digest_items([*items, items[which % len(items)]]) != digest_items(items)


def _same(one: Any, other: Any) -> bool:
    """Whether two attributes are one value, decided without the digest."""
    ((kind, left),), ((other_kind, right),) = one.items(), other.items()
    if kind != other_kind:
        return False
    if kind == "N":
        return canonical_number(left) == canonical_number(right)
    if kind in ("SS", "BS", "NS"):
        return set(left) == set(right)
    if kind == "L":
        return len(left) == len(right) and all(map(_same, left, right))
    if kind == "M":
        return left.keys() == right.keys() and all(_same(left[name], right[name]) for name in left)
    return bool(left == right)


@many
@given(items=tables(min_size=1), which=st.integers(min_value=0), name=st.sampled_from(["a", "new"]), entry=value)
def test_a_changed_attribute_is_seen(items: list[Item], which: int, name: str, entry: dict[str, Any]) -> None:
    """One attribute of one item is another, and the table counts as recovered."""
    index = which % len(items)
    before = items[index].get(name)
    assume(before is None or not _same(before, entry))
    changed = [*items[:index], {**items[index], name: entry}, *items[index + 1 :]]
    assert digest_items(changed) != digest_items(items)


@many
@given(one=value, other=value)
def test_only_equal_values_have_equal_forms(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Two values run into one canonical form."""
    assert (canonical_item({"a": one}) == canonical_item({"a": other})) == _same(one, other)


@many
@given(number=digits, place=st.integers(min_value=0, max_value=37), exponent=st.integers(min_value=-100, max_value=80))
def test_one_changed_digit_is_seen(number: int, place: int, exponent: int) -> None:
    """A number that was rounded on its way counts as equal."""
    text = str(abs(number))
    at = place % len(text)
    changed = text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :]
    assert item_digest({"a": {"N": f"{text}E{exponent}"}}) != item_digest({"a": {"N": f"{changed}E{exponent}"}})


@many
@given(number=digits, zeros=st.integers(min_value=1, max_value=20))
def test_spellings_of_one_number_are_equal(number: int, zeros: int) -> None:
    """A number that comes back in another spelling fails a good recovery."""
    forms = [str(number), f"{number}.{'0' * zeros}", f"{number}{'0' * zeros}E-{zeros}", f"{number}E0", f"{number}e+0"]
    assert len({canonical_number(form) for form in forms}) == 1


@many
@given(items=tables(min_size=2), entry=value, other=value)
def test_swapped_values_are_seen(items: list[Item], entry: dict[str, Any], other: dict[str, Any]) -> None:
    """Two items have each other's values: all values and all keys are there, in the wrong pairs."""
    assume(not _same(entry, other))
    one, two, *rest = items
    before = [{**one, "v": entry}, {**two, "v": other}, *rest]
    after = [{**one, "v": other}, {**two, "v": entry}, *rest]
    assert digest_items(before) != digest_items(after)
