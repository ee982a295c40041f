"""What becomes of an execution that ended without clearing up: stopped, timed out, or broken in a way no Catch sees.

Such an execution runs no further state. It leaves its locks, and functions frozen for nobody. The guardian applies the
rule of the orchestrator's own failure path to it: nothing purged yet, then the functions are released; otherwise they
stay frozen. It acts only when no worker of that execution can be alive any more, and only if nobody has resumed the
incident by then.

Every step may be done again after an interruption anywhere. A guardian that ends half-way is itself an execution that
ended without clearing up, and is found by the next sweep.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from .clock import Clock, to_iso
from .hard_reset import HardReset
from .incident import Incident
from .ledger import Ledger
from .locks import ENVIRONMENT, Left, Locks, table_lock

if TYPE_CHECKING:
    from mypy_boto3_stepfunctions import SFNClient

NOTHING, FORGOTTEN, HARD_RESET, ORCHESTRATOR = "nothing", "forgotten-lock", "hard-reset", "orchestrator"

# What Step Functions calls the end → the error that the operator sees.
_ERRORS = {"ABORTED": "RecoveryAborted", "TIMED_OUT": "RecoveryTimedOut"}


class StillRunning(Exception):  # noqa: N818 - its name is what the state machine retries
    """EventBridge says that the execution has ended, Step Functions not yet: DescribeExecution is behind at times."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What an ended execution left behind.

    ``kind``: what it was; ``nothing`` when there is nothing to do, ``forgotten-lock`` when its work was done but for
    its lock. ``ended_arn``: the execution; ``lock``: what it holds still. ``settled_at``: when its last worker must
    have ended. ``error``, ``cause``: its end, as an operator is told; ``outlook``: what the guardian is going to do.
    """

    kind: str
    ended_arn: str = ""
    lock: str = ""
    incident_id: str = ""
    settled_at: datetime | None = None
    error: str = ""
    cause: str = ""
    outlook: str = ""


@dataclass(frozen=True, kw_only=True)
class Guardian:
    """Clears up after executions that have ended. ``execution_arn`` is the guardian's own execution."""

    ledger: Ledger
    stepfunctions: SFNClient
    clock: Clock
    execution_arn: str

    def look(self, ended_arn: str | None) -> Finding:
        """Find what an execution left, and claim it; with None, what any execution left that is seen to by nobody.

        An execution that ended in its own way has given up its locks, and so left nothing. Neither has a hard reset
        that an orchestrator started: that one handles its failure.

        Raises:
            StillRunning: the execution named holds a lock, and is running still as far as Step Functions knows.
        """
        locks = self._locks("")
        for left in locks.left():
            if ended_arn not in (None, left.owner):
                continue
            if not left.ended:
                if ended_arn is None:
                    continue
                raise StillRunning(f"{left.owner} is not known to have ended. Expected that soon: look again.")
            finding = self._judge(left)
            if finding.kind != NOTHING and locks.claim(left):
                return finding
        return self._look_without_locks(ended_arn)

    def _look_without_locks(self, ended_arn: str | None) -> Finding:
        """Find an incident whose execution has ended, and whose lock another one has taken over and given up since.

        So does a start that is refused, or dies, before it has opened its own incident.
        """
        incident = self._incident("").unattended()
        if incident is None or ended_arn not in (None, incident.execution_arn):
            return Finding(kind=NOTHING)
        left = self._locks(incident.incident_id).left_free(incident.execution_arn)
        return Finding(kind=NOTHING) if left is None else self._judge(left)

    def _judge(self, left: Left) -> Finding:
        incident = self._incident(left.incident_id)
        place: dict[str, Any] = {
            "ended_arn": left.owner,
            "lock": left.name,
            "incident_id": left.incident_id,
            "settled_at": left.settled_at,
        }
        if left.name == ENVIRONMENT:
            if incident.succeeded():
                return Finding(kind=FORGOTTEN, **place)
            error, end = self._end(left.owner)
            return Finding(
                kind=ORCHESTRATOR,
                **place,
                error=error,
                cause=f"{end} Expected it to run to its end: start the same incident again; the work goes on where it "
                "stopped.",
                outlook=f"Its workers may go on until {to_iso(left.settled_at)}. If nobody has started the incident "
                "again by then, the functions are released if nothing was purged, and stay frozen otherwise.",
            )
        if incident.record() is not None:
            return Finding(kind=NOTHING)
        table = left.name.removeprefix(table_lock(""))
        reset = HardReset(ledger=self.ledger, clock=self.clock, incident_id=left.incident_id, table_name=table)
        if reset.is_verified():
            return Finding(kind=FORGOTTEN, **place)
        error, end = self._end(left.owner)
        begun = self.ledger.purge_has_begun(left.incident_id, table)
        state = "may be half restored: nothing must use it" if begun else "was not touched"
        return Finding(
            kind=HARD_RESET,
            **place,
            error=error,
            cause=f"{end} Expected it to run to its end. Table {table} {state}. To go on where it stopped, start the "
            "same hard reset with the same incidentId again.",
        )

    def take_over(self, ended_arn: str, incident_id: str) -> bool:
        """Make the ended orchestrator's incident the guardian's to close; False when somebody resumed it.

        Raises:
            RecoveryInProgress: a hard reset of one of its tables still runs, and may purge: it is waited for.
        """
        incident, locks = self._incident(incident_id), self._locks(incident_id)
        if not locks.holds(ENVIRONMENT):
            if not self._is_left(ended_arn, incident, locks):
                return False
            locks.check(map(table_lock, incident.tables()))
            if not locks.inherit(ENVIRONMENT, ended_arn):
                return False
        if incident.inherit():
            return True
        # It ended between taking the lock and opening the incident, and had frozen nothing; but perhaps it took the
        # lock from an execution that had, and whose own guardian has kept out for it.
        locks.release([ENVIRONMENT])
        return False

    @staticmethod
    def _is_left(ended_arn: str, incident: Incident, locks: Locks) -> bool:
        """Whether the incident is still as the execution left it."""
        if any(left.ended and (left.name, left.owner) == (ENVIRONMENT, ended_arn) for left in locks.left()):
            return not incident.succeeded()
        begun = incident.unattended()
        if begun is None or (begun.incident_id, begun.execution_arn) != (incident.incident_id, ended_arn):
            return False
        return locks.left_free(ended_arn) is not None

    def give_up(self, lock: str, ended_arn: str, settled_at: datetime) -> None:
        """Free the lock of an execution that has ended, and whose incident is not the guardian's to close."""
        self._locks("").forget(lock, ended_arn, settled_at)

    def _end(self, ended_arn: str) -> tuple[str, str]:
        """The error's name, and a sentence about the end."""
        try:
            execution: Mapping[str, Any] = self.stepfunctions.describe_execution(executionArn=ended_arn)
        except ClientError as refusal:
            if refusal.response["Error"]["Code"] != "ExecutionDoesNotExist":
                raise
            return "RecoveryBroken", f"Execution {ended_arn} ended so long ago that Step Functions has forgotten it."
        status = str(execution["status"])
        error = _ERRORS.get(status, str(execution.get("error") or "RecoveryBroken"))
        why = " ".join(filter(None, (execution.get("error"), execution.get("cause"))))
        return error, f"Execution {ended_arn} is {status}{': ' + why[:500].rstrip('.') if why else ''}."

    def _incident(self, incident_id: str) -> Incident:
        return Incident(ledger=self.ledger, clock=self.clock, incident_id=incident_id, execution_arn=self.execution_arn)

    def _locks(self, incident_id: str) -> Locks:
        return Locks(
            ledger=self.ledger,
            stepfunctions=self.stepfunctions,
            clock=self.clock,
            execution_arn=self.execution_arn,
            incident_id=incident_id,
        )
