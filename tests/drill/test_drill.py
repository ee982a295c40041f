"""The rehearsal itself: it must pass after a good recovery, and fail after one that only says it was good."""

from __future__ import annotations

import io
import json
import shlex
import socket
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws
from rich.console import Console

from localaws import drill, proof, report, sample, sample_data
from localaws.batches import put_request, write_all
from localaws.deployment import DeploymentError
from localaws.drill import Drill

START = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
LEDGER = "local-dr-ledger"
ROLE = "arn:aws:sts::123456789012:assumed-role/local-dr-copy/session"
ITEMS = sample_data.all_items()


class Functions:
    """A Lambda client over a dict of reserved concurrencies."""

    def __init__(self) -> None:
        functions = (*sample.SYSTEM_FUNCTIONS, *sample.OTHER_FUNCTIONS)
        self.saved = {each.name: each.reserved for each in functions}
        self.reserved = dict(self.saved)
        self.mapping = "Enabled"

    def freeze(self) -> None:
        """Stop the system's functions."""
        self.reserved.update({each.name: 0 for each in sample.SYSTEM_FUNCTIONS})
        self.mapping = "Disabled"

    def release(self) -> None:
        """Undo `freeze`."""
        self.reserved, self.mapping = dict(self.saved), "Enabled"

    def get_function_concurrency(self, FunctionName: str) -> dict[str, Any]:  # noqa: N803
        """GetFunctionConcurrency."""
        reserved = self.reserved[FunctionName]
        return {} if reserved is None else {"ReservedConcurrentExecutions": reserved}

    def get_paginator(self, _: str) -> Functions:
        """The paginator of ListEventSourceMappings."""
        return self

    def paginate(self, FunctionName: str) -> list[dict[str, Any]]:  # noqa: N803
        """ListEventSourceMappings."""
        arn = f"arn:aws:dynamodb:us-east-1:1:table/{sample_data.LICENSES}/stream/x"
        mapping = {"UUID": "m", "State": self.mapping, "EventSourceArn": arn}
        return [{"EventSourceMappings": [mapping] if FunctionName == sample.PROJECTOR else []}]

    def invoke(self, FunctionName: str, **_: Any) -> dict[str, Any]:  # noqa: N803
        """Invoke."""
        if self.reserved[FunctionName] == 0:
            raise ClientError({"Error": {"Code": "TooManyRequestsException", "Message": ""}}, "Invoke")
        return {}


class Execution:
    """A Step Functions client whose execution runs one callback a look, then ends."""

    def __init__(self, work: list[Callable[[], None]]) -> None:
        self.work = work
        self.end: dict[str, Any] = {}
        self.request: dict[str, Any] = {}

    def start_execution(self, input: str, **_: Any) -> dict[str, Any]:  # noqa: A002
        """StartExecution."""
        self.request = json.loads(input)
        return {"executionArn": "arn:execution"}

    def describe_execution(self, **_: Any) -> dict[str, Any]:
        """DescribeExecution."""
        if self.work:
            self.work.pop(0)()
            return {"executionArn": "arn:execution", "status": "RUNNING", "stateMachineArn": "m"}
        ended = {"executionArn": "arn:execution", "status": "SUCCEEDED", "stateMachineArn": "m", "stopDate": START}
        return ended | self.end

    def describe_state_machine(self, **_: Any) -> dict[str, Any]:
        """DescribeStateMachine."""
        return {"definition": '{"States": {"Freeze": {"Type": "Task"}}}'}

    def get_paginator(self, _: str) -> Execution:
        """The paginator of GetExecutionHistory."""
        return self

    def paginate(self, **_: Any) -> list[dict[str, Any]]:
        """GetExecutionHistory."""
        return [{"events": [{"timestamp": START, "stateEnteredEventDetails": {"name": "Freeze"}}]}]


