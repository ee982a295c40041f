"""The inputs of both state machines, checked.

Checks are strict: an unknown field is an error, because a misspelt ``dryRun`` would otherwise start a real recovery.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .clock import from_iso, to_iso
from .errors import ConfirmationMismatch, InvalidRequest, SensitiveTable, UnknownTable, shown
from .tables import TableArn, parse_table_arn

_INCIDENT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# Step Functions adds this to the input of executions that a state machine starts.
_ADDED_BY_STEP_FUNCTIONS = frozenset({"AWS_STEP_FUNCTIONS_STARTED_BY_EXECUTION_ID"})
HARD_RESET, DIFFERENTIAL = "hard-reset", "differential"
_MODES = (HARD_RESET, DIFFERENTIAL)
_STREAM_POLICIES = ("replay", "discard")


def _object(value: object, what: str, required: Collection[str], optional: Collection[str]) -> Mapping[str, Any]:
    """``value`` as a JSON object with exactly the fields allowed."""
    if not isinstance(value, Mapping):
        raise InvalidRequest(
            f"{what} is {shown(value)}. Expected a JSON object with {', '.join(required)}. "
            "Correct the input and start again."
        )
    missing = [name for name in required if name not in value]
    unknown = [name for name in value if name not in {*required, *optional, *_ADDED_BY_STEP_FUNCTIONS}]
    if missing or unknown:
        found = "; ".join(
            part
            for part in (
                f"lacks {', '.join(missing)}" if missing else "",
                f"has {_unknown_fields(unknown)}" if unknown else "",
            )
            if part
        )
        allowed = f", and optionally {', '.join(optional)}" if optional else ""
        raise InvalidRequest(
            f"{what} {found}. Expected {', '.join(required)}{allowed}. Correct the input and start again."
        )
    return value


def _unknown_fields(names: Sequence[str]) -> str:
    first = ", ".join(map(shown, sorted(names)[:3]))
    return f"the unknown field(s) {first}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def is_incident_id(value: object) -> bool:
    """Whether this can be an incident's id. Anything else has never been recorded."""
    return isinstance(value, str) and _INCIDENT_ID.fullmatch(value) is not None


def _incident_id(value: object) -> str:
    if not isinstance(value, str) or not is_incident_id(value):
        raise InvalidRequest(
            f"incidentId is {shown(value)}. Expected 1 to 64 letters, digits, dots, underscores or hyphens, beginning "
            "with a letter or digit, e.g. bad-migration-2026-11-20. Correct the input and start again."
        )
    return value


def _mode(request: Mapping[str, Any]) -> str:
    mode = request.get("mode", HARD_RESET)
    if mode not in _MODES:
        raise InvalidRequest(
            f"mode is {shown(mode)}. Expected {' or '.join(_MODES)}, or to leave it out for {HARD_RESET}. Correct the "
            "input and start again."
        )
    return str(mode)


def _restore_time(value: object) -> datetime:
    try:
        moment = from_iso(value) if isinstance(value, str) else None
    except (ValueError, OverflowError):  # the latter from offsets at either end of time
        moment = None
    if moment is None or moment.microsecond:
        raise InvalidRequest(
            f"restoreDateTime is {shown(value)}. Expected a date and time with offset in whole seconds, to which PITR "
            "restores, e.g. 2026-11-20T09:00:00Z. Correct the input and start again."
        )
    return moment


@dataclass(frozen=True, kw_only=True)
class RecoveryRequest:
    """The orchestrator's input.

    ``stream_policy``: whether the consumers of the tables' streams see the reset's records after the release
    (``replay``) or skip them (``discard``); None where the input leaves it out: as at the last start, first ``replay``.
    """

    incident_id: str
    restore_time: datetime
    tables: tuple[str, ...]
    mode: str
    dry_run: bool
    stream_policy: str | None = None

    def fingerprint(self) -> dict[str, Any]:
        """What every start of the same incident must agree on; a later start may choose another stream policy."""
        return {
            "restoreDateTime": to_iso(self.restore_time),
            "tables": sorted(self.tables),
            "mode": self.mode,
        }

    @classmethod
    def parse(cls, value: object, *, protected: Collection[str], sensitive: Collection[str]) -> RecoveryRequest:
        """Check the orchestrator's input.

        Raises:
            InvalidRequest, ConfirmationMismatch, SensitiveTable, UnknownTable: as their names say.
        """
        request = _object(
            value, "The input", ("incidentId", "restoreDateTime", "tables"), ("mode", "dryRun", "streamPolicy")
        )
        incident_id = _incident_id(request["incidentId"])
        tables = _confirmed_tables(request["tables"], protected, sensitive)
        mode = _mode(request)
        dry_run = request.get("dryRun", False)
        if not isinstance(dry_run, bool):
            raise InvalidRequest(
                f"dryRun is {shown(dry_run)}. Expected true or false, without quotes. Correct the input and start "
                "again."
            )
        stream_policy = request.get("streamPolicy")
        if "streamPolicy" in request and stream_policy not in _STREAM_POLICIES:
            raise InvalidRequest(
                f"streamPolicy is {shown(stream_policy)}. Expected replay or discard: whether the consumers of the "
                "tables' streams see what the reset writes. Correct the input and start again."
            )
        return cls(
            incident_id=incident_id,
            restore_time=_restore_time(request["restoreDateTime"]),
            tables=tables,
            mode=mode,
            dry_run=dry_run,
            stream_policy=stream_policy,
        )


