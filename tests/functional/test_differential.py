"""The differential phase by its entry point: what is written, what a fault leaves behind, when a worker must stop."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from handlers import differential_segment, runtime
from handlers.core import engine
from handlers.core.clock import utc_now
from handlers.core.errors import CapacityExhausted, CheckpointConflict, StaleWorker, VerificationFailed

from .conftest import Aws
from .support import (
    Context,
    FailCalls,
    Item,
    Key,
    KilledError,
    LeaveUnprocessed,
    Steps,
    checkpoints,
    create_table,
    hold_lock,
    invoke,
    ledger_items,
    make_items,
    one_page,
    put_all,
    scan_all,
    throttling,
)
from .test_segments import KEYS

KEY = (("id", "N"),)
ITEMS, EQUAL, CHANGED, EXTRA = 30, 12, 9, 5
MISSING = ITEMS - EQUAL - CHANGED
DIFFERING = MISSING + CHANGED + EXTRA
PAGE = 7


@contextmanager
def written(table: str) -> Iterator[list[Item]]:
    """The requests to a table that were processed, in the order in which they were sent."""
    done: list[Item] = []

    def note(params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        context["sent"] = json.loads(params["body"])["RequestItems"].get(table, [])

    def answered(parsed: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        left = parsed.get("UnprocessedItems", {}).get(table, ())
        done.extend(request for request in context["sent"] if request not in left)

    events = runtime.data_client().meta.events
    events.register("before-call.dynamodb.BatchWriteItem", note)
    events.register_last("after-call.dynamodb.BatchWriteItem", answered)
    yield done
    events.unregister("before-call.dynamodb.BatchWriteItem", note)
    events.unregister("after-call.dynamodb.BatchWriteItem", answered)


def fill(aws: Aws, steps: Steps, key: Key, *, rich: bool = False) -> None:
    """A source, and a copy of it with items missing, changed and added."""
    for name in (steps.source, steps.table):
        create_table(aws.dynamodb, name, key)
    items = make_items(key, ITEMS, rich=rich)
    put_all(aws.dynamodb, steps.source, items)
    put_all(aws.dynamodb, steps.table, items[:EQUAL])
    put_all(aws.dynamodb, steps.table, [{**item, "damage": {"S": "x"}} for item in items[EQUAL : EQUAL + CHANGED]])
    put_all(aws.dynamodb, steps.table, make_items(key, EXTRA, first=101, rich=rich))
    good = scan_all(aws.dynamodb, steps.source)
    assert sum(item in good for item in scan_all(aws.dynamodb, steps.table)) == EQUAL


@pytest.fixture
def one_segment(aws: Aws, steps: Steps, small_pages: int) -> Steps:
    """A differential in one segment, pages of seven."""
    assert small_pages == PAGE
    fill(aws, steps, KEY)
    return replace(steps, segments=1, mode="differential")


def counts(aws: Aws) -> tuple[int, int, int, int]:
    """What the checkpoints count: items, missing, changed, extra."""
    found = list(checkpoints(aws.dynamodb, "differential"))
    items, missing, changed, extra = (
        sum(int(entry.get(name, {"N": "0"})["N"]) for entry in found)
        for name in ("items", "missing", "changed", "extra")
    )
    return items, missing, changed, extra


def finish(aws: Aws, steps: Steps, plan: Any, *, counted: bool = True) -> None:
    """Go on to the end, and see that nothing was lost or left over."""
    steps.differential(plan)
    assert scan_all(aws.dynamodb, steps.table) == scan_all(aws.dynamodb, steps.source)
    assert len(scan_all(aws.dynamodb, steps.table)) == ITEMS
    expected = (DIFFERING, MISSING, CHANGED, EXTRA)
    if counted:
        assert counts(aws) == expected
    assert all(count <= most for count, most in zip(counts(aws), expected, strict=True))


@pytest.mark.parametrize(
    ("key", "context"),
    # What a cursor must keep is seen where invocations end in the middle; the kinds of keys differ in that alone.
    [*((key, Context) for key in (KEYS["S"], KEYS["odd characters"])), *((key, one_page) for key in KEYS.values())],
    ids=[*(f"at once-{name}" for name in ("S", "odd characters")), *(f"a page an invocation-{name}" for name in KEYS)],
)
@pytest.mark.usefixtures("small_pages")
def test_a_whole_reset(aws: Aws, steps: Steps, key: Key, context: Callable[[], Context]) -> None:
    """A difference stays, an equal item is written, or a cursor that holds two keys loses a digit or a byte of one."""
    fill(aws, steps, key, rich=True)
    source = scan_all(aws.dynamodb, steps.source)
    with written(steps.table) as requests:
        summary = replace(steps, mode="differential").run(context)
    assert scan_all(aws.dynamodb, steps.table) == source == scan_all(aws.dynamodb, steps.source)
    assert summary["mode"] == "differential"
    assert (summary["purgedItems"], summary["copiedItems"]) == (EXTRA, MISSING + CHANGED)
    assert summary["verifiedItems"] == ITEMS
    assert summary["sourceDigest"] == summary["destinationDigest"] != "0" * 64
    assert len(requests) == DIFFERING
    assert sum("DeleteRequest" in request for request in requests) == EXTRA


def test_the_cursor_is_of_both_sides(aws: Aws, one_segment: Steps) -> None:
    """One side begins anew in each invocation, or an end that was reached is forgotten."""
    plan = one_segment.preflight()
    event = one_segment.differential_event(plan, 0)
    seen = []
    while not invoke(differential_segment.handler, event, one_page())["complete"]:
        (checkpoint,) = checkpoints(aws.dynamodb, "differential")
        seen.append(checkpoint)
    assert len(seen) >= 2 * (ITEMS // PAGE)
    assert all("cursor" in checkpoint for checkpoint in seen)
    assert len({repr(checkpoint["cursor"]) for checkpoint in seen}) == len(seen), "an invocation came no further"
    finish(aws, one_segment, plan)
    with written(one_segment.table) as requests:
        assert invoke(differential_segment.handler, event)["complete"]
    assert requests == [], "a complete segment was worked on again"


@pytest.mark.parametrize("processed", [1, 2])
def test_unprocessed_items_are_sent_again(aws: Aws, one_segment: Steps, processed: int) -> None:
    """DynamoDB answers 200 and leaves part of the batch: the rest is dropped, and the count says otherwise."""
    plan = one_segment.preflight()
    with LeaveUnprocessed(runtime.data_client(), processed) as fault:
        one_segment.differential(plan)
    assert fault.left >= 2
    finish(aws, one_segment, plan)


@pytest.mark.parametrize("operation", ["BatchWriteItem", "BatchGetItem", "Scan"])
def test_throttled_for_ever(aws: Aws, one_segment: Steps, operation: str) -> None:
    """Pages that were read and not decided about count as progress: the machine invokes the worker for ever."""
    plan = one_segment.preflight()
    before = scan_all(aws.dynamodb, one_segment.table)
    fault = FailCalls(runtime.data_client(), operation, lambda: throttling(operation), lambda _: True)

    def invoke_on() -> None:
        for _ in range(20):
            short = Context(seconds=10, per_look=0.25)
            invoke(differential_segment.handler, one_segment.differential_event(plan, 0), short)

    with fault, pytest.raises(CapacityExhausted) as failure:
        invoke_on()
    assert fault.failed > 3
    assert "start the same incident again" in str(failure.value)
    if operation != "BatchGetItem":  # without a look-up changed items can be mended, and were
        assert scan_all(aws.dynamodb, one_segment.table) == before
    finish(aws, one_segment, plan, counted=False)


@pytest.mark.parametrize("operation", ["BatchWriteItem", "BatchGetItem", "Scan"])
def test_throttled_now_and_then(aws: Aws, one_segment: Steps, operation: str) -> None:
    """A throttled request is skipped rather than sent again."""
    plan = one_segment.preflight()
    fault = FailCalls(runtime.data_client(), operation, lambda: throttling(operation), lambda call: call % 3 != 0)
    with fault:
        one_segment.differential(plan)
    assert fault.failed > 3
    finish(aws, one_segment, plan)


@pytest.mark.parametrize("every_page_saved", [True, False])
@pytest.mark.parametrize("operation", ["BatchWriteItem", "BatchGetItem", "Scan"])
@pytest.mark.parametrize("died_at", range(1, 5))
def test_killed_before_a_call(
    aws: Aws, one_segment: Steps, operation: str, died_at: int, every_page_saved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker dies: the next one begins behind items that waited in the window, or writes again what was written."""
    # Or never: a second between two checkpoints is soon over on a slow machine.
    monkeypatch.setattr(engine, "_CHECKPOINT_SECONDS", 0.0 if every_page_saved else 3600.0)
    plan = one_segment.preflight()
    fault = FailCalls(runtime.data_client(), operation, KilledError, lambda call: call == died_at)
    with written(one_segment.table) as requests:
        with fault, pytest.raises(KilledError):
            invoke(differential_segment.handler, one_segment.differential_event(plan, 0))
        assert scan_all(aws.dynamodb, one_segment.table) != scan_all(aws.dynamodb, one_segment.source)
        finish(aws, one_segment, plan, counted=False)
    assert len(requests) == DIFFERING