class Cloud:
    """An account in memory whose recovery is a script."""

    endpoint_url = "http://127.0.0.1:1"

    def __init__(self) -> None:
        self.functions = Functions()
        self.execution = Execution([self.freeze, self.recover, self.tidy])
        self.dynamodb = self._boto3("dynamodb")
        self.s3 = self._boto3("s3")
        self.good: dict[str, list[dict[str, Any]]] = {}
        self.log: list[dict[str, str]] = []

    def client(self, service: str) -> Any:
        """A client of that service."""
        mine: Mapping[str, Any] = {
            "lambda": self.functions,
            "stepfunctions": self.execution,
            "dynamodb": self.dynamodb,
            "s3": self.s3,
        }
        return mine[service]

    def access_log(self, table: str | None = None) -> list[dict[str, str]]:
        """The access log."""
        return [entry for entry in self.log if entry["table"] == table]

    def touch(self, table: str, principal: str) -> None:
        """Log a request."""
        moment = datetime.now(UTC).isoformat()
        self.log.append({"time": moment, "table": table, "principal": principal, "action": "Scan"})

    def create(self, _: Any) -> None:
        """The sample application, with a few of its items."""
        for table in sample.TABLES:
            sample.create_table(self.dynamodb, table)
            self.good[table.name] = ITEMS[table.name][:20]
            write_all(self.dynamodb, table.name, map(put_request, self.good[table.name]))

    def deploy(self, *_: Any) -> dict[str, Any]:
        """The stack: a ledger and a bucket."""
        self.dynamodb.create_table(
            TableName=LEDGER,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            AttributeDefinitions=[{"AttributeName": each, "AttributeType": "S"} for each in ("pk", "sk")],
        )
        self.s3.create_bucket(Bucket="reports")
        return {"orchestratorStateMachineArn": "arn:machine", "ledgerTableName": LEDGER}

    def freeze(self) -> None:
        """The recovery freezes, and leaves a temporary table."""
        self.functions.freeze()
        for name in self.functions.reserved:
            key = {"pk": {"S": "FROZEN"}, "sk": {"S": f"FUNCTION#{name}"}}
            self.dynamodb.put_item(TableName=LEDGER, Item=key | {"state": {"S": "frozen"}})
        self.dynamodb.create_table(
            TableName="dr-local.x",
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        )

    def recover(self) -> None:
        """The recovery resets every table."""
        for table in sample.PROTECTED_TABLES:
            self.touch(table, ROLE)
            names = proof.key_names(self.dynamodb, table)
            for item in proof.scan_table(self.dynamodb, table):
                self.dynamodb.delete_item(TableName=table, Key={name: item[name] for name in names})
            write_all(self.dynamodb, table, map(put_request, self.good[table]))

    def tidy(self) -> None:
        """The recovery releases, cleans up and reports."""
        self.functions.release()
        self.dynamodb.delete_table(TableName="dr-local.x")
        content = json.dumps({"incidentId": self.incident})
        self.s3.put_object(Bucket="reports", Key="r.json", Body=content.encode())
        self.execution.end["output"] = json.dumps(
            {
                "incidentId": self.incident,
                "status": "SUCCEEDED",
                "tables": [{"tableName": name, "purgedItems": 1} for name in sample.PROTECTED_TABLES],
                "frozenFunctions": 4,
                "releasedFunctions": 4,
                "reportUri": "s3://reports/r.json",
            }
        )

    @property
    def incident(self) -> str:
        """The incident that was started."""
        return str(self.execution.request["incidentId"])

    @staticmethod
    def _boto3(service: str) -> Any:
        return boto3.client(  # type: ignore[call-overload]  # the service is a variable
            service, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
        )


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    """An account in memory; nothing waits."""
    with mock_aws():
        made = Cloud()
        monkeypatch.setattr(sample, "create", made.create)
        monkeypatch.setattr(drill, "deploy", made.deploy)
        monkeypatch.setattr(drill, "wait_until", lambda _: None)
        monkeypatch.setattr(drill, "SETTLING_SECONDS", 0.0)
        monkeypatch.setattr("localaws.progress.LOOK_EVERY_SECONDS", 0.0)
        yield made


