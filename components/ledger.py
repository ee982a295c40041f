"""The ledger table: runs, locks, checkpoints and frozen settings. See ``handlers.core.ledger``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws


@dataclass(frozen=True, kw_only=True)
class LedgerArgs:
    """Arguments of :class:`Ledger`.

    Args:
        table_name: physical name.
        kms_key_arn: customer-managed key that encrypts it; None for AWS's key of DynamoDB in this account.
        tags: tags of the table.
    """

    table_name: str
    kms_key_arn: str | None
    tags: Mapping[str, str]


class Ledger(pulumi.ComponentResource):
    """An on-demand table that outlives the stack: without it a recovery under way could not be finished."""

    table_name: pulumi.Output[str]

    def __init__(self, name: str, args: LedgerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamodb-dr:index:Ledger", name, None, opts)
        table = aws.dynamodb.Table(
            name,
            name=args.table_name,
            billing_mode="PAY_PER_REQUEST",
            hash_key="pk",
            range_key="sk",
            attributes=[{"name": "pk", "type": "S"}, {"name": "sk", "type": "S"}],
            point_in_time_recovery={"enabled": True},
            server_side_encryption={"enabled": True, "kms_key_arn": args.kms_key_arn},
            deletion_protection_enabled=True,
            tags=args.tags,
            # It holds saved settings of a freeze: neither an update nor a destroy may take it away.
            opts=pulumi.ResourceOptions(parent=self, protect=True, retain_on_delete=True),
        )
        self.table_name = table.name
        self.register_outputs({"tableName": self.table_name})
