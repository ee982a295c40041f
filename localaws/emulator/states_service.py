"""Step Functions: ministack's API over our own runs of JSONata machines."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextvars import copy_context
from typing import Any

from localaws.emulator import asl_jsonata, asl_tasks, iam, patching
from localaws.emulator.asl_errors import StateError, StoppedError
from localaws.emulator.asl_machine import PAYLOAD_BYTES, Host, Machine, MapRun, Stop

# A timer is a thread: limits that no rehearsal lives to see get none.
LONGEST_TIMED_SECONDS = 6 * 3_600
UNSUPPORTED_MAP_FIELDS = ("ItemReader", "ItemBatcher", "ResultWriter", "Iterator", "ItemsPath", "Parameters")
JSONPATH_FIELDS = ("InputPath", "OutputPath", "ResultPath", "ResultSelector", "Parameters", "SecondsPath", "Variable")


class _Running:
    """What the service keeps of an execution under way."""

    def __init__(self) -> None:
        self.stop = Stop()
        self.ended = threading.Event()
        self.children: list[str] = []
        self.parent: str | None = None
        self.map_child = False


_RUNNING: dict[str, _Running] = {}
_LOCK = threading.Lock()


def apply() -> None:
    """Replace the runner, stopping, and what is accepted as a definition."""
    from ministack.services import stepfunctions

    asl_jsonata.require_engine()
    asl_tasks.require_services()
    iam.require_evaluator()
    patching.require_names(
        stepfunctions, "_executions", "_state_machines", "_map_runs", "_SFN_WAIT_SCALE", "now_iso", "new_uuid"
    )
    patching.require(stepfunctions, "_emit_execution_status_event", "(execution)")

    def create(data: dict[str, Any]) -> Any:
        problem = definition_problem(data.get("definition"))
        if problem:
            return stepfunctions.error_response_json(
                "InvalidDefinition", f"Invalid State Machine Definition: {problem}"
            )
        return original_create(data)

    def update(data: dict[str, Any]) -> Any:
        problem = definition_problem(data["definition"]) if "definition" in data else None
        if problem:
            return stepfunctions.error_response_json(
                "InvalidDefinition", f"Invalid State Machine Definition: {problem}"
            )
        return original_update(data)

    def start(data: dict[str, Any]) -> Any:
        text = data.get("input", "{}")
        if len(text.encode()) > PAYLOAD_BYTES:
            return stepfunctions.error_response_json(
                "ValidationException",
                f"1 validation error detected: Value at 'input' failed to satisfy constraint: Member must have length "
                f"less than or equal to {PAYLOAD_BYTES}",
            )
        try:
            json.loads(text)
        except ValueError as error:
            return stepfunctions.error_response_json(
                "InvalidExecutionInput", f"Invalid State Machine Execution Input: {error}"
            )
        name = data.get("name")
        if name is not None and not 1 <= len(name) <= 80:
            return stepfunctions.error_response_json("InvalidName", f"Invalid Name: '{name}'")
        answer = original_start(data)
        if answer[0] == 200:
            _running(json.loads(answer[2])["executionArn"])  # known before its thread gets to run
        return answer

    host = _MinistackHost(stepfunctions)
    original_create = patching.replace(stepfunctions, "_create_state_machine", "(data)", create)
    original_update = patching.replace(stepfunctions, "_update_state_machine", "(data)", update)
    original_start = patching.replace(stepfunctions, "_start_execution", "(data)", start)
    original_stop = patching.require(stepfunctions, "_stop_execution", "(data)")

    def stop(data: dict[str, Any]) -> Any:
        answer = original_stop(data)
        if answer[0] == 200:
            host.end(str(data.get("executionArn")))
        return answer

    patching.replace(stepfunctions, "_stop_execution", "(data)", stop)
    patching.replace(stepfunctions, "_run_execution", "(exec_arn)", host.run_execution)


class _MinistackHost(Host):
    """Executions in ministack's stores."""

    def __init__(self, stepfunctions: Any) -> None:
        self.service = stepfunctions
        self.wait_scale = float(stepfunctions._SFN_WAIT_SCALE)

    def now(self) -> str:
        return str(self.service.now_iso())

    def run_execution(self, exec_arn: str) -> None:
        """Run a started execution to its end; called in a thread of its own."""
        execution = self.service._executions.get(exec_arn)
        machine = self.service._state_machines.get(execution["stateMachineArn"]) if execution else None
        if execution is None or machine is None:
            return
        running = _running(exec_arn)
        definition = json.loads(machine["definition"])
        timer = self._timer(execution, definition)
        try:
            output = Machine(
                execution=execution,
                definition=definition,
                machine={"arn": execution["stateMachineArn"], "name": machine["name"]},
                role_arn=machine["roleArn"],
                stop=running.stop,
                host=self,
            ).run()
            self._end(execution, "SUCCEEDED", output=json.dumps(output))
        except StateError as error:
            self._end(execution, "FAILED", error=error.error, cause=error.cause)
        except StoppedError:
            pass  # whoever ended it has written why
        except Exception as error:  # noqa: BLE001  # a bug of the emulator must show in the execution, not hang it
            self._end(execution, "FAILED", error="States.Runtime", cause=f"{type(error).__name__}: {error}")
        finally:
            if timer is not None:
                timer.cancel()
            running.ended.set()

    def _timer(self, execution: dict[str, Any], definition: Mapping[str, Any]) -> threading.Timer | None:
        seconds = definition.get("TimeoutSeconds")
        if seconds is None or seconds > LONGEST_TIMED_SECONDS:
            return None

        def time_out() -> None:
            self._end(execution, "TIMED_OUT")
            self.end(execution["executionArn"])

        # The timer's thread needs the account and region of this one to find children.
        timer = threading.Timer(seconds, copy_context().run, args=(time_out,))
        timer.daemon = True
        timer.start()
        return timer

    def _end(
        self,
        execution: dict[str, Any],
        status: str,
        *,
        output: str | None = None,
        error: str | None = None,
        cause: str | None = None,
    ) -> None:
        """Write how an execution ended, unless something else has ended it before."""
        with _LOCK:
            if execution["status"] != "RUNNING":
                return
            execution.update(status=status, output=output, error=error, cause=cause, stopDate=self.now())
        kind, key = {
            "SUCCEEDED": ("ExecutionSucceeded", "executionSucceededEventDetails"),
            "FAILED": ("ExecutionFailed", "executionFailedEventDetails"),
            "TIMED_OUT": ("ExecutionTimedOut", "executionTimedOutEventDetails"),
            "ABORTED": ("ExecutionAborted", "executionAbortedEventDetails"),
        }[status]
        details = {"output": output} if status == "SUCCEEDED" else {"error": error or "", "cause": cause or ""}
        events = execution["events"]
        events.append(
            {"id": len(events) + 1, "previousEventId": len(events), "type": kind, "timestamp": self.now(), key: details}
        )
        self.service._emit_execution_status_event(execution)

    def end(self, exec_arn: str) -> None:
        """End an execution's threads and abort its children, however deep."""
        running = _RUNNING.get(exec_arn)
        if running is None:
            return
        running.stop.set()
        for child in list(running.children):
            execution = self.service._executions.get(child)
            if execution is not None and execution["status"] == "RUNNING":
                self._end(execution, "ABORTED")
            self.end(child)

    def abort(self, exec_arn: str, *, whole: bool) -> None:
        arn, running = exec_arn, _running(exec_arn)
        while running.parent is not None and (whole or running.map_child):
            arn = running.parent
            running = _running(arn)
        # As an operator's call does; the error and cause are what the console would ask for.
        self.service._stop_execution({"executionArn": arn, "error": "Stopped", "cause": "Fault on purpose"})

    def start_child(
        self, parent: dict[str, Any], request: dict[str, Any]
    ) -> tuple[dict[str, Any], Callable[[float], bool]]:
        status, _, body = self.service._start_execution(request)
        answer = json.loads(body)
        if status >= 400:
            code = str(answer.get("__type", "AWSStepFunctions")).removesuffix("Exception")
            raise StateError(f"StepFunctions.{code}Exception", str(answer.get("message", "")))
        arn = answer["executionArn"]
        _running(parent["executionArn"]).children.append(arn)
        child = _running(arn)
        child.parent = parent["executionArn"]
        return self.service._executions.get(arn), child.ended.wait

    def open_map_run(self, parent: dict[str, Any], label: str, items: int, at_once: int) -> MapRun:
        return _MinistackMapRun(self, parent, label, items, at_once)


