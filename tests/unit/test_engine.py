"""Several pages in work at once: what the checkpoint may pass, and what is under way when the engine returns."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from botocore.exceptions import ClientError

from handlers.core import engine
from handlers.core.clock import Deadline
from handlers.core.digest import Item
from handlers.core.engine import BatchWriter, Copy, DeadlineReached, Engine, Purge
from handlers.core.errors import CapacityExhausted, StaleWorker
from handlers.core.ledger import Ledger, PageResult, SegmentId
from handlers.core.pacing import Pacer
from handlers.core.wire import RequestTooLarge
from tests.properties.fake_dynamodb import FakeDynamoDB, FakeTable

SEGMENT = SegmentId(incident_id="incident", table_name="table", phase="copy", generation=1, segment=0)
ITEMS, PAGE = 18, 4


@dataclass
class Recorded:
    """A phase that records the pages it works on; ``act`` is called with a page's number, from 0, in its thread."""

    act: Callable[[int], None]
    begun: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    pages_at_once: ClassVar[int] = 3
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def scan_arguments(self) -> Mapping[str, Any]:
        """Scan the table."""
        return {"TableName": "table"}

    def apply(self, items: Sequence[Item], _deadline: Deadline, _before: PageResult, /) -> PageResult:
        """Act, and count."""
        with self._lock:
            number = len(self.begun)
            self.begun.append(number)
        try:
            self.act(number)
        finally:
            with self._lock:
                self.ended.append(number)
        return PageResult(items=len(items))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FakeDynamoDB, Engine]]:
    """A table of five pages and its engine."""
    monkeypatch.setattr(engine, "PAGE_ITEMS", PAGE)
    table = FakeTable(key_names=("id",))
    for number in range(ITEMS):
        table.put({"id": {"N": str(number)}})
    fake = FakeDynamoDB(tables={"table": table, "ledger": FakeTable(key_names=("pk", "sk"))})
    with ThreadPoolExecutor(max_workers=4) as pool:
        yield fake, Engine(dynamodb=fake, ledger=Ledger(fake, "ledger"), executor=pool)  # type: ignore[arg-type]


def test_pages_are_in_work_at_once(world: tuple[FakeDynamoDB, Engine]) -> None:
    """Pages that wait for each other: the last batches of each leave the connections idle."""
    together = threading.Barrier(3, timeout=30)

    def act(number: int) -> None:
        if number < 3:
            together.wait()

    phase = Recorded(act)
    checkpoint = world[1].run(SEGMENT, 1, phase, Deadline.after(60))
    assert checkpoint.complete
    assert checkpoint.items == ITEMS


def test_the_checkpoint_does_not_pass_a_page_that_is_not_done(world: tuple[FakeDynamoDB, Engine]) -> None:
    """The third page is written, the second is not: a cursor behind the third loses the second for ever."""
    third = threading.Event()

    def act(number: int) -> None:
        if number == 1:
            assert third.wait(30)
            raise DeadlineReached
        if number == 2:
            third.set()

    phase = Recorded(act)
    checkpoint = world[1].run(SEGMENT, 1, phase, Deadline.after(60))
    assert 2 in phase.ended, "no later page was done; nothing was tested"
    assert (checkpoint.complete, checkpoint.items) == (False, PAGE)
    again = Recorded(lambda _: None)
    assert world[1].run(SEGMENT, 1, again, Deadline.after(60)).items == ITEMS
    assert len(again.begun) == ITEMS // PAGE, "not all pages but the first"


def test_what_is_written_counts_though_no_more_can_be_read(world: tuple[FakeDynamoDB, Engine]) -> None:
    """Every invocation writes the same two pages again, and says that it got nothing through."""
    fake, worker = world
    scans = []

    def throttle(operation: str) -> None:
        if operation == "Scan":
            scans.append(1)
            if len(scans) > 2:
                raise DeadlineReached

    fake.before = throttle
    checkpoint = worker.run(SEGMENT, 1, Recorded(lambda _: None), Deadline.after(60))
    assert (checkpoint.complete, checkpoint.items) == (False, 2 * PAGE)


def test_no_page_done_is_no_progress(world: tuple[FakeDynamoDB, Engine]) -> None:
    """Later pages that get through hide that the first never does, and the machine tries for ever."""

    def act(number: int) -> None:
        if number == 0:
            raise DeadlineReached

    with pytest.raises(CapacityExhausted, match="0 items before it"):
        world[1].run(SEGMENT, 1, Recorded(act), Deadline.after(60))


