"""The process that serves: `python -m localaws.emulator --port N --log FILE [--parent-pipe]`.

Prints one line, the port it listens on, once its socket accepts connections. With `--parent-pipe` it ends, with every
Lambda worker it started, as soon as its standard input closes: a killed test run leaves nothing behind.
"""

import argparse
import asyncio
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
from pathlib import Path

from localaws.emulator import settings

ACCOUNT_ID = "000000000000"
REGION = "us-east-1"


def main() -> None:
    """Listen, mend, serve until terminated."""
    parser = argparse.ArgumentParser(prog="python -m localaws.emulator")
    parser.add_argument("--port", type=int, default=0, help="0: any free port")
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--parent-pipe", action="store_true", help="end when standard input closes")
    arguments = parser.parse_args()

    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", arguments.port))
    listener.listen(256)
    listener.set_inheritable(True)
    port: int = listener.getsockname()[1]
    # Everything ministack writes (unpacked Lambda code above all) goes where the end of this process can remove it.
    folder = settings.work_folder(os.getpid())
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier process with this id
    folder.mkdir(mode=0o700)
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
    _configure_environment(port)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _end_group())
    if arguments.parent_pipe:
        threading.Thread(target=_end_with_parent, args=(arguments.log,), daemon=True, name="parent-pipe").start()

    from localaws.emulator import application  # after the environment: ministack reads it while being imported

    app = application.build()
    # ministack has read it; workers inherit this environment, and would take it for their own level.
    del os.environ["LOG_LEVEL"]
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    with arguments.log.open("ab", buffering=0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    asyncio.run(application.serve(app, listener))


def _configure_environment(port: int) -> None:
    os.environ.update(
        {
            "AUTH": "true",
            "GATEWAY_PORT": str(port),
            "MINISTACK_ACCOUNT_ID": ACCOUNT_ID,
            "MINISTACK_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "SFN_WAIT_SCALE": os.environ.get("LOCAL_AWS_WAIT_SCALE", "0.01"),
            "PERSIST_STATE": "0",
            "SFTP_ENABLED": "0",
            "IOT_MTLS_ENABLED": "0",
            "LOG_LEVEL": os.environ.get("LOCAL_AWS_LOG_LEVEL", "WARNING"),
        }
    )


def _end_with_parent(log: Path) -> None:
    while os.read(0, 4096):
        pass
    if log.parent == Path(tempfile.gettempdir()).parent:
        log.unlink(missing_ok=True)  # a temporary one, which nobody is left to read
    _end_group()


def _end_group() -> None:
    """End this process and its Lambda workers, which share its process group (the server starts it in its own)."""
    if tempfile.tempdir is not None:
        shutil.rmtree(tempfile.tempdir, ignore_errors=True)
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(0)


if __name__ == "__main__":
    main()
