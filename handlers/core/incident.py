"""An incident: one recovery, however many executions it takes."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from .clock import Clock, from_iso, to_iso
from .errors import InvalidRequest, RecoveryInProgress
from .ledger import Ledger, incident_partition
from .locks import PARTITION
from .request import RecoveryRequest
from .tables import TableDescription

_RUN = "RUN"
_FORECAST = "FORECAST"
_UNFINISHED = "INCIDENT"
_RUNNING, _CLOSING, _SUCCEEDED = "RUNNING", "CLOSING", "SUCCEEDED"
SUPERSEDED = "SUPERSEDED"
"""Status of an incident whose tables a later incident recovers instead."""


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
        if record["status"] in (_SUCCEEDED, SUPERSEDED) and record["executionArn"] != self.execution_arn:
            raise InvalidRequest(
                f"Incident {self.incident_id!r} is over since {record['endedAt']}: {record['status']}. Expected an "
                "unfinished one: to recover again use another incidentId."
            )
        return record

    def check_sources(self, restored_tables: Mapping[str, str]) -> None:
        """See that no table of the incident was reset from something else than what this incident restores.

        ``restored_tables``: table name → name of its restored table. Changes nothing.

        Raises:
            InvalidRequest: the id was used for a hard reset by hand.
        """
        for record in self.ledger.query(self._partition, "TABLE#"):
            name = record["sk"].removeprefix("TABLE#")
            if record["sourceTableName"] != restored_tables.get(name):
                raise InvalidRequest(
                    f"Incident {self.incident_id!r} was used for a hard reset of {name} from "
                    f"{record['sourceTableName']}. Expected an id of its own for each recovery: use another incidentId."
                )

    def check_unfinished(self, tables: Collection[str]) -> str | None:
        """The id of another incident that is not over, which this one may supersede, or None; changes nothing.

        Raises:
            RecoveryInProgress: that one left tables half restored which are not among ``tables``: to release the
                functions after this incident would serve them.
        """
        other = self._half_restored()
        if other is None:
            return None
        left = sorted(set(other.tables()) - set(tables))
        if left:
            raise RecoveryInProgress(
                f"Incident {other.incident_id!r} has purged tables, and has not restored all of them yet, or not let "
                f"the consumers of their streams skip that; of its tables this request lacks {', '.join(left)}. "
                f"Expected to finish it first: start {other.incident_id!r} again, or "
                "recover all of its tables in this incident."
            )
        return other.incident_id

    def check_by_hand(self, table_name: str) -> None:
        """See that a hard reset by hand, with this incident's id, keeps out of the orchestrator's business.

        Changes nothing.

        Raises:
            InvalidRequest: the id is one of the orchestrator's.
            RecoveryInProgress: the table is one that another incident has yet to restore.
        """
        if self.record() is not None:
            raise InvalidRequest(
                f"Incident {self.incident_id!r} is one of the orchestrator's. Expected an id of its own for a hard "
                "reset by hand: use another incidentId, or start the orchestrator to go on with that incident."
            )
        other = self._half_restored()
        if other is not None and table_name in other.tables():
            raise RecoveryInProgress(
                f"Incident {other.incident_id!r} has not finished {table_name} and other tables yet, and the functions "
                f"are frozen until it has. Expected to finish it first: start {other.incident_id!r} again, or recover "
                "all of its tables to another time in a new incident of the orchestrator."
            )

    def _half_restored(self) -> Incident | None:
        """Another incident that has left tables half restored, or stream records to be skipped, if there is one."""
        marker = self.ledger.get(PARTITION, _UNFINISHED)
        if marker is None or marker["incidentId"] == self.incident_id:
            return None
        other = replace(self, incident_id=marker["incidentId"])
        return other if other.must_stay_frozen() or other.must_discard() else None

    def open(self, request: RecoveryRequest, *, supersede: str | None) -> None:
        """Record that this execution works on the incident, and that it is not over. Needs the environment's lock.

        The first start's time stays, and so does a release that has begun. An incident that is superseded cannot be
        resumed any more.
        """
        release_begun = self.only_release_left()
        if supersede is not None:
            self.ledger.update(
                incident_partition(supersede), _RUN, {"status": SUPERSEDED, "endedAt": to_iso(self.clock())}, only_if={}
            )
        run: dict[str, Any] = {
            "status": _RUNNING,
            "executionArn": self.execution_arn,
            "streamPolicy": self.stream_policy(request),
            "releaseBegun": release_begun,
            "openedAt": to_iso(self.clock()),
            "resetsBegun": None,
        }
        if supersede is not None:
            run["supersedes"] = supersede
        first = {"request": json.dumps(request.fingerprint()), "startedAt": to_iso(self.clock())}
        if not self.ledger.create(self._partition, _RUN, {**run, **first}):
            self.ledger.update(self._partition, _RUN, run, only_if={})
        self.ledger.put(PARTITION, _UNFINISHED, {"incidentId": self.incident_id})

    def keep_forecast(self, kept: Mapping[str, Any]) -> None:
        """Keep what was forecast at the first start; what a resumed incident finds is half reset, and tells less."""
        self.ledger.create(self._partition, _FORECAST, {"kept": json.dumps(kept)})

    def kept_forecast(self) -> dict[str, Any]:
        """What :meth:`keep_forecast` kept: ``prices``, and in ``tables`` by name each ``forecast`` and its ``basis``.

        Empty where nothing was kept.
        """
        record = self.ledger.get(self._partition, _FORECAST)
        return dict(json.loads(record["kept"])) if record else {}

    def end(self) -> None:
        """Record that the incident is over, and well. After a failure the record stays, and its status tells more."""
        self.ledger.delete(PARTITION, _UNFINISHED, only_if=("incidentId", self.incident_id))

    def inherit(self) -> bool:
        """Make the incident this execution's to close; False when it was never opened. Needs the environment's lock."""
        return self.ledger.update(self._partition, _RUN, {"executionArn": self.execution_arn}, only_if={})

    def succeeded(self) -> bool:
        """Whether the incident is over, and well."""
        return (self.record() or {}).get("status") == _SUCCEEDED

    def stream_policy(self, request: RecoveryRequest) -> str:
        """The request's stream policy; where it has none, that of the incident's last start."""
        return request.stream_policy or str((self.record() or {}).get("streamPolicy", "replay"))

    def unattended(self) -> Incident | None:
        """The incident that was begun last and is not closed, as it stands for the execution that works on it; or None.

        Its execution may be running, or have ended without closing it.
        """
        marker = self.ledger.get(PARTITION, _UNFINISHED)
        if marker is None:
            return None
        other = replace(self, incident_id=marker["incidentId"])
        record = other.record() or {}
        if record.get("status") not in (_RUNNING, _CLOSING):
            return None
        return replace(other, execution_arn=record["executionArn"])

    def stop_resets(self) -> None:
        """Let no hard reset of this incident begin any more: see :meth:`resets_may_begin`."""
        self.ledger.update(self._partition, _RUN, {"status": _CLOSING}, only_if={"executionArn": self.execution_arn})

    def is_closing(self) -> bool:
        """Whether the orchestrator is at its failure: nothing of the incident may be frozen or reset any more."""
        return (self.record() or {}).get("status") == _CLOSING

    def begin_resets(self) -> None:
        """Record that every table is prepared and everything was still frozen: from now on tables may be purged."""
        begun = {"resetsBegun": self.execution_arn}
        self.ledger.update(self._partition, _RUN, begun, only_if={"executionArn": self.execution_arn})

    def resets_may_begin(self) -> bool:
        """Whether the orchestrator is at its resets: past all preparation, and not yet at its failure."""
        record = self.record()
        return (
            record is not None and record["status"] == _RUNNING and record.get("resetsBegun") == record["executionArn"]
        )

    def check_preparation(self, source: TableDescription, destination: TableDescription) -> datetime:
        """See that a source is what the orchestrator restores; returns since when its backups are of this execution.

        Raises:
            InvalidRequest: it is not the table restored to the incident's restore point.
        """
        record = self.record() or {}
        moment = from_iso(json.loads(record["request"])["restoreDateTime"])
        if (source.restored_from_arn, source.restored_to) != (destination.arn, moment):
            raise InvalidRequest(
                f"The source {source.name} is not {destination.name} restored to {to_iso(moment)}, the restore point "
                f"of incident {self.incident_id!r}. Expected what the orchestrator restores: leave "
                "orchestratorExecutionArn out to reset the table by hand, when no orchestrator runs."
            )
        return from_iso(record["openedAt"])

    def only_release_left(self) -> bool:
        """Whether every table is verified, and the release had begun: the system may be live again."""
        record = self.record() or {}
        finished = {summary["tableName"] for summary in self.finished_tables()}
        return bool(record.get("releaseBegun")) and finished.issuperset(self.tables())

    def begin_release(self) -> None:
        """Record that every table is verified and the streams may be read on: nothing is left to stay frozen for."""
        self.ledger.update(self._partition, _RUN, {"releaseBegun": True}, only_if={"executionArn": self.execution_arn})

    def must_discard(self) -> bool:
        """Whether consumers of the tables' streams were to skip the reset's records, and have not yet."""
        record = self.record() or {}
        if record.get("streamPolicy") != "discard" or record.get("releaseBegun"):
            return False
        return any(map(self._purge_has_begun, self.tables()))

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

    def must_stay_frozen(self) -> bool:
        """Whether the point of no return is passed and some table is not yet verified.

        Then the functions must not be released: they would serve half-restored data. A purge that an incident which
        this one supersedes had begun counts as well.
        """
        tables = self.tables()
        finished = {summary["tableName"] for summary in self.finished_tables()}
        return not finished.issuperset(tables) and any(map(self._purge_has_begun, tables))

    def _purge_has_begun(self, table_name: str) -> bool:
        incident: Incident | None = self
        while incident is not None:
            if self.ledger.purge_has_begun(incident.incident_id, table_name):
                return True
            superseded = (incident.record() or {}).get("supersedes")
            incident = replace(self, incident_id=superseded) if superseded else None
        return False
