"""Both machines as graphs: nothing dangling, every failure keeps its cause, only the safe way leads to the purge."""

from __future__ import annotations

from typing import Any

import botocore.session
import jsonata
import pytest

from handlers.core.errors import FINAL_ERRORS, DiscardIncomplete
from handlers.core.failure import explain
from statemachines import hard_reset as hard_reset_module
from statemachines import orchestrator as orchestrator_module

from .asl import Graph, assigned, expressions, graphs, variables
from .definitions import DEFINITIONS, hard_reset_definition, orchestrator_definition

DIFFERENCES = "Apply the differences to every segment"
ALL_GRAPHS = [
    pytest.param(graph, id=f"{name}{graph.path}") for name, make in DEFINITIONS.items() for graph in graphs(make())
]
ALL_STATES = [
    pytest.param(graph, name, id=f"{machine}{graph.path}:{name}")
    for machine, make in DEFINITIONS.items()
    for graph in graphs(make())
    for name in graph.states
]
RETRY_FIELDS = {"ErrorEquals", "IntervalSeconds", "BackoffRate", "MaxAttempts", "MaxDelaySeconds", "JitterStrategy"}
FIELDS_BY_TYPE = {
    "Task": {"Resource", "Arguments", "TimeoutSeconds", "Retry", "Catch", "Output", "Assign", "Next", "End"},
    "Choice": {"Choices", "Default"},
    "Pass": {"Output", "Assign", "Next", "End"},
    "Wait": {"Seconds", "Timestamp", "Next", "End"},
    "Succeed": {"Output"},
    "Fail": {"Error", "Cause"},
    "Parallel": {"Branches", "Catch", "Output", "Next", "End"},
    "Map": {
        "Label", "Items", "ItemSelector", "MaxConcurrency", "ItemProcessor", "Catch", "Output", "Assign", "Next", "End",
    },
}  # fmt: skip


@pytest.mark.parametrize("graph", ALL_GRAPHS)
def test_every_target_exists_and_every_state_is_reachable(graph: Graph) -> None:
    """Catches a misspelt state name, which Step Functions refuses, and a dead state, which it does not."""
    targets = {target for name in graph.states for target in graph.targets(name)}
    assert targets <= set(graph.states)
    assert graph.reachable() == set(graph.states)


@pytest.mark.parametrize(("graph", "name"), ALL_STATES)
def test_fields_are_known(graph: Graph, name: str) -> None:
    """Catches a misspelt field, e.g. an unknown one in Retry, which linters for this language overlook."""
    state = graph.states[name]
    assert set(state) <= FIELDS_BY_TYPE[state["Type"]] | {"Type", "Comment"}
    for retrier in state.get("Retry", []):
        assert set(retrier) <= RETRY_FIELDS
    assert len(name) <= 80


@pytest.mark.parametrize(("graph", "name"), ALL_STATES)
def test_every_task_retries_and_catches(graph: Graph, name: str) -> None:
    """Catches a task whose failure would end the execution without a record, a report or the real cause."""
    state = graph.states[name]
    if state["Type"] not in ("Task", "Map", "Parallel"):
        return
    assert state["Catch"][-1]["ErrorEquals"] == ["States.ALL"]
    for handlers in (state.get("Retry", []), state["Catch"]):
        for position, handler in enumerate(handlers):
            if "States.ALL" in handler["ErrorEquals"]:
                assert handler["ErrorEquals"] == ["States.ALL"], "States.ALL must stand alone"
                assert position == len(handlers) - 1, "States.ALL must be last"
    if state["Type"] == "Task":
        assert state["Retry"]
        if state["Resource"].endswith("lambda:invoke"):
            final = [retrier for retrier in state["Retry"] if retrier["MaxAttempts"] == 0]
            assert [list(FINAL_ERRORS)] == [retrier["ErrorEquals"] for retrier in final]


@pytest.mark.parametrize("graph", ALL_GRAPHS)
def test_fails_keep_the_real_error(graph: Graph) -> None:
    """Catches a Fail state that hides the cause behind a fixed text (but for refusals, which are their own cause)."""
    for name, state in graph.states.items():
        if state["Type"] == "Fail" and not name.startswith("Refuse"):
            assert state["Error"] == "{% $states.input.error %}"
            assert state["Cause"] == "{% $states.input.cause %}"


@pytest.mark.parametrize(("graph", "name"), ALL_STATES)
def test_expressions_parse(graph: Graph, name: str) -> None:
    """Catches an expression that is no JSONata, which shows only when its state runs."""
    for expression in expressions(graph.states[name]):
        jsonata.Jsonata(expression)


