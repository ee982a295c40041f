"""Customer-managed KMS keys: a stack that encrypts with them recovers, and cannot without the permissions on them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from localaws.server import EmbeddedAws
from tests.infrastructure.test_policies import documented_key_policy

from .conftest import TABLES, Deployed, deployed_stack, request
from .test_recovery import prepared

TABLE = "local-licenses"


@pytest.fixture(scope="module")
def keys() -> dict[str, str]:
    """The ARNs of the stack's key and of the table's, once they are made."""
    return {}


@pytest.fixture(scope="module")
def encrypted(keys: dict[str, str]) -> Iterator[Deployed]:
    """The local stack with a key of its own, and one protected table with another."""

    def encrypt(aws: EmbeddedAws) -> dict[str, str]:
        for owner in ("stack", "table"):
            policy = documented_key_policy(aws.region, aws.account_id, "local")
            keys[owner] = aws.client("kms").create_key(Description=owner, Policy=policy)["KeyMetadata"]["Arn"]
        specification = {"Enabled": True, "SSEType": "KMS", "KMSMasterKeyId": keys["table"]}
        aws.client("dynamodb").update_table(TableName=TABLE, SSESpecification=specification)
        return {"kmsKeyArn": keys["stack"]}

    yield from deployed_stack({}, before=encrypt)


def decisions(deployed: Deployed) -> set[tuple[str, str, str, str]]:
    """(role, action, key, decision) of every use of a key that IAM was asked about."""
    return {
        (entry["principal"].split("/")[1], entry["action"], entry["resource"], entry["decision"])
        for entry in deployed.aws.iam_log()
        if entry["action"].startswith("kms:") and ":assumed-role/" in entry["principal"]
    }


class Without:
    """Takes one statement out of a role's policy for as long as the context lasts."""

    def __init__(self, deployed: Deployed, thing: str, sid: str) -> None:
        self._iam = deployed.client("iam")
        self._role = {"RoleName": f"local-dr-{thing}-us-east-1", "PolicyName": "least-privilege"}
        self._document = self._iam.get_role_policy(**self._role)["PolicyDocument"]
        self._left = [entry for entry in self._document["Statement"] if entry["Sid"] != sid]
        assert len(self._left) == len(self._document["Statement"]) - 1, f"{thing} has no statement {sid}"

    def __enter__(self) -> None:
        """Take it out."""
        self._put({**self._document, "Statement": self._left})

    def __exit__(self, *_: object) -> None:
        """Put it back."""
        self._put(self._document)

    def _put(self, document: object) -> None:
        self._iam.put_role_policy(**self._role, PolicyDocument=json.dumps(document))


def test_everything_that_holds_data_is_encrypted_with_the_key(encrypted: Deployed, keys: dict[str, str]) -> None:
    """Catches one of ledger, bucket, topic and logs that stays with AWS's own key."""
    ledger = encrypted.client("dynamodb").describe_table(TableName=encrypted.outputs["ledgerTableName"])["Table"]
    assert ledger["SSEDescription"]["KMSMasterKeyArn"] == keys["stack"]
    rules = encrypted.client("s3").get_bucket_encryption(Bucket=encrypted.outputs["reportBucketName"])
    (rule,) = rules["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": keys["stack"]}
    assert rule["BucketKeyEnabled"] is True
    topic = encrypted.client("sns").get_topic_attributes(TopicArn=encrypted.outputs["notificationTopicArn"])
    assert topic["Attributes"]["KmsMasterKeyId"] == keys["stack"]
    pages = encrypted.client("logs").get_paginator("describe_log_groups").paginate()
    groups = [group for page in pages for group in page["logGroups"] if "local-dr-" in group["logGroupName"]]
    assert len(groups) >= 16
    assert {group.get("kmsKeyId") for group in groups} == {keys["stack"]}


