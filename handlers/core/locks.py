"""One recovery at a time: locks in the ledger, owned by executions.

A lock is a record with the ARN of the execution that holds it. It is taken with a conditional write, and taken over
only from an execution that has ended without giving it up (an aborted one runs no clean-up).

An execution that ends does not end its Lambda functions: a worker of an aborted execution may go on for the rest of its
fifteen minutes. Two things keep it from harm. Workers look before every page whether their execution still owns the
lock (:func:`require_lock`). And whoever takes a lock over has to wait until no worker of the former owner can be alive
(:attr:`Taken.settled_at`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from .clock import Clock, from_iso, to_iso
from .errors import GuardianAtWork, InvalidRequest, RecoveryInProgress, StaleWorker, shown
from .ledger import Ledger

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient

PARTITION = "LOCK"
"""The ledger's partition of locks."""
_NOBODY = "nobody"
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
ENVIRONMENT = "ENVIRONMENT"
"""The lock an orchestrator holds on the whole environment."""


def table_lock(table_name: str) -> str:
    """The lock on one table."""
    return f"TABLE#{table_name}"


# Lambda's longest invocation, and a minute for clocks that differ.
_WORKERS_END_WITHIN = timedelta(seconds=900 + 60)
_KNOWN_WITHIN = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """Locks that were taken. ``settled_at``: from when on no worker of a former owner can be alive."""

    settled_at: datetime


@dataclass(frozen=True, kw_only=True)
class Left:
    """A lock that nobody may be going to give up.

    ``owner``: the execution that holds it; ``ended``: whether Step Functions says that it has ended. ``settled_at``:
    from when on none of its workers can be alive.
    """

    name: str
    owner: str
    incident_id: str
    ended: bool
    settled_at: datetime


