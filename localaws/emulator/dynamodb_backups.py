"""On-demand backups of DynamoDB: CREATING for a while, and cheap to take.

ministack's are AVAILABLE at once, so that a workflow that forgets to wait passes, and copy every item deeply, which
stops the whole server for seconds on a table of 100,000 items.
"""

import time
from typing import Any

from localaws.emulator import patching, settings
from localaws.emulator.dynamodb_restore import in_creation, inherit_encryption, start_creation
from localaws.emulator.journal import copied

AVAILABLE_AT = "_localaws_available_at"
SNAPSHOT = "_items_snapshot"
ENCRYPTION = "_localaws_encryption"


def apply() -> None:
    """Replace the calls that make, show, use and delete backups."""
    from ministack.services import dynamodb

    patching.require_names(dynamodb, "_backups", "_tables")
    original_create = patching.require(dynamodb, "_create_backup", "(data)")
    original_restore = patching.require(dynamodb, "_restore_table_from_backup", "(data)")

    def refused(code: str, message: str) -> Any:
        return dynamodb.error_response_json(code, message, 400)

    def settle() -> None:
        for _, backup in dynamodb._backups.items():
            if AVAILABLE_AT in backup and time.time() >= backup[AVAILABLE_AT]:
                del backup[AVAILABLE_AT]
                backup["BackupDetails"]["BackupStatus"] = "AVAILABLE"

    def create(data: dict[str, Any]) -> Any:
        table = dynamodb._tables.get(dynamodb._normalize_table_name(data.get("TableName") or ""))
        if table is None:
            return original_create(data)
        if in_creation(table):
            return refused("TableInUseException", f"Table is being created: {table['TableName']}")
        known = set(dynamodb._backups.keys())
        items = table["items"]
        table["items"] = {}  # the original would copy every item deeply; they are never changed in place
        try:
            answer = original_create(data)
        finally:
            table["items"] = items
        for arn in set(dynamodb._backups.keys()) - known:
            backup = dynamodb._backups[arn]
            backup[SNAPSHOT] = copied(items)
            backup[ENCRYPTION] = table.get("SSEDescription")
            backup["BackupDetails"]["BackupStatus"] = "CREATING"
            backup[AVAILABLE_AT] = time.time() + settings.backup_seconds()
            return dynamodb.json_response({"BackupDetails": backup["BackupDetails"]}, 200)
        return answer

    def restore(data: dict[str, Any]) -> Any:
        settle()
        backup = dynamodb._backups.get(data.get("BackupArn"))
        if backup is None:
            return original_restore(data)
        if AVAILABLE_AT in backup:
            return refused("BackupInUseException", f"Backup is being created: {data['BackupArn']}")
        snapshot = backup[SNAPSHOT]
        backup[SNAPSHOT] = {}
        try:
            answer = original_restore(data)
        finally:
            backup[SNAPSHOT] = snapshot
        if answer[0] != 200:
            return answer
        table = dynamodb._tables[data["TargetTableName"]]
        inherit_encryption(table, backup.get(ENCRYPTION), data)
        table["items"] = copied(snapshot)
        dynamodb._items_replaced(table)
        source = {"SourceBackupArn": data["BackupArn"], "SourceTableArn": backup["SourceTableDetails"]["TableArn"]}
        start_creation(table, {**source, "RestoreDateTime": backup["BackupDetails"]["BackupCreationDateTime"]})
        return dynamodb.json_response({"TableDescription": dynamodb._table_description(data["TargetTableName"])}, 200)

    def delete(data: dict[str, Any]) -> Any:
        settle()
        backup = dynamodb._backups.get(data.get("BackupArn"))
        if backup is not None and AVAILABLE_AT in backup:
            return refused("BackupInUseException", f"Backup is being created: {data['BackupArn']}")
        return original_delete(data)

    def describe(data: dict[str, Any]) -> Any:
        settle()
        return original_describe(data)

    def listed(data: dict[str, Any]) -> Any:
        settle()
        return original_list(data)

    patching.replace(dynamodb, "_create_backup", "(data)", create)
    patching.replace(dynamodb, "_restore_table_from_backup", "(data)", restore)
    original_delete = patching.replace(dynamodb, "_delete_backup", "(data)", delete)
    original_describe = patching.replace(dynamodb, "_describe_backup", "(data)", describe)
    original_list = patching.replace(dynamodb, "_list_backups", "(data)", listed)
