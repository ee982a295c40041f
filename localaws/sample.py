"""The sample application that the rehearsal destroys and recovers: what "already exists in the user's account".

A licensing system of four tables and four functions, one of them fed by a table's stream, and a fifth function that
belongs to another team and must never be touched. Everything is created by boto3, outside the Pulumi program.
"""

from __future__ import annotations

import io
import json
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

from localaws import sample_data
from localaws.batches import put_request, write_all
from localaws.sample_data import LANGUAGES, LICENSES, MEASUREMENTS, SSN

PROTECTED_TABLES = (LICENSES, LANGUAGES, MEASUREMENTS)
SENSITIVE_TABLES = (SSN,)

SYSTEM_TAG = {"system": "licensing"}
PROJECTOR = "local-app-projector"

COUNTS = '''"""Counts what it is handed; the rehearsal needs functions, not work."""


def handler(event, context):
    """Return how many records came."""
    return {"records": len(event.get("Records", []))}
'''

_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"},
    ],
}


class Cloud(Protocol):
    """What the rehearsal needs of the embedded AWS."""

    @property
    def endpoint_url(self) -> str:
        """Where its API answers."""

    def client(self, service: str) -> Any:
        """A boto3 client of that service, with the rights of the account's root."""


@dataclass(frozen=True, kw_only=True)
class TableSpec:
    """One table of the application."""

    name: str
    keys: tuple[tuple[str, str], ...]
    """(attribute, type), hash key first."""
    global_index: tuple[str, str] | None = None
    """(attribute, type) of the hash key of a global index."""
    local_index: tuple[str, str] | None = None
    """(attribute, type) of the range key of a local index."""
    stream: bool = False

    def create_arguments(self) -> dict[str, Any]:
        """Arguments of CreateTable."""
        indexed = [index for index in (self.global_index, self.local_index) if index]
        arguments: dict[str, Any] = {
            "TableName": self.name,
            "BillingMode": "PAY_PER_REQUEST",
            "AttributeDefinitions": [
                {"AttributeName": name, "AttributeType": kind} for name, kind in (*self.keys, *indexed)
            ],
            "KeySchema": _key_schema(*(name for name, _ in self.keys)),
        }
        if self.global_index:
            arguments["GlobalSecondaryIndexes"] = [_index(self.global_index[0])]
        if self.local_index:
            arguments["LocalSecondaryIndexes"] = [_index(self.keys[0][0], self.local_index[0])]
        if self.stream:
            arguments["StreamSpecification"] = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
        return arguments


@dataclass(frozen=True, kw_only=True)
class FunctionSpec:
    """One function of the application, or of a neighbour."""

    name: str
    reserved: int | None
    """Reserved concurrency; None if it has none."""
    tags: dict[str, str] = field(default_factory=dict)
    stream_of: str | None = None
    """The table whose stream feeds it."""
    code: str = COUNTS
    """The source of its only module, with a function ``handler``."""


TABLES = (
    TableSpec(name=LICENSES, keys=(("country", "S"), ("code", "S")), global_index=("type", "S"), stream=True),
    TableSpec(name=LANGUAGES, keys=(("code", "S"),)),
    TableSpec(name=MEASUREMENTS, keys=(("sensor", "N"), ("token", "B")), local_index=("recordedAt", "S")),
    TableSpec(name=SSN, keys=(("ssn", "S"),)),
)

SYSTEM_FUNCTIONS = (
    FunctionSpec(name="local-app-api", reserved=5, tags=SYSTEM_TAG),
    FunctionSpec(name="local-app-ingest", reserved=None, tags=SYSTEM_TAG),
    FunctionSpec(name=PROJECTOR, reserved=2, tags=SYSTEM_TAG, stream_of=LICENSES),
    FunctionSpec(name="local-app-paused", reserved=0, tags=SYSTEM_TAG),
)

OTHER_FUNCTIONS = (FunctionSpec(name="other-team-mailer", reserved=3),)


