"""The proof that the destination is empty, and the verdict: what they let through is lost."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import pytest

from handlers import runtime
from handlers.core.clock import from_iso
from handlers.core.errors import DestinationNotEmpty, InvalidRequest, VerificationFailed

from .conftest import Aws
from .support import (
    FailCalls,
    Item,
    Steps,
    checkpoints,
    create_table,
    ledger_items,
    make_items,
    one_page,
    put_all,
    scan_all,
    throttling,
)

KEY = (("country", "S"), ("code", "N"))
ITEMS = 12
NOW = int(time.time())
HORIZON = NOW + 6 * 3600
YEAR = 365 * 86_400


@pytest.fixture
def copied(aws: Aws, steps: Steps) -> Any:
    """The plan of a reset whose copy is done: 12 equal items on both sides."""
    return steps.copied(aws.dynamodb, KEY, ITEMS)


def record(aws: Aws, steps: Steps) -> Item:
    """The ledger's record of the reset."""
    return ledger_items(aws.dynamodb)[f"INCIDENT#{steps.incident_id}", f"TABLE#{steps.table}"]


def test_an_empty_table_is_proven_empty(aws: Aws, steps: Steps) -> None:
    """The copy begins without a proof, or the record still says purge and a resumption purges the copy."""
    create_table(aws.dynamodb, steps.source, KEY)
    create_table(aws.dynamodb, steps.table, KEY)
    plan = steps.preflight()
    assert record(aws, steps)["phase"] == {"S": "purge"}
    assert steps.prove_empty(plan) == {"empty": True}
    assert record(aws, steps)["phase"] == {"S": "copy"}
    assert steps.preflight()["phase"] == "copy"


def test_one_item_is_enough_to_refuse(aws: Aws, steps: Steps) -> None:
    """An item written after the purge stays in the table next to the copied ones."""
    create_table(aws.dynamodb, steps.source, KEY)
    create_table(aws.dynamodb, steps.table, KEY)
    put_all(aws.dynamodb, steps.table, make_items(KEY, 1))
    plan = steps.preflight()
    with pytest.raises(DestinationNotEmpty, match="Stop that writer"):
        steps.prove_empty(plan)
    resumed = steps.preflight()
    assert (resumed["phase"], resumed["attempt"]) == ("purge", 2)
    steps.purge(resumed)
    assert scan_all(aws.dynamodb, steps.table) == []
    assert steps.prove_empty(resumed) == {"empty": True}


def test_an_item_behind_empty_pages_is_found(aws: Aws, steps: Steps) -> None:
    """A scan's first pages may be empty while items come later: the first page alone proves nothing."""
    create_table(aws.dynamodb, steps.source, KEY)
    create_table(aws.dynamodb, steps.table, KEY)
    put_all(aws.dynamodb, steps.table, make_items(KEY, 3))
    plan = steps.preflight()
    pages: list[int] = []

    def empty_pages_first(parsed: dict[str, Any], **_: Any) -> None:
        pages.append(parsed["Count"])
        if len(pages) <= 2:
            parsed.update({"Count": 0, "LastEvaluatedKey": {"country": {"S": "\x00"}, "code": {"N": str(len(pages))}}})

    runtime.data_client().meta.events.register("after-call.dynamodb.Scan", empty_pages_first)
    with pytest.raises(DestinationNotEmpty):
        steps.prove_empty(plan)
    assert len(pages) == 3


def test_equal_tables_are_verified(aws: Aws, steps: Steps, copied: Any) -> None:
    """The output lacks what the contract promises, or is not what the ledger keeps for the report."""
    steps.digest(copied)
    summary = steps.verify(copied)
    assert set(summary) >= {
        "tableName",
        "mode",
        "purgedItems",
        "copiedItems",
        "verifiedItems",
        "sourceDigest",
        "destinationDigest",
        "verified",
        "durationSeconds",
        "consumedCapacity",
    }
    assert summary["verified"] is True
    assert summary["verifiedItems"] == ITEMS
    assert summary["durationSeconds"] >= 0
    assert summary["consumedCapacity"]["writeUnits"] > 0
    assert summary["consumedCapacity"]["readUnits"] > 0
    assert record(aws, steps)["phase"] == {"S": "verified"}
    # A retried invocation, whose first answer was lost, must find the same.
    assert steps.verify(copied) == {**summary, "durationSeconds": pytest.approx(summary["durationSeconds"], abs=5)}


