"""Whatever somebody sends to the machines, executed: an error with a public name, and nothing is changed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.core.errors import RecoveryError
from handlers.core.request import HardResetRequest, RecoveryRequest
from tests.properties.bad_input import WRONGS, anything, one_wrong
from tests.properties.profile import many

from .conftest import FUNCTIONS, OTHER_SCHEMA, OUTSIDE, SENSITIVE, TABLES, Deployed, deployed_stack

# Each is two to four invocations of Lambda functions, some 0.3 s; and so many of every kind.
executed = settings(many, max_examples=25)
KINDS = ("anything", *WRONGS)

TABLE = "local-licenses"
PUBLIC = {error.__name__ for error in RecoveryError.__subclasses__()}
# Stands for the moment the module's tests began, so that the examples are the same every time.
NOW = "(now)"
ACCOUNT_TABLES = "arn:aws:dynamodb:us-east-1:000000000000:table/"
ELSEWHERE = (
    *TABLES,
    SENSITIVE,
    SENSITIVE.upper(),
    OTHER_SCHEMA,
    "local-dr-ledger",
    ACCOUNT_TABLES + SENSITIVE,
    ACCOUNT_TABLES + TABLE,
    ACCOUNT_TABLES + "dr-local.nothing",
    "hard-reset",
    "differential",
    "2020-01-01T00:00:00Z",
    "2100-01-01T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
)
# A good request but for one thing could be good all the same: only ever a dry run.
RECOVERY = {
    "incidentId": "bad-input",
    "restoreDateTime": NOW,
    "tables": [
        {"tableName": TABLE, "tableNameRecoveryConfirmation": TABLE},
        {"tableName": "local-languages", "tableNameRecoveryConfirmation": "local-languages"},
    ],
    "mode": "hard-reset",
    "dryRun": True,
}
# Its source does not exist: with nothing else wrong it is refused for that.
RESET = {
    "incidentId": "bad-input",
    "sourceTableArn": ACCOUNT_TABLES + "dr-local.nothing",
    "destinationTableArn": ACCOUNT_TABLES + TABLE,
    "tableNameRecoveryConfirmation": TABLE,
    "backupArn": None,
    "orchestratorExecutionArn": None,
}


# Mistakes that at least one input of each kind has: otherwise the search went nowhere.
LIKELY: dict[str, set[str]] = {
    "anything": {"InvalidRequest"},
    "replaced": {"InvalidRequest"},
    "twisted": {"InvalidRequest", "ConfirmationMismatch", "UnknownTable"},
    "elsewhere": {"InvalidRequest", "ConfirmationMismatch"},
    "shape": {"InvalidRequest"},
}


class World:
    """The deployment, and everything in it that a refused request must leave as it is."""

    def __init__(self, deployed: Deployed) -> None:
        self.deployed = deployed
        for name in (*TABLES, SENSITIVE, OTHER_SCHEMA):
            deployed.fill(name, range(3))
        self.started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.before = self.look()
        assert all(self.before["items"].values())
        assert self.before["concurrency"] == {**FUNCTIONS, OUTSIDE: 3}
        self.ends: dict[str, int] = {}

    def look(self) -> dict[str, Any]:
        """Everything that may not change."""
        deployed = self.deployed
        dynamodb = deployed.client("dynamodb")
        tables = dynamodb.list_tables()["TableNames"]
        return {
            "tables": tables,
            # The ledger among them: no lock, no incident, no checkpoint.
            "items": {name: deployed.items(name) for name in (*TABLES, SENSITIVE, OTHER_SCHEMA)},
            "ledger": deployed.items(deployed.outputs["ledgerTableName"]),
            "concurrency": deployed.concurrency(),
            "backups": len(dynamodb.list_backups()["BackupSummaries"]),
            "reports": deployed.client("s3")
            .list_objects_v2(Bucket=deployed.outputs["reportBucketName"])
            .get("KeyCount", 0),
        }

    def run(self, machine: str, value: Any) -> tuple[str | None, dict[str, Any]]:
        """Execute; answers the error, None for a success, and the execution. Whatever it is, nothing has changed."""
        text = json.dumps(value).replace(json.dumps(NOW), json.dumps(self.started))
        ended = self.deployed.finish(self.deployed.start(machine, text))
        error = ended["error"] if ended["status"] == "FAILED" else None
        if error is not None:
            assert error in PUBLIC, ended.get("cause")
            cause = ended["cause"]
            assert "xpected" in cause or "leave it out" in cause
            assert cause.endswith(".")
            assert cause.isprintable()
            assert "errorMessage" not in cause
            assert len(cause) < 2000
        else:
            assert ended["status"] == "SUCCEEDED"
        assert self.look() == self.before
        self.ends[str(error)] = self.ends.get(str(error), 0) + 1
        return error, ended


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """The local stack, whose retries do not wait."""
    for deployed in deployed_stack({}):
        yield World(deployed)


def refusal(parse: Any) -> str | None:
    """The name of the error that a parser refuses with, or None."""
    try:
        parse()
    except RecoveryError as error:
        return type(error).__name__
    return None


def inputs(kind: str, good: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Inputs with one kind of mistake.

    Without lone surrogates, which the embedded Step Functions cannot hold; how AWS answers them is not documented.
    """
    values = anything(*good, *ELSEWHERE) if kind == "anything" else one_wrong(good, elsewhere=ELSEWHERE, wrongs=[kind])
    return values.filter(_is_unicode)


def _is_unicode(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_recoveries(world: World, kind: str) -> None:
    """Catches an input that ends in an error of Python's or of AWS's, or starts something before it is refused."""
    world.ends.clear()

    @executed
    @given(value=inputs(kind, RECOVERY))
    def each(value: Any) -> None:
        real = json.loads(json.dumps(value).replace(json.dumps(NOW), json.dumps(world.started)))
        parsed: list[RecoveryRequest] = []
        expected = refusal(
            lambda: parsed.append(RecoveryRequest.parse(real, protected=list(TABLES), sensitive=[SENSITIVE]))
        )
        if parsed and not parsed[0].dry_run:
            return  # what is good but for a missing dryRun is a real recovery, and not what is tested here
        error, ended = world.run(world.deployed.outputs["orchestratorStateMachineArn"], value)
        if expected is not None:
            assert error == expected
        elif error is None:
            assert json.loads(ended["output"])["status"] == "PLANNED"
        else:
            assert error == "RestoreTimeOutOfRange"

    each()
    assert sum(world.ends.values()) >= 20
    assert LIKELY[kind] <= set(world.ends), world.ends


@pytest.mark.parametrize("kind", KINDS)
def test_hard_resets(world: World, kind: str) -> None:
    """Catches an input that gets past the confirmation to another table, or ends in an error without a public name."""
    world.ends.clear()

    @executed
    @given(value=inputs(kind, RESET))
    def each(value: Any) -> None:
        error, _ = world.run(world.deployed.outputs["hardResetStateMachineArns"][TABLE], value)
        assert error is not None, "a reset of a table from one that does not exist"
        confirmed = isinstance(value, dict) and value.get("tableNameRecoveryConfirmation") == TABLE
        if not isinstance(value, dict):
            assert error == "InvalidRequest"
        elif not confirmed:
            assert error == "ConfirmationMismatch"
        else:
            expected = refusal(lambda: HardResetRequest.parse(value, table_name=TABLE))
            assert error == (expected or error)

    each()
    assert sum(world.ends.values()) >= 20
    assert "InvalidRequest" in world.ends, world.ends
