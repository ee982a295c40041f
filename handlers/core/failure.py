"""From what Step Functions reports of a failure to its name and one sentence.

A failed Lambda task arrives as ``Error`` = exception class and ``Cause`` = JSON with ``errorMessage``; a failed child
execution as ``States.TaskFailed`` and ``Cause`` = JSON of DescribeExecution, which has the child's own ``Error`` and
``Cause``. The real cause may be several layers deep.
"""

from __future__ import annotations

import json
import re

from .errors import RecoveryError, RecoveryInProgress

# Step Functions allows 32,768 characters in a Fail state's cause; SNS subjects and people want far fewer.
_LONGEST_CAUSE = 2000
_MESSAGE = re.compile(r'\{"errorMessage":\s*"(?P<message>(?:[^"\\]|\\.)*)')
_NEXT_STEP = (
    "Expected no error in this step. If it may pass by itself (throttling, a network), start the same incident again; "
    "otherwise mend it first. The work goes on where it stopped."
)
# Errors with a public name already say what to do; so does a cause that was explained in the child that failed.
_EXPLAINED = frozenset(
    error.__name__ for base in (RecoveryError, RecoveryInProgress) for error in base.__subclasses__()
)


def _cut_short(text: str) -> dict[str, str] | None:
    match = _MESSAGE.match(text)
    return {"errorMessage": match["message"].replace('\\"', '"')} if match else None


def innermost(error: object, cause: object) -> tuple[str, str]:
    """The innermost error name and its cause, as they are."""
    name, text = str(error or ""), str(cause or "")
    for _ in range(8):  # executions are nested three deep at most
        try:
            report = json.loads(text)
        except ValueError:
            # A cause that was cut short on its way is no longer JSON; its message is still the best there is.
            report = _cut_short(text)
        if not isinstance(report, dict):
            break
        if "errorMessage" in report:
            name, text = str(report.get("errorType", name)), str(report["errorMessage"])
        elif "Error" in report or "Cause" in report:
            name, text = str(report.get("Error", name)), str(report.get("Cause", ""))
        else:
            break
    name = name.strip() or "States.Unknown"
    return name, text.strip()[:_LONGEST_CAUSE] or "Step Functions gave no cause."


def explain(error: object, cause: object) -> tuple[str, str]:
    """The innermost error name, and its cause as a sentence that says what to do."""
    name, text = innermost(error, cause)
    if name in _EXPLAINED or "start the same incident again" in text:
        return name, text
    return name, f"The recovery met an unexpected {name}: {text.rstrip('.')}. {_NEXT_STEP}"
