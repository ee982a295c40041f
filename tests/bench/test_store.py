"""The operations on tables in memory, through the client for simulated time."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from bench.capacity import CapacityOptions
from bench.fill import Generator
from bench.items import KeyAttribute, KeySchema, item_size
from bench.latency import Latency
from bench.store import LocalClient, Store
from handlers.core.digest import digest_items, to_hex

KEY = KeySchema(partition=KeyAttribute(name="pk", type="S"))
TWO_KEYS = KeySchema(partition=KeyAttribute(name="pk", type="S"), sort=KeyAttribute(name="sk", type="N"))
PLENTY = CapacityOptions(
    mode="provisioned", write_units=1e9, read_units=1e9, quota=1e9, partition_limits=False, partitions=1
)


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


class Bench:
    """A store, its client and their clock."""

    def __init__(self, **client: Any) -> None:
        self.store, self.clock = Store(), Clock()
        self.client = LocalClient(self.store, self.clock, **client)

    def table(self, name: str = "t", schema: KeySchema = KEY, options: CapacityOptions = PLENTY, **more: Any) -> None:
        """Make a table."""
        self.store.create_table(name, schema, options, self.clock.now, **more)

    def put(self, *items: dict[str, Any], table: str = "t", **more: Any) -> dict[str, Any]:
        """Put items in one batch."""
        return self.client.batch_write_item(
            RequestItems={table: [{"PutRequest": {"Item": item}} for item in items]}, **more
        )

    def scan_all(self, table: str = "t", **arguments: Any) -> list[dict[str, Any]]:
        """The items of all pages."""
        items: list[dict[str, Any]] = []
        while True:
            page = self.client.scan(TableName=table, **arguments)
            items += page["Items"]
            if "LastEvaluatedKey" not in page:
                return items
            arguments["ExclusiveStartKey"] = page["LastEvaluatedKey"]


def error_code(call: Callable[[], object]) -> str:
    """The code of the error that the call ends in."""
    with pytest.raises(ClientError) as caught:
        call()
    return caught.value.response["Error"]["Code"]


def text_item(number: int, size: int = 100) -> dict[str, Any]:
    """An item with a text of so many characters."""
    return {"pk": {"S": f"key-{number}"}, "x": {"S": "x" * size}}


EVERY_TYPE: dict[str, Any] = {
    "pk": {"S": 'quo"te\\ Zoë \u2028 😀 ", "S": "'},
    "whole": {"N": "12345678901234567890123456789012345678"},
    "small": {"N": "-0.00000000000000000000000000000000000000000000012345678901234567890123456789012345678"},
    "binary": {"B": "AAECAwT/"},
    "texts": {"SS": ["a", "", "ü"]},
    "numbers": {"NS": ["1", "-2.5"]},
    "binaries": {"BS": ["aGk=", "AA=="]},
    "map": {"M": {"M": {"M": {"S": {"S": "}{"}}}, "list": {"L": [{"NULL": True}, {"BOOL": False}, {"L": []}]}}},
    "empty": {"S": ""},
}


def test_every_type_comes_back_as_it_was_written() -> None:
    """Would corrupt what a bench copies, and let it blame the engine."""
    bench = Bench()
    bench.table()
    bench.put(EVERY_TYPE, text_item(1))
    found = bench.client.batch_get_item(RequestItems={"t": {"Keys": [{"pk": EVERY_TYPE["pk"]}]}})["Responses"]["t"]
    assert found == [EVERY_TYPE]
    assert EVERY_TYPE in bench.scan_all()


def test_numbers_are_kept_in_their_normal_form() -> None:
    """Would answer 1.50 where AWS answers 1.5, and take 1 and 1.0 for two keys."""
    bench = Bench()
    bench.table(schema=TWO_KEYS)
    bench.put({"pk": {"S": "a"}, "sk": {"N": "1.0"}, "x": {"L": [{"N": "1.50"}]}})
    bench.put({"pk": {"S": "a"}, "sk": {"N": "1"}, "x": {"L": [{"N": "2E2"}]}})
    assert bench.scan_all() == [{"pk": {"S": "a"}, "sk": {"N": "1"}, "x": {"L": [{"N": "200"}]}}]


@pytest.mark.parametrize("segments", [1, 2, 7, 64, 5000])
@pytest.mark.parametrize("schema", [KEY, TWO_KEYS])
def test_the_segments_of_a_scan_hold_every_item_once(segments: int, schema: KeySchema) -> None:
    """Would lose or double items between segments or pages."""
    bench = Bench()
    bench.table(schema=schema)
    generator = bench.store.fill("t", 700, 0.0)
    keys = Counter(
        json.dumps(schema.key(item))
        for segment in range(segments)
        for item in bench.scan_all(Segment=segment, TotalSegments=segments, Limit=13)
    )
    assert set(keys.values()) == {1}
    assert keys.keys() == {json.dumps(generator.key(number)) for number in range(700)}


def test_a_page_holds_at_most_a_megabyte() -> None:
    """Would let a worker's memory pass that AWS would not fill, or read for less than it costs."""
    bench = Bench()
    bench.table()
    sizes = random.Random(1).choices(range(1000, 390_000), k=60)
    for number, size in enumerate(sizes):
        bench.put(text_item(number, size))
    pages: list[dict[str, Any]] = []
    start: dict[str, Any] = {}
    while True:
        page = bench.client.scan(TableName="t", ConsistentRead=True, ReturnConsumedCapacity="TOTAL", **start)
        pages.append(page)
        if "LastEvaluatedKey" not in page:
            break
        start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
    totals = [sum(map(item_size, page["Items"])) for page in pages]
    assert sum(page["Count"] for page in pages) == 60
    assert len(pages) > 5
    assert max(totals) <= 1024**2
    # The first item of the next page would not have fitted.
    assert all(
        total + item_size(following["Items"][0]) > 1024**2 for total, following in zip(totals, pages[1:], strict=False)
    )
    assert [page["ConsumedCapacity"]["CapacityUnits"] for page in pages] == [-(-total // 4096) for total in totals]


def test_a_scan_counts_and_projects() -> None:
    """Would answer a purge with whole items, or charge it less for keys than AWS does."""
    bench = Bench()
    bench.table(schema=TWO_KEYS)
    bench.store.fill("t", 100, 0.0)
    whole = bench.client.scan(TableName="t", ReturnConsumedCapacity="TOTAL", ConsistentRead=True)
    keys = bench.client.scan(
        TableName="t",
        ReturnConsumedCapacity="TOTAL",
        ConsistentRead=True,
        ProjectionExpression="#k0, #k1",
        ExpressionAttributeNames={"#k0": "pk", "#k1": "sk"},
    )
    assert keys["Items"] == [TWO_KEYS.key(item) for item in whole["Items"]]
    assert keys["ConsumedCapacity"] == whole["ConsumedCapacity"] == {"TableName": "t", "CapacityUnits": 25.0}
    other = bench.client.scan(TableName="t", ProjectionExpression="attribute3, absent", Limit=2)
    assert [list(item) for item in other["Items"]] == [["attribute3"]] * 2
    count = bench.client.scan(TableName="t", Select="COUNT")
    assert (count["Count"], count["ScannedCount"], "Items" in count) == (100, 100, False)


def test_an_eventually_consistent_read_costs_half() -> None:
    """Would price a careless worker like a careful one."""
    bench = Bench()
    bench.table()
    bench.store.fill("t", 8, 0.0)
    scan = bench.client.scan(TableName="t", ReturnConsumedCapacity="TOTAL")
    assert scan["ConsumedCapacity"]["CapacityUnits"] == 1.0
    keys = [{"pk": item["pk"]} for item in scan["Items"]]
    for consistent, units in ((False, 4.5), (True, 9.0)):
        wanted = {"Keys": [*keys, {"pk": {"S": "absent"}}], "ConsistentRead": consistent}
        answer = bench.client.batch_get_item(RequestItems={"t": wanted}, ReturnConsumedCapacity="TOTAL")
        # Each item by itself, and one that is not there as well.
        assert answer["ConsumedCapacity"] == [{"TableName": "t", "CapacityUnits": units}]
        assert len(answer["Responses"]["t"]) == 8


def test_a_batch_get_rounds_each_item_up_by_itself() -> None:
    """The guide's example: items of 1.5 and 6.5 KB are 4 + 8 KB."""
    bench = Bench()
    bench.table()
    for number, size in ((1, 1536), (2, 6656)):
        item = text_item(number, 0)
        item["x"]["S"] = "x" * (size - item_size(item))
        bench.put(item)
    keys = [{"pk": {"S": "key-1"}}, {"pk": {"S": "key-2"}}]
    answer = bench.client.batch_get_item(
        RequestItems={"t": {"Keys": keys, "ConsistentRead": True}}, ReturnConsumedCapacity="TOTAL"
    )
    assert answer["ConsumedCapacity"][0]["CapacityUnits"] == 3.0


def test_an_answer_of_a_batch_get_holds_at_most_16_megabytes() -> None:
    """The API reference's example: 52 of 100 items of 300 KB; the keys of the others come back."""
    bench = Bench()
    bench.table()
    for number in range(100):
        item = text_item(number, 0)
        item["x"]["S"] = "x" * (300 * 1024 - item_size(item))
        bench.put(item)
    wanted: dict[str, Any] = {"t": {"Keys": [{"pk": {"S": f"key-{number}"}} for number in range(100)]}}
    first = bench.client.batch_get_item(RequestItems=wanted)
    assert len(first["Responses"]["t"]) == 52
    second = bench.client.batch_get_item(RequestItems=first["UnprocessedKeys"])
    assert len(second["Responses"]["t"]) == 48
    assert second["UnprocessedKeys"] == {}


def test_order_is_the_same_for_the_same_keys_unless_asked_otherwise() -> None:
    """Would make a differential mode that relies on the order pass here always, or never."""
    bench = Bench()
    bench.table("a")
    bench.table("b", options=CapacityOptions(), like="a")
    bench.table("c", KeySchema(partition=KEY.partition, order_seed=5))
    generator = bench.store.fill("a", 300, 0.0)
    for name in ("b", "c"):
        bench.store.fill(name, 300, 0.0, Generator(schema=KEY))
    orders = {name: [item["pk"]["S"] for item in bench.scan_all(name)] for name in "abc"}
    assert orders["a"] == orders["b"] != orders["c"]
    assert sorted(orders["a"]) == sorted(orders["c"]) != orders["a"]
    assert generator.size == 1024


def test_items_of_a_partition_key_come_in_the_order_of_their_sort_keys() -> None:
    """Would page through a partition key in an order that AWS does not have."""
    bench = Bench()
    bench.table(schema=TWO_KEYS)
    numbers = ["-10", "-2", "-1.5", "0", "0.3", "2", "10", "11.5", "100"]
    shuffled = random.Random(3).sample(numbers, len(numbers))
    bench.put(*({"pk": {"S": "a"}, "sk": {"N": number}} for number in shuffled))
    assert [item["sk"]["N"] for item in bench.scan_all(Limit=2)] == numbers


def test_a_scan_goes_on_while_its_items_are_deleted_and_others_come() -> None:
    """Would break off a purge, or visit an item twice, when the cursor's own item is gone."""
    bench = Bench()
    bench.table()
    bench.store.fill("t", 500, 0.0)
    seen: list[str] = []
    start: dict[str, Any] = {}
    fresh = 0
    while True:
        page = bench.client.scan(TableName="t", Limit=25, **start)
        keys = [{"pk": item["pk"]} for item in page["Items"]]
        seen += [key["pk"]["S"] for key in keys]
        if keys:
            bench.client.batch_write_item(RequestItems={"t": [{"DeleteRequest": {"Key": key}} for key in keys]})
        bench.put(text_item(fresh))
        fresh += 1
        if "LastEvaluatedKey" not in page:
            break
        start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
    assert len(seen) == len(set(seen))
    assert sum(key.startswith("item-") for key in seen) == 500
    left = [item["pk"]["S"] for item in bench.scan_all()]
    assert all(key.startswith("key-") for key in left)
    assert len(left) + sum(key.startswith("key-") for key in seen) == fresh


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (
            CapacityOptions(mode="provisioned", write_units=10, read_units=10),
            "ProvisionedThroughputExceededException",
        ),
        (CapacityOptions(write_units=10, read_units=10), "ThrottlingException"),
    ],
)
def test_rejected_writes_come_back_exactly_and_nothing_is_lost_or_doubled(options: CapacityOptions, code: str) -> None:
    """Would lose an item between UnprocessedItems and the table: the failure that a recovery must not have."""
    bench = Bench()
    bench.table(options=options)
    items = [{**text_item(number, 50), "é": {"S": '"}}, {"'}} for number in range(25)]
    requests = [{"PutRequest": {"Item": item}} for item in items]
    answer = bench.client.batch_write_item(RequestItems={"t": requests}, ReturnConsumedCapacity="TOTAL")
    left = answer["UnprocessedItems"]["t"]
    assert len(left) == 15
    assert left == [request for request in requests if request in left]
    assert answer["ConsumedCapacity"] == [{"TableName": "t", "CapacityUnits": 10.0}]
    stored = bench.store.tables["t"].count
    assert stored == 10

    with pytest.raises(ClientError) as caught:
        bench.client.batch_write_item(RequestItems={"t": left})
    assert caught.value.response["Error"]["Code"] == code
    response: Any = caught.value.response
    reasons = response.get("ThrottlingReasons") or response["throttlingReasons"]
    assert reasons[0]["reason"].startswith("TableWrite")
    assert bench.store.tables["t"].count == 10

    sent = 2
    while left:
        bench.clock.now += 0.5
        left = bench.client.batch_write_item(RequestItems={"t": left})["UnprocessedItems"].get("t")
        sent += 1
    assert sent == 5
    bench.clock.now += 10
    found = bench.scan_all()
    assert sorted(item["pk"]["S"] for item in found) == sorted(item["pk"]["S"] for item in items)
    stats = bench.store.stats()
    assert stats["throttled"] == {"BatchWriteItem": 4}
    assert stats["tables"]["t"]["puts"] == 25
    assert stats["tables"]["t"]["units"]["written"] == 25
    assert stats["tables"]["t"]["units"]["write_rejected"] == 15 + 15 + 10 + 5
    assert stats["tables"]["t"]["writes_rejected"] == 45
    assert stats["tables"]["t"]["throttled_requests"] == 4


