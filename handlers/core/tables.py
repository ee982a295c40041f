"""What the engine needs to know of a table, read from DescribeTable."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from .errors import InvalidRequest, UnknownTable, shown
from .facts import TableFacts, read_facts

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

# DynamoDB takes no other names: asked about one it answers with a ValidationException, which says nothing to do.
_TABLE_ARN = re.compile(
    r"arn:(?P<partition>[a-z-]+):dynamodb:(?P<region>[a-z0-9-]+):(?P<account>[0-9]{12})"
    r":table/(?P<name>[a-zA-Z0-9_.-]{3,255})"
)

# About a minute of work for one worker, at the rate at which one vCPU moves items of 1 KB (some 5,000 a second): small
# enough that a straggler does not hold the run, large enough that starting a worker does not dominate. Small items take
# a worker nearly as long as those of 1 KB.
_BYTES_PER_SEGMENT = 256 * 1024 * 1024
_ITEMS_PER_SEGMENT = 250_000
# DescribeTable's size is refreshed about every six hours, so a small number says little: never fewer than this.
_MIN_SEGMENTS = 4
# Keeps a Distributed Map's result array, one number a segment, far below the 256 KiB of a state's payload.
_MAX_SEGMENTS = 1000
# Of a table that DynamoDB has not counted, or counted when it was empty: it may have any size, and the number of
# segments stays for the whole incident. A small one takes them in a few seconds more.
_UNCOUNTED_SEGMENTS = 100
_UNCOUNTED_EXPIRY_SECONDS = 24 * 3600
# Visits that may be under way at once, and so must be apart: as many as there are workers, and more.
_STRIDE_WINDOW = 200
# Between the clock of a Lambda function and DynamoDB's. A backup comes long after: the functions drain before it.
_CLOCK_SKEW = timedelta(seconds=30)
_MAX_NAME_LENGTH = 255  # DynamoDB's limit for table names


@dataclass(frozen=True, kw_only=True)
class KeyAttribute:
    """One attribute of a primary key: its name, role (``HASH``, ``RANGE``) and type (``S``, ``N``, ``B``)."""

    name: str
    role: str
    type: str


@dataclass(frozen=True, kw_only=True)
class TableDescription:
    """A table as it is now. ``size_bytes`` and ``item_count`` are DynamoDB's own estimates, up to six hours old.

    ``restored_from_arn``, ``restored_to``: for a restored table, the table and time it was restored from. ``facts``:
    what a forecast needs to know.
    """

    name: str
    arn: str
    status: str
    key: tuple[KeyAttribute, ...]
    size_bytes: int
    item_count: int
    restored_from_arn: str | None
    restored_to: datetime | None
    facts: TableFacts = field(default_factory=TableFacts)

    @property
    def key_names(self) -> tuple[str, ...]:
        """The key's attribute names, partition key first."""
        return tuple(attribute.name for attribute in self.key)

    @property
    def counted(self) -> bool:
        """Whether DynamoDB's count says anything: 0 may be a table that was emptied, filled or restored since."""
        return self.item_count > 0

    def describe_key(self) -> str:
        """The key in words, e.g. ``country (HASH, S), code (RANGE, S)``."""
        return ", ".join(f"{attribute.name} ({attribute.role}, {attribute.type})" for attribute in self.key)