def test_how_long_each_phase_took(aws: Aws, steps: Steps, copied: Any) -> None:
    """Durations of phases that are not of this reset, or negative because two clocks differ."""
    began = record(aws, steps)
    steps.digest(copied)
    copying = int(from_iso(began["copyStartedAt"]["S"]).timestamp())
    assert copying >= int(from_iso(began["startedAt"]["S"]).timestamp()) > 0
    phases = steps.verify(copied, since=copying + 7)["phaseSeconds"]
    assert set(phases) == {"purge", "copy", "verify"}
    assert phases["copy"] == 7
    assert all(0 <= seconds < 600 for seconds in phases.values())
    assert steps.verify(copied, since=copying - 100)["phaseSeconds"]["copy"] == 0


def drop(aws: Aws, steps: Steps) -> None:
    """An item of the destination is gone."""
    item = scan_all(aws.dynamodb, steps.table)[0]
    aws.dynamodb.delete_item(TableName=steps.table, Key={name: item[name] for name, _ in KEY})


def add(aws: Aws, steps: Steps) -> None:
    """An item appears."""
    put_all(aws.dynamodb, steps.table, make_items(KEY, 1, first=500))


def replace(aws: Aws, steps: Steps) -> None:
    """An item is gone and another appears: the counts agree."""
    drop(aws, steps)
    add(aws, steps)


def change_a_digit(aws: Aws, steps: Steps) -> None:
    """The last of 38 digits of one number."""
    item = scan_all(aws.dynamodb, steps.table)[0]
    digits = item["long.number"]["N"]
    item["long.number"] = {"N": digits[:-1] + str((int(digits[-1]) + 1) % 10)}
    put_all(aws.dynamodb, steps.table, [item])


def drop_an_attribute(aws: Aws, steps: Steps) -> None:
    """One attribute of one item."""
    item = scan_all(aws.dynamodb, steps.table)[0]
    del item["empty"]
    put_all(aws.dynamodb, steps.table, [item])


def swap_two_values(aws: Aws, steps: Steps) -> None:
    """Two items with each other's text."""
    one, other, *_ = scan_all(aws.dynamodb, steps.table)
    assert one["text"] != other["text"]
    put_all(aws.dynamodb, steps.table, [{**one, "text": other["text"]}, {**other, "text": one["text"]}])


def empty_the_table(aws: Aws, steps: Steps) -> None:
    """Nothing is left."""
    for item in scan_all(aws.dynamodb, steps.table):
        aws.dynamodb.delete_item(TableName=steps.table, Key={name: item[name] for name, _ in KEY})


@pytest.mark.parametrize(
    "damage", [drop, add, replace, change_a_digit, drop_an_attribute, swap_two_values, empty_the_table]
)
def test_a_difference_is_found(aws: Aws, steps: Steps, copied: Any, damage: Callable[[Aws, Steps], None]) -> None:
    """A table that differs is called recovered; or a resumption would verify it again without copying anew."""
    damage(aws, steps)
    assert scan_all(aws.dynamodb, steps.table) != scan_all(aws.dynamodb, steps.source)
    steps.digest(copied)
    with pytest.raises(VerificationFailed, match="Expected both to be equal"):
        steps.verify(copied)
    assert record(aws, steps)["phase"] == {"S": "purge"}
    resumed = steps.preflight()
    assert (resumed["phase"], resumed["attempt"]) == ("purge", 2)
    assert resumed["verification"] > copied["verification"]


def test_a_failed_verification_is_mended_by_the_next_execution(aws: Aws, steps: Steps, copied: Any) -> None:
    """The checkpoints of the failed attempt make the next one skip the item that was wrong."""
    replace(aws, steps)
    steps.digest(copied)
    with pytest.raises(VerificationFailed):
        steps.verify(copied)
    assert steps.run()["verified"] is True
    assert scan_all(aws.dynamodb, steps.table) == scan_all(aws.dynamodb, steps.source)


