"""Executions that are stopped run no Catch: the guardian applies the rule of the point of no return to them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .conftest import FUNCTIONS, OUTSIDE, TABLES, Deployed, create_table, deployed_stack, request
from .test_recovery import prepared

TABLE = "local-licenses"
SETTINGS = {**FUNCTIONS, OUTSIDE: 3}
FROZEN = {**dict.fromkeys(FUNCTIONS, 0), OUTSIDE: 3}


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployed]:
    """The local stack, in which a stopped execution's workers have two seconds instead of sixteen minutes."""
    yield from deployed_stack({}, wait_scale="0.002")


@pytest.fixture(scope="module")
def told(deployed: Deployed) -> Callable[[], list[dict[str, Any]]]:
    """Every notification so far: subject, and the message as an object."""
    queue = deployed.client("sqs").create_queue(QueueName="operators")["QueueUrl"]
    arn = deployed.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]
    topic = deployed.outputs["notificationTopicArn"]
    let_in = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "sns.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": arn["QueueArn"],
            }
        ],
    }
    deployed.client("sqs").set_queue_attributes(QueueUrl=queue, Attributes={"Policy": json.dumps(let_in)})
    deployed.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn["QueueArn"])
    seen: list[dict[str, Any]] = []

    def messages() -> list[dict[str, Any]]:
        while batch := deployed.client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
            for message in batch:
                body = json.loads(message["Body"])
                seen.append({"subject": body["Subject"], **json.loads(body["Message"])})
                deployed.client("sqs").delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return seen

    return messages


