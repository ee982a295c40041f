"""DynamoDB in memory: as much of it as the engine and the ledger use, fast enough for thousands of runs.

What matters is kept: scans by segment in a fixed order, cursors, partial batches, conditions of conditional writes,
wire form. What the product does not use raises.
"""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

Item = dict[str, Any]


class StoppedError(Exception):
    """The process ends here, whatever it was doing."""


def refuse(code: str, operation: str) -> ClientError:
    """An error as the SDK raises it."""
    return ClientError({"Error": {"Code": code, "Message": code}}, operation)


@dataclass
class FakeTable:
    """A table: its key's attribute names and its items.

    ``layout``: another one puts the items into other segments and another order; ``order``: only into another order.
    ``page_items``: a page has no more, as if they were large.
    """

    key_names: tuple[str, ...]
    items: dict[str, Item] = field(default_factory=dict)
    layout: str = ""
    order: str = ""
    page_items: int = 10**6

    def identity(self, item: Mapping[str, Any]) -> str:
        """The primary key of an item, as text."""
        return repr([item[name] for name in self.key_names])

    def position(self, item: Mapping[str, Any]) -> bytes:
        """Where an item lies: partitions in the order of their hashes, items of one partition by their sort key."""
        partition = _hash(self.layout + repr(item[self.key_names[0]]))
        place = partition + repr([item[name] for name in self.key_names[1:]]).encode()
        return place[:1] + _hash(self.order + repr(place)) if self.order else place

    def segment(self, item: Mapping[str, Any], total: int) -> int:
        """The scan segment an item belongs to: a range of hashes."""
        return self.position(item)[0] * total // 256

    def put(self, item: Item) -> None:
        """Write an item."""
        self.items[self.identity(item)] = copy.deepcopy(item)

    def content(self) -> list[Item]:
        """All items, in the order of their keys."""
        return [self.items[key] for key in sorted(self.items)]


def _written_key(table: FakeTable, request: Mapping[str, Any]) -> str:
    return table.identity(request["PutRequest"]["Item"] if "PutRequest" in request else request["DeleteRequest"]["Key"])


def _hash(text: str) -> bytes:
    return hashlib.md5(text.encode(), usedforsecurity=False).digest()


_TERM = re.compile(r"(attribute_not_exists|attribute_exists|begins_with)\((\S+?)(?:, (\S+))?\)|(\S+) = (\S+)")