def test_killed_between_a_write_and_its_checkpoint(aws: Aws, one_segment: Steps) -> None:
    """What is written but not checkpointed is written again."""
    plan = one_segment.preflight()
    invoke(differential_segment.handler, one_segment.differential_event(plan, 0), one_page())
    fault = FailCalls(runtime.client("dynamodb"), "PutItem", KilledError, lambda _: True)
    with written(one_segment.table) as requests:
        with fault, pytest.raises(KilledError):
            invoke(differential_segment.handler, one_segment.differential_event(plan, 0))
        first = len(requests)
        assert first > 3
        finish(aws, one_segment, plan, counted=False)
        assert len(requests) == first or sum(counts(aws)) > 0
    assert len({repr(request) for request in requests}) == len(requests)


def test_two_workers_on_one_segment(aws: Aws, one_segment: Steps) -> None:
    """A worker that was given up for dead moves the checkpoint back, or adds its items to the other's counts."""
    plan = one_segment.preflight()
    event, answers = one_segment.differential_event(plan, 0), []

    def other_worker(**_: Any) -> None:
        runtime.client("dynamodb").meta.events.unregister("before-call.dynamodb.PutItem", other_worker)
        answers.append(invoke(differential_segment.handler, event, one_page()))

    invoke(differential_segment.handler, event, one_page())
    runtime.client("dynamodb").meta.events.register("before-call.dynamodb.PutItem", other_worker)
    with pytest.raises(CheckpointConflict, match="Another worker"):
        invoke(differential_segment.handler, event)
    assert len(answers) == 1
    finish(aws, one_segment, plan, counted=False)