def until(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Wait for something that no event tells of from outside; returns what the condition answered."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if answer := condition():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"waited {seconds} s for {what}")


def guardian_of(deployed: Deployed, execution: str) -> dict[str, Any]:
    """The ended execution of the guardian for an execution that was stopped."""
    machine = deployed.outputs["orchestratorStateMachineArn"].replace("orchestrator", "guardian")
    states = deployed.client("stepfunctions")

    def find() -> dict[str, Any] | None:
        for summary in states.list_executions(stateMachineArn=machine)["executions"]:
            described: dict[str, Any] = states.describe_execution(executionArn=summary["executionArn"])
            if json.loads(described["input"])["executionArn"] == execution and described["status"] != "RUNNING":
                return described
        return None

    found: dict[str, Any] = until(find, f"the guardian of {execution}")
    return found


def record(deployed: Deployed, incident: str) -> dict[str, Any]:
    """The incident's record in the ledger."""
    key = {"pk": {"S": f"INCIDENT#{incident}"}, "sk": {"S": "RUN"}}
    answer = deployed.client("dynamodb").get_item(TableName=deployed.outputs["ledgerTableName"], Key=key)
    return {name: next(iter(value.values())) for name, value in answer.get("Item", {}).items()}


def stop_when(deployed: Deployed, execution: str, condition: Callable[[], Any], what: str) -> None:
    """Stop an execution as soon as it has come that far; it must be running still."""
    until(condition, what)
    states = deployed.client("stepfunctions")
    states.stop_execution(executionArn=execution, error="Operator", cause="changed my mind")
    assert states.describe_execution(executionArn=execution)["status"] == "ABORTED", "it had ended: nothing was tested"


def test_stopped_before_the_purge_the_functions_are_released(
    deployed: Deployed, told: Callable[[], list[dict[str, Any]]]
) -> None:
    """Catches a system that stays frozen for good because somebody stopped the execution."""
    point, good = prepared(deployed, TABLE)
    damaged = deployed.items(TABLE)
    wanted = request(point, TABLE, incident="stopped-early")
    first = deployed.start(deployed.outputs["orchestratorStateMachineArn"], wanted)
    stop_when(deployed, first, lambda: deployed.concurrency() == FROZEN, "the freeze")
    guardian = guardian_of(deployed, first)
    assert guardian["status"] == "SUCCEEDED", guardian.get("cause")
    assert deployed.concurrency() == SETTINGS
    assert deployed.items(TABLE) == damaged
    assert "ENVIRONMENT" not in deployed.locks()
    ending = record(deployed, "stopped-early")
    assert (ending["status"], ending["error"]) == ("FAILED", "RecoveryAborted")
    messages = [message for message in told() if message["incidentId"] == "stopped-early"]
    assert [message["subject"].removeprefix("DynamoDB recovery in local ") for message in messages] == [
        "started",
        "was interrupted",
        "FAILED",
    ]
    assert "changed my mind" in messages[1]["cause"]
    assert "same incident again" in messages[2]["cause"]
    assert "stay frozen" not in messages[2]["cause"]
    assert "s3://" in messages[2]["cause"]

    ended = deployed.recover(wanted)
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    assert deployed.items(TABLE) == good[TABLE]
    assert deployed.concurrency() == SETTINGS
    assert deployed.locks() == []


def test_stopped_after_the_purge_the_functions_stay_frozen(
    deployed: Deployed, told: Callable[[], list[dict[str, Any]]]
) -> None:
    """Catches a guardian that lets functions serve a table that is purged and not restored."""
    point, good = prepared(deployed, TABLE, items=1500)
    wanted = request(point, TABLE, incident="stopped-late")
    first = deployed.start(deployed.outputs["orchestratorStateMachineArn"], wanted)
    seen = len(deployed.aws.access_log(TABLE))

    def purging() -> bool:
        log = deployed.aws.access_log(TABLE)[seen:]
        return any("purge-segment" in entry["principal"] and entry["action"] == "BatchWriteItem" for entry in log)

    stop_when(deployed, first, purging, "the purge")
    assert guardian_of(deployed, first)["status"] == "SUCCEEDED"
    assert deployed.items(TABLE) != good[TABLE], "the table was restored already: nothing was tested"
    assert deployed.concurrency() == FROZEN
    last = [message for message in told() if message["incidentId"] == "stopped-late"][-1]
    assert last["subject"].endswith("FAILED")
    assert "stay frozen" in last["cause"]

    ended = deployed.recover(wanted)
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    assert deployed.items(TABLE) == good[TABLE]
    assert deployed.concurrency() == SETTINGS
    assert deployed.locks() == []


def test_resumed_at_once_the_guardian_keeps_out(deployed: Deployed) -> None:
    """Catches a guardian that releases the functions of an incident that somebody has resumed by then."""
    point, good = prepared(deployed, TABLE)
    wanted = request(point, TABLE, incident="resumed-at-once")
    first = deployed.start(deployed.outputs["orchestratorStateMachineArn"], wanted)
    stop_when(deployed, first, lambda: deployed.concurrency() == FROZEN, "the freeze")
    ended = deployed.recover(wanted)
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    guardian = guardian_of(deployed, first)
    entered = {event["stateEnteredEventDetails"]["name"] for event in deployed.history(guardian["executionArn"])
               if "stateEnteredEventDetails" in event}  # fmt: skip
    assert "Somebody resumed it" in entered
    assert "Release after the failure" not in entered
    assert deployed.items(TABLE) == good[TABLE]
    assert deployed.concurrency() == SETTINGS


def test_a_resumption_waits_for_the_guardian(deployed: Deployed) -> None:
    """Catches an operator who is refused, at three in the morning, because the guardian is quicker."""
    point, good = prepared(deployed, TABLE)
    states, dynamodb = deployed.client("stepfunctions"), deployed.client("dynamodb")
    role = deployed.client("iam").get_role(RoleName="local-dr-orchestrator-us-east-1")["Role"]["Arn"]
    machine = states.create_state_machine(
        name="local-dr-stand-in",
        roleArn=role,
        definition='{"QueryLanguage": "JSONata", "StartAt": "Wait", "States": {"Wait": {"Type": "Wait", '
        '"Seconds": 1000000, "End": true}}}',
    )
    guardian = deployed.start(machine["stateMachineArn"], {})
    held = {"owner": guardian, "incidentId": "met-the-guardian"}
    lock = {"pk": "LOCK", "sk": "ENVIRONMENT", **held}
    dynamodb.put_item(
        TableName=deployed.outputs["ledgerTableName"],
        Item={**{name: {"S": value} for name, value in lock.items()}, "guardian": {"BOOL": True}},
    )
    execution = deployed.start(
        deployed.outputs["orchestratorStateMachineArn"], request(point, TABLE, incident="met-the-guardian")
    )
    until(lambda: "GuardianAtWork" in str(deployed.history(execution)), "the first refusal")
    assert states.describe_execution(executionArn=execution)["status"] == "RUNNING"
    assert deployed.concurrency() == SETTINGS, "it went on beside the guardian"
    states.stop_execution(executionArn=guardian)
    ended = deployed.finish(execution)
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    assert deployed.items(TABLE) == good[TABLE]


def test_of_a_hard_reset_by_hand_people_are_told(deployed: Deployed, told: Callable[[], list[dict[str, Any]]]) -> None:
    """Catches a table left half restored by a stopped hard reset, and nobody who knows."""
    create_table(deployed.aws, "by-hand-source", TABLES[TABLE], pitr=False)
    deployed.fill("by-hand-source", range(1500), "good", like=TABLE)
    wanted = {
        "incidentId": "by-hand-stopped",
        "sourceTableArn": deployed.arn("by-hand-source"),
        "destinationTableArn": deployed.arn(TABLE),
        "tableNameRecoveryConfirmation": TABLE,
    }
    first = deployed.start(deployed.outputs["hardResetStateMachineArns"][TABLE], wanted)
    seen = len(deployed.aws.access_log(TABLE))
    stop_when(
        deployed,
        first,
        lambda: any("copy-segment" in entry["principal"] for entry in deployed.aws.access_log(TABLE)[seen:]),
        "the copy",
    )
    assert guardian_of(deployed, first)["status"] == "SUCCEEDED"
    (message,) = [message for message in told() if message["incidentId"] == "by-hand-stopped"]
    assert message["subject"].endswith("was interrupted")
    assert f"{TABLE} may be half restored" in message["cause"]
    assert deployed.reset(TABLE, wanted)["status"] == "SUCCEEDED"
    assert [entry["note"]["S"] for entry in deployed.items(TABLE)] == ["good"] * 1500


EVENTS = [
    # (state machine, label of a Map's child, status, whether the guardian is started)
    ("local-dr-orchestrator", "", "ABORTED", True),
    ("local-dr-orchestrator", "", "FAILED", True),
    ("local-dr-orchestrator", "", "SUCCEEDED", False),
    ("local-dr-orchestrator", "", "RUNNING", False),
    ("local-dr-orchestrator", "/Prepare", "ABORTED", False),
    ("local-dr-hard-reset-local-licenses", "", "TIMED_OUT", True),
    ("local-dr-hard-reset-local-licenses", "/Purge", "ABORTED", False),
    ("local-dr-guardian", "", "FAILED", False),
    ("another-orchestrator", "", "ABORTED", False),
]


@pytest.mark.parametrize(("machine", "label", "status", "started"), EVENTS)
def test_what_starts_the_guardian(deployed: Deployed, machine: str, label: str, status: str, started: bool) -> None:
    """Catches a rule that misses an end, or starts a guardian for each of a thousand children, or for itself."""
    events = deployed.client("events")
    arn = f"arn:aws:states:us-east-1:{deployed.aws.account_id}"
    event = {
        "id": "1",
        "source": "aws.states",
        "detail-type": "Step Functions Execution Status Change",
        "account": deployed.aws.account_id,
        "region": "us-east-1",
        "time": "2026-11-20T03:00:00Z",
        "resources": [],
        "detail": {
            "status": status,
            "stateMachineArn": f"{arn}:stateMachine:{machine}{label}",
            "executionArn": f"{arn}:execution:{machine}{label}:41e85b90",
        },
    }
    pattern = events.describe_rule(Name="local-dr-guardian")["EventPattern"]
    assert events.test_event_pattern(EventPattern=pattern, Event=json.dumps(event))["Result"] is started


def test_an_execution_that_failed_in_its_own_way_is_left_alone(deployed: Deployed) -> None:
    """Catches a guardian that reports, or releases, a second time what the orchestrator has handled itself."""
    refused = deployed.recover({"incidentId": "refused", "tables": []})
    assert refused["status"] == "FAILED"
    guardian = guardian_of(deployed, refused["executionArn"])
    assert (guardian["status"], json.loads(guardian["output"])) == ("SUCCEEDED", {})
