"""The pacer on a clock of its own, against a table that accepts so much a second and no more."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from handlers.core.pacing import Pacer

BATCH = 25.0


@dataclass
class Clock:
    """Seconds, moved by the test."""

    now: float = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@dataclass
class Bucket:
    """A table: a token bucket of one second."""

    rate: float
    clock: Clock
    tokens: float = 0.0
    at: float = 100.0

    def take(self, units: float) -> float:
        """How many of the units are accepted."""
        self.tokens = min(self.rate, self.tokens + (self.clock.now - self.at) * self.rate)
        self.at = self.clock.now
        accepted = min(units, self.tokens)
        self.tokens -= accepted
        return accepted


@dataclass
class Writer:
    """Writes batches one after the other at a pacer's pace; counts what a table accepts and refuses."""

    pacer: Pacer
    table: Bucket
    clock: Clock
    accepted: float = 0.0
    batches: int = 0
    throttled: int = 0
    paces: list[float] = field(default_factory=list)

    def write(self, seconds: float) -> Writer:
        """Write for so long; what was counted before is forgotten."""
        self.accepted, self.batches, self.throttled = 0.0, 0, 0
        end = self.clock.now + seconds
        while self.clock.now < end:
            reserved = self.pacer.expect(25)
            self.clock.now += self.pacer.reserve(reserved)
            accepted = self.table.take(BATCH)
            # A round trip, shared by several threads; a back-off after throttling.
            self.clock.now += 0.0005 if accepted == BATCH else 0.005
            self.pacer.report(reserved, accepted, sent=25, written=int(accepted))
            self.accepted += accepted
            self.batches += 1
            self.throttled += accepted < BATCH
            self.paces.append(self.pacer.pace)
        return self


def writer(start: float, allowed: float, limit: float | None = None) -> Writer:
    """A writer whose pacer begins at ``start`` on a table that accepts ``allowed``."""
    clock = Clock()
    return Writer(Pacer(start=start, limit=limit, monotonic=clock), Bucket(allowed, clock), clock)


@pytest.mark.parametrize("allowed", [50, 500, 4000])
@pytest.mark.parametrize("believed", [0.5, 1, 3])
def test_it_finds_what_the_table_takes_and_stays_there(allowed: float, believed: float) -> None:
    """Half of the capacity is left unused, or requests are wasted on throttling."""
    one = writer(believed * allowed, allowed)
    one.write(90)
    one.write(120)
    assert one.accepted / 120 >= 0.95 * allowed
    assert one.throttled / one.batches <= 0.03
    assert one.batches > 100, "hardly anything was written"


def test_it_falls_back_within_seconds_and_comes_back_within_a_minute() -> None:
    """The table takes a quarter of what it took: minutes of throttling; or four times: minutes at the old pace."""
    one = writer(1000, 1000).write(60)
    one.table.rate = 250
    one.write(3)
    one.write(20)
    assert one.accepted / 20 >= 0.9 * 250
    assert one.throttled / one.batches <= 0.1
    one.table.rate = 1000
    one.write(60)
    one.write(20)
    assert one.accepted / 20 >= 0.9 * 1000


@pytest.mark.parametrize("limit", [3.0, 100.0, 900.0])
def test_a_limit_is_kept_exactly(limit: float) -> None:
    """The operator has promised the rest of the capacity to others."""
    one = writer(4000, 4000, limit)
    one.write(60)
    one.write(100)
    assert 0.95 * limit <= one.accepted / 100 <= limit + BATCH / 100


def test_items_of_many_units_are_waited_for() -> None:
    """Items of 10 KB take ten times what was expected, and so ten times the limit."""
    clock = Clock()
    pacer = Pacer(start=100, limit=100, monotonic=clock)
    began = clock.now
    for _ in range(20):
        reserved = pacer.expect(25)
        clock.now += pacer.reserve(reserved)
        pacer.report(reserved, 250.0, sent=25, written=25)
    # The first batch, of which nothing was known yet, is paid for by those after it.
    assert 19 * 250 / (clock.now - began) <= 100 * 1.06


def test_stragglers_take_over_what_others_leave() -> None:
    """The last worker of 25 goes on at a 25th of the limit, for hours."""
    clock, left = Clock(), [25]
    pacer = Pacer(start=40, limit=1000, workers=25, count_workers=lambda: left[0], monotonic=clock)
    pacer.reserve(1)
    assert pacer.pace == 40
    left[0] = 1
    pacer.reserve(1)
    assert pacer.pace == 40, "the ledger is asked at every write"
    clock.now += 16
    pacer.reserve(1)
    assert pacer.workers == 1
    one = Writer(pacer, Bucket(5000, clock), clock)
    one.write(90)
    assert one.write(30).accepted / 30 == pytest.approx(1000, rel=0.05)


def test_a_worker_that_is_slow_itself_does_not_raise_its_pace() -> None:
    """A pace that grew while nobody used it is a burst of throttling when somebody does."""
    clock = Clock()
    pacer = Pacer(start=1000, monotonic=clock)
    for _ in range(600):
        reserved = pacer.expect(25)
        clock.now += pacer.reserve(reserved) + 0.2  # its round trip
        pacer.report(reserved, 25.0, sent=25, written=25)
    assert pacer.pace <= 1000
