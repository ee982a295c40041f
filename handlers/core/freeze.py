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
from .errors import FreezeIncomplete, ReleaseIncomplete
from .ledger import Ledger
from .locks import ENVIRONMENT, require_lock

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_resourcegroupstaggingapi import ResourceGroupsTaggingAPIClient

FROZEN, RELEASED, GONE = "frozen", "released", "gone"
_PARTITION, _FUNCTION, _MAPPING = "FROZEN", "FUNCTION#", "MAPPING#"


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
    """Freezes and releases, on behalf of one execution that works on an incident.

    Saved settings belong to the environment, not to the incident: an incident that finds functions frozen by an earlier
    one keeps what that one saved, and its release puts it back.
    """

    functions: LambdaClient
    tagging: ResourceGroupsTaggingAPIClient
    ledger: Ledger
    clock: Clock
    incident_id: str
    execution_arn: str

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
        return frozenset(map(_function_name, arns))

    def freeze(self, selection: Selection, deadline: Deadline) -> Progress:
        """Freeze what this execution has not frozen yet, until done or the deadline nears."""
        selected = self.select(selection)
        # Mappings first: pollers that still receive from a queue while their function is throttled drive good messages
        # into its dead-letter queue.
        if selection.event_source_mappings:
            names = {function.name for function in selected}
            for function_name, mapping in self._mappings():
                if deadline.reached():
                    return Progress(complete=False, functions=len(selected))
                if function_name in names:
                    self._require_lock()
                    self._disable_mapping(function_name, mapping)
        for function in selected:
            saved = self.ledger.get(_PARTITION, _FUNCTION + function.name)
            if saved is not None and saved["state"] == FROZEN and saved.get("frozenBy") == self.execution_arn:
                continue  # an earlier invocation of this execution did it
            if deadline.reached():
                return Progress(complete=False, functions=len(selected))
            self._require_lock()
            self._freeze_function(function.name, saved)
        drain = timedelta(seconds=max((function.timeout_seconds for function in selected), default=0))
        return Progress(complete=True, functions=len(selected), drained_at=to_iso(self.clock() + drain))

    def _freeze_function(self, name: str, saved: Mapping[str, Any] | None) -> None:
        sort_key = _FUNCTION + name
        try:
            current = self._concurrency(name)
            # A function that is still saved but no longer at 0 was set by hand since: that is its setting now.
            if not _is_frozen(saved) or current != 0:
                self._save(sort_key, saved, {"reservedConcurrency": current})
            self.functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
        except ClientError as error:
            if not _is_gone(error):
                raise
            self.ledger.update(_PARTITION, sort_key, {"state": GONE}, only_if={})
            return
        # Last, so that an interruption before this does it again.
        done = {"frozenBy": self.execution_arn, "incidentId": self.incident_id}
        self.ledger.update(_PARTITION, sort_key, done, only_if={"state": FROZEN})

    def _disable_mapping(self, function_name: str, mapping: Mapping[str, Any]) -> None:
        if mapping["State"] in ("Creating", "Updating"):
            raise FreezeIncomplete(
                f"Event source mapping {mapping['UUID']} of {function_name} is {mapping['State']}. Expected it to be "
                "enabled or disabled: wait until its change is through, then start the same incident again."
            )
        # One that is disabled, or on its way there, was so before the freeze, or was saved by it.
        if mapping["State"] not in ("Enabled", "Enabling"):
            return
        sort_key = _MAPPING + mapping["UUID"]
        saved = self.ledger.get(_PARTITION, sort_key)
        if not _is_frozen(saved):
            self._save(sort_key, saved, {"functionName": function_name})
        try:
            self.functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
        except ClientError as error:
            if not _is_gone(error):
                raise
            self.ledger.update(_PARTITION, sort_key, {"state": GONE}, only_if={})

    def _mappings(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Every event source mapping of the account with its function's name: one list costs far fewer calls."""
        for page in self.functions.get_paginator("list_event_source_mappings").paginate():
            for mapping in page["EventSourceMappings"]:
                yield _function_name(mapping["FunctionArn"]), mapping

    def _save(self, sort_key: str, saved: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> None:
        """Write down a setting before it is changed; never over one that is still to be put back."""
        record = {
            "state": FROZEN,
            "frozenBy": None,  # not yet: what an earlier freeze left here must not pass for this one's
            "savedAt": to_iso(self.clock()),
            "incidentId": self.incident_id,
            **settings,
        }
        if saved is None:
            self.ledger.create(_PARTITION, sort_key, record)
        else:
            self.ledger.update(_PARTITION, sort_key, record, only_if={"state": saved["state"]})

    def release(self, deadline: Deadline) -> Progress:
        """Put everything back that is frozen in this environment, until done or the deadline nears.

        Raises:
            ReleaseIncomplete: some settings could not be put back; all others are.
        """
        refused: list[str] = []
        for record in self.ledger.query(_PARTITION, ""):
            if record["state"] != FROZEN:
                continue
            if deadline.reached():
                return Progress(complete=False, functions=self._released())
            self._require_lock()
            try:
                self._put_back(record)
            except ClientError as error:
                refused.append(f"{record['sk'].partition('#')[2]} ({error.response['Error']['Code']})")
        if refused:
            raise ReleaseIncomplete(
                f"Not released yet: {', '.join(refused)}. Expected AWS to take every setting back: look at these, "
                "then start the same incident again; all others have their settings back."
            )
        return Progress(complete=True, functions=self._released())

    def _released(self) -> int:
        return saved_settings(self.ledger, self.incident_id).released

    def _put_back(self, record: Mapping[str, Any]) -> None:
        state = RELEASED
        try:
            if record["sk"].startswith(_FUNCTION):
                self._restore_concurrency(record["sk"].removeprefix(_FUNCTION), record["reservedConcurrency"])
            else:
                uuid = record["sk"].removeprefix(_MAPPING)
                self.functions.update_event_source_mapping(UUID=uuid, Enabled=True)
        except ClientError as error:
            if not _is_gone(error):
                raise
            state = GONE  # deleted during the recovery: there is nothing to put back
        # Not where another execution has frozen it anew in the meantime.
        frozen_by = {"frozenBy": record["frozenBy"]} if record.get("frozenBy") else {}
        self.ledger.update(
            record["pk"],
            record["sk"],
            {"state": state, "incidentId": self.incident_id},
            only_if={"state": FROZEN, **frozen_by},
        )

    def _restore_concurrency(self, name: str, reserved: Any) -> None:
        if self._concurrency(name) != 0:
            return  # put back already, or set by hand during the freeze: not this recovery's zero
        if reserved is None:
            self.functions.delete_function_concurrency(FunctionName=name)
        else:
            self.functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=int(reserved))

    def _concurrency(self, name: str) -> int | None:
        return self.functions.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions")

    def _require_lock(self) -> None:
        """Stop a worker that has outlived its execution, before it changes one more setting."""
        require_lock(self.ledger, ENVIRONMENT, self.execution_arn)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an incident froze.

    ``reserved`` and ``states`` are by function name: reserved concurrency before the freeze (None: none reserved), and
    ``frozen``, ``released`` or ``gone``. ``mappings`` has the event source mappings that were enabled: id → (function
    name, state).
    """

    reserved: Mapping[str, int | None]
    states: Mapping[str, str]
    mappings: Mapping[str, tuple[str, str]]

    @property
    def frozen(self) -> int:
        """How many functions the incident froze that still exist."""
        return sum(state != GONE for state in self.states.values())

    @property
    def released(self) -> int:
        """How many functions have their settings back."""
        return sum(state == RELEASED for state in self.states.values())


def saved_settings(ledger: Ledger, incident_id: str) -> Settings:
    """What the ledger knows of the functions and mappings that this incident froze or found frozen."""
    reserved: dict[str, int | None] = {}
    states: dict[str, str] = {}
    mappings: dict[str, tuple[str, str]] = {}
    for record in ledger.query(_PARTITION, ""):
        if record["incidentId"] != incident_id:
            continue
        kind, _, name = record["sk"].partition("#")
        if f"{kind}#" == _MAPPING:
            mappings[name] = (record["functionName"], record["state"])
            continue
        saved = record["reservedConcurrency"]
        reserved[name] = None if saved is None else int(saved)
        states[name] = record["state"]
    return Settings(reserved=reserved, states=states, mappings=mappings)


def _is_frozen(saved: Mapping[str, Any] | None) -> bool:
    return saved is not None and saved["state"] == FROZEN


def _function_name(arn: str) -> str:
    """The name in a function's ARN, which may have a version or alias behind it."""
    return arn.split(":")[6]


def _is_gone(error: ClientError) -> bool:
    return error.response["Error"]["Code"] == "ResourceNotFoundException"
