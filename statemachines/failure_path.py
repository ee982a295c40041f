"""What follows a failure of a whole recovery: record, release or stay frozen, report, unlock, tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .leaves import (
    EXECUTION_ARN,
    HANDLED_FAILURE,
    Definition,
    aws_retry,
    choice,
    lambda_task,
    record_failure_payload,
)

# Lambda refuses to change a mapping that is still being disabled; that takes a minute or two.
RELEASE_RETRY: Definition = {
    "ErrorEquals": ["ReleaseIncomplete", "DiscardIncomplete"],
    "IntervalSeconds": 30,
    "BackoffRate": 1,
    "MaxAttempts": 10,
}


POLLS: Definition = {"polls": "{% $states.result.Payload.polls %}"}
"""Assigns how often freeze or release has asked to wait, which it bounds."""


def wait(*, next_state: str) -> Definition:
    """Wait as long as the Lambda function before asked for; 0 seconds where only its own time was up."""
    return {"Type": "Wait", "Seconds": "{% $states.input.waitSeconds %}", "Next": next_state}


@dataclass(frozen=True, kw_only=True)
class Topic:
    """Where people are told. ``environment`` is named in the subject."""

    arn: str
    environment: str


def tell(topic: Topic, event: str, message: Any, *, next_state: str) -> Definition:
    """Publish to the topic. A recovery does not stop because nobody could be told."""
    return {
        "Type": "Task",
        "Resource": "arn:aws:states:::sns:publish",
        "Arguments": {
            "TopicArn": topic.arn,
            "Subject": f"DynamoDB recovery in {topic.environment} {event}",
            "Message": message,
        },
        "Retry": aws_retry(),
        "Catch": [{"ErrorEquals": ["States.ALL"], "Output": {}, "Next": next_state}],
        "Output": {},
        "Next": next_state,
    }


def failure_path(functions: Mapping[str, str], topic: Topic, *, incident_id: str, then: str) -> dict[str, Definition]:
    """The states from "Record the failure", whose input is ``error`` and ``cause``, to ``then``.

    Until the first purge the functions are released; after it they stay frozen. ``incident_id`` is the expression for
    the incident's id. ``$failure`` has ``error``, ``cause`` and ``stayFrozen`` at the end.
    """
    return {
        "Record the failure": lambda_task(
            functions["record-outcome"],
            record_failure_payload(whole_incident=True, incident_id=incident_id),
            assign={"failure": "{% $states.result.Payload %}", "polls": 0},
            next_state="Had the work begun?",
            on_failure="Keep the failure as it is",
            failure_output=HANDLED_FAILURE,
        ),
        "Keep the failure as it is": {
            "Type": "Pass",
            "Comment": "The ledger cannot be reached: whether a purge has begun is unknown, so nothing is released",
            "Assign": {
                "failure": "{% $merge([$states.input, {'cause': $states.input.cause & ' The ledger could not be "
                "reached: functions that were frozen stay frozen for now. The guardian looks again every quarter of an "
                "hour; to go on before that, start the same incident again.'}]) %}"
            },
            "Next": "Tell of the failure",
        },
        "Had the work begun?": choice(
            # A request that was refused has frozen nothing, locked nothing and has no report.
            "$failure.recorded",
            then="Is a table half restored?",
            otherwise="Tell of the failure",
        ),
        "Is a table half restored?": choice(
            "$failure.stayFrozen", then="Report the failure", otherwise="Release after the failure"
        ),
        "Release after the failure": lambda_task(
            functions["release-functions"],
            {
                "incidentId": incident_id,
                "executionArn": EXECUTION_ARN,
                "discard": False,
                "recovered": False,
                "polls": "{% $polls %}",
            },
            assign=POLLS,
            next_state="Are the functions released after the failure?",
            on_failure="Add that the release failed",
            retry=(RELEASE_RETRY,),
        ),
        "Add that the release failed": {
            "Type": "Pass",
            "Assign": {
                "failure": "{% $merge([$failure, {'cause': $failure.cause & ' Besides, not every function could be "
                "released: ' & $states.input.error & ' ' & $substring($states.input.cause, 0, 1000)}]) %}"
            },
            "Next": "Report the failure",
        },
        "Are the functions released after the failure?": choice(
            "$states.input.complete",
            then="Report the failure",
            otherwise="Wait before releasing on after the failure",
        ),
        "Wait before releasing on after the failure": wait(next_state="Release after the failure"),
        "Report the failure": lambda_task(
            functions["write-report"],
            {
                "incidentId": incident_id,
                "executionArn": EXECUTION_ARN,
                "status": "FAILED",
                "error": "{% $failure.error %}",
                "cause": "{% $failure.cause %}",
            },
            assign={
                "failure": "{% $merge([$failure, "
                "{'cause': $failure.cause & ' Report: ' & $states.result.Payload.reportUri}]) %}"
            },
            next_state="Unlock after the failure",
            on_failure="Unlock after the failure",
        ),
        "Unlock after the failure": lambda_task(
            functions["unlock"],
            {
                "incidentId": incident_id,
                "executionArn": EXECUTION_ARN,
                "tableName": None,
                "orchestratorExecutionArn": None,
            },
            next_state="Tell of the failure",
            on_failure="Tell of the failure",
        ),
        "Tell of the failure": tell(
            topic,
            "FAILED",
            {
                "incidentId": incident_id,
                "error": "{% $failure.error %}",
                "cause": "{% $failure.cause %}",
            },
            next_state=then,
        ),
    }
