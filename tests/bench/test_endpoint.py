"""The endpoint in its own process, and boto3 itself against it."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.config import Config
from botocore.exceptions import ClientError

from bench.endpoint import Endpoint, Server, endpoint
from bench.latency import Latency
from handlers.core.digest import digest_items, to_hex

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

ROOT = Path(__file__).parents[2]
PLENTY = {"mode": "provisioned", "write_units": 1e9, "read_units": 1e9, "quota": 1e9, "partition_limits": False}


@pytest.fixture(scope="module")
def running() -> Iterator[Endpoint]:
    """An endpoint in a process of its own."""
    with endpoint() as started:
        yield started


def client_of(url: str) -> DynamoDBClient:
    """A boto3 client that tries once."""
    return boto3.client(
        "dynamodb",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=Config(retries={"total_max_attempts": 1}, proxies={}, max_pool_connections=16),
    )


@pytest.fixture(scope="module")
def dynamodb(running: Endpoint) -> DynamoDBClient:
    """A client of it."""
    return client_of(running.url)


ITEMS: list[dict[str, Any]] = [
    {
        "pk": {"S": f'key "{number}" \\ Zoë 😀'},
        "number": {"N": "12345678901234567890123456789012345678"},
        "tiny": {"N": "-0." + "0" * 90 + "12345678901234567890123456789012345678"},
        "binary": {"B": bytes(range(256))},
        "empty": {"B": b""},
        "texts": {"SS": ["a", "ü"]},
        "numbers": {"NS": ["-7", "0.5"]},
        "binaries": {"BS": [b"\x00", b"\xff\xfe"]},
        "map": {"M": {"list": {"L": [{"NULL": True}, {"BOOL": False}, {"B": b"deep"}, {"M": {}}]}}},
    }
    for number in range(25)
]


def by_key(items: list[Any]) -> list[Any]:
    """Items in the order of their keys."""
    return sorted(items, key=lambda item: str(item["pk"]["S"]))


def test_boto3_gets_every_type_back(running: Endpoint, dynamodb: DynamoDBClient) -> None:
    """Would corrupt values between the protocol and the table, checksum and all."""
    running.create_table("types", capacity=PLENTY)
    answer = dynamodb.batch_write_item(
        RequestItems={"types": [{"PutRequest": {"Item": item}} for item in ITEMS]}, ReturnConsumedCapacity="TOTAL"
    )
    assert answer["UnprocessedItems"] == {}
    assert answer["ConsumedCapacity"][0]["CapacityUnits"] == 25.0
    assert "x-amz-crc32" in answer["ResponseMetadata"]["HTTPHeaders"]
    scanned = dynamodb.get_paginator("scan").paginate(
        TableName="types", ConsistentRead=True, PaginationConfig={"PageSize": 10}
    )
    assert by_key([item for page in scanned for item in page["Items"]]) == by_key(ITEMS)
    keys = [{"pk": item["pk"]} for item in ITEMS]
    found = dynamodb.batch_get_item(RequestItems={"types": {"Keys": keys, "ConsistentRead": True}})
    assert by_key(found["Responses"]["types"]) == by_key(ITEMS)
    assert running.digest("types") == to_hex(digest_items(ITEMS))

    dynamodb.batch_write_item(RequestItems={"types": [{"DeleteRequest": {"Key": key}} for key in keys]})
    assert dynamodb.scan(TableName="types")["Items"] == []
    assert running.digest("types") == to_hex(0)


def test_the_resource_and_its_batch_writer_work(running: Endpoint) -> None:
    """Would keep the baseline of the benches, boto3's resource, from running."""
    running.create_table("resource", sort_key=["sk", "N"], capacity=PLENTY)
    resource = boto3.resource(
        "dynamodb",
        endpoint_url=running.url,
        region_name="us-east-1",
        aws_access_key_id="any",
        aws_secret_access_key="any",
        config=Config(proxies={}),
    )
    read, serialize = TypeDeserializer().deserialize, TypeSerializer().serialize
    running.create_table("model", sort_key=["sk", "N"], capacity=PLENTY)
    running.fill("model", 60)
    table, model = resource.Table("resource"), resource.Table("model")
    items = model.scan()["Items"]
    with table.batch_writer() as writer:
        for item in items:
            writer.put_item(Item=item)
    copied = table.scan()["Items"]
    assert len(copied) == 60
    assert [read(serialize(item)) for item in copied] == items
    assert running.differences("model", "resource") == {"missing": 0, "extra": 0, "changed": 0}


