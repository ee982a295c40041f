"""The freeze, executed: provisioned concurrency, functions that come during the restore, and stream consumers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from localaws.sample import bundle
from statemachines.orchestrator import FREEZE_ROUNDS

from .conftest import FUNCTIONS, NOTHING, OUTSIDE, Deployed, create_function, deployed_stack, request
from .test_recovery import prepared

SETTINGS = {**FUNCTIONS, OUTSIDE: 3}
TABLE = "local-licenses"
SEEN = "seen-records"
MANY = 120  # functions: Lambda lists 50 a page
# Notes each record that it gets in a table that nobody recovers, by its sequence number: a batch whose invocation ran
# out of time comes again, whole, so a counter would count records twice on a slow machine.
CONSUMER = f"""
import boto3
def handler(event, context):
    with boto3.resource("dynamodb").Table("{SEEN}").batch_writer() as table:
        for record in event["Records"]:
            change = record["eventName"] + " " + record["dynamodb"]["Keys"]["code"]["S"]
            table.put_item(Item={{"id": record["dynamodb"]["SequenceNumber"], "change": change}})
"""


@pytest.fixture(scope="module")
def deployed() -> Iterator[Deployed]:
    """The local stack in a world where a discard's two minutes take three seconds, and 60 seconds of age one."""
    yield from deployed_stack({}, wait_scale="0.025", more={"LOCAL_AWS_RECORD_AGE_SCALE": "0.01"})


def allow(deployed: Deployed, function: str) -> None:
    """Let a function's role use the table of records."""
    statement = {"Effect": "Allow", "Action": "dynamodb:*", "Resource": "*"}
    deployed.client("iam").put_role_policy(
        RoleName=f"{function}-role",
        PolicyName="note",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [statement]}),
    )


@pytest.fixture(scope="module")
def consumers(deployed: Deployed) -> dict[str, str]:
    """Consumers of the table's stream in the system, enabled and not, and one outside: name → id of its mapping."""
    dynamodb, lambdas = deployed.client("dynamodb"), deployed.client("lambda")
    dynamodb.create_table(
        TableName=SEEN,
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        BillingMode="PAY_PER_REQUEST",
    )
    stream = dynamodb.update_table(
        TableName=TABLE, StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}
    )["TableDescription"]["LatestStreamArn"]
    mappings = {}
    for name, source in {"local-app-consumer": CONSUMER, "local-app-off": NOTHING, "outside-consumer": NOTHING}.items():
        create_function(deployed.aws, name, None, source)
        allow(deployed, name)
        mappings[name] = lambdas.create_event_source_mapping(
            EventSourceArn=stream,
            FunctionName=name,
            StartingPosition="TRIM_HORIZON",
            BatchSize=100,
            Enabled=name != "local-app-off",
            MaximumRecordAgeInSeconds=7200,
        )["UUID"]
    return mappings


def mapping(deployed: Deployed, uuid: str) -> tuple[str, int]:
    """A mapping's state and maximum record age."""
    found = deployed.client("lambda").get_event_source_mapping(UUID=uuid)
    return found["State"], found.get("MaximumRecordAgeInSeconds", -1)


def seen(deployed: Deployed) -> Counter[str]:
    """How many records of which change the consumer got."""
    pages = deployed.client("dynamodb").get_paginator("scan").paginate(TableName=SEEN, ConsistentRead=True)
    return Counter(item["change"]["S"] for page in pages for item in page["Items"])


def mark(deployed: Deployed, code: str) -> Counter[str]:
    """Write one more item and wait until the consumer got it: the stream is in order, so all before it has passed.

    Returns all that the consumer got up to then. Each question is a request, so nothing spins idly.
    """
    deployed.client("dynamodb").put_item(TableName=TABLE, Item={"country": {"S": "mark"}, "code": {"S": code}})
    for _ in range(2000):
        counts = seen(deployed)
        if f"INSERT {code}" in counts:
            return counts
    raise AssertionError(f"{code} did not come; found {len(counts)} changes")


def recovered(deployed: Deployed, incident: str, **more: Any) -> tuple[Mapping[str, Any], Counter[str]]:
    """Damage the table, recover; returns the report, and what the consumer got of the recovery."""
    point, good = prepared(deployed, TABLE)
    before = mark(deployed, f"{incident}-before")
    assert before, "the consumer works"
    ended = deployed.recover(request(point, TABLE, incident=incident, **more))
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    assert deployed.items(TABLE) == good[TABLE]
    after = mark(deployed, f"{incident}-after")
    assert after.pop(f"INSERT {incident}-after") == 1
    bucket, key = json.loads(ended["output"])["reportUri"].removeprefix("s3://").split("/", 1)
    report: Mapping[str, Any] = json.loads(deployed.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read())
    return report, after - before


