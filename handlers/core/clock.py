"""Time as an argument: the clock, its wire format, and the deadline of an invocation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Returns the present as an aware datetime in UTC."""


def utc_now() -> datetime:
    """The present, in UTC."""
    return datetime.now(UTC)


def to_iso(moment: datetime) -> str:
    """Format an aware datetime as ``2026-11-20T09:00:00Z`` (whole seconds, UTC)."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def from_iso(text: str) -> datetime:
    """Parse an ISO 8601 date-time with an offset or ``Z``.

    Raises:
        ValueError: not a date-time, or without an offset (a wall-clock time would be a guess).
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("no UTC offset")
    return moment.astimezone(UTC)


@dataclass
class Deadline:
    """When to stop working and hand over to the next invocation.

    Args:
        remaining_seconds: seconds until the invocation is killed, e.g. from the Lambda context.
        reserve: share of the time at construction that is kept for saving the checkpoint and returning; at most
            30 seconds, which is ample for one write to the ledger with all its retries.
    """

    remaining_seconds: Callable[[], float]
    reserve: float = 0.2
    margin: float = field(init=False)

    def __post_init__(self) -> None:
        self.margin = min(30.0, self.remaining_seconds() * self.reserve)

    def reached(self, needed: float = 0.0) -> bool:
        """Whether fewer than ``needed`` seconds of working time are left."""
        return self.remaining_seconds() - self.margin <= needed

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """A deadline ``seconds`` from now, for callers outside Lambda."""
        end = time.monotonic() + seconds
        return cls(lambda: end - time.monotonic())