@pytest.mark.parametrize(
    ("mode", "code"),
    [("provisioned", "ProvisionedThroughputExceededException"), ("on-demand", "ThrottlingException")],
)
def test_boto3_reads_throttling_as_what_it_is(
    running: Endpoint, dynamodb: DynamoDBClient, mode: str, code: str
) -> None:
    """Would make a worker give up, or never back off, for an error that it does not know."""
    # A drop an hour: the second request of each kind is throttled however slow the machine is.
    capacity = {"mode": mode, "write_units": 0.001, "read_units": 0.001, "bucket_seconds": 5000}
    running.create_table("slow", capacity=capacity)
    running.reset_stats()
    requests: Any = [{"PutRequest": {"Item": item}} for item in ITEMS]
    left: Any = dynamodb.batch_write_item(RequestItems={"slow": requests})["UnprocessedItems"]["slow"]
    # Twenty of the twenty-five did not pass; they come back to the last byte.
    assert left == requests[5:]
    with pytest.raises(ClientError) as caught:
        dynamodb.batch_write_item(RequestItems={"slow": left})
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    reasons: Any = caught.value.response.get("ThrottlingReasons") or caught.value.response.get("throttlingReasons")
    assert reasons[0]["resource"].endswith("table/slow")

    keys = [{"pk": item["pk"]} for item in ITEMS]
    got = dynamodb.batch_get_item(RequestItems={"slow": {"Keys": keys, "ConsistentRead": True}})
    assert by_key(got["Responses"]["slow"]) == by_key(ITEMS[:5])
    assert got["UnprocessedKeys"]["slow"]["Keys"] == keys[5:]
    with pytest.raises(ClientError) as caught:
        dynamodb.scan(TableName="slow")
    assert caught.value.response["Error"]["Code"] == code
    stats = running.stats()
    assert stats["throttled"] == {"BatchWriteItem": 2, "BatchGetItem": 1, "Scan": 1}
    assert stats["tables"]["slow"]["units"]["written"] == 5
    assert stats["tables"]["slow"]["units"]["write_rejected"] == 40
    assert stats["tables"]["slow"]["items"] == 5


def test_boto3_reads_other_errors_as_what_they_are(running: Endpoint, dynamodb: DynamoDBClient) -> None:
    """Would hide a wrong request behind another error."""
    running.create_table("errors", capacity=PLENTY)
    with pytest.raises(dynamodb.exceptions.ResourceNotFoundException):
        dynamodb.scan(TableName="absent")
    with pytest.raises(ClientError) as caught:
        dynamodb.scan(TableName="errors", Segment=5, TotalSegments=5)
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    with pytest.raises(ClientError) as caught:
        dynamodb.query(
            TableName="errors", KeyConditionExpression="pk = :a", ExpressionAttributeValues={":a": {"S": "b"}}
        )
    assert caught.value.response["Error"]["Code"] == "UnknownOperationException"


def test_boto3_describes_a_table(running: Endpoint, dynamodb: DynamoDBClient) -> None:
    """Would give a forecast the wrong capacity and size."""
    running.create_table("described", sort_key=["sk", "N"], capacity={"write_units": 8000})
    running.fill("described", 12, size=2000)
    table = dynamodb.describe_table(TableName="described")["Table"]
    assert (table["ItemCount"], table["TableSizeBytes"]) == (12, 24_000)
    assert table["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert table["WarmThroughput"] == {"ReadUnitsPerSecond": 12_000, "WriteUnitsPerSecond": 8000, "Status": "ACTIVE"}
    assert [entry["AttributeName"] for entry in table["KeySchema"]] == ["pk", "sk"]


def test_many_connections_lose_and_double_nothing(running: Endpoint, dynamodb: DynamoDBClient) -> None:
    """Would mix up answers of requests that arrive at once."""
    running.create_table("many-source", capacity=PLENTY)
    running.fill("many-source", 1200)
    running.create_table("many-copy", capacity=PLENTY, like="many-source")

    def copy(segment: int) -> int:
        pages = dynamodb.get_paginator("scan").paginate(
            TableName="many-source", Segment=segment, TotalSegments=12, PaginationConfig={"PageSize": 25}
        )
        copied = 0
        for page in pages:
            requests: Any = [{"PutRequest": {"Item": item}} for item in page["Items"]]
            if requests:
                dynamodb.batch_write_item(RequestItems={"many-copy": requests})
            copied += len(requests)
        return copied

    with ThreadPoolExecutor(12) as executor:
        assert sum(executor.map(copy, range(12))) == 1200
    assert running.stats()["tables"]["many-copy"]["puts"] == 1200
    assert running.differences("many-source", "many-copy") == {"missing": 0, "extra": 0, "changed": 0}


def test_damage_is_found(running: Endpoint) -> None:
    """Would call tables equal that are not."""
    for name in ("whole", "damaged"):
        running.create_table(name, capacity=PLENTY, order_seed=name == "damaged")
        running.fill(name, 300)
    assert running.digest("whole") == running.digest("damaged")
    running.damage("damaged", changed=3, missing=2, extra=1)
    assert running.differences("whole", "damaged") == {"missing": 2, "extra": 1, "changed": 3}
    assert running.digest("whole") != running.digest("damaged")


def test_a_slow_answer_holds_up_no_other_connection(running: Endpoint) -> None:
    """Would measure the endpoint's own queue instead of the worker's concurrency."""
    running.create_table("latency", capacity=PLENTY)
    running.set_latency(operation="DescribeTable", median=3600, p99=3600)
    try:
        slow = socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2])))
        body = b'{"TableName":"latency"}'
        head = b"POST / HTTP/1.1\r\nX-Amz-Target: DynamoDB_20120810.DescribeTable\r\nContent-Length: %d\r\n\r\n"
        slow.sendall(head % len(body) + body)
        # Answered while the other one waits for an hour.
        assert client_of(running.url).scan(TableName="latency")["Count"] == 0
        slow.setblocking(False)
        with pytest.raises(BlockingIOError):
            slow.recv(1)
        slow.close()
    finally:
        running.set_latency(median=0, p99=0)
    assert client_of(running.url).describe_table(TableName="latency")["Table"]["ItemCount"] == 0


