"""One role for one function or state machine, with exactly its statements."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from .policies import Statement, pack


@dataclass(frozen=True, kw_only=True)
class RoleArgs:
    """Arguments of :class:`Role`.

    Args:
        role_name: physical name, up to 64 characters.
        service: the service that assumes the role, e.g. ``lambda.amazonaws.com``.
        source_account: only this account's resources may have the service assume it (confused deputy).
        statements: what the role allows and denies.
        tags: tags of the role.
    """

    role_name: str
    service: str
    source_account: str
    statements: Sequence[Statement]
    tags: Mapping[str, str]


class Role(pulumi.ComponentResource):
    """A role and its policies. ``policies`` must exist before whatever uses the role starts."""

    arn: pulumi.Output[str]
    policies: list[pulumi.Resource]

    def __init__(self, name: str, args: RoleArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamodb-dr:index:Role", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        trust = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": args.service},
                    "Action": "sts:AssumeRole",
                    "Condition": {"StringEquals": {"aws:SourceAccount": args.source_account}},
                }
            ],
        }
        role = aws.iam.Role(
            f"{name}-role",
            name=args.role_name,
            assume_role_policy=json.dumps(trust),
            tags=args.tags,
            opts=child,
        )
        documents = pack(args.statements)
        if len(documents) == 1:
            self.policies = [
                aws.iam.RolePolicy(
                    f"{name}-policy", name="least-privilege", role=role.name, policy=documents[0], opts=child
                )
            ]
        else:
            self.policies = []
            for index, text in enumerate(documents):
                policy = aws.iam.Policy(
                    f"{name}-policy-{index}", name=f"{args.role_name}-{index}", policy=text, tags=args.tags, opts=child
                )
                self.policies.append(
                    aws.iam.RolePolicyAttachment(
                        f"{name}-attachment-{index}", role=role.name, policy_arn=policy.arn, opts=child
                    )
                )
        self.arn = role.arn
        self.register_outputs({"arn": self.arn})
