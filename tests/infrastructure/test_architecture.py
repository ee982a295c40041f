"""The rooms of the house: who may import whom."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from .conftest import PROJECT

# Folder → what its modules may import beside the standard library and themselves. "handlers.core.errors" alone gives
# the state machines the names of the errors, "handlers.core.prices" the components what a price may be.
ALLOWED = {
    "handlers/core": {"boto3", "botocore", "mypy_boto3_dynamodb", "mypy_boto3_lambda", "mypy_boto3_stepfunctions",
                      "mypy_boto3_resourcegroupstaggingapi"},
    "handlers": {"aws_lambda_powertools", "boto3", "botocore", "handlers", "mypy_boto3_dynamodb"},
    "statemachines": {"handlers.core.errors"},
    "components": {"handlers.core.prices", "pulumi", "pulumi_aws", "statemachines"},
}  # fmt: skip


def imports(file: Path) -> set[str]:
    """Absolute names that a module imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module)
    return found


def _is_allowed(name: str, allowed: set[str]) -> bool:
    return any(name == entry or name.startswith(f"{entry}.") for entry in allowed)


@pytest.mark.parametrize("folder", sorted(ALLOWED))
def test_imports_go_one_way(folder: str) -> None:
    """Catches a handler that needs Pulumi, a component that calls AWS, a bundle that needs a package Lambda has not."""
    files = sorted((PROJECT / folder).glob("*.py"))
    assert files
    for file in files:
        outside = {name for name in imports(file) if name.split(".")[0] not in sys.stdlib_module_names}
        assert {name for name in outside if not _is_allowed(name, ALLOWED[folder])} == set(), file


def test_what_the_bundle_imports_is_pinned() -> None:
    """Catches a function that runs on another version of a package than the one that is tested and audited."""
    pinned = {line.partition("==")[0] for line in (PROJECT / "requirements.txt").read_text().splitlines()}
    # Type stubs are imported for the type checker only; botocore comes with boto3, in a version that boto3 fixes.
    brought = {"botocore": "boto3"}
    folders = ("handlers", "handlers/core")
    names = {name.split(".")[0] for folder in folders for f in (PROJECT / folder).glob("*.py") for name in imports(f)}
    outside = {name for name in names if name not in sys.stdlib_module_names and name != "handlers"}
    run = {brought.get(name, name).replace("_", "-") for name in outside if not name.startswith("mypy_boto3_")}
    assert run
    assert run <= pinned
