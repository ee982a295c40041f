"""Freeze and release: a setting that is not saved, or not put back, is an outage after the recovery."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from handlers import freeze_functions, release_functions, runtime
from handlers.core.clock import from_iso
from handlers.core.errors import FreezeIncomplete, ReleaseIncomplete, StaleWorker

from .conftest import Aws
from .fake_lambda import PAGE, FakeFunction, FakeLambda, FakeMapping, FakeTagging
from .support import ACCOUNT, LEDGER, REGION, Context, KilledError, hold_lock, invoke, ledger_items, stand_in

EXECUTION = f"arn:aws:states:{REGION}:{ACCOUNT}:execution:test-dr-orchestrator:first"
SELECTION: dict[str, Any] = {
    "namePrefix": "test-app-",
    "tag": {"key": "system", "value": "licensing"},
    "exclude": ["test-app-health", "test-dr-freeze-functions"],
    "eventSourceMappings": True,
}
FROZEN = {"test-app-api", "test-app-ingest", "test-app-paused", "mailer"}
TABLE = "licenses"
STREAM = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{TABLE}/stream/2026-11-20T08:00:00.000"


def world() -> FakeLambda:
    """Functions inside and outside the system, with every kind of setting."""
    licensing = {"system": "licensing"}
    return FakeLambda(
        functions={
            "test-app-api": FakeFunction(reserved=5, timeout=29),
            "test-app-ingest": FakeFunction(reserved=None, timeout=900),
            "test-app-paused": FakeFunction(reserved=0),
            "test-app-health": FakeFunction(reserved=1, tags=licensing),
            "mailer": FakeFunction(reserved=7, tags={**licensing, "team": "a"}),
            "test-dr-freeze-functions": FakeFunction(tags=licensing),
            "other-test-app-api": FakeFunction(reserved=3, tags={"system": "billing"}),
            "other": FakeFunction(tags={"licensing": "system"}),
        },
        mappings={
            "m-stream": FakeMapping("test-app-api"),
            "m-alias": FakeMapping("test-app-ingest", alias="live"),
            "m-off": FakeMapping("test-app-ingest", enabled=False),
            "m-tagged": FakeMapping("mailer"),
            "m-other": FakeMapping("other-test-app-api"),
        },
    )


@pytest.fixture
def fake(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> FakeLambda:
    """The world, in place of the clients of Lambda and the tagging API; the ledger stays moto's."""
    assert aws
    functions = world()
    stand_in(monkeypatch, {"lambda": functions, "resourcegroupstaggingapi": FakeTagging(functions.functions)})
    return functions


def freeze(
    context: Context | None = None,
    *,
    execution: str = EXECUTION,
    incident: str = "incident",
    number: int = 1,
    polls: int = 0,
    **selection: Any,
) -> Any:
    """One invocation, of an execution that holds the environment."""
    event = {
        "incidentId": incident,
        "executionArn": execution,
        "selection": {**SELECTION, **selection},
        "plan": False,
        "pass": number,
        "polls": polls,
        "tables": [TABLE],
    }
    hold_lock(runtime.client("dynamodb"), "ENVIRONMENT", execution, incident=incident)
    return invoke(freeze_functions.handler, event, context)


def release(
    context: Context | None = None,
    *,
    execution: str = EXECUTION,
    incident: str = "incident",
    discard: bool = False,
    polls: int = 0,
) -> Any:
    """One invocation, of an execution that holds the environment."""
    hold_lock(runtime.client("dynamodb"), "ENVIRONMENT", execution, incident=incident)
    return invoke(release_functions.handler, releasing(execution, incident, discard=discard, polls=polls), context)


def releasing(execution: str, incident: str = "incident", *, discard: bool = False, polls: int = 0) -> dict[str, Any]:
    """The event of release-functions."""
    more = {"tables": [TABLE]} if discard else {}
    return {
        "incidentId": incident,
        "executionArn": execution,
        "discard": discard,
        "recovered": False,
        "polls": polls,
        **more,
    }


def done(functions: int) -> dict[str, Any]:
    """The answer of a release that is complete."""
    return {"complete": True, "functions": functions, "waitSeconds": 0, "polls": 0}


