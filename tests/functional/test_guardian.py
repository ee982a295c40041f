"""The guardian's steps, interrupted anywhere: whatever an ended execution left is found, and taken over once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from handlers import runtime
from handlers.core.clock import to_iso, utc_now
from handlers.core.errors import RecoveryInProgress
from handlers.core.guardian import FORGOTTEN, HARD_RESET, NOTHING, ORCHESTRATOR, Guardian, StillRunning
from handlers.core.incident import Incident
from handlers.core.ledger import Ledger
from handlers.core.locks import ENVIRONMENT, Locks

from .conftest import Aws
from .support import LEDGER, hold_lock, ledger_items, lock_names, open_incident

TABLE = "test-licenses"


@pytest.fixture
def ended(aws: Aws) -> str:
    """An orchestrator's execution that was aborted with the incident open and its locks held."""
    execution = aws.start_execution("orchestrator")
    hold_lock(aws.dynamodb, ENVIRONMENT, execution)
    hold_lock(aws.dynamodb, f"TABLE#{TABLE}", execution)
    open_incident(aws.dynamodb, execution, tables=[TABLE])
    aws.abort(execution)
    return execution


def guardian(aws: Aws, name: str = "guardian", ledger: Ledger | None = None) -> Guardian:
    """A guardian whose own execution runs."""
    return Guardian(
        ledger=ledger or Ledger(aws.dynamodb, LEDGER),
        stepfunctions=runtime.client("stepfunctions"),
        clock=utc_now,
        execution_arn=aws.start_execution(name),
    )


def owner_of_the_incident(aws: Aws) -> str:
    """The execution that works on the incident, as its record has it."""
    return str(ledger_items(aws.dynamodb)["INCIDENT#incident", "RUN"]["executionArn"]["S"])


@pytest.mark.parametrize("named", [True, False])
def test_an_aborted_orchestrator_is_found(aws: Aws, ended: str, named: bool) -> None:
    """Nobody is told, because the event was lost and the sweep looks past it; or the other way round."""
    finding = guardian(aws).look(ended if named else None)
    assert (finding.kind, finding.ended_arn, finding.incident_id) == (ORCHESTRATOR, ended, "incident")
    assert finding.error == "RecoveryAborted"
    assert finding.settled_at is not None
    assert finding.settled_at > datetime.now(UTC) + timedelta(minutes=15)


def test_the_same_end_is_seen_to_once(aws: Aws, ended: str) -> None:
    """Every sweep tells of it again while the first guardian waits for the workers; or none goes on after its end."""
    first = guardian(aws)
    assert first.look(ended).kind == ORCHESTRATOR
    assert first.look(ended).kind == ORCHESTRATOR, "a retried look finds nothing"
    assert guardian(aws, "sweep").look(None).kind == NOTHING
    aws.abort(first.execution_arn)
    assert guardian(aws, "next-sweep").look(None).kind == ORCHESTRATOR


def test_an_end_that_step_functions_does_not_know_of_yet(aws: Aws) -> None:
    """DescribeExecution is behind the event, and the guardian ends with nothing to do."""
    running = aws.start_execution("orchestrator")
    hold_lock(aws.dynamodb, ENVIRONMENT, running)
    with pytest.raises(StillRunning):
        guardian(aws).look(running)
    assert guardian(aws, "sweep").look(None).kind == NOTHING


@pytest.mark.usefixtures("ended")
def test_an_execution_that_holds_nothing(aws: Aws) -> None:
    """An execution that has cleared up is reported a second time."""
    assert guardian(aws).look(aws.start_execution("another")).kind == NOTHING


@dataclass(frozen=True)
class Interrupted(Ledger):
    """A ledger one of whose updates is carried out, and its answer lost: the SDK sends it again. Or the worker dies."""

    strike: int = 0
    dies: bool = False
    seen: list[int] | None = None

    def update(self, pk: str, sk: str, values: Any, *, only_if: Any) -> bool:
        """As a ledger's."""
        assert self.seen is not None
        self.seen.append(1)
        done = super().update(pk, sk, values, only_if=only_if)
        if len(self.seen) != self.strike:
            return done
        if self.dies:
            raise ConnectionError("killed")
        return super().update(pk, sk, values, only_if=only_if)


@pytest.mark.parametrize("dies", [False, True])
@pytest.mark.parametrize("strike", [1, 2])
def test_a_take_over_that_is_interrupted_is_one(aws: Aws, ended: str, strike: int, dies: bool) -> None:
    """The guardian loses sight of what it has half taken over, and ends well with everything frozen."""
    seen: list[int] = []
    mine = guardian(aws, ledger=Interrupted(aws.dynamodb, LEDGER, strike=strike, dies=dies, seen=seen))
    if dies:
        with pytest.raises(ConnectionError):
            mine.take_over(ended, "incident")
    assert mine.take_over(ended, "incident") is True
    assert len(seen) >= strike, "nothing was interrupted"
    assert lock_names(aws.dynamodb)[ENVIRONMENT] == owner_of_the_incident(aws) == mine.execution_arn


