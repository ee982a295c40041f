"""Workers that outlive their execution or their phase, and the locks that keep them from harm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from handlers import copy_segment, digest_segment, purge_segment, runtime, segment_event
from handlers.core import engine
from handlers.core.clock import from_iso, to_iso, utc_now
from handlers.core.errors import (
    FINAL_ERRORS,
    CheckpointConflict,
    InvalidRequest,
    RecoveryInProgress,
    StaleWorker,
    VerificationFailed,
)
from handlers.core.hard_reset import HardReset
from handlers.core.ledger import Ledger

from .conftest import Aws
from .support import (
    LEDGER,
    LeaveUnprocessed,
    Steps,
    checkpoints,
    create_table,
    give_up_locks,
    hold_lock,
    invoke,
    ledger_items,
    lock_names,
    make_items,
    one_page,
    open_incident,
    put_all,
    scan_all,
)

KEY = (("id", "N"),)
ITEMS = 30
PAGE = 7
LOCK = "TABLE#test-licenses"
# Lambda's longest invocation and a minute for clocks that differ.
WORKERS_END_WITHIN = timedelta(seconds=960)


@pytest.fixture
def reset(aws: Aws, steps: Steps, small_pages: int, page_by_page: None) -> Steps:  # noqa: ARG001 - for its effect
    """A reset in one segment: 30 items in the source, 30 others in the destination."""
    assert small_pages == PAGE
    create_table(aws.dynamodb, steps.source, KEY)
    create_table(aws.dynamodb, steps.table, KEY)
    put_all(aws.dynamodb, steps.source, make_items(KEY, ITEMS, rich=False))
    put_all(aws.dynamodb, steps.table, make_items(KEY, ITEMS, first=16, rich=False))
    return replace(steps, segments=1)


def taken_over(aws: Aws) -> None:
    """Another execution has the lock."""
    hold_lock(aws.dynamodb, LOCK, "arn:aws:states:us-east-1:123456789012:execution:test-dr-orchestrator:another")


def given_up(aws: Aws) -> None:
    """Nobody has the lock any more."""
    aws.dynamodb.delete_item(TableName=LEDGER, Key={"pk": {"S": "LOCK"}, "sk": {"S": LOCK}})


losses = pytest.mark.parametrize("lose", [taken_over, given_up])


class AfterWrites:
    """Calls a function once, when the worker has written so many pages."""

    def __init__(self, pages: int, act: Callable[[], None]) -> None:
        self.left, self.act = pages, act

    def __enter__(self) -> AfterWrites:
        runtime.data_client().meta.events.register("after-call.dynamodb.BatchWriteItem", self._after)
        return self

    def __exit__(self, *_: object) -> None:
        runtime.data_client().meta.events.unregister("after-call.dynamodb.BatchWriteItem", self._after)

    def _after(self, **_: Any) -> None:
        self.left -= 1
        if self.left == 0:
            self.act()


def test_nobody_retries_a_stale_worker() -> None:
    """The state machine sends a worker back to work that was told to stop."""
    assert "StaleWorker" in FINAL_ERRORS


@losses
@pytest.mark.parametrize("pages", range(4))
def test_a_stale_purge_worker(aws: Aws, reset: Steps, lose: Callable[[Aws], None], pages: int) -> None:
    """The execution was aborted and another one copies: the old worker deletes what that one has written."""
    event = reset.event(reset.preflight(), 0)
    if pages == 0:
        lose(aws)
    with AfterWrites(pages, lambda: lose(aws)), pytest.raises(StaleWorker, match="does not hold the lock"):
        invoke(purge_segment.handler, event)
    assert len(scan_all(aws.dynamodb, reset.table)) == ITEMS - pages * PAGE
    before = scan_all(aws.dynamodb, reset.table)
    with pytest.raises(StaleWorker):
        invoke(purge_segment.handler, event)
    assert scan_all(aws.dynamodb, reset.table) == before


@losses
@pytest.mark.parametrize("handler", [purge_segment.handler, copy_segment.handler])
def test_a_worker_that_is_stale_after_a_back_off(
    aws: Aws, reset: Steps, lose: Callable[[Aws], None], handler: Callable[..., dict[str, Any]]
) -> None:
    """A throttled batch is sent again minutes later, when the table is recovered and in service."""
    plan = reset.preflight()
    if handler is copy_segment.handler:
        reset.empty(plan)
    before = len(scan_all(aws.dynamodb, reset.table))
    phase = "purge" if handler is purge_segment.handler else "copy"
    with (
        LeaveUnprocessed(runtime.data_client(), processed=1) as batches,
        AfterWrites(1, lambda: lose(aws)),
        pytest.raises(StaleWorker, match="does not hold the lock"),
    ):
        invoke(handler, {**reset.event(plan, 0), "phase": phase})
    assert batches.left == PAGE - 1
    assert abs(len(scan_all(aws.dynamodb, reset.table)) - before) == 1


def lock_reads(work: Callable[[], object]) -> int:
    """How often the work asks who holds the lock."""
    reads = []

    def note(params: dict[str, Any], **_: Any) -> None:
        if LOCK in params["body"].decode():
            reads.append(params)

    events = runtime.client("dynamodb").meta.events
    events.register("before-call.dynamodb.GetItem", note)
    work()
    events.unregister("before-call.dynamodb.GetItem", note)
    return len(reads)


def test_who_only_reads_asks_once_in_a_while(reset: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    """All workers that verify ask the ledger's one partition fourteen times a second, and are throttled there."""
    plan, pages = reset.preflight(), -(-ITEMS // PAGE)
    monkeypatch.setattr(segment_event, "GUARD_SECONDS", 3600.0)
    # Who writes asks before every page.
    assert lock_reads(lambda: reset.empty(plan)) >= pages
    assert lock_reads(lambda: reset.copy(plan)) >= pages
    event = reset.digest_event(plan, "source", 0)
    assert lock_reads(lambda: invoke(digest_segment.handler, event)) == 1
    monkeypatch.setattr(segment_event, "GUARD_SECONDS", 0.0)
    event = reset.digest_event(plan, "destination", 0)
    assert lock_reads(lambda: invoke(digest_segment.handler, event)) >= pages


def test_a_proof_whose_answer_was_lost_comes_too_late(aws: Aws, reset: Steps) -> None:
    """The table is verified; a proof that still ran takes it back to the copy, and out of the report."""
    plan = reset.preflight()
    reset.empty(plan)
    reset.copy(plan)
    reset.digest(plan)
    reset.verify(plan)
    empty = HardReset(
        ledger=Ledger(aws.dynamodb, LEDGER), clock=utc_now, incident_id=reset.incident_id, table_name=reset.table
    )
    assert empty.is_verified()
    empty.purged(0)
    assert empty.is_verified()


def test_a_purge_worker_while_the_next_execution_copies(aws: Aws, reset: Steps) -> None:
    """The whole story: aborted in the middle, taken over, purged, copied; then the old worker goes on with page two."""
    plan, second = reset.preflight(), replace(reset, execution_arn=aws.start_execution("second"))

    def next_execution() -> None:
        aws.abort(reset.execution_arn)
        theirs = second.preflight()
        assert theirs["phase"] == "purge"
        second.empty(theirs)
        second.copy(theirs)

    # Where the next execution took longer than the time between two checkpoints, the checkpoint stops it first.
    with AfterWrites(1, next_execution), pytest.raises((StaleWorker, CheckpointConflict)):
        invoke(purge_segment.handler, reset.event(plan, 0))
    assert scan_all(aws.dynamodb, reset.table) == scan_all(aws.dynamodb, reset.source)
    assert len(scan_all(aws.dynamodb, reset.table)) == ITEMS


def test_a_purge_worker_in_the_copy_of_its_own_execution(
    aws: Aws, reset: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An invocation that Step Functions gave up purges on while its successor's execution copies already."""
    # Without a checkpoint in between, which would stop it as well.
    monkeypatch.setattr(engine, "_CHECKPOINT_SECONDS", 3600.0)
    plan = reset.preflight()

    def successor() -> None:
        reset.empty(plan)
        reset.copy(plan)

    with AfterWrites(1, successor), pytest.raises(StaleWorker, match="is in its copy, attempt 1"):
        invoke(purge_segment.handler, reset.event(plan, 0))
    assert scan_all(aws.dynamodb, reset.table) == scan_all(aws.dynamodb, reset.source)
    assert len(scan_all(aws.dynamodb, reset.table)) == ITEMS


def test_a_purge_worker_that_begins_during_the_copy(aws: Aws, reset: Steps) -> None:
    """A purge that was queued by Lambda for minutes begins when the table is full again."""
    plan = reset.preflight()
    for item in scan_all(aws.dynamodb, reset.table):
        aws.dynamodb.delete_item(TableName=reset.table, Key={"id": item["id"]})
    reset.prove_empty(plan)
    reset.copy(plan)
    with pytest.raises(StaleWorker, match=r"is in its copy, attempt 1. Expected purge, attempt 1"):
        invoke(purge_segment.handler, reset.event(plan, 0))
    assert scan_all(aws.dynamodb, reset.table) == scan_all(aws.dynamodb, reset.source)


def test_a_purge_worker_after_the_verdict(aws: Aws, reset: Steps) -> None:
    """A recovered table, already in service, is purged by a worker that nobody remembers."""
    empty = replace(reset, segments=2)
    plan = empty.preflight()
    invoke(purge_segment.handler, empty.event(plan, 0))
    for item in scan_all(aws.dynamodb, reset.table):
        aws.dynamodb.delete_item(TableName=reset.table, Key={"id": item["id"]})
    empty.prove_empty(plan)
    empty.copy(plan)
    empty.digest(plan)
    assert empty.verify(plan)["verified"] is True
    with pytest.raises(StaleWorker, match="is in its verified"):
        invoke(purge_segment.handler, empty.event(plan, 1))
    assert scan_all(aws.dynamodb, reset.table) == scan_all(aws.dynamodb, reset.source)


@losses
@pytest.mark.parametrize("pages", range(3))
def test_a_stale_copy_worker(aws: Aws, reset: Steps, lose: Callable[[Aws], None], pages: int) -> None:
    """Items of one restore point are written among those of another."""
    plan = reset.preflight()
    reset.empty(plan)
    if pages == 0:
        lose(aws)
    with AfterWrites(pages, lambda: lose(aws)), pytest.raises(StaleWorker):
        invoke(copy_segment.handler, reset.event(plan, 0))
    assert len(scan_all(aws.dynamodb, reset.table)) == pages * PAGE


def test_a_copy_worker_before_the_proof(aws: Aws, reset: Steps) -> None:
    """Items are copied into a table that is still being purged: they are deleted again, and counted as copied."""
    plan = reset.preflight()
    before = scan_all(aws.dynamodb, reset.table)
    with pytest.raises(StaleWorker, match="is in its purge, attempt 1"):
        invoke(copy_segment.handler, reset.event(plan, 0))
    assert scan_all(aws.dynamodb, reset.table) == before


@pytest.mark.parametrize("handler", [purge_segment.handler, copy_segment.handler], ids=["purge", "copy"])
def test_a_worker_of_an_earlier_attempt(aws: Aws, reset: Steps, handler: Callable[..., dict[str, Any]]) -> None:
    """The failed attempt's last worker works on in the next one, under the old checkpoints."""
    two = replace(reset, segments=2)
    first = two.preflight()
    two.purge({**first, "segments": 1})
    for item in scan_all(aws.dynamodb, reset.table):
        aws.dynamodb.delete_item(TableName=reset.table, Key={"id": item["id"]})
    two.prove_empty(first)
    two.digest(first)
    with pytest.raises(VerificationFailed):
        two.verify(first)
    second = two.preflight()
    assert (second["phase"], second["attempt"]) == ("purge", 2)
    if handler is copy_segment.handler:
        two.empty(second)
    put_all(aws.dynamodb, reset.table, make_items(KEY, 5, first=900, rich=False))
    before = scan_all(aws.dynamodb, reset.table)
    assert len(before) == 5
    with pytest.raises(StaleWorker, match=r"attempt 2\. Expected"):
        invoke(handler, two.event(first, 1))
    assert scan_all(aws.dynamodb, reset.table) == before


@losses
@pytest.mark.parametrize("side", ["source", "destination"])
def test_a_stale_digest_worker(aws: Aws, reset: Steps, lose: Callable[[Aws], None], side: str) -> None:
    """A worker of an aborted execution saves a digest of the table as it was into the next one's verification."""
    plan = reset.preflight()
    reset.empty(plan)
    reset.copy(plan)
    lose(aws)
    with pytest.raises(StaleWorker):
        invoke(digest_segment.handler, reset.digest_event(plan, side, 0))
    (checkpoint,) = checkpoints(aws.dynamodb, f"verify-{side}")
    assert checkpoint["complete"] == {"BOOL": False}
    assert "items" not in checkpoint


def test_a_stale_worker_saves_no_checkpoint(aws: Aws, reset: Steps) -> None:
    """The next execution's worker meets a conflict on every segment, or skips what was never done."""
    event = reset.event(reset.preflight(), 0)
    assert invoke(purge_segment.handler, event, one_page())["items"] == PAGE
    (before,) = checkpoints(aws.dynamodb, "purge")
    with AfterWrites(1, lambda: taken_over(aws)), pytest.raises(StaleWorker):
        invoke(purge_segment.handler, event)
    (after,) = checkpoints(aws.dynamodb, "purge")
    assert after == before


# --- waiting for workers that nobody can stop -------------------------------------------------------------------------


def workers_gone(aws: Aws, execution_arn: str) -> str:
    """When no worker of an aborted execution can be alive any more."""
    stopped = aws.stepfunctions.describe_execution(executionArn=execution_arn)["stopDate"]
    return to_iso(stopped + WORKERS_END_WITHIN)


def kept(aws: Aws) -> Any:
    """The time that the ledger keeps with the lock."""
    return ledger_items(aws.dynamodb)["LOCK", LOCK].get("settledAt", {}).get("S")


def test_a_lock_of_an_aborted_execution_has_to_settle(aws: Aws, reset: Steps) -> None:
    """The next execution purges and copies while a page of the aborted one's purge is still being deleted."""
    reset.preflight()
    assert kept(aws) is None
    aws.abort(reset.execution_arn)
    second = replace(reset, execution_arn=aws.start_execution("second"))
    settled_at = second.preflight()["settledAt"]
    assert settled_at == workers_gone(aws, reset.execution_arn) == kept(aws)
    assert from_iso(settled_at) > datetime.now(UTC) + timedelta(minutes=15)
    # Its answer was lost: the retry must wait as long.
    assert second.preflight()["settledAt"] == settled_at


@pytest.mark.parametrize(("minutes", "later"), [(30, True), (-30, False)])
def test_a_second_take_over_keeps_the_later_time(aws: Aws, reset: Steps, minutes: int, later: bool) -> None:
    """The second execution is aborted while it waits, and the third one no longer waits for the first one's workers."""
    first = to_iso(datetime.now(UTC) + timedelta(minutes=minutes))
    hold_lock(aws.dynamodb, LOCK, reset.execution_arn, settled_at=first)
    aws.abort(reset.execution_arn)
    second = replace(reset, execution_arn=aws.start_execution("second"))
    expected = first if later else workers_gone(aws, reset.execution_arn)
    assert second.preflight()["settledAt"] == expected == kept(aws)


def test_a_forgotten_execution_keeps_the_time_of_the_one_before(aws: Aws, reset: Steps) -> None:
    """An owner of whom nothing is known has no end, and with it goes the time that is known."""
    first = to_iso(datetime.now(UTC) + timedelta(minutes=5))
    hold_lock(aws.dynamodb, LOCK, reset.execution_arn + "-forgotten", settled_at=first)
    assert reset.preflight()["settledAt"] == first == kept(aws)


def test_a_forgotten_execution_has_settled(aws: Aws, reset: Steps) -> None:
    """A recovery waits for workers that ended three months ago, or for ever."""
    hold_lock(aws.dynamodb, LOCK, reset.execution_arn + "-forgotten")
    assert from_iso(reset.preflight()["settledAt"]) <= datetime.now(UTC)


def refused_for_its_source(aws: Aws, reset: Steps) -> None:
    """An execution takes the lock over, is refused, and gives it up."""
    create_table(aws.dynamodb, "dr-test.other", KEY)
    second = replace(reset, execution_arn=aws.start_execution("second"), source="dr-test.other")
    with pytest.raises(InvalidRequest, match="Expected the same source"):
        second.preflight()
    second.unlock()


def refused_for_an_orchestrator(aws: Aws, reset: Steps) -> None:
    """An execution takes the lock over and gives it up because an orchestrator runs, which then ends."""
    hold_lock(aws.dynamodb, "ENVIRONMENT", aws.start_execution("orchestrator"), incident="other")
    with pytest.raises(RecoveryInProgress):
        replace(reset, execution_arn=aws.start_execution("second")).preflight()
    aws.dynamodb.delete_item(TableName=LEDGER, Key={"pk": {"S": "LOCK"}, "sk": {"S": "ENVIRONMENT"}})


@pytest.mark.parametrize("refused", [refused_for_its_source, refused_for_an_orchestrator])
def test_a_refused_execution_does_not_shorten_the_wait(
    aws: Aws, reset: Steps, refused: Callable[[Aws, Steps], None]
) -> None:
    """A start that is refused in between makes the next one purge and copy below the aborted one's workers."""
    reset.preflight()
    aws.abort(reset.execution_arn)
    refused(aws, reset)
    third = replace(reset, execution_arn=aws.start_execution("third"))
    assert third.preflight()["settledAt"] == workers_gone(aws, reset.execution_arn)


# --- borrowed locks ---------------------------------------------------------------------------------------------------


@pytest.fixture
def child(aws: Aws, reset: Steps) -> Steps:
    """The reset as an orchestrator's child; the table's lock has to settle still."""
    parent = aws.start_execution("parent")
    hold_lock(aws.dynamodb, "ENVIRONMENT", parent)
    open_incident(aws.dynamodb, parent, tables=["test-licenses"])
    aws.restore_anew(reset.table, reset.source)
    hold_lock(aws.dynamodb, LOCK, parent, settled_at=to_iso(datetime.now(UTC) + timedelta(minutes=5)))
    return replace(reset, parent=parent)


def test_a_child_waits_as_long_as_its_parent(aws: Aws, child: Steps) -> None:
    """The orchestrator took the lock over from an aborted execution, and its child does not know."""
    before = kept(aws)
    assert from_iso(before) > datetime.now(UTC)
    assert child.preflight()["settledAt"] == before == kept(aws)


def test_a_borrowed_lock_goes_back(aws: Aws, child: Steps) -> None:
    """A table is free as soon as its own reset is done: somebody resets it by hand below the orchestrator's release."""
    before = kept(aws)
    child.preflight()
    assert lock_names(aws.dynamodb)[LOCK] == child.execution_arn
    child.unlock()
    assert lock_names(aws.dynamodb) == {"ENVIRONMENT": child.parent, LOCK: child.parent}
    assert kept(aws) == before
    child.unlock()  # a retried invocation
    assert lock_names(aws.dynamodb) == {"ENVIRONMENT": child.parent, LOCK: child.parent}
    again = replace(child, execution_arn=aws.start_execution("again"))
    assert again.preflight()["phase"] == "purge"
    assert lock_names(aws.dynamodb)[LOCK] == again.execution_arn


def test_a_lock_of_somebody_else_goes_nowhere(aws: Aws, child: Steps) -> None:
    """A child that was refused hands another execution's lock to its parent."""
    other = aws.start_execution("other")
    hold_lock(aws.dynamodb, LOCK, other)
    child.unlock()
    assert lock_names(aws.dynamodb)[LOCK] == other


def test_what_was_given_back_the_parent_gives_up(aws: Aws, child: Steps) -> None:
    """The lock that came back stays behind when the orchestrator ends."""
    assert child.parent
    child.preflight()
    child.unlock()
    give_up_locks(child.parent)
    # Free for the next, who has to wait as long as this one had to.
    assert lock_names(aws.dynamodb) == {LOCK: "nobody"}
    assert from_iso(kept(aws)) > datetime.now(UTC)


def test_a_lock_of_ones_own_is_deleted(aws: Aws, reset: Steps) -> None:
    """A hard reset by hand has no parent: its lock is given to nobody and stays."""
    reset.preflight()
    assert lock_names(aws.dynamodb) == {LOCK: reset.execution_arn}
    reset.unlock()
    assert ledger_items(aws.dynamodb, "LOCK") == {}