@pytest.mark.parametrize("graph", ALL_GRAPHS)
def test_variables_are_assigned_where_they_are_read(graph: Graph) -> None:
    """Catches a misspelt variable, and one that a Distributed Map's child reads from outside, where it has none."""
    if not graph.isolated:
        return  # checked with the graph around it
    definition = {"StartAt": graph.start, "States": graph.states}
    inside = [part for part in graphs(definition) if part.path == "/" or not part.isolated]
    known = {name for part in inside for state in part.states.values() for name in assigned(state)}
    for part in inside:
        for name, state in part.states.items():
            for expression in expressions(state):
                assert variables(expression) <= known, f"{name}: {expression}"


def _api_members(service: str, operation: str) -> tuple[set[str], set[str]]:
    model = botocore.session.get_session().get_service_model(service)
    shape = model.operation_model(operation).input_shape
    assert shape is not None
    return set(shape.members), set(shape.required_members)


@pytest.mark.parametrize(("graph", "name"), ALL_STATES)
def test_service_calls_exist_with_these_arguments(graph: Graph, name: str) -> None:
    """Catches a misspelt SDK action or argument, which Step Functions reports only at run time."""
    resource = graph.states[name].get("Resource", "")
    if ":aws-sdk:" in resource:
        service, action = resource.split(":")[-2:]
    elif resource.endswith("lambda:invoke"):
        service, action = "lambda", "invoke"
    elif resource.endswith("sns:publish"):
        service, action = "sns", "publish"
    elif resource.endswith("startExecution.sync:2"):
        service, action = "stepfunctions", "startExecution"
    else:
        assert not resource
        return
    members, required = _api_members(service, action[0].upper() + action[1:])
    arguments = set(graph.states[name]["Arguments"])
    if service == "stepfunctions":
        arguments = {argument[0].lower() + argument[1:] for argument in arguments}
    assert arguments <= members
    assert required <= arguments


def _main_graph(definition: dict[str, Any]) -> Graph:
    return next(graphs(definition))


@pytest.mark.parametrize(
    "guard",
    ["Is the input an object?", "Confirm the table name", "Preflight"],
)
def test_no_way_to_the_purge_around_a_guard(guard: str) -> None:
    """Catches a shortcut to the purge without confirmation, or without the preflight that sees the restore ready."""
    graph = _main_graph(hard_reset_definition())
    assert "Purge every segment" in graph.reachable()
    assert "Purge every segment" not in graph.reachable(without=[guard])
    assert "Copy every segment" not in graph.reachable(without=[guard])
    assert DIFFERENCES in graph.reachable()
    assert DIFFERENCES not in graph.reachable(without=[guard])


def test_no_way_to_a_write_without_an_available_backup() -> None:
    """Catches a purge, or the rest of a copy, over data that is not backed up."""
    graph = _main_graph(hard_reset_definition())
    gate = "Is only what differs to be written?"
    available = [("Is the backup available?", gate), ("Is there a backup?", gate)]
    writes = {"Purge every segment", "Copy every segment", DIFFERENCES}
    assert writes <= graph.reachable()
    assert not writes & graph.reachable(cut=available)
    rule = graph.states["Is the backup available?"]["Choices"][0]
    assert (rule["Condition"], rule["Next"]) == ("{% $states.input.status = 'AVAILABLE' %}", gate)
    given = graph.states["Is there a backup?"]["Choices"][0]
    assert (given["Condition"], given["Next"]) == ("{% $plan.backupArn != null %}", gate)


def test_a_differential_neither_purges_nor_skips_the_verification() -> None:
    """Catches a way from one mode into the other, and a differential whose outcome nobody checks."""
    graph = _main_graph(hard_reset_definition())
    gate = graph.states["Is only what differs to be written?"]
    (rule,) = gate["Choices"]
    assert (rule["Condition"], rule["Next"]) == ("{% $plan.mode = 'differential' %}", DIFFERENCES)
    assert gate["Default"] == "Is the table purged already?"
    after = Graph("/", DIFFERENCES, graph.states, isolated=True)
    assert {"Verify", "Done"} <= after.reachable()
    assert "Done" not in after.reachable(without=["Verify"])
    assert "Verify" not in after.reachable(without=["Digest every segment of both sides"])
    assert not {"Purge every segment", "Prove the destination is empty", "Copy every segment"} & after.reachable()
    assert DIFFERENCES not in Graph("/", gate["Default"], graph.states, isolated=True).reachable()


