"""What each deployed role can NOT do, asked of IAM by calls that would do it; and what it can, lest it be broken."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from botocore.exceptions import ClientError

from .conftest import FUNCTIONS, OTHER_SCHEMA, OUTSIDE, SENSITIVE, TABLES, Deployed, create_table, deployed_stack
from .roles import DeployedRole, deployed_roles, let_root_assume

TABLE = "local-licenses"
SOURCE = "dr-local.a-restored-table"
LEDGER = "local-dr-ledger"
BUCKET = "local-dr-reports-000000000000-us-east-1"
APP, RECOVERY = "local-app-api", "local-dr-purge-segment"
KEY = {"country": {"S": "a"}, "code": {"S": "b"}}
LEDGER_KEY = {"pk": {"S": "a"}, "sk": {"S": "b"}}

Call = tuple[str, str, dict[str, Any]]
"""(service, method of the boto3 client, its arguments)."""


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployed]:
    """The local stack, where any table may be copied from: the Deny has to hold against the widest Allow."""
    for stack in deployed_stack({"sourceTables": ["*"]}):
        create_table(stack.aws, SOURCE, TABLES[TABLE], pitr=False)
        for table in (TABLE, SOURCE):
            stack.fill(table, range(2), like=TABLE)
        stack.fill(SENSITIVE, range(2))
        let_root_assume(stack)
        yield stack


@pytest.fixture(scope="module")
def narrow() -> Iterator[Deployed]:
    """The local stack with its default sources: restored tables only."""
    for stack in deployed_stack({"sourceTables": []}):
        create_table(stack.aws, SOURCE, TABLES[TABLE], pitr=False)
        let_root_assume(stack)
        yield stack


def db(operation: str, table: str = "", **arguments: Any) -> Call:
    """A call of DynamoDB about one table."""
    return ("dynamodb", operation, {**({"TableName": table} if table else {}), **arguments})


def reads(table: str) -> list[Call]:
    """Every way to read an item of a table."""
    key = {"id": {"S": "a"}} if table in (SENSITIVE, OTHER_SCHEMA) else KEY
    return [
        db("scan", table),
        db(
            "query",
            table,
            KeyConditionExpression="#a = :a",
            ExpressionAttributeNames={"#a": next(iter(key))},
            ExpressionAttributeValues={":a": {"S": "a"}},
        ),
        db("get_item", table, Key=key),
        db("batch_get_item", RequestItems={table: {"Keys": [key]}}),
        db("transact_get_items", TransactItems=[{"Get": {"TableName": table, "Key": key}}]),
    ]


def writes(table: str) -> list[Call]:
    """Every way to change an item of a table, or the table."""
    key = {"id": {"S": "a"}} if table in (SENSITIVE, OTHER_SCHEMA) else KEY
    return [
        put(table),
        db("put_item", table, Item=key),
        db("update_item", table, Key=key),
        db("delete_item", table, Key=key),
        db("transact_write_items", TransactItems=[{"Put": {"TableName": table, "Item": key}}]),
        db("update_table", table, DeletionProtectionEnabled=False),
        db("delete_table", table),
    ]


def put(table: str) -> Call:
    """A batch of one put."""
    key = {"id": {"S": "a"}} if table in (SENSITIVE, OTHER_SCHEMA) else KEY
    return db("batch_write_item", RequestItems={table: [{"PutRequest": {"Item": key}}]})


def function(operation: str, name: str, **arguments: Any) -> Call:
    """A call of Lambda about one function."""
    return ("lambda", operation, {"FunctionName": name, **arguments})


def freezing(name: str) -> Call:
    """A freeze of one function."""
    return function("put_function_concurrency", name, ReservedConcurrentExecutions=0)


def changes(name: str) -> list[Call]:
    """What a freeze or release has no business with."""
    return [
        function("invoke", name, Payload=b"{}"),
        function("update_function_code", name, ZipFile=b"x"),
        function("update_function_configuration", name, Timeout=5),
        function("delete_function", name),
        function("get_function", name),
    ]


def report(operation: str, key: str, **arguments: Any) -> Call:
    """A call of S3 about one object of the report bucket."""
    return ("s3", operation, {"Bucket": BUCKET, "Key": key, **arguments})


LEDGER_READ = db("get_item", LEDGER, Key=LEDGER_KEY)
OWN_FUNCTIONS_FROZEN = [freezing(RECOVERY), freezing("local-dr-release-functions")]

# What the role is of → (calls that IAM refuses, calls that it allows).
FORBIDDEN: dict[str, tuple[list[Call], list[Call]]] = {
    "purge-segment": (
        [
            *reads(SOURCE),
            *writes(SOURCE),
            *reads(OTHER_SCHEMA),
            *writes(OTHER_SCHEMA),
            *writes(TABLE)[1:],
            db("delete_item", LEDGER, Key=LEDGER_KEY),
        ],
        [db("scan", TABLE), put(TABLE), LEDGER_READ],
    ),
    "copy-segment": (
        [*writes(SOURCE), *reads(TABLE), *writes(TABLE)[1:], *writes(OTHER_SCHEMA), *reads(OTHER_SCHEMA)],
        [db("scan", SOURCE), put(TABLE), LEDGER_READ],
    ),
    "differential-segment": (
        [*writes(SOURCE), *writes(TABLE)[1:], *writes(OTHER_SCHEMA), *reads(OTHER_SCHEMA)],
        [db("scan", SOURCE), db("scan", TABLE), put(TABLE), LEDGER_READ],
    ),
    "digest-segment": (
        [*writes(SOURCE), *writes(TABLE), *writes(OTHER_SCHEMA), *reads(OTHER_SCHEMA)],
        [db("scan", SOURCE), db("scan", TABLE), LEDGER_READ],
    ),
    "compare-segment": (
        [
            *writes(SOURCE),
            *writes(TABLE),
            *writes(OTHER_SCHEMA),
            *reads(OTHER_SCHEMA),
            report("put_object", "reports/x.json", Body=b"{}"),
            report("get_object", "differences/x.jsonl"),
        ],
        [db("scan", SOURCE), db("scan", TABLE), LEDGER_READ, report("put_object", "differences/x.jsonl", Body=b"{}")],
    ),
    "report-differences": (
        [
            *reads(TABLE),
            *writes(TABLE),
            *reads(SOURCE),
            *writes(SOURCE),
            put(LEDGER),
            report("get_object", "differences/x.jsonl"),
        ],
        [LEDGER_READ],
    ),
    "guardian": ([*reads(TABLE), *writes(TABLE), *reads(SOURCE), *writes(SOURCE), put(LEDGER)], [LEDGER_READ]),
    "prove-empty": ([*writes(TABLE), *reads(SOURCE), *writes(SOURCE)], [db("scan", TABLE), LEDGER_READ]),
    "verify": ([*reads(TABLE), *writes(TABLE), *reads(SOURCE), *writes(SOURCE), put(LEDGER)], [LEDGER_READ]),
    "record-outcome": ([*reads(TABLE), *writes(TABLE), *reads(SOURCE), *writes(SOURCE)], [LEDGER_READ]),
    "unlock": ([*reads(TABLE), *writes(TABLE), *reads(SOURCE), *writes(SOURCE)], [LEDGER_READ]),
    "write-report": (
        [
            *reads(TABLE),
            *writes(TABLE),
            *reads(SOURCE),
            *writes(SOURCE),
            db("put_item", LEDGER, Item=LEDGER_KEY),
            report("put_object", "elsewhere/x.json", Body=b"{}"),
            report("get_object", "reports/x.json"),
            report("delete_object", "reports/x.json"),
        ],
        [LEDGER_READ, report("put_object", "reports/x.json", Body=b"{}")],
    ),
    "validate-request": (
        [*reads(TABLE), *writes(TABLE), *reads(SOURCE), *writes(SOURCE), db("describe_table", OTHER_SCHEMA)],
        [db("describe_table", TABLE), db("describe_table", SOURCE), LEDGER_READ],
    ),
    "preflight": (
        [*reads(TABLE), *writes(TABLE), *reads(SOURCE), *writes(SOURCE), db("describe_table", OTHER_SCHEMA)],
        [db("describe_table", TABLE), db("describe_table", SOURCE), LEDGER_READ],
    ),
    "freeze-functions": (
        [
            *changes(APP),
            *changes(RECOVERY),
            *changes(OUTSIDE),
            *OWN_FUNCTIONS_FROZEN,
            freezing(OUTSIDE),
            function("delete_function_concurrency", APP),
            *reads(TABLE),
            *writes(TABLE),
        ],
        [freezing(APP), function("get_function_concurrency", APP), LEDGER_READ],
    ),
    "release-functions": (
        [
            *changes(APP),
            *changes(RECOVERY),
            *changes(OUTSIDE),
            *OWN_FUNCTIONS_FROZEN,
            function("delete_function_concurrency", RECOVERY),
            *reads(TABLE),
            *writes(TABLE),
        ],
        [freezing(APP), function("delete_function_concurrency", APP), LEDGER_READ],
    ),
}


def outcome(client: Any, call: Call) -> str:
    """``denied`` or ``allowed``: whatever else is wrong with a call, IAM had let it pass."""
    try:
        getattr(client, call[1])(**call[2])
    except ClientError as error:
        if error.response["Error"]["Code"] in ("AccessDenied", "AccessDeniedException"):
            return "denied"
    return "allowed"


def outcomes(deployed: Deployed, role_arn: str, calls: list[Call]) -> dict[str, str]:
    """What IAM says of each call in the role's name."""
    clients: dict[str, Any] = {}
    answers = {}
    for call in calls:
        if call[0] not in clients:
            clients[call[0]] = deployed.aws.client_as(role_arn, call[0])
        answers[f"{call[1]} {json.dumps(call[2], default=str)}"] = outcome(clients[call[0]], call)
    assert len(answers) == len(calls), "two calls are the same"
    return answers


