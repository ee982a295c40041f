"""Deploying the real Pulumi program into the embedded AWS, without the Pulumi CLI; and planning it without any AWS."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from localaws.server import ACCOUNT_ID, PROJECT_ROOT, REGION, EmbeddedAws

PROGRAM_SECONDS = 300
"""Ends a program that hangs. This one takes three seconds on an idle computer of two cores."""

# The types a key may declare in Pulumi.yaml.
CONFIG_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "array": (list,),
    "object": (Mapping,),
}


class DeploymentError(RuntimeError):
    """The program, a check or a service refused; the message is theirs.

    Attributes:
        trace: the traceback of the program's process.
    """

    def __init__(self, message: str, trace: str) -> None:
        super().__init__(message)
        self.trace = trace

    def __str__(self) -> str:
        return f"{self.args[0]}\n{self.trace}" if self.trace else str(self.args[0])


@dataclass(frozen=True, kw_only=True)
class PlannedResource:
    """One resource of a plan.

    Attributes:
        urn: Pulumi's name of it.
        type: e.g. "aws:iam/role:Role" or "dynamodb-dr:index:Ledger".
        name: the logical name.
        custom: False for components.
        inputs: camelCase; an archive is {"archive": [paths]}.
        outputs: what the program would see.
        options: parent, depends_on (URNs), protect, retain_on_delete, delete_before_replace, ignore_changes, provider,
            import_id.
    """

    urn: str
    type: str
    name: str
    custom: bool
    inputs: dict[str, Any]
    outputs: dict[str, Any]
    options: dict[str, Any]


class Plan(list[PlannedResource]):
    """The planned resources in the order they were registered.

    Attributes:
        outputs: the stack's outputs.
    """

    def __init__(self, resources: list[PlannedResource], outputs: dict[str, Any]) -> None:
        super().__init__(resources)
        self.outputs = outputs


def deploy(
    project_dir: Path, stack: str, aws: EmbeddedAws, config_overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Run the program of `project_dir` with the configuration of `stack` and create what it declares in `aws`.

    Args:
        project_dir: holds Pulumi.yaml, Pulumi.<stack>.yaml and __main__.py.
        stack: e.g. "local".
        aws: a running embedded AWS.
        config_overrides: full key ("dynamodb-dr:tables") or key of the project ("tables") → plain value.

    Returns:
        The stack outputs.

    Raises:
        DeploymentError: the program failed, or something it declares was refused.
    """
    answer = _run(project_dir, stack, config_overrides or {}, aws.endpoint_url, aws.region)
    return dict(answer["outputs"])


def plan(project_dir: Path, stack: str, config_overrides: Mapping[str, Any] | None = None) -> Plan:
    """Run the program without creating anything; every check of `deploy` but the services' own applies.

    Raises:
        DeploymentError: as `deploy`.
    """
    answer = _run(project_dir, stack, config_overrides or {}, None, None)
    return Plan([PlannedResource(**resource) for resource in answer["resources"]], dict(answer["outputs"]))


def read_config(project_dir: Path, stack: str, overrides: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    """The project's name and the configuration as the engine hands it to a program: every value a string.

    Raises:
        DeploymentError: no project or stack file.
    """
    project_file, stack_file = project_dir / "Pulumi.yaml", project_dir / f"Pulumi.{stack}.yaml"
    for path in (project_file, stack_file):
        if not path.exists():
            raise DeploymentError(f"{path} does not exist.", "")
    project = yaml.safe_load(project_file.read_text())
    name = str(project["name"])
    values: dict[str, Any] = {}
    types: dict[str, str] = {}
    for key, declaration in (project.get("config") or {}).items():
        # Pulumi.yaml declares either a value, or an object with `value` or, for typed keys, `default`.
        declared = declaration if isinstance(declaration, Mapping) else {"value": declaration}
        if "type" in declared:
            types[_full_key(name, key)] = declared["type"]
        for member in ("default", "value"):
            if member in declared:
                values[_full_key(name, key)] = declared[member]
    stack_settings = yaml.safe_load(stack_file.read_text()) or {}
    for key, value in {**(stack_settings.get("config") or {}), **overrides}.items():
        values[_full_key(name, key)] = value
    for key, kind in types.items():
        if values.get(key) is None:
            raise DeploymentError(f"Stack '{stack}' is missing configuration value '{key}'.", "")
        if not isinstance(values[key], CONFIG_TYPES[kind]):
            raise DeploymentError(f"Stack '{stack}' with configuration key '{key}' must be of type '{kind}'.", "")
    return name, {key: _as_text(value) for key, value in values.items() if value is not None}


def _full_key(project: str, key: str) -> str:
    return key if ":" in key else f"{project}:{key}"


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and set(value) == {"secure"}:
        raise DeploymentError("The configuration holds an encrypted secret, which only the Pulumi CLI can read.", "")
    return json.dumps(value)


def _run(
    project_dir: Path, stack: str, overrides: Mapping[str, Any], endpoint_url: str | None, region: str | None
) -> dict[str, Any]:
    project_dir = project_dir.resolve()
    project, config = read_config(project_dir, stack, overrides)
    with tempfile.TemporaryDirectory(prefix="localaws-deploy-") as folder:
        answer_path = Path(folder, "answer.json")
        request = {
            "project": project,
            "project_dir": str(project_dir),
            "stack": stack,
            "config": config,
            "endpoint_url": endpoint_url,
            "account_id": ACCOUNT_ID,
            "region": region or config.get("aws:region", REGION),
            "answer": str(answer_path),
        }
        try:
            finished = subprocess.run(
                [sys.executable, "-m", "localaws.engine"],
                cwd=PROJECT_ROOT,
                env={name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PULUMI_"))},
                input=json.dumps(request),
                capture_output=True,
                text=True,
                timeout=PROGRAM_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DeploymentError(
                f"The program had not ended after {PROGRAM_SECONDS} seconds. Is this computer busy with other work?", ""
            ) from None
        if not answer_path.exists():
            raise DeploymentError("The program's process ended without an answer.", finished.stderr[-4000:])
        answer: dict[str, Any] = json.loads(answer_path.read_text())
    if "error" in answer:
        raise DeploymentError(answer["error"], answer["trace"])
    return answer
