"""The errors an execution ends with or catches, and which Retry or Catch entry they match."""

from collections.abc import Sequence

# States.ALL and States.TaskFailed catch neither.
UNCATCHABLE = frozenset({"States.Runtime", "States.DataLimitExceeded"})
CAUSE_CHARACTERS = 32_768


class StateError(Exception):
    """A state failed with an error name and a cause, both as Step Functions shows them."""

    def __init__(self, error: str, cause: str) -> None:
        super().__init__(f"{error}: {cause}")
        self.error = error
        self.cause = cause[:CAUSE_CHARACTERS]


class StoppedError(Exception):
    """The execution, or the branch that this thread runs, was ended from outside: no Catch sees it."""


def matches(error_equals: Sequence[str], error: str) -> bool:
    """Whether an `ErrorEquals` list applies to `error`."""
    if error in error_equals:
        return True
    if error in UNCATCHABLE:
        return False
    return "States.ALL" in error_equals or ("States.TaskFailed" in error_equals and error != "States.Timeout")
