"""The hard reset of one table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handlers.core.errors import VerificationFailed

from .leaves import (
    BACKUP_BLUR_SECONDS,
    BACKUP_POLLS,
    CAPACITY_RETRY,
    CUT_CAUSE,
    EXECUTION_ARN,
    FAIL,
    FAILURE,
    HANDLED_FAILURE,
    INCIDENT_ID,
    PICK_FIRST_FAILURE,
    Definition,
    backup_states,
    cause_limit,
    choice,
    create_backup,
    lambda_task,
    no_failures,
    record_failure_payload,
)

# Two workers that meet on one segment settle it by trying again from the newest checkpoint.
_CONFLICT_RETRY: Definition = {
    "ErrorEquals": ["CheckpointConflict"],
    "IntervalSeconds": 5,
    "BackoffRate": 2,
    "MaxAttempts": 5,
    "JitterStrategy": "FULL",
}

# Longer than the largest table takes (10 TB at 5,000 write units a second: 54 days, by the simulation in bench/); an
# orchestrator waits longer still, so no parent ends before its child. An execution may last a year.
TIMEOUT_SECONDS = 120 * 86_400


@dataclass(frozen=True, kw_only=True)
class HardResetConfig:
    """What the definition is made of.

    Args:
        table_name: the destination, the only table this machine resets.
        functions: ARNs of the Lambda functions by short name.
        sensitive_tables: names that must never be a source.
        source_tables: shell patterns of the names of tables that may be a source.
        options: ``segments``, ``concurrency``, ``maxWriteUnitsPerSecond`` and ``capacityShare`` as preflight takes
            them; ``concurrency`` is how many segments are worked on at once.
    """

    table_name: str
    functions: Mapping[str, str]
    sensitive_tables: Sequence[str]
    source_tables: Sequence[str]
    options: Mapping[str, Any]

    @property
    def concurrency(self) -> int:
        """How many segments are worked on at once."""
        return int(self.options["concurrency"])


def hard_reset(config: HardResetConfig) -> Definition:
    """Make the destination equal to the source.

    Confirm the table's name, before anything else runs. Preflight: check both tables, take the lock, find where an
    earlier execution of the incident stopped. Back up the destination, unless the orchestrator has. Purge all segments
    and prove that nothing is left, then copy all segments; or, in the mode ``differential``, find what differs in all
    segments and write only that. Digest both sides and compare the digests; where they differ,
    compare item by item and list the differing keys for the operator. Every failure is explained, the lock given up,
    and the execution fails with the real error; starting the same incident again goes on from there.
    """
    name, functions = config.table_name, config.functions
    every_worker = _from_plan("executionArn", "incidentId", "tableName", "sourceTableName", "keyNames")
    return {
        "Comment": f"Hard reset of {name}: purge it and copy the source into it, or write what differs; verify",
        "QueryLanguage": "JSONata",
        "TimeoutSeconds": TIMEOUT_SECONDS,
        "StartAt": "Is the input an object?",
        "States": {
            "Is the input an object?": choice(
                "$type($states.input) = 'object'", then="Confirm the table name", otherwise="Refuse the input"
            ),
            "Refuse the input": {
                "Type": "Fail",
                "Error": "InvalidRequest",
                "Cause": "The input is not a JSON object. Expected one with incidentId, sourceTableArn, "
                "destinationTableArn and tableNameRecoveryConfirmation. Correct the input and start again.",
            },
            "Confirm the table name": choice(
                f"$states.input.tableNameRecoveryConfirmation = '{name}'",
                then="Preflight",
                otherwise="Refuse without confirmation",
            ),
            "Refuse without confirmation": {
                "Type": "Fail",
                "Error": "ConfirmationMismatch",
                "Cause": f"tableNameRecoveryConfirmation is missing or is not the name of the table. Expected '{name}'"
                ", exactly: that table's content will be replaced by its restore point's, and whatever else it holds "
                "is deleted. If that is what you want, pass its name and start again.",
            },
            "Preflight": lambda_task(
                functions["preflight"],
                {
                    "request": "{% $states.input %}",
                    "executionArn": EXECUTION_ARN,
                    "tableName": name,
                    "sensitiveTables": list(config.sensitive_tables),
                    "sourceTables": list(config.source_tables),
                    "options": dict(config.options),
                },
                # Workers look whether this execution still holds the lock.
                assign={
                    "plan": "{% $merge([$states.result.Payload, {'executionArn': $states.context.Execution.Id}]) %}"
                },
                next_state="Wait for stray workers",
                on_failure="Record the failure",
            ),
            "Wait for stray workers": {
                "Type": "Wait",
                "Comment": "Aborting an execution does not end its Lambdas; in the past unless a lock was taken over",
                "Timestamp": "{% $plan.settledAt %}",
                "Next": "Is there a backup?",
            },
            "Is there a backup?": choice(
                # Preflight has seen that it is of this table and available.
                "$plan.backupArn != null",
                then="Is only what differs to be written?",
                otherwise="Wait until a backup holds the last write",
            ),
            "Wait until a backup holds the last write": {
                "Type": "Wait",
                "Comment": "By hand nothing is frozen: whoever wrote to the table has to have stopped by now",
                "Seconds": BACKUP_BLUR_SECONDS,
                "Next": "Back up the table",
            },
            "Back up the table": create_backup(
                name, "$plan.incidentId", next_state="Wait for the backup", on_failure="Record the failure"
            ),
            **backup_states(
                then="Is only what differs to be written?", on_failure="Record the failure", polls=BACKUP_POLLS
            ),
            "Is only what differs to be written?": choice(
                "$plan.mode = 'differential'",
                then="Apply the differences to every segment",
                otherwise="Is the table purged already?",
            ),
            "Apply the differences to every segment": _for_every_segment(
                "differential",
                functions["differential-segment"],
                config.concurrency,
                work="Apply the differences to the segment",
                selector=every_worker | _SEGMENT | _from_plan("pacing"),
                next_state="Are the differences applied to every segment?",
            ),
            "Are the differences applied to every segment?": choice(
                no_failures("$plan.segments"), then="Set the expiry horizon", otherwise="Pick the first failure"
            ),
            "Is the table purged already?": choice(
                "$plan.phase = 'copy'", then="Copy every segment", otherwise="Purge every segment"
            ),
            "Purge every segment": _for_every_segment(
                "purge",
                functions["purge-segment"],
                config.concurrency,
                selector=every_worker | _SEGMENT | _from_plan("pacing"),
                next_state="Is every segment purged?",
            ),
            "Is every segment purged?": choice(
                no_failures("$plan.segments"), then="Prove the destination is empty", otherwise="Pick the first failure"
            ),
            "Prove the destination is empty": lambda_task(
                functions["prove-empty"],
                _from_plan("incidentId", "tableName"),
                next_state="Copy every segment",
                on_failure="Record the failure",
                lingers=True,
            ),
            "Copy every segment": _for_every_segment(
                "copy",
                functions["copy-segment"],
                config.concurrency,
                selector=every_worker | _SEGMENT | _from_plan("pacing"),
                next_state="Is every segment copied?",
            ),
            "Is every segment copied?": choice(
                no_failures("$plan.segments"), then="Set the expiry horizon", otherwise="Pick the first failure"
            ),
            "Set the expiry horizon": {
                "Type": "Pass",
                "Comment": "Once for all segments, so that both sides digest the same items",
                "Assign": {
                    "expiryHorizon": "{% $floor($millis() / 1000) + $plan.expirySeconds %}",
                    "verifyingSince": "{% $floor($millis() / 1000) %}",
                },
                "Next": "Digest every segment of both sides",
            },
            "Digest every segment of both sides": _for_every_segment(
                "digest",
                functions["digest-segment"],
                config.concurrency,
                items=_BOTH_SIDES,
                selector=every_worker | _SEGMENT_OF_A_SIDE,
                next_state="Is every segment digested?",
            ),
            "Is every segment digested?": choice(
                no_failures("2 * $plan.segments"), then="Verify", otherwise="Pick the first failure"
            ),
            "Verify": lambda_task(
                functions["verify"],
                _from_plan("incidentId", "tableName") | {"verifyingSince": "{% $verifyingSince %}"},
                assign={"summary": "{% $states.result.Payload %}"},
                next_state="Unlock",
                on_failure="Record the failure",
                catch=[
                    {
                        "ErrorEquals": [VerificationFailed.__name__],
                        "Assign": {"verdict": "{% $states.errorOutput.Cause %}"},
                        "Output": {},
                        "Next": "Compare every segment of both sides",
                    }
                ],
            ),
            "Compare every segment of both sides": _for_every_segment(
                "compare",
                functions["compare-segment"],
                config.concurrency,
                items=_BOTH_SIDES,
                selector=every_worker | _SEGMENT_OF_A_SIDE,
                next_state="Report the differences",
                # Its Lambdas only read, and stop at their next page: nobody has to wait for them.
                on_failure="Report the differences",
            ),
            "Report the differences": lambda_task(
                functions["report-differences"],
                _from_plan("incidentId", "tableName", "executionArn")
                | {
                    "verdict": "{% $verdict %}",
                    # Of a child's answer, or of the Map as a whole; whatever it is, the verdict stands.
                    "failure": "{% ($failed := $states.input[$exists(error)][0]; "
                    "$exists($failed) ? $failed.{'error': error, 'cause': cause} : null) %}",
                },
                next_state="Record the failure",
                on_failure="Record the failure",
                failure_output={
                    "error": VerificationFailed.__name__,
                    "cause": "{% ($contains($verdict, '\"errorMessage\"') ? $parse($verdict).errorMessage : $verdict) "
                    "& ' Besides, the differing keys could not be listed: ' & $states.errorOutput.Error %}",
                },
            ),
            "Unlock": lambda_task(
                functions["unlock"],
                {
                    "incidentId": INCIDENT_ID,
                    "executionArn": EXECUTION_ARN,
                    "tableName": name,
                    "orchestratorExecutionArn": _PARENT,
                },
                next_state="Done",
                # A lock left behind is taken over from an execution that has ended.
                on_failure="Done",
            ),
            "Done": {"Type": "Succeed", "Output": "{% $summary %}"},
            "Pick the first failure": PICK_FIRST_FAILURE,
            "Record the failure": lambda_task(
                functions["record-outcome"],
                record_failure_payload(whole_incident=False),
                next_state="Unlock after the failure",
                on_failure="Unlock after the failure",
                failure_output=HANDLED_FAILURE,
            ),
            "Record the failure of a Map": lambda_task(
                functions["record-outcome"],
                record_failure_payload(whole_incident=False),
                next_state="Fail",
                on_failure="Fail",
                failure_output=HANDLED_FAILURE,
            ),
            "Unlock after the failure": lambda_task(
                functions["unlock"],
                {
                    "incidentId": INCIDENT_ID,
                    "executionArn": EXECUTION_ARN,
                    "tableName": name,
                    "orchestratorExecutionArn": _PARENT,
                },
                output=HANDLED_FAILURE,
                next_state="Fail",
                on_failure="Fail",
                failure_output=HANDLED_FAILURE,
            ),
            "Fail": FAIL,
        },
    }


def _from_plan(*fields: str) -> Definition:
    """Payload fields that preflight's plan has under the same name."""
    return {field: f"{{% $plan.{field} %}}" for field in fields}


