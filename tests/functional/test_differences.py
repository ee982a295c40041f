"""Every kind of difference is noticed by the verdict and listed by kind and key; what DynamoDB calls equal is not."""

from __future__ import annotations

import base64
import json
import logging
import time
from collections.abc import Callable
from decimal import Context as DecimalContext
from decimal import Decimal
from typing import Any

import pytest

from handlers import compare_segment, runtime
from handlers.core import compare
from handlers.core.errors import StaleWorker, VerificationFailed
from handlers.core.ledger import PageResult

from .conftest import Aws
from .support import (
    BUCKET,
    FailCalls,
    Item,
    KilledError,
    Steps,
    checkpoints,
    create_table,
    hold_lock,
    invoke,
    listed_differences,
    make_items,
    object_names,
    one_page,
    put_all,
    scan_all,
    throttling,
)

KEY = (("country", "S"), ("token", "B"))
ITEMS = 24
NOW = int(time.time())
HORIZON = NOW + 6 * 3600

Expected = list[tuple[str, Item]]
"""Differences: kind and key, as the lists have them."""


@pytest.fixture
def copied(aws: Aws, steps: Steps) -> Any:
    """The plan of a reset whose copy is done: equal items on both sides, whose keys hold text and bytes."""
    return steps.copied(aws.dynamodb, KEY, ITEMS)


def written(item: Item) -> Item:
    """An item's key as a list has it: JSON, with base64 for bytes."""
    return {"country": item["country"], "token": {"B": base64.b64encode(item["token"]["B"]).decode()}}


def the_key(item: Item) -> Item:
    """An item's key on the wire."""
    return {name: item[name] for name, _ in KEY}


# --- mutations: each changes the destination and answers what must be listed --------------------------------------


def drop_one(aws: Aws, table: str) -> Expected:
    """One item is gone."""
    item = scan_all(aws.dynamodb, table)[5]
    aws.dynamodb.delete_item(TableName=table, Key=the_key(item))
    return [("missing", written(item))]


def add_one(aws: Aws, table: str) -> Expected:
    """One item more, under a key that only just differs: in the bytes of its sort key."""
    item = scan_all(aws.dynamodb, table)[5]
    added = {**item, "token": {"B": item["token"]["B"] + b"\x00"}}
    put_all(aws.dynamodb, table, [added])
    return [("extra", written(added))]


def change_one_digit(aws: Aws, table: str) -> Expected:
    """The last of the 38 digits of a number."""
    item = scan_all(aws.dynamodb, table)[5]
    digits = item["long.number"]["N"]
    put_all(aws.dynamodb, table, [{**item, "long.number": {"N": digits[:-1] + str((int(digits[-1]) + 1) % 10)}}])
    return [("changed", written(item))]


def change_a_digit_deep_inside(aws: Aws, table: str) -> Expected:
    """A number in a map in a list in a map."""
    item = scan_all(aws.dynamodb, table)[5]
    deep = json.loads(json.dumps(item["map"]))
    deep["M"]["a.b"]["L"][0]["M"]["#"]["N"] += "0"
    put_all(aws.dynamodb, table, [{**item, "map": deep}])
    return [("changed", written(item))]


def swap_two_values(aws: Aws, table: str) -> Expected:
    """Two items with each other's text: every value is there, in the wrong item."""
    one, other = scan_all(aws.dynamodb, table)[5:7]
    assert one["text"] != other["text"]
    put_all(aws.dynamodb, table, [{**one, "text": other["text"]}, {**other, "text": one["text"]}])
    return [("changed", written(one)), ("changed", written(other))]


def number_to_text(aws: Aws, table: str) -> Expected:
    """The same digits, of another type."""
    item = scan_all(aws.dynamodb, table)[5]
    put_all(aws.dynamodb, table, [{**item, "zeros": {"S": item["zeros"]["N"]}}])
    return [("changed", written(item))]


def drop_an_attribute(aws: Aws, table: str) -> Expected:
    """An attribute whose value was empty."""
    item = scan_all(aws.dynamodb, table)[5]
    put_all(aws.dynamodb, table, [{name: value for name, value in item.items() if name != "empty"}])
    return [("changed", written(item))]


