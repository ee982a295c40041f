"""Which faults strike where: generated from what a recovery is seen to do, so that a new call is struck by itself.

A scenario is a recovery with a course of its own: the smooth one, and those that only an earlier failure leads into. It
is run once to see which calls its Lambda functions make and which states it enters. A place belongs to the first
scenario in which it was seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from localaws.faults.stack import FUNCTIONS

Rule = dict[str, Any]

ORCHESTRATOR, HARD_RESET, GUARDIAN = "local-dr-orchestrator", "local-dr-hard-reset-*", "local-dr-guardian"
_WORKERS_BATCHES = ("dynamodb:BatchWriteItem", "dynamodb:BatchGetItem")
LEDGER = "*:table/local-dr-ledger"

# Each place is struck by the first three, which act differently on a call that is carried out, half known, or refused;
# the others take turns, so that every kind meets every kind of call without thousands of cases.
_ALWAYS: tuple[tuple[str, str, int | None], ...] = (
    ("timeout", "timeout", 1),
    ("kill-after", "killed after the call", 1),
    ("throttle", "throttled for ever", None),
)
_IN_TURN: tuple[tuple[str, str, int | None], ...] = (
    ("internal-error", "error 500 for ever", None),
    ("connection-reset", "connection reset for ever", None),
    ("expired-token", "expired token", 1),
    ("kill-before", "killed before the call", 1),
    ("timeout", "timeout for ever", None),
)
# At work for the guardian, the functions that are the orchestrator's too meet these in turn: the same calls met
# everything there.
_GUARDIAN_IN_TURN = (*_ALWAYS, _IN_TURN[0])


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One course of a recovery.

    Args:
        name: for people.
        form: "recovery" (the orchestrator), "left-alone" (it ends badly, and only the guardian sees to it: that is what
            is looked at), "by-hand" (a hard reset) or "dry-run".
        earlier: faults of an execution before the one that is looked at; none: there is no such execution.
        along: faults that lead the execution where the scenario is to go.
        mode: of the recovery; none: by default the hard reset.
        discard: whether the consumers of a table's stream are to skip the reset's records; there is one then.
        untouched: of "left-alone": whether it ends before the purge, so that the tables must stay as they are.
    """

    name: str
    form: str = "recovery"
    earlier: tuple[Rule, ...] = ()
    along: tuple[Rule, ...] = ()
    mode: str | None = None
    discard: bool = False
    untouched: bool = False


def _task(machine: str, state: str, kind: str = "task-error", times: int | None = None) -> Rule:
    return {"kind": kind, "machine": machine, "state": state, "times": times}


def _busy(function: str, action: str, skip: int = 0) -> Rule:
    """One invocation of the function gives the call up: Lambda's control plane is asked eleven times."""
    caller = f"local-dr-{function}"
    return {"kind": "throttle", "caller": caller, "action": f"lambda:{action}", "skip": skip, "times": 11}


def _thaw(times: int | None) -> Rule:
    """Somebody deploys a function with its own concurrency while the tables are restored."""
    own = {"FunctionName": "local-app-api", "ReservedConcurrentExecutions": FUNCTIONS["local-app-api"]}
    state = "Is every table prepared?"
    return {"kind": "thaw", "machine": ORCHESTRATOR, "state": state, "times": times, "request": own}


