"""Freeze the system's Lambda functions, and release them exactly as they were.

Frozen means: reserved concurrency 0, and event source mappings that were enabled are disabled. What each had is written
to the ledger before anything is changed, and only if nothing is saved there yet, so a second freeze can never overwrite
the saved settings with its own zeros. Both directions can stop anywhere and go on in the next invocation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from .clock import Clock, Deadline, to_iso
from .ledger import Ledger, incident_partition

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_resourcegroupstaggingapi import ResourceGroupsTaggingAPIClient

FROZEN, RELEASED, GONE = "frozen", "released", "gone"
_FUNCTION, _MAPPING = "FUNCTION#", "MAPPING#"


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which functions belong to the system: those with the prefix or the tag, less the excluded.

    Args:
        name_prefix: a function belongs when its name begins with this; None to select by tag only.
        tag: ``(key, value)``; a function belongs when it carries the tag; None to select by prefix only.
        exclude: names that never belong: the recovery's own functions, and what the operator excluded.
        event_source_mappings: whether the functions' event source mappings are disabled too.
    """

    name_prefix: str | None
    tag: tuple[str, str] | None
    exclude: Collection[str]
    event_source_mappings: bool

    @classmethod
    def from_event(cls, selection: Mapping[str, Any]) -> Selection:
        """Read the selection that the state machine passes."""
        tag = selection.get("tag")
        return cls(
            name_prefix=selection.get("namePrefix"),
            tag=(tag["key"], tag["value"]) if tag else None,
            exclude=frozenset(selection["exclude"]),
            event_source_mappings=selection["eventSourceMappings"],
        )