def test_freeze_and_release(fake: FakeLambda) -> None:
    """A function goes on writing during the recovery, or comes back with another concurrency than it had."""
    before = fake.settings()
    answer = freeze()
    assert (answer["complete"], answer["functions"]) == (True, len(FROZEN))
    reserved, mappings = fake.settings()
    assert {name for name, value in reserved.items() if value == 0} == FROZEN
    assert mappings == {"m-stream": False, "m-alias": False, "m-off": False, "m-tagged": False, "m-other": True}
    # 900 seconds: the longest timeout among the frozen functions.
    assert 890 <= (from_iso(answer["drainedAt"]) - datetime.now(UTC)).total_seconds() <= 901
    assert release() == done(len(FROZEN))
    assert fake.settings() == before


def test_who_does_not_belong_is_not_even_asked(fake: FakeLambda) -> None:
    """Another team's function, or the recovery's own, is frozen because its name holds the prefix or it has the key."""
    freeze()
    release()
    touched = {name for operation, name in fake.calls if operation.endswith("FunctionConcurrency")}
    assert touched == FROZEN


def planning() -> dict[str, Any]:
    """The event of a dry run's freeze-functions."""
    event = {"incidentId": "incident", "executionArn": EXECUTION, "selection": SELECTION, "plan": True}
    return {**event, "tables": [TABLE]}


def test_the_plan_changes_nothing(aws: Aws, fake: FakeLambda) -> None:
    """A dry run takes the system down."""
    before = fake.settings()
    event = {**planning(), "tables": []}
    assert invoke(freeze_functions.handler, event) == {"functions": len(FROZEN), "streamConsumers": []}
    assert fake.settings() == before
    assert ledger_items(aws.dynamodb) == {}


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ({"tag": None}, {"test-app-api", "test-app-ingest", "test-app-paused"}),
        ({"namePrefix": None}, {"mailer", "test-app-health"}),
        ({"namePrefix": None, "tag": None}, set()),
        ({"namePrefix": "test-app-a", "tag": None}, {"test-app-api"}),
        ({"namePrefix": "nothing-", "tag": None}, set()),
    ],
)
def test_selections(fake: FakeLambda, selection: dict[str, Any], expected: set[str]) -> None:
    """A missing prefix or tag selects every function of the account."""
    exclude = ["test-dr-freeze-functions"] if "tag" not in selection else SELECTION["exclude"]
    assert freeze(**selection, exclude=exclude)["functions"] == len(expected)
    assert {name for name, value in fake.settings()[0].items() if value == 0} == expected | {"test-app-paused"}


def test_mappings_stay_when_they_are_switched_off_in_the_configuration(fake: FakeLambda) -> None:
    """Streams stop although the operator chose that they should not."""
    before = fake.settings()[1]
    assert any(before.values())
    freeze(eventSourceMappings=False)
    assert fake.settings()[1] == before


def test_more_functions_than_one_page(fake: FakeLambda) -> None:
    """Everything behind the first fifty functions, tags or mappings goes on writing."""
    for number in range(PAGE + 5):
        name = f"tagged-{number:03d}"
        fake.functions[name] = FakeFunction(reserved=number, tags={"system": "licensing"})
        fake.mappings[f"more-{number}"] = FakeMapping(name)
    before = fake.settings()
    assert freeze()["functions"] == PAGE + 5 + len(FROZEN)
    reserved, mappings = fake.settings()
    assert all(value == 0 for name, value in reserved.items() if name.startswith("tagged-"))
    assert [uuid for uuid, enabled in mappings.items() if enabled] == ["m-other"]
    assert release()["functions"] == PAGE + 5 + len(FROZEN)
    assert fake.settings() == before


@pytest.mark.parametrize(
    ("execution", "incident"), [(EXECUTION, "incident"), (EXECUTION + "-2", "incident"), (EXECUTION + "-2", "other")]
)
def test_a_second_freeze_does_not_save_its_own_zeros(fake: FakeLambda, execution: str, incident: str) -> None:
    """The frozen state is saved as the original: the functions stay frozen for ever, and the report says released."""
    before = fake.settings()
    freeze()
    assert freeze(execution=execution, incident=incident)["complete"] is True
    released = release(execution=execution, incident=incident)
    assert released == done(len(FROZEN))
    assert fake.settings() == before


