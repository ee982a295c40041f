"""What AWS charges for a recovery: the one place where prices are written down.

The defaults are list prices of us-east-1, without free tier, taxes and discounts, in US dollars:

=====================  ==========  ====================================================================================
key                    default     for
=====================  ==========  ====================================================================================
``writeMillion``       0.625       a million write request units, on demand (since November 2024)
``readMillion``        0.125       a million read request units, on demand (since November 2024)
``writeUnitHour``      0.00065     a provisioned write capacity unit for an hour
``readUnitHour``       0.00013     a provisioned read capacity unit for an hour
``restoreGB``          0.15        a GB restored from PITR or a backup
``backupGBMonth``      0.10        a GB of on-demand backup kept for a month
``storageGBMonth``     0.25        a GB of table for a month: the restored table, for as long as it exists
``lambdaGBSecond``     0.0000133334  a GB of memory of a function on arm64 for a second (x86_64: 0.0000166667)
``lambdaMillion``      0.20        a million invocations
``transitionThousand``  0.025      a thousand state transitions of Step Functions, Standard
=====================  ==========  ====================================================================================

Sources: AWS's price lists for DynamoDB (standard table class), Lambda and Step Functions. Another region, another
table class (Standard-IA writes and reads cost about a quarter more) or a discount: set the stack's configuration key
``prices``, an object with the keys above. A stack is in one region, so these are its region's prices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

GB = 1024**3
"""DynamoDB bills binary gigabytes."""
HOURS_PER_MONTH = 730


@dataclass(frozen=True, kw_only=True)
class Prices:
    """US dollars; each field's unit is in the module's table, by its camel-case name."""

    write_million: float = 0.625
    read_million: float = 0.125
    write_unit_hour: float = 0.00065
    read_unit_hour: float = 0.00013
    restore_gb: float = 0.15
    backup_gb_month: float = 0.10
    storage_gb_month: float = 0.25
    lambda_gb_second: float = 0.0000133334
    lambda_million: float = 0.20
    transition_thousand: float = 0.025

    @classmethod
    def parse(cls, value: object) -> Prices:
        """The defaults with what ``value``, the configuration key ``prices``, changes; None changes nothing.

        Raises:
            ValueError: no object, an unknown key, or no price; the sentence says what was found and expected.
        """
        if value is None:
            return cls()
        if not isinstance(value, Mapping):
            raise ValueError(f"prices: found {value!r}. Expected an object of prices, e.g. {{writeMillion: 0.625}}.")
        unknown = sorted(str(key) for key in value if key not in KEYS)
        if unknown:
            raise ValueError(f"prices: unknown key(s) {', '.join(unknown)}. Expected {', '.join(KEYS)}.")
        for key, price in value.items():
            usable = not isinstance(price, bool) and isinstance(price, int | float) and math.isfinite(price)
            if not usable or price < 0:
                raise ValueError(f"prices.{key}: found {price!r}. Expected a price in US dollars: a number, 0 or more.")
        return cls(**{KEYS[key]: float(price) for key, price in value.items()})

    def to_json(self) -> dict[str, float]:
        """What :meth:`parse` reads back."""
        values = asdict(self)
        return {key: values[name] for key, name in KEYS.items()}


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join("GB" if word == "gb" else word.capitalize() for word in rest)


KEYS = {_camel(field.name): field.name for field in fields(Prices)}
"""Configuration key → field."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one table's recovery has used, or will.

    Args:
        write_units: write units of the table, its indexes included.
        read_units: read units of the table.
        source_read_units: read units of the restored table, which is on demand.
        on_demand: whether the table is billed by request. Otherwise its capacity is charged by the hour, for as long
            as the reset takes, whether the reset uses it or not: it is paid without a reset as well.
        provisioned_write, provisioned_read: capacity units of the table and its indexes together; 0 on demand.
        restored_bytes: the size of the restored table.
        reset_seconds: how long the reset takes.
        kept_seconds: how long the restored table exists.
        worker_seconds: running time of all workers together.
        worker_gb: memory of one worker.
        invocations, transitions: of Lambda and Step Functions.
        ledger_writes: write units of the ledger, which is on demand.
    """

    write_units: float = 0
    read_units: float = 0
    source_read_units: float = 0
    on_demand: bool = True
    provisioned_write: float = 0
    provisioned_read: float = 0
    restored_bytes: float = 0
    reset_seconds: float = 0
    kept_seconds: float = 0
    worker_seconds: float = 0
    worker_gb: float = 0
    invocations: float = 0
    transitions: float = 0
    ledger_writes: float = 0

    def dollars(self, prices: Prices) -> float:
        """The sum. Without the backup, which costs by the month for as long as it is kept."""
        return self.capacity_dollars(prices) + (
            self.restored_bytes / GB * prices.restore_gb
            + self.restored_bytes / GB * prices.storage_gb_month * self.kept_seconds / 3600 / HOURS_PER_MONTH
            + self.worker_seconds * self.worker_gb * prices.lambda_gb_second
            + self.invocations / 1e6 * prices.lambda_million
            + self.transitions / 1e3 * prices.transition_thousand
            + self.ledger_writes / 1e6 * prices.write_million
        )

    def capacity_dollars(self, prices: Prices) -> float:
        """What the reads and writes of items cost, alone."""
        source = self.source_read_units / 1e6 * prices.read_million
        if self.on_demand:
            return source + (
                self.write_units / 1e6 * prices.write_million + self.read_units / 1e6 * prices.read_million
            )
        hours = self.reset_seconds / 3600
        return source + hours * (
            self.provisioned_write * prices.write_unit_hour + self.provisioned_read * prices.read_unit_hour
        )


def backup_dollars_per_month(table_bytes: float, prices: Prices) -> float:
    """What keeping a backup of a table costs for a month."""
    return table_bytes / GB * prices.backup_gb_month


def as_config(value: object) -> dict[str, Any] | None:
    """The prices that a configuration changes, checked, as validation gets them; None where it changes none.

    Raises:
        ValueError: see :meth:`Prices.parse`.
    """
    Prices.parse(value)
    return dict(value) if isinstance(value, Mapping) and value else None
