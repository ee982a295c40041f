"""The record of one table's hard reset: preflight, phases, and the verdict.

A hard reset is in one of three phases, kept in the ledger: ``purge`` (also before it), ``copy`` (the destination was
proven empty), ``verified`` (the verdict is in). A failed verdict, or a destination that is not empty, begins a new
attempt: purge and copy start over with fresh checkpoints. In the mode ``differential`` the phase of that name is there
in the place of purge and copy.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from .clock import Clock, from_iso, to_iso
from .compare import describe_differences
from .digest import to_hex
from .errors import (
    DestinationNotEmpty,
    InvalidRequest,
    KeySchemaMismatch,
    SensitiveTable,
    StaleWorker,
    VerificationFailed,
)
from .ledger import Ledger, PageResult, PhaseTotals, incident_partition
from .request import DIFFERENTIAL, HARD_RESET, HardResetRequest
from .tables import TableDescription, choose_segments, describe_table, parse_table_arn

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_FIRST_PHASE = {HARD_RESET: "purge", DIFFERENTIAL: "differential"}
WRITING_PHASES = frozenset({"purge", "copy", "differential"})
"""Phases whose workers change the destination."""

# Leaves the verdict in front of it well within what a cause may have.
_LONGEST_FAILURE = 500


@dataclass(frozen=True, kw_only=True)
class Options:
    """How one table's hard reset is to be run; from the stack's configuration.

    Args:
        segments: number of scan segments, or None to choose from the table's size.
        concurrency: how many segments are worked on at once.
        max_write_units: write units a second that a recovery may take, or None.
        capacity_share: the same as a share of the table's capacity, or None.
        source_patterns: shell patterns of the names of tables that may be copied from.
    """

    segments: int | None
    concurrency: int
    max_write_units: float | None
    capacity_share: float | None
    source_patterns: Sequence[str]

    def pacing(self, table: TableDescription, segments: int) -> dict[str, Any]:
        """How fast the workers of ``table`` may write; see ``handlers.core.pacing.Pacer``."""
        shares = () if self.capacity_share is None else (self.capacity_share * table.facts.write_capacity,)
        limits = (*shares, *(() if self.max_write_units is None else (self.max_write_units,)))
        return {
            "startUnitsPerSecond": min((table.facts.write_pace, *limits)),
            "limitUnitsPerSecond": min(limits) if limits else None,
            "workers": min(self.concurrency, segments),
        }


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the state machine needs to run the phases; no item's content or key values."""

    table_name: str
    source_table_name: str
    mode: str
    phase: str
    attempt: int
    verification: int
    segments: int
    ttl_attribute: str | None