def test_a_copy_follows_a_proof_of_emptiness() -> None:
    """Catches a copy over leftovers. An incident that is resumed after that proof may go on with the copy."""
    graph = _main_graph(hard_reset_definition())
    resumed = ("Is the table purged already?", "Copy every segment")
    assert "Copy every segment" not in graph.reachable(without=["Prove the destination is empty"], cut=[resumed])
    assert graph.states["Is the table purged already?"]["Choices"][0]["Condition"] == "{% $plan.phase = 'copy' %}"


@pytest.mark.parametrize("make", [hard_reset_definition, orchestrator_definition])
def test_nothing_is_changed_before_stray_workers_have_ended(make: Any) -> None:
    """Catches a take-over of an aborted execution's lock while its Lambdas may still delete or freeze."""
    graph = _main_graph(make())
    wait = "Wait for stray workers"
    assert graph.states[wait]["Timestamp"] == "{% $plan.settledAt %}"
    changes = {"Purge every segment", "Copy every segment", DIFFERENCES, "Freeze the functions", "Reset every table"}
    assert changes & graph.reachable()
    assert not changes & graph.reachable(without=[wait])


@pytest.mark.parametrize(
    ("goal", "guard"),
    [
        ("Freeze the functions", "Validate the request"),
        ("Freeze the functions", "Is it a dry run?"),
        ("Reset every table", "Are the functions frozen?"),
        ("Reset every table", "Prepare every table"),
        ("Reset every table", "Is every table prepared?"),
        ("Reset every table", "Freeze what is new"),
        ("Reset every table", "Was everything still frozen?"),
        ("Discard the stream records", "Is every table verified?"),
        ("Wait until the stream records are discarded", "Do the streams skip the reset?"),
        ("Release the functions", "Is every table verified?"),
        ("Release the functions", "Shall the streams skip the reset?"),
        ("Delete the temporary tables", "Is every table verified?"),
        ("Done", "Record the success"),
        ("Release after the failure", "Is a table half restored?"),
    ],
)
def test_orchestrator_keeps_its_order(goal: str, guard: str) -> None:
    """Catches a path that resets before everything is prepared, or serves tables that are not verified."""
    graph = _main_graph(orchestrator_definition())
    # An incident of which only the release is left has been through all of it in an earlier execution.
    released = [("Is only the release left?", "Release the functions")]
    assert goal in graph.reachable(cut=released)
    assert goal not in graph.reachable(without=[guard], cut=released)


def test_only_a_release_that_has_begun_is_gone_on_with_at_once() -> None:
    """Catches a release of functions over tables that are not verified."""
    gate = _main_graph(orchestrator_definition()).states["Is only the release left?"]
    (rule,) = gate["Choices"]
    assert (rule["Condition"], rule["Next"]) == ("{% $plan.releaseBegun %}", "Release the functions")
    assert gate["Default"] == "Tell of the start"


def test_what_was_not_frozen_is_backed_up_before_the_purge() -> None:
    """Catches a purge over what a function wrote that came during the restore: it would be in no backup."""
    graph = _main_graph(orchestrator_definition())
    gate = graph.states["Was everything still frozen?"]
    still_frozen, again = gate["Choices"]
    assert (still_frozen["Condition"], still_frozen["Next"]) == ("{% $states.input.changed = 0 %}", "Reset every table")
    assert again["Next"] == "Prepare every table"
    assert gate["Default"] == "The functions do not stay frozen"
    assert "Reset every table" not in graph.reachable(cut=[("Was everything still frozen?", "Reset every table")])


def test_a_discard_that_fails_is_no_reason_to_release() -> None:
    """Catches an error of another name, after which the consumers would get the reset all the same."""
    discard = orchestrator_definition()["States"]["Discard the stream records"]
    (catch,) = discard["Catch"]
    assert catch["Output"]["error"] == DiscardIncomplete.__name__
    explained = jsonata.Jsonata(
        catch["Output"]["cause"].removeprefix("{%").removesuffix("%}").replace("$states", "states")
    )
    for error, cause in (("Lambda.Unknown", '{"errorType": "Other", "errorMessage": "m"}'), ("States.Timeout", "")):
        text = explained.evaluate({"states": {"errorOutput": {"Error": error, "Cause": cause}}})
        assert explain(catch["Output"]["error"], text) == (DiscardIncomplete.__name__, text)
        assert error in text
    own = '{"errorType": "DiscardIncomplete", "errorMessage": "m-1 does not."}'
    text = explained.evaluate({"states": {"errorOutput": {"Error": "DiscardIncomplete", "Cause": own}}})
    assert explain(catch["Output"]["error"], text) == (DiscardIncomplete.__name__, "m-1 does not.")


