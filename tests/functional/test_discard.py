"""streamPolicy discard: consumers skip what the reset wrote, and have exactly their old settings afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from handlers.core.errors import DiscardIncomplete, ReleaseIncomplete
from handlers.core.freeze import MAPPING_POLLS, POLL_SECONDS, discard_seconds

from .conftest import Aws
from .fake_lambda import SHORTEST_AGE, FakeLambda, FakeMapping, client_error
from .support import KilledError, ledger_items
from .test_freeze import EXECUTION, FROZEN, STREAM, Busy, done, fake, freeze
from .test_freeze import release as release_at_once

__all__ = ["fake"]

CONSUMERS = {"m-stream", "m-alias", "m-off"}
WAITING = {"test-app-api", "test-app-ingest"}  # functions of the consumers that discard
POLLERS = 90  # seconds until pollers have taken up a changed setting
SHORTEST_WAIT = POLLERS + SHORTEST_AGE


_polls: dict[str, int] = {}


@pytest.fixture(autouse=True)
def no_polls() -> None:
    """Every test's executions begin anew."""
    _polls.clear()


def release(*context: Any, **event: Any) -> Any:
    """One invocation, with what the one before has answered; an invocation that dies is tried again at once."""
    execution = event.get("execution", EXECUTION)
    answer = release_at_once(*context, **{"polls": _polls.get(execution, 0), **event})
    _polls[execution] = answer["polls"]
    return answer


@pytest.fixture(name="streams")
def with_streams(fake: FakeLambda) -> FakeLambda:
    """Consumers of the table's stream with ages of their own, some disabled, some of functions outside."""
    for uuid, age in (("m-stream", -1), ("m-alias", 3600), ("m-off", 600), ("m-other", 700)):
        fake.mappings[uuid].source = STREAM
        fake.mappings[uuid].age = age
    return fake


def states(fake: FakeLambda) -> tuple[object, object]:
    """All that must be the same afterwards."""
    return fake.settings(), fake.ages()


def paused(functions: int) -> dict[str, Any]:
    """The answer of a release that has put record ages back, and waits for the pollers to take them up."""
    return {"complete": False, "functions": functions, "waitSeconds": POLLERS, "polls": 1}


def release_all(execution: str = EXECUTION, incident: str = "incident") -> list[dict[str, Any]]:
    """Release in at most two invocations; returns their answers."""
    answers = [release(execution=execution, incident=incident)]
    if not answers[0]["complete"]:
        answers.append(release(execution=execution, incident=incident))
    assert answers[-1] == done(answers[-1]["functions"])
    return answers


def at_zero(fake: FakeLambda) -> set[str]:
    """Functions whose reserved concurrency is 0."""
    return {name for name, function in fake.functions.items() if function.reserved == 0}


def test_enabled_consumers_discard_while_their_functions_are_frozen(streams: FakeLambda) -> None:
    """The reset is delivered as changes of every item; or a consumer that was off, or is another's, loses records."""
    before = states(streams)
    freeze()
    answer = release(discard=True)
    assert (answer["complete"], answer["functions"], answer["polls"]) == (True, 2, 0)
    assert answer["waitSeconds"] == SHORTEST_WAIT
    assert streams.ages() == {**before[1], "m-stream": SHORTEST_AGE, "m-alias": SHORTEST_AGE}  # type: ignore[dict-item]
    assert {uuid for uuid, mapping in streams.mappings.items() if mapping.enabled} == {"m-stream", "m-alias", "m-other"}
    assert at_zero(streams) == FROZEN
    start = len(streams.calls)
    # The first call puts the ages back and releases all but the functions of these mappings.
    assert release() == paused(len(FROZEN - WAITING))
    assert streams.ages() == before[1]
    assert at_zero(streams) == WAITING | {"test-app-paused"}
    changes = [(operation, name) for operation, name in streams.calls[start:] if not operation.startswith("Get")]
    # With a short age the function would lose good records; another mapping's poller must not be throttled.
    assert changes == [
        ("UpdateEventSourceMapping", "m-alias"),
        ("UpdateEventSourceMapping", "m-stream"),
        ("PutFunctionConcurrency", "mailer"),
        ("UpdateEventSourceMapping", "m-tagged"),
    ]
    start = len(streams.calls)
    assert release() == done(len(FROZEN))
    assert states(streams) == before
    assert [name for operation, name in streams.calls[start:] if not operation.startswith("Get")] == [
        "test-app-api",
        "test-app-ingest",
    ]