def check_tables(
    dynamodb: DynamoDBClient, request: HardResetRequest, sensitive: Sequence[str], options: Options
) -> tuple[TableDescription, TableDescription]:
    """See that the copy may and can be done; returns (source, destination). Changes nothing.

    Raises:
        InvalidRequest: same table, other account or region, a source this stack may not read, a table not ACTIVE.
        SensitiveTable: the source is a sensitive table or was restored from one.
        UnknownTable: a table does not exist.
        KeySchemaMismatch: the primary keys differ.
    """
    source_arn, destination_arn = request.source, request.destination
    source_place, destination_place = (
        f"{arn.partition}/{arn.account}/{arn.region}" for arn in (source_arn, destination_arn)
    )
    if source_place != destination_place:
        raise InvalidRequest(
            f"The source is in {source_place}, the destination in {destination_place}. Expected both in one "
            "partition, account and region: correct the ARNs and start again."
        )
    if source_arn.name == destination_arn.name:
        raise InvalidRequest(
            f"sourceTableArn and destinationTableArn both name {source_arn.name}. Expected two tables: a reset of a "
            "table from itself would only purge it. Name the restored table as the source and start again."
        )
    if source_arn.name in sensitive:
        raise SensitiveTable(
            f"The source {source_arn.name} is a sensitive table of this stack. No part of the system may read it; "
            "choose another source."
        )
    if not any(fnmatchcase(source_arn.name, pattern) for pattern in options.source_patterns):
        raise InvalidRequest(
            f"The source {source_arn.name} is none that this stack may read. Expected a name like one of "
            f"{', '.join(options.source_patterns)}: restore the table under such a name, or add it to the "
            "configuration key sourceTables and deploy."
        )
    source = describe_table(dynamodb, source_arn.name)
    destination = describe_table(dynamodb, destination_arn.name)
    if source.restored_from_arn is not None and source.restored_from_arn != destination.arn:
        origin = parse_table_arn(source.restored_from_arn, "the source's RestoreSummary").name
        if origin in sensitive:
            raise SensitiveTable(
                f"The source {source.name} was restored from {origin}, a sensitive table of this stack. No part of "
                "the system may read its data; choose another source."
            )
        # Also what keeps out a copy of a copy of a sensitive table, whose RestoreSummary goes back one step only.
        raise InvalidRequest(
            f"The source {source.name} was restored from {origin}. Expected a restored table to be one of "
            f"{destination.name}: choose such a source and start again."
        )
    for table in (source, destination):
        # UPDATING is a table in service whose capacity or indexes are being changed.
        if table.status not in ("ACTIVE", "UPDATING"):
            raise InvalidRequest(
                f"Table {table.name} is {table.status}. Expected ACTIVE: wait until it is, then start again."
            )
    for described, arn in ((source, source_arn), (destination, destination_arn)):
        if parse_table_arn(described.arn, "DescribeTable's TableArn") != arn:
            raise InvalidRequest(
                f"Table {arn.name} is {described.arn} here, not in {source_place}. Expected ARNs of this stack's "
                "account and region: correct them and start again."
            )
    if source.key != destination.key:
        raise KeySchemaMismatch(
            f"The key of the source {source.name} is {source.describe_key()}; that of the destination "
            f"{destination.name} is {destination.describe_key()}. Expected the same names, roles and types: choose "
            "a source that was restored from the destination."
        )
    return source, destination


