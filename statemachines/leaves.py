"""The few pieces that states of several machines share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from handlers.core.errors import FINAL_ERRORS

Definition = dict[str, Any]
"""A state machine, a state, or a part of one, in Amazon States Language."""

# A worker's Lambda stops by itself before 15 minutes; this only ends a task whose answer was lost.
_LAMBDA_TIMEOUT_SECONDS = 960

# A Map's result must stay below 256 KiB: the causes of all its children together get this much of it.
_CAUSES_BUDGET = 60_000
_LONGEST_CAUSE = 1500

INCIDENT_ID = (
    "{% $exists($states.context.Execution.Input.incidentId) ? $states.context.Execution.Input.incidentId : null %}"
)
"""The incident of the execution's input, or null: a malformed input has none."""

EXECUTION_ARN = "{% $states.context.Execution.Id %}"

FAILURE: Definition = {"error": "{% $states.errorOutput.Error %}", "cause": "{% $states.errorOutput.Cause %}"}
"""A caught error as the failure states take it."""


HANDLED_FAILURE: Definition = {"error": "{% $states.input.error %}", "cause": "{% $states.input.cause %}"}
"""The failure that is being handled, kept when handling it fails."""


def record_failure_payload(*, whole_incident: bool, incident_id: str = INCIDENT_ID) -> Definition:
    """What record-outcome gets of the failure that is being handled."""
    return {
        "wholeIncident": whole_incident,
        "incidentId": incident_id,
        "executionArn": EXECUTION_ARN,
        **HANDLED_FAILURE,
    }


def aws_retry(*specific: Definition) -> list[Definition]:
    """Retry of every task: errors that have a name are final, everything else may pass.

    Args:
        specific: retriers with precedence over the general one.
    """
    return [
        *specific,
        {"ErrorEquals": list(FINAL_ERRORS), "MaxAttempts": 0},
        # Six tries over some two minutes: outlasts throttling, a failover, and a role that IAM has not spread yet.
        {
            "ErrorEquals": ["States.ALL"],
            "IntervalSeconds": 2,
            "BackoffRate": 2,
            "MaxAttempts": 6,
            "MaxDelaySeconds": 60,
            "JitterStrategy": "FULL",
        },
    ]


# No concurrency free in the account. Workers hold theirs for up to 15 minutes, so this outlasts many of them (some 50
# minutes, half of one on average a try). It says nothing against the work itself.
_LAMBDA_THROTTLED: Definition = {
    "ErrorEquals": ["Lambda.TooManyRequestsException"],
    "IntervalSeconds": 5,
    "BackoffRate": 1.5,
    "MaxDelaySeconds": 60,
    "MaxAttempts": 120,
    "JitterStrategy": "FULL",
}
# Those that hold it ask for it again at once, so among workers it is luck who gets in, and a segment that does not is a
# reset that fails: some 17 hours. Each has a history of its own for that.
_WORKER_THROTTLED: Definition = {**_LAMBDA_THROTTLED, "MaxAttempts": 2000}

# The answer is lost, but the function may be at work still, for its fifteen minutes: another one beside it could write
# what is over by then. So it is waited for (as after an abort: docs/adr/0005). A function that is known to have ended,
# by an error of its own, a timeout or a dead process, is called again at once.
_LOST_ANSWER: Definition = {
    "ErrorEquals": [
        "Lambda.AWSLambdaException",
        "Lambda.ClientExecutionTimeoutException",
        "Lambda.SdkClientException",
        "Lambda.ServiceException",
        "Lambda.Unknown",
    ],
    "IntervalSeconds": 960,
    "BackoffRate": 1,
    "MaxAttempts": 6,
}

CAPACITY_RETRY: Definition = {
    # Each try is a whole invocation without progress. Ten of them, a minute apart: auto scaling has reacted by then.
    "ErrorEquals": ["CapacityExhausted"],
    "IntervalSeconds": 60,
    "BackoffRate": 1,
    "MaxAttempts": 10,
}


def lambda_task(
    function_arn: str,
    payload: Mapping[str, Any] | str,
    *,
    next_state: str,
    on_failure: str,
    output: Any = "{% $states.result.Payload %}",
    assign: Mapping[str, Any] | None = None,
    failure_output: Any = None,
    retry: Sequence[Definition] = (),
    lingers: bool = False,
    crowded: bool = False,
    catch: Sequence[Definition] = (),
) -> Definition:
    """A task that invokes a Lambda function, retries what may pass, and hands every failure to ``on_failure``.

    ``payload`` is the event, or one JSONata expression for it; ``output`` is the state's, by default the function's
    answer; ``failure_output`` is what ``on_failure`` gets, by default :data:`FAILURE`; ``retry`` and ``catch`` have
    precedence over the general ones. ``lingers``: a call whose answer was lost must be over before the next one.
    ``crowded``: it is one of many that wait for the account's concurrency.
    """
    state: Definition = {
        "Type": "Task",
        "Resource": "arn:aws:states:::lambda:invoke",
        "Arguments": {"FunctionName": function_arn, "Payload": payload if isinstance(payload, str) else dict(payload)},
        "TimeoutSeconds": _LAMBDA_TIMEOUT_SECONDS,
        "Retry": aws_retry(
            _WORKER_THROTTLED if crowded else _LAMBDA_THROTTLED, *((_LOST_ANSWER,) if lingers else ()), *retry
        ),
        "Catch": [*catch, {"ErrorEquals": ["States.ALL"], "Output": failure_output or FAILURE, "Next": on_failure}],
        "Output": output,
        "Next": next_state,
    }
    if assign:
        state["Assign"] = dict(assign)
    return state