class _MinistackMapRun(MapRun):
    """A distributed Map whose run and children ListMapRuns, DescribeMapRun and ListExecutions show."""

    def __init__(self, host: _MinistackHost, parent: dict[str, Any], label: str, items: int, at_once: int) -> None:
        self._host, self._parent = host, parent
        parts = parent["stateMachineArn"].split(":")
        self._region, self._account, machine = parts[3], parts[4], parts[6].partition("/")[0]
        self._path = f"{machine}/{''.join(label.split())[:40]}"
        base = f"arn:aws:states:{self._region}:{self._account}"
        self.arn = f"{base}:mapRun:{self._path}:{host.service.new_uuid()}"
        self._machine_arn = f"{base}:stateMachine:{self._path}"
        self._lock = threading.Lock()
        zero = dict.fromkeys(
            (
                "running",
                "succeeded",
                "failed",
                "timedOut",
                "aborted",
                "resultsWritten",
                "failuresNotRedrivable",
                "pendingRedrive",
            ),
            0,
        )
        counts = {**zero, "pending": items, "total": items}
        self._run: dict[str, Any] = {
            "mapRunArn": self.arn,
            "executionArn": parent["executionArn"],
            "status": "RUNNING",
            "startDate": host.now(),
            "maxConcurrency": at_once,
            "toleratedFailurePercentage": 0,
            "toleratedFailureCount": 0,
            "itemCounts": dict(counts),
            "executionCounts": dict(counts),
            "redriveCount": 0,
            "_stateMachineArn": self._machine_arn,
        }
        host.service._map_runs[self.arn] = self._run

    def child(self, text: str, processor: Mapping[str, Any], role_arn: str, stop: Stop) -> tuple[bool, Any]:
        host, name = self._host, self._host.service.new_uuid()
        arn = f"arn:aws:states:{self._region}:{self._account}:execution:{self._path}:{name}"
        execution: dict[str, Any] = {
            "executionArn": arn,
            "stateMachineArn": self._machine_arn,
            "name": name,
            "status": "RUNNING",
            "startDate": host.now(),
            "stopDate": None,
            "input": text,
            "inputDetails": {"included": True},
            "output": None,
            "outputDetails": {"included": True},
            "mapRunArn": self.arn,
            "events": [],
        }
        host.service._executions[arn] = execution
        running = _running(arn)
        running.stop = stop
        running.parent, running.map_child = self._parent["executionArn"], True
        _running(self._parent["executionArn"]).children.append(arn)
        self._count("pending", "running")
        result: tuple[bool, Any] = (False, None)
        try:
            output = Machine(
                execution=execution,
                definition=processor,
                machine={"arn": self._machine_arn, "name": self._path},
                role_arn=role_arn,
                stop=stop,
                host=host,
            ).run()
            host._end(execution, "SUCCEEDED", output=json.dumps(output))
            result = (True, output)
        except StateError as error:
            host._end(execution, "FAILED", error=error.error, cause=error.cause)
        except StoppedError:
            host._end(execution, "ABORTED")
            raise
        except Exception as error:  # noqa: BLE001  # as in run_execution
            host._end(execution, "FAILED", error="States.Runtime", cause=f"{type(error).__name__}: {error}")
        finally:
            self._count("running", {"SUCCEEDED": "succeeded", "ABORTED": "aborted"}.get(execution["status"], "failed"))
            running.ended.set()
        return result

    def close(self, status: str) -> None:
        self._run.update(status=status, stopDate=self._host.now())

    def _count(self, before: str, after: str) -> None:
        with self._lock:
            for counts in (self._run["itemCounts"], self._run["executionCounts"]):
                counts[before] -= 1
                counts[after] += 1


