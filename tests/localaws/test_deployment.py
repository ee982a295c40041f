"""The stand-in for the Pulumi engine: what it makes, and what it refuses as engine, provider and AWS would."""

import json
from pathlib import Path
from typing import Any

import pytest

from localaws.deployment import DeploymentError, deploy, plan, read_config
from localaws.engine.limits import Limits
from localaws.engine.resources import CREATORS
from localaws.engine.schema import InputError, check_inputs
from localaws.server import EmbeddedAws

from .conftest import FIXTURES, Machines

SAMPLE = FIXTURES / "sample"
FAULTY = FIXTURES / "faulty"


def test_a_program_is_deployed_runs_and_fails_without_a_permission(aws: EmbeddedAws, machines: Machines) -> None:
    """Would catch: a deployment that creates nothing, or a machine that needs no permission."""
    outputs = deploy(SAMPLE, "local", aws)
    assert outputs["greeting"] == "hello"
    assert outputs["items"] == {"count": 2, "list": ["one", "two"]}
    execution = machines.wait(machines.start(outputs["machineArn"], {"item": "x"}))
    assert execution["output"] == {"written": "x"}
    written = aws.client("dynamodb").get_item(TableName=outputs["tableName"], Key={"pk": {"S": "x"}})
    assert "Item" in written
    caught = machines.wait(machines.start(outputs["machineArn"], {"item": "refused"}))
    assert caught["error"] == "AppRefusedError"
    iam = aws.client("iam")
    iam.delete_role_policy(RoleName="sample-function", PolicyName="write")
    denied = machines.wait(machines.start(outputs["machineArn"], {"item": "y"}))
    assert "AccessDenied" in denied["cause"]
    iam.delete_role_policy(RoleName="sample-machine", PolicyName="run")
    refused = machines.wait(machines.start(outputs["machineArn"], {"item": "y"}))
    assert refused["error"] == "Lambda.AWSLambdaException"
    described = aws.client("dynamodb").describe_table(TableName=outputs["tableName"])["Table"]
    assert described["DeletionProtectionEnabled"]
    assert aws.client("s3").get_bucket_versioning(Bucket="sample-000000000000-us-east-1")["Status"] == "Enabled"
    group = aws.client("logs").describe_log_groups(logGroupNamePrefix="/aws/vendedlogs/states/sample")["logGroups"][0]
    assert group["retentionInDays"] == 30
    # The same names again: the service's own refusal must come through.
    with pytest.raises(DeploymentError, match=r"EntityAlreadyExists|ResourceInUse|already exist"):
        deploy(SAMPLE, "local", aws)


def test_a_plan_tells_types_options_and_outputs() -> None:
    """Would catch: tests of the infrastructure that look at a list which lost parents, protection or dependencies."""
    planned = plan(SAMPLE, "local", {"greeting": "hi"})
    by_name = {resource.name: resource for resource in planned}
    assert planned.outputs["greeting"] == "hi"
    assert planned.outputs["functionArn"] == "arn:aws:lambda:us-east-1:000000000000:function:sample-function"
    table = by_name["storage-table"]
    assert table.urn == "urn:pulumi:local::sample::sample:index:Storage$aws:dynamodb/table:Table::storage-table"
    assert table.options["protect"] is True
    assert table.options["retain_on_delete"] is True
    assert table.options["parent"] == by_name["storage"].urn
    assert by_name["storage"].custom is False
    assert by_name["machine-policy"].urn in by_name["machine"].options["depends_on"]
    assert by_name["topic"].options["protect"] is False
    assert by_name["function"].inputs["code"] == {"archive": ["app.py"]}
    assert by_name["function"].inputs["environment"] == {"variables": {"TABLE": "sample-table"}}
    assert len(planned) == 12