@dataclass(frozen=True, kw_only=True)
class Locks:
    """The locks of this environment, on behalf of one execution.

    Args:
        ledger: where the locks are kept.
        stepfunctions: asked whether another owner still runs.
        execution_arn: the execution that takes the locks.
        incident_id: named in the error that others see.
        parent_arn: the orchestrator's execution that started this one: its locks may be borrowed.
    """

    ledger: Ledger
    stepfunctions: SFNClient
    clock: Clock
    execution_arn: str
    incident_id: str
    parent_arn: str | None = None

    def check(self, names: Iterable[str]) -> None:
        """See that no running execution holds any of the locks; change nothing.

        Raises:
            RecoveryInProgress: one does.
        """
        for name in names:
            self._former_owner(name)

    def check_all_tables(self) -> None:
        """See that no hard reset of any table runs, whether this incident is about that table or not.

        Raises:
            RecoveryInProgress: one does.
        """
        self.check(record["sk"] for record in self.ledger.query(PARTITION, table_lock("")))

    def check_parent(self) -> None:
        """See that the parent is what it is said to be: the owner of the environment in this incident, and running.

        Raises:
            InvalidRequest: it is not.
        """
        record = self.ledger.get(PARTITION, ENVIRONMENT)
        genuine = (
            record is not None
            and (record["owner"], record["incidentId"]) == (self.parent_arn, self.incident_id)
            and self._ended_at(record["owner"]) is None
        )
        if not genuine:
            raise InvalidRequest(
                f"orchestratorExecutionArn is {shown(self.parent_arn)}, which is no orchestrator that runs incident "
                f"{self.incident_id!r} now. Expected it to be left out: only the orchestrator passes it."
            )

    def acquire(self, names: Iterable[str]) -> Taken:
        """Take all the locks, or none.

        Raises:
            RecoveryInProgress: a running execution holds one of them.
        """
        taken: list[str] = []
        settled_at = self.clock()
        try:
            for name in names:
                settled_at = max(settled_at, self._take(name))
                taken.append(name)
        except RecoveryInProgress:
            self.release(taken)
            raise
        return Taken(settled_at=settled_at)

    def inherit(self, name: str, former_owner: str) -> bool:
        """Take a lock over from one execution, which has ended, or from nobody; False when another one has it.

        For the guardian only: whoever resumes the incident meanwhile waits for it (:class:`GuardianAtWork`).
        """
        record = {
            "owner": self.execution_arn,
            "guardian": True,
            "guardianArn": None,
            "incidentId": self.incident_id,
        }
        return (
            self.ledger.create(PARTITION, name, record)
            or self.ledger.update(PARTITION, name, record, only_if={"owner": former_owner})
            or self.ledger.update(PARTITION, name, record, only_if={"owner": _NOBODY})
            # A write whose answer was lost is sent again, and then its condition fails on what it has written itself.
            or self.holds(name)
        )

    def reclaim(self, names: Iterable[str]) -> None:
        """Take back what executions started by this one, for the same incident, have not given back.

        Their workers stop at their next page. The locks remember how long one of them may be alive.
        """
        # What a guardian takes back a resumption waits for, as for the lock of the environment.
        guardian = bool((self.ledger.get(PARTITION, ENVIRONMENT) or {}).get("guardian"))
        for name in names:
            record = self.ledger.get(PARTITION, name)
            if record is None or record["incidentId"] != self.incident_id or record["owner"] == self.execution_arn:
                continue
            settled_at = _settled_at(record, self._ended_at(record["owner"]) or self.clock())
            taken = {"owner": self.execution_arn, "guardian": guardian, "settledAt": to_iso(settled_at)}
            self.ledger.update(PARTITION, name, taken, only_if={"owner": record["owner"]})

    def left(self) -> Iterator[Left]:
        """Every lock whose owner has ended, or is about to be seen as ended, and which no other guardian sees to.

        The lock of the environment is an orchestrator's, or that of a guardian which has taken it over; a table's is a
        hard reset's.
        """
        for record in (self.ledger.get(PARTITION, ENVIRONMENT), *self.ledger.query(PARTITION, table_lock(""))):
            if record is None or record["owner"] in (_NOBODY, self.execution_arn):
                continue
            guardian = record.get("guardianArn")
            if guardian not in (None, self.execution_arn) and self._ended_at(guardian) is None:
                continue
            ended_at = self._ended_at(record["owner"], record.get("acquiredAt"))
            yield Left(
                name=record["sk"],
                owner=record["owner"],
                incident_id=record["incidentId"],
                ended=ended_at is not None,
                settled_at=_settled_at(record, ended_at or self.clock()),
            )

    def left_free(self, execution_arn: str) -> Left | None:
        """The lock of the environment as it stands for an execution that has ended and has it no more, nor has another.

        None: somebody has it, or the execution runs.
        """
        record = self.ledger.get(PARTITION, ENVIRONMENT)
        ended_at = self._ended_at(execution_arn)
        if ended_at is None or (record is not None and record["owner"] != _NOBODY):
            return None
        return Left(
            name=ENVIRONMENT,
            owner=execution_arn,
            incident_id=self.incident_id,
            ended=True,
            settled_at=_settled_at(record or {}, ended_at),
        )

    def claim(self, left: Left) -> bool:
        """Make this guardian the one that sees to a lock; False when its owner does not hold it any more."""
        claimed = {"guardianArn": self.execution_arn}
        return self.ledger.update(PARTITION, left.name, claimed, only_if={"owner": left.owner})

    def forget(self, name: str, former_owner: str, settled_at: datetime) -> None:
        """Give up a lock that an execution which has ended still holds; the next owner waits until ``settled_at``."""
        nobody = {"owner": _NOBODY, "settledAt": to_iso(settled_at)}
        self.ledger.update(PARTITION, name, nobody, only_if={"owner": former_owner})

    def release(self, names: Iterable[str]) -> None:
        """Give up those of the locks that this execution holds; what was borrowed goes back to the parent."""
        for name in names:
            if self.parent_arn is None:
                self._give_up(name)
            else:
                self.ledger.update(PARTITION, name, {"owner": self.parent_arn}, only_if={"owner": self.execution_arn})

    def _give_up(self, name: str) -> None:
        record = self.ledger.get(PARTITION, name)
        if record is not None and "settledAt" in record and from_iso(record["settledAt"]) > self.clock():
            # Workers of an earlier owner may still be alive: the next one has to wait for them all the same.
            self.ledger.update(PARTITION, name, {"owner": _NOBODY}, only_if={"owner": self.execution_arn})
        else:
            self.ledger.delete(PARTITION, name, only_if=("owner", self.execution_arn))

    def _take(self, name: str) -> datetime:
        """Take one lock; returns from when on no worker of its former owner can be alive."""
        now = self.clock()
        record: dict[str, object] = {
            "owner": self.execution_arn,
            "incidentId": self.incident_id,
            "acquiredAt": to_iso(now),
            "guardian": False,
            "guardianArn": None,  # whoever saw to the former owner does not see to this one
        }
        if self.ledger.create(PARTITION, name, record):
            return now
        former = self._former_owner(name)
        if former is None:
            taken = self.ledger.create(PARTITION, name, record)
        else:
            owner, settled_at = former
            if settled_at is not None:
                # Kept with the lock: the next owner may take it over before that time has come.
                record["settledAt"] = to_iso(settled_at)
            # The condition on the former owner lets only one of several take it over.
            taken = self.ledger.update(PARTITION, name, record, only_if={"owner": owner})
        # A write whose answer was lost is sent again by the SDK, and then its condition fails on this very lock.
        if not taken and not self.holds(name):
            raise self._in_progress(name, "another execution, which took it this moment", "unknown")
        return now if former is None or former[1] is None else former[1]

    def holds(self, name: str) -> bool:
        """Whether this execution has the lock."""
        record = self.ledger.get(PARTITION, name)
        return record is not None and record["owner"] == self.execution_arn

    def _former_owner(self, name: str) -> tuple[str, datetime | None] | None:
        """The owner a lock may be taken from and when its workers have ended, or None when the lock is free.

        Raises:
            RecoveryInProgress: the owner is another execution that still runs.
        """
        record = self.ledger.get(PARTITION, name)
        if record is None:
            return None
        owner = str(record["owner"])
        settled_at = from_iso(record["settledAt"]) if "settledAt" in record else None
        if owner in (self.execution_arn, self.parent_arn, _NOBODY):
            return owner, settled_at
        ended_at = self._ended_at(owner, record.get("acquiredAt"))
        if ended_at is None:
            if record.get("guardian") and record["incidentId"] == self.incident_id:
                raise GuardianAtWork(
                    f"The guardian, execution {owner}, is clearing up after the last execution of incident "
                    f"{self.incident_id!r}. Expected it to be done within minutes: start the same incident again then."
                )
            raise self._in_progress(name, f"execution {owner}", record["incidentId"])
        return owner, _settled_at(record, ended_at)

    def _ended_at(self, execution_arn: str, acquired_at: str | None = None) -> datetime | None:
        """When an execution ended, or None while it runs.

        DescribeExecution is eventually consistent. It may not know yet of an execution that has just begun, so one
        that took its lock (``acquired_at``) within a day is not believed to be forgotten.
        """
        try:
            execution = self.stepfunctions.describe_execution(executionArn=execution_arn)
        except ClientError as error:
            if error.response["Error"]["Code"] == "ExecutionDoesNotExist":
                if acquired_at is not None and from_iso(acquired_at) > self.clock() - _KNOWN_WITHIN:
                    return None
                return _LONG_AGO  # Step Functions forgets executions 90 days after they end
            raise
        # A redriven or pending execution counts as running: only a final status frees the lock.
        if execution["status"] not in ("SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED"):
            return None
        return execution.get("stopDate") or self.clock()

    def _in_progress(self, name: str, owner: str, incident_id: str) -> RecoveryInProgress:
        return RecoveryInProgress(
            f"Another recovery is under way: {owner} of incident {incident_id!r} holds the lock {name}. Expected "
            "nothing else to be running: wait for it to end, then start again. Do not stop it: once it has purged, "
            "everything stays frozen until its own incident is started again."
        )


def _settled_at(record: Mapping[str, Any], ended_at: datetime) -> datetime:
    """From when on no worker of a lock's owner, which ended then, or of the owners before it can be alive."""
    settled_at = ended_at + _WORKERS_END_WITHIN
    return max(settled_at, from_iso(record["settledAt"])) if "settledAt" in record else settled_at


def require_lock(ledger: Ledger, name: str, execution_arn: str) -> None:
    """See that an execution still owns a lock, before its worker changes anything.

    Raises:
        StaleWorker: it does not; the worker has outlived its execution.
    """
    record = ledger.get(PARTITION, name)
    if record is None or record["owner"] != execution_arn:
        raise StaleWorker(
            f"Execution {execution_arn} does not hold the lock {name} any more. Expected to hold it: this worker has "
            "outlived its execution and stops here."
        )