_PARENT = (
    "{% $exists($states.context.Execution.Input.orchestratorExecutionArn) "
    "? $states.context.Execution.Input.orchestratorExecutionArn : null %}"
)
"""The orchestrator's execution that started this one, or null."""

_SEGMENT: Definition = {
    "segment": "{% $states.context.Map.Item.Value %}",
    "totalSegments": "{% $plan.segments %}",
    "generation": "{% $plan.attempt %}",
    "causeLimit": cause_limit("$plan.segments"),
}

# Neighbouring segments lie on the same partitions: a stride, which preflight chose to have no divisor in common with
# the number of segments, takes workers that start together far apart.
_SHUFFLED = "[0..$plan.segments - 1].($ * $plan.stride % $plan.segments)"

_ONE_SIDE = f"{{% [{_SHUFFLED}] %}}"
"""Every segment once."""

_BOTH_SIDES = (
    f"{{% $append([{_SHUFFLED}.{{'side': 'source', 'segment': $}}], "
    f"[{_SHUFFLED}.{{'side': 'destination', 'segment': $}}]) %}}"
)
"""Every segment of the source, then every segment of the destination."""

_SEGMENT_OF_A_SIDE: Definition = {
    "side": "{% $states.context.Map.Item.Value.side %}",
    "segment": "{% $states.context.Map.Item.Value.segment %}",
    "totalSegments": "{% $plan.segments %}",
    "generation": "{% $plan.verification %}",
    "ttlAttribute": "{% $plan.ttlAttribute %}",
    "expiryHorizon": "{% $expiryHorizon %}",
    "causeLimit": cause_limit("2 * $plan.segments"),
}


