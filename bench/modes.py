"""What a differential reset costs beside a hard reset: the units that each consumed, in dollars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.core.clock import utc_now
from handlers.core.differential import Differential
from handlers.core.engine import BatchReader, Copy, Digest, Expiry, Purge
from handlers.core.prices import GB, Prices

from .endpoint import Endpoint, endpoint
from .worker import UNLIMITED, Worker, worker

ITEMS = 10_000
KEY_NAMES = ("pk",)
_NO_EXPIRY = Expiry(attribute=None, horizon=0, clock=utc_now)


def _dollars(target: Endpoint, tables: Mapping[str, str]) -> float:
    """Of the units that the endpoint billed."""
    prices, counted = Prices(), target.stats()["tables"]
    reads = sum(counted[name]["units"]["read"] for name in tables.values())
    writes = sum(counted[name]["units"]["written"] for name in tables.values())
    return float(reads / 1e6 * prices.read_million + writes / 1e6 * prices.write_million)


def _hard(one: Worker, source: str, table: str) -> None:
    one.run(Purge(writer=one.writer(table), key_names=KEY_NAMES))
    _fresh(one).run(Copy(source_table_name=source, writer=one.writer(table)))


def _fresh(one: Worker) -> Worker:
    """The worker with no checkpoint."""
    one.engine.ledger.checkpoints.clear()  # type: ignore[attr-defined]
    return one


def _reader(one: Worker, table: str) -> BatchReader:
    return BatchReader(dynamodb=one.client, table_name=table, key_names=KEY_NAMES, executor=one.batches)


def _differential(one: Worker, source: str, table: str) -> None:
    one.run(
        Differential(
            source=_reader(one, source),
            destination=_reader(one, table),
            writer=one.writer(table),
        )
    )


def _verify(one: Worker, source: str, table: str) -> None:
    digests = []
    for side, other in ((source, table), (table, source)):
        digest = Digest(table_name=side, other=_reader(one, other), may_be_absent=side == source, expiry=_NO_EXPIRY)
        digests.append(_fresh(one).run(digest).result.digest)
    if digests[0] != digests[1]:
        raise RuntimeError(f"{table} does not equal {source} after its reset")


def _reset(mode: str, damage: Mapping[str, int]) -> dict[str, float]:
    """Reset a damaged table and verify it: dollars, and writes for each item that differed."""
    with endpoint() as target, worker(target) as one:
        target.create_table("source", capacity=UNLIMITED)
        target.fill("source", ITEMS)
        target.create_table("table", like="source", capacity=UNLIMITED)
        target.fill("table", ITEMS)
        target.damage("table", **damage, seed=1)
        differing = sum(target.differences("source", "table").values())
        if differing != sum(damage.values()):
            raise RuntimeError(f"{differing} items differ; expected {sum(damage.values())}: nothing is measured")
        target.reset_stats()
        (_hard if mode == "hard-reset" else _differential)(one, "source", "table")
        writes = target.stats()["tables"]["table"]
        _verify(one, "source", "table")
        dollars = _dollars(target, {"source": "source", "table": "table"})
        lost = sum(target.differences("source", "table").values())
        if lost:
            raise RuntimeError(f"{lost} items differ after the reset")
    return {"dollars": dollars, "writesPerDifference": (writes["puts"] + writes["deletes"]) / differing}


def measure() -> dict[str, Any]:
    """Ratios of dollars; verification included, which is the same for both."""
    per_cent = ITEMS // 100
    little = {"changed": per_cent // 2, "missing": per_cent // 4, "extra": per_cent // 4}
    everything = {
        "all changed": {"changed": ITEMS},
        "all missing, as many others": {"missing": ITEMS, "extra": ITEMS},
    }
    hard, differential = _reset("hard-reset", little), _reset("differential", little)
    worst = {
        name: _reset("differential", damage)["dollars"] / _reset("hard-reset", damage)["dollars"]
        for name, damage in everything.items()
    }
    # Restore and temporary table are the same in both modes, and so no saving: with them the ratio is smaller.
    restore = ITEMS * 1024 / GB * Prices().restore_gb
    return {
        "differentialCostRatio": round(hard["dollars"] / differential["dollars"], 2),
        "differentialCostRatioWithRestore": round((hard["dollars"] + restore) / (differential["dollars"] + restore), 2),
        "differentialWorstRatio": round(max(worst.values()), 3),
        "differentialWorst": {name: round(ratio, 3) for name, ratio in worst.items()},
        "differentialWritesPerDifference": round(differential["writesPerDifference"], 3),
        "fixture": f"{ITEMS:,} items of 1 KB, of which 1 % changed, missing or extra; or all",
    }