def create(aws: Cloud) -> None:
    """Create the tables with their items, and the functions.

    Functions come last, so that the projector's mapping starts at the stream's present end.
    """
    dynamodb = aws.client("dynamodb")
    for table in TABLES:
        create_table(dynamodb, table)
    fill(dynamodb)
    # Functions wait for nothing from one another, and creating one takes seconds in some emulators.
    with ThreadPoolExecutor(max_workers=len(SYSTEM_FUNCTIONS) + len(OTHER_FUNCTIONS)) as pool:
        list(pool.map(lambda function: create_function(aws, function), (*SYSTEM_FUNCTIONS, *OTHER_FUNCTIONS)))


def create_table(dynamodb: Any, spec: TableSpec, *, pitr: bool = True) -> None:
    """Create one table, wait until it is usable, and switch point-in-time recovery on, or not."""
    dynamodb.create_table(**spec.create_arguments())
    dynamodb.get_waiter("table_exists").wait(TableName=spec.name, WaiterConfig={"Delay": 1})
    if pitr:
        dynamodb.update_continuous_backups(
            TableName=spec.name, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
        )


def fill(dynamodb: Any) -> dict[str, int]:
    """Write every item; returns table name -> number of items."""
    return {
        table: write_all(dynamodb, table, (put_request(item) for item in items))
        for table, items in sample_data.all_items().items()
    }


def create_function(aws: Cloud, spec: FunctionSpec) -> None:
    """Create one function with a role of its own, its concurrency, its tags and its event source mapping."""
    lambda_client = aws.client("lambda")
    created = lambda_client.create_function(
        FunctionName=spec.name,
        Runtime="python3.12",
        Handler="app.handler",
        Role=_create_role(aws.client("iam"), spec),
        Code={"ZipFile": bundle(spec.code)},
        Tags=spec.tags,
    )
    lambda_client.get_waiter("function_active_v2").wait(FunctionName=spec.name, WaiterConfig={"Delay": 1})
    if spec.reserved is not None:
        lambda_client.put_function_concurrency(FunctionName=spec.name, ReservedConcurrentExecutions=spec.reserved)
    if spec.stream_of:
        stream = aws.client("dynamodb").describe_table(TableName=spec.stream_of)["Table"]["LatestStreamArn"]
        lambda_client.create_event_source_mapping(
            FunctionName=created["FunctionArn"],
            EventSourceArn=stream,
            StartingPosition="LATEST",
            BatchSize=100,
            Enabled=True,
        )


def _create_role(iam: Any, spec: FunctionSpec) -> str:
    name = f"{spec.name}-role"
    arn: str = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(_TRUST))["Role"]["Arn"]
    if spec.stream_of:
        iam.put_role_policy(RoleName=name, PolicyName="read-stream", PolicyDocument=json.dumps(_stream_policy(spec)))
    return arn


def _stream_policy(spec: FunctionSpec) -> dict[str, Any]:
    actions = ("DescribeStream", "GetRecords", "GetShardIterator", "ListStreams")
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": [f"dynamodb:{action}" for action in actions],
                "Resource": f"arn:aws:dynamodb:*:*:table/{spec.stream_of}/stream/*",
            }
        ],
    }


def bundle(code: str = COUNTS) -> bytes:
    """The zip file of a function whose only module is ``code``."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        # A fixed date keeps the bytes, and so the function's CodeSha256, the same in every run.
        archive.writestr(zipfile.ZipInfo("app.py", date_time=(2026, 1, 1, 0, 0, 0)), code)
    return buffer.getvalue()


def _key_schema(hash_key: str, range_key: str | None = None) -> list[dict[str, str]]:
    schema = [{"AttributeName": hash_key, "KeyType": "HASH"}]
    if range_key:
        schema.append({"AttributeName": range_key, "KeyType": "RANGE"})
    return schema


def _index(hash_key: str, range_key: str | None = None) -> dict[str, Any]:
    return {
        "IndexName": f"by-{range_key or hash_key}",
        "KeySchema": _key_schema(hash_key, range_key),
        "Projection": {"ProjectionType": "ALL"},
    }