def describe_table(dynamodb: DynamoDBClient, name: str) -> TableDescription:
    """Describe a table.

    Raises:
        UnknownTable: there is no such table in this account and region.
    """
    try:
        table = dynamodb.describe_table(TableName=name)["Table"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            raise UnknownTable(
                f"Table {name} does not exist in this account and region. Expected an existing table: check the name."
            ) from None
        raise
    types = {entry["AttributeName"]: entry["AttributeType"] for entry in table["AttributeDefinitions"]}
    key = tuple(
        KeyAttribute(name=entry["AttributeName"], role=entry["KeyType"], type=types[entry["AttributeName"]])
        for entry in sorted(table["KeySchema"], key=lambda entry: entry["KeyType"])
    )
    # Whose source AWS does not name must not pass for one that was never restored.
    restored_from = table["RestoreSummary"].get("SourceTableArn", "") if "RestoreSummary" in table else None
    return TableDescription(
        name=table["TableName"],
        arn=table["TableArn"],
        status=table["TableStatus"],
        key=key,
        size_bytes=table.get("TableSizeBytes", 0),
        item_count=table.get("ItemCount", 0),
        restored_from_arn=restored_from,
        restored_to=table.get("RestoreSummary", {}).get("RestoreDateTime"),
        facts=read_facts(table),
    )


@dataclass(frozen=True, kw_only=True)
class TableArn:
    """The parts of a table's ARN."""

    partition: str
    region: str
    account: str
    name: str


def parse_table_arn(arn: object, field: str) -> TableArn:
    """Take a table's ARN apart.

    Raises:
        InvalidRequest: not the ARN of a table; ``field`` names the input it came from.
    """
    match = _TABLE_ARN.fullmatch(arn) if isinstance(arn, str) else None
    if match is None:
        raise InvalidRequest(
            f"{field} is {shown(arn)}. Expected the ARN of a DynamoDB table, "
            "arn:aws:dynamodb:REGION:ACCOUNT:table/NAME. Correct the input and start again."
        )
    return TableArn(**match.groupdict())


def choose_segments(items: int, size_bytes: int, override: int | None = None, *, counted: bool = True) -> int:
    """How many scan segments to work a table with: one a 256 MiB and 250,000 items, between 4 and 1,000.

    At least 100 where not ``counted``: one of the tables has 0 items by DynamoDB's count, which is hours old.
    """
    if override is not None:
        return override
    needed = max(math.ceil(size_bytes / _BYTES_PER_SEGMENT), math.ceil(items / _ITEMS_PER_SEGMENT))
    return max(_MIN_SEGMENTS if counted else _UNCOUNTED_SEGMENTS, min(_MAX_SEGMENTS, needed))


def choose_stride(segments: int) -> int:
    """A step through the segments that visits each once and keeps those at work at the same time far apart.

    Of all steps it is the one for which any two of :data:`_STRIDE_WINDOW` visits in a row that are ``k`` visits apart
    are furthest from each other, in proportion to ``1 / k``. The golden section, rounded to a number with no divisor in
    common with ``segments``, comes back to a neighbour within 25 visits for some numbers, 1,000 among them.
    """
    best, farthest = 1, 0
    for step in range(1, segments // 2 + 1):
        if math.gcd(step, segments) == 1 and (distance := _distance(segments, step, farthest)) > farthest:
            best, farthest = step, distance
    return best


def _distance(segments: int, step: int, farthest: int) -> int:
    """How far apart visits stay, times how many lie between them; 0 as soon as that is no more than ``farthest``."""
    smallest = segments
    for apart in range(1, min(segments, _STRIDE_WINDOW)):
        place = apart * step % segments
        smallest = min(smallest, apart * min(place, segments - place))
        if smallest <= farthest:
            return 0
    return smallest


def expiry_seconds(size_bytes: int, *, counted: bool = True) -> int:
    """How soon an item must expire to be compared one by one rather than by digest, from the start of a verification.

    TTL may delete an item from its expiry on, so this must be longer than the verification takes: six hours, and one
    more for each 32 GB. That is twice what the simulation in ``bench/`` finds at 5,000 provisioned read units a second.
    A day at least where not ``counted``, as in :func:`choose_segments`.
    """
    return max(0 if counted else _UNCOUNTED_EXPIRY_SECONDS, 6 * 3600 + size_bytes * 3600 // (32 * 10**9))


def restored_table_name(environment: str, table_name: str, restore_time: datetime, incident_id: str) -> str:
    """The name of the temporary table that a PITR restore creates for an incident.

    The same arguments give the same name, which is how a resumed incident finds the table it already restored; any
    other argument gives another name. The prefix ``dr-ENVIRONMENT.`` cannot occur in another environment's names,
    because an environment's name holds no dot: roles are limited by it.
    """
    stamp = restore_time.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    fingerprint = hashlib.blake2b(f"{table_name}\n{stamp}\n{incident_id}".encode(), digest_size=4).hexdigest()
    prefix, suffix = f"dr-{environment}.", f".{stamp}.{fingerprint}"
    return prefix + table_name[: _MAX_NAME_LENGTH - len(prefix) - len(suffix)] + suffix


def pitr_window(dynamodb: DynamoDBClient, name: str) -> tuple[datetime, datetime] | None:
    """The earliest and latest time the table can be restored to, or None where PITR is switched off."""
    answer: Mapping[str, Any] = dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
    pitr = answer.get("PointInTimeRecoveryDescription", {})
    if pitr.get("PointInTimeRecoveryStatus") != "ENABLED":
        return None
    return pitr["EarliestRestorableDateTime"], pitr["LatestRestorableDateTime"]


def ttl_attribute(dynamodb: DynamoDBClient, name: str) -> str | None:
    """The attribute by which the table's items expire, or None where TTL is off."""
    ttl = dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"]
    return ttl.get("AttributeName") if ttl.get("TimeToLiveStatus") in ("ENABLED", "ENABLING") else None


def check_backup(dynamodb: DynamoDBClient, backup_arn: str, table_name: str, not_before: datetime) -> None:
    """See that a backup is of this table, was taken after ``not_before`` and can be restored.

    Raises:
        InvalidRequest: it is not.
    """
    try:
        backup = dynamodb.describe_backup(BackupArn=backup_arn)["BackupDescription"]
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("BackupNotFoundException", "ValidationException"):
            raise
        found = "does not exist"
    else:
        source, status = backup["SourceTableDetails"]["TableName"], backup["BackupDetails"]["BackupStatus"]
        taken = backup["BackupDetails"]["BackupCreationDateTime"]
        if (source, status) == (table_name, "AVAILABLE") and taken >= not_before - _CLOCK_SKEW:
            return
        found = f"is of table {source}, {status}, and from {taken.isoformat()}"
    raise InvalidRequest(
        f"The backup {backup_arn} {found}. Expected an AVAILABLE on-demand backup of {table_name}, taken after "
        f"{not_before.isoformat()}: start the orchestrator again, which takes one."
    )
