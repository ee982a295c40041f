"""Failures of Python Lambda functions as AWS reports them, and workers that survive them.

ministack calls every failure Runtime.HandlerError, so that a Retry or Catch by the exception's name never matches, and
ends the worker's process, so that the next call pays a cold start.
"""

import signal
import threading
from typing import Any

from localaws.emulator import patching
from localaws.emulator.faults import FAULTS

MARKER = "__localaws_function_error__"
TIMEOUT_TEXT = "Task timed out after "

# The worker's answer to a handler that raised: ministack's, and ours, which travels as a result that is marked.
_RAISED = (
    '_real_stdout.write(json.dumps({"status": "error", "error": str(e), "trace": traceback.format_exc()}) + "\\n")'
)
_REPORTED = (
    '_real_stdout.write(json.dumps({"status": "ok", "result": {"'
    + MARKER
    + '": {"errorMessage": str(e), "errorType": type(e).__name__, '
    '"stackTrace": traceback.format_tb(e.__traceback__)}}}) + "\\n")'
)
# What the worker does before it imports the handler: name itself in its calls, so that a fault can kill the one that
# called, and shorten its sleeps. Only durations change: every retry and every back-off still happens, in its order.
_INSTALL = "    _ms_install_invoke_depth()\n"
_PREPARED = (
    _INSTALL
    + """
    _scale = float(os.environ.get("LOCAL_AWS_SDK_SCALE", "1"))
    if _scale != 1:
        _sleep = time.sleep
        time.sleep = lambda seconds: _sleep(seconds * _scale)
    try:
        import botocore.handlers
    except ImportError:
        pass
    else:
        def _name_worker(params, **kwargs):
            params["headers"]["X-Localaws-Worker"] = str(os.getpid())
        botocore.handlers.BUILTIN_HANDLERS.append(("before-call", _name_worker))
"""
)
DIED = "Worker process died"


def apply() -> None:
    """Rewrite the worker's script and unpack what it reports."""
    from ministack.core import lambda_runtime
    from ministack.services import lambda_svc

    patching.require_names(lambda_runtime, "_PYTHON_WORKER_SCRIPT")
    script: str = lambda_runtime._PYTHON_WORKER_SCRIPT
    if script.count(_RAISED) != 1:
        raise patching.MendError("The Python worker script of ministack no longer reports errors as the mend expects.")
    if script.count(_INSTALL) != 1:
        raise patching.MendError("The Python worker script of ministack no longer prepares as the mend expects.")
    lambda_runtime._PYTHON_WORKER_SCRIPT = script.replace(_RAISED, _REPORTED).replace(_INSTALL, _PREPARED)

    collected = threading.local()

    def collect(process: Any, deadline: float) -> None:
        original_collect(process, deadline)
        collected.status = process.returncode if process is not None else None

    original_collect = patching.replace(lambda_runtime, "_collect", "(proc, deadline)", collect)

    def execute(func: dict[str, Any], event: Any, request_id: str) -> Any:
        FAULTS.invocation(1)
        try:
            result = original(func, event, request_id)
        finally:
            FAULTS.invocation(-1)
        body = result.get("body")
        if isinstance(body, dict) and MARKER in body:
            trace = "".join(body[MARKER]["stackTrace"])
            log = "\n".join(filter(None, [result.get("log", ""), trace]))
            return {"body": body[MARKER], "error": True, "log": log}
        message = body.get("errorMessage") if isinstance(body, dict) and result.get("error") else None
        if isinstance(message, str) and message.startswith(TIMEOUT_TEXT):
            body["errorMessage"] = f"RequestId: {request_id} Error: {message}"
            body["errorType"] = "Sandbox.Timedout"
        elif message == DIED:
            ending = exit_words(getattr(collected, "status", None))
            body["errorMessage"] = f"RequestId: {request_id} Error: Runtime exited with error: {ending}"
            body["errorType"] = "Runtime.ExitError"
        return result

    original = patching.replace(lambda_svc, "_execute_function_warm", "(func, event, request_id)", execute)


def exit_words(status: int | None) -> str:
    """How AWS words the end of a runtime's process: by its exit status, or by the signal that ended it (negative)."""
    if status is not None and status >= 0:
        return f"exit status {status}"
    if status is None or -status == signal.SIGKILL:
        return "signal: killed"
    return f"signal: {(signal.strsignal(-status) or str(-status)).lower()}"