def test_provisioned_concurrency_comes_back(deployed: Deployed) -> None:
    """Catches a recovery that AWS refuses from the first step on, or that leaves functions cold."""
    lambdas = deployed.client("lambda")
    version = lambdas.publish_version(FunctionName="local-app-api")["Version"]
    lambdas.create_alias(FunctionName="local-app-api", Name="live", FunctionVersion=version)
    lambdas.put_provisioned_concurrency_config(
        FunctionName="local-app-api", Qualifier="live", ProvisionedConcurrentExecutions=4
    )

    def provisioned() -> list[tuple[str, int]]:
        configs = lambdas.list_provisioned_concurrency_configs(FunctionName="local-app-api")
        return [
            (config["FunctionArn"].rpartition(":")[2], config["RequestedProvisionedConcurrentExecutions"])
            for config in configs["ProvisionedConcurrencyConfigs"]
        ]

    with pytest.raises(lambdas.exceptions.InvalidParameterValueException):
        lambdas.put_function_concurrency(FunctionName="local-app-api", ReservedConcurrentExecutions=0)
    assert provisioned() == [("live", 4)]
    point, good = prepared(deployed, "local-languages")
    ended = deployed.recover(request(point, "local-languages", incident="provisioned"))
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    assert deployed.items("local-languages") == good["local-languages"]
    assert provisioned() == [("live", 4)]
    assert deployed.concurrency() == SETTINGS
    lambdas.delete_provisioned_concurrency_config(FunctionName="local-app-api", Qualifier="live")


def expected_consumers(consumers: dict[str, str]) -> list[dict[str, Any]]:
    """What the plan and the report say of them."""
    return [
        {
            "tableName": TABLE,
            "functionName": name,
            "uuid": uuid,
            "enabled": name != "local-app-off",
            "frozen": name != "outside-consumer",
        }
        for name, uuid in consumers.items()
    ]


def test_replay_delivers_the_reset(deployed: Deployed, consumers: dict[str, str]) -> None:
    """Catches a consumer that misses what the reset did, and keeps a copy of the damage."""
    settings = {name: mapping(deployed, uuid) for name, uuid in consumers.items()}
    report, got = recovered(deployed, "replay")
    (table,) = report["tables"]
    assert sum(count for change, count in got.items() if change.startswith("REMOVE")) == table["purgedItems"] > 100
    assert sum(count for change, count in got.items() if change.startswith("INSERT")) == table["copiedItems"] > 100
    assert {name: mapping(deployed, uuid) for name, uuid in consumers.items()} == settings
    assert report["streamConsumers"] == expected_consumers(consumers)
    assert [entry["discarded"] for entry in report["eventSourceMappings"]] == [False]


def test_discard_skips_the_reset_and_nothing_after_it(deployed: Deployed, consumers: dict[str, str]) -> None:
    """Catches a consumer that gets a delete and a put of every item after all, or that drops records from then on."""
    settings = {name: mapping(deployed, uuid) for name, uuid in consumers.items()}
    assert settings["local-app-consumer"] == ("Enabled", 7200)
    report, got = recovered(deployed, "discard", streamPolicy="discard")
    assert report["tables"][0]["purgedItems"] > 100
    assert got == Counter()
    assert {name: mapping(deployed, uuid) for name, uuid in consumers.items()} == settings
    assert report["streamConsumers"] == expected_consumers(consumers)
    assert [entry["discarded"] for entry in report["eventSourceMappings"]] == [True]
    assert deployed.concurrency() == SETTINGS


def test_a_dry_run_names_the_consumers(deployed: Deployed, consumers: dict[str, str]) -> None:
    """Catches an operator who learns of a consumer outside the system only from its owners."""
    ended = deployed.recover(request(deployed.restore_point(), TABLE, incident="plan", dryRun=True))
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    output = json.loads(ended["output"])
    assert output["streamConsumers"] == expected_consumers(consumers)
    none = deployed.recover(request(deployed.restore_point(), "local-languages", incident="plan", dryRun=True))
    assert json.loads(none["output"])["streamConsumers"] == []


def entered(deployed: Deployed, execution: str, state: str) -> int:
    """How often a state was entered."""
    events = deployed.history(execution)
    return sum(event.get("stateEnteredEventDetails", {}).get("name") == state for event in events)