def test_a_change_after_an_interrupted_verification_is_found(aws: Aws, steps: Steps, copied: Any) -> None:
    """A resumed verification takes the digests of before the interruption, and misses what changed since."""
    steps.digest(copied)
    drop(aws, steps)
    with pytest.raises(VerificationFailed):
        steps.run()


@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_side_that_was_not_read_to_its_end_fails(aws: Aws, steps: Steps, copied: Any, side: str) -> None:
    """Half the segments of both sides agree, and the other half was never looked at."""
    steps.digest(copied)
    for (partition, sort_key), item in ledger_items(aws.dynamodb, "SEGMENTS#").items():
        if f"#verify-{side}#" in sort_key and sort_key.endswith("1"):
            assert item["complete"] == {"BOOL": True}
            aws.dynamodb.put_item(
                TableName="test-dr-ledger",
                Item={**item, "pk": {"S": partition}, "sk": {"S": sort_key}, "complete": {"BOOL": False}},
            )
    with pytest.raises(VerificationFailed, match=r"segments read"):
        steps.verify(copied)


def test_no_digest_at_all_fails(steps: Steps, copied: Any) -> None:
    """Nothing is equal to nothing: a verification that never ran is a success."""
    with pytest.raises(VerificationFailed, match="0 items"):
        steps.verify(copied)


def test_a_reset_that_never_began_is_not_verified(aws: Aws, steps: Steps) -> None:
    """A verdict on a table that the ledger does not know is taken from empty totals."""
    with pytest.raises(InvalidRequest, match="knows no reset"):
        steps.verify({"incidentId": "other", "tableName": steps.table})
    assert ledger_items(aws.dynamodb, "INCIDENT#") == {}


def ttl_items() -> tuple[list[Item], list[Item]]:
    """(expiring, lasting) items by the attribute ``ttl``, around the horizon and the five years' limit.

    The first two of the expiring ones have expired.
    """
    expiring = [str(HORIZON - 4 * YEAR), f"{NOW - 60}.5", str(HORIZON - 1), str(HORIZON - 3600)]
    lasting: list[dict[str, Any]] = [
        {"N": str(HORIZON)},
        {"N": str(HORIZON + 1)},
        {"N": str(HORIZON - 6 * YEAR)},
        {"N": "0"},
        {"N": "-5"},
        {"S": str(HORIZON - 1)},
        {"BOOL": True},
        {"L": [{"N": "1"}]},
        {"M": {"N": {"N": str(HORIZON - 1)}}},
    ]
    numbered: list[tuple[dict[str, Any], int]] = [({"N": value}, number) for number, value in enumerate(expiring)]
    more = [(value, 100 + number) for number, value in enumerate(lasting)]

    def items(values: list[tuple[dict[str, Any], int]]) -> list[Item]:
        return [{"country": {"S": f"c{number}"}, "code": {"N": str(number)}, "ttl": value} for value, number in values]

    return items(numbered), [*items(more), {"country": {"S": "none"}, "code": {"N": "1"}}]


@pytest.fixture
def with_ttl(aws: Aws, steps: Steps) -> Any:
    """The plan of a reset whose copy is done; the destination has TTL on, the source off, as restores have."""
    expiring, lasting = ttl_items()
    create_table(aws.dynamodb, steps.source, KEY)
    create_table(aws.dynamodb, steps.table, KEY)
    aws.dynamodb.update_time_to_live(
        TableName=steps.table, TimeToLiveSpecification={"Enabled": True, "AttributeName": "ttl"}
    )
    assert put_all(aws.dynamodb, steps.source, [*expiring, *lasting]) == 14
    plan = steps.preflight()
    assert plan["ttlAttribute"] == "ttl"
    steps.empty(plan)
    steps.copy(plan)
    return plan