def rehearse(cloud: Cloud) -> tuple[Drill, dict[str, Any], str]:
    """Run a drill; returns it, its report, and what it printed."""
    output = io.StringIO()
    console = Console(file=output, width=200)
    account: Any = cloud
    done = Drill(account, console, started=START)
    drill.rehearse(done)
    return done, done.result(), output.getvalue()


def test_good_recovery_passes(cloud: Cloud) -> None:
    """The drill refuses a good recovery, or its report lacks what the contract promises."""
    done, result, printed = rehearse(cloud)
    assert done.problems == []
    assert result["status"] == "SUCCEEDED"
    for table in result["tables"]:
        assert table["damagedItems"] == 12
        assert table["independentProof"] == {"equal": True, "missing": 0, "extra": 0, "changed": 0, "items": 20}
    assert result["sensitiveTables"][0]["ok"] is True
    assert [each["during"] for each in result["functions"]] == [0, 0, 0, 0, 3]
    assert result["functions"][2]["mappings"][0]["during"] == "Disabled"
    assert result["restoreDateTime"] == cloud.execution.request["restoreDateTime"]
    assert "Every table is back" in report.render(result)
    assert [check["name"] for check in result["checks"] if not check["detail"]] == []
    assert "5 of 5 settings were seen stopped at once: the reserved concurrency of 4 functions, and 1 event source" in [
        check["detail"] for check in result["checks"]
    ]
    assert "5 functions compared, 1 of them another team's, which must not be touched at all" in [
        check["detail"] for check in result["checks"]
    ]
    assert "000-00-" not in printed + json.dumps(result)


def test_recovery_that_does_nothing_fails(cloud: Cloud) -> None:
    """A recovery that only claims success passes: the rehearsal proves nothing."""
    cloud.execution.work = [cloud.freeze, cloud.tidy]
    done, result, _ = rehearse(cloud)
    assert result["status"] == "FAILED"
    assert not any(table["independentProof"]["equal"] for table in result["tables"])
    for table in sample.PROTECTED_TABLES:
        assert any(table in problem for problem in done.problems)


Sabotage = Callable[[Cloud], None]


def _read_sensitive(cloud: Cloud) -> None:
    cloud.touch(sample_data.SSN, ROLE)


def _change_sensitive(cloud: Cloud) -> None:
    cloud.dynamodb.delete_item(TableName=sample_data.SSN, Key={"ssn": {"S": "000-00-0001"}})


def _lose_one_item(cloud: Cloud) -> None:
    key = {"code": cloud.good[sample_data.LANGUAGES][7]["code"]}
    cloud.dynamodb.delete_item(TableName=sample_data.LANGUAGES, Key=key)


def _leave_a_function_frozen(cloud: Cloud) -> None:
    cloud.functions.reserved["local-app-ingest"] = 0


def _leave_a_mapping_disabled(cloud: Cloud) -> None:
    cloud.functions.mapping = "Disabled"


def _leave_a_table(cloud: Cloud) -> None:
    sample.create_table(cloud.dynamodb, sample.TableSpec(name="dr-local.left", keys=(("id", "S"),)))


def _lose_the_report(cloud: Cloud) -> None:
    cloud.s3.delete_object(Bucket="reports", Key="r.json")


def _lose_the_log(cloud: Cloud) -> None:
    cloud.log.clear()


@pytest.mark.parametrize(
    ("sabotage", "problem"),
    [
        (_read_sensitive, "local-ssn was not touched"),
        (_change_sensitive, "local-ssn was not touched"),
        (_lose_one_item, "local-languages equals"),
        (_leave_a_function_frozen, "local-app-ingest"),
        (_leave_a_mapping_disabled, "local-app-projector"),
        (_leave_a_table, "dr-local.left"),
        (_lose_the_report, "report is in S3"),
        (_lose_the_log, "local-ssn was not touched"),
    ],
)
def test_one_thing_wrong_fails_the_drill(cloud: Cloud, sabotage: Sabotage, problem: str) -> None:
    """A single fault after an otherwise good recovery goes unnoticed."""
    cloud.execution.work.append(lambda: sabotage(cloud))
    done, result, _ = rehearse(cloud)
    assert result["status"] == "FAILED"
    assert len(done.problems) == 1
    assert problem in done.problems[0]


