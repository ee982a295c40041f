"""Writes to a table in batches, the way the rehearsal's own "application" does.

The recovery has a writer of its own; this one is kept apart so that the rehearsal never leans on what it examines.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

BATCH_SIZE = 25
"""Requests a BatchWriteItem call may hold (DynamoDB's limit)."""

WRITERS = 4
"""Threads that write at once. More than the cores of a laptop's emulator only makes requests queue there."""

ATTEMPTS = 12
"""Tries for one batch; with the doubling pause below that is about 20 seconds of refusal."""

FIRST_PAUSE_SECONDS = 0.02
LONGEST_PAUSE_SECONDS = 5.0

Item = dict[str, Any]
"""An item as the DynamoDB API carries it: attribute name -> {"S": ...}, {"N": "..."}, {"B": bytes}, ..."""

Request = dict[str, Any]
"""One entry of BatchWriteItem: {"PutRequest": {"Item": ...}} or {"DeleteRequest": {"Key": ...}}."""


class BatchRefusedError(RuntimeError):
    """DynamoDB kept handing requests back as unprocessed until the tries were used up."""

    def __init__(self, table: str, left: int, attempts: int) -> None:
        super().__init__(f"{left} requests to {table} were still unprocessed after {attempts} tries.")
        self.table = table
        self.left = left
        self.attempts = attempts


def put_request(item: Item) -> Request:
    """A request that writes `item`."""
    return {"PutRequest": {"Item": item}}


def delete_request(key: Item) -> Request:
    """A request that deletes the item with this key."""
    return {"DeleteRequest": {"Key": key}}


def write_all(
    client: Any, table: str, requests: Iterable[Request], *, sleep: Callable[[float], None] = time.sleep
) -> int:
    """Send every request to `table` and return how many there were.

    Args:
        client: a boto3 DynamoDB client.
        table: the table's name.
        requests: puts and deletes; a key may occur once only, since batches run at the same time.
        sleep: waits between tries, in seconds.

    Raises:
        BatchRefusedError: a batch was still not fully processed after `ATTEMPTS` tries.
    """
    batches = list(_chunks(list(requests)))
    with ThreadPoolExecutor(max_workers=WRITERS) as pool:
        return sum(pool.map(lambda batch: _write_batch(client, table, batch, sleep), batches))


def _chunks(requests: Sequence[Request]) -> Iterator[list[Request]]:
    for start in range(0, len(requests), BATCH_SIZE):
        yield list(requests[start : start + BATCH_SIZE])


def _write_batch(client: Any, table: str, batch: list[Request], sleep: Callable[[float], None]) -> int:
    left = batch
    for attempt in range(ATTEMPTS):
        answer = client.batch_write_item(RequestItems={table: left})
        left = answer.get("UnprocessedItems", {}).get(table, [])
        if not left:
            return len(batch)
        # Jitter keeps the writers from coming back all at the same moment.
        sleep(random.uniform(0.5, 1.0) * min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**attempt))
    raise BatchRefusedError(table, len(left), ATTEMPTS)
