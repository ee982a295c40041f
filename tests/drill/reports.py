"""A made-up report of a drill, for tests of the page."""

from __future__ import annotations

import zlib
from typing import Any

DAY = "2026-11-20T"
PHASE_TIMES = (
    ("restore", 2.1, 5.2),
    ("backup", 2.1, 3.0),
    ("purge", 6.0, 14.5),
    ("copy", 15.0, 26.0),
    ("verify", 26.4, 33.8),
)
STEP_TIMES = (
    ("Validate the request", 0.0, 0.4),
    ("Wait for stray workers", 0.4, 0.4),
    ("Tell of the start", 0.4, 0.4),
    ("Freeze the functions", 0.5, 1.9),
    ("Prepare every table", 2.0, 5.5),
    ("Reset every table", 5.6, 34.5),
    ("Release the functions", 34.5, 36.2),
    ("Delete the temporary tables", 36.2, 36.9),
    ("Write the report", 36.9, 37.4),
    ("Record the success", 37.4, 37.9),
    ("Unlock", 37.9, 38.0),
    ("Tell of the success", 38.0, 38.0),
)


def succeeded() -> dict[str, Any]:
    """A good drill of three tables."""
    tables = [_table("local-licenses", 5046), _table("local-languages", 7923), _table("local-measurements", 545)]
    return {
        "incidentId": "drill-20261120T120000Z",
        "status": "SUCCEEDED",
        "frozenFunctions": 4,
        "releasedFunctions": 4,
        "reportUri": "s3://local-dr-reports-000000000000-us-east-1/drill-20261120T120000Z/report.json",
        "tables": tables,
        "sensitiveTables": [
            {
                "tableName": "local-ssn",
                "ok": True,
                "equal": True,
                "items": 36,
                "requestsByOthers": 0,
                "controlRequests": 1834,
            }
        ],
        "functions": [
            _function("local-app-api", 5),
            _function("local-app-ingest", None),
            _function("local-app-projector", 2) | {"mappings": [_mapping()]},
            _function("local-app-paused", 0),
            _function("other-team-mailer", 3) | {"inSystem": False, "during": 3},
        ],
        "timeline": [_entry(name, None, start, end) for name, start, end in STEP_TIMES]
        + [_entry(name, each["tableName"], start, end) for each in tables for name, start, end in PHASE_TIMES],
        "checks": [
            {"name": "The recovery says that it succeeded", "ok": True, "detail": "its execution 1 ended SUCCEEDED"},
            {
                "name": "local-licenses equals its state at the restore point",
                "ok": True,
                "detail": "5,046 items compared: 0 missing, 0 extra, 0 changed",
            },
        ],
        "problems": [],
        "error": "",
        "cause": "",
        "executionArn": "arn:aws:states:us-east-1:000000000000:execution:local-dr-orchestrator:1",
        "command": "aws stepfunctions start-execution --endpoint-url http://127.0.0.1:4566 --input '{}'",
        "restoreDateTime": f"{DAY}12:00:09Z",
        "recoverySeconds": 38.2,
        "startedAt": f"{DAY}12:00:00Z",
        "finishedAt": f"{DAY}12:01:02Z",
        "stepSeconds": {"Embedded AWS": 2.8, "Deployment": 3.9, "Recovery": 38.2, "Proof": 3.0},
    }


def failed(cause: str) -> dict[str, Any]:
    """A drill whose recovery failed while copying."""
    report = succeeded()
    for table in report["tables"]:
        table.update(verifiedItems=None, sourceDigest=None, destinationDigest=None, consumedCapacity=None)
        table["independentProof"].update(equal=False, missing=812, changed=0)
    report.update(
        status="FAILED",
        error="CapacityExhausted",
        cause=cause,
        problems=[f"The recovery ended FAILED, CapacityExhausted: {cause}"],
        reportUri=None,
        releasedFunctions=None,
        functions=[],
        sensitiveTables=[],
    )
    report["checks"][0].update(ok=False, detail="It ended FAILED")
    report["timeline"][-2]["end"] = None
    del report["timeline"][-1]
    return report


def _table(name: str, items: int) -> dict[str, Any]:
    digest = f"{zlib.crc32(name.encode()):08x}" * 8
    return {
        "tableName": name,
        "mode": "hard-reset",
        "purgedItems": int(items * 0.9),
        "copiedItems": items,
        "verifiedItems": items,
        "expiredItems": 0,
        "sourceDigest": digest,
        "destinationDigest": digest,
        "verified": True,
        "durationSeconds": 28,
        "consumedCapacity": {"readUnits": items * 1.5, "writeUnits": items * 2.0},
        "phaseSeconds": {"purge": 8, "copy": 11, "verify": 7},
        "forecast": {
            "restoreSeconds": 3600,
            "purgeSeconds": 42,
            "copySeconds": 6,
            "verifySeconds": 7,
            "totalSeconds": 3655,
            "writeUnits": items * 3,
            "readUnits": items,
            "usd": 0.0191,
            "boundBy": "restore",
        },
        "usd": 1234.5,
        "damagedItems": int(items * 0.6),
        "damage": {
            "damagedItems": int(items * 0.6),
            "deletedItems": int(items * 0.2),
            "changedItems": int(items * 0.3),
            "addedItems": int(items * 0.1),
        },
        "independentProof": {"equal": True, "missing": 0, "extra": 0, "changed": 0, "items": items},
    }


def _function(name: str, reserved: int | None) -> dict[str, Any]:
    return {
        "name": name,
        "inSystem": True,
        "before": reserved,
        "during": 0,
        "after": reserved,
        "observed": True,
        "restored": True,
        "mappings": [],
    }


def _mapping() -> dict[str, Any]:
    return {
        "uuid": "0f0e",
        "source": "stream of local-licenses",
        "before": "Enabled",
        "during": "Disabled",
        "after": "Enabled",
        "restored": True,
    }


def _entry(phase: str, table: str | None, start: float, end: float) -> dict[str, Any]:
    return {"phase": phase, "tableName": table, "start": _at(start), "end": _at(end)}


def _at(seconds: float) -> str:
    return f"{DAY}12:{int(seconds // 60):02d}:{seconds % 60:06.3f}Z"
