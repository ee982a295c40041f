"""Adds to a failed verdict what differs, how often, and where the keys are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from handlers.core.clock import utc_now
from handlers.core.compare import differences_prefix
from handlers.core.errors import VerificationFailed
from handlers.core.failure import innermost
from handlers.core.hard_reset import HardReset
from handlers.runtime import ledger, logger


@logger.inject_lambda_context(clear_state=True)
def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001 - Lambda's signature
    """Entry point of the function report-differences.

    ``verdict``: the cause with which verify failed. ``failure``: ``error`` and ``cause`` of a comparison that failed
    itself, or null. Answers ``error``, always VerificationFailed, and ``cause``.
    """
    incident_id, table_name = event["incidentId"], event["tableName"]
    error, verdict = innermost(VerificationFailed.__name__, event["verdict"])
    failure = event["failure"]
    prefix = differences_prefix(incident_id, event["executionArn"], table_name)
    cause = HardReset(
        ledger=ledger(), clock=utc_now, incident_id=incident_id, table_name=table_name
    ).explain_differences(
        verdict,
        keys_at=f"s3://{os.environ['REPORT_BUCKET']}/{prefix}",
        failure=None if failure is None else ": ".join(innermost(failure["error"], failure["cause"])),
    )
    logger.info("differences reported", incident_id=incident_id, table=table_name, prefix=prefix)
    return {"error": error, "cause": cause}
