"""What the program has to know of the tables to protect: they exist already and belong to the user."""

from __future__ import annotations

from collections.abc import Iterable

import pulumi
import pulumi_aws as aws

from .settings import ProtectedTable


def look_up(tables: Iterable[ProtectedTable]) -> list[str]:
    """Look up every table; returns the ARNs of the KMS keys that encrypt them.

    A table that does not exist fails the preview. One that could not be recovered, or not safely, is warned of.
    """
    keys = []
    for table in tables:
        found = aws.dynamodb.get_table(name=table.name)
        if not found.point_in_time_recovery.enabled:
            pulumi.log.warn(f"PITR is switched off on table {table.name}: it cannot be recovered until it is on.")
        if found.replicas:
            pulumi.log.warn(
                f"Table {table.name} has replicas in other regions: a recovery is replicated there, and writers there, "
                "which this stack cannot freeze, make it fail. Stop them during a recovery."
            )
        if found.server_side_encryption.kms_key_arn:
            keys.append(found.server_side_encryption.kms_key_arn)
    return keys
