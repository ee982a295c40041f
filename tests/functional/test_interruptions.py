"""What goes wrong in the middle: unprocessed items, throttling, killed workers, two workers on one segment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from handlers import copy_segment, purge_segment, runtime
from handlers.core import engine
from handlers.core.errors import CapacityExhausted, CheckpointConflict

from .conftest import Aws
from .support import (
    Context,
    FailCalls,
    KilledError,
    LeaveUnprocessed,
    Steps,
    checkpoints,
    create_table,
    invoke,
    make_items,
    one_page,
    put_all,
    scan_all,
    throttling,
)

KEY = (("id", "N"),)
ITEMS = 30
PAGE = 7


@pytest.fixture
def plan(aws: Aws, steps: Steps, small_pages: int, page_by_page: None) -> Any:  # noqa: ARG001 - for its effect
    """The plan of a reset in one segment: 30 items in the source, 30 others in the destination."""
    assert small_pages == PAGE
    create_table(aws.dynamodb, steps.source, KEY)
    create_table(aws.dynamodb, steps.table, KEY)
    put_all(aws.dynamodb, steps.source, make_items(KEY, ITEMS, rich=False))
    put_all(aws.dynamodb, steps.table, make_items(KEY, ITEMS, first=16, rich=False))
    assert scan_all(aws.dynamodb, steps.source) != scan_all(aws.dynamodb, steps.table)
    return Steps(execution_arn=steps.execution_arn, segments=1).preflight()


def finish(aws: Aws, steps: Steps, plan: Any) -> None:
    """Purge and copy to the end, and see that nothing was lost or left over and every count is exact."""
    steps.copy(plan)
    assert scan_all(aws.dynamodb, steps.table) == scan_all(aws.dynamodb, steps.source)
    (checkpoint,) = checkpoints(aws.dynamodb, "copy")
    assert checkpoint["items"] == {"N": str(ITEMS)}


@pytest.mark.parametrize("processed", [1, 3, 6])
def test_unprocessed_items_are_sent_again(aws: Aws, steps: Steps, plan: Any, processed: int) -> None:
    """DynamoDB answers 200 and leaves part of the batch: the rest is dropped, and the count says otherwise."""
    with LeaveUnprocessed(runtime.data_client(), processed) as fault:
        steps.empty(plan)
        assert fault.left >= ITEMS // PAGE
        assert scan_all(aws.dynamodb, steps.table) == []
        steps.copy(plan)
        assert fault.left >= 2 * (ITEMS // PAGE)
    finish(aws, steps, plan)
    (purged,) = checkpoints(aws.dynamodb, "purge")
    assert purged["items"] == {"N": str(ITEMS)}


def test_unprocessed_until_the_time_is_up(aws: Aws, steps: Steps, plan: Any) -> None:
    """A page that was written in part counts as done: its other part is lost."""
    steps.empty(plan)
    with LeaveUnprocessed(runtime.data_client(), 1), pytest.raises(CapacityExhausted, match="0 items before it"):
        invoke(copy_segment.handler, steps.event(plan, 0), Context(seconds=1, per_look=0.25))
    assert 0 < len(scan_all(aws.dynamodb, steps.table)) < PAGE
    (checkpoint,) = checkpoints(aws.dynamodb, "copy")
    assert "cursor" not in checkpoint
    finish(aws, steps, plan)


@pytest.mark.parametrize("operation", ["BatchWriteItem", "Scan"])
@pytest.mark.parametrize("handler", [purge_segment.handler, copy_segment.handler], ids=["purge", "copy"])
def test_throttled_for_ever(
    aws: Aws, steps: Steps, plan: Any, operation: str, handler: Callable[..., dict[str, Any]]
) -> None:
    """A table without capacity: the worker loops until Lambda kills it, or gives up and reports completion."""
    if handler is copy_segment.handler:
        steps.empty(plan)
    before = scan_all(aws.dynamodb, steps.table)
    fault = FailCalls(runtime.data_client(), operation, lambda: throttling(operation), lambda _: True)
    with fault, pytest.raises(CapacityExhausted) as failure:
        invoke(handler, steps.event(plan, 0), Context(seconds=10, per_look=0.5))
    assert fault.failed > 3
    assert "start the same incident again" in str(failure.value)
    assert scan_all(aws.dynamodb, steps.table) == before
    steps.empty(plan)
    finish(aws, steps, plan)


@pytest.mark.parametrize("operation", ["BatchWriteItem", "Scan"])
def test_throttled_now_and_then(aws: Aws, steps: Steps, plan: Any, operation: str) -> None:
    """A throttled request is skipped rather than sent again."""
    with FailCalls(
        runtime.data_client(), operation, lambda: throttling(operation), lambda call: call % 3 != 0
    ) as fault:
        steps.purge(plan)
        assert scan_all(aws.dynamodb, steps.table) == []
    steps.prove_empty(plan)  # its own throttling is the state machine's to retry
    with fault:
        finish(aws, steps, plan)
    assert fault.failed > 10


def test_throttled_after_some_pages(aws: Aws, steps: Steps, plan: Any) -> None:
    """What was done before the throttling is forgotten: a table with little capacity is never finished."""
    steps.empty(plan)
    with FailCalls(
        runtime.data_client(), "BatchWriteItem", lambda: throttling("BatchWriteItem"), lambda call: call > 2
    ):
        answer = invoke(copy_segment.handler, steps.event(plan, 0), Context(seconds=10, per_look=0.5))
    assert answer == {"complete": False, "items": 2 * PAGE}
    assert len(scan_all(aws.dynamodb, steps.table)) == 2 * PAGE
    finish(aws, steps, plan)


@pytest.mark.parametrize("died_at", range(1, 6))
@pytest.mark.parametrize("every_page_saved", [True, False])
def test_killed_before_a_write(
    aws: Aws, steps: Steps, plan: Any, died_at: int, every_page_saved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker dies: the next one begins after the page that was never written, or counts pages twice."""
    # Or never: a second between two checkpoints is soon over on a slow machine.
    monkeypatch.setattr(engine, "_CHECKPOINT_SECONDS", 0.0 if every_page_saved else 3600.0)
    steps.empty(plan)
    fault = FailCalls(runtime.data_client(), "BatchWriteItem", KilledError, lambda call: call == died_at)
    with fault, pytest.raises(KilledError):
        invoke(copy_segment.handler, steps.event(plan, 0))
    assert len(scan_all(aws.dynamodb, steps.table)) == (died_at - 1) * PAGE
    (checkpoint,) = checkpoints(aws.dynamodb, "copy")
    counted = int(checkpoint.get("items", {"N": "0"})["N"])
    assert counted == ((died_at - 1) * PAGE if every_page_saved else 0)
    finish(aws, steps, plan)


