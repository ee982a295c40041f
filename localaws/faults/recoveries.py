"""One case: damage the tables, recover them under a fault, start once more if that failed, and look at everything."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from localaws.faults.cases import Case, Rule, Scenario, Seen
from localaws.faults.stack import BY_HAND, FUNCTIONS, NOT_OVER, RECOVERED, Items, Stack

# A temporary table that cannot be deleted is left to the operator by decision: it costs storage, not safety.
# Of a release that failed for good the operator is told, with the advice to start the incident again.
_ADVISES_A_START = "Add that the release failed"
_LEAVES_TABLES = ("Left for the operator", "Delete the temporary tables")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a case; `changedSettings` and the like are counts. `remark` says why one did not survive."""

    fault: str
    where: str
    injected: int
    starts: int
    first_status: str
    first_error: str
    survived: bool
    lost: int
    left_over: int
    changed_settings: int
    left_tables: int
    seconds: float
    remark: str

    def document(self) -> dict[str, Any]:
        """As the report has it."""
        return {
            "fault": self.fault,
            "where": self.where,
            "injected": self.injected,
            "starts": self.starts,
            "firstStatus": self.first_status,
            "firstError": self.first_error,
            "survived": self.survived,
            "lost": self.lost,
            "leftOver": self.left_over,
            "changedSettings": self.changed_settings,
            "leftTemporaryTables": self.left_tables,
            "seconds": round(self.seconds, 2),
            "remark": self.remark,
        }


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """A request that can be started again, and what the tables are to hold when it has succeeded."""

    machine: str
    request: Mapping[str, Any]
    expected: Mapping[str, Items]
    damaged: Mapping[str, Items]


@dataclass(frozen=True, kw_only=True)
class _Course:
    """How the first start went: its end, and what was seen.

    ``struck``: how often each of the scenario's faults struck, and after them the case's.
    """

    first: dict[str, Any]
    struck: tuple[int, ...]
    calls: frozenset[tuple[str, str]]
    states: frozenset[tuple[str, str]]