@pytest.mark.parametrize("thing", sorted(FORBIDDEN))
def test_a_function_can_do_its_own_work_and_nothing_else(narrow: Deployed, thing: str) -> None:
    """Catches a role that could do another's work: purge a source, copy backwards, thaw the recovery, invoke."""
    role = deployed_roles(narrow)[thing]
    forbidden, own = FORBIDDEN[thing]
    allowed = outcomes(narrow, role.arn, own)
    assert set(allowed.values()) == {"allowed"}, allowed
    denied = outcomes(narrow, role.arn, forbidden)
    assert [call for call, answer in denied.items() if answer != "denied"] == []
    reserved = narrow.client("lambda").get_function_concurrency(FunctionName=RECOVERY)
    assert "ReservedConcurrentExecutions" not in reserved
    # The allowed calls were real ones.
    for name, before in FUNCTIONS.items():
        if before is not None:
            narrow.client("lambda").put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=before)


def test_every_function_is_covered(narrow: Deployed) -> None:
    """Catches a new function of which nobody has written down what it must not do."""
    functions = {thing for thing, role in deployed_roles(narrow).items() if role.service == "lambda.amazonaws.com"}
    assert functions == set(FORBIDDEN)


def dynamodb_calls(table: str, region: str, account: str) -> dict[str, dict[str, Any]]:
    """Every operation of DynamoDB's API that can be about a table, with the least arguments that name this one."""
    arn = f"arn:aws:dynamodb:{region}:{account}:table/{table}"
    named = {
        "TableName": table,
        "SourceTableName": table,
        "TargetTableName": "dr-local.stolen",
        "GlobalTableName": table,
        "TableArn": arn,
        "ResourceArn": arn,
        "SourceTableArn": arn,
        "BackupArn": f"{arn}/backup/01234567890123-abcdefab",
        "ExportArn": f"{arn}/export/01234567890123-abcdefab",
        "ImportArn": f"{arn}/import/01234567890123-abcdefab",
        "Statement": f'SELECT * FROM "{table}"',  # noqa: S608  # it has to be refused
        "IndexName": "by-name",
    }
    items: dict[str, Any] = {
        "BatchGetItem": {"RequestItems": {table: {"Keys": [{"id": {"S": "a"}}]}}},
        "BatchWriteItem": {"RequestItems": {table: [{"DeleteRequest": {"Key": {"id": {"S": "a"}}}}]}},
        "TransactGetItems": {"TransactItems": [{"Get": {"TableName": table, "Key": {"id": {"S": "a"}}}}]},
        "TransactWriteItems": {"TransactItems": [{"Delete": {"TableName": table, "Key": {"id": {"S": "a"}}}}]},
        "RestoreTableToPointInTime": {
            "SourceTableName": table,
            "TargetTableName": "dr-local.stolen",
            "UseLatestRestorableTime": True,
        },
    }

    def least(shape: Any, name: str = "") -> Any:
        if name in named:
            return named[name]
        if shape.type_name == "structure":
            return {member: least(shape.members[member], member) for member in shape.required_members}
        if shape.type_name == "list":
            return [least(shape.member, name)]
        if shape.type_name == "map":
            return {"id": least(shape.value)}
        simple = {"string": "x" * max(3, shape.metadata.get("min", 0)), "boolean": False, "timestamp": 0, "blob": b"x"}
        return (getattr(shape, "enum", None) or [simple[shape.type_name]])[0] if shape.type_name in simple else 1

    calls = {}
    model = botocore.session.get_session().get_service_model("dynamodb")
    for operation in model.operation_names:
        arguments = items.get(operation) or least(model.operation_model(operation).input_shape)
        if table in json.dumps(arguments, default=str):
            calls[operation] = arguments
    return calls


