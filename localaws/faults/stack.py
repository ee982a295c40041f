"""An embedded AWS with the local stack and small tables, for one fault after the other."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from localaws.batches import delete_request, put_request, write_all
from localaws.deployment import deploy
from localaws.sample import FunctionSpec, TableSpec, create_function, create_table
from localaws.server import PROJECT_ROOT, EmbeddedAws

Key = tuple[tuple[str, str], ...]
Item = dict[str, Any]
Items = dict[str, Item]
"""Key as text → item."""

# Key attributes, partition key first. The program wants all of them; a recovery here is of the first two.
TABLES: dict[str, Key] = {
    "local-licenses": (("country", "S"), ("code", "S")),
    "local-languages": (("code", "S"),),
    "local-measurements": (("sensor", "N"), ("token", "B")),
}
RECOVERED = ("local-licenses", "local-languages")
BY_HAND = "local-licenses"
NOT_OVER = "INCIDENT (not over)"
STREAM_TABLE = "local-languages"
SENSITIVE = "local-ssn"
TTL_TABLE, TTL_ATTRIBUTE = "local-languages", "expiresAt"
FUNCTIONS: dict[str, int | None] = {"local-app-api": 5, "local-app-free": None, "local-app-paused": 0}
"""The system's functions → reserved concurrency (None: none reserved)."""

ITEMS = 60
_EXPIRES_IN_SECONDS = 2 * 3_600
_PATIENCE = 6  # times 20 seconds

SETTINGS = {
    "LOCAL_AWS_WAIT_SCALE": "0",
    "LOCAL_AWS_SDK_SCALE": "0.001",
    "LOCAL_AWS_RESTORE_SECONDS": "0",
    "LOCAL_AWS_BACKUP_SECONDS": "0",
}
CONFIGURATION = {
    # A table that takes nothing costs a worker its whole invocation before it says CapacityExhausted.
    "dynamodb-dr:workerTimeoutSeconds": 3,
    "dynamodb-dr:tables": [
        {"name": "local-licenses", "segments": 2, "concurrency": 2},
        {"name": "local-languages", "segments": 1, "concurrency": 1},
        {"name": "local-measurements", "segments": 1, "concurrency": 1},
    ],
}


class TooLongError(RuntimeError):
    """An execution, or its Lambda functions, did not end in time."""


@dataclass
class Stack:
    """The deployed stack, the restore point of its tables, and what they held then."""

    aws: EmbeddedAws
    outputs: dict[str, Any]
    point: str
    good: dict[str, Items]
    settings: dict[str, Any]
    _damages: int = 0
    _consumer: str | None = None
    _sources: int = 0

    def client(self, service: str) -> Any:
        """A boto3 client with all permissions."""
        return self.aws.client(service)

    def items(self, table: str) -> Items:
        """Every item of a table."""
        pages = self.client("dynamodb").get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
        names = [name for name, _ in TABLES[table]]
        return {repr([item[name] for name in names]): item for page in pages for item in page["Items"]}

    def damage(self) -> dict[str, Items]:
        """Delete a third of every table, change another third, add junk; returns what the tables hold now."""
        self._damages += 1
        for table in RECOVERED:
            names = [name for name, _ in TABLES[table]]
            before = list(self.items(table).values())
            note = {"S": f"damaged {self._damages}"}
            wrong = [delete_request({name: item[name] for name in names}) for item in before[::3]]
            wrong += [put_request({**item, "note": note}) for item in before[1::3]]
            wrong += [put_request(_item(table, 90_000 + 100 * self._damages + number, "junk")) for number in range(10)]
            write_all(self.client("dynamodb"), table, wrong)
        return {table: self.items(table) for table in RECOVERED}

    def source_by_hand(self) -> str:
        """Restore a table to the restore point, as an operator does for a hard reset by hand; returns its name."""
        self._sources += 1
        name = f"dr-local.by-hand-{self._sources}"
        self.client("dynamodb").restore_table_to_point_in_time(
            SourceTableName=BY_HAND,
            TargetTableName=name,
            RestoreDateTime=datetime.fromisoformat(self.point),
            BillingModeOverride="PAY_PER_REQUEST",
        )
        return name

    def arn(self, table: str) -> str:
        """A table's ARN."""
        return str(self.client("dynamodb").describe_table(TableName=table)["Table"]["TableArn"])

    def start(self, machine: str, request: Mapping[str, Any]) -> str:
        """Start an execution; returns its ARN."""
        answer = self.client("stepfunctions").start_execution(stateMachineArn=machine, input=json.dumps(request))
        return str(answer["executionArn"])

    def finish(self, execution: str) -> dict[str, Any]:
        """Wait until an execution has ended, and every Lambda function that it, or a part of it, had invoked.

        On AWS a worker may outlive its execution for as long as Lambda lets it, and whoever takes over waits for
        sixteen minutes; waits are not slept here, so the workers' end stands for that time.

        Raises:
            TooLongError: it still runs.
        """
        for _ in range(_PATIENCE):
            if self.aws.has_ended(execution):
                described: dict[str, Any] = self.client("stepfunctions").describe_execution(executionArn=execution)
                return described
        raise TooLongError(f"{execution}, or a Lambda function that it invoked, does not end.")

    def guard(self, ended: str | None) -> dict[str, Any]:
        """Run the guardian to its end, as the rule starts it for an ended execution, or (None) as the schedule does."""
        machine = self.outputs["orchestratorStateMachineArn"].replace("orchestrator", "guardian")
        return self.finish(self.start(machine, {"executionArn": ended}))

    def add_consumer(self) -> None:
        """Let a function of the system read the stream of one of the tables, until `remove_consumer`."""
        stream = self.client("dynamodb").describe_table(TableName=STREAM_TABLE)["Table"]["LatestStreamArn"]
        answer = self.client("lambda").create_event_source_mapping(
            FunctionName="local-app-free",
            EventSourceArn=stream,
            StartingPosition="LATEST",
            MaximumRecordAgeInSeconds=7_200,
        )
        self._consumer = str(answer["UUID"])
        self.settings = self.current_settings()

    def remove_consumer(self) -> None:
        """Remove it, if there is one."""
        if self._consumer is not None:
            self.client("lambda").delete_event_source_mapping(UUID=self._consumer)
            self.settings = {name: value for name, value in self.settings.items() if name != self._consumer}
            self._consumer = None

    def current_settings(self) -> dict[str, Any]:
        """Reserved concurrency of the system's functions; state and maximum record age of its event source mappings."""
        functions = self.client("lambda")
        found: dict[str, Any] = {
            name: functions.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions")
            for name in FUNCTIONS
        }
        for mapping in functions.list_event_source_mappings()["EventSourceMappings"]:
            found[mapping["UUID"]] = (mapping["State"], mapping.get("MaximumRecordAgeInSeconds"))
        return found

    def temporary_tables(self) -> list[str]:
        """Restored tables that are there, but for those made by hand."""
        names = self.client("dynamodb").list_tables()["TableNames"]
        return [name for name in names if name.startswith("dr-") and ".by-hand-" not in name]

    def ledger(self, partition: str) -> list[dict[str, Any]]:
        """The ledger's records of one partition, in wire form."""
        answer = self.client("dynamodb").query(
            TableName=self.outputs["ledgerTableName"],
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": {"S": partition}},
            ConsistentRead=True,
        )
        return list(answer["Items"])

    def locks(self, *, ended_too: bool) -> list[str]:
        """Locks whose owner still runs, which would refuse the next incident; or those of ended owners as well."""
        held = []
        for record in self.ledger("LOCK"):
            owner = record.get("owner", {}).get("S", "nobody")
            if owner == "nobody":
                if ended_too and record["sk"]["S"] == "INCIDENT":
                    held.append(NOT_OVER)
                continue
            describe = self.client("stepfunctions").describe_execution
            if ended_too or describe(executionArn=owner)["status"] == "RUNNING":
                held.append(record["sk"]["S"])
        return held


