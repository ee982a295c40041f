"""What a state machine's role must allow, call by call."""

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import pytest

from localaws.emulator.asl_tasks import RESTORE_TARGET_ACTIONS, dynamodb_permissions
from localaws.emulator.iam_requests import lambda_action
from localaws.server import EmbeddedAws

from .conftest import Machines
from .test_lambda_errors import SOURCE, invoke
from .test_machines import DISTRIBUTED, nested, passing, processor

ALL = {"Effect": "Allow", "Action": "*", "Resource": "*"}


def _deny(action: str, resource: str = "*") -> list[dict[str, Any]]:
    return [ALL, {"Effect": "Deny", "Action": action, "Resource": resource}]


def test_lambda_invoke_needs_permission(
    machines: Machines, function: Callable[..., str], role: Callable[..., str]
) -> None:
    """Would catch: a role that may not invoke a function, found only in the first real emergency."""
    arn = function(SOURCE)
    allowed = role([{"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": arn}])
    machines.output({"Call": invoke(arn, {})}, role_arn=allowed)
    refused = machines.run({"Call": invoke(arn, {})}, role_arn=role([]))
    assert refused["error"] == "Lambda.AWSLambdaException"
    assert "lambda:InvokeFunction" in refused["cause"]
    assert arn in refused["cause"]


def test_explicit_deny_wins(machines: Machines, function: Callable[..., str], role: Callable[..., str]) -> None:
    """Would catch: the Deny on the sensitive tables being decoration."""
    refused = machines.run({"Call": invoke(function(SOURCE), {})}, role_arn=role(_deny("lambda:InvokeFunction")))
    assert "explicit deny" in refused["cause"]


def test_sns_publish_needs_permission(aws: EmbeddedAws, machines: Machines, role: Callable[..., str]) -> None:
    """Would catch: a failure nobody is told of because telling is not allowed."""
    topic = aws.client("sns").create_topic(Name="permissions")["TopicArn"]
    task = {
        "Type": "Task",
        "Resource": "arn:aws:states:::sns:publish",
        "Arguments": {"TopicArn": topic, "Message": {"text": "hello"}},
        "End": True,
    }
    allowed = role([{"Effect": "Allow", "Action": "sns:Publish", "Resource": topic}])
    assert machines.output({"Tell": task}, role_arn=allowed)["MessageId"]
    assert machines.run({"Tell": task}, role_arn=role([]))["error"] == "SNS.AuthorizationErrorException"


@pytest.mark.parametrize(
    "action",
    [
        "states:StartExecution",
        "states:DescribeExecution",
        "states:StopExecution",
        "events:PutTargets",
        "events:PutRule",
        "events:DescribeRule",
    ],
)
def test_waiting_for_a_child_needs_six_permissions(machines: Machines, role: Callable[..., str], action: str) -> None:
    """Would catch: .sync:2 without the EventBridge permissions, which AWS refuses and emulators do not."""
    child = machines.create({"Tell": passing()})
    execution = machines.run({"Run": nested(child, {})}, role_arn=role(_deny(action)))
    assert execution["error"] == "StepFunctions.AWSStepFunctionsException"
    assert action in execution["cause"]


def test_a_distributed_map_needs_to_start_its_own_machine(machines: Machines, role: Callable[..., str]) -> None:
    """Would catch: a role that cannot start children, so that no segment is ever worked on."""
    state = {"Type": "Map", "Items": [1], "ItemProcessor": processor(DISTRIBUTED, ("Tell", passing())), "End": True}
    execution = machines.run({"Each": state}, role_arn=role(_deny("states:StartExecution")))
    assert execution["status"] == "FAILED"
    assert "states:StartExecution" in execution["cause"]