@dataclass(frozen=True, kw_only=True)
class Function:
    """A function of the system. ``timeout_seconds``: how long a running invocation may go on after the freeze."""

    name: str
    timeout_seconds: int


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a freeze or release is. ``drained_at``: when the last running invocation must have ended."""

    complete: bool
    functions: int
    drained_at: str | None = None


@dataclass(frozen=True, kw_only=True)
class Freezer:
    """Freezes and releases, on behalf of one incident."""

    functions: LambdaClient
    tagging: ResourceGroupsTaggingAPIClient
    ledger: Ledger
    clock: Clock
    incident_id: str

    @property
    def _partition(self) -> str:
        return incident_partition(self.incident_id)

    def select(self, selection: Selection) -> list[Function]:
        """The functions that belong to the system, by name."""
        tagged = self._tagged_names(selection.tag) if selection.tag else frozenset()
        selected = []
        for page in self.functions.get_paginator("list_functions").paginate():
            for function in page["Functions"]:
                name = function["FunctionName"]
                prefixed = selection.name_prefix is not None and name.startswith(selection.name_prefix)
                if (prefixed or name in tagged) and name not in selection.exclude:
                    selected.append(Function(name=name, timeout_seconds=function.get("Timeout", 900)))
        return sorted(selected, key=lambda function: function.name)

    def _tagged_names(self, tag: tuple[str, str]) -> frozenset[str]:
        key, value = tag
        pages = self.tagging.get_paginator("get_resources").paginate(
            TagFilters=[{"Key": key, "Values": [value]}], ResourceTypeFilters=["lambda:function"]
        )
        arns = (entry["ResourceARN"] for page in pages for entry in page["ResourceTagMappingList"])
        return frozenset(arn.split(":")[6] for arn in arns)

    def freeze(self, selection: Selection, deadline: Deadline) -> Progress:
        """Freeze what is not frozen yet, until done or the deadline nears."""
        selected = self.select(selection)
        # Functions first: a mapping that is disabled before its function would let a stream's records wait while
        # direct invocations still write.
        for function in selected:
            if deadline.reached():
                return Progress(complete=False, functions=len(selected))
            self._freeze_function(function.name)
        if selection.event_source_mappings:
            for function in selected:
                if deadline.reached():
                    return Progress(complete=False, functions=len(selected))
                self._disable_mappings(function.name)
        drain = timedelta(seconds=max((function.timeout_seconds for function in selected), default=0))
        return Progress(complete=True, functions=len(selected), drained_at=to_iso(self.clock() + drain))

    def _freeze_function(self, name: str) -> None:
        sort_key = _FUNCTION + name
        saved = self.ledger.get(self._partition, sort_key)
        try:
            if saved is None or saved["state"] != FROZEN:
                answer = self.functions.get_function_concurrency(FunctionName=name)
                self._save(sort_key, saved, {"reservedConcurrency": answer.get("ReservedConcurrentExecutions")})
            self.functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
        except ClientError as error:
            if not _is_gone(error):
                raise
            self.ledger.update(self._partition, sort_key, {"state": GONE}, only_if={})

    def _disable_mappings(self, function_name: str) -> None:
        for mapping in self._mappings(function_name):
            # A mapping on its way to Disabled or already Disabled is none of ours, unless an earlier run saved it.
            if mapping["State"] not in ("Enabled", "Enabling", "Creating", "Updating"):
                continue
            sort_key = _MAPPING + mapping["UUID"]
            saved = self.ledger.get(self._partition, sort_key)
            if saved is None or saved["state"] != FROZEN:
                self._save(sort_key, saved, {"functionName": function_name})
            self.functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)

    def _mappings(self, function_name: str) -> Iterator[Mapping[str, Any]]:
        pages = self.functions.get_paginator("list_event_source_mappings").paginate(FunctionName=function_name)
        for page in pages:
            yield from page["EventSourceMappings"]

    def _save(self, sort_key: str, saved: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> None:
        """Write down a setting before it is changed; never over one that is still to be put back."""
        record = {"state": FROZEN, "savedAt": to_iso(self.clock()), **settings}
        if saved is None:
            self.ledger.create(self._partition, sort_key, record)
        else:
            self.ledger.update(self._partition, sort_key, record, only_if={"state": saved["state"]})

    def release(self, deadline: Deadline) -> Progress:
        """Put everything back that this incident froze, until done or the deadline nears."""
        for record in self.ledger.query(self._partition, _FUNCTION):
            if record["state"] != FROZEN:
                continue
            if deadline.reached():
                return Progress(complete=False, functions=self._released())
            name = record["sk"].removeprefix(_FUNCTION)
            self._put_back(record, lambda name=name, record=record: self._restore_concurrency(name, record))
        for record in self.ledger.query(self._partition, _MAPPING):
            if record["state"] != FROZEN:
                continue
            if deadline.reached():
                return Progress(complete=False, functions=self._released())
            uuid = record["sk"].removeprefix(_MAPPING)
            self._put_back(
                record, lambda uuid=uuid: self.functions.update_event_source_mapping(UUID=uuid, Enabled=True)
            )
        return Progress(complete=True, functions=self._released())

    def _released(self) -> int:
        return saved_settings(self.ledger, self.incident_id).released

    def _restore_concurrency(self, name: str, record: Mapping[str, Any]) -> None:
        reserved = record["reservedConcurrency"]
        if reserved is None:
            self.functions.delete_function_concurrency(FunctionName=name)
        else:
            self.functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=int(reserved))

    def _put_back(self, record: Mapping[str, Any], put_back: Any) -> None:
        state = RELEASED
        try:
            put_back()
        except ClientError as error:
            if not _is_gone(error):
                raise
            state = GONE  # deleted during the recovery: there is nothing to put back
        self.ledger.update(record["pk"], record["sk"], {"state": state}, only_if={})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The functions of an incident by name: reserved concurrency before the freeze (None: none reserved), and state."""

    reserved: Mapping[str, int | None]
    states: Mapping[str, str]

    @property
    def frozen(self) -> int:
        """How many functions the incident froze that still exist."""
        return sum(state != GONE for state in self.states.values())

    @property
    def released(self) -> int:
        """How many functions have their settings back."""
        return sum(state == RELEASED for state in self.states.values())


def saved_settings(ledger: Ledger, incident_id: str) -> Settings:
    """What the ledger knows of the functions of an incident."""
    reserved: dict[str, int | None] = {}
    states: dict[str, str] = {}
    for record in ledger.query(incident_partition(incident_id), _FUNCTION):
        name = record["sk"].removeprefix(_FUNCTION)
        saved = record["reservedConcurrency"]
        reserved[name] = None if saved is None else int(saved)
        states[name] = record["state"]
    return Settings(reserved=reserved, states=states)


def _is_gone(error: ClientError) -> bool:
    return error.response["Error"]["Code"] == "ResourceNotFoundException"