def _confirmed_tables(value: object, protected: Collection[str], sensitive: Collection[str]) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise InvalidRequest(
            f"tables is {shown(value) if value != [] else 'an empty array'}. Expected an array of objects with "
            "tableName and tableNameRecoveryConfirmation, one for each table to recover. Correct the input and start "
            "again."
        )
    names: list[str] = []
    for index, entry in enumerate(value):
        what = f"tables[{index}]"
        table = _object(entry, what, ("tableName",), ("tableNameRecoveryConfirmation",))
        name = table["tableName"]
        if not isinstance(name, str):
            raise InvalidRequest(f"{what}.tableName is {shown(name)}. Expected a table's name. Correct the input.")
        if name in sensitive:
            raise SensitiveTable(
                f"{name} is a sensitive table of this stack. No part of the system may touch it: leave it out of "
                "tables and start again."
            )
        if name not in protected:
            raise UnknownTable(
                f"{shown(name)} is not protected by this stack. Expected one of {_some(protected)}: correct the "
                "name, or add the table to the configuration key tables and deploy."
            )
        confirm(table.get("tableNameRecoveryConfirmation"), name)
        if name in names:
            raise InvalidRequest(f"{name} is listed twice in tables. Expected each table once. Correct the input.")
        names.append(name)
    return tuple(names)


def _some(names: Collection[str]) -> str:
    """The names, or of many the first ones: the rest of the message has to stay readable."""
    first = ", ".join(sorted(names)[:20])
    return first if len(names) <= 20 else f"{first}, … ({len(names)} in all)"


def confirm(confirmation: object, table_name: str) -> None:
    """See that the operator typed the name of the table that will be overwritten.

    Raises:
        ConfirmationMismatch: it is missing or another.
    """
    if confirmation != table_name:
        found = "missing" if confirmation is None else shown(confirmation)
        raise ConfirmationMismatch(
            f"tableNameRecoveryConfirmation is {found} for table {table_name}. Expected {table_name!r}, "
            "exactly: that table's content will be replaced by its restore point's, and whatever else it holds is "
            "deleted. If that is what you want, pass its name and start again."
        )


@dataclass(frozen=True, kw_only=True)
class HardResetRequest:
    """The hard reset's input.

    ``mode``: ``hard-reset``, or ``differential`` to write only what differs. ``backup_arn`` and
    ``orchestrator_execution_arn`` are passed by the orchestrator only: the backup it took already, and the execution
    whose lock the reset works under.
    """

    incident_id: str
    source: TableArn
    destination: TableArn
    mode: str
    backup_arn: str | None
    orchestrator_execution_arn: str | None

    @classmethod
    def parse(cls, value: object, *, table_name: str) -> HardResetRequest:
        """Check the input of the hard-reset state machine of ``table_name``.

        Raises:
            InvalidRequest, ConfirmationMismatch: as their names say.
        """
        request = _object(
            value,
            "The input",
            ("incidentId", "sourceTableArn", "destinationTableArn", "tableNameRecoveryConfirmation"),
            ("mode", "backupArn", "orchestratorExecutionArn"),
        )
        confirm(request["tableNameRecoveryConfirmation"], table_name)
        destination = parse_table_arn(request["destinationTableArn"], "destinationTableArn")
        if destination.name != table_name:
            raise InvalidRequest(
                f"destinationTableArn names {destination.name}, but this state machine resets {table_name} only. "
                "Expected the ARN of that table: correct it, or start the other table's state machine."
            )
        for name in ("backupArn", "orchestratorExecutionArn"):
            if not isinstance(request.get(name), str | None):
                raise InvalidRequest(f"{name} is {shown(request[name])}. Expected an ARN. Correct the input.")
        if request.get("backupArn") is not None and request.get("orchestratorExecutionArn") is None:
            raise InvalidRequest(
                "backupArn is given without orchestratorExecutionArn. Expected neither: a hard reset by hand takes its "
                "own backup, so that nothing which is in the table now can be missing from it."
            )
        return cls(
            incident_id=_incident_id(request["incidentId"]),
            source=parse_table_arn(request["sourceTableArn"], "sourceTableArn"),
            destination=destination,
            mode=_mode(request),
            backup_arn=request.get("backupArn"),
            orchestrator_execution_arn=request.get("orchestratorExecutionArn"),
        )