def test_no_role_can_do_anything_with_the_sensitive_table(deployed: Deployed) -> None:
    """Catches one action, of one role, that the Deny does not cover: on the table, its index, its stream."""
    aws = deployed.aws
    before = deployed.items(SENSITIVE)
    assert before
    calls = dynamodb_calls(SENSITIVE, aws.region, aws.account_id)
    assert {"Scan", "Query", "GetItem", "PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem"} < set(calls)
    assert {
        "BatchGetItem",
        "DeleteTable",
        "CreateBackup",
        "RestoreTableToPointInTime",
        "ExportTableToPointInTime",
    } < set(calls)
    assert len(calls) >= 40
    stream = f"arn:aws:dynamodb:{aws.region}:{aws.account_id}:table/{SENSITIVE}/stream/2026-01-01T00:00:00.000"
    index = {"TableName": SENSITIVE, "IndexName": "by-name", "KeyConditionExpression": "a = :a"}
    for role in deployed_roles(deployed).values():
        client, streams = aws.client_as(role.arn, "dynamodb"), aws.client_as(role.arn, "dynamodbstreams")
        open_to_it = [
            operation
            for operation, arguments in calls.items()
            if outcome(client, ("dynamodb", _method(operation), arguments)) != "denied"
        ]
        assert open_to_it == [], role.name
        for call in (
            ("dynamodb", "scan", {"TableName": SENSITIVE, "IndexName": "by-name"}),
            ("dynamodb", "query", index),
        ):
            assert outcome(client, call) == "denied", role.name
        assert outcome(streams, ("", "describe_stream", {"StreamArn": stream})) == "denied", role.name
        asked = {"StreamArn": stream, "ShardId": "shardId-00000000000000000000-00000000", "ShardIteratorType": "LATEST"}
        assert outcome(streams, ("", "get_shard_iterator", asked)) == "denied", role.name
    assert deployed.items(SENSITIVE) == before
    # The same calls pass where nobody is denied: it was IAM that refused, not the shape of the call.
    root = deployed.client("dynamodb")
    harmless = [name for name in calls if name.startswith(("Describe", "Get", "List", "Query", "Scan"))]
    assert len(harmless) >= 10
    assert {outcome(root, ("dynamodb", _method(name), calls[name])) for name in harmless} == {"allowed"}
    # The widest Allow of this stack covers the sensitive table, so it was the Deny that refused.
    copy = deployed_roles(deployed)["copy-segment"].name
    scans = [e for e in aws.iam_log() if e["action"] == "dynamodb:Scan" and f"/{copy}/" in e["principal"]]
    assert {e["decision"] for e in scans if e["resource"].endswith(f"table/{SENSITIVE}")} == {"Deny"}


