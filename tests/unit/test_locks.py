"""Locks under writes whose answer is lost: the SDK sends them again, and their condition fails on their own work."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from handlers.core.errors import RecoveryInProgress
from handlers.core.ledger import Ledger
from handlers.core.locks import ENVIRONMENT, PARTITION, Locks

NOW = datetime(2026, 11, 20, 9, tzinfo=UTC)
MINE, FORMER, OTHER = "execution:mine", "execution:former", "execution:other"


class LossyLedger:
    """Every write is carried out and its answer lost, so that what the caller gets is the answer to the second try."""

    def __init__(self, owner: str | None = None, snatched_by: str | None = None) -> None:
        self.record: dict[str, Any] | None = {"owner": owner, "incidentId": "former"} if owner else None
        self._snatched_by = snatched_by
        self.writes = 0

    def get(self, pk: str, sk: str) -> dict[str, Any] | None:
        """The lock's record."""
        assert (pk, sk) == (PARTITION, ENVIRONMENT)
        return self.record

    def create(self, pk: str, sk: str, values: Mapping[str, Any]) -> bool:
        """Create, twice."""
        assert (pk, sk) == (PARTITION, ENVIRONMENT)
        if self.record is None:
            self._write(values)
        return False

    def update(self, pk: str, sk: str, values: Mapping[str, Any], *, only_if: Mapping[str, Any]) -> bool:
        """Update, twice."""
        assert (pk, sk) == (PARTITION, ENVIRONMENT)
        if self.record is not None and self.record["owner"] == only_if["owner"]:
            self._write(values)
        return bool(self.record and self.record["owner"] == only_if["owner"])

    def _write(self, values: Mapping[str, Any]) -> None:
        self.writes += 1
        self.record = {**values, "owner": self._snatched_by or values["owner"]}


class Executions:
    """Every execution but this test's own runs, but for the former one."""

    def describe_execution(self, *, executionArn: str) -> dict[str, Any]:  # noqa: N803 - boto3's name
        """Ended, or running."""
        if executionArn == FORMER:
            return {"status": "ABORTED", "stopDate": NOW}
        return {"status": "RUNNING"}


def locks(ledger: LossyLedger) -> Locks:
    """The locks on behalf of MINE."""
    return Locks(
        ledger=cast(Ledger, ledger),
        stepfunctions=cast(Any, Executions()),
        clock=lambda: NOW,
        execution_arn=MINE,
        incident_id="incident",
    )


def test_a_lock_taken_over_with_a_lost_answer_is_held() -> None:
    """Catches a recovery that fails as RecoveryInProgress because of the lock that it has just taken itself."""
    ledger = LossyLedger(owner=FORMER)
    taken = locks(ledger).acquire([ENVIRONMENT])
    assert ledger.writes == 1
    assert ledger.record is not None
    assert ledger.record["owner"] == MINE
    assert taken.settled_at > NOW, "workers of the former owner may still be alive"


def test_a_new_lock_with_a_lost_answer_is_held() -> None:
    """Catches the same of a lock that nobody held before."""
    ledger = LossyLedger()
    locks(ledger).acquire([ENVIRONMENT])
    assert ledger.record is not None
    assert ledger.record["owner"] == MINE


@pytest.mark.parametrize("former", [FORMER, None])
def test_a_lock_that_another_took_is_not_held(former: str | None) -> None:
    """Catches a lost race that is taken for a lost answer: two recoveries at once."""
    with pytest.raises(RecoveryInProgress):
        locks(LossyLedger(owner=former, snatched_by=OTHER)).acquire([ENVIRONMENT])
