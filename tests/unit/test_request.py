"""Requests are refused by name before anything is touched; a misread one would recover the wrong thing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from handlers.core.errors import ConfirmationMismatch, InvalidRequest, SensitiveTable, UnknownTable
from handlers.core.request import HardResetRequest, RecoveryRequest

PROTECTED = ("prod-licenses", "prod-languages")
SENSITIVE = ("prod-ssn",)
SOURCE = "arn:aws:dynamodb:us-east-1:123456789012:table/dr-prod.prod-licenses.20261120T090000Z.01234567"
DESTINATION = "arn:aws:dynamodb:us-east-1:123456789012:table/prod-licenses"


def table(name: object, confirmation: object = ...) -> dict[str, Any]:
    """One entry of ``tables``, confirmed by its own name unless told otherwise."""
    return {"tableName": name, "tableNameRecoveryConfirmation": name if confirmation is ... else confirmation}


def recovery(**changes: Any) -> dict[str, Any]:
    """A valid request with changes; ``...`` takes a field out."""
    request = {
        "incidentId": "bad-migration-2026-11-20",
        "restoreDateTime": "2026-11-20T09:00:00Z",
        "tables": [table("prod-licenses"), table("prod-languages")],
        **changes,
    }
    return {name: value for name, value in request.items() if value is not ...}


def parse(value: object) -> RecoveryRequest:
    """Parse against the tables of this module."""
    return RecoveryRequest.parse(value, protected=PROTECTED, sensitive=SENSITIVE)


def test_a_valid_request() -> None:
    """A field is dropped or a default is not the contract's: a rehearsal becomes a recovery."""
    request = parse(recovery())
    assert request.incident_id == "bad-migration-2026-11-20"
    assert request.restore_time == datetime(2026, 11, 20, 9, tzinfo=UTC)
    assert request.tables == PROTECTED
    assert (request.mode, request.dry_run) == ("hard-reset", False)
    assert parse(recovery(dryRun=True, mode="hard-reset")).dry_run is True
    assert parse(recovery(mode="differential")).mode == "differential"
    assert request.stream_policy is None, "left out: as at the incident's last start"
    assert parse(recovery(streamPolicy="discard")).stream_policy == "discard"


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        1.5,
        "",
        "{}",
        [],
        [recovery()],
        {},
        recovery(incidentId=...),
        recovery(restoreDateTime=...),
        recovery(tables=...),
        recovery(dryrun=True),
        recovery(dry_run=True),
        recovery(dryRun="true"),
        recovery(dryRun="false"),
        recovery(dryRun=1),
        recovery(dryRun=None),
        recovery(DryRun=True),
        recovery(streamPolicy="skip"),
        recovery(streamPolicy=None),
        recovery(streamPolicy=["discard"]),
        recovery(streampolicy="discard"),
        recovery(mode="hard_reset"),
        recovery(mode=None),
        recovery(mode=["hard-reset"]),
        recovery(mode="Differential"),
        recovery(mode=""),
        recovery(backupArn="arn:…"),
        recovery(incidentId=5),
        recovery(incidentId=None),
        recovery(incidentId=""),
        recovery(incidentId="a b"),
        recovery(incidentId="a/b"),
        recovery(incidentId="a#b"),
        recovery(incidentId="-a"),
        recovery(incidentId="a\n"),
        recovery(incidentId="a" * 65),
        recovery(incidentId="é"),
        recovery(tables=None),
        recovery(tables=[]),
        recovery(tables={}),
        recovery(tables="prod-licenses"),
        recovery(tables=["prod-licenses"]),
        recovery(tables=[None]),
        recovery(tables=[[]]),
        recovery(tables=[{}]),
        recovery(tables=[{"tableNameRecoveryConfirmation": "prod-licenses"}]),
        recovery(tables=[table(5)]),
        recovery(tables=[table(None)]),
        recovery(tables=[table(["prod-licenses"])]),
        recovery(tables=[{**table("prod-licenses"), "segments": 4}]),
        recovery(tables=[table("prod-licenses"), table("prod-languages"), table("prod-licenses")]),
    ],
)
def test_the_wrong_shape(value: object) -> None:
    """A misspelt dryRun, a string for a boolean or a table listed twice is let through, and starts a recovery."""
    with pytest.raises(InvalidRequest) as refusal:
        parse(value)
    assert "Expected" in str(refusal.value)


