"""The stack's configuration: every mistake is named before anything is deployed."""

from __future__ import annotations

from typing import Any

import pytest

from components.settings import ConfigurationError, Settings
from localaws.deployment import DeploymentError, plan

from .conftest import PROJECT

KEY = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
VALID: dict[str, Any] = {
    "environment": "test",
    "tables": ["test-licenses", {"name": "test-providers", "segments": 8, "concurrency": 3}],
    "sensitiveTables": ["test-ssn"],
    "freeze": {"namePrefix": "test-app-", "tag": {"key": "system", "value": "x"}, "exclude": ["test-app-status"]},
}


def test_valid_settings_are_read() -> None:
    """Catches options that are accepted and then forgotten."""
    settings = Settings.parse(VALID)
    assert [(table.name, table.segments, table.concurrency) for table in settings.tables] == [
        ("test-licenses", None, 25),
        ("test-providers", 8, 3),
    ]
    assert settings.source_tables == ("dr-test.*",)
    assert settings.freeze.exclude == ("test-app-status",)
    assert settings.freeze.event_source_mappings is True
    assert settings.kms_key_arn is None
    assert Settings.parse({**VALID, "kmsKeyArn": KEY}).kms_key_arn == KEY
    assert settings.prices is None
    assert Settings.parse({**VALID, "prices": {"restoreGB": 0.2}}).prices == {"restoreGB": 0.2}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"environment": None}, "environment"),
        ({"environment": "Prod"}, "environment"),
        ({"environment": "p" * 17}, "environment"),
        ({"environment": "a.b"}, "environment"),
        ({"tables": None}, "tables"),
        ({"tables": []}, "tables"),
        ({"tables": "test-licenses"}, "tables"),
        ({"tables": ["x"]}, "tables"),
        ({"tables": [7]}, "tables"),
        ({"tables": ["test-licenses", "test-licenses"]}, "twice"),
        ({"tables": [{"name": "test-licenses", "segment": 3}]}, "segment"),
        ({"tables": [{"name": "test-licenses", "segments": 0}]}, "segments"),
        ({"tables": [{"name": "test-licenses", "segments": True}]}, "segments"),
        ({"tables": [{"segments": 3}]}, "tables"),
        ({"tables": ["test-ssn"]}, "sensitive"),
        ({"tables": ["dr-test.licenses"]}, "dr-test."),
        ({"tables": ["test-dr-ledger"]}, "own ledger"),
        ({"sensitiveTables": ["test-dr-ledger"]}, "own ledger"),
        ({"sensitiveTables": "test-ssn"}, "sensitiveTables"),
        ({"sensitiveTables": [""]}, "sensitiveTables"),
        ({"freeze": None}, "freeze"),
        ({"freeze": {}}, "namePrefix"),
        ({"freeze": {"namePrefix": ""}}, "namePrefix"),
        ({"freeze": {"prefix": "x"}}, "prefix"),
        ({"freeze": {"tag": {"key": "x"}}}, "tag"),
        ({"freeze": {"namePrefix": "x", "exclude": "y"}}, "exclude"),
        ({"freeze": {"namePrefix": "x", "eventSourceMappings": "no"}}, "eventSourceMappings"),
        ({"sourceTables": ["dr-[ab]*"]}, "sourceTables"),
        ({"workerTimeoutSeconds": 901}, "workerTimeoutSeconds"),
        ({"logRetentionDays": 8}, "logRetentionDays"),
        ({"kmsKeyArn": "alias/dr"}, "kmsKeyArn"),
        ({"kmsKeyArn": "arn:aws:kms:us-east-1:123456789012:alias/dr"}, "kmsKeyArn"),
        ({"kmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/a/b"}, "kmsKeyArn"),
        ({"kmsKeyArn": "1234abcd-12ab-34cd-56ef-1234567890ab"}, "kmsKeyArn"),
        ({"kmsKeyArn": 7}, "kmsKeyArn"),
        ({"prices": 0.625}, "prices"),
        ({"prices": {"writes": 0.625}}, "unknown key(s) writes"),
        ({"prices": {"writeMillion": -1}}, "prices.writeMillion: found -1"),
        ({"prices": {"writeMillion": "0.625"}}, "prices.writeMillion"),
    ],
)
def test_a_mistake_is_named(change: dict[str, Any], words: str) -> None:
    """Catches a mistake that would be deployed; each message says what was found and what is expected."""
    with pytest.raises(ConfigurationError) as error:
        Settings.parse({**VALID, **change})
    assert words in str(error.value)
    assert "Expected" in str(error.value)


def test_a_table_in_both_lists_fails_the_preview() -> None:
    """Catches a sensitive table that becomes a protected one: the program itself must refuse."""
    with pytest.raises(DeploymentError, match="sensitive table is never recovered"):
        plan(PROJECT, "prod", {"sensitiveTables": ["prod-licenses"]})


def test_a_misspelt_key_fails_the_preview() -> None:
    """Catches protection that is configured and not there: no Deny, no refusal, because of one letter."""
    with pytest.raises(DeploymentError, match=r"unknown key.s. sensitiveTable. Expected .*sensitiveTables"):
        plan(PROJECT, "prod", {"sensitiveTable": ["prod-other-ssn"]})


def test_a_key_of_another_region_fails_the_preview() -> None:
    """Catches a key that nothing of the stack could use, found only when half of it is deployed."""
    with pytest.raises(DeploymentError, match="Expected a key in the stack's region, us-east-1"):
        plan(PROJECT, "prod", {"kmsKeyArn": KEY.replace("us-east-1", "eu-west-1")})
