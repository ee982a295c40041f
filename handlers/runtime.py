"""What the entry points share: structured logs, clients, the ledger and the deadline of an invocation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from botocore.config import Config
from botocore.exceptions import NoCredentialsError

from handlers.core.clock import Deadline, utc_now
from handlers.core.engine import BATCHES_AT_ONCE, WRITTEN_AT_ONCE
from handlers.core.freeze import Freezer, Progress
from handlers.core.ledger import Ledger
from handlers.core.wire import WireClient

logger = Logger(service="dynamodb-dr")
"""Messages are constant, everything that varies is a field. Never an item's content, never a key's value."""

WORKER_THREADS = BATCHES_AT_ONCE
"""Writes under way at once in one worker."""

PAGE_THREADS = WRITTEN_AT_ONCE + 1
"""Pages in work at once in one worker, and the next one being read."""

# The Lambda control plane allows some 15 calls a second and region; ten attempts ride out a crowd.
_CONTROL_PLANE = Config(retries={"mode": "standard", "max_attempts": 10}, connect_timeout=5, read_timeout=30)
_DATA_PLANE = Config(connect_timeout=5, read_timeout=30, max_pool_connections=WORKER_THREADS + PAGE_THREADS)


@cache
def _session() -> boto3.Session:
    """One for all clients: each session reads DynamoDB's model anew, which a cold start need not do twice."""
    return boto3.Session()


@cache
def client(service: str) -> Any:
    """A control-plane client of this invocation's region, made once a container."""
    return _session().client(service, config=_CONTROL_PLANE)  # type: ignore[call-overload]


@cache
def data_client() -> WireClient:
    """The DynamoDB client that moves items; may be shared by threads."""
    credentials = _session().get_credentials()
    if credentials is None:
        raise NoCredentialsError
    return WireClient(client=_session().client("dynamodb", config=_DATA_PLANE), credentials=credentials)


def ledger() -> Ledger:
    """This stack's ledger."""
    return Ledger(client("dynamodb"), os.environ["LEDGER_TABLE"])


def freezer(event: Mapping[str, Any]) -> Freezer:
    """The freezer on behalf of the execution and incident that an event names."""
    return Freezer(
        functions=client("lambda"),
        tagging=client("resourcegroupstaggingapi"),
        ledger=ledger(),
        clock=utc_now,
        incident_id=event["incidentId"],
        execution_arn=event["executionArn"],
    )


def next_polls(event: Mapping[str, Any], progress: Progress) -> int:
    """What ``polls`` is in the next call: pauses for throttling are not counted, and everything else starts anew."""
    polls = int(event["polls"])
    return polls + 1 if progress.polled else polls if progress.wait_seconds else 0


def deadline(context: Any) -> Deadline:
    """When this invocation has to hand over to the next."""
    return Deadline(lambda: context.get_remaining_time_in_millis() / 1000)
