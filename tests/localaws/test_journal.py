"""The journal behind point-in-time recovery, against a model that keeps every state."""

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from localaws.emulator.journal import Journal, copied

keys = st.tuples(st.sampled_from("abc"), st.sampled_from("12"))
operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), keys, st.integers(0, 3)),
        st.tuples(st.just("delete"), keys, st.none()),
        st.tuples(st.just("replace"), st.dictionaries(keys, st.integers(4, 6), max_size=3), st.none()),
    ),
    max_size=20,
)


def _flat(items: Mapping[Any, Mapping[Any, Any]]) -> dict[Any, Any]:
    return {(partition, sort): item for partition, sorts in items.items() for sort, item in sorts.items()}


def _nested(flat: Mapping[Any, Any]) -> dict[Any, dict[Any, Any]]:
    items: dict[Any, dict[Any, Any]] = {}
    for (partition, sort), item in flat.items():
        items.setdefault(partition, {})[sort] = item
    return items


@given(baseline=st.dictionaries(keys, st.integers(7, 9), max_size=4), steps=operations)
def test_every_state_of_the_past_can_be_restored(
    baseline: dict[Any, Any], steps: list[tuple[str, Any, int | None]]
) -> None:
    """Would catch: a restore that holds a write too many or too few, or brings back a deleted item."""
    model: dict[Any, Any] = {key: {"v": value} for key, value in baseline.items()}
    journal = Journal(100.0, _nested(model))
    states = [dict(model)]
    for number, (kind, what, value) in enumerate(steps, start=1):
        moment = 100.0 + number
        if kind == "put":
            model[what] = {"v": value}
            journal.wrote(moment, what[0], what[1], {"v": value})
        elif kind == "delete":
            model.pop(what, None)
            journal.wrote(moment, what[0], what[1], None)
        else:
            model = {key: {"v": number} for key, number in what.items()}
            journal.replaced(moment, _nested(model))
        states.append(dict(model))
    for number, state in enumerate(states):
        restored = journal.state_at(100.0 + number)
        assert _flat(restored) == state
        assert _flat(journal.state_at(100.5 + number)) == state
        assert all(restored.values()), "no partition is left empty"


def test_copies_share_items_but_not_keys() -> None:
    """Would catch: a restored table whose deletes reach into the source."""
    item = {"pk": {"S": "a"}}
    items = {"a": {"1": item}}
    copy = copied(items)
    del copy["a"]["1"]
    assert items == {"a": {"1": item}}
    assert copied(items)["a"]["1"] is item
