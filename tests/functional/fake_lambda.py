"""Lambda's control plane and the tagging API in memory.

Moto does not serve what the freeze leans on: its ListFunctions has no pages, its tagging API knows no functions, it
lets any function be set to 0, and it cannot be interrupted between two calls. This has all of that, and the error codes
of the real services.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from .support import ACCOUNT, REGION

PAGE = 50  # what one call of the real ListFunctions returns
SHORTEST_AGE = 60  # of a record, in seconds; -1 is no limit


def function_arn(name: str) -> str:
    """The ARN of a function."""
    return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"


def client_error(code: str, operation: str) -> ClientError:
    """An error as the SDK raises it."""
    return ClientError({"Error": {"Code": code, "Message": "As the code says."}}, operation)


def _not_found(operation: str) -> ClientError:
    return client_error("ResourceNotFoundException", operation)


@dataclass
class FakeFunction:
    """A function: its reserved concurrency (None: none) and its timeout in seconds.

    ``qualifiers``: its aliases and versions; ``provisioned``: qualifier → provisioned concurrency; ``lingering``: how
    many more refusals there are before AWS has taken notice that the last of it was deleted; ``deploying``: how many
    more there are before a change that somebody else makes to the function is through; ``published``: version → the
    timeout that it was published with.
    """

    reserved: int | None = None
    timeout: int = 30
    tags: Mapping[str, str] = field(default_factory=dict)
    qualifiers: set[str] = field(default_factory=set)
    provisioned: dict[str, int] = field(default_factory=dict)
    lingering: int = 0
    deploying: int = 0
    published: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.qualifiers = set(self.qualifiers) | set(self.provisioned)


@dataclass
class FakeMapping:
    """An event source mapping of a function.

    ``alias``: it feeds an alias of it; ``state``: other than on or off; ``source``: ARN of what it reads; ``age``: the
    maximum age of records; ``slow``: how many lists still show a change as under way; ``windows``: the settings that
    hold records back, in seconds, by the API's names.
    """

    function: str
    enabled: bool = True
    alias: str | None = None
    state: str | None = None
    source: str = "arn:aws:sqs:us-east-1:123456789012:queue"
    age: int = -1
    slow: int = 0
    pending: int = 0
    windows: Mapping[str, int] = field(default_factory=dict)

    def shown_state(self) -> str:
        """The state as AWS names it."""
        if self.state:
            return self.state
        if self.pending:
            return "Enabling" if self.enabled else "Disabling"
        return "Enabled" if self.enabled else "Disabled"


Settings = tuple[dict[str, int | None], dict[str, bool]]


@dataclass
class FakeLambda:
    """The Lambda client. ``before`` is called with the operation's name before each call, and may raise."""

    functions: dict[str, FakeFunction] = field(default_factory=dict)
    mappings: dict[str, FakeMapping] = field(default_factory=dict)
    before: Callable[[str], None] = lambda _: None
    calls: list[tuple[str, str]] = field(default_factory=list)

    def settings(self) -> Settings:
        """Every function's reserved concurrency, and whether each mapping is enabled."""
        return (
            {name: function.reserved for name, function in self.functions.items()},
            {uuid: mapping.enabled for uuid, mapping in self.mappings.items()},
        )

    def provisioned(self) -> dict[str, dict[str, int]]:
        """Every function's provisioned concurrency, of those that have some."""
        return {name: dict(function.provisioned) for name, function in self.functions.items() if function.provisioned}

    def ages(self) -> dict[str, int]:
        """Every mapping's maximum record age."""
        return {uuid: mapping.age for uuid, mapping in self.mappings.items()}

    def changes(self) -> int:
        """How many calls have changed something."""
        return sum(operation.startswith(("Put", "Delete", "Update")) for operation, _ in self.calls)

    def _call(self, operation: str, name: str = "") -> None:
        self.before(operation)
        self.calls.append((operation, name))

    def _function(self, operation: str, name: str) -> FakeFunction:
        self._call(operation, name)
        if name not in self.functions:
            raise _not_found(operation)
        return self.functions[name]

    def list_functions(self, Marker: str = "0", FunctionVersion: str = "") -> dict[str, Any]:  # noqa: N803 - API's
        """One page."""
        self._call("ListFunctions")
        start = int(Marker)
        listed = [
            (name, arn, timeout)
            for name, function in self.functions.items()
            for arn, timeout in (
                (function_arn(name), function.timeout),
                *(
                    (f"{function_arn(name)}:{version}", timeout)
                    for version, timeout in function.published.items()
                    if FunctionVersion == "ALL"
                ),
            )
        ]
        entries = [
            {"FunctionName": name, "FunctionArn": arn, "Timeout": timeout}
            for name, arn, timeout in listed[start : start + PAGE]
        ]
        more = {"NextMarker": str(start + PAGE)} if start + PAGE < len(listed) else {}
        return {"Functions": entries, **more}

    def list_event_source_mappings(
        self,
        Marker: str = "0",  # noqa: N803
        FunctionName: str | None = None,  # noqa: N803
    ) -> dict[str, Any]:
        """One page."""
        self._call("ListEventSourceMappings", FunctionName or "")
        start = int(Marker)
        chosen = [
            (uuid, mapping)
            for uuid, mapping in self.mappings.items()
            if FunctionName in (None, mapping.function) and mapping.function in self.functions
        ]
        entries = [self._mapping(uuid, mapping) for uuid, mapping in chosen[start : start + PAGE]]
        more = {"NextMarker": str(start + PAGE)} if start + PAGE < len(chosen) else {}
        return {"EventSourceMappings": entries, **more}

    def _mapping(self, uuid: str, mapping: FakeMapping) -> dict[str, Any]:
        shown = {
            "UUID": uuid,
            "FunctionArn": function_arn(mapping.function) + (f":{mapping.alias}" if mapping.alias else ""),
            "EventSourceArn": mapping.source,
            "MaximumRecordAgeInSeconds": mapping.age,
            "State": mapping.shown_state(),
            **mapping.windows,
        }
        mapping.pending = max(0, mapping.pending - 1)
        return shown

    def get_paginator(self, operation: str) -> Paginator:
        """The SDK's paginator."""
        return Paginator(getattr(self, operation))

    def get_function_concurrency(self, FunctionName: str) -> dict[str, int]:  # noqa: N803
        """The reserved concurrency, absent where there is none."""
        reserved = self._function("GetFunctionConcurrency", FunctionName).reserved
        return {} if reserved is None else {"ReservedConcurrentExecutions": reserved}

    def put_function_concurrency(
        self,
        FunctionName: str,  # noqa: N803
        ReservedConcurrentExecutions: int,  # noqa: N803
    ) -> None:
        """Reserve; refused below what is provisioned, and while somebody else changes the function."""
        function = self._function("PutFunctionConcurrency", FunctionName)
        if function.deploying:
            function.deploying -= 1
            raise client_error("ResourceConflictException", "PutFunctionConcurrency")
        if function.lingering and not function.provisioned:
            function.lingering -= 1
            raise client_error("InvalidParameterValueException", "PutFunctionConcurrency")
        if ReservedConcurrentExecutions < sum(function.provisioned.values()):
            raise client_error("InvalidParameterValueException", "PutFunctionConcurrency")
        function.reserved = ReservedConcurrentExecutions

    def delete_function_concurrency(self, FunctionName: str) -> None:  # noqa: N803
        """Reserve none."""
        self._function("DeleteFunctionConcurrency", FunctionName).reserved = None

    def list_provisioned_concurrency_configs(self, FunctionName: str, Marker: str = "0") -> dict[str, Any]:  # noqa: N803
        """One page."""
        function = self._function("ListProvisionedConcurrencyConfigs", FunctionName)
        start = int(Marker)
        entries = [
            {
                "FunctionArn": f"{function_arn(FunctionName)}:{qualifier}",
                "RequestedProvisionedConcurrentExecutions": number,
                "AllocatedProvisionedConcurrentExecutions": 0,
                "Status": "IN_PROGRESS",
            }
            for qualifier, number in list(function.provisioned.items())[start : start + PAGE]
        ]
        more = {"NextMarker": str(start + PAGE)} if start + PAGE < len(function.provisioned) else {}
        return {"ProvisionedConcurrencyConfigs": entries, **more}

    def delete_provisioned_concurrency_config(self, FunctionName: str, Qualifier: str) -> None:  # noqa: N803
        """Provision nothing for an alias or version."""
        function = self._function("DeleteProvisionedConcurrencyConfig", FunctionName)
        if Qualifier not in function.qualifiers:
            raise _not_found("DeleteProvisionedConcurrencyConfig")
        function.provisioned.pop(Qualifier, None)

    def put_provisioned_concurrency_config(
        self,
        FunctionName: str,  # noqa: N803
        Qualifier: str,  # noqa: N803
        ProvisionedConcurrentExecutions: int,  # noqa: N803
    ) -> None:
        """Provision; refused above what is reserved."""
        function = self._function("PutProvisionedConcurrencyConfig", FunctionName)
        if Qualifier not in function.qualifiers:
            raise _not_found("PutProvisionedConcurrencyConfig")
        wanted = {**function.provisioned, Qualifier: ProvisionedConcurrentExecutions}
        if function.reserved is not None and sum(wanted.values()) > function.reserved:
            raise client_error("InvalidParameterValueException", "PutProvisionedConcurrencyConfig")
        function.provisioned = wanted

    def get_event_source_mapping(self, UUID: str) -> dict[str, Any]:  # noqa: N803
        """One mapping."""
        self._call("GetEventSourceMapping", UUID)
        if UUID not in self.mappings:
            raise _not_found("GetEventSourceMapping")
        return self._mapping(UUID, self.mappings[UUID])

    def update_event_source_mapping(
        self,
        UUID: str,  # noqa: N803
        Enabled: bool,  # noqa: N803
        MaximumRecordAgeInSeconds: int | None = None,  # noqa: N803
    ) -> dict[str, Any]:
        """Enable or disable, and set the age of records."""
        self._call("UpdateEventSourceMapping", UUID)
        if UUID not in self.mappings:
            raise _not_found("UpdateEventSourceMapping")
        mapping = self.mappings[UUID]
        if mapping.pending:
            raise client_error("ResourceInUseException", "UpdateEventSourceMapping")
        if MaximumRecordAgeInSeconds is not None:
            assert MaximumRecordAgeInSeconds == -1 or MaximumRecordAgeInSeconds >= SHORTEST_AGE
            mapping.age = MaximumRecordAgeInSeconds
        if mapping.enabled != Enabled:
            mapping.pending = mapping.slow + 1 if mapping.slow else 0
        mapping.enabled = Enabled
        return self._mapping(UUID, mapping)


