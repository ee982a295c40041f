"""The waits of a freeze, the second look before the purge, throttling, and who reads the tables' streams."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError

from handlers import freeze_functions
from handlers.core.clock import from_iso
from handlers.core.errors import FreezeIncomplete, StaleWorker
from handlers.core.freeze import MAPPING_POLLS, POLL_SECONDS

from .conftest import Aws
from .fake_lambda import FakeFunction, FakeLambda, FakeMapping, client_error
from .support import LEDGER, KilledError, invoke, ledger_items, open_incident
from .test_freeze import EXECUTION, FROZEN, STREAM, TABLE, Busy, done, fake, freeze, planning, release

__all__ = ["fake"]


def puts(world: FakeLambda) -> list[str]:
    """Functions whose reserved concurrency was set, in order."""
    return [name for operation, name in world.calls if operation == "PutFunctionConcurrency"]


def drain(answer: dict[str, Any]) -> float:
    """Seconds from now until a freeze has drained."""
    return (from_iso(answer["drainedAt"]) - datetime.now(UTC)).total_seconds()


def test_functions_wait_until_their_pollers_have_stopped(fake: FakeLambda) -> None:
    """A poller that is still being disabled receives from its queue, is throttled, and fills the dead-letter queue."""
    before = fake.settings()
    fake.mappings["m-stream"].slow = 2
    answers = [freeze(polls=polls) for polls in range(3)]
    assert [answer["complete"] for answer in answers] == [False] * 3
    assert [(answer["waitSeconds"], answer["polls"]) for answer in answers] == [
        (POLL_SECONDS, 1),
        (POLL_SECONDS, 2),
        (POLL_SECONDS, 3),
    ]
    assert puts(fake) == []
    answer = freeze(polls=3)
    assert (answer["complete"], answer["waitSeconds"], answer["polls"]) == (True, 0, 0)
    assert len(puts(fake)) == 3
    release()
    assert fake.settings() == before


def test_a_poller_that_does_not_stop_is_not_waited_for_for_ever(fake: FakeLambda) -> None:
    """One stuck mapping keeps the system writing."""
    fake.mappings["m-stream"].slow = 999
    assert freeze(polls=MAPPING_POLLS - 1)["complete"] is False
    assert puts(fake) == []
    assert freeze(polls=MAPPING_POLLS)["complete"] is True
    assert len(puts(fake)) == 3


def test_mappings_that_stay_on_are_not_waited_for(fake: FakeLambda) -> None:
    """The freeze waits for mappings which the configuration leaves alone, or which feed another team's functions."""
    fake.mappings["m-other"].state = "Disabling"
    assert freeze()["complete"] is True
    release()
    fake.mappings["m-stream"].state = "Disabling"
    assert freeze(execution=EXECUTION + "-2", eventSourceMappings=False)["complete"] is True


def test_a_mapping_that_is_busy_is_tried_again(fake: FakeLambda) -> None:
    """AWS refuses to change a mapping that is being enabled: the freeze fails, or leaves it to be enabled."""
    fake.mappings["m-stream"].pending = 2
    assert fake.mappings["m-stream"].shown_state() == "Enabling"
    with pytest.raises(FreezeIncomplete, match="m-stream of test-app-api is Updating"):
        freeze()
    assert puts(fake) == []
    assert freeze()["complete"] is True
    assert not fake.mappings["m-stream"].enabled


def test_a_second_look_that_finds_nothing_changes_nothing(fake: FakeLambda) -> None:
    """The look before the purge calls what it froze itself a change, and the tables are prepared for ever."""
    freeze()
    changes = fake.changes()
    answer = freeze(number=2)
    assert (answer["complete"], answer["changed"], answer["changedNames"]) == (True, 0, "")
    assert fake.changes() == changes


