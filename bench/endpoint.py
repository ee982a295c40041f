"""A DynamoDB endpoint on the loopback that has a capacity and a latency.

It speaks DynamoDB's protocol, JSON 1.0 over HTTP/1.1 with connections kept alive, and takes any signature. Requests are
worked on one after the other as they arrive; an answer that is to be late waits without holding up others.

Beside the service, for the bench itself::

    GET  /stats              requests, throttled requests, units, items, CPU seconds of this process
    GET  /digest?TABLE       the digest of the table's items, as handlers.core.digest has it; slow
    GET  /differences?A&B    how many items of table A are missing from B, extra or changed there; fast
    POST /tables             {"name", "partition_key", "sort_key", "capacity", "like", "order_seed"}
    POST /fill               {"table", "items", "size", "seed", "partition_keys", "hot_share"}
    POST /damage             {"table", "changed", "missing", "extra", "seed"}
    POST /latency            {"median", "p99"} in seconds; {"operation"} for one operation only
    POST /faults             {"share"} of the service's requests that end in an InternalServerError
    POST /reset-stats        count from zero again

Keys are ``[name, type]``, the sort key is optional; ``capacity`` has the arguments of
:class:`bench.capacity.CapacityOptions`. What the bench itself gets wrong is answered with status 400 and a sentence.

``python -m bench.endpoint`` serves on a free port, says ``ready URL`` on standard output, and ends when its standard
input does, so that it never outlives whoever started it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from .capacity import CapacityOptions
from .fill import Generator
from .items import KeyAttribute, KeySchema
from .latency import Latency
from .store import Store

_LARGEST_BODY_BYTES = 64 * 1024**2
_PREFIX = "DynamoDB_20120810."
_END_SECONDS = 10.0
_FAULT = b'{"__type":"com.amazonaws.dynamodb.v20120810#InternalServerError","message":"Internal server error"}'
_REASONS = {200: b"OK", 400: b"Bad Request", 404: b"Not Found", 500: b"Internal Server Error"}


class Server:
    """The tables, their latency, and what is done with a request; no sockets.

    Args:
        clock: monotonic seconds.
        latency: of every operation, until told otherwise.
        seed: of the latencies.
    """

    def __init__(self, clock: Callable[[], float], *, latency: Latency | None = None, seed: int = 0) -> None:
        self.store = Store()
        self._clock = clock
        self._latency = latency or Latency()
        self._latencies: dict[str, Latency] = {}
        self._source = random.Random(seed)
        self._fault_share = 0.0
        self._faults = random.Random(seed)

    def request(self, target: str, body: bytes) -> tuple[int, bytes, float]:
        """Do an operation of the service; returns status, answer, and how long it shall take in seconds."""
        operation = target.removeprefix(_PREFIX)
        latency = self._latencies.get(operation, self._latency).sample(self._source)
        faulty = self._fault_share > 0 and self._faults.random() < self._fault_share
        # Half of the requests that end so were done: their sender cannot know.
        if faulty and self._faults.random() < 0.5:
            return 500, _FAULT, latency
        answer = self.store.handle(operation, body, self._clock())
        if faulty:
            return 500, _FAULT, latency
        return 200 if answer.error is None else 400, answer.body, latency

    def control(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Do what the bench asks for; returns status and answer."""
        route, _, query = path.partition("?")
        try:
            arguments: dict[str, Any] = json.loads(body) if body else {}
            result: Any = {}
            match method, route:
                case "GET", "/stats":
                    result = {**self.store.stats(), "cpu_seconds": time.process_time()}
                case "GET", "/digest":
                    result = {"digest": self.store.digest(unquote(query))}
                case "GET", "/differences":
                    result = self.store.differences(*map(unquote, query.split("&")))
                case "POST", "/tables":
                    self._create(**arguments)
                case "POST", "/fill":
                    self._fill(**arguments)
                case "POST", "/damage":
                    self.store.damage(arguments.pop("table"), **arguments)
                case "POST", "/latency":
                    self._set_latency(**arguments)
                case "POST", "/faults":
                    self._set_faults(**arguments)
                case "POST", "/reset-stats":
                    self.store.reset_stats()
                case _:
                    return 404, b'{"error":"no such path"}'
        except KeyError as error:
            return 400, json.dumps({"error": f"There is no {error}."}).encode("ascii")
        except (TypeError, ValueError) as error:
            return 400, json.dumps({"error": str(error)}).encode("ascii")
        return 200, json.dumps(result).encode("ascii")

    def _create(
        self,
        name: str,
        partition_key: tuple[str, Any] = ("pk", "S"),
        sort_key: tuple[str, Any] | None = None,
        capacity: Mapping[str, Any] | None = None,
        like: str | None = None,
        order_seed: int = 0,
    ) -> None:
        schema = KeySchema(
            partition=KeyAttribute(name=partition_key[0], type=partition_key[1]),
            sort=None if sort_key is None else KeyAttribute(name=sort_key[0], type=sort_key[1]),
            order_seed=order_seed,
        )
        self.store.create_table(name, schema, CapacityOptions(**(capacity or {})), self._clock(), like=like)

    def _fill(self, table: str, items: int, **generator: Any) -> None:
        made = Generator(schema=self.store.tables[table].schema, **generator) if generator else None
        self.store.fill(table, items, self._clock(), made)

    def _set_latency(self, operation: str | None = None, **latency: float) -> None:
        if operation is None:
            self._latency, self._latencies = Latency(**latency), {}
        else:
            self._latencies[operation] = Latency(**latency)

    def _set_faults(self, share: float) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share is {share}; expected 0 to 1.")
        self._fault_share = share


