"""Checking a resource's inputs against the classes of pulumi_aws: names, nested names, basic types, required ones.

The real engine gets this from the provider's schema; Pulumi's mocks check nothing, so that a misspelt nested key would
be dropped silently.
"""

import importlib
import inspect
import re
import types
import typing
import warnings
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

import pulumi
from pulumi import _types as pulumi_types


class InputError(ValueError):
    """An input that the provider would refuse; the message names the resource, the path and what is wrong."""


def check_inputs(token: str, name: str, inputs: Mapping[str, Any]) -> None:
    """Check `inputs` (camelCase, as they reach the engine) of resource `name` of type `token`.

    Raises:
        InputError: an unknown or missing input, or one of the wrong basic type, at any depth.
    """
    arguments = _arguments_class(token)
    where = f"{token} '{name}'"
    _check_structure(where, arguments, inputs)


def _arguments_class(token: str) -> type:
    """The `…Args` class of e.g. "aws:iam/role:Role"."""
    package, path, class_name = token.split(":")
    module_name, _, file_name = path.partition("/")
    if package != "aws":
        raise InputError(f"Resource type {token} is not of the AWS provider: the embedded AWS cannot create it.")
    if module_name == "lambda":
        module_name = "lambda_"  # the keyword's Python spelling
    file_name = re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", file_name).lower()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # modules warn of deprecated resources they only define
            module = importlib.import_module(f"pulumi_aws.{module_name}.{file_name}")
    except ModuleNotFoundError as error:
        raise InputError(f"Resource type {token} is not one of pulumi_aws: is it misspelt?") from error
    # Where a nested input has the same name, the resource's own class is called …InitArgs (BucketVersioning).
    arguments = getattr(module, f"{class_name}InitArgs", None) or getattr(module, f"{class_name}Args", None)
    if not isinstance(arguments, type):
        raise InputError(f"Resource type {token} has no argument class in pulumi_aws: is the type misspelt?")
    return arguments


def _check_structure(where: str, arguments: type, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: expected an object, found {_shown(value)}.")
    known = pulumi_types.input_type_types(arguments)
    for key, member in value.items():
        if key not in known:
            raise InputError(f"{where}: unknown input '{key}'. Known: {', '.join(sorted(known))}.")
        if member is not None:
            _check_value(f"{where}, {key}", known[key], member)
    python_names = pulumi_types.input_type_py_to_pulumi_names(arguments)
    for parameter in inspect.signature(arguments.__init__).parameters.values():  # type: ignore[misc]
        if parameter.name in python_names and parameter.default is inspect.Parameter.empty:
            wire_name = python_names[parameter.name]
            if value.get(wire_name) is None:
                raise InputError(f"{where}: the required input '{wire_name}' is missing.")


def _check_value(where: str, expected: Any, value: Any) -> None:
    expected = _plain(expected)
    if expected is Any or expected is None:
        return
    if isinstance(expected, _Choice):
        failures = []
        for option in expected.options:
            try:
                _check_value(where, option, value)
            except InputError as failure:
                failures.append(failure)
            else:
                return
        raise failures[-1]
    origin = typing.get_origin(expected)
    if origin in (list, Sequence):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise InputError(f"{where}: expected a list, found {_shown(value)}.")
        for index, element in enumerate(value):
            _check_value(f"{where}[{index}]", typing.get_args(expected)[0], element)
    elif origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise InputError(f"{where}: expected an object, found {_shown(value)}.")
        for key, element in value.items():
            _check_value(f"{where}.{key}", typing.get_args(expected)[1], element)
    elif isinstance(expected, type):
        _check_class(where, expected, value)


def _check_class(where: str, expected: type, value: Any) -> None:
    if pulumi_types.is_input_type(expected):
        _check_structure(where, expected, value)
    elif expected is bool:
        if not isinstance(value, bool):
            raise InputError(f"{where}: expected true or false, found {_shown(value)}.")
    elif expected in (int, float):
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"{where}: expected a number, found {_shown(value)}.")
        if expected is int and float(value) != int(value):
            raise InputError(f"{where}: expected a whole number, found {value}.")
    elif expected is str:
        if not isinstance(value, str):
            raise InputError(f"{where}: expected a string, found {_shown(value)}.")
    elif issubclass(expected, pulumi.Archive | pulumi.Asset) and not isinstance(value, pulumi.Archive | pulumi.Asset):
        raise InputError(f"{where}: expected an archive or asset, found {_shown(value)}.")


class _Choice:
    """One of several types, any of which the provider takes."""

    def __init__(self, options: list[Any]) -> None:
        self.options = options


def _plain(expected: Any) -> Any:
    """Strip what makes a type an input: Optional, Awaitable, Output, and the TypedDict twin of an argument class."""
    if typing.get_origin(expected) not in (typing.Union, types.UnionType):
        return expected
    options: list[Any] = []
    for option in typing.get_args(expected):
        origin = typing.get_origin(option) or option
        if option is type(None) or origin in (pulumi.Output, Awaitable) or typing.is_typeddict(option):
            continue
        if isinstance(origin, type) and issubclass(origin, pulumi.Resource | pulumi.Output):
            options.append(str)  # a resource or an ARN: resources reach the engine as their id or ARN
            continue
        if isinstance(option, typing.ForwardRef):
            continue  # the TypedDict twin, not evaluated
        options.append(option)
    unique = [option for index, option in enumerate(options) if option not in options[:index]]
    if not unique:
        return Any
    return unique[0] if len(unique) == 1 else _Choice(unique)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