@pytest.mark.parametrize("invocations", [1, 9])
def test_a_second_look_freezes_what_is_new_or_was_started(fake: FakeLambda, invocations: int) -> None:
    """A deployment starts functions during the hour of the restore: they write into the tables during the purge."""
    before = fake.settings()
    freeze()
    fake.functions["test-app-new"] = FakeFunction(timeout=120)
    fake.functions["test-app-sleeping"] = FakeFunction(reserved=0)
    fake.functions["other-new"] = FakeFunction()
    fake.functions["test-app-api"].reserved = 50
    fake.mappings["m-new"] = FakeMapping("test-app-new")
    fake.mappings["m-tagged"].enabled = True
    for _ in range(invocations):
        answer = freeze(Busy(fake=fake, allowed=1) if invocations > 1 else None, number=2)
        if answer["complete"]:
            break
    assert answer["complete"] is True
    assert answer["changed"] == 3
    assert answer["changedNames"] == "mailer, test-app-api, test-app-new"
    assert {name for name, value in fake.settings()[0].items() if value == 0} == FROZEN | {
        "test-app-new",
        "test-app-sleeping",
    }
    assert not fake.mappings["m-new"].enabled
    assert not fake.mappings["m-tagged"].enabled
    assert freeze(number=3)["changed"] == 0
    fake.functions["test-app-late"] = FakeFunction(reserved=8)
    assert release()["complete"] is True
    before[0].update({"test-app-new": None, "test-app-sleeping": 0, "other-new": None, "test-app-late": 8})
    before[0]["test-app-api"] = 50
    before[1]["m-new"] = True
    assert fake.settings() == before


def test_only_what_came_back_has_to_drain_again(fake: FakeLambda) -> None:
    """A second look waits a quarter of an hour for functions that have not run since the first; or not at all."""
    fake.functions["mailer"].timeout = 200
    freeze()
    assert drain(freeze(number=2)) == pytest.approx(0, abs=5), "nothing came back"
    fake.functions["test-app-api"].reserved = 1  # its timeout is 29 s; another's is 900
    assert drain(freeze(number=3)) == pytest.approx(60, abs=5), "not all of Lambda knows of the 0 sooner"
    fake.functions["mailer"].reserved = 1
    assert drain(freeze(number=4)) == pytest.approx(200, abs=5)


def test_a_system_of_short_functions_drains_for_a_minute(fake: FakeLambda) -> None:
    """Where every timeout is 3 seconds the purge begins before all of Lambda knows of the concurrency of 0."""
    for function in fake.functions.values():
        function.timeout = 3
    assert drain(freeze()) == pytest.approx(60, abs=5)


def test_a_published_version_drains_for_its_own_timeout(fake: FakeLambda) -> None:
    """An alias of an older version runs on for fourteen minutes, and writes into the table after its backup."""
    for function in fake.functions.values():
        function.timeout = 3
    fake.functions["test-app-api"].published = {"1": 840, "2": 3}
    answer = freeze()
    assert answer["functions"] == len(FROZEN), "a version is no function of its own"
    assert drain(answer) == pytest.approx(840, abs=5)


@pytest.mark.parametrize("code", ["ResourceInUseException", "ResourceConflictException"])
def test_either_name_of_a_change_under_way_is_waited_for(fake: FakeLambda, code: str) -> None:
    """AWS documents two names for a mapping that is being changed, and one of them ends the recovery."""

    def refuse(operation: str) -> None:
        if operation == "UpdateEventSourceMapping":
            raise client_error(code, operation)

    fake.before = refuse
    with pytest.raises(FreezeIncomplete, match="is Updating"):
        freeze()
    fake.before = lambda _: None
    assert freeze()["complete"] is True


def test_a_stray_freeze_does_not_change_what_was_released(fake: FakeLambda) -> None:
    """A worker whose answer was lost sets a function to 0 after its release: nobody would ever put it back."""
    freeze()
    before = fake.settings()
    released: list[bool] = []

    def overtake(operation: str) -> None:
        # The stray has found the function at 3, and is about to note that; meanwhile the others release everything.
        if operation == "GetFunctionConcurrency" and not released:
            released.append(True)
            release()
            fake.functions["test-app-api"].reserved = 3

    fake.before = overtake
    fake.functions["test-app-api"].reserved = 3
    with pytest.raises(StaleWorker, match="as released"):
        freeze(number=2)
    assert released
    assert fake.functions["test-app-api"].reserved == 3
    assert before[0]["test-app-api"] == 0


@pytest.mark.usefixtures("fake")
def test_a_selection_of_nothing_drains_for_no_time() -> None:
    """A system without functions waits a minute for none."""
    answer = freeze(namePrefix="nothing-", tag=None)
    assert (answer["complete"], answer["functions"]) == (True, 0)
    assert drain(answer) == pytest.approx(0, abs=5)


