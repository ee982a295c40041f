"""Provisioned concurrency: AWS refuses reserved concurrency 0 beside it, so it has to go, and to come back exactly."""

from __future__ import annotations

from contextlib import suppress

import pytest
from botocore.exceptions import ClientError

from handlers.core.errors import FreezeIncomplete, ReleaseIncomplete

from .fake_lambda import PAGE, FakeFunction, FakeLambda, client_error
from .support import KilledError
from .test_freeze import EXECUTION, FROZEN, done, fake, freeze, release

__all__ = ["fake"]


@pytest.fixture(name="ready")
def with_provisioned(fake: FakeLambda) -> FakeLambda:
    """The world, in which functions with and without reserved concurrency have provisioned concurrency."""
    fake.functions["test-app-api"] = FakeFunction(reserved=5, timeout=29, provisioned={"live": 3, "7": 2})
    fake.functions["test-app-ingest"] = FakeFunction(timeout=900, provisioned={"live": 4}, qualifiers={"3"})
    fake.functions["other"].provisioned["live"] = 9
    return fake


def test_provisioned_concurrency_goes_and_comes_back(ready: FakeLambda) -> None:
    """A function with provisioned concurrency stops the whole freeze; or comes back without it, cold and slow."""
    before = (ready.settings(), ready.provisioned())
    assert set(before[1]) == {"test-app-api", "test-app-ingest", "other"}
    assert freeze()["complete"] is True
    assert {name for name, value in ready.settings()[0].items() if value == 0} == FROZEN
    assert ready.provisioned() == {"other": {"live": 9}}
    done_before = len(ready.calls)
    assert release() == done(len(FROZEN))
    assert (ready.settings(), ready.provisioned()) == before
    # What is provisioned is part of what is reserved: AWS refuses it before that is back.
    calls = [operation for operation, name in ready.calls[done_before:] if name == "test-app-api"]
    assert calls.index("PutFunctionConcurrency") < calls.index("PutProvisionedConcurrencyConfig")
    assert {name for operation, name in ready.calls if "Provisioned" in operation} == {
        "test-app-api",
        "test-app-ingest",
    }, "functions without a refusal cost no such call"


def test_more_configurations_than_one_page(ready: FakeLambda) -> None:
    """Versions behind the first fifty keep their provisioned concurrency, and the freeze is refused for ever."""
    ready.functions["mailer"] = FakeFunction(tags={"system": "licensing"})
    many = {str(number): 1 for number in range(PAGE + 5)}
    ready.functions["mailer"].provisioned = dict(many)
    ready.functions["mailer"].qualifiers = set(many)
    assert freeze()["complete"] is True
    assert ready.functions["mailer"].provisioned == {}
    release()
    assert ready.functions["mailer"].provisioned == many


def test_a_deletion_that_is_not_through_yet(ready: FakeLambda) -> None:
    """AWS still counts what was deleted: the function counts as frozen, and writes; or its setting is forgotten."""
    before = (ready.settings(), ready.provisioned())
    ready.functions["test-app-api"].lingering = 3
    for _ in range(2):
        with pytest.raises(FreezeIncomplete, match=r"test-app-api: .*provisioned.* Expected"):
            freeze()
        assert ready.functions["mailer"].reserved == 0, "one function holds up the others"
        assert ready.functions["test-app-api"].reserved == 5
    assert freeze()["complete"] is True
    assert ready.functions["test-app-api"].reserved == 0
    release()
    assert (ready.settings(), ready.provisioned()) == before


def test_a_freeze_that_never_gets_there_is_undone(ready: FakeLambda) -> None:
    """A function that could not be set to 0 loses its provisioned concurrency when the recovery gives up."""
    before = (ready.settings(), ready.provisioned())
    ready.functions["test-app-api"].lingering = 99
    with pytest.raises(FreezeIncomplete):
        freeze()
    assert "test-app-api" not in ready.provisioned()
    assert release()["complete"] is True
    assert (ready.settings(), ready.provisioned()) == before


