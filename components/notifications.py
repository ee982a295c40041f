"""The topic that is told of start, success and failure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws


@dataclass(frozen=True, kw_only=True)
class NotificationsArgs:
    """Arguments of :class:`Notifications`.

    Args:
        topic_name: physical name.
        kms_key_arn: customer-managed key that encrypts messages; None for AWS's key of SNS in this account.
        tags: tags of the topic.
    """

    topic_name: str
    kms_key_arn: str | None
    tags: Mapping[str, str]


class Notifications(pulumi.ComponentResource):
    """An SNS topic; who listens is up to the team (mail, chat, pager)."""

    topic_arn: pulumi.Output[str]

    def __init__(self, name: str, args: NotificationsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("dynamodb-dr:index:Notifications", name, None, opts)
        topic = aws.sns.Topic(
            name,
            name=args.topic_name,
            kms_master_key_id=args.kms_key_arn or "alias/aws/sns",
            tags=args.tags,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.topic_arn = topic.arn
        self.register_outputs({"topicArn": self.topic_arn})