def test_a_guardian_that_died_is_followed(aws: Aws, ended: str) -> None:
    """The guardian itself is stopped after it took over, and nobody looks after it."""
    first = guardian(aws)
    assert first.take_over(ended, "incident") is True
    aws.abort(first.execution_arn)
    second = guardian(aws, "second")
    finding = second.look(None)
    assert (finding.kind, finding.ended_arn) == (ORCHESTRATOR, first.execution_arn)
    assert second.take_over(finding.ended_arn, finding.incident_id) is True
    assert lock_names(aws.dynamodb)[ENVIRONMENT] == owner_of_the_incident(aws) == second.execution_arn


def test_somebody_has_resumed(aws: Aws, ended: str) -> None:
    """The guardian takes the incident from under the execution that resumed it."""
    resumed = aws.start_execution("resumed")
    hold_lock(aws.dynamodb, ENVIRONMENT, resumed)
    open_incident(aws.dynamodb, resumed, tables=[TABLE])
    assert guardian(aws).take_over(ended, "incident") is False
    assert lock_names(aws.dynamodb)[ENVIRONMENT] == owner_of_the_incident(aws) == resumed


def test_a_reset_that_still_runs_is_waited_for(aws: Aws, ended: str) -> None:
    """The functions are released, and a reset that outlived its orchestrator purges below them."""
    hold_lock(aws.dynamodb, f"TABLE#{TABLE}", aws.start_execution("child"))
    with pytest.raises(RecoveryInProgress):
        guardian(aws).take_over(ended, "incident")
    assert lock_names(aws.dynamodb)[ENVIRONMENT] == ended


def test_an_incident_that_was_never_opened(aws: Aws) -> None:
    """The execution died between its lock and its incident, and the lock stays with the guardian for good."""
    execution = aws.start_execution("orchestrator")
    hold_lock(aws.dynamodb, ENVIRONMENT, execution)
    aws.abort(execution)
    assert guardian(aws).take_over(execution, "incident") is False
    assert lock_names(aws.dynamodb) == {}


def test_a_resumption_that_died_before_it_opened_the_incident(aws: Aws, ended: str) -> None:
    """The lock names one execution, the incident another: both guardians think that the other one sees to it."""
    resumed = aws.start_execution("resumed")
    of_the_first = guardian(aws, "of-the-first")
    assert of_the_first.look(ended).kind == ORCHESTRATOR
    Locks(
        ledger=Ledger(aws.dynamodb, LEDGER),
        stepfunctions=runtime.client("stepfunctions"),
        clock=utc_now,
        execution_arn=resumed,
        incident_id="incident",
    ).acquire([ENVIRONMENT])
    assert of_the_first.take_over(ended, "incident") is False
    aws.abort(resumed)
    mine = guardian(aws)
    finding = mine.look(resumed)
    assert (finding.kind, finding.ended_arn) == (ORCHESTRATOR, resumed)
    assert mine.take_over(resumed, finding.incident_id) is True
    assert owner_of_the_incident(aws) == mine.execution_arn


@pytest.mark.parametrize("left", ["nothing", "nobody"])
def test_a_lock_that_another_one_took_and_gave_up(aws: Aws, ended: str, left: str) -> None:
    """A start that is refused after it took the lock: no lock tells of the functions that are frozen for nobody."""
    if left == "nobody":
        later = to_iso(datetime.now(UTC) + timedelta(hours=1))
        hold_lock(aws.dynamodb, ENVIRONMENT, "nobody", settled_at=later)
    else:
        aws.dynamodb.delete_item(TableName=LEDGER, Key={"pk": {"S": "LOCK"}, "sk": {"S": ENVIRONMENT}})
    marker = {"pk": {"S": "LOCK"}, "sk": {"S": "INCIDENT"}, "incidentId": {"S": "incident"}}
    aws.dynamodb.put_item(TableName=LEDGER, Item=marker)
    mine = guardian(aws)
    finding = mine.look(None)
    assert (finding.kind, finding.ended_arn, finding.incident_id) == (ORCHESTRATOR, ended, "incident")
    assert finding.settled_at is not None
    if left == "nobody":
        assert to_iso(finding.settled_at) == later
    assert mine.take_over(ended, "incident") is True
    assert lock_names(aws.dynamodb)[ENVIRONMENT] == owner_of_the_incident(aws) == mine.execution_arn


