"""The live view must show what the ledger says, and never move backwards."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from moto import mock_aws
from rich.console import Console

from localaws import progress
from localaws.progress import Expected, Look, Observer, PlainView, Tracker

TABLE = "local-licenses"
START = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
EXPECTED = {TABLE: Expected(damaged=90, original=100)}


def look(second: int, *, phase: str | None = None, segments: tuple[tuple[str, int], ...] = (), **fields: Any) -> Look:
    """A look at `second`, with the table's ledger phase and (sort key, items) of its segments."""
    return Look(
        at=START + timedelta(seconds=second),
        status="RUNNING",
        tables={TABLE: {"phase": phase}} if phase else {},
        segments={TABLE: [{"sk": key, "items": items} for key, items in segments]},
        **fields,
    )


def states(tracker: Tracker) -> dict[str, str]:
    """Each phase's state."""
    return {name: phase.state for (_, name), phase in tracker.phases.items()}


RECOVERY = (
    look(1, restored={TABLE: "CREATING"}, backups={TABLE: "CREATING"}),
    look(2, restored={TABLE: "ACTIVE"}, backups={TABLE: "AVAILABLE"}),
    look(3, phase="purge", segments=(("0001#purge#000000", 40),), functions={"f": "frozen"}),
    look(4, phase="copy", segments=(("0001#purge#000000", 90), ("0001#copy#000000", 30))),
    look(
        5,
        phase="copy",
        segments=(("0001#purge#000000", 90), ("0001#copy#000000", 100), ("0001#verify-source#000000", 50)),
    ),
    look(6, phase="verified"),
)


def test_phases_of_a_whole_recovery() -> None:
    """Bars stay empty although the recovery works, or a phase is never closed in the report's timeline."""
    tracker = Tracker(EXPECTED)
    seen = []
    for each in RECOVERY:
        tracker.feed(each)
        seen.append(states(tracker))
    assert seen[0] == {
        "restore": "running",
        "backup": "running",
        "purge": "waiting",
        "copy": "waiting",
        "verify": "waiting",
    }
    assert seen[2]["purge"] == "running"
    assert (seen[3]["purge"], seen[3]["copy"]) == ("done", "running")
    assert (seen[4]["copy"], seen[4]["verify"]) == ("done", "running")
    assert tracker.phases[TABLE, "copy"].items == 100
    assert [entry["phase"] for entry in tracker.timeline()] == list(progress.PHASES)


def test_checkpoints_cleaned_away_do_not_move_a_phase_back() -> None:
    """After the recovery tidies up, finished bars fall back to nothing."""
    tracker = Tracker(EXPECTED)
    for each in RECOVERY:
        tracker.feed(each)
    assert tracker.feed(look(9)) == []
    assert tracker.phases[TABLE, "purge"].items == 90


def test_verified_closes_verify_even_without_checkpoints() -> None:
    """The last phase stays open for ever where the checkpoints were gone before the last look."""
    tracker = Tracker(EXPECTED)
    for each in RECOVERY:
        tracker.feed(each)
    assert states(tracker)["verify"] == "done"


def test_verification_counts_an_item_once() -> None:
    """The verification of 100 items is said to have read 200, because it reads both sides."""
    tracker = Tracker(EXPECTED)
    both = (("0001#verify-source#000000", 100), ("0001#verify-destination#000000", 100))
    tracker.feed(look(1, phase="copy", segments=both))
    tracker.feed(look(2, phase="verified", segments=both))
    assert tracker.phases[TABLE, "verify"].items == 100 == EXPECTED[TABLE].items("verify")


def test_newest_attempt_counts() -> None:
    """A second attempt shows more than 100 %."""
    tracker = Tracker(EXPECTED)
    tracker.feed(look(1, phase="purge", segments=(("0001#purge#000000", 90), ("0002#purge#000000", 5))))
    assert tracker.phases[TABLE, "purge"].items == 5


def test_plain_lines_are_one_a_change() -> None:
    """A log is flooded with a line a look, or says nothing."""
    output = io.StringIO()
    view, tracker = PlainView(Console(file=output, width=200)), Tracker(EXPECTED)
    for each in RECOVERY:
        for _ in range(5):
            view.update(tracker, tracker.feed(each), 1.0)
    lines = output.getvalue().splitlines()
    assert sum(f"{TABLE}: copy started" in line for line in lines) == 1
    assert sum(f"{TABLE}: copy done, 100 items" in line for line in lines) == 1
    assert len(lines) <= 2 * len(progress.PHASES) + 3


