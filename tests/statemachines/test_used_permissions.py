"""Least privilege, shown: every permission that a deployed role has is one that some scenario cannot do without.

Whoever gives a role a new permission adds a scenario that uses it (a function of `Deployed` with ``@clean`` or
``@failing``), or a line in NOT_ASKED with the reason why the embedded AWS cannot ask for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import pytest

from localaws import sample
from localaws.server import EmbeddedAws

from .conftest import TABLES, Deployed, create_table, deployed_stack, request
from .roles import DeployedRole, deployed_roles, listed, matches
from .test_exclusion import Held
from .test_recovery import Revoked, prepared

LICENSES, LANGUAGES, MEASUREMENTS = TABLES

# (what the role is of, action): why AWS needs what the embedded AWS never asks for. ``*`` and ``?`` as in a shell.
_DELIVERY = "Step Functions sets up the delivery of a machine's log on AWS; the embedded AWS has no such log"
_KEYS = "the least that DynamoDB documents for callers; the embedded AWS asks for Decrypt, as reads and writes do"
_BACKUP = "AWS does not say whether a backup asks for the table's key in the caller's name"
_RACE = "gives up what it took only where another execution comes in between its two looks: a race of milliseconds"
NOT_ASKED: dict[tuple[str, str], str] = {
    ("orchestrator", "logs:*"): _DELIVERY,
    ("hard-reset-*", "logs:*"): _DELIVERY,
    ("guardian-machine", "logs:*"): _DELIVERY,
    ("hard-reset-*", "kms:Decrypt"): _BACKUP,
    ("validate-request", "dynamodb:DeleteItem"): _RACE,
    ("[!o]*", "kms:DescribeKey"): _KEYS,  # the orchestrator restores, and is asked
    ("*", "kms:Encrypt"): _KEYS,
    ("*", "kms:GenerateDataKey[*]"): _KEYS,
    ("*", "kms:ReEncrypt[*]"): _KEYS,
}

Scenario = Callable[[Deployed], None]
CLEAN: list[Scenario] = []
FAILING: list[Scenario] = []


def clean(scenario: Scenario) -> Scenario:
    """A scenario in which IAM must not refuse anything."""
    CLEAN.append(scenario)
    return scenario


def failing(scenario: Scenario) -> Scenario:
    """A scenario in which a role was robbed of its permissions, so that something is refused."""
    FAILING.append(scenario)
    return scenario


def succeeded(ended: dict[str, Any]) -> None:
    """Assert that an execution did what it was for."""
    assert ended["status"] == "SUCCEEDED", ended.get("cause")


@clean
def a_recovery_of_every_table(deployed: Deployed) -> None:
    """Restore, back up, freeze (with and without reserved concurrency, by prefix, by tag, mappings), reset, release."""
    before = deployed.concurrency()
    point, good = prepared(deployed, *TABLES, items=60)
    succeeded(deployed.recover(request(point, *TABLES, incident="used")))
    assert {table: deployed.items(table) for table in TABLES} == good
    assert deployed.concurrency() == before


@clean
def a_dry_run(deployed: Deployed) -> None:
    """Validate and plan."""
    point, _ = prepared(deployed, LICENSES, items=3)
    succeeded(deployed.recover(request(point, LICENSES, incident="dry", dryRun=True)))


@clean
def hard_resets_by_hand(deployed: Deployed) -> None:
    """Each machine takes its own backup, and reads a source that it did not restore."""
    for table in TABLES:
        succeeded(deployed.reset(table, by_hand(deployed, table, "by-hand")))


@clean
def a_recovery_that_writes_what_differs(deployed: Deployed) -> None:
    """Both sides are read, candidates looked up on the other side, differences written."""
    for table in TABLES:
        point, good = prepared(deployed, table, items=6)
        incident = f"differential-{table}"
        succeeded(deployed.recover(request(point, table, incident=incident, mode="differential")))
        assert deployed.items(table) == good[table]


@clean
def items_that_expire(deployed: Deployed) -> None:
    """Items that TTL may delete any moment are compared one by one."""
    dynamodb = deployed.client("dynamodb")
    dynamodb.update_time_to_live(
        TableName=LANGUAGES, TimeToLiveSpecification={"Enabled": True, "AttributeName": "expires"}
    )
    soon = {"code": {"S": "soon"}, "expires": {"N": str(int(time.time()) + 3600)}}
    dynamodb.put_item(TableName=LANGUAGES, Item=soon)
    point = deployed.restore_point()
    succeeded(deployed.recover(request(point, LANGUAGES, incident="expiring")))
    assert soon in deployed.items(LANGUAGES)


@clean
def locks_of_executions_that_ended(deployed: Deployed) -> None:
    """Taken over, once Step Functions says that their owners have ended."""
    ended = deployed.start(deployed.outputs["orchestratorStateMachineArn"], "{}")
    assert deployed.finish(ended)["status"] == "FAILED"
    point, _ = prepared(deployed, LICENSES, items=3)
    with Held(deployed, "ENVIRONMENT", ended):
        succeeded(deployed.recover(request(point, LICENSES, incident="taken-over")))
    with Held(deployed, f"TABLE#{LICENSES}", ended):
        succeeded(deployed.reset(LICENSES, by_hand(deployed, LICENSES, "taken-over-by-hand")))


@clean
def locks_of_executions_that_run(deployed: Deployed) -> None:
    """Respected; what was taken before them is given up again."""
    role = deployed_roles(deployed)["orchestrator"].arn
    machine = deployed.client("stepfunctions").create_state_machine(
        name="local-dr-sleeper",
        roleArn=role,
        definition='{"QueryLanguage": "JSONata", "StartAt": "Wait", "States": {"Wait": {"Type": "Wait", '
        '"Seconds": 1000000, "End": true}}}',
    )["stateMachineArn"]
    running = deployed.start(machine, {})
    point, _ = prepared(deployed, LICENSES, items=3)
    with Held(deployed, f"TABLE#{LICENSES}", running):
        refused = deployed.recover(request(point, LICENSES, incident="respected"))
    assert refused["error"] == "RecoveryInProgress"
    with Held(deployed, "ENVIRONMENT", running):
        refused = deployed.reset(LICENSES, by_hand(deployed, LICENSES, "respected-by-hand"))
    assert refused["error"] == "RecoveryInProgress"
    deployed.client("stepfunctions").stop_execution(executionArn=running)


@clean
def functions_with_provisioned_concurrency(deployed: Deployed) -> None:
    """AWS refuses 0 beside it: it is taken away, and put back."""
    lambdas = deployed.client("lambda")
    before = {}
    for name in ("local-app-api", "tagged-batch"):
        version = lambdas.publish_version(FunctionName=name)["Version"]
        before[name] = {"FunctionName": name, "Qualifier": version}
        lambdas.put_provisioned_concurrency_config(**before[name], ProvisionedConcurrentExecutions=1)
    point, _ = prepared(deployed, MEASUREMENTS, items=3)
    succeeded(deployed.recover(request(point, MEASUREMENTS, incident="provisioned")))
    for place in before.values():
        found = lambdas.get_provisioned_concurrency_config(**place)
        assert found["RequestedProvisionedConcurrentExecutions"] == 1
        lambdas.delete_provisioned_concurrency_config(**place)


@clean
def streams_that_skip_the_reset(deployed: Deployed) -> None:
    """The consumer's mapping gets another maximum age of records, and then its own again."""
    point, _ = prepared(deployed, LICENSES, items=3)
    succeeded(deployed.recover(request(point, LICENSES, incident="skipped", streamPolicy="discard")))