@pytest.mark.parametrize(
    "text",
    [
        None,
        1_763_629_200,
        "",
        "2026-11-20",
        "2026-11-20T09:00:00",
        "2026-11-20 09:00",
        "2026-11-20T09:00:00.5Z",
        "2026-11-20T09:00:00.000001Z",
        "2026-11-20T25:00:00Z",
        "2026-02-30T09:00:00Z",
        "2026-11-20T09:00:00+25:00",
        "yesterday",
        "2026-11-20T09:00:00Z ",
        ["2026-11-20T09:00:00Z"],
    ],
)
def test_restore_times_that_are_none(text: object) -> None:
    """A time without offset or with a fraction is rounded or guessed: the tables go back to another second."""
    with pytest.raises(InvalidRequest, match="restoreDateTime is"):
        parse(recovery(restoreDateTime=text))


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-20T09:00:00+00:00", datetime(2026, 11, 20, 9, tzinfo=UTC)),
        ("2026-11-20T09:00:00.000Z", datetime(2026, 11, 20, 9, tzinfo=UTC)),
        ("2026-11-20T09:00:00-05:00", datetime(2026, 11, 20, 14, tzinfo=UTC)),
        ("2026-11-20T00:30:00+01:00", datetime(2026, 11, 19, 23, 30, tzinfo=UTC)),
    ],
)
def test_restore_times_with_offsets(text: str, moment: datetime) -> None:
    """An operator's local time with its offset restores to another hour."""
    assert parse(recovery(restoreDateTime=text)).restore_time == moment


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
def test_restore_times_beyond_the_calendar(text: str) -> None:
    """The failure has no public name: it is retried for minutes, and the operator sees a Python error."""
    with pytest.raises(InvalidRequest, match="restoreDateTime is"):
        parse(recovery(restoreDateTime=text))


@pytest.mark.parametrize(
    "confirmation", [None, "", "prod-languages", "prod-licenses ", "PROD-LICENSES", True, ["prod-licenses"]]
)
def test_a_wrong_confirmation(confirmation: object) -> None:
    """A table is overwritten that the operator did not confirm by its exact name."""
    with pytest.raises(ConfirmationMismatch, match="Expected 'prod-licenses'"):
        parse(recovery(tables=[table("prod-licenses", confirmation)]))


def test_a_missing_confirmation() -> None:
    """A table without any confirmation is overwritten, because the one before it was confirmed."""
    with pytest.raises(ConfirmationMismatch, match="for table prod-languages"):
        parse(recovery(tables=[table("prod-licenses"), {"tableName": "prod-languages"}]))


def test_a_sensitive_table_is_refused_even_if_it_is_protected_and_confirmed() -> None:
    """The one table that nothing may touch is recovered because it is on both lists."""
    value = recovery(tables=[table("prod-licenses"), table("prod-ssn")])
    with pytest.raises(SensitiveTable, match="prod-ssn"):
        parse(value)
    with pytest.raises(SensitiveTable, match="prod-ssn"):
        RecoveryRequest.parse(value, protected=(*PROTECTED, "prod-ssn"), sensitive=SENSITIVE)


@pytest.mark.parametrize("name", ["prod-licences", "", "prod", "prod-licenses-2", "*"])
def test_an_unknown_table(name: str) -> None:
    """A misspelt or foreign table is dropped silently, or recovered although it is not protected."""
    with pytest.raises(UnknownTable, match="Expected one of prod-languages, prod-licenses"):
        parse(recovery(tables=[table("prod-licenses"), table(name)]))