_PREFLIGHT_FAILS = _task(HARD_RESET, "Preflight")
_RELEASE_BUSY = _busy("release-functions", "PutFunctionConcurrency")
_STOPPED_EARLY: Rule = {"kind": "abort", "machine": ORCHESTRATOR, "state": "Reset every table"}
_WRITER: Rule = {
    "kind": "write",
    "machine": "local-dr-hard-reset-local-languages",
    "state": "Set the expiry horizon",
    "request": {"TableName": "local-languages", "Item": {"code": {"S": "after the copy"}}},
}
_SECOND_ROUND = Scenario(name="a function started during the restore", along=(_thaw(1),))

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(name="smooth"),
    Scenario(name="differential", mode="differential"),
    Scenario(
        name="differential, resumed after an abort",
        mode="differential",
        earlier=({"kind": "abort", "machine": HARD_RESET, "state": "Are the differences applied to every segment?"},),
    ),
    Scenario(name="failed before the purge", along=(_PREFLIGHT_FAILS,)),
    Scenario(name="failed after the purge", along=(_task(HARD_RESET, "Copy the segment"),)),
    Scenario(name="a Map failed as a whole", along=(_task(HARD_RESET, "Copy every segment"),)),
    Scenario(
        name="restored table never active", along=(_task(ORCHESTRATOR, "Look at the restored table", kind="stuck"),)
    ),
    Scenario(name="backup never available", along=(_task(ORCHESTRATOR, "Look at the backup", kind="stuck"),)),
    Scenario(
        name="release failed after a failure",
        along=(_PREFLIGHT_FAILS, _task(ORCHESTRATOR, "Release after the failure")),
    ),
    Scenario(
        name="failure cannot be recorded",
        along=(_PREFLIGHT_FAILS, _task(ORCHESTRATOR, "Record the failure")),
    ),
    Scenario(name="temporary table cannot be deleted", along=(_task(ORCHESTRATOR, "Delete the temporary table"),)),
    Scenario(
        name="resumed after an abort",
        earlier=({"kind": "abort", "machine": HARD_RESET, "state": "Is every segment purged?"},),
    ),
    Scenario(
        name="Lambda throttles for a while",
        along=(
            _busy("freeze-functions", "ListFunctions"),
            _busy("freeze-functions", "ListFunctions", skip=1),
            _RELEASE_BUSY,
        ),
    ),
    Scenario(name="Lambda throttles after a failure", along=(_PREFLIGHT_FAILS, _RELEASE_BUSY)),
    _SECOND_ROUND,
    Scenario(name="a function started again and again", along=(_thaw(None),)),
    Scenario(name="written to between copy and digest", along=(_WRITER,)),
    Scenario(
        name="streams skip the reset",
        discard=True,
        along=(_busy("release-functions", "UpdateEventSourceMapping"),),
    ),
    Scenario(name="stopped before the purge", form="left-alone", untouched=True, along=(_STOPPED_EARLY,)),
    Scenario(
        name="stopped after its success",
        form="left-alone",
        along=({"kind": "abort", "machine": ORCHESTRATOR, "state": "Unlock"},),
    ),
    Scenario(name="failed in its own way", form="left-alone", untouched=True, along=(_PREFLIGHT_FAILS,)),
    Scenario(
        name="guardian cannot take over",
        form="left-alone",
        untouched=True,
        along=(_STOPPED_EARLY, _task(GUARDIAN, "Take the incident over")),
    ),
    Scenario(
        name="guardian cannot record",
        form="left-alone",
        untouched=True,
        along=(_STOPPED_EARLY, _task(GUARDIAN, "Record the failure")),
    ),
    Scenario(
        name="guardian cannot release",
        form="left-alone",
        untouched=True,
        along=(_STOPPED_EARLY, _task(GUARDIAN, "Release after the failure")),
    ),
    Scenario(
        name="Lambda throttles the guardian", form="left-alone", untouched=True, along=(_STOPPED_EARLY, _RELEASE_BUSY)
    ),
    Scenario(name="dry run", form="dry-run"),
    Scenario(name="by hand", form="by-hand"),
    Scenario(
        name="by hand, backup never available",
        form="by-hand",
        along=(_task(HARD_RESET, "Look at the backup", kind="stuck"),),
    ),
)

NOT_REACHED: dict[str, str] = {
    "hard reset: Refuse the input": "ends before anything is looked at: tests/statemachines/test_bad_input.py",
    "hard reset: Refuse without confirmation": "as early, for that reason too: tests/statemachines/test_refusals.py",
    "guardian: Somebody resumed it": "ends having changed nothing: tests/statemachines/test_guardian.py",
}
"""States that no scenario enters → why they need not be struck. Exactly these: the suite fails over any other."""

# In the second round of preparation every state has been entered before: the first entries pass (two tables).
_AGAIN: tuple[tuple[str, str, int], ...] = (
    *(("abort", state, 1) for state in ("Prepare every table", "Freeze what is new", "Was everything still frozen?")),
    *((kind, "Freeze what is new", 1) for kind in ("task-lost", "task-error")),
    *((kind, state, 2) for kind in ("abort", "task-lost") for state in ("Restore the table", "Back up the table")),
)

