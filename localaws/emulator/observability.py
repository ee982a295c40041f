"""What happened: every DynamoDB request and every IAM decision, kept in memory and served as JSON.

GET /_localaws/access-log?table=NAME  requests, oldest first: time (ISO 8601 UTC), action, table, principal, outcome.
GET /_localaws/iam-log                decisions, oldest first: time, principal, action, resource, decision, via (the
                                      service through which a KMS key is used, else "").
GET /_localaws/health                 {"status": "ok"}.

`outcome` is "ok", "denied" (IAM refused) or the error code of the answer.
"""

import json
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

from localaws.emulator import kms_use, patching

# About 300 bytes an entry: a bound on memory, far above what one rehearsal asks for.
LOG_LIMIT = 300_000

ACCESS_LOG: deque[dict[str, str]] = deque(maxlen=LOG_LIMIT)
IAM_LOG: deque[dict[str, str]] = deque(maxlen=LOG_LIMIT)

# The action by which this request was refused, when it is not the one that the request names.
_REFUSED: ContextVar[str] = ContextVar("refused", default="")

PREFIX = "/_localaws/"


def now() -> str:
    """This instant, ISO 8601 UTC with microseconds."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def record_decision(principal: str, action: str, resource: str, decision: str, via: str = "") -> None:
    """Keep one IAM decision ("Allow", "Deny" or "ImplicitDeny"); a refused DynamoDB call also joins the access log."""
    moment = now()
    IAM_LOG.append(
        {
            "time": moment,
            "principal": principal,
            "action": action,
            "resource": resource,
            "decision": decision,
            "via": via,
        }
    )
    if decision != "Allow" and action.startswith("dynamodb:"):
        table = resource.partition("table/")[2].partition("/")[0]
        ACCESS_LOG.append(
            {"time": moment, "action": action[9:], "table": table, "principal": principal, "outcome": "denied"}
        )


def tables_named(request: dict[str, Any]) -> set[str]:
    """The names of every table a DynamoDB request names, whether by name or by ARN, alone or in a batch."""
    named: set[str] = set()
    for member, value in request.items():
        if member in ("TableName", "TableArn", "SourceTableName", "SourceTableArn", "TargetTableName", "BackupArn"):
            named.add(_table_name(value))
        elif member in ("RequestItems",) and isinstance(value, dict):
            named.update(_table_name(key) for key in value)
        elif member == "TransactItems" and isinstance(value, list):
            named.update(
                _table_name(operation.get("TableName"))
                for entry in value
                if isinstance(entry, dict)
                for operation in entry.values()
                if isinstance(operation, dict)
            )
    named.discard("")
    return named


def _table_name(value: object) -> str:
    text = str(value or "")
    return text.partition(":table/")[2].partition("/")[0] if text.startswith("arn:") else text


def apply() -> None:
    """Record what passes through ministack's request entry of DynamoDB and through its policy enforcement."""
    from ministack.core import iam_actions, iam_evaluator
    from ministack.services import dynamodb

    kms_use.require_stores()

    patching.require(iam_evaluator, "caller_arn", "()")

    async def handle_request(method: str, path: str, headers: Any, body: bytes, query_params: Any) -> Any:
        answer = await original_handler(method, path, headers, body, query_params)
        _record_access(headers.get("x-amz-target", ""), body, answer, iam_evaluator.caller_arn())
        return answer

    original_handler = patching.replace(
        dynamodb, "handle_request", "(method, path, headers, body, query_params)", handle_request
    )

    def enforce(
        access_key_id: str,
        iam_action: str,
        service: str,
        region: str,
        resource_arn: str = "*",
        service_context: dict[str, Any] | None = None,
    ) -> Any:
        _REFUSED.set("")
        refusal = decided(access_key_id, iam_action, service, region, resource_arn, service_context)
        if refusal is not None or iam_evaluator.caller_arn().endswith(":root"):
            return refusal
        for used, key, context in kms_use.key_uses(iam_action, resource_arn, region):
            refusal = decided(access_key_id, used, "kms", region, key, context)
            if refusal is not None:
                _REFUSED.set(used)
                return refusal
        return None

    def decided(access_key_id: str, action: str, service: str, region: str, resource: str, context: Any) -> Any:
        refusal = original_enforce(access_key_id, action, service, region, resource, context)
        decision = "Allow" if refusal is None else getattr(refusal, "decision", "Deny")
        via = str((context or {}).get(kms_use.VIA_SERVICE, ""))
        record_decision(iam_evaluator.caller_arn(), action, resource, decision, via)
        return refusal

    def access_denied_response(service: str, action: str, principal_arn: str, request_id: str, **more: Any) -> Any:
        # A refusal names the action that was refused, which is KMS's where the call itself was allowed.
        return original_response(service, _REFUSED.get() or action, principal_arn, request_id, **more)

    original_response = patching.replace(
        iam_actions,
        "access_denied_response",
        "(service, action, principal_arn, request_id, error_code, message, headers, resource_arn, explicit_deny, "
        "resource_policy_arn)",
        access_denied_response,
    )

    original_enforce = patching.replace(
        iam_evaluator,
        "enforce",
        "(access_key_id, iam_action, service, region, resource_arn, service_context)",
        enforce,
    )


def _record_access(target: str, body: bytes, answer: Any, principal: str) -> None:
    try:
        request = json.loads(body) if body else {}
    except json.JSONDecodeError:
        return
    outcome = "ok"
    if answer[0] >= 400:
        try:
            outcome = str(json.loads(answer[2]).get("__type", "error")).rpartition("#")[2]
        except (ValueError, AttributeError):
            outcome = "error"
    moment = now()
    action = target.rpartition(".")[2]
    for table in sorted(tables_named(request)) or [""]:
        ACCESS_LOG.append(
            {"time": moment, "action": action, "table": table, "principal": principal, "outcome": outcome}
        )


def with_log_pages(app: Callable[[Any, Any, Any], Awaitable[None]]) -> Callable[[Any, Any, Any], Awaitable[None]]:
    """Serve the log pages and hand every other request to `app`."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PREFIX):
            await app(scope, receive, send)
            return
        page = scope["path"].removeprefix(PREFIX)
        query = parse_qs(scope.get("query_string", b"").decode())
        content: Any
        if page == "access-log":
            wanted = query.get("table")
            content = [entry for entry in list(ACCESS_LOG) if wanted is None or entry["table"] in wanted]
        elif page == "iam-log":
            content = list(IAM_LOG)
        else:
            content = {"status": "ok"} if page == "health" else None
        await send(
            {
                "type": "http.response.start",
                "status": 404 if content is None else 200,
                "headers": [(b"content-type", b"application/json")],
            }
        )
        await send({"type": "http.response.body", "body": json.dumps(content).encode()})

    return wrapped