def rename_an_item(aws: Aws, table: str) -> Expected:
    """An item under another key: one is missing, one is extra, and the counts agree."""
    return [*drop_one(aws, table), *add_one(aws, table)]


def everything_at_once(aws: Aws, table: str) -> Expected:
    """All three kinds, several of each, all over the table."""
    items = scan_all(aws.dynamodb, table)
    dropped, changed = items[::6], [item for number, item in enumerate(items) if number % 6 in (1, 4)]
    for item in dropped:
        aws.dynamodb.delete_item(TableName=table, Key=the_key(item))
    put_all(aws.dynamodb, table, [{**item, "true": {"BOOL": False}} for item in changed])
    extra = make_items(KEY, 6, first=900)
    put_all(aws.dynamodb, table, extra)
    return [
        *(("missing", written(item)) for item in dropped),
        *(("changed", written(item)) for item in changed),
        *(("extra", written(item)) for item in extra),
    ]


def empty_it(aws: Aws, table: str) -> Expected:
    """Nothing is left."""
    items = scan_all(aws.dynamodb, table)
    for item in items:
        aws.dynamodb.delete_item(TableName=table, Key=the_key(item))
    return [("missing", written(item)) for item in items]


DIFFERENT = [
    drop_one,
    add_one,
    change_one_digit,
    change_a_digit_deep_inside,
    swap_two_values,
    number_to_text,
    drop_an_attribute,
    rename_an_item,
    everything_at_once,
    empty_it,
]


def reorder_sets(item: Item) -> Item:
    """The members of its sets in another order: DynamoDB's sets have none."""
    changed = {
        name: {kind: list(reversed(value)) if kind in ("SS", "NS", "BS") else value}
        for name, attribute in item.items()
        for kind, value in attribute.items()
    }
    assert changed != item
    return changed


def respell_numbers(item: Item) -> Item:
    """``1.500`` as ``1.5``, ``1E-130`` in full, and so on: what DynamoDB stores is the value, not its spelling."""
    changed = {
        **item,
        "zeros": {"N": "1.5"},
        "tiny": {"N": "0." + "0" * 129 + "1"},
        "huge": {"N": "-" + "9" * 38 + "E88"},
        "numbers": {"NS": [f"{member}0" if "." in member else f"{member}.0" for member in item["numbers"]["NS"]]},
    }
    assert changed != item
    return changed


def as_dynamodb_stores(item: Item) -> Item:
    """Numbers in DynamoDB's own spelling: leading and trailing zeros trimmed, the value untouched.

    The emulator keeps the spelling it was given; AWS documents that it trims. Written without the digest's code.
    """

    def spelled(text: str) -> str:
        number = Decimal(text).normalize(DecimalContext(prec=60))
        return str(number) if abs(number.adjusted()) > 40 else format(number, "f")

    def stored(attribute: Any) -> Any:
        ((kind, value),) = attribute.items()
        if kind == "N":
            return {"N": spelled(value)}
        if kind == "NS":
            return {"NS": [spelled(member) for member in value]}
        if kind == "L":
            return {"L": [stored(entry) for entry in value]}
        if kind == "M":
            return {"M": {name: stored(entry) for name, entry in value.items()}}
        return attribute

    changed = {name: stored(attribute) for name, attribute in item.items()}
    assert changed != item
    return changed


def numbers_of_a_program(item: Item) -> Item:
    """``1.0`` for the value 1, as a program writes it that computes with decimals."""
    return {
        **item,
        "numbers": {"NS": [f"{member}.0" if "." not in member else member for member in item["numbers"]["NS"]]},
    }


# --- the verdict and the lists ----------------------------------------------------------------------------------------


def refused(steps: Steps, plan: Any, **digest: Any) -> VerificationFailed:
    """Digest both sides; the verdict, which must be a failure."""
    steps.digest(plan, **digest)
    with pytest.raises(VerificationFailed) as caught:
        steps.verify(plan)
    return caught.value


def counts(found: Expected) -> str:
    """How the cause counts them."""
    kinds = [kind for kind, _ in found]
    return f"{kinds.count('missing')} missing, {kinds.count('extra')} extra and {kinds.count('changed')} changed"


