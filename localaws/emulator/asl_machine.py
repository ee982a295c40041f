"""Running a JSONata state machine as AWS does: scopes of variables, limits, errors, stops and timeouts.

ministack's own interpreter differs where the product relies on it (Items and ItemSelector of a distributed Map, Output
and Arguments of a Parallel, variables leaking out of branches, States.ALL catching everything, executions that go on
after being stopped), so this one replaces it; executions and map runs stay in ministack's stores, which its API reads.
"""

import json
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from localaws.emulator import asl_jsonata, asl_tasks, faults_states
from localaws.emulator.asl_errors import StateError, StoppedError, matches

State = Mapping[str, Any]

PAYLOAD_BYTES = 262_144
HISTORY_EVENTS = 25_000
STOP_POLL_SECONDS = 0.02
# AWS runs 40 iterations of an inline Map at once and 10,000 children of a distributed one; two cores run fewer.
INLINE_CONCURRENCY = 40
DISTRIBUTED_CONCURRENCY = 64
DEFAULT_RETRY = {"IntervalSeconds": 1, "MaxAttempts": 3, "BackoffRate": 2.0}


class Stop:
    """Tells the threads of an execution, or of one branch of it, that they are to end."""

    def __init__(self, parent: "Stop | None" = None) -> None:
        self._event = threading.Event()
        self._parent = parent

    def set(self) -> None:
        """End this part and every part below it."""
        self._event.set()

    def check(self) -> None:
        """Raise StoppedError once this part, or one above it, was ended."""
        part: Stop | None = self
        while part is not None:
            if part._event.is_set():
                raise StoppedError
            part = part._parent

    def sleep(self, seconds: float) -> None:
        """Sleep, ending early with StoppedError when ended."""
        deadline = time.monotonic() + seconds
        while True:
            self.check()
            left = deadline - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, STOP_POLL_SECONDS))


@dataclass(kw_only=True)
class Scope:
    """What one thread of an execution sees: its context object, its variables, and whether it is to end."""

    context: dict[str, Any]
    variables: dict[str, Any] = field(default_factory=dict)
    stop: Stop

    def inner(self, **context: Any) -> "Scope":
        """A scope inside this one: it reads the variables as they are now, and assigns to its own."""
        return Scope(context={**self.context, **context}, variables=dict(self.variables), stop=Stop(self.stop))


