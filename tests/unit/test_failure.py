"""An operator must read the real cause, however deep it lies."""

from __future__ import annotations

import json

import pytest

from handlers.core.failure import explain

SENTENCE = "Table local-ssn does not exist. Expected an existing table: check the name, then start again."


def lambda_failure(name: str, message: str) -> str:
    """The cause of a failed Lambda task."""
    return json.dumps({"errorMessage": message, "errorType": name, "requestId": "1", "stackTrace": ["  File …"]})


def child_failure(error: str, cause: str) -> str:
    """The cause of a failed startExecution.sync:2 task: DescribeExecution's answer."""
    return json.dumps({"ExecutionArn": "arn:…", "Status": "FAILED", "Error": error, "Cause": cause, "Input": "{}"})


def test_a_failed_function() -> None:
    """The operator sees JSON and a stack trace rather than the sentence."""
    assert explain("UnknownTable", lambda_failure("UnknownTable", SENTENCE)) == ("UnknownTable", SENTENCE)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_failure_of_a_child(depth: int) -> None:
    """The operator sees States.TaskFailed and must dig through executions in the middle of an incident."""
    error, cause = "UnknownTable", lambda_failure("UnknownTable", SENTENCE)
    for _ in range(depth):
        error, cause = "States.TaskFailed", child_failure(error, cause)
    assert explain(error, cause) == ("UnknownTable", SENTENCE)


def test_a_child_that_failed_by_a_fail_state() -> None:
    """A child's own Fail state has a plain sentence for a cause: its name must not be lost to the parent's."""
    error, cause = explain("States.TaskFailed", child_failure("DestinationNotEmpty", "Something writes."))
    assert error == "DestinationNotEmpty"
    assert cause.startswith("Something writes.")


def test_a_child_that_timed_out_has_neither() -> None:
    """A child without Error and Cause loses the only thing that is known: the parent's error name."""
    report = json.dumps({"ExecutionArn": "arn:…", "Status": "TIMED_OUT"})
    error, cause = explain("States.TaskFailed", report)
    assert error == "States.TaskFailed"
    assert "TIMED_OUT" in cause


def test_plain_text() -> None:
    """An AWS error's text is taken for JSON and lost."""
    error, cause = explain("DynamoDb.LimitExceededException", "Too many restores at once.")
    assert error == "DynamoDb.LimitExceededException"
    assert "Too many restores at once." in cause
    assert "start the same incident again" in cause


@pytest.mark.parametrize("cause", ["null", "5", '"text"', "[1]", "{}", '{"other": 1}', "{", ""])
def test_json_that_is_no_report(cause: str) -> None:
    """A cause that happens to be JSON crashes the explanation, and with it the recording of the failure."""
    error, sentence = explain("States.Runtime", cause)
    assert error == "States.Runtime"
    assert sentence


@pytest.mark.parametrize(("error", "cause"), [(None, None), ("", ""), (5, {"a": 1}), ([], b"x")])
def test_anything_at_all(error: object, cause: object) -> None:
    """Recording a failure fails: the functions stay frozen without a word why."""
    name, sentence = explain(error, cause)
    assert name
    assert sentence


@pytest.mark.parametrize("kept", range(len('{"errorMessage": "') + 5, len(lambda_failure("UnknownTable", SENTENCE)), 7))
def test_a_cause_that_was_cut_short(kept: int) -> None:
    """A cut cause is no JSON any more: the operator sees its raw beginning."""
    error, cause = explain("UnknownTable", lambda_failure("UnknownTable", SENTENCE)[:kept])
    assert error == "UnknownTable"
    assert cause.startswith(SENTENCE[:5])
    assert "errorMessage" not in cause
    assert "stackTrace" not in cause


def test_quotes_in_a_cut_cause() -> None:
    """A quoted name ends the message at the first quote."""
    text = lambda_failure("InvalidRequest", 'Found "a" and "b". Expected "c".')
    _, cause = explain("InvalidRequest", text[: text.index("stackTrace")])
    assert cause.startswith('Found "a" and "b". Expected "c".')


def test_a_nest_without_end() -> None:
    """A cause that contains itself many times over never ends."""
    error, cause = "Deep", "end"
    for _ in range(12):
        error, cause = "States.TaskFailed", child_failure(error, cause)
    name, sentence = explain(error, cause)
    assert name == "States.TaskFailed"
    assert len(sentence) <= 2500


def test_a_very_long_cause_is_cut() -> None:
    """A cause beyond the limit of a Fail state makes the failure itself fail."""
    _, cause = explain("Error", "x" * 100_000)
    assert len(cause) < 2500


@pytest.mark.parametrize(
    "cause", [child_failure("", "A child failed."), json.dumps({"errorMessage": "Failed.", "errorType": ""})]
)
def test_the_name_is_never_empty(cause: str) -> None:
    """A failure without a name is recorded as a success, and the functions are released on half-restored tables."""
    assert explain("States.TaskFailed", cause)[0]


def test_a_surprise_is_introduced_as_one() -> None:
    """An error of AWS's or of Python's reaches the operator as three words, without what to do."""
    error, cause = explain("KeyError", lambda_failure("KeyError", "'segments'."))
    assert error == "KeyError"
    assert cause.startswith("The recovery met an unexpected KeyError: 'segments'. Expected no error in this step.")
    assert "start the same incident again" in cause


@pytest.mark.parametrize("name", ["StaleWorker", "FreezeIncomplete", "ReleaseIncomplete", "CheckpointConflict"])
def test_a_named_error_speaks_for_itself(name: str) -> None:
    """A sentence that says what to do is called unexpected, and followed by another that says something else."""
    assert explain(name, lambda_failure(name, SENTENCE)) == (name, SENTENCE)


def test_what_was_explained_is_not_explained_again() -> None:
    """The orchestrator explains what its child has explained: the advice stands there twice."""
    error, cause = explain("KeyError", lambda_failure("KeyError", "'segments'"))
    assert explain("States.TaskFailed", child_failure(error, cause)) == (error, cause)