@pytest.mark.parametrize("work", ["Freeze the functions", "Freeze what is new", "Discard the stream records",
                                  "Release the functions", "Release after the failure"])  # fmt: skip
def test_work_that_is_not_complete_pauses_as_long_as_it_asks(work: str) -> None:
    """Catches a loop without a pause: it hammers a throttled API, and fills the history within minutes."""
    graph = _main_graph(orchestrator_definition())
    (decision,) = (name for name in graph.targets(work) if graph.states[name]["Type"] == "Choice")
    wait = graph.states[graph.states[decision]["Default"]]
    assert (wait["Type"], wait["Seconds"], wait["Next"]) == ("Wait", "{% $states.input.waitSeconds %}", work)


def test_a_failed_verdict_ends_as_one_whatever_the_comparison_does() -> None:
    """Catches a way from a failed verification to success, or round the record of it, by a comparison that fails."""
    graph = _main_graph(hard_reset_definition())
    verdict = graph.states["Verify"]["Catch"][0]
    assert verdict["ErrorEquals"] == ["VerificationFailed"]
    after = Graph("/", verdict["Next"], graph.states, isolated=True)
    assert {"Report the differences", "Record the failure", "Fail"} <= after.reachable()
    assert not {"Done", "Copy every segment", "Purge every segment", DIFFERENCES} & after.reachable()
    assert "Fail" not in after.reachable(without=["Record the failure"])
    # Nothing but the comparison's own states leads on, so no other error can take the verdict's place.
    assert set(graph.targets("Compare every segment of both sides")) == {"Report the differences"}
    report = graph.states["Report the differences"]
    assert set(graph.targets("Report the differences")) == {"Record the failure"}
    assert report["Catch"][-1]["Output"]["error"] == "VerificationFailed"
    # A good verdict costs no comparison.
    assert "Compare every segment of both sides" not in graph.reachable(cut=[("Verify", verdict["Next"])])


def test_a_writer_whose_answer_was_lost_is_over_before_the_next() -> None:
    """Catches a worker that still purges, or freezes, while the next one has long finished and the release is done."""
    lost = {"Lambda.ClientExecutionTimeoutException", "Lambda.SdkClientException", "Lambda.ServiceException"}
    longest_invocation = 900
    waiting = set()
    for make in (hard_reset_definition, orchestrator_definition):
        for graph in graphs(make()):
            for name, state in graph.states.items():
                for retrier in state.get("Retry", []):
                    if lost <= set(retrier["ErrorEquals"]):
                        assert retrier["IntervalSeconds"] > longest_invocation
                        assert "JitterStrategy" not in retrier, "jitter may make it shorter"
                        waiting.add(name)
                    elif "States.ALL" not in retrier["ErrorEquals"]:
                        assert not lost & set(retrier["ErrorEquals"])
    assert waiting == {
        "Purge the segment", "Copy the segment", "Apply the differences to the segment",
        "Prove the destination is empty", "Freeze the functions", "Freeze what is new", "Discard the stream records",
    }  # fmt: skip


def test_every_failure_is_told() -> None:
    """Catches a way to the end in failure that nobody hears of."""
    graph = _main_graph(orchestrator_definition())
    assert "Fail" not in graph.reachable(without=["Tell of the failure"])


def test_no_parent_times_out_before_its_child() -> None:
    """Catches the orchestrator giving up on a hard reset that still runs."""
    assert orchestrator_definition()["TimeoutSeconds"] > hard_reset_definition()["TimeoutSeconds"]
    for make in DEFINITIONS.values():
        for graph in graphs(make()):
            for state in graph.states.values():
                if state.get("Resource", "").endswith("lambda:invoke"):
                    assert state["TimeoutSeconds"] > 900, "Lambda's longest invocation"
                if "startExecution" in state.get("Resource", ""):
                    assert "TimeoutSeconds" not in state
    a_day = orchestrator_module.RESTORE_POLLS * orchestrator_module.RESTORE_POLL_SECONDS
    assert a_day + hard_reset_module.TIMEOUT_SECONDS < orchestrator_module.TIMEOUT_SECONDS