class _Connection(asyncio.Protocol):
    """One connection: one request at a time, as HTTP/1.1 has it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._busy = False
        self._length = -1
        self._head: list[bytes] = []
        self._body_at = 0
        self._keep = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport), "a TCP connection is one"  # noqa: S101
        self._transport = transport

    def connection_lost(self, _exception: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._busy:
            self._next()

    def _next(self) -> None:
        """Work on the request in the buffer, if all of it is there."""
        if self._length < 0 and not self._read_head():
            return
        end = self._body_at + self._length
        if len(self._buffer) < end:
            return
        body = bytes(memoryview(self._buffer)[self._body_at : end])
        del self._buffer[:end]
        self._length = -1
        method, path = self._head[0].decode("latin-1").split(" ")[:2]
        target = self._header(b"x-amz-target")
        self._busy = True
        if target is None:
            status, answer = self._server.control(method, path, body)
            latency = 0.0
        else:
            status, answer, latency = self._server.request(target.decode("latin-1"), body)
        if latency:
            asyncio.get_running_loop().call_later(latency, self._answer, status, answer)
        else:
            self._answer(status, answer)

    def _read_head(self) -> bool:
        """Read the head of a request; returns whether all of it is there, and the request can be read."""
        split = self._buffer.find(b"\r\n\r\n")
        if split < 0:
            return False
        self._head = bytes(self._buffer[:split]).split(b"\r\n")
        self._body_at = split + 4
        length = self._header(b"content-length") or b"0"
        if not length.isdigit() or int(length) > _LARGEST_BODY_BYTES or self._header(b"transfer-encoding"):
            self._keep = False
            self._answer(400, b'{"error":"a Content-Length of at most 64 MB is expected"}')
            return False
        self._length = int(length)
        self._keep = (self._header(b"connection") or b"").lower() != b"close"
        if (self._header(b"expect") or b"").lower() == b"100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return True

    def _header(self, name: bytes) -> bytes | None:
        for line in self._head[1:]:
            if line[: len(name)].lower() == name and line[len(name) : len(name) + 1] == b":":
                return line[len(name) + 1 :].strip()
        return None

    def _answer(self, status: int, body: bytes) -> None:
        self._busy = False
        if self._transport is None:
            return
        head = b"HTTP/1.1 %d %s\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: %d\r\n%s" % (
            status,
            _REASONS[status],
            len(body),
            b"" if self._keep else b"Connection: close\r\n",
        )
        crc = b"x-amz-crc32: %d\r\nx-amzn-RequestId: bench\r\n\r\n" % zlib.crc32(body)
        self._transport.write(b"".join((head, crc, body)))
        if not self._keep:
            self._transport.close()
        elif self._buffer:
            self._next()


async def serve(server: Server, ready: Callable[[str], None]) -> None:
    """Serve on a free port of the loopback until cancelled; ``ready`` gets the URL."""
    listener = await asyncio.get_running_loop().create_server(lambda: _Connection(server), "127.0.0.1", 0, backlog=1024)
    async with listener:
        ready(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}")
        await listener.serve_forever()


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A running endpoint, for whoever measures against it.

    Args:
        url: where it is, for ``endpoint_url``.
    """

    url: str

    def stats(self) -> dict[str, Any]:
        """What was asked and what passed, since the last reset."""
        answer: dict[str, Any] = self._call("/stats", None)
        return answer

    def digest(self, table: str) -> str:
        """The digest of a table's items."""
        return str(self._call(f"/digest?{table}", None)["digest"])

    def differences(self, source: str, destination: str) -> dict[str, int]:
        """How many items are ``missing`` from the destination, ``extra`` or ``changed`` there."""
        answer: dict[str, int] = self._call(f"/differences?{source}&{destination}", None)
        return answer

    def create_table(self, name: str, **options: Any) -> None:
        """Make a table: see POST /tables in the module's description."""
        self._call("/tables", {"name": name, **options})

    def fill(self, table: str, items: int, **generator: Any) -> None:
        """Fill a table: see POST /fill."""
        self._call("/fill", {"table": table, "items": items, **generator})

    def damage(self, table: str, **damage: int) -> None:
        """Damage a table: see POST /damage."""
        self._call("/damage", {"table": table, **damage})

    def set_latency(self, *, median: float, p99: float, operation: str | None = None) -> None:
        """Set the latency in seconds, of one operation or all."""
        self._call("/latency", {"median": median, "p99": p99, **({"operation": operation} if operation else {})})

    def set_faults(self, share: float) -> None:
        """Let a share of the requests end in an InternalServerError; half of them are done all the same."""
        self._call("/faults", {"share": share})

    def reset_stats(self) -> None:
        """Count from zero again."""
        self._call("/reset-stats", {})

    def _call(self, path: str, arguments: Mapping[str, Any] | None) -> Any:
        """Raises RuntimeError with the endpoint's sentence where it refuses."""
        body = None if arguments is None else json.dumps(arguments).encode("ascii")
        request = urllib.request.Request(self.url + path, data=body, headers={"Content-Type": "application/json"})  # noqa: S310
        # No proxy between a bench and its own loopback, and no patience with a table of millions.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {json.loads(error.read())['error']}") from None


