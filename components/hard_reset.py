"""The hard-reset state machine of one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi

from statemachines.hard_reset import HardResetConfig, hard_reset

from .names import Names
from .policies import allow, deny_sensitive_tables, use_table_keys
from .recovery_functions import RecoveryFunctions
from .settings import ProtectedTable, Settings
from .state_machine import StateMachine, StateMachineArgs

FUNCTIONS = (
    "preflight",
    "purge-segment",
    "prove-empty",
    "copy-segment",
    "differential-segment",
    "digest-segment",
    "verify",
    "compare-segment",
    "report-differences",
    "record-outcome",
    "unlock",
)
"""The functions it invokes."""


@dataclass(frozen=True, kw_only=True)
class HardResetArgs:
    """Arguments of :class:`HardReset`.

    Args:
        names: names and ARNs of this environment.
        settings: the stack's configuration.
        table: the table it resets.
        functions: the recovery's functions.
        table_keys: ARNs of the KMS keys that encrypt the protected tables.
        tags: tags of everything.
    """

    names: Names
    settings: Settings
    table: ProtectedTable
    functions: RecoveryFunctions
    table_keys: Sequence[str]
    tags: Mapping[str, str]


class HardReset(pulumi.ComponentResource):
    """Makes one table equal to another of the same key schema."""

    state_machine_arn: pulumi.Output[str]

    def __init__(self, name: str, args: HardResetArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamodb-dr:index:HardReset", name, None, opts)
        names, table = args.names, args.table
        arns = {function: names.function_arn(names.function(function)) for function in FUNCTIONS}
        machine = StateMachine(
            name,
            StateMachineArgs(
                names=names,
                state_machine_name=names.hard_reset(table.name),
                role_name=names.role(f"hard-reset-{table.name}"),
                definition=hard_reset(
                    HardResetConfig(
                        table_name=table.name,
                        functions=arns,
                        sensitive_tables=args.settings.sensitive_tables,
                        source_tables=args.settings.source_tables,
                        options=table.options(),
                    )
                ),
                statements=[
                    allow("InvokeFunctions", ["lambda:InvokeFunction"], list(arns.values())),
                    allow("BackUpTable", ["dynamodb:CreateBackup"], [names.table_arn(table.name)]),
                    allow("SeeBackups", ["dynamodb:DescribeBackup"], [names.table_arn(f"{table.name}/backup/*")]),
                    # AWS does not document whether a backup asks for the table's key in the caller's name.
                    *use_table_keys(names, args.table_keys),
                    *deny_sensitive_tables(names, args.settings.sensitive_tables),
                ],
                log_retention_days=args.settings.log_retention_days,
                kms_key_arn=args.settings.kms_key_arn,
                tags=args.tags,
            ),
            # Definitions name functions by their ARN, known beforehand; the functions must exist all the same.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[args.functions]),
        )
        self.state_machine_arn = machine.arn
        self.register_outputs({"stateMachineArn": self.state_machine_arn})