# What a recovery depends on may vanish at any moment; these are where it is looked at, or begins to be used.
_VANISHING: tuple[tuple[str, str, str], ...] = (
    *(("table-vanishes", ORCHESTRATOR, state) for state in ("Look at the restored table", "Reset the table")),
    *(
        ("table-vanishes", HARD_RESET, state)
        for state in ("Preflight", "Purge every segment", "Copy every segment", "Copy the segment")
    ),
    *(
        ("table-vanishes", HARD_RESET, state)
        for state in ("Apply the differences to every segment", "Apply the differences to the segment")
    ),
    *(("table-vanishes", HARD_RESET, state) for state in ("Digest every segment of both sides", "Verify", "Unlock")),
    *(("table-vanishes", ORCHESTRATOR, state) for state in ("Release the functions", "Delete the temporary table")),
    *(("backup-vanishes", ORCHESTRATOR, state) for state in ("Look at the backup", "Reset the table")),
    *(("backup-vanishes", HARD_RESET, state) for state in ("Preflight", "Copy every segment")),
    ("backup-vanishes", HARD_RESET, "Apply the differences to every segment"),
    ("stuck", ORCHESTRATOR, "Look at the restored table"),
    ("stuck", ORCHESTRATOR, "Look at the backup"),
)
_STATE_WORDS = {
    "abort": "execution stopped",
    "abort-own": "hard reset stopped",
    "task-throttled": "task throttled",
    "task-error": "task fails for ever",
    "task-lost": "task's answer lost",
    "table-vanishes": "restored tables vanish",
    "backup-vanishes": "backups vanish",
    "stuck": "stays CREATING for ever",
}


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one run of a scenario did: (function, action) of its calls, and (state machine, state) of its states."""

    scenario: Scenario
    calls: frozenset[tuple[str, str]]
    states: frozenset[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """One fault at one place. `rule` is what strikes; `fault` and `where` name the pair."""

    fault: str
    where: str
    scenario: Scenario
    rule: Rule = field(hash=False)


def kind_of(machine: str) -> str:
    """The pattern of the machines that share a definition with this one."""
    return machine if machine in (ORCHESTRATOR, GUARDIAN) else HARD_RESET


def all_states(definition: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(name, type) of every state of a definition, those inside Maps and Parallels too."""
    for name, state in definition.get("States", {}).items():
        yield name, state["Type"]
        for inner in [*state.get("Branches", ()), *([state["ItemProcessor"]] if "ItemProcessor" in state else ())]:
            yield from all_states(inner)


def generate(seen: Sequence[Seen], definitions: Mapping[str, Mapping[str, Any]]) -> tuple[list[Case], list[str]]:
    """Every case, and the states that no scenario has entered.

    Args:
        seen: what each scenario did, in the order of SCENARIOS.
        definitions: ORCHESTRATOR, HARD_RESET and GUARDIAN → a deployed definition.
    """
    calls: dict[tuple[str, str], Scenario] = {}
    guardians: dict[tuple[str, str], Scenario] = {}
    states: dict[tuple[str, str], Scenario] = {}
    for one in seen:
        mine = guardians if one.scenario.form == "left-alone" else calls
        for call in sorted(one.calls):
            mine.setdefault(call, one.scenario)
        for machine, state in sorted(one.states):
            states.setdefault((kind_of(machine), state), one.scenario)
    types = {
        (machine, name): kind for machine, definition in definitions.items() for name, kind in all_states(definition)
    }
    cases = [
        *_call_cases(calls),
        *_batch_cases(calls),
        *_outage_cases(calls),
        *_guardian_cases(guardians),
        *_outage_cases(guardians),
        *_state_cases(states, types),
        *_second_round_cases(seen),
        *_vanishing_cases(states),
    ]
    return cases, [f"{_short(machine)}: {name}" for machine, name in types if (machine, name) not in states]


def _call_cases(calls: Mapping[tuple[str, str], Scenario]) -> Iterator[Case]:
    for number, ((caller, action), scenario) in enumerate(sorted(calls.items(), key=lambda entry: entry[0])):
        for kind, words, times in (*_ALWAYS, _IN_TURN[number % len(_IN_TURN)]):
            if kind == "throttle" and action.startswith("lambda:"):
                # Freeze and release wait out what Lambda's control plane throttles, for hours: for ever is too long.
                words, times = "throttled 100 times", 100
            yield _call_case(words, caller, action, scenario, {"kind": kind, "times": times})


def _batch_cases(calls: Mapping[tuple[str, str], Scenario]) -> Iterator[Case]:
    for (caller, action), scenario in sorted(calls.items(), key=lambda entry: entry[0]):
        if action in _WORKERS_BATCHES:
            unprocessed: Rule = {"kind": "unprocessed", "times": None}
            yield _call_case("unprocessed for ever", caller, action, scenario, unprocessed)
            yield _call_case("half unprocessed", caller, action, scenario, {"kind": "partial", "times": 8})
            # In the middle: the first batch of a page got through, the second did not.
            kill: Rule = {"kind": "kill-before", "skip": 1}
            yield _call_case("killed at the second call", caller, action, scenario, kill)


def _call_case(words: str, caller: str, action: str, scenario: Scenario, rule: Rule) -> Case:
    where = f"{_called(caller, scenario)} {action}"
    return Case(fault=words, where=where, scenario=scenario, rule={"caller": caller, "action": action, **rule})


