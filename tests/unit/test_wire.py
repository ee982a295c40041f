"""The wire: signature, errors, retries and connections, against a server that does what it is told."""

from __future__ import annotations

import json
import socket
import ssl
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError, HTTPClientError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from handlers.core import wire
from handlers.core.wire import PutRequest, RequestTooLarge, WireClient

CUT = b"Content-Length: 100\r\n\r\n{"
"""What the server closes the connection after."""
Reply = Callable[[bytes], bytes | None]
"""The bytes to answer a request with; None closes the connection instead."""


def reply(content: bytes | dict[str, Any], status: int = 200, headers: str = "") -> bytes:
    """An HTTP answer."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{headers}\r\n".encode() + body


@dataclass
class Server:
    """Answers requests, each with the next of ``replies``; the last one for ever."""

    replies: list[Reply]
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    tls: ssl.SSLContext | None = None
    url: str = ""

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        try:
            with self.tls.wrap_socket(connection, server_side=True) if self.tls else connection as stream:
                reader = stream.makefile("rb")
                while head := _head(reader):
                    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                    self.requests.append(head + reader.read(length))
                    number = min(len(self.requests), len(self.replies)) - 1
                    answer = self.replies[number](self.requests[-1])
                    if answer is None:
                        stream.shutdown(socket.SHUT_RDWR)
                        return
                    stream.sendall(answer)
                    if answer.endswith(CUT):
                        return
        except OSError:
            return  # the client did not like the certificate, say


def _head(reader: Any) -> bytes:
    lines = []
    while line := reader.readline():
        lines.append(line)
        if line == b"\r\n":
            return b"".join(lines)
    return b""


@contextmanager
def serving(*replies: Reply, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """A server on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(list(replies), tls=tls)
        host = "localhost" if tls else "127.0.0.1"
        server.url = f"{'https' if tls else 'http'}://{host}:{listener.getsockname()[1]}"
        threading.Thread(target=server._serve, args=(listener,), daemon=True).start()
        yield server
        listener.shutdown(socket.SHUT_RDWR)


def client_of(server: Server, token: str | None = None) -> WireClient:
    """A client of the server, which does not wait between its attempts."""
    session = boto3.Session("key", "secret", token, region_name="eu-west-1")
    client: Any = session.client("dynamodb", endpoint_url=server.url, config=Config(connect_timeout=5, read_timeout=5))
    credentials: Any = session.get_credentials()
    return WireClient(client=client, credentials=credentials, sleep=lambda _: None)


def answering(content: dict[str, Any], status: int = 200) -> Reply:
    """Always the same answer."""
    return lambda _: reply(content, status)


@pytest.mark.parametrize("token", [None, "a-session-token"])
def test_the_signature_is_botocores(monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    """AWS refuses every request, at three in the morning, because a signature differs in one character."""
    monkeypatch.setattr(wire, "datetime", type("Frozen", (), {"now": staticmethod(lambda _: MOMENT)}))
    credentials = ReadOnlyCredentials("key", "secret", token)
    body = '{"TableName":"größe"}'.encode()
    headers = wire._signed("dynamodb.eu-west-1.amazonaws.com", "eu-west-1", "Scan", body, credentials)
    request = AWSRequest(
        method="POST",
        url="https://dynamodb.eu-west-1.amazonaws.com/",
        data=body,
        headers={name: headers[name] for name in ("content-type", "x-amz-target")},
    )
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: MOMENT.replace(tzinfo=None))
    SigV4Auth(credentials, "dynamodb", "eu-west-1").add_auth(request)
    assert headers["authorization"] == request.headers["Authorization"]
    assert headers["x-amz-date"] == request.headers["X-Amz-Date"]
    assert headers.get("x-amz-security-token") == token == request.headers.get("X-Amz-Security-Token")


MOMENT = datetime(2026, 11, 20, 3, 0, 7, tzinfo=UTC)


