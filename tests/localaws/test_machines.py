"""State machines: what differs between ministack's interpreter and AWS, and what AWS limits."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localaws.emulator.asl_errors import matches
from localaws.emulator.states_service import definition_problem
from localaws.server import EmbeddedAws

from .conftest import Machines, until
from .test_lambda_errors import SOURCE, invoke

DISTRIBUTED = {"ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}}
MODES: list[dict[str, Any]] = [{}, DISTRIBUTED]


def passing(**fields: Any) -> dict[str, Any]:
    """A Pass state that ends."""
    return {"Type": "Pass", "End": True, **fields}


def processor(mode: dict[str, Any], *states: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    """An ItemProcessor."""
    return {**mode, "StartAt": states[0][0], "States": dict(states)}


@pytest.mark.parametrize("mode", MODES, ids=["inline", "distributed"])
def test_map_fields_are_expressions(machines: Machines, mode: dict[str, Any]) -> None:
    """Would catch: a distributed Map that runs over the whole input, or hands each child an unevaluated template."""
    state = {
        "Type": "Map",
        "Items": "{% $states.input.numbers[$ > 1] %}",
        "MaxConcurrency": "{% $count($states.input.numbers) %}",
        "ItemSelector": {
            "number": "{% $states.context.Map.Item.Value %}",
            "index": "{% $states.context.Map.Item.Index %}",
            "base": "{% $states.input.base %}",
        },
        "ItemProcessor": processor(
            mode, ("Add", passing(Output="{% $states.input.number + $states.input.base + $states.input.index %}"))
        ),
        "Assign": {"total": "{% $sum($states.result) %}"},
        "Output": {"sums": "{% $states.result %}"},
        "Next": "End",
    }
    end = passing(Output="{% {'sums': $states.input.sums, 'total': $total} %}")
    output = machines.output({"Each": state, "End": end}, {"numbers": [1, 2, 3], "base": 10})
    assert output == {"sums": [12, 14], "total": 26}


def test_a_distributed_child_sees_nothing_but_its_input(machines: Machines) -> None:
    """Would catch: children that read variables or the parent's context, which on AWS they cannot."""
    child = passing(
        Output={
            "outer": "{% $exists($secret) %}",
            "input": "{% $states.context.Execution.Input %}",
            "own": "{% $states.context.Execution.Id %}",
            "map": "{% $exists($states.context.Map) %}",
        }
    )
    states = {
        "Assign": {"Type": "Pass", "Assign": {"secret": 1}, "Next": "Each"},
        "Each": {
            "Type": "Map",
            "Items": [{"a": 1}],
            "ItemProcessor": processor(DISTRIBUTED, ("Tell", child)),
            "End": True,
        },
    }
    arn = machines.start(machines.create(states))
    (told,) = machines.wait(arn)["output"]
    assert told["outer"] is False
    assert told["map"] is False
    assert told["input"] == {"a": 1}
    assert told["own"] != arn
    described = machines.client.describe_execution(executionArn=told["own"])
    assert described["status"] == "SUCCEEDED"
    assert json.loads(described["input"]) == {"a": 1}


@pytest.mark.parametrize("kind", ["Parallel", "Map"])
def test_inner_scopes_read_outer_variables_and_keep_theirs(machines: Machines, kind: str) -> None:
    """Would catch: a branch whose variables leak out, so that a machine works here and reads undefined on AWS."""
    inner = {
        "Read": {"Type": "Pass", "Assign": {"own": "{% $outer + 1 %}"}, "Next": "Tell"},
        "Tell": passing(Output="{% $own %}"),
    }
    fields: dict[str, Any] = (
        {"Branches": [{"StartAt": "Read", "States": inner}] * 2}
        if kind == "Parallel"
        else {"Items": [1, 2], "ItemProcessor": {"StartAt": "Read", "States": inner}}
    )
    states = {
        "Assign": {"Type": "Pass", "Assign": {"outer": 1}, "Next": "Inside"},
        "Inside": {"Type": kind, **fields, "Next": "After"},
        "After": passing(Output="{% {'result': $states.input, 'leaked': $exists($own), 'outer': $outer} %}"),
    }
    assert machines.output(states) == {"result": [2, 2], "leaked": False, "outer": 1}


