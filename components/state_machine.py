"""One state machine: its role, its log group, itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from statemachines.leaves import Definition

from .names import Names
from .policies import Statement, allow
from .role import Role, RoleArgs


@dataclass(frozen=True, kw_only=True)
class StateMachineArgs:
    """Arguments of :class:`StateMachine`.

    Args:
        names: names and ARNs of this environment.
        state_machine_name: physical name, up to 80 characters.
        role_name: the role's physical name, up to 64 characters.
        definition: what it does.
        statements: what its role allows and denies, beyond logging and running its own Distributed Maps.
        log_retention_days: how long its log is kept.
        kms_key_arn: customer-managed key that encrypts its log; None for CloudWatch Logs' own.
        tags: tags of everything.
    """

    names: Names
    state_machine_name: str
    role_name: str
    definition: Definition
    statements: Sequence[Statement]
    log_retention_days: int
    kms_key_arn: str | None
    tags: Mapping[str, str]


class StateMachine(pulumi.ComponentResource):
    """A Standard state machine with a role of its own. Its log names states and errors, never data."""

    arn: pulumi.Output[str]

    def __init__(self, name: str, args: StateMachineArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamodb-dr:index:StateMachine", name, None, opts)
        # Under this prefix the log's resource policy does not grow with every state machine of the account.
        log_group = aws.cloudwatch.LogGroup(
            f"{name}-log",
            name=f"/aws/vendedlogs/states/{args.state_machine_name}",
            retention_in_days=args.log_retention_days,
            kms_key_id=args.kms_key_arn,
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self),
        )
        role = Role(
            name,
            RoleArgs(
                role_name=args.role_name,
                service="states.amazonaws.com",
                source_account=args.names.account,
                statements=[*self._own_statements(args), *args.statements],
                tags=args.tags,
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        machine = aws.sfn.StateMachine(
            name,
            name=args.state_machine_name,
            type="STANDARD",
            role_arn=role.arn,
            definition=json.dumps(args.definition, indent=2),
            logging_configuration={
                "level": "ALL",
                "include_execution_data": False,
                "log_destination": log_group.arn.apply(lambda arn: f"{arn.removesuffix(':*')}:*"),
            },
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self, depends_on=role.policies),
        )
        self.arn = machine.arn
        self.register_outputs({"arn": self.arn})

    @staticmethod
    def _own_statements(args: StateMachineArgs) -> list[Statement]:
        names, machine = args.names, args.state_machine_name
        return [
            # Step Functions demands "*" for these: log deliveries have no ARN to name.
            allow(
                "DeliverOwnLog",
                [
                    "logs:CreateLogDelivery",
                    "logs:DeleteLogDelivery",
                    "logs:DescribeLogGroups",
                    "logs:DescribeResourcePolicies",
                    "logs:GetLogDelivery",
                    "logs:ListLogDeliveries",
                    "logs:PutResourcePolicy",
                    "logs:UpdateLogDelivery",
                ],
                ["*"],
            ),
            *(_own_maps(names, machine) if _has_distributed_map(args.definition) else []),
        ]


def _own_maps(names: Names, machine: str) -> list[Statement]:
    return [
        allow("StartOwnMaps", ["states:StartExecution"], [names.state_machine_arn(machine)]),
        allow("WatchOwnMaps", ["states:DescribeExecution", "states:StopExecution"], names.execution_arns(machine)),
    ]


def _has_distributed_map(definition: Definition) -> bool:
    return any(
        state.get("ItemProcessor", {}).get("ProcessorConfig", {}).get("Mode") == "DISTRIBUTED"
        for state in definition["States"].values()
    )
