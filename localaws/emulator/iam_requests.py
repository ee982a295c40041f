"""Requests as AWS's policy evaluation sees them."""

import json
from typing import Any

from localaws.emulator import patching


def apply() -> None:
    """Let a request name its backup, and count as sent over TLS."""
    from ministack import app
    from ministack.core import iam_actions

    def dynamodb_resource_arns(body: bytes, region: str, account_id: str) -> list[str]:
        # ministack knows requests by TableName only; AWS authorises these three by the ARN in the request.
        try:
            data: Any = json.loads(body or b"{}")
        except ValueError:
            data = None
        if isinstance(data, dict):
            arns = [data[key] for key in ("BackupArn", "SourceTableArn") if isinstance(data.get(key), str)]
            if "BackupArn" in data or "SourceTableArn" in data:
                return arns
        found: list[str] = original_arns(body, region, account_id)
        return found

    original_arns = patching.replace(
        iam_actions, "dynamodb_resource_arns", "(body, region, account_id)", dynamodb_resource_arns
    )

    def pin_request_origin(source_ip: str, secure_transport: bool) -> None:  # noqa: ARG001 - its signature
        # The loopback stands for AWS's TLS endpoints; a bucket's TLS-only policy would refuse everything here.
        original_pin(source_ip, True)

    original_pin = patching.replace(app, "pin_request_origin", "(source_ip, secure_transport)", pin_request_origin)