def test_what_step_functions_adds_is_allowed() -> None:
    """A recovery that another state machine starts is refused for a field nobody wrote."""
    parse(recovery(AWS_STEP_FUNCTIONS_STARTED_BY_EXECUTION_ID="arn:…"))


def test_the_fingerprint_ignores_spelling_only() -> None:
    """The same incident written another way is refused on resumption; another request is taken for the same."""
    same = [
        recovery(),
        recovery(tables=[table("prod-languages"), table("prod-licenses")]),
        recovery(restoreDateTime="2026-11-20T10:00:00+01:00", mode="hard-reset"),
        recovery(dryRun=True),
        recovery(streamPolicy="discard"),
    ]
    assert len({str(parse(value).fingerprint()) for value in same}) == 1
    for other in (recovery(tables=[table("prod-licenses")]), recovery(restoreDateTime="2026-11-20T09:00:01Z")):
        assert parse(other).fingerprint() != parse(recovery()).fingerprint()


def test_an_object_is_called_an_object() -> None:
    """The sentence sends the operator after a number that is not there."""
    with pytest.raises(InvalidRequest) as refusal:
        parse(recovery(tables={"tableName": "prod-licenses"}))
    assert "an object" in str(refusal.value)


def reset(**changes: Any) -> dict[str, Any]:
    """A valid hard-reset input with changes; ``...`` takes a field out."""
    request = {
        "incidentId": "bad-migration",
        "sourceTableArn": SOURCE,
        "destinationTableArn": DESTINATION,
        "tableNameRecoveryConfirmation": "prod-licenses",
        **changes,
    }
    return {name: value for name, value in request.items() if value is not ...}


def parse_reset(value: object) -> HardResetRequest:
    """Parse for the state machine of prod-licenses."""
    return HardResetRequest.parse(value, table_name="prod-licenses")


def test_a_valid_hard_reset() -> None:
    """Source and destination are mixed up, or what the orchestrator passes is lost."""
    request = parse_reset(reset())
    assert (request.source.name, request.destination.name) == (SOURCE.split("/")[1], "prod-licenses")
    assert (request.backup_arn, request.orchestrator_execution_arn) == (None, None)
    assert request.mode == parse_reset(reset(mode="hard-reset")).mode == "hard-reset"
    assert parse_reset(reset(mode="differential")).mode == "differential"
    request = parse_reset(
        reset(backupArn="b", orchestratorExecutionArn="o", AWS_STEP_FUNCTIONS_STARTED_BY_EXECUTION_ID="x")
    )
    assert (request.backup_arn, request.orchestrator_execution_arn) == ("b", "o")


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "x",
        {},
        reset(incidentId=...),
        reset(incidentId="a b"),
        reset(sourceTableArn=...),
        reset(sourceTableArn="prod-licenses"),
        reset(sourceTableArn=None),
        reset(destinationTableArn=...),
        reset(destinationTableArn=DESTINATION.replace("licenses", "languages")),
        reset(destinationTableArn=DESTINATION + "/index/x"),
        reset(tableNameRecoveryConfirmation=...),
        reset(backupArn=5),
        reset(backupArn=["arn"]),
        reset(orchestratorExecutionArn={"a": 1}),
        reset(dryRun=True),
        reset(mode=None),
        reset(mode="Differential"),
        reset(mode=["differential"]),
        reset(restoreDateTime="2026-11-20T09:00:00Z"),
    ],
)
def test_a_hard_reset_of_the_wrong_shape(value: object) -> None:
    """A hard reset is done although its input asks for something it does not do, like a dry run."""
    with pytest.raises(InvalidRequest):
        parse_reset(value)


@pytest.mark.parametrize("confirmation", [None, "", "prod-languages", "prod-licenses\n", 1, True])
def test_a_hard_reset_without_confirmation(confirmation: object) -> None:
    """A table is purged that nobody confirmed by its name."""
    with pytest.raises(ConfirmationMismatch):
        parse_reset(reset(tableNameRecoveryConfirmation=confirmation))
