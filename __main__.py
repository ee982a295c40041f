"""dynamodb-dr: what one environment consists of. Configuration in, components wired, outputs out."""

from __future__ import annotations

from pathlib import Path

import pulumi
import pulumi_aws as aws

from components.guardian import Guardian, GuardianArgs
from components.hard_reset import HardReset, HardResetArgs
from components.ledger import Ledger, LedgerArgs
from components.names import Names
from components.notifications import Notifications, NotificationsArgs
from components.orchestrator import Orchestrator, OrchestratorArgs
from components.protected_tables import look_up
from components.recovery_function import bundle, powertools_layers
from components.recovery_functions import RecoveryFunctions, RecoveryFunctionsArgs
from components.report_bucket import ReportBucket, ReportBucketArgs
from components.settings import Settings

settings = Settings.load()
names = Names(
    environment=settings.environment,
    partition=aws.get_partition().partition,
    region=aws.get_region().region,
    account=aws.get_caller_identity().account_id,
)
tags = {"managed-by": "dynamodb-dr", "environment": settings.environment}
settings.check_region(names.region)
table_keys = look_up(settings.tables)

ledger = Ledger("ledger", LedgerArgs(table_name=names.ledger, kms_key_arn=settings.kms_key_arn, tags=tags))
reports = ReportBucket(
    "reports",
    ReportBucketArgs(
        bucket_name=names.report_bucket, partition=names.partition, kms_key_arn=settings.kms_key_arn, tags=tags
    ),
)
notifications = Notifications(
    "notifications", NotificationsArgs(topic_name=names.topic, kms_key_arn=settings.kms_key_arn, tags=tags)
)
functions = RecoveryFunctions(
    "functions",
    RecoveryFunctionsArgs(
        names=names,
        settings=settings,
        code=bundle(Path(__file__).parent),
        layers=powertools_layers(names, settings.powertools_layer_arn),
        ledger_table_name=ledger.table_name,
        report_bucket_name=reports.bucket_name,
        table_keys=table_keys,
        tags=tags,
    ),
)
hard_resets = {
    table.name: HardReset(
        f"hard-reset-{table.name}",
        HardResetArgs(
            names=names, settings=settings, table=table, functions=functions, table_keys=table_keys, tags=tags
        ),
    )
    for table in settings.tables
}
orchestrator = Orchestrator(
    "orchestrator",
    OrchestratorArgs(
        names=names,
        settings=settings,
        functions=functions,
        hard_resets=hard_resets,
        notifications=notifications,
        table_keys=table_keys,
        tags=tags,
    ),
)
Guardian(
    "guardian-machine",
    GuardianArgs(names=names, settings=settings, functions=functions, notifications=notifications, tags=tags),
)

pulumi.export("orchestratorStateMachineArn", orchestrator.state_machine_arn)
pulumi.export("hardResetStateMachineArns", {name: reset.state_machine_arn for name, reset in hard_resets.items()})
pulumi.export("ledgerTableName", ledger.table_name)
pulumi.export("reportBucketName", reports.bucket_name)
pulumi.export("notificationTopicArn", notifications.topic_arn)