@dataclass
class Paginator:
    """Follows ``NextMarker``."""

    operation: Callable[..., dict[str, Any]]

    def paginate(self, **arguments: Any) -> Iterator[dict[str, Any]]:
        """All pages."""
        page = self.operation(**arguments)
        yield page
        while "NextMarker" in page:
            page = self.operation(Marker=page["NextMarker"], **arguments)
            yield page


@dataclass
class FakeTagging:
    """The tagging API over the same functions; other resources carry the tag as well."""

    functions: dict[str, FakeFunction]

    def get_resources(
        self,
        TagFilters: list[dict[str, Any]],  # noqa: N803
        ResourceTypeFilters: list[str],  # noqa: N803
        Marker: str = "0",  # noqa: N803
    ) -> dict[str, Any]:
        """One page of ARNs."""
        (tag,) = TagFilters
        arns = [
            function_arn(name)
            for name, function in self.functions.items()
            if function.tags.get(tag["Key"]) in tag["Values"]
        ]
        if ResourceTypeFilters != ["lambda:function"]:
            arns.append(f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/tagged")
        start = int(Marker)
        more = {"NextMarker": str(start + PAGE)} if start + PAGE < len(arns) else {}
        return {"ResourceTagMappingList": [{"ResourceARN": arn} for arn in arns[start : start + PAGE]], **more}

    def get_paginator(self, operation: str) -> Paginator:
        """The SDK's paginator."""
        return Paginator(getattr(self, operation))
