"""Starting and stopping the embedded AWS: one process that answers as AWS on 127.0.0.1.

with EmbeddedAws() as aws:
    aws.client("dynamodb").list_tables()
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import boto3
import botocore.session
from botocore.config import Config

from localaws.emulator.settings import work_folder

ACCOUNT_ID = "000000000000"
REGION = "us-east-1"
ROOT_ACCESS_KEY = "test"  # ministack's root credentials: no policy is asked for them
ROOT_SECRET_KEY = "test"  # noqa: S105  # the emulator's fixed secret opens nothing else
PROJECT_ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 60.0  # a cold start without bytecode was measured at 6 s on two cores
PORT_VARIABLE = "LOCAL_AWS_PORT"
HIGHEST_PORT = 65535


# Retries would hide the errors that tests ask about; 64 connections serve threaded callers.
CLIENT_CONFIG = Config(
    retries={"max_attempts": 0}, max_pool_connections=64, s3={"addressing_style": "path"}, read_timeout=300
)


class EmbeddedAwsError(RuntimeError):
    """The embedded AWS did not start or does not answer.

    The message is one sentence about the port, or ends with the last lines of the log.
    """


class EmbeddedAws:
    """A running embedded AWS; a context manager that stops it, with every Lambda worker, on the way out.

    Attributes:
        endpoint_url: e.g. "http://127.0.0.1:40123".
        region: "us-east-1".
        account_id: "000000000000".
        process_id: of the server, or None when attached to one that another process started.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        log_path: Path | None = None,
        detached: bool = False,
        settings: dict[str, str] | None = None,
    ) -> None:
        """Start the server and wait until it answers.

        Args:
            port: to listen on; 0 asks the system for a free one.
            log_path: where the server logs; a temporary file unless given.
            detached: let the server outlive this process (`stop` still ends it).
            settings: LOCAL_AWS_* environment variables of this server, over those of this process.

        Raises:
            EmbeddedAwsError: the port is not to be had, or it ended or did not answer within START_SECONDS.
        """
        _expect_free(port)
        self.region = REGION
        self.account_id = ACCOUNT_ID
        self._owned_log = log_path is None
        self.log_path = log_path or Path(tempfile.mkstemp(prefix="localaws-", suffix=".log")[1])
        self._clients: dict[str, Any] = {}
        self._process: subprocess.Popen[str] | None = None
        self._process = _start(port, self.log_path, detached=detached, settings=settings or {})
        self.process_id: int | None = self._process.pid
        try:
            self.endpoint_url = f"http://127.0.0.1:{self._announced_port()}"
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    @classmethod
    def attach(cls, endpoint_url: str) -> Self:
        """Use a server that already runs, e.g. one left by `python -m localaws up`; `stop` leaves it alone."""
        aws = cls.__new__(cls)
        aws.endpoint_url = endpoint_url.rstrip("/")
        aws.region, aws.account_id = REGION, ACCOUNT_ID
        aws._owned_log, aws.log_path = False, Path(os.devnull)
        aws._clients, aws._process, aws.process_id = {}, None, None
        return aws

    def client(self, service: str) -> Any:
        """A boto3 client of the account's root; one per service, safe to share between threads.

        Typed `Any` because one function returns every service's client: annotate where it is used.
        """
        if service not in self._clients:
            self._clients[service] = self._new_client(service, ROOT_ACCESS_KEY, ROOT_SECRET_KEY, None)
        return self._clients[service]

    def client_as(self, role_arn: str, service: str) -> Any:
        """A boto3 client whose calls are allowed or refused as the role's policies say."""
        credentials = self.client("sts").assume_role(RoleArn=role_arn, RoleSessionName="localaws")["Credentials"]
        return self._new_client(
            service, credentials["AccessKeyId"], credentials["SecretAccessKey"], credentials["SessionToken"]
        )

    def environment(self) -> dict[str, str]:
        """The environment variables with which the AWS CLI or any SDK talks to this server as root."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": ROOT_ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": ROOT_SECRET_KEY,
            "AWS_DEFAULT_REGION": self.region,
        }

    def access_log(self, table: str | None = None) -> list[dict[str, str]]:
        """Every DynamoDB request so far (of `table` only, if given): time, action, table, principal, outcome."""
        return list(self._get("access-log" + (f"?table={table}" if table else "")))

    def iam_log(self) -> list[dict[str, str]]:
        """Every IAM decision so far: time, principal, action, resource, decision, via."""
        return list(self._get("iam-log"))

    def inject(self, *rules: dict[str, Any]) -> None:
        """Put faults in force instead of all others; see `localaws.emulator.faults.Rule` for a rule's fields.

        Raises:
            EmbeddedAwsError: a rule is wrong; the message says why.
        """
        self._faults("PUT", json.dumps(rules).encode())

    def faults(self) -> dict[str, Any]:
        """`rules` in force, `calls` and `states` seen, and how many Lambda `invocations` are under way."""
        return self._faults("GET")

    def has_ended(self, execution_arn: str) -> bool:
        """Wait up to 20 seconds for an execution and every Lambda function under way to end; whether they have."""
        return bool(self._get(f"ended?execution={quote(execution_arn)}")["ended"])

    def clear_faults(self) -> list[dict[str, Any]]:
        """End all faults and forget what was seen; returns the rules, each with how often it `struck`."""
        return list(self._faults("DELETE")["rules"])

    def _faults(self, method: str, body: bytes | None = None) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.endpoint_url}/_localaws/faults", data=body, method=method)  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                return dict(json.loads(answer.read()))
        except urllib.error.HTTPError as error:
            raise EmbeddedAwsError(json.loads(error.read())["error"]) from None

    def stop(self) -> None:
        """End the server and its Lambda workers; harmless when it already ended or was only attached to."""
        if self._process is None:
            return
        stop_process_group(self._process.pid)
        self._process.wait(timeout=10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None
        if self._owned_log:
            self.log_path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _new_client(self, service: str, key: str, secret: str, token: str | None) -> Any:
        return isolated_session(key, secret, token).client(
            service,  # type: ignore[call-overload]  # the stubs list literal service names; this one is a variable
            endpoint_url=self.endpoint_url,
            config=CLIENT_CONFIG,
        )

    def _get(self, page: str) -> Any:
        with urllib.request.urlopen(f"{self.endpoint_url}/_localaws/{page}", timeout=30) as answer:  # noqa: S310
            return json.loads(answer.read())

    def _announced_port(self) -> int:
        process = self._process
        if process is None or process.stdout is None:
            raise EmbeddedAwsError("The embedded AWS was not started by this object.")
        line = process.stdout.readline()
        if not line.strip().isdigit():
            raise EmbeddedAwsError(f"The embedded AWS ended while starting.\n{self._log_tail()}")
        return int(line)

    def _wait_until_ready(self) -> None:
        """The socket listens before the loop serves it, so one request with a long patience is the whole wait."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._get("health")
            except (urllib.error.URLError, ConnectionError, TimeoutError) as error:
                if time.monotonic() > deadline or self._process is None or self._process.poll() is not None:
                    raise EmbeddedAwsError(f"The embedded AWS does not answer.\n{self._log_tail()}") from error
            else:
                return

    def _log_tail(self) -> str:
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-20:])


