"""JSONata in state machines: templates, `$states`, variables, and the errors of expressions.

Expressions are parsed once and kept: parsing is most of an evaluation's time. An expression in use is never shared
between threads, as the engine keeps its state in the parsed object.
"""

import json
from collections import deque
from collections.abc import Mapping
from typing import Any

import jsonata

from localaws.emulator import patching
from localaws.emulator.asl_errors import StateError

TIMEOUT_MILLISECONDS = 1_000  # AWS's limit for one expression
EXACT_INTEGER = 2**53  # beyond this a double is not exact, and neither is its whole-number form

_PARSED: dict[str, deque[Any]] = {}


def require_engine() -> None:
    """Check the parts of ministack and of the JSONata engine that evaluation relies on."""
    from ministack.services import stepfunctions

    patching.require(stepfunctions, "_register_sfn_jsonata_functions", "(expr)")
    patching.require(jsonata.Jsonata, "evaluate", "(self, input, bindings)")


def is_expression(value: Any) -> bool:
    """Whether a field holds `{% … %}`."""
    return isinstance(value, str) and value.startswith("{%") and value.endswith("%}")


def template(value: Any, states: Mapping[str, Any], variables: Mapping[str, Any]) -> Any:
    """`value` with every `{% … %}` in it replaced by its result.

    Args:
        value: a field of a state: text, number, list, object.
        states: what `$states` holds: input, context, and result or errorOutput where they exist.
        variables: name → value.

    Raises:
        StateError: States.QueryEvaluationError, when an expression fails or yields nothing.
    """
    if is_expression(value):
        return evaluate(value[2:-2].strip(), states, variables)
    if isinstance(value, Mapping):
        return {key: template(member, states, variables) for key, member in value.items()}
    if isinstance(value, list):
        return [template(member, states, variables) for member in value]
    return value


def field(
    state: Mapping[str, Any], name: str, kind: str, states: Mapping[str, Any], variables: Mapping[str, Any]
) -> Any:
    """The field `name` of a state, evaluated and held to a JSON type: "boolean", "number", "string" or "array".

    Raises:
        StateError: States.QueryEvaluationError, also when the type is another.
    """
    value = template(state[name], states, variables)
    found = json_type(value)
    if found != kind:
        raise StateError(
            "States.QueryEvaluationError",
            f"The JSONata expression '{state[name]}' specified for the field '{name}' returned an unexpected result "
            f"type. Expected '{kind}', but was '{found}' for value: {json.dumps(value)}",
        )
    return value


def evaluate(expression: str, states: Mapping[str, Any], variables: Mapping[str, Any]) -> Any:
    """The result of one expression.

    Raises:
        StateError: States.QueryEvaluationError.
    """
    bindings = {name: jsonata.utils.Utils.NULL_VALUE if value is None else value for name, value in variables.items()}
    bindings["states"] = states
    value = _result(expression, bindings)
    if value is None and not _result(f"$exists(({expression}))", bindings):
        raise StateError(
            "States.QueryEvaluationError", f"The JSONata expression '{expression}' returned nothing (undefined)."
        )
    return _plain(value)


def _result(expression: str, bindings: Mapping[str, Any]) -> Any:
    spare = _PARSED.setdefault(expression, deque())
    try:
        parsed = spare.pop()
    except IndexError:
        parsed = _parse(expression)
    try:
        parsed.environment.set_runtime_bounds(TIMEOUT_MILLISECONDS, None)  # its clock starts now
        jsonata.Jsonata.CURRENT.jsonata = parsed  # the engine's functions find the expression by thread
        return parsed.evaluate(None, bindings)
    except StateError:
        raise
    except Exception as error:  # whatever the engine raises is the expression's failure
        code = getattr(error, "error", None)
        detail = f"{code}: {error}" if isinstance(code, str) and code else str(error)
        raise StateError(
            "States.QueryEvaluationError", f"An error occurred while evaluating the expression '{expression}'. {detail}"
        ) from error
    finally:
        spare.append(parsed)


def _parse(expression: str) -> Any:
    from ministack.services import stepfunctions

    try:
        parsed = jsonata.Jsonata.jsonata(expression)
    except Exception as error:
        raise StateError("States.QueryEvaluationError", f"'{expression}' cannot be parsed: {error}") from error
    stepfunctions._register_sfn_jsonata_functions(parsed)
    return parsed


def _plain(value: Any) -> Any:
    """JSON as AWS writes it: plain lists and objects, whole doubles without a fraction."""
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT_INTEGER:
        return int(value)
    if isinstance(value, Mapping):
        return {key: _plain(member) for key, member in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(member) for member in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise StateError("States.QueryEvaluationError", f"The result is not JSON: {type(value).__name__}.")


def json_type(value: Any) -> str:
    """The name Step Functions gives the JSON type of `value`."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"
