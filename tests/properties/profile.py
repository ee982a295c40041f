"""How Hypothesis searches here: the same examples every time, few enough for every commit."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# The database would remember failures from run to run, and with it make runs differ.
few = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
many = settings(few, max_examples=100)
