"""The guardian: clears up after an execution that ended without doing so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .failure_path import Topic, failure_path, tell
from .leaves import EXECUTION_ARN, FAIL, FAILURE, Definition, choice, lambda_task

# A hard reset may outlive the orchestrator that started it, and is let finish. A week of looks is some 6,000 of the
# 25,000 events of an execution; of what takes longer people are told, and the next start looks anew.
_CHILD_POLL_SECONDS = 300
_CHILD_RETRY: Definition = {
    "ErrorEquals": ["RecoveryInProgress"],
    "IntervalSeconds": _CHILD_POLL_SECONDS,
    "BackoffRate": 1,
    "MaxAttempts": 7 * 86_400 // _CHILD_POLL_SECONDS,
}


# DescribeExecution is eventually consistent: the event may be ahead of it.
_STILL_RUNNING_RETRY: Definition = {
    "ErrorEquals": ["StillRunning"],
    "IntervalSeconds": 15,
    "BackoffRate": 1,
    "MaxAttempts": 40,
}

# The ledger may be what failed: half a day of tries. After that the schedule begins anew.
_PATIENCE: Definition = {"IntervalSeconds": 10, "MaxDelaySeconds": 300, "MaxAttempts": 288}


@dataclass(frozen=True, kw_only=True)
class GuardianConfig:
    """What the definition is made of.

    Args:
        environment: the stack's environment.
        functions: ARNs of the Lambda functions by short name.
        topic_arn: where it is told what happened and what became of it.
    """

    environment: str
    functions: Mapping[str, str]
    topic_arn: str


def guardian(config: GuardianConfig) -> Definition:
    """Apply the rule of the point of no return to an execution that was stopped, timed out or broke.

    Input: ``executionArn``, the execution that ended, or null to look for any: events are delivered at best effort, so
    a schedule looks as well. Look what it left, most often nothing. Tell at once. Wait until none of its functions can
    be alive. Unless somebody has resumed the incident by then, take it over, and go the way of every failure: release
    before the first purge, stay frozen after it; report, unlock, tell.
    """
    topic = Topic(arn=config.topic_arn, environment=config.environment)
    functions = config.functions
    found = {"executionArn": EXECUTION_ARN, "found": "{% $found %}"}
    return {
        "Comment": f"Clears up after executions of the recovery of {config.environment} that ended without doing so",
        "QueryLanguage": "JSONata",
        "StartAt": "Look what it left",
        "States": {
            "Look what it left": _patient_task(
                functions["guardian"],
                {
                    "executionArn": EXECUTION_ARN,
                    "step": "look",
                    "endedExecutionArn": "{% $states.context.Execution.Input.executionArn %}",
                },
                assign={"found": "{% $states.result.Payload %}"},
                next_state="Did it leave anything?",
                on_failure="Fail",
                retry=(_STILL_RUNNING_RETRY,),
                # It runs again: redriven, say. Its next end is another event.
                catch=[{"ErrorEquals": ["StillRunning"], "Output": {}, "Next": "Nothing to do"}],
            ),
            "Did it leave anything?": {
                "Type": "Choice",
                "Choices": [
                    {"Condition": "{% $found.kind = 'nothing' %}", "Next": "Nothing to do"},
                    {"Condition": "{% $found.kind = 'forgotten-lock' %}", "Next": "Give its lock up"},
                ],
                "Default": "Tell that it ended",
            },
            "Nothing to do": {"Type": "Succeed", "Output": {}},
            "Tell that it ended": tell(
                topic,
                "was interrupted",
                {
                    "incidentId": "{% $found.incidentId %}",
                    "error": "{% $found.error %}",
                    "cause": "{% $trim($found.cause & ' ' & $found.outlook) %}",
                },
                next_state="Was it an orchestrator?",
            ),
            "Was it an orchestrator?": choice(
                # A hard reset by hand has frozen nothing: its operator has been told how to go on.
                "$found.kind = 'orchestrator'",
                then="Wait for its workers",
                otherwise="Give its lock up",
            ),
            "Give its lock up": _patient_task(
                functions["guardian"],
                {**found, "step": "give-up"},
                output={},
                next_state="Done",
                on_failure="Fail",
            ),
            "Wait for its workers": {
                "Type": "Wait",
                "Comment": "Stopping an execution does not end its Lambdas: none of them may undo the release",
                "Timestamp": "{% $found.settledAt %}",
                "Next": "Take the incident over",
            },
            "Take the incident over": _patient_task(
                functions["guardian"],
                {**found, "step": "take-over"},
                next_state="Is it still unattended?",
                on_failure="Tell that it is stuck",
                retry=(_CHILD_RETRY,),
            ),
            "Is it still unattended?": choice(
                "$states.input.taken", then="Describe its end", otherwise="Somebody resumed it"
            ),
            "Somebody resumed it": {"Type": "Succeed", "Output": {}},
            "Describe its end": {
                "Type": "Pass",
                "Output": {"error": "{% $found.error %}", "cause": "{% $found.cause %}"},
                "Next": "Record the failure",
            },
            **failure_path(functions, topic, incident_id="{% $found.incidentId %}", then="Done"),
            "Done": {"Type": "Succeed", "Output": {"incidentId": "{% $found.incidentId %}"}},
            "Tell that it is stuck": {
                **tell(
                    topic,
                    "was interrupted, and nobody cleared up",
                    {
                        "incidentId": "{% $found.incidentId %}",
                        "error": "{% $states.input.error %}",
                        "cause": "{% $states.input.cause & ' The functions may be frozen still: start the same "
                        "incident again.' %}",
                    },
                    next_state="Fail",
                ),
                "Catch": [{"ErrorEquals": ["States.ALL"], "Output": FAILURE, "Next": "Fail"}],
                "Output": "{% $states.input %}",
            },
            "Fail": FAIL,
        },
    }


def _patient_task(function_arn: str, payload: Mapping[str, Any], **options: Any) -> Definition:
    """A task that does not give up while whatever broke the recovery is broken still."""
    state = lambda_task(function_arn, payload, **options)
    state["Retry"][-1] = {**state["Retry"][-1], **_PATIENCE}
    return state
