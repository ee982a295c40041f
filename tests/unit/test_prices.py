"""Prices: sums as one does them by hand, and mistakes in the configuration."""

from __future__ import annotations

import math
from typing import Any

import pytest

from handlers.core.prices import GB, KEYS, Prices, Usage, as_config, backup_dollars_per_month

NONE = Prices.parse(dict.fromkeys(KEYS, 0))


def test_ten_million_items_on_demand() -> None:
    """The documented example comes out otherwise: 12.50 USD for 20 million writes, 1.25 USD for 10 million reads."""
    usage = Usage(write_units=20e6, read_units=5e6, source_read_units=5e6)
    assert usage.dollars(Prices()) == pytest.approx(12.50 + 1.25)


def test_a_provisioned_table_costs_by_the_hour() -> None:
    """A provisioned table's writes are charged by request: 1,000 WCU and 2,000 RCU for two hours are 1.82 USD."""
    usage = Usage(
        write_units=7e6, read_units=1e6, source_read_units=8e6, on_demand=False,
        provisioned_write=1000, provisioned_read=2000, reset_seconds=7200,
    )  # fmt: skip
    by_the_hour = 2 * (1000 * 0.00065 + 2000 * 0.00013)
    assert by_the_hour == pytest.approx(1.82)
    # The restored table is on demand all the same: 8 million reads are 1 USD.
    assert usage.dollars(Prices()) == pytest.approx(by_the_hour + 1.0)


def test_restore_storage_and_backup() -> None:
    """Gigabytes that are decimal, or a backup that is charged with the reset."""
    usage = Usage(restored_bytes=100 * GB, kept_seconds=7.3 * 3600)
    assert usage.dollars(Prices()) == pytest.approx(15.0 + 100 * 0.25 * 0.01)
    assert backup_dollars_per_month(100 * GB, Prices()) == pytest.approx(10.0)


def test_workers_and_states() -> None:
    """Milliseconds for seconds, or invocations by the thousand."""
    usage = Usage(worker_seconds=3600, worker_gb=2, invocations=1e6, transitions=4000, ledger_writes=1e6)
    assert usage.dollars(Prices()) == pytest.approx(3600 * 2 * 0.0000133334 + 0.20 + 0.10 + 0.625)


@pytest.mark.parametrize("key", KEYS)
def test_every_price_counts(key: str) -> None:
    """A key that is accepted, and then forgotten."""
    usage = Usage(
        write_units=1e6, read_units=1e6, source_read_units=1e6, restored_bytes=GB, kept_seconds=1e6, worker_seconds=1e6,
        worker_gb=1, invocations=1e6, transitions=1e6, ledger_writes=1e6,
    )  # fmt: skip
    provisioned = Usage(on_demand=False, provisioned_write=1, provisioned_read=1, reset_seconds=3600)
    changed = Prices.parse({**NONE.to_json(), key: 3.0})
    assert usage.dollars(NONE) == provisioned.dollars(NONE) == 0
    assert max(usage.dollars(changed), provisioned.dollars(changed), backup_dollars_per_month(GB, changed)) > 0
    assert Prices.parse(changed.to_json()) == changed


def test_what_is_not_configured_stays() -> None:
    """One price that is changed takes the others away."""
    assert Prices.parse(None) == Prices.parse({}) == Prices()
    assert Prices.parse({"writeMillion": 1}).to_json() == {**Prices().to_json(), "writeMillion": 1.0}
    assert as_config(None) is as_config({}) is None
    assert as_config({"restoreGB": 0.2}) == {"restoreGB": 0.2}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "an object of prices"),
        ("0.625", "an object of prices"),
        ({"writes": 1}, "unknown key(s) writes"),
        ({"write_million": 1}, "unknown key(s) write_million"),
        ({1: 1}, "unknown key(s) 1"),
        ({"writeMillion": -0.01}, "0 or more"),
        ({"writeMillion": "0.6"}, "a number"),
        ({"writeMillion": True}, "a number"),
        ({"writeMillion": None}, "a number"),
        ({"writeMillion": math.nan}, "a number"),
        ({"writeMillion": math.inf}, "a number"),
    ],
)
def test_a_mistake_is_named(value: Any, words: str) -> None:
    """A price that makes every forecast free, or negative."""
    with pytest.raises(ValueError, match=r"^prices") as error:
        Prices.parse(value)
    assert words in str(error.value)
    assert "Expected" in str(error.value)