def test_a_second_look_that_dies_still_tells_what_it_changed(fake: FakeLambda) -> None:
    """The invocation that froze a function dies, the next finds it frozen, and its writes are in no backup."""
    freeze()
    fake.functions["test-app-api"].reserved = 50

    def die(operation: str) -> None:
        if operation == "GetFunctionConcurrency" and fake.functions["test-app-api"].reserved == 0:
            raise KilledError

    fake.before = die
    with pytest.raises(KilledError):
        freeze(number=2)
    fake.before = lambda _: None
    answer = freeze(number=2)
    assert (answer["complete"], answer["changedNames"]) == (True, "test-app-api")


def test_a_long_list_of_changes_is_cut(fake: FakeLambda) -> None:
    """Two thousand names end the execution with States.DataLimitExceeded."""
    freeze()
    for number in range(30):
        fake.functions[f"test-app-n{number:02d}"] = FakeFunction()
    answer = freeze(number=2)
    assert answer["changed"] == 30
    assert answer["changedNames"].endswith("test-app-n19 and 10 more")


def throttle(world: FakeLambda, operation: str) -> list[str]:
    """From now on one kind of call is throttled; returns the list of the calls that were."""
    throttled: list[str] = []

    def refuse(called: str) -> None:
        if called == operation:
            throttled.append(called)
            raise client_error("TooManyRequestsException", called)

    world.before = refuse
    return throttled


@pytest.mark.parametrize(
    "operation",
    ["ListFunctions", "ListEventSourceMappings", "UpdateEventSourceMapping", "GetFunctionConcurrency",
     "PutFunctionConcurrency", "ListProvisionedConcurrencyConfigs", "DeleteProvisionedConcurrencyConfig"],
)  # fmt: skip
def test_a_throttled_freeze_pauses(fake: FakeLambda, operation: str) -> None:
    """A crowd at Lambda's API makes the freeze fail; or it hammers on, function after function, and feeds the crowd."""
    fake.functions["test-app-api"] = FakeFunction(reserved=5, provisioned={"live": 2})
    before = (fake.settings(), fake.provisioned())
    throttled = throttle(fake, operation)
    answer = freeze(polls=7)
    # The pause is for the crowd: it does not count as a look at mappings on their way, and forgets none of these.
    assert (answer["complete"], answer["waitSeconds"], answer["polls"]) == (False, POLL_SECONDS, 7)
    assert len(throttled) == 1
    fake.before = lambda _: None
    assert freeze()["complete"] is True
    release()
    assert (fake.settings(), fake.provisioned()) == before


@pytest.mark.parametrize(
    "operation",
    ["UpdateEventSourceMapping", "GetFunctionConcurrency", "PutFunctionConcurrency", "DeleteFunctionConcurrency",
     "ListProvisionedConcurrencyConfigs", "PutProvisionedConcurrencyConfig"],
)  # fmt: skip
def test_a_throttled_release_pauses(fake: FakeLambda, operation: str) -> None:
    """Throttling counts as a refusal: the release asks for all the others at once, and reports them as lost."""
    fake.functions["test-app-api"] = FakeFunction(reserved=5, provisioned={"live": 2})
    before = (fake.settings(), fake.provisioned())
    freeze()
    throttled = throttle(fake, operation)
    answer = release(polls=7)
    assert (answer["complete"], answer["waitSeconds"], answer["polls"]) == (False, POLL_SECONDS, 7)
    assert len(throttled) == 1
    fake.before = lambda _: None
    assert release() == done(len(FROZEN))
    assert (fake.settings(), fake.provisioned()) == before


def test_a_crowd_does_not_use_up_the_looks_at_mappings(fake: FakeLambda) -> None:
    """After twenty throttled calls functions are frozen below pollers that are still being disabled."""
    fake.mappings["m-stream"].slow = 3
    throttled = throttle(fake, "ListFunctions")
    polls = 0
    for _ in range(MAPPING_POLLS + 5):
        polls = freeze(polls=polls)["polls"]
    assert len(throttled) == MAPPING_POLLS + 5
    fake.before = lambda _: None
    answer = freeze(polls=polls)
    assert (answer["complete"], answer["polls"]) == (False, 1)
    assert puts(fake) == []


def test_an_invocation_whose_time_is_up_begins_the_looks_anew(fake: FakeLambda) -> None:
    """A pass that goes on in another invocation finds its looks used up by those of the last."""
    answer = freeze(Busy(fake=fake, allowed=1), polls=7)
    assert (answer["complete"], answer["waitSeconds"], answer["polls"]) == (False, 0, 0)


