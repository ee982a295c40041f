"""Faults in the AWS calls that Lambda functions make: errors, lost answers, reset connections, killed workers.

A call is recognised where ministack asks IAM about it: there the caller, the action and the resource are known, and the
call is allowed, so that a fault strikes exactly the calls that would have been carried out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from localaws.emulator import patching
from localaws.emulator.faults import FAULTS, Rule, RuleError

PAGE = "/_localaws/faults"
WAIT_PAGE = "/_localaws/ended"
_WAIT_SECONDS, _WAIT_STEP_SECONDS = 20.0, 0.01
WORKER_HEADER = b"x-localaws-worker"

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]
Answer = tuple[int, dict[str, str], bytes]

# Status and code as each service documents them. DynamoDB's data plane has a code of its own for throttling.
_DATA_PLANE = ("GetItem", "PutItem", "UpdateItem", "DeleteItem", "Query", "Scan", "BatchWriteItem", "BatchGetItem")
_THROTTLED = {
    "dynamodb": (400, "ThrottlingException"),
    "lambda": (429, "TooManyRequestsException"),
    "s3": (503, "SlowDown"),
    "states": (400, "ThrottlingException"),
    "tag": (400, "ThrottledException"),
}
_BROKEN = {
    "dynamodb": (500, "InternalServerError"),
    "lambda": (500, "ServiceException"),
    "s3": (500, "InternalError"),
    "states": (500, "InternalFailure"),
    "tag": (500, "InternalServiceException"),
}
_EXPIRED = {"s3": (400, "ExpiredToken"), "lambda": (403, "ExpiredTokenException")}


@dataclass
class _Request:
    """One HTTP request: what of it arrived, and what is to befall it."""

    kind: str | None = None
    action: str = ""
    body: bytes = b""


class _StruckError(BaseException):
    """Ends the handling of a request before it is carried out; ministack's handlers must not answer for it."""


_REQUEST: ContextVar[_Request | None] = ContextVar("localaws_request", default=None)
_CONNECTIONS: dict[Any, Any] = {}


def apply() -> None:
    """Ask the rules about every allowed call, split batches, and know the connections so that they can be reset."""
    from hypercorn.asyncio.tcp_server import TCPServer
    from ministack.core import iam_evaluator
    from ministack.services import dynamodb

    def enforce(
        access_key_id: str,
        iam_action: str,
        service: str,
        region: str,
        resource_arn: str = "*",
        service_context: dict[str, Any] | None = None,
    ) -> Any:
        refusal = original_enforce(access_key_id, iam_action, service, region, resource_arn, service_context)
        request = _REQUEST.get()
        caller = iam_evaluator.caller_arn()
        if refusal is None and request is not None and request.kind is None and ":assumed-role/" in caller:
            request.kind = FAULTS.called(caller.rpartition("/")[2], iam_action, resource_arn)
            request.action = iam_action
            if request.kind not in (None, "timeout", "kill-after", "partial"):
                raise _StruckError
        return refusal

    original_enforce = patching.replace(
        iam_evaluator,
        "enforce",
        "(access_key_id, iam_action, service, region, resource_arn, service_context)",
        enforce,
    )

    async def handle_request(method: str, path: str, headers: Any, body: bytes, query_params: Any) -> Any:
        request = _REQUEST.get()
        if request is None or request.kind != "partial":
            return await original_handler(method, path, headers, body, query_params)
        kept, left = halves(json.loads(body))
        answer = await original_handler(method, path, headers, json.dumps(kept).encode(), query_params)
        if answer[0] != 200:
            return answer
        document = {**json.loads(answer[2]), _left_member(request.action): left}
        # The service answers with the checksum of what it sends, and the SDK compares it.
        named = {key: value for key, value in answer[1].items() if key.lower() != "x-amz-crc32"}
        return answer[0], named, json.dumps(document).encode()

    original_handler = patching.replace(
        dynamodb, "handle_request", "(method, path, headers, body, query_params)", handle_request
    )

    async def run(self: Any) -> None:
        name = self.writer.get_extra_info("peername")
        _CONNECTIONS[name] = self.writer.transport
        try:
            await original_run(self)
        finally:
            _CONNECTIONS.pop(name, None)

    original_run = patching.replace(TCPServer, "run", "(self)", run)


