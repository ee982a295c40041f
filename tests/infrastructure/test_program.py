"""The program as the engine would see it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from components.recovery_functions import FUNCTION_NAMES
from localaws.deployment import Plan, PlannedResource, plan

from .conftest import PROJECT, STACKS

OUTPUTS = {
    "orchestratorStateMachineArn",
    "hardResetStateMachineArns",
    "ledgerTableName",
    "reportBucketName",
    "notificationTopicArn",
}


def of_type(resources: Plan, kind: str) -> list[PlannedResource]:
    """The resources of a type such as ``iam/role:Role``."""
    return [resource for resource in resources if resource.type == f"aws:{kind}"]


def test_there_is_a_production_and_a_local_stack() -> None:
    """Catches plans that are tested for no stack at all."""
    assert {"prod", "local"} <= set(STACKS)


def test_outputs_are_those_of_the_interface(stack_plan: Plan) -> None:
    """Catches an output that scripts rely on and that is missing or empty."""
    assert set(stack_plan.outputs) == OUTPUTS
    assert all(stack_plan.outputs.values())


def test_production_protects_five_tables_and_one_machine_each(prod_plan: Plan) -> None:
    """Catches a table of the configuration that got no hard reset, or one that nobody asked for."""
    machines = prod_plan.outputs["hardResetStateMachineArns"]
    assert len(machines) == 5
    assert all(arn.endswith(f"stateMachine:prod-dr-hard-reset-{table}") for table, arn in machines.items())
    names = [machine.inputs["name"] for machine in of_type(prod_plan, "sfn/stateMachine:StateMachine")]
    assert sorted(names) == sorted(
        ["prod-dr-orchestrator", "prod-dr-guardian", *(arn.split(":")[-1] for arn in machines.values())]
    )


def test_every_function_and_machine_has_a_role_of_its_own(stack_plan: Plan) -> None:
    """Catches two that share a role, and with it each other's permissions."""
    users = [
        resource
        for kind in ("lambda/function:Function", "sfn/stateMachine:StateMachine")
        for resource in of_type(stack_plan, kind)
    ]
    targets = of_type(stack_plan, "cloudwatch/eventTarget:EventTarget")
    roles = [user.inputs.get("role") or user.inputs["roleArn"] for user in users]
    # What starts the guardian, an event or the schedule, does so in one and the same role.
    (starter,) = {target.inputs["roleArn"] for target in targets}
    assert starter not in roles
    assert len(users) >= len(FUNCTION_NAMES) + 3
    assert len(set(roles)) == len(users) == len(of_type(stack_plan, "iam/role:Role")) - 1


def test_every_function_is_deployed_with_its_own_module(stack_plan: Plan) -> None:
    """Catches a handler string without a module, which fails at the first invocation only."""
    functions = of_type(stack_plan, "lambda/function:Function")
    environment = json.loads(json.dumps(stack_plan.outputs["ledgerTableName"])).removesuffix("-dr-ledger")
    assert {f.inputs["name"] for f in functions} == {f"{environment}-dr-{name}" for name in FUNCTION_NAMES}
    for function in functions:
        module, entry = function.inputs["handler"].rsplit(".", 1)
        source = PROJECT / (module.replace(".", "/") + ".py")
        assert f"def {entry}(" in source.read_text()
        archived = function.inputs["code"]["archive"]
        assert str(source.relative_to(PROJECT)) in archived
        assert "handlers/core/engine.py" in archived
        assert not [path for path in archived if "__pycache__" in path]


def test_logs_are_kept_for_a_limited_time_and_hold_no_data(stack_plan: Plan) -> None:
    """Catches a log group that Lambda makes by itself and keeps for ever, and item data in a machine's log."""
    groups = {group.inputs["name"]: group for group in of_type(stack_plan, "cloudwatch/logGroup:LogGroup")}
    assert all(group.inputs["retentionInDays"] > 0 for group in groups.values())
    for function in of_type(stack_plan, "lambda/function:Function"):
        assert f"/aws/lambda/{function.inputs['name']}" in groups
    for machine in of_type(stack_plan, "sfn/stateMachine:StateMachine"):
        assert f"/aws/vendedlogs/states/{machine.inputs['name']}" in groups
        assert machine.inputs["loggingConfiguration"]["includeExecutionData"] is False


def test_what_holds_data_survives_update_and_destroy(stack_plan: Plan) -> None:
    """Catches a destroy that takes the saved settings of a frozen system, or the evidence, with it."""
    holders = [*of_type(stack_plan, "dynamodb/table:Table"), *of_type(stack_plan, "s3/bucket:Bucket")]
    assert len(holders) == 2
    for resource in holders:
        assert resource.options["protect"] is True
        assert resource.options["retain_on_delete"] is True
        assert resource.inputs.get("forceDestroy", False) is False
    ledger = of_type(stack_plan, "dynamodb/table:Table")[0]
    assert ledger.inputs["deletionProtectionEnabled"] is True
    assert ledger.inputs["pointInTimeRecovery"]["enabled"] is True