@clean
def an_execution_that_left_a_lock(deployed: Deployed) -> None:
    """The guardian looks, tells, waits, takes the lock, and finds an incident that was never opened."""
    ended = deployed.start(deployed.outputs["orchestratorStateMachineArn"], "{}")
    assert deployed.finish(ended)["status"] == "FAILED"
    with Held(deployed, "ENVIRONMENT", ended, "never-opened"):
        guardian = deployed.outputs["orchestratorStateMachineArn"].replace("orchestrator", "guardian")
        succeeded(deployed.finish(deployed.start(guardian, {"executionArn": ended})))
        assert deployed.locks() == []


@clean
def a_recovery_that_was_stopped(deployed: Deployed) -> None:
    """The sweep finds it where its own event was lost, and the functions are released."""
    states = deployed.client("stepfunctions")
    events = deployed.client("events")
    events.disable_rule(Name="local-dr-guardian")
    before = deployed.concurrency()
    point, good = prepared(deployed, LANGUAGES, items=3)
    wanted = request(point, LANGUAGES, incident="stopped")
    execution = deployed.start(deployed.outputs["orchestratorStateMachineArn"], wanted)
    while deployed.concurrency()["local-app-api"] != 0:
        assert states.describe_execution(executionArn=execution)["status"] == "RUNNING"
    states.stop_execution(executionArn=execution)
    guardian = deployed.outputs["orchestratorStateMachineArn"].replace("orchestrator", "guardian")
    succeeded(deployed.finish(deployed.start(guardian, {"executionArn": None})))
    assert deployed.concurrency() == before
    events.enable_rule(Name="local-dr-guardian")
    succeeded(deployed.recover(wanted))
    assert deployed.items(LANGUAGES) == good[LANGUAGES]