def take_lock(aws: Aws, steps: Steps) -> None:
    """Another execution has the lock."""
    other = "arn:aws:states:us-east-1:123456789012:execution:test-dr-orchestrator:another"
    hold_lock(aws.dynamodb, f"TABLE#{steps.table}", other)


@pytest.mark.parametrize("lost_at", range(3))
def test_a_stale_worker(aws: Aws, one_segment: Steps, lost_at: int) -> None:
    """The execution was aborted, the table has another owner: the old worker mends on below it."""
    event = one_segment.differential_event(one_segment.preflight(), 0)
    calls = iter(range(10**6))
    at_loss: list[list[Item]] = []

    def lose(**_: Any) -> None:
        if next(calls) == lost_at:
            take_lock(aws, one_segment)
            at_loss.append(scan_all(aws.dynamodb, one_segment.table))

    events = runtime.data_client().meta.events
    events.register("after-call.dynamodb.BatchWriteItem" if lost_at else "before-call.dynamodb.Scan", lose)
    try:
        with pytest.raises(StaleWorker, match="does not hold the lock"):
            invoke(differential_segment.handler, event)
    finally:
        events.unregister("after-call.dynamodb.BatchWriteItem", lose)
        events.unregister("before-call.dynamodb.Scan", lose)
    assert scan_all(aws.dynamodb, one_segment.table) == at_loss[0]
    assert at_loss[0] != scan_all(aws.dynamodb, one_segment.source)
    with pytest.raises(StaleWorker):
        invoke(differential_segment.handler, event)
    assert scan_all(aws.dynamodb, one_segment.table) == at_loss[0]


@pytest.mark.parametrize("looked_up", [1, 2])
def test_a_worker_that_is_stale_after_a_look_up(aws: Aws, one_segment: Steps, looked_up: int) -> None:
    """Throttled look-ups take minutes; what they found is written when the table has another owner."""
    event = one_segment.differential_event(one_segment.preflight(), 0)
    put_all(aws.dynamodb, one_segment.table, make_items(KEY, 30, first=500, rich=False))
    calls = iter(range(1, 10**6))
    at_loss: list[list[Item]] = []

    def lose(**_: Any) -> None:
        if next(calls) == looked_up:
            take_lock(aws, one_segment)
            at_loss.append(scan_all(aws.dynamodb, one_segment.table))

    events = runtime.data_client().meta.events
    events.register("after-call.dynamodb.BatchGetItem", lose)
    try:
        with pytest.raises(StaleWorker, match="does not hold the lock"):
            invoke(differential_segment.handler, event)
    finally:
        events.unregister("after-call.dynamodb.BatchGetItem", lose)
    assert scan_all(aws.dynamodb, one_segment.table) == at_loss[0]


