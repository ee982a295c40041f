"""How long a request takes."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

# The 99th percentile of the standard normal distribution.
_NORMAL_P99 = 2.3263478740408408


@dataclass(frozen=True, kw_only=True)
class Latency:
    """A log-normal distribution, in seconds; both 0 where requests take no time.

    Args:
        median: half of the requests take longer.
        p99: one in a hundred takes longer.
    """

    median: float = 0.0
    p99: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.median <= self.p99 or (self.p99 and not self.median):
            raise ValueError(f"median is {self.median} and p99 {self.p99}; expected 0 < median <= p99, or 0 for both.")

    def sample(self, source: random.Random) -> float:
        """One request's latency in seconds."""
        if not self.median:
            return 0.0
        return self.median * math.exp(source.gauss(0.0, 1.0) * math.log(self.p99 / self.median) / _NORMAL_P99)
