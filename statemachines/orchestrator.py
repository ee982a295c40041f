"""The orchestrator: the recovery of all the tables of one incident."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import hard_reset
from .failure_path import POLLS, RELEASE_RETRY, Topic, failure_path, tell, wait
from .leaves import (
    BACKUP_BLUR_SECONDS,
    BACKUP_POLLS,
    CUT_CAUSE,
    EXECUTION_ARN,
    FAIL,
    FAILURE,
    INCIDENT_ID,
    PICK_FIRST_FAILURE,
    Definition,
    aws_retry,
    backup_states,
    cause_limit,
    choice,
    create_backup,
    lambda_task,
    no_failures,
)

# 95 % of restores end within an hour; ten hours were seen. At one look a minute a day's restore stays below 13,000 of
# the 25,000 events of one execution (each look takes nine), next to the backup's 900.
RESTORE_POLL_SECONDS = 60
RESTORE_POLLS = 1440

# DynamoDB runs 50 restores at once in an account; more tables than that wait for their turn here.
_RESTORE_QUOTA_RETRY: Definition = {
    "ErrorEquals": ["DynamoDb.LimitExceededException"],
    "IntervalSeconds": 60,
    "BackoffRate": 1,
    "MaxAttempts": 600,
}
_RESTORE_FINAL: Definition = {
    "ErrorEquals": [
        "DynamoDb.TableAlreadyExistsException",
        "DynamoDb.TableInUseException",
        "DynamoDb.TableNotFoundException",
        "DynamoDb.InvalidRestoreTimeException",
        "DynamoDb.PointInTimeRecoveryUnavailableException",
    ],
    "MaxAttempts": 0,
}

# Somebody else's change of a mapping, or the deletion of provisioned concurrency, takes a minute or two.
_FREEZE_RETRY: Definition = {
    "ErrorEquals": ["FreezeIncomplete"],
    "IntervalSeconds": 15,
    "BackoffRate": 1,
    "MaxAttempts": 20,
}

FREEZE_ROUNDS = 3
"""How often the tables are prepared again because functions did not stay frozen. A round takes as long as a drain and a
backup, as restores are used again; what comes back at four looks in a row does not stop by itself."""

# The guardian holds the incident while it releases functions: at most thousands, at some five a second.
_GUARDIAN_RETRY: Definition = {
    "ErrorEquals": ["GuardianAtWork"],
    "IntervalSeconds": 10,
    "BackoffRate": 1,
    "MaxAttempts": 120,
}

# Children wait out a day of restore and the longest reset; the whole may take as long as both and some more.
TIMEOUT_SECONDS = 2 * hard_reset.TIMEOUT_SECONDS

# Tables are worked on all at once, so that the slowest alone sets the recovery time.
_TABLE_CONCURRENCY = 1000

_FINISHED = "$count($plan.tables)"

# Names of all the incident's tables, those that an earlier execution finished included.
_TABLE_NAMES = "{% [$plan.tables.tableName, $plan.finishedTables.tableName] %}"


@dataclass(frozen=True, kw_only=True)
class OrchestratorConfig:
    """What the definition is made of.

    Args:
        environment: the stack's environment.
        functions: ARNs of the Lambda functions by short name.
        protected_tables: table name → options as validation needs them.
        sensitive_tables: names that no one may pass.
        hard_resets: table name → ARN of its hard-reset state machine.
        freeze: selection of the functions to freeze, the recovery's own among the excluded.
        topic_arn: where start, success and failure are told.
        prices: what the stack's configuration changes of AWS's list prices, or None.
    """

    environment: str
    functions: Mapping[str, str]
    protected_tables: Mapping[str, Mapping[str, Any]]
    sensitive_tables: Sequence[str]
    hard_resets: Mapping[str, str]
    freeze: Mapping[str, Any]
    topic_arn: str
    prices: Mapping[str, float] | None = None


def orchestrator(config: OrchestratorConfig) -> Definition:
    """Recover tables to a point in time.

    Validate the request; a dry run ends here with the plan. Freeze the functions. Prepare every table: restore it to a
    new table, and back up what is there now, once the functions have drained. Only when every table is prepared, look
    whether the functions are still frozen: what was not is frozen, and every table is prepared again, for its backup
    may lack what that wrote. Then reset every table by its own state machine. When every table is verified, let the
    stream consumers skip the reset's records if that was asked for, release the functions, delete the temporary tables,
    report and tell. A failure before the first purge releases the functions; one after it leaves them frozen.
    Both are recorded, reported and told, and the same incident can be started again.
    """
    functions = config.functions
    incident = {"incidentId": "{% $plan.incidentId %}", "executionArn": EXECUTION_ARN}
    freeze: Definition = {
        **incident,
        "selection": dict(config.freeze),
        "plan": False,
        "tables": _TABLE_NAMES,
        "polls": "{% $polls %}",
    }
    release: Definition = {"discard": False, "recovered": True, "polls": "{% $polls %}"}
    return {
        "Comment": f"Recovery of the DynamoDB tables of {config.environment} to a point in time",
        "QueryLanguage": "JSONata",
        "TimeoutSeconds": TIMEOUT_SECONDS,
        "StartAt": "Validate the request",
        "States": {
            "Validate the request": lambda_task(
                functions["validate-request"],
                {
                    "request": "{% $states.input %}",
                    "executionArn": EXECUTION_ARN,
                    "environment": config.environment,
                    "protectedTables": {name: dict(options) for name, options in config.protected_tables.items()},
                    "sensitiveTables": list(config.sensitive_tables),
                    "prices": dict(config.prices) if config.prices else None,
                },
                assign={
                    "plan": "{% $states.result.Payload %}",
                    "hardResets": dict(config.hard_resets),
                    "polls": 0,
                    # A Distributed Map's child sees its own execution's id, not this one.
                    "orchestratorArn": EXECUTION_ARN,
                },
                next_state="Is it a dry run?",
                on_failure="Record the failure",
                retry=(_GUARDIAN_RETRY,),
            ),
            "Is it a dry run?": choice("$plan.dryRun", then="Plan the freeze", otherwise="Wait for stray workers"),
            "Wait for stray workers": {
                "Type": "Wait",
                "Comment": "Aborting an execution does not end its Lambdas; in the past unless a lock was taken over",
                "Timestamp": "{% $plan.settledAt %}",
                "Next": "Is only the release left?",
            },
            "Is only the release left?": choice(
                # The system may be live again: to freeze it, or to discard its records, would do new damage.
                "$plan.releaseBegun",
                then="Release the functions",
                otherwise="Tell of the start",
            ),
            "Plan the freeze": lambda_task(
                functions["freeze-functions"],
                {**incident, "selection": dict(config.freeze), "plan": True, "tables": _TABLE_NAMES},
                next_state="Answer with the plan",
                on_failure="Record the failure",
            ),
            "Answer with the plan": {
                "Type": "Succeed",
                "Output": {
                    "incidentId": "{% $plan.incidentId %}",
                    "status": "PLANNED",
                    "tables": "{% $plan.tables %}",
                    "forecast": "{% $plan.forecast %}",
                    "functionsToFreeze": "{% $states.input.functions %}",
                    "streamConsumers": "{% $states.input.streamConsumers %}",
                    "frozenFunctions": 0,
                    "releasedFunctions": 0,
                },
            },
            "Tell of the start": tell(
                _topic(config),
                "started",
                {"incidentId": "{% $plan.incidentId %}", "restoreDateTime": "{% $plan.restoreDateTime %}"},
                next_state="Freeze the functions",
            ),
            "Freeze the functions": lambda_task(
                functions["freeze-functions"],
                {**freeze, "pass": 1},
                assign={**POLLS, "freezePass": 2, "drainedAt": "{% $states.result.Payload.drainedAt %}"},
                next_state="Are the functions frozen?",
                on_failure="Record the failure",
                retry=(_FREEZE_RETRY,),
                lingers=True,
            ),
            "Are the functions frozen?": choice(
                "$states.input.complete", then="Prepare every table", otherwise="Wait before freezing on"
            ),
            "Wait before freezing on": wait(next_state="Freeze the functions"),
            "Prepare every table": _for_every_table(
                "Prepare",
                items="{% $plan.tables %}",
                selector={
                    "table": "{% $states.context.Map.Item.Value %}",
                    "incidentId": "{% $plan.incidentId %}",
                    "restoreDateTime": "{% $plan.restoreDateTime %}",
                    "drainedAt": "{% $drainedAt %}",
                    "causeLimit": cause_limit(_FINISHED),
                },
                processor=_prepare_table(),
                assign={"prepared": "{% $states.result %}"},
                next_state="Is every table prepared?",
            ),
            "Is every table prepared?": choice(
                no_failures(_FINISHED), then="Freeze what is new", otherwise="Pick the first failure"
            ),
            "Freeze what is new": lambda_task(
                functions["freeze-functions"],
                {**freeze, "pass": "{% $freezePass %}"},
                assign={
                    **POLLS,
                    "freezePass": "{% $states.result.Payload.complete ? $freezePass + 1 : $freezePass %}",
                    "drainedAt": "{% $states.result.Payload.drainedAt %}",
                },
                next_state="Is what is new frozen?",
                on_failure="Record the failure",
                retry=(_FREEZE_RETRY,),
                lingers=True,
            ),
            "Is what is new frozen?": choice(
                "$states.input.complete", then="Was everything still frozen?", otherwise="Wait before looking on"
            ),
            "Wait before looking on": wait(next_state="Freeze what is new"),
            "Was everything still frozen?": {
                "Type": "Choice",
                "Choices": [
                    {"Condition": "{% $states.input.changed = 0 %}", "Next": "Reset every table"},
                    {
                        # The first look is pass 2, and has made this 3.
                        "Condition": f"{{% $freezePass <= {2 + FREEZE_ROUNDS} %}}",
                        "Next": "Prepare every table",
                    },
                ],
                "Default": "The functions do not stay frozen",
            },
            "The functions do not stay frozen": {
                "Type": "Pass",
                "Output": {
                    "error": "FreezeIncomplete",
                    "cause": "{% 'These functions were started again, or are new, at each of "
                    f"{FREEZE_ROUNDS + 1} looks before the purge: ' & $states.input.changedNames & '. Expected the "
                    "system to stay frozen while its tables are restored: this execution has purged nothing; stop the "
                    "deployment, or whoever else changes these functions, then start the same incident again.' %}",
                },
                "Next": "Record the failure",
            },
            "Reset every table": _for_every_table(
                "Reset",
                items="{% $prepared %}",
                selector={
                    "table": "{% $states.context.Map.Item.Value %}",
                    "incidentId": "{% $plan.incidentId %}",
                    "mode": "{% $plan.mode %}",
                    "orchestratorExecutionArn": "{% $orchestratorArn %}",
                    "stateMachineArn": "{% $lookup($hardResets, $states.context.Map.Item.Value.tableName) %}",
                    "causeLimit": cause_limit(_FINISHED),
                },
                processor=_reset_table(),
                next_state="Is every table verified?",
            ),
            "Is every table verified?": choice(
                no_failures(_FINISHED), then="Shall the streams skip the reset?", otherwise="Pick the first failure"
            ),
            "Shall the streams skip the reset?": choice(
                "$plan.streamPolicy = 'discard'", then="Discard the stream records", otherwise="Release the functions"
            ),
            "Discard the stream records": lambda_task(
                functions["release-functions"],
                # A call whose answer was lost is waited for: it must not change a mapping after its release.
                {**incident, "discard": True, "recovered": False, "tables": _TABLE_NAMES, "polls": "{% $polls %}"},
                assign=POLLS,
                next_state="Do the streams skip the reset?",
                on_failure="Record the failure",
                # Under this name the functions stay frozen, whatever it was: a release cannot be undone.
                failure_output={
                    "error": "DiscardIncomplete",
                    "cause": "{% $states.errorOutput.Error = 'DiscardIncomplete' ? $states.errorOutput.Cause : "
                    "'The stream records of the reset could not be discarded (' & $states.errorOutput.Error & '): ' & "
                    "$substring($states.errorOutput.Cause, 0, 1000) & ' The tables are verified, and the functions "
                    "stay frozen: mend this, then start the same incident again.' %}",
                },
                retry=(RELEASE_RETRY,),
                lingers=True,
            ),
            "Do the streams skip the reset?": choice(
                "$states.input.complete",
                then="Wait until the stream records are discarded",
                otherwise="Wait before discarding on",
            ),
            "Wait before discarding on": wait(next_state="Discard the stream records"),
            "Wait until the stream records are discarded": wait(next_state="Release the functions"),
            "Release the functions": lambda_task(
                functions["release-functions"],
                {**incident, **release},
                assign=POLLS,
                next_state="Are the functions released?",
                on_failure="Record the failure",
                retry=(RELEASE_RETRY,),
            ),
            "Are the functions released?": choice(
                "$states.input.complete", then="Delete the temporary tables", otherwise="Wait before releasing on"
            ),
            "Wait before releasing on": wait(next_state="Release the functions"),
            "Delete the temporary tables": _delete_temporary_tables(),
            "Write the report": lambda_task(
                functions["write-report"],
                {**incident, "status": "SUCCEEDED", "error": "", "cause": ""},
                assign={"output": "{% $states.result.Payload %}"},
                next_state="Record the success",
                on_failure="Record the failure",
            ),
            "Record the success": lambda_task(
                functions["record-outcome"],
                {**incident, "wholeIncident": True, "error": None, "cause": None},
                next_state="Unlock",
                on_failure="Record the failure",
            ),
            "Unlock": lambda_task(
                functions["unlock"],
                {**incident, "tableName": None, "orchestratorExecutionArn": None},
                next_state="Tell of the success",
                # A lock left behind is taken over from an execution that has ended.
                on_failure="Tell of the success",
            ),
            "Tell of the success": tell(_topic(config), "succeeded", "{% $output %}", next_state="Done"),
            "Done": {"Type": "Succeed", "Output": "{% $output %}"},
            "Pick the first failure": PICK_FIRST_FAILURE,
            **failure_path(functions, _topic(config), incident_id=INCIDENT_ID, then="Hand on the failure"),
            "Hand on the failure": {"Type": "Pass", "Output": "{% $failure %}", "Next": "Fail"},
            "Fail": FAIL,
        },
    }


def _topic(config: OrchestratorConfig) -> Topic:
    return Topic(arn=config.topic_arn, environment=config.environment)


def _for_every_table(
    label: str,
    *,
    items: str,
    selector: Definition,
    processor: Definition,
    next_state: str,
    assign: Mapping[str, Any] | None = None,
) -> Definition:
    """A Distributed Map over tables: each in an execution, and so with a history of 25,000 events, of its own.

    A child answers with its failure instead of failing, so that one table's failure does not abort the others midway.
    """
    state: Definition = {
        "Type": "Map",
        "Label": label,
        "Items": items,
        "ItemSelector": selector,
        "MaxConcurrency": _TABLE_CONCURRENCY,
        "ItemProcessor": {"ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"}, **processor},
        "Catch": [{"ErrorEquals": ["States.ALL"], "Output": FAILURE, "Next": "Record the failure"}],
        "Next": next_state,
    }
    if assign:
        state["Assign"] = dict(assign)
    return state


_TABLE_FAILURE: Definition = {
    "tableName": "{% $states.input.table.tableName %}",
    "error": "{% $states.errorOutput.Error %}",
    "cause": CUT_CAUSE,
}


def _prepare_table() -> Definition:
    """Restore one table to a new one, and back up what it holds now, side by side."""
    return {
        "StartAt": "Restore and back up",
        "States": {
            "Restore and back up": {
                "Type": "Parallel",
                "Branches": [_restore_branch(), _backup_branch()],
                "Catch": [{"ErrorEquals": ["States.ALL"], "Output": _TABLE_FAILURE, "Next": "Table not prepared"}],
                "Output": {
                    "tableName": "{% $states.input.table.tableName %}",
                    "tableArn": "{% $states.input.table.tableArn %}",
                    "restoredTableArn": "{% $states.input.table.restoredTableArn %}",
                    "backupArn": "{% $states.result[1].backupArn %}",
                },
                "Next": "Table prepared",
            },
            "Table prepared": {"Type": "Succeed"},
            "Table not prepared": {
                "Type": "Succeed",
                "Comment": "The parent reads the failure from the Map's result",
            },
        },
    }


def _restore_branch() -> Definition:
    look = "Look at the restored table"
    return {
        "StartAt": "Restore the table",
        "States": {
            "Restore the table": {
                "Type": "Task",
                "Comment": "Without indexes: faster, cheaper, and the copy does not need them",
                "Resource": "arn:aws:states:::aws-sdk:dynamodb:restoreTableToPointInTime",
                "Arguments": {
                    "SourceTableArn": "{% $states.input.table.tableArn %}",
                    "TargetTableName": "{% $states.input.table.restoredTableName %}",
                    "RestoreDateTime": "{% $states.input.restoreDateTime %}",
                    "BillingModeOverride": "PAY_PER_REQUEST",
                    "GlobalSecondaryIndexOverride": [],
                    "LocalSecondaryIndexOverride": [],
                },
                "Retry": aws_retry(_RESTORE_QUOTA_RETRY, _RESTORE_FINAL),
                "Catch": [
                    {
                        # An earlier execution of the incident restored it: the name holds table, time and incident.
                        # While it is being created AWS documents the other name.
                        "ErrorEquals": ["DynamoDb.TableAlreadyExistsException", "DynamoDb.TableInUseException"],
                        "Output": "{% $states.input %}",
                        "Assign": {"restorePolls": 0},
                        "Next": look,
                    },
                    {"ErrorEquals": ["States.ALL"], "Output": FAILURE, "Next": "Restore failed"},
                ],
                "Assign": {"restorePolls": 0},
                "Output": "{% $states.input %}",
                "Next": "Wait for the restore",
            },
            "Wait for the restore": {"Type": "Wait", "Seconds": RESTORE_POLL_SECONDS, "Next": look},
            look: {
                "Type": "Task",
                "Resource": "arn:aws:states:::aws-sdk:dynamodb:describeTable",
                "Arguments": {"TableName": "{% $states.input.table.restoredTableName %}"},
                "Retry": aws_retry(),
                "Catch": [{"ErrorEquals": ["States.ALL"], "Output": FAILURE, "Next": "Restore failed"}],
                "Assign": {
                    "restorePolls": "{% $restorePolls + 1 %}",
                    "status": "{% $states.result.Table.TableStatus %}",
                },
                "Output": "{% $states.input %}",
                "Next": "Is the restored table active?",
            },
            "Is the restored table active?": {
                "Type": "Choice",
                "Choices": [
                    {"Condition": "{% $status = 'ACTIVE' %}", "Next": "Restored"},
                    {
                        "Condition": f"{{% $status = 'CREATING' and $restorePolls < {RESTORE_POLLS} %}}",
                        "Next": "Wait for the restore",
                    },
                ],
                "Default": "The restored table did not become active",
            },
            "Restored": {"Type": "Succeed", "Output": {}},
            "The restored table did not become active": {
                "Type": "Pass",
                "Output": {
                    "error": "RestoreNotActive",
                    "cause": "{% 'The restored table ' & $states.input.table.restoredTableName & ' is ' & $status & "
                    "' after ' & $restorePolls & ' looks. Expected ACTIVE: nothing was purged; look at that table, "
                    "then start the same incident again.' %}",
                },
                "Next": "Restore failed",
            },
            "Restore failed": FAIL,
        },
    }


def _backup_branch() -> Definition:
    return {
        "StartAt": "Wait until the functions have drained",
        "States": {
            "Wait until the functions have drained": {
                "Type": "Wait",
                "Comment": "Invocations that were running at the freeze may still write, and must be in the backup",
                "Timestamp": "{% $states.input.drainedAt %}",
                "Next": "Wait until a backup holds the last write",
            },
            "Wait until a backup holds the last write": {
                "Type": "Wait",
                "Seconds": BACKUP_BLUR_SECONDS,
                "Next": "Back up the table",
            },
            "Back up the table": create_backup(
                "{% $states.input.table.tableName %}",
                "$states.input.incidentId",
                next_state="Wait for the backup",
                on_failure="Backup failed",
            ),
            **backup_states(then="Backed up", on_failure="Backup failed", polls=BACKUP_POLLS),
            "Backed up": {"Type": "Succeed", "Output": {"backupArn": "{% $backupArn %}"}},
            "Backup failed": FAIL,
        },
    }


def _reset_table() -> Definition:
    """Run one table's hard reset and wait for it."""
    return {
        "StartAt": "Reset the table",
        "States": {
            "Reset the table": {
                "Type": "Task",
                "Resource": "arn:aws:states:::states:startExecution.sync:2",
                "Arguments": {
                    # No name: a name derived from the incident would be refused for 90 days.
                    "StateMachineArn": "{% $states.input.stateMachineArn %}",
                    "Input": {
                        "incidentId": "{% $states.input.incidentId %}",
                        "sourceTableArn": "{% $states.input.table.restoredTableArn %}",
                        "destinationTableArn": "{% $states.input.table.tableArn %}",
                        "tableNameRecoveryConfirmation": "{% $states.input.table.tableName %}",
                        "mode": "{% $states.input.mode %}",
                        "backupArn": "{% $states.input.table.backupArn %}",
                        "orchestratorExecutionArn": "{% $states.input.orchestratorExecutionArn %}",
                        "AWS_STEP_FUNCTIONS_STARTED_BY_EXECUTION_ID": EXECUTION_ARN,
                    },
                },
                "Retry": [
                    # The child has its own retries: only a start that was throttled is tried again.
                    {
                        # Under both of the spellings that AWS uses for errors of this integration.
                        "ErrorEquals": [
                            "StepFunctions.ExecutionLimitExceeded",
                            "StepFunctions.ExecutionLimitExceededException",
                            "StepFunctions.ThrottlingException",
                        ],
                        "IntervalSeconds": 5,
                        "BackoffRate": 2,
                        "MaxAttempts": 8,
                        "MaxDelaySeconds": 60,
                        "JitterStrategy": "FULL",
                    }
                ],
                "Catch": [
                    {
                        "ErrorEquals": ["States.ALL"],
                        "Output": {
                            "tableName": "{% $states.input.table.tableName %}",
                            "error": "{% $states.errorOutput.Error %}",
                            "cause": "{% $states.errorOutput.Cause %}",
                            "causeLimit": "{% $states.input.causeLimit %}",
                        },
                        "Next": "Find the child's own failure",
                    }
                ],
                "Output": {"tableName": "{% $states.input.table.tableName %}"},
                "Next": "Table reset",
            },
            "Table reset": {"Type": "Succeed"},
            "Find the child's own failure": {
                "Type": "Pass",
                "Comment": "The cause is DescribeExecution's answer as JSON, with the child's Error and Cause in it",
                "Output": {
                    "tableName": "{% $states.input.tableName %}",
                    "error": "{% ($own := $contains($states.input.cause, '\"Error\"') ? "
                    "$parse($states.input.cause).Error; $exists($own) ? $own : $states.input.error) %}",
                    "cause": "{% ($own := $contains($states.input.cause, '\"Error\"') ? "
                    "$parse($states.input.cause).Cause; $substring($exists($own) ? $own : $states.input.cause, 0, "
                    "$states.input.causeLimit)) %}",
                },
                "Next": "Table not reset",
            },
            "Table not reset": {"Type": "Succeed", "Comment": "The parent reads the failure from the Map's result"},
        },
    }


