"""What the roles may do, read from their policies."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from functools import cache
from typing import Any

import parliament
import pytest

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


KEY = "arn:aws:kms:us-east-1:000000000000:key/1234abcd-12ab-34cd-56ef-1234567890ab"

# Every pattern in a resource that a role is allowed something on, and why no name could stand there.
PATTERNS = {
    "*": "actions that AWS authorises on no resource",
    "arn:aws:dynamodb:us-east-1:000000000000:table/*/backup/*": "DynamoDB makes up the ids of backups",
    "arn:aws:dynamodb:us-east-1:000000000000:table/prod-?/backup/*": "DynamoDB makes up the ids of backups",
    "arn:aws:dynamodb:us-east-1:000000000000:table/dr-prod.*": "restored tables are named after their incident",
    "arn:aws:lambda:us-east-1:000000000000:event-source-mapping:*": "AWS makes up the ids of mappings",
    "arn:aws:lambda:us-east-1:000000000000:function:*": "selected by tag; released also when the tag is gone",
    "arn:aws:lambda:us-east-1:000000000000:function:prod-app-*": "selected by prefix",
    "arn:aws:logs:us-east-1:000000000000:log-group:/aws/lambda/prod-dr-?:*": "AWS makes up the names of log streams",
    "arn:aws:s3:::prod-dr-reports-000000000000-us-east-1/differences/*": "lists are named after incident and table",
    "arn:aws:s3:::prod-dr-reports-000000000000-us-east-1/reports/*": "reports are named after their incident",
    "arn:aws:states:us-east-1:000000000000:execution:prod-dr-*:*": "AWS makes up the names of executions",
    "arn:aws:states:us-east-1:000000000000:execution:prod-dr-?:*": "AWS makes up the names of executions",
    "arn:aws:states:us-east-1:000000000000:execution:prod-dr-?/*": "AWS makes up the names of a Map's executions",
    "arn:aws:states:us-east-1:000000000000:execution:prod-dr-hard-reset-*:*": "AWS makes up the names of executions",
    "arn:aws:states:us-east-1:000000000000:stateMachine:prod-dr-hard-reset-*": "one a protected table",
}


@pytest.fixture(params=["plain", "customer key", "hundred tables"])
def variant(request: pytest.FixtureRequest) -> Plan:
    """Production as configured, with a customer-managed key, and with more tables than fit an inline policy."""
    return planned_variant(request.param)


@cache
def planned_variant(name: str) -> Plan:
    """The plan of a variant of production, made once."""
    tables = [f"prod-{index:03d}-a-table-with-quite-a-long-name" for index in range(100)]
    overrides: dict[str, dict[str, Any]] = {
        "plain": {"freeze": {"namePrefix": "prod-app-", "tag": {"key": "system", "value": "licensing"}}},
        "customer key": {"kmsKeyArn": KEY},
        "hundred tables": {"tables": tables, "kmsKeyArn": KEY},
    }
    return plan(PROJECT, "prod", overrides[name])


def policies(resources: Plan) -> dict[str, list[dict[str, Any]]]:
    """Role name → its statements, inline and managed."""
    found: dict[str, list[dict[str, Any]]] = {}
    for policy in of_type(resources, "iam/rolePolicy:RolePolicy"):
        found.setdefault(policy.inputs["role"], []).extend(json.loads(policy.inputs["policy"])["Statement"])
    managed = {policy.outputs["arn"]: policy.inputs["policy"] for policy in of_type(resources, "iam/policy:Policy")}
    for attachment in of_type(resources, "iam/rolePolicyAttachment:RolePolicyAttachment"):
        text = managed[attachment.inputs["policyArn"]]
        found.setdefault(attachment.inputs["role"], []).extend(json.loads(text)["Statement"])
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


def test_stars_stand_only_where_aws_demands_them(variant: Plan) -> None:
    """Catches a permission on everything, or an action with a wildcard."""
    for role, statements in policies(variant).items():
        for statement in statements:
            if statement["Effect"] != "Allow":
                continue
            assert all("*" not in action or action.startswith("kms:") for action in statement["Action"]), role
            if "*" in statement["Resource"]:
                assert set(statement["Action"]) <= UNNAMEABLE, role


def pattern_of(resource: str) -> str:
    """The entry of PATTERNS that a resource with a wildcard is an instance of; the name of our own thing is ``?``."""
    if resource in PATTERNS:
        return resource
    resource = re.sub(r"(?<=:table/)prod-[a-z-]+(?=/backup/)", "prod-?", resource)
    return re.sub(r"prod-dr-[a-z0-9-]+(?=(:\*|/\*)$)", "prod-dr-?", resource)


def test_every_pattern_has_a_reason() -> None:
    """Catches a wildcard where a name could stand, and a reason for a wildcard that is gone."""
    used = {
        pattern_of(resource)
        for statements in policies(planned_variant("plain")).values()
        for statement in statements
        if statement["Effect"] == "Allow"
        for resource in statement["Resource"]
        if "*" in resource
    }
    assert used == set(PATTERNS)


def test_writers_write_only_where_they_should(prod_plan: Plan) -> None:
    """Catches a worker that could write a source, or a table that nobody protects."""
    tables = {f"arn:aws:dynamodb:us-east-1:000000000000:table/prod-{name}" for name in (
        "licenses", "providers", "privileges", "license-events", "jurisdictions")}  # fmt: skip
    ledger = {"arn:aws:dynamodb:us-east-1:000000000000:table/prod-dr-ledger"}
    temporary = {"arn:aws:dynamodb:us-east-1:000000000000:table/dr-prod.*"}
    workers = ("purge-segment", "copy-segment", "differential-segment")
    expected = {**dict.fromkeys(workers, tables | ledger), "orchestrator": tables | temporary}
    for role, statements in policies(prod_plan).items():
        short = role.removeprefix("prod-dr-").removesuffix("-us-east-1")
        written = {arn for operation in WRITES for arn in allowed(statements, f"dynamodb:{operation}")}
        assert written <= expected.get(short, ledger), role
    for worker in workers:
        of_worker = policies(prod_plan)[f"prod-dr-{worker}-us-east-1"]
        assert allowed(of_worker, "dynamodb:BatchWriteItem") == tables
        # A put or delete of its own could not be paced, nor seen in the tests of what a batch leaves over.
        assert not any(
            allowed(of_worker, f"dynamodb:{operation}") & tables for operation in WRITES - {"BatchWriteItem"}
        )


def test_lists_of_keys_are_written_by_one_function_to_one_place(prod_plan: Plan) -> None:
    """Catches a worker that could overwrite the reports, and any role that could read the keys back."""
    bucket = "arn:aws:s3:::prod-dr-reports-000000000000-us-east-1"
    expected = {
        "prod-dr-compare-segment-us-east-1": {f"{bucket}/differences/*"},
        "prod-dr-write-report-us-east-1": {f"{bucket}/reports/*"},
    }
    found = {role: allowed(statements, "s3:PutObject") for role, statements in policies(prod_plan).items()}
    assert {role: written for role, written in found.items() if written} == expected
    for statements in policies(prod_plan).values():
        assert not allowed(statements, "s3:GetObject")
    compare = policies(prod_plan)["prod-dr-compare-segment-us-east-1"]
    assert allowed(compare, "dynamodb:BatchGetItem") == allowed(compare, "dynamodb:Scan")
    assert "arn:aws:dynamodb:us-east-1:000000000000:table/dr-prod.*" in allowed(compare, "dynamodb:Scan")


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


def test_the_freeze_deletes_provisioned_concurrency_of_the_system_only(prod_plan: Plan) -> None:
    """Catches a freeze that stops at a function's alias, or one that could take another system's capacity away."""
    freeze = policies(prod_plan)["prod-dr-freeze-functions-us-east-1"]
    for action in ("lambda:ListProvisionedConcurrencyConfigs", "lambda:DeleteProvisionedConcurrencyConfig"):
        assert allowed(freeze, action) == allowed(freeze, "lambda:PutFunctionConcurrency") != set()
        # Provisioned concurrency is an alias's or a version's: function:NAME:QUALIFIER.
        assert all(arn.endswith("*") for arn in allowed(freeze, action))
    assert not allowed(freeze, "lambda:PutProvisionedConcurrencyConfig")
    release = policies(prod_plan)["prod-dr-release-functions-us-east-1"]
    assert allowed(release, "lambda:PutProvisionedConcurrencyConfig")
    assert not allowed(release, "lambda:DeleteProvisionedConcurrencyConfig")


def lint(document: str) -> list[Any]:
    """What the linter finds in a policy."""
    return list(parliament.analyze_policy_string(document).findings)


def _is_wrong(finding: Any) -> bool:
    """Whether the linter's data contradicts AWS, which names Standard executions ``execution:MACHINE:NAME``."""
    return finding.issue == "RESOURCE_MISMATCH" and "express" in str(finding.detail)


