"""An incident: one recovery, however many executions it takes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .clock import Clock, to_iso
from .errors import InvalidRequest
from .ledger import Ledger, incident_partition
from .request import RecoveryRequest

_RUN = "RUN"


@dataclass(frozen=True, kw_only=True)
class Incident:
    """The record of an incident in the ledger, on behalf of one execution of the orchestrator."""

    ledger: Ledger
    clock: Clock
    incident_id: str
    execution_arn: str

    @property
    def _partition(self) -> str:
        return incident_partition(self.incident_id)

    def check(self, request: RecoveryRequest) -> dict[str, Any] | None:
        """The record of an earlier start, or None; changes nothing.

        Raises:
            InvalidRequest: the earlier start asked for something else, or the incident is over.
        """
        record = self.ledger.get(self._partition, _RUN)
        if record is None:
            return None
        asked_before = json.loads(record["request"])
        if asked_before != request.fingerprint():
            raise InvalidRequest(
                f"Incident {self.incident_id!r} was started with {json.dumps(asked_before)}, and now with "
                f"{json.dumps(request.fingerprint())}. Expected the same on every start: repeat the first input, or "
                "use another incidentId."
            )
        if record["status"] == "SUCCEEDED" and record["executionArn"] != self.execution_arn:
            raise InvalidRequest(
                f"Incident {self.incident_id!r} ended successfully at {record['endedAt']}. Expected an unfinished "
                "one: to recover again use another incidentId."
            )
        return record

    def open(self, request: RecoveryRequest) -> None:
        """Record that this execution works on the incident. The first start's time stays."""
        run = {"status": "RUNNING", "executionArn": self.execution_arn}
        first = {"request": json.dumps(request.fingerprint()), "startedAt": to_iso(self.clock())}
        if not self.ledger.create(self._partition, _RUN, {**run, **first}):
            self.ledger.update(self._partition, _RUN, run, only_if={})

    def owned(self) -> bool:
        """Whether this execution works on the incident; one whose request was refused does not."""
        record = self.record()
        return record is not None and record["executionArn"] == self.execution_arn

    def close(self, status: str, *, error: str, cause: str) -> None:
        """Record how this execution ended, unless another one works on the incident by now."""
        ending = {"status": status, "endedAt": to_iso(self.clock()), "error": error, "cause": cause}
        self.ledger.update(self._partition, _RUN, ending, only_if={"executionArn": self.execution_arn})

    def record(self) -> dict[str, Any] | None:
        """The incident's record, or None."""
        return self.ledger.get(self._partition, _RUN)

    def tables(self) -> list[str]:
        """The tables the incident is about, sorted; empty when there is no record."""
        record = self.record()
        return list(json.loads(record["request"])["tables"]) if record else []

    def finished_tables(self) -> list[dict[str, Any]]:
        """The summaries of the tables that are reset and verified."""
        return [
            json.loads(record["summary"])
            for record in self.ledger.query(self._partition, "TABLE#")
            if record["phase"] == "verified"
        ]

    def must_stay_frozen(self, tables: Sequence[str]) -> bool:
        """Whether the point of no return is passed and some table is not yet verified.

        Then the functions must not be released: they would serve half-restored data.
        """
        finished = {summary["tableName"] for summary in self.finished_tables()}
        begun = any(self.ledger.purge_has_begun(self.incident_id, table) for table in tables)
        return begun and not finished.issuperset(tables)
