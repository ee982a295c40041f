"""How fast one worker writes: its share of what the operator allows, as fast as the table takes it.

What a table takes is not known: an on-demand table grows while it is written to, a hot partition takes less than its
table, other writers take their part. So a worker begins with its share of the capacity that the table is known to
have, and then follows what DynamoDB answers. Throttled, it leaves the table a moment to breathe, goes on just below
what was accepted, stays there for some time, and then feels its way up again, first slowly, then ever faster: the curve
of TCP's CUBIC (RFC 9438), which stays near the limit once it has found it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

_KEEP = 0.98  # of what was accepted, after throttling
# Until the pace is back at what was accepted: so long that the requests which find the limit are few among the others.
_PLATEAU_SECONDS, _PLATEAU_BATCHES = 20.0, 120
_CURVE = 0.4  # how much more after as long again
# A table that throttles has nothing left: at nearly its own pace it would go on refusing a part of every batch. So it
# is left alone until it has a batch or so again.
_BREATH_SECONDS = 0.15
_BATCH_REQUESTS = 25
_STEEPEST_GROWTH = 1.1  # a second
_SLOWEST_UNITS = 1.0
_MEASURED_SECONDS = 2.0
# Below this share of the pace it is not the pace that limits the worker, and raising it would tell nothing.
_BINDING = 0.8
_WORKERS_AGE_SECONDS = 15.0
_LEARNING = 0.2  # how much the newest batch counts in what the next is expected to take


@dataclass(kw_only=True)
class Pacer:
    """Tells when the next write may be sent. Threads may share it.

    Args:
        start: write units a second to begin with: the worker's share of the table's known capacity.
        limit: write units a second that all workers of the table may take together, or None.
        workers: how many workers share the limit.
        count_workers: asks for that number, at first and every fifteen seconds; a straggler gets what others leave.
        monotonic: seconds; replaced by tests.
    """

    start: float
    limit: float | None = None
    workers: int = 1
    count_workers: Callable[[], int] | None = None
    monotonic: Callable[[], float] = time.monotonic
    _pace: float = field(init=False)
    _peak: float = field(init=False)
    _since: float = field(init=False)
    _free_at: float = field(init=False)
    _grown_at: float = field(init=False)
    _plateau: float = field(init=False, default=_PLATEAU_SECONDS)
    _measured_from: float = field(init=False)
    _counted_at: float = field(init=False)
    _units_a_request: float = field(init=False, default=1.0)
    _accepted: deque[tuple[float, float]] = field(init=False, default_factory=deque)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        now = self.monotonic()
        self._pace = self._peak = max(_SLOWEST_UNITS, self.start)
        self._since = self._free_at = self._grown_at = now
        self._counted_at = now - _WORKERS_AGE_SECONDS
        self._measured_from = now

    @property
    def pace(self) -> float:
        """Write units a second as of now."""
        return self._pace if self.limit is None else min(self._pace, self.limit / self.workers)

    def expect(self, requests: int) -> float:
        """The write units that so many puts or deletes will probably take, going by those before."""
        return requests * self._units_a_request

    def reserve(self, units: float) -> float:
        """Take a turn for a request of some write units; returns the seconds to wait before it is sent."""
        self._count_workers()
        with self._lock:
            now = self.monotonic()
            self._grow(now)
            begin = max(now, self._free_at)
            self._free_at = begin + units / self.pace
            return begin - now

    def report(self, reserved: float, accepted: float, *, sent: int, written: int) -> None:
        """Tell what became of a batch.

        Args:
            reserved: its write units as reserved.
            accepted: its write units as consumed.
            sent: how many puts or deletes it had.
            written: how many of them were accepted; fewer than ``sent``: it was throttled.
        """
        throttled = written < sent
        with self._lock:
            now = self.monotonic()
            if written:
                self._units_a_request += _LEARNING * (accepted / written - self._units_a_request)
            # What was refused has had its turn all the same, or every refusal would be followed by another try at once.
            self._free_at += (accepted - reserved * written / sent) / self.pace
            self._accepted.append((now, accepted))
            while self._accepted[0][0] < now - _MEASURED_SECONDS:
                self._accepted.popleft()
            # What was under way when the pace was cut says nothing about the new one.
            if throttled and now - self._measured_from >= _MEASURED_SECONDS / 2:
                self._fall_back(now)

    def _rate(self, now: float) -> float:
        """Units accepted a second, lately."""
        seen = max(now - max(self._measured_from, now - _MEASURED_SECONDS), _MEASURED_SECONDS / 2)
        return sum(units for moment, units in self._accepted if moment > now - seen) / seen

    def _fall_back(self, now: float) -> None:
        accepted = min(self._pace, max(self._rate(now), self._pace / 4))
        self._peak = accepted
        self._pace = max(_SLOWEST_UNITS, _KEEP * accepted)
        self._since = self._grown_at = now
        batch_seconds = self.expect(_BATCH_REQUESTS) / self.pace
        self._free_at = self._measured_from = max(now, self._free_at) + max(_BREATH_SECONDS, batch_seconds)
        self._plateau = max(_PLATEAU_SECONDS, _PLATEAU_BATCHES * batch_seconds)

    def _grow(self, now: float) -> None:
        passed = now - self._grown_at
        if passed < 0.1:
            return
        self._grown_at = now
        if self._rate(now) < _BINDING * self.pace:
            self._since += passed  # time in which the pace was not used teaches nothing
            return
        part = (now - self._since - self._plateau) / self._plateau
        aim = self._peak * (1 + (1 - _KEEP if part < 0 else _CURVE) * part**3)
        self._pace = max(self._pace, min(aim, self._pace * _STEEPEST_GROWTH**passed))

    def _count_workers(self) -> None:
        if self.count_workers is None or self.limit is None:
            return
        with self._lock:
            now = self.monotonic()
            due = now - self._counted_at >= _WORKERS_AGE_SECONDS
            if due:
                self._counted_at = now
        if due:
            # Outside the lock: it is a call to the ledger, and the other threads write on meanwhile.
            self.workers = max(1, self.count_workers())