def test_rejected_reads_come_back_exactly() -> None:
    """Would lose keys between UnprocessedKeys and the answer."""
    bench = Bench()
    bench.table(options=CapacityOptions(mode="provisioned", write_units=1000, read_units=10))
    generator = bench.store.fill("t", 30, 0.0)
    keys = [generator.key(number) for number in range(30)]
    wanted = {"t": {"Keys": keys, "ConsistentRead": True, "ProjectionExpression": "pk"}}
    first = bench.client.batch_get_item(RequestItems=wanted)
    left = first["UnprocessedKeys"]["t"]
    assert left == {"ConsistentRead": True, "ProjectionExpression": "pk", "Keys": left["Keys"]}
    assert len(left["Keys"]) == 20
    assert [*first["Responses"]["t"], *left["Keys"]] == keys
    throttled = {"RequestItems": {"t": left}}
    assert error_code(lambda: bench.client.batch_get_item(**throttled)) == "ProvisionedThroughputExceededException"
    assert error_code(lambda: bench.client.scan(TableName="t")) == "ProvisionedThroughputExceededException"
    bench.clock.now = 1.0
    second = bench.client.batch_get_item(RequestItems={"t": left})
    assert len(second["Responses"]["t"]) == 10
    assert bench.store.stats()["throttled"] == {"BatchGetItem": 3, "Scan": 1}