def test_assign_sees_the_values_at_the_states_entry(machines: Machines) -> None:
    """Would catch: variables set one after the other, where AWS sets them together."""
    states = {
        "First": {"Type": "Pass", "Assign": {"a": 1, "b": 2}, "Next": "Swap"},
        "Swap": {"Type": "Pass", "Assign": {"a": "{% $b %}", "b": "{% $a %}"}, "Output": "{% $a %}", "Next": "Tell"},
        "Tell": passing(Output="{% [$states.input, $a, $b] %}"),
    }
    assert machines.output(states) == [1, 2, 1]


def test_parallel_takes_arguments_and_gives_output(machines: Machines) -> None:
    """Would catch: Arguments and Output of a Parallel ignored, as ministack does for JSONata."""
    branch = {"StartAt": "Tell", "States": {"Tell": passing(Output="{% $states.input.x + 1 %}")}}
    state = {
        "Type": "Parallel",
        "Branches": [branch, branch],
        "Arguments": {"x": "{% $states.input.y %}"},
        "Output": "{% $sum($states.result) %}",
        "End": True,
    }
    assert machines.output({"Both": state}, {"y": 4}) == 10


def test_numbers_text_and_undefined_are_as_on_aws(machines: Machines) -> None:
    """Would catch: 3.0 where AWS writes 3, and a missing field that silently becomes null."""
    output = machines.output({"Tell": passing(Output={"sum": "{% $sum([1.5, 1.5]) %}", "null": "{% null %}"})})
    assert json.dumps(output) == '{"sum": 3, "null": null}'
    failed = machines.run({"Tell": passing(Output="{% $states.input.missing %}")})
    assert failed["error"] == "States.QueryEvaluationError"


def test_a_condition_must_be_boolean(machines: Machines) -> None:
    """Would catch: a Choice on a number or text, which AWS fails at run time."""
    choice = {"Type": "Choice", "Choices": [{"Condition": "{% $states.input.n %}", "Next": "End"}], "Default": "End"}
    failed = machines.run({"Choose": choice, "End": {"Type": "Succeed"}}, {"n": 1})
    assert failed["error"] == "States.QueryEvaluationError"
    assert "Expected 'boolean'" in failed["cause"]


def test_choice_output_and_assign(machines: Machines) -> None:
    """Would catch: the Assign of a Choice's default applied to its rules, or the other way round."""
    choice = {
        "Type": "Choice",
        "Choices": [{"Condition": "{% $states.input.n = 1 %}", "Assign": {"took": "rule"}, "Next": "End"}],
        "Default": "End",
        "Assign": {"took": "default"},
    }
    states = {"Choose": choice, "End": passing(Output="{% $took %}")}
    assert machines.output(states, {"n": 1}) == "rule"
    assert machines.output(states, {"n": 2}) == "default"
    without = {"Choose": {k: v for k, v in choice.items() if k not in ("Default", "Assign")}, "End": states["End"]}
    assert machines.run(without, {"n": 2})["error"] == "States.NoChoiceMatched"


@pytest.mark.parametrize(
    ("limits", "failures", "status"),
    [
        ({}, 1, "FAILED"),
        ({"ToleratedFailurePercentage": 50}, 2, "SUCCEEDED"),
        ({"ToleratedFailurePercentage": "{% 25 * 1 %}"}, 2, "FAILED"),
        ({"ToleratedFailureCount": 1}, 1, "SUCCEEDED"),
        ({"ToleratedFailureCount": 1}, 2, "FAILED"),
    ],
)
def test_tolerated_failures_of_a_distributed_map(
    machines: Machines, limits: dict[str, Any], failures: int, status: str
) -> None:
    """Would catch: a threshold that is ignored, or failed items that come back as null among the results."""
    state = {
        "Type": "Map",
        "Items": "{% $states.input %}",
        "ItemProcessor": processor(
            DISTRIBUTED,
            (
                "Fail?",
                {
                    "Type": "Choice",
                    "Choices": [{"Condition": "{% $states.input.fail %}", "Next": "Fail"}],
                    "Default": "Fine",
                },
            ),
            ("Fail", {"Type": "Fail", "Error": "Planted", "Cause": "planted"}),
            ("Fine", {"Type": "Succeed"}),
        ),
        **limits,
        "End": True,
    }
    items = [{"n": number, "fail": number < failures} for number in range(4)]
    execution = machines.run({"Each": state}, items)
    assert execution["status"] == status
    if status == "SUCCEEDED":
        assert execution["output"] == [item for item in items if not item["fail"]]
    else:
        assert execution["error"] == "States.ExceedToleratedFailureThreshold"


