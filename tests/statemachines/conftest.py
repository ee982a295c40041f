"""The program deployed into the embedded AWS, with small tables and functions of its own to recover."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from localaws import sample
from localaws.deployment import deploy
from localaws.server import EmbeddedAws

PROJECT = Path(__file__).parents[2]
# Key attributes of each table: (name, type), partition key first.
TABLES: dict[str, Key] = {
    "local-licenses": (("country", "S"), ("code", "S")),
    "local-languages": (("code", "S"),),
    "local-measurements": (("sensor", "N"), ("token", "B")),
}
SENSITIVE = "local-ssn"
OTHER_SCHEMA = "other-schema"
# Function name → reserved concurrency (None: none reserved).
FUNCTIONS: dict[str, int | None] = {"local-app-api": 5, "local-app-free": None, "local-app-paused": 0}
OUTSIDE = "elsewhere-api"

Item = dict[str, Any]


Key = tuple[tuple[str, str], ...]


def item(key_schema: Key, number: int, note: str = "as it was") -> Item:
    """One item of a table with this key; every attribute type of DynamoDB is in it."""
    values = {"S": f"k{number:05d}", "N": str(number), "B": f"k{number:05d}".encode()}
    key = {name: {kind: values[kind]} for name, kind in key_schema}
    return {
        **key,
        "note": {"S": note},
        "exact": {"N": "12345678901234567890123456789012345678"},
        "small": {"N": "-1.5E-120"},
        "empty": {"S": ""},
        "bytes": {"B": b"\x00\xff"},
        "flag": {"BOOL": True},
        "none": {"NULL": True},
        "strings": {"SS": ["a", "b"]},
        "numbers": {"NS": ["1", "2.5"]},
        "binaries": {"BS": [b"\x01", b"\x02"]},
        "nested": {"M": {"list": {"L": [{"N": "1"}, {"M": {"deep.er": {"S": "ü"}}}]}}},
    }


@dataclass
class Deployed:
    """The embedded AWS with the local stack, and shortcuts for what tests do with it."""

    aws: EmbeddedAws
    outputs: dict[str, Any]
    before: dict[str, list[Item]] = field(default_factory=dict)

    def client(self, service: str) -> Any:
        """A boto3 client with all permissions."""
        return self.aws.client(service)

    def fill(self, table: str, numbers: range, note: str = "as it was", *, like: str | None = None) -> None:
        """Write items into a table whose key is that of the table ``like``, by default its own."""
        key = TABLES.get(like or table, (("id", "S"),))
        for start in range(numbers.start, numbers.stop, 25):
            batch = [item(key, number, note) for number in range(start, min(start + 25, numbers.stop))]
            requests = [{"PutRequest": {"Item": entry}} for entry in batch]
            answer = self.client("dynamodb").batch_write_item(RequestItems={table: requests})
            assert not answer.get("UnprocessedItems")

    def items(self, table: str) -> list[Item]:
        """Every item of a table, in an order of its own."""
        pages = self.client("dynamodb").get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
        items = (entry for page in pages for entry in page["Items"])
        # The order of attributes, and of the entries of a map, is nobody's to rely on.
        return sorted(items, key=lambda item: json.dumps(item, sort_keys=True, default=repr))

    def restore_point(self) -> str:
        """A whole second with everything written so far before it and everything written from now on after it."""
        point = int(time.time()) + 1
        # The restore point has the resolution of a second, so there is a clock to wait for.
        while time.time() <= point:
            time.sleep(0.02)
        return datetime.fromtimestamp(point, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    def concurrency(self) -> dict[str, int | None]:
        """Reserved concurrency of every function of the account that is not the recovery's own."""
        lambdas = self.client("lambda")
        return {
            name: lambdas.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions")
            for name in (*FUNCTIONS, OUTSIDE)
        }

    def temporary_tables(self) -> list[str]:
        """Restored tables that are still there."""
        return [name for name in self.client("dynamodb").list_tables()["TableNames"] if name.startswith("dr-")]

    def locks(self) -> list[str]:
        """Locks that are held."""
        answer = self.client("dynamodb").scan(TableName=self.outputs["ledgerTableName"], ConsistentRead=True)
        locks = [entry for entry in answer["Items"] if entry["pk"]["S"] == "LOCK" and "owner" in entry]
        return [lock["sk"]["S"] for lock in locks if lock["owner"]["S"] != "nobody"]

    def start(self, machine: str, request: Any) -> str:
        """Start an execution; ``request`` is JSON text, or a value to be written as such. Returns its ARN."""
        text = request if isinstance(request, str) else json.dumps(request)
        answer = self.client("stepfunctions").start_execution(stateMachineArn=machine, input=text)
        return str(answer["executionArn"])

    def finish(self, execution: str, seconds: float = 120) -> dict[str, Any]:
        """Wait until an execution has ended; returns its description."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            described: dict[str, Any] = self.client("stepfunctions").describe_execution(executionArn=execution)
            if described["status"] != "RUNNING":
                return described
            time.sleep(0.05)  # Step Functions has no event to wait for from outside
        raise AssertionError(f"{execution} still runs after {seconds} s")

    def recover(self, request: Any) -> dict[str, Any]:
        """Run the orchestrator to its end."""
        return self.finish(self.start(self.outputs["orchestratorStateMachineArn"], request))

    def reset(self, table: str, request: Any) -> dict[str, Any]:
        """Run a table's hard reset to its end."""
        return self.finish(self.start(self.outputs["hardResetStateMachineArns"][table], request))

    def arn(self, table: str) -> str:
        """A table's ARN."""
        return str(self.client("dynamodb").describe_table(TableName=table)["Table"]["TableArn"])

    def history(self, execution: str) -> list[dict[str, Any]]:
        """All events of an execution."""
        pages = self.client("stepfunctions").get_paginator("get_execution_history").paginate(executionArn=execution)
        return [event for page in pages for event in page["events"]]


