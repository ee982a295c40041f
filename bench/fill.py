"""Items that follow from their number: a table of millions needs neither an upload nor memory.

A table keeps an item that equals the generated one by its number alone, whoever wrote it.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from .items import KeySchema, item_size

_ATTRIBUTES = 10
_TEXT_MARK = "~text~~~"
_NUMBER_MARK = "~number~"
_PARTITION_MARK = "~partition~"
_SORT_MARK = "~sort~"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True, kw_only=True)
class Generator:
    """Makes items of one size: a key and ten maps, each of a text, a number, a list of two and a truth value.

    Args:
        schema: the table's key: a partition key of type S, and a sort key of type N or none.
        size: bytes of an item as DynamoDB counts them; 1 KB costs one write unit.
        seed: another seed gives other contents under the same keys.
        partition_keys: how many partition keys there are, where the table has a sort key; None gives each item its own.
        hot_share: the share of the items that lie under the first partition key, where the table has a sort key.

    Raises:
        ValueError: the size is too small, or the key is of another type.
    """

    schema: KeySchema
    size: int = 1024
    seed: int = 0
    partition_keys: int | None = None
    hot_share: float = 0.0
    _padding: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        if self.schema.partition.type != "S" or (self.schema.sort is not None and self.schema.sort.type != "N"):
            raise ValueError("Items are generated for a partition key of type S, and a sort key of type N or none.")
        if self.schema.sort is None and (self.partition_keys is not None or self.hot_share):
            raise ValueError("Items share partition keys only where the table has a sort key.")
        if not all(map(_PLAIN_NAME.fullmatch, self.schema.names)):
            raise ValueError("Items are generated for keys named with letters, digits, _, . and - only.")
        if self.partition_keys is not None and self.partition_keys < 1:
            raise ValueError(f"partition_keys is {self.partition_keys}; expected 1 or more.")
        if not 0 <= self.hot_share <= 1:
            raise ValueError(f"hot_share is {self.hot_share}; expected 0 to 1.")
        padding = self.size - self._size_of(0)
        if padding < 0:
            raise ValueError(f"size is {self.size}; expected at least {self._size_of(0)}.")
        object.__setattr__(self, "_padding", padding)

    def _size_of(self, padding: int) -> int:
        return item_size(json.loads(self._fill(self._template(padding, "", ""), 0)))

    def _template(self, padding: int, after_comma: str, after_colon: str) -> str:
        """The item's JSON with marks for what varies; blanks after commas and colons as a writer may set them."""

        def pairs(*members: tuple[str, str]) -> str:
            return "{" + f",{after_comma}".join(f'"{name}":{after_colon}{value}' for name, value in members) + "}"

        def one(kind: str, value: str) -> str:
            return pairs((kind, value))

        key = [(self.schema.partition.name, one("S", f'"{_PARTITION_MARK}"'))]
        if self.schema.sort is not None:
            key.append((self.schema.sort.name, one("N", f'"{_SORT_MARK}"')))
        share, rest = divmod(padding, _ATTRIBUTES)
        maps = []
        for index in range(_ATTRIBUTES):
            text = _TEXT_MARK + "x" * (share + (index < rest))
            inner = pairs(
                ("text", one("S", f'"{text}"')),
                # Ten digits whatever the item, neither the first nor the last zero: the size of a number follows from
                # its digits.
                ("count", one("N", f'"{index + 1 if index < 9 else 1}{_NUMBER_MARK}7"')),
                ("tags", one("L", "[" + one("S", f'"{_TEXT_MARK}"') + f",{after_comma}" + one("S", '"fixed"') + "]")),
                ("flag", one("BOOL", "true")),
            )
            maps.append((f"attribute{index}", one("M", inner)))
        return pairs(*key, *maps)

    @cached_property
    def _compact(self) -> str:
        return self._template(self._padding, "", "")

    @cached_property
    def _spaced(self) -> str:
        return self._template(self._padding, " ", " ")

    @cached_property
    def _beginning(self) -> re.Pattern[str]:
        """Finds the number in the beginning of an item, and whether it has blanks."""
        pattern = rf'\{{"{re.escape(self.schema.partition.name)}":( ?)\{{"S": ?"item-([0-9]{{12}})"\}}'
        if self.schema.sort is not None:
            pattern += rf', ?"{re.escape(self.schema.sort.name)}": ?\{{"N": ?"1([0-9]{{10}})1"\}}'
        return re.compile(pattern)

    def partition_key(self, number: int) -> str:
        """The partition key of the item of this number."""
        if self.schema.sort is None:
            return f"item-{number:012d}"
        # Spread the hot items evenly among the others.
        if self.hot_share and int((number + 1) * self.hot_share) > int(number * self.hot_share):
            return f"item-{0:012d}"
        return f"item-{number if self.partition_keys is None else number % self.partition_keys:012d}"

    def _fill(self, template: str, number: int) -> str:
        source = hashlib.blake2b(b"%d:%d" % (self.seed, number), digest_size=8).digest()
        # The text holds no mark: hexadecimal digits.
        filled = (
            template.replace(_TEXT_MARK, source[:4].hex())
            .replace(_NUMBER_MARK, f"{int.from_bytes(source[4:], 'big') % 100_000_000:08d}")
            .replace(_PARTITION_MARK, self.partition_key(number))
        )
        return filled if self.schema.sort is None else filled.replace(_SORT_MARK, str(self._sort_key(number)))

    @staticmethod
    def _sort_key(number: int) -> int:
        return 10**11 + number * 10 + 1

    def key(self, number: int) -> dict[str, Any]:
        """The key of the item of this number."""
        key: dict[str, Any] = {self.schema.partition.name: {"S": self.partition_key(number)}}
        if self.schema.sort is not None:
            key[self.schema.sort.name] = {"N": str(self._sort_key(number))}
        return key

    def key_json(self, number: int) -> bytes:
        """The key of the item of this number, as JSON without blanks."""
        partition = f'"{self.schema.partition.name}":{{"S":"{self.partition_key(number)}"}}'
        if self.schema.sort is None:
            return f"{{{partition}}}".encode("ascii")
        return f'{{{partition},"{self.schema.sort.name}":{{"N":"{self._sort_key(number)}"}}}}'.encode("ascii")

    def item_json(self, number: int) -> bytes:
        """The item of this number, as JSON without blanks."""
        return self._fill(self._compact, number).encode("ascii")

    def find(self, text: str, at: int) -> tuple[int, int] | None:
        """The number of the item written at ``at``, and where it ends, if it is one of these to the letter.

        JSON may be without blanks, or have one after each comma and colon as Python's ``json`` sets them. None where
        it is another item, or its attributes are in another order.
        """
        beginning = self._beginning.match(text, at)
        if beginning is None:
            return None
        number = int(beginning.group(2 if self.schema.sort is None else 3))
        item = self._fill(self._spaced if beginning.group(1) else self._compact, number)
        return (number, at + len(item)) if text.startswith(item, at) else None
