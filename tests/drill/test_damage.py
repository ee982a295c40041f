"""The damage must be real, of every kind, and the same each time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from localaws import damage, proof, sample, sample_data
from localaws.batches import BatchRefusedError, put_request, write_all
from localaws.damage import Schema

ALL = sample_data.all_items()
PROTECTED = [table for table in sample.TABLES if table.name in sample.PROTECTED_TABLES]


def schema_of(table: sample.TableSpec) -> Schema:
    """What `damage.describe` would read from the table."""
    return Schema(
        keys=table.keys,
        indexed=frozenset(entry["AttributeName"] for entry in table.create_arguments()["AttributeDefinitions"]),
    )


def damaged(items: list[dict[str, Any]], done: damage.Damage, names: tuple[str, ...]) -> list[dict[str, Any]]:
    """The table's content after the damage."""

    def key(item: dict[str, Any]) -> str:
        return repr([item[name] for name in names])

    content = {key(item): item for item in items}
    for gone in done.deleted:
        del content[key(gone)]
    content.update({key(item): item for item in (*done.changed, *done.added)})
    return list(content.values())


@pytest.mark.parametrize("table", PROTECTED, ids=lambda table: table.name)
def test_every_kind_of_damage_is_real(table: sample.TableSpec) -> None:
    """A "changed" item equals its former self, or a junk row hits an existing key: counts lie."""
    items, names = ALL[table.name], tuple(name for name, _ in table.keys)
    done = damage.plan(items, schema_of(table))
    found = proof.compare(items, damaged(items, done, names), names)
    assert (found.missing, found.changed, found.extra) == (len(done.deleted), len(done.changed), len(done.added))
    assert found.missing >= len(items) * 0.19
    assert found.changed >= len(items) * 0.29
    assert found.extra > 0
    assert done.total == found.missing + found.changed + found.extra == done.counts()["damagedItems"]


@pytest.mark.parametrize("table", PROTECTED, ids=lambda table: table.name)
def test_same_damage_whatever_order_the_scan_has(table: sample.TableSpec) -> None:
    """A failure seen once cannot be repeated."""
    items = list(ALL[table.name])
    first = damage.plan(items, schema_of(table))
    random.Random(1).shuffle(items)
    assert damage.plan(items, schema_of(table)) == first
    assert damage.plan(items, schema_of(table), seed=damage.SEED + 1) != first


def test_mangling_never_returns_the_same_item_or_another_key() -> None:
    """Mangling some type is the identity, so the rehearsal's damage is smaller than it says."""
    table = next(each for each in PROTECTED if each.name == sample_data.MEASUREMENTS)
    names, generator = tuple(name for name, _ in table.keys), random.Random(3)
    for item in ALL[table.name]:
        for _ in range(8):
            changed = damage.mangle(item, schema_of(table).indexed, generator)
            assert proof.compare([item], [changed], names).changed == 1


def test_too_small_a_table_is_refused() -> None:
    """Nothing is damaged, and a recovery that does nothing passes."""
    with pytest.raises(ValueError, match="too few"):
        damage.plan([{"code": {"S": "a"}}], Schema(keys=(("code", "S"),), indexed=frozenset({"code"})))


@pytest.fixture
def dynamodb() -> Iterator[Any]:
    """An empty DynamoDB."""
    with mock_aws():
        yield boto3.client("dynamodb", region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")


def test_applied_damage_is_what_was_reported(dynamodb: Any) -> None:
    """The report's `damagedItems` is what was planned, not what was written."""
    table = next(each for each in sample.TABLES if each.name == sample_data.LICENSES)
    sample.create_table(dynamodb, table)
    items = ALL[table.name][:60]
    write_all(dynamodb, table.name, map(put_request, items))
    before, names = proof.scan_table(dynamodb, table.name), proof.key_names(dynamodb, table.name)
    assert names == ("country", "code")
    assert proof.compare(items, before, names).equal
    done = damage.damage_tables(dynamodb, {table.name: before})[table.name]
    found = proof.compare(before, proof.scan_table(dynamodb, table.name), names)
    assert (found.missing, found.changed, found.extra) == (12, 18, 6)
    assert done.total == 36


class Reluctant:
    """A client that leaves the last request of a batch unprocessed, `refusals` times in all."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.written: list[dict[str, Any]] = []

    def batch_write_item(self, RequestItems: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:  # noqa: N803
        """BatchWriteItem."""
        ((table, requests),) = RequestItems.items()
        assert 0 < len(requests) <= 25
        if not self.refusals:
            self.written.extend(requests)
            return {"UnprocessedItems": {}}
        self.refusals -= 1
        self.written.extend(requests[:-1])
        return {"UnprocessedItems": {table: requests[-1:]}}


def test_unprocessed_items_are_sent_again() -> None:
    """The sample application silently lacks items that DynamoDB handed back."""
    client, pauses = Reluctant(refusals=4), list[float]()
    requests = [put_request({"id": {"N": str(number)}}) for number in range(60)]
    assert write_all(client, "t", requests, sleep=pauses.append) == 60
    assert sorted(map(repr, client.written)) == sorted(map(repr, requests))
    assert len(pauses) == 4


def test_endless_refusal_ends_in_an_error() -> None:
    """The rehearsal hangs, or goes on with half its items."""
    with pytest.raises(BatchRefusedError, match="still unprocessed") as caught:
        write_all(Reluctant(refusals=10**6), "t", [put_request({"id": {"N": "1"}})], sleep=lambda _: None)
    assert caught.value.left == 1