@contextmanager
def endpoint(*, latency: Latency | None = None, seed: int = 0) -> Iterator[Endpoint]:
    """Run an endpoint in a process of its own.

    Args:
        latency: of every operation.
        seed: of the latencies.

    Raises:
        RuntimeError: it did not start.
    """
    latency = latency or Latency()
    command = [sys.executable, "-m", "bench.endpoint", "--seed", str(seed)]
    command += ["--latency-median", str(latency.median), "--latency-p99", str(latency.p99)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1]
    )
    assert process.stdin is not None, "a pipe was asked for"  # noqa: S101
    assert process.stdout is not None, "a pipe was asked for"  # noqa: S101
    try:
        line = process.stdout.readline().split()
        if len(line) != 2 or line[0] != "ready":
            raise RuntimeError("The endpoint did not start; what it said is on standard error.")
        yield Endpoint(url=line[1])
    finally:
        process.stdin.close()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def main(arguments: list[str] | None = None) -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m bench.endpoint", description="A DynamoDB that has a capacity.")
    parser.add_argument("--latency-median", type=float, default=0.0, help="seconds")
    parser.add_argument("--latency-p99", type=float, default=0.0, help="seconds")
    parser.add_argument("--seed", type=int, default=0, help="of the latencies")
    options = parser.parse_args(arguments)
    latency = Latency(median=options.latency_median, p99=options.latency_p99)
    server = Server(time.monotonic, latency=latency, seed=options.seed)

    async def run() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wait_for_the_end() -> None:
            # Not sys.stdin: a thread that holds its lock would disturb the interpreter's end.
            while os.read(0, 4096):
                pass
            loop.call_soon_threadsafe(ended.set)

        serving = asyncio.create_task(serve(server, lambda url: print(f"ready {url}", flush=True)))  # noqa: T201
        threading.Thread(target=wait_for_the_end, daemon=True).start()
        await asyncio.wait((serving, asyncio.ensure_future(ended.wait())), return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        serving.cancel()

    asyncio.run(run())


if __name__ == "__main__":
    main()
