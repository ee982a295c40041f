"""The orchestrator's state machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi

from statemachines.orchestrator import OrchestratorConfig, orchestrator

from .hard_reset import HardReset
from .names import Names
from .notifications import Notifications
from .policies import Statement, allow, deny_sensitive_tables, tell, use_table_keys
from .recovery_functions import FUNCTION_NAMES, RecoveryFunctions
from .settings import FreezeSettings, Settings
from .state_machine import StateMachine, StateMachineArgs

FUNCTIONS = (
    "validate-request",
    "freeze-functions",
    "release-functions",
    "record-outcome",
    "unlock",
    "write-report",
)
"""The functions it invokes."""


@dataclass(frozen=True, kw_only=True)
class OrchestratorArgs:
    """Arguments of :class:`Orchestrator`.

    Args:
        names: names and ARNs of this environment.
        settings: the stack's configuration.
        functions: the recovery's functions.
        hard_resets: table name → its hard reset.
        notifications: the topic to tell.
        table_keys: ARNs of the KMS keys that encrypt the protected tables.
        tags: tags of everything.
    """

    names: Names
    settings: Settings
    functions: RecoveryFunctions
    hard_resets: Mapping[str, HardReset]
    notifications: Notifications
    table_keys: Sequence[str]
    tags: Mapping[str, str]


class Orchestrator(pulumi.ComponentResource):
    """Recovers all the tables of an incident."""

    state_machine_arn: pulumi.Output[str]

    def __init__(self, name: str, args: OrchestratorArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamodb-dr:index:Orchestrator", name, None, opts)
        names, settings = args.names, args.settings
        machine = StateMachine(
            name,
            StateMachineArgs(
                names=names,
                state_machine_name=names.orchestrator,
                role_name=names.role("orchestrator"),
                definition=orchestrator(
                    OrchestratorConfig(
                        environment=settings.environment,
                        functions={function: names.function_arn(names.function(function)) for function in FUNCTIONS},
                        protected_tables={table.name: table.options() for table in settings.tables},
                        sensitive_tables=settings.sensitive_tables,
                        hard_resets={
                            table: names.state_machine_arn(names.hard_reset(table)) for table in args.hard_resets
                        },
                        freeze=_selection(names, settings.freeze),
                        topic_arn=names.topic_arn,
                        prices=settings.prices,
                    )
                ),
                statements=_statements(names, settings, args.table_keys),
                log_retention_days=settings.log_retention_days,
                kms_key_arn=settings.kms_key_arn,
                tags=args.tags,
            ),
            opts=pulumi.ResourceOptions(
                parent=self, depends_on=[args.functions, args.notifications, *args.hard_resets.values()]
            ),
        )
        self.state_machine_arn = machine.arn
        self.register_outputs({"stateMachineArn": self.state_machine_arn})


def _selection(names: Names, freeze: FreezeSettings) -> dict[str, Any]:
    """What ``handlers.core.freeze.Selection`` reads. The recovery's own functions are excluded by name."""
    selection: dict[str, Any] = {
        "exclude": [*freeze.exclude, *(names.function(function) for function in FUNCTION_NAMES)],
        "eventSourceMappings": freeze.event_source_mappings,
    }
    if freeze.name_prefix:
        selection["namePrefix"] = freeze.name_prefix
    if freeze.tag:
        selection["tag"] = {"key": freeze.tag[0], "value": freeze.tag[1]}
    return selection


def _statements(names: Names, settings: Settings, table_keys: Sequence[str]) -> list[Statement]:
    hard_resets = names.of("hard-reset-*")
    statements = [
        allow(
            "InvokeFunctions",
            ["lambda:InvokeFunction"],
            [names.function_arn(names.function(function)) for function in FUNCTIONS],
        ),
        allow(
            "RestoreAndBackUp",
            ["dynamodb:RestoreTableToPointInTime", "dynamodb:CreateBackup"],
            [names.table_arn(table.name) for table in settings.tables],
        ),
        allow(
            "UseTemporaryTables",
            [
                "dynamodb:RestoreTableToPointInTime",
                "dynamodb:DescribeTable",
                "dynamodb:DeleteTable",
                # DynamoDB fills the restored table in the caller's name.
                "dynamodb:BatchWriteItem",
                "dynamodb:DeleteItem",
                "dynamodb:GetItem",
                "dynamodb:PutItem",
                "dynamodb:Query",
                "dynamodb:Scan",
                "dynamodb:UpdateItem",
            ],
            [names.temporary_tables_arn],
        ),
        allow("SeeBackups", ["dynamodb:DescribeBackup"], [names.table_arn("*/backup/*")]),
        allow("StartHardResets", ["states:StartExecution"], [names.state_machine_arn(hard_resets)]),
        allow(
            "WatchHardResets",
            ["states:DescribeExecution", "states:StopExecution"],
            names.execution_arns(hard_resets)[:1],
        ),
        allow(
            "LearnOfTheirEnd",
            ["events:PutTargets", "events:PutRule", "events:DescribeRule"],
            [names.nested_execution_rule_arn()],
        ),
        *tell(names, settings.kms_key_arn),
    ]
    return [
        *statements,
        *use_table_keys(names, table_keys, restore=True),
        *deny_sensitive_tables(names, settings.sensitive_tables),
    ]
