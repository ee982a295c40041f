"""One hard reset, executed by itself."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from .conftest import TABLES, Deployed, create_table, deployed_stack

TABLE = "local-licenses"
ITEMS = 10_000
SECONDS = 2  # the workers' Lambda timeout: with its reserve, some 1.6 s of work an invocation


@pytest.fixture(scope="module")
def impatient() -> Iterator[Deployed]:
    """The local stack with workers that have two seconds, and one segment a table."""
    tables = [{"name": name, "segments": 1, "concurrency": 1} for name in TABLES]
    yield from deployed_stack({"tables": tables, "workerTimeoutSeconds": SECONDS})


def test_many_resumptions_lose_and_double_nothing(impatient: Deployed) -> None:
    """Catches a page that is skipped or done twice when a worker runs out of time in the middle of a segment."""
    source = "restored-by-hand"
    create_table(impatient.aws, source, TABLES[TABLE], pitr=False)
    for start in range(0, ITEMS, 1000):
        impatient.fill(source, range(start, start + 1000), like=TABLE)
    impatient.fill(TABLE, range(50_000, 51_000), "to be purged")
    good = impatient.items(source)

    execution = impatient.start(
        impatient.outputs["hardResetStateMachineArns"][TABLE],
        {
            "incidentId": "impatient",
            "sourceTableArn": impatient.arn(source),
            "destinationTableArn": impatient.arn(TABLE),
            "tableNameRecoveryConfirmation": TABLE,
        },
    )
    ended = impatient.finish(execution)

    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    output = json.loads(ended["output"])
    assert (output["purgedItems"], output["copiedItems"], output["verifiedItems"]) == (1000, ITEMS, ITEMS)
    assert impatient.items(TABLE) == good
    # How many resumptions the copy takes depends on the machine (about four), and whether the digest, which is far
    # faster, takes any; tests/functional/test_segments.py has one a page, of each worker.
    log = impatient.client("logs").filter_log_events(logGroupName="/aws/lambda/local-dr-copy-segment")["events"]
    assert len([event for event in log if event["message"].startswith("REPORT")]) > 1


def test_a_reset_needs_nothing_but_its_input(impatient: Deployed) -> None:
    """Catches a hard reset that works only under the orchestrator, and one that purges without a backup."""
    source = "restored-languages"
    create_table(impatient.aws, source, TABLES["local-languages"], pitr=False)
    impatient.fill(source, range(30), like="local-languages")
    impatient.fill("local-languages", range(20, 60), "wrong")
    backups = len(impatient.client("dynamodb").list_backups(TableName="local-languages")["BackupSummaries"])
    ended = impatient.reset(
        "local-languages",
        {
            "incidentId": "by-hand",
            "sourceTableArn": impatient.arn(source),
            "destinationTableArn": impatient.arn("local-languages"),
            "tableNameRecoveryConfirmation": "local-languages",
        },
    )
    assert ended["status"] == "SUCCEEDED", ended.get("cause")
    assert impatient.items("local-languages") == impatient.items(source)
    after = impatient.client("dynamodb").list_backups(TableName="local-languages")["BackupSummaries"]
    assert len(after) == backups + 1
    assert impatient.locks() == []
