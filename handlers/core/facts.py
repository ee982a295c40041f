"""What a forecast needs to know of a table, read from DescribeTable's answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NEW_WRITE_UNITS = 4_000.0
NEW_READ_UNITS = 12_000.0
"""Units a second that a new on-demand table serves at once (DynamoDB's documentation of warm throughput)."""


@dataclass(frozen=True, kw_only=True)
class CapacityFacts:
    """What a table or a global index may do in a second.

    Args:
        on_demand: billed by request.
        write, read: units a second: as provisioned, or what an on-demand table serves at once (its warm throughput).
        most_write, most_read: the maximum set for an on-demand table, or None.
    """

    on_demand: bool = True
    write: float = NEW_WRITE_UNITS
    read: float = NEW_READ_UNITS
    most_write: float | None = None
    most_read: float | None = None


@dataclass(frozen=True, kw_only=True)
class IndexFacts:
    """A secondary index. A local one has no capacity of its own: its writes take the table's.

    ``items`` and ``bytes`` are DynamoDB's estimates, up to six hours old; ``capacity`` is None of a local one.
    """

    items: int
    bytes: int
    capacity: CapacityFacts | None


@dataclass(frozen=True, kw_only=True)
class TableFacts:
    """A table. ``items`` and ``bytes`` are DynamoDB's estimates, up to six hours old.

    ``replicas``: other regions of a global table, to each of which every write is replicated.
    """

    items: int = 0
    bytes: int = 0
    capacity: CapacityFacts = CapacityFacts()
    indexes: tuple[IndexFacts, ...] = ()
    stream: bool = False
    replicas: int = 0

    @property
    def write_capacity(self) -> float:
        """Write units a second that the table itself takes at once; on demand it may grow beyond."""
        return min(self.capacity.write, self.capacity.most_write or self.capacity.write)

    @property
    def write_pace(self) -> float:
        """The same with its global indexes, as far as they hold its items: one that cannot keep up throttles it."""
        paces = [self.write_capacity]
        for index in self.indexes:
            if index.capacity is not None and index.items:
                units = min(index.capacity.write, index.capacity.most_write or index.capacity.write)
                paces.append(units * max(1.0, self.items / index.items))
        return min(paces)


def read_facts(table: Mapping[str, Any]) -> TableFacts:
    """The facts of ``table``, the field ``Table`` of DescribeTable's answer.

    What is missing is taken as a new table has it: a forecast never fails for what it is not told.
    """
    # A table that never was on demand may have no summary at all.
    mode = table.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED")
    on_demand = mode == "PAY_PER_REQUEST"
    local = tuple(_index(index, None) for index in table.get("LocalSecondaryIndexes", ()))
    glob = tuple(_index(index, _capacity(index, on_demand)) for index in table.get("GlobalSecondaryIndexes", ()))
    return TableFacts(
        items=_number(table, "ItemCount"),
        bytes=_number(table, "TableSizeBytes"),
        capacity=_capacity(table, on_demand),
        indexes=(*local, *glob),
        stream=bool(table.get("StreamSpecification", {}).get("StreamEnabled")),
        replicas=len(table.get("Replicas", ())),
    )


def _index(index: Mapping[str, Any], capacity: CapacityFacts | None) -> IndexFacts:
    return IndexFacts(items=_number(index, "ItemCount"), bytes=_number(index, "IndexSizeBytes"), capacity=capacity)


def _number(described: Mapping[str, Any], name: str) -> int:
    return max(0, int(described.get(name) or 0))


def _capacity(described: Mapping[str, Any], on_demand: bool) -> CapacityFacts:
    if not on_demand:
        provisioned = described.get("ProvisionedThroughput", {})
        # At least one unit: nothing can be provisioned below that, and a forecast divides by it.
        return CapacityFacts(
            on_demand=False,
            write=_positive(provisioned.get("WriteCapacityUnits")) or 1.0,
            read=_positive(provisioned.get("ReadCapacityUnits")) or 1.0,
        )
    warm, most = described.get("WarmThroughput", {}), described.get("OnDemandThroughput", {})
    return CapacityFacts(
        write=_positive(warm.get("WriteUnitsPerSecond")) or NEW_WRITE_UNITS,
        read=_positive(warm.get("ReadUnitsPerSecond")) or NEW_READ_UNITS,
        most_write=_positive(most.get("MaxWriteRequestUnits")),
        most_read=_positive(most.get("MaxReadRequestUnits")),
    )


def _positive(value: int | None) -> float | None:
    """The number, or None where there is none: DynamoDB writes -1 for no maximum."""
    return float(value) if value is not None and value > 0 else None
