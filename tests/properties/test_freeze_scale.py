"""A system of 2,000 functions: frozen and released exactly, through throttling, pages and deadlines."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from handlers.core.clock import Deadline
from handlers.core.errors import FreezeIncomplete
from handlers.core.freeze import Progress
from tests.functional.fake_lambda import FakeFunction, FakeLambda, FakeMapping, client_error

from .test_freeze import SELECTION, World, enough

FUNCTIONS = 2_000
# Control-plane calls a second that Lambda allows an account in a region, and the longest invocation less its margin.
CALLS_A_SECOND = 15
SECONDS_AN_INVOCATION = 870
STREAM = "arn:aws:dynamodb:us-east-1:123456789012:table/t/stream/1"


def large_world(seed: int) -> World:
    """Functions with every kind of setting, inside and outside the system, and mappings of some."""
    chance = random.Random(seed)
    functions, mappings = {}, {}
    for number in range(FUNCTIONS + 100):
        name = f"app-{number:04d}" if number < FUNCTIONS else f"other-{number:04d}"
        reserved = chance.choice([None, None, 0, 1, 5, 100])
        function = FakeFunction(reserved=reserved, timeout=chance.choice([3, 30, 900]))
        if reserved in (None, 5, 100) and number % 20 == 0:
            function.provisioned = {"live": chance.randint(1, 3)} | ({"7": 1} if number % 40 == 0 else {})
            function.qualifiers = set(function.provisioned)
            function.lingering = chance.choice([0, 0, 1])
        functions[name] = function
        if number % 7 == 0:
            mappings[f"m-{number}"] = FakeMapping(
                name, enabled=chance.random() < 0.8, source=chance.choice([STREAM, "arn:aws:sqs:us-east-1:1:q"]),
                age=chance.choice([-1, 60, 3600]),
            )  # fmt: skip
    return World(functions, mappings)


def state(functions: FakeLambda) -> tuple[Any, ...]:
    """All settings."""
    return functions.settings(), functions.provisioned(), functions.ages()


class Crowd:
    """Throttles the first call of each kind, and some of all others."""

    def __init__(self, seed: int) -> None:
        self.throttled: Counter[str] = Counter()
        self._chance = random.Random(seed)

    def __call__(self, operation: str) -> None:
        """Let a call pass, or not."""
        if operation not in self.throttled or self._chance.random() < 0.003:
            self.throttled[operation] += 1
            raise client_error("TooManyRequestsException", operation)


def until_complete(world: World, step: Any, *, calls: int) -> tuple[Progress, int]:
    """Invoke until complete, each time for so many calls; returns the last answer and how many invocations it took."""
    for invocation in range(1, 500):
        end = len(world.functions.calls) + calls
        deadline = Deadline(lambda end=end: 900.0 if len(world.functions.calls) < end else 0.0)  # type: ignore[misc]
        try:
            progress = step(deadline)
        except FreezeIncomplete:
            continue  # the state machine tries again
        if progress.complete:
            return progress, invocation
        world.now += progress.wait_seconds
        world.polls = world.polls + 1 if progress.polled else world.polls if progress.wait_seconds else 0
    raise AssertionError("never complete")


@pytest.mark.parametrize("seed", [1, 2])
def test_two_thousand_functions_through_a_crowd(seed: int) -> None:
    """A setting gets lost in one of many invocations, each of which another call than the last one's ended."""
    world = large_world(seed)
    before = state(world.functions)
    selected = {name for name in world.functions.functions if name.startswith("app-")}
    assert len(selected) == FUNCTIONS
    assert len(before[1]) > 50, "provisioned concurrency is part of it"
    crowd = Crowd(seed)
    freezer = world.freezer("e1")
    world.functions.before = crowd
    for number in (1, 2):
        progress, invocations = until_complete(
            world, lambda deadline, number=number: freezer.freeze(SELECTION, deadline, number=number), calls=900
        )
        assert (progress.functions, progress.changed) == (FUNCTIONS, ())
        assert invocations > 3
        assert {name for name, function in world.functions.functions.items() if function.reserved == 0} >= selected
        assert not selected & set(world.functions.provisioned())
        assert not [
            uuid for uuid, found in world.functions.mappings.items() if found.enabled and found.function in selected
        ]
    if seed == 2:
        until_complete(world, lambda deadline: freezer.discard(["t"], deadline), calls=900)
        assert state(world.functions)[2] != before[2]
    progress, invocations = until_complete(
        world, lambda deadline: freezer.release(deadline, polls=world.polls), calls=900
    )
    assert (progress.functions, invocations > 3) == (FUNCTIONS, True)
    assert state(world.functions) == before
    discarding = {"GetEventSourceMapping"} if seed == 2 else set()
    assert set(crowd.throttled) == discarding | {
        "ListFunctions", "ListEventSourceMappings", "UpdateEventSourceMapping", "GetFunctionConcurrency",
        "PutFunctionConcurrency", "DeleteFunctionConcurrency", "ListProvisionedConcurrencyConfigs",
        "DeleteProvisionedConcurrencyConfig", "PutProvisionedConcurrencyConfig",
    }  # fmt: skip


def test_two_thousand_functions_cost_the_documented_number_of_calls() -> None:
    """A call more for each function makes a freeze of 4.5 minutes one of seven; the documents give the old figure."""
    world = large_world(3)
    for function in world.functions.functions.values():
        function.provisioned = {}
        function.lingering = 0
        function.reserved = function.reserved or 5
    world.functions.mappings.clear()
    freezer = world.freezer("e1")
    seconds = []
    steps: list[Callable[[], Progress]] = [
        lambda: freezer.freeze(SELECTION, enough()),
        lambda: freezer.freeze(SELECTION, enough(), number=2),
        lambda: freezer.release(enough()),
    ]
    for step in steps:
        start = len(world.functions.calls)
        assert step().complete
        seconds.append((len(world.functions.calls) - start) / CALLS_A_SECOND)
    freezing, looking, releasing = seconds
    assert 265 < freezing < 275
    assert 130 < looking < 140
    assert 265 < releasing < 275
    assert max(seconds) < SECONDS_AN_INVOCATION
