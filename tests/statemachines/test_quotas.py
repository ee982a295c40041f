"""No quota of Step Functions is broken: with 100 tables, with restores of ten hours, with the largest tables."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from handlers.core.facts import CapacityFacts, TableFacts
from handlers.core.forecast import Forecast, Options, describe_all, forecast
from handlers.core.freeze import MAPPING_POLLS
from handlers.core.prices import Prices
from handlers.core.request import DIFFERENTIAL
from handlers.core.tables import choose_segments
from statemachines import leaves
from statemachines.orchestrator import FREEZE_ROUNDS, RESTORE_POLL_SECONDS, RESTORE_POLLS

from .asl import graphs
from .definitions import hard_reset_definition, orchestrator_definition

HISTORY_EVENTS = 25_000  # of one Standard execution
PAYLOAD_BYTES = 262_144  # of a state's input or output
INLINE_CONCURRENCY = 40  # of an inline Map
DISTRIBUTED_CHILDREN = 10_000  # running at once
TABLES = 100
MOST_TABLES = 120  # of a stack
RESTORE_SECONDS = 10 * 3600

# Events of one pass through a state: entered and exited; a task also scheduled, started and succeeded or failed; a Map
# or Parallel also started and succeeded; a Distributed Map also MapRunStarted and MapRunSucceeded.
EVENTS = {"Task": 5, "Choice": 2, "Pass": 2, "Wait": 2, "Succeed": 2, "Fail": 1, "Parallel": 4, "Map": 6}
ITERATION_EVENTS = 2  # an inline Map's iteration: started, succeeded
RETRY_EVENTS = 3  # a task that fails and is retried adds scheduled, started and failed each time


def events(states: dict[str, Any]) -> int:
    """Events of one pass through all of these states, each task retried to the limit of all of its retriers."""
    total = 0
    for state in states.values():
        total += EVENTS[state["Type"]]
        if state["Type"] == "Task":
            total += sum(retrier["MaxAttempts"] for retrier in state["Retry"]) * RETRY_EVENTS
    return total


def test_one_tables_preparation_fits_one_history() -> None:
    """Catches a poll so frequent that a ten-hour restore ends its own execution; a whole day must fit too."""
    graph = {part.path: part for part in graphs(orchestrator_definition())}
    restore = graph["/Prepare every table/Restore and back up[0]"].states
    backup = graph["/Prepare every table/Restore and back up[1]"].states
    look = ("Wait for the restore", "Look at the restored table", "Is the restored table active?")
    restore_look = sum(EVENTS[restore[name]["Type"]] for name in look)
    backup_look = sum(
        EVENTS[backup[name]["Type"]]
        for name in ("Wait for the backup", "Look at the backup", "Is the backup available?")
    )
    once = events(dict(restore)) + events(dict(backup))
    assert RESTORE_POLLS * RESTORE_POLL_SECONDS >= RESTORE_SECONDS
    worst = once + RESTORE_POLLS * restore_look + leaves.BACKUP_POLLS * backup_look
    assert RESTORE_SECONDS // RESTORE_POLL_SECONDS * restore_look > 5000, "the polls are what counts"
    assert worst < HISTORY_EVENTS


def test_orchestrator_of_a_hundred_tables_fits_one_history() -> None:
    """Catches per-table work that is done in the orchestrator's own history."""
    definition = orchestrator_definition()
    own = events(definition["States"])
    delete = definition["States"]["Delete the temporary tables"]
    iterations = TABLES * (ITERATION_EVENTS + events(delete["ItemProcessor"]["States"]))
    # Each loop of freeze, second look, discard or release is one Lambda of up to 15 minutes, or a pause of 15 seconds:
    # of those MAPPING_POLLS for mappings, and half an hour's for a crowd at Lambda's API.
    rounds = (FREEZE_ROUNDS + 1) * (EVENTS["Map"] + 3 * EVENTS["Choice"])
    loops = (5 + FREEZE_ROUNDS) * (MAPPING_POLLS + 120) * (EVENTS["Task"] + EVENTS["Choice"] + EVENTS["Wait"]) + rounds
    assert own + iterations + loops < HISTORY_EVENTS
    assert delete["MaxConcurrency"] <= INLINE_CONCURRENCY


def test_a_segment_that_waits_for_its_turn_fits_one_history() -> None:
    """Catches a worker's wait for free concurrency that leaves too few events for its work, or ends within the hour."""
    maps = [state for state in hard_reset_definition()["States"].values() if state["Type"] == "Map"]
    assert len(maps) >= 4
    for state in maps:
        states = state["ItemProcessor"]["States"]
        work = next(one for one in states.values() if one["Type"] == "Task")
        throttled = next(one for one in work["Retry"] if "Lambda.TooManyRequestsException" in one["ErrorEquals"])
        assert throttled["MaxAttempts"] * throttled["MaxDelaySeconds"] / 2 > 12 * 3600
        invocations = 1_000 * sum(EVENTS[one["Type"]] for one in states.values() if one["Type"] != "Succeed")
        assert events(states) + invocations < HISTORY_EVENTS