def test_map_runs_and_children_are_listed(machines: Machines) -> None:
    """Would catch: progress pages and monitoring that show nothing of a distributed Map."""
    state = {
        "Type": "Map",
        "Label": "Segments",
        "Items": [1, 2, 3],
        "ItemProcessor": processor(DISTRIBUTED, ("Tell", passing())),
        "End": True,
    }
    arn = machines.start(machines.create({"Each": state}))
    machines.wait(arn)
    (run,) = machines.client.list_map_runs(executionArn=arn)["mapRuns"]
    described = machines.client.describe_map_run(mapRunArn=run["mapRunArn"])
    assert described["status"] == "SUCCEEDED"
    assert described["itemCounts"]["succeeded"] == 3
    assert described["itemCounts"]["pending"] == described["itemCounts"]["running"] == 0
    children = machines.client.list_executions(mapRunArn=run["mapRunArn"])["executions"]
    assert {child["status"] for child in children} == {"SUCCEEDED"}
    assert len(children) == 3


def nested(machine_arn: str, value: Any, **more: Any) -> dict[str, Any]:
    """A Task state that runs another machine and waits for it."""
    return {
        "Type": "Task",
        "Resource": "arn:aws:states:::states:startExecution.sync:2",
        "Arguments": {"StateMachineArn": machine_arn, "Input": value},
        "End": True,
        **more,
    }


def test_nested_output_is_parsed(machines: Machines) -> None:
    """Would catch: a parent that reads the child's output as text, or as an object, unlike on AWS."""
    child = machines.create({"Tell": passing(Output={"n": "{% $states.input.n + 1 %}"})})
    task = nested(child, {"n": 1}, Output="{% $states.result.Output %}")
    assert machines.output({"Run": task}) == {"n": 2}


def test_a_childs_failure_surfaces_as_task_failed(machines: Machines) -> None:
    """Would catch: a parent that catches the child's own error name, which on AWS never reaches it."""
    child = machines.create({"Fail": {"Type": "Fail", "Error": "KeySchemaMismatch", "Cause": "the keys differ"}})
    task = nested(child, {}) | {
        "Catch": [
            {"ErrorEquals": ["KeySchemaMismatch"], "Next": "Wrong"},
            {"ErrorEquals": ["States.TaskFailed"], "Next": "Caught", "Output": "{% $states.errorOutput %}"},
        ]
    }
    states = {"Run": task, "Wrong": {"Type": "Fail"}, "Caught": {"Type": "Succeed"}}
    caught = machines.output(states)
    cause = json.loads(caught["Cause"])
    assert caught["Error"] == "States.TaskFailed"
    assert (cause["Error"], cause["Cause"], cause["Status"]) == ("KeySchemaMismatch", "the keys differ", "FAILED")
    assert cause["StateMachineArn"] == child


def test_nested_execution_is_visible_while_it_runs_and_stops_with_its_parent(machines: Machines) -> None:
    """Would catch: a purge that goes on after the operator stopped the recovery."""
    wait = {"Type": "Wait", "Seconds": 600_000, "End": True}
    child = machines.create({"Wait": wait})
    parent = machines.start(machines.create({"Run": nested(child, {})}))

    def running() -> list[Any]:
        found = machines.client.list_executions(stateMachineArn=child, statusFilter="RUNNING")["executions"]
        return list(found)

    (listed,) = until(running)
    assert machines.client.describe_execution(executionArn=listed["executionArn"])["status"] == "RUNNING"
    machines.client.stop_execution(executionArn=parent, error="Operator", cause="stopped")
    assert machines.wait(parent)["status"] == "ABORTED"
    assert machines.wait(listed["executionArn"])["status"] == "ABORTED"
    assert running() == []