def delete(aws: Aws, table: str, item: Item) -> None:
    """Delete an item that is there."""
    answer = aws.dynamodb.delete_item(
        TableName=table, Key={name: item[name] for name, _ in KEY}, ReturnValues="ALL_OLD"
    )
    assert answer["Attributes"] == item


def counted(aws: Aws, side: str) -> dict[str, int]:
    """What the digests of one side counted, over all segments."""
    names = ("items", "expiring", "expired", "different")
    found = list(checkpoints(aws.dynamodb, f"verify-{side}"))
    return {name: sum(int(item[name]["N"]) for item in found) for name in names}


def test_expiring_items_are_compared_one_by_one(aws: Aws, steps: Steps, with_ttl: Any) -> None:
    """Items that TTL may delete at any moment fail a good recovery, or are left out without a word."""
    expiring, lasting = ttl_items()
    steps.digest(with_ttl, horizon=HORIZON)
    summary = steps.verify(with_ttl)
    assert summary["verifiedItems"] == len(expiring) + len(lasting)
    assert summary["expiredItems"] == 0
    assert summary["copiedItems"] == len(expiring) + len(lasting)
    both = {"items": len(lasting), "expiring": len(expiring), "expired": 0, "different": 0}
    assert counted(aws, "source") == counted(aws, "destination") == both


def test_ttl_may_take_expired_items_away(aws: Aws, steps: Steps, with_ttl: Any) -> None:
    """TTL deletes an item between copy and verification, as it should: a good recovery fails, again and again."""
    expiring, lasting = ttl_items()
    for item in expiring[:2]:
        delete(aws, steps.table, item)
    steps.digest(with_ttl, one_page, horizon=HORIZON)
    summary = steps.verify(with_ttl)
    assert summary["expiredItems"] == 2
    assert summary["verifiedItems"] == len(lasting) + 2
    assert counted(aws, "source") == {"items": len(lasting), "expiring": 2, "expired": 2, "different": 0}
    assert counted(aws, "destination") == {"items": len(lasting), "expiring": 2, "expired": 0, "different": 0}


def assert_different(aws: Aws, steps: Steps, plan: Any, *, source: int, destination: int) -> None:
    """The verification fails by its comparison one by one, which finds so many on each side."""
    steps.digest(plan, horizon=HORIZON)
    assert (counted(aws, "source")["different"], counted(aws, "destination")["different"]) == (source, destination)
    with pytest.raises(VerificationFailed, match=f"{source + destination} of the items that expire soon differ"):
        steps.verify(plan)
    assert record(aws, steps)["phase"] == {"S": "purge"}


@pytest.mark.parametrize("index", [2, 3])
def test_ttl_takes_nothing_before_its_time(aws: Aws, steps: Steps, with_ttl: Any, index: int) -> None:
    """An item that expires in an hour was lost by the copy, and passes for one that TTL has deleted."""
    delete(aws, steps.table, ttl_items()[0][index])
    assert_different(aws, steps, with_ttl, source=1, destination=0)


@pytest.mark.parametrize("index", range(4))
def test_a_corrupted_item_that_expires_soon(aws: Aws, steps: Steps, with_ttl: Any, index: int) -> None:
    """Sessions and tokens are damaged, every count agrees, and no digest covers them."""
    put_all(aws.dynamodb, steps.table, [{**ttl_items()[0][index], "value": {"S": "corrupted"}}])
    assert len(scan_all(aws.dynamodb, steps.table)) == len(scan_all(aws.dynamodb, steps.source))
    assert_different(aws, steps, with_ttl, source=1, destination=1)


@pytest.mark.parametrize("index", range(4))
def test_an_extra_item_that_expires_soon(aws: Aws, steps: Steps, with_ttl: Any, index: int) -> None:
    """TTL never adds an item: one that is there without being in the source was written by somebody."""
    put_all(aws.dynamodb, steps.table, [{**ttl_items()[0][index], "country": {"S": "new"}}])
    assert_different(aws, steps, with_ttl, source=0, destination=1)