def _for_every_segment(
    phase: str,
    function_arn: str,
    concurrency: int,
    *,
    selector: Definition,
    next_state: str,
    work: str | None = None,
    items: str = _ONE_SIDE,
    on_failure: str = "Record the failure of a Map",
) -> Definition:
    """A Distributed Map whose children each call the worker until their segment is complete.

    A child is an execution with a history of its own, so it may call as often as it takes. It answers with the
    segment's number, or with its failure. ``work``: the name of the state that does it, if not the phase's.
    """
    work, check, done, failed = (
        work or f"{phase.capitalize()} the segment",
        "Is the segment complete?",
        "Segment complete",
        "Segment failed",
    )
    return {
        "Type": "Map",
        "Label": phase.capitalize(),
        "Items": items,
        "ItemSelector": selector,
        "MaxConcurrency": concurrency,
        "ItemProcessor": {
            "ProcessorConfig": {"Mode": "DISTRIBUTED", "ExecutionType": "STANDARD"},
            "StartAt": work,
            "States": {
                work: lambda_task(
                    function_arn,
                    "{% $states.input %}",
                    output="{% $merge([$states.input, {'complete': $states.result.Payload.complete}]) %}",
                    next_state=check,
                    on_failure=failed,
                    failure_output={"error": "{% $states.errorOutput.Error %}", "cause": CUT_CAUSE},
                    retry=(CAPACITY_RETRY, _CONFLICT_RETRY),
                    lingers=phase in ("purge", "copy", "differential"),
                    crowded=True,
                ),
                check: choice("$states.input.complete", then=done, otherwise=work),
                done: {"Type": "Succeed", "Output": "{% $states.input.segment %}"},
                failed: {"Type": "Succeed", "Comment": "The parent reads the failure from the Map's result"},
            },
        },
        # The Map aborted its children, but not their Lambdas: after a write the lock stays, and whoever takes it over
        # waits for them.
        "Catch": [{"ErrorEquals": ["States.ALL"], "Output": FAILURE, "Next": on_failure}],
        "Next": next_state,
    }
