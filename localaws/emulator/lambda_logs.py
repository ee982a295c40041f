"""What functions log, whole and under their role's permissions.

ministack collects the lines of a worker for as long as they come quickly, so that a busy machine loses some, and writes
them to CloudWatch Logs whether the function's role may or not. On AWS a function whose role may not write its log runs
without one.
"""

import queue
import time
from typing import Any

from localaws.emulator import iam, patching

END_OF_INVOCATION = "__localaws_end_of_invocation__"
LONGEST_WAIT_SECONDS = 2.0  # for the mark of a worker that died

_CALL = "            result = handler_fn(event, context)\n"
_MARKED_CALL = f"""            try:
                result = handler_fn(event, context)
            finally:
                sys.stderr.write("{END_OF_INVOCATION}\\n")
                sys.stderr.flush()
"""


def apply() -> None:
    """Let a worker mark where an invocation's log ends, read up to there, and ask the role before writing."""
    from ministack.core import lambda_runtime
    from ministack.services import lambda_svc

    script: str = lambda_runtime._PYTHON_WORKER_SCRIPT
    if script.count(_CALL) != 1:
        raise patching.MendError(
            "The Python worker script of ministack no longer calls the handler as the mend expects."
        )
    lambda_runtime._PYTHON_WORKER_SCRIPT = script.replace(_CALL, _MARKED_CALL)

    def drain(worker: Any, first_line_wait: float = 0.05, idle_confirm: float = 0.005, hard_cap: float = 0.25) -> str:
        if not str(worker.config.get("Runtime", "")).startswith("python"):
            return str(original_drain(worker, first_line_wait, idle_confirm, hard_cap))
        return lines_until_end(worker._stderr_queue)

    original_drain = patching.replace(
        lambda_runtime.Worker, "_drain_stderr_bounded", "(self, first_line_wait, idle_confirm, hard_cap)", drain
    )

    def emit(
        func: dict[str, Any],
        request_id: str,
        log_text: str,
        error: bool,
        duration_ms: int,
        *,
        log_source: str | None = None,
    ) -> None:
        if may_log(func.get("config") or func):
            original_emit(func, request_id, log_text, error, duration_ms, log_source=log_source)

    original_emit = patching.replace(
        lambda_svc, "_emit_lambda_logs", "(func, request_id, log_text, error, duration_ms, log_source)", emit
    )


def lines_until_end(lines: "queue.Queue[str]") -> str:
    """The lines of one invocation; those that came so far if it ended without its mark."""
    collected: list[str] = []
    deadline = time.monotonic() + LONGEST_WAIT_SECONDS
    while True:
        try:
            line = lines.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return "\n".join(collected)
        if line == END_OF_INVOCATION:
            return "\n".join(collected)
        collected.append(line)


def may_log(config: dict[str, Any]) -> bool:
    """Whether the function's role may write to the function's log group."""
    _, _, _, region, account, _, name = str(config["FunctionArn"]).split(":")[:7]
    group = (config.get("LoggingConfig") or {}).get("LogGroup") or f"/aws/lambda/{name}"
    stream = f"arn:aws:logs:{region}:{account}:log-group:{group}:log-stream:"
    try:
        for action in ("logs:CreateLogStream", "logs:PutLogEvents"):
            iam.authorize(str(config["Role"]), name, action, stream, region)
    except iam.AccessDeniedError:
        return False
    return True
