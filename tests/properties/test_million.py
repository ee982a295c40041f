"""A million items, each changed once: no change passes for equal, and what DynamoDB calls equal passes."""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable

import pytest

from handlers.core.digest import add_digests, canonical_item, digest_items, item_digest

from .strategies import Item

ITEMS = 1_000_000
SEED = 20_261_120


def make(number: int) -> Item:
    """A small item: a key of two parts, a number with a value of its own, a set, a nested number."""
    return {
        "pk": {"S": f"k{number // 3}"},
        "sk": {"N": str(number)},
        "v": {"N": f"{10_000_000 + number}.25"},
        "tags": {"SS": ["a", f"t{number}"]},
        "m": {"M": {"n": {"N": "1"}}},
    }


# Each takes an item, its neighbour and a random generator; answers (items before, items after).
Mutation = Callable[[Item, Item, random.Random], tuple[list[Item], list[Item]]]


def drop(item: Item, _: Item, __: random.Random) -> tuple[list[Item], list[Item]]:
    """The item is gone."""
    return [item], []


def add(item: Item, _: Item, __: random.Random) -> tuple[list[Item], list[Item]]:
    """Another item with the same attributes appears."""
    return [], [{**item, "sk": {"N": f"-{item['sk']['N']}.5"}}]


def write_twice(item: Item, _: Item, __: random.Random) -> tuple[list[Item], list[Item]]:
    """The item is counted twice: no table holds it twice, but a digest that cancels pairs out would not see it."""
    return [], [item]


def change_a_digit(item: Item, _: Item, chance: random.Random) -> tuple[list[Item], list[Item]]:
    """One digit, anywhere in the number."""
    text = item["v"]["N"]
    place = chance.choice([index for index, letter in enumerate(text) if letter.isdigit()])
    return [item], [{**item, "v": {"N": text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]}}]


def swap_values(item: Item, neighbour: Item, _: random.Random) -> tuple[list[Item], list[Item]]:
    """Two items have each other's value."""
    return [item, neighbour], [{**item, "v": neighbour["v"]}, {**neighbour, "v": item["v"]}]


def change_the_key(item: Item, _: Item, __: random.Random) -> tuple[list[Item], list[Item]]:
    """The item moves to another key; the number of items stays."""
    return [item], [{**item, "pk": {"S": item["pk"]["S"] + " "}}]


def number_to_text(item: Item, _: Item, __: random.Random) -> tuple[list[Item], list[Item]]:
    """The same characters, of another type."""
    return [item], [{**item, "v": {"S": item["v"]["N"]}}]


def rename_an_attribute(item: Item, _: Item, __: random.Random) -> tuple[list[Item], list[Item]]:
    """The same value under another name."""
    return [item], [{("w" if name == "v" else name): value for name, value in item.items()}]


def drop_an_attribute(item: Item, _: Item, __: random.Random) -> tuple[list[Item], list[Item]]:
    """One attribute is gone."""
    return [item], [{name: value for name, value in item.items() if name != "tags"}]


def change_inside(item: Item, _: Item, __: random.Random) -> tuple[list[Item], list[Item]]:
    """A number in a map: 1 becomes 10."""
    return [item], [{**item, "m": {"M": {"n": {"N": "10"}}}}]


def reorder(item: Item, _: Item, __: random.Random) -> tuple[list[Item], list[Item]]:
    """The set's members and the attributes in another order: equal."""
    changed = dict(reversed({**item, "tags": {"SS": item["tags"]["SS"][::-1]}}.items()))
    return [item], [changed]


def respell(item: Item, _: Item, __: random.Random) -> tuple[list[Item], list[Item]]:
    """The same numbers in other spellings, as DynamoDB may give them back: equal."""
    changed = {**item, "v": {"N": item["v"]["N"] + "00"}, "m": {"M": {"n": {"N": "1.0"}}}}
    return [item], [{**changed, "sk": {"N": item["sk"]["N"] + "E0"}}]


DIFFERENT: tuple[Mutation, ...] = (
    drop, add, write_twice, change_a_digit, swap_values, change_the_key, number_to_text, rename_an_attribute,
    drop_an_attribute, change_inside,
)  # fmt: skip
EQUAL: tuple[Mutation, ...] = (reorder, respell)


def minus(total: int, part: int) -> int:
    """A table's digest without these items' digest."""
    return (total - part) % (1 << 256)


def test_a_sum_less_a_part_is_the_rest() -> None:
    """The run below takes a table's digest without some items from a shortcut that is wrong."""
    items = [make(number) for number in range(20)]
    for index, item in enumerate(items):
        rest = [*items[:index], *items[index + 1 :]]
        assert minus(digest_items(items), item_digest(item)) == digest_items(rest)


# Some 40 seconds on one core: well below the limit, and above what a busy machine makes of it.
@pytest.mark.timeout(900)
def test_no_change_of_any_of_a_million_items_passes_for_equal(capsys: pytest.CaptureFixture[str]) -> None:
    """A rare value, a collision or an overflow of the sum lets one changed item in a million pass for equal."""
    started, chance = time.monotonic(), random.Random(SEED)
    digests = [item_digest(make(number)) for number in range(ITEMS)]
    table = add_digests(digests)
    # 64 of the 256 bits tell items apart as well, and a million of them fit into memory.
    seen = {digest >> 192 for digest in digests}
    assert len(seen) == ITEMS, "two different items have one digest"
    done: Counter[str] = Counter()
    mutations = (*DIFFERENT, *EQUAL)
    neighbour = make(0)
    for number in range(ITEMS):
        item, neighbour = neighbour, make((number + 1) % ITEMS)
        mutation = mutations[chance.randrange(len(mutations))]
        before, after = mutation(item, neighbour, chance)
        # Of the items as they were, the digests are known.
        old = add_digests(digests[(number + index) % ITEMS] for index in range(len(before)))
        new = [item_digest(entry) for entry in after]
        changed = add_digests((minus(table, old), *new))
        assert (changed == table) is (mutation in EQUAL), f"{mutation.__name__} of item {number}"
        if mutation in EQUAL:
            assert new == [old]
            assert after != before
        elif mutation is not write_twice:
            forms = {digest >> 192 for digest in new}
            assert len(forms) == len(new)
            assert not forms & seen, f"{mutation.__name__} of item {number} has the digest of another item"
        done[mutation.__name__] += 1
    assert sum(done.values()) == ITEMS
    assert min(done.values()) > ITEMS // 20, "a mutation was hardly tried"
    with capsys.disabled():
        sys.stdout.write(f"\n{ITEMS} items, each changed once: no change missed; {time.monotonic() - started:.1f} s\n")


def test_mutations_do_what_they_say() -> None:
    """A mutation that changes nothing proves nothing; one that only respells, but a value, would prove the wrong."""
    item, neighbour, chance = make(7), make(8), random.Random(SEED)
    for mutation in DIFFERENT:
        before, after = mutation(item, neighbour, chance)
        forms = [sorted(map(canonical_item, side)) for side in (before, after)]
        assert forms[0] != forms[1], mutation.__name__
    for mutation in EQUAL:
        before, after = mutation(item, neighbour, chance)
        assert repr(before) != repr(after)
        assert [*map(canonical_item, before)] == [*map(canonical_item, after)]
