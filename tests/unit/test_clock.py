"""Times and deadlines: what is misread here is restored to the wrong second, or killed in the middle of a page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from handlers.core.clock import Deadline, from_iso, to_iso, utc_now


class Remaining:
    """The remaining time of an invocation, set by the test."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self) -> float:
        """Seconds left."""
        return self.seconds


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-20T09:00:00Z", datetime(2026, 11, 20, 9, tzinfo=UTC)),
        ("2026-11-20T09:00:00+00:00", datetime(2026, 11, 20, 9, tzinfo=UTC)),
        ("2026-11-20T01:30:00+05:30", datetime(2026, 11, 19, 20, tzinfo=UTC)),
        ("2026-11-20T20:00:00-08:00", datetime(2026, 11, 21, 4, tzinfo=UTC)),
    ],
)
def test_offsets_are_honoured(text: str, moment: datetime) -> None:
    """An offset that is dropped restores the tables to a time hours away, and everything verifies."""
    assert from_iso(text) == moment
    assert from_iso(text).utcoffset() == timedelta(0)


@pytest.mark.parametrize("text", ["2026-11-20T09:00:00", "2026-11-20", "yesterday", "", "2026-13-01T00:00:00Z"])
def test_a_time_without_offset_is_no_time(text: str) -> None:
    """A wall-clock time is taken for UTC and the tables are restored to another hour."""
    with pytest.raises(ValueError, match=r".+"):
        from_iso(text)


def test_to_iso_writes_utc() -> None:
    """A time is written with its own offset's digits and a Z."""
    assert to_iso(datetime(2026, 1, 2, 3, 4, 5, 999_999, tzinfo=UTC)) == "2026-01-02T03:04:05Z"
    assert to_iso(datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=2)))) == "2026-01-01T22:00:00Z"
    assert utc_now().utcoffset() == timedelta(0)


def test_the_deadline_keeps_a_fifth_in_reserve() -> None:
    """Without a reserve the invocation is killed before it has saved its checkpoint, every time, for ever."""
    remaining = Remaining(100)
    deadline = Deadline(remaining)
    assert deadline.margin == 20
    assert not deadline.reached()
    remaining.seconds = 20.1
    assert not deadline.reached()
    assert deadline.reached(0.2)
    remaining.seconds = 20
    assert deadline.reached()


def test_the_reserve_is_at_most_thirty_seconds() -> None:
    """A fifth of fifteen minutes is three minutes of every invocation spent on nothing."""
    assert Deadline(Remaining(900)).margin == 30


def test_a_deadline_already_past_is_reached() -> None:
    """A negative remainder makes a negative margin, and the deadline is never reached."""
    for seconds in (0.0, -5.0):
        assert Deadline(Remaining(seconds)).reached()


def test_a_deadline_outside_lambda_counts_down() -> None:
    """A deadline that is computed anew at every look never comes."""
    deadline = Deadline.after(60)
    assert not deadline.reached()
    assert deadline.reached(needed=60)
    assert Deadline.after(0).reached()