def test_scans_pass_what_is_provisioned() -> None:
    """Would read faster than the capacity: a page is charged once read, and the debt is paid before the next."""
    bench = Bench()
    bench.table(options=CapacityOptions(mode="provisioned", write_units=1, read_units=100))
    bench.store.fill("t", 2000, 0.0)
    units = 0.0
    for step in range(1000):
        bench.clock.now = 10 + step * 0.1
        try:
            page = bench.client.scan(TableName="t", Select="COUNT", ConsistentRead=True, ReturnConsumedCapacity="TOTAL")
        except ClientError:
            continue
        assert page["ConsumedCapacity"]["CapacityUnits"] == 256.0
        units += 256
    assert units == pytest.approx(100 * 100, abs=2 * 256)


def test_a_page_is_charged_to_the_partitions_that_it_was_read_from() -> None:
    """Would let one partition pay for all."""
    bench = Bench()
    bench.table(options=CapacityOptions())
    bench.store.fill("t", 900, 0.0)
    bench.client.scan(TableName="t", ConsistentRead=True)
    capacity = bench.store.tables["t"].capacity
    left = [bucket.available(0.0) for bucket in capacity._partition_reads]
    assert sum(3000 - tokens for tokens in left) == pytest.approx(225)
    assert all(40 < 3000 - tokens < 75 for tokens in left)


