"""Requests: whatever comes in, it is understood or refused by one of the named errors."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.core.errors import FINAL_ERRORS, RecoveryError
from handlers.core.failure import explain
from handlers.core.request import HardResetRequest, RecoveryRequest

from .bad_input import anything, one_wrong
from .profile import many

thousands = settings(many, max_examples=2000)

PROTECTED, SENSITIVE = ("licenses", "languages"), ("ssn",)
ARN = "arn:aws:dynamodb:us-east-1:123456789012:table/"

words = st.sampled_from(
    ["licenses", "languages", "ssn", "", "x", "i", "hard-reset", "differential", ARN + "licenses", ARN + "restored"]
)
times = st.one_of(
    st.datetimes(timezones=st.timezones()).map(lambda moment: moment.isoformat()),
    st.datetimes().map(lambda moment: moment.isoformat() + "Z"),
    st.sampled_from(["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "2026-11-20T09:00:00Z"]),
)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), words, times),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(
                st.text(max_size=5),
                st.sampled_from(["incidentId", "tables", "tableName", "restoreDateTime", "dryRun", "sourceTableArn"]),
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=10,
)


def nearly(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects whose fields are each right, wrong or absent."""
    return st.fixed_dictionaries({}, optional={name: st.one_of(good, json_values) for name, good in fields.items()})


table_entries = nearly(
    tableName=st.sampled_from(["licenses", "languages", "ssn", "x"]),
    tableNameRecoveryConfirmation=st.sampled_from(["licenses", "languages", "ssn"]),
)
recoveries = nearly(
    incidentId=st.just("i"),
    restoreDateTime=times,
    tables=st.lists(table_entries, max_size=3),
    mode=st.just("hard-reset"),
    dryRun=st.booleans(),
)
resets = nearly(
    incidentId=st.just("i"),
    sourceTableArn=st.just(ARN + "restored"),
    destinationTableArn=st.just(ARN + "licenses"),
    tableNameRecoveryConfirmation=st.just("licenses"),
    backupArn=st.text(),
    orchestratorExecutionArn=st.text(),
)


def understood(parse: Callable[[], object]) -> object:
    """What ``parse`` answers, or None where it refuses by name and says what to do."""
    try:
        return parse()
    except RecoveryError as error:
        refusal = error
    assert type(refusal).__name__ in FINAL_ERRORS
    assert "xpected" in str(refusal) or "leave it out" in str(refusal)
    # It goes into logs, mails and terminals, cut to 2,000 characters.
    assert str(refusal).isprintable()
    assert len(str(refusal)) < 1500
    return None


@many
@given(value=st.one_of(json_values, recoveries, recoveries))
def test_a_recovery_is_understood_or_refused_by_name(value: Any) -> None:
    """An input crashes the validation with an error of Python's, which is retried and then shown to the operator."""
    request = understood(lambda: RecoveryRequest.parse(value, protected=PROTECTED, sensitive=SENSITIVE))
    if isinstance(request, RecoveryRequest):
        assert set(request.tables) <= set(PROTECTED)
        assert len(set(request.tables)) == len(request.tables) > 0
        for entry in value["tables"]:
            assert entry["tableName"] == entry["tableNameRecoveryConfirmation"]
        assert request.dry_run is value.get("dryRun", False)


@many
@given(value=st.one_of(json_values, resets, resets))
def test_a_hard_reset_is_understood_or_refused_by_name(value: Any) -> None:
    """A malformed input reaches the purge, or crashes the preflight without a name."""
    request = understood(lambda: HardResetRequest.parse(value, table_name="licenses"))
    if isinstance(request, HardResetRequest):
        assert value["tableNameRecoveryConfirmation"] == request.destination.name == "licenses"


GOOD_RECOVERY = {
    "incidentId": "bad-migration-2026-11-20",
    "restoreDateTime": "2026-11-20T09:00:00Z",
    "tables": [{"tableName": name, "tableNameRecoveryConfirmation": name} for name in PROTECTED],
    "mode": "hard-reset",
    "dryRun": True,
}
GOOD_RESET = {
    "incidentId": "rollback-2026-11-20",
    "sourceTableArn": ARN + "dr-test.licenses.rollback",
    "destinationTableArn": ARN + "licenses",
    "tableNameRecoveryConfirmation": "licenses",
    "mode": "hard-reset",
    "backupArn": None,
    "orchestratorExecutionArn": None,
}
MODES = ("hard-reset", "differential")
ELSEWHERE = (
    "licenses",
    "languages",
    "ssn",
    "SSN",
    "hard-reset",
    "differential",
    ARN + "ssn",
    "2026-11-20",
    *GOOD_RESET,
)


@thousands
@given(value=st.one_of(anything(*GOOD_RECOVERY, *ELSEWHERE), *[one_wrong(GOOD_RECOVERY, elsewhere=ELSEWHERE)] * 4))
def test_a_recovery_with_one_thing_wrong_is_refused_by_name(value: Any) -> None:
    """A slip of the keyboard starts a recovery of other tables, to another time, or a real one for a dry run."""
    request = understood(lambda: RecoveryRequest.parse(value, protected=PROTECTED, sensitive=SENSITIVE))
    if isinstance(request, RecoveryRequest):
        # What is understood is what was written: nothing was trimmed, converted or guessed.
        assert request.incident_id == value["incidentId"]
        assert list(request.tables) == [entry["tableName"] for entry in value["tables"]]
        assert [entry["tableNameRecoveryConfirmation"] for entry in value["tables"]] == list(request.tables)
        assert not set(request.tables) & set(SENSITIVE)
        assert request.dry_run is value.get("dryRun", False)
        assert request.mode == value.get("mode", "hard-reset")
        assert request.mode in MODES
        assert set(value) <= set(GOOD_RECOVERY) | {"AWS_STEP_FUNCTIONS_STARTED_BY_EXECUTION_ID"}


@thousands
@given(value=st.one_of(anything(*GOOD_RESET, *ELSEWHERE), *[one_wrong(GOOD_RESET, elsewhere=ELSEWHERE)] * 4))
def test_a_hard_reset_with_one_thing_wrong_is_refused_by_name(value: Any) -> None:
    """A slip of the keyboard purges another table, or ends in an error of the program's that nobody understands."""
    request = understood(lambda: HardResetRequest.parse(value, table_name="licenses"))
    if isinstance(request, HardResetRequest):
        assert value["tableNameRecoveryConfirmation"] == request.destination.name == "licenses"
        for arn, field in ((request.source, "sourceTableArn"), (request.destination, "destinationTableArn")):
            assert value[field] == f"arn:{arn.partition}:dynamodb:{arn.region}:{arn.account}:table/{arn.name}"
            # DynamoDB takes no other names: a call with one fails with a ValidationException, not with a public name.
            assert re.fullmatch(r"[a-zA-Z0-9_.-]{3,255}", arn.name)
            assert value[field].isascii()
        assert request.mode == value.get("mode", "hard-reset")
        assert request.mode in MODES


@many
@given(error=json_values, cause=st.one_of(json_values, st.text()))
def test_any_failure_is_explained(error: Any, cause: Any) -> None:
    """The recording of a failure fails: the functions stay frozen and nobody is told why."""
    name, sentence = explain(error, cause)
    assert name
    assert sentence
    assert len(sentence) < 3000
