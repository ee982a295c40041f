"""Validates a recovery request before anything is changed, and opens or resumes its incident."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handlers.core.clock import utc_now
from handlers.core.prices import Prices
from handlers.core.validation import Stack, validate
from handlers.runtime import client, ledger, logger


@dataclass(frozen=True, kw_only=True)
class Event:
    """``request``: the orchestrator's input as it came. The rest is the stack's configuration."""

    request: Any
    execution_arn: str
    stack: Stack

    @classmethod
    def parse(cls, event: Mapping[str, Any]) -> Event:
        """Read the state machine's payload."""
        return cls(
            request=event.get("request"),
            execution_arn=event["executionArn"],
            stack=Stack(
                environment=event["environment"],
                protected=event["protectedTables"],
                sensitive=tuple(event["sensitiveTables"]),
                prices=Prices.parse(event.get("prices")),
            ),
        )


@logger.inject_lambda_context(clear_state=True)
def handler(event: Mapping[str, Any], context: Any) -> dict[str, Any]:  # noqa: ARG001 - Lambda's signature
    """Entry point of the function validate-request."""
    parsed = Event.parse(event)
    plan = validate(
        parsed.request,
        stack=parsed.stack,
        execution_arn=parsed.execution_arn,
        dynamodb=client("dynamodb"),
        stepfunctions=client("stepfunctions"),
        ledger=ledger(),
        clock=utc_now,
    )
    logger.info("request is valid", incident_id=plan["incidentId"], tables=len(plan["tables"]), dry_run=plan["dryRun"])
    return plan