def test_segments_lie_on_partitions() -> None:
    """Would spread a segment's writes over the table, where AWS has them on one partition."""
    bench = Bench()
    bench.table("source")
    bench.table("hot", options=CapacityOptions(), like="source")
    bench.store.fill("source", 16_000, 0.0)
    segments = [bench.scan_all("source", Segment=segment, TotalSegments=8) for segment in range(8)]
    segment = segments[0]
    assert 1800 < len(segment) < 2200

    def write(items: list[dict[str, Any]]) -> int:
        rejected = 0
        for start in range(0, len(items), 25):
            requests = [{"PutRequest": {"Item": item}} for item in items[start : start + 25]]
            try:
                rejected += len(
                    bench.client.batch_write_item(RequestItems={"hot": requests})["UnprocessedItems"].get("hot", ())
                )
            except ClientError:
                rejected += len(requests)
        return rejected

    assert write(segment) == len(segment) - 1000
    reasons = bench.store.stats()["tables"]["hot"]["reasons"]
    assert reasons == {"TableWriteKeyRangeThroughputExceeded": len(segment) - 1000}
    bench.clock.now = 1.0
    mixed = [item for other in segments for item in other[:250]]
    assert write(mixed) == 0


def test_a_write_costs_the_larger_of_before_and_after_and_each_index_as_much() -> None:
    """Would undercount a purge of large items and the indexes' share, or charge indexes where nothing changed."""
    bench = Bench()
    bench.table(options=CapacityOptions(write_units=1000, read_units=1000, indexes=2))

    def units(request: dict[str, Any]) -> float:
        answer = bench.client.batch_write_item(RequestItems={"t": [request]}, ReturnConsumedCapacity="TOTAL")
        return float(answer["ConsumedCapacity"][0]["CapacityUnits"])

    large, small = text_item(1, 3000), text_item(1, 10)
    delete = {"DeleteRequest": {"Key": {"pk": large["pk"]}}}
    assert units({"PutRequest": {"Item": large}}) == 3 * 3
    assert units({"PutRequest": {"Item": large}}) == 3
    assert units({"PutRequest": {"Item": small}}) == 3 * 3
    assert units({"PutRequest": {"Item": small}}) == 1
    assert units({"PutRequest": {"Item": large}}) == 3 * 3
    assert units(delete) == 3 * 3
    assert units(delete) == 1
    assert bench.store.stats()["tables"]["t"]["units"]["index_written"] == 4 * 6


