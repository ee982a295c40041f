"""Tables in memory behind the operations that a recovery's workers call, within the tables' capacity.

An operation takes its request and gives its answer as DynamoDB's JSON, in bytes, so the HTTP server and
:class:`LocalClient` run the same code. Time is an argument: nothing here waits.

What is not modelled is refused with a ValidationException: filters, queries, indexes to read from, nested projections.

The server shares its computer with the worker that it measures, so items stay the JSON that they came in: each is
parsed once, to measure it and to find its key, and goes out as it is.
"""

from __future__ import annotations

import base64
import json
import random
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from botocore.exceptions import ClientError

from handlers.core.digest import canonical_item, digest_items, to_hex

from .capacity import HASH_BITS, CapacityOptions, TableCapacity, read_units, write_units
from .fill import Generator
from .items import InvalidItem, KeySchema, compact, measure, project, quick_size
from .latency import Latency

PAGE_BYTES = 1024**2
MOST_WRITES = 25
MOST_KEYS = 100
LARGEST_REQUEST_BYTES = 16 * 1024**2
# AWS's example, 52 items of 300 KB out of 100, holds for 16 million bytes only.
LARGEST_ANSWER_BYTES = 16_000_000
MOST_SEGMENTS = 1_000_000

# Each part of the ring is sorted by itself, when a scan comes to it, so a write unsettles a 4,096th of the order.
_PART_BITS = 12
_RING = 1 << HASH_BITS

Record = int | tuple[bytes, int, bytes]
"""A generated item's number, or an item's JSON, its size, and its key's JSON."""


