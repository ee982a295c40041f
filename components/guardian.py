"""The guardian: a state machine that EventBridge starts whenever an execution of this stack ends badly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pulumi
import pulumi_aws as aws

from statemachines.guardian import GuardianConfig, guardian

from .names import Names
from .notifications import Notifications
from .policies import allow, deny_sensitive_tables, tell
from .recovery_functions import RecoveryFunctions
from .role import Role, RoleArgs
from .settings import Settings
from .state_machine import StateMachine, StateMachineArgs

FUNCTIONS = (
    "guardian",
    "record-outcome",
    "release-functions",
    "write-report",
    "unlock",
)
"""The functions it invokes."""


@dataclass(frozen=True, kw_only=True)
class GuardianArgs:
    """Arguments of :class:`Guardian`.

    Args:
        names: names and ARNs of this environment.
        settings: the stack's configuration.
        functions: the recovery's functions.
        notifications: the topic to tell.
        tags: tags of everything.
    """

    names: Names
    settings: Settings
    functions: RecoveryFunctions
    notifications: Notifications
    tags: Mapping[str, str]


class Guardian(pulumi.ComponentResource):
    """Clears up after executions that were stopped, timed out, or broke in a way that no Catch sees."""

    state_machine_arn: pulumi.Output[str]

    def __init__(self, name: str, args: GuardianArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamodb-dr:index:Guardian", name, None, opts)
        names = args.names
        arns = {function: names.function_arn(names.function(function)) for function in FUNCTIONS}
        deny = deny_sensitive_tables(names, args.settings.sensitive_tables)
        machine = StateMachine(
            name,
            StateMachineArgs(
                names=names,
                state_machine_name=names.guardian,
                role_name=names.role("guardian-machine"),
                definition=guardian(
                    GuardianConfig(environment=args.settings.environment, functions=arns, topic_arn=names.topic_arn)
                ),
                statements=[
                    allow("InvokeFunctions", ["lambda:InvokeFunction"], list(arns.values())),
                    *tell(names, args.settings.kms_key_arn),
                    *deny,
                ],
                log_retention_days=args.settings.log_retention_days,
                kms_key_arn=args.settings.kms_key_arn,
                tags=args.tags,
            ),
            opts=pulumi.ResourceOptions(parent=self, depends_on=[args.functions, args.notifications]),
        )
        child = pulumi.ResourceOptions(parent=self)
        role = Role(
            f"{name}-rule",
            RoleArgs(
                role_name=names.role("guardian-rule"),
                service="events.amazonaws.com",
                source_account=names.account,
                statements=[
                    allow("StartGuardian", ["states:StartExecution"], [names.state_machine_arn(names.guardian)]),
                    *deny,
                ],
                tags=args.tags,
            ),
            opts=child,
        )
        rule = aws.cloudwatch.EventRule(
            f"{name}-rule",
            name=names.guardian,
            description="Executions of the recovery that ended badly",
            event_pattern=json.dumps(event_pattern(names)),
            tags=args.tags,
            opts=child,
        )
        aws.cloudwatch.EventTarget(
            f"{name}-target",
            rule=rule.name,
            target_id="guardian",
            arn=machine.arn,
            role_arn=role.arn,
            # The execution's own input stays out of the guardian's.
            input_transformer={
                "input_paths": {"executionArn": "$.detail.executionArn"},
                "input_template": '{"executionArn": <executionArn>}',
            },
            opts=pulumi.ResourceOptions(parent=self, depends_on=role.policies),
        )
        # EventBridge delivers events of Step Functions at best effort, and a guardian may itself be interrupted.
        sweep = aws.cloudwatch.EventRule(
            f"{name}-sweep",
            name=names.guardian_sweep,
            description="Looks for executions of the recovery that ended badly and that nobody has seen to",
            schedule_expression="rate(15 minutes)",
            tags=args.tags,
            opts=child,
        )
        aws.cloudwatch.EventTarget(
            f"{name}-sweep-target",
            rule=sweep.name,
            target_id="guardian",
            arn=machine.arn,
            role_arn=role.arn,
            input='{"executionArn": null}',
            opts=pulumi.ResourceOptions(parent=self, depends_on=role.policies),
        )
        self.state_machine_arn = machine.arn
        self.register_outputs({"stateMachineArn": self.state_machine_arn})


def event_pattern(names: Names) -> dict[str, Any]:
    """Ends of the orchestrator and the hard resets, all but the good ones, without the children of their Maps."""
    hard_resets = names.state_machine_arn(names.of("hard-reset-"))
    return {
        "source": ["aws.states"],
        "detail-type": ["Step Functions Execution Status Change"],
        "detail": {
            "status": ["FAILED", "TIMED_OUT", "ABORTED"],
            "stateMachineArn": [names.state_machine_arn(names.orchestrator), {"prefix": hard_resets}],
            # A child's ARN is …:execution:MACHINE/LABEL:ID; thousands of them end when their parent is stopped.
            "executionArn": [{"anything-but": {"wildcard": "*/*"}}],
        },
    }
