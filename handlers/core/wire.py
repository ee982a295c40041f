"""DynamoDB's data plane at the wire: pages and batches stay the JSON that DynamoDB sent.

An SDK client checks every value of every item against a model on its way out and builds every value anew on its way
in, which takes most of the time of a copy. Here the JSON is read and written once, by Python's C parser, and nothing
is modelled: a number keeps its digits and a binary value stays base64 text (``{"B": "aGk="}``), so every item arrives
as it was. Credentials, endpoint and hooks are botocore's.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import random
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from botocore.exceptions import ClientError, HTTPClientError
from botocore.httpsession import get_cert_path

from .connections import ConnectionFailed, Connections

if TYPE_CHECKING:
    from botocore.credentials import Credentials, ReadOnlyCredentials
    from mypy_boto3_dynamodb import DynamoDBClient

MAX_REQUEST_BYTES = 16_000_000
"""BatchWriteItem's limit is 16 MB as transmitted; the smaller reading of MB."""

_ATTEMPTS = 3
_FIRST_PAUSE_SECONDS = 0.05
_CONTENT_TYPE = "application/x-amz-json-1.0"
_write = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class RequestTooLarge(Exception):  # noqa: N818 - a signal to the caller, who splits the request
    """The request is larger than DynamoDB takes; nothing was sent."""


class PutRequest(dict[str, Any]):
    """A put of BatchWriteItem whose item's JSON is at hand already."""

    def __init__(self, item: Mapping[str, Any], text: str) -> None:
        super().__init__({"PutRequest": {"Item": item}})
        self.text = f'{{"PutRequest":{{"Item":{text}}}}}'


class DataPlane(Protocol):
    """The calls that move items: arguments and answers as boto3's client has them."""

    def scan(self, **arguments: Any) -> Any:
        """One page."""

    def batch_get_item(self, **arguments: Any) -> Any:
        """Up to 100 items by their keys."""

    def batch_write_item(self, **arguments: Any) -> Any:
        """Up to 25 puts and deletes."""


