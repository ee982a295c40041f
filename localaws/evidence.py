"""What the drill collects besides the tables' content: functions' settings, the access log, leftovers, the S3 report.

Everything is read through public APIs with root's rights, before, during and after the recovery.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from botocore.exceptions import ClientError

MOVING_STATES = ("Creating", "Enabling", "Disabling", "Updating")
"""States of an event source mapping that pass by themselves."""


@dataclass(frozen=True, kw_only=True)
class EventSource:
    """One event source mapping."""

    source: str
    """The event source's name, e.g. the table whose stream it reads."""
    state: str
    """Enabled, Disabled, or a state in between."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a freeze changes on one function."""

    reserved: int | None
    """Reserved concurrency; None if none is set."""
    mappings: Mapping[str, EventSource] = field(default_factory=dict)
    """By UUID."""


def read_settings(lambda_client: Any, functions: Iterable[str]) -> dict[str, Settings]:
    """The present settings of each function, by name."""
    return {name: _settings(lambda_client, name) for name in functions}


def settled(settings: Mapping[str, Settings]) -> bool:
    """Whether no event source mapping is between two states."""
    return not any(mapping.state in MOVING_STATES for each in settings.values() for mapping in each.mappings.values())


def frozen_score(settings: Mapping[str, Settings], system: Iterable[str]) -> tuple[int, int]:
    """How far the freeze got: (settings that are stopped, settings there are), of the system's functions only."""
    stopped = [settings[name].reserved == 0 for name in system]
    stopped += [mapping.state == "Disabled" for name in system for mapping in settings[name].mappings.values()]
    return sum(stopped), len(stopped)


def describe_functions(
    before: Mapping[str, Settings],
    during: Mapping[str, Settings],
    after: Mapping[str, Settings],
    system: Sequence[str],
) -> list[dict[str, Any]]:
    """The report's `functions`.

    Args:
        before: settings before the recovery.
        during: settings at the moment when most was frozen; empty if nothing was observed.
        after: settings after the recovery; empty if it was not reached.
        system: the names of the functions that belong to the recovered system.

    Returns:
        One object a function: `restored` is true only if it has its former settings again, and, for a function of
        another team, had them all along.
    """
    return [
        _describe_function(name, before[name], during.get(name), after.get(name), name in system) for name in before
    ]


def invocation_is_refused(lambda_client: Any, function: str) -> bool:
    """Call a function; true if Lambda refuses for want of concurrency, false if it ran.

    Raises:
        ClientError: refused for any other reason.
    """
    try:
        lambda_client.invoke(FunctionName=function, Payload=b"{}")
    except ClientError as error:
        if error.response["Error"]["Code"] == "TooManyRequestsException":
            return True
        raise
    return False


def requests_between(
    log: Iterable[Mapping[str, Any]], start: datetime, end: datetime
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """Split the access log's entries from `start` to `end`: (by the account's root, by anyone else)."""
    inside = [entry for entry in log if start <= datetime.fromisoformat(str(entry["time"])) <= end]
    by_root = [entry for entry in inside if is_root(str(entry["principal"]))]
    return by_root, [entry for entry in inside if not is_root(str(entry["principal"]))]


def is_root(principal: str) -> bool:
    """Whether the principal is the account itself, as the rehearsal is."""
    return principal.startswith("arn:aws:iam::") and principal.endswith(":root")


def tables_beginning_with(dynamodb: Any, prefix: str) -> list[str]:
    """The names of all tables with this prefix."""
    pages = dynamodb.get_paginator("list_tables").paginate()
    return [name for page in pages for name in page["TableNames"] if name.startswith(prefix)]


def read_report(s3: Any, uri: str) -> dict[str, Any]:
    """The recovery's own report.

    Args:
        s3: a boto3 S3 client.
        uri: `s3://bucket/key`.

    Raises:
        ValueError: the URI or the object's content is not what it should be.
        ClientError: there is no such object.
    """
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not uri.startswith("s3://") or not key:
        raise ValueError(f"reportUri is {uri!r}, expected s3://bucket/key")
    content = json.loads(s3.get_object(Bucket=bucket, Key=key)["Body"].read())
    if not isinstance(content, dict):
        raise ValueError(f"{uri} holds JSON, but no object")
    return content


def steps(stepfunctions: Any, execution_arn: str) -> list[dict[str, Any]]:
    """The execution's own steps in order: {phase, tableName: None, start, end}, times as `datetime`.

    A state entered several times (a loop) is one step from its first entry to its last end; states that only decide
    or pass on are left out.
    """
    execution = stepfunctions.describe_execution(executionArn=execution_arn)
    machine = stepfunctions.describe_state_machine(stateMachineArn=execution["stateMachineArn"])
    states = json.loads(machine["definition"])["States"]
    entries: list[tuple[str, datetime]] = []
    for page in stepfunctions.get_paginator("get_execution_history").paginate(executionArn=execution_arn):
        for event in page["events"]:
            name = event.get("stateEnteredEventDetails", {}).get("name")
            if name in states:
                entries.append((name, event["timestamp"]))
    ends = [moment for _, moment in entries[1:]] + [execution.get("stopDate")]
    found: dict[str, dict[str, Any]] = {}
    for (name, start), end in zip(entries, ends, strict=True):
        if states[name]["Type"] in ("Task", "Map", "Parallel", "Wait"):
            step = found.setdefault(name, {"phase": name, "tableName": None, "start": start, "end": end})
            step["end"] = end
    return list(found.values())


def _settings(lambda_client: Any, name: str) -> Settings:
    reserved = lambda_client.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions")
    mappings = {
        entry["UUID"]: EventSource(source=_source_name(entry.get("EventSourceArn", "")), state=entry["State"])
        for page in lambda_client.get_paginator("list_event_source_mappings").paginate(FunctionName=name)
        for entry in page["EventSourceMappings"]
    }
    return Settings(reserved=reserved, mappings=mappings)


def _source_name(arn: str) -> str:
    resource = arn.split(":", 5)[-1].split("/")
    return f"stream of {resource[1]}" if len(resource) > 1 else resource[0]


def _describe_function(
    name: str, before: Settings, during: Settings | None, after: Settings | None, in_system: bool
) -> dict[str, Any]:
    restored = after == before and (in_system or during in (None, before))
    return {
        "name": name,
        "inSystem": in_system,
        "before": before.reserved,
        "during": during.reserved if during else None,
        "after": after.reserved if after else None,
        "observed": during is not None,
        "restored": restored,
        "mappings": [
            {
                "uuid": uuid,
                "source": mapping.source,
                "before": mapping.state,
                "during": _state(during, uuid),
                "after": _state(after, uuid) or "gone",
                "restored": _state(after, uuid) == mapping.state,
            }
            for uuid, mapping in before.mappings.items()
        ],
    }


def _state(settings: Settings | None, uuid: str) -> str | None:
    mapping = settings.mappings.get(uuid) if settings else None
    return mapping.state if mapping else None
