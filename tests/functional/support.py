"""What the tests of the entry points share: a Lambda context, faults, tables, and a hard reset step by step."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest
from botocore.exceptions import ClientError

from handlers import (
    compare_segment,
    copy_segment,
    differential_segment,
    digest_segment,
    preflight,
    prove_empty,
    purge_segment,
    report_differences,
    runtime,
    unlock,
    verify,
)
from handlers.core.clock import to_iso, utc_now
from handlers.core.incident import Incident
from handlers.core.ledger import Ledger

REGION, ACCOUNT = "us-east-1", "123456789012"
LEDGER, BUCKET = "test-dr-ledger", "test-dr-reports"
ORCHESTRATOR = "test-dr-orchestrator"
RESTORE_POINT = datetime(2026, 11, 20, 9, tzinfo=UTC)

Item = dict[str, Any]
Key = tuple[tuple[str, str], ...]
"""A key schema: (name, type) of the partition key and, where there is one, of the sort key."""


# --- Lambda -----------------------------------------------------------------------------------------------------------


@dataclass
class Context:
    """What Lambda hands to a handler beside the event.

    ``seconds`` is the remaining time; each look at it after the first takes ``per_look`` seconds away, so a test has
    its deadline without waiting for it.
    """

    seconds: float = 900
    per_look: float = 0
    function_name: str = "test-dr-function"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:test-dr-function"
    aws_request_id: str = "00000000-0000-0000-0000-000000000000"
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds left."""
        with self._lock:
            left = self.seconds
            self.seconds -= self.per_look
        return int(left * 1000)


def one_page() -> Context:
    """An invocation whose time is up after its first page."""
    return Context(per_look=900)


def invoke(handler: Callable[..., dict[str, Any]], event: Mapping[str, Any], context: Context | None = None) -> Any:
    """Call an entry point as Lambda does: JSON in, JSON out. What is no JSON fails here as it would there."""
    answer = handler(json.loads(json.dumps(event)), context or Context())
    return json.loads(json.dumps(answer))


# --- tables -----------------------------------------------------------------------------------------------------------


def table_arn(name: str) -> str:
    """The ARN of a table in the tests' account."""
    return f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{name}"


def create_table(dynamodb: Any, name: str, key: Key = (("id", "S"),)) -> None:
    """Create a table with a key schema."""
    dynamodb.create_table(
        TableName=name,
        KeySchema=[
            {"AttributeName": attribute, "KeyType": role}
            for (attribute, _), role in zip(key, ("HASH", "RANGE"), strict=False)
        ],
        AttributeDefinitions=[{"AttributeName": attribute, "AttributeType": kind} for attribute, kind in key],
        BillingMode="PAY_PER_REQUEST",
    )


def put_all(dynamodb: Any, table: str, items: Iterable[Item]) -> int:
    """Write items; returns how many."""
    requests = [{"PutRequest": {"Item": item}} for item in items]
    for start in range(0, len(requests), 25):
        answer = dynamodb.batch_write_item(RequestItems={table: requests[start : start + 25]})
        assert not answer["UnprocessedItems"]
    return len(requests)


def scan_all(dynamodb: Any, table: str) -> list[Item]:
    """All items of a table as they are on the wire, in the order of their text."""
    pages = dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    items = (item for page in pages for item in page["Items"])
    # The order of attributes, and of the entries of a map, is nobody's to rely on.
    return sorted(items, key=lambda item: json.dumps(item, sort_keys=True, default=repr))


def _key_value(kind: str, number: int) -> dict[str, Any]:
    values: dict[str, dict[str, Any]] = {
        "S": {"S": f"k{number:05d}"},
        # Small, large, negative and fractional numbers, all distinct.
        "N": {"N": (str(number), f"-{number}", f"{number}.5", f"{number}" + "0" * 30)[number % 4]},
        "B": {"B": b"\x00\xff" + number.to_bytes(3, "big")},
    }
    return values[kind]


def every_type(number: int) -> Item:
    """Attributes of every type and of the edges of every type, which differ from item to item."""
    return {
        "text": {"S": f"größe 😀 {number}"},
        "empty": {"S": ""},
        "long.number": {"N": "1234567890123456789012345678901234567" + str(number % 9)},
        "tiny": {"N": "1E-130"},
        "huge": {"N": "-9.9999999999999999999999999999999999999E+125"},
        "zeros": {"N": "1.500"},
        "binary": {"B": bytes([0, 255, number % 256])},
        "true": {"BOOL": True},
        "false": {"BOOL": False},
        "null": {"NULL": True},
        "strings": {"SS": ["a", f"b{number}"]},
        "numbers": {"NS": ["1", f"2.{number}1"]},
        "binaries": {"BS": [b"\x00", bytes([1, number % 256])]},
        "list": {"L": [{"N": "1"}, {"S": ""}, {"L": []}, {"M": {}}, {"NULL": True}]},
        "map": {"M": {"a.b": {"L": [{"M": {"#": {"N": str(number)}}}]}, "date": {"BOOL": False}}},
    }


