"""The stack's configuration, read and checked: ``Pulumi.<stack>.yaml`` → :class:`Settings`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi.runtime import config as runtime_config

from handlers.core.prices import as_config

from .names import resource_name

_ENVIRONMENT = re.compile(r"[a-z][a-z0-9-]{0,15}")
_TABLE_NAME = re.compile(r"[A-Za-z0-9_.-]{3,255}")
_TABLE_PATTERN = re.compile(r"[A-Za-z0-9_.*?-]+")
# A key, not an alias: IAM policies and grants know a key by its own ARN only.
_KEY_ARN = re.compile(r"arn:aws:kms:(?P<region>[a-z0-9-]+):\d{12}:key/[A-Za-z0-9-]+")
_DEFAULT_CONCURRENCY = 25
# CloudWatch Logs accepts these numbers of days only.
_RETENTION_DAYS = (
    1,
    3,
    5,
    7,
    14,
    30,
    60,
    90,
    120,
    150,
    180,
    365,
    400,
    545,
    731,
    1096,
    1827,
    2192,
    2557,
    2922,
    3288,
    3653,
)
# An orchestrator's plan of so many tables, with names of 255 characters, still fits the 256 KiB of a state's payload.
_MOST_TABLES = 120


class ConfigurationError(ValueError):
    """The stack's configuration cannot be deployed; the message names the key, what was found and what is expected."""


@dataclass(frozen=True, kw_only=True)
class ProtectedTable:
    """One table to protect.

    Args:
        name: the table's name; the table exists already.
        segments: number of scan segments, or None to choose from the table's size at each recovery.
        concurrency: how many segments are worked on at once.
        max_write_units_per_second: the most that a recovery may write, or None for as much as the table takes.
        capacity_share: the same as a share of the table's capacity, above 0 and at most 1.
    """

    name: str
    segments: int | None
    concurrency: int
    max_write_units_per_second: float | None
    capacity_share: float | None

    @classmethod
    def parse(cls, entry: object) -> ProtectedTable:
        """Read one entry of ``tables``: a name, or an object with name and options."""
        options = {"name": entry} if isinstance(entry, str) else entry
        if not isinstance(options, Mapping):
            raise ConfigurationError(f"tables: found {entry!r}. Expected a name, or an object with name and options.")
        unknown = set(options) - {"name", "segments", "concurrency", "maxWriteUnitsPerSecond", "capacityShare"}
        if unknown:
            raise ConfigurationError(
                f"tables: {entry!r} has the unknown option(s) {', '.join(sorted(unknown))}. "
                "Expected name, segments, concurrency, maxWriteUnitsPerSecond, capacityShare."
            )
        return cls(
            name=_table_name("tables", options.get("name")),
            segments=_whole_number(options, "segments", None, 1, 1000),
            concurrency=_whole_number(options, "concurrency", _DEFAULT_CONCURRENCY, 1, 1000) or _DEFAULT_CONCURRENCY,
            max_write_units_per_second=_number(options, "maxWriteUnitsPerSecond", 1, 10_000_000),
            capacity_share=_number(options, "capacityShare", 0.01, 1),
        )

    def options(self) -> dict[str, Any]:
        """The options as the state machines pass them to functions."""
        return {
            "segments": self.segments,
            "concurrency": self.concurrency,
            "maxWriteUnitsPerSecond": self.max_write_units_per_second,
            "capacityShare": self.capacity_share,
        }