def sdk(action: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """A Task state that calls DynamoDB."""
    return {
        "Type": "Task",
        "Resource": f"arn:aws:states:::aws-sdk:dynamodb:{action}",
        "Arguments": arguments,
        "End": True,
    }


@pytest.mark.parametrize("action", ["RestoreTableToPointInTime", *RESTORE_TARGET_ACTIONS])
def test_a_restore_needs_permissions_on_the_new_table(
    aws: EmbeddedAws,
    machines: Machines,
    role: Callable[..., str],
    table: Callable[..., str],
    fresh: Callable[[str], str],
    action: str,
) -> None:
    """Would catch: the seven permissions on the restored table that are easily forgotten."""
    name, target = table(recovery=True), fresh("restored")
    target_arn = f"arn:aws:dynamodb:{aws.region}:{aws.account_id}:table/{target}"
    task = sdk(
        "restoreTableToPointInTime",
        {"SourceTableName": name, "TargetTableName": target, "UseLatestRestorableTime": True},
    )
    refused = machines.run({"Restore": task}, role_arn=role(_deny(f"dynamodb:{action}", target_arn)))
    assert refused["error"] == "DynamoDb.DynamoDbException"
    assert f"dynamodb:{action} on resource: {target_arn}" in refused["cause"]
    assert target not in aws.client("dynamodb").list_tables()["TableNames"]


def test_a_restore_needs_permission_on_the_source(
    aws: EmbeddedAws, machines: Machines, role: Callable[..., str], table: Callable[..., str]
) -> None:
    """Would catch: a role that may write restored tables but not read the history."""
    name = table(recovery=True)
    source_arn = f"arn:aws:dynamodb:{aws.region}:{aws.account_id}:table/{name}"
    task = sdk(
        "restoreTableToPointInTime",
        {"SourceTableArn": source_arn, "TargetTableName": "never", "UseLatestRestorableTime": True},
    )
    refused = machines.run({"Restore": task}, role_arn=role(_deny("dynamodb:Restore*", source_arn)))
    assert source_arn in refused["cause"]


def test_backups_are_asked_about_by_their_own_arn(
    aws: EmbeddedAws, machines: Machines, role: Callable[..., str], table: Callable[..., str]
) -> None:
    """Would catch: DescribeBackup allowed on the table, where AWS asks about table/NAME/backup/ID."""
    name = table()
    arn = f"arn:aws:dynamodb:{aws.region}:{aws.account_id}:table/{name}"
    create = sdk("createBackup", {"TableName": name, "BackupName": "before"}) | {"Next": "Describe"}
    del create["End"]
    describe = sdk("describeBackup", {"BackupArn": "{% $states.input.BackupDetails.BackupArn %}"})
    states = {"Create": create, "Describe": describe}
    on_table = [{"Effect": "Allow", "Action": "dynamodb:*", "Resource": arn}]
    refused = machines.run(states, role_arn=role(on_table))
    assert f"dynamodb:DescribeBackup on resource: {arn}/backup/" in refused["cause"]
    on_both = [{"Effect": "Allow", "Action": "dynamodb:*", "Resource": [arn, f"{arn}/backup/*"]}]
    output = machines.output(states, role_arn=role(on_both))
    assert output["BackupDescription"]["BackupDetails"]["BackupStatus"] in ("CREATING", "AVAILABLE")


def test_dynamodb_errors_are_named_as_the_sdk_names_them(machines: Machines) -> None:
    """Would catch: a Retry or Catch on an error name that only the emulator uses."""
    missing = machines.run({"Describe": sdk("describeTable", {"TableName": "nowhere"})})
    assert missing["error"] == "DynamoDb.ResourceNotFoundException"
    invalid = machines.run({"Create": sdk("createBackup", {"TableName": "nowhere"})})
    assert invalid["error"] in ("DynamoDb.TableNotFoundException", "DynamoDb.DynamoDbException")


def test_calls_of_a_machine_are_logged_under_its_role(
    aws: EmbeddedAws, machines: Machines, role: Callable[..., str], table: Callable[..., str]
) -> None:
    """Would catch: an audit of who touched a table that shows root for everything a machine did."""
    name, arn = table(), role()
    machines.output({"Describe": sdk("describeTable", {"TableName": name})}, role_arn=arn)
    principals = [entry["principal"] for entry in aws.access_log(name) if entry["action"] == "DescribeTable"]
    assert principals[-1].endswith(f"assumed-role/{arn.rpartition('/')[2]}/StepFunctions")


def test_permissions_of_calls_without_a_table() -> None:
    """Would catch: a call that names no table and is therefore never asked about."""
    assert dynamodb_permissions("ListTables", {}, "r", "a") == [("ListTables", "*")]
    assert dynamodb_permissions("DeleteTable", {"TableName": "t"}, "r", "a") == [
        ("DeleteTable", "arn:aws:dynamodb:r:a:table/t")
    ]
    assert json.dumps(dynamodb_permissions("DescribeBackup", {"BackupArn": "arn:b"}, "r", "a")) == (
        '[["DescribeBackup", "arn:b"]]'
    )


@pytest.mark.parametrize(
    ("method", "path", "query", "action"),
    [
        ("GET", "/2019-09-30/functions/f/concurrency", {}, "GetFunctionConcurrency"),
        ("PUT", "/2017-10-31/functions/f/concurrency", {}, "PutFunctionConcurrency"),
        ("DELETE", "/2017-10-31/functions/f/concurrency", {}, "DeleteFunctionConcurrency"),
        ("GET", "/2019-09-30/functions/f/provisioned-concurrency", {}, "GetProvisionedConcurrencyConfig"),
        (
            "GET",
            "/2019-09-30/functions/f/provisioned-concurrency",
            {"List": ["ALL"]},
            "ListProvisionedConcurrencyConfigs",
        ),
        ("PUT", "/2015-03-31/event-source-mappings/abc", {}, "UpdateEventSourceMapping"),
        ("GET", "/2015-03-31/event-source-mappings/", {}, None),
        ("GET", "/2015-03-31/functions/", {}, None),
        ("POST", "/2015-03-31/functions/concurrency/invocations", {}, None),
    ],
)
def test_lambda_calls_are_asked_about_by_their_own_names(
    method: str, path: str, query: dict[str, list[str]], action: str | None
) -> None:
    """Would catch: a role that may freeze but not release, or not look first, and passes every rehearsal."""
    assert lambda_action(method, path, query) == action


def test_a_function_logs_only_if_its_role_may(aws: EmbeddedAws, role: Callable[..., str]) -> None:
    """Would catch: a function whose log stays empty on AWS, just when somebody has to find out what it did."""
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("app.py", "def handler(event, context):\n    print('a line of my own')\n")
    may = {"Effect": "Allow", "Action": ["logs:CreateLogStream", "logs:PutLogEvents"], "Resource": "arn:aws:logs:*"}
    messages = {}
    for name, statements in (("logs", [may]), ("logs-nothing", [])):
        aws.client("logs").create_log_group(logGroupName=f"/aws/lambda/{name}")
        aws.client("lambda").create_function(
            FunctionName=name,
            Runtime="python3.12",
            Handler="app.handler",
            Role=role(statements),
            Code={"ZipFile": code.getvalue()},
        )
        aws.client("lambda").invoke(FunctionName=name)
        events = aws.client("logs").filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
        messages[name] = [event["message"] for event in events]
    assert "a line of my own" in messages["logs"]
    assert messages["logs-nothing"] == []


@pytest.mark.parametrize("action", ["states:DescribeExecution", "states:StopExecution"])
def test_a_distributed_map_needs_to_watch_and_stop_its_children(
    machines: Machines, role: Callable[..., str], action: str
) -> None:
    """Would catch: a role whose Map cannot end its children when one has failed."""
    state = {"Type": "Map", "Items": [1], "ItemProcessor": processor(DISTRIBUTED, ("Tell", passing())), "End": True}
    execution = machines.run({"Each": state}, role_arn=role(_deny(action)))
    assert execution["status"] == "FAILED"
    assert action in execution["cause"]