def test_killed_in_the_middle_of_a_page(aws: Aws, steps: Steps, plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some batches of a page are written and others not: the page counts as done."""
    monkeypatch.setattr(engine, "PAGE_ITEMS", 28)
    monkeypatch.setattr(engine, "_BATCH_ITEMS", 4)
    steps.empty(plan)
    fault = FailCalls(runtime.data_client(), "BatchWriteItem", KilledError, lambda call: call == 4)
    with fault, pytest.raises(KilledError):
        invoke(copy_segment.handler, steps.event(plan, 0))
    assert 0 < len(scan_all(aws.dynamodb, steps.table)) < 28
    finish(aws, steps, plan)


def test_killed_between_a_write_and_its_checkpoint(aws: Aws, steps: Steps, plan: Any) -> None:
    """A page that is written but not checkpointed is counted twice, or deleted twice and then missing."""
    steps.empty(plan)
    for expected in (PAGE, PAGE):
        # The ledger's client; the first PutItem of the first round makes the checkpoint.
        fault = FailCalls(runtime.client("dynamodb"), "PutItem", KilledError, lambda _: True)
        if expected == PAGE and not list(checkpoints(aws.dynamodb, "copy")):
            fault.which = lambda call: call > 1
        with fault, pytest.raises(KilledError):
            invoke(copy_segment.handler, steps.event(plan, 0), one_page())
        assert len(scan_all(aws.dynamodb, steps.table)) == expected
    finish(aws, steps, plan)


def test_a_killed_purge_leaves_nothing_over(aws: Aws, steps: Steps, plan: Any) -> None:
    """Items behind the cursor of a purge that died are never looked at again."""
    fault = FailCalls(runtime.data_client(), "BatchWriteItem", KilledError, lambda call: call == 3)
    with fault, pytest.raises(KilledError):
        invoke(purge_segment.handler, steps.event(plan, 0))
    assert len(scan_all(aws.dynamodb, steps.table)) == ITEMS - 2 * PAGE
    steps.empty(plan)
    assert scan_all(aws.dynamodb, steps.table) == []
    # What was deleted after the last checkpoint is not found again: documented as the one count that may be low.
    (checkpoint,) = checkpoints(aws.dynamodb, "purge")
    assert ITEMS - 2 * PAGE <= int(checkpoint["items"]["N"]) <= ITEMS


def test_two_workers_on_one_segment(aws: Aws, steps: Steps, plan: Any) -> None:
    """A worker that was given up for dead moves the checkpoint back, or adds its pages to the other's counts."""
    steps.empty(plan)
    event, answers = steps.event(plan, 0), []

    def other_worker(**_: Any) -> None:
        runtime.client("dynamodb").meta.events.unregister("before-call.dynamodb.PutItem", other_worker)
        answers.append(invoke(copy_segment.handler, event, one_page()))

    # The checkpoint exists already, so the first PutItem is the first worker's save.
    assert invoke(copy_segment.handler, event, one_page()) == {"complete": False, "items": PAGE}
    runtime.client("dynamodb").meta.events.register("before-call.dynamodb.PutItem", other_worker)
    with pytest.raises(CheckpointConflict, match="Another worker"):
        invoke(copy_segment.handler, event)
    assert answers == [{"complete": False, "items": 2 * PAGE}]
    (checkpoint,) = checkpoints(aws.dynamodb, "copy")
    assert checkpoint["items"] == {"N": str(2 * PAGE)}
    finish(aws, steps, plan)


def test_two_workers_begin_at_once(aws: Aws, steps: Steps, plan: Any) -> None:
    """Both create the checkpoint, and the second creation takes the first one's progress away."""
    steps.empty(plan)
    event = steps.event(plan, 0)

    def other_worker(**_: Any) -> None:
        runtime.client("dynamodb").meta.events.unregister("before-call.dynamodb.PutItem", other_worker)
        invoke(copy_segment.handler, event, one_page())

    runtime.client("dynamodb").meta.events.register("before-call.dynamodb.PutItem", other_worker)
    assert invoke(copy_segment.handler, event, one_page())["items"] == 2 * PAGE
    finish(aws, steps, plan)


def test_an_error_that_is_no_throttling_surfaces(aws: Aws, steps: Steps, plan: Any) -> None:
    """A missing permission is retried until the time is up, or the batch is given up silently."""
    steps.empty(plan)
    denied = throttling("BatchWriteItem")
    denied.response["Error"]["Code"] = "AccessDeniedException"
    fault = FailCalls(runtime.data_client(), "BatchWriteItem", lambda: denied, lambda _: True)
    with fault, pytest.raises(type(denied), match="Too fast"):
        invoke(copy_segment.handler, steps.event(plan, 0))
    assert fault.calls == 1
    assert scan_all(aws.dynamodb, steps.table) == []
    finish(aws, steps, plan)