def test_nothing_is_under_way_after_an_error(world: tuple[FakeDynamoDB, Engine]) -> None:
    """A worker that was told to stop returns, and its pages are written on: after the lock was given up."""
    going = threading.Event()
    calls = []

    def guard() -> None:
        calls.append(1)
        if len(calls) == 2:
            going.set()
            raise StaleWorker("told to stop")

    def act(_: int) -> None:
        assert going.wait(30)

    phase = Recorded(act)
    with pytest.raises(StaleWorker):
        world[1].run(SEGMENT, 1, phase, Deadline.after(60), guard)
    assert phase.begun == phase.ended == [0]


def test_a_batch_that_is_too_large_is_split() -> None:
    """25 items of the largest size whose JSON is longer than DynamoDB takes end the recovery for good."""
    sizes = []

    class Narrow(FakeDynamoDB):
        def batch_write_item(self, **arguments: Any) -> dict[str, Any]:
            count = len(arguments["RequestItems"]["table"])
            if count > 4:
                raise RequestTooLarge("BatchWriteItem")
            sizes.append(count)
            return super().batch_write_item(**arguments)

    table = FakeTable(key_names=("id",))
    keys: list[Item] = [{"id": {"N": str(number)}} for number in range(25)]
    for key in keys:
        table.put(dict(key))
    with ThreadPoolExecutor(max_workers=1) as pool:
        client: Any = Narrow(tables={"table": table})
        writer = BatchWriter(dynamodb=client, table_name="table", executor=pool)
        result = Purge(writer=writer, key_names=("id",)).apply(keys, Deadline.after(60), PageResult())
    assert result.items == sum(sizes) == 25
    assert table.items == {}


@pytest.mark.parametrize(("pace", "items"), [(0.04, 1), (2.0, 30), (20.0, 300), (4000.0, 500)])
def test_a_slow_pace_makes_small_pages(pace: float, items: int) -> None:
    """A page that takes longer than an invocation is begun anew for ever, and written again each time."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        client: Any = FakeDynamoDB()
        pacer = Pacer(start=4000, limit=pace)
        writer = BatchWriter(dynamodb=client, table_name="table", executor=pool, pacer=pacer)
        copy = Copy(source_table_name="source", writer=writer)
        assert copy.scan_arguments()["Limit"] == items
        assert Purge(writer=writer, key_names=("id",)).scan_arguments()["Limit"] == items


def test_the_pace_counts_what_takes_the_tables_own_capacity() -> None:
    """Local indexes take the table's own units and are not counted: the operator's limit is exceeded three times."""
    consumed = {
        "CapacityUnits": 100.0,
        "Table": {"CapacityUnits": 25.0},
        "LocalSecondaryIndexes": {"one": {"CapacityUnits": 25.0}},
        "GlobalSecondaryIndexes": {"two": {"CapacityUnits": 50.0}},
    }
    reported = []

    class Indexed(FakeDynamoDB):
        def batch_write_item(self, **arguments: Any) -> dict[str, Any]:
            return {**super().batch_write_item(**arguments), "ConsumedCapacity": [consumed]}

    class Noted(Pacer):
        def report(self, reserved: float, accepted: float, **_: Any) -> None:  # noqa: ARG002 - the pacer's own
            reported.append(accepted)

    client: Any = Indexed(tables={"table": FakeTable(key_names=("id",))})
    with ThreadPoolExecutor(max_workers=1) as pool:
        writer = BatchWriter(dynamodb=client, table_name="table", executor=pool, pacer=Noted(start=1000))
        units = writer.write([{"PutRequest": {"Item": {"id": {"N": "1"}}}}], Deadline.after(60))
    assert (reported, units) == ([50.0], 100.0)


def test_a_failover_is_outlasted_and_an_outage_is_not() -> None:
    """Half a second of server errors ends the recovery; or an outage is waited for until nobody knows what it was."""

    class Broken(FakeDynamoDB):
        left = 0

        def batch_write_item(self, **arguments: Any) -> dict[str, Any]:
            if self.left:
                self.left -= 1
                response: Any = {"Error": {"Code": "InternalServerError"}, "ResponseMetadata": {"HTTPStatusCode": 500}}
                raise ClientError(response, "BatchWriteItem")
            return super().batch_write_item(**arguments)

    client: Any = Broken(tables={"table": FakeTable(key_names=("id",))})
    request = [{"PutRequest": {"Item": {"id": {"N": "1"}}}}]
    with ThreadPoolExecutor(max_workers=1) as pool:
        writer = BatchWriter(dynamodb=client, table_name="table", executor=pool, sleep=lambda _: None)
        client.left = 10
        assert writer.write(request, Deadline.after(600)) == 1.0
        assert len(client.tables["table"].items) == 1
        client.left = 1000
        with pytest.raises(ClientError, match="InternalServerError"):
            writer.write(request, Deadline.after(600))
