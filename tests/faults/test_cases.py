"""Cases follow from what was seen: nothing typed, nothing left out silently."""

from __future__ import annotations

import random
from typing import Any

import pytest

from localaws.emulator.faults import Rule, RuleError
from localaws.faults.cases import (
    GUARDIAN,
    HARD_RESET,
    ORCHESTRATOR,
    SCENARIOS,
    Case,
    Seen,
    all_states,
    generate,
    spread,
)

SMOOTH = SCENARIOS[0]
FAILED = next(one for one in SCENARIOS if one.name == "failed before the purge")
DEFINITIONS: dict[str, Any] = {
    ORCHESTRATOR: {
        "States": {
            "Ask": {"Type": "Task"},
            "Each": {"Type": "Map", "ItemProcessor": {"States": {"Inside": {"Type": "Task"}}}},
            "Both": {"Type": "Parallel", "Branches": [{"States": {"Left": {"Type": "Pass"}}}]},
        }
    },
    HARD_RESET: {"States": {"Preflight": {"Type": "Task"}, "Never": {"Type": "Pass"}}},
}


def seen(scenario: Any, calls: set[tuple[str, str]], states: set[tuple[str, str]]) -> Seen:
    """What one scenario did."""
    return Seen(scenario=scenario, calls=frozenset(calls), states=frozenset(states))


def cases_of(*sightings: Seen) -> list[Case]:
    """The generated cases."""
    return generate(sightings, DEFINITIONS)[0]


def test_states_inside_maps_and_branches_count() -> None:
    """Catches states inside a Map or a Parallel that are neither struck nor reported as missed."""
    names = [name for name, _ in all_states(DEFINITIONS[ORCHESTRATOR])]
    assert sorted(names) == ["Ask", "Both", "Each", "Inside", "Left"]


def test_a_new_call_is_struck_by_itself() -> None:
    """Catches a call that somebody adds to a handler and that no fault ever meets."""
    old = ("local-dr-purge-segment", "dynamodb:Scan")
    new = ("local-dr-purge-segment", "kms:Decrypt")
    before = cases_of(seen(SMOOTH, {old}, set()))
    after = cases_of(seen(SMOOTH, {old, new}, set()))
    struck = {case.rule["kind"] for case in after if case.rule.get("action") == "kms:Decrypt"}
    assert len(struck) >= 3
    assert {case.where for case in after} - {case.where for case in before} >= {"purge-segment kms:Decrypt"}


def test_a_place_belongs_to_the_first_scenario_that_reached_it() -> None:
    """Catches a fault set where its scenario never comes along, so that it cannot strike."""
    states = {(ORCHESTRATOR, "Ask")}
    later = {*states, (ORCHESTRATOR, "Inside")}
    scenarios = {
        case.where: case.scenario for case in cases_of(seen(SMOOTH, set(), states), seen(FAILED, set(), later))
    }
    assert scenarios == {"orchestrator: Ask": SMOOTH, "orchestrator: Inside": FAILED}


def test_tasks_fail_before_and_after_their_work() -> None:
    """Catches a task whose lost answer, or whose failure, is never tried."""
    kinds = {case.rule["kind"] for case in cases_of(seen(SMOOTH, set(), {(ORCHESTRATOR, "Ask")}))}
    assert kinds == {"abort", "task-error", "task-throttled", "task-lost"}


def test_the_hard_reset_is_stopped_alone_and_with_the_whole() -> None:
    """Catches a stop of one table's reset that nobody has tried."""
    cases = cases_of(seen(SMOOTH, set(), {("local-dr-hard-reset-local-licenses", "Preflight")}))
    assert {case.rule["kind"] for case in cases} >= {"abort", "abort-own"}


def test_what_was_not_reached_is_said() -> None:
    """Catches a coverage that shrinks unseen, because a state is no longer entered."""
    _, not_reached = generate([seen(SMOOTH, set(), {(ORCHESTRATOR, "Ask")})], DEFINITIONS)
    assert "hard reset: Never" in not_reached
    assert "orchestrator: Ask" not in not_reached


def test_what_a_function_does_for_the_guardian_is_a_place_of_its_own() -> None:
    """Catches a guardian that is never struck, because the orchestrator makes the same calls."""
    alone = next(one for one in SCENARIOS if one.form == "left-alone")
    call = ("local-dr-unlock", "dynamodb:DeleteItem")
    cases = cases_of(seen(SMOOTH, {call}, set()), seen(alone, {call, (GUARDIAN, "dynamodb:Query")}, set()))
    of_guardian = {case.where for case in cases if case.scenario is alone}
    assert of_guardian >= {"guardian: unlock dynamodb:DeleteItem", "guardian: guardian dynamodb:Query"}
    assert any(case.where == "unlock dynamodb:DeleteItem" and case.scenario is SMOOTH for case in cases)


def test_the_second_round_is_struck_at_its_second_entry() -> None:
    """Catches faults that strike the first round twice, so that the second is never interrupted."""
    again = next(one for one in SCENARIOS if one.name == "a function started during the restore")
    cases = [case for case in cases_of(seen(again, set(), set())) if "second round" in case.where]
    assert len(cases) >= 5
    assert all(case.rule["skip"] >= 1 for case in cases)


def test_pairs_are_distinct() -> None:
    """Catches a count of pairs that is padded by the same pair twice."""
    calls = {("local-dr-purge-segment", "dynamodb:BatchWriteItem"), ("local-dr-verify", "dynamodb:Query")}
    cases = cases_of(seen(SMOOTH, calls, {(ORCHESTRATOR, "Ask"), (ORCHESTRATOR, "Each")}))
    assert len({(case.fault, case.where) for case in cases}) == len(cases) > 10


def test_a_spread_has_every_fault_and_no_case_twice() -> None:
    """Catches a short form that tries one kind of fault over and over."""
    calls = {(f"local-dr-f{number}", "dynamodb:GetItem") for number in range(30)}
    cases = cases_of(seen(SMOOTH, calls, {(ORCHESTRATOR, "Ask")}))
    faults = {case.fault for case in cases}
    random.Random(1).shuffle(cases)
    chosen = spread(cases, len(faults) + 5)
    assert {case.fault for case in chosen} == faults
    assert len({(case.fault, case.where) for case in chosen}) == len(chosen) == len(faults) + 5
    assert len(spread(cases, 10_000)) == len(cases)


def test_every_rule_of_a_course_is_one_that_can_strike() -> None:
    """Catches a course whose fault is misspelt, and a change by somebody else that changes nothing."""
    rules = [rule for one in SCENARIOS for rule in (*one.along, *one.earlier)]
    assert {Rule.parse(rule).kind for rule in rules} >= {"abort", "task-error", "stuck", "throttle", "thaw", "write"}
    for wrong in (
        {"kind": "thaw", "state": "Ask"},
        {"kind": "write", "state": "Ask"},
        {"kind": "abort", "state": "Ask", "request": {}},
    ):
        with pytest.raises(RuleError):
            Rule.parse(wrong)


def test_names_of_courses_are_distinct() -> None:
    """Catches two courses that the report cannot tell apart."""
    assert len({one.name for one in SCENARIOS}) == len(SCENARIOS)
