"""One recovery at a time: locks in the ledger, owned by executions.

A lock is a record with the ARN of the execution that holds it. It is taken with a conditional write, and taken over
only from an execution that is no longer running (an aborted execution runs no clean-up and leaves its lock behind).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from .clock import Clock, to_iso
from .errors import RecoveryInProgress
from .ledger import Ledger

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient

PARTITION = "LOCK"
"""The ledger's partition of locks."""
ENVIRONMENT = "ENVIRONMENT"
"""The lock an orchestrator holds on the whole environment."""


def table_lock(table_name: str) -> str:
    """The lock on one table."""
    return f"TABLE#{table_name}"


@dataclass(frozen=True, kw_only=True)
class Locks:
    """The locks of this environment, on behalf of one execution.

    Args:
        ledger: where the locks are kept.
        stepfunctions: asked whether another owner still runs.
        execution_arn: the execution that takes the locks.
        incident_id: named in the error that others see.
        parent_arn: an execution whose locks may be taken, because it started this one.
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
            self._foreign_owner(name)

    def acquire(self, names: Iterable[str]) -> None:
        """Take all the locks, or none.

        Raises:
            RecoveryInProgress: a running execution holds one of them.
        """
        taken: list[str] = []
        try:
            for name in names:
                self._take(name)
                taken.append(name)
        except RecoveryInProgress:
            self.release(taken)
            raise

    def release(self, names: Iterable[str]) -> None:
        """Give up those of the locks that this execution holds."""
        for name in names:
            self.ledger.delete(PARTITION, name, only_if=("owner", self.execution_arn))

    def _take(self, name: str) -> None:
        record = {"owner": self.execution_arn, "incidentId": self.incident_id, "acquiredAt": to_iso(self.clock())}
        if self.ledger.create(PARTITION, name, record):
            return
        owner = self._foreign_owner(name)
        if owner == self.execution_arn:
            return  # a retried call finds its own lock
        # The condition on the former owner lets only one of several take it over.
        taken_over = (
            self.ledger.update(PARTITION, name, record, only_if={"owner": owner})
            if owner is not None
            else self.ledger.create(PARTITION, name, record)
        )
        if not taken_over:
            raise self._in_progress(name, "another execution, which took it this moment", "unknown")

    def _foreign_owner(self, name: str) -> str | None:
        """The owner a lock may be taken from, or None when it is free.

        Raises:
            RecoveryInProgress: the owner is another execution that still runs.
        """
        record = self.ledger.get(PARTITION, name)
        if record is None:
            return None
        owner = str(record["owner"])
        if owner not in (self.execution_arn, self.parent_arn) and self._is_running(owner):
            raise self._in_progress(name, f"execution {owner}", record["incidentId"])
        return owner

    def _is_running(self, execution_arn: str) -> bool:
        try:
            # A redriven or pending execution counts as running: only a final status frees the lock.
            status = self.stepfunctions.describe_execution(executionArn=execution_arn)["status"]
        except ClientError as error:
            if error.response["Error"]["Code"] == "ExecutionDoesNotExist":
                return False  # Step Functions forgets executions 90 days after they end
            raise
        return status not in ("SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED")

    def _in_progress(self, name: str, owner: str, incident_id: str) -> RecoveryInProgress:
        return RecoveryInProgress(
            f"The lock {name} is held by {owner} for incident {incident_id!r}. Expected nothing else to be running: "
            "wait for it to end, or stop it (aws stepfunctions stop-execution), then start again."
        )
