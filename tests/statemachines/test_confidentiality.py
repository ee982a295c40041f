"""Nothing of an item, neither key nor content, leaves the tables: not in a log, a state, a message or a report."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest

from .conftest import TABLES, Deployed, create_table, deployed_stack, request
from .test_recovery import Revoked

TABLE = "local-licenses"
NUMBERS = "local-measurements"
# As it stands in a table, in JSON, and in the base64 that JSON has for binary attributes.
MARKER = "Xq7Unmistakable"
NUMBER = 736251849017
MARKED = (MARKER, str(NUMBER), b64encode(MARKER.encode()).decode())  # 15 characters: base64 without padding


def marked(number: int, note: str) -> dict[str, dict[str, Any]]:
    """An item of both tables whose keys and attributes are unmistakable, by table."""
    content = {f"attribute{MARKER}": {"S": f"{MARKER} {note}"}, "deep": {"M": {"list": {"L": [{"S": MARKER}]}}}}
    return {
        TABLE: {"country": {"S": f"{MARKER}{number}"}, "code": {"S": f"{MARKER}-{number}"}, **content},
        NUMBERS: {"sensor": {"N": str(NUMBER)}, "token": {"B": f"{MARKER}{number}".encode()}, **content},
    }


def write(deployed: Deployed, numbers: range, note: str, *, into: str | None = None) -> None:
    """Write marked items into their tables, or those of the first table into another one."""
    for number in numbers:
        for table, item in marked(number, note).items():
            if into is None or table == TABLE:
                deployed.client("dynamodb").put_item(TableName=into or table, Item=item)


@pytest.fixture(scope="module")
def told() -> Iterator[dict[str, list[str]]]:
    """Everything that a recovery, a failed one, a resumed one and a hard reset by hand have told: where → texts."""
    for deployed in deployed_stack({}):
        queue = subscribed(deployed)
        write(deployed, range(30), "good")
        point = deployed.restore_point()
        write(deployed, range(20, 50), "bad")
        good = request(point, TABLE, NUMBERS, incident="whole")
        assert deployed.recover(good)["status"] == "SUCCEEDED"
        assert {len(deployed.items(table)) for table in (TABLE, NUMBERS)} == {30}

        write(deployed, range(50, 60), "bad again")
        again = request(point, TABLE, NUMBERS, incident="broken")
        with Revoked(deployed, "copy-segment"):
            assert deployed.recover(again)["status"] == "FAILED"
        assert deployed.recover(again)["status"] == "SUCCEEDED"

        create_table(deployed.aws, "by-hand", TABLES[TABLE], pitr=False)
        write(deployed, range(5), "by hand", into="by-hand")
        wanted = {
            "incidentId": "by-hand",
            "sourceTableArn": deployed.arn("by-hand"),
            "destinationTableArn": deployed.arn(TABLE),
            "tableNameRecoveryConfirmation": TABLE,
        }
        with Revoked(deployed, "prove-empty"):
            assert deployed.reset(TABLE, wanted)["status"] == "FAILED"
        write(deployed, range(60, 65), "by a stranger")  # DestinationNotEmpty, whose cause must not say what it found
        assert deployed.reset(TABLE, wanted)["error"] == "DestinationNotEmpty"
        assert deployed.reset(TABLE, wanted)["status"] == "SUCCEEDED"
        yield {
            "executions": executions(deployed),
            "logs": logs(deployed),
            "messages": messages(deployed, queue),
            "reports": reports(deployed),
            "tables": [repr(deployed.items(table)) for table in (TABLE, NUMBERS)],
        }


def subscribed(deployed: Deployed) -> str:
    """The URL of a queue that gets everything the topic is told."""
    sqs, topic = deployed.client("sqs"), deployed.outputs["notificationTopicArn"]
    url = str(sqs.create_queue(QueueName="told")["QueueUrl"])
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    let_topic_send = {
        "Effect": "Allow",
        "Principal": {"Service": "sns.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": arn,
        "Condition": {"ArnEquals": {"aws:SourceArn": topic}},
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [let_topic_send]})
    sqs.set_queue_attributes(QueueUrl=url, Attributes={"Policy": policy})
    deployed.client("sns").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    return url


def executions(deployed: Deployed) -> list[str]:
    """Description and history of every execution, those of Distributed Maps included."""
    client = deployed.client("stepfunctions")
    texts, left = [], []
    machines = client.list_state_machines()["stateMachines"]
    for machine in machines:
        arn = machine["stateMachineArn"]
        for page in client.get_paginator("list_executions").paginate(stateMachineArn=arn):
            left += [execution["executionArn"] for execution in page["executions"]]
    while left:
        arn = left.pop()
        texts.append(json.dumps(client.describe_execution(executionArn=arn), default=str))
        texts.append(json.dumps(deployed.history(arn), default=str))
        for run in client.list_map_runs(executionArn=arn)["mapRuns"]:
            for page in client.get_paginator("list_executions").paginate(mapRunArn=run["mapRunArn"]):
                left += [child["executionArn"] for child in page["executions"]]
    return texts


def logs(deployed: Deployed) -> list[str]:
    """Every event of every log group, after the group's name."""
    client = deployed.client("logs")
    texts = []
    for page in client.get_paginator("describe_log_groups").paginate():
        for group in page["logGroups"]:
            name = group["logGroupName"]
            for events in client.get_paginator("filter_log_events").paginate(logGroupName=name):
                texts += [f"{name} {event['message']}" for event in events["events"]]
    return texts


def messages(deployed: Deployed, queue: str) -> list[str]:
    """Everything that was told by the topic."""
    texts: list[str] = []
    while True:
        answer = deployed.client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10)
        if not answer.get("Messages"):
            return texts
        for message in answer["Messages"]:
            texts.append(message["Body"])
            deployed.client("sqs").delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])


def reports(deployed: Deployed) -> list[str]:
    """Every report, after its key."""
    s3, bucket = deployed.client("s3"), deployed.outputs["reportBucketName"]
    keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    return [f"{key} {s3.get_object(Bucket=bucket, Key=key)['Body'].read().decode()}" for key in keys]


def test_nothing_of_an_item_is_told(told: dict[str, list[str]]) -> None:
    """Catches an item's key or content in a log line, a state's input or output, an error's cause, a mail, a report."""
    for table in told["tables"]:
        assert MARKER in table, "the tables hold no marker; nothing could have been told"
    for where in ("executions", "logs", "messages", "reports"):
        texts = told[where]
        leaks = [text for text in texts if any(mark in text for mark in MARKED)]
        assert leaks == [], f"{where} hold what belongs to the tables only"


def test_there_was_something_to_tell(told: dict[str, list[str]]) -> None:
    """Catches a search for markers in nothing: every place was reached, and names the table."""
    assert len(told["executions"]) >= 100
    assert len(told["reports"]) == 3
    assert len(told["messages"]) >= 6
    for where in ("executions", "logs", "messages", "reports"):
        assert [text for text in told[where] if TABLE in text], f"no text of {where} names the table"
    for function in ("purge-segment", "copy-segment", "digest-segment", "preflight", "record-outcome"):
        lines = [text for text in told["logs"] if text.startswith(f"/aws/lambda/local-dr-{function} ")]
        own = [line for line in lines if '"message"' in line]
        assert len(own) >= 2, f"{function} logged nothing itself"
    purges = [text for text in told["logs"] if "segment worked on" in text and '"phase":"purge"' in text]
    assert [line for line in purges if f'"table":"{TABLE}"' in line]
    # Failures were logged with the lines of code that led to them.
    assert [text for text in told["logs"] if 'File "' in text and "hard_reset.py" in text]