@pytest.mark.parametrize("mutation", DIFFERENT)
def test_a_difference_is_noticed_and_listed(
    aws: Aws, steps: Steps, copied: Any, mutation: Callable[[Aws, str], Expected]
) -> None:
    """A damaged table passes, or the operator is told that something differs but not what."""
    expected = mutation(aws, steps.table)
    assert expected
    verdict = refused(steps, copied)
    steps.compare(copied)
    assert listed_differences(aws.s3) == sorted(expected, key=repr)
    report = steps.report_differences(copied, verdict)
    execution = steps.execution_arn.rsplit(":", 1)[-1]
    place = f"s3://{BUCKET}/differences/{steps.incident_id}/{execution}/{steps.table}/"
    assert report["error"] == "VerificationFailed"
    assert report["cause"].startswith(f"{counts(expected)} item(s); their keys: {place} ")
    assert str(verdict) in report["cause"]
    assert object_names(aws.s3, place.removeprefix(f"s3://{BUCKET}/")) == object_names(aws.s3)


@pytest.mark.parametrize("change", [reorder_sets, respell_numbers, as_dynamodb_stores, numbers_of_a_program])
@pytest.mark.parametrize("side", ["source", "table"])
def test_what_dynamodb_calls_equal_is_equal(
    aws: Aws, steps: Steps, copied: Any, change: Callable[[Item], Item], side: str
) -> None:
    """A good recovery fails, again and again, because a set or a number came back in another spelling."""
    table = getattr(steps, side)
    put_all(aws.dynamodb, table, [change(item) for item in scan_all(aws.dynamodb, table)])
    assert scan_all(aws.dynamodb, steps.source) != scan_all(aws.dynamodb, steps.table)
    steps.digest(copied)
    steps.compare(copied)
    assert object_names(aws.s3) == []
    assert steps.verify(copied)["verified"] is True


def test_both_lists_are_two_way(aws: Aws, steps: Steps, copied: Any) -> None:
    """An item that only one side has is looked for from the other side only."""
    missing, extra = drop_one(aws, steps.table), drop_one(aws, steps.source)
    assert missing == [("missing", extra[0][1])], "the same item: nothing is different"
    extra = [("extra", written(scan_all(aws.dynamodb, steps.source)[7]))]
    aws.dynamodb.delete_item(TableName=steps.source, Key=the_key(scan_all(aws.dynamodb, steps.source)[7]))
    steps.compare(copied)
    assert listed_differences(aws.s3) == extra
    (name,) = object_names(aws.s3)
    assert name.rsplit("/", 1)[-1].startswith("destination-")