def test_dashboard_draws_every_phase() -> None:
    """The live view crashes on a state it was not tried with."""
    tracker = Tracker(EXPECTED)
    for each in (look(0), *RECOVERY):
        tracker.feed(each)
        output = io.StringIO()
        Console(file=output, width=160, force_terminal=True).print(progress.dashboard(tracker, 3.0))
        assert TABLE in output.getvalue()


def test_watch_ends_with_the_execution_and_looks_once_more() -> None:
    """The last changes are never shown, or the drill watches for ever."""

    class Script:
        def __init__(self, looks: list[Look]) -> None:
            self.looks = looks

        def look(self) -> Look:
            return self.looks.pop(0)

    ended = Look(at=START, status="FAILED")
    shown, seen = PlainView(Console(file=io.StringIO())), list[Look]()
    scripted: Any = Script([*RECOVERY, ended])
    last = progress.watch(
        scripted, Tracker(EXPECTED), shown, on_look=seen.append, timeout_seconds=60, sleep=lambda _: None
    )
    assert last is ended
    assert seen == [*RECOVERY, ended]
    endless: Any = Script([*RECOVERY])
    ticks = iter(range(0, 100, 30))
    with pytest.raises(TimeoutError, match="60 seconds"):
        progress.watch(
            endless,
            Tracker(EXPECTED),
            shown,
            on_look=seen.append,
            timeout_seconds=60,
            sleep=lambda _: None,
            clock=lambda: next(ticks),
        )


LEDGER = "local-dr-ledger"


@pytest.fixture
def cloud() -> Iterator[Any]:
    """A function that returns clients of an account with a ledger, a table and its temporary table."""

    def client(service: str) -> Any:
        return boto3.client(  # type: ignore[call-overload]  # the service is a variable
            service, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
        )

    with mock_aws():
        dynamodb = client("dynamodb")
        for name, keys in ((LEDGER, ("pk", "sk")), (TABLE, ("id",)), (f"dr-local.{TABLE}.1.ab", ("id",))):
            dynamodb.create_table(
                TableName=name,
                BillingMode="PAY_PER_REQUEST",
                KeySchema=[
                    {"AttributeName": key, "KeyType": kind} for key, kind in zip(keys, ("HASH", "RANGE"), strict=False)
                ],
                AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
            )
        yield client


def test_observer_reads_the_ledger(cloud: Any) -> None:
    """The view asks the ledger for keys that nobody writes."""
    dynamodb, stepfunctions = cloud("dynamodb"), cloud("stepfunctions")
    machine = stepfunctions.create_state_machine(
        name="m",
        definition='{"StartAt": "A", "States": {"A": {"Type": "Succeed"}}}',
        roleArn="arn:aws:iam::123456789012:role/r",
    )["stateMachineArn"]
    arn = stepfunctions.start_execution(stateMachineArn=machine)["executionArn"]
    for item in (
        {"pk": {"S": "INCIDENT#i"}, "sk": {"S": "RUN"}, "status": {"S": "RUNNING"}},
        {"pk": {"S": "INCIDENT#i"}, "sk": {"S": f"TABLE#{TABLE}"}, "phase": {"S": "copy"}, "attempt": {"N": "1"}},
        {"pk": {"S": "FROZEN"}, "sk": {"S": "FUNCTION#f"}, "state": {"S": "frozen"}, "reserved": {"NULL": True}},
        {"pk": {"S": f"SEGMENTS#i#{TABLE}"}, "sk": {"S": "0001#copy#000000"}, "items": {"N": "7"}},
    ):
        dynamodb.put_item(TableName=LEDGER, Item=item)
    backup = dynamodb.create_backup(TableName=TABLE, BackupName="before")["BackupDetails"]
    observer = Observer(
        cloud,
        ledger=LEDGER,
        incident_id="i",
        execution_arn=arn,
        tables=[TABLE],
        environment="local",
        since=backup["BackupCreationDateTime"],
    )
    seen = observer.look()
    assert seen.run["status"] == "RUNNING"
    assert seen.tables[TABLE] == {"pk": "INCIDENT#i", "sk": f"TABLE#{TABLE}", "phase": "copy", "attempt": 1}
    assert seen.functions == {"f": "frozen"}
    assert seen.segments[TABLE][0]["items"] == 7
    assert seen.restored == {TABLE: "ACTIVE"}
    assert seen.backups == {TABLE: "AVAILABLE"}
