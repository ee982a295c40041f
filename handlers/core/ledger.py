"""The ledger: one table that keeps incidents, locks, checkpoints and frozen settings.

Everything a recovery must not forget is here, written with conditions so that no step can overwrite what an earlier
one saved. Keys (``pk`` / ``sk``, both strings):

========================  ===============================================  ==================================
pk                        sk                                               holds
========================  ===============================================  ==================================
``INCIDENT#<id>``         ``RUN``                                          request, status, execution
``INCIDENT#<id>``         ``FORECAST``                                     what was forecast before the start
``INCIDENT#<id>``         ``TABLE#<table>``                                phase and attempt of one hard reset
``INCIDENT#<id>``         ``CONSUMERS``                                    who reads the tables' streams
``SEGMENTS#<id>#<table>`` ``<generation>#<phase>#<segment>``               checkpoint of one segment
``FROZEN``                ``FUNCTION#<name>``                              concurrency before the freeze
``FROZEN``                ``MAPPING#<uuid>``                               an event source mapping that was enabled
``LOCK``                  ``ENVIRONMENT``, ``TABLE#<table>``               the execution that owns it
``LOCK``                  ``INCIDENT``                                     the incident that is not over yet
========================  ===============================================  ==================================

Segments of each table have a partition of their own, so that a hundred tables' checkpoints (one a second and worker at
most) stay below the 1,000 writes a second of one DynamoDB partition.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer
from botocore.exceptions import ClientError

from .digest import add_digests, from_hex, to_hex
from .errors import CheckpointConflict

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_serialize = TypeSerializer().serialize
_deserialize = TypeDeserializer().deserialize


def _to_wire(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _serialize(value) for name, value in values.items()}


def _from_wire(item: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _deserialize(value) for name, value in item.items()}


def condition_failed(error: ClientError) -> bool:
    """Whether a conditional write was refused because its condition did not hold."""
    return error.response["Error"]["Code"] == "ConditionalCheckFailedException"


@dataclass(frozen=True, kw_only=True)
class SegmentId:
    """Names one segment's work: of which incident and table, in which phase, in which generation of it.

    A generation is one attempt at a phase. A purge and copy that failed verification are done again as the next
    generation, with fresh checkpoints; each verification is a generation of its own.
    """

    incident_id: str
    table_name: str
    phase: str
    generation: int
    segment: int

    @property
    def partition(self) -> str:
        """The ledger's partition key of this table's segments."""
        return segments_partition(self.incident_id, self.table_name)

    @property
    def sort_key(self) -> str:
        """The ledger's sort key."""
        return f"{phase_prefix(self.generation, self.phase)}{self.segment:06d}"


def segments_partition(incident_id: str, table_name: str) -> str:
    """The partition that holds the checkpoints of one table in one incident."""
    return f"SEGMENTS#{incident_id}#{table_name}"


def phase_prefix(generation: int, phase: str) -> str:
    """What the sort keys of one generation of a phase begin with."""
    return f"{generation:04d}#{phase}#"


@dataclass(frozen=True, kw_only=True)
class PageResult:
    """What a phase did with a page, or with many.

    ``items``: purged, copied, digested or compared; of the differential phase, put or deleted. Only of a digest:
    ``expiring`` items that were compared with the other side instead, and ``different`` ones, which should be none. Of
    a digest, a comparison and the differential phase: ``expired`` ones that TTL has deleted on the other side. Of a
    comparison and the differential phase: ``missing``, ``extra`` and ``changed`` items. Only of a comparison: how many
    of them were ``listed`` by their keys.
    """

    items: int = 0
    expiring: int = 0
    expired: int = 0
    different: int = 0
    missing: int = 0
    extra: int = 0
    changed: int = 0
    listed: int = 0
    read_units: float = 0.0
    write_units: float = 0.0
    digest: int = 0

    def plus(self, other: PageResult) -> PageResult:
        """Both together."""
        return PageResult(
            items=self.items + other.items,
            expiring=self.expiring + other.expiring,
            expired=self.expired + other.expired,
            different=self.different + other.different,
            missing=self.missing + other.missing,
            extra=self.extra + other.extra,
            changed=self.changed + other.changed,
            listed=self.listed + other.listed,
            read_units=self.read_units + other.read_units,
            write_units=self.write_units + other.write_units,
            digest=add_digests((self.digest, other.digest)),
        )


