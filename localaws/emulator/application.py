"""ministack with every mend applied, as one ASGI application, and the loop that serves it."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config

from localaws.emulator import (
    dynamodb_backups,
    dynamodb_restore,
    dynamodb_scan,
    event_targets,
    faults_http,
    iam_requests,
    lambda_errors,
    lambda_logs,
    observability,
    patching,
    provisioned_concurrency,
    record_age,
    states_service,
)

AsgiApp = Callable[[Any, Any, Any], Awaitable[None]]


def build() -> AsgiApp:
    """Apply the mends in the order they build on each other and return the application.

    Raises:
        MendError: ministack is not the version, or no longer has the functions, that the mends were written for.
    """
    patching.require_version()
    observability.apply()
    faults_http.apply()
    iam_requests.apply()
    dynamodb_restore.apply()
    dynamodb_backups.apply()
    dynamodb_scan.apply()
    lambda_errors.apply()
    lambda_logs.apply()
    event_targets.apply()
    provisioned_concurrency.apply()
    record_age.apply()
    states_service.apply()
    from ministack import app as ministack_app

    return faults_http.with_faults(observability.with_log_pages(ministack_app.app))


async def serve(app: AsgiApp, listener: socket.socket) -> None:
    """Serve `app` on the already listening socket until the process ends."""
    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.keep_alive_timeout = 75
    config.loglevel = "WARNING"
    config.accesslog = None
    # A trigger that never fires: the process ends by its own signal handlers, which also end the Lambda workers.
    await hypercorn_serve(app, config, shutdown_trigger=asyncio.Event().wait)
