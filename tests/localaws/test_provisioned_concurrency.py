"""Provisioned concurrency and record ages in the embedded AWS."""

import json
from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from localaws.emulator import record_age
from localaws.server import EmbeddedAws

SOURCE = "def handler(event, context):\n    return event\n"


@pytest.fixture
def name(aws: EmbeddedAws, function: Callable[..., str]) -> str:
    """A function with the alias live and version 1."""
    name = function(SOURCE).rpartition(":")[2]
    lambdas = aws.client("lambda")
    version = lambdas.publish_version(FunctionName=name)["Version"]
    lambdas.create_alias(FunctionName=name, Name="live", FunctionVersion=version)
    return name


def refused(call: Callable[..., Any], **arguments: Any) -> str:
    """The code of the error that a call must raise."""
    with pytest.raises(ClientError) as failure:
        call(**arguments)
    return str(failure.value.response["Error"]["Code"])


def listed(aws: EmbeddedAws, name: str) -> dict[str, int]:
    """What is provisioned, by alias or version."""
    configs = aws.client("lambda").list_provisioned_concurrency_configs(FunctionName=name)
    return {
        config["FunctionArn"].rpartition(f"{name}:")[2]: config["RequestedProvisionedConcurrentExecutions"]
        for config in configs["ProvisionedConcurrencyConfigs"]
    }


def test_the_list_has_every_configuration(aws: EmbeddedAws, name: str) -> None:
    """Would catch: a list that is empty or refused, so that a freeze deletes nothing and is refused for ever."""
    lambdas = aws.client("lambda")
    assert listed(aws, name) == {}
    for qualifier, number in (("live", 3), ("1", 2)):
        lambdas.put_provisioned_concurrency_config(
            FunctionName=name, Qualifier=qualifier, ProvisionedConcurrentExecutions=number
        )
    assert listed(aws, name) == {"live": 3, "1": 2}
    one = lambdas.get_provisioned_concurrency_config(FunctionName=name, Qualifier="live")
    assert one["RequestedProvisionedConcurrentExecutions"] == 3
    lambdas.delete_provisioned_concurrency_config(FunctionName=name, Qualifier="1")
    assert listed(aws, name) == {"live": 3}
    assert refused(lambdas.list_provisioned_concurrency_configs, FunctionName="no-such") == "ResourceNotFoundException"


def test_what_is_reserved_and_what_is_provisioned_must_agree(aws: EmbeddedAws, name: str) -> None:
    """Would catch: a freeze that works here and is refused by AWS."""
    lambdas = aws.client("lambda")
    provision = lambdas.put_provisioned_concurrency_config
    provision(FunctionName=name, Qualifier="live", ProvisionedConcurrentExecutions=3)
    reserve = lambdas.put_function_concurrency
    for number in (0, 2):
        code = refused(reserve, FunctionName=name, ReservedConcurrentExecutions=number)
        assert code == "InvalidParameterValueException"
    assert "ReservedConcurrentExecutions" not in lambdas.get_function_concurrency(FunctionName=name)
    reserve(FunctionName=name, ReservedConcurrentExecutions=4)
    more = {"FunctionName": name, "Qualifier": "1", "ProvisionedConcurrentExecutions": 2}
    assert refused(provision, **more) == "InvalidParameterValueException"
    provision(**{**more, "ProvisionedConcurrentExecutions": 1})
    latest = {"FunctionName": name, "Qualifier": "$LATEST", "ProvisionedConcurrentExecutions": 1}
    assert refused(provision, **latest) == "InvalidParameterValueException"


def test_permissions_have_their_own_names(aws: EmbeddedAws, name: str, role: Callable[..., str]) -> None:
    """Would catch: a role without a permission that AWS demands, which nothing here would miss."""
    statement = {"Effect": "Allow", "Action": ["lambda:ListProvisionedConcurrencyConfigs"], "Resource": "*"}
    credentials = aws.client("sts").assume_role(RoleArn=role([statement]), RoleSessionName="freezer")["Credentials"]
    session = boto3.Session(
        aws_access_key_id=credentials["AccessKeyId"],
        aws_secret_access_key=credentials["SecretAccessKey"],
        aws_session_token=credentials["SessionToken"],
        region_name="us-east-1",
    )
    lambdas = session.client("lambda", endpoint_url=aws.client("lambda").meta.endpoint_url)
    assert lambdas.list_provisioned_concurrency_configs(FunctionName=name)["ProvisionedConcurrencyConfigs"] == []
    one = {"FunctionName": name, "Qualifier": "live"}
    for call in (
        lambda: lambdas.delete_provisioned_concurrency_config(**one),
        lambda: lambdas.put_provisioned_concurrency_config(**one, ProvisionedConcurrentExecutions=1),
        lambda: lambdas.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0),
        lambda: lambdas.get_function_concurrency(FunctionName=name),
        lambda: lambdas.get_event_source_mapping(UUID="0" * 36),
        lambda: lambdas.update_event_source_mapping(UUID="0" * 36, Enabled=True),
    ):
        assert refused(call).startswith("AccessDenied")


def test_a_scaled_age_reads_as_it_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch: a release that finds another age than the one the discard has set, and leaves it."""
    monkeypatch.setenv("LOCAL_AWS_RECORD_AGE_SCALE", "0.1")
    age = record_age.ScaledAge(600)
    assert (json.dumps(age), age == 600, int(age)) == ("600", True, 60)
    assert int(record_age.ScaledAge(1)) == 1
    monkeypatch.delenv("LOCAL_AWS_RECORD_AGE_SCALE")
    assert int(age) == 600