def test_an_extra_item_does_not_make_up_for_an_expired_one(aws: Aws, steps: Steps, with_ttl: Any) -> None:
    """One item was deleted by TTL and another one written by somebody: the counts of both sides agree."""
    expired = ttl_items()[0][0]
    delete(aws, steps.table, expired)
    put_all(aws.dynamodb, steps.table, [{**expired, "country": {"S": "new"}}])
    assert_different(aws, steps, with_ttl, source=0, destination=1)


@pytest.mark.parametrize("side", ["source", "table"])
def test_an_item_whose_expiry_was_changed(aws: Aws, steps: Steps, with_ttl: Any, side: str) -> None:
    """A lasting item is given an expiry in the past: TTL will delete it, and the verification looks past it."""
    put_all(aws.dynamodb, getattr(steps, side), [{**ttl_items()[1][0], "ttl": {"N": str(NOW - 60)}}])
    here, there = (1, 0) if side == "source" else (0, 1)
    assert_different(aws, steps, with_ttl, source=here, destination=there)


def test_an_expired_item_that_the_source_lacks_is_an_extra_one(aws: Aws, steps: Steps, with_ttl: Any) -> None:
    """The leave that TTL has to delete from the table is taken for one to delete from the restored table."""
    delete(aws, steps.source, ttl_items()[0][0])
    assert_different(aws, steps, with_ttl, source=0, destination=1)


def test_more_expiring_items_than_one_call_reads(aws: Aws, steps: Steps) -> None:
    """Beyond the hundred items of one BatchGetItem none is compared, or the verification crashes for ever."""
    ttl = {"ttl": {"N": str(HORIZON - 1)}}
    for name in (steps.source, steps.table):
        create_table(aws.dynamodb, name, KEY)
    put_all(aws.dynamodb, steps.source, [{**item, **ttl} for item in make_items(KEY, 230, rich=False)])
    aws.dynamodb.update_time_to_live(
        TableName=steps.table, TimeToLiveSpecification={"Enabled": True, "AttributeName": "ttl"}
    )
    one = dataclasses.replace(steps, segments=1)
    plan = one.preflight()
    one.empty(plan)
    one.copy(plan)
    one.digest(plan, horizon=HORIZON)
    assert one.verify(plan)["verifiedItems"] == 230
    assert counted(aws, "source")["expiring"] == counted(aws, "destination")["expiring"] == 230


@pytest.mark.parametrize("side", ["source", "destination"])
def test_the_comparison_is_throttled(aws: Aws, steps: Steps, with_ttl: Any, side: str) -> None:
    """Throttled reads of the other side count as absent items, or end the recovery."""
    client = runtime.data_client()
    with FailCalls(client, "BatchGetItem", lambda: throttling("BatchGetItem"), lambda call: call % 3 != 0) as fault:
        steps.digest(with_ttl, horizon=HORIZON)
    assert fault.failed
    both = {"items": len(ttl_items()[1]), "expiring": 4, "expired": 0, "different": 0}
    assert counted(aws, side) == both


@pytest.mark.parametrize("index", [0, 2, 5, 9])
def test_a_lasting_item_is_never_taken_for_an_expiring_one(aws: Aws, steps: Steps, with_ttl: Any, index: int) -> None:
    """A lost item passes for an expired one because of the look of its TTL attribute."""
    item = ttl_items()[1][index]
    aws.dynamodb.delete_item(TableName=steps.table, Key={name: item[name] for name, _ in KEY})
    steps.digest(with_ttl, horizon=HORIZON)
    with pytest.raises(VerificationFailed):
        steps.verify(with_ttl)


def test_without_ttl_nothing_expires(aws: Aws, steps: Steps) -> None:
    """An attribute that is merely called ttl takes its items out of the verification."""
    expiring, lasting = ttl_items()
    create_table(aws.dynamodb, steps.source, KEY)
    create_table(aws.dynamodb, steps.table, KEY)
    put_all(aws.dynamodb, steps.source, [*expiring, *lasting])
    summary = steps.run()
    assert summary["verifiedItems"] == len(expiring) + len(lasting)
    assert summary["expiredItems"] == 0
    assert counted(aws, "source")["expiring"] == 0