def test_policies_pass_the_linter(variant: Plan) -> None:
    """Catches unknown actions, and resources or conditions that do not go with their action."""
    for role, statements in policies(variant).items():
        findings = lint(json.dumps({"Version": "2012-10-17", "Statement": statements}))
        assert [str(finding) for finding in findings if not _is_wrong(finding)] == [], role


def test_policies_of_resources_pass_the_linter(variant: Plan) -> None:
    """Catches an unknown action, key or element in the policies of roles' trust, bucket and topic."""
    trusts = [role.inputs["assumeRolePolicy"] for role in of_type(variant, "iam/role:Role")]
    others = [
        resource.inputs["policy"]
        for kind in ("s3/bucketPolicy:BucketPolicy", "sns/topicPolicy:TopicPolicy", "kms/key:Key")
        for resource in of_type(variant, kind)
    ]
    assert len(trusts) >= 18
    assert others
    for text in trusts:
        # A trust policy is the policy of the role it stands in; the linter misses the resource.
        assert [f for f in lint(text) if "neither Resource nor NotResource" not in str(f)] == []
    for text in others:
        assert lint(text) == []


def documented_key_policy(region: str, account: str, environment: str) -> str:
    """The key policy of docs/encryption.md, filled in."""
    text = (PROJECT / "docs" / "encryption.md").read_text().partition("```json\n")[2].partition("```")[0]
    return text.replace("REGION", region).replace("ACCOUNT", account).replace("ENVIRONMENT", environment)


