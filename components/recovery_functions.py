"""All Lambda functions of the recovery, and what each of their roles may do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi

from .names import Names
from .policies import Statement, allow, deny_sensitive_tables, use_key, use_table_keys
from .recovery_function import RecoveryFunction, RecoveryFunctionArgs
from .settings import FreezeSettings, Settings


@dataclass(frozen=True, kw_only=True)
class Size:
    """Memory, and with it CPU, and the longest invocation of a function."""

    memory_mb: int
    timeout_seconds: int


# A hundred tables to describe, at DescribeContinuousBackups' ten calls a second.
_SHORT = Size(memory_mb=512, timeout_seconds=300)
# Thousands of functions to freeze, at the Lambda API's fifteen calls a second; a large, empty table to scan.
_LONG = Size(memory_mb=512, timeout_seconds=900)


@dataclass(frozen=True, kw_only=True)
class RecoveryFunctionsArgs:
    """Arguments of :class:`RecoveryFunctions`.

    Args:
        names: names and ARNs of this environment.
        settings: the stack's configuration.
        code: the bundle.
        layers: ARNs of layers.
        ledger_table_name: the ledger's table.
        report_bucket_name: the bucket of the reports.
        table_keys: ARNs of the KMS keys that encrypt the protected tables.
        tags: tags of everything.
    """

    names: Names
    settings: Settings
    code: pulumi.Archive
    layers: Sequence[str]
    ledger_table_name: pulumi.Input[str]
    report_bucket_name: pulumi.Input[str]
    table_keys: Sequence[str]
    tags: Mapping[str, str]


class RecoveryFunctions(pulumi.ComponentResource):
    """Every function under its short name: ``arns["purge-segment"]``."""

    functions: dict[str, RecoveryFunction]

    def __init__(self, name: str, args: RecoveryFunctionsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamodb-dr:index:RecoveryFunctions", name, None, opts)
        self._args = args
        self._may = Permissions(args.names, args.settings)
        may = self._may
        worker = Size(memory_mb=1769, timeout_seconds=args.settings.worker_timeout_seconds)  # one vCPU
        self.functions = {}
        self._add(
            "validate-request",
            "Validates a recovery request before anything is changed",
            [
                may.ledger("GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query"),
                may.on_protected_tables("DescribeTable", "DescribeContinuousBackups", "DescribeTimeToLive"),
                may.on_temporary_tables("DescribeTable"),
                may.see_executions(),
            ],
        )
        self._add(
            "freeze-functions",
            "Sets the concurrency of the system's functions to 0, saving what each had",
            [may.ledger("GetItem", "PutItem", "UpdateItem", "Query"), *may.freeze()],
            size=_LONG,
        )
        self._add(
            "release-functions",
            "Puts back every setting that the freeze changed; before that, lets streams skip a reset",
            [may.ledger("GetItem", "Query", "UpdateItem"), *may.release()],
            size=_LONG,
        )
        self._add(
            "preflight",
            "Checks one hard reset before anything is changed, and locks its table",
            [
                may.ledger("GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query"),
                may.on_protected_tables("DescribeTable", "DescribeTimeToLive"),
                may.on_sources("DescribeTable"),
                may.see_backups(),
                may.see_executions(),
            ],
        )
        self._add(
            "purge-segment",
            "Deletes the items of one segment of the destination",
            [
                may.ledger("GetItem", "PutItem", "Query"),
                may.on_protected_tables("Scan", "BatchWriteItem"),
            ],
            size=worker,
            data=True,
        )
        self._add(
            "copy-segment",
            "Copies the items of one segment of the source into the destination",
            [
                may.ledger("GetItem", "PutItem", "Query"),
                may.on_sources("Scan"),
                may.on_protected_tables("BatchWriteItem"),
            ],
            size=worker,
            data=True,
        )
        self._add(
            "differential-segment",
            "Writes only what differs between one segment of the source and of the destination",
            [
                may.ledger("GetItem", "PutItem", "Query"),
                may.on_sources("Scan", "BatchGetItem"),
                may.on_protected_tables("Scan", "BatchGetItem", "BatchWriteItem"),
            ],
            size=worker,
            data=True,
        )
        self._add(
            "digest-segment",
            "Counts and digests the items of one segment of the source or the destination",
            [
                may.ledger("GetItem", "PutItem"),
                may.on_sources("Scan", "BatchGetItem"),
                may.on_protected_tables("Scan", "BatchGetItem"),
            ],
            size=worker,
            data=True,
        )
        self._add(
            "prove-empty",
            "Proves that the destination is empty after its purge",
            [may.ledger("GetItem", "UpdateItem"), may.on_protected_tables("Scan")],
            size=_LONG,
            data=True,
        )
        self._add(
            "verify",
            "Compares the digests of both sides",
            [may.ledger("GetItem", "UpdateItem", "Query")],
        )
        self._add(
            "compare-segment",
            "Compares the items of one segment of one side with the other, and lists the keys of those that differ",
            [
                may.ledger("GetItem", "PutItem"),
                may.on_sources("Scan", "BatchGetItem"),
                may.on_protected_tables("Scan", "BatchGetItem"),
                *may.write_differences(),
            ],
            size=worker,
            data=True,
            variables={"REPORT_BUCKET": args.report_bucket_name},
        )
        self._add(
            "report-differences",
            "Adds to a failed verdict what differs, how often, and where the keys are",
            [may.ledger("GetItem", "Query")],
            variables={"REPORT_BUCKET": args.report_bucket_name},
        )
        self._add(
            "record-outcome",
            "Records how an execution ended, and finds the real cause of a failure",
            [may.ledger("GetItem", "UpdateItem", "DeleteItem", "Query"), may.see_executions()],
        )
        self._add(
            "unlock",
            "Gives up the locks that an execution holds",
            [may.ledger("GetItem", "UpdateItem", "DeleteItem")],
        )
        self._add(
            "guardian",
            "Looks what an execution that ended badly has left behind, and takes it over",
            [may.ledger("GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query"), may.see_executions()],
        )
        self._add(
            "write-report",
            "Writes the report of a recovery",
            [may.ledger("GetItem", "Query"), *may.write_reports()],
            variables={"REPORT_BUCKET": args.report_bucket_name},
        )
        self.register_outputs({})

    def _add(
        self,
        short_name: str,
        description: str,
        statements: Sequence[Statement],
        *,
        size: Size = _SHORT,
        data: bool = False,
        variables: Mapping[str, pulumi.Input[str]] | None = None,
    ) -> None:
        """Add a function; ``data``: it reads or writes items of tables, and so uses their keys."""
        args = self._args
        # Every function uses the ledger. Without a customer-managed key anywhere this is no statement at all.
        keys = [*([args.settings.kms_key_arn] if args.settings.kms_key_arn else []), *(args.table_keys if data else [])]
        self.functions[short_name] = RecoveryFunction(
            short_name,
            RecoveryFunctionArgs(
                names=args.names,
                short_name=short_name,
                description=description,
                code=args.code,
                layers=args.layers,
                statements=[*statements, *use_table_keys(args.names, keys), *self._may.deny()],
                variables={"LEDGER_TABLE": args.ledger_table_name, **(variables or {})},
                memory_mb=size.memory_mb,
                timeout_seconds=size.timeout_seconds,
                log_retention_days=args.settings.log_retention_days,
                kms_key_arn=args.settings.kms_key_arn,
                tags=args.tags,
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )


FUNCTION_NAMES = (
    "validate-request",
    "freeze-functions",
    "release-functions",
    "preflight",
    "purge-segment",
    "copy-segment",
    "differential-segment",
    "digest-segment",
    "prove-empty",
    "verify",
    "compare-segment",
    "report-differences",
    "record-outcome",
    "unlock",
    "guardian",
    "write-report",
)
"""Short names of all functions, needed before they exist: the freeze must leave them alone."""


@dataclass(frozen=True)
class Permissions:
    """Statements in this stack's terms."""

    names: Names
    settings: Settings

    def ledger(self, *operations: str) -> Statement:
        """Operations on the ledger."""
        return _on_tables("UseLedger", operations, [self.names.table_arn(self.names.ledger)])

    def on_protected_tables(self, *operations: str) -> Statement:
        """Operations on the live tables."""
        return _on_tables(
            "UseProtectedTables", operations, [self.names.table_arn(table.name) for table in self.settings.tables]
        )

    def on_sources(self, *operations: str) -> Statement:
        """Operations on tables that may be copied from. Only ever reads."""
        return _on_tables(
            "ReadSources", operations, [self.names.table_arn(pattern) for pattern in self.settings.source_tables]
        )

    def on_temporary_tables(self, *operations: str) -> Statement:
        """Operations on the tables that this environment restores to."""
        return _on_tables("UseTemporaryTables", operations, [self.names.temporary_tables_arn])

    def see_backups(self) -> Statement:
        """Look at backups: their ids are not known beforehand."""
        return _on_tables("SeeBackups", ["DescribeBackup"], [self.names.table_arn("*/backup/*")])

    def see_executions(self) -> Statement:
        """Ask whether the owner of a lock still runs."""
        return allow(
            "SeeOwnExecutions", ["states:DescribeExecution"], self.names.execution_arns(self.names.of("*"))[:1]
        )

    def write_reports(self) -> list[Statement]:
        """Write reports."""
        return self._put_objects("WriteReports", "reports")

    def write_differences(self) -> list[Statement]:
        """Write the lists of differing keys."""
        return self._put_objects("WriteDifferences", "differences")

    def _put_objects(self, sid: str, folder: str) -> list[Statement]:
        """Each object is one PutObject, for which S3 has KMS make a data key; only multipart needs Decrypt."""
        arn = f"arn:{self.names.partition}:s3:::{self.names.report_bucket}/{folder}/*"
        key = self.settings.kms_key_arn
        return [
            allow(sid, ["s3:PutObject"], [arn]),
            *use_key("EncryptReports", self.names, key, "s3", ["kms:GenerateDataKey"]),
        ]

    def freeze(self) -> list[Statement]:
        """Freeze the functions of the selection, and no other."""
        selection = self.settings.freeze
        statements = [
            # Lists have no resource to name.
            allow("ListFunctions", ["lambda:ListFunctions", "lambda:ListEventSourceMappings"], ["*"]),
            *self._selected_functions(
                selection,
                [
                    "lambda:GetFunctionConcurrency",
                    "lambda:PutFunctionConcurrency",
                    "lambda:ListProvisionedConcurrencyConfigs",
                    # Of an alias or a version, function:NAME:QUALIFIER.
                    "lambda:DeleteProvisionedConcurrencyConfig",
                ],
            ),
        ]
        if selection.tag:
            statements.append(allow("FindTaggedFunctions", ["tag:GetResources"], ["*"]))
        statements.extend(self._mappings(selection, "lambda:UpdateEventSourceMapping"))
        return [*statements, self._never_freeze_the_recovery()]

    def _selected_functions(self, selection: FreezeSettings, actions: Sequence[str]) -> list[Statement]:
        statements = []
        if selection.name_prefix:
            arn = self.names.function_arn(f"{selection.name_prefix}*")
            statements.append(allow("FreezeByPrefix", actions, [arn]))
        if selection.tag:
            key, value = selection.tag
            tagged = {f"aws:ResourceTag/{key}": value}
            statements.append(allow("FreezeByTag", actions, [self.names.function_arn("*")], StringEquals=tagged))
        return statements

    def release(self) -> list[Statement]:
        """Put settings back. Of any function: one that lost its tag during the recovery must not stay frozen."""
        return [
            allow(
                "ReleaseFunctions",
                [
                    "lambda:GetFunctionConcurrency",
                    "lambda:PutFunctionConcurrency",
                    "lambda:DeleteFunctionConcurrency",
                    "lambda:ListProvisionedConcurrencyConfigs",
                    # Of an alias or a version, function:NAME:QUALIFIER.
                    "lambda:PutProvisionedConcurrencyConfig",
                ],
                [self.names.function_arn("*")],
            ),
            *self._mappings(self.settings.freeze, "lambda:GetEventSourceMapping", "lambda:UpdateEventSourceMapping"),
            self._never_freeze_the_recovery(),
        ]

    def _mappings(self, selection: FreezeSettings, *actions: str) -> list[Statement]:
        if not selection.event_source_mappings:
            return []
        return [allow("SwitchMappings", actions, [self.names.event_source_mapping_arn()])]

    def _never_freeze_the_recovery(self) -> Statement:
        return {
            "Sid": "NeverFreezeTheRecovery",
            "Effect": "Deny",
            "Action": ["lambda:PutFunctionConcurrency", "lambda:DeleteFunctionConcurrency"],
            "Resource": [self.names.function_arn(self.names.function(name)) for name in FUNCTION_NAMES],
        }

    def deny(self) -> list[Statement]:
        """The Deny on the sensitive tables."""
        return deny_sensitive_tables(self.names, self.settings.sensitive_tables)


def _on_tables(sid: str, operations: Sequence[str], arns: Sequence[str]) -> Statement:
    return allow(sid, [f"dynamodb:{operation}" for operation in operations], arns)
