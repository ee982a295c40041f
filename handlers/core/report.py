"""The report of a recovery: the orchestrator's output, and what an auditor asks next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .clock import to_iso
from .forecast import Basis, actual_dollars, round_dollars
from .freeze import saved_consumers, saved_settings
from .incident import Incident
from .prices import Prices


def outcome(incident: Incident, *, status: str, error: str, cause: str) -> dict[str, Any]:
    """The orchestrator's output of the contract, but for ``reportUri``, as the ledger knows it."""
    finished = {summary["tableName"]: summary for summary in incident.finished_tables()}
    settings = saved_settings(incident.ledger, incident.incident_id)
    kept = incident.kept_forecast()
    output: dict[str, Any] = {
        "incidentId": incident.incident_id,
        "status": status,
        "tables": [
            _beside_forecast(finished.get(name, {"tableName": name, "verified": False}), kept)
            for name in incident.tables()
        ],
        "frozenFunctions": settings.frozen,
        "releasedFunctions": settings.released,
    }
    if error:
        output |= {"error": error, "cause": cause}
    return output


def _beside_forecast(table: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """A table's output with what was forecast of it, and, once it is reset, what it has cost at the same prices."""
    known = kept.get("tables", {}).get(table["tableName"])
    if known is None:
        return dict(table)
    beside = {**table, "forecast": known["forecast"]}
    if "consumedCapacity" in table:
        units = table["consumedCapacity"]
        beside["usd"] = round_dollars(
            actual_dollars(
                Basis.from_json(known["basis"]),
                Prices.parse(kept["prices"]),
                write_units=units["writeUnits"],
                read_units=units["readUnits"],
                seconds=table["durationSeconds"],
            )
        )
    return beside


def document(incident: Incident, output: Mapping[str, Any]) -> dict[str, Any]:
    """The report as it is stored: the output, the request, times, all saved settings, the tables' stream consumers."""
    record = incident.record() or {}
    settings = saved_settings(incident.ledger, incident.incident_id)
    return {
        **output,
        "request": json.loads(record["request"]) if "request" in record else None,
        "executionArn": incident.execution_arn,
        "startedAt": record.get("startedAt"),
        "reportedAt": to_iso(incident.clock()),
        "functions": [
            {
                "functionName": name,
                "reservedConcurrency": reserved,
                "provisionedConcurrency": settings.provisioned.get(name, {}),
                "state": settings.states[name],
            }
            for name, reserved in settings.reserved.items()
        ],
        "eventSourceMappings": [
            {"uuid": uuid, "functionName": name, "state": state, "discarded": uuid in settings.discarded}
            for uuid, (name, state) in settings.mappings.items()
        ],
        "streamConsumers": saved_consumers(incident.ledger, incident.incident_id),
    }


def report_key(incident: Incident) -> str:
    """Where a report is stored in the report bucket: a folder an incident, a file an execution."""
    return f"reports/{incident.incident_id}/{incident.execution_arn.rsplit(':', 1)[-1]}.json"
