"""Faults in the states of an execution: it is stopped, its tasks fail or lose their answer, what it needs vanishes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from localaws.emulator.asl_errors import StateError
from localaws.emulator.faults import FAULTS

_CAUSE = "Fault on purpose"
# What Step Functions reports of each integration's failure, in the words of the SDK for Java that it calls by.
_THROTTLED = {
    "lambda": "Lambda.TooManyRequestsException",
    "sns": "SNS.ThrottledException",
    "states": "StepFunctions.ThrottlingException",
    "aws-sdk:dynamodb": "DynamoDb.ThrottlingException",
}
_BROKEN = {
    "lambda": "Lambda.ServiceException",
    "sns": "SNS.InternalErrorException",
    "states": "StepFunctions.AWSStepFunctionsException",
    "aws-sdk:dynamodb": "DynamoDb.InternalServerErrorException",
}


def entered(machine: str, state: str, abort: Callable[[bool], None]) -> None:
    """Let faults strike as a state is entered. `abort` stops the whole recovery (True) or this execution alone."""
    for rule in FAULTS.entered(machine, state):
        if rule.kind == "table-vanishes":
            _drop_restored_tables()
        elif rule.kind == "backup-vanishes":
            _drop_backups()
        elif rule.request is not None:
            _call_of_another(rule.kind, rule.request)
        else:
            abort(rule.kind == "abort")


def task(machine: str, state: str, resource: str, carry_out: Callable[[], Any]) -> Any:
    """Carry out a task, unless a fault strikes it.

    Raises:
        StateError: as the integration reports the fault.
    """
    kinds = FAULTS.worked(machine, state)
    integration = next((name for name in _BROKEN if resource.startswith(f"arn:aws:states:::{name}:")), "lambda")
    if "task-throttled" in kinds:
        raise StateError(_THROTTLED[integration], f"{_CAUSE}: Rate exceeded")
    if "task-error" in kinds:
        raise StateError(_BROKEN[integration], f"{_CAUSE}: Status Code: 500")
    result = carry_out()
    if "task-lost" in kinds:
        raise StateError("States.Timeout", f"{_CAUSE}: the task was carried out and its answer lost")
    return _still_creating(result) if "stuck" in kinds else result


def whole(machine: str, state: str) -> None:
    """Let a Map or Parallel fail as a whole.

    Raises:
        StateError: States.ExceedToleratedFailureThreshold, with which a distributed Map fails.
    """
    if "task-error" in FAULTS.worked(machine, state):
        raise StateError("States.ExceedToleratedFailureThreshold", f"{_CAUSE}: the state failed as a whole")


def _still_creating(result: Any) -> Any:
    text = json.dumps(result)
    for done in ("ACTIVE", "AVAILABLE"):
        for member in ("TableStatus", "BackupStatus"):
            text = text.replace(f'"{member}": "{done}"', f'"{member}": "CREATING"')
    return json.loads(text)


def _drop_restored_tables() -> None:
    from ministack.services import dynamodb

    for name in [name for name, table in dynamodb._tables.items() if "RestoreSummary" in table]:
        del dynamodb._tables[name]


def _drop_backups() -> None:
    from ministack.services import dynamodb

    for arn in list(dynamodb._backups.keys()):
        del dynamodb._backups[arn]


def _call_of_another(kind: str, request: dict[str, Any]) -> None:
    """What somebody else does meanwhile, with permissions of his own.

    Raises:
        RuntimeError: the service refused: the fault would be none.
    """
    from ministack.services import dynamodb, lambda_svc

    if kind == "thaw":
        answer = lambda_svc._put_function_concurrency(request["FunctionName"], request)
    else:
        answer = dynamodb._put_item(request)
    if answer[0] != 200:
        raise RuntimeError(f"The {kind} on purpose was refused: {answer[2]!r}")