class Machine:
    """One execution being run.

    Args:
        execution: its record in ministack's store.
        definition: the machine's, parsed.
        machine: {"arn", "name"} of the machine as the context object shows it.
        role_arn: in whose name tasks call.
        stop: ends it.
        host: keeps executions.
    """

    def __init__(
        self,
        *,
        execution: dict[str, Any],
        definition: State,
        machine: Mapping[str, str],
        role_arn: str,
        stop: Stop,
        host: "Host",
    ) -> None:
        self.execution = execution
        self.role_arn = role_arn
        self.session = "StepFunctions"
        _, _, _, self.region, self.account_id, *_ = execution["executionArn"].split(":")
        self._definition = definition
        self._machine = machine
        self._stop = stop
        self._host = host
        self._events_lock = threading.Lock()
        # A distributed Map's child runs as "machine/label"; its states are the machine's.
        self._kind = machine["name"].partition("/")[0]

    def _abort(self, whole: bool) -> None:
        self._host.abort(self.execution["executionArn"], whole=whole)

    def run(self) -> Any:
        """Run to the end and return the output.

        Raises:
            StateError: the execution failed.
            StoppedError: it was ended from outside.
        """
        text = self.execution["input"]
        scope = Scope(
            context={
                "Execution": {
                    "Id": self.execution["executionArn"],
                    "Input": json.loads(text),
                    "Name": self.execution["name"],
                    "RoleArn": self.role_arn,
                    "StartTime": self.execution["startDate"],
                    "RedriveCount": 0,
                },
                "StateMachine": {"Id": self._machine["arn"], "Name": self._machine["name"]},
            },
            stop=self._stop,
        )
        return self._run_states(self._definition, json.loads(text), scope)

    def check(self) -> None:
        """Raise StoppedError when the execution was ended from outside."""
        self._stop.check()

    def event(self, kind: str, **details: Any) -> None:
        """Add to the history.

        Raises:
            StateError: States.Runtime, when the history is full.
        """
        with self._events_lock:
            events = self.execution["events"]
            if len(events) >= HISTORY_EVENTS:
                raise StateError(
                    "States.Runtime", f"The execution reached the maximum number of history events ({HISTORY_EVENTS})."
                )
            events.append(
                {"id": len(events) + 1, "previousEventId": len(events), "type": kind, "timestamp": self._host.now()}
                | details
            )

    # States, one after the other

    def _run_states(self, machine: State, value: Any, scope: Scope) -> Any:
        states, name = machine["States"], machine["StartAt"]
        while name is not None:
            scope.stop.check()
            state = states.get(name)
            if state is None:
                raise StateError("States.Runtime", f"State '{name}' not found in the definition.")
            scope.context["State"] = {"Name": name, "EnteredTime": self._host.now(), "RetryCount": 0}
            kind = state["Type"]
            self.event(f"{kind}StateEntered", stateEnteredEventDetails={"name": name, "input": json.dumps(value)})
            faults_states.entered(self._kind, name, self._abort)
            scope.stop.check()
            output, name_after = self._run_state(kind, state, value, scope)
            value = within_limit(output, f"The state '{name}' returned a result")
            if kind != "Fail":
                self.event(f"{kind}StateExited", stateExitedEventDetails={"name": name, "output": json.dumps(value)})
            name = name_after
        return value

    def _run_state(self, kind: str, state: State, value: Any, scope: Scope) -> tuple[Any, str | None]:
        match kind:
            case "Pass":
                return self._finish(state, value, scope, default=value)
            case "Succeed":
                return self._template(state.get("Output", value), value, scope) if "Output" in state else value, None
            case "Fail":
                raise self._failure(state, value, scope)
            case "Wait":
                self._wait(state, value, scope)
                return self._finish(state, value, scope, default=value)
            case "Choice":
                return self._choose(state, value, scope)
            case "Task":
                return self._with_retries(state, value, scope, lambda: self._task(state, value, scope))
            case "Parallel":
                return self._with_retries(state, value, scope, lambda: self._parallel(state, value, scope))
            case "Map":
                return self._with_retries(state, value, scope, lambda: self._map(state, value, scope))
        raise StateError("States.Runtime", f"Unknown state type '{kind}'.")

    def _template(self, what: Any, value: Any, scope: Scope, **more: Any) -> Any:
        return asl_jsonata.template(what, {"input": value, "context": scope.context, **more}, scope.variables)

    def _field(self, state: State, name: str, kind: str, value: Any, scope: Scope) -> Any:
        return asl_jsonata.field(state, name, kind, {"input": value, "context": scope.context}, scope.variables)

    def _finish(self, state: State, value: Any, scope: Scope, *, default: Any, **more: Any) -> tuple[Any, str | None]:
        """Output and Assign, both from the values at the state's entry; returns the output and the next state."""
        output = self._template(state["Output"], value, scope, **more) if "Output" in state else default
        assigned = self._template(state.get("Assign", {}), value, scope, **more)
        within_limit(assigned, "The variables of one Assign")
        scope.variables.update(json.loads(json.dumps(assigned)))
        return output, state.get("Next")

    def _failure(self, state: State, value: Any, scope: Scope) -> StateError:
        error = self._field(state, "Error", "string", value, scope) if "Error" in state else ""
        cause = self._field(state, "Cause", "string", value, scope) if "Cause" in state else ""
        return StateError(error, cause)

    def _choose(self, state: State, value: Any, scope: Scope) -> tuple[Any, str | None]:
        for rule in state["Choices"]:
            if self._field(rule, "Condition", "boolean", value, scope):
                return self._finish(rule, value, scope, default=value)
        if "Default" not in state:
            raise StateError("States.NoChoiceMatched", "No choice rule matched and no Default is given.")
        output, _ = self._finish(state, value, scope, default=value)
        return output, state["Default"]

    def _wait(self, state: State, value: Any, scope: Scope) -> None:
        if "Seconds" in state:
            seconds = self._field(state, "Seconds", "number", value, scope)
            if seconds < 0 or seconds != int(seconds):
                raise StateError("States.QueryEvaluationError", f"Seconds must be a whole number, found {seconds}.")
        else:
            moment = self._field(state, "Timestamp", "string", value, scope)
            try:
                until = datetime.fromisoformat(moment.replace("Z", "+00:00"))
            except ValueError as error:
                raise StateError("States.QueryEvaluationError", f"Timestamp cannot be parsed: {moment}.") from error
            seconds = max(0.0, until.timestamp() - time.time())
        scope.stop.sleep(seconds * self._host.wait_scale)

    def _with_retries(
        self, state: State, value: Any, scope: Scope, attempt: Callable[[], tuple[Any, str | None]]
    ) -> tuple[Any, str | None]:
        counts: dict[int, int] = {}
        entered = scope.context["State"]
        while True:
            scope.context["State"] = {**entered, "RetryCount": sum(counts.values())}
            try:
                return attempt()
            except StateError as error:
                failure = error
            scope.stop.check()
            scope.context["State"] = entered
            pause = _retry_pause(state.get("Retry", []), failure.error, counts)
            if pause is not None:
                scope.stop.sleep(pause * self._host.wait_scale)
                continue
            for catcher in state.get("Catch", []):
                if matches(catcher["ErrorEquals"], failure.error):
                    caught = {"Error": failure.error, "Cause": failure.cause}
                    return self._finish(catcher, value, scope, default=caught, errorOutput=caught)
            raise failure

    # Tasks

    def _task(self, state: State, value: Any, scope: Scope) -> tuple[Any, str | None]:
        resource = state["Resource"]
        arguments = self._template(state["Arguments"], value, scope) if "Arguments" in state else value
        within_limit(arguments, "The Arguments of the task")
        timeout = self._field(state, "TimeoutSeconds", "number", value, scope) if "TimeoutSeconds" in state else None
        details = {"resourceType": _resource_type(resource), "resource": resource.rpartition(":")[2]}
        self.event(
            "TaskScheduled",
            taskScheduledEventDetails={**details, "region": self.region, "parameters": json.dumps(arguments)},
        )
        self.event("TaskStarted", taskStartedEventDetails=details)
        try:
            result = faults_states.task(
                self._kind,
                scope.context["State"]["Name"],
                resource,
                lambda: self._timed(resource, arguments, timeout, scope),
            )
            result = within_limit(result, f"The task calling {resource} returned a result")
        except StateError as error:
            kind = "TaskTimedOut" if error.error == "States.Timeout" else "TaskFailed"
            key = f"{kind[0].lower()}{kind[1:]}EventDetails"
            self.event(kind, **{key: {**details, "error": error.error, "cause": error.cause}})
            raise
        self.event("TaskSucceeded", taskSucceededEventDetails={**details, "output": json.dumps(result)})
        return self._finish(state, value, scope, default=result, result=result)

    def _timed(self, resource: str, arguments: Any, timeout: float | None, scope: Scope) -> Any:
        caller = _TaskCaller(self, scope)
        if timeout is None:
            return asl_tasks.call(resource, arguments, caller)
        pool = ThreadPoolExecutor(max_workers=1)
        try:
            future = pool.submit(copy_context().run, asl_tasks.call, resource, arguments, caller)
            deadline = time.monotonic() + timeout
            while time.monotonic() < deadline:
                scope.stop.check()
                done, _ = wait([future], timeout=min(STOP_POLL_SECONDS, max(0.0, deadline - time.monotonic())))
                if done:
                    return future.result()
            raise StateError("States.Timeout", f"The task did not end within {timeout} seconds.")
        finally:
            pool.shutdown(wait=False)

    def start_child(self, request: dict[str, Any]) -> tuple[dict[str, Any], Callable[[float], bool]]:
        """Start a nested execution as a child of this one; see `asl_tasks.Caller`."""
        return self._host.start_child(self.execution, request)

    # Parallel and Map

    def _parallel(self, state: State, value: Any, scope: Scope) -> tuple[Any, str | None]:
        arguments = self._template(state["Arguments"], value, scope) if "Arguments" in state else value
        inner = [scope.inner() for _ in state["Branches"]]
        self.event("ParallelStateStarted")
        faults_states.whole(self._kind, scope.context["State"]["Name"])
        results = self._together(
            [
                partial(self._run_states, branch, _copied(arguments), own)
                for branch, own in zip(state["Branches"], inner, strict=True)
            ],
            [own.stop for own in inner],
            len(inner),
            scope,
        )
        self.event("ParallelStateSucceeded")
        return self._finish(state, value, scope, default=results, result=results)

    def _map(self, state: State, value: Any, scope: Scope) -> tuple[Any, str | None]:
        processor = state["ItemProcessor"]
        items = self._items(state, value, scope)
        at_once = int(self._field(state, "MaxConcurrency", "number", value, scope)) if "MaxConcurrency" in state else 0
        inputs = [self._item_input(state, value, scope, index, item) for index, item in enumerate(items)]
        self.event("MapStateStarted", mapStateStartedEventDetails={"length": len(items)})
        faults_states.whole(self._kind, scope.context["State"]["Name"])
        if (processor.get("ProcessorConfig") or {}).get("Mode") == "DISTRIBUTED":
            results = self._distributed(state, value, scope, inputs, at_once)
        else:
            name = scope.context["State"]["Name"]
            inner = [scope.inner(Map={"Item": {"Index": index, "Value": item}}) for index, item in enumerate(items)]

            def iterate(index: int) -> Any:
                self.event("MapIterationStarted", mapIterationStartedEventDetails={"name": name, "index": index})
                result = self._run_states(processor, _copied(inputs[index]), inner[index])
                self.event("MapIterationSucceeded", mapIterationSucceededEventDetails={"name": name, "index": index})
                return result

            results = self._together(
                [partial(iterate, index) for index in range(len(items))],
                [own.stop for own in inner],
                min(at_once or INLINE_CONCURRENCY, INLINE_CONCURRENCY),
                scope,
            )
        results = within_limit(results, f"The state '{scope.context['State']['Name']}' returned a result")
        self.event("MapStateSucceeded")
        return self._finish(state, value, scope, default=results, result=results)

    def _items(self, state: State, value: Any, scope: Scope) -> list[Any]:
        items = self._template(state["Items"], value, scope) if "Items" in state else value
        if isinstance(items, Mapping):
            return [{"Key": key, "Value": member} for key, member in items.items()]
        if not isinstance(items, list):
            raise StateError(
                "States.QueryEvaluationError",
                f"The field 'Items' must be an array or an object, found '{asl_jsonata.json_type(items)}'.",
            )
        return items

    def _item_input(self, state: State, value: Any, scope: Scope, index: int, item: Any) -> Any:
        if "ItemSelector" not in state:
            return item
        context = {**scope.context, "Map": {"Item": {"Index": index, "Value": item}}}
        selected = asl_jsonata.template(state["ItemSelector"], {"input": value, "context": context}, scope.variables)
        return within_limit(selected, "The ItemSelector returned a result")

    def _together(self, calls: list[Callable[[], Any]], stops: list[Stop], at_once: int, scope: Scope) -> list[Any]:
        """Run all; the first failure ends the others and is raised at once, as AWS does not wait for them."""
        if not calls:
            return []
        pool = ThreadPoolExecutor(max_workers=max(1, min(at_once, len(calls))))
        futures: list[Future[Any]] = [pool.submit(copy_context().run, call) for call in calls]
        try:
            pending = set(futures)
            while pending:
                scope.stop.check()
                done, pending = wait(pending, timeout=STOP_POLL_SECONDS, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            return [future.result() for future in futures]
        except BaseException:
            for stop in stops:
                stop.set()
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _distributed(self, state: State, value: Any, scope: Scope, inputs: list[Any], at_once: int) -> list[Any]:
        """Each item in an execution of its own, which sees its input and nothing else."""
        asl_tasks.allow(
            self,
            "states:StartExecution",
            self._machine["arn"].partition("/")[0],
            "StepFunctions.AWSStepFunctionsException",
            "AWSStepFunctions",
        )
        # AWS asks for these two when it watches and ends children; asked here at once, so that a role without them is
        # found out by the first rehearsal and not by the first failure.
        children = f"arn:aws:states:{self.region}:{self.account_id}:execution:{self._machine_name()}:*"
        for action in ("states:DescribeExecution", "states:StopExecution"):
            asl_tasks.allow(self, action, children, "StepFunctions.AWSStepFunctionsException", "AWSStepFunctions")
        tolerated = self._tolerated(state, value, scope, len(inputs))
        label = state.get("Label") or str(scope.context["State"]["Name"])
        run = self._host.open_map_run(self.execution, label, len(inputs), at_once)
        self.event("MapRunStarted", mapRunStartedEventDetails={"mapRunArn": run.arn})
        stop = Stop(scope.stop)
        failed, lock = [0], threading.Lock()

        def child(text: str) -> tuple[bool, Any]:
            stop.check()
            succeeded, output = run.child(text, state["ItemProcessor"], self.role_arn, Stop(stop))
            if not succeeded:
                with lock:
                    failed[0] += 1
                    if failed[0] > tolerated:
                        stop.set()
            return succeeded, output

        try:
            outcomes = self._together(
                [partial(child, json.dumps(one)) for one in inputs],
                [stop],
                min(at_once or DISTRIBUTED_CONCURRENCY, DISTRIBUTED_CONCURRENCY),
                scope,
            )
        except StoppedError:
            scope.stop.check()  # ended from outside: not this map's failure
            outcomes = []
        except BaseException:
            run.close("ABORTED")
            raise
        if failed[0] > tolerated:
            run.close("FAILED")
            self.event("MapRunFailed", mapRunFailedEventDetails={"error": _EXCEEDED, "cause": _EXCEEDED_CAUSE})
            raise StateError(_EXCEEDED, _EXCEEDED_CAUSE)
        run.close("SUCCEEDED")
        self.event("MapRunSucceeded")
        return [output for succeeded, output in outcomes if succeeded]

    def _machine_name(self) -> str:
        """The name of the state machine, also in a child of a Map of it."""
        return str(self._machine["arn"]).rpartition(":")[2].partition("/")[0]

    def _tolerated(self, state: State, value: Any, scope: Scope, items: int) -> int:
        """How many children may fail; with both limits given, the lower one."""
        limits = []
        if "ToleratedFailureCount" in state:
            limits.append(int(self._field(state, "ToleratedFailureCount", "number", value, scope)))
        if "ToleratedFailurePercentage" in state:
            percentage = self._field(state, "ToleratedFailurePercentage", "number", value, scope)
            limits.append(int(items * percentage / 100))
        return min(limits) if limits else 0


class _TaskCaller:
    """The execution as one task sees it: ended also when only the task's branch is."""

    def __init__(self, machine: Machine, scope: Scope) -> None:
        self.role_arn, self.session = machine.role_arn, machine.session
        self.region, self.account_id = machine.region, machine.account_id
        self._machine, self._scope = machine, scope

    def check(self) -> None:
        self._scope.stop.check()

    def start_child(self, request: dict[str, Any]) -> tuple[dict[str, Any], Callable[[float], bool]]:
        return self._machine.start_child(request)


class MapRun:
    """A distributed Map under way: what `Machine` needs of it; see `states_service`."""

    arn: str

    def child(self, text: str, processor: State, role_arn: str, stop: Stop) -> tuple[bool, Any]:
        """Run one child execution; returns whether it succeeded, and its output."""
        raise NotImplementedError

    def close(self, status: str) -> None:
        """Note that the run ended."""
        raise NotImplementedError


class Host:
    """Where executions are kept: what `Machine` needs of ministack; see `states_service`."""

    wait_scale: float

    def now(self) -> str:
        """The time as execution records hold it."""
        raise NotImplementedError

    def start_child(
        self, parent: dict[str, Any], request: dict[str, Any]
    ) -> tuple[dict[str, Any], Callable[[float], bool]]:
        """Start a nested execution; returns its record and a wait (seconds → has it ended)."""
        raise NotImplementedError

    def abort(self, exec_arn: str, *, whole: bool) -> None:
        """Stop the execution that a map run's child belongs to; with `whole` the one that nothing has started."""
        raise NotImplementedError

    def open_map_run(self, parent: dict[str, Any], label: str, items: int, at_once: int) -> MapRun:
        """Begin a distributed Map of `parent`."""
        raise NotImplementedError


_EXCEEDED = "States.ExceedToleratedFailureThreshold"
_EXCEEDED_CAUSE = "The specified tolerated failure threshold was exceeded"


def within_limit(value: Any, what: str) -> Any:
    """`value` as JSON would carry it, if it fits a payload.

    Raises:
        StateError: States.DataLimitExceeded, or States.Runtime when JSON has no form for it.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StateError("States.Runtime", f"{what} that is not JSON: {error}") from error
    size = len(text.encode())
    if size > PAYLOAD_BYTES:
        raise StateError(
            "States.DataLimitExceeded",
            f"{what} with a size ({size} bytes) exceeding the maximum number of bytes service limit ({PAYLOAD_BYTES}).",
        )
    return json.loads(text)


def _retry_pause(retriers: list[State], error: str, counts: dict[int, int]) -> float | None:
    """Seconds until the next attempt, counted against the first retrier that matches, or None to give up."""
    for index, retrier in enumerate(retriers):
        if matches(retrier["ErrorEquals"], error):
            settings = {**DEFAULT_RETRY, **retrier}
            count = counts.get(index, 0)
            if count >= settings["MaxAttempts"]:
                return None
            counts[index] = count + 1
            pause = float(settings["IntervalSeconds"]) * float(settings["BackoffRate"]) ** count
            pause = min(pause, float(settings.get("MaxDelaySeconds", pause)))
            return random.uniform(0, pause) if settings.get("JitterStrategy") == "FULL" else pause
    return None


def _resource_type(resource: str) -> str:
    return resource.partition("states:::")[2].rpartition(":")[0] or "lambda"


def _copied(value: Any) -> Any:
    return json.loads(json.dumps(value))
