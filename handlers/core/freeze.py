"""Freeze the system's Lambda functions, and release them exactly as they were.

Frozen means: reserved concurrency 0, no provisioned concurrency (AWS refuses the 0 beside it), and event source
mappings that were enabled are disabled. What each had is written to the ledger before anything is changed, and only if
nothing is saved there yet, so a second freeze can never overwrite the saved settings with its own zeros. Both
directions can stop anywhere and go on in the next invocation.

Lambda allows 15 calls a second to its control plane, over the whole account and region (quota "Rate of control plane
API requests"). A function costs two calls each way: one looks, one changes; a mapping costs one; a page of the lists
one per 50 functions or 100 mappings. So 2,000 functions are frozen, or released, in (2 * 2,000 + 40) / 15 = 270
seconds, one invocation of up to 900; a pass that finds all of them still frozen takes (2,000 + 40) / 15 = 136 seconds.
Provisioned concurrency adds three calls and one more for each configuration to a freeze, one and one more for each to
a release. Whoever else uses the API meanwhile, a deployment say, makes it slower: throttling ends an invocation, and
the next goes on after a pause.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from math import ceil
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from .clock import Clock, Deadline, to_iso
from .errors import DiscardIncomplete, FreezeIncomplete, ReleaseIncomplete, StaleWorker
from .incident import Incident
from .ledger import Ledger, incident_partition
from .locks import ENVIRONMENT, require_lock

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_resourcegroupstaggingapi import ResourceGroupsTaggingAPIClient

FROZEN, RELEASED, GONE = "frozen", "released", "gone"
_PARTITION, _FUNCTION, _MAPPING = "FROZEN", "FUNCTION#", "MAPPING#"
_CONSUMERS = "CONSUMERS"

POLL_SECONDS = 15
"""Pause before the next look at a mapping that is on its way, and before going on when AWS throttled."""
MAPPING_POLLS = 20
"""Looks at mappings on their way: five minutes. AWS speaks of a change as asynchronous; it takes about a minute."""
SHORTEST_RECORD_AGE = 60
"""The smallest MaximumRecordAgeInSeconds that AWS takes, but for -1: no limit."""
_SHORTEST_DRAIN = 60
"""Seconds: AWS does not say how soon all of Lambda knows of a concurrency of 0. The restore takes longer anyway."""
_POLLER_SECONDS = 90
"""How long it may take until the pollers of a changed mapping have stopped and started again with its new settings."""
_BEING_CHANGED = frozenset({"ResourceInUseException", "ResourceConflictException"})
"""AWS's refusals to change an event source mapping that is being changed."""
_THROTTLED = frozenset({"TooManyRequestsException", "ThrottlingException", "ThrottledException", "Throttling"})


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
    """A function of the system.

    ``timeout_seconds``: how long a running invocation, of any of its versions, may go on after the freeze.
    """

    name: str
    timeout_seconds: int


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a freeze, a release or a discard is.

    Args:
        complete: whether it is done; otherwise call again, after ``wait_seconds``.
        functions: how many functions it is about; of a discard, how many event source mappings.
        drained_at: when the last running invocation must have ended.
        wait_seconds: pause before the next call.
        polled: whether that pause is for event source mappings on their way, which is not done for ever.
        lag_seconds: of a discard, how much longer the mappings' own windows may hold records back.
        changed: names of what was not frozen any more, or not yet, in a later pass of the same execution.
    """

    complete: bool
    functions: int = 0
    drained_at: str | None = None
    wait_seconds: int = 0
    polled: bool = False
    lag_seconds: int = 0
    changed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StreamConsumer:
    """A function that reads the stream of a table.

    ``enabled``: whether its mapping is, or was before the freeze; ``frozen``: whether the function belongs to the
    system. One that does not sees a reset as it happens.
    """

    table_name: str
    function_name: str
    uuid: str
    enabled: bool
    frozen: bool

    def as_dict(self) -> dict[str, Any]:
        """As it stands in the plan and in the report."""
        return {
            "tableName": self.table_name,
            "functionName": self.function_name,
            "uuid": self.uuid,
            "enabled": self.enabled,
            "frozen": self.frozen,
        }


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
        return self._select(selection)[0]

    def _select(self, selection: Selection) -> tuple[list[Function], frozenset[str]]:
        """The functions that belong to the system, by name, and the names of all the others."""
        others: set[str] = set()
        tagged = self._tagged_names(selection.tag) if selection.tag else frozenset()
        timeouts: dict[str, int] = {}
        # Every version: what runs may be an alias of one that was published with a longer timeout.
        for page in self.functions.get_paginator("list_functions").paginate(FunctionVersion="ALL"):
            for function in page["Functions"]:
                name = function["FunctionName"]
                prefixed = selection.name_prefix is not None and name.startswith(selection.name_prefix)
                if (prefixed or name in tagged) and name not in selection.exclude:
                    timeouts[name] = max(timeouts.get(name, 0), function.get("Timeout", 900))
                else:
                    others.add(name)
        return [Function(name=name, timeout_seconds=timeouts[name]) for name in sorted(timeouts)], frozenset(others)

    def _tagged_names(self, tag: tuple[str, str]) -> frozenset[str]:
        key, value = tag
        pages = self.tagging.get_paginator("get_resources").paginate(
            TagFilters=[{"Key": key, "Values": [value]}], ResourceTypeFilters=["lambda:function"]
        )
        arns = (entry["ResourceARN"] for page in pages for entry in page["ResourceTagMappingList"])
        return frozenset(map(_function_name, arns))

    def plan(self, selection: Selection, tables: Collection[str]) -> tuple[int, list[StreamConsumer]]:
        """How many functions a freeze is about, and who reads the streams of the tables. Changes nothing."""
        names = {function.name for function in self.select(selection)}
        saved = self._saved()
        consumers = (_consumer(name, mapping, tables, names, saved) for name, mapping in self._mappings())
        return len(names), [consumer for consumer in consumers if consumer is not None]

    def freeze(
        self,
        selection: Selection,
        deadline: Deadline,
        *,
        number: int = 1,
        polls: int = 0,
        tables: Collection[str] = (),
    ) -> Progress:
        """Freeze what this pass has not frozen yet, until done or the deadline nears.

        Args:
            selection: which functions.
            deadline: when to hand over to the next invocation.
            number: of the pass: an execution freezes once at its beginning and looks again before the purge.
            polls: how often this pass has waited for event source mappings.
            tables: those whose stream consumers are noted for the report.

        Raises:
            FreezeIncomplete: somebody else is changing a mapping, or provisioned concurrency is not gone yet.
        """
        try:
            return self._freeze(selection, deadline, number, polls, tables)
        except ClientError as error:
            if not _is_throttled(error):
                raise
            return Progress(complete=False, wait_seconds=POLL_SECONDS)

    def _freeze(
        self, selection: Selection, deadline: Deadline, number: int, polls: int, tables: Collection[str]
    ) -> Progress:
        selected, others = self._select(selection)
        names = {function.name for function in selected}
        saved = self._saved()
        self._check_selection(others, saved)
        # Mappings first, until they are disabled: pollers that still receive from a queue while their function is
        # throttled drive good messages into its dead-letter queue.
        consumers: list[StreamConsumer] = []
        changing: list[str] = []
        disabling = False
        for function_name, mapping in self._mappings():
            consumer = _consumer(function_name, mapping, tables, names, saved)
            if consumer is not None:
                consumers.append(consumer)
            if function_name not in names or not selection.event_source_mappings:
                continue
            if deadline.reached():
                return Progress(complete=False, functions=len(selected))
            self._require_preparation()
            state = self._disable_mapping(function_name, mapping, saved.get(_MAPPING + mapping["UUID"]), number)
            if state in _CHANGING:
                changing.append(f"{mapping['UUID']} of {function_name} is {state}")
            disabling = disabling or state == "Disabling"
        if changing:
            raise FreezeIncomplete(
                f"Event source mapping {'; '.join(changing)}. Expected each to be enabled or disabled: wait until its "
                "change is through, then start the same incident again."
            )
        # Not for ever: to stop the writes matters more than a message that is received once too often.
        if disabling and polls < MAPPING_POLLS:
            return Progress(complete=False, functions=len(selected), wait_seconds=POLL_SECONDS, polled=True)
        if number == 1:
            found = {"consumers": [consumer.as_dict() for consumer in consumers]}
            self.ledger.put(incident_partition(self.incident_id), _CONSUMERS, found)
        provisioned: list[str] = []
        for function in selected:
            record = saved.get(_FUNCTION + function.name)
            if self._done_in_pass(record, number):
                continue  # in an earlier invocation
            if deadline.reached():
                return Progress(complete=False, functions=len(selected))
            self._require_preparation()
            if not self._freeze_function(function.name, record, number):
                provisioned.append(function.name)
        if provisioned:
            raise FreezeIncomplete(
                f"{', '.join(provisioned)}: AWS refuses reserved concurrency 0, because it still counts provisioned "
                "concurrency that was deleted, or is changing the function. Expected that to be through: wait, then "
                "start the same incident again."
            )
        changed = () if number == 1 else self._changed_in(number)
        # Of a later pass only what had come back can still be running.
        running = [function for function in selected if number == 1 or function.name in changed]
        longest = max((function.timeout_seconds for function in running), default=0)
        drain = timedelta(seconds=max(longest, _SHORTEST_DRAIN) if running else 0)
        return Progress(
            complete=True, functions=len(selected), drained_at=to_iso(self.clock() + drain), changed=changed
        )

    def _check_selection(self, others: Collection[str], saved: Mapping[str, Mapping[str, Any]]) -> None:
        """See that no function which this execution froze has left the selection: nobody could keep it frozen."""
        left = sorted(
            name
            for name in others
            if _is_frozen(saved.get(_FUNCTION + name)) and saved[_FUNCTION + name].get("frozenBy") == self.execution_arn
        )
        if left:
            raise FreezeIncomplete(
                f"{', '.join(left)}: frozen by this execution, and not selected any more (a tag was taken away). "
                "Expected the system's functions to stay selected until the release: put the tag back and stop the "
                "deployment, then start the same incident again."
            )

    def _saved(self) -> dict[str, Mapping[str, Any]]:
        """Everything that is or was frozen in this environment, by sort key."""
        return {record["sk"]: record for record in self.ledger.query(_PARTITION, "")}

    def _done_in_pass(self, saved: Mapping[str, Any] | None, number: int) -> bool:
        return (
            saved is not None
            and saved["state"] == FROZEN
            and saved.get("frozenBy") == self.execution_arn
            and int(saved.get("frozenInPass", 1)) >= number
        )

    def _changed_in(self, number: int) -> tuple[str, ...]:
        """Names of what a pass, in all its invocations, had to freeze: a function's, and a mapping's function's."""
        names = {
            record.get("functionName") or record["sk"].removeprefix(_FUNCTION)
            for record in self.ledger.query(_PARTITION, "")
            if record.get("changedBy") == self.execution_arn and record.get("changedInPass") == number
        }
        return tuple(sorted(names))

    def _change(self, number: int) -> dict[str, Any]:
        """What marks a setting as changed by a pass. Written before the change: an interruption must not hide it."""
        return {"changedBy": self.execution_arn, "changedInPass": number}

    def _freeze_function(self, name: str, saved: Mapping[str, Any] | None, number: int) -> bool:
        """Freeze one function; False when AWS does not let it yet."""
        sort_key = _FUNCTION + name
        provisioned = _provisioned_of(saved) if _is_frozen(saved) else {}
        try:
            current = self._concurrency(name)
            # A function that is still saved but no longer at 0 was set by hand since: that is its setting now.
            if not _is_frozen(saved) or current != 0:
                settings: dict[str, Any] = {"reservedConcurrency": current, "provisionedConcurrency": provisioned}
                self._save(sort_key, saved, {**settings, **({} if current == 0 else self._change(number))})
            if current != 0 and not self._set_to_zero(name, provisioned):
                return False
        except ClientError as error:
            if not _is_gone(error):
                raise
            self.ledger.update(_PARTITION, sort_key, {"state": GONE}, only_if={})
            return True
        # Last, so that an interruption before this does it again.
        done = {"frozenBy": self.execution_arn, "frozenInPass": number, "incidentId": self.incident_id}
        self.ledger.update(_PARTITION, sort_key, done, only_if={"state": FROZEN})
        return True

    def _set_to_zero(self, name: str, saved: Mapping[str, int]) -> bool:
        """Reserve 0, which AWS refuses below the function's provisioned concurrency: delete that first.

        ``saved``: provisioned concurrency that is in the ledger already. False when AWS still counts what was deleted.

        Configurations that Application Auto Scaling manages are deleted and put back like all others: it cannot
        provision anything while 0 is reserved, and takes up again from the number that is put back.
        """
        if self._reserve_zero(name) is None:
            return True
        found = self._provisioned(name)
        if found:
            # Those that are gone were deleted by an earlier invocation: they stay in the ledger. Of those that are back
            # the first number counts: Application Auto Scaling provisions its least as soon as it finds nothing.
            both = {**found, **saved}
            self._note(_FUNCTION + name, {"provisionedConcurrency": both})
            for qualifier in sorted(found):
                try:
                    self.functions.delete_provisioned_concurrency_config(FunctionName=name, Qualifier=qualifier)
                except ClientError as error:
                    if _code(error) == "ResourceConflictException":
                        return False
                    if not _is_gone(error):
                        raise
        refusal = self._reserve_zero(name)
        if refusal is not None and not found and not saved and _code(refusal) != "ResourceConflictException":
            raise refusal  # it has another reason, which only an operator can see to
        return refusal is None

    def _reserve_zero(self, name: str) -> ClientError | None:
        """Reserve 0; returns AWS's refusal where provisioned concurrency may be the reason."""
        try:
            self.functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
        except ClientError as error:
            # The error's only other documented reason, a too small rest for other functions, cannot be with 0.
            # A conflict is a deployment of this very function: over soon.
            if _code(error) not in ("InvalidParameterValueException", "ResourceConflictException"):
                raise
            return error
        return None

    def _provisioned(self, name: str) -> dict[str, int]:
        """A function's provisioned concurrency: alias or version → requested number."""
        pages = self.functions.get_paginator("list_provisioned_concurrency_configs").paginate(FunctionName=name)
        return {
            config["FunctionArn"].rpartition(":")[2]: config["RequestedProvisionedConcurrentExecutions"]
            for page in pages
            for config in page["ProvisionedConcurrencyConfigs"]
        }

    def _disable_mapping(
        self, function_name: str, mapping: Mapping[str, Any], saved: Mapping[str, Any] | None, number: int
    ) -> str:
        """Disable a mapping unless it is; returns its state afterwards."""
        state: str = mapping["State"]
        # One that is disabled, or on its way there, was so before the freeze, or was saved by it.
        if state not in ("Enabled", "Enabling"):
            return state
        sort_key = _MAPPING + mapping["UUID"]
        if _is_frozen(saved):
            self._note(sort_key, self._change(number))
        else:
            settings = {
                "functionName": function_name,
                "eventSourceArn": mapping.get("EventSourceArn"),
                "maximumRecordAge": None,  # saved when a discard changes it
                "ageIsBack": None,
            }
            self._save(sort_key, saved, {**settings, **self._change(number)})
        try:
            answer = self.functions.update_event_source_mapping(UUID=mapping["UUID"], Enabled=False)
        except ClientError as error:
            if _code(error) in _BEING_CHANGED:
                if not _is_frozen(saved):
                    # Somebody may be disabling it: how it is then is how it is to be found again.
                    self.ledger.update(_PARTITION, sort_key, {"state": RELEASED}, only_if={"state": FROZEN})
                return "Updating"
            if not _is_gone(error):
                raise
            self.ledger.update(_PARTITION, sort_key, {"state": GONE}, only_if={})
            return "Deleting"
        return answer["State"]

    def _mappings(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Every event source mapping of the account with its function's name: one list costs far fewer calls."""
        for page in self.functions.get_paginator("list_event_source_mappings").paginate():
            for mapping in page["EventSourceMappings"]:
                yield _function_name(mapping["FunctionArn"]), mapping

    def _save(self, sort_key: str, saved: Mapping[str, Any] | None, settings: Mapping[str, Any]) -> None:
        """Write down a setting before it is changed; never over one that is still to be put back.

        Raises:
            StaleWorker: see :meth:`_note`.
        """
        record = {
            "state": FROZEN,
            "frozenBy": None,  # not yet: what an earlier freeze left here must not pass for this one's
            "savedAt": to_iso(self.clock()),
            "incidentId": self.incident_id,
            **settings,
        }
        if saved is None:
            written = self.ledger.create(_PARTITION, sort_key, record)
        else:
            written = self.ledger.update(_PARTITION, sort_key, record, only_if={"state": saved["state"]})
        if not written and not _is_frozen(self.ledger.get(_PARTITION, sort_key)):
            raise _not_frozen(sort_key)

    def _note(self, sort_key: str, values: Mapping[str, Any]) -> None:
        """Write something down of a setting that is saved, before it is changed.

        Raises:
            StaleWorker: it has been put back meanwhile. A change now would be one that nobody puts back.
        """
        if not self.ledger.update(_PARTITION, sort_key, values, only_if={"state": FROZEN}):
            raise _not_frozen(sort_key)

    def discard(self, tables: Collection[str], deadline: Deadline, *, polls: int = 0) -> Progress:
        """Let the frozen consumers of the tables' streams skip what the reset wrote, while their functions are at 0.

        Their mappings are enabled with the smallest maximum record age. A batch that is older is discarded, a younger
        one is throttled until it is older; the release puts the mappings' own age back. The caller has to wait until
        the mappings are through the stream (:func:`discard_seconds`).

        Raises:
            DiscardIncomplete: AWS refuses to change a mapping; all others are changed.
        """
        found = lag = 0
        waiting: list[str] = []
        refused: list[str] = []
        for record in self.ledger.query(_PARTITION, _MAPPING):
            if record["state"] != FROZEN or not _is_stream_of(tables, record.get("eventSourceArn"), self.execution_arn):
                continue
            if deadline.reached():
                return Progress(complete=False)
            self._require_lock()
            uuid = record["sk"].removeprefix(_MAPPING)
            try:
                mapping = self.functions.get_event_source_mapping(UUID=uuid)
                windows = ("MaximumBatchingWindowInSeconds", "TumblingWindowInSeconds")
                lag = max(lag, sum(int(str(mapping.get(window) or 0)) for window in windows))
                state = self._discard_with(mapping, record)
            except ClientError as error:
                if _is_throttled(error):
                    return Progress(complete=False, wait_seconds=POLL_SECONDS)
                if _is_gone(error):
                    self.ledger.update(_PARTITION, record["sk"], {"state": GONE}, only_if={"state": FROZEN})
                    continue
                if _code(error) not in _BEING_CHANGED:
                    refused.append(f"{uuid} of {record['functionName']} ({_code(error)})")
                    continue
                state = "Updating"
            found += 1
            if state != "Enabled":
                waiting.append(f"{uuid} of {record['functionName']} ({state})")
        if refused or (waiting and polls >= MAPPING_POLLS):
            raise DiscardIncomplete(
                f"Event source mappings that do not discard the reset's stream records yet: "
                f"{', '.join(refused + waiting)}. Expected AWS to enable them with a maximum record age of "
                f"{SHORTEST_RECORD_AGE} seconds. The tables are verified, and the functions stay frozen: look at "
                "these, then start the same incident again, with streamPolicy replay if the consumers may see the "
                "records."
            )
        if waiting:
            return Progress(complete=False, functions=found, wait_seconds=POLL_SECONDS, polled=True)
        return Progress(complete=True, functions=found, lag_seconds=lag)

    def _discard_with(self, mapping: Mapping[str, Any], record: Mapping[str, Any]) -> str:
        """Enable one mapping with the smallest record age, its own saved first; returns its state afterwards."""
        age = mapping.get("MaximumRecordAgeInSeconds", -1)
        if record.get("maximumRecordAge") is None or age != SHORTEST_RECORD_AGE:
            saved = {"maximumRecordAge": age, "discardedBy": self.incident_id, "ageIsBack": None}
            self._note(record["sk"], saved)
        if age == SHORTEST_RECORD_AGE and mapping["State"] in ("Enabled", "Enabling"):
            return str(mapping["State"])
        answer = self.functions.update_event_source_mapping(
            UUID=mapping["UUID"], Enabled=True, MaximumRecordAgeInSeconds=SHORTEST_RECORD_AGE
        )
        return answer["State"]

    def release(self, deadline: Deadline, *, polls: int = 0) -> Progress:
        """Put everything back that is frozen in this environment, until done or the deadline nears.

        ``polls``: how often this execution's release has paused. It tells the call after a pause from one that is only
        tried again.

        First the mappings that a discard has changed; their functions only in the next call, after a pause in which
        their pollers take up the record age that was put back, so that none sees the short one. Then the other
        functions; then the other mappings, whose pollers would be throttled before.

        Raises:
            ReleaseIncomplete: some settings could not be put back; all others are.
        """
        refused: list[str] = []
        held: set[str] = set()
        pausing: set[str] = set()
        for record in sorted(self.ledger.query(_PARTITION, ""), key=_release_order):
            if record["state"] != FROZEN:
                continue
            if deadline.reached():
                return self._pause(0, pausing)
            name = record["sk"].partition("#")[2]
            if not _is_discarding(record):
                # With a function its other mappings wait: their pollers would be throttled.
                function_name = record.get("functionName") or name
                if function_name in pausing:
                    continue
                if function_name in held:
                    refused.append(f"{name} (waits for its event source mapping)")
                    continue
            self._require_lock()
            try:
                if self._put_age_back(record, f"{self.execution_arn}#{polls}"):
                    pausing.add(record["functionName"])
                else:
                    self._put_back(record)
            except ClientError as error:
                if _is_throttled(error):  # AWS is not asked again before a pause
                    return self._pause(POLL_SECONDS, pausing)
                refused.append(f"{name} ({_code(error)})")
                if _is_discarding(record):
                    held.add(record["functionName"])
        if pausing:
            return self._pause(0, pausing)
        if refused:
            raise ReleaseIncomplete(
                f"Not released yet: {', '.join(refused)}. Expected AWS to take every setting back: look at these, "
                "then start the same incident again; all others have their settings back."
            )
        return Progress(complete=True, functions=self._released())

    def _pause(self, seconds: int, pausing: Collection[str]) -> Progress:
        return Progress(
            complete=False,
            functions=self._released(),
            wait_seconds=_POLLER_SECONDS if pausing else seconds,
            polled=bool(pausing),
        )

    def _released(self) -> int:
        return saved_settings(self.ledger, self.incident_id).released

    def _put_age_back(self, record: Mapping[str, Any], call: str) -> bool:
        """Give a mapping that discards its own record age back; whether its pollers may not have taken it up yet.

        ``call`` names this call, and is the same when the call is tried again: then the pause is still to come.
        """
        if not _is_discarding(record):
            return False
        if record.get("ageIsBack"):
            return bool(record["ageIsBack"] == call)
        try:
            self._restore_mapping(record["sk"].removeprefix(_MAPPING), record)
        except ClientError as error:
            if not _is_gone(error):
                raise
            return False
        self.ledger.update(_PARTITION, record["sk"], {"ageIsBack": call}, only_if={"state": FROZEN})
        return True

    def _put_back(self, record: Mapping[str, Any]) -> None:
        state = RELEASED
        try:
            if record["sk"].startswith(_FUNCTION):
                name = record["sk"].removeprefix(_FUNCTION)
                self._restore_concurrency(name, record["reservedConcurrency"])
                self._restore_provisioned(name, _provisioned_of(record), record["reservedConcurrency"])
            else:
                self._restore_mapping(record["sk"].removeprefix(_MAPPING), record)
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
        if self._concurrency(name) != 0 or reserved == 0:
            return  # put back already, or set by hand during the freeze: not this recovery's zero
        if reserved is None:
            self.functions.delete_function_concurrency(FunctionName=name)
        else:
            self.functions.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=int(reserved))

    def _restore_provisioned(self, name: str, saved: Mapping[str, int], reserved: Any) -> None:
        if not saved:
            return
        present = self._provisioned(name)
        for qualifier, number in sorted(saved.items()):
            if qualifier in present:
                continue  # put back already, or set by hand during the freeze
            try:
                self.functions.put_provisioned_concurrency_config(
                    FunctionName=name, Qualifier=qualifier, ProvisionedConcurrentExecutions=number
                )
            except ClientError as error:
                # Reserved below what was provisioned is what somebody set by hand during the freeze: that stands.
                contradicted = reserved is not None and sum(saved.values()) > reserved
                if not _is_gone(error) and not (contradicted and _code(error) == "InvalidParameterValueException"):
                    raise  # else the alias or version is gone: there is nothing to put back

    def _restore_mapping(self, uuid: str, record: Mapping[str, Any]) -> None:
        if not _is_discarding(record):
            self.functions.update_event_source_mapping(UUID=uuid, Enabled=True)
            return
        mapping = self.functions.get_event_source_mapping(UUID=uuid)
        if mapping.get("MaximumRecordAgeInSeconds", -1) == SHORTEST_RECORD_AGE:
            self.functions.update_event_source_mapping(
                UUID=uuid, Enabled=True, MaximumRecordAgeInSeconds=int(record["maximumRecordAge"])
            )
        elif mapping["State"] not in ("Enabled", "Enabling"):
            # Put back already, or set by hand during the discard: that is its age now.
            self.functions.update_event_source_mapping(UUID=uuid, Enabled=True)

    def _concurrency(self, name: str) -> int | None:
        return self.functions.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions")

    def _require_lock(self) -> None:
        """Stop a worker that has outlived its execution, before it changes one more setting."""
        require_lock(self.ledger, ENVIRONMENT, self.execution_arn)

    def _require_preparation(self) -> None:
        """Stop a freeze that has outlived its execution, or the execution's failure, which may be releasing by now."""
        self._require_lock()
        incident = Incident(
            ledger=self.ledger, clock=self.clock, incident_id=self.incident_id, execution_arn=self.execution_arn
        )
        if incident.is_closing():
            raise StaleWorker(
                f"Incident {self.incident_id!r} has failed, and its functions may be released by now. Expected its "
                "orchestrator to be at work: this worker stops before it changes a setting."
            )


