"""HTTP connections that are kept alive, and as little between a request and its bytes as there can be.

A general HTTP library takes ten times the CPU of the system calls for each small request: it builds and sorts headers,
and parses the answer's as if they were an e-mail. DynamoDB's are few and plain. Connecting, TLS and the check of the
server's certificate are the standard library's.
"""

from __future__ import annotations

import select
import ssl
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from urllib.parse import urlsplit

_LONGEST_LINE = 65_536
_MOST_HEADERS = 100
_LARGEST_READ = 262_144


class ConnectionFailed(Exception):  # noqa: N818 - says what happened, as its siblings of the standard library do
    """No connection, or one that ended or fell silent before the whole answer was there."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An HTTP answer; the names of ``headers`` are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes


class _Link:
    """One open connection."""

    def __init__(self, connection: HTTPConnection, read_timeout: float) -> None:
        connection.connect()
        self.connection = connection
        connection.sock.settimeout(read_timeout)
        self._unread = bytearray()
        self._poll = select.poll()
        self._poll.register(connection.sock, select.POLLIN)

    def is_over(self) -> bool:
        """Whether the server has closed it, or has sent what nobody asked for."""
        return self._has_more() or bool(self._poll.poll(0))

    def _has_more(self) -> bool:
        """Whether more was received than the last answer: here, or in TLS's buffer, which poll does not see."""
        sock = self.connection.sock
        return bool(self._unread) or (isinstance(sock, ssl.SSLSocket) and sock.pending() > 0)

    def close(self) -> None:
        self.connection.close()

    def exchange(self, request: bytes) -> tuple[Answer, bool]:
        """Send a request; returns the answer, and whether the connection may be used again."""
        self.connection.sock.sendall(request)
        while True:
            version, status = self._status()
            headers = self._headers()
            if status >= 200:  # what is below only announces the answer
                break
        if "chunked" in headers.get("transfer-encoding", ""):
            content = self._chunks()
        elif "content-length" in headers:
            content = self._exactly(int(headers["content-length"]))
        else:
            raise ConnectionFailed("the server's answer does not say how long it is")
        kept = headers.get("connection", "").lower() != "close" and version == b"HTTP/1.1"
        # More than was asked for would be taken for the answer to the next request, and so on for ever.
        return Answer(status=status, headers=headers, content=content), kept and not self._has_more()

    def _status(self) -> tuple[bytes, int]:
        parts = self._line().split(None, 2)
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/") or not parts[1].isdigit():
            raise ConnectionFailed("the server's answer does not begin with an HTTP status")
        return parts[0], int(parts[1])

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        for _ in range(_MOST_HEADERS):
            line = self._line()
            if not line:
                return headers
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        raise ConnectionFailed(f"the server's answer has more than {_MOST_HEADERS} headers")

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self._line().split(b";", 1)[0], 16):
            parts.append(self._exactly(size))
            self._line()
        self._headers()  # trailers
        return b"".join(parts)

    def _line(self) -> bytes:
        """The next line, without its end."""
        while (end := self._unread.find(b"\n")) < 0:
            if len(self._unread) > _LONGEST_LINE:
                raise ConnectionFailed(f"the server's answer has a line of more than {_LONGEST_LINE} bytes")
            self._unread += self._receive(_LONGEST_LINE)
        line = bytes(self._unread[:end]).rstrip(b"\r")
        del self._unread[: end + 1]
        return line

    def _exactly(self, size: int) -> bytes:
        parts, missing = [bytes(self._unread[:size])], size - len(self._unread)
        del self._unread[:size]
        while missing > 0:
            parts.append(self._receive(missing))
            missing -= len(parts[-1])
        return b"".join(parts)

    def _receive(self, most: int) -> bytes:
        received = self.connection.sock.recv(min(most, _LARGEST_READ))
        if not received:
            raise ConnectionFailed("the connection ended before the answer did")
        return received


class Connections:
    """Connections to one endpoint; threads may share them.

    Args:
        url: the endpoint, ``https://HOST`` or, for tests, ``http://HOST:PORT``.
        connect_timeout, read_timeout: seconds.
        ca_bundle: file with the certificates of the authorities to trust.
    """

    def __init__(self, url: str, *, connect_timeout: float, read_timeout: float, ca_bundle: str | None = None) -> None:
        parts = urlsplit(url)
        self.host = parts.netloc
        self._address = (parts.hostname or "", parts.port)
        self._connect_timeout, self._read_timeout = connect_timeout, read_timeout
        self._tls = ssl.create_default_context(cafile=ca_bundle) if parts.scheme == "https" else None
        # The one used last is used next; appending and popping are atomic.
        self._idle: deque[_Link] = deque()

    def post(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Send a POST of ``body`` to ``/``.

        Raises:
            ConnectionFailed: there is no answer; whether the request was carried out is not known.
        """
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"POST / HTTP/1.1\r\n{lines}content-length: {len(body)}\r\n\r\n".encode("latin-1")
        # Head and body at once: two small packets cost twice the system calls of one.
        request = head + body
        idle = self._take()
        try:
            if idle is not None:
                try:
                    return self._exchange(idle, request)
                except TimeoutError:
                    raise
                except (OSError, ConnectionFailed):
                    # It was over, and nobody had told yet. The others will be as well: a Lambda has slept, say.
                    self._close_idle()
            return self._exchange(self._connect(), request)
        except (OSError, ValueError, ConnectionFailed) as error:
            raise ConnectionFailed(f"no answer from {self.host}: {error}") from error

    def _exchange(self, link: _Link, request: bytes) -> Answer:
        try:
            answer, kept = link.exchange(request)
        except BaseException:
            link.close()  # in the middle of an answer it is of no use to anybody
            raise
        if kept:
            self._idle.append(link)
        else:
            link.close()
        return answer

    def _take(self) -> _Link | None:
        """An open connection that is idle, or None."""
        while True:
            try:
                link = self._idle.pop()
            except IndexError:
                return None
            if not link.is_over():
                return link
            link.close()

    def _close_idle(self) -> None:
        while (link := self._take()) is not None:
            link.close()

    def _connect(self) -> _Link:
        host, port = self._address
        connection = (
            HTTPConnection(host, port, timeout=self._connect_timeout)
            if self._tls is None
            else HTTPSConnection(host, port, timeout=self._connect_timeout, context=self._tls)
        )
        return _Link(connection, self._read_timeout)
