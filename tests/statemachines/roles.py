"""The deployed roles of the recovery, and what their policies allow and deny, read back from IAM."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from .conftest import Deployed

Statement = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class DeployedRole:
    """One role. ``thing``: what it is of, e.g. ``purge-segment``; ``service``: who assumes it."""

    name: str
    arn: str
    thing: str
    service: str
    statements: tuple[Statement, ...]

    def allows(self) -> list[Statement]:
        """The statements that allow."""
        return [statement for statement in self.statements if statement["Effect"] == "Allow"]


def deployed_roles(deployed: Deployed) -> dict[str, DeployedRole]:
    """Every role of every function and state machine of the recovery, by what it is of."""
    iam = deployed.client("iam")
    roles = {}
    for page in iam.get_paginator("list_roles").paginate():
        for role in page["Roles"]:
            name = role["RoleName"]
            if not name.startswith("local-dr-"):
                continue
            thing = name.removeprefix("local-dr-").removesuffix("-us-east-1")
            trust = role["AssumeRolePolicyDocument"]["Statement"][0]
            roles[thing] = DeployedRole(
                name=name,
                arn=role["Arn"],
                thing=thing,
                service=trust["Principal"]["Service"],
                statements=tuple(_statements(iam, name)),
            )
    assert len(roles) >= 16, "the roles were not found"
    return roles


def let_root_assume(deployed: Deployed) -> None:
    """Let the account's root act as each of the roles, which trust their service only."""
    iam = deployed.client("iam")
    root = {"Effect": "Allow", "Principal": {"AWS": deployed.aws.account_id}, "Action": "sts:AssumeRole"}
    for role in deployed_roles(deployed).values():
        trust = iam.get_role(RoleName=role.name)["Role"]["AssumeRolePolicyDocument"]
        trust["Statement"].append(root)
        iam.update_assume_role_policy(RoleName=role.name, PolicyDocument=json.dumps(trust))


def _statements(iam: Any, role: str) -> Iterator[Statement]:
    for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        yield from iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]["Statement"]
    for attached in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
        policy = iam.get_policy(PolicyArn=attached["PolicyArn"])["Policy"]
        version = iam.get_policy_version(PolicyArn=attached["PolicyArn"], VersionId=policy["DefaultVersionId"])
        yield from version["PolicyVersion"]["Document"]["Statement"]


def listed(value: str | list[str]) -> list[str]:
    """``Action`` or ``Resource`` of a statement, which may be one text."""
    return [value] if isinstance(value, str) else value


def matches(statement: Statement, action: str, resource: str, via: str = "") -> bool:
    """Whether a statement is about an action on a resource, through a service; of conditions only that is looked at."""
    wanted = statement.get("Condition", {}).get("StringEquals", {}).get("kms:ViaService", via)
    if wanted != via:
        return False
    return any(fnmatchcase(action, pattern) for pattern in listed(statement["Action"])) and any(
        fnmatchcase(resource, pattern) for pattern in listed(statement["Resource"])
    )