def test_someone_undoes_the_freeze(fake: FakeLambda) -> None:
    """An operator or a deployment takes the freeze away; the resumed recovery copies below a system that writes."""
    before = fake.settings()
    freeze()
    fake.functions["test-app-api"].reserved = 50
    fake.mappings["m-stream"].enabled = True
    freeze(execution=EXECUTION + "-2")
    assert fake.functions["test-app-api"].reserved == 0
    assert fake.mappings["m-stream"].enabled is False
    release(execution=EXECUTION + "-2")
    before[0]["test-app-api"] = 50  # what was set by hand is the setting now
    assert fake.settings() == before


def test_a_new_freeze_after_a_release_saves_anew(fake: FakeLambda) -> None:
    """A setting that was changed between two incidents is put back to what it was in the first."""
    freeze()
    release()
    fake.functions["test-app-api"].reserved = 6
    fake.functions["test-app-paused"].reserved = None
    fake.mappings["m-stream"].enabled = False
    before = fake.settings()
    freeze(execution=EXECUTION + "-2", incident="other")
    release(execution=EXECUTION + "-2", incident="other")
    assert fake.settings() == before


@dataclass
class Busy(Context):
    """An invocation whose time is up once it has changed ``allowed`` settings: changes are what takes the time."""

    fake: FakeLambda = field(default_factory=FakeLambda)
    allowed: int = 2

    def __post_init__(self) -> None:
        self.end = self.fake.changes() + self.allowed

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds left."""
        return 900_000 if self.fake.changes() < self.end else 0


def invocations(step: Callable[[Context], Any], fake: FakeLambda) -> Iterator[Any]:
    """Answers until complete."""
    for _ in range(40):
        answer = step(Busy(fake=fake))
        yield answer
        if answer["complete"]:
            return
    raise AssertionError("never complete")


def test_a_freeze_in_many_invocations(fake: FakeLambda) -> None:
    """Every invocation begins with the same functions: the state machine loops for ever."""
    before = fake.settings()
    answers = list(invocations(freeze, fake))
    assert len(answers) > 2
    assert {answer["functions"] for answer in answers} == {len(FROZEN)}
    assert [answer["drainedAt"] is None for answer in answers] == [True] * (len(answers) - 1) + [False]
    assert {name for name, value in fake.settings()[0].items() if value == 0} == FROZEN
    assert not fake.mappings["m-alias"].enabled
    answers = list(invocations(release, fake))
    assert len(answers) > 2
    assert answers[-1]["functions"] == len(FROZEN)
    assert fake.settings() == before


def test_pollers_stop_before_their_functions(fake: FakeLambda) -> None:
    """A queue's messages are received by a frozen function until they end in the dead-letter queue."""
    freeze()
    changes = [operation for operation, _ in fake.calls if operation.startswith(("Put", "Update"))]
    # Of the four functions one was at 0 already.
    assert changes == ["UpdateEventSourceMapping"] * 3 + ["PutFunctionConcurrency"] * 3


@pytest.mark.parametrize(
    "operation", ["PutFunctionConcurrency", "DeleteFunctionConcurrency", "UpdateEventSourceMapping"]
)
def test_one_setting_that_is_refused_does_not_hold_up_the_others(fake: FakeLambda, operation: str) -> None:
    """The first function that AWS refuses to change keeps the whole system down; or its refusal is forgotten."""
    before = fake.settings()
    freeze()
    refused = 0

    def refuse_once(called: str) -> None:
        nonlocal refused
        if called == operation and not refused:
            refused += 1
            raise ClientError({"Error": {"Code": "ResourceConflictException", "Message": "Busy."}}, called)

    fake.before = refuse_once
    with pytest.raises(ReleaseIncomplete, match="ResourceConflictException"):
        release()
    assert refused == 1
    now, then = fake.settings(), before
    different = [name for part in (0, 1) for name in then[part] if dict(now[part])[name] != dict(then[part])[name]]
    assert len(different) == 1
    assert release() == done(len(FROZEN))
    assert fake.settings() == before


