"""Which KMS keys a call uses on its way, each asked about in the caller's name as AWS does.

A service that encrypts with a customer-managed key calls KMS for whoever calls the service, with `kms:ViaService` in
the request. ministack encrypts nothing and asks nobody, so that a role without the key's permissions passes a rehearsal
and fails on AWS. AWS keeps a table's key open for some minutes and a bucket's key for longer, and so asks less often;
whether it asks at all is what a rehearsal has to find out.

Sources: the chapters on encryption at rest of the developer guides of DynamoDB, S3 and SNS.
"""

from typing import Any

# Calls that need the table's key opened. What only describes or configures a table does not.
_TABLE_DATA = frozenset(
    {
        "BatchGetItem",
        "BatchWriteItem",
        "ConditionCheckItem",
        "DeleteItem",
        "GetItem",
        "GetRecords",
        "PutItem",
        "Query",
        "Scan",
        "UpdateItem",
    }
)
VIA_SERVICE = "kms:viaservice"  # condition keys are compared without regard to case
_OPEN = ("kms:Decrypt",)
# DynamoDB goes on using the key for the new table, long after the call: by a grant that it makes in the caller's name.
_RESTORES = {
    "RestoreTableToPointInTime": ("kms:DescribeKey", "kms:CreateGrant", "kms:Decrypt"),
    "RestoreTableFromBackup": ("kms:DescribeKey", "kms:CreateGrant", "kms:Decrypt"),
}
_OBJECTS = {"s3:PutObject": ("kms:GenerateDataKey",), "s3:GetObject": ("kms:Decrypt",)}

KeyUse = tuple[str, str, dict[str, Any]]
"""(action, ARN of the key, the request's context)."""


def key_uses(action: str, resource: str, region: str) -> list[KeyUse]:
    """What `action` on `resource` has KMS do, by customer-managed keys only.

    Args:
        action: e.g. "dynamodb:Scan".
        resource: the ARN that IAM is asked about.
        region: where the call is made.
    """
    service, _, operation = action.partition(":")
    key: str | None = None
    actions: tuple[str, ...] = ()
    if service == "dynamodb":
        actions = _RESTORES.get(operation, _OPEN if operation in _TABLE_DATA else ())
        key = _table_key(resource) if actions else None
    elif action in _OBJECTS:
        actions, key = _OBJECTS[action], _bucket_key(resource)
    elif action == "sns:Publish":
        actions, key = ("kms:GenerateDataKey", "kms:Decrypt"), _topic_key(resource)
    if key is None or ":key/" not in key:  # an alias stands for AWS's own key, whose policy lets the account use it
        return []
    context = {VIA_SERVICE: f"{service}.{region}.amazonaws.com"}
    return [(used, key, context) for used in actions]


def _table_key(resource: str) -> str | None:
    from ministack.services import dynamodb

    name = resource.partition(":table/")[2].partition("/")[0]
    table = dynamodb._tables.get(name) or {}
    description = table.get("SSEDescription") or {}
    key: str | None = description.get("KMSMasterKeyArn") if description.get("Status") == "ENABLED" else None
    return key


def _bucket_key(resource: str) -> str | None:
    from ministack.services import s3

    headers = s3._bucket_default_sse_headers(resource.partition(":::")[2].partition("/")[0])
    key: str | None = headers.get("x-amz-server-side-encryption-aws-kms-key-id")
    return key


def _topic_key(resource: str) -> str | None:
    from ministack.services import sns

    topic = sns._topics.get(resource) or {}
    key: str | None = topic.get("attributes", {}).get("KmsMasterKeyId")
    return key


def require_stores() -> None:
    """Check that ministack still keeps tables, buckets and topics where this module looks."""
    from ministack.services import dynamodb, s3, sns

    from localaws.emulator import patching

    patching.require_names(dynamodb, "_tables")
    patching.require_names(sns, "_topics")
    patching.require(s3, "_bucket_default_sse_headers", "(bucket_name)")