def request(point: str, *tables: str, incident: str, **more: Any) -> dict[str, Any]:
    """The orchestrator's input."""
    named = [{"tableName": name, "tableNameRecoveryConfirmation": name} for name in tables]
    return {"incidentId": incident, "restoreDateTime": point, "tables": named, **more}


def create_table(aws: EmbeddedAws, name: str, key: Key, *, pitr: bool = True) -> None:
    """A table with this key and PITR."""
    sample.create_table(aws.client("dynamodb"), sample.TableSpec(name=name, keys=key), pitr=pitr)


NOTHING = "def handler(event, context):\n    return event\n"


def create_function(aws: EmbeddedAws, name: str, reserved: int | None, code: str = NOTHING) -> None:
    """A function, by default one that does nothing."""
    sample.create_function(aws, sample.FunctionSpec(name=name, reserved=reserved, code=code))


def deployed_stack(
    overrides: Mapping[str, Any],
    *,
    wait_scale: str = "0",
    more: Mapping[str, str] | None = None,
    before: Callable[[EmbeddedAws], Mapping[str, Any]] = lambda _: {},
) -> Iterator[Deployed]:
    """A fresh embedded AWS with the local stack deployed, until the caller is done with it.

    ``more``: further settings of the embedded AWS. ``before`` is called when tables and functions exist and the stack
    does not; it may answer with more configuration.
    """
    settings = {
        "LOCAL_AWS_WAIT_SCALE": wait_scale,
        "LOCAL_AWS_RESTORE_SECONDS": "0",
        "LOCAL_AWS_BACKUP_SECONDS": "0",
        **(more or {}),
    }
    with EmbeddedAws(settings=settings) as aws:
        for name, key in {**TABLES, SENSITIVE: (("id", "S"),), OTHER_SCHEMA: (("id", "S"),)}.items():
            create_table(aws, name, key)
        for name, reserved in {**FUNCTIONS, OUTSIDE: 3}.items():
            create_function(aws, name, reserved)
        yield Deployed(aws, deploy(PROJECT, "local", aws, {**overrides, **before(aws)}))


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployed]:
    """The local stack, once for a module's tests."""
    yield from deployed_stack({})