def during_the_preparation(deployed: Deployed) -> None:
    """Wait until a restored table is there: the first freeze is over, and the restore is looked at a second later."""
    for _ in range(2000):
        if deployed.temporary_tables():
            return
    raise AssertionError("no restore began")


def test_what_comes_during_the_restore_is_frozen_and_backed_up(deployed: Deployed) -> None:
    """Catches a function that is deployed while the tables are restored, and writes into them during the purge."""
    lambdas = deployed.client("lambda")
    point, good = prepared(deployed, "local-languages")
    execution = deployed.start(
        deployed.outputs["orchestratorStateMachineArn"], request(point, "local-languages", incident="deployment")
    )
    during_the_preparation(deployed)
    create_function(deployed.aws, "local-app-new", 6)
    lambdas.put_function_concurrency(FunctionName="local-app-free", ReservedConcurrentExecutions=9)
    deployed.client("dynamodb").put_item(TableName="local-languages", Item={"code": {"S": "late"}})
    ended = deployed.finish(execution)
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    assert deployed.items("local-languages") == good["local-languages"]
    assert entered(deployed, execution, "Prepare every table") == 2
    assert entered(deployed, execution, "Freeze what is new") == 2
    # The new one has its own setting back, and the one that was set by hand what it was set to.
    assert deployed.concurrency() == {**SETTINGS, "local-app-free": 9}
    assert lambdas.get_function_concurrency(FunctionName="local-app-new")["ReservedConcurrentExecutions"] == 6
    lambdas.delete_function_concurrency(FunctionName="local-app-free")
    backups = deployed.client("dynamodb").list_backups(TableName="local-languages")["BackupSummaries"]
    assert sum(backup["BackupName"] == "dr-deployment" for backup in backups) == 2
    assert json.loads(ended["output"])["frozenFunctions"] == json.loads(ended["output"])["releasedFunctions"]


def test_a_system_that_does_not_stay_frozen_is_not_purged(deployed: Deployed) -> None:
    """Catches a purge below a system that somebody keeps starting."""
    lambdas = deployed.client("lambda")
    point, _ = prepared(deployed, "local-languages")
    damaged = deployed.items("local-languages")
    execution = deployed.start(
        deployed.outputs["orchestratorStateMachineArn"], request(point, "local-languages", incident="restless")
    )
    while deployed.client("stepfunctions").describe_execution(executionArn=execution)["status"] == "RUNNING":
        lambdas.put_function_concurrency(FunctionName="local-app-api", ReservedConcurrentExecutions=5)
    ended = deployed.finish(execution)
    assert (ended["status"], ended["error"]) == ("FAILED", "FreezeIncomplete"), ended.get("cause")
    assert "local-app-api" in ended["cause"]
    assert "local-app-free" not in ended["cause"]
    assert entered(deployed, execution, "Prepare every table") == 1 + FREEZE_ROUNDS
    assert entered(deployed, execution, "Reset every table") == 0
    assert deployed.items("local-languages") == damaged
    assert deployed.concurrency() == SETTINGS


def test_more_functions_than_a_page(deployed: Deployed) -> None:
    """Catches functions behind the first page of a list that go on writing, or come back with another's setting.

    2,000 of them, which take minutes to make and to freeze here, are tests/properties/test_freeze_scale.py's.
    """
    lambdas = deployed.client("lambda")
    create_function(deployed.aws, "local-app-many", 1)
    role = lambdas.get_function_configuration(FunctionName="local-app-many")["Role"]
    many: dict[str, int | None] = {f"local-app-many-{number:04d}": (None, 0, 4)[number % 3] for number in range(MANY)}
    for name, reserved in many.items():
        lambdas.create_function(
            FunctionName=name,
            Runtime="python3.12",
            Handler="app.handler",
            Role=role,
            Code={"ZipFile": bundle(NOTHING)},
            Timeout=3,
        )
        if reserved is not None:
            lambdas.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=reserved)
    point, good = prepared(deployed, "local-languages")
    ended = deployed.finish(
        deployed.start(
            deployed.outputs["orchestratorStateMachineArn"], request(point, "local-languages", incident="many")
        ),
        seconds=600,
    )
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    assert deployed.items("local-languages") == good["local-languages"]
    output = json.loads(ended["output"])
    assert output["frozenFunctions"] == output["releasedFunctions"] > MANY
    after = {
        name: lambdas.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions") for name in many
    }
    assert after == many
    for name in (*many, "local-app-many"):
        lambdas.delete_function(FunctionName=name)