@dataclass(frozen=True, kw_only=True)
class HardReset:
    """The hard reset of one table in one incident, as the ledger knows it."""

    ledger: Ledger
    clock: Clock
    incident_id: str
    table_name: str

    @property
    def _key(self) -> tuple[str, str]:
        return incident_partition(self.incident_id), f"TABLE#{self.table_name}"

    def open(
        self,
        source: TableDescription,
        destination: TableDescription,
        segments: int | None,
        mode: str = HARD_RESET,
    ) -> dict[str, Any]:
        """Begin, or find where an earlier execution of the incident stopped; returns the record.

        Raises:
            InvalidRequest: the incident finished this table already, or was begun with another source or mode.
        """
        fresh = {
            "mode": mode,
            "phase": _FIRST_PHASE[mode],
            "attempt": 1,
            "verification": 1,
            "sourceTableName": source.name,
            "segments": choose_segments(
                max(source.item_count, destination.item_count),
                max(source.size_bytes, destination.size_bytes),
                segments,
                counted=source.counted and destination.counted,
            ),
            "startedAt": to_iso(self.clock()),
        }
        if mode == DIFFERENTIAL:
            fresh["copyStartedAt"] = fresh["startedAt"]  # there is no purge before it
        if self.ledger.create(*self._key, fresh):
            return fresh
        record = self._record()
        if record["sourceTableName"] != source.name:
            raise InvalidRequest(
                f"Incident {self.incident_id!r} was begun for {self.table_name} from {record['sourceTableName']}, not "
                f"from {source.name}. Expected the same source on every start: use it, or another incidentId."
            )
        if _mode(record) != mode:
            # A purge half done is no ground for a differential, nor are its counts: one incident, one way.
            raise InvalidRequest(
                f"Incident {self.incident_id!r} was begun for {self.table_name} in mode {_mode(record)}, not {mode}. "
                "Expected the same mode on every start: use it, or another incidentId."
            )
        if record["phase"] == "verified":
            raise InvalidRequest(
                f"Incident {self.incident_id!r} has already reset and verified {self.table_name}. Expected an "
                "unfinished one: to reset the table again use another incidentId."
            )
        # Every start verifies anew: digests of an interrupted verification may be out of date.
        verification = int(record["verification"]) + 1
        self.ledger.update(*self._key, {"verification": verification}, only_if={})
        return {**record, "verification": verification}

    def plan(self, record: Mapping[str, Any], ttl_attribute: str | None) -> Plan:
        """What the state machine needs to go on from ``record``."""
        return Plan(
            table_name=self.table_name,
            source_table_name=record["sourceTableName"],
            mode=_mode(record),
            phase=record["phase"],
            attempt=int(record["attempt"]),
            verification=int(record["verification"]),
            segments=int(record["segments"]),
            ttl_attribute=ttl_attribute,
        )

    def is_verified(self) -> bool:
        """Whether the verdict is in, and good."""
        record = self.ledger.get(*self._key)
        return record is not None and record["phase"] == "verified"

    def require_phase(self, phase: str, attempt: int) -> None:
        """See that the reset is still in this phase and attempt, before a worker changes anything.

        Raises:
            StaleWorker: it is not.
        """
        record = self._record()
        if (record["phase"], int(record["attempt"])) != (phase, attempt):
            raise StaleWorker(
                f"The reset of {self.table_name} is in its {record['phase']}, attempt {record['attempt']}. Expected "
                f"{phase}, attempt {attempt}: this worker has outlived its phase and stops here."
            )

    def purged(self, items_found: int) -> None:
        """Judge the destination after the purge: empty, or a new attempt.

        Raises:
            DestinationNotEmpty: ``items_found`` is not 0.
        """
        if items_found:
            self._start_over()
            raise DestinationNotEmpty(
                f"{self.table_name} holds at least {items_found} item(s) right after its purge. Expected none: "
                "something outside the frozen functions is writing to it. Stop that writer, then start the same "
                "incident again; it purges once more."
            )
        # Not over a later phase or attempt: this may be a call whose answer was lost long ago.
        copying = {"phase": "copy", "copyStartedAt": to_iso(self.clock())}
        self.ledger.update(*self._key, copying, only_if={"phase": "purge"})

    def verify(self, verifying_since: int | None = None) -> dict[str, Any]:
        """Compare the digests of both sides; returns the table's output of the contract.

        ``verifying_since``: the epoch second at which the digests were begun, where it is known.

        Raises:
            VerificationFailed: they differ, or the verification did not cover every segment.
        """
        record = self._record()
        verification, segments = int(record["verification"]), int(record["segments"])

        def totals(phase: str, generation: int) -> PhaseTotals:
            return self.ledger.totals(self.incident_id, self.table_name, phase, generation)

        source = totals("verify-source", verification)
        destination = totals("verify-destination", verification)
        complete = source.complete_segments == destination.complete_segments == segments
        equal = (source.result.items, source.result.digest) == (destination.result.items, destination.result.digest)
        different = source.result.different + destination.result.different
        if not complete or not equal or different:
            self._start_over()
            copied, again = (
                ("writing the differences", "it looks for differences")
                if _mode(record) == DIFFERENTIAL
                else ("the copy", "it purges and copies")
            )
            raise VerificationFailed(
                f"After {copied} the source of {self.table_name} has {source.result.items} items with digest "
                f"{to_hex(source.result.digest)[:16]}… and the table has {destination.result.items} items with digest "
                f"{to_hex(destination.result.digest)[:16]}…; {different} of the items that expire soon differ "
                f"({source.complete_segments} and {destination.complete_segments} of {segments} segments read). "
                "Expected both to be equal: something wrote to the table during the recovery. Stop that writer, then "
                f"start the same incident again; {again} once more."
            )
        purged, copied_items = self._written(record)
        now = self.clock()
        summary = {
            "tableName": self.table_name,
            "mode": _mode(record),
            "purgedItems": purged,
            "copiedItems": copied_items,
            # Those that expire soon were compared one by one, the others by digest; TTL has taken the rest already.
            "verifiedItems": destination.result.items + source.result.expiring,
            "expiredItems": source.result.expired,
            "sourceDigest": to_hex(source.result.digest),
            "destinationDigest": to_hex(destination.result.digest),
            "verified": True,
            "durationSeconds": int((now - from_iso(record["startedAt"])).total_seconds()),
            "consumedCapacity": self.ledger.capacity(self.incident_id, self.table_name),
        }
        if verifying_since is not None and "copyStartedAt" in record:
            began, copying = (from_iso(record[name]).timestamp() for name in ("startedAt", "copyStartedAt"))
            summary["phaseSeconds"] = {
                "purge": int(copying - began),
                # Clocks of two services; no phase took less than nothing.
                "copy": max(0, int(verifying_since - copying)),
                "verify": max(0, int(now.timestamp() - verifying_since)),
            }
        # The summary is stored as JSON text: it is a report, and must come back with the very same numbers.
        self.ledger.update(
            *self._key,
            {"phase": "verified", "verifiedAt": to_iso(now), "summary": json.dumps(summary)},
            only_if={},
        )
        return summary

    def _written(self, record: Mapping[str, Any]) -> tuple[int, int]:
        """How many items were deleted, and how many put."""
        attempt = int(record["attempt"])

        def result(phase: str, generation: int) -> PageResult:
            return self.ledger.totals(self.incident_id, self.table_name, phase, generation).result

        if _mode(record) == HARD_RESET:
            return result("purge", attempt).items, result("copy", attempt).items
        # What an attempt has mended the next one finds equal.
        found = PageResult()
        for generation in range(1, attempt + 1):
            found = found.plus(result("differential", generation))
        return found.extra, found.missing + found.changed

    def explain_differences(self, verdict: str, *, keys_at: str, failure: str | None) -> str:
        """The cause of a failed verification with what the comparison item by item has found.

        Counts and place come first: an orchestrator of many tables cuts causes short.

        Args:
            verdict: the cause so far.
            keys_at: URI prefix of the objects that list the differing keys.
            failure: why the comparison failed, where it did. It never replaces the verdict.
        """
        record = self._record()
        segments, found = int(record["segments"]), PageResult()
        for side in ("source", "destination"):
            totals = self.ledger.totals(
                self.incident_id, self.table_name, f"compare-{side}", int(record["verification"])
            )
            found = found.plus(totals.result)
            if failure is None and totals.complete_segments != segments:
                failure = f"only {totals.complete_segments} of {segments} segments of the {side} were compared"
        differ = found.missing + found.extra + found.changed
        if failure is not None:
            so_far = f". Found so far: {describe_differences(found, keys_at)}" if differ else ""
            return (
                f"{verdict} Besides, the differing keys could not all be listed: {failure[:_LONGEST_FAILURE]}{so_far}"
            )
        if not differ:
            return f"{verdict} Compared item by item afterwards both were equal: what differed has been undone since."
        return f"{describe_differences(found, keys_at)} {verdict}"

    def _record(self) -> dict[str, Any]:
        record = self.ledger.get(*self._key)
        if record is None:
            raise InvalidRequest(
                f"The ledger knows no reset of {self.table_name} in incident {self.incident_id!r}. Expected the "
                "preflight to have recorded one: start the hard reset from its beginning."
            )
        return record

    def _start_over(self) -> None:
        record = self._record()
        self.ledger.update(
            *self._key,
            {"phase": _FIRST_PHASE[_mode(record)], "attempt": int(record["attempt"]) + 1},
            only_if={"attempt": record["attempt"]},
        )


def _mode(record: Mapping[str, Any]) -> str:
    """The mode a reset was begun in; records from before there was a choice have none."""
    return str(record.get("mode", HARD_RESET))