@pytest.mark.parametrize("died_at", range(1, 26, 3))
def test_killed_anywhere(ready: FakeLambda, died_at: int) -> None:
    """An invocation dies between the deletions, and those that were deleted first are forgotten."""
    before = (ready.settings(), ready.provisioned())
    left = 0

    def die(_: str) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KilledError

    ready.before = die
    for step in (freeze, release):
        left = died_at
        with suppress(KilledError):
            step()
        left = 0
        assert step()["complete"] is True
    assert len(ready.calls) > 26, "the last deaths come after the end"
    assert (ready.settings(), ready.provisioned()) == before


def test_a_refusal_of_another_kind_surfaces(ready: FakeLambda) -> None:
    """Any refusal is taken for provisioned concurrency, and the freeze is tried again without an end or a reason."""

    def refuse(operation: str) -> None:
        if operation == "PutFunctionConcurrency":
            raise client_error("InvalidParameterValueException", operation)

    ready.functions["test-app-api"].provisioned = {}
    ready.functions["test-app-ingest"].provisioned = {}
    ready.before = refuse
    with pytest.raises(ClientError, match="InvalidParameterValueException"):
        freeze()


def test_a_configuration_that_is_deleted_while_it_is_looked_at(ready: FakeLambda) -> None:
    """An alias that disappears in the middle stops the whole freeze, or the whole release."""

    def disappear(operation: str) -> None:
        if operation == "DeleteProvisionedConcurrencyConfig":
            ready.functions["test-app-api"].provisioned.pop("live", None)
            ready.functions["test-app-api"].qualifiers.discard("live")

    ready.before = disappear
    assert freeze()["complete"] is True
    ready.before = lambda _: None
    assert release()["complete"] is True
    assert ready.functions["test-app-api"].provisioned == {"7": 2}


def test_an_alias_that_was_deleted_during_the_freeze(ready: FakeLambda) -> None:
    """One deleted alias keeps a function's other configurations from coming back."""
    freeze()
    ready.functions["test-app-api"].qualifiers.discard("live")
    assert release() == done(len(FROZEN))
    assert ready.functions["test-app-api"].provisioned == {"7": 2}


@pytest.mark.parametrize("again", [False, True])
def test_configurations_made_by_hand_survive(ready: FakeLambda, again: bool) -> None:
    """A deployment starts a function during the freeze with a new number, and the release puts the old one back.

    Where the function is frozen again the number cannot be told from one that Application Auto Scaling provisioned, and
    the saved one wins; a configuration that was not saved yet is.
    """
    freeze()
    api = ready.functions["test-app-api"]
    api.reserved = 40
    api.qualifiers.add("8")
    api.provisioned = {"live": 30, "8": 1}
    if again:
        freeze(execution=EXECUTION + "-2")
        assert (api.reserved, api.provisioned) == (0, {})
    release(execution=EXECUTION + ("-2" if again else ""))
    assert (api.reserved, api.provisioned) == (40, {"live": 3 if again else 30, "7": 2, "8": 1})


@pytest.mark.parametrize("execution", [EXECUTION, EXECUTION + "-2"])
def test_what_auto_scaling_provisions_meanwhile_is_not_the_setting(ready: FakeLambda, execution: str) -> None:
    """Application Auto Scaling provisions its least between the deletion and the 0, and the function keeps that."""
    before = (ready.settings(), ready.provisioned())
    api = ready.functions["test-app-api"]
    api.lingering = 99
    with pytest.raises(FreezeIncomplete):
        freeze()
    assert api.provisioned == {}
    api.lingering = 0
    api.provisioned = {"live": 1}
    assert freeze(execution=execution)["complete"] is True
    assert (api.reserved, api.provisioned) == (0, {})
    release(execution=execution)
    assert (ready.settings(), ready.provisioned()) == before


def test_the_next_incident_saves_the_number_of_its_own_time(ready: FakeLambda) -> None:
    """The first number ever saved wins for good: a release puts back what an earlier incident found."""
    freeze()
    release()
    ready.functions["test-app-api"].provisioned = {"live": 1, "7": 4}
    before = (ready.settings(), ready.provisioned())
    freeze(execution=EXECUTION + "-2", incident="other")
    release(execution=EXECUTION + "-2", incident="other")
    assert (ready.settings(), ready.provisioned()) == before