class ServiceError(Exception):
    """An error that DynamoDB answers with.

    Args:
        code: its name, e.g. ``ValidationException``.
        message: what it says.
        reason: the ThrottlingReason, where it is one of throttling.
        resource: the ARN of what was throttled.
    """

    def __init__(self, code: str, message: str, *, reason: str | None = None, resource: str | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.reason = reason
        self.resource = resource

    def body(self) -> bytes:
        """The answer's JSON."""
        space = (
            "com.amazon.coral.availability"
            if self.code == "ThrottlingException"
            else "com.amazonaws.dynamodb.v20120810"
        )
        body: dict[str, Any] = {"__type": f"{space}#{self.code}", "message": self.message}
        if self.reason is not None:
            # The two errors spell the member differently.
            member = "throttlingReasons" if self.code == "ThrottlingException" else "ThrottlingReasons"
            body[member] = [{"reason": self.reason, "resource": self.resource}]
        return compact(body)


def _invalid(message: str) -> ServiceError:
    return ServiceError("ValidationException", message)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What an operation answers.

    Args:
        body: JSON in UTF-8.
        error: what went wrong, or None.
    """

    body: bytes
    error: ServiceError | None = None


class TableStats:
    """What one table let through and what it rejected, in units, since the last reset."""

    def __init__(self) -> None:
        self.units = dict.fromkeys(("written", "write_rejected", "read", "read_rejected", "index_written"), 0.0)
        self.counts = dict.fromkeys(("puts", "deletes", "writes_rejected", "items_read", "throttled_requests"), 0)
        self.reasons: Counter[str] = Counter()
        self.written_by_second: Counter[int] = Counter()

    def report(self) -> dict[str, Any]:
        """All of it, as JSON has it; ``written_by_second`` from the first second with a write to the last."""
        seconds = self.written_by_second
        series = [seconds[second] for second in range(min(seconds), max(seconds) + 1)] if seconds else []
        return {**self.counts, "units": self.units, "reasons": dict(self.reasons), "written_by_second": series}


class Table:
    """One table: its items in the order of a scan, its capacity and what passed.

    Args:
        name: the table's name.
        schema: its key.
        options: its capacity.
        now: when it is created.
    """

    def __init__(self, name: str, schema: KeySchema, options: CapacityOptions, now: float) -> None:
        self.name = name
        self.arn = f"arn:aws:dynamodb:us-east-1:000000000000:table/{name}"
        self.schema = schema
        self.options = options
        self.capacity = TableCapacity(options, now)
        # Items that equal the generator's are kept by their number.
        self.generator: Generator | None = None
        self.like: str | None = None
        self.stats = TableStats()
        self.count = 0
        self.size = 0
        self._parts: list[dict[bytes, Record]] = [{} for _ in range(1 << _PART_BITS)]
        self._sorted: list[list[bytes] | None] = [None] * (1 << _PART_BITS)

    @staticmethod
    def _part(place: bytes) -> int:
        return place[0] << 4 | place[1] >> 4

    def record(self, place: bytes) -> Record | None:
        """What is at a place."""
        return self._parts[self._part(place)].get(place)

    def put(self, place: bytes, record: Record) -> None:
        """Put an item in its place."""
        part = self._part(place)
        items = self._parts[part]
        before = items.get(place)
        if before is None:
            self.count += 1
            self._sorted[part] = None
        else:
            self.size -= self.size_of(before)
        self.size += self.size_of(record)
        items[place] = record

    def delete(self, place: bytes) -> None:
        """Take the item away, if there is one."""
        record = self._parts[self._part(place)].pop(place, None)
        if record is not None:
            self.count -= 1
            self.size -= self.size_of(record)

    def size_of(self, record: Record | None) -> int:
        """Bytes of the item; 0 for none."""
        if record is None:
            return 0
        if isinstance(record, int):
            assert self.generator is not None, "a number without its generator"  # noqa: S101
            return self.generator.size
        return record[1]

    def json_of(self, record: Record) -> bytes:
        """The item."""
        if isinstance(record, int):
            assert self.generator is not None, "a number without its generator"  # noqa: S101
            return self.generator.item_json(record)
        return record[0]

    def canonical(self, record: Record) -> bytes:
        """The item as ``handlers.core.digest`` compares it."""
        return canonical_item(with_bytes(json.loads(self.json_of(record))))

    def key_json_of(self, record: Record) -> bytes:
        """The item's key."""
        if isinstance(record, int):
            assert self.generator is not None, "a number without its generator"  # noqa: S101
            return self.generator.key_json(record)
        return record[2]

    def new_record(self, item: dict[str, Any], written: str) -> tuple[bytes, int, bytes]:
        """What is kept of an item that was written as ``written``; raises InvalidItem."""
        key = self.schema.key(item)
        size = quick_size(written, len(item))
        if size is not None:
            return written.encode("ascii"), size, compact(key)
        size, changed = measure(item)
        return compact(item) if changed else written.encode("utf-8", "surrogatepass"), size, compact(key)

    def walk(self, low: int, high: int, after: bytes | None = None) -> Iterator[tuple[bytes, Record]]:
        """Items whose point on the ring is in ``low <= point < high``, in order, from behind ``after`` on."""
        shift = HASH_BITS - _PART_BITS
        end = high.to_bytes(9, "big")[1:] if high < _RING else None
        first = after if after is not None else low.to_bytes(8, "big")
        begin = self._part(first)
        for part in range(begin, ((high - 1) >> shift) + 1):
            items = self._parts[part]
            if not items:
                self._sorted[part] = None
                continue
            order = self._sorted[part]
            if order is None:
                order = self._sorted[part] = sorted(items)
            start = 0
            if part == begin:
                start = bisect_right(order, first) if after is not None else bisect_left(order, first)
            for place in order[start:] if start else order:
                if end is not None and place >= end:
                    return
                # A deleted item's place stays in the order until the part is sorted anew.
                record = items.get(place)
                if record is not None:
                    yield place, record

    def records(self) -> Iterator[tuple[bytes, Record]]:
        """All items in the order of a scan."""
        return self.walk(0, _RING)

    def describe(self) -> dict[str, Any]:
        """DescribeTable's answer; counts are current, where AWS brings them up to date every six hours."""
        schema = [(self.schema.partition, "HASH"), *([(self.schema.sort, "RANGE")] if self.schema.sort else [])]
        provisioned = self.options.mode == "provisioned"
        return {
            "TableName": self.name,
            "TableArn": self.arn,
            "TableStatus": "ACTIVE",
            "KeySchema": [{"AttributeName": attribute.name, "KeyType": kind} for attribute, kind in schema],
            "AttributeDefinitions": [
                {"AttributeName": attribute.name, "AttributeType": attribute.type} for attribute, _ in schema
            ],
            "BillingModeSummary": {"BillingMode": "PROVISIONED" if provisioned else "PAY_PER_REQUEST"},
            "ProvisionedThroughput": {
                "ReadCapacityUnits": int(self.options.read_units) if provisioned else 0,
                "WriteCapacityUnits": int(self.options.write_units) if provisioned else 0,
                "NumberOfDecreasesToday": 0,
            },
            "WarmThroughput": {
                "ReadUnitsPerSecond": int(self.capacity.read_limit),
                "WriteUnitsPerSecond": int(self.capacity.write_limit),
                "Status": "ACTIVE",
            },
            "ItemCount": self.count,
            "TableSizeBytes": self.size,
        }


def _point(place: bytes) -> int:
    return int.from_bytes(place[:8], "big")


class Store:
    """All tables of one endpoint."""

    def __init__(self) -> None:
        self.tables: dict[str, Table] = {}
        self.requests: Counter[str] = Counter()
        self.throttled: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self._operations: dict[str, Callable[[bytes, float], bytes]] = {
            "Scan": self._scan,
            "BatchWriteItem": self._batch_write,
            "BatchGetItem": self._batch_get,
            "DescribeTable": self._describe_table,
        }

    # --- control -----------------------------------------------------------------------------------------------------

    def create_table(
        self, name: str, schema: KeySchema, options: CapacityOptions, now: float, *, like: str | None = None
    ) -> Table:
        """Make an empty table; one of the same name goes.

        Args:
            name: the table's name.
            schema: its key.
            options: its capacity.
            now: the time.
            like: a table that is or will be filled; items that equal its generated ones need no memory here either.
        """
        table = Table(name, schema, options, now)
        if like is not None:
            model = self.tables[like]
            if (model.schema.partition, model.schema.sort) != (schema.partition, schema.sort):
                raise ValueError(f"{name} has another key than {like}; expected the same.")
            table.like, table.generator = like, model.generator
        self.tables[name] = table
        return table

    def fill(self, name: str, items: int, now: float, generator: Generator | None = None) -> Generator:
        """Put the first ``items`` generated items into the table, at no cost; returns what generated them.

        Args:
            name: the table.
            items: how many.
            now: the time.
            generator: makes the items; by default that which the table has already, or one of 1 KB an item.
        """
        table = self.tables[name]
        replaced = generator is not None and table.generator not in (None, generator)
        if replaced and any(isinstance(record, int) for _, record in table.records()):
            raise ValueError(f"{name} holds items of another generator; expected an empty table.")
        table.generator = generator or table.generator or Generator(schema=table.schema)
        for number in range(items):
            table.put(table.schema.place(table.generator.key(number)), number)
        table.capacity.resize(table.size, now)
        for other in self.tables.values():
            if other.like == name and other.generator is None:
                other.generator = table.generator
        return table.generator

    def damage(self, name: str, *, changed: int = 0, missing: int = 0, extra: int = 0, seed: int = 0) -> None:
        """Change items of a filled table, at no cost, in places that the seed chooses.

        Args:
            name: the table.
            changed: so many items get another text; their size stays.
            missing: so many others are deleted.
            extra: so many are added.
            seed: of the choice.
        """
        table = self.tables[name]
        if table.generator is None:
            raise ValueError(f"{name} was not filled.")
        whole = [(place, record) for place, record in table.records() if isinstance(record, int)]
        if changed + missing > len(whole):
            raise ValueError(f"{name} has {len(whole)} generated items; expected at least {changed + missing}.")
        chosen = random.Random(seed).sample(whole, changed + missing)
        for place, record in chosen[:changed]:
            text = table.json_of(record).decode("ascii").replace('"fixed"', '"wrong"', 1)
            table.put(place, table.new_record(json.loads(text), text))
        for place, _ in chosen[changed:]:
            table.delete(place)
        beyond = 1 + max((record for _, record in whole if isinstance(record, int)), default=table.count)
        for number in range(beyond, beyond + extra):
            table.put(table.schema.place(table.generator.key(number)), number)

    def digest(self, name: str) -> str:
        """The digest of the table's items, as ``handlers.core.digest`` has it."""
        table = self.tables[name]
        return to_hex(digest_items(with_bytes(json.loads(table.json_of(record))) for _, record in table.records()))

    def differences(self, source: str, destination: str) -> dict[str, int]:
        """How many items of the source are missing from the destination, extra there, or changed there.

        Tables may differ in their order. Far faster than two digests where both keep generated items.
        """
        first, second = self.tables[source], self.tables[destination]
        others = {place[8:]: record for place, record in second.records()}
        missing = changed = 0
        for place, record in first.records():
            other = others.pop(place[8:], None)
            if other is None:
                missing += 1
            elif isinstance(record, int) and record == other and first.generator == second.generator:
                continue
            else:
                changed += first.canonical(record) != second.canonical(other)
        return {"missing": missing, "extra": len(others), "changed": changed}

    def stats(self) -> dict[str, Any]:
        """What was asked, what passed, what did not, and what the tables hold."""
        return {
            "requests": dict(self.requests),
            "throttled": dict(self.throttled),
            "errors": dict(self.errors),
            "tables": {
                name: {
                    **table.stats.report(),
                    "items": table.count,
                    "bytes": table.size,
                    "partitions": table.capacity.partitions,
                    "write_limit": table.capacity.write_limit,
                    "read_limit": table.capacity.read_limit,
                }
                for name, table in self.tables.items()
            },
        }

    def reset_stats(self) -> None:
        """Count from zero again."""
        self.requests.clear()
        self.throttled.clear()
        self.errors.clear()
        for table in self.tables.values():
            table.stats = TableStats()

    # --- the service -------------------------------------------------------------------------------------------------

    def handle(self, operation: str, body: bytes, now: float) -> Answer:
        """Do an operation.

        Args:
            operation: e.g. ``Scan``.
            body: the request's JSON.
            now: the time.
        """
        self.requests[operation] += 1
        try:
            work = self._operations.get(operation)
            if work is None:
                raise ServiceError("UnknownOperationException", f"The bench has no {operation}.")
            return Answer(body=work(body, now))
        except InvalidItem as refusal:
            error = _invalid(str(refusal))
        except ServiceError as refusal:
            error = refusal
        except (ValueError, TypeError, AttributeError, KeyError, IndexError, StopIteration):
            error = ServiceError("SerializationException", "The request could not be read.")
        self.errors[error.code] += 1
        return Answer(body=error.body(), error=error)

    def _table(self, name: Any) -> Table:
        table = self.tables.get(name)
        if table is None:
            raise ServiceError("ResourceNotFoundException", f"Requested resource not found: Table: {name} not found")
        return table

    def _throttle(self, operation: str, table: Table, reason: str) -> ServiceError:
        """Count a request that nothing of passed; returns what to answer."""
        self.throttled[operation] += 1
        table.stats.counts["throttled_requests"] += 1
        if table.options.mode == "provisioned":
            code = "ProvisionedThroughputExceededException"
            message = (
                "The level of configured provisioned throughput for the table was exceeded. Consider increasing your "
                "provisioning level with the UpdateTable API."
            )
        else:
            code = "ThrottlingException"
            message = (
                "Throughput exceeds the current capacity of your table or index. DynamoDB is automatically scaling "
                "your table or index so please try again shortly."
            )
        return ServiceError(code, message, reason=reason, resource=table.arn)

    def _describe_table(self, body: bytes, _now: float) -> bytes:
        return compact({"Table": self._table(json.loads(body)["TableName"]).describe()})

    def _scan(self, body: bytes, now: float) -> bytes:
        request = json.loads(body)
        _only(request, _SCAN_ARGUMENTS)
        table = self._table(request.get("TableName"))
        segment, total = request.get("Segment", 0), request.get("TotalSegments", 1)
        if ("Segment" in request) != ("TotalSegments" in request) or not 0 <= segment < total <= MOST_SEGMENTS:
            raise _invalid("The Segment and TotalSegments parameters are not valid together")
        low, high = (segment * _RING + total - 1) // total, ((segment + 1) * _RING + total - 1) // total
        limit = request.get("Limit")
        if limit is not None and limit < 1:
            raise _invalid("Limit must be greater than or equal to 1")
        consistent = bool(request.get("ConsistentRead"))
        counts_only = request.get("Select") == "COUNT"
        names = _projected(request)
        if counts_only and names is not None:
            raise _invalid("Cannot specify the ProjectionExpression when choosing to get only the Count")
        after = None
        if request.get("ExclusiveStartKey") is not None:
            after = table.schema.place(request["ExclusiveStartKey"], whole=True)
            if not low <= _point(after) < high:
                raise _invalid("The provided starting key is outside the segment")

        reason = table.capacity.may_read(_point(after) if after is not None else low, now)
        if reason is not None:
            table.stats.reasons[reason] += 1
            table.stats.units["read_rejected"] += 1
            raise self._throttle("Scan", table, reason)

        size, last = 0, None
        places: list[bytes] = []
        records: list[Record] = []
        for place, record in table.walk(low, high, after):
            item_size = table.size_of(record)
            if records and size + item_size > PAGE_BYTES:
                last = records[-1]
                break
            size += item_size
            places.append(place)
            records.append(record)
            if len(records) == limit:
                last = record
                break
        units = read_units(size, consistent=consistent)
        self._charge_scan(table, places, records, size, units, low if after is None else _point(after), now)

        table.stats.counts["items_read"] += len(records)
        parts = [b'{"Count":%d,"ScannedCount":%d' % (len(records), len(records))]
        if not counts_only:
            parts += (b',"Items":[', b",".join(_wire(table, records, names)), b"]")
        if last is not None:
            parts += (b',"LastEvaluatedKey":', table.key_json_of(last))
        if request.get("ReturnConsumedCapacity", "NONE") != "NONE":
            parts += (b',"ConsumedCapacity":', compact({"TableName": table.name, "CapacityUnits": units}))
        parts.append(b"}")
        return b"".join(parts)

    @staticmethod
    def _charge_scan(
        table: Table, places: list[bytes], records: list[Record], size: int, units: float, start: int, now: float
    ) -> None:
        """Charge the page to the table, and to each partition its share of the bytes."""
        table.stats.units["read"] += units
        capacity = table.capacity
        if not places or capacity.partition(_point(places[0])) == capacity.partition(_point(places[-1])):
            capacity.read(units, _point(places[0]) if places else start, now)
            return
        shares: dict[int, tuple[int, int]] = {}
        for place, record in zip(places, records, strict=True):
            point = _point(place)
            partition = capacity.partition(point)
            shares[partition] = (point, shares.get(partition, (0, 0))[1] + table.size_of(record))
        for point, part in shares.values():
            capacity.read(units * part / size, point, now)

    def _batch_write(self, body: bytes, now: float) -> bytes:
        if len(body) > LARGEST_REQUEST_BYTES:
            raise _invalid("Request size exceeds the limit of 16 MB")
        text = body.decode("utf-8", "surrogatepass")
        # Everything is checked before anything is written: DynamoDB rejects the whole batch.
        plans, rest = _read_batch_write(text, self._table)
        _only(rest, _BATCH_WRITE_ARGUMENTS)
        if not 1 <= sum(map(len, plans.values())) <= MOST_WRITES or not all(plans.values()):
            raise _invalid(f"1 to {MOST_WRITES} requests are expected in a batch")
        for plan in plans.values():
            if len({write.place for write in plan}) != len(plan):
                raise _invalid("Provided list of item keys contains duplicates")

        returns = rest.get("ReturnConsumedCapacity", "NONE") != "NONE"
        unprocessed: list[bytes] = []
        consumed: list[dict[str, Any]] = []
        passed, refused = 0, None
        for name, plan in plans.items():
            table = self.tables[name]
            left, units, reason = _write_all(table, plan, now)
            passed += len(plan) - len(left)
            if left:
                assert reason is not None, "rejected without a reason"  # noqa: S101
                refused = refused or (table, reason)
                raw = ",".join(text[write.start : write.end] for write in left)
                unprocessed.append(compact(name) + b":[" + raw.encode("utf-8", "surrogatepass") + b"]")
            if returns:
                consumed.append({"TableName": name, "CapacityUnits": units})
        if refused is not None:
            error = self._throttle("BatchWriteItem", *refused)
            if not passed:
                raise error
        answer = b'{"UnprocessedItems":{' + b",".join(unprocessed) + b"}"
        if returns:
            answer += b',"ConsumedCapacity":' + compact(consumed)
        return answer + b"}"

    def _batch_get(self, body: bytes, now: float) -> bytes:
        request = json.loads(body)
        _only(request, _BATCH_GET_ARGUMENTS)
        wanted: dict[str, Any] = request["RequestItems"]
        asked = sum(len(entry["Keys"]) for entry in wanted.values())
        if asked > MOST_KEYS:
            raise _invalid("Too many items requested for the BatchGetItem call")
        if not wanted or not all(entry["Keys"] for entry in wanted.values()):
            raise _invalid("1 or more keys are expected for each table")
        plans = []
        for name, entry in wanted.items():
            _only(entry, _BATCH_GET_ENTRY)
            table = self._table(name)
            places = [table.schema.place(key, whole=True) for key in entry["Keys"]]
            if len(set(places)) != len(places):
                raise _invalid("Provided list of item keys contains duplicates")
            plans.append((table, entry, places, _projected(entry)))

        answers: list[bytes] = []
        unprocessed: dict[str, Any] = {}
        consumed: list[dict[str, Any]] = []
        room, passed, refused = LARGEST_ANSWER_BYTES, 0, None
        for table, entry, places, names in plans:
            consistent, units = bool(entry.get("ConsistentRead")), 0.0
            found: list[Record] = []
            left: list[Any] = []
            for key, place in zip(entry["Keys"], places, strict=True):
                record = table.record(place)
                size = table.size_of(record)
                if size > room:
                    left.append(key)
                    continue
                cost = read_units(size, consistent=consistent)
                reason = table.capacity.may_read(_point(place), now)
                if reason is not None:
                    refused = refused or (table, reason)
                    table.stats.reasons[reason] += 1
                    table.stats.units["read_rejected"] += cost
                    left.append(key)
                    continue
                table.capacity.read(cost, _point(place), now)
                units += cost
                passed += 1
                if record is not None:
                    room -= size
                    found.append(record)
            table.stats.units["read"] += units
            table.stats.counts["items_read"] += len(found)
            answers.append(compact(table.name) + b":[" + b",".join(_wire(table, found, names)) + b"]")
            if left:
                unprocessed[table.name] = {**entry, "Keys": left}
            consumed.append({"TableName": table.name, "CapacityUnits": units})
        if refused is not None:
            error = self._throttle("BatchGetItem", *refused)
            if not passed:
                raise error
        answer = b'{"Responses":{' + b",".join(answers) + b'},"UnprocessedKeys":' + compact(unprocessed)
        if request.get("ReturnConsumedCapacity", "NONE") != "NONE":
            answer += b',"ConsumedCapacity":' + compact(consumed)
        return answer + b"}"


_SCAN_ARGUMENTS = frozenset(
    {
        "TableName",
        "Segment",
        "TotalSegments",
        "Limit",
        "ExclusiveStartKey",
        "ProjectionExpression",
        "ExpressionAttributeNames",
        "ConsistentRead",
        "ReturnConsumedCapacity",
        "Select",
    }
)
_BATCH_WRITE_ARGUMENTS = frozenset({"ReturnConsumedCapacity", "ReturnItemCollectionMetrics"})
_BATCH_GET_ARGUMENTS = frozenset({"RequestItems", "ReturnConsumedCapacity"})
_BATCH_GET_ENTRY = frozenset({"Keys", "ConsistentRead", "ProjectionExpression", "ExpressionAttributeNames"})


def _only(request: Mapping[str, Any], known: frozenset[str]) -> None:
    unknown = request.keys() - known
    if unknown:
        raise _invalid(f"The bench does not model {', '.join(sorted(unknown))}.")


def _projected(request: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The attributes of a ProjectionExpression, or None where there is none."""
    expression = request.get("ProjectionExpression")
    placeholders = request.get("ExpressionAttributeNames", {})
    if expression is None:
        if placeholders:
            raise _invalid("ExpressionAttributeNames can only be specified when using expressions")
        return None
    parts = [part.strip() for part in expression.split(",")]
    if not all(parts) or any("[" in part or "." in part for part in parts):
        raise _invalid("The bench projects whole attributes only.")
    if unused := placeholders.keys() - set(parts):
        raise _invalid(f"Value provided in ExpressionAttributeNames unused in expressions: keys: {sorted(unused)}")
    missing = [part for part in parts if part.startswith("#") and part not in placeholders]
    if missing:
        raise _invalid(f"An expression attribute name used in the document path is not defined: {missing}")
    return tuple(placeholders.get(part, part) for part in parts)


def _wire(table: Table, records: Sequence[Record], names: tuple[str, ...] | None) -> Iterator[bytes]:
    """Items, or the attributes asked for, as JSON."""
    if names is None:
        return map(table.json_of, records)
    if set(names) == set(table.schema.names):
        return map(table.key_json_of, records)
    return (compact(project(json.loads(table.json_of(record)), names)) for record in records)


# --- BatchWriteItem ---------------------------------------------------------------------------------------------------

# What json.loads is made of: value or string at a place, and where it ends.
_scan_value: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder().raw_decode
_scan_string = json.decoder.scanstring  # type: ignore[attr-defined] # the type information leaves it out
_BLANK = re.compile(r"[ \t\r\n]*")
_WRITE = re.compile(
    r"""\s*\{\s* "(?: (PutRequest)"\s*:\s*\{\s*"Item | DeleteRequest"\s*:\s*\{\s*"Key )"\s*:\s*""",
    re.VERBOSE | re.ASCII,
)
_ONE_OF_TWO = "Each WriteRequest must hold exactly one PutRequest or DeleteRequest"
_WRITE_END = re.compile(r"\s*\}\s*\}\s*", re.ASCII)


class _Write(NamedTuple):
    """One write request.

    Args:
        place: where its item is.
        record: what is to be there; None for a delete.
        start, end: where the request is in the text.
    """

    place: bytes
    record: Record | None
    start: int
    end: int


def _skip(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    assert blank is not None, "matches nothing as well"  # noqa: S101
    return blank.end()


def _members(text: str, at: int, visit: Callable[[str, int], int]) -> int:
    """Walk the object that begins at ``at``; returns where it ends.

    ``visit`` gets a member's name and where its value begins, and returns where the value ends.
    """
    at = _skip(text, at)
    if text[at] != "{":
        raise ValueError("an object is expected")
    at = _skip(text, at + 1)
    if text[at] == "}":
        return at + 1
    while True:
        if text[at] != '"':
            raise ValueError("a name is expected")
        name, at = _scan_string(text, at + 1)
        at = _skip(text, at)
        if text[at] != ":":
            raise ValueError("a colon is expected")
        at = _skip(text, visit(name, _skip(text, at + 1)))
        if text[at] == "}":
            return at + 1
        if text[at] != ",":
            raise ValueError("a comma is expected")
        at = _skip(text, at + 1)


def _read_writes(text: str, at: int, table: Table) -> tuple[list[_Write], int]:
    """The list of write requests that begins at ``at``, and where it ends."""
    writes: list[_Write] = []
    if text[at] != "[":
        raise ValueError("a list is expected")
    at = _skip(text, at + 1)
    if text[at] == "]":
        return writes, at + 1
    schema, generator = table.schema, table.generator
    while True:
        start = at
        head = _WRITE.match(text, at)
        if head is None:
            raise _invalid(_ONE_OF_TWO)
        begin = head.end()
        is_put = head.group(1) is not None
        found = generator.find(text, begin) if is_put and generator is not None else None
        record: Record | None
        if found is not None and generator is not None:
            record, end = found
            place = schema.place(generator.key(record))
        else:
            value, end = _scan_value(text, begin)
            place = schema.place(value, whole=not is_put)
            record = table.new_record(value, text[begin:end]) if is_put else None
        tail = _WRITE_END.match(text, end)
        if tail is None:
            raise _invalid(_ONE_OF_TWO)
        at = tail.end()
        writes.append(_Write(place, record, start, at))
        if text[at] == "]":
            return writes, at + 1
        if text[at] != ",":
            raise ValueError("a comma is expected")
        at += 1


def _read_batch_write(text: str, find: Callable[[str], Table]) -> tuple[dict[str, list[_Write]], dict[str, Any]]:
    """The write requests of each table, and the other arguments."""
    plans: dict[str, list[_Write]] = {}
    rest: dict[str, Any] = {}

    def table(name: str, at: int) -> int:
        plans[name], end = _read_writes(text, at, find(name))
        return end

    def argument(name: str, at: int) -> int:
        if name == "RequestItems":
            return _members(text, at, table)
        rest[name], end = _scan_value(text, at)
        return end

    if _skip(text, _members(text, 0, argument)) != len(text):
        raise ValueError("nothing more is expected")
    return plans, rest


def _write_all(table: Table, plan: list[_Write], now: float) -> tuple[list[_Write], float, str | None]:
    """Write what the capacity lets through; returns the other requests, the units consumed, and why not all passed.

    A write costs the larger of the item before and after, and as much in each index, if it changes the item at all.
    """
    capacity, stats, indexes = table.capacity, table.stats, table.options.indexes
    left: list[_Write] = []
    written = index_written = rejected = 0
    deletes, last_reason = 0, None
    for write in plan:
        place, record = write.place, write.record
        before = table.record(place)
        units = write_units(max(table.size_of(record), table.size_of(before)))
        index_units = units if indexes and before != record else 0
        reason = capacity.write(units, index_units, int.from_bytes(place[:8], "big"), now)
        if reason is not None:
            left.append(write)
            rejected += units
            stats.reasons[reason] += 1
            last_reason = reason
            continue
        written += units
        index_written += index_units * indexes
        if record is None:
            table.delete(place)
            deletes += 1
        else:
            table.put(place, record)
    stats.units["written"] += written
    stats.units["index_written"] += index_written
    stats.units["write_rejected"] += rejected
    stats.counts["puts"] += len(plan) - len(left) - deletes
    stats.counts["deletes"] += deletes
    stats.counts["writes_rejected"] += len(left)
    if written:
        stats.written_by_second[int(now)] += written
    capacity.resize(table.size, now)
    return left, float(written + index_written), last_reason


# --- clients ----------------------------------------------------------------------------------------------------------


def with_bytes(item: Mapping[str, Any]) -> dict[str, Any]:
    """The item as boto3 has it: binary values as bytes."""
    return {name: _with_bytes(attribute) for name, attribute in item.items()}


def _with_bytes(attribute: Mapping[str, Any]) -> dict[str, Any]:
    ((kind, value),) = attribute.items()
    if kind == "B":
        value = base64.b64decode(value)
    elif kind == "BS":
        value = [base64.b64decode(member) for member in value]
    elif kind == "M":
        value = with_bytes(value)
    elif kind == "L":
        value = [_with_bytes(entry) for entry in value]
    return {kind: value}


def _base64(value: Any) -> str:
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode("ascii")
    raise TypeError(f"{type(value).__name__} is no part of a request.")


class LocalClient:
    """A DynamoDB client on a :class:`Store` of the same process, for simulated time.

    ``scan``, ``batch_write_item``, ``batch_get_item`` and ``describe_table`` take boto3's arguments and give its
    answers, but binary values come as base64 text; they may be given as bytes or text. Errors are ClientErrors. How
    long the call took is in ``answer["ResponseMetadata"]["Latency"]``, in seconds, in errors too; nothing waits for it.

    Args:
        store: the tables.
        clock: gives the time in seconds at which a request arrives.
        latency: how long requests take.
        seed: of the latency.
    """

    def __init__(
        self, store: Store, clock: Callable[[], float], *, latency: Latency | None = None, seed: int = 0
    ) -> None:
        self.store = store
        self.clock = clock
        self.latency = latency or Latency()
        self._source = random.Random(seed)

    def call(self, operation: str, now: float, **arguments: Any) -> tuple[dict[str, Any], float]:
        """Do an operation at a time; returns its answer and how long it took, in seconds.

        Raises:
            ClientError: what DynamoDB answered with.
        """
        body = json.dumps(arguments, separators=(",", ":"), default=_base64).encode("ascii")
        latency = self.latency.sample(self._source)
        answer = self.store.handle(operation, body, now)
        content: dict[str, Any] = json.loads(answer.body)
        status = 200 if answer.error is None else 400
        metadata = {"HTTPStatusCode": status, "RetryAttempts": 0, "Latency": latency}
        if answer.error is not None:
            details = {name: value for name, value in content.items() if name not in ("__type", "message")}
            error = {"Code": answer.error.code, "Message": answer.error.message}
            response: Any = {"Error": error, "ResponseMetadata": metadata, **details}
            raise ClientError(response, operation)
        content["ResponseMetadata"] = metadata
        return content, latency

    def scan(self, **arguments: Any) -> dict[str, Any]:
        """Scan."""
        return self.call("Scan", self.clock(), **arguments)[0]

    def batch_write_item(self, **arguments: Any) -> dict[str, Any]:
        """BatchWriteItem."""
        return self.call("BatchWriteItem", self.clock(), **arguments)[0]

    def batch_get_item(self, **arguments: Any) -> dict[str, Any]:
        """BatchGetItem."""
        return self.call("BatchGetItem", self.clock(), **arguments)[0]

    def describe_table(self, **arguments: Any) -> dict[str, Any]:
        """DescribeTable."""
        return self.call("DescribeTable", self.clock(), **arguments)[0]