def asked_port() -> int | None:
    """The port that LOCAL_AWS_PORT asks for, 0 being any free one; None if it is not set or empty.

    Raises:
        EmbeddedAwsError: it is no port.
    """
    asked = os.environ.get(PORT_VARIABLE, "").strip()
    if not asked:
        return None
    if asked.isdecimal() and int(asked) <= HIGHEST_PORT:
        return int(asked)
    raise EmbeddedAwsError(
        f"{PORT_VARIABLE} is {asked!r}, expected a whole number from 1 to {HIGHEST_PORT}, or 0 for any free port: "
        "correct or unset it and start again."
    )


def isolated_session(key: str, secret: str, token: str | None = None) -> boto3.Session:
    """A session that reads neither the profile nor the configuration files of the person who runs it."""
    nothing = (None, None, os.devnull, None)
    core = botocore.session.Session(
        session_vars={"profile": (None, None, None, None), "config_file": nothing, "credentials_file": nothing}
    )
    return boto3.Session(
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        aws_session_token=token,
        region_name=REGION,
        botocore_session=core,
    )


def stop_process_group(process_id: int) -> None:
    """Ask the server to end, kill what is left of its group after 5 seconds, and remove its files."""
    _end_process_group(process_id)
    # The server removes them too, but a function being started meanwhile may have written again.
    shutil.rmtree(work_folder(process_id), ignore_errors=True)


def _end_process_group(process_id: int) -> None:
    for number, patience in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process_id, number)
        except ProcessLookupError:
            return
        except PermissionError:  # macOS: what is left of the group has ended and waits to be collected
            return
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if _ended(process_id):
                return
            time.sleep(0.01)


def _ended(process_id: int) -> bool:
    try:
        if os.waitpid(process_id, os.WNOHANG)[0]:
            return True
    except ChildProcessError:
        pass  # not a child of this process, e.g. a server left by an earlier command
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return True
    return False


def _expect_free(port: int) -> None:
    """Ask for the port as the server will, because the server could only end with a traceback in its log."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise EmbeddedAwsError(
                f"Port {port} is not to be had ({error.strerror}), expected a free one: end what uses it, or set "
                f"{PORT_VARIABLE} to another port (0: any free one), and start again."
            ) from error


def _start(port: int, log_path: Path, *, detached: bool, settings: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "localaws.emulator", "--port", str(port), "--log", str(log_path)]
    if not detached:
        command.append("--parent-pipe")
    # Neither the caller's AWS profile nor its Python path may reach the Lambda workers, which inherit this environment.
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "PYTHONPATH", "PULUMI_", "POWERTOOLS_"))
    }
    environment.update(settings)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=PROJECT_ROOT,
            env=environment,
            stdin=subprocess.DEVNULL if detached else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
