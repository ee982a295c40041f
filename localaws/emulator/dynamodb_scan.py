"""Scans of a whole table whose pages cost what they return, in the order of a hash, as on AWS.

ministack sorts the whole table for every page: 100,000 items take 46 s. Here the keys are kept in order between pages;
keys that come later are merged in, keys that went are skipped, so that paging is stable under concurrent writes.
Segments are ranges of the hash: disjoint and complete by construction. Scans of an index are left to ministack.
"""

import base64
import hashlib
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from localaws.emulator import patching

ORDER = "_localaws_order"
HASH_SPACE = 1 << 64
# Below this a partition is sorted when it is met; above it keeps its order between pages.
SMALL_PARTITION = 256
READ_UNIT_BYTES = 4_096


class KeyOrder:
    """Keys in the order of `rank`, kept up to date at the cost of what changed.

    Keys that were removed stay until they outnumber the rest: callers skip keys that are gone.
    """

    def __init__(self, rank: Callable[[Any], Any]) -> None:
        self._rank = rank
        self._ranked: list[tuple[Any, Any]] = []
        self._known: set[Any] = set()
        self._added: list[tuple[Any, Any]] = []

    def add(self, key: Any) -> None:
        """Take in a key; known ones cost nothing."""
        if key not in self._known:
            self._known.add(key)
            self._added.append((self._rank(key), key))

    def refresh(self, live: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
        """The (rank, key) pairs in order: every key of `live`, perhaps some that are gone."""
        if len(self._known) > 2 * len(live) + SMALL_PARTITION or not self._ranked:
            self._known = set(live)
            self._added = []
            self._ranked = sorted((self._rank(key), key) for key in live)
        elif self._added:
            # Two sorted runs, or nearly: Python's sort merges them in linear time.
            self._ranked = sorted(self._ranked + sorted(self._added))
            self._added = []
        return self._ranked


class TableOrder:
    """The order of one table's partitions and, for large partitions, of their sort keys."""

    def __init__(self, sort_type: str) -> None:
        self._rank_sort = SORT_RANKS[sort_type]
        self._partitions = KeyOrder(hash_of)
        self._sorts: dict[Any, KeyOrder] = {}

    def added(self, partition: Any, sort: Any) -> None:
        """Take in the key of a written item."""
        self._partitions.add(partition)
        order = self._sorts.get(partition)
        if order is not None:
            order.add(sort)

    def walk(
        self, items: Mapping[Any, Mapping[Any, Any]], start: tuple[Any, Any] | None, low: int, high: int
    ) -> Iterator[Any]:
        """Items whose partition's hash is in [low, high), after the key `start`, in order.

        Args:
            items: the table's, by partition and sort key.
            start: (partition, sort key) of the last item of the page before, which may be gone by now.
            low: first hash of the segment.
            high: first hash after the segment.
        """
        ranked = self._partitions.refresh(items)
        first = bisect_left(ranked, low, key=lambda pair: pair[0])
        if start is not None:
            partition, sort = start
            yield from self._partition(items, partition, after=sort)
            first = max(first, bisect_right(ranked, (hash_of(partition), partition)))
        for index in range(first, len(ranked)):
            rank, partition = ranked[index]
            if rank >= high:
                return
            yield from self._partition(items, partition, after=None)

    def _partition(self, items: Mapping[Any, Mapping[Any, Any]], partition: Any, after: Any) -> Iterator[Any]:
        sorts = items.get(partition)
        if not sorts:
            self._sorts.pop(partition, None)
            return
        if len(sorts) <= SMALL_PARTITION:
            self._sorts.pop(partition, None)
            ranked = sorted((self._rank_sort(sort), sort) for sort in sorts)
        else:
            ranked = self._sorts.setdefault(partition, KeyOrder(self._rank_sort)).refresh(sorts)
        first = 0 if after is None else bisect_right(ranked, self._rank_sort(after), key=lambda pair: pair[0])
        for index in range(first, len(ranked)):
            item = sorts.get(ranked[index][1])
            if item is not None:
                yield item


def hash_of(partition: Any) -> int:
    """Where a partition key lies in [0, 2**64): even, and the same in every process."""
    return int.from_bytes(hashlib.blake2b(str(partition).encode(), digest_size=8).digest(), "big")


# Key type → what sorts as DynamoDB sorts: numbers by value, strings by UTF-8 bytes, binaries by bytes.
SORT_RANKS: dict[str, Callable[[Any], Any]] = {
    "N": Decimal,
    "S": lambda text: str(text).encode(),
    "B": base64.b64decode,
    "": str,
}


def apply() -> None:
    """Replace Scan for tables; checks of the request stay ministack's."""
    from ministack.services import dynamodb

    for name, parameters in (
        ("_extract_key_val", "(attr)"),
        ("_get_attr_type", "(table, attr_name)"),
        ("_paginate_evaluated_items", "(items, limit, table, index_name)"),
        ("_item_size_bytes", "(item)"),
        ("_evaluate_condition", None),
        ("_evaluate_legacy_filter", "(item, scan_filter)"),
        ("_apply_projection", "(item, data)"),
        ("_build_key", "(item, pk_name, sk_name)"),
        ("_add_consumed_capacity", None),
    ):
        if parameters is None:
            patching.require_names(dynamodb, name)
        else:
            patching.require(dynamodb, name, parameters)

    def set_item(table: dict[str, Any], pk_val: Any, sk_val: Any, item: Any) -> Any:
        order = table.get(ORDER)
        if order is not None:
            order.added(pk_val, sk_val)
        return original_set(table, pk_val, sk_val, item)

    def items_replaced(table: dict[str, Any]) -> Any:
        table.pop(ORDER, None)
        return original_replaced(table)

    def scan(data: dict[str, Any]) -> Any:
        table = dynamodb._tables.get(dynamodb._normalize_table_name(data.get("TableName") or ""))
        if table is None or data.get("IndexName"):
            return original_scan(data)
        items = table["items"]
        table["items"] = {}  # every check of the request, at no cost
        try:
            checked = original_scan(data)
        finally:
            table["items"] = items
        return checked if checked[0] != 200 else _page(dynamodb, table, data)

    original_set = patching.replace(dynamodb, "_set_item", "(table, pk_val, sk_val, item)", set_item)
    original_replaced = patching.replace(dynamodb, "_items_replaced", "(table)", items_replaced)
    original_scan = patching.replace(dynamodb, "_scan", "(data)", scan)


def _page(dynamodb: Any, table: dict[str, Any], data: dict[str, Any]) -> Any:
    partition_name, sort_name = table["pk_name"], table["sk_name"]
    order = table.get(ORDER)
    if order is None:
        order = table[ORDER] = TableOrder(dynamodb._get_attr_type(table, sort_name) if sort_name else "")
    segment, segments = int(data.get("Segment") or 0), int(data.get("TotalSegments") or 1)
    low, high = -(-HASH_SPACE * segment // segments), -(-HASH_SPACE * (segment + 1) // segments)
    start_key = data.get("ExclusiveStartKey")
    start = None
    if start_key:
        start = (
            dynamodb._extract_key_val(start_key[partition_name]),
            dynamodb._extract_key_val(start_key[sort_name]) if sort_name else "__no_sort__",
        )
    walk = order.walk(table["items"], start, low, high)
    page, stopped = dynamodb._paginate_evaluated_items(walk, data.get("Limit"), table, None)
    try:
        kept = _filtered(dynamodb, data, page)
        result: dict[str, Any] = {"Count": len(kept), "ScannedCount": len(page)}
        if data.get("Select") != "COUNT":
            result["Items"] = [dynamodb._apply_projection(item, data) for item in kept]
    except ValueError as error:
        return dynamodb.error_response_json("ValidationException", str(error), 400)
    if stopped and page:
        result["LastEvaluatedKey"] = dynamodb._build_key(page[-1], partition_name, sort_name)
    dynamodb._add_consumed_capacity(result, data, table["TableName"])
    if "ConsumedCapacity" in result:
        _charge(result["ConsumedCapacity"], sum(map(dynamodb._item_size_bytes, page)), bool(data.get("ConsistentRead")))
    return dynamodb.json_response(result, 200)


def _filtered(dynamodb: Any, data: dict[str, Any], page: list[Any]) -> list[Any]:
    expression, legacy = data.get("FilterExpression"), data.get("ScanFilter")
    if expression:
        values, names = data.get("ExpressionAttributeValues", {}), data.get("ExpressionAttributeNames", {})
        return [
            item
            for item in page
            if dynamodb._evaluate_condition(expression, item, values, names, slot="FilterExpression")
        ]
    if legacy:
        return [item for item in page if dynamodb._evaluate_legacy_filter(item, legacy)]
    return page


def _charge(capacity: dict[str, Any], read_bytes: int, consistent: bool) -> None:
    """Charge what was read, before filter and projection, as AWS does; ministack charges every page the same."""
    units = max(1, math.ceil(read_bytes / READ_UNIT_BYTES)) * (1.0 if consistent else 0.5)
    capacity["CapacityUnits"] = units
    if "Table" in capacity:
        capacity["Table"]["CapacityUnits"] = units