def _delete_temporary_tables() -> Definition:
    """Delete the restored tables of the incident. One that cannot be deleted costs storage, not safety."""
    return {
        "Type": "Map",
        "Items": "{% $plan.temporaryTables %}",
        "ItemSelector": {"name": "{% $states.context.Map.Item.Value %}"},
        # Ten calls at once stay clear of DynamoDB's limit of 500 tables in change at once, with other work beside.
        "MaxConcurrency": 10,
        "ItemProcessor": {
            "ProcessorConfig": {"Mode": "INLINE"},
            "StartAt": "Delete the temporary table",
            "States": {
                "Delete the temporary table": {
                    "Type": "Task",
                    "Resource": "arn:aws:states:::aws-sdk:dynamodb:deleteTable",
                    "Arguments": {"TableName": "{% $states.input.name %}"},
                    "Retry": aws_retry({"ErrorEquals": ["DynamoDb.ResourceNotFoundException"], "MaxAttempts": 0}),
                    "Catch": [{"ErrorEquals": ["States.ALL"], "Output": {}, "Next": "Left for the operator"}],
                    "Output": {},
                    "End": True,
                },
                "Left for the operator": {"Type": "Pass", "End": True},
            },
        },
        "Catch": [{"ErrorEquals": ["States.ALL"], "Output": {}, "Next": "Write the report"}],
        "Output": {},
        "Next": "Write the report",
    }
