"""Requests as AWS's policy evaluation sees them."""

import json
from collections.abc import Mapping
from typing import Any

from localaws.emulator import patching

# Lambda's calls that ministack asks about under another name or not at all, by (method, next to last part of the path,
# last part); "*" is a name. Without these a role that may freeze but not read, or not release, passes a rehearsal.
_LAMBDA_ACTIONS = {
    ("GET", "*", "concurrency"): "GetFunctionConcurrency",
    ("PUT", "*", "concurrency"): "PutFunctionConcurrency",
    ("DELETE", "*", "concurrency"): "DeleteFunctionConcurrency",
    ("GET", "*", "provisioned-concurrency"): "GetProvisionedConcurrencyConfig",
    ("PUT", "*", "provisioned-concurrency"): "PutProvisionedConcurrencyConfig",
    ("DELETE", "*", "provisioned-concurrency"): "DeleteProvisionedConcurrencyConfig",
    ("GET", "event-source-mappings", "*"): "GetEventSourceMapping",
    ("PUT", "event-source-mappings", "*"): "UpdateEventSourceMapping",
    ("DELETE", "event-source-mappings", "*"): "DeleteEventSourceMapping",
}


def lambda_action(method: str, path: str, query: Mapping[str, Any]) -> str | None:
    """The IAM action of a call to Lambda, or None where ministack's own answer is right."""
    parts = [part for part in path.split("/") if part]
    if len(parts) < 3:
        return None
    action = _LAMBDA_ACTIONS.get((method, "*", parts[-1])) or _LAMBDA_ACTIONS.get((method, parts[-2], "*"))
    if action == "GetProvisionedConcurrencyConfig" and "List" in query:
        return "ListProvisionedConcurrencyConfigs"
    return action


def apply() -> None:
    """Let a request name its backup and its Lambda action, and count as sent over TLS."""
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

    def extract_iam_action(
        service: str, method: str, path: str, headers: Any, body: bytes, query_params: Any
    ) -> str | None:
        action = lambda_action(method, path, query_params or {}) if service == "lambda" else None
        found: str | None = original_action(service, method, path, headers, body, query_params)
        return f"lambda:{action}" if action else found

    original_action = patching.replace(
        iam_actions, "extract_iam_action", "(service, method, path, headers, body, query_params)", extract_iam_action
    )

    def pin_request_origin(source_ip: str, secure_transport: bool) -> None:  # noqa: ARG001 - its signature
        # The loopback stands for AWS's TLS endpoints; a bucket's TLS-only policy would refuse everything here.
        original_pin(source_ip, True)

    original_pin = patching.replace(app, "pin_request_origin", "(source_ip, secure_transport)", pin_request_origin)