def test_stopping_ends_map_children_and_no_later_state_runs(
    aws: EmbeddedAws, machines: Machines, table: Callable[..., str], function: Callable[..., str]
) -> None:
    """Would catch: an execution shown as ABORTED whose threads go on invoking functions."""
    name = table()
    source = """
        import os, time, boto3

        def handler(event, context):
            boto3.client("dynamodb").put_item(
                TableName=event["table"], Item={"pk": {"S": event["step"]}, "sk": {"N": str(event["n"])}}
            )
    """
    arn = function(source)
    payload = {"table": name, "n": "{% $states.input %}"}
    first = invoke(arn, {**payload, "step": "first"}) | {"Output": "{% $states.input %}", "Next": "Wait"}
    del first["End"]
    state = {
        "Type": "Map",
        "Items": [1, 2],
        "ItemProcessor": processor(
            DISTRIBUTED,
            ("First", first),
            ("Wait", {"Type": "Wait", "Seconds": 600_000, "Next": "Second"}),
            ("Second", invoke(arn, {**payload, "step": "second"})),
        ),
        "End": True,
    }
    execution = machines.start(machines.create({"Each": state}))
    dynamodb = aws.client("dynamodb")
    until(lambda: dynamodb.scan(TableName=name)["Count"] == 2)
    machines.client.stop_execution(executionArn=execution)
    (run,) = machines.client.list_map_runs(executionArn=execution)["mapRuns"]

    def all_aborted() -> bool:
        children = machines.client.list_executions(mapRunArn=run["mapRunArn"])["executions"]
        return {child["status"] for child in children} == {"ABORTED"}

    until(all_aborted)
    assert {item["pk"]["S"] for item in dynamodb.scan(TableName=name)["Items"]} == {"first"}


def test_a_machine_times_out(machines: Machines) -> None:
    """Would catch: a recovery that waits for ever for something that never comes."""
    execution = machines.run({"Wait": {"Type": "Wait", "Seconds": 600_000, "End": True}}, TimeoutSeconds=1)
    assert execution["status"] == "TIMED_OUT"


def test_a_task_times_out(machines: Machines, function: Callable[..., str]) -> None:
    """Would catch: a task's limit ignored; States.Timeout is not a States.TaskFailed."""
    task = invoke(function(SOURCE), {"sleep": 5}) | {
        "TimeoutSeconds": "{% 1 %}",
        "Catch": [
            {"ErrorEquals": ["States.TaskFailed"], "Next": "Wrong"},
            {"ErrorEquals": ["States.Timeout"], "Next": "Caught"},
        ],
    }
    assert (
        machines.output({"Call": task, "Wrong": {"Type": "Fail"}, "Caught": passing(Output="timed out")}) == "timed out"
    )


def test_what_wildcards_match() -> None:
    """Would catch: States.ALL that hides a payload over the limit, which on AWS ends the execution."""
    assert matches(["States.ALL"], "Anything")
    assert matches(["States.TaskFailed"], "Anything")
    assert not matches(["States.TaskFailed"], "States.Timeout")
    assert matches(["States.ALL"], "States.Timeout")
    for error in ("States.Runtime", "States.DataLimitExceeded"):
        assert not matches(["States.ALL"], error)
        assert matches([error], error)


def test_a_payload_over_the_limit_fails_past_catch_all(machines: Machines) -> None:
    """Would catch: results that grow with the number of segments until AWS refuses them in an emergency."""
    catch = [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]
    state = {
        "Type": "Parallel",
        "Branches": [{"StartAt": "Grow", "States": {"Grow": passing(Output="{% $pad('', 140000, 'x') %}")}}] * 2,
        "Catch": catch,
        "End": True,
    }
    execution = machines.run({"Both": state, "Caught": {"Type": "Succeed"}})
    assert execution["error"] == "States.DataLimitExceeded"
    assert "262144" in execution["cause"]


def test_an_input_over_the_limit_is_refused(machines: Machines) -> None:
    """Would catch: an incident with so many tables that starting it fails only on AWS."""
    arn = machines.create({"End": {"Type": "Succeed"}})
    with pytest.raises(ClientError, match="262144"):
        machines.start(arn, "x" * 262_144)