def _not_frozen(sort_key: str) -> StaleWorker:
    return StaleWorker(
        f"The ledger has {sort_key} as released, or gone, by now. Expected it to be frozen still: another worker has "
        "gone on, and this one stops before it changes a setting."
    )


def discard_seconds(tables: Iterable[Mapping[str, Any]]) -> int:
    """How long to wait until mappings are through the streams of tables that were reset.

    ``tables``: their summaries, as the orchestrator's output has them. The last records must have grown older than
    :data:`SHORTEST_RECORD_AGE`; the first must have been read. Assumed, because AWS documents no rate: a mapping that
    only discards goes through a shard at least as fast as DynamoDB filled it, which is 1,000 records a second at most
    (a partition's write capacity). So the time the reset took is enough, and so is a second for each 1,000 write units
    it consumed, which counts less where a recovery lay idle between two of its executions. At most a day: a stream
    keeps no more. On top, the time until the pollers have taken up the mappings' new settings.
    """
    longest = max(
        (
            min(float(table["durationSeconds"]), float(table["consumedCapacity"]["writeUnits"]) / 1000)
            for table in tables
        ),
        default=0.0,
    )
    return min(86_400, _POLLER_SECONDS + SHORTEST_RECORD_AGE + ceil(longest))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an incident froze.

    ``reserved`` and ``states`` are by function name: reserved concurrency before the freeze (None: none reserved), and
    ``frozen``, ``released`` or ``gone``. ``provisioned`` has the functions with provisioned concurrency: name → alias
    or version → number. ``mappings`` has the event source mappings that were enabled: id → (function name, state);
    ``discarded`` the ids of those that skipped the reset's records.
    """

    reserved: Mapping[str, int | None]
    states: Mapping[str, str]
    provisioned: Mapping[str, Mapping[str, int]]
    mappings: Mapping[str, tuple[str, str]]
    discarded: Collection[str]

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
    provisioned: dict[str, dict[str, int]] = {}
    mappings: dict[str, tuple[str, str]] = {}
    discarded: set[str] = set()
    for record in ledger.query(_PARTITION, ""):
        if record["incidentId"] != incident_id:
            continue
        kind, _, name = record["sk"].partition("#")
        if f"{kind}#" == _MAPPING:
            mappings[name] = (record["functionName"], record["state"])
            if record.get("discardedBy") == incident_id:
                discarded.add(name)
            continue
        saved = record["reservedConcurrency"]
        reserved[name] = None if saved is None else int(saved)
        states[name] = record["state"]
        if _provisioned_of(record):
            provisioned[name] = _provisioned_of(record)
    return Settings(
        reserved=reserved, states=states, provisioned=provisioned, mappings=mappings, discarded=frozenset(discarded)
    )


def saved_consumers(ledger: Ledger, incident_id: str) -> list[dict[str, Any]]:
    """The stream consumers of the incident's tables as its freeze found them; none before it."""
    record = ledger.get(incident_partition(incident_id), _CONSUMERS)
    return list(record["consumers"]) if record else []