def test_a_recovery_uses_the_keys_and_is_never_refused(encrypted: Deployed, keys: dict[str, str]) -> None:
    """Catches a role that may use the ledger, the bucket, the topic or a table, but not the key that opens it."""
    point, good = prepared(encrypted, *TABLES)
    ended = encrypted.recover(request(point, *TABLES, incident="encrypted"))
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    assert {table: encrypted.items(table) for table in TABLES} == good
    asked = decisions(encrypted)
    assert {decision for *_, decision in asked} == {"Allow"}
    stack, table = keys["stack"], keys["table"]
    for thing, action, key in (
        ("validate-request", "kms:Decrypt", stack),
        ("freeze-functions", "kms:Decrypt", stack),
        ("write-report", "kms:GenerateDataKey", stack),
        ("orchestrator", "kms:GenerateDataKey", stack),
        ("orchestrator", "kms:Decrypt", stack),
        ("orchestrator", "kms:CreateGrant", table),
        ("purge-segment", "kms:Decrypt", table),
        ("copy-segment", "kms:Decrypt", table),
        ("digest-segment", "kms:Decrypt", table),
        ("prove-empty", "kms:Decrypt", table),
    ):
        assert (f"local-dr-{thing}-us-east-1", action, key, "Allow") in asked
    # The roles that move no items have no business with a protected table's key.
    workers = {"purge-segment", "copy-segment", "differential-segment", "digest-segment", "compare-segment"}
    movers = {*workers, "prove-empty", "orchestrator"}
    users = {role for role, _, key, _ in asked if key == table}
    assert users <= {f"local-dr-{thing}-us-east-1" for thing in movers}


@pytest.mark.parametrize(
    ("thing", "sid", "refused"),
    [
        ("purge-segment", "UseTableKeys", "kms:Decrypt"),
        ("validate-request", "UseTableKeys", "kms:Decrypt"),
        ("orchestrator", "UseTableKeys", "kms:DescribeKey"),
        ("write-report", "EncryptReports", "kms:GenerateDataKey"),
    ],
)
def test_without_the_key_the_recovery_fails_by_name(encrypted: Deployed, thing: str, sid: str, refused: str) -> None:
    """Catches a permission on a key that nothing needs, and an embedded AWS that would not notice one missing."""
    point, good = prepared(encrypted, TABLE)
    wanted = request(point, TABLE, incident=f"no-key-{thing}")
    with Without(encrypted, thing, sid):
        failed = encrypted.recover(wanted)
    assert failed["status"] == "FAILED"
    assert f"not authorized to perform: {refused}" in failed["cause"]
    ended = encrypted.recover(wanted)
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    assert encrypted.items(TABLE) == good[TABLE]


def test_without_the_topics_key_nobody_is_told_but_the_recovery_goes_on(encrypted: Deployed) -> None:
    """Catches a recovery that stops because a message could not be encrypted."""
    point, good = prepared(encrypted, TABLE)
    with Without(encrypted, "orchestrator", "EncryptMessages"):
        ended = encrypted.recover(request(point, TABLE, incident="untold"))
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    assert encrypted.items(TABLE) == good[TABLE]
    refused = [entry for entry in decisions(encrypted) if entry[1] == "kms:GenerateDataKey" and entry[3] != "Allow"]
    assert refused, "the message was encrypted all the same; nothing was tested"


def test_a_restored_table_keeps_its_sources_key(encrypted: Deployed, keys: dict[str, str]) -> None:
    """Catches restored copies of a customer-encrypted table that lie around under another key."""
    dynamodb = encrypted.client("dynamodb")
    dynamodb.restore_table_to_point_in_time(
        SourceTableName=TABLE, TargetTableName="dr-local.kept-key", UseLatestRestorableTime=True
    )
    restored = dynamodb.describe_table(TableName="dr-local.kept-key")["Table"]
    assert restored["SSEDescription"]["KMSMasterKeyArn"] == keys["table"]
    dynamodb.get_waiter("table_exists").wait(TableName="dr-local.kept-key", WaiterConfig={"Delay": 1})
    dynamodb.delete_table(TableName="dr-local.kept-key")