@failing
def a_difference(deployed: Deployed) -> None:
    """Somebody writes between copy and verification: the keys of what differs are listed."""
    wanted = by_hand(deployed, LICENSES, "differing")
    with Revoked(deployed, "digest-segment"):
        assert deployed.reset(LICENSES, wanted)["status"] == "FAILED"
    deployed.fill(LICENSES, range(500, 501), "by a stranger")
    ended = deployed.reset(LICENSES, wanted)
    assert ended["error"] == "VerificationFailed"
    assert "0 missing, 1 extra and 0 changed" in ended["cause"]


@failing
def a_failure_before_the_purge(deployed: Deployed) -> None:
    """Everything is released; the same incident goes on."""
    point, good = prepared(deployed, LICENSES, items=3)
    wanted = request(point, LICENSES, incident="early")
    with Revoked(deployed, "preflight"):
        assert deployed.recover(wanted)["status"] == "FAILED"
    succeeded(deployed.recover(wanted))
    assert deployed.items(LICENSES) == good[LICENSES]


@failing
def a_failure_after_the_purge(deployed: Deployed) -> None:
    """The functions stay frozen; another incident takes over."""
    point, good = prepared(deployed, LICENSES, items=3)
    with Revoked(deployed, "copy-segment"):
        assert deployed.recover(request(point, LICENSES, incident="late"))["status"] == "FAILED"
    refused = deployed.reset(LICENSES, by_hand(deployed, LICENSES, "half-restored"))
    assert refused["error"] == "RecoveryInProgress"
    succeeded(deployed.recover(request(point, LICENSES, incident="instead")))
    assert deployed.items(LICENSES) == good[LICENSES]


@failing
def a_writer_that_nobody_froze(deployed: Deployed) -> None:
    """The destination is not empty after its purge: it is purged once more."""
    wanted = by_hand(deployed, LICENSES, "written-to")
    with Revoked(deployed, "prove-empty"):
        assert deployed.reset(LICENSES, wanted)["status"] == "FAILED"
    assert deployed.items(LICENSES) == []
    deployed.fill(LICENSES, range(500, 510), "by a stranger")
    assert deployed.reset(LICENSES, wanted)["error"] == "DestinationNotEmpty"
    succeeded(deployed.reset(LICENSES, wanted))
    assert len(deployed.items(LICENSES)) == 5