def test_a_system_that_was_never_frozen_fails_the_drill(cloud: Cloud) -> None:
    """The recovery works on tables that are being written to, and the drill passes."""
    cloud.execution.work = [cloud.freeze, cloud.functions.release, cloud.recover, cloud.tidy]
    cloud.functions.freeze = lambda: None  # type: ignore[method-assign]
    done, _, _ = rehearse(cloud)
    assert [problem for problem in done.problems if "seen frozen" in problem]


def test_failed_execution_is_reported_with_its_cause(cloud: Cloud) -> None:
    """The operator learns that something failed, but not what."""
    cloud.execution.work = [cloud.freeze]
    cloud.execution.end = {"status": "FAILED", "error": "CapacityExhausted", "cause": "Raise the capacity."}
    done, result, _ = rehearse(cloud)
    assert (result["status"], result["error"], result["cause"]) == (
        "FAILED",
        "CapacityExhausted",
        "Raise the capacity.",
    )
    assert "CapacityExhausted" in done.problems[0]
    assert result["tables"][0]["purgedItems"] is None
    assert "Raise the capacity." in report.render(result)
    output = io.StringIO()
    drill.conclude(Console(file=output, width=200), done, (Path("a"), Path("b")), Path("log"), 1.0)
    for expected in ("FAILED", "CapacityExhausted: Raise the capacity.", "arn:execution", "log"):
        assert expected in output.getvalue()


def test_failed_deployment_still_gives_a_report(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """The drill ends in a traceback and leaves the report of an earlier, better day."""

    def refuse(*_: Any) -> dict[str, Any]:
        raise DeploymentError("no such resource", "")

    monkeypatch.setattr(drill, "deploy", refuse)
    done, result, _ = rehearse(cloud)
    assert done.problems == ["The drill stopped: no such resource"]
    assert result["status"] == "FAILED"
    assert "no such resource" in report.render(result)


def test_damage_that_does_not_arrive_stops_the_drill(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was damaged, and every recovery passes."""
    monkeypatch.setattr("localaws.damage.apply", lambda *_: None)
    done, result, _ = rehearse(cloud)
    assert "would prove nothing" in done.problems[0]
    assert result["status"] == "FAILED"


def test_restore_point_is_a_whole_second_after_the_last_write() -> None:
    """The restore point lies before the last write, so the temporary table lacks it."""
    assert drill.next_whole_second(START) == START + timedelta(seconds=1)
    assert drill.next_whole_second(START + timedelta(microseconds=1)) == START + timedelta(seconds=1)
    assert drill.next_whole_second(START + timedelta(seconds=0.999)) == START + timedelta(seconds=1)


def test_waiting_goes_on_when_a_sleep_ends_early() -> None:
    """A sleep that ends early lets the damage begin before the restore point."""
    moments = iter([START, START + timedelta(seconds=0.4), START + timedelta(seconds=1)])
    slept: list[float] = []
    drill.wait_until(START + timedelta(seconds=1), now=lambda: next(moments), sleep=slept.append)
    assert slept == [1.0, pytest.approx(0.6)]


@pytest.mark.parametrize(("asked", "found"), [("abc", "is 'abc'"), ("65536", "is '65536'"), ("taken", "in use")])
def test_a_wrong_port_is_one_sentence(
    asked: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped or taken port ends in a traceback, or in a drill on another port than was asked for."""
    monkeypatch.setattr(drill, "FOLDER", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1]) if asked == "taken" else asked
        monkeypatch.setenv("LOCAL_AWS_PORT", port)
        assert drill.main() == 1
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2
    for expected in (port, found, "expected", "start again."):
        assert expected in printed[1]


def test_command_can_be_pasted() -> None:
    """The printed command breaks in a shell."""
    request = {"incidentId": "it's", "tables": [{"tableName": "a b"}]}
    words = shlex.split(drill.cli_command("http://127.0.0.1:1", "arn:machine", request))
    assert words[:3] == ["aws", "stepfunctions", "start-execution"]
    assert json.loads(words[words.index("--input") + 1]) == request