@dataclass(frozen=True, kw_only=True)
class FreezeSettings:
    """Which Lambda functions belong to the system. See ``handlers.core.freeze.Selection``."""

    name_prefix: str | None
    tag: tuple[str, str] | None
    exclude: tuple[str, ...]
    event_source_mappings: bool

    @classmethod
    def parse(cls, value: object) -> FreezeSettings:
        """Read ``freeze``."""
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"freeze: found {value!r}. Expected an object with namePrefix and/or tag.")
        unknown = set(value) - {"namePrefix", "tag", "exclude", "eventSourceMappings"}
        if unknown:
            raise ConfigurationError(
                f"freeze: unknown key(s) {', '.join(sorted(unknown))}. "
                "Expected namePrefix, tag, exclude, eventSourceMappings."
            )
        prefix, tag = value.get("namePrefix"), value.get("tag")
        if prefix is not None and not (isinstance(prefix, str) and prefix):
            # An empty prefix would freeze every function of the account.
            raise ConfigurationError(f"freeze.namePrefix: found {prefix!r}. Expected a prefix of one letter or more.")
        if tag is not None and not (
            isinstance(tag, Mapping) and set(tag) == {"key", "value"} and all(isinstance(v, str) for v in tag.values())
        ):
            raise ConfigurationError(f"freeze.tag: found {tag!r}. Expected an object with key and value.")
        if prefix is None and tag is None:
            raise ConfigurationError("freeze: found neither namePrefix nor tag. Expected at least one of them.")
        mappings = value.get("eventSourceMappings", True)
        if not isinstance(mappings, bool):
            raise ConfigurationError(f"freeze.eventSourceMappings: found {mappings!r}. Expected true or false.")
        return cls(
            name_prefix=prefix,
            tag=(tag["key"], tag["value"]) if tag else None,
            exclude=_strings("freeze.exclude", value.get("exclude", [])),
            event_source_mappings=mappings,
        )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything the program is configured with."""

    environment: str
    tables: tuple[ProtectedTable, ...]
    sensitive_tables: tuple[str, ...]
    freeze: FreezeSettings
    source_tables: tuple[str, ...]
    worker_timeout_seconds: int
    log_retention_days: int
    powertools_layer_arn: str
    kms_key_arn: str | None
    prices: Mapping[str, float] | None

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Settings:
        """Check the values of the namespace ``dynamodb-dr``.

        Raises:
            ConfigurationError: one of them cannot be deployed; preview fails with its sentence.
        """
        environment = values.get("environment")
        if not isinstance(environment, str) or not _ENVIRONMENT.fullmatch(environment):
            raise ConfigurationError(
                f"environment: found {environment!r}. Expected 1 to 16 lower-case letters, digits and hyphens, "
                "beginning with a letter, e.g. prod."
            )
        entries = values.get("tables")
        if not isinstance(entries, Sequence) or isinstance(entries, str) or not entries:
            raise ConfigurationError(f"tables: found {entries!r}. Expected a list of the tables to protect.")
        tables = tuple(ProtectedTable.parse(entry) for entry in entries)
        names = [table.name for table in tables]
        if len(names) > _MOST_TABLES:
            raise ConfigurationError(f"tables: found {len(names)} tables. Expected at most {_MOST_TABLES} in a stack.")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigurationError(f"tables: {', '.join(twice)} listed twice. Expected each table once.")
        sensitive = tuple(
            _table_name("sensitiveTables", name)
            for name in _strings("sensitiveTables", values.get("sensitiveTables", []))
        )
        both = sorted(set(names) & set(sensitive))
        if both:
            raise ConfigurationError(
                f"sensitiveTables: {', '.join(both)} also listed in tables. Expected a table in one list only: a "
                "sensitive table is never recovered by this system."
            )
        ledger = resource_name(environment, "ledger")
        if ledger in names or ledger in sensitive:
            raise ConfigurationError(
                f"tables: {ledger} is this stack's own ledger: a reset of it would delete the locks and settings "
                "that it works with. Expected tables of your system only."
            )
        temporary = [name for name in (*names, *sensitive) if name.startswith(f"dr-{environment}.")]
        if temporary:
            raise ConfigurationError(
                f"tables: {', '.join(temporary)} has a name like this stack's temporary tables, which are deleted "
                f"after a recovery. Expected names that do not begin with dr-{environment}."
            )
        retention = _whole_number(values, "logRetentionDays", 365, 1, 3653)
        if retention not in _RETENTION_DAYS:
            raise ConfigurationError(
                f"logRetentionDays: found {retention}. Expected one of {', '.join(map(str, _RETENTION_DAYS))}."
            )
        return cls(
            environment=environment,
            tables=tables,
            sensitive_tables=sensitive,
            freeze=FreezeSettings.parse(values.get("freeze")),
            source_tables=_patterns("sourceTables", values.get("sourceTables")) or (f"dr-{environment}.*",),
            worker_timeout_seconds=_whole_number(values, "workerTimeoutSeconds", 900, 2, 900) or 900,
            log_retention_days=retention,
            powertools_layer_arn=str(values.get("powertoolsLayerArn") or "default"),
            kms_key_arn=_key_arn(values.get("kmsKeyArn")),
            prices=_prices(values.get("prices")),
        )

    def check_region(self, region: str) -> None:
        """Check what depends on where the stack is deployed.

        Raises:
            ConfigurationError: the key is in another region, where ledger, bucket, topic and logs could not use it.
        """
        if self.kms_key_arn is not None and f":kms:{region}:" not in self.kms_key_arn:
            raise ConfigurationError(
                f"kmsKeyArn: found {self.kms_key_arn!r}. Expected a key in the stack's region, {region}: a key "
                "encrypts what is in its own region only."
            )

    @classmethod
    def load(cls) -> Settings:
        """Read and check this stack's configuration.

        Raises:
            ConfigurationError: as :meth:`parse`, or a key is unknown: a misspelt ``sensitiveTables`` denies nothing.
        """
        config = pulumi.Config()
        plain = {key: config.get(key) for key in ("environment", "powertoolsLayerArn", "kmsKeyArn")}
        # Numbers, lists and objects reach the program as JSON.
        structured = {
            key: config.get_object(key)
            for key in (
                "tables",
                "sensitiveTables",
                "freeze",
                "sourceTables",
                "workerTimeoutSeconds",
                "logRetentionDays",
                "prices",
            )
        }
        known = {**plain, **structured}
        given = {*runtime_config.CONFIG.get(), *runtime_config.get_config_env()}
        ours = (name.removeprefix(f"{config.name}:") for name in given if name.startswith(f"{config.name}:"))
        if unknown := sorted(set(ours) - set(known)):
            raise ConfigurationError(f"Found unknown key(s) {', '.join(unknown)}. Expected {', '.join(known)}.")
        return cls.parse({key: value for key, value in known.items() if value is not None})


def _table_name(key: str, value: object) -> str:
    if not isinstance(value, str) or not _TABLE_NAME.fullmatch(value):
        raise ConfigurationError(
            f"{key}: found {value!r}. Expected a table's name: 3 to 255 letters, digits, hyphens, dots, underscores."
        )
    return value


def _key_arn(value: object) -> str | None:
    if not value:
        return None
    if not isinstance(value, str) or not _KEY_ARN.fullmatch(value):
        raise ConfigurationError(
            f"kmsKeyArn: found {value!r}. Expected the ARN of a customer-managed KMS key, "
            "arn:aws:kms:REGION:ACCOUNT:key/ID, and not an alias."
        )
    return value


def _prices(value: object) -> Mapping[str, float] | None:
    try:
        return as_config(value)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _strings(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(v, str) and v for v in value):
        raise ConfigurationError(f"{key}: found {value!r}. Expected a list of names.")
    return tuple(value)


def _patterns(key: str, value: object) -> tuple[str, ...]:
    patterns = _strings(key, value or [])
    for pattern in patterns:
        # IAM and the shell agree on * and ? only.
        if not _TABLE_PATTERN.fullmatch(pattern):
            raise ConfigurationError(
                f"{key}: found {pattern!r}. Expected a table's name; * stands for anything, ? for one character."
            )
    return patterns


def _number(values: Mapping[str, Any], key: str, lowest: float, highest: float) -> float | None:
    value = values.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
        raise ConfigurationError(f"{key}: found {value!r}. Expected a number from {lowest} to {highest}.")
    return value


def _whole_number(values: Mapping[str, Any], key: str, default: int | None, lowest: int, highest: int) -> int | None:
    value = values.get(key, default)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise ConfigurationError(f"{key}: found {value!r}. Expected a whole number from {lowest} to {highest}.")
    return value
