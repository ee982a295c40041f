"""Looks at what an ended execution left behind, takes it over, or frees its lock."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.core.clock import from_iso, to_iso, utc_now
from handlers.core.guardian import Guardian
from handlers.runtime import client, ledger, logger


@logger.inject_lambda_context(clear_state=True)
def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001 - Lambda's signature
    """Entry point of the function guardian. ``step`` is ``look``, ``take-over`` or ``give-up``.

    To look takes ``endedExecutionArn``, null for a sweep; the others take the answer of that as ``found``.
    """
    guardian = Guardian(
        ledger=ledger(), stepfunctions=client("stepfunctions"), clock=utc_now, execution_arn=event["executionArn"]
    )
    if event["step"] == "look":
        finding = guardian.look(event["endedExecutionArn"])
        logger.info("looked for ended executions", execution=finding.ended_arn, kind=finding.kind)
        return {
            "kind": finding.kind,
            "endedExecutionArn": finding.ended_arn,
            "lock": finding.lock,
            "incidentId": finding.incident_id,
            "settledAt": to_iso(finding.settled_at) if finding.settled_at else None,
            "error": finding.error,
            "cause": finding.cause,
            "outlook": finding.outlook,
        }
    found = event["found"]
    if event["step"] == "take-over":
        taken = guardian.take_over(found["endedExecutionArn"], found["incidentId"])
        logger.info("take-over tried", incident_id=found["incidentId"], taken=taken)
        return {"taken": taken}
    guardian.give_up(found["lock"], found["endedExecutionArn"], from_iso(found["settledAt"]))
    logger.info("lock given up", incident_id=found["incidentId"], lock=found["lock"])
    return {}
