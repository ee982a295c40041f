"""Pulumi's resource monitor, played by this process: receives registrations, checks them, creates, answers."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pulumi.runtime import mocks, rpc, settings, sync_await
from pulumi.runtime.proto import resource_pb2

from localaws.engine import resources, schema
from localaws.engine.invokes import Invokes
from localaws.engine.limits import Limits

STACK_TYPE = "pulumi:pulumi:Stack"
PROVIDER_PREFIX = "pulumi:providers:"

# Parts of Pulumi's runtime that carry no type information, given the types they have.
ensure_event_loop: Callable[[], Any] = sync_await._ensure_event_loop
wait_for: Callable[[Any], Any] = sync_await._sync_await
_invoke_of_mocks: Callable[..., Any] = mocks.MockMonitor.Invoke
_answer_empty: Callable[..., Any] = mocks.MockMonitor.RegisterResourceOutputs


@dataclass(frozen=True, kw_only=True)
class Registration:
    """One resource as the program registered it; `inputs` in camelCase, archives as a description of their files."""

    urn: str
    type: str
    name: str
    custom: bool
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)


class Monitor(mocks.MockMonitor):
    """Creates what the program registers, in the order the program's dependencies give.

    Attributes:
        registrations: every resource, components included, in the order they were registered.
        stack_outputs: the program's exports, once it ended.
    """

    def __init__(self, account: resources.Account, invokes: Invokes) -> None:
        super().__init__(_NoMocks())
        self._account = account
        self._invokes = invokes
        self._limits = Limits()
        self._lock = threading.Lock()
        self._urns: set[str] = set()
        self.registrations: list[Registration] = []
        self.stack_outputs: dict[str, Any] = {}

    def make_urn(self, parent: str, type_: str, name: str) -> str:
        """The URN as the engine builds it: the types of all ancestors but the stack, joined by "$"."""
        qualified = parent.split("::")[2] if parent else STACK_TYPE
        full = type_ if qualified == STACK_TYPE else f"{qualified}${type_}"
        return f"urn:pulumi:{settings.get_stack()}::{settings.get_project()}::{full}::{name}"

    def Invoke(self, request: Any) -> Any:  # noqa: N802  # the protocol's name
        """Answer a provider function."""
        ensure_event_loop()
        if request.tok == "pulumi:pulumi:getResource":
            return _invoke_of_mocks(self, request)
        answer = self._invokes.call(request.tok, rpc.deserialize_properties(request.args))
        return resource_pb2.ResourceInvokeResponse(**{"return": wait_for(rpc.serialize_properties(answer, {}))})

    def ReadResource(self, request: Any) -> Any:  # noqa: N802
        """Refuse: the embedded AWS starts empty, so there is nothing to read."""
        raise schema.InputError(
            f"{request.type} '{request.name}': the program reads an existing resource (`.get`), which the embedded AWS "
            "does not support; use the provider's function instead, e.g. aws.dynamodb.get_table."
        )

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802
        """Check, create and remember one resource."""
        urn = self.make_urn(request.parent, request.type, request.name)
        if request.type == STACK_TYPE:
            return resource_pb2.RegisterResourceResponse(urn=urn)
        ensure_event_loop()
        with self._lock:
            if urn in self._urns:
                raise schema.InputError(f"Duplicate resource URN '{urn}'; try giving it a unique name.")
            self._urns.add(urn)
        inputs = _unwrapped(rpc.deserialize_properties(request.object))
        identity, outputs = "", dict(inputs)
        if request.type.startswith(PROVIDER_PREFIX):
            identity = request.name
        elif request.custom:
            schema.check_inputs(request.type, request.name, inputs)
            with self._lock:
                self._limits.check(request.type, request.name, inputs)
            identity, outputs = resources.create(self._account, request.type, request.name, inputs, urn)
        self.resources[urn] = mocks.MockMonitor.ResourceRegistration(urn, identity, outputs)
        with self._lock:
            self.registrations.append(
                Registration(
                    urn=urn,
                    type=request.type,
                    name=request.name,
                    custom=bool(request.custom),
                    inputs=_described(inputs),
                    outputs=_described(outputs),
                    options=_options(request),
                )
            )
        answer = wait_for(rpc.serialize_properties({**outputs, "id": identity}, {}))
        return resource_pb2.RegisterResourceResponse(urn=urn, id=identity, object=answer)

    def RegisterResourceOutputs(self, request: Any) -> Any:  # noqa: N802
        """Keep the stack's outputs."""
        if f"::{STACK_TYPE}::" in request.urn:
            ensure_event_loop()
            self.stack_outputs = _unwrapped(rpc.deserialize_properties(request.outputs))
        return _answer_empty(self, request)


class _NoMocks(mocks.Mocks):
    """Never asked: the monitor answers everything itself."""

    def call(self, args: mocks.MockCallArgs) -> Any:
        raise NotImplementedError(args.token)

    def new_resource(self, args: mocks.MockResourceArgs) -> Any:
        raise NotImplementedError(args.typ)


def _options(request: Any) -> dict[str, Any]:
    options: dict[str, Any] = {
        "parent": request.parent,
        "depends_on": list(request.dependencies),
        "protect": bool(request.protect),
        "retain_on_delete": bool(request.retainOnDelete),
        "delete_before_replace": bool(request.deleteBeforeReplace),
        "ignore_changes": list(request.ignoreChanges),
        "provider": request.provider,
        "import_id": request.importId,
    }
    return options


def _unwrapped(value: Any) -> Any:
    """Secrets arrive wrapped; their values are what gets created."""
    if rpc.is_rpc_secret(value):
        return _unwrapped(rpc.unwrap_rpc_secret(value))
    if isinstance(value, Mapping):
        return {key: _unwrapped(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_unwrapped(member) for member in value]
    return value


def _described(value: Any) -> Any:
    """JSON-able inputs: an archive becomes the list of its files, an unknown value the text "<unknown>"."""
    if isinstance(value, Mapping):
        return {key: _described(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_described(member) for member in value]
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    assets = getattr(value, "assets", None)
    if isinstance(assets, dict):
        return {"archive": sorted(assets)}
    return {"asset": str(getattr(value, "path", type(value).__name__))}


def as_json(registration: Registration) -> dict[str, Any]:
    """The registration as plain data."""
    return asdict(registration)
