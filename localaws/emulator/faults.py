"""Faults on purpose: which call or state is struck, by what, and how often.

A rule is a JSON object, put with PUT /_localaws/faults (a list of them replaces all). GET answers what there is, how
often each has struck, and what the recovery was seen to do since the last DELETE, which forgets rules and sightings.

Rules for HTTP calls (`faults_http`) match the caller: the name of the Lambda function whose role session calls. Calls
of the account's root, and so everything a test or an operator does, are never struck. Rules for states
(`faults_states`) match the state machine's and the state's name.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from typing import Any

HTTP_KINDS = {
    "throttle": "the service's own throttling error, the call not carried out",
    "internal-error": "the service's own error 500, the call not carried out",
    "expired-token": "ExpiredToken, the call not carried out",
    "connection-reset": "the connection is closed, the call not carried out",
    "timeout": "the call is carried out, then the connection is closed without an answer",
    "unprocessed": "a batch is answered, and all of it unprocessed",
    "partial": "half of a batch is carried out, the rest unprocessed",
    "kill-before": "the worker's process is killed, the call not carried out",
    "kill-after": "the worker's process is killed once the call is carried out",
}
STATE_KINDS = {
    "abort": "StopExecution of the whole recovery as the state is entered",
    "abort-own": "StopExecution of the hard reset alone as the state is entered",
    "task-throttled": "the task's service is throttled, the call not carried out",
    "task-error": "the task's service fails, the call not carried out; a Map or Parallel fails as a whole",
    "task-lost": "the task is carried out, then times out without an answer",
    "stuck": "what the task describes stays CREATING",
    "table-vanishes": "the restored tables are gone as the state is entered",
    "backup-vanishes": "the backups are gone as the state is entered",
    "thaw": "somebody sets a function's reserved concurrency (the rule's `request`) as the state is entered",
    "write": "somebody puts an item into a table (the rule's `request`) as the state is entered",
}
_CALLS_OF_OTHERS = ("thaw", "write")


class RuleError(ValueError):
    """A rule that would never strike, or that this server does not understand."""


@dataclass
class Rule:
    """One fault.

    Attributes:
        kind: one of HTTP_KINDS or STATE_KINDS.
        caller: of HTTP calls: the function's name, `*` and `?` as in a shell.
        action: of HTTP calls: as IAM names it, e.g. "dynamodb:BatchWriteItem"; may hold `*`.
        resource: of HTTP calls: the ARN that IAM is asked about; may hold `*`.
        armed_by: the rule sleeps until a function of this name makes a call that matches otherwise; "" is awake.
        machine: of states: the state machine's name; may hold `*`.
        state: of states: the state's name, exactly.
        skip: how many matching calls pass before the first strike.
        times: how often it strikes; None is for ever.
        struck: how often it has struck.
        request: of `thaw` and `write`: the arguments of PutFunctionConcurrency or PutItem.
    """

    kind: str
    caller: str = "*"
    action: str = "*"
    resource: str = "*"
    armed_by: str = ""
    machine: str = "*"
    state: str = ""
    skip: int = 0
    times: int | None = 1
    struck: int = 0
    request: dict[str, Any] | None = None

    @classmethod
    def parse(cls, values: Any) -> Rule:
        """Read a rule.

        Raises:
            RuleError: it has an unknown field or kind, or names no state where its kind needs one.
        """
        if not isinstance(values, dict):
            raise RuleError(f"A rule is an object, found {type(values).__name__}.")
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise RuleError(f"A rule has no field {', '.join(sorted(unknown))}.")
        rule = cls(**{**values, "struck": 0})
        if rule.kind not in HTTP_KINDS and rule.kind not in STATE_KINDS:
            raise RuleError(f"Unknown kind {rule.kind!r}; expected one of {', '.join([*HTTP_KINDS, *STATE_KINDS])}.")
        if rule.kind in STATE_KINDS and not rule.state:
            raise RuleError(f"A rule of the kind {rule.kind} names the state that it strikes.")
        if (rule.kind in _CALLS_OF_OTHERS) != (rule.request is not None):
            raise RuleError(f"Only rules of the kinds {', '.join(_CALLS_OF_OTHERS)} have a request, and they all do.")
        return rule

    def strike(self) -> bool:
        """Count one matching call; whether it is struck."""
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None and self.struck >= self.times:
            return False
        self.struck += 1
        return True


class Faults:
    """The rules in force, and what was seen. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._calls: set[tuple[str, str]] = set()
        self._states: set[tuple[str, str]] = set()
        self._invocations = 0

    def replace(self, rules: Iterable[Rule]) -> None:
        """Put these rules in force instead of all others."""
        fresh = list(rules)
        with self._lock:
            self._rules = fresh

    def clear(self) -> None:
        """Forget rules and sightings."""
        with self._lock:
            self._rules = []
            self._calls, self._states = set(), set()

    def document(self) -> dict[str, Any]:
        """Rules, sightings, and how many Lambda invocations are under way."""
        with self._lock:
            return {
                "rules": [asdict(rule) for rule in self._rules],
                "calls": sorted(map(list, self._calls)),
                "states": sorted(map(list, self._states)),
                "invocations": self._invocations,
            }

    @property
    def invocations(self) -> int:
        """How many Lambda invocations are under way."""
        return self._invocations

    def called(self, caller: str, action: str, resource: str) -> str | None:
        """Note an allowed HTTP call; the kind of fault that strikes it, or None."""
        with self._lock:
            self._calls.add((caller, action))
            for rule in self._rules:
                if rule.kind not in HTTP_KINDS or not fnmatchcase(caller, rule.caller):
                    continue
                if not (fnmatchcase(action, rule.action) and fnmatchcase(resource, rule.resource)):
                    continue
                if rule.armed_by:
                    if not fnmatchcase(caller, rule.armed_by):
                        continue
                    rule.armed_by = ""
                if rule.strike():
                    return rule.kind
        return None

    def entered(self, machine: str, state: str) -> list[Rule]:
        """Note that a state was entered; the rules that strike at its entry."""
        with self._lock:
            self._states.add((machine, state))
        return self._at(machine, state, ("abort", "abort-own", "table-vanishes", "backup-vanishes", *_CALLS_OF_OTHERS))

    def worked(self, machine: str, state: str) -> list[str]:
        """The kinds of fault that strike this try of a state's work."""
        return [rule.kind for rule in self._at(machine, state, ("task-throttled", "task-error", "task-lost", "stuck"))]

    def _at(self, machine: str, state: str, kinds: tuple[str, ...]) -> list[Rule]:
        with self._lock:
            return [
                rule
                for rule in self._rules
                if rule.kind in kinds and rule.state == state and fnmatchcase(machine, rule.machine) and rule.strike()
            ]

    def invocation(self, change: int) -> None:
        """Note that a Lambda invocation began (1) or ended (-1)."""
        with self._lock:
            self._invocations += change


FAULTS = Faults()
"""Those of this server."""
