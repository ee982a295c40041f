"""Point-in-time recovery and on-demand backups."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localaws.server import EmbeddedAws

from .conftest import Machines, until


def _item(number: int, value: str) -> dict[str, Any]:
    return {"pk": {"S": "p"}, "sk": {"N": str(number)}, "v": {"S": value}}


class Recovery:
    """Shortcuts for one table's history."""

    def __init__(self, aws: EmbeddedAws, fresh: Callable[[str], str]) -> None:
        self.dynamodb = aws.client("dynamodb")
        self.fresh = fresh

    def window(self, name: str) -> tuple[datetime, datetime]:
        """The earliest and latest restorable time."""
        description = self.dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
        recovery = description["PointInTimeRecoveryDescription"]
        return recovery["EarliestRestorableDateTime"], recovery["LatestRestorableDateTime"]

    def next_second(self, name: str) -> datetime:
        """Wait for a second to begin; everything written before is restorable at it, nothing written after."""
        before = self.window(name)[1]
        return until(lambda: self.window(name)[1] > before and self.window(name)[1])  # type: ignore[no-any-return]

    def put(self, name: str, *items: dict[str, Any]) -> None:
        """Write items."""
        for item in items:
            self.dynamodb.put_item(TableName=name, Item=item)

    def restore(self, name: str, moment: Any, **more: Any) -> str:
        """Restore into a new table, wait for it and return its name."""
        target = self.fresh("restored")
        self.dynamodb.restore_table_to_point_in_time(
            SourceTableName=name, TargetTableName=target, RestoreDateTime=moment, **more
        )
        self.wait_until_active(target)
        return target

    def wait_until_active(self, name: str) -> None:
        """Wait for a restored table."""
        until(lambda: self.dynamodb.describe_table(TableName=name)["Table"]["TableStatus"] == "ACTIVE")

    def items(self, name: str) -> list[dict[str, Any]]:
        """What the table holds, by sort key."""
        return sorted(self.dynamodb.scan(TableName=name)["Items"], key=lambda item: int(item["sk"]["N"]))


@pytest.fixture
def recovery(aws: EmbeddedAws, fresh: Callable[[str], str]) -> Recovery:
    """Shortcuts."""
    return Recovery(aws, fresh)


def test_restore_gives_the_state_of_the_asked_second(recovery: Recovery, table: Callable[..., str]) -> None:
    """Would catch: a restore of the current items, damage included, which any rehearsal would call a success."""
    name = table(recovery=True)
    recovery.put(name, _item(1, "good"), _item(2, "good"), _item(3, "good"))
    moment = recovery.next_second(name)
    recovery.put(name, _item(1, "damaged"), _item(4, "added"))
    recovery.dynamodb.delete_item(TableName=name, Key={"pk": {"S": "p"}, "sk": {"N": "2"}})
    recovery.dynamodb.update_item(
        TableName=name,
        Key={"pk": {"S": "p"}, "sk": {"N": "3"}},
        UpdateExpression="SET v = :v",
        ExpressionAttributeValues={":v": {"S": "damaged"}},
    )
    recovery.dynamodb.batch_write_item(RequestItems={name: [{"PutRequest": {"Item": _item(5, "added")}}]})
    recovery.dynamodb.transact_write_items(TransactItems=[{"Put": {"TableName": name, "Item": _item(6, "added")}}])
    later = recovery.next_second(name)
    assert recovery.items(recovery.restore(name, moment)) == [_item(n, "good") for n in (1, 2, 3)]
    damaged = recovery.items(recovery.restore(name, later))
    assert damaged == recovery.items(name)
    assert len(damaged) == 5


def test_restored_table_is_independent_and_plain(recovery: Recovery, table: Callable[..., str]) -> None:
    """Would catch: a product that relies on PITR, stream or protection of a restored table, which AWS turns off."""
    definitions = [
        {"AttributeName": "pk", "AttributeType": "S"},
        {"AttributeName": "sk", "AttributeType": "N"},
        {"AttributeName": "owner", "AttributeType": "S"},
    ]
    index = {
        "IndexName": "by-owner",
        "KeySchema": [{"AttributeName": "owner", "KeyType": "HASH"}],
        "Projection": {"ProjectionType": "ALL"},
    }
    name = table(
        recovery=True,
        AttributeDefinitions=definitions,
        GlobalSecondaryIndexes=[index],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"},
        DeletionProtectionEnabled=True,
    )
    recovery.put(name, _item(1, "good"))
    moment = recovery.next_second(name)
    with_index = recovery.restore(name, moment)
    without = recovery.restore(name, moment, GlobalSecondaryIndexOverride=[], LocalSecondaryIndexOverride=[])
    described = recovery.dynamodb.describe_table(TableName=without)["Table"]
    assert "GlobalSecondaryIndexes" not in described
    assert {a["AttributeName"] for a in described["AttributeDefinitions"]} == {"pk", "sk"}
    assert not described["DeletionProtectionEnabled"]
    assert "StreamSpecification" not in described
    assert described["RestoreSummary"]["SourceTableArn"].endswith(f"table/{name}")
    assert described["RestoreSummary"]["RestoreDateTime"] == moment
    assert described["RestoreSummary"]["RestoreInProgress"] is False
    assert len(recovery.dynamodb.describe_table(TableName=with_index)["Table"]["GlobalSecondaryIndexes"]) == 1
    with pytest.raises(ClientError, match="PointInTimeRecoveryUnavailable"):
        recovery.restore(without, moment)
    recovery.put(without, _item(1, "changed"))
    assert recovery.items(name) == [_item(1, "good")]


