"""Names, segments and ARNs."""

from __future__ import annotations

import itertools
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from handlers.core.errors import InvalidRequest
from handlers.core.facts import read_facts
from handlers.core.tables import (
    KeyAttribute,
    TableArn,
    TableDescription,
    choose_segments,
    choose_stride,
    describe_table,
    expiry_seconds,
    parse_table_arn,
    restored_table_name,
)

MIB = 1024 * 1024
TIME = datetime(2026, 11, 20, 9, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(("items", "segments"), [(0, 4), (1_000_000, 4), (1_000_001, 5), (10**10, 1000)])
def test_segments_grow_with_the_number_of_items(items: int, segments: int) -> None:
    """A billion items of a few bytes in four segments would keep four workers busy for days."""
    assert choose_segments(items, 0) == segments


@pytest.mark.parametrize("segments", [1, 2, 3, 4, 6, 10, 97, 144, 512, 999, 1000])
def test_the_stride_visits_every_segment_once_and_far_apart(segments: int) -> None:
    """A segment that is visited twice is done twice, and another one never."""
    stride = choose_stride(segments)
    order = [number * stride % segments for number in range(segments)]
    assert sorted(order) == list(range(segments))
    if segments >= 10:
        assert min(abs(one - other) for one, other in itertools.pairwise(order)) > segments / 4


@pytest.mark.parametrize("segments", [25, 40, 100, 400, 500, 990, 999, 1000])
@pytest.mark.parametrize("workers", [5, 25, 50])
def test_those_at_work_at_once_stay_apart(segments: int, workers: int) -> None:
    """A stride that soon comes back to a neighbour: workers meet on a partition and share its 1,000 units."""
    stride = choose_stride(segments)
    together = itertools.combinations([number * stride % segments for number in range(min(workers, segments))], 2)
    nearest = min(min(abs(one - other), segments - abs(one - other)) for one, other in together)
    # No order keeps them further apart than segments / workers; the golden section's limit is 0.45 of that.
    assert nearest >= max(1, math.floor(0.2 * segments / workers))


@pytest.mark.parametrize(
    ("size", "segments"),
    [
        (0, 4),
        (1, 4),
        (4 * 256 * MIB, 4),
        (4 * 256 * MIB + 1, 5),
        (100 * 1024 * MIB, 400),
        (10**15, 1000),
    ],
)
def test_segments_grow_with_the_table(size: int, segments: int) -> None:
    """No segments at all for a table whose size DynamoDB has not counted yet: nothing is purged, nothing copied."""
    assert choose_segments(0, size) == segments


def test_a_table_that_is_not_counted_may_be_large() -> None:
    """A table that was emptied yesterday, or restored just now, says 0 items: four workers for a terabyte, a week."""
    assert choose_segments(0, 0, counted=False) == 100
    assert choose_segments(10**9, 10**12, counted=False) == 1000
    assert choose_segments(0, 0, 3, counted=False) == 3
    assert expiry_seconds(0, counted=False) == 24 * 3600
    assert expiry_seconds(10**13, counted=False) == expiry_seconds(10**13) > 24 * 3600


def test_the_configuration_decides_about_segments() -> None:
    """An override that is ignored, or rounded up to the minimum."""
    assert choose_segments(10**12, 10**15, 1) == 1
    assert choose_segments(0, 0, 7) == 7


def test_a_restored_table_is_found_again() -> None:
    """A resumed incident does not find its restored table, and restores another one (or the operator's time moved)."""
    name = restored_table_name("prod", "prod-licenses", TIME, "bad-migration")
    assert name == restored_table_name("prod", "prod-licenses", TIME, "bad-migration")
    in_another_zone = TIME.astimezone(timezone(timedelta(hours=5)))
    assert name == restored_table_name("prod", "prod-licenses", in_another_zone, "bad-migration")
    assert name.startswith("dr-prod.prod-licenses.20261120T090000Z.")


def test_every_argument_gives_another_name() -> None:
    """Two incidents, times or tables share one restored table: a table is reset from the wrong data."""
    names = {
        restored_table_name("prod", "licenses", TIME, "a"),
        restored_table_name("prod", "licenses", TIME, "b"),
        restored_table_name("prod", "licenses", TIME + timedelta(seconds=1), "a"),
        restored_table_name("prod", "languages", TIME, "a"),
        restored_table_name("test", "licenses", TIME, "a"),
    }
    assert len(names) == 5


def test_the_longest_table_names_stay_distinct_and_valid() -> None:
    """A name of 255 characters is cut: two tables that differ at their end share one restored table."""
    one, other = "x" * 254 + "a", "x" * 254 + "b"
    names = {restored_table_name("production", table, TIME, "i" * 64) for table in (one, other)}
    assert len(names) == 2
    assert {len(name) for name in names} == {255}


def test_the_prefix_belongs_to_one_environment() -> None:
    """The roles of one environment reach the restored tables of another whose name begins alike."""
    assert not restored_table_name("prod-eu", "licenses", TIME, "a").startswith("dr-prod.")


def test_a_table_arn() -> None:
    """A part of the ARN is taken for another."""
    assert parse_table_arn("arn:aws-us-gov:dynamodb:us-gov-west-1:123456789012:table/a.b-c_d", "f") == TableArn(
        partition="aws-us-gov", region="us-gov-west-1", account="123456789012", name="a.b-c_d"
    )


@pytest.mark.parametrize(
    "arn",
    [
        None,
        5,
        "",
        "licenses",
        "arn:aws:dynamodb:us-east-1:123456789012:table/",
        "arn:aws:dynamodb:us-east-1:123456789012:table/a/index/b",
        "arn:aws:dynamodb:us-east-1:123456789012:table/a/backup/01",
        "arn:aws:dynamodb:us-east-1:12345678901:table/a",
        "arn:aws:dynamodb::123456789012:table/a",
        "arn:aws:s3:::a",
        " arn:aws:dynamodb:us-east-1:123456789012:table/a",
        ["arn:aws:dynamodb:us-east-1:123456789012:table/a"],
    ],
)
def test_anything_else_is_refused(arn: object) -> None:
    """The ARN of an index, stream or backup is taken for its table."""
    with pytest.raises(InvalidRequest, match="sourceTableArn is"):
        parse_table_arn(arn, "sourceTableArn")


class OneTable:
    """A DynamoDB client that knows one table."""

    def describe_table(self, TableName: str) -> dict[str, Any]:  # noqa: N803 - the API's own spelling
        """The description, with the sort key first, as some tables were created."""
        return {
            "Table": {
                "TableName": TableName,
                "TableArn": f"arn:aws:dynamodb:us-east-1:123456789012:table/{TableName}",
                "TableStatus": "ACTIVE",
                "ProvisionedThroughput": {"ReadCapacityUnits": 5, "WriteCapacityUnits": 7},
                "KeySchema": [
                    {"AttributeName": "code", "KeyType": "RANGE"},
                    {"AttributeName": "country", "KeyType": "HASH"},
                ],
                "AttributeDefinitions": [
                    {"AttributeName": "indexed", "AttributeType": "B"},
                    {"AttributeName": "code", "AttributeType": "N"},
                    {"AttributeName": "country", "AttributeType": "S"},
                ],
            }
        }


def test_a_description_is_put_in_order() -> None:
    """Keys are compared in the order in which a table happened to be created, or with an index's attribute."""
    table: TableDescription = describe_table(OneTable(), "t")  # type: ignore[arg-type] # a stand-in for one call
    assert table.key == (
        KeyAttribute(name="country", role="HASH", type="S"),
        KeyAttribute(name="code", role="RANGE", type="N"),
    )
    assert table.key_names == ("country", "code")
    assert table.describe_key() == "country (HASH, S), code (RANGE, N)"
    assert (table.size_bytes, table.item_count, table.restored_from_arn) == (0, 0, None)
    assert table.facts.write_capacity == 7


@pytest.mark.parametrize(
    ("table", "capacity"),
    [
        ({"ProvisionedThroughput": {"WriteCapacityUnits": 50}}, 50),
        (
            {
                "ProvisionedThroughput": {"WriteCapacityUnits": 50},
                "ItemCount": 1000,
                "GlobalSecondaryIndexes": [
                    {"ProvisionedThroughput": {"WriteCapacityUnits": 20}, "ItemCount": 1000},
                    # Holds one item in a hundred: enough for the table at 100 a second.
                    {"ProvisionedThroughput": {"WriteCapacityUnits": 1}, "ItemCount": 10},
                ],
            },
            20,
        ),
        ({"BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"}}, 4000),
        (
            {
                "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
                "WarmThroughput": {"WriteUnitsPerSecond": 12_000},
            },
            12_000,
        ),
        (
            {
                "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
                "WarmThroughput": {"WriteUnitsPerSecond": 12_000},
                "OnDemandThroughput": {"MaxReadRequestUnits": -1, "MaxWriteRequestUnits": 300},
            },
            300,
        ),
    ],
)
def test_the_capacity_to_begin_with(table: dict[str, Any], capacity: float) -> None:
    """Workers that begin at a pace that the table, one of its indexes or its owner's maximum does not allow."""
    assert read_facts(table).write_pace == capacity