@dataclass
class FakeDynamoDB:
    """The client. ``before`` is called with the operation's name before each call, ``after`` once it is done."""

    tables: dict[str, FakeTable] = field(default_factory=dict)
    before: Callable[[str], None] = lambda _: None
    after: Callable[[str], None] = lambda _: None
    unprocessed: Callable[[], bool] = lambda: False
    written: list[tuple[str, str]] = field(default_factory=list)
    """Every write of a batch that was done: kind of request, and key."""
    looked_up: list[tuple[str, str]] = field(default_factory=list)
    """Every key that a batch read: table, and key."""

    def scan(
        self,
        *,
        TableName: str,  # noqa: N803 - the API's own spelling, here and below
        Segment: int,  # noqa: N803
        TotalSegments: int,  # noqa: N803
        Limit: int,  # noqa: N803
        ConsistentRead: bool,  # noqa: N803
        ReturnConsumedCapacity: str,  # noqa: N803
        ExclusiveStartKey: Item | None = None,  # noqa: N803
        ProjectionExpression: str | None = None,  # noqa: N803
        ExpressionAttributeNames: Mapping[str, str] | None = None,  # noqa: N803
    ) -> dict[str, Any]:
        """One page of one segment."""
        self.before("Scan")
        assert ConsistentRead
        assert ReturnConsumedCapacity == "TOTAL"
        table = self.tables[TableName]
        items = sorted(
            (item for item in table.items.values() if table.segment(item, TotalSegments) == Segment),
            key=table.position,
        )
        if ExclusiveStartKey is not None:
            start = table.position(ExclusiveStartKey)
            items = [item for item in items if table.position(item) > start]
        most = min(Limit, table.page_items)
        page = items[:most]
        if ProjectionExpression is not None:
            names = [(ExpressionAttributeNames or {})[name] for name in ProjectionExpression.split(", ")]
            answer = [{name: item[name] for name in names if name in item} for item in page]
        else:
            answer = page
        # Like the real one: a page that is full has a cursor, even if nothing comes after it.
        last = {"LastEvaluatedKey": {name: page[-1][name] for name in table.key_names}} if len(page) == most else {}
        return copy.deepcopy({"Items": answer, "ConsumedCapacity": {"CapacityUnits": 0.5}, **last})

    def batch_write_item(
        self,
        *,
        RequestItems: Mapping[str, Any],  # noqa: N803
        ReturnConsumedCapacity: str,  # noqa: N803
    ) -> dict[str, Any]:
        """Some of the writes; the others come back unprocessed."""
        self.before("BatchWriteItem")
        assert ReturnConsumedCapacity == "INDEXES"
        left: dict[str, list[Any]] = {}
        for name, requests in RequestItems.items():
            table = self.tables[name]
            assert 1 <= len(requests) <= 25
            # Two requests for one key are refused.
            assert len({_written_key(table, request) for request in requests}) == len(requests)
            for request in requests:
                if self.unprocessed():
                    left.setdefault(name, []).append(request)
                elif "PutRequest" in request:
                    table.put(request["PutRequest"]["Item"])
                    self.written.append(("put", table.identity(request["PutRequest"]["Item"])))
                else:
                    key = request["DeleteRequest"]["Key"]
                    assert set(key) == set(table.key_names)
                    table.items.pop(table.identity(key), None)
                    self.written.append(("delete", table.identity(key)))
        self.after("BatchWriteItem")
        return {"UnprocessedItems": left, "ConsumedCapacity": [{"CapacityUnits": 1.0}]}

    def batch_get_item(
        self,
        *,
        RequestItems: Mapping[str, Any],  # noqa: N803
        ReturnConsumedCapacity: str,  # noqa: N803
    ) -> dict[str, Any]:
        """Some of the items that exist, in an order of its own; the others' keys come back unprocessed."""
        self.before("BatchGetItem")
        assert ReturnConsumedCapacity == "TOTAL"
        found: dict[str, list[Item]] = {}
        left: dict[str, Any] = {}
        for name, wanted in RequestItems.items():
            table, keys = self.tables[name], wanted["Keys"]
            assert wanted["ConsistentRead"]
            assert 1 <= len(keys) <= 100
            assert len({table.identity(key) for key in keys}) == len(keys)
            later = [key for key in keys if self.unprocessed()]
            now = [table.identity(key) for key in reversed(keys) if key not in later]
            self.looked_up.extend((name, key) for key in now)
            names = wanted.get("ExpressionAttributeNames", {})
            read = [names[name] for name in wanted.get("ProjectionExpression", "").split(", ") if name]
            found[name] = [
                copy.deepcopy({name: value for name, value in table.items[key].items() if name in read or not read})
                for key in now
                if key in table.items
            ]
            if later:
                left[name] = {**wanted, "Keys": later}
        return {"Responses": found, "UnprocessedKeys": left, "ConsumedCapacity": [{"CapacityUnits": 0.5}]}

    # --- what the ledger uses -----------------------------------------------------------------------------------------

    def get_item(self, *, TableName: str, Key: Item, ConsistentRead: bool) -> dict[str, Any]:  # noqa: N803
        """One item."""
        self.before("GetItem")
        assert ConsistentRead
        table = self.tables[TableName]
        found = table.items.get(table.identity(Key))
        return {} if found is None else {"Item": copy.deepcopy(found)}

    def put_item(
        self,
        *,
        TableName: str,  # noqa: N803
        Item: Item,  # noqa: N803
        ConditionExpression: str = "",  # noqa: N803
        ExpressionAttributeValues: Mapping[str, Any] | None = None,  # noqa: N803
    ) -> None:
        """Write an item if the condition holds."""
        self.before("PutItem")
        table = self.tables[TableName]
        self._check(
            "PutItem", table.items.get(table.identity(Item)), ConditionExpression, {}, ExpressionAttributeValues
        )
        table.put(Item)
        self.after("PutItem")

    def update_item(
        self,
        *,
        TableName: str,  # noqa: N803
        Key: Item,  # noqa: N803
        UpdateExpression: str,  # noqa: N803
        ConditionExpression: str,  # noqa: N803
        ExpressionAttributeNames: Mapping[str, str],  # noqa: N803
        ExpressionAttributeValues: Mapping[str, Any],  # noqa: N803
    ) -> None:
        """Set attributes if the condition holds."""
        self.before("UpdateItem")
        table = self.tables[TableName]
        found = table.items.get(table.identity(Key))
        self._check("UpdateItem", found, ConditionExpression, ExpressionAttributeNames, ExpressionAttributeValues)
        item = {**(found or Key)}
        for change in UpdateExpression.removeprefix("SET ").split(", "):
            name, value = change.split(" = ")
            item[ExpressionAttributeNames[name]] = ExpressionAttributeValues[value]
        table.put(item)
        self.after("UpdateItem")

    def delete_item(
        self,
        *,
        TableName: str,  # noqa: N803
        Key: Item,  # noqa: N803
        ConditionExpression: str,  # noqa: N803
        ExpressionAttributeNames: Mapping[str, str],  # noqa: N803
        ExpressionAttributeValues: Mapping[str, Any],  # noqa: N803
    ) -> None:
        """Delete an item if the condition holds."""
        self.before("DeleteItem")
        table = self.tables[TableName]
        found = table.items.get(table.identity(Key))
        self._check("DeleteItem", found, ConditionExpression, ExpressionAttributeNames, ExpressionAttributeValues)
        table.items.pop(table.identity(Key), None)

    def query(
        self,
        *,
        TableName: str,  # noqa: N803
        KeyConditionExpression: str,  # noqa: N803
        ExpressionAttributeValues: Mapping[str, Any],  # noqa: N803
        ConsistentRead: bool,  # noqa: N803
        Limit: int | None = None,  # noqa: N803
    ) -> dict[str, Any]:
        """All matching items, by sort key."""
        self.before("Query")
        assert ConsistentRead
        found = [
            item
            for item in self.tables[TableName].content()
            if self._holds(item, KeyConditionExpression, {}, ExpressionAttributeValues)
        ]
        return {"Items": copy.deepcopy(sorted(found, key=lambda item: str(item["sk"]["S"]))[:Limit])}

    def get_paginator(self, operation: str) -> FakeDynamoDB:
        """A paginator of one page; only for Query."""
        assert operation == "query"
        return self

    def paginate(self, **arguments: Any) -> Iterator[dict[str, Any]]:
        """The page."""
        yield self.query(**arguments)

    def _check(
        self,
        operation: str,
        item: Item | None,
        condition: str,
        names: Mapping[str, str],
        values: Mapping[str, Any] | None,
    ) -> None:
        if condition and not self._holds(item or {}, condition, names, values or {}):
            raise refuse("ConditionalCheckFailedException", operation)

    @staticmethod
    def _holds(item: Item, condition: str, names: Mapping[str, str], values: Mapping[str, Any]) -> bool:
        for term in condition.split(" AND "):
            match = _TERM.fullmatch(term)
            assert match, term
            function, argument, prefix, left, right = match.groups()
            if function == "attribute_not_exists":
                holds = names.get(argument, argument) not in item
            elif function == "attribute_exists":
                holds = names.get(argument, argument) in item
            elif function == "begins_with":
                holds = str(item[names.get(argument, argument)]["S"]).startswith(values[prefix]["S"])
            else:
                holds = item.get(names.get(left, left)) == values[right]
            if not holds:
                return False
        return True