def test_nothing_of_an_item_is_written_elsewhere(
    aws: Aws, steps: Steps, copied: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Keys or values of differing items leak into logs, the ledger, or the state machine's data."""
    expected = everything_at_once(aws, steps.table)
    secrets = {value for _, key in expected for attribute in key.values() for value in attribute.values()}
    with caplog.at_level(logging.DEBUG, logger="dynamodb-dr"):
        verdict = refused(steps, copied)
        answers = [
            invoke(compare_segment.handler, steps.digest_event(copied, side, segment))
            for side in ("source", "destination")
            for segment in range(copied["segments"])
        ]
        report = steps.report_differences(copied, verdict)
    assert len(listed_differences(aws.s3)) == len(expected)
    records = list(checkpoints(aws.dynamodb, "compare-source")) + list(checkpoints(aws.dynamodb, "compare-destination"))
    assert len(records) == 2 * copied["segments"]
    seen = repr((answers, report, records, [vars(record) for record in caplog.records]))
    assert secrets
    assert not [secret for secret in secrets if repr(secret) in seen]


# --- interruptions ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_pages")
def test_a_comparison_of_one_page_an_invocation_is_whole(aws: Aws, steps: Steps, copied: Any) -> None:
    """A resumed comparison begins a page too late, overwrites another page's list, or counts a page twice."""
    expected = everything_at_once(aws, steps.table)
    verdict = refused(steps, copied)
    assert steps.compare(copied, one_page) > 2 * copied["segments"]
    assert len(object_names(aws.s3)) > 2 * copied["segments"]
    assert listed_differences(aws.s3) == sorted(expected, key=repr)
    assert counts(expected) in steps.report_differences(copied, verdict)["cause"]


@pytest.mark.usefixtures("small_pages")
def test_a_page_that_is_compared_again_overwrites_its_own_list(aws: Aws, steps: Steps, copied: Any) -> None:
    """A worker that died after writing a list leaves its keys twice in the report, or counted twice."""
    expected = empty_it(aws, steps.table)
    verdict = refused(steps, copied)
    event = steps.digest_event(copied, "source", 0)
    # Dies where the progress is saved: the lists are written, and the ledger knows nothing of them. The first PutItem
    # creates the checkpoint.
    killed = FailCalls(runtime.client("dynamodb"), "PutItem", KilledError, lambda call: call > 1)
    with pytest.raises(KilledError), killed:
        invoke(compare_segment.handler, event)
    assert killed.failed
    assert object_names(aws.s3), "nothing was written before it died"
    steps.compare(copied)
    assert listed_differences(aws.s3) == sorted(expected, key=repr)
    assert f"{ITEMS} missing, 0 extra and 0 changed" in steps.report_differences(copied, verdict)["cause"]


def test_throttled_reads_of_the_other_side_are_no_differences(aws: Aws, steps: Steps, copied: Any) -> None:
    """Throttled keys are taken for items that are not there."""
    expected = drop_one(aws, steps.table)
    with FailCalls(
        runtime.data_client(), "BatchGetItem", lambda: throttling("BatchGetItem"), lambda call: call % 3 != 0
    ) as fault:
        steps.compare(copied)
    assert fault.failed
    assert listed_differences(aws.s3) == expected


def test_unprocessed_keys_are_no_differences(aws: Aws, steps: Steps, copied: Any) -> None:
    """Keys that DynamoDB leaves unread, as it does beyond 16 MB, are taken for items that are not there."""
    expected = drop_one(aws, steps.table)
    cut: list[int] = []

    def leave_all_but_three(parsed: dict[str, Any], params: dict[str, Any], **_: Any) -> None:
        ((table, wanted),) = json.loads(params["body"])["RequestItems"].items()
        if len(wanted["Keys"]) <= 3:
            return
        keys = wanted["Keys"][3:]
        cut.append(len(keys))
        parsed["UnprocessedKeys"] = {table: {**wanted, "Keys": keys}}
        parsed["Responses"][table] = [item for item in parsed["Responses"][table] if the_key(item) not in keys]

    # The request's parameters are known before the call only.
    sent: dict[int, dict[str, Any]] = {}
    events = runtime.data_client().meta.events
    events.register(
        "before-call.dynamodb.BatchGetItem", lambda params, context, **_: sent.update({id(context): params})
    )
    events.register(
        "after-call.dynamodb.BatchGetItem",
        lambda parsed, context, **_: leave_all_but_three(parsed, sent[id(context)]),
    )
    steps.compare(copied)
    assert cut
    assert listed_differences(aws.s3) == expected


def test_a_worker_that_lost_its_lock_lists_nothing(aws: Aws, steps: Steps, copied: Any) -> None:
    """A comparison goes on under an execution that has ended, over a table that the next one is filling."""
    drop_one(aws, steps.table)
    hold_lock(aws.dynamodb, f"TABLE#{steps.table}", aws.start_execution("another"))
    with pytest.raises(StaleWorker):
        steps.compare(copied)
    assert object_names(aws.s3) == []


def test_a_full_list_only_counts_on(aws: Aws, steps: Steps, copied: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that differs as a whole fills the bucket with keys that nobody reads, or is counted only that far."""
    monkeypatch.setattr(compare, "LISTED_KEYS", 3)
    monkeypatch.setattr("handlers.core.engine.PAGE_ITEMS", 2)
    expected = empty_it(aws, steps.table)
    verdict = refused(steps, copied)
    steps.compare(copied)
    listed = listed_differences(aws.s3)
    assert len(listed) == 3 * copied["segments"] < len(expected)
    assert all(entry in expected for entry in listed)
    cause = steps.report_differences(copied, verdict)["cause"]
    assert f"{ITEMS} missing" in cause
    assert f"keys of {len(listed)} of them" in cause


# --- TTL --------------------------------------------------------------------------------------------------------------


def test_what_ttl_has_deleted_is_no_difference(aws: Aws, steps: Steps) -> None:
    """Items that expired during the recovery drown the ones that were lost; or a lost one passes for an expired one."""
    for name in (steps.source, steps.table):
        create_table(aws.dynamodb, name, KEY)
    aws.dynamodb.update_time_to_live(
        TableName=steps.table, TimeToLiveSpecification={"Enabled": True, "AttributeName": "ttl"}
    )
    items = make_items(KEY, 6, rich=False)
    expiries = [NOW - 60, NOW - 60, HORIZON - 3600, HORIZON + 3600, HORIZON - 6 * 365 * 86_400, NOW - 60]
    items = [{**item, "ttl": {"N": str(expiry)}} for item, expiry in zip(items, expiries, strict=True)]
    put_all(aws.dynamodb, steps.source, items)
    plan = steps.preflight()
    steps.empty(plan)
    steps.copy(plan)
    for item in items[:5]:
        aws.dynamodb.delete_item(TableName=steps.table, Key=the_key(item))
    aws.dynamodb.delete_item(TableName=steps.source, Key=the_key(items[5]))
    verdict = refused(steps, plan, horizon=HORIZON)
    steps.compare(plan, horizon=HORIZON)
    assert listed_differences(aws.s3) == sorted(
        [
            *(("missing", written(item)) for item in items[2:5]),
            # TTL adds nothing: an expired item that only the table has was written by somebody.
            ("extra", written(items[5])),
        ],
        key=repr,
    )
    assert "3 missing, 1 extra and 0 changed" in steps.report_differences(plan, verdict)["cause"]
    assert sum(int(entry["expired"]["N"]) for entry in checkpoints(aws.dynamodb, "compare-source")) == 2


# --- a comparison that fails itself -----------------------------------------------------------------------------------


def test_a_failed_comparison_does_not_hide_the_verdict(aws: Aws, steps: Steps, copied: Any) -> None:
    """The operator reads of an S3 error, and not that the table is wrong."""
    drop_one(aws, steps.table)
    verdict = refused(steps, copied)
    failure = {"error": "AccessDenied", "cause": json.dumps({"errorMessage": "no", "errorType": "AccessDenied"})}
    report = steps.report_differences(copied, verdict, failure)
    assert report["error"] == "VerificationFailed"
    assert report["cause"].startswith(str(verdict))
    assert "keys could not all be listed: AccessDenied: no" in report["cause"]


def test_a_comparison_of_some_segments_is_not_called_whole(aws: Aws, steps: Steps, copied: Any) -> None:
    """Half of the segments were compared, and their count is taken for all that differs."""
    expected = empty_it(aws, steps.table)
    verdict = refused(steps, copied)
    invoke(compare_segment.handler, steps.digest_event(copied, "source", 0))
    found = len(listed_differences(aws.s3))
    assert 0 < found < len(expected)
    cause = steps.report_differences(copied, verdict)["cause"]
    assert cause.startswith(str(verdict))
    assert "only 1 of 2 segments of the source" in cause
    assert f"Found so far: {found} missing" in cause


def test_differences_that_were_undone_meanwhile_are_said_to_be(aws: Aws, steps: Steps, copied: Any) -> None:
    """An empty list with a failed verdict sends the operator looking for a fault of the list."""
    lost = scan_all(aws.dynamodb, steps.table)[5]
    drop_one(aws, steps.table)
    verdict = refused(steps, copied)
    put_all(aws.dynamodb, steps.table, [lost])
    steps.compare(copied)
    assert "both were equal" in steps.report_differences(copied, verdict)["cause"]


def test_the_longest_names_leave_counts_and_place_in_the_cause() -> None:
    """An orchestrator of a hundred tables cuts each cause to 600 characters, and with it the place of the keys."""
    found = PageResult(missing=10**10, extra=10**10, changed=10**10, listed=10**8)
    prefix = compare.differences_prefix("i" * 64, "arn:aws:states:r:1:execution:m:" + "e" * 80, "t" * 255)
    text = compare.describe_differences(found, f"s3://{'b' * 63}/{prefix}")
    assert text.endswith("/" + "t" * 255 + "/")
    assert len(text) <= 600
