"""What the roles may do, read from their policies."""

from __future__ import annotations

import json
from typing import Any

import parliament

from localaws.deployment import Plan, plan

from .conftest import PROJECT
from .test_program import of_type

# Actions that AWS authorises on "*" only.
UNNAMEABLE = {
    "lambda:ListFunctions",
    "lambda:ListEventSourceMappings",
    "tag:GetResources",
    "logs:CreateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:DescribeLogGroups",
    "logs:DescribeResourcePolicies",
    "logs:GetLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:UpdateLogDelivery",
}
WRITES = {"BatchWriteItem", "PutItem", "UpdateItem", "DeleteItem", "DeleteTable", "RestoreTableToPointInTime"}


def policies(resources: Plan) -> dict[str, list[dict[str, Any]]]:
    """Role name → its statements."""
    found: dict[str, list[dict[str, Any]]] = {}
    for policy in of_type(resources, "iam/rolePolicy:RolePolicy"):
        found.setdefault(policy.inputs["role"], []).extend(json.loads(policy.inputs["policy"])["Statement"])
    return found


def allowed(statements: list[dict[str, Any]], action: str) -> set[str]:
    """The resources on which an action is allowed."""
    return {
        resource
        for statement in statements
        if statement["Effect"] == "Allow" and action in statement["Action"]
        for resource in statement["Resource"]
    }


def test_every_role_denies_the_sensitive_table(prod_plan: Plan) -> None:
    """Catches a new role without the Deny, through which the sensitive table could be read or written."""
    roles = policies(prod_plan)
    assert len(roles) == len(of_type(prod_plan, "iam/role:Role")) >= 18
    arn = "arn:aws:dynamodb:us-east-1:000000000000:table/prod-ssn"
    for role, statements in roles.items():
        denied = [s for s in statements if s["Effect"] == "Deny" and s["Action"] == "dynamodb:*"]
        assert [s["Resource"] for s in denied] == [[arn, f"{arn}/*"]], role
        assert "Condition" not in denied[0]


def test_no_role_allows_the_sensitive_table(prod_plan: Plan) -> None:
    """Catches an Allow that names the sensitive table beside the Deny."""
    for statements in policies(prod_plan).values():
        for statement in statements:
            if statement["Effect"] == "Allow":
                assert not [resource for resource in statement["Resource"] if "prod-ssn" in resource]


def test_stars_stand_only_where_aws_demands_them(stack_plan: Plan) -> None:
    """Catches a permission on everything, or an action with a wildcard."""
    for role, statements in policies(stack_plan).items():
        for statement in statements:
            if statement["Effect"] != "Allow":
                continue
            assert all("*" not in action or action.startswith("kms:") for action in statement["Action"]), role
            if "*" in statement["Resource"]:
                assert set(statement["Action"]) <= UNNAMEABLE, role


def test_writers_write_only_where_they_should(prod_plan: Plan) -> None:
    """Catches a worker that could write a source, or a table that nobody protects."""
    tables = {f"arn:aws:dynamodb:us-east-1:000000000000:table/prod-{name}" for name in (
        "licenses", "providers", "privileges", "license-events", "jurisdictions")}  # fmt: skip
    ledger = {"arn:aws:dynamodb:us-east-1:000000000000:table/prod-dr-ledger"}
    temporary = {"arn:aws:dynamodb:us-east-1:000000000000:table/dr-prod.*"}
    expected = {"purge-segment": tables | ledger, "copy-segment": tables | ledger, "orchestrator": tables | temporary}
    for role, statements in policies(prod_plan).items():
        short = role.removeprefix("prod-dr-").removesuffix("-us-east-1")
        written = {arn for operation in WRITES for arn in allowed(statements, f"dynamodb:{operation}")}
        assert written <= expected.get(short, ledger), role
    purge = policies(prod_plan)["prod-dr-purge-segment-us-east-1"]
    assert allowed(purge, "dynamodb:BatchWriteItem") == tables


def test_a_hard_reset_backs_up_its_own_table_only(prod_plan: Plan) -> None:
    """Catches a machine of one table that could act on another."""
    statements = policies(prod_plan)["prod-dr-hard-reset-prod-licenses-us-east-1"]
    assert allowed(statements, "dynamodb:CreateBackup") == {
        "arn:aws:dynamodb:us-east-1:000000000000:table/prod-licenses"
    }


def test_the_freeze_cannot_invoke_or_freeze_the_recovery(prod_plan: Plan) -> None:
    """Catches a freeze that stops the functions that have to undo it."""
    statements = policies(prod_plan)["prod-dr-freeze-functions-us-east-1"]
    assert not allowed(statements, "lambda:InvokeFunction")
    denied = {arn for s in statements if s.get("Sid") == "NeverFreezeTheRecovery" for arn in s["Resource"]}
    functions = {function.outputs["arn"] for function in of_type(prod_plan, "lambda/function:Function")}
    assert denied == functions


def _is_wrong(finding: Any) -> bool:
    """Whether the linter's data contradicts AWS, which names Standard executions ``execution:MACHINE:NAME``."""
    return finding.issue == "RESOURCE_MISMATCH" and "express" in str(finding.detail)


def test_policies_pass_the_linter(stack_plan: Plan) -> None:
    """Catches unknown actions, and resources or conditions that do not go with their action."""
    for role, statements in policies(stack_plan).items():
        document = json.dumps({"Version": "2012-10-17", "Statement": statements})
        findings = parliament.analyze_policy_string(document).findings
        assert [str(finding) for finding in findings if not _is_wrong(finding)] == [], role


def test_roles_trust_their_service_in_this_account_only(stack_plan: Plan) -> None:
    """Catches a role that another account's resources could use through the service (confused deputy)."""
    for role in of_type(stack_plan, "iam/role:Role"):
        (statement,) = json.loads(role.inputs["assumeRolePolicy"])["Statement"]
        assert statement["Principal"]["Service"] in ("lambda.amazonaws.com", "states.amazonaws.com")
        assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": "000000000000"}}


def test_no_sensitive_table_means_no_deny() -> None:
    """Catches an invalid policy, a Deny of nothing, where a stack has no sensitive table."""
    without = plan(PROJECT, "prod", {"sensitiveTables": []})
    assert not [s for statements in policies(without).values() for s in statements if s["Action"] == "dynamodb:*"]
