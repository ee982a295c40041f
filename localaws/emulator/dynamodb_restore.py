"""DynamoDB point-in-time recovery: what the table held at the asked second, in a table that takes time to appear.

ministack copies the current items, whatever instant is asked for: a rehearsal would restore the damage.
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from localaws.emulator import patching, settings
from localaws.emulator.journal import Items, Journal
from localaws.emulator.observability import tables_named

JOURNAL = "_localaws_journal"
ACTIVE_AT = "_localaws_active_at"
RECOVERY_DAYS = 35

# Calls that touch items; on AWS a table that is still being created is not found by them.
DATA_PLANE = (
    "_put_item",
    "_get_item",
    "_delete_item",
    "_update_item",
    "_query",
    "_scan",
    "_batch_write_item",
    "_batch_get_item",
    "_transact_write_items",
    "_transact_get_items",
)

Handler = Callable[[dict[str, Any]], Any]


def apply() -> None:
    """Journal every write of tables with recovery enabled, and restore from the journal."""
    from ministack.services import dynamodb

    patching.require_names(dynamodb, "_tables", "_pitr_settings", "_ttl_settings")
    for name, parameters in (
        ("_normalize_table_name", "(value)"),
        ("_create_table", "(data)"),
        (
            "_restore_create_request",
            "(target, key_schema, attr_defs, billing_mode, throughput, data, gsis, lsis, vector_indexes)",
        ),
        ("error_response_json", "(code, message, status, extra, message_key, content_type)"),
        ("json_response", "(data, status, content_type)"),
    ):
        patching.require(dynamodb, name, parameters)
    _journal_writes(dynamodb)
    _hide_tables_in_creation(dynamodb)
    patching.replace(dynamodb, "_update_continuous_backups", "(data)", lambda data: _update_backups(dynamodb, data))
    patching.replace(dynamodb, "_describe_continuous_backups", "(data)", lambda data: _describe_backups(dynamodb, data))
    patching.replace(dynamodb, "_restore_table_to_point_in_time", "(data)", lambda data: _restore(dynamodb, data))


def _journal_writes(dynamodb: Any) -> None:
    def set_item(table: dict[str, Any], pk_val: Any, sk_val: Any, item: Any) -> Any:
        journal = table.get(JOURNAL)
        if journal is not None:
            journal.wrote(time.time(), pk_val, sk_val, item)
        return original_set(table, pk_val, sk_val, item)

    def remove_item(table: dict[str, Any], pk_val: Any, sk_val: Any) -> Any:
        journal = table.get(JOURNAL)
        if journal is not None:
            journal.wrote(time.time(), pk_val, sk_val, None)
        return original_remove(table, pk_val, sk_val)

    def items_replaced(table: dict[str, Any]) -> Any:
        journal = table.get(JOURNAL)
        if journal is not None:
            journal.replaced(time.time(), table["items"])
        return original_replaced(table)

    original_set = patching.replace(dynamodb, "_set_item", "(table, pk_val, sk_val, item)", set_item)
    original_remove = patching.replace(dynamodb, "_remove_item", "(table, pk_val, sk_val)", remove_item)
    original_replaced = patching.replace(dynamodb, "_items_replaced", "(table)", items_replaced)


def _hide_tables_in_creation(dynamodb: Any) -> None:
    def description(name: str) -> dict[str, Any]:
        table = dynamodb._tables[name]
        in_creation(table)
        described: dict[str, Any] = original_description(name)
        if "RestoreSummary" in table:
            described["RestoreSummary"] = dict(table["RestoreSummary"])
        return described

    original_description = patching.replace(dynamodb, "_table_description", "(name)", description)

    def guarded(original: Handler) -> Handler:
        def handler(data: dict[str, Any]) -> Any:
            for name in tables_named(data):
                table = dynamodb._tables.get(name)
                if table is not None and ACTIVE_AT in table and in_creation(table):
                    return dynamodb.error_response_json(
                        "ResourceNotFoundException", f"Requested resource not found: Table: {name} not found", 400
                    )
            return original(data)

        return handler

    for name in DATA_PLANE:
        original = patching.require(dynamodb, name, "(data)")
        setattr(dynamodb, name, guarded(original))

    def delete_table(data: dict[str, Any]) -> Any:
        name = dynamodb._normalize_table_name(data.get("TableName"))
        table = dynamodb._tables.get(name)
        if table is not None and in_creation(table):
            return dynamodb.error_response_json(
                "ResourceInUseException", f"Attempt to change a resource which is still in use: Table: {name}", 400
            )
        return original_delete(data)

    original_delete = patching.replace(dynamodb, "_delete_table", "(data)", delete_table)


def start_creation(table: dict[str, Any], source: Mapping[str, str]) -> None:
    """Let a restored table be CREATING for `settings.restore_seconds`; `source` joins its RestoreSummary."""
    table["TableStatus"] = "CREATING"
    table["RestoreSummary"] = {**source, "RestoreInProgress": True}
    table[ACTIVE_AT] = time.time() + settings.restore_seconds()


def in_creation(table: dict[str, Any]) -> bool:
    """Whether a restored table is still CREATING; makes it ACTIVE once its time has come."""
    due = table.get(ACTIVE_AT)
    if due is None:
        return False
    if time.time() < due:
        return True
    del table[ACTIVE_AT]
    table["TableStatus"] = "ACTIVE"
    table["RestoreSummary"] = {**table["RestoreSummary"], "RestoreInProgress": False}
    return False


def window(journal: Journal) -> tuple[int, int]:
    """The earliest and latest restorable instants, epoch seconds; the latest about 5 minutes ago on AWS."""
    earliest = math.floor(journal.enabled_at)
    return earliest, max(earliest, math.floor(time.time() - settings.pitr_lag_seconds()))


def _update_backups(dynamodb: Any, data: dict[str, Any]) -> Any:
    name = dynamodb._normalize_table_name(data.get("TableName"))
    table = dynamodb._tables.get(name)
    if table is None:
        return dynamodb.error_response_json("TableNotFoundException", f"Table not found: {name}", 400)
    enabled = bool((data.get("PointInTimeRecoverySpecification") or {}).get("PointInTimeRecoveryEnabled"))
    if not enabled:
        table.pop(JOURNAL, None)
    elif JOURNAL not in table:
        table[JOURNAL] = Journal(time.time(), table["items"])
    dynamodb._pitr_settings[name] = enabled
    return _describe_backups(dynamodb, data)


def _describe_backups(dynamodb: Any, data: dict[str, Any]) -> Any:
    name = dynamodb._normalize_table_name(data.get("TableName"))
    table = dynamodb._tables.get(name)
    if table is None:
        return dynamodb.error_response_json("TableNotFoundException", f"Table not found: {name}", 400)
    journal = table.get(JOURNAL)
    description: dict[str, Any] = {"PointInTimeRecoveryStatus": "DISABLED"}
    if journal is not None:
        earliest, latest = window(journal)
        description = {
            "PointInTimeRecoveryStatus": "ENABLED",
            "RecoveryPeriodInDays": RECOVERY_DAYS,
            "EarliestRestorableDateTime": earliest,
            "LatestRestorableDateTime": latest,
        }
    return dynamodb.json_response(
        {
            "ContinuousBackupsDescription": {
                "ContinuousBackupsStatus": "ENABLED",
                "PointInTimeRecoveryDescription": description,
            }
        },
        200,
    )


def _restore(dynamodb: Any, data: dict[str, Any]) -> Any:
    def refused(code: str, message: str) -> Any:
        return dynamodb.error_response_json(code, message, 400)

    asked_source = data.get("SourceTableName") or data.get("SourceTableArn") or ""
    source_name = dynamodb._normalize_table_name(asked_source)
    target = data.get("TargetTableName")
    source = dynamodb._tables.get(source_name)
    if not target:
        return refused(
            "ValidationException",
            "1 validation error detected: Value null at 'targetTableName' failed to satisfy constraint: "
            "Member must not be null",
        )
    if source is None:
        return refused("TableNotFoundException", f"Source table not found: {asked_source}")
    if target in dynamodb._tables:
        if in_creation(dynamodb._tables[target]):
            return refused("TableInUseException", f"Table is being created: {target}")
        return refused("TableAlreadyExistsException", f"Table already exists: {target}")
    journal = source.get(JOURNAL)
    if journal is None:
        return refused(
            "PointInTimeRecoveryUnavailableException",
            f"Point in time recovery is not enabled for table '{source_name}'",
        )
    earliest, latest = window(journal)
    use_latest, asked = bool(data.get("UseLatestRestorableTime")), data.get("RestoreDateTime")
    if use_latest == (asked is not None):
        return refused(
            "ValidationException",
            "One and only one of RestoreDateTime and UseLatestRestorableTime must be given in the request.",
        )
    moment = float(latest) if use_latest else epoch(asked)
    if moment is None or not earliest <= moment <= latest:
        return refused(
            "InvalidRestoreTimeException",
            f"RestoreDateTime {asked} must be between the EarliestRestorableDateTime {_iso(earliest)} and the "
            f"LatestRestorableDateTime {_iso(latest)} of table '{source_name}'",
        )
    answer = _create_target(dynamodb, source, target, data)
    if answer[0] != 200:
        return answer
    table = dynamodb._tables[target]
    inherit_encryption(table, source.get("SSEDescription"), data)
    _fill(dynamodb, table, journal.state_at(moment))
    start_creation(table, {"SourceTableArn": source["TableArn"], "RestoreDateTime": moment})  # type: ignore[dict-item]
    return dynamodb.json_response({"TableDescription": dynamodb._table_description(target)}, 200)


def _create_target(dynamodb: Any, source: dict[str, Any], target: str, data: dict[str, Any]) -> Any:
    """The new table: indexes as overridden (none for []), no stream, TTL, recovery, tags or deletion protection."""
    request = dynamodb._restore_create_request(
        target,
        source["KeySchema"],
        source["AttributeDefinitions"],
        data.get("BillingModeOverride") or (source.get("BillingModeSummary") or {}).get("BillingMode", "PROVISIONED"),
        data.get("ProvisionedThroughputOverride") or source.get("ProvisionedThroughput"),
        data,
        [_index_request(index) for index in source.get("GlobalSecondaryIndexes") or []],
        [_index_request(index) for index in source.get("LocalSecondaryIndexes") or []],
        [],
    )
    return dynamodb._create_table(request)


def inherit_encryption(table: dict[str, Any], description: Any, data: Mapping[str, Any]) -> None:
    """A restored table is encrypted as its source was, unless the request says otherwise."""
    if description and not data.get("SSESpecificationOverride"):
        table["SSEDescription"] = dict(description)


def _index_request(index: Mapping[str, Any]) -> dict[str, Any]:
    """An index as CreateTable takes it: without the ARN, counts and status of the source's."""
    kept = ("IndexName", "KeySchema", "Projection", "ProvisionedThroughput")
    return json.loads(json.dumps({key: index[key] for key in kept if key in index}))  # type: ignore[no-any-return]


def _fill(dynamodb: Any, table: dict[str, Any], items: Items) -> None:
    table["items"] = items
    dynamodb._items_replaced(table)


def epoch(moment: Any) -> float | None:
    """Epoch seconds of a number (boto3) or an ISO 8601 text (Step Functions), or None if it is neither."""
    if isinstance(moment, int | float):
        return float(moment)
    try:
        parsed = datetime.fromisoformat(str(moment).replace("Z", "+00:00"))
    except ValueError:
        return None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def _iso(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