@pytest.mark.parametrize(
    "requests",
    [
        {},
        {"t": []},
        {"t": [{"PutRequest": {"Item": text_item(number)}} for number in range(26)]},
        {"t": [{"PutRequest": {"Item": text_item(1)}}, {"DeleteRequest": {"Key": {"pk": {"S": "key-1"}}}}]},
        {"t": [{"PutRequest": {"Item": text_item(1)}}, {"PutRequest": {"Item": text_item(1, 5)}}]},
        {"t": [{"PutRequest": {"Item": text_item(1)}}, {"PutRequest": {"Item": {"x": {"S": "no key"}}}}]},
        {"t": [{"PutRequest": {"Item": text_item(1)}}, {"DeleteRequest": {"Key": text_item(2)}}]},
        {"t": [{"PutRequest": {"Item": text_item(1)}}, {"PutRequest": {"Item": text_item(2, 400 * 1024)}}]},
        {"t": [{"PutRequest": {"Item": text_item(1)}}, {"UpdateRequest": {}}]},
        {"t": [{"PutRequest": {"Item": text_item(1)}, "DeleteRequest": {"Key": {"pk": {"S": "b"}}}}]},
        {
            "t": [{"PutRequest": {"Item": text_item(number, 390 * 1024)}} for number in range(25)],
            "u": [{"PutRequest": {"Item": text_item(1)}}],
        },
    ],
)
def test_a_wrong_batch_is_rejected_whole(requests: dict[str, Any]) -> None:
    """Would write half of a batch that AWS refuses."""
    bench = Bench()
    bench.table()
    code = error_code(lambda: bench.client.batch_write_item(RequestItems=requests))
    assert code in ("ValidationException", "ResourceNotFoundException")
    assert bench.store.tables["t"].count == 0
    assert bench.store.stats()["errors"] == {code: 1}


