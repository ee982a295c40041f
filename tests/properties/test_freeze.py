"""Freeze then release changes nothing, wherever they were interrupted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from handlers.core.clock import Deadline
from handlers.core.freeze import Freezer, Progress, Selection
from handlers.core.ledger import Ledger
from tests.functional.fake_lambda import FakeFunction, FakeLambda, FakeMapping, FakeTagging

from .fake_dynamodb import FakeDynamoDB, FakeTable, StoppedError
from .profile import few

SELECTION = Selection(name_prefix="app-", tag=("system", "a"), exclude={"app-x"}, event_source_mappings=True)
NAMES = ["app-a", "app-b", "app-c", "app-x", "tagged", "other"]

functions = st.fixed_dictionaries(
    {},
    optional={
        name: st.builds(
            FakeFunction,
            reserved=st.one_of(st.none(), st.integers(min_value=0, max_value=3)),
            tags=st.just({"system": "a"} if name == "tagged" else {}),
        )
        for name in NAMES
    },
)
mappings = st.dictionaries(
    st.sampled_from(["m1", "m2", "m3", "m4"]),
    st.builds(FakeMapping, function=st.sampled_from(NAMES), enabled=st.booleans()),
)
# After how many calls each invocation dies; those past the end of the list live.
deaths = st.lists(st.integers(min_value=1, max_value=35), max_size=4)


class World:
    """The functions, a ledger, and invocations that die after a number of calls."""

    def __init__(self, functions: dict[str, FakeFunction], mappings: dict[str, FakeMapping]) -> None:
        self.functions = FakeLambda(functions, mappings)
        self.dynamodb = FakeDynamoDB({"ledger": FakeTable(("pk", "sk"))})
        self.left = 0
        self.functions.before = self.dynamodb.before = self.dynamodb.after = self._count

    def _count(self, _: str) -> None:
        self.left -= 1
        if self.left == 0:
            raise StoppedError

    def freezer(self, execution: str, incident: str = "i") -> Freezer:
        """The code under test, over the stand-ins. From now on its execution holds the environment."""
        self.dynamodb.tables["ledger"].put(
            {"pk": {"S": "LOCK"}, "sk": {"S": "ENVIRONMENT"}, "owner": {"S": execution}, "incidentId": {"S": incident}}
        )
        client: Any = self.functions
        tagging: Any = FakeTagging(self.functions.functions)
        ledger: Any = self.dynamodb
        return Freezer(
            functions=client,
            tagging=tagging,
            ledger=Ledger(ledger, "ledger"),
            clock=lambda: datetime(2026, 11, 20, tzinfo=UTC),
            incident_id=incident,
            execution_arn=execution,
        )

    def until_complete(self, step: Callable[[], Progress], dies_after: list[int]) -> None:
        """Invoke until complete; each death is followed by another invocation."""
        for calls in [*dies_after, *[0] * 200]:
            self.left = calls
            with suppress(StoppedError):
                if step().complete:
                    break
        else:
            raise AssertionError("never complete")
        self.left = 0

    def selected(self) -> set[str]:
        """What belongs to the system, decided without the code under test."""
        names = self.functions.functions
        return {name for name in names if (name.startswith("app-") and name != "app-x") or name == "tagged"}


def enough() -> Deadline:
    """Time for everything."""
    return Deadline(lambda: 900.0)


def until_changes(world: World, count: int) -> Deadline:
    """A deadline that is reached once ``count`` settings were changed: changes are what takes the time."""
    end = world.functions.changes() + count
    return Deadline(lambda: 900.0 if world.functions.changes() < end else 0.0)


def rounds(world: World, executions: list[str], freezing: list[int], releasing: list[int], changes: int) -> None:
    """Freeze and release for each execution in turn, and see that each freezes all of the system and nothing else."""
    before = world.functions.settings()
    selected = world.selected()
    for execution in executions:
        freezer = world.freezer(execution)
        world.until_complete(partial(_freeze, world, freezer, changes), freezing)
        reserved, enabled = world.functions.settings()
        assert {name for name, value in reserved.items() if value == 0} >= selected
        functions_of = world.functions.mappings
        assert not [uuid for uuid, on in enabled.items() if on and functions_of[uuid].function in selected]
        others = set(reserved) - selected
        assert {name: reserved[name] for name in others} == {name: before[0][name] for name in others}
        world.until_complete(partial(_release, world, freezer, changes), releasing)
        assert world.functions.settings() == before


def _freeze(world: World, freezer: Freezer, changes: int) -> Progress:
    return freezer.freeze(SELECTION, until_changes(world, changes))


def _release(world: World, freezer: Freezer, changes: int) -> Progress:
    return freezer.release(until_changes(world, changes))


a_while = st.integers(min_value=1, max_value=8)


@few
@given(functions=functions, mappings=mappings, freezing=deaths, releasing=deaths, changes=a_while)
def test_freeze_then_release_is_the_identity(
    functions: dict[str, FakeFunction],
    mappings: dict[str, FakeMapping],
    freezing: list[int],
    releasing: list[int],
    changes: int,
) -> None:
    """A setting is lost or replaced by the frozen one when an invocation dies between saving and changing it."""
    rounds(World(functions, mappings), ["e1", "e2"], freezing, releasing, changes)


@few
@given(functions=functions, mappings=mappings, freezing=deaths, releasing=deaths, changes=a_while)
def test_an_execution_may_freeze_again(
    functions: dict[str, FakeFunction],
    mappings: dict[str, FakeMapping],
    freezing: list[int],
    releasing: list[int],
    changes: int,
) -> None:
    """A redriven execution takes a function for frozen that it has released: the recovery runs below a live system."""
    rounds(World(functions, mappings), ["e1", "e1"], freezing, releasing, changes)


@few
@given(
    functions=functions,
    mappings=mappings,
    stops=st.lists(st.integers(min_value=1, max_value=40), min_size=1, max_size=4),
    incidents=st.lists(st.sampled_from(["i", "j"]), min_size=4, max_size=4),
)
def test_any_number_of_unfinished_freezes_is_undone(
    functions: dict[str, FakeFunction], mappings: dict[str, FakeMapping], stops: list[int], incidents: list[str]
) -> None:
    """A freeze that never finished, of one incident or of several, is taken for the original state."""
    world = World(functions, mappings)
    before = world.functions.settings()
    for number, (calls, incident) in enumerate(zip(stops, incidents, strict=False)):
        world.left = calls
        with suppress(StoppedError):
            world.freezer(f"e{number}", incident).freeze(SELECTION, enough())
    last = world.freezer("last", "j")
    world.until_complete(lambda: last.release(enough()), [])
    assert world.functions.settings() == before


@few
@given(
    functions=functions,
    mappings=mappings,
    freezing=deaths,
    again=deaths,
    releasing=deaths,
    by_hand=st.dictionaries(st.sampled_from(NAMES), st.one_of(st.none(), st.integers(min_value=1, max_value=9))),
    freezes=st.integers(min_value=1, max_value=2),
)
def test_settings_made_by_hand_during_the_freeze_survive(
    functions: dict[str, FakeFunction],
    mappings: dict[str, FakeMapping],
    freezing: list[int],
    again: list[int],
    releasing: list[int],
    by_hand: dict[str, int | None],
    freezes: int,
) -> None:
    """The release overwrites what an operator or a deployment has set since, wherever it or a freeze died."""
    world = World(functions, mappings)
    reserved, enabled = world.functions.settings()
    freezer = world.freezer("e1")
    world.until_complete(lambda: freezer.freeze(SELECTION, enough()), freezing)
    by_hand = {name: value for name, value in by_hand.items() if name in reserved}
    for name, value in by_hand.items():
        world.functions.functions[name].reserved = value
    if freezes == 2:
        freezer = world.freezer("e2")
        world.until_complete(lambda: freezer.freeze(SELECTION, enough()), again)
        now = world.functions.settings()[0]
        assert {name for name, value in now.items() if value == 0} >= world.selected()
    world.until_complete(lambda: freezer.release(enough()), releasing)
    assert world.functions.settings() == ({**reserved, **by_hand}, enabled)


@few
@given(functions=functions, mappings=mappings, deleted=st.sets(st.sampled_from(NAMES)), at=st.integers(1, 40))
def test_functions_that_disappear_do_not_matter(
    functions: dict[str, FakeFunction], mappings: dict[str, FakeMapping], deleted: set[str], at: int
) -> None:
    """A function or mapping that is deleted in the middle keeps the others frozen."""
    world = World(functions, mappings)
    calls = 0

    def disappear(_: str) -> None:
        nonlocal calls
        calls += 1
        if calls == at:
            for name in deleted:
                world.functions.functions.pop(name, None)
            for uuid in [uuid for uuid, mapping in mappings.items() if mapping.function in deleted]:
                world.functions.mappings.pop(uuid, None)

    reserved, enabled = world.functions.settings()
    world.functions.before = disappear
    freezer = world.freezer("e")
    world.until_complete(lambda: freezer.freeze(SELECTION, enough()), [])
    world.until_complete(lambda: freezer.release(enough()), [])
    after = world.functions.settings()
    assert after == (
        {name: reserved[name] for name in after[0]},
        {uuid: enabled[uuid] for uuid in after[1]},
    )