_CHANGING = ("Creating", "Updating")


def _consumer(
    function_name: str,
    mapping: Mapping[str, Any],
    tables: Collection[str],
    selected: Collection[str],
    saved: Mapping[str, Mapping[str, Any]],
) -> StreamConsumer | None:
    """The consumer behind a mapping, if it reads the stream of one of the tables."""
    arn = mapping.get("EventSourceArn")
    if not _is_stream_of(tables, arn, mapping["FunctionArn"]):
        return None
    return StreamConsumer(
        table_name=str(_stream_table(arn)),
        function_name=function_name,
        uuid=mapping["UUID"],
        enabled=mapping["State"] in ("Enabled", "Enabling") or _is_frozen(saved.get(_MAPPING + mapping["UUID"])),
        frozen=function_name in selected,
    )


def _is_stream_of(tables: Collection[str], stream_arn: str | None, here: str) -> bool:
    """Whether this is the stream of one of the tables; ``here`` is any ARN of their region and account.

    A stream of a table of the same name in another account may feed functions here as well.
    """
    return _stream_table(stream_arn) in tables and str(stream_arn).split(":")[3:5] == here.split(":")[3:5]


def _stream_table(arn: str | None) -> str | None:
    """The table whose DynamoDB stream has this ARN, ``arn:…:dynamodb:…:table/NAME/stream/LABEL``; None of another."""
    if arn is None or arn.split(":")[2:3] != ["dynamodb"] or "/stream/" not in arn:
        return None
    return arn.split("/")[1]


def _release_order(record: Mapping[str, Any]) -> tuple[int, str]:
    if _is_discarding(record):
        return 0, record["sk"]
    return (1 if record["sk"].startswith(_FUNCTION) else 2), record["sk"]


def _is_discarding(record: Mapping[str, Any]) -> bool:
    """Whether a discard has changed, or was about to change, this mapping's record age."""
    return record.get("maximumRecordAge") is not None


def _provisioned_of(record: Mapping[str, Any] | None) -> dict[str, int]:
    saved = (record or {}).get("provisionedConcurrency") or {}
    return {qualifier: int(number) for qualifier, number in saved.items()}


def _is_frozen(saved: Mapping[str, Any] | None) -> bool:
    return saved is not None and saved["state"] == FROZEN


def _function_name(arn: str) -> str:
    """The name in a function's ARN, which may have a version or alias behind it."""
    return arn.split(":")[6]


def _code(error: ClientError) -> str:
    return error.response["Error"]["Code"]


def _is_gone(error: ClientError) -> bool:
    return _code(error) in ("ResourceNotFoundException", "ProvisionedConcurrencyConfigNotFoundException")


def _is_throttled(error: ClientError) -> bool:
    return _code(error) in _THROTTLED
