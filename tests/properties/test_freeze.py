"""Freeze then release changes nothing, wherever they were interrupted."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.core.clock import Deadline
from handlers.core.errors import FreezeIncomplete
from handlers.core.freeze import Freezer, Progress, Selection
from handlers.core.ledger import Ledger
from tests.functional.fake_lambda import FakeFunction, FakeLambda, FakeMapping, FakeTagging

from .fake_dynamodb import FakeDynamoDB, FakeTable, StoppedError
from .profile import few, many

SELECTION = Selection(name_prefix="app-", tag=("system", "a"), exclude={"app-x"}, event_source_mappings=True)
NAMES = ["app-a", "app-b", "app-c", "app-x", "tagged", "other"]

STREAM = "arn:aws:dynamodb:us-east-1:123456789012:table/t/stream/1"
POLLERS = 90  # seconds until pollers have taken up a changed setting


@st.composite
def any_function(draw: st.DrawFn, name: str) -> FakeFunction:
    """A function whose provisioned concurrency, if it has some, fits into what is reserved for it."""
    reserved = draw(st.one_of(st.none(), st.integers(min_value=0, max_value=3)))
    provisioned = draw(st.dictionaries(st.sampled_from(["live", "7"]), st.integers(1, 2), max_size=2))
    if reserved is not None and sum(provisioned.values()) > reserved:
        provisioned = {}
    return FakeFunction(
        reserved=reserved,
        tags={"system": "a"} if name == "tagged" else {},
        provisioned=provisioned,
        lingering=draw(st.integers(0, 1)) if provisioned else 0,
    )


functions = st.fixed_dictionaries({}, optional={name: any_function(name) for name in NAMES})
mappings = st.dictionaries(
    st.sampled_from(["m1", "m2", "m3", "m4"]),
    st.builds(
        FakeMapping,
        function=st.sampled_from(NAMES),
        enabled=st.booleans(),
        source=st.sampled_from([STREAM, "arn:aws:sqs:us-east-1:123456789012:q"]),
        age=st.sampled_from([-1, 60, 3600]),
    ),
)
# After how many calls each invocation dies; those past the end of the list live.
deaths = st.lists(st.integers(min_value=1, max_value=35), max_size=4)
# A discard takes few calls.
early_deaths = st.lists(st.integers(min_value=1, max_value=9), min_size=1, max_size=4)


class World:
    """The functions, a ledger, and invocations that die after a number of calls.

    ``now``: seconds that the caller has paused; ``aged_at``: when a mapping's record age was last another.
    """

    def __init__(self, functions: dict[str, FakeFunction], mappings: dict[str, FakeMapping]) -> None:
        self.functions = FakeLambda(functions, mappings)
        self.dynamodb = FakeDynamoDB({"ledger": FakeTable(("pk", "sk"))})
        self.left = 0
        self.now = 0
        self.polls = 0
        self.aged_at: dict[str, int] = {}
        self.functions.before = self.dynamodb.before = self.dynamodb.after = self._count

    def _count(self, _: str) -> None:
        self.left -= 1
        if self.left == 0:
            raise StoppedError

    def freezer(self, name: str, incident: str = "i") -> Freezer:
        """The code under test, over the stand-ins. From now on its execution holds the environment."""
        execution = f"arn:aws:states:us-east-1:123456789012:execution:orchestrator:{name}"
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
            clock=lambda: datetime(2026, 11, 20, tzinfo=UTC) + timedelta(seconds=self.now),
            incident_id=incident,
            execution_arn=execution,
        )

    def until_complete(
        self, step: Callable[[], Progress], dies_after: list[int], check: Callable[[], None] = lambda: None
    ) -> None:
        """Invoke until complete, and check after each; a death is followed by another invocation at once."""
        self.polls = 0
        for calls in [*dies_after, *[0] * 200]:
            self.left = calls
            ages = self.functions.ages()
            progress = None
            # The state machine tries a freeze again that waits for provisioned concurrency.
            with suppress(StoppedError, FreezeIncomplete):
                progress = step()
            self.aged_at |= {uuid: self.now for uuid, age in self.functions.ages().items() if ages[uuid] != age}
            check()
            if progress is not None and progress.complete:
                break
            if progress is not None:  # as the handler counts
                self.now += progress.wait_seconds
                self.polls = self.polls + 1 if progress.polled else self.polls if progress.wait_seconds else 0
        else:
            raise AssertionError("never complete")
        self.left = 0

    def state(self) -> tuple[Any, ...]:
        """All settings."""
        return *self.functions.settings(), self.functions.provisioned(), self.functions.ages()

    def too_early(self, before: tuple[Any, ...]) -> set[str]:
        """Functions that take part below pollers which may still have the short record age of a discard."""
        ages = before[3]
        mappings = self.functions.mappings
        short = {
            mappings[uuid].function
            for uuid, aged_at in self.aged_at.items()
            if mappings[uuid].age != ages[uuid] or self.now < aged_at + POLLERS
        }
        return {name for name in short & self.selected() if self.functions.functions[name].reserved != 0}

    def throttled(self, before: tuple[Any, ...]) -> set[str]:
        """Mappings, but for those that a discard takes, that feed a function which the freeze holds at 0."""
        functions = self.functions.functions
        return {
            uuid
            for uuid, mapping in self.functions.mappings.items()
            if mapping.enabled and mapping.source != STREAM and mapping.function in functions
            if functions[mapping.function].reserved != before[0][mapping.function]
        }

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


def rounds(
    world: World,
    executions: list[str],
    freezing: list[int],
    releasing: list[int],
    changes: int,
    discarding: list[int] | None = None,
) -> None:
    """Freeze and release for each execution in turn, and see that each freezes all of the system and nothing else.

    With ``discarding`` the consumers of the stream skip its records before the release.
    """
    before = world.state()
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
        assert not selected & set(world.functions.provisioned())
        assert freezer.freeze(SELECTION, enough(), number=2).changed == ()
        if discarding is not None:
            world.until_complete(lambda freezer=freezer: freezer.discard(["t"], enough()), discarding)  # type: ignore[misc]
        world.until_complete(partial(_release, world, freezer, changes), releasing, partial(_see, world, before))
        assert world.state() == before


def _freeze(world: World, freezer: Freezer, changes: int) -> Progress:
    return freezer.freeze(SELECTION, until_changes(world, changes))


def _release(world: World, freezer: Freezer, changes: int) -> Progress:
    return freezer.release(until_changes(world, changes), polls=world.polls)


def _see(world: World, before: tuple[Any, ...]) -> None:
    """What must hold after every invocation of a release."""
    assert not world.too_early(before)
    assert not world.throttled(before)


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


@many
@given(
    functions=functions, mappings=mappings, freezing=deaths, discarding=early_deaths, releasing=deaths, changes=a_while
)
def test_a_discard_between_them_changes_nothing_either(
    functions: dict[str, FakeFunction],
    mappings: dict[str, FakeMapping],
    freezing: list[int],
    discarding: list[int],
    releasing: list[int],
    changes: int,
) -> None:
    """The short record age of a discard is saved, by it or by the next freeze, as the consumer's own."""
    rounds(World(functions, mappings), ["e1", "e2"], freezing, releasing, changes, discarding)