FAULTS = {
    "raises": "ValueError: the program's own sentence",
    "apply raises": "ZeroDivisionError",
    "nested key": "versioningConfiguration: unknown input 'statuss'",
    "wrong type": "timeout: expected a number, found 'soon'",
    "missing input": "'policy'",
    "role name": "has 65 characters; AWS takes 64",
    "function name": "has 65 characters; AWS takes 64",
    "machine name": "has 81 characters; AWS takes 80",
    "bucket name": "has 64 characters; AWS takes 63",
    "topic name": "has 257 characters; AWS takes 256",
    "policy size": "AWS takes 10240",
    "policy json": "policy: not valid JSON",
    "definition json": "definition: not valid JSON",
    "duplicate": "Duplicate resource URN",
    "environment size": "AWS takes 4096",
    "description": "257 characters; AWS takes 256",
    "unknown type": "cannot create the resource type aws:ec2/vpc:Vpc",
    "unsupported input": "does not support the inputs tracingConfig",
    "unused attribute": "Unused: \\['b'\\]",
    "log destination": "must end with ':\\*'",
    "missing file": "cannot be read|gone.py",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_error_is_found(fault: str) -> None:
    """Would catch: a check that does not check; each fault is one that Pulumi's mocks let pass or hang on."""
    with pytest.raises(DeploymentError, match=FAULTS[fault]):
        plan(FAULTY, "local", {"fault": fault})


def test_configuration_is_read_as_the_engine_reads_it(tmp_path: Path) -> None:
    """Would catch: lists handed to the program as Python objects, which the real engine never does."""
    project = "name: p\nconfig:\n  size:\n    type: integer\n    default: 3\n  aws:region:\n    value: eu-west-1\n"
    folder = tmp_path
    (folder / "Pulumi.yaml").write_text(project)
    (folder / "Pulumi.s.yaml").write_text("config:\n  p:list: [1, {a: b}]\n  p:flag: true\n  p:text: abc\n")
    name, config = read_config(folder, "s", {"text": "over"})
    assert name == "p"
    assert config == {
        "p:size": "3",
        "aws:region": "eu-west-1",
        "p:list": '[1, {"a": "b"}]',
        "p:flag": "true",
        "p:text": "over",
    }


@pytest.mark.parametrize(
    ("project", "stack", "message"),
    [
        ("name: p\nconfig:\n  n: {type: string}\n", "config: {}\n", "missing configuration value 'p:n'"),
        ("name: p\nconfig:\n  n: {type: array}\n", "config: {p:n: text}\n", "must be of type 'array'"),
        ("name: p\n", "config: {p:n: {secure: abc}}\n", "encrypted secret"),
    ],
)
def test_configuration_errors_are_found(tmp_path: Path, project: str, stack: str, message: str) -> None:
    """Would catch: a stack file that the Pulumi CLI refuses and the rehearsal takes."""
    (tmp_path / "Pulumi.yaml").write_text(project)
    (tmp_path / "Pulumi.s.yaml").write_text(stack)
    with pytest.raises(DeploymentError, match=message):
        read_config(tmp_path, "s", {})


def test_a_missing_stack_is_named() -> None:
    """Would catch: a misspelt stack deployed with no configuration at all."""
    with pytest.raises(DeploymentError, match=r"Pulumi\.gone\.yaml does not exist"):
        plan(SAMPLE, "gone")


@pytest.mark.parametrize("token", CREATORS)
def test_every_creatable_type_can_be_checked(token: str) -> None:
    """Would catch: a resource type whose inputs are not checked because its class is not found."""
    with pytest.raises(InputError, match="unknown input 'nonsense'"):
        check_inputs(token, "name", {"nonsense": 1})


@pytest.mark.parametrize(
    ("token", "inputs", "message"),
    [
        ("aws:sns/topic:Topik", {}, "misspelt"),
        ("gcp:storage/bucket:Bucket", {}, "not of the AWS provider"),
        ("aws:iam/rolePolicy:RolePolicy", {"policy": "{}"}, "required input 'role' is missing"),
        ("aws:dynamodb/table:Table", {"attributes": {"name": "a"}}, r"attributes: expected a list"),
        ("aws:dynamodb/table:Table", {"attributes": [{"name": "a"}]}, r"attributes\[0\]: the required input 'type'"),
        ("aws:dynamodb/table:Table", {"streamEnabled": "yes"}, "expected true or false"),
        ("aws:dynamodb/table:Table", {"readCapacity": 1.5}, "expected a whole number"),
        ("aws:dynamodb/table:Table", {"tags": {"a": 1}}, "expected a string"),
        ("aws:lambda/function:Function", {"role": "r", "code": "app.zip"}, "expected an archive"),
    ],
)
def test_inputs_are_held_to_the_providers_types(token: str, inputs: dict[str, Any], message: str) -> None:
    """Would catch: an input of the wrong shape that boto3 would take and the provider refuse."""
    with pytest.raises(InputError, match=message):
        check_inputs(token, "name", inputs)


def test_policies_of_one_role_are_counted_together() -> None:
    """Would catch: many small policies that together pass the limit of 10,240 characters."""
    limits = Limits()
    policy = json.dumps({"Version": "2012-10-17", "Statement": ["x" * 5_000]})
    limits.check("aws:iam/rolePolicy:RolePolicy", "one", {"role": "a", "policy": policy})
    limits.check("aws:iam/rolePolicy:RolePolicy", "two", {"role": "b", "policy": policy})
    limits.check("aws:iam/rolePolicy:RolePolicy", "three", {"role": "a", "policy": policy})
    with pytest.raises(InputError, match="AWS takes 10240"):
        limits.check("aws:iam/rolePolicy:RolePolicy", "four", {"role": "a", "policy": policy})


def test_several_deployments_in_one_process() -> None:
    """Would catch: settings of one deployment that leak into the next, or a failed one that blocks it."""
    with pytest.raises(DeploymentError):
        plan(FAULTY, "local", {"fault": "raises"})
    assert plan(SAMPLE, "local").outputs == plan(SAMPLE, "local").outputs