def test_an_incident_that_was_closed_meanwhile_is_left_alone(aws: Aws, ended: str) -> None:
    """Somebody resumed it and it failed in its own way; the guardian releases what has to stay frozen."""
    Incident(ledger=Ledger(aws.dynamodb, LEDGER), clock=utc_now, incident_id="incident", execution_arn=ended).close(
        "FAILED", error="x", cause="y"
    )
    aws.dynamodb.delete_item(TableName=LEDGER, Key={"pk": {"S": "LOCK"}, "sk": {"S": ENVIRONMENT}})
    marker = {"pk": {"S": "LOCK"}, "sk": {"S": "INCIDENT"}, "incidentId": {"S": "incident"}}
    aws.dynamodb.put_item(TableName=LEDGER, Item=marker)
    assert guardian(aws).look(None).kind == NOTHING
    assert guardian(aws, "late").take_over(ended, "incident") is False


def succeeded(aws: Aws, execution: str) -> None:
    """The incident is over, but for the lock."""
    Incident(ledger=Ledger(aws.dynamodb, LEDGER), clock=utc_now, incident_id="incident", execution_arn=execution).close(
        "SUCCEEDED", error="", cause=""
    )


def test_a_lock_forgotten_after_a_success_is_given_up_quietly(aws: Aws, ended: str) -> None:
    """A recovery that has succeeded is reported as interrupted, every quarter of an hour."""
    succeeded(aws, ended)
    mine = guardian(aws)
    finding = mine.look(None)
    assert (finding.kind, finding.cause) == (FORGOTTEN, "")
    assert finding.settled_at is not None
    mine.give_up(finding.lock, finding.ended_arn, finding.settled_at)
    assert lock_names(aws.dynamodb)[ENVIRONMENT] == "nobody"
    kept = ledger_items(aws.dynamodb)["LOCK", ENVIRONMENT]["settledAt"]["S"]
    assert kept == to_iso(finding.settled_at)
    assert guardian(aws, "sweep").look(None).kind == NOTHING


def phase(aws: Aws, name: str) -> None:
    """The hard reset by hand has come to this phase."""
    key = {"pk": {"S": "INCIDENT#by-hand"}, "sk": {"S": f"TABLE#{TABLE}"}}
    aws.dynamodb.put_item(TableName=LEDGER, Item={**key, "phase": {"S": name}})


@pytest.mark.parametrize(("come_to", "kind"), [("copy", HARD_RESET), ("verified", FORGOTTEN)])
def test_a_hard_reset_by_hand(aws: Aws, come_to: str, kind: str) -> None:
    """A half restored table that nobody is told of, or told of for ever; or one that is done and told of."""
    execution = aws.start_execution("by-hand")
    hold_lock(aws.dynamodb, f"TABLE#{TABLE}", execution, incident="by-hand")
    phase(aws, come_to)
    aws.abort(execution)
    mine = guardian(aws)
    finding = mine.look(execution)
    assert finding.kind == kind
    assert (TABLE in finding.cause) is (kind == HARD_RESET)
    assert finding.settled_at is not None
    mine.give_up(finding.lock, finding.ended_arn, finding.settled_at)
    assert guardian(aws, "sweep").look(None).kind == NOTHING


@pytest.mark.parametrize(("acquired", "believed"), [(timedelta(minutes=1), False), (timedelta(days=2), True)])
def test_an_owner_that_step_functions_does_not_know(aws: Aws, acquired: timedelta, believed: bool, ended: str) -> None:
    """An execution that has just begun, which DescribeExecution does not show yet, loses its lock to another one."""
    unknown = ended + "-not-known"
    hold_lock(aws.dynamodb, ENVIRONMENT, unknown)
    aws.dynamodb.update_item(
        TableName=LEDGER,
        Key={"pk": {"S": "LOCK"}, "sk": {"S": ENVIRONMENT}},
        UpdateExpression="SET acquiredAt = :at",
        ExpressionAttributeValues={":at": {"S": to_iso(datetime.now(UTC) - acquired)}},
    )
    finding = guardian(aws).look(None)
    assert (finding.kind == ORCHESTRATOR) is believed
    assert ("forgotten" in finding.cause) is believed


def test_an_execution_that_runs_again_keeps_its_incident(aws: Aws, ended: str) -> None:
    """A redriven execution loses its lock to the guardian that had seen its end."""
    first = guardian(aws)
    assert first.look(ended).kind == ORCHESTRATOR
    again = aws.start_execution("redriven")
    hold_lock(aws.dynamodb, ENVIRONMENT, again)
    open_incident(aws.dynamodb, again, tables=[TABLE])
    assert first.take_over(again, "incident") is False
    assert lock_names(aws.dynamodb)[ENVIRONMENT] == again
    assert owner_of_the_incident(aws) == again