def test_no_time_at_all_is_incomplete(fake: FakeLambda) -> None:
    """An invocation without time reports a freeze that did not happen."""
    before = fake.settings()
    assert freeze(Context(seconds=0))["complete"] is False
    assert fake.settings() == before
    freeze()
    frozen = fake.settings()
    assert release(Context(seconds=0)) == {"complete": False, "functions": 0, "waitSeconds": 0, "polls": 0}
    assert fake.settings() == frozen != before


def test_a_function_deleted_before_it_is_frozen(fake: FakeLambda) -> None:
    """A function that disappears between the list and the freeze stops the whole recovery."""

    def delete(operation: str) -> None:
        if operation == "GetFunctionConcurrency":
            fake.functions.pop("test-app-ingest", None)

    before = fake.settings()
    fake.before = delete
    assert freeze()["complete"] is True
    fake.before = lambda _: None
    release()
    del before[0]["test-app-ingest"]
    assert fake.settings() == before


def test_a_function_deleted_while_it_is_frozen(fake: FakeLambda) -> None:
    """One deleted function keeps all the others frozen."""
    before = fake.settings()
    freeze()
    del fake.functions["test-app-api"]
    del fake.mappings["m-stream"]
    assert release() == done(len(FROZEN) - 1)
    del before[0]["test-app-api"]
    del before[1]["m-stream"]
    assert fake.settings() == before
    assert release()["complete"] is True


def test_a_mapping_deleted_before_it_is_disabled(fake: FakeLambda) -> None:
    """A mapping that disappears stops the whole recovery."""

    def delete(operation: str) -> None:
        if operation == "UpdateEventSourceMapping":
            fake.mappings.pop("m-stream", None)

    fake.before = delete
    assert freeze()["complete"] is True
    fake.before = lambda _: None
    assert release()["complete"] is True
    assert fake.mappings["m-alias"].enabled


