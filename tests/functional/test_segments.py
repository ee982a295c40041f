"""Purge, copy and digest of segments, for every kind of key and every type of attribute."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from handlers import copy_segment, digest_segment, purge_segment, runtime
from handlers.core.errors import VerificationFailed

from .conftest import Aws
from .support import Context, Key, Steps, create_table, invoke, ledger_items, make_items, one_page, put_all, scan_all

KEYS: dict[str, Key] = {
    "S": (("id", "S"),),
    "S+S": (("country", "S"), ("code", "S")),
    "N": (("number", "N"),),
    "B": (("hash", "B"),),
    "N+B": (("year", "N"), ("bytes", "B")),
    "reserved words": (("name", "S"), ("date", "N")),
    "dots": (("order.id", "S"), ("line.number", "N")),
    "odd characters": (("#k0", "S"), (":a-b c", "S")),
}


@pytest.fixture(params=list(KEYS.values()), ids=list(KEYS))
def key(request: pytest.FixtureRequest) -> Key:
    """Each kind of key in turn."""
    result: Key = request.param
    return result


@pytest.fixture
def filled(aws: Aws, steps: Steps, key: Key) -> Steps:
    """Source with 18 items; destination with 11 of them damaged, 7 missing and 5 more of its own."""
    create_table(aws.dynamodb, steps.source, key)
    create_table(aws.dynamodb, steps.table, key)
    assert put_all(aws.dynamodb, steps.source, make_items(key, 18)) == 18
    put_all(aws.dynamodb, steps.table, make_items(key, 11, rich=False))
    put_all(aws.dynamodb, steps.table, make_items(key, 5, first=101))
    assert len(scan_all(aws.dynamodb, steps.table)) == 16
    assert len(scan_all(aws.dynamodb, steps.source)) == 18
    return steps


@pytest.mark.parametrize("key", [KEYS["S"], KEYS["N+B"]], ids=["S", "N+B"])
def test_a_whole_reset(aws: Aws, filled: Steps) -> None:
    """An item is lost, left over or changed on its way (a type, a digit, an empty value), and no count tells."""
    source = scan_all(aws.dynamodb, filled.source)
    summary = filled.run()
    assert scan_all(aws.dynamodb, filled.table) == source == scan_all(aws.dynamodb, filled.source)
    assert (summary["purgedItems"], summary["copiedItems"], summary["verifiedItems"]) == (16, 18, 18)
    assert summary["sourceDigest"] == summary["destinationDigest"] != "0" * 64
    assert summary["verified"] is True


@pytest.mark.usefixtures("small_pages")
def test_many_resumptions(aws: Aws, filled: Steps) -> None:
    """A cursor that loses a digit, a byte or a name makes a worker skip items or do them twice."""
    source = scan_all(aws.dynamodb, filled.source)
    plan = filled.preflight()
    # At most seven items an invocation.
    assert filled.empty(plan, one_page) >= 3
    assert scan_all(aws.dynamodb, filled.table) == []
    assert filled.copy(plan, one_page) >= 3
    assert scan_all(aws.dynamodb, filled.table) == source
    assert filled.digest(plan, one_page) >= 6
    summary = filled.verify(plan)
    assert (summary["purgedItems"], summary["copiedItems"], summary["verifiedItems"]) == (16, 18, 18)


def test_a_page_an_invocation_does_one_page(aws: Aws, steps: Steps, small_pages: int) -> None:
    """The deadline is looked at too late: an invocation is killed in the middle of its work, every time."""
    create_table(aws.dynamodb, steps.source)
    create_table(aws.dynamodb, steps.table)
    put_all(aws.dynamodb, steps.source, make_items((("id", "S"),), 20))
    plan = Steps(execution_arn=steps.execution_arn, segments=1).preflight()
    steps.empty(plan)
    event = steps.event(plan, 0)
    answers = [invoke(copy_segment.handler, event, one_page()) for _ in range(4)]
    assert [answer["items"] for answer in answers] == [small_pages, 2 * small_pages, 20, 20]
    assert [answer["complete"] for answer in answers] == [False, False, True, True]


def test_a_complete_segment_is_not_worked_on_again(aws: Aws, steps: Steps) -> None:
    """A retried invocation purges what the copy has just written."""
    create_table(aws.dynamodb, steps.source)
    create_table(aws.dynamodb, steps.table)
    put_all(aws.dynamodb, steps.source, make_items((("id", "S"),), 5))
    put_all(aws.dynamodb, steps.table, make_items((("id", "S"),), 9))
    plan = steps.preflight()
    steps.empty(plan)
    steps.copy(plan)
    before = scan_all(aws.dynamodb, steps.table)
    assert len(before) == 5
    assert steps.purge(plan) == steps.segments
    assert scan_all(aws.dynamodb, steps.table) == before


def test_a_new_attempt_begins_from_nothing(aws: Aws, steps: Steps) -> None:
    """The checkpoints of a failed attempt make the next one skip everything."""
    create_table(aws.dynamodb, steps.source)
    create_table(aws.dynamodb, steps.table)
    put_all(aws.dynamodb, steps.source, make_items((("id", "S"),), 5))
    plan = steps.preflight()
    steps.empty(plan)
    steps.copy(plan)
    put_all(aws.dynamodb, steps.table, make_items((("id", "S"),), 9, first=50))
    steps.digest(plan)
    with pytest.raises(VerificationFailed):
        steps.verify(plan)
    plan = steps.preflight()
    assert (plan["phase"], plan["attempt"]) == ("purge", 2)
    assert len(scan_all(aws.dynamodb, steps.table)) == 14
    steps.empty(plan)
    assert scan_all(aws.dynamodb, steps.table) == []
    steps.copy(plan)
    assert len(scan_all(aws.dynamodb, steps.table)) == 5


def test_the_sides_of_the_digest(aws: Aws, steps: Steps) -> None:
    """Both digests are of the same table: everything verifies, always."""
    create_table(aws.dynamodb, steps.source)
    create_table(aws.dynamodb, steps.table)
    put_all(aws.dynamodb, steps.source, make_items((("id", "S"),), 5))
    put_all(aws.dynamodb, steps.table, make_items((("id", "S"),), 3))
    plan = steps.preflight()
    one = {"totalSegments": 1}
    assert invoke(digest_segment.handler, {**steps.digest_event(plan, "source", 0), **one})["items"] == 5
    assert invoke(digest_segment.handler, {**steps.digest_event(plan, "destination", 0), **one})["items"] == 3
    with pytest.raises(KeyError):
        invoke(digest_segment.handler, {**steps.digest_event(plan, "neither", 0), **one})


def test_the_purge_reads_keys_only(aws: Aws, steps: Steps) -> None:
    """Whole items go over the wire to be deleted: hours and money, and content where none is needed."""
    create_table(aws.dynamodb, steps.source)
    create_table(aws.dynamodb, steps.table)
    put_all(aws.dynamodb, steps.table, make_items((("id", "S"),), 5))
    plan = steps.preflight()
    seen: list[dict[str, Any]] = []

    def note(parsed: dict[str, Any], **_: Any) -> None:
        seen.extend(parsed["Items"])

    runtime.data_client().meta.events.register("after-call.dynamodb.Scan", note)
    steps.purge(plan)
    assert len(seen) == 5
    assert {name for item in seen for name in item} == {"id"}


@pytest.mark.usefixtures("small_pages")
def test_logs_hold_no_content(aws: Aws, steps: Steps) -> None:
    """Personal data ends up in the logs, which are kept longer and read by more people than the table."""
    create_table(aws.dynamodb, steps.source)
    create_table(aws.dynamodb, steps.table)
    items = [{"id": {"S": f"secret-{n}"}, "value": {"S": "secret"}} for n in range(20)]
    put_all(aws.dynamodb, steps.source, items)
    put_all(aws.dynamodb, steps.table, items)
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.dumps({**record.__dict__}, default=str))

    keep = Keep()
    logger = logging.getLogger(runtime.logger.name)
    logger.addHandler(keep)
    try:
        steps.run(one_page)
    finally:
        logger.removeHandler(keep)
    assert sum("segment worked on" in line for line in lines) > 6
    assert not [line for line in lines if "secret" in line]


def test_checkpoints_are_made_before_the_first_item_is_touched(aws: Aws, steps: Steps) -> None:
    """Whether a purge has begun is unknown after a crash: functions are released on a half-purged table."""
    create_table(aws.dynamodb, steps.source)
    create_table(aws.dynamodb, steps.table)
    put_all(aws.dynamodb, steps.table, make_items((("id", "S"),), 5))
    plan = steps.preflight()
    assert ledger_items(aws.dynamodb, "SEGMENTS#") == {}
    known: list[int] = []

    def look(**_: Any) -> None:
        known.append(len(ledger_items(aws.dynamodb, "SEGMENTS#")))

    runtime.data_client().meta.events.register("before-call.dynamodb.Scan", look)
    invoke(purge_segment.handler, steps.event(plan, 0), Context())
    assert known
    assert min(known) == 1
