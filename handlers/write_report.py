"""Writes the report of a recovery to the report bucket, and answers the orchestrator's output."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from handlers.core.clock import utc_now
from handlers.core.incident import Incident
from handlers.core.report import document, outcome, report_key
from handlers.runtime import client, ledger, logger


@logger.inject_lambda_context(clear_state=True)
def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001 - Lambda's signature
    """Entry point of the function write-report."""
    incident = Incident(
        ledger=ledger(), clock=utc_now, incident_id=event["incidentId"], execution_arn=event["executionArn"]
    )
    output = outcome(incident, status=event["status"], error=event["error"], cause=event["cause"])
    bucket, key = os.environ["REPORT_BUCKET"], report_key(incident)
    output["reportUri"] = f"s3://{bucket}/{key}"
    client("s3").put_object(
        Bucket=bucket,
        Key=key,
        Body=json.dumps(document(incident, output), indent=2).encode(),
        ContentType="application/json",
    )
    logger.info("report written", incident_id=incident.incident_id, status=output["status"], key=key)
    return output
