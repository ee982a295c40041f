"""What is collected besides the tables' content."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localaws import evidence
from localaws.evidence import EventSource, Settings

START = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ROOT = "arn:aws:iam::000000000000:root"
ROLE = "arn:aws:sts::000000000000:assumed-role/local-dr-copy/session"


def settings(reserved: int | None, mapping: str | None = None) -> Settings:
    """A function's settings, with at most one mapping."""
    return Settings(
        reserved=reserved, mappings={"m": EventSource(source="stream of t", state=mapping)} if mapping else {}
    )


BEFORE = {"api": settings(5), "none": settings(None), "feed": settings(2, "Enabled"), "other": settings(3)}
FROZEN = {"api": settings(0), "none": settings(0), "feed": settings(0, "Disabled"), "other": settings(3)}
SYSTEM = ["api", "none", "feed"]


def restored(during: dict[str, Settings], after: dict[str, Settings]) -> dict[str, bool]:
    """Each function's `restored`."""
    return {each["name"]: each["restored"] for each in evidence.describe_functions(BEFORE, during, after, SYSTEM)}


def test_every_setting_as_before() -> None:
    """A good recovery is called a bad one."""
    assert all(restored(FROZEN, dict(BEFORE)).values())


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("api", settings(0)),
        ("api", settings(None)),
        ("none", settings(0)),
        ("none", settings(100)),
        ("feed", settings(2, "Disabled")),
        ("feed", settings(2)),
    ],
)
def test_a_setting_not_given_back(name: str, wrong: Settings) -> None:
    """A function stays frozen, or loses or gains a limit, and the drill passes."""
    found = restored(FROZEN, BEFORE | {name: wrong})
    assert [each for each, ok in found.items() if not ok] == [name]


def test_another_teams_function_is_watched_during_the_recovery() -> None:
    """A neighbour's function is frozen and released, and nobody notices."""
    assert restored(FROZEN | {"other": settings(0)}, dict(BEFORE))["other"] is False


def test_settings_that_were_never_read_are_not_restored() -> None:
    """A drill that stopped half-way reports functions as released."""
    assert not any(restored({}, {}).values())


def test_how_far_a_freeze_got() -> None:
    """A partly frozen system counts as frozen, or a neighbour's function keeps it from ever counting."""
    assert evidence.frozen_score(FROZEN, SYSTEM) == (4, 4)
    assert evidence.frozen_score(BEFORE, SYSTEM) == (0, 4)
    assert evidence.frozen_score(FROZEN | {"feed": settings(0, "Disabling")}, SYSTEM) == (3, 4)
    assert evidence.settled(FROZEN)
    assert not evidence.settled(FROZEN | {"feed": settings(0, "Disabling")})


def test_requests_by_anyone_but_root() -> None:
    """The sensitive table was read by a role, and the proof looks at the wrong time or person."""

    def entry(second: int, principal: str) -> dict[str, str]:
        moment = (START + timedelta(seconds=second)).isoformat().replace("+00:00", "Z")
        return {"time": moment, "action": "Scan", "table": "t", "principal": principal}

    log = [
        entry(-1, ROLE),
        entry(1, ROOT),
        entry(2, ROLE),
        entry(3, "arn:aws:iam::000000000000:user/root"),
        entry(9, ROLE),
    ]
    by_root, others = evidence.requests_between(log, START, START + timedelta(seconds=5))
    assert len(by_root) == 1
    assert len(others) == 2


class Storage:
    """An S3 client with one object."""

    def __init__(self, content: str) -> None:
        self.content = content

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:  # noqa: N803
        """GetObject."""
        assert (Bucket, Key) == ("bucket", "a/report.json")
        return {"Body": io.BytesIO(self.content.encode())}


def test_report_in_s3() -> None:
    """A missing or broken report passes as written."""
    uri = "s3://bucket/a/report.json"
    assert evidence.read_report(Storage('{"incidentId": "i"}'), uri) == {"incidentId": "i"}
    for wrong in ("[1]", "no json"):
        with pytest.raises(ValueError, match=r"JSON|Expecting"):
            evidence.read_report(Storage(wrong), uri)
    for address in ("", "s3://bucket", "https://bucket/a"):
        with pytest.raises(ValueError, match="expected s3"):
            evidence.read_report(Storage("{}"), address)


class Caller:
    """A Lambda client whose invocations answer with an error code, or run."""

    def __init__(self, code: str | None) -> None:
        self.code = code

    def invoke(self, **_: Any) -> dict[str, Any]:
        """Invoke."""
        if self.code:
            raise ClientError({"Error": {"Code": self.code, "Message": ""}}, "Invoke")
        return {}


def test_refused_invocation() -> None:
    """Any error counts as frozen, or a function that ran does."""
    assert evidence.invocation_is_refused(Caller("TooManyRequestsException"), "f")
    assert not evidence.invocation_is_refused(Caller(None), "f")
    with pytest.raises(ClientError):
        evidence.invocation_is_refused(Caller("AccessDeniedException"), "f")


class History:
    """A Step Functions client with one execution's history."""

    def __init__(self, entered: list[tuple[str, int]], stopped: int) -> None:
        self.entered = entered
        self.stopped = stopped

    def describe_execution(self, **_: Any) -> dict[str, Any]:
        """DescribeExecution."""
        return {"stateMachineArn": "m", "stopDate": START + timedelta(seconds=self.stopped)}

    def describe_state_machine(self, **_: Any) -> dict[str, Any]:
        """DescribeStateMachine."""
        states = {"Freeze": "Task", "Frozen?": "Choice", "Wait": "Wait", "Reset": "Map", "Done": "Succeed"}
        return {"definition": json.dumps({"States": {name: {"Type": kind} for name, kind in states.items()}})}

    def get_paginator(self, _: str) -> History:
        """The paginator of GetExecutionHistory."""
        return self

    def paginate(self, **_: Any) -> list[dict[str, Any]]:
        """Two events a page."""
        events = [
            {"timestamp": START + timedelta(seconds=second), "stateEnteredEventDetails": {"name": name}}
            for name, second in self.entered
        ]
        return [{"events": events[start : start + 2]} for start in range(0, len(events), 2)]


def test_steps_of_an_execution() -> None:
    """A loop shows as many steps, a child's state shows as the parent's, or a step ends when it began."""
    entered = [("Freeze", 0), ("Frozen?", 1), ("Freeze", 2), ("Frozen?", 3), ("Reset", 3), ("Child", 4), ("Done", 9)]
    found = evidence.steps(History(entered, stopped=9), "arn")
    spans = [(each["phase"], (each["start"] - START).seconds, (each["end"] - START).seconds) for each in found]
    assert spans == [("Freeze", 0, 3), ("Reset", 3, 9)]