@pytest.mark.usefixtures("streams")
def test_the_ledger_knows_which_ages_are_back(aws: Aws) -> None:
    """The second call puts the age back once more and pauses again, for ever; or the next discard skips its pause."""

    def marks() -> dict[str, bool]:
        records = ledger_items(aws.dynamodb)
        return {
            key.removeprefix("MAPPING#"): "S" in record["ageIsBack"]
            for (_, key), record in records.items()
            if key.startswith("MAPPING#")
        }

    freeze()
    assert marks() == {"m-alias": False, "m-stream": False, "m-tagged": False}
    release(discard=True)
    assert marks() == {"m-alias": False, "m-stream": False, "m-tagged": False}
    release()
    assert marks() == {"m-alias": True, "m-stream": True, "m-tagged": False}
    # The execution ends in the pause; the next one of the incident freezes and discards anew, and pauses anew.
    freeze(execution=EXECUTION + "-2")
    release(execution=EXECUTION + "-2", discard=True)
    assert marks() == {"m-alias": False, "m-stream": False, "m-tagged": False}
    # What the first one released besides stays released until it is frozen again.
    assert [answer["complete"] for answer in release_all(EXECUTION + "-2")] == [False, True]


def test_other_mappings_of_a_function_that_waits_wait_too(streams: FakeLambda) -> None:
    """A queue is polled for 90 seconds on behalf of a function at 0: good messages end in the dead-letter queue."""
    streams.mappings["m-queue"] = FakeMapping("test-app-api")
    before = states(streams)
    freeze()
    release(discard=True)
    assert release() == paused(len(FROZEN - WAITING))
    assert streams.functions["test-app-api"].reserved == 0
    assert not streams.mappings["m-queue"].enabled
    assert streams.mappings["m-tagged"].enabled, "its function is released"
    assert release() == done(len(FROZEN))
    assert states(streams) == before


@pytest.mark.parametrize("operation", ["GetFunctionConcurrency", "PutFunctionConcurrency"])
def test_a_release_that_dies_before_its_pause_still_pauses(streams: FakeLambda, operation: str) -> None:
    """The retry of a dead invocation, two seconds later, releases functions whose pollers still drop records."""
    before = states(streams)
    freeze()
    release(discard=True)

    def die(called: str) -> None:
        if called == operation:
            raise KilledError

    streams.before = die
    with pytest.raises(KilledError):
        release()
    assert streams.ages() == before[1], "it died after the ages were put back"
    streams.before = lambda _: None
    assert release() == paused(len(FROZEN - WAITING))
    assert at_zero(streams) == WAITING | {"test-app-paused"}
    assert release() == done(len(FROZEN))
    assert states(streams) == before


def test_a_release_pauses_for_its_pollers_when_its_time_is_up(streams: FakeLambda) -> None:
    """The next invocation follows at once, and releases functions whose pollers still drop records."""
    before = states(streams)
    freeze()
    release(discard=True)
    assert release(Busy(fake=streams, allowed=2)) == paused(0)
    assert streams.ages() == before[1]
    assert at_zero(streams) == FROZEN
    release_all()
    assert states(streams) == before


def test_a_throttled_release_pauses_for_its_pollers(streams: FakeLambda) -> None:
    """The pause for a crowd, 15 seconds, takes the place of the pause for pollers, 90."""
    before = states(streams)
    freeze()
    release(discard=True)

    def refuse(operation: str) -> None:
        if operation == "GetFunctionConcurrency":
            raise client_error("TooManyRequestsException", operation)

    streams.before = refuse
    assert release() == paused(0)
    assert streams.ages() == before[1]
    streams.before = lambda _: None
    release_all()
    assert states(streams) == before