def test_retry_counts_backs_off_and_gives_up(machines: Machines, function: Callable[..., str]) -> None:
    """Would catch: attempts that never end, or a RetryCount the states cannot see."""
    task = invoke(function(SOURCE), {"fail": "{% 'attempt ' & $states.context.State.RetryCount %}"}) | {
        "Retry": [
            {
                "ErrorEquals": ["OrderRefused"],
                "MaxAttempts": 2,
                "IntervalSeconds": 1,
                "MaxDelaySeconds": 2,
                "JitterStrategy": "FULL",
            }
        ]
    }
    execution = machines.run({"Call": task})
    assert json.loads(execution["cause"])["errorMessage"] == "attempt 2"


def test_a_failing_branch_ends_the_others(machines: Machines) -> None:
    """Would catch: a machine that waits ten hours for the other branch before it reports the failure."""
    branches = [
        {"StartAt": "Fail", "States": {"Fail": {"Type": "Fail", "Error": "Planted"}}},
        {"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 600_000, "End": True}}},
    ]
    assert machines.run({"Both": {"Type": "Parallel", "Branches": branches, "End": True}})["error"] == "Planted"


def test_history_reads_as_on_aws(machines: Machines, function: Callable[..., str]) -> None:
    """Would catch: a history too short to tell how near an execution is to the limit of 25,000 events."""
    arn = machines.start(machines.create({"Call": invoke(function(SOURCE), {})}))
    machines.wait(arn)
    events = machines.client.get_execution_history(executionArn=arn)["events"]
    assert [event["type"] for event in events] == [
        "ExecutionStarted",
        "TaskStateEntered",
        "TaskScheduled",
        "TaskStarted",
        "TaskSucceeded",
        "TaskStateExited",
        "ExecutionSucceeded",
    ]
    assert [event["id"] for event in events] == list(range(1, 8))


def test_an_endless_loop_ends_at_the_history_limit(machines: Machines) -> None:
    """Would catch: polling loops that outgrow one execution's history before they end."""
    loop = {"Type": "Pass", "Next": "Again"}
    choice = {"Type": "Choice", "Choices": [{"Condition": "{% false %}", "Next": "End"}], "Default": "Loop"}
    execution = machines.run({"Loop": loop, "Again": choice, "End": {"Type": "Succeed"}})
    assert execution["error"] == "States.Runtime"
    assert "25000" in execution["cause"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"QueryLanguage": "JSONPath"}, "only machines with"),
        ({"StartAt": "Nowhere"}, "no state is called 'Nowhere'"),
        ({"States": {"A": {"Type": "Pass", "ResultPath": "$.x", "End": True}}}, "uses JSONPath"),
        ({"States": {"A": {"Type": "Pass"}}}, "either Next or End"),
        ({"States": {"A": {"Type": "Pass", "Next": "B"}}}, "no state is called 'B'"),
        ({"States": {"A": {"Type": "Task", "Resource": "arn:aws:states:::ecs:runTask", "End": True}}}, "ecs:runTask"),
        (
            {"States": {"A": {"Type": "Map", "ItemReader": {}, "ItemProcessor": {}, "End": True}}},
            "does not support ItemReader",
        ),
    ],
)
def test_what_cannot_be_run_faithfully_is_refused(change: dict[str, Any], problem: str) -> None:
    """Would catch: a machine that runs here by accident, with something in it ignored."""
    definition = {"QueryLanguage": "JSONata", "StartAt": "A", "States": {"A": {"Type": "Pass", "End": True}}}
    assert definition_problem(json.dumps(definition)) is None
    assert problem in (definition_problem(json.dumps({**definition, **change})) or "")


def test_a_refused_definition_is_not_created(machines: Machines) -> None:
    """Would catch: a check that nobody calls."""
    with pytest.raises(ClientError, match="InvalidDefinition"):
        machines.create({"A": {"Type": "Pass", "Next": "B"}})
    with pytest.raises(ClientError, match="INVALID_JSONATA_EXPRESSION"):
        machines.create({"A": passing(Output="{% ( %}")})
