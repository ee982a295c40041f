"""Plans of the program: what it would deploy, for every stack file of the project."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from localaws.deployment import Plan, plan

PROJECT = Path(__file__).parents[2]
STACKS = sorted(file.name.split(".")[1] for file in PROJECT.glob("Pulumi.*.yaml"))


@cache
def planned(stack: str) -> Plan:
    """The plan of a stack, made once."""
    return plan(PROJECT, stack)


@pytest.fixture(params=STACKS)
def stack_plan(request: pytest.FixtureRequest) -> Plan:
    """The plan of each stack in turn."""
    return planned(request.param)


@pytest.fixture
def prod_plan() -> Plan:
    """The plan of production."""
    return planned("prod")