@pytest.mark.usefixtures("fake")
def test_nothing_to_discard_needs_no_wait() -> None:
    """A system without stream consumers stays down two minutes longer."""
    freeze()
    assert release(discard=True) == done(0)


def test_an_age_of_sixty_seconds_is_its_own(streams: FakeLambda) -> None:
    """A consumer that had the smallest age already comes back without a limit."""
    streams.mappings["m-stream"].age = SHORTEST_AGE
    before = states(streams)
    freeze()
    assert release(discard=True)["functions"] == 2
    release_all()
    assert states(streams) == before


@pytest.mark.parametrize("policy", ["discard", "replay"])
@pytest.mark.parametrize("died_at", range(1, 18, 2))
def test_a_discard_that_dies_is_resumed_exactly(streams: FakeLambda, died_at: int, policy: str) -> None:
    """The resumed incident saves the short age as the setting, and the consumer drops records from then on."""
    before = states(streams)
    freeze()
    left = died_at

    def die(_: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KilledError

    streams.before = die
    died = False
    try:
        release(discard=True)
        release_all()
    except KilledError:
        died = True
    assert died
    left = 0
    freeze(execution=EXECUTION + "-2")
    assert not any(streams.mappings[uuid].enabled for uuid in CONSUMERS)
    if policy == "discard":
        assert release(execution=EXECUTION + "-2", discard=True)["complete"] is True
    release_all(EXECUTION + "-2")
    assert states(streams) == before


def test_a_discard_in_many_invocations(streams: FakeLambda) -> None:
    """Every invocation begins with the same mapping: the state machine loops for ever."""
    before = states(streams)
    freeze()
    answers = [release(Busy(fake=streams, allowed=1), discard=True) for _ in range(3)]
    assert [answer["complete"] for answer in answers] == [False, True, True]
    release_all()
    assert states(streams) == before


def test_a_discard_waits_until_the_mappings_are_enabled(streams: FakeLambda) -> None:
    """The wait counts while nobody reads the stream yet, and the release delivers the reset."""
    before = states(streams)
    freeze()
    streams.mappings["m-stream"].slow = 2
    answers = [release(discard=True, polls=polls) for polls in range(4)]
    assert [answer["complete"] for answer in answers] == [False, False, False, True]
    assert [answer["waitSeconds"] for answer in answers] == [POLL_SECONDS] * 3 + [SHORTEST_WAIT]
    assert [answer["polls"] for answer in answers] == [1, 2, 3, 0]
    streams.mappings["m-stream"].slow = 0
    release_all()
    assert states(streams) == before


def test_a_mapping_that_does_not_get_enabled_is_named(streams: FakeLambda) -> None:
    """The functions are released over a stream that was not skipped."""
    before = states(streams)
    freeze()
    streams.mappings["m-stream"].slow = 999
    release(discard=True)
    with pytest.raises(DiscardIncomplete, match=r"m-stream of test-app-api \(Enabling\)\. Expected"):
        release(discard=True, polls=MAPPING_POLLS)
    streams.mappings["m-stream"].slow = streams.mappings["m-stream"].pending = 0
    release_all()
    assert states(streams) == before


def test_a_refused_mapping_is_named_and_the_others_discard(streams: FakeLambda) -> None:
    """One mapping that AWS refuses to change makes all the others deliver the reset."""
    freeze()

    def refuse(operation: str) -> None:
        if operation == "UpdateEventSourceMapping" and streams.mappings["m-alias"].age != SHORTEST_AGE:
            streams.mappings["m-alias"].age = SHORTEST_AGE
            raise client_error("InvalidParameterValueException", operation)

    streams.before = refuse
    with pytest.raises(DiscardIncomplete, match=r"m-alias of test-app-ingest \(InvalidParameterValueException\)"):
        release(discard=True)
    assert streams.mappings["m-stream"].age == SHORTEST_AGE


def test_a_throttled_discard_pauses(streams: FakeLambda) -> None:
    """A crowd at Lambda's API counts as a refusal."""
    before = states(streams)
    freeze()
    refused: list[str] = []

    def refuse(operation: str) -> None:
        if operation == "GetEventSourceMapping" and not refused:
            refused.append(operation)
            raise client_error("TooManyRequestsException", operation)

    streams.before = refuse
    # The pause is for the crowd: it does not count as a look at mappings on their way.
    answer = release(discard=True, polls=MAPPING_POLLS - 1)
    assert (answer["complete"], answer["waitSeconds"], answer["polls"]) == (False, POLL_SECONDS, MAPPING_POLLS - 1)
    assert release(discard=True, polls=MAPPING_POLLS - 1)["complete"] is True
    release_all()
    assert states(streams) == before


def test_a_consumer_deleted_during_the_recovery(streams: FakeLambda) -> None:
    """One deleted mapping keeps the functions frozen."""
    freeze()
    del streams.mappings["m-alias"]
    assert release(discard=True)["functions"] == 1
    del streams.mappings["m-stream"]
    assert release() == done(len(FROZEN)), "there is no poller to wait for"


def test_a_consumer_deleted_in_the_pause(streams: FakeLambda) -> None:
    """One mapping deleted between the two calls of the release keeps its function frozen."""
    freeze()
    release(discard=True)
    assert release()["complete"] is False
    del streams.mappings["m-stream"]
    assert release() == done(len(FROZEN))
    assert at_zero(streams) == {"test-app-paused"}


@pytest.mark.parametrize("again", [False, True])
def test_an_age_set_by_hand_during_the_discard_survives(streams: FakeLambda, again: bool) -> None:
    """The release overwrites what an operator has set since."""
    before = states(streams)
    freeze()
    release(discard=True)
    streams.mappings["m-alias"].age = 900
    if again:
        release(discard=True)
    release_all()
    ages = {**before[1], "m-alias": 900}  # type: ignore[dict-item]
    assert states(streams) == (before[0], ages)


def test_a_function_waits_for_its_mapping(streams: FakeLambda) -> None:
    """A function is released while its mapping still drops every record that is older than a minute."""
    before = states(streams)
    freeze()
    release(discard=True)
    busy = streams.mappings["m-stream"]
    busy.pending = 9
    # The other consumer's age is back, and so there is a pause first; then its function is released, not this one's.
    assert release() == paused(len(FROZEN - WAITING))
    with pytest.raises(ReleaseIncomplete, match=r"m-stream .ResourceInUseException., test-app-api .waits"):
        release()
    assert at_zero(streams) == {"test-app-api", "test-app-paused"}
    assert streams.mappings["m-stream"].age == SHORTEST_AGE
    busy.pending = 0
    assert [answer["complete"] for answer in release_all()] == [False, True]
    assert states(streams) == before


def test_other_mappings_of_a_function_that_is_held_wait_too(streams: FakeLambda) -> None:
    """A queue is polled on behalf of a function that stays at 0: good messages end in the dead-letter queue."""
    streams.mappings["m-queue"] = FakeMapping("test-app-api")
    before = states(streams)
    freeze()
    release(discard=True)
    streams.mappings["m-stream"].pending = 9
    release()
    with pytest.raises(ReleaseIncomplete, match=r"test-app-api .waits"):
        release()
    assert not streams.mappings["m-queue"].enabled
    assert streams.mappings["m-tagged"].enabled
    streams.mappings["m-stream"].pending = 0
    release_all()
    assert states(streams) == before


def test_a_later_incident_saves_ages_anew(streams: FakeLambda) -> None:
    """A release puts back the age that a consumer had in an earlier incident."""
    freeze()
    release(discard=True)
    release_all()
    streams.mappings["m-alias"].age = 1200
    before = states(streams)
    freeze(execution=EXECUTION + "-2", incident="other")
    start = len(streams.calls)
    release(execution=EXECUTION + "-2", incident="other")
    assert "GetEventSourceMapping" not in {operation for operation, _ in streams.calls[start:]}
    assert states(streams) == before


def test_only_the_tables_of_the_incident(streams: FakeLambda) -> None:
    """Consumers of other tables, and of queues, lose what waits for them."""
    other = STREAM.replace("table/licenses/", "table/others/")
    streams.mappings["m-elsewhere"] = FakeMapping("test-app-api", source=other)
    freeze()
    release(discard=True)
    assert not streams.mappings["m-elsewhere"].enabled
    assert not streams.mappings["m-tagged"].enabled
    assert [answer["complete"] for answer in release_all()] == [False, True]
    assert streams.mappings["m-elsewhere"].enabled


@pytest.mark.parametrize(
    ("windows", "seconds"),
    [
        ({}, 0),
        ({"m-stream": {"MaximumBatchingWindowInSeconds": 300}}, 300),
        ({"m-stream": {"TumblingWindowInSeconds": 900}}, 900),
        ({"m-stream": {"MaximumBatchingWindowInSeconds": 300, "TumblingWindowInSeconds": 60}}, 360),
        # They hold records back side by side: the longest counts.
        (
            {"m-stream": {"MaximumBatchingWindowInSeconds": 200}, "m-alias": {"TumblingWindowInSeconds": 250}},
            250,
        ),
        # These take no part: one is off, one is of another team's function, one reads a queue.
        (
            {
                "m-alias": {"MaximumBatchingWindowInSeconds": 5},
                "m-off": {"MaximumBatchingWindowInSeconds": 300},
                "m-other": {"MaximumBatchingWindowInSeconds": 300},
                "m-tagged": {"MaximumBatchingWindowInSeconds": 300},
            },
            5,
        ),
    ],
)
def test_windows_that_hold_records_back_lengthen_the_wait(
    streams: FakeLambda, windows: dict[str, dict[str, int]], seconds: int
) -> None:
    """A mapping that collects records for five minutes has not looked at the last ones when the release comes."""
    for uuid, of_mapping in windows.items():
        streams.mappings[uuid].windows = of_mapping
    freeze()
    answer = release(discard=True)
    assert (answer["complete"], answer["waitSeconds"]) == (True, SHORTEST_WAIT + seconds)


def test_a_pause_for_mappings_on_their_way_is_not_lengthened_by_windows(streams: FakeLambda) -> None:
    """Each look at a mapping on its way is followed by the whole wait."""
    streams.mappings["m-stream"].windows = {"MaximumBatchingWindowInSeconds": 300}
    freeze()
    streams.mappings["m-stream"].slow = 1
    assert [release(discard=True)["waitSeconds"] for _ in range(3)] == [
        POLL_SECONDS,
        POLL_SECONDS,
        SHORTEST_WAIT + 300,
    ]


@pytest.mark.parametrize(
    ("tables", "seconds"),
    [
        ([], 150),
        ([(10, 5_000.0)], 155),
        ([(10, 4_001.0)], 155),
        ([(7_200, 9e9), (60, 9e9)], 7_350),
        ([(7_200, 300_500.0)], 451),  # most of the two hours nothing was written
        ([(86_249, 9e12)], 86_399),
        ([(86_251, 9e12)], 86_400),
        ([(9e9, 9e12)], 86_400),
    ],
)
def test_how_long_a_discard_waits(tables: list[tuple[float, float]], seconds: int) -> None:
    """The release comes before the streams are through; or a weekend between two starts is waited for again."""
    summaries = [
        {"durationSeconds": duration, "consumedCapacity": {"readUnits": 1.0, "writeUnits": units}}
        for duration, units in tables
    ]
    assert discard_seconds(summaries) == seconds


def test_a_stream_of_another_account_is_not_discarded(streams: FakeLambda) -> None:
    """A table of the same name elsewhere was not reset: its consumer loses good records."""
    streams.mappings["m-alias"].source = STREAM.replace(":123456789012:", ":999999999999:")
    assert streams.mappings["m-alias"].source != STREAM
    before = states(streams)
    freeze()
    assert release(discard=True)["functions"] == 1
    assert streams.ages() == {**before[1], "m-stream": SHORTEST_AGE}  # type: ignore[dict-item]
    release_all()
    assert states(streams) == before
