"""Limits and syntax that AWS enforces when a resource is created and the emulator does not.

Sources: IAM, Lambda, Step Functions, S3 and SNS quota pages of the AWS documentation.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from localaws.engine.schema import InputError

# Resource type → (input that names it physically, longest name AWS takes, allowed characters).
_NAMES: dict[str, tuple[str, int, str]] = {
    "aws:iam/role:Role": ("name", 64, r"[\w+=,.@-]+"),
    "aws:lambda/function:Function": ("name", 64, r"[A-Za-z0-9_-]+"),
    "aws:sfn/stateMachine:StateMachine": ("name", 80, r"[A-Za-z0-9_-]+"),
    "aws:s3/bucket:Bucket": ("bucket", 63, r"[a-z0-9][a-z0-9.-]+[a-z0-9]"),
    "aws:sns/topic:Topic": ("name", 256, r"[A-Za-z0-9_-]+(\.fifo)?"),
    "aws:dynamodb/table:Table": ("name", 255, r"[A-Za-z0-9_.-]{3,}"),
    "aws:cloudwatch/logGroup:LogGroup": ("name", 512, r"[A-Za-z0-9_/.#-]+"),
    "aws:iam/rolePolicy:RolePolicy": ("name", 128, r"[\w+=,.@-]+"),
}

_JSON_INPUTS = ("policy", "assumeRolePolicy", "definition", "deliveryPolicy")

INLINE_POLICY_CHARACTERS = 10_240  # all inline policies of one role together, white space not counted
DEFINITION_BYTES = 1_048_576
ENVIRONMENT_BYTES = 4_096
DESCRIPTION_CHARACTERS = {"aws:lambda/function:Function": 256, "aws:iam/role:Role": 1_000}
STATE_NAME_CHARACTERS = 80


class Limits:
    """Checks one deployment's resources as they are registered; remembers what only a sum can tell."""

    def __init__(self) -> None:
        self._inline_characters: dict[str, int] = {}

    def check(self, token: str, name: str, inputs: Mapping[str, Any]) -> None:
        """Check one resource.

        Raises:
            InputError: naming the resource, the limit and what was found.
        """
        where = f"{token} '{name}'"
        _check_name(where, token, inputs)
        for key in _JSON_INPUTS:
            if isinstance(inputs.get(key), str):
                _check_json(f"{where}, {key}", inputs[key])
        limit = DESCRIPTION_CHARACTERS.get(token)
        description = inputs.get("description")
        if limit is not None and isinstance(description, str) and len(description) > limit:
            raise InputError(f"{where}: the description has {len(description)} characters; AWS takes {limit}.")
        if token == "aws:lambda/function:Function":  # noqa: S105  # a type token, not a secret
            _check_function(where, inputs)
        if token == "aws:sfn/stateMachine:StateMachine":  # noqa: S105
            _check_definition(where, str(inputs.get("definition", "")))
        if token == "aws:iam/rolePolicy:RolePolicy":  # noqa: S105
            self._count_inline_policy(where, str(inputs.get("role", "")), str(inputs.get("policy", "")))
        if token == "aws:iam/role:Role":  # noqa: S105
            for policy in inputs.get("inlinePolicies") or []:
                text = str(policy.get("policy", ""))
                _check_json(f"{where}, inlinePolicies", text)
                self._count_inline_policy(where, str(inputs.get("name") or name), text)

    def _count_inline_policy(self, where: str, role: str, policy: str) -> None:
        total = self._inline_characters.get(role, 0) + len(re.sub(r"\s", "", policy))
        self._inline_characters[role] = total
        if total > INLINE_POLICY_CHARACTERS:
            raise InputError(
                f"{where}: the inline policies of role {role} have {total} characters together; "
                f"AWS takes {INLINE_POLICY_CHARACTERS}."
            )


def _check_name(where: str, token: str, inputs: Mapping[str, Any]) -> None:
    if token not in _NAMES:
        return
    key, longest, pattern = _NAMES[token]
    value = inputs.get(key)
    if value is None:
        return
    if len(value) > longest:
        raise InputError(f"{where}: the name '{value}' has {len(value)} characters; AWS takes {longest}.")
    if not re.fullmatch(pattern, value):
        raise InputError(f"{where}: the name '{value}' has characters that AWS refuses (allowed: {pattern}).")


def _check_json(where: str, text: str) -> None:
    try:
        document = json.loads(text)
    except ValueError as error:
        raise InputError(f"{where}: not valid JSON: {error}.") from error
    if not isinstance(document, dict):
        raise InputError(f"{where}: expected a JSON object, found {text[:80]}.")


def _check_function(where: str, inputs: Mapping[str, Any]) -> None:
    variables = (inputs.get("environment") or {}).get("variables") or {}
    size = len(json.dumps(variables, separators=(",", ":")).encode())
    if size > ENVIRONMENT_BYTES:
        raise InputError(f"{where}: the environment takes {size} bytes; AWS takes {ENVIRONMENT_BYTES}.")
    timeout = inputs.get("timeout")
    if timeout is not None and not 1 <= timeout <= 900:
        raise InputError(f"{where}: the timeout is {timeout} s; AWS takes 1 to 900.")
    memory = inputs.get("memorySize")
    if memory is not None and not 128 <= memory <= 10_240:
        raise InputError(f"{where}: the memory is {memory} MB; AWS takes 128 to 10240.")


def _check_definition(where: str, definition: str) -> None:
    size = len(definition.encode())
    if size > DEFINITION_BYTES:
        raise InputError(f"{where}: the definition takes {size} bytes; AWS takes {DEFINITION_BYTES}.")
    for state_name in _state_names(json.loads(definition)):
        if len(state_name) > STATE_NAME_CHARACTERS:
            raise InputError(
                f"{where}: the state name '{state_name}' has more than {STATE_NAME_CHARACTERS} characters."
            )


def _state_names(machine: Mapping[str, Any]) -> list[str]:
    names: list[str] = []
    for name, state in (machine.get("States") or {}).items():
        names.append(name)
        for nested in [*(state.get("Branches") or []), state.get("ItemProcessor") or {}]:
            names.extend(_state_names(nested))
    return names