def test_other_errors_of_a_freeze_surface(fake: FakeLambda) -> None:
    """A missing permission is waited out like a crowd."""

    def deny(operation: str) -> None:
        if operation == "PutFunctionConcurrency":
            raise client_error("AccessDeniedException", operation)

    fake.before = deny
    with pytest.raises(ClientError, match="AccessDenied"):
        freeze()


def consumer(uuid: str, function: str, *, enabled: bool, frozen: bool) -> dict[str, Any]:
    """A stream consumer as the plan names it."""
    return {"tableName": TABLE, "functionName": function, "uuid": uuid, "enabled": enabled, "frozen": frozen}


def test_the_plan_names_the_consumers_of_the_tables_streams(aws: Aws, fake: FakeLambda) -> None:
    """An operator does not learn who will see the reset as a million deletes and puts."""
    fake.mappings["m-stream"].source = STREAM
    fake.mappings["m-off"].source = STREAM
    fake.mappings["m-other"].source = STREAM
    fake.mappings["m-tagged"].source = STREAM.replace(f"table/{TABLE}/", f"table/{TABLE}-archive/")
    fake.mappings["m-alias"].source = STREAM.replace(":dynamodb:", ":kinesis:")
    fake.mappings["m-foreign"] = FakeMapping("test-app-api", source=STREAM.replace(":123456789012:", ":210987654321:"))
    before = fake.settings()
    expected = [
        consumer("m-stream", "test-app-api", enabled=True, frozen=True),
        consumer("m-off", "test-app-ingest", enabled=False, frozen=True),
        consumer("m-other", "other-test-app-api", enabled=True, frozen=False),
    ]
    assert invoke(freeze_functions.handler, planning())["streamConsumers"] == expected
    assert fake.settings() == before
    for execution in (EXECUTION, EXECUTION + "-2"):  # a resumed incident finds the mappings disabled by the first
        freeze(execution=execution)
        assert invoke(freeze_functions.handler, planning())["streamConsumers"] == expected
    record = ledger_items(aws.dynamodb)["INCIDENT#incident", "CONSUMERS"]
    assert [entry["M"]["uuid"]["S"] for entry in record["consumers"]["L"]] == ["m-stream", "m-off", "m-other"]


def test_a_function_that_left_the_selection_is_not_purged_under(fake: FakeLambda) -> None:
    """A deployment takes a function's tag away and starts it: the second look does not see it, and it writes."""
    before = fake.settings()
    freeze()
    fake.functions["mailer"].tags = {}
    fake.functions["mailer"].reserved = 7
    with pytest.raises(FreezeIncomplete, match="mailer: frozen by this execution, and not selected any more"):
        freeze(number=2)
    fake.functions["mailer"].tags = {"system": "licensing"}
    assert freeze(number=2)["changedNames"] == "mailer"
    release()
    assert fake.settings() == before


def test_a_mapping_that_was_being_disabled_stays_disabled(fake: FakeLambda) -> None:
    """Somebody disables a mapping at the moment of the freeze, and the release enables it for good."""

    def disabled_by_somebody(operation: str) -> None:
        if operation == "UpdateEventSourceMapping" and fake.mappings["m-stream"].enabled:
            fake.mappings["m-stream"].enabled = False
            raise client_error("ResourceInUseException", operation)

    fake.before = disabled_by_somebody
    with pytest.raises(FreezeIncomplete, match="m-stream"):
        freeze()
    fake.before = lambda _: None
    assert freeze()["complete"] is True
    release()
    assert fake.mappings["m-stream"].enabled is False
    assert fake.mappings["m-alias"].enabled is True


def test_a_stray_freeze_stops_when_its_incident_is_closing(aws: Aws, fake: FakeLambda) -> None:
    """A freeze that outlives its last lost answer sets functions to 0 below the release after the failure."""
    before = fake.settings()
    open_incident(aws.dynamodb, EXECUTION)
    aws.dynamodb.update_item(
        TableName=LEDGER,
        Key={"pk": {"S": "INCIDENT#incident"}, "sk": {"S": "RUN"}},
        UpdateExpression="SET #status = :closing",
        ExpressionAttributeNames={"#status": "status"},
        ExpressionAttributeValues={":closing": {"S": "CLOSING"}},
    )
    with pytest.raises(StaleWorker, match="has failed"):
        freeze()
    assert fake.settings() == before
