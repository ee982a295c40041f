"""An emulated AWS (moto's server, so that every call takes the real wire format) and the handlers' environment."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import boto3
import pytest
from moto.backends import get_backend
from moto.dynamodb.models.dynamo_type import Item as MotoItem
from moto.moto_api._internal.models import moto_api_backend
from moto.server import ThreadedMotoServer

from handlers import runtime, segment_event
from handlers.core import engine

from .support import ACCOUNT, BUCKET, LEDGER, ORCHESTRATOR, REGION, RESTORE_POINT, Steps, create_table


@dataclass(frozen=True)
class Aws:
    """The tests' own clients, which share nothing with the handlers'."""

    dynamodb: Any
    stepfunctions: Any
    functions: Any
    s3: Any
    _machines: list[str] = field(default_factory=list)

    def start_execution(self, name: str) -> str:
        """An execution that runs until it is stopped; returns its ARN."""
        if not self._machines:
            answer = self.stepfunctions.create_state_machine(
                name=ORCHESTRATOR,
                definition=json.dumps({"StartAt": "Done", "States": {"Done": {"Type": "Succeed"}}}),
                roleArn=f"arn:aws:iam::{ACCOUNT}:role/states",
            )
            self._machines.append(answer["stateMachineArn"])
        answer = self.stepfunctions.start_execution(stateMachineArn=self._machines[0], name=name)
        return str(answer["executionArn"])

    def abort(self, execution_arn: str) -> None:
        """Stop an execution: it runs no clean-up."""
        self.stepfunctions.stop_execution(executionArn=execution_arn)

    @staticmethod
    def table(name: str) -> Any:
        """The emulator's own record of a table, for states that its API cannot reach."""
        return get_backend("dynamodb")[ACCOUNT][REGION].tables[name]

    def restore(self, source: str, target: str, moment: datetime) -> None:
        """Restore a table to a point in time. The items are those of now: moto remembers no others, nor the time."""
        self.dynamodb.update_continuous_backups(
            TableName=source, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
        )
        self.dynamodb.restore_table_to_point_in_time(
            SourceTableName=source, TargetTableName=target, RestoreDateTime=moment
        )
        self.table(target).restore_date_time = moment.timestamp()

    def restore_anew(self, source: str, target: str) -> None:
        """Put the table restored to the incident's restore point in the place of another one."""
        self.dynamodb.delete_table(TableName=target)
        self.restore(source, target, RESTORE_POINT)

    def set_pitr_window(self, name: str, earliest: datetime, latest: datetime) -> None:
        """Switch PITR on, with a window: moto's own begins and ends at the moment it is switched on."""
        self.dynamodb.update_continuous_backups(
            TableName=name, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
        )
        description = self.table(name).continuous_backups["PointInTimeRecoveryDescription"]
        description["EarliestRestorableDateTime"] = earliest.timestamp()
        description["LatestRestorableDateTime"] = latest.timestamp()


def _is_within_segment(item: Any, segments: tuple[int | None, int | None]) -> bool:
    """Moto's own fails for binary partition keys; this spreads every type of key."""
    segment, total = segments
    if total is None:
        return True
    return hashlib.md5(repr(item.hash_key.value).encode(), usedforsecurity=False).digest()[0] % total == segment


@pytest.fixture(scope="session")
def endpoint() -> Iterator[str]:
    """A moto server of this test process, on a free port."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line a request drowns what a failed test says
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MotoItem, "is_within_segment", _is_within_segment)
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def clients(endpoint: str) -> dict[str, Any]:
    """The tests' own clients, made once."""
    session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION)
    return {
        service: session.client(service, endpoint_url=endpoint)
        for service in ("dynamodb", "stepfunctions", "lambda", "s3")
    }


@pytest.fixture
def aws(endpoint: str, clients: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    """An empty AWS with the ledger and the report bucket, and the environment that a handler finds in Lambda."""
    moto_api_backend.reset()
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "LEDGER_TABLE": LEDGER,
        "REPORT_BUCKET": BUCKET,
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    # Retries begin at once: what is tested is that they happen, not how long they wait.
    monkeypatch.setattr(engine, "_FIRST_BACKOFF_SECONDS", 0.0)
    # Tests change the lock between two pages, or two tries, and see that the next one asks for it.
    monkeypatch.setattr(segment_event, "GUARD_SECONDS", 0.0)
    runtime.client.cache_clear()
    runtime.data_client.cache_clear()
    create_table(clients["dynamodb"], LEDGER, (("pk", "S"), ("sk", "S")))
    clients["s3"].create_bucket(Bucket=BUCKET)
    yield Aws(clients["dynamodb"], clients["stepfunctions"], clients["lambda"], clients["s3"])
    runtime.client.cache_clear()
    runtime.data_client.cache_clear()


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> int:
    """Pages of seven items, so that a small table has many; returns the size."""
    monkeypatch.setattr(engine, "PAGE_ITEMS", 7)
    return 7


@pytest.fixture
def page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages are written one after the other, so that a test knows which writes an interruption finds under way."""
    for phase in (engine.Purge, engine.Copy):
        monkeypatch.setattr(phase, "pages_at_once", 1)


@pytest.fixture
def steps(aws: Aws) -> Steps:
    """A hard reset of test-licenses from its restored table, by an execution that runs. The tables are the test's."""
    return Steps(execution_arn=aws.start_execution("reset"))