def test_the_documented_key_policy_is_right() -> None:
    """Catches a documented policy that AWS refuses, or that leaves a log group without its key."""
    text = documented_key_policy("us-east-1", "000000000000", "prod")
    # In a key's policy "*" is the key itself; the encryption context is compared as an ARN, and Describe* stands under
    # the same condition as the rest, where CloudWatch Logs' own documentation has both.
    known = {"RESOURCE_STAR", "MISMATCHED_TYPE"}
    findings = [finding for finding in lint(text) if finding.issue not in known]
    assert [finding for finding in findings if "for action kms:Describe" not in str(finding)] == []
    (statement,) = [s for s in json.loads(text)["Statement"] if "Service" in s["Principal"]]
    patterns = statement["Condition"]["ArnLike"]["kms:EncryptionContext:aws:logs:arn"]
    groups = of_type(planned_variant("customer key"), "cloudwatch/logGroup:LogGroup")
    assert len(groups) >= 18
    for group in groups:
        arn = group.outputs["arn"].removesuffix(":*")
        assert any(fnmatchcase(arn, pattern) for pattern in patterns), arn
        assert group.inputs["kmsKeyId"] == KEY


def test_the_stacks_key_is_used_through_one_service_at_a_time() -> None:
    """Catches a role that could decrypt with the key directly, or through a service that it has no business with."""
    via: dict[str, set[str]] = {}
    for role, statements in policies(planned_variant("customer key")).items():
        short = role.removeprefix("prod-dr-").removesuffix("-us-east-1")
        for statement in statements:
            actions = [action for action in statement["Action"] if action.startswith("kms:")]
            if statement["Effect"] != "Allow" or not actions:
                continue
            assert statement["Action"] == actions
            assert statement["Resource"] == [KEY]
            ((key, service),) = statement["Condition"]["StringEquals"].items()
            assert key == "kms:ViaService"
            via.setdefault(short, set()).add(service.removesuffix(".us-east-1.amazonaws.com"))
    assert via.pop("orchestrator") == via.pop("guardian-machine") == {"sns"}
    assert via.pop("write-report") == via.pop("compare-segment") == {"dynamodb", "s3"}
    assert via
    assert all(services == {"dynamodb"} for services in via.values()), via


def test_without_a_key_no_role_has_a_permission_on_one(stack_plan: Plan) -> None:
    """Catches permissions on keys that a stack without customer-managed keys does not need."""
    for role, statements in policies(stack_plan).items():
        assert not [s for s in statements for action in s["Action"] if action.startswith("kms:")], role


def test_roles_trust_their_service_in_this_account_only(stack_plan: Plan) -> None:
    """Catches a role that another account's resources could use through the service (confused deputy)."""
    for role in of_type(stack_plan, "iam/role:Role"):
        (statement,) = json.loads(role.inputs["assumeRolePolicy"])["Statement"]
        assert statement["Principal"]["Service"].removesuffix(".amazonaws.com") in ("lambda", "states", "events")
        assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": "000000000000"}}


def test_no_sensitive_table_means_no_deny() -> None:
    """Catches an invalid policy, a Deny of nothing, where a stack has no sensitive table."""
    without = plan(PROJECT, "prod", {"sensitiveTables": []})
    assert not [s for statements in policies(without).values() for s in statements if s["Action"] == "dynamodb:*"]