@pytest.mark.parametrize("changes", [1, 8])
@pytest.mark.parametrize("dies_after", range(1, 41))
def test_a_release_that_dies_at_any_call_neither_hurries_nor_throttles(dies_after: int, changes: int) -> None:
    """The retry of an invocation that died skips the pause; or a queue is polled for a function that waits at 0."""
    queue = "arn:aws:sqs:us-east-1:123456789012:q"
    world = World(
        {"app-a": FakeFunction(reserved=2), "app-b": FakeFunction(), "app-c": FakeFunction(reserved=3)},
        {
            "m1": FakeMapping("app-a", source=STREAM, age=3600),
            "m2": FakeMapping("app-a", source=queue),
            "m3": FakeMapping("app-b", source=STREAM),
            "m4": FakeMapping("app-c", source=queue),
        },
    )
    rounds(world, ["e1", "e2"], [], [dies_after], changes, [])
    assert world.now >= 2 * POLLERS, "each round has its pause"


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
    before = world.state()
    for number, (calls, incident) in enumerate(zip(stops, incidents, strict=False)):
        world.left = calls
        with suppress(StoppedError, FreezeIncomplete):
            world.freezer(f"e{number}", incident).freeze(SELECTION, enough())
    last = world.freezer("last", "j")
    world.until_complete(lambda: last.release(enough(), polls=world.polls), [])
    assert world.state() == before


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
    world.until_complete(lambda: freezer.release(enough(), polls=world.polls), releasing)
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
    world.until_complete(lambda: freezer.release(enough(), polls=world.polls), [])
    after = world.functions.settings()
    assert after == (
        {name: reserved[name] for name in after[0]},
        {uuid: enabled[uuid] for uuid in after[1]},
    )