def choice(condition: str, *, then: str, otherwise: str) -> Definition:
    """A choice of two: ``condition`` is a JSONata expression without its delimiters."""
    return {"Type": "Choice", "Choices": [{"Condition": f"{{% {condition} %}}", "Next": then}], "Default": otherwise}


def cause_limit(children: str) -> str:
    """Expression for how many characters of a cause each child of a Map may return; ``children`` counts them."""
    return f"{{% $min([{_LONGEST_CAUSE}, $floor({_CAUSES_BUDGET} / ({children}))]) %}}"


CUT_CAUSE = "{% $substring($states.errorOutput.Cause, 0, $states.input.causeLimit) %}"
"""A child's caught cause, cut to its share."""

PICK_FIRST_FAILURE: Definition = {
    "Type": "Pass",
    "Comment": "A Map's children answer with their failures, because a failed Map would hide the real cause",
    "Output": "{% $states.input[$exists(error)][0].{'error': error, 'cause': cause} %}",
    "Next": "Record the failure",
}


def no_failures(children: str) -> str:
    """Condition: the Map's result has all ``children`` answers, and none is a failure."""
    return f"$count($states.input) = {children} and $count($states.input[$exists(error)]) = 0"


FAIL: Definition = {
    "Type": "Fail",
    "Error": "{% $states.input.error %}",
    "Cause": "{% $states.input.cause %}",
}
"""Ends the execution with the real error and its cause."""


def backup_states(*, then: str, on_failure: str, polls: int) -> dict[str, Definition]:
    """Three states that look after an on-demand backup until it can be restored: wait, look, decide.

    Needs ``$backupArn`` and ``$backupPolls``; goes to ``then``, or to ``on_failure`` with ``error`` and ``cause``.
    """
    return {
        "Wait for the backup": {"Type": "Wait", "Seconds": BACKUP_POLL_SECONDS, "Next": "Look at the backup"},
        "Look at the backup": {
            "Type": "Task",
            "Resource": "arn:aws:states:::aws-sdk:dynamodb:describeBackup",
            "Arguments": {"BackupArn": "{% $backupArn %}"},
            "Retry": aws_retry(),
            "Catch": [{"ErrorEquals": ["States.ALL"], "Output": FAILURE, "Next": on_failure}],
            "Assign": {"backupPolls": "{% $backupPolls + 1 %}"},
            "Output": {"status": "{% $states.result.BackupDescription.BackupDetails.BackupStatus %}"},
            "Next": "Is the backup available?",
        },
        "Is the backup available?": {
            "Type": "Choice",
            "Choices": [
                {"Condition": "{% $states.input.status = 'AVAILABLE' %}", "Next": then},
                {
                    "Condition": f"{{% $states.input.status = 'CREATING' and $backupPolls < {polls} %}}",
                    "Next": "Wait for the backup",
                },
            ],
            "Default": "The backup did not become available",
        },
        "The backup did not become available": {
            "Type": "Pass",
            "Output": {
                "error": "BackupNotAvailable",
                "cause": "{% 'The backup ' & $backupArn & ' is ' & $states.input.status & ' after ' & $backupPolls & "
                "' looks. Expected AVAILABLE: nothing was purged; look at the backup, then start the same incident "
                "again.' %}",
            },
            "Next": on_failure,
        },
    }


BACKUP_BLUR_SECONDS = 75
"""An on-demand backup holds all that was written up to a minute before it was asked for, nothing that was written from
a minute after, and any part of what is between (CreateBackup's documentation). So nothing may be written for longer
than that before, and nothing be purged for longer than that after."""
BACKUP_POLL_SECONDS = BACKUP_BLUR_SECONDS
BACKUP_POLLS = 96
"""Two hours: an on-demand backup is available within minutes, whatever the table's size."""


def create_backup(table_name: str, incident_id: str, *, next_state: str, on_failure: str) -> Definition:
    """A task that starts an on-demand backup of ``table_name`` and remembers its ARN in ``$backupArn``."""
    return {
        "Type": "Task",
        "Resource": "arn:aws:states:::aws-sdk:dynamodb:createBackup",
        "Arguments": {"TableName": table_name, "BackupName": f"{{% 'dr-' & {incident_id} %}}"},
        "Retry": aws_retry(),
        "Catch": [{"ErrorEquals": ["States.ALL"], "Output": FAILURE, "Next": on_failure}],
        "Assign": {"backupArn": "{% $states.result.BackupDetails.BackupArn %}", "backupPolls": 0},
        "Output": {},
        "Next": next_state,
    }