@pytest.mark.parametrize("died_at", range(1, 12, 2))
def test_killed_anywhere(fake: FakeLambda, died_at: int) -> None:
    """A function is frozen before its setting is saved, or released and saved as frozen."""
    before = fake.settings()
    left = 0

    def die(_: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KilledError

    fake.before = die
    for step in (freeze, release):
        left = died_at
        # The last deaths lie behind the end of a release, which takes fewer calls.
        with nullcontext() if step is release and died_at > 10 else pytest.raises(KilledError):
            step()
        left = 0
        assert step()["complete"] is True
    assert fake.settings() == before


def test_an_error_that_is_no_absence_surfaces(fake: FakeLambda) -> None:
    """A function that could not be frozen counts as frozen, and writes into the tables."""

    def deny(operation: str) -> None:
        if operation == "PutFunctionConcurrency":
            raise KilledError

    fake.before = deny
    with pytest.raises(KilledError):
        freeze()


def lose_after(fake: FakeLambda, changes: int) -> None:
    """Another execution takes the environment over once so many settings were changed."""

    def look(_: str) -> None:
        if fake.changes() >= changes:
            hold_lock(runtime.client("dynamodb"), "ENVIRONMENT", EXECUTION + "-2")

    fake.before = look


@pytest.mark.parametrize("changes", range(1, 6))
def test_a_stale_freeze_worker(fake: FakeLambda, changes: int) -> None:
    """The execution was aborted, the next one has released: its old worker freezes function after function again."""
    before = fake.settings()
    lose_after(fake, changes)
    with pytest.raises(StaleWorker, match="ENVIRONMENT"):
        freeze()
    # The setting that was under way when the lock went was still changed.
    assert changes <= fake.changes() <= changes + 1
    fake.before = lambda _: None
    release(execution=EXECUTION + "-2")
    assert fake.settings() == before


@pytest.mark.parametrize("changes", range(1, 5))
def test_a_stale_release_worker(fake: FakeLambda, changes: int) -> None:
    """An aborted execution's worker releases functions below the next execution, which purges."""
    before = fake.settings()
    freeze()
    lose_after(fake, fake.changes() + changes)
    done = fake.changes()
    with pytest.raises(StaleWorker, match="ENVIRONMENT"):
        release()
    assert changes <= fake.changes() - done <= changes + 1
    fake.before = lambda _: None
    freeze(execution=EXECUTION + "-2")
    assert {name for name, value in fake.settings()[0].items() if value == 0} == FROZEN
    assert not fake.mappings["m-stream"].enabled
    release(execution=EXECUTION + "-2")
    assert fake.settings() == before


@pytest.mark.parametrize("owner", [None, EXECUTION + "-2"], ids=["nobody's", "another's"])
def test_a_worker_that_begins_too_late_changes_nothing(aws: Aws, fake: FakeLambda, owner: str | None) -> None:
    """Lambda starts a queued freeze minutes after its execution has ended."""
    event = {**planning(), "plan": False, "pass": 1, "polls": 0}
    before = fake.settings()
    if owner:
        hold_lock(aws.dynamodb, "ENVIRONMENT", owner)
    records = ledger_items(aws.dynamodb)
    with pytest.raises(StaleWorker):
        invoke(freeze_functions.handler, event)
    assert (fake.settings(), fake.changes(), ledger_items(aws.dynamodb)) == (before, 0, records)
    freeze()
    frozen, changes = fake.settings(), fake.changes()
    assert frozen != before
    if owner:
        hold_lock(aws.dynamodb, "ENVIRONMENT", owner)
    else:
        aws.dynamodb.delete_item(TableName=LEDGER, Key={"pk": {"S": "LOCK"}, "sk": {"S": "ENVIRONMENT"}})
    records = ledger_items(aws.dynamodb)
    with pytest.raises(StaleWorker):
        invoke(release_functions.handler, releasing(EXECUTION))
    assert (fake.settings(), fake.changes(), ledger_items(aws.dynamodb)) == (frozen, changes, records)


@pytest.mark.parametrize("name", sorted(FROZEN))
@pytest.mark.parametrize("by_hand", [None, 1, 50])
@pytest.mark.parametrize("again", [False, True])
def test_settings_made_by_hand_survive(fake: FakeLambda, name: str, by_hand: int | None, again: bool) -> None:
    """An operator limits a function during the freeze, and the release takes the limit away without a word."""
    before = fake.settings()
    freeze()
    fake.functions[name].reserved = by_hand
    if again:
        freeze(execution=EXECUTION + "-2")
        assert fake.functions[name].reserved == 0
    assert release(execution=EXECUTION + ("-2" if again else ""))["complete"] is True
    before[0][name] = by_hand
    assert fake.settings() == before


def test_a_setting_made_by_hand_is_saved_before_it_is_frozen_again(fake: FakeLambda) -> None:
    """The second freeze dies between its two steps, and what was set by hand is nowhere any more."""
    before = fake.settings()
    freeze()
    fake.functions["test-app-api"].reserved = 50

    def die(operation: str) -> None:
        if operation == "PutFunctionConcurrency":
            raise KilledError

    for deadly in (die, lambda _: None):
        fake.before = deadly
        with pytest.raises(KilledError) if deadly is die else nullcontext():
            freeze(execution=EXECUTION + "-2")
    release(execution=EXECUTION + "-2")
    before[0]["test-app-api"] = 50
    assert fake.settings() == before


def test_every_refused_setting_is_named_and_every_other_put_back(fake: FakeLambda) -> None:
    """The error names the first function only: the operator mends one, and the rest stay down."""
    before = fake.settings()
    freeze()

    def refuse(called: str) -> None:
        if called == "PutFunctionConcurrency":
            raise ClientError({"Error": {"Code": "ResourceConflictException", "Message": "Busy."}}, called)

    fake.before = refuse
    with pytest.raises(ReleaseIncomplete) as failure:
        release()
    fake.before = lambda _: None
    # The one that had no reservation, the one at 0, and the mappings, need no such call.
    assert fake.functions["test-app-ingest"].reserved is None
    assert fake.settings()[1] == before[1]
    for name in ("mailer", "test-app-api"):
        assert f"{name} (ResourceConflictException)" in str(failure.value)
    assert "test-app-ingest" not in str(failure.value)
    assert release() == done(len(FROZEN))
    assert fake.settings() == before


@pytest.mark.parametrize("state", ["Creating", "Updating"])
def test_a_mapping_that_is_being_changed(fake: FakeLambda, state: str) -> None:
    """A mapping between two states cannot be disabled: it counts as frozen, and becomes enabled during the purge."""
    before = fake.settings()
    fake.mappings["m-tagged"].state = state
    with pytest.raises(FreezeIncomplete, match=f"m-tagged of mailer is {state}. Expected"):
        freeze()
    assert not fake.mappings["m-stream"].enabled, "the others need not wait for it"
    assert not [operation for operation, _ in fake.calls if operation == "PutFunctionConcurrency"]
    fake.mappings["m-tagged"].state = None
    assert freeze()["complete"] is True
    assert fake.settings()[1] == {**dict.fromkeys(before[1], False), "m-other": True}
    release()
    assert fake.settings() == before


@pytest.mark.parametrize(("state", "enabled"), [("Enabling", True), ("Disabling", False), ("Deleting", False)])
def test_a_mapping_on_its_way(fake: FakeLambda, state: str, enabled: bool) -> None:
    """One that was on its way to enabled is left off by the release, or one on its way out is switched on."""
    fake.mappings["m-tagged"] = FakeMapping("mailer", enabled=enabled, state=state)
    before = fake.settings()
    freeze()
    assert fake.mappings["m-tagged"].enabled is False
    fake.mappings["m-tagged"].state = None
    release()
    assert fake.settings() == before


def test_a_mapping_of_others_may_be_in_any_state(fake: FakeLambda) -> None:
    """The recovery waits for another team's deployment."""
    fake.mappings["m-other"].state = "Updating"
    assert freeze()["complete"] is True


def test_a_round_trip_over_the_real_wire_format(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK spells an absent reservation in a way that the stand-in does not, and none becomes zero."""
    session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name=REGION)
    endpoint = aws.functions.meta.endpoint_url
    trust = json.dumps({"Version": "2012-10-17", "Statement": []})
    role = session.client("iam", endpoint_url=endpoint).create_role(RoleName="r", AssumeRolePolicyDocument=trust)
    sqs = session.client("sqs", endpoint_url=endpoint)
    queue = sqs.create_queue(QueueName="q")["QueueUrl"]
    queue_arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as code:
        code.writestr("app.py", "")
    for name in ("test-app-five", "test-app-none", "test-app-zero", "other"):
        aws.functions.create_function(
            FunctionName=name,
            Runtime="python3.12",
            Role=role["Role"]["Arn"],
            Handler="app.handler",
            Code={"ZipFile": archive.getvalue()},
        )
    aws.functions.put_function_concurrency(FunctionName="test-app-five", ReservedConcurrentExecutions=5)
    aws.functions.put_function_concurrency(FunctionName="test-app-zero", ReservedConcurrentExecutions=0)
    for enabled in (True, False):
        aws.functions.create_event_source_mapping(
            EventSourceArn=queue_arn, FunctionName=f"test-app-{'five' if enabled else 'none'}", Enabled=enabled
        )

    def settings() -> tuple[dict[str, Any], dict[str, str]]:
        names = [function["FunctionName"] for function in aws.functions.list_functions()["Functions"]]
        reserved = {
            name: aws.functions.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions")
            for name in names
        }
        mappings = aws.functions.list_event_source_mappings()["EventSourceMappings"]
        return reserved, {mapping["UUID"]: mapping["State"] for mapping in mappings}

    before = settings()
    assert before[0] == {"test-app-five": 5, "test-app-none": None, "test-app-zero": 0, "other": None}
    assert sorted(before[1].values()) == ["Disabled", "Enabled"]
    stand_in(monkeypatch, {"resourcegroupstaggingapi": FakeTagging({})})  # moto's tagging API knows no functions
    assert freeze()["functions"] == 3
    reserved, mappings = settings()
    assert reserved == {"test-app-five": 0, "test-app-none": 0, "test-app-zero": 0, "other": None}
    assert set(mappings.values()) == {"Disabled"}
    assert release() == done(3)
    assert settings() == before