def _method(operation: str) -> str:
    from botocore import xform_name

    return str(xform_name(operation))


def test_no_machine_can_do_anything_with_the_sensitive_table(deployed: Deployed) -> None:
    """Catches a state of a machine through which the sensitive table could be read, restored or deleted."""
    calls = dynamodb_calls(SENSITIVE, deployed.aws.region, deployed.aws.account_id)
    tasks = {operation: (f"arn:aws:states:::aws-sdk:dynamodb:{operation[0].lower()}{operation[1:]}", arguments)
             for operation, arguments in calls.items()}  # fmt: skip
    for role in machine_roles(deployed):
        answers = carried_out(deployed, role, tasks)
        assert len(answers) == len(calls)
        assert {answer for answer in answers.values() if "not authorized to perform: dynamodb:" not in answer} == set()
        explicit = [answer for answer in answers.values() if "explicit deny" in answer]
        assert len(explicit) >= 30, role.name


def machine_roles(deployed: Deployed) -> list[DeployedRole]:
    """The roles of the state machines."""
    roles = [role for role in deployed_roles(deployed).values() if role.service == "states.amazonaws.com"]
    assert len(roles) >= 4
    return roles


def carried_out(deployed: Deployed, role: DeployedRole, tasks: dict[str, tuple[str, Any]]) -> dict[str, str]:
    """Carry out tasks in one execution with this role: name of the task → "ok", or the cause of its failure."""
    branches = [
        {
            "StartAt": name,
            "States": {
                name: {
                    "Type": "Task",
                    "Resource": resource,
                    "Arguments": json.loads(json.dumps(arguments, default=str)),
                    "Output": {"name": name, "answer": "ok"},
                    "Catch": [
                        {
                            "ErrorEquals": ["States.ALL"],
                            "Output": {"name": name, "answer": "{% $states.errorOutput.Cause %}"},
                            "Next": f"{name} failed",
                        }
                    ],
                    "End": True,
                },
                f"{name} failed": {"Type": "Succeed"},
            },
        }
        for name, (resource, arguments) in tasks.items()
    ]
    definition = {
        "QueryLanguage": "JSONata",
        "StartAt": "All",
        "States": {"All": {"Type": "Parallel", "Branches": branches, "End": True}},
    }
    machines = deployed.client("stepfunctions")
    machine = machines.create_state_machine(
        name=f"probe-{role.thing}"[:80], roleArn=role.arn, definition=json.dumps(definition)
    )["stateMachineArn"]
    ended = deployed.finish(deployed.start(machine, {}))
    machines.delete_state_machine(stateMachineArn=machine)
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    return {answer["name"]: answer["answer"] for answer in json.loads(ended["output"])}