def test_work_per_table_and_segment_runs_in_executions_of_its_own() -> None:
    """Catches a Map over tables or segments that would share its parent's history, 40 at a time."""
    for definition, inline in (
        (hard_reset_definition(), set()),
        (orchestrator_definition(), {"Delete the temporary tables"}),
    ):
        maps = {name: state for name, state in definition["States"].items() if state["Type"] == "Map"}
        assert len(maps) >= 3
        for name, state in maps.items():
            mode = "INLINE" if name in inline else "DISTRIBUTED"
            assert state["ItemProcessor"]["ProcessorConfig"]["Mode"] == mode
            assert state["MaxConcurrency"] < DISTRIBUTED_CHILDREN
            assert len(state.get("Label", "")) <= 40


def _table(index: int) -> dict[str, Any]:
    name = f"{index:03d}".rjust(255, "x")
    arn = "arn:aws:dynamodb:ap-southeast-2:123456789012:table/"
    return {
        "tableName": name,
        "tableArn": arn + name,
        "restoredTableName": name,
        "restoredTableArn": arn + name,
        "items": 10**10,
        "bytes": 10**13,
        "segments": 1000,
        "ttlAttribute": "x" * 255,
    }


def _length(found: Forecast) -> int:
    return len(json.dumps(found.to_json()))


def test_payloads_of_a_hundred_tables_with_the_longest_names_fit() -> None:
    """Catches a plan, a Map's result or the final output that outgrows 256 KiB."""
    plan = {"tables": [_table(index) for index in range(TABLES)], "temporaryTables": ["x" * 255] * TABLES}
    assert len(json.dumps(plan)) < PAYLOAD_BYTES
    # A dry run's plan and output: a forecast instead of ARNs. A DynamoDB stream bears two readers; a table's and a
    # function's longest names.
    facts = TableFacts(items=10**10, bytes=10**13, capacity=CapacityFacts(on_demand=False, write=9e4, read=9e4))
    forecast_of = partial(forecast, facts, Options(segments=1000, concurrency=1000), Prices())
    foreseen = max((forecast_of(mode=mode) for mode in ("hard-reset", "differential")), key=_length)
    consumer = {"tableName": "x" * 255, "functionName": "x" * 64, "uuid": "x" * 36, "enabled": False, "frozen": False}
    tables = [
        {name: value for name, value in _table(index).items() if not name.endswith("Arn")}
        | {"forecast": foreseen.to_json()}
        for index in range(MOST_TABLES)
    ]
    together = describe_all(dict.fromkeys(map(str, range(MOST_TABLES)), foreseen), {}, Prices())
    plan = {"tables": tables, "temporaryTables": ["x" * 255] * MOST_TABLES, "forecast": together}
    assert len(json.dumps(plan)) < PAYLOAD_BYTES
    planned = {"tables": tables[:TABLES], "forecast": together, "streamConsumers": [consumer] * 2 * TABLES}
    assert len(json.dumps(planned)) < PAYLOAD_BYTES
    summary = {
        "tableName": "x" * 255,
        "mode": DIFFERENTIAL,
        **dict.fromkeys(("purgedItems", "copiedItems", "verifiedItems", "durationSeconds"), 10**10),
        "expiredItems": {"source": 10**10, "destination": 10**10},
        "sourceDigest": "f" * 64,
        "destinationDigest": "f" * 64,
        "verified": True,
        "consumedCapacity": {"readUnits": 10.0**11, "writeUnits": 10.0**11},
        "phaseSeconds": dict.fromkeys(("purge", "copy", "verify"), 10**7),
        "forecast": foreseen.to_json(),
        "usd": 1_000_000.01,
    }
    assert len(json.dumps([summary] * MOST_TABLES)) < PAYLOAD_BYTES
    prepared = {"tableName": "x" * 255, "tableArn": "x" * 310, "restoredTableArn": "x" * 310, "backupArn": "x" * 350}
    assert len(json.dumps([prepared] * TABLES)) < PAYLOAD_BYTES


def test_results_of_the_most_segments_fit_even_if_all_fail() -> None:
    """Catches causes of thousands of failed segments that together end the execution with States.DataLimitExceeded."""
    most = choose_segments(10**12, 10**15)
    for children in (1, 50, most, 2 * most):
        limit = min(leaves._LONGEST_CAUSE, leaves._CAUSES_BUDGET // children)
        failure = {"error": "CapacityExhausted", "cause": "x" * limit}
        # Escaping a cause that is JSON may lengthen it by a quarter.
        assert len(json.dumps([failure] * children)) * 1.25 < PAYLOAD_BYTES, children
    assert len(json.dumps(list(range(most)))) < PAYLOAD_BYTES
