"""The disaster: what a bad migration does to a table. It loses rows, mangles values and writes rubbish.

Deterministic: the same items and seed give the same damage.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from localaws.batches import Item, delete_request, put_request, write_all

SEED = 7

DELETED_SHARE = 0.20
CHANGED_SHARE = 0.30
ADDED_SHARE = 0.10
"""Shares of the items a table held before. Large enough that every page of a scan has something to mend."""

JUNK_HASH_KEYS = 5
"""Junk rows share a few hash keys where the table has a range key, as a runaway import would."""


@dataclass(frozen=True, kw_only=True)
class Schema:
    """What damage needs to know of a table."""

    keys: tuple[tuple[str, str], ...]
    """Key attributes, hash key first: (name, type "S", "N" or "B")."""
    indexed: frozenset[str]
    """Every attribute of a key or an index. DynamoDB refuses another type there, so damage leaves them alone."""


@dataclass(frozen=True, kw_only=True)
class Damage:
    """What is done to one table."""

    deleted: tuple[Item, ...]
    """Keys."""
    changed: tuple[Item, ...]
    """Whole items, as they are after the damage."""
    added: tuple[Item, ...]
    """Whole items under keys that were not in the table."""

    @property
    def total(self) -> int:
        """How many items differ from before."""
        return len(self.deleted) + len(self.changed) + len(self.added)

    def counts(self) -> dict[str, int]:
        """The contract's `damagedItems`, and what it is made of."""
        return {
            "damagedItems": self.total,
            "deletedItems": len(self.deleted),
            "changedItems": len(self.changed),
            "addedItems": len(self.added),
        }


def describe(client: Any, table: str) -> Schema:
    """Read the table's keys and indexed attributes."""
    description = client.describe_table(TableName=table)["Table"]
    types = {entry["AttributeName"]: entry["AttributeType"] for entry in description["AttributeDefinitions"]}
    ordered = sorted(description["KeySchema"], key=lambda part: str(part["KeyType"]))
    keys = tuple((part["AttributeName"], types[part["AttributeName"]]) for part in ordered)
    return Schema(keys=keys, indexed=frozenset(types))


def damage_tables(client: Any, tables: Mapping[str, Sequence[Item]], seed: int = SEED) -> dict[str, Damage]:
    """Damage every table.

    Args:
        client: a boto3 DynamoDB client.
        tables: table name -> the items it holds now.
        seed: picks which items suffer.

    Returns:
        What was done: table name -> damage.
    """
    done: dict[str, Damage] = {}
    for table, items in tables.items():
        done[table] = plan(items, describe(client, table), seed)
        apply(client, table, done[table])
    return done


def plan(items: Sequence[Item], schema: Schema, seed: int = SEED) -> Damage:
    """Choose what happens to which item; calls nothing.

    Raises:
        ValueError: the table is so small that nothing would be deleted or changed: a rehearsal of nothing.
    """
    generator = random.Random(seed)
    shuffled = sorted(items, key=lambda item: _sort_key(item, schema))
    generator.shuffle(shuffled)
    deletions, changes = int(len(items) * DELETED_SHARE), int(len(items) * CHANGED_SHARE)
    if not deletions or not changes:
        raise ValueError(f"{len(items)} items are too few to damage")
    names = [name for name, _ in schema.keys]
    return Damage(
        deleted=tuple({name: item[name] for name in names} for item in shuffled[:deletions]),
        changed=tuple(mangle(item, schema.indexed, generator) for item in shuffled[deletions : deletions + changes]),
        added=tuple(_junk(schema, int(len(items) * ADDED_SHARE) or 1)),
    )


def apply(client: Any, table: str, damage: Damage) -> None:
    """Do it: BatchWriteItem with puts and deletes."""
    requests = [delete_request(key) for key in damage.deleted]
    requests += [put_request(item) for item in (*damage.changed, *damage.added)]
    write_all(client, table, requests)


def mangle(item: Item, indexed: Collection[str], generator: random.Random) -> Item:
    """A damaged copy of `item`: never equal to it, with the same key."""
    free = sorted(name for name in item if name not in indexed)
    if not free or generator.random() < 0.2:
        return item | {"migrated by": {"S": "a script nobody reviewed"}}
    name = generator.choice(free)
    if generator.random() < 0.25:
        return {other: value for other, value in item.items() if other != name}
    return item | {name: _other_value(item[name])}


def _other_value(value: dict[str, Any]) -> dict[str, Any]:
    """A value that is easily mistaken for `value`: one bit, one digit or the type is wrong."""
    ((kind, content),) = value.items()
    match kind:
        case "S":
            return {"S": content[::-1] + "?"}
        case "N":
            return _wrong_number(str(content))
        case "BOOL":
            return {"BOOL": not content}
        case "B":
            return {"B": bytes(content)[:-1] + b"\x00\x01"}
        case "NULL":
            return {"S": "NULL"}
        case "L":
            return {"L": [*content, {"NULL": True}]}
        case "M":
            return {"M": {**content, "extra": {"N": "0"}}}
    # A set that became a list of the same values.
    return {"L": [{kind[0]: part} for part in content]}


def _wrong_number(text: str) -> dict[str, Any]:
    """The number with its last digit off by one; a number became text if there is no digit to spare."""
    number = Decimal(text)
    parts = number.as_tuple()
    if not number or not isinstance(parts.exponent, int):
        return {"S": text}
    last = parts.digits[-1] - 1 if parts.digits[-1] > 1 else parts.digits[-1] + 1
    return {"N": str(Decimal((parts.sign, (*parts.digits[:-1], last), parts.exponent)))}


def _junk(schema: Schema, count: int) -> Iterable[Item]:
    for number in range(count):
        key: Item = {}
        for position, (name, kind) in enumerate(schema.keys):
            shared = position == 0 and len(schema.keys) > 1
            key[name] = _junk_key(kind, number % JUNK_HASH_KEYS if shared else number)
        yield key | {"junk": {"S": f"row {number} of an import that ran twice"}}


def _junk_key(kind: str, number: int) -> dict[str, Any]:
    match kind:
        case "N":
            return {"N": str(9_000_000 + number)}
        case "B":
            return {"B": b"junk%06d" % number}
    return {"S": f"junk-{number:06d}"}


def _sort_key(item: Item, schema: Schema) -> tuple[Any, ...]:
    # A scan's order is DynamoDB's business; sorted by key, the same items suffer in every run.
    return tuple(Decimal(item[name][kind]) if kind == "N" else item[name][kind] for name, kind in schema.keys)
