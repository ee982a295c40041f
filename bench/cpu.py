"""CPU of a worker per item, against what comparable systems do: boto3's resource, Scan and ``batch_writer``."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from handlers.core.engine import Copy, Purge

from .endpoint import Endpoint, endpoint
from .worker import UNLIMITED, cpu_seconds, session, worker

KEY_NAMES = ("pk",)
BASELINE_ITEMS = 2_000
ITEMS = 20_000
RUNS = 5


def _baseline_pages(table: Any, **arguments: Any) -> Any:
    while True:
        page = table.scan(ConsistentRead=True, **arguments)
        yield from page["Items"]
        if "LastEvaluatedKey" not in page:
            return
        arguments["ExclusiveStartKey"] = page["LastEvaluatedKey"]


def _baseline(target: Endpoint) -> tuple[float, float]:
    """CPU seconds an item of copy and purge by boto3's resource."""
    resource = session().resource("dynamodb", endpoint_url=target.url)
    source, destination = resource.Table("baseline"), resource.Table("baseline-copy")

    def copy() -> None:
        with destination.batch_writer() as batch:
            for item in _baseline_pages(source):
                batch.put_item(Item=item)

    def purge() -> None:
        names = {"#key": KEY_NAMES[0]}
        with destination.batch_writer() as batch:
            for key in _baseline_pages(destination, ProjectionExpression="#key", ExpressionAttributeNames=names):
                batch.delete_item(Key=key)

    copied = cpu_seconds(copy)
    _require_equal(target, "baseline", "baseline-copy")
    purged = cpu_seconds(purge)
    _require_empty(target, "baseline-copy")
    return copied / BASELINE_ITEMS, purged / BASELINE_ITEMS


def _ours(target: Endpoint) -> tuple[float, float]:
    """CPU seconds an item of copy, with its digest, and of purge by the engine."""
    with worker(target) as ours:
        writer = ours.writer("copy")
        copied = cpu_seconds(lambda: ours.run(Copy(source_table_name="source", writer=writer)))
    _require_equal(target, "source", "copy")
    with worker(target) as ours:
        writer = ours.writer("copy")
        purged = cpu_seconds(lambda: ours.run(Purge(writer=writer, key_names=KEY_NAMES)))
    _require_empty(target, "copy")
    return copied / ITEMS, purged / ITEMS


def _require_equal(target: Endpoint, source: str, copy: str) -> None:
    if any(target.differences(source, copy).values()):
        raise RuntimeError(f"{copy} is not a copy of {source}: what was measured is not a copy")


def _require_empty(target: Endpoint, table: str) -> None:
    if target.stats()["tables"][table]["items"]:
        raise RuntimeError(f"{table} is not empty: what was measured is not a purge")


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median and spread of several runs: (highest - lowest) / median."""
    middle = median(values)
    return {"median": round(middle, 3), "spread": round((max(values) - min(values)) / middle, 3), "runs": len(values)}


def measure() -> dict[str, Any]:
    """Ratios baseline / ours of CPU per item; in each run one after the other, so that both meet the same machine."""
    rows = []
    with endpoint() as target:
        for name, items in (("baseline", BASELINE_ITEMS), ("source", ITEMS)):
            target.create_table(name, capacity=UNLIMITED)
            target.fill(name, items)
        for name, like in (("baseline-copy", "baseline"), ("copy", "source")):
            target.create_table(name, like=like, capacity=UNLIMITED)
        _ours(target)  # both warm
        _baseline(target)
        for _ in range(RUNS):
            rows.append((*_baseline(target), *_ours(target)))
    copy_ratios = [base / ours for base, _, ours, _ in rows]
    purge_ratios = [base / ours for _, base, _, ours in rows]
    return {
        "copyCpuRatio": round(median(copy_ratios), 2),
        "purgeCpuRatio": round(median(purge_ratios), 2),
        "noise": {"copyCpuRatio": summary(copy_ratios), "purgeCpuRatio": summary(purge_ratios)},
        "milliseconds per 1,000 items": {
            name: round(median(row[index] for row in rows) * 1e6, 1)
            for index, name in enumerate(("copy, baseline", "purge, baseline", "copy with digest", "purge"))
        },
        "fixture": f"1 KB items of 10 nested attributes: {ITEMS:,} (baseline {BASELINE_ITEMS:,}), loopback endpoint",
    }
