"""The report of a recovery: the orchestrator's output, and what an auditor asks next."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from .clock import to_iso
from .freeze import saved_consumers, saved_settings
from .incident import Incident


def outcome(incident: Incident, *, status: str, error: str, cause: str) -> dict[str, Any]:
    """The orchestrator's output of the contract, but for ``reportUri``, as the ledger knows it."""
    finished = {summary["tableName"]: summary for summary in incident.finished_tables()}
    settings = saved_settings(incident.ledger, incident.incident_id)
    output: dict[str, Any] = {
        "incidentId": incident.incident_id,
        "status": status,
        "tables": [finished.get(name, {"tableName": name, "verified": False}) for name in incident.tables()],
        "frozenFunctions": settings.frozen,
        "releasedFunctions": settings.released,
    }
    if error:
        output |= {"error": error, "cause": cause}
    return output


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