def make_items(key: Key, count: int, *, first: int = 1, rich: bool = True) -> list[Item]:
    """``count`` items with distinct keys; with a sort key, three of them share each partition key."""
    items = []
    for number in range(first, first + count):
        numbers = (number,) if len(key) == 1 else ((number - 1) // 3 + 1, number)
        names = {name: _key_value(kind, value) for (name, kind), value in zip(key, numbers, strict=True)}
        items.append({**(every_type(number) if rich else {"value": {"N": str(number)}}), **names})
    return items


# --- the ledger -------------------------------------------------------------------------------------------------------


def ledger_items(dynamodb: Any, prefix: str = "") -> dict[tuple[str, str], Item]:
    """The ledger's records by key, of partitions that begin with ``prefix``."""
    return {
        (item["pk"]["S"], item["sk"]["S"]): item
        for item in scan_all(dynamodb, LEDGER)
        if item["pk"]["S"].startswith(prefix)
    }


def lock_names(dynamodb: Any) -> dict[str, str]:
    """Lock → the execution that owns it (the marker of the unfinished incident has no owner)."""
    return {key[1]: item["owner"]["S"] for key, item in ledger_items(dynamodb, "LOCK").items() if "owner" in item}


def hold_lock(dynamodb: Any, name: str, owner: str, *, incident: str = "incident", settled_at: str = "") -> None:
    """Make an execution the owner of a lock, whoever had it."""
    lock = {"pk": {"S": "LOCK"}, "sk": {"S": name}, "owner": {"S": owner}, "incidentId": {"S": incident}}
    settled = {"settledAt": {"S": settled_at}} if settled_at else {}
    dynamodb.put_item(TableName=LEDGER, Item={**lock, **settled})


def open_incident(dynamodb: Any, execution: str, *, incident: str = "incident", tables: Iterable[str] = ()) -> None:
    """Record that an orchestrator's execution works on an incident, and has begun to reset its tables."""
    values = {
        "status": "RUNNING",
        "executionArn": execution,
        "request": json.dumps({"tables": list(tables), "restoreDateTime": to_iso(RESTORE_POINT)}),
        "openedAt": to_iso(datetime.now(UTC)),
        "resetsBegun": execution,
    }
    key = {"pk": {"S": f"INCIDENT#{incident}"}, "sk": {"S": "RUN"}}
    dynamodb.put_item(TableName=LEDGER, Item={**key, **{name: {"S": value} for name, value in values.items()}})


def begin_resets(dynamodb: Any, execution: str | None, incident: str = "incident") -> None:
    """Let an orchestrator's execution be past its preparation."""
    assert execution
    book = Ledger(dynamodb, LEDGER)
    Incident(ledger=book, clock=utc_now, incident_id=incident, execution_arn=execution).begin_resets()


# --- faults -----------------------------------------------------------------------------------------------------------


class KilledError(RuntimeError):
    """The worker dies here."""


def throttling(operation: str) -> ClientError:
    """What the SDK raises once its own retries are used up."""
    return ClientError({"Error": {"Code": "ProvisionedThroughputExceededException", "Message": "Too fast."}}, operation)


@dataclass
class FailCalls:
    """Makes calls of one operation of a client fail: those whose number (from 1) ``which`` names, while installed."""

    client: Any
    operation: str
    error: Callable[[], Exception]
    which: Callable[[int], bool]
    calls: int = 0
    failed: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> FailCalls:
        self.client.meta.events.register_first(f"before-call.dynamodb.{self.operation}", self._before)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.meta.events.unregister(f"before-call.dynamodb.{self.operation}", self._before)

    def _before(self, **_: Any) -> None:
        with self._lock:
            self.calls += 1
            fails = self.which(self.calls)
            self.failed += fails
        if fails:
            raise self.error()


@dataclass
class LeaveUnprocessed:
    """Makes BatchWriteItem leave all but the first ``processed`` requests of every call unprocessed, really unwritten.

    Only for requests to one table.
    """

    client: Any
    processed: int
    left: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> LeaveUnprocessed:
        events = self.client.meta.events
        events.register_first("before-call.dynamodb.BatchWriteItem", self._before)
        events.register("after-call.dynamodb.BatchWriteItem", self._after)
        return self

    def __exit__(self, *_: object) -> None:
        events = self.client.meta.events
        events.unregister("before-call.dynamodb.BatchWriteItem", self._before)
        events.unregister("after-call.dynamodb.BatchWriteItem", self._after)

    def _before(self, params: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        body = json.loads(params["body"])
        ((table, requests),) = body["RequestItems"].items()
        context["unprocessed"] = {table: requests[self.processed :]}
        params["body"] = json.dumps({**body, "RequestItems": {table: requests[: self.processed]}}).encode()
        with self._lock:
            self.left += len(requests[self.processed :])

    def _after(self, parsed: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        parsed["UnprocessedItems"] = {table: left for table, left in context["unprocessed"].items() if left}


# --- a hard reset, step by step as its state machine runs it ----------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Steps:
    """The steps of one hard reset, by the entry points and with the payloads of the state machine."""

    execution_arn: str
    incident_id: str = "incident"
    source: str = "dr-test.licenses.restored"
    table: str = "test-licenses"
    segments: int | None = 2
    parent: str | None = None
    """The execution of the orchestrator that started this one."""
    sensitive: tuple[str, ...] = ("test-ssn",)
    source_tables: tuple[str, ...] = ("dr-test.*",)
    mode: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """The table's options, from the stack's configuration."""
        return {
            "segments": self.segments,
            "concurrency": 25,
            "maxWriteUnitsPerSecond": None,
            "capacityShare": None,
        }

    def request(self, **changes: Any) -> dict[str, Any]:
        """The hard reset's input."""
        return {
            "incidentId": self.incident_id,
            "sourceTableArn": table_arn(self.source),
            "destinationTableArn": table_arn(self.table),
            "tableNameRecoveryConfirmation": self.table,
            **({} if self.parent is None else {"orchestratorExecutionArn": self.parent}),
            **({} if self.mode is None else {"mode": self.mode}),
            **changes,
        }

    def preflight(self, request: Any = ..., **changes: Any) -> Any:
        """Run the preflight; returns the plan."""
        return invoke(
            preflight.handler,
            {
                "request": self.request() if request is ... else request,
                "executionArn": self.execution_arn,
                "tableName": self.table,
                "sensitiveTables": list(self.sensitive),
                "sourceTables": list(self.source_tables),
                "options": self.options,
                **changes,
            },
        )

    def event(self, plan: Mapping[str, Any], segment: int) -> dict[str, Any]:
        """The payload of one segment of purge or copy."""
        return {
            "executionArn": self.execution_arn,
            "incidentId": plan["incidentId"],
            "tableName": plan["tableName"],
            "sourceTableName": plan["sourceTableName"],
            "keyNames": plan["keyNames"],
            "segment": segment,
            "totalSegments": plan["segments"],
            "generation": plan["attempt"],
            "pacing": plan["pacing"],
            "causeLimit": 1500,
        }

    def purge(self, plan: Mapping[str, Any], context: Callable[[], Context] = Context) -> int:
        """Purge every segment; returns how many invocations it took."""
        return sum(
            until_complete(purge_segment.handler, self.event(plan, segment), context)
            for segment in range(plan["segments"])
        )

    def copy(self, plan: Mapping[str, Any], context: Callable[[], Context] = Context) -> int:
        """Copy every segment; returns how many invocations it took."""
        return sum(
            until_complete(copy_segment.handler, self.event(plan, segment), context)
            for segment in range(plan["segments"])
        )

    def differential_event(self, plan: Mapping[str, Any], segment: int) -> dict[str, Any]:
        """The payload of one segment of the differential phase."""
        return self.event(plan, segment)

    def differential(self, plan: Mapping[str, Any], context: Callable[[], Context] = Context) -> int:
        """Write what differs in every segment; returns how many invocations it took."""
        return sum(
            until_complete(differential_segment.handler, self.differential_event(plan, segment), context)
            for segment in range(plan["segments"])
        )

    def copied(self, dynamodb: Any, key: Key, count: int) -> Any:
        """Make both tables and reset as far as the copy's end: so many equal items in each; returns the plan."""
        create_table(dynamodb, self.source, key)
        create_table(dynamodb, self.table, key)
        put_all(dynamodb, self.source, make_items(key, count))
        plan = self.preflight()
        self.empty(plan)
        self.copy(plan)
        assert len(scan_all(dynamodb, self.table)) == count
        return plan

    def prove_empty(self, plan: Mapping[str, Any]) -> Any:
        """Prove that the destination is empty."""
        return invoke(prove_empty.handler, {field: plan[field] for field in ("incidentId", "tableName")})

    def empty(self, plan: Mapping[str, Any], context: Callable[[], Context] = Context) -> int:
        """Purge, and prove it: only then the copy may begin. Returns how many invocations the purge took."""
        invocations = self.purge(plan, context)
        assert self.prove_empty(plan) == {"empty": True}
        return invocations

    def digest_event(
        self, plan: Mapping[str, Any], side: str, segment: int, *, horizon: int = 2_000_000_000
    ) -> dict[str, Any]:
        """The payload of one segment of one side of the digest."""
        return {
            **self.event(plan, segment),
            "generation": plan["verification"],
            "side": side,
            "ttlAttribute": plan["ttlAttribute"],
            "expiryHorizon": horizon,
        }

    def digest(
        self, plan: Mapping[str, Any], context: Callable[[], Context] = Context, *, horizon: int = 2_000_000_000
    ) -> int:
        """Digest every segment of both sides; returns how many invocations it took."""
        return sum(
            until_complete(digest_segment.handler, self.digest_event(plan, side, segment, horizon=horizon), context)
            for side in ("source", "destination")
            for segment in range(plan["segments"])
        )

    def verify(self, plan: Mapping[str, Any], since: int | None = None) -> Any:
        """The verdict; ``since``: the epoch second at which the digests were begun."""
        event = {field: plan[field] for field in ("incidentId", "tableName")}
        return invoke(verify.handler, event if since is None else {**event, "verifyingSince": since})

    def compare(
        self, plan: Mapping[str, Any], context: Callable[[], Context] = Context, *, horizon: int = 2_000_000_000
    ) -> int:
        """Compare every segment of both sides item by item; returns how many invocations it took."""
        return sum(
            until_complete(compare_segment.handler, self.digest_event(plan, side, segment, horizon=horizon), context)
            for side in ("source", "destination")
            for segment in range(plan["segments"])
        )

    def report_differences(
        self, plan: Mapping[str, Any], verdict: Exception, failure: Mapping[str, str] | None = None
    ) -> Any:
        """The failed verdict with what the comparison found; ``verdict`` arrives as Lambda reports an error."""
        event = {
            **{field: plan[field] for field in ("incidentId", "tableName")},
            "executionArn": self.execution_arn,
            "verdict": json.dumps({"errorMessage": str(verdict), "errorType": type(verdict).__name__}),
            "failure": failure,
        }
        return invoke(report_differences.handler, event)

    def run(self, context: Callable[[], Context] = Context) -> Any:
        """Everything, from where the incident stopped; returns the verdict."""
        plan = self.preflight()
        if plan["phase"] == "differential":
            self.differential(plan, context)
        else:
            if plan["phase"] == "purge":
                self.empty(plan, context)
            self.copy(plan, context)
        self.digest(plan, context)
        return self.verify(plan)

    def unlock(self) -> None:
        """Give up the table's lock."""
        give_up_locks(self.execution_arn, self.table, incident=self.incident_id, parent=self.parent)


def give_up_locks(
    execution_arn: str, table: str | None = None, *, incident: Any = "incident", parent: Any = None
) -> None:
    """Unlock: a hard reset's table, or all that an orchestrator holds."""
    event = {
        "incidentId": incident,
        "executionArn": execution_arn,
        "tableName": table,
        "orchestratorExecutionArn": parent,
    }
    assert invoke(unlock.handler, event) == {}


def until_complete(
    handler: Callable[..., dict[str, Any]], event: Mapping[str, Any], context: Callable[[], Context]
) -> int:
    """Invoke until the answer says complete, as the state machine's loop does; returns how many invocations it took."""
    for invocations in range(1, 500):
        if invoke(handler, event, context())["complete"]:
            return invocations
    raise AssertionError("never complete")


def checkpoints(dynamodb: Any, phase: str) -> Iterator[Item]:
    """The checkpoints of one phase, of every table and generation."""
    for (_, sort_key), item in ledger_items(dynamodb, "SEGMENTS#").items():
        if sort_key.split("#")[1] == phase:
            yield item


def listed_differences(s3: Any, prefix: str = "differences/") -> list[tuple[str, Item]]:
    """What the objects under a prefix list: kind and key in wire form (binary as base64), sorted."""
    found = []
    for name in object_names(s3, prefix):
        body = s3.get_object(Bucket=BUCKET, Key=name)["Body"].read().decode("ascii")
        assert body.endswith("\n")
        found += [json.loads(line) for line in body.splitlines()]
    assert all(set(entry) == {"difference", "key"} for entry in found)
    return sorted(((entry["difference"], entry["key"]) for entry in found), key=repr)


def object_names(s3: Any, prefix: str = "differences/") -> list[str]:
    """Names of the report bucket's objects under a prefix."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", ())]


def stand_in(monkeypatch: pytest.MonkeyPatch, clients: Mapping[str, Any]) -> None:
    """Give the handlers these clients; every other service stays moto's."""
    genuine = runtime.client

    @cache  # as the genuine one, whose cache the fixtures clear
    def client(service: str) -> Any:
        return clients[service] if service in clients else genuine(service)

    monkeypatch.setattr(runtime, "client", client)