def test_a_request_of_more_than_16_megabytes_is_refused() -> None:
    """Would let a worker send what AWS refuses."""
    bench = Bench()
    bench.table()
    # Text that takes six characters of JSON for each two bytes: small enough as items, too large as a request.
    items = [{"pk": {"S": str(number)}, "x": {"S": "é" * 120_000}} for number in range(25)]
    assert error_code(lambda: bench.put(*items)) == "ValidationException"
    assert bench.put(*items[:20])["UnprocessedItems"] == {}


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda client: client.scan(TableName="absent"), "ResourceNotFoundException"),
        (lambda client: client.describe_table(TableName="absent"), "ResourceNotFoundException"),
        (lambda client: client.scan(TableName="t", Segment=2, TotalSegments=2), "ValidationException"),
        (lambda client: client.scan(TableName="t", Segment=0), "ValidationException"),
        (lambda client: client.scan(TableName="t", Limit=0), "ValidationException"),
        (lambda client: client.scan(TableName="t", FilterExpression="a = :b"), "ValidationException"),
        (lambda client: client.scan(TableName="t", ProjectionExpression="#a"), "ValidationException"),
        (lambda client: client.scan(TableName="t", ExclusiveStartKey={"x": {"S": "a"}}), "ValidationException"),
        (lambda client: client.call("Query", 0.0, TableName="t"), "UnknownOperationException"),
        (lambda client: client.batch_get_item(RequestItems="t"), "SerializationException"),
        (
            lambda client: client.batch_get_item(RequestItems={"t": {"Keys": [{"pk": {"S": "a"}}] * 2}}),
            "ValidationException",
        ),
        (
            lambda client: client.batch_get_item(
                RequestItems={"t": {"Keys": [{"pk": {"S": str(number)}} for number in range(101)]}}
            ),
            "ValidationException",
        ),
    ],
)
def test_wrong_requests_are_answered_with_the_right_error(call: Callable[[LocalClient], object], code: str) -> None:
    """Would let a bench measure requests that AWS refuses."""
    bench = Bench()
    bench.table()
    bench.put(text_item(1))
    assert error_code(lambda: call(bench.client)) == code


def test_a_cursor_of_another_segment_is_refused() -> None:
    """Would silently read part of a segment."""
    bench = Bench()
    bench.table()
    bench.store.fill("t", 100, 0.0)
    first = bench.client.scan(TableName="t", Segment=0, TotalSegments=2, Limit=5)
    start = first["LastEvaluatedKey"]
    code = error_code(lambda: bench.client.scan(TableName="t", Segment=1, TotalSegments=2, ExclusiveStartKey=start))
    assert code == "ValidationException"