@dataclass(frozen=True, kw_only=True)
class WireClient:
    """Sends DynamoDB's JSON as it is; safe to share between threads.

    Args:
        client: a DynamoDB client, for its endpoint, region, timeouts and hooks: ``before-call`` and ``after-call``
            of an operation are called as it calls them.
        credentials: where to take the credentials from; asked at every call, because they expire.
        sleep: replaced by tests.
    """

    client: DynamoDBClient
    credentials: Credentials
    sleep: Callable[[float], None] = time.sleep
    _connections: Connections = field(init=False)

    def __post_init__(self) -> None:
        meta = self.client.meta
        config: Any = meta.config  # the stubs know none of its options
        connections = Connections(
            meta.endpoint_url,
            connect_timeout=config.connect_timeout,
            read_timeout=config.read_timeout,
            ca_bundle=os.environ.get("AWS_CA_BUNDLE") or get_cert_path(True),
        )
        object.__setattr__(self, "_connections", connections)

    @property
    def meta(self) -> Any:
        """The underlying client's, with its hooks."""
        return self.client.meta

    def scan(self, **arguments: Any) -> Any:
        """Scan."""
        return self._call("Scan", arguments)

    def batch_get_item(self, **arguments: Any) -> Any:
        """BatchGetItem."""
        return self._call("BatchGetItem", arguments)

    def batch_write_item(self, **arguments: Any) -> Any:
        """BatchWriteItem; an entry that is a :class:`PutRequest` is sent as its text says.

        Raises:
            RequestTooLarge: the batch has to be split; nothing was sent.
        """
        requests = arguments["RequestItems"]
        if not all(isinstance(entry, PutRequest) for entries in requests.values() for entry in entries):
            return self._call("BatchWriteItem", arguments)
        tables = (f"{_write(name)}:[{','.join(entry.text for entry in entries)}]" for name, entries in requests.items())
        others = _write({name: value for name, value in arguments.items() if name != "RequestItems"})
        return self._call("BatchWriteItem", f'{{"RequestItems":{{{",".join(tables)}}},{others[1:]}')

    def _call(self, operation: str, arguments: Mapping[str, Any] | str) -> Any:
        """Send a request and read its answer; what may pass is tried again, as the SDK's standard mode does.

        Raises:
            ClientError: DynamoDB refused the request, or could not be made to answer it. Throttling is not tried again
                here: how long to wait is the caller's to say.
            HTTPClientError: no answer, after three attempts.
        """
        body = (arguments if isinstance(arguments, str) else _write(arguments)).encode()
        if len(body) > MAX_REQUEST_BYTES:
            raise RequestTooLarge(operation)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._send(operation, body)
            except (HTTPClientError, ClientError) as error:
                if attempt == _ATTEMPTS or not may_pass(error):
                    raise
            self.sleep(random.uniform(0, _FIRST_PAUSE_SECONDS * 2**attempt))
        raise AssertionError("not reached: the last attempt returns or raises")

    def _send(self, operation: str, body: bytes) -> Any:
        meta = self.client.meta
        model, context = meta.service_model.operation_model(operation), {"client_region": meta.region_name}
        headers: dict[str, str] = {}
        request: dict[str, Any] = {
            "url": meta.endpoint_url,
            "url_path": "/",
            "method": "POST",
            "headers": headers,
            "body": body,
        }
        meta.events.emit(
            f"before-call.dynamodb.{operation}", model=model, params=request, request_signer=None, context=context
        )
        credentials = self.credentials.get_frozen_credentials()
        headers |= _signed(self._connections.host, meta.region_name, operation, request["body"], credentials)
        try:
            answer = self._connections.post(headers, request["body"])
        except ConnectionFailed as error:
            raise HTTPClientError(error=error) from error
        content, status = answer.content, answer.status
        expected = answer.headers.get("x-amz-crc32")
        if expected is not None and zlib.crc32(content) != int(expected):
            raise _failure(operation, 500, {"__type": "ChecksumMismatch", "message": "The answer arrived damaged."})
        try:
            # Of a good answer nothing at all may be missing: an empty one would say that all was processed.
            parsed = json.loads(content) if content or status < 300 else {}
        except ValueError:
            parsed = {"__type": "UnreadableAnswer", "message": f"An answer of {len(content)} bytes is not JSON."}
            status = max(status, 500)
        meta.events.emit(
            f"after-call.dynamodb.{operation}", http_response=answer, parsed=parsed, model=model, context=context
        )
        if status >= 300:
            raise _failure(operation, status, parsed)
        return parsed


@lru_cache(maxsize=4)
def _signing_key(secret: str, date: str, region: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (date, region, "dynamodb", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _signed(host: str, region: str, operation: str, body: bytes, credentials: ReadOnlyCredentials) -> dict[str, str]:
    """The headers of a request, with its signature (AWS Signature Version 4).

    botocore takes every request apart, sorts its headers and derives the day's key anew, which takes longer than
    everything else about a small request. Here the headers are always the same ones; a test holds the result against
    botocore's.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    headers = {
        "content-type": _CONTENT_TYPE,
        "host": host,
        "x-amz-date": stamp,
        **({"x-amz-security-token": credentials.token} if credentials.token else {}),
        "x-amz-target": f"DynamoDB_20120810.{operation}",
    }
    names = ";".join(headers)
    lines = "".join(f"{name}:{value}\n" for name, value in headers.items())
    canonical = f"POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
    scope = f"{stamp[:8]}/{region}/dynamodb/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.digest(_signing_key(credentials.secret_key, stamp[:8], region), text.encode(), "sha256").hex()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return headers


def _failure(operation: str, status: int, answer: Mapping[str, Any]) -> ClientError:
    """DynamoDB's refusal as the SDK raises it."""
    # "com.amazonaws.dynamodb.v20120810#ThrottlingException", some with an address after a colon.
    code = str(answer.get("__type", status)).rsplit("#", 1)[-1].split(":", 1)[0]
    message = str(answer.get("message") or answer.get("Message") or "")
    metadata: Any = {"HTTPStatusCode": status}
    return ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}, operation)


def may_pass(error: Exception) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, ClientError):
        return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400) >= 500
    return True
