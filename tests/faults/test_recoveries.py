"""The verdict on a case: everything that a recovery could get wrong makes it a failure."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from localaws.faults import suite
from localaws.faults.cases import NOT_REACHED, SCENARIOS, Case
from localaws.faults.recoveries import Recoveries
from localaws.faults.stack import FUNCTIONS, RECOVERED, Items, Stack
from localaws.faults.suite import summary, table

GOOD: Items = {"a": {"note": {"S": "good"}}, "b": {"note": {"S": "good"}}}
CASE = Case(fault="throttled for ever", where="verify dynamodb:Query", scenario=SCENARIOS[0], rule={"kind": "throttle"})


class FakeAws:
    """Takes faults and says how often the first one struck."""

    def __init__(self) -> None:
        self.struck = 1
        self.injected: list[dict[str, Any]] = []

    def inject(self, *rules: dict[str, Any]) -> None:
        """Remember the rules."""
        self.injected = list(rules)

    def faults(self) -> dict[str, Any]:
        """What was seen."""
        return {"calls": [], "states": []}

    def clear_faults(self) -> list[dict[str, Any]]:
        """Forget the rules."""
        rules, self.injected = self.injected, []
        return [{**rule, "struck": self.struck} for rule in rules]


class FakeStack:
    """A stack whose first start fails under the fault and whose second succeeds, unless a test says otherwise."""

    def __init__(self) -> None:
        self.aws = FakeAws()
        self.outputs = {"orchestratorStateMachineArn": "arn", "ledgerTableName": "ledger"}
        self.point = "2026-11-20T09:00:00Z"
        self.good = dict.fromkeys(RECOVERED, GOOD)
        self.settings: dict[str, Any] = {"api": 5, "mapping": "Enabled"}
        self.found: dict[str, Items] = {}
        self.now = dict(self.settings)
        self.held: list[str] = []
        self.left: list[str] = []
        self.ends = ["FAILED", "SUCCEEDED"]
        self.started: list[Any] = []
        self.guarded: list[tuple[str | None, bool]] = []
        self.guardian_ends: list[str] = []
        self.after_sweep: dict[str, Any] | None = None

    def damage(self) -> dict[str, Items]:
        """Other items than the good ones."""
        return {name: {} for name in RECOVERED}

    def start(self, machine: str, request: Any) -> str:
        """Note the request, and whether it met a fault."""
        self.started.append((machine, request["incidentId"], bool(self.aws.injected)))
        return "execution"

    def finish(self, execution: str) -> dict[str, Any]:
        """The next ending."""
        return {
            "status": self.ends[len(self.started) - 1],
            "error": "Whatever",
            "cause": execution,
            "executionArn": execution,
        }

    def guard(self, ended: str | None) -> dict[str, Any]:
        """Note for what the guardian is started, and whether it met a fault."""
        self.guarded.append((ended, bool(self.aws.injected)))
        if ended is None and self.after_sweep is not None:
            self.now = self.after_sweep
        return {"status": self.guardian_ends.pop(0) if self.guardian_ends else "SUCCEEDED"}

    def remove_consumer(self) -> None:
        """There is none."""

    def items(self, name: str) -> Items:
        """The good items, unless a test says otherwise."""
        return self.found.get(name, GOOD)

    def current_settings(self) -> dict[str, Any]:
        """As they are now."""
        return self.now

    def locks(self, *, ended_too: bool) -> list[str]:
        """Locks of running owners, or of all."""
        return self.held if ended_too else []

    def temporary_tables(self) -> list[str]:
        """What is left."""
        return self.left

    def ledger(self, partition: str) -> list[dict[str, Any]]:
        """Nothing."""
        del partition
        return []

    def client(self, service: str) -> Any:
        """Only asked for the list of tables."""
        del service
        return self

    def list_tables(self) -> dict[str, Any]:
        """None."""
        return {"TableNames": []}


def outcome(stack: FakeStack, case: Case = CASE) -> Any:
    """The verdict on the case."""
    return Recoveries(cast(Stack, stack), "test").try_case(case)


def test_a_failed_recovery_is_started_once_more_without_the_fault() -> None:
    """Catches a suite that resumes under the fault, with another incident, or never."""
    stack = FakeStack()
    verdict = outcome(stack)
    assert (verdict.survived, verdict.starts, verdict.first_status) == (True, 2, "FAILED")
    (first, second) = stack.started
    assert first[:2] == second[:2]
    assert (first[2], second[2]) == (True, False)


def test_a_recovery_that_shrugs_the_fault_off_is_not_started_again() -> None:
    """Catches a second start of a finished incident, which would be refused and count as a failure."""
    stack = FakeStack()
    stack.ends = ["SUCCEEDED"]
    assert (outcome(stack).survived, len(stack.started)) == (True, 1)


def _lose(stack: FakeStack) -> None:
    stack.found[RECOVERED[0]] = {"a": GOOD["a"]}


def _change(stack: FakeStack) -> None:
    stack.found[RECOVERED[1]] = {**GOOD, "a": {"note": {"S": "damaged"}}}


def _leave(stack: FakeStack) -> None:
    stack.found[RECOVERED[0]] = {**GOOD, "junk": {}}


def _stay_frozen(stack: FakeStack) -> None:
    stack.now["api"] = 0


def _keep_disabled(stack: FakeStack) -> None:
    stack.now["mapping"] = "Disabled"


def _keep_lock(stack: FakeStack) -> None:
    stack.held = ["ENVIRONMENT"]


def _keep_table(stack: FakeStack) -> None:
    stack.left = ["dr-local.table"]


def _fail_again(stack: FakeStack) -> None:
    stack.ends = ["FAILED", "FAILED"]


def _never_strike(stack: FakeStack) -> None:
    stack.aws.struck = 0


@pytest.mark.parametrize(
    ("wrong", "lost", "left_over", "changed"),
    [
        (_lose, 1, 0, 0),
        (_change, 1, 0, 0),
        (_leave, 0, 1, 0),
        (_stay_frozen, 0, 0, 1),
        (_keep_disabled, 0, 0, 1),
        (_keep_lock, 0, 0, 0),
        (_keep_table, 0, 0, 0),
        (_fail_again, 0, 0, 0),
        (_never_strike, 0, 0, 0),
    ],
)
def test_whatever_is_wrong_afterwards_counts(
    wrong: Callable[[FakeStack], None], lost: int, left_over: int, changed: int
) -> None:
    """Catches a loss that the suite does not see, and a fault that never struck and proves nothing."""
    stack = FakeStack()
    wrong(stack)
    verdict = outcome(stack)
    assert not verdict.survived
    assert verdict.remark
    assert (verdict.lost, verdict.left_over, verdict.changed_settings) == (lost, left_over, changed)


LEFT_ALONE = Case(
    fault="execution stopped",
    where="guardian: Release after the failure",
    scenario=next(one for one in SCENARIOS if one.name == "stopped before the purge"),
    rule={"kind": "abort"},
)


def left_alone() -> FakeStack:
    """A stack whose recovery ended badly before the purge: nothing was touched but the functions."""
    stack = FakeStack()
    stack.found = {name: {} for name in RECOVERED}
    stack.now["api"] = 0
    return stack


def test_left_alone_the_guardian_is_struck_and_the_schedule_mends_it() -> None:
    """Catches a guardian's case in which somebody starts the recovery again, so that the guardian shows nothing."""
    stack = left_alone()
    stack.after_sweep = stack.settings
    verdict = outcome(stack, LEFT_ALONE)
    assert (verdict.survived, verdict.remark) == (True, "")
    assert len(stack.started) == 1
    assert stack.guarded == [("execution", True), (None, False)]