def _running(exec_arn: str) -> _Running:
    with _LOCK:
        return _RUNNING.setdefault(exec_arn, _Running())


def has_ended(exec_arn: str) -> bool:
    """Whether nothing of an execution runs any more; of one that was never started here that is true."""
    with _LOCK:
        running = _RUNNING.get(exec_arn)
    return running is None or running.ended.is_set()


def definition_problem(text: Any) -> str | None:
    """Why this definition cannot be run faithfully here, or None. What AWS itself checks is ministack's part."""
    try:
        definition = json.loads(text)
    except (TypeError, ValueError):
        return "it is not valid JSON"
    if not isinstance(definition, dict) or not definition.get("StartAt") or not definition.get("States"):
        return "StartAt and States are required"
    if definition.get("QueryLanguage") != "JSONata":
        return 'the embedded AWS runs only machines with "QueryLanguage": "JSONata"'
    return next(_problems(definition, ""), None)


def _problems(machine: Mapping[str, Any], path: str) -> Iterator[str]:
    states = machine.get("States") or {}
    targets = {machine.get("StartAt")}
    for name, state in states.items():
        where = f"{path}/States/{name}"
        targets |= {entry.get("Next") for entry in [state, *state.get("Catch", []), *state.get("Choices", [])]}
        targets.add(state.get("Default"))
        kind = state.get("Type")
        if state.get("QueryLanguage", "JSONata") != "JSONata" or any(key in state for key in JSONPATH_FIELDS):
            yield f"{where} uses JSONPath, which the embedded AWS does not run"
        if kind not in ("Fail", "Succeed", "Choice") and ("Next" in state) == bool(state.get("End")):
            yield f"{where} needs either Next or End"
        if kind == "Task" and not asl_tasks.is_supported(str(state.get("Resource", ""))):
            yield f"{where}: the embedded AWS does not carry out {state.get('Resource')}"
        if kind == "Task" and "HeartbeatSeconds" in state:
            yield f"{where}: the embedded AWS has no heartbeats"
        for nested in state.get("Branches", []):
            yield from _problems(nested, where)
        if kind == "Map":
            for key in UNSUPPORTED_MAP_FIELDS:
                if key in state:
                    yield f"{where}: the embedded AWS does not support {key}"
            yield from _problems(state.get("ItemProcessor") or {}, where)
    for target in sorted(target for target in targets if target is not None and target not in states):
        yield f"{path or '/'}: no state is called '{target}'"
