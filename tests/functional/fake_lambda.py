"""Lambda's control plane and the tagging API in memory.

Moto does not serve what the freeze leans on: its ListFunctions has no pages, its tagging API knows no functions, and it
cannot be interrupted between two calls. This has all three, and the error codes of the real services.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError

from .support import ACCOUNT, REGION

PAGE = 50  # what one call of the real ListFunctions returns


def function_arn(name: str) -> str:
    """The ARN of a function."""
    return f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"


def _not_found(operation: str) -> ClientError:
    return ClientError({"Error": {"Code": "ResourceNotFoundException", "Message": "No such thing."}}, operation)


@dataclass
class FakeFunction:
    """A function: its reserved concurrency (None: none) and its timeout in seconds."""

    reserved: int | None = None
    timeout: int = 30
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass
class FakeMapping:
    """An event source mapping of a function; ``alias``: it feeds an alias of it; ``state``: other than on or off."""

    function: str
    enabled: bool = True
    alias: str | None = None
    state: str | None = None


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

    def list_functions(self, Marker: str = "0") -> dict[str, Any]:  # noqa: N803 - the API's own spelling
        """One page."""
        self._call("ListFunctions")
        start = int(Marker)
        names = list(self.functions)
        entries = [
            {"FunctionName": name, "FunctionArn": function_arn(name), "Timeout": self.functions[name].timeout}
            for name in names[start : start + PAGE]
        ]
        more = {"NextMarker": str(start + PAGE)} if start + PAGE < len(names) else {}
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
        entries = [
            {
                "UUID": uuid,
                "FunctionArn": function_arn(mapping.function) + (f":{mapping.alias}" if mapping.alias else ""),
                "State": mapping.state or ("Enabled" if mapping.enabled else "Disabled"),
            }
            for uuid, mapping in chosen[start : start + PAGE]
        ]
        more = {"NextMarker": str(start + PAGE)} if start + PAGE < len(chosen) else {}
        return {"EventSourceMappings": entries, **more}

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
        """Reserve."""
        self._function("PutFunctionConcurrency", FunctionName).reserved = ReservedConcurrentExecutions

    def delete_function_concurrency(self, FunctionName: str) -> None:  # noqa: N803
        """Reserve none."""
        self._function("DeleteFunctionConcurrency", FunctionName).reserved = None

    def update_event_source_mapping(self, UUID: str, Enabled: bool) -> None:  # noqa: N803
        """Enable or disable."""
        self._call("UpdateEventSourceMapping", UUID)
        if UUID not in self.mappings:
            raise _not_found("UpdateEventSourceMapping")
        self.mappings[UUID].enabled = Enabled


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