def test_restore_outside_the_window_is_refused(recovery: Recovery, table: Callable[..., str]) -> None:
    """Would catch: a request for a time before recovery was on, or in the future, that quietly yields something."""
    name = table(recovery=True)
    earliest, latest = recovery.window(name)
    for moment in (earliest - timedelta(seconds=1), latest + timedelta(hours=1)):
        with pytest.raises(ClientError, match="InvalidRestoreTimeException"):
            recovery.restore(name, moment)
    assert recovery.dynamodb.list_tables(ExclusiveStartTableName="restored")["TableNames"] is not None


def test_recovery_must_be_on(recovery: Recovery, table: Callable[..., str]) -> None:
    """Would catch: a rehearsal that passes although nobody enabled recovery."""
    name = table()
    described = recovery.dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
    assert described["PointInTimeRecoveryDescription"] == {"PointInTimeRecoveryStatus": "DISABLED"}
    with pytest.raises(ClientError, match="PointInTimeRecoveryUnavailableException"):
        recovery.restore(name, datetime.now(UTC))


def test_the_latest_restorable_time_can_lag_as_on_aws(fresh: Callable[[str], str]) -> None:
    """Would catch: a product that asks for the present instant, which AWS refuses."""
    settings = {"LOCAL_AWS_PITR_LAG_SECONDS": "300", "LOCAL_AWS_RESTORE_SECONDS": "0"}
    with EmbeddedAws(settings=settings) as lagging:
        recovery = Recovery(lagging, fresh)
        recovery.dynamodb.create_table(
            TableName="lagging",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        recovery.dynamodb.update_continuous_backups(
            TableName="lagging", PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
        )
        earliest, latest = recovery.window("lagging")
        assert latest == earliest
        with pytest.raises(ClientError, match="InvalidRestoreTimeException"):
            recovery.restore("lagging", earliest + timedelta(seconds=30))
        recovery.dynamodb.restore_table_to_point_in_time(
            SourceTableName="lagging", TargetTableName="restored", UseLatestRestorableTime=True
        )


def test_a_table_in_creation_cannot_be_used(recovery: Recovery, table: Callable[..., str]) -> None:
    """Would catch: a workflow that copies from the restored table before it is ready."""
    name = table(recovery=True)
    recovery.put(name, _item(1, "good"))
    moment, target = recovery.next_second(name), recovery.fresh("restored")
    recovery.dynamodb.restore_table_to_point_in_time(
        SourceTableName=name, TargetTableName=target, RestoreDateTime=moment
    )
    described = recovery.dynamodb.describe_table(TableName=target)["Table"]
    assert described["TableStatus"] == "CREATING"
    assert described["RestoreSummary"]["RestoreInProgress"] is True
    with pytest.raises(ClientError, match="ResourceNotFoundException"):
        recovery.dynamodb.scan(TableName=target)
    with pytest.raises(ClientError, match="ResourceInUseException"):
        recovery.dynamodb.delete_table(TableName=target)
    recovery.wait_until_active(target)
    assert recovery.items(target) == [_item(1, "good")]
    recovery.dynamodb.delete_table(TableName=target)


def test_step_functions_may_give_the_time_as_text(
    recovery: Recovery, table: Callable[..., str], machines: Machines
) -> None:
    """Would catch: an ISO text taken for a missing time, which would restore the present."""
    name = table(recovery=True)
    recovery.put(name, _item(1, "good"))
    moment, target = recovery.next_second(name), recovery.fresh("restored")
    recovery.put(name, _item(1, "damaged"))
    restore = {
        "Type": "Task",
        "Resource": "arn:aws:states:::aws-sdk:dynamodb:restoreTableToPointInTime",
        "Arguments": {"SourceTableName": name, "TargetTableName": target, "RestoreDateTime": "{% $states.input.at %}"},
        "Output": "{% $states.result.TableDescription.RestoreSummary.RestoreDateTime %}",
        "End": True,
    }
    text = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert machines.output({"Restore": restore}, {"at": text}).startswith(text.removesuffix("Z"))
    recovery.wait_until_active(target)
    assert recovery.items(target) == [_item(1, "good")]


def test_turning_recovery_off_forgets_the_history(recovery: Recovery, table: Callable[..., str]) -> None:
    """Would catch: a history kept where AWS drops it, so that a restore works only in rehearsal."""
    name = table(recovery=True)
    first = recovery.window(name)[0]
    recovery.next_second(name)
    for enabled in (False, True):
        recovery.dynamodb.update_continuous_backups(
            TableName=name, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": enabled}
        )
    assert recovery.window(name)[0] > first


def test_backup_takes_time_and_holds_what_was_there(recovery: Recovery, table: Callable[..., str]) -> None:
    """Would catch: a workflow that purges before its backup is AVAILABLE, and a backup that follows later writes."""
    name = table()
    recovery.put(name, _item(1, "good"))
    arn = recovery.dynamodb.create_backup(TableName=name, BackupName="before")["BackupDetails"]["BackupArn"]

    def status() -> str:
        described = recovery.dynamodb.describe_backup(BackupArn=arn)["BackupDescription"]
        return str(described["BackupDetails"]["BackupStatus"])

    target = recovery.fresh("restored")
    assert status() == "CREATING"
    with pytest.raises(ClientError, match="BackupInUseException"):
        recovery.dynamodb.restore_table_from_backup(BackupArn=arn, TargetTableName=target)
    with pytest.raises(ClientError, match="BackupInUseException"):
        recovery.dynamodb.delete_backup(BackupArn=arn)
    recovery.put(name, _item(1, "damaged"))
    until(lambda: status() == "AVAILABLE")
    recovery.dynamodb.restore_table_from_backup(BackupArn=arn, TargetTableName=target)
    recovery.wait_until_active(target)
    assert recovery.items(target) == [_item(1, "good")]
    assert recovery.items(name) == [_item(1, "damaged")]
    recovery.dynamodb.delete_backup(BackupArn=arn)
