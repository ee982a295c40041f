"""Failures of Python Lambda functions as AWS reports them, and workers that survive them.

ministack calls every failure Runtime.HandlerError, so that a Retry or Catch by the exception's name never matches, and
ends the worker's process, so that the next call pays a cold start.
"""

from typing import Any

from localaws.emulator import patching

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
_QUIET_WAIT = (0.010, 0.003, 0.250)  # first line, after a line, at most: ministack waits 50 ms when nothing is logged


def apply() -> None:
    """Rewrite the worker's script and unpack what it reports."""
    from ministack.core import lambda_runtime
    from ministack.services import lambda_svc

    patching.require_names(lambda_runtime, "_PYTHON_WORKER_SCRIPT")
    script: str = lambda_runtime._PYTHON_WORKER_SCRIPT
    if script.count(_RAISED) != 1:
        raise patching.MendError("The Python worker script of ministack no longer reports errors as the mend expects.")
    lambda_runtime._PYTHON_WORKER_SCRIPT = script.replace(_RAISED, _REPORTED)
    drain = patching.require(
        lambda_runtime.Worker, "_drain_stderr_bounded", "(self, first_line_wait, idle_confirm, hard_cap)"
    )
    drain.__defaults__ = _QUIET_WAIT

    def execute(func: dict[str, Any], event: Any, request_id: str) -> Any:
        result = original(func, event, request_id)
        body = result.get("body")
        if isinstance(body, dict) and MARKER in body:
            trace = "".join(body[MARKER]["stackTrace"])
            log = "\n".join(filter(None, [result.get("log", ""), trace]))
            return {"body": body[MARKER], "error": True, "log": log}
        message = body.get("errorMessage") if isinstance(body, dict) and result.get("error") else None
        if isinstance(message, str) and message.startswith(TIMEOUT_TEXT):
            body["errorMessage"] = f"RequestId: {request_id} Error: {message}"
            body["errorType"] = "Sandbox.Timedout"
        return result

    original = patching.replace(lambda_svc, "_execute_function_warm", "(func, event, request_id)", execute)