def sdk(operation: str, **arguments: Any) -> tuple[str, Any]:
    """A task that calls DynamoDB."""
    return (f"arn:aws:states:::aws-sdk:dynamodb:{operation}", arguments)


def invocation(name: str) -> tuple[str, Any]:
    """A task that invokes a function of the recovery, or another."""
    return (
        "arn:aws:states:::lambda:invoke",
        {"FunctionName": f"arn:aws:lambda:us-east-1:000000000000:function:{name}"},
    )


def start_of(machine: str) -> tuple[str, Any]:
    """A task that starts an execution."""
    arn = f"arn:aws:states:us-east-1:000000000000:stateMachine:{machine}"
    return ("arn:aws:states:::states:startExecution", {"StateMachineArn": arn, "Input": {}})


def on_protected(table: str) -> dict[str, tuple[str, Any]]:
    """Tasks that read, change or delete a protected table, and restores of it to where they have no business."""
    return {
        "scan": sdk("scan", TableName=table),
        "put": sdk("putItem", TableName=table, Item=KEY),
        "delete": sdk("deleteTable", TableName=table),
        "restore elsewhere": sdk(
            "restoreTableToPointInTime",
            SourceTableName=table,
            TargetTableName="stolen",
            UseLatestRestorableTime=True,
        ),
    }


def test_a_machine_can_do_its_own_work_and_nothing_else(narrow: Deployed) -> None:
    """Catches a machine that could delete a live table, act on another's, start another, or call any function."""
    roles = deployed_roles(narrow)
    forbidden = {
        "orchestrator": {
            **on_protected(TABLE),
            "backup of another": sdk("createBackup", TableName=OTHER_SCHEMA, BackupName="x"),
            "purge": invocation(RECOVERY),
            "app": invocation(APP),
            "other machine": start_of("probe-other"),
        },
        f"hard-reset-{TABLE}": {
            **on_protected(TABLE),
            "backup of another": sdk("createBackup", TableName="local-languages", BackupName="x"),
            "temporary table": sdk("deleteTable", TableName=SOURCE),
            "freeze": invocation("local-dr-freeze-functions"),
            "app": invocation(APP),
            "orchestrator": start_of("local-dr-orchestrator"),
            "another's reset": start_of("local-dr-hard-reset-local-languages"),
        },
    }
    own = {
        "orchestrator": {
            "look": sdk("describeTable", TableName=SOURCE),
            "backup": sdk("createBackup", TableName=TABLE, BackupName="own"),
            "unlock": ("arn:aws:states:::lambda:invoke", {**invocation("local-dr-unlock")[1], "Payload": UNLOCK}),
        },
        f"hard-reset-{TABLE}": {
            "backup": sdk("createBackup", TableName=TABLE, BackupName="own"),
            "unlock": ("arn:aws:states:::lambda:invoke", {**invocation("local-dr-unlock")[1], "Payload": UNLOCK}),
        },
    }
    for thing, tasks in forbidden.items():
        denied = carried_out(narrow, roles[thing], tasks)
        assert {name: answer for name, answer in denied.items() if "is not authorized to perform" not in answer} == {}
        assert carried_out(narrow, roles[thing], own[thing]) == dict.fromkeys(own[thing], "ok")


UNLOCK = {"incidentId": None, "executionArn": "none", "tableName": None, "orchestratorExecutionArn": None}
"""What makes the function unlock do nothing."""


def test_the_machines_of_all_tables_have_the_same_permissions(narrow: Deployed) -> None:
    """Catches one table's machine that may do more than the others: the test above looks at one."""
    texts = {
        json.dumps(role.statements, sort_keys=True).replace(thing.removeprefix("hard-reset-"), "TABLE")
        for thing, role in deployed_roles(narrow).items()
        if thing.startswith("hard-reset-")
    }
    assert len(texts) == 1
