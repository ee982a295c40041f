"""The definitions under test, as the program makes them from a small configuration."""

from __future__ import annotations

from components.recovery_functions import FUNCTION_NAMES
from statemachines.guardian import GuardianConfig, guardian
from statemachines.hard_reset import HardResetConfig, hard_reset
from statemachines.leaves import Definition
from statemachines.orchestrator import OrchestratorConfig, orchestrator

FUNCTIONS = {name: f"arn:aws:lambda:us-east-1:123456789012:function:test-dr-{name}" for name in FUNCTION_NAMES}
OPTIONS = {"segments": None, "concurrency": 25, "maxWriteUnitsPerSecond": None, "capacityShare": None}
TABLES = ("test-licenses", "test-providers")


def hard_reset_definition() -> Definition:
    """The hard reset of one table."""
    return hard_reset(
        HardResetConfig(
            table_name="test-licenses",
            functions=FUNCTIONS,
            sensitive_tables=("test-ssn",),
            source_tables=("dr-test.*",),
            options=OPTIONS,
        )
    )


def orchestrator_definition() -> Definition:
    """The orchestrator of two tables."""
    return orchestrator(
        OrchestratorConfig(
            environment="test",
            functions=FUNCTIONS,
            protected_tables=dict.fromkeys(TABLES, OPTIONS),
            sensitive_tables=("test-ssn",),
            hard_resets={
                name: f"arn:aws:states:us-east-1:123456789012:stateMachine:test-dr-hard-reset-{name}" for name in TABLES
            },
            freeze={"namePrefix": "test-app-", "exclude": ["test-dr-unlock"], "eventSourceMappings": True},
            topic_arn="arn:aws:sns:us-east-1:123456789012:test-dr-notifications",
        )
    )


def guardian_definition() -> Definition:
    """The guardian."""
    return guardian(
        GuardianConfig(
            environment="test",
            functions=FUNCTIONS,
            topic_arn="arn:aws:sns:us-east-1:123456789012:test-dr-notifications",
        )
    )


DEFINITIONS = {
    "guardian": guardian_definition,
    "hard_reset": hard_reset_definition,
    "orchestrator": orchestrator_definition,
}
