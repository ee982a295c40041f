"""What a failing Lambda function looks like to whoever called it."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from localaws.server import EmbeddedAws

from .conftest import Machines

SOURCE = """
    import os, time

    class OrderRefused(Exception):
        pass

    def handler(event, context):
        if event.get("sleep"):
            time.sleep(event["sleep"])
        if event.get("leave"):
            os._exit(1)
        if event.get("fail"):
            raise OrderRefused(event["fail"])
        return {"pid": os.getpid()}
"""


def invoke(arn: str, payload: Any) -> dict[str, Any]:
    """A Task state that invokes and ends."""
    return {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Arguments": {"FunctionName": arn, "Payload": payload},
        "Output": "{% $states.result.Payload %}",
        "End": True,
    }


def test_the_exceptions_name_reaches_catch(function: Callable[..., str], machines: Machines) -> None:
    """Would catch: a Catch by name that never matches, so that every failure takes the wrong path."""
    task = invoke(function(SOURCE), {"fail": "too late"}) | {
        "Catch": [
            {"ErrorEquals": ["Other"], "Next": "Wrong"},
            {"ErrorEquals": ["OrderRefused"], "Next": "Caught", "Output": "{% $states.errorOutput %}"},
        ]
    }
    states = {"Order": task, "Wrong": {"Type": "Fail"}, "Caught": {"Type": "Succeed"}}
    caught = machines.output(states)
    cause = json.loads(caught["Cause"])
    assert caught["Error"] == cause["errorType"] == "OrderRefused"
    assert cause["errorMessage"] == "too late"
    assert any("raise OrderRefused" in line for line in cause["stackTrace"])


def test_a_worker_survives_a_failure(aws: EmbeddedAws, function: Callable[..., str]) -> None:
    """Would catch: a cold start after every failure, which makes fault rehearsals crawl."""
    name, client = function(SOURCE), aws.client("lambda")
    first = json.loads(client.invoke(FunctionName=name, Payload=b"{}")["Payload"].read())
    failed = client.invoke(FunctionName=name, Payload=json.dumps({"fail": "x"}))
    assert failed["FunctionError"]
    assert json.loads(failed["Payload"].read())["errorType"] == "OrderRefused"
    assert json.loads(client.invoke(FunctionName=name, Payload=b"{}")["Payload"].read()) == first


def test_a_timeout_is_sandbox_timedout(function: Callable[..., str], machines: Machines) -> None:
    """Would catch: a Retry for timeouts that names an error Lambda never reports."""
    execution = machines.run({"Slow": invoke(function(SOURCE, Timeout=1), {"sleep": 5})})
    assert execution["error"] == "Sandbox.Timedout"
    assert "Task timed out after 1.00 seconds" in json.loads(execution["cause"])["errorMessage"]


def test_a_worker_that_dies_fails_the_task(function: Callable[..., str], machines: Machines) -> None:
    """Would catch: a task that hangs, or succeeds with null, when the function's process ends."""
    execution = machines.run({"Die": invoke(function(SOURCE), {"leave": True})})
    assert execution["status"] == "FAILED"


def test_a_throttled_function_is_too_many_requests(
    aws: EmbeddedAws, function: Callable[..., str], machines: Machines
) -> None:
    """Would catch: a Retry for throttling that never matches."""
    name = function(SOURCE)
    aws.client("lambda").put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    task = invoke(name, {}) | {
        "Retry": [{"ErrorEquals": ["Lambda.TooManyRequestsException"], "MaxAttempts": 2, "IntervalSeconds": 1}]
    }
    arn = machines.start(machines.create({"Call": task}))
    assert machines.wait(arn)["error"] == "Lambda.TooManyRequestsException"
    events = machines.client.get_execution_history(executionArn=arn)["events"]
    assert sum(event["type"] == "TaskFailed" for event in events) == 3


@pytest.mark.parametrize("resource", ["arn:aws:states:::lambda:invoke", "function"])
def test_unknown_function(machines: Machines, aws: EmbeddedAws, resource: str) -> None:
    """Would catch: a misspelt function that is answered by a mock."""
    arn = f"arn:aws:lambda:{aws.region}:{aws.account_id}:function:nobody"
    task = invoke(arn, {}) if resource != "function" else {"Type": "Task", "Resource": arn, "End": True}
    assert machines.run({"Call": task})["error"] == "Lambda.ResourceNotFoundException"
