"""Scans of whole tables."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localaws.emulator.dynamodb_scan import HASH_SPACE, SMALL_PARTITION, TableOrder
from localaws.server import EmbeddedAws


def _fill(aws: EmbeddedAws, name: str, items: list[dict[str, Any]]) -> None:
    dynamodb = aws.client("dynamodb")
    for start in range(0, len(items), 25):
        dynamodb.batch_write_item(
            RequestItems={name: [{"PutRequest": {"Item": item}} for item in items[start : start + 25]]}
        )


def _items(partitions: int, each: int, size: int = 10) -> list[dict[str, Any]]:
    return [
        {"pk": {"S": f"p{partition}"}, "sk": {"N": str(sort)}, "v": {"S": "x" * size}}
        for partition in range(partitions)
        for sort in range(each)
    ]


def _pages(aws: EmbeddedAws, name: str, **request: Any) -> Iterator[dict[str, Any]]:
    dynamodb = aws.client("dynamodb")
    start: dict[str, Any] = {}
    while True:
        page = dynamodb.scan(TableName=name, **request, **start)
        yield page
        if "LastEvaluatedKey" not in page:
            return
        start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}


def _keys(page: dict[str, Any]) -> list[tuple[str, int]]:
    return [(item["pk"]["S"], int(item["sk"]["N"])) for item in page["Items"]]


def test_segments_are_disjoint_and_complete(aws: EmbeddedAws, table: Callable[..., str]) -> None:
    """Would catch: items that no segment returns, which a copy would lose without a word."""
    name = table()
    _fill(aws, name, _items(40, 5))
    seen = [
        key
        for segment in range(7)
        for page in _pages(aws, name, Segment=segment, TotalSegments=7, Limit=3)
        for key in _keys(page)
    ]
    assert len(seen) == 200
    assert len(set(seen)) == 200


def test_paging_is_stable_under_deletes_and_puts(aws: EmbeddedAws, table: Callable[..., str]) -> None:
    """Would catch: a purge that skips items because deleting shifted the pages."""
    name, dynamodb = table(), aws.client("dynamodb")
    _fill(aws, name, _items(60, 2))
    seen: list[tuple[str, int]] = []
    for number, page in enumerate(_pages(aws, name, Limit=9)):
        seen += _keys(page)
        for partition, sort in _keys(page):  # the start key of the next page is gone by then
            dynamodb.delete_item(TableName=name, Key={"pk": {"S": partition}, "sk": {"N": str(sort)}})
        _fill(aws, name, [{"pk": {"S": f"new{number}"}, "sk": {"N": "0"}}])
    old = [key for key in seen if key[0].startswith("p")]
    assert len(old) == 120
    assert len(set(seen)) == len(seen)


def test_one_large_partition_is_paged_in_key_order(aws: EmbeddedAws, table: Callable[..., str]) -> None:
    """Would catch: numbers ordered as text, so that a page after 9 starts again at 10."""
    name = table()
    count = SMALL_PARTITION + 50
    _fill(aws, name, _items(1, count))
    seen = [sort for page in _pages(aws, name, Limit=37) for _, sort in _keys(page)]
    assert seen == list(range(count))


def test_pages_end_at_one_megabyte_and_report_what_was_read(aws: EmbeddedAws, table: Callable[..., str]) -> None:
    """Would catch: pages of any size, for which a pace by consumed capacity is never tried."""
    name = table()
    _fill(aws, name, _items(30, 1, size=100_000))
    pages = list(_pages(aws, name, ReturnConsumedCapacity="TOTAL", ProjectionExpression="pk"))
    assert [page["Count"] for page in pages] == [10, 10, 10]
    assert pages[0]["Items"][0].keys() == {"pk"}
    assert pages[0]["ConsumedCapacity"]["CapacityUnits"] == pytest.approx(122.5, abs=2)
    consistent = next(_pages(aws, name, ReturnConsumedCapacity="TOTAL", ConsistentRead=True))
    assert consistent["ConsumedCapacity"]["CapacityUnits"] == pages[0]["ConsumedCapacity"]["CapacityUnits"] * 2


def test_filter_count_and_refusals_stay_as_they_were(aws: EmbeddedAws, table: Callable[..., str]) -> None:
    """Would catch: a mend that is fast because it forgot the filter or the checks."""
    name, dynamodb = table(), aws.client("dynamodb")
    _fill(aws, name, _items(3, 4))
    values = {":least": {"N": "2"}}
    page = dynamodb.scan(TableName=name, FilterExpression="sk >= :least", ExpressionAttributeValues=values)
    assert (page["Count"], page["ScannedCount"]) == (6, 12)
    counted = dynamodb.scan(TableName=name, Select="COUNT")
    assert counted["Count"] == 12
    assert "Items" not in counted
    with pytest.raises(dynamodb.exceptions.ClientError, match="TotalSegments parameter is required"):
        dynamodb.scan(TableName=name, Segment=0)
    with pytest.raises(dynamodb.exceptions.ClientError, match="starting key is invalid"):
        dynamodb.scan(TableName=name, ExclusiveStartKey={"pk": {"S": "p1"}})


def test_the_cost_of_a_page_does_not_grow_with_the_table() -> None:
    """Would catch: a sort of the whole table for every page, which makes rehearsals of real sizes impossible."""
    items = {str(number): {"__no_sort__": number} for number in range(100_000)}
    order = TableOrder("")
    assert next(order.walk(items, None, 0, HASH_SPACE)) is not None
    started = time.perf_counter()
    for _ in range(200):
        next(order.walk(items, ("5", "__no_sort__"), 0, HASH_SPACE))
    assert time.perf_counter() - started < 1.0  # sorting would take 20 s


@given(
    keys=st.lists(st.text(min_size=1), unique=True, max_size=60),
    gone=st.sets(st.integers(0, 59)),
    segments=st.integers(1, 9),
)
def test_order_returns_every_live_key_once(keys: list[str], gone: set[int], segments: int) -> None:
    """Would catch: a key lost or doubled at a segment's edge or after removals."""
    items = {key: {"s": key} for key in keys[: len(keys) // 2]}
    order = TableOrder("S")
    list(order.walk(items, None, 0, HASH_SPACE))
    for key in keys[len(keys) // 2 :]:
        items[key] = {"s": key}
        order.added(key, "s")
    for index in gone & set(range(len(keys))):
        items.pop(keys[index], None)
    seen: list[str] = []
    for segment in range(segments):
        low, high = -(-HASH_SPACE * segment // segments), -(-HASH_SPACE * (segment + 1) // segments)
        seen += order.walk(items, None, low, high)
    assert sorted(seen) == sorted(items)
