"""One embedded AWS for the whole folder; every test makes things under names of its own."""

import io
import itertools
import json
import textwrap
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from localaws.server import EmbeddedAws

FIXTURES = Path(__file__).parent / "fixtures"
PATIENCE_SECONDS = 30.0

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def aws() -> Iterator[EmbeddedAws]:
    """A server whose waits, restores and backups are short."""
    settings = {
        "LOCAL_AWS_WAIT_SCALE": "0.01",
        "LOCAL_AWS_RESTORE_SECONDS": "0.3",
        "LOCAL_AWS_BACKUP_SECONDS": "0.3",
    }
    with EmbeddedAws(settings=settings) as server:
        yield server


@pytest.fixture
def fresh() -> Callable[[str], str]:
    """A name nobody else uses: prefix → prefix-number."""
    return lambda prefix: f"{prefix}-{next(_numbers)}"


def until(condition: Callable[[], Any]) -> Any:
    """Ask until the answer is true and return it; each question is a request, so nothing spins idly.

    Raises:
        AssertionError: it never was.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        answer = condition()
        if answer:
            return answer
    raise AssertionError("The condition did not come true in time.")


@pytest.fixture
def table(aws: EmbeddedAws, fresh: Callable[[str], str]) -> Callable[..., str]:
    """Makes a table with keys pk (S) and sk (N) and returns its name."""

    def make(*, recovery: bool = False, sort_type: str = "N", **more: Any) -> str:
        name = fresh("table")
        dynamodb = aws.client("dynamodb")
        request: dict[str, Any] = {
            "TableName": name,
            "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            "AttributeDefinitions": [
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": sort_type},
            ],
            "BillingMode": "PAY_PER_REQUEST",
        }
        dynamodb.create_table(**{**request, **more})
        if recovery:
            dynamodb.update_continuous_backups(
                TableName=name, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
            )
        return name

    return make


@pytest.fixture
def role(aws: EmbeddedAws, fresh: Callable[[str], str]) -> Callable[..., str]:
    """Makes a role that may do what the statements say (everything by default) and returns its ARN."""

    def make(statements: list[dict[str, Any]] | None = None) -> str:
        name = fresh("role")
        iam = aws.client("iam")
        trust = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": "sts:AssumeRole",
                    "Principal": {"Service": ["states.amazonaws.com", "lambda.amazonaws.com"]},
                }
            ],
        }
        arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
        allowed = [{"Effect": "Allow", "Action": "*", "Resource": "*"}] if statements is None else statements
        if allowed:
            iam.put_role_policy(
                RoleName=name,
                PolicyName="policy",
                PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": allowed}),
            )
        return str(arn)

    return make


@pytest.fixture
def function(aws: EmbeddedAws, fresh: Callable[[str], str], role: Callable[..., str]) -> Callable[..., str]:
    """Makes a Lambda function from the source of a module with a `handler` and returns its ARN."""

    def make(source: str, **more: Any) -> str:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("app.py", textwrap.dedent(source))
        request: dict[str, Any] = {
            "FunctionName": fresh("function"),
            "Role": role(),
            "Runtime": "python3.12",
            "Handler": "app.handler",
            "Timeout": 20,
            "Code": {"ZipFile": buffer.getvalue()},
        }
        return str(aws.client("lambda").create_function(**{**request, **more})["FunctionArn"])

    return make


class Machines:
    """Creates and runs state machines."""

    def __init__(self, aws: EmbeddedAws, fresh: Callable[[str], str], role: Callable[..., str]) -> None:
        self._fresh = fresh
        self._role = role
        self.client = aws.client("stepfunctions")

    def create(self, states: dict[str, Any], *, role_arn: str | None = None, **top: Any) -> str:
        """The ARN of a new machine that starts at the first of `states`."""
        definition = {"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states, **top}
        created = self.client.create_state_machine(
            name=self._fresh("machine"), definition=json.dumps(definition), roleArn=role_arn or self._role()
        )
        return str(created["stateMachineArn"])

    def start(self, arn: str, value: Any = None) -> str:
        """The ARN of a new execution."""
        text = json.dumps({} if value is None else value)
        return str(self.client.start_execution(stateMachineArn=arn, input=text)["executionArn"])

    def wait(self, execution_arn: str) -> dict[str, Any]:
        """The ended execution, `output` parsed."""

        def ended() -> dict[str, Any] | None:
            found: dict[str, Any] = self.client.describe_execution(executionArn=execution_arn)
            return None if found["status"] == "RUNNING" else found

        execution: dict[str, Any] = until(ended)
        if "output" in execution:
            execution["output"] = json.loads(execution["output"])
        return execution

    def run(self, states: dict[str, Any], value: Any = None, **options: Any) -> dict[str, Any]:
        """Create, start and wait."""
        return self.wait(self.start(self.create(states, **options), value))

    def output(self, states: dict[str, Any], value: Any = None, **options: Any) -> Any:
        """The output of a run that must succeed."""
        execution = self.run(states, value, **options)
        assert execution["status"] == "SUCCEEDED", (execution.get("error"), execution.get("cause"))
        return execution["output"]


@pytest.fixture
def machines(aws: EmbeddedAws, fresh: Callable[[str], str], role: Callable[..., str]) -> Machines:
    """State machines of a test."""
    return Machines(aws, fresh, role)
