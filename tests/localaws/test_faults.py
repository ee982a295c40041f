"""The fault injector: what it strikes, how it looks to the SDK, and that it strikes nothing else."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localaws.emulator.faults import Faults, Rule, RuleError
from localaws.emulator.faults_http import failure, halves, unprocessed
from localaws.emulator.iam_requests import lambda_action
from localaws.emulator.lambda_errors import exit_words
from localaws.server import EmbeddedAws, EmbeddedAwsError

from .conftest import Machines

SOURCE = textwrap.dedent(
    """
    import os
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    client = boto3.client("dynamodb", config=Config(retries={"mode": "standard", "total_max_attempts": 1}))

    def handler(event, context):
        try:
            answer = getattr(client, event["call"])(**event["arguments"])
        except ClientError as error:
            answer = {"code": error.response["Error"]["Code"]}
        except BotoCoreError as error:
            answer = {"code": type(error).__name__}
        answer.pop("ResponseMetadata", None)
        return {"answer": answer, "pid": os.getpid()}
    """
)


@pytest.fixture
def faulty(aws: EmbeddedAws) -> Iterator[EmbeddedAws]:
    """The server, without faults afterwards."""
    yield aws
    aws.clear_faults()


@pytest.fixture
def call(faulty: EmbeddedAws, function: Callable[..., str]) -> Callable[..., Any]:
    """Calls DynamoDB from a Lambda function: method, arguments → its answer, {"code": …} for an error."""
    arn = function(SOURCE)

    def invoke(method: str, **arguments: Any) -> Any:
        payload = json.dumps({"call": method, "arguments": arguments})
        answer = faulty.client("lambda").invoke(FunctionName=arn, Payload=payload)
        return json.loads(answer["Payload"].read())

    return invoke


def put(table: str, *sorts: int) -> dict[str, Any]:
    """RequestItems of puts."""
    return {table: [{"PutRequest": {"Item": {"pk": {"S": "a"}, "sk": {"N": str(sort)}}}} for sort in sorts]}


def count(aws: EmbeddedAws, table: str) -> int:
    """How many items a table has."""
    return int(aws.client("dynamodb").scan(TableName=table)["Count"])


@pytest.mark.parametrize(
    ("kind", "code", "carried_out"),
    [
        ("throttle", "ProvisionedThroughputExceededException", False),
        ("internal-error", "InternalServerError", False),
        ("expired-token", "ExpiredTokenException", False),
        ("connection-reset", "ConnectionClosedError", False),
        ("timeout", "ConnectionClosedError", True),
    ],
)
def test_a_call_is_struck_once_as_the_sdk_sees_it(
    faulty: EmbeddedAws, call: Callable[..., Any], table: Callable[..., str], kind: str, code: str, carried_out: bool
) -> None:
    """Would catch: a fault that the SDK takes for something else, or that carries out what it should not."""
    name = table()
    faulty.inject({"kind": kind, "action": "dynamodb:BatchWriteItem", "resource": f"*:table/{name}"})
    assert call("batch_write_item", RequestItems=put(name, 1))["answer"] == {"code": code}
    assert count(faulty, name) == int(carried_out)
    assert "code" not in call("batch_write_item", RequestItems=put(name, 2))["answer"]
    assert [rule["struck"] for rule in faulty.clear_faults()] == [1]


def test_a_batch_is_unprocessed_or_half_done(
    faulty: EmbeddedAws, call: Callable[..., Any], table: Callable[..., str]
) -> None:
    """Would catch: an "unprocessed" batch that was written all the same, and half a batch that was written whole."""
    name = table()
    faulty.inject({"kind": "unprocessed", "action": "dynamodb:BatchWriteItem"})
    assert call("batch_write_item", RequestItems=put(name, 1, 2))["answer"]["UnprocessedItems"] == put(name, 1, 2)
    assert count(faulty, name) == 0
    faulty.inject({"kind": "partial", "action": "dynamodb:BatchWriteItem"})
    assert call("batch_write_item", RequestItems=put(name, 1, 2, 3))["answer"]["UnprocessedItems"] == put(name, 3)
    assert count(faulty, name) == 2


@pytest.mark.parametrize(("kind", "carried_out"), [("kill-before", False), ("kill-after", True)])
def test_a_killed_worker_is_reported_as_on_aws_and_replaced(
    faulty: EmbeddedAws, call: Callable[..., Any], table: Callable[..., str], kind: str, carried_out: bool
) -> None:
    """Would catch: a dead worker that hangs its caller, has a made-up error name, or is called again."""
    name = table()
    first = call("list_tables")["pid"]
    faulty.inject({"kind": kind, "action": "dynamodb:BatchWriteItem"})
    died = call("batch_write_item", RequestItems=put(name, 1))
    assert died["errorType"] == "Runtime.ExitError"
    assert died["errorMessage"].endswith("Error: Runtime exited with error: signal: killed")
    assert count(faulty, name) == int(carried_out)
    assert call("list_tables")["pid"] != first


def test_root_is_never_struck(faulty: EmbeddedAws, table: Callable[..., str]) -> None:
    """Would catch: a test that is struck by its own faults, and blames the recovery."""
    name = table()
    faulty.inject({"kind": "internal-error", "times": None})
    assert count(faulty, name) == 0
    with pytest.raises(ClientError):
        faulty.client("dynamodb").describe_table(TableName="none")
    assert [rule["struck"] for rule in faulty.clear_faults()] == [0]


def test_a_stopped_state_stops_the_execution(faulty: EmbeddedAws, machines: Machines) -> None:
    """Would catch: an abort that lets the state after it run."""
    arn = machines.create({"Stop here": {"Type": "Pass", "Next": "Then"}, "Then": {"Type": "Succeed"}})
    faulty.inject({"kind": "abort", "state": "Stop here"})
    execution = faulty.client("stepfunctions").start_execution(stateMachineArn=arn, input="{}")["executionArn"]
    assert faulty.has_ended(execution)
    described = faulty.client("stepfunctions").describe_execution(executionArn=execution)
    assert described["status"] == "ABORTED"
    assert "Then" not in [state for _, state in faulty.faults()["states"]]


def test_a_wrong_rule_is_refused(faulty: EmbeddedAws) -> None:
    """Would catch: a misspelt kind or field that never strikes, and a suite that passes because of it."""
    for wrong in ({"kind": "thorttle"}, {"kind": "throttle", "actoin": "*"}, {"kind": "abort"}):
        with pytest.raises(RuleError):
            Rule.parse(wrong)
        with pytest.raises(EmbeddedAwsError):
            faulty.inject(wrong)


def test_skip_times_and_arming_are_counted() -> None:
    """Would catch: a fault that strikes too early, too often, or before the function that is to arm it has called."""
    faults = Faults()
    faults.replace([Rule(kind="throttle", action="dynamodb:*", armed_by="b", skip=1, times=2)])
    callers = ["a", "b", "a", "a", "a"]
    struck = [faults.called(caller, "dynamodb:Scan", "arn") is not None for caller in callers]
    assert struck == [False, False, True, True, False]
    assert faults.called("b", "s3:PutObject", "arn") is None


def test_answers_have_each_services_form() -> None:
    """Would catch: an error that botocore cannot read, and so reports under another name."""
    assert failure("throttle", "dynamodb:DescribeTable")[0] == 400
    assert json.loads(failure("throttle", "lambda:ListFunctions")[2])["__type"] == "TooManyRequestsException"
    assert b"<Code>SlowDown</Code>" in failure("throttle", "s3:PutObject")[2]
    assert failure("internal-error", "states:DescribeExecution")[0] == 500
    body = json.dumps({"RequestItems": {"t": {"Keys": [1, 2]}}}).encode()
    assert json.loads(unprocessed(body, "dynamodb:BatchGetItem")[2])["UnprocessedKeys"] == {"t": {"Keys": [1, 2]}}
    kept, left = halves({"RequestItems": {"t": {"Keys": [1, 2, 3], "ConsistentRead": True}}})
    assert kept == {"RequestItems": {"t": {"Keys": [1, 2], "ConsistentRead": True}}}
    assert left == {"t": {"Keys": [3], "ConsistentRead": True}}


def test_the_end_of_a_process_is_worded_as_on_aws() -> None:
    """Would catch: an exit that reads like a kill, in a runbook's search."""
    assert exit_words(-9) == "signal: killed"
    assert exit_words(1) == "exit status 1"


def test_lambda_requests_have_their_own_actions() -> None:
    """Would catch: a role that may not read or delete a concurrency, or change a mapping, and only fails on AWS."""
    base = "/2015-03-31/functions/f/concurrency"
    assert lambda_action("GET", base, {}) == "GetFunctionConcurrency"
    assert lambda_action("DELETE", base, {}) == "DeleteFunctionConcurrency"
    assert lambda_action("PUT", "/2015-03-31/event-source-mappings/u", {}) == "UpdateEventSourceMapping"
    assert lambda_action("GET", "/2015-03-31/event-source-mappings/", {}) is None
    assert lambda_action("GET", "/2015-03-31/functions/f/configuration", {}) is None