def test_a_worker_that_is_stale_after_a_back_off(aws: Aws, one_segment: Steps) -> None:
    """A throttled batch is sent again minutes later, when the table is recovered and in service."""
    event = one_segment.differential_event(one_segment.preflight(), 0)
    with LeaveUnprocessed(runtime.data_client(), processed=1) as batches, written(one_segment.table) as requests:
        events = runtime.data_client().meta.events

        def lose(**_: Any) -> None:
            take_lock(aws, one_segment)

        events.register("after-call.dynamodb.BatchWriteItem", lose)
        try:
            with pytest.raises(StaleWorker, match="does not hold the lock"):
                invoke(differential_segment.handler, event)
        finally:
            events.unregister("after-call.dynamodb.BatchWriteItem", lose)
    assert batches.left > 0
    assert len(requests) == 1


def test_a_worker_of_an_attempt_or_a_reset_that_is_over(aws: Aws, one_segment: Steps) -> None:
    """A recovered table, already in service, is "mended" by a worker that nobody remembers."""
    plan = one_segment.preflight()
    event = {**one_segment.differential_event(plan, 0)}
    one_segment.differential(plan)
    put_all(aws.dynamodb, one_segment.table, make_items(KEY, 3, first=900, rich=False))
    one_segment.digest(plan)
    with pytest.raises(VerificationFailed, match="After writing the differences"):
        one_segment.verify(plan)
    late = {**event, "totalSegments": 2, "segment": 1}
    with pytest.raises(StaleWorker, match=r"is in its differential, attempt 2\. Expected differential, attempt 1"):
        invoke(differential_segment.handler, late)
    summary = one_segment.run()
    assert (summary["purgedItems"], summary["copiedItems"]) == (EXTRA + 3, MISSING + CHANGED), "of both attempts"
    put_all(aws.dynamodb, one_segment.table, make_items(KEY, 3, first=900, rich=False))
    in_service = scan_all(aws.dynamodb, one_segment.table)
    with pytest.raises(StaleWorker, match="is in its verified"):
        invoke(differential_segment.handler, {**late, "generation": 2})
    assert scan_all(aws.dynamodb, one_segment.table) == in_service


def test_the_checkpoint_is_made_before_the_first_item_is_touched(aws: Aws, one_segment: Steps) -> None:
    """Whether anything was written is unknown after a crash: functions are released on a half-mended table."""
    plan = one_segment.preflight()
    assert ledger_items(aws.dynamodb, "SEGMENTS#") == {}
    known: list[int] = []

    def look(**_: Any) -> None:
        known.append(len(ledger_items(aws.dynamodb, "SEGMENTS#")))

    runtime.data_client().meta.events.register("before-call.dynamodb.Scan", look)
    invoke(differential_segment.handler, one_segment.differential_event(plan, 0))
    assert known
    assert min(known) == 1


def test_what_ttl_has_deleted_is_put_back(aws: Aws, one_segment: Steps) -> None:
    """TTL was switched on for an attribute with past times: everything it deleted passes for expired, and verifies."""
    now = int(utc_now().timestamp())
    for number, expires in ((700, now - 86_400), (701, now - 6 * 366 * 86_400), (702, now - 4 * 366 * 86_400 - 60)):
        put_all(aws.dynamodb, one_segment.source, [{"id": {"N": str(number)}, "expires": {"N": str(expires)}}])
    aws.dynamodb.update_time_to_live(
        TableName=one_segment.table, TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires"}
    )
    plan = one_segment.preflight()
    assert plan["ttlAttribute"] == "expires"
    one_segment.differential(plan)
    one_segment.digest(plan, horizon=now + 6 * 3600)
    summary = one_segment.verify(plan)
    assert (summary["expiredItems"], summary["verifiedItems"]) == (0, ITEMS + 3)
    left = {item["id"]["N"] for item in scan_all(aws.dynamodb, one_segment.table)}
    assert {"700", "701", "702"} & left == {"700", "701", "702"}