def test_what_is_sent_and_answered_is_the_json(monkeypatch: pytest.MonkeyPatch) -> None:
    """A digit, a byte or a type that changes between the wire and the caller."""
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    item = {"id": {"N": "1.50"}, "b": {"B": "AP8="}, "s": {"SS": ["b", "a"]}, "t": {"S": 'größe "😀"\\ '}}
    with serving(answering({"Items": [item]})) as server:
        client = client_of(server)
        assert client.scan(TableName="t", Limit=1)["Items"] == [item]
        client.batch_write_item(
            RequestItems={"t": [PutRequest(item, json.dumps(item))]}, ReturnConsumedCapacity="TOTAL"
        )
        client.batch_write_item(RequestItems={"t": [{"DeleteRequest": {"Key": {"id": item["id"]}}}]})
    sent = [json.loads(request.split(b"\r\n\r\n", 1)[1]) for request in server.requests]
    assert sent == [
        {"TableName": "t", "Limit": 1},
        {"RequestItems": {"t": [{"PutRequest": {"Item": item}}]}, "ReturnConsumedCapacity": "TOTAL"},
        {"RequestItems": {"t": [{"DeleteRequest": {"Key": {"id": {"N": "1.50"}}}}]}},
    ]
    assert b"x-amz-target: DynamoDB_20120810.BatchWriteItem" in server.requests[1]
    assert server.connections == 1, "the connection was not kept"


@pytest.mark.parametrize(
    ("status", "answer", "code", "attempts"),
    [
        (
            400,
            {"__type": "com.amazonaws.dynamodb.v20120810#ThrottlingException", "message": "m"},
            "ThrottlingException",
            1,
        ),
        (400, {"__type": "com.amazon.coral.service#AccessDeniedException", "Message": "m"}, "AccessDeniedException", 1),
        (400, {"__type": "ExpiredTokenException:http://x", "message": "m"}, "ExpiredTokenException", 1),
        (
            500,
            {"__type": "com.amazonaws.dynamodb.v20120810#InternalServerError", "message": "m"},
            "InternalServerError",
            3,
        ),
        (503, {}, "503", 3),
    ],
)
def test_errors_have_the_sdks_form(status: int, answer: dict[str, Any], code: str, attempts: int) -> None:
    """Throttling that is not recognised ends the recovery; a refusal that is tried again hides what is wrong."""
    with serving(answering(answer, status)) as server, pytest.raises(ClientError) as failure:
        client_of(server).scan(TableName="t")
    assert failure.value.response["Error"]["Code"] == code
    assert failure.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert len(server.requests) == attempts


@pytest.mark.parametrize(
    "broken",
    [
        lambda _: None,
        lambda _: b"HTTP/1.1 200 OK\r\n" + CUT,
        lambda _: reply(b'{"Items": [}'),
        lambda _: reply({"Items": []}, headers="x-amz-crc32: 1\r\n"),
        lambda _: b"nonsense\r\n\r\n",
    ],
    ids=["closed", "cut", "not JSON", "damaged", "not HTTP"],
)
def test_a_broken_answer_is_asked_for_again(broken: Reply) -> None:
    """Half of a page passes for all of it, and the other half is lost."""
    good = {"Items": [{"id": {"S": "a"}}]}
    crc = zlib.crc32(json.dumps(good).encode())
    with serving(broken, lambda _: reply(good, headers=f"x-amz-crc32: {crc}\r\n")) as server:
        assert client_of(server).scan(TableName="t") == good
    assert len(server.requests) == 2


def test_no_answer_at_all() -> None:
    """A server that is gone makes the worker wait, or believe an empty page."""
    with serving(lambda _: None) as server, pytest.raises(HTTPClientError, match="no answer from"):
        client_of(server).scan(TableName="t")
    assert len(server.requests) == 3