def test_left_alone_functions_that_stay_frozen_count() -> None:
    """Catches a guardian that never releases, in a suite that is content with it."""
    verdict = outcome(left_alone(), LEFT_ALONE)
    assert (verdict.survived, verdict.changed_settings) == (False, 1)


def test_a_guardian_that_breaks_counts() -> None:
    """Catches a guardian that fails without any fault, hidden by the start after it."""
    stack = left_alone()
    stack.after_sweep, stack.guardian_ends = dict(stack.settings), ["ABORTED", "FAILED"]
    assert "the guardian ended FAILED" in outcome(stack, LEFT_ALONE).remark


def test_a_half_restored_table_that_functions_may_use_counts() -> None:
    """Catches functions that were released over a table in its middle, hidden by the recovery that follows."""
    stack = FakeStack()
    stack.found[RECOVERED[0]] = {"a": GOOD["a"]}
    assert "is half restored" in outcome(stack).remark
    stack = FakeStack()
    stack.found[RECOVERED[0]] = {"a": GOOD["a"]}
    stack.now = dict.fromkeys(FUNCTIONS, 0)
    assert "is half restored" not in outcome(stack).remark


@pytest.mark.parametrize(
    ("not_reached", "ends"), [(list(NOT_REACHED), 0), ([*NOT_REACHED, "guardian: New"], 1), (list(NOT_REACHED)[1:], 1)]
)
def test_every_state_is_struck_or_listed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, not_reached: list[str], ends: int
) -> None:
    """Catches a new state that no course enters, and a list of excuses that nobody needs any more."""
    monkeypatch.setattr(suite, "run", lambda *_: ([outcome(FakeStack())], not_reached))
    monkeypatch.setattr(suite, "PROJECT_ROOT", tmp_path)
    monkeypatch.setattr(suite, "REPORT", tmp_path / "report.json")
    assert suite.main() == ends


def test_the_report_counts_pairs_and_losses() -> None:
    """Catches a report that says survived over a case that was not, or counts one pair twice."""
    good, bad = FakeStack(), FakeStack()
    _leave(bad)
    report = summary([outcome(good), outcome(FakeStack()), outcome(bad)], ["a state"], 1.0)
    assert (report["pairs"], report["survived"], report["leftOverItems"]) == (1, 2, 1)
    assert report["statesNotReached"] == ["a state"]
    assert [case["survived"] for case in report["cases"]] == [True, True, False]
    assert "throttled for ever" in table([outcome(FakeStack())])