def _called(caller: str, scenario: Scenario) -> str:
    """How a function that calls is named; one at work for the guardian is a place of its own."""
    name = caller.removeprefix("local-dr-")
    return f"guardian: {name}" if scenario.form == "left-alone" else name


def _guardian_cases(calls: Mapping[tuple[str, str], Scenario]) -> Iterator[Case]:
    for number, ((caller, action), scenario) in enumerate(sorted(calls.items(), key=lambda entry: entry[0])):
        kinds = _ALWAYS if caller == GUARDIAN else (_GUARDIAN_IN_TURN[number % len(_GUARDIAN_IN_TURN)],)
        if action.startswith("lambda:") and kinds[0][0] == "throttle":
            kinds = _IN_TURN[:1]  # throttled for ever it takes hundreds of invocations until it gives up
        for kind, words, times in kinds:
            yield _call_case(words, caller, action, scenario, {"kind": kind, "times": times})


def _second_round_cases(seen: Iterable[Seen]) -> Iterator[Case]:
    if any(one.scenario is _SECOND_ROUND for one in seen):
        for kind, state, skip in _AGAIN:
            times = None if kind == "task-error" else 1
            rule: Rule = {"kind": kind, "machine": ORCHESTRATOR, "state": state, "skip": skip, "times": times}
            yield Case(
                fault=_STATE_WORDS[kind],
                where=f"orchestrator, second round: {state}",
                scenario=_SECOND_ROUND,
                rule=rule,
            )


def _outage_cases(calls: Mapping[tuple[str, str], Scenario]) -> Iterator[Case]:
    """The ledger is gone from some function's first call to it until the end of the execution."""
    callers: dict[str, Scenario] = {}
    for (caller, action), scenario in calls.items():
        if action.startswith("dynamodb:"):
            callers.setdefault(caller, scenario)
    for caller, scenario in sorted(callers.items(), key=lambda entry: entry[0]):
        rule: Rule = {"kind": "internal-error", "action": "dynamodb:*", "resource": LEDGER, "armed_by": caller}
        yield Case(
            fault="ledger gone for ever",
            where=f"{_called(caller, scenario)} and whatever follows",
            scenario=scenario,
            rule={**rule, "times": None},
        )


def _state_cases(states: Mapping[tuple[str, str], Scenario], types: Mapping[tuple[str, str], str]) -> Iterator[Case]:
    for (machine, state), scenario in states.items():
        kinds: list[tuple[str, int | None]] = [("abort", 1)]
        if machine == HARD_RESET and scenario.form != "by-hand":
            kinds.append(("abort-own", 1))
        if types.get((machine, state)) == "Task":
            kinds += [("task-throttled", 2), ("task-error", None), ("task-lost", 1)]
        elif types.get((machine, state)) in ("Map", "Parallel"):
            kinds.append(("task-error", None))
        for kind, times in kinds:
            leading = [(rule["kind"], rule["machine"], rule["state"]) for rule in scenario.along if "state" in rule]
            if (kind, machine, state) in leading:
                continue  # it is what leads there
            yield _state_case(kind, machine, state, scenario, times)


def _vanishing_cases(states: Mapping[tuple[str, str], Scenario]) -> Iterator[Case]:
    for kind, machine, state in _VANISHING:
        scenario = states.get((machine, state))
        if scenario is not None:
            yield _state_case(kind, machine, state, scenario, None if kind == "stuck" else 1)


def _state_case(kind: str, machine: str, state: str, scenario: Scenario, times: int | None) -> Case:
    rule: Rule = {"kind": kind, "machine": machine, "state": state, "times": times}
    return Case(fault=_STATE_WORDS[kind], where=f"{_short(machine)}: {state}", scenario=scenario, rule=rule)


def _short(machine: str) -> str:
    return {ORCHESTRATOR: "orchestrator", GUARDIAN: "guardian"}.get(machine, "hard reset")


def spread(cases: Iterable[Case], count: int) -> list[Case]:
    """`count` of the cases, from every kind of fault, spread evenly over its places."""
    by_fault: dict[str, list[Case]] = {}
    for case in cases:
        by_fault.setdefault(case.fault, []).append(case)
    chosen: list[Case] = []
    turn = 0
    while len(chosen) < count and by_fault:
        for fault in list(by_fault):
            places = by_fault[fault]
            chosen.append(places.pop((7 * turn + len(chosen)) % len(places)))
            if not places:
                del by_fault[fault]
            if len(chosen) == count:
                break
        turn += 1
    return chosen
