"""IAM statements: who may do what on which resource. Every role also gets the Deny on the sensitive tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

from .names import Names

Statement = dict[str, Any]

# IAM's limits, white space not counted: of all inline policies of a role together, and of one managed policy.
INLINE_LIMIT = 10_240
MANAGED_LIMIT = 6_144
_RESOURCES_PER_STATEMENT = 18  # ARNs of tables with the longest names still fit one managed policy


def allow(sid: str, actions: Sequence[str], resources: Sequence[str], **condition: Mapping[str, Any]) -> Statement:
    """A statement that allows; ``condition`` maps an operator to its keys."""
    statement: Statement = {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": list(resources)}
    return {**statement, "Condition": condition} if condition else statement


def deny_sensitive_tables(names: Names, sensitive_tables: Iterable[str]) -> list[Statement]:
    """The Deny that wins over every Allow: no role of this system touches a sensitive table, its indexes or backups."""
    arns = [names.table_arn(table) + suffix for table in sensitive_tables for suffix in ("", "/*")]
    if not arns:
        return []
    return [{"Sid": "NeverTouchSensitiveTables", "Effect": "Deny", "Action": "dynamodb:*", "Resource": arns}]


def use_table_keys(names: Names, key_arns: Iterable[str], *, restore: bool = False) -> list[Statement]:
    """Use the KMS keys of tables, through DynamoDB only. DynamoDB asks KMS in the caller's name.

    ``restore``: also let DynamoDB keep using the key for a table that it creates.
    """
    arns = sorted(set(key_arns))
    if not arns:
        return []
    actions = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
    return [
        allow(
            "UseTableKeys",
            [*actions, "kms:CreateGrant"] if restore else actions,
            arns,
            StringEquals={"kms:ViaService": f"dynamodb.{names.region}.amazonaws.com"},
        )
    ]


def use_key(sid: str, names: Names, key_arn: str | None, service: str, actions: Sequence[str]) -> list[Statement]:
    """Use the stack's own KMS key, through one service only; nothing where the stack has none."""
    if key_arn is None:
        return []
    return [
        allow(sid, actions, [key_arn], StringEquals={"kms:ViaService": f"{service}.{names.region}.amazonaws.com"}),
    ]


def tell(names: Names, key_arn: str | None) -> list[Statement]:
    """Publish to the topic. SNS encrypts a message with a data key that KMS makes and opens in the publisher's name."""
    return [
        allow("Tell", ["sns:Publish"], [names.topic_arn]),
        *use_key("EncryptMessages", names, key_arn, "sns", ["kms:Decrypt", "kms:GenerateDataKey"]),
    ]


def document(statements: Sequence[Statement]) -> str:
    """A policy document as compact JSON."""
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)}, separators=(",", ":"))


def pack(statements: Sequence[Statement]) -> list[str]:
    """Policy documents that hold all statements: one that fits inline, or several of a managed policy's size.

    A hundred tables' ARNs do not fit one inline policy.
    """
    whole = document(statements)
    if len(whole) <= INLINE_LIMIT:
        return [whole]
    documents: list[list[Statement]] = [[]]
    for part in chain.from_iterable(map(_split, statements)):
        if len(document([*documents[-1], part])) > MANAGED_LIMIT:
            documents.append([])
        documents[-1].append(part)
    return [document(parts) for parts in documents]


def _split(statement: Statement) -> list[Statement]:
    resources = statement["Resource"]
    if len(resources) <= _RESOURCES_PER_STATEMENT:
        return [statement]
    return [
        {
            **statement,
            "Sid": f"{statement['Sid']}{start // _RESOURCES_PER_STATEMENT}",
            "Resource": resources[start : start + _RESOURCES_PER_STATEMENT],
        }
        for start in range(0, len(resources), _RESOURCES_PER_STATEMENT)
    ]