@contextmanager
def stack() -> Iterator[Stack]:
    """A fresh embedded AWS with filled tables, functions, mappings and the local stack."""
    with EmbeddedAws(settings=SETTINGS) as aws:
        for name, key in {**TABLES, SENSITIVE: (("id", "S"),)}.items():
            create_table(aws.client("dynamodb"), TableSpec(name=name, keys=key, stream=name == STREAM_TABLE))
        aws.client("dynamodb").update_time_to_live(
            TableName=TTL_TABLE, TimeToLiveSpecification={"Enabled": True, "AttributeName": TTL_ATTRIBUTE}
        )
        for name, reserved in FUNCTIONS.items():
            create_function(aws, FunctionSpec(name=name, reserved=reserved))
        for name, enabled in (("local-app-api", True), ("local-app-free", False)):
            _create_mapping(aws, name, enabled=enabled)
        for table in RECOVERED:
            write_all(
                aws.client("dynamodb"),
                table,
                (put_request(_item(table, number, "as it was")) for number in range(ITEMS)),
            )
        outputs = deploy(PROJECT_ROOT, "local", aws, CONFIGURATION)
        # The suite starts the guardian itself, at moments of its own choice: every case goes the same way twice.
        for rule in ("local-dr-guardian", "local-dr-guardian-sweep"):
            aws.client("events").disable_rule(Name=rule)
        made = Stack(aws, outputs, _restore_point(), {}, {})
        made.good = {table: made.items(table) for table in RECOVERED}
        made.settings = made.current_settings()
        yield made


def _restore_point() -> str:
    """A whole second with everything written so far before it and everything written from now on after it."""
    point = int(time.time()) + 1
    while time.time() <= point:
        time.sleep(0.02)  # the restore point has the resolution of a second, so there is a clock to wait for
    return datetime.fromtimestamp(point, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _item(table: str, number: int, note: str) -> Item:
    values = {"S": f"k{number:06d}", "N": str(number), "B": f"k{number:06d}".encode()}
    item: Item = {name: {kind: values[kind]} for name, kind in TABLES[table]}
    item |= {
        "note": {"S": note},
        "exact": {"N": "1234567890123456789012345678901234567.8"},
        "bytes": {"B": b"\x00\xff"},
    }
    if table == TTL_TABLE and number % 3 == 0:
        # Some items expire soon, so that the verification compares them one by one.
        item[TTL_ATTRIBUTE] = {"N": str(int(time.time()) + _EXPIRES_IN_SECONDS)}
    return item


def _create_mapping(aws: EmbeddedAws, function: str, *, enabled: bool) -> None:
    queue = aws.client("sqs").create_queue(QueueName=f"{function}-queue")["QueueUrl"]
    arn = aws.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    aws.client("lambda").create_event_source_mapping(FunctionName=function, EventSourceArn=arn, Enabled=enabled)
