"""A table's history since point-in-time recovery was enabled: enough to say what it held at any instant since.

Items are shared with the table, not copied: ministack replaces stored items and never changes one in place.
"""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

Item = Mapping[str, Any]
Items = dict[Any, dict[Any, Item]]


class Journal:
    """Every write since `enabled_at` (epoch seconds), over a copy of what the table held then."""

    def __init__(self, enabled_at: float, items: Mapping[Any, Mapping[Any, Item]]) -> None:
        self.enabled_at = enabled_at
        self._baseline = copied(items)
        self._entries: list[tuple[float, Any, Any, Item | None]] = []
        self._replacements: list[tuple[float, int, Items]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def wrote(self, moment: float, partition: Any, sort: Any, item: Item | None) -> None:
        """Note that the item under this key became `item`, or was deleted (None)."""
        self._entries.append((moment, partition, sort, item))

    def replaced(self, moment: float, items: Mapping[Any, Mapping[Any, Item]]) -> None:
        """Note that the whole table became `items`, as a rolled-back transaction does."""
        self._replacements.append((moment, len(self._entries), copied(items)))

    def state_at(self, moment: float) -> Items:
        """What the table held at `moment` (epoch seconds): every write up to and including it, none after."""
        state, first = copied(self._baseline), 0
        for replaced_at, position, items in self._replacements:
            if replaced_at <= moment:
                state, first = copied(items), position
        for written_at, partition, sort, item in self._entries[first:]:
            if written_at > moment:
                break
            if item is not None:
                state.setdefault(partition, {})[sort] = item
            elif partition in state:
                state[partition].pop(sort, None)
                if not state[partition]:
                    del state[partition]
        return state


def copied(items: Mapping[Any, Mapping[Any, Item]]) -> Items:
    """The two levels of keys copied, the items shared; a defaultdict, as ministack expects of a table's items."""
    copy: Items = defaultdict(dict)
    for partition, sorts in items.items():
        copy[partition] = dict(sorts)
    return copy