_COUNTS = ("items", "expiring", "expired", "different", "missing", "extra", "changed", "listed")
"""The fields of a result that are stored as numbers, under their own names."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """How far a segment is: everything before ``cursor`` is done, and counted in ``result``.

    ``cursor`` is DynamoDB's LastEvaluatedKey in wire form, and stored as that JSON, so that numbers and binary keys
    survive; of the differential phase it holds one of each side. A page that was worked on but not checkpointed is
    worked on again.
    """

    cursor: Mapping[str, Any] | None = None
    complete: bool = False
    result: PageResult = PageResult()
    version: int = 0

    @property
    def items(self) -> int:
        """Items done so far."""
        return self.result.items

    def advance(self, cursor: Mapping[str, Any] | None, page: PageResult) -> Checkpoint:
        """The checkpoint after one more page. ``cursor`` None means that the segment is complete."""
        return replace(self, cursor=cursor, complete=cursor is None, result=self.result.plus(page))


@dataclass(frozen=True, kw_only=True)
class PhaseTotals:
    """The sum over the segments of one phase."""

    complete_segments: int = 0
    result: PageResult = PageResult()

    def plus(self, checkpoint: Checkpoint) -> PhaseTotals:
        """Add one segment."""
        return PhaseTotals(
            complete_segments=self.complete_segments + checkpoint.complete,
            result=self.result.plus(checkpoint.result),
        )


@dataclass(frozen=True)
class Ledger:
    """The ledger's operations. All reads are strongly consistent.

    Args:
        dynamodb: a DynamoDB client.
        table_name: the ledger's table.
    """

    dynamodb: DynamoDBClient
    table_name: str

    # --- records: small items of plain values ---------------------------------------------------------------------

    def get(self, pk: str, sk: str) -> dict[str, Any] | None:
        """One record, or None."""
        answer = self.dynamodb.get_item(
            TableName=self.table_name, Key=_to_wire({"pk": pk, "sk": sk}), ConsistentRead=True
        )
        return _from_wire(answer["Item"]) if "Item" in answer else None

    def create(self, pk: str, sk: str, values: Mapping[str, Any]) -> bool:
        """Write a record unless there is one already; False when there is."""
        try:
            self.dynamodb.put_item(
                TableName=self.table_name,
                Item=_to_wire({"pk": pk, "sk": sk, **values}),
                ConditionExpression="attribute_not_exists(pk)",
            )
        except ClientError as error:
            if condition_failed(error):
                return False
            raise
        return True

    def update(self, pk: str, sk: str, values: Mapping[str, Any], *, only_if: Mapping[str, Any]) -> bool:
        """Set attributes of an existing record whose attributes equal ``only_if``; False when they do not.

        With an empty ``only_if`` the record must merely exist.
        """
        names: dict[str, str] = {}
        wire: dict[str, Any] = {}

        def assign(prefix: str, pairs: Mapping[str, Any]) -> list[str]:
            terms = []
            for index, (name, value) in enumerate(pairs.items()):
                names[f"#{prefix}{index}"] = name
                wire[f":{prefix}{index}"] = _serialize(value)
                terms.append(f"#{prefix}{index} = :{prefix}{index}")
            return terms

        changes = assign("set", values)
        conditions = ["attribute_exists(pk)", *assign("if", only_if)]
        try:
            self.dynamodb.update_item(
                TableName=self.table_name,
                Key=_to_wire({"pk": pk, "sk": sk}),
                UpdateExpression="SET " + ", ".join(changes),
                ConditionExpression=" AND ".join(conditions),
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=wire,
            )
        except ClientError as error:
            if condition_failed(error):
                return False
            raise
        return True

    def delete(self, pk: str, sk: str, *, only_if: tuple[str, str]) -> bool:
        """Delete a record whose attribute has this value, e.g. ``("owner", arn)``; False when it has not or is gone."""
        name, value = only_if
        try:
            self.dynamodb.delete_item(
                TableName=self.table_name,
                Key=_to_wire({"pk": pk, "sk": sk}),
                ConditionExpression="#name = :value",
                ExpressionAttributeNames={"#name": name},
                ExpressionAttributeValues=_to_wire({":value": value}),
            )
        except ClientError as error:
            if condition_failed(error):
                return False
            raise
        return True

    def put(self, pk: str, sk: str, values: Mapping[str, Any]) -> None:
        """Write a record, whatever was there. Only under a lock that makes it this execution's to write."""
        self.dynamodb.put_item(TableName=self.table_name, Item=_to_wire({"pk": pk, "sk": sk, **values}))

    def query(self, pk: str, prefix: str) -> Iterator[dict[str, Any]]:
        """All records of a partition whose sort key begins with ``prefix`` (or all), in order."""
        return map(_from_wire, self._query(pk, prefix))

    # --- checkpoints ----------------------------------------------------------------------------------------------

    def load_checkpoint(self, segment: SegmentId) -> Checkpoint:
        """The segment's checkpoint; the first load creates it.

        It is created before the first item is touched, so that "no checkpoint" proves that nothing was purged.
        """
        key = _to_wire({"pk": segment.partition, "sk": segment.sort_key})
        answer = self.dynamodb.get_item(TableName=self.table_name, Key=key, ConsistentRead=True)
        if "Item" not in answer:
            self.create(segment.partition, segment.sort_key, {"version": 0, "complete": False})
            answer = self.dynamodb.get_item(TableName=self.table_name, Key=key, ConsistentRead=True)
        return _checkpoint_from_wire(answer["Item"])

    def save_checkpoint(self, segment: SegmentId, checkpoint: Checkpoint) -> Checkpoint:
        """Move the segment's checkpoint on; returns it with its new version.

        Raises:
            CheckpointConflict: another worker saved one since this worker loaded its own.
        """
        saved = replace(checkpoint, version=checkpoint.version + 1)
        item = _to_wire(
            {
                "pk": segment.partition,
                "sk": segment.sort_key,
                "version": saved.version,
                "complete": saved.complete,
                **{name: getattr(saved.result, name) for name in _COUNTS},
                # Capacity units are halves; strings keep them exact without DynamoDB's Decimal.
                "readUnits": str(saved.result.read_units),
                "writeUnits": str(saved.result.write_units),
                "digest": to_hex(saved.result.digest),
            }
        )
        if saved.cursor is not None:
            item["cursor"] = {"S": json.dumps(saved.cursor)}
        try:
            self.dynamodb.put_item(
                TableName=self.table_name,
                Item=item,
                ConditionExpression="version = :version",
                ExpressionAttributeValues=_to_wire({":version": checkpoint.version}),
            )
        except ClientError as error:
            if not condition_failed(error):
                raise
            raise CheckpointConflict(
                f"Another worker is on segment {segment.segment} of the {segment.phase} of {segment.table_name}. "
                "Expected to be alone on it; the state machine tries again from the newest checkpoint."
            ) from None
        return saved

    def totals(self, incident_id: str, table_name: str, phase: str, generation: int) -> PhaseTotals:
        """Sum up the segments of one generation of a phase."""
        totals = PhaseTotals()
        for item in self._segment_items(incident_id, table_name, phase_prefix(generation, phase)):
            totals = totals.plus(_checkpoint_from_wire(item))
        return totals

    def capacity(self, incident_id: str, table_name: str) -> dict[str, float]:
        """Capacity units of every phase and generation of a table together: ``readUnits``, ``writeUnits``."""
        totals = PhaseTotals()
        for item in self._segment_items(incident_id, table_name, ""):
            totals = totals.plus(_checkpoint_from_wire(item))
        return {"readUnits": round(totals.result.read_units, 1), "writeUnits": round(totals.result.write_units, 1)}

    def segments_left(self, segment: SegmentId, total_segments: int) -> int:
        """How many segments of this one's phase are not complete, as of a moment ago; asked while they are worked on.

        Not strongly consistent, for half the price: a number that lags is too high.
        """
        pages = self.dynamodb.get_paginator("query").paginate(
            TableName=self.table_name,
            KeyConditionExpression="pk = :pk AND begins_with(sk, :prefix)",
            FilterExpression="complete = :complete",
            ExpressionAttributeValues=_to_wire(
                {
                    ":pk": segment.partition,
                    ":prefix": phase_prefix(segment.generation, segment.phase),
                    ":complete": True,
                }
            ),
            Select="COUNT",
        )
        return total_segments - sum(page["Count"] for page in pages)

    def purge_has_begun(self, incident_id: str, table_name: str) -> bool:
        """Whether a worker that deletes or writes ever started on the table in this incident.

        The first one is the purge's, or the differential phase's: whatever comes later, one of them has been before it.
        """
        answer = self.dynamodb.query(
            TableName=self.table_name,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues=_to_wire({":pk": segments_partition(incident_id, table_name)}),
            ConsistentRead=True,
            Limit=1,
        )
        return bool(answer["Items"])

    def _segment_items(self, incident_id: str, table_name: str, prefix: str) -> Iterator[Mapping[str, Any]]:
        return self._query(segments_partition(incident_id, table_name), prefix)

    def _query(self, pk: str, prefix: str) -> Iterator[Mapping[str, Any]]:
        condition, values = "pk = :pk", {":pk": pk}
        if prefix:  # a condition on an empty string is refused
            condition += " AND begins_with(sk, :prefix)"
            values[":prefix"] = prefix
        pages = self.dynamodb.get_paginator("query").paginate(
            TableName=self.table_name,
            KeyConditionExpression=condition,
            ExpressionAttributeValues=_to_wire(values),
            ConsistentRead=True,
        )
        for page in pages:
            yield from page["Items"]


def _checkpoint_from_wire(item: Mapping[str, Any]) -> Checkpoint:
    values = {"readUnits": "0", "writeUnits": "0", "digest": "0"} | _from_wire(
        {name: value for name, value in item.items() if name != "cursor"}
    )
    return Checkpoint(
        cursor=_cursor_from_wire(item["cursor"]) if "cursor" in item else None,
        complete=values["complete"],
        result=PageResult(
            **{name: int(values.get(name, 0)) for name in _COUNTS},
            read_units=float(values["readUnits"]),
            write_units=float(values["writeUnits"]),
            digest=from_hex(values["digest"]),
        ),
        version=int(values["version"]),
    )


def _cursor_from_wire(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    if "S" in stored:
        cursor: Mapping[str, Any] = json.loads(stored["S"])
        return cursor
    # A version before kept the key as a map, whose binary values the SDK has decoded.
    return {
        name: {kind: base64.b64encode(value).decode("ascii") if kind == "B" else value}
        for name, attribute in stored["M"].items()
        for kind, value in attribute.items()
    }


def incident_partition(incident_id: str) -> str:
    """The partition that holds an incident's records."""
    return f"INCIDENT#{incident_id}"
