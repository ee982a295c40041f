"""Reading Amazon States Language: the graphs of a definition, its expressions, and who leads where."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

State = Mapping[str, Any]


@dataclass(frozen=True)
class Graph:
    """One graph of states: a machine, a Map's processor or a Parallel's branch.

    Args:
        path: where it is, e.g. ``/Purge every segment``.
        start: the first state's name.
        states: by name.
        isolated: whether outer variables are out of reach (a Distributed Map's children are executions).
    """

    path: str
    start: str
    states: Mapping[str, State]
    isolated: bool

    def targets(self, name: str) -> list[str]:
        """Where a state can lead: next, choices, default, catches."""
        state = self.states[name]
        found = [state[field] for field in ("Next", "Default") if field in state]
        found += [rule["Next"] for rule in state.get("Choices", [])]
        found += [catcher["Next"] for catcher in state.get("Catch", [])]
        return found

    def reachable(self, *, without: Sequence[str] = (), cut: Sequence[tuple[str, str]] = ()) -> set[str]:
        """The states that can be reached from the start, passing none of ``without`` and no edge of ``cut``."""
        seen: set[str] = set()
        todo = [self.start]
        while todo:
            name = todo.pop()
            if name in seen or name in without:
                continue
            seen.add(name)
            todo += [target for target in self.targets(name) if (name, target) not in cut]
        return seen


def graphs(definition: Mapping[str, Any], path: str = "", *, isolated: bool = True) -> Iterator[Graph]:
    """All graphs of a definition, the outermost first."""
    yield Graph(path or "/", definition["StartAt"], definition["States"], isolated)
    for name, state in definition["States"].items():
        if state["Type"] == "Map":
            processor = state["ItemProcessor"]
            distributed = processor["ProcessorConfig"]["Mode"] == "DISTRIBUTED"
            yield from graphs(processor, f"{path}/{name}", isolated=distributed)
        for index, branch in enumerate(state.get("Branches", [])):
            yield from graphs(branch, f"{path}/{name}[{index}]", isolated=False)


def expressions(value: Any) -> Iterator[str]:
    """Every JSONata expression in a value, without its delimiters; not those of nested states."""
    if isinstance(value, str):
        match = re.fullmatch(r"\{%\s*(.*?)\s*%\}", value, re.DOTALL)
        if match:
            yield match[1]
    elif isinstance(value, Mapping):
        for key, entry in value.items():
            if key not in ("ItemProcessor", "Branches"):
                yield from expressions(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from expressions(entry)


def variables(expression: str) -> set[str]:
    """Names that an expression reads as variables: ``$plan`` but not ``$count(…)``, ``$states`` or its own."""
    text = re.sub(r"'[^']*'", "''", expression)
    own = set(re.findall(r"\$(\w+)\s*:=", text))
    return set(re.findall(r"\$([A-Za-z]\w*)\b(?!\s*\()", text)) - {"states"} - own


def assigned(state: State) -> set[str]:
    """Variables that a state assigns, also when it catches."""
    return set(state.get("Assign", {})) | {
        name for catcher in state.get("Catch", []) for name in catcher.get("Assign", {})
    }