class Recoveries:
    """Recoveries on one stack, one after the other. `prefix` keeps the incidents of several stacks apart."""

    def __init__(self, stack: Stack, prefix: str) -> None:
        self.stack = stack
        self._prefix = prefix
        self._count = 0

    def look(self, scenario: Scenario) -> Seen:
        """Run a scenario without any other fault, to its good end, and note what its first execution does.

        Raises:
            AssertionError: it did not end as it should.
        """
        attempt = self._prepare(scenario)
        course = self._go(attempt, scenario)
        ended = course.first if _succeeded(course.first) else self._run(attempt)
        over = _succeeded(ended) or (scenario.form == "left-alone" and self._was_over(ended, attempt))
        if not over or not all(course.struck):
            raise AssertionError(
                f"The scenario '{scenario.name}' ended {ended['status']}: {ended.get('cause')} "
                f"{scenario.along} struck {course.struck}"
            )
        self._tidy()
        return Seen(scenario=scenario, calls=course.calls, states=course.states)

    def _go(self, attempt: _Attempt, scenario: Scenario, rule: Rule | None = None) -> _Course:
        """Run the scenario under its own faults and the case's, if there is one; clear them.

        Of one that is left alone the guardian's execution is what the case's fault strikes and what is looked at.
        """
        aws, rules = self.stack.aws, [*scenario.along, *([rule] if rule else [])]
        struck = [0] * len(rules)
        if scenario.form == "left-alone":
            aws.inject(*scenario.along)
            first = self._run(attempt)
            for index, one in enumerate(aws.clear_faults()):
                struck[index] += int(one["struck"])
        # The case's rule comes first: of several that match a call only one strikes.
        aws.inject(*([rule] if rule else []), *scenario.along)
        if scenario.form == "left-alone":
            self.stack.guard(first["executionArn"])
        else:
            first = self._run(attempt)
        sightings = aws.faults()
        found = aws.clear_faults()
        for index, one in enumerate([*found[1:], found[0]] if rule else found):
            struck[index] += int(one["struck"])
        return _Course(
            first=first,
            struck=tuple(struck),
            calls=frozenset((caller, action) for caller, action in sightings["calls"]),
            states=frozenset((machine, state) for machine, state in sightings["states"]),
        )

    def try_case(self, case: Case) -> Outcome:
        """Recover under the fault, and look at the tables, the settings, and what was left behind."""
        began = time.monotonic()
        attempt = self._prepare(case.scenario)
        course = self._go(attempt, case.scenario, case.rule)
        first, injected = course.first, course.struck[-1]
        alone = case.scenario.form == "left-alone"
        states = {state for _, state in course.states}
        problems = []
        if not injected:
            problems.append("the fault never struck")
        last, starts = first, 1
        if alone and _ADVISES_A_START not in states:
            # The fault is over, and nobody starts anything but the schedule.
            if self.stack.current_settings() != self.stack.settings or self._locks_left(case.scenario):
                problems += self._guard(None)
                starts = 2
            states |= {state for _, state in self.stack.aws.faults()["states"]}
        elif not _succeeded(first):
            # On AWS the guardian may be quicker than the operator, or not; so half of the cases each.
            if not alone and zlib.crc32(f"{case.fault} {case.where}".encode()) % 2:
                problems += self._guard(first["executionArn"])
            if case.scenario.form != "by-hand":
                problems += self._half_restored_and_served(attempt)
        if not _succeeded(first) and (not alone or _ADVISES_A_START in states):
            last, starts = self._run(attempt), 2
            states |= {state for _, state in self.stack.aws.faults()["states"]}
            if not _succeeded(last) and not self._was_over(last, attempt):
                problems.append(f"the last start ended {last['status']}: {last.get('error')}: {last.get('cause')}")
        self.stack.aws.clear_faults()
        closed_by_guardian = alone and last is first
        expected = attempt.damaged if closed_by_guardian and case.scenario.untouched else attempt.expected
        lost, left_over = self._compare(expected)
        settings = self.stack.current_settings()
        changed = sum(settings.get(name) != value for name, value in self.stack.settings.items())
        changed += len(set(settings) - set(self.stack.settings))
        if lost or left_over or changed:
            problems.append(f"{lost} items lost, {left_over} left over, {changed} settings changed")
        # A start without faults that succeeded has given up every lock, its own and those it took over.
        complete = starts > 1 and _succeeded(last) and case.scenario.form == "recovery"
        locks = self._locks_left(case.scenario) if closed_by_guardian else self.stack.locks(ended_too=complete)
        if locks:
            problems.append(f"locks are still held: {', '.join(locks)}")
        tables = self.stack.temporary_tables()
        kept = _LEAVES_TABLES[0] in states or case.rule.get("state") == _LEAVES_TABLES[1]
        # Until the incident is started again its tables are kept: what is restored need not be restored again.
        kept = kept or (closed_by_guardian and case.scenario.untouched)
        if tables and not kept:
            problems.append(f"temporary tables are left: {', '.join(tables)}")
        self._tidy()
        return Outcome(
            fault=case.fault,
            where=case.where,
            injected=injected,
            starts=starts,
            first_status=first["status"],
            first_error=first.get("error") or "",
            survived=not problems,
            lost=lost,
            left_over=left_over,
            changed_settings=changed,
            left_tables=len(tables),
            seconds=time.monotonic() - began,
            remark="; ".join(problems),
        )

    def _prepare(self, scenario: Scenario) -> _Attempt:
        """Damage the tables, and run what the scenario has happen before."""
        damaged = self.stack.damage()
        if any(damaged[table] == self.stack.good[table] for table in RECOVERED):
            raise AssertionError("There is nothing to recover: the damage has changed nothing.")
        self._count += 1
        incident = f"{self._prefix}-{self._count}"
        if scenario.form == "by-hand":
            attempt = self._by_hand(incident, damaged)
        else:
            dry = scenario.form == "dry-run"
            request = {
                "incidentId": incident,
                "restoreDateTime": self.stack.point,
                "tables": [{"tableName": name, "tableNameRecoveryConfirmation": name} for name in RECOVERED],
                "dryRun": dry,
                **({"streamPolicy": "discard"} if scenario.discard else {}),
                **({"mode": scenario.mode} if scenario.mode else {}),
            }
            if scenario.discard:
                self.stack.add_consumer()
            attempt = _Attempt(
                machine=self.stack.outputs["orchestratorStateMachineArn"],
                request=request,
                expected=damaged if dry else self.stack.good,
                damaged=damaged,
            )
        self.stack.aws.clear_faults()
        if scenario.earlier:
            self.stack.aws.inject(*scenario.earlier)
            ended = self._run(attempt)
            if _succeeded(ended) or not all(rule["struck"] for rule in self.stack.aws.clear_faults()):
                raise AssertionError(f"The scenario '{scenario.name}' has no earlier failure: {ended['status']}.")
        return attempt

    def _by_hand(self, incident: str, damaged: Mapping[str, Items]) -> _Attempt:
        source = self.stack.source_by_hand()
        request = {
            "incidentId": incident,
            "sourceTableArn": self.stack.arn(source),
            "destinationTableArn": self.stack.arn(BY_HAND),
            "tableNameRecoveryConfirmation": BY_HAND,
        }
        return _Attempt(
            machine=self.stack.outputs["hardResetStateMachineArns"][BY_HAND],
            request=request,
            expected={**damaged, BY_HAND: self.stack.good[BY_HAND]},
            damaged=damaged,
        )

    def _run(self, attempt: _Attempt) -> dict[str, Any]:
        return self.stack.finish(self.stack.start(attempt.machine, attempt.request))

    def _locks_left(self, scenario: Scenario) -> list[str]:
        """Locks in the way of the next incident, but for what is no guardian's business.

        An incident that ended before the purge may be resumed, and so is not over. After a success the tables' locks of
        the ended execution stay until the next one takes them over.
        """
        held = self.stack.locks(ended_too=True)
        return [lock for lock in held if not (lock == NOT_OVER if scenario.untouched else lock.startswith("TABLE#"))]

    def _guard(self, ended: str | None) -> list[str]:
        """Run the guardian without a fault; what is wrong with how it ended."""
        guardian = self.stack.guard(ended)
        if _succeeded(guardian):
            return []
        return [f"the guardian ended {guardian['status']}: {guardian.get('error')}: {guardian.get('cause')}"]

    def _half_restored_and_served(self, attempt: _Attempt) -> list[str]:
        """See that no function may run while a table is neither as it was damaged nor as it was good."""
        for table in RECOVERED:
            if self.stack.items(table) not in (attempt.damaged[table], self.stack.good[table]):
                found = self.stack.current_settings()
                if thawed := [name for name in FUNCTIONS if found.get(name) != 0]:
                    return [f"{table} is half restored, and {', '.join(thawed)} may run"]
        return []

    def _was_over(self, ended: Mapping[str, Any], attempt: _Attempt) -> bool:
        """Whether a start was refused only because the one before had recorded its success before it was stopped."""
        if ended.get("error") != "InvalidRequest":
            return False
        records = self.stack.ledger(f"INCIDENT#{attempt.request['incidentId']}")
        if "dryRun" in attempt.request:
            return any(record["sk"]["S"] == "RUN" and record["status"]["S"] == "SUCCEEDED" for record in records)
        return any(record.get("phase", {}).get("S") == "verified" for record in records)

    def _compare(self, expected: Mapping[str, Items]) -> tuple[int, int]:
        """How many items are missing or wrong, and how many are there that should not be."""
        lost = left_over = 0
        for table, wanted in expected.items():
            found = self.stack.items(table)
            lost += sum(found.get(key) != item for key, item in wanted.items())
            left_over += len(set(found) - set(wanted))
        return lost, left_over

    def _tidy(self) -> None:
        """Delete the tables that an operator would: sources made by hand, and what could not be deleted.

        The ledger forgets settings that were put back, and locks that nobody needs, so that every case finds a stack
        that has recovered nothing yet.
        """
        self.stack.remove_consumer()
        dynamodb = self.stack.client("dynamodb")
        put_back = [record for record in self.stack.ledger("FROZEN") if record["state"]["S"] != "frozen"]
        for record in [*put_back, *self.stack.ledger("LOCK")]:
            key = {"pk": record["pk"], "sk": record["sk"]}
            dynamodb.delete_item(TableName=self.stack.outputs["ledgerTableName"], Key=key)
        for name in dynamodb.list_tables()["TableNames"]:
            if name.startswith("dr-"):
                dynamodb.delete_table(TableName=name)


def _succeeded(ended: Mapping[str, Any]) -> bool:
    return bool(ended["status"] == "SUCCEEDED")


def definitions(stack: Stack) -> dict[str, Any]:
    """The deployed definitions: name of the machine's kind → definition."""
    from localaws.faults.cases import GUARDIAN, HARD_RESET, ORCHESTRATOR

    described = stack.client("stepfunctions").describe_state_machine
    arns = {
        ORCHESTRATOR: stack.outputs["orchestratorStateMachineArn"],
        HARD_RESET: stack.outputs["hardResetStateMachineArns"][BY_HAND],
        GUARDIAN: stack.outputs["orchestratorStateMachineArn"].replace("orchestrator", "guardian"),
    }
    return {kind: json.loads(described(stateMachineArn=arn)["definition"]) for kind, arn in arns.items()}