def test_what_was_generated_is_kept_by_number_whoever_wrote_it_and_what_was_not_is_kept_whole() -> None:
    """Would take a damaged item for a whole one, or run out of memory in a bench of millions."""
    bench = Bench()
    bench.table("a")
    bench.table("b", like="a")
    bench.store.fill("a", 50, 0.0)
    items = bench.scan_all("a")
    wrong = json.loads(json.dumps(items[7]))
    wrong["attribute4"]["M"]["flag"]["BOOL"] = False
    for start in (0, 25):
        bench.put(*(wrong if item["pk"] == wrong["pk"] else item for item in items[start : start + 25]), table="b")
    kept = [record for _, record in bench.store.tables["b"].records()]
    assert sum(isinstance(record, int) for record in kept) == 49
    assert bench.store.differences("a", "b") == {"missing": 0, "extra": 0, "changed": 1}
    assert bench.store.digest("a") != bench.store.digest("b")
    assert wrong in bench.scan_all("b")
    bench.put(items[7], table="b")
    assert bench.store.digest("a") == bench.store.digest("b") == to_hex(digest_items(items))


def test_damage_is_what_was_asked_for() -> None:
    """Would run a differential mode against no differences."""
    bench = Bench()
    bench.table("a")
    bench.table("b")
    bench.store.fill("a", 1000, 0.0)
    bench.store.fill("b", 1000, 0.0)
    assert bench.store.differences("a", "b") == {"missing": 0, "extra": 0, "changed": 0}
    bench.store.damage("b", changed=10, missing=7, extra=5, seed=2)
    assert bench.store.differences("a", "b") == {"missing": 7, "extra": 5, "changed": 10}
    assert bench.store.tables["b"].count == 998
    # A changed item costs no more to write than a whole one.
    assert bench.store.tables["b"].size == 998 * 1024
    with pytest.raises(ValueError, match="expected at least"):
        bench.store.damage("b", changed=998)


def test_latency_is_told_and_follows_its_distribution() -> None:
    """Would simulate requests that take no time, or all the same."""
    bench = Bench(latency=Latency(median=0.004, p99=0.02), seed=11)
    bench.table()
    latencies = sorted(bench.client.call("DescribeTable", 0.0, TableName="t")[1] for _ in range(20_000))
    assert latencies[10_000] == pytest.approx(0.004, rel=0.03)
    assert latencies[19_800] == pytest.approx(0.02, rel=0.08)
    again = Bench(latency=Latency(median=0.004, p99=0.02), seed=11)
    again.table()
    answer, latency = again.client.call("DescribeTable", 0.0, TableName="t")
    assert latency in latencies
    assert answer["ResponseMetadata"]["Latency"] == latency
    with pytest.raises(ClientError) as caught:
        again.client.scan(TableName="absent")
    assert caught.value.response["ResponseMetadata"]["Latency"] > 0  # type: ignore[typeddict-item]
    with pytest.raises(ValueError, match="expected"):
        Latency(median=2, p99=1)


def test_units_by_second_show_the_steady_state() -> None:
    """Would judge the use of the capacity by an average that hides stalls."""
    bench = Bench()
    bench.table("source")
    bench.store.fill("source", 2000, 0.0)
    bench.table(options=CapacityOptions(mode="provisioned", write_units=100, read_units=100), like="source")
    queue = [{"PutRequest": {"Item": item}} for item in bench.scan_all("source")]
    while queue:
        bench.clock.now += 0.05
        batch, queue = queue[:25], queue[25:]
        try:
            queue += bench.client.batch_write_item(RequestItems={"t": batch})["UnprocessedItems"].get("t", [])
        except ClientError:
            queue += batch
    series = bench.store.stats()["tables"]["t"]["written_by_second"]
    assert sum(series) == 2000
    assert len(series) >= 19
    assert all(units == pytest.approx(100, abs=5) for units in series[2:-1])
    assert bench.store.differences("source", "t") == {"missing": 0, "extra": 0, "changed": 0}
    bench.store.reset_stats()
    assert bench.store.stats()["tables"]["t"]["written_by_second"] == []
    assert bench.store.stats()["requests"] == {}