def with_faults(app: AsgiApp) -> AsgiApp:
    """Serve the control page, and let faults strike what is handed to `app`."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        if scope["path"] == PAGE:
            await _control(scope["method"], receive, send)
            return
        if scope["path"] == WAIT_PAGE:
            await _wait(parse_qs(scope["query_string"].decode()), send)
            return
        request, held = _Request(), []
        _REQUEST.set(request)

        async def heard() -> Any:
            message = await receive()
            request.body += message.get("body", b"")
            return message

        async def said(message: MutableMapping[str, Any]) -> None:
            if request.kind in ("timeout", "kill-after"):
                held.append(message)  # nobody will ever hear it
            else:
                await send(message)

        with contextlib.suppress(_StruckError):
            await app(scope, heard, said)
        await _strike(request, scope, send)

    return wrapped


async def _strike(request: _Request, scope: Any, send: Any) -> None:
    """Do what is left to do once the call was, or was not, carried out."""
    kind = request.kind
    if kind is None or kind == "partial":
        return
    if kind in ("kill-before", "kill-after"):
        _kill(scope)
    if kind in ("kill-before", "kill-after", "timeout", "connection-reset"):
        connection = _CONNECTIONS.get(tuple(scope["client"]))
        if connection is not None:
            connection.abort()
        return
    status, headers, body = (
        unprocessed(request.body, request.action) if kind == "unprocessed" else failure(kind, request.action)
    )
    named = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": named})
    await send({"type": "http.response.body", "body": body})


def failure(kind: str, action: str) -> Answer:
    """The service's answer to a call of `action` that is struck by `kind`, as botocore expects it."""
    service, _, operation = action.partition(":")
    if kind == "throttle":
        status, code = _THROTTLED.get(service, (400, "ThrottlingException"))
        if service == "dynamodb" and operation in _DATA_PLANE:
            code = "ProvisionedThroughputExceededException"
    elif kind == "internal-error":
        status, code = _BROKEN.get(service, (500, "InternalFailure"))
    else:
        status, code = _EXPIRED.get(service, (400, "ExpiredTokenException"))
    message = f"Fault on purpose: {kind} of {action}"
    if service == "s3":
        text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        return status, {"content-type": "application/xml"}, text.encode()
    document = {"__type": code, "message": message}
    return status, {"content-type": "application/json", "x-amzn-errortype": code}, json.dumps(document).encode()


def _left_member(action: str) -> str:
    return "UnprocessedKeys" if action.endswith("BatchGetItem") else "UnprocessedItems"


def unprocessed(body: bytes, action: str) -> Answer:
    """DynamoDB's answer to a batch of which it has processed nothing."""
    document = {_left_member(action): json.loads(body)["RequestItems"], "ConsumedCapacity": []}
    if action.endswith("BatchGetItem"):
        document["Responses"] = {}
    return 200, {"content-type": "application/x-amz-json-1.0"}, json.dumps(document).encode()


def halves(request: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A batch request with the first half of each table's entries (at least one), and the rest as unprocessed."""
    kept: dict[str, Any] = {}
    left: dict[str, Any] = {}
    for table, asked in request["RequestItems"].items():
        entries = asked["Keys"] if isinstance(asked, dict) else asked
        middle = (len(entries) + 1) // 2
        for half, target in ((entries[:middle], kept), (entries[middle:], left)):
            if half:
                target[table] = {**asked, "Keys": half} if isinstance(asked, dict) else half
    return {**request, "RequestItems": kept}, left


def _kill(scope: Any) -> None:
    """Kill the worker that sent the request, if it is one of this server's."""
    from ministack.core import lambda_runtime

    named = dict(scope["headers"]).get(WORKER_HEADER, b"")
    for workers in list(lambda_runtime._workers.values()):
        for worker in list(workers):
            process = worker._proc
            if process is not None and str(process.pid).encode() == named and process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)


async def _wait(query: dict[str, list[str]], send: Any) -> None:
    """Answer once an execution's threads and all Lambda invocations have ended, or after 20 seconds."""
    from localaws.emulator import states_service

    deadline = time.monotonic() + _WAIT_SECONDS
    while not (ended := states_service.has_ended(query["execution"][0]) and FAULTS.invocations == 0):
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(_WAIT_STEP_SECONDS)
    await _answer(send, 200, {"ended": ended})


async def _answer(send: Any, status: int, document: Any) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(document).encode()})


async def _control(method: str, receive: Any, send: Any) -> None:
    """The control page: GET, PUT (a list of rules) and DELETE."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    status, document = 200, FAULTS.document()
    if method == "PUT":
        try:
            FAULTS.replace([Rule.parse(values) for values in json.loads(body)])
        except (RuleError, TypeError, ValueError) as error:
            status, document = 400, {"error": str(error)}
    elif method == "DELETE":
        FAULTS.clear()
    await _answer(send, status, document)