@pytest.mark.parametrize("name", ["test-app-api", "mailer"], ids=["provisioned", "not provisioned"])
def test_a_function_that_is_being_deployed(ready: FakeLambda, name: str) -> None:
    """A deployment that is through in a minute stops the recovery for good; or its function stays out of the freeze."""
    before = (ready.settings(), ready.provisioned())
    ready.functions[name].deploying = 2  # one attempt to freeze it asks twice
    with pytest.raises(FreezeIncomplete, match=rf"^{name}: .*is changing the function\. Expected .* start the same"):
        freeze()
    assert ready.functions[name].reserved == before[0][0][name]
    assert {found for found, value in ready.settings()[0].items() if value == 0} == FROZEN - {name}
    assert freeze()["complete"] is True
    assert {found for found, value in ready.settings()[0].items() if value == 0} == FROZEN
    release()
    assert (ready.settings(), ready.provisioned()) == before


def test_a_deployment_that_never_ends_is_undone(ready: FakeLambda) -> None:
    """The function's setting is lost when the recovery gives up."""
    before = (ready.settings(), ready.provisioned())
    ready.functions["test-app-api"].deploying = 2
    with pytest.raises(FreezeIncomplete):
        freeze()
    assert release()["complete"] is True
    assert (ready.settings(), ready.provisioned()) == before


def test_a_deployment_between_the_deletion_and_the_zero(ready: FakeLambda) -> None:
    """A refusal changes its reason between two attempts, and the freeze fails with an error of AWS's."""
    before = (ready.settings(), ready.provisioned())
    asked = 0

    def deploy(operation: str) -> None:
        nonlocal asked
        if operation == "PutFunctionConcurrency":
            asked += 1
            # mailer's is the first; the function with provisioned concurrency is refused for that, then for this.
            ready.functions["test-app-api"].deploying = asked == 3

    ready.before = deploy
    with pytest.raises(FreezeIncomplete, match=r"^test-app-api: "):
        freeze()
    assert ready.functions["test-app-api"].provisioned == {}
    ready.before = lambda _: None
    assert freeze()["complete"] is True
    release()
    assert (ready.settings(), ready.provisioned()) == before


def test_a_later_freeze_does_not_put_back_what_an_earlier_one_saved(ready: FakeLambda) -> None:
    """Provisioned concurrency that was given up between two incidents comes back, and is paid for."""
    freeze()
    release()
    ready.functions["test-app-api"].provisioned = {}
    before = (ready.settings(), ready.provisioned())
    freeze(execution=EXECUTION + "-2", incident="other")
    release(execution=EXECUTION + "-2", incident="other")
    assert (ready.settings(), ready.provisioned()) == before


def test_a_configuration_that_aws_does_not_take_back_is_named(ready: FakeLambda) -> None:
    """The release says that all is well, and a function is cold from then on."""
    before = (ready.settings(), ready.provisioned())
    freeze()

    def refuse(operation: str) -> None:
        if operation == "PutProvisionedConcurrencyConfig":
            raise client_error("InvalidParameterValueException", operation)

    ready.before = refuse
    with pytest.raises(ReleaseIncomplete, match=r"test-app-api \(InvalidParameterValueException\)"):
        release()
    assert ready.settings() == before[0]
    ready.before = lambda _: None
    assert release()["complete"] is True
    assert (ready.settings(), ready.provisioned()) == before


def test_a_reserved_number_that_was_lowered_by_hand_stands(ready: FakeLambda) -> None:
    """Somebody reserves less than was provisioned during the freeze, and the release can never be complete."""
    freeze()
    ready.functions["test-app-api"].reserved = 4  # 3 and 2 were provisioned
    assert freeze(number=2)["changedNames"] == "test-app-api"
    assert release() == done(len(FROZEN))
    assert ready.functions["test-app-api"].reserved == 4
    assert sum(ready.functions["test-app-api"].provisioned.values()) <= 4
    assert ready.functions["test-app-ingest"].provisioned == {"live": 4}