def by_hand(deployed: Deployed, table: str, incident: str) -> dict[str, str]:
    """A hard reset's input, its source made and filled."""
    source = f"by-hand-{incident}-{table}"
    create_table(deployed.aws, source, TABLES[table], pitr=False)
    deployed.fill(source, range(5), like=table)
    return {
        "incidentId": incident,
        "sourceTableArn": deployed.arn(source),
        "destinationTableArn": deployed.arn(table),
        "tableNameRecoveryConfirmation": table,
    }


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What IAM was asked in all scenarios, and what it refused in the clean ones."""

    roles: dict[str, DeployedRole]
    allowed: dict[str, set[tuple[str, str, str]]]
    """Role name → (action, resource, service through which a key was used)."""
    refused: list[dict[str, str]]


def _prepare(aws: EmbeddedAws) -> dict[str, Any]:
    """Keys for the stack and for a table, a function that only its tag selects, and one that a stream feeds."""
    kms, dynamodb = aws.client("kms"), aws.client("dynamodb")
    stack, table = (kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
    dynamodb.update_table(
        TableName=LICENSES, SSESpecification={"Enabled": True, "SSEType": "KMS", "KMSMasterKeyId": table}
    )
    dynamodb.update_table(
        TableName=LICENSES, StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"}
    )
    tags = {"system": "licensing"}
    for name, reserved in (("tagged-batch", 2), ("tagged-free", None)):
        sample.create_function(aws, sample.FunctionSpec(name=name, reserved=reserved, tags=tags))
    sample.create_function(
        aws, sample.FunctionSpec(name="local-app-projector", reserved=2, tags=tags, stream_of=LICENSES)
    )
    return {"kmsKeyArn": stack, "sourceTables": ["dr-local.*", "by-hand-*"]}


@pytest.fixture(scope="module")
def asked() -> Iterator[Asked]:
    """The record of all scenarios, run one after the other in one embedded AWS."""
    for deployed in deployed_stack({}, wait_scale="0.002", before=_prepare):
        roles = deployed_roles(deployed)
        for scenario in CLEAN:
            scenario(deployed)
        ours = {role.name for role in roles.values()}

        def entries(deployed: Deployed = deployed, ours: set[str] = ours) -> list[dict[str, str]]:
            return [
                entry
                for entry in deployed.aws.iam_log()
                if ":assumed-role/" in entry["principal"] and entry["principal"].split("/")[1] in ours
            ]

        refused = [entry for entry in entries() if entry["decision"] != "Allow"]
        for scenario in FAILING:
            scenario(deployed)
        allowed: dict[str, set[tuple[str, str, str]]] = {name: set() for name in ours}
        for entry in entries():
            if entry["decision"] == "Allow":
                allowed[entry["principal"].split("/")[1]].add((entry["action"], entry["resource"], entry["via"]))
        yield Asked(roles=roles, allowed=allowed, refused=refused)


def unused(asked: Asked) -> set[tuple[str, str, str]]:
    """(what the role is of, statement, action) of every permission without which every scenario would have passed."""
    found = set()
    for role in asked.roles.values():
        for statement in role.allows():
            # A statement with a condition gives no more than its own: whether it would do is not in the record.
            others = [other for other in role.allows() if other is not statement and "Condition" not in other]
            for action in listed(statement["Action"]):
                needed = any(
                    fnmatchcase(done, action)
                    and matches(statement, done, resource, via)
                    and not any(matches(other, done, resource, via) for other in others)
                    for done, resource, via in asked.allowed[role.name]
                )
                if not needed:
                    found.add((role.thing, str(statement["Sid"]), action))
    return found


def excused(thing: str, action: str) -> list[tuple[str, str]]:
    """The entries of NOT_ASKED that say why a permission is never seen in use."""
    return [key for key in NOT_ASKED if fnmatchcase(thing, key[0]) and fnmatchcase(action, key[1])]


def test_every_permission_is_needed(asked: Asked) -> None:
    """Catches a permission that nothing uses, or that another statement gives already."""
    idle = sorted(entry for entry in unused(asked) if not excused(entry[0], entry[2]))
    assert not idle, "\n".join(map(str, idle))


def test_what_is_never_asked_is_exact(asked: Asked) -> None:
    """Catches an excuse for a permission that is in fact seen in use, or that no role has any more."""
    idle = unused(asked)
    excusing = {key for thing, _, action in idle for key in excused(thing, action)}
    assert excusing == set(NOT_ASKED)
    granted = {
        (role.thing, str(statement["Sid"]), action)
        for role in asked.roles.values()
        for statement in role.allows()
        for action in listed(statement["Action"])
    }
    assert len(granted) > 100
    assert [entry for entry in sorted(granted - idle) if excused(entry[0], entry[2])] == []


def test_nothing_is_refused_where_nothing_was_taken_away(asked: Asked) -> None:
    """Catches a permission that is missing, and whose refusal is retried, ignored or caught."""
    assert asked.refused == []
