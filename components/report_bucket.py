"""The bucket that keeps the reports: private, encrypted, versioned, TLS only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws


@dataclass(frozen=True, kw_only=True)
class ReportBucketArgs:
    """Arguments of :class:`ReportBucket`.

    Args:
        bucket_name: physical name, unique in the world.
        partition: the AWS partition, e.g. ``aws``.
        kms_key_arn: customer-managed key that encrypts the reports; None for S3's own key.
        tags: tags of the bucket.
    """

    bucket_name: str
    partition: str
    kms_key_arn: str | None
    tags: Mapping[str, str]


class ReportBucket(pulumi.ComponentResource):
    """A bucket that outlives the stack: reports are evidence."""

    bucket_name: pulumi.Output[str]

    def __init__(self, name: str, args: ReportBucketArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamodb-dr:index:ReportBucket", name, None, opts)
        bucket = aws.s3.Bucket(
            name,
            bucket=args.bucket_name,
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self, protect=True, retain_on_delete=True),
        )
        child = pulumi.ResourceOptions(parent=self)
        aws.s3.BucketVersioning(
            f"{name}-versioning",
            bucket=bucket.bucket,
            versioning_configuration={"status": "Enabled"},
            opts=child,
        )
        aws.s3.BucketServerSideEncryptionConfiguration(
            f"{name}-encryption",
            bucket=bucket.bucket,
            rules=[_encryption(args.kms_key_arn)],
            opts=child,
        )
        private = aws.s3.BucketPublicAccessBlock(
            f"{name}-private",
            bucket=bucket.bucket,
            block_public_acls=True,
            block_public_policy=True,
            ignore_public_acls=True,
            restrict_public_buckets=True,
            opts=child,
        )
        arn = f"arn:{args.partition}:s3:::{args.bucket_name}"
        tls_only = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Sid": "TlsOnly",
                    "Effect": "Deny",
                    "Principal": "*",
                    "Action": "s3:*",
                    "Resource": [arn, f"{arn}/*"],
                    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
                }
            ],
        }
        aws.s3.BucketPolicy(
            f"{name}-tls-only",
            bucket=bucket.bucket,
            policy=json.dumps(tls_only),
            # S3 refuses two changes to a bucket's access at once.
            opts=pulumi.ResourceOptions(parent=self, depends_on=[private]),
        )
        self.bucket_name = bucket.bucket
        self.register_outputs({"bucketName": self.bucket_name})


def _encryption(kms_key_arn: str | None) -> aws.s3.BucketServerSideEncryptionConfigurationRuleArgsDict:
    """The rule of default encryption. A bucket key lets S3 ask KMS once for many objects."""
    if kms_key_arn is None:
        return {"apply_server_side_encryption_by_default": {"sse_algorithm": "AES256"}}
    return {
        "apply_server_side_encryption_by_default": {"sse_algorithm": "aws:kms", "kms_master_key_id": kms_key_arn},
        "bucket_key_enabled": True,
    }
