"""DynamoDB's data plane at the wire: pages and batches stay the JSON that DynamoDB sent.

An SDK client checks every value of every item against a model on its way out and builds every value anew on its way
in, which takes most of the time of a copy. Here the JSON is read and written once, by Python's C parser, and nothing
is modelled: a number keeps its digits and a binary value stays base64 text (``{"B": "aGk="}``), so every item arrives
as it was. Signing, credentials, connections and hooks are botocore's.
"""

from __future__ import annotations

import json
import random
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError, HTTPClientError
from botocore.httpsession import URLLib3Session

if TYPE_CHECKING:
    from botocore.credentials import Credentials
    from mypy_boto3_dynamodb import DynamoDBClient

MAX_REQUEST_BYTES = 16_000_000
"""BatchWriteItem's limit is 16 MB as transmitted; the smaller reading of MB."""

_ATTEMPTS = 3
_FIRST_PAUSE_SECONDS = 0.05
_write = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class RequestTooLarge(Exception):  # noqa: N818 - a signal to the caller, who splits the request
    """The request is larger than DynamoDB takes; nothing was sent."""


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
        client: a DynamoDB client, for its endpoint, region, timeouts and hooks (``before-call``, ``before-send`` and
            ``after-call`` of an operation are called as it calls them).
        credentials: where to take the credentials from; asked at every call, because they expire.
        sleep: replaced by tests.
    """

    client: DynamoDBClient
    credentials: Credentials
    sleep: Callable[[float], None] = time.sleep
    _http: URLLib3Session = field(init=False)

    def __post_init__(self) -> None:
        config = self.client.meta.config
        http = URLLib3Session(
            timeout=(config.connect_timeout, config.read_timeout),
            max_pool_connections=config.max_pool_connections,
            proxies=config.proxies,
        )
        object.__setattr__(self, "_http", http)

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
        """BatchWriteItem.

        Raises:
            RequestTooLarge: the batch has to be split; nothing was sent.
        """
        return self._call("BatchWriteItem", arguments)

    def _call(self, operation: str, arguments: Mapping[str, Any]) -> Any:
        """Send a request and read its answer; what may pass is tried again, as the SDK's standard mode does.

        Raises:
            ClientError: DynamoDB refused the request, or could not be made to answer it. Throttling is not tried again
                here: how long to wait is the caller's to say.
            HTTPClientError: no answer, after three attempts.
        """
        body = _write(arguments).encode()
        if len(body) > MAX_REQUEST_BYTES:
            raise RequestTooLarge(operation)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return self._send(operation, body)
            except (HTTPClientError, ClientError) as error:
                if attempt == _ATTEMPTS or not _may_pass(error):
                    raise
            self.sleep(random.uniform(0, _FIRST_PAUSE_SECONDS * 2**attempt))
        raise AssertionError("not reached: the last attempt returns or raises")

    def _send(self, operation: str, body: bytes) -> Any:
        meta = self.client.meta
        model, context = meta.service_model.operation_model(operation), {"client_region": meta.region_name}
        headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": f"DynamoDB_20120810.{operation}"}
        parameters: dict[str, Any] = {
            "url": meta.endpoint_url,
            "url_path": "/",
            "method": "POST",
            "headers": headers,
            "body": body,
        }
        meta.events.emit(
            f"before-call.dynamodb.{operation}", model=model, params=parameters, request_signer=None, context=context
        )
        request = AWSRequest(method="POST", url=meta.endpoint_url, data=parameters["body"], headers=headers)
        SigV4Auth(self.credentials.get_frozen_credentials(), "dynamodb", meta.region_name).add_auth(request)
        prepared = request.prepare()
        answers = meta.events.emit(f"before-send.dynamodb.{operation}", request=prepared)
        answer = next((given for _, given in answers if given is not None), None) or self._http.send(prepared)
        content, status = answer.content, answer.status_code
        expected = answer.headers.get("x-amz-crc32")
        if expected is not None and zlib.crc32(content) != int(expected):
            raise _failure(operation, 500, {"__type": "ChecksumMismatch", "message": "The answer arrived damaged."})
        try:
            parsed = json.loads(content) if content else {}
        except ValueError:
            parsed = {"__type": "UnreadableAnswer", "message": f"An answer of {len(content)} bytes is not JSON."}
            status = max(status, 500)
        meta.events.emit(
            f"after-call.dynamodb.{operation}", http_response=answer, parsed=parsed, model=model, context=context
        )
        if status >= 300:
            raise _failure(operation, status, parsed)
        return parsed


def _failure(operation: str, status: int, answer: Mapping[str, Any]) -> ClientError:
    """DynamoDB's refusal as the SDK raises it."""
    # "com.amazonaws.dynamodb.v20120810#ThrottlingException", some with an address after a colon.
    code = str(answer.get("__type", status)).rsplit("#", 1)[-1].split(":", 1)[0]
    message = str(answer.get("message") or answer.get("Message") or "")
    metadata: Any = {"HTTPStatusCode": status}
    return ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": metadata}, operation)


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed a moment later."""
    if isinstance(error, ClientError):
        return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400) >= 500
    return True