def test_a_connection_that_was_closed_meanwhile_is_not_used() -> None:
    """A Lambda slept between two invocations: its first three requests fail on dead connections."""
    with serving(answering({"Count": 1})) as server:
        client = client_of(server)
        assert client.scan(TableName="t") == {"Count": 1}
        (idle,) = client._connections._idle
        idle.connection.sock.shutdown(socket.SHUT_RDWR)
        assert client.scan(TableName="t") == {"Count": 1}
    assert (server.connections, len(server.requests)) == (2, 2)


@pytest.mark.parametrize(
    "answer",
    [
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"Cou\r\n6;x=y\r\nnt": 1\r\n1\r\n}\r\n0\r\n\r\n',
        b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{"Count": 1}',
    ],
    ids=["chunked", "announced"],
)
def test_other_forms_of_an_answer(answer: bytes) -> None:
    """A proxy sends the answer in chunks, and every page is refused."""
    with serving(lambda _: answer) as server:
        client = client_of(server)
        assert client.scan(TableName="t") == client.scan(TableName="t") == {"Count": 1}
    assert server.connections == 1


def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next_one() -> None:
    """Every later answer on the connection is that to the request before: what was refused passes for written."""
    number = 0

    def doubled(_: bytes) -> bytes:
        nonlocal number
        number += 1
        return reply({"Count": number}) + reply({"Count": -1})

    with serving(doubled) as server:
        client = client_of(server)
        assert [client.scan(TableName="t")["Count"] for _ in range(4)] == [1, 2, 3, 4]


def test_many_dead_connections_cost_no_attempt() -> None:
    """A Lambda slept, and the network has dropped its twelve connections: the first calls fail one after the other."""
    with serving(answering({"Count": 1})) as server:
        client = client_of(server)
        client.scan(TableName="t")
        links = client._connections
        for _ in range(11):
            links._idle.append(links._connect())
        for link in links._idle:
            link.is_over = lambda: False  # type: ignore[method-assign] # nobody has told yet
            link.connection.sock.shutdown(socket.SHUT_WR)
        assert client.scan(TableName="t") == {"Count": 1}
        assert not any(link.connection.sock is None for link in links._idle)


def test_a_request_that_is_too_large_is_not_sent() -> None:
    """DynamoDB refuses it with an error that nobody can act on."""
    item = {"id": {"S": "x" * wire.MAX_REQUEST_BYTES}}
    with serving(answering({})) as server, pytest.raises(RequestTooLarge):
        client_of(server).batch_write_item(RequestItems={"t": [PutRequest(item, json.dumps(item))]})
    assert server.requests == []


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate of localhost that signs itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "certificate.pem", folder / "key.pem"


@pytest.mark.parametrize("trusted", [True, False])
def test_only_a_trusted_server_is_talked_to(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, trusted: bool
) -> None:
    """Credentials and items go to whoever answers."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate)
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    if trusted:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate[0]))
    with serving(answering({"Count": 1}), tls=tls) as server:
        if trusted:
            assert client_of(server).scan(TableName="t") == {"Count": 1}
        else:
            with pytest.raises(HTTPClientError, match="certificate"):
                client_of(server).scan(TableName="t")
    assert len(server.requests) == int(trusted)


def test_an_answer_too_many_over_tls_is_nobodys(
    certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What TLS has decrypted and nobody has read is taken for the next answer: a batch counts as written."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*certificate)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate[0]))
    first = {"Count": 1, "Padding": "x" * 70_000}  # more than is read at first, so that the end is read exactly
    replies = (lambda _: reply(first) + reply({"Count": -1}), answering({"Count": 2}), answering({"Count": 3}))
    with serving(*replies, tls=tls) as server:
        client = client_of(server)
        assert [client.scan(TableName="t")["Count"] for _ in range(3)] == [1, 2, 3]


def test_an_empty_answer_is_none() -> None:
    """Nothing at all is read as: nothing is left unprocessed."""
    empty = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
    with serving(lambda _: empty, answering({"Count": 2})) as server:
        assert client_of(server).scan(TableName="t") == {"Count": 2}
    assert len(server.requests) == 2
