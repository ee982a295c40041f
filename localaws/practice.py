"""An embedded AWS that stays: started with the sample application and the stack `local` deployed, for practice by CLI.

Its state is in build/local: server.pid, server.log, outputs.json.
"""

import json
import socket
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from localaws.server import PROJECT_ROOT, EmbeddedAws, EmbeddedAwsError, asked_port, stop_process_group

FOLDER = PROJECT_ROOT / "build" / "local"
PID_FILE = FOLDER / "server.pid"
OUTPUTS_FILE = FOLDER / "outputs.json"
LOG_FILE = FOLDER / "server.log"
DEFAULT_PORT = 4566
STACK = "local"

UNSET = "unset AWS_ENDPOINT_URL AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_REGION AWS_DEFAULT_REGION ORCHESTRATOR"
"""What a shell has to forget when the embedded AWS is gone."""


def up() -> int:
    """Start, fill, deploy and say how to use it, or only say that it already runs. Returns the exit code."""
    running = _running()
    if running is not None:
        print(f"The embedded AWS already runs at {running['endpointUrl']}.\n")
        _explain(running)
        return 0
    _remove_state()
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        aws = EmbeddedAws(_port(), log_path=LOG_FILE, detached=True)
    except EmbeddedAwsError as error:
        print(error, file=sys.stderr)
        return 1
    PID_FILE.write_text(str(aws.process_id))
    try:
        outputs = _fill(aws)
    except BaseException:
        aws.stop()
        _remove_state()
        raise
    OUTPUTS_FILE.write_text(json.dumps(outputs, indent=2) + "\n")
    print(f"The embedded AWS runs at {aws.endpoint_url}, with the stack `{STACK}` deployed.\n")
    _explain(outputs)
    return 0


def down() -> int:
    """Stop it and forget its state; harmless when it does not run. Returns the exit code."""
    if not PID_FILE.exists():
        print("The embedded AWS does not run: nothing to stop.")
    elif _running() is None:
        print("The embedded AWS had already ended; its leftover state is removed.")
    else:
        stop_process_group(int(PID_FILE.read_text()))
        print("The embedded AWS is stopped.")
    _remove_state()
    print(
        f"""
In every shell with its variables, or the next AWS command goes to an endpoint that is gone:

    {UNSET}"""
    )
    return 0


def _fill(aws: EmbeddedAws) -> dict[str, Any]:
    from localaws import sample
    from localaws.deployment import deploy

    sample.create(aws)
    outputs = deploy(PROJECT_ROOT, STACK, aws)
    return {**outputs, "endpointUrl": aws.endpoint_url, "region": aws.region, "accountId": aws.account_id}


def _port() -> int:
    """LOCAL_AWS_PORT, else 4566 when free, else any free one (0).

    Raises:
        EmbeddedAwsError: LOCAL_AWS_PORT is no port.
    """
    asked = asked_port()
    if asked is not None:
        return asked
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", DEFAULT_PORT))
        except OSError:
            print(f"Port {DEFAULT_PORT} is taken; using a free one.", file=sys.stderr)
            return 0
    return DEFAULT_PORT


def _running() -> dict[str, Any] | None:
    """The outputs of the server that answers, or None."""
    if not (PID_FILE.exists() and OUTPUTS_FILE.exists()):
        return None
    outputs: dict[str, Any] = json.loads(OUTPUTS_FILE.read_text())
    try:
        with urllib.request.urlopen(f"{outputs['endpointUrl']}/_localaws/health", timeout=5) as answer:  # noqa: S310
            return outputs if answer.status == 200 else None
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return None


def _remove_state() -> None:
    """Also ends a server that was started but never finished being filled."""
    if PID_FILE.exists():
        stale = Path(f"/proc/{PID_FILE.read_text().strip()}/cmdline")
        if stale.exists() and b"localaws.emulator" in stale.read_bytes():
            stop_process_group(int(PID_FILE.read_text()))
    for path in (PID_FILE, OUTPUTS_FILE):
        path.unlink(missing_ok=True)


def _explain(outputs: dict[str, Any]) -> None:
    print(
        f"""Endpoint: {outputs["endpointUrl"]}
Outputs:  {OUTPUTS_FILE.relative_to(PROJECT_ROOT)}

    export PATH="$PWD/.venv/bin:$PATH"
    export AWS_ENDPOINT_URL={outputs["endpointUrl"]}
    export AWS_ACCESS_KEY_ID=test
    export AWS_SECRET_ACCESS_KEY=test
    export AWS_REGION={outputs["region"]} AWS_DEFAULT_REGION={outputs["region"]}
    export ORCHESTRATOR={outputs["orchestratorStateMachineArn"]}

Try:

    aws dynamodb list-tables
    aws stepfunctions list-executions --state-machine-arn "$ORCHESTRATOR"
    aws lambda list-functions --query 'Functions[].FunctionName'

Stop it with `make local-down`. Then, or the next AWS command goes to an endpoint that is gone:

    {UNSET}"""
    )