def test_everything_that_can_be_tagged_is(stack_plan: Plan) -> None:
    """Catches a resource whose owner nobody can tell."""
    kinds = (
        "iam/role:Role",
        "lambda/function:Function",
        "sfn/stateMachine:StateMachine",
        "dynamodb/table:Table",
        "s3/bucket:Bucket",
        "sns/topic:Topic",
        "cloudwatch/logGroup:LogGroup",
    )
    for kind in kinds:
        resources = of_type(stack_plan, kind)
        assert resources
        assert all(resource.inputs["tags"]["managed-by"] == "dynamodb-dr" for resource in resources)


# Inputs whose change makes the provider replace a resource (create a new one, delete the old).
REPLACING = {"name", "bucket", "hashKey", "rangeKey", "type", "role"}


def _identity(resources: Plan) -> dict[str, dict[str, Any]]:
    return {
        resource.urn: {key: resource.inputs[key] for key in REPLACING & set(resource.inputs)}
        for resource in resources
        if resource.custom
    }


def test_an_update_replaces_nothing() -> None:
    """Catches a configuration change that would replace resources: another order of tables, one more, other options."""
    tables = ["prod-licenses", "prod-providers", "prod-privileges"]
    before = _identity(plan(PROJECT, "prod", {"tables": tables}))
    changed: list[Any] = [{"name": "prod-privileges", "concurrency": 7}, "prod-new", "prod-licenses", "prod-providers"]
    after = _identity(plan(PROJECT, "prod", {"tables": changed, "workerTimeoutSeconds": 60, "logRetentionDays": 30}))
    assert len(before) > 50
    assert {urn: after.get(urn) for urn in before} == before
    added = set(after) - set(before)
    assert added
    assert all("prod-new" in urn for urn in added)


def test_a_hundred_tables_fit_the_limits_of_iam_and_step_functions() -> None:
    """Catches policies over IAM's size and names over their limits, which only show in an account that big."""
    tables = [f"prod-{index:03d}-a-table-with-quite-a-long-name-as-teams-like-them" for index in range(100)]
    big = plan(PROJECT, "prod", {"tables": tables})
    assert len(big.outputs["hardResetStateMachineArns"]) == 100
    names = [machine.inputs["name"] for machine in of_type(big, "sfn/stateMachine:StateMachine")]
    assert max(map(len, names)) <= 80
    assert len(set(names)) == 102
    managed = of_type(big, "iam/policy:Policy")
    assert managed, "100 tables do not fit an inline policy; nothing was tested"
    assert all(len(policy.inputs["policy"]) <= 6144 for policy in managed)
    attachments: dict[str, int] = {}
    for attachment in of_type(big, "iam/rolePolicyAttachment:RolePolicyAttachment"):
        attachments[attachment.inputs["role"]] = attachments.get(attachment.inputs["role"], 0) + 1
    assert max(attachments.values()) <= 10  # IAM's quota per role
    assert all(len(policy.inputs["policy"]) <= 10240 for policy in of_type(big, "iam/rolePolicy:RolePolicy"))
    for machine in of_type(big, "sfn/stateMachine:StateMachine"):
        assert len(machine.inputs["definition"]) <= 1_048_576


@pytest.mark.parametrize("table", ["prod-a.b", "prod-" + "x" * 250])
def test_unusual_table_names_get_valid_resource_names(table: str) -> None:
    """Catches a dot or a great length in a table's name that makes an invalid state machine or role name."""
    outputs = plan(PROJECT, "prod", {"tables": [table, "prod-a-b"]}).outputs
    machines = [arn.split(":")[-1] for arn in outputs["hardResetStateMachineArns"].values()]
    assert len(set(machines)) == 2
    assert all(len(name) <= 80 and "." not in name for name in machines)


def test_configured_prices_and_options_reach_validation() -> None:
    """Catches a forecast with other prices, or other workers, than the stack's."""
    planned = plan(PROJECT, "prod", {"prices": {"writeMillion": 0.7}})
    machines = of_type(planned, "sfn/stateMachine:StateMachine")
    (machine,) = (each for each in machines if each.inputs["name"] == "prod-dr-orchestrator")
    payload = json.loads(machine.inputs["definition"])["States"]["Validate the request"]["Arguments"]["Payload"]
    assert payload["prices"] == {"writeMillion": 0.7}
    assert all(options["concurrency"] > 0 for options in payload["protectedTables"].values())