def test_requests_in_pieces_and_one_after_the_other_are_answered_in_order(running: Endpoint) -> None:
    """Would break on packets that end where no request does."""
    running.create_table("pieces", capacity=PLENTY)
    body = b'{"TableName":"pieces"}'
    head = b"POST / HTTP/1.1\r\nx-amz-target: DynamoDB_20120810.Scan\r\ncontent-length: %d\r\n\r\n" % len(body)
    get = b"GET /stats HTTP/1.1\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(running.url.rpartition(":")[2]))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in (head[:7], head[7:-2], head[-2:] + body[:5], body[5:] + head + body + get):
            connection.sendall(piece)
        received = b""
        while data := connection.recv(65_536):
            received += data
    first, second, third = received.split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert first == second
    answer = first.split(b"\r\n\r\n")[1]
    assert json.loads(answer) == {"Count": 0, "ScannedCount": 0, "Items": []}
    assert f"x-amz-crc32: {zlib.crc32(answer)}".encode() in first
    assert "cpu_seconds" in json.loads(third.split(b"\r\n\r\n")[1])


def test_faults_strike_before_or_after_the_work(running: Endpoint, dynamodb: DynamoDBClient) -> None:
    """Would test a worker's retries against errors that never come, or that never leave work behind."""
    running.create_table("faults", capacity=PLENTY)
    running.reset_stats()
    running.set_faults(0.5)
    codes = []
    try:
        for item in ITEMS * 4:
            try:
                dynamodb.batch_write_item(RequestItems={"faults": [{"PutRequest": {"Item": item}}]})
            except ClientError as error:
                codes.append((error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]))
    finally:
        running.set_faults(0)
    assert set(codes) == {("InternalServerError", 500)}
    assert 30 < len(codes) < 70
    assert 100 - len(codes) < running.stats()["tables"]["faults"]["puts"] < 100


def test_what_the_bench_gets_wrong_is_said(running: Endpoint) -> None:
    """Would run a bench of another table than the one meant."""
    with pytest.raises(RuntimeError, match="quota"):
        running.create_table("wrong", capacity={"write_units": 50_000})
    with pytest.raises(RuntimeError, match="unexpected keyword"):
        running.create_table("wrong", capacity={"units": 5})
    with pytest.raises(RuntimeError, match="absent"):
        running.fill("absent", 5)
    running.create_table("small", capacity=PLENTY)
    with pytest.raises(RuntimeError, match="size"):
        running.fill("small", 5, size=10)
    connection = http.client.HTTPConnection("127.0.0.1", int(running.url.rpartition(":")[2]))
    connection.request("POST", "/nothing", b"{}")
    assert connection.getresponse().status == 404
    connection.close()


def test_the_endpoint_ends_with_whoever_started_it() -> None:
    """Would leave servers behind on the machine."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.endpoint"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline().startswith(b"ready http://127.0.0.1:")
    # A client that stays connected does not keep it alive.
    process.stdin.close()
    assert process.wait(60) == 0
    process.stdout.close()


def test_the_same_seed_gives_the_same_latencies() -> None:
    """Would make runs differ for no reason."""

    def latencies(seed: int) -> list[float]:
        server = Server(lambda: 0.0, latency=Latency(median=0.003, p99=0.01), seed=seed)
        return [server.request("DynamoDB_20120810.DescribeTable", b'{"TableName":"x"}')[2] for _ in range(20)]

    assert latencies(1) == latencies(1) != latencies(2)
