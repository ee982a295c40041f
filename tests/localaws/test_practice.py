"""`python -m localaws up` and `down`."""

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from localaws import practice
from localaws.server import EmbeddedAws

FORGET = "unset AWS_ENDPOINT_URL AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_REGION AWS_DEFAULT_REGION ORCHESTRATOR"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """State kept away from a server the developer may be using."""
    monkeypatch.setattr(practice, "PROJECT_ROOT", tmp_path)
    monkeypatch.setattr(practice, "FOLDER", tmp_path)
    monkeypatch.setattr(practice, "PID_FILE", tmp_path / "server.pid")
    monkeypatch.setattr(practice, "OUTPUTS_FILE", tmp_path / "outputs.json")
    monkeypatch.setattr(practice, "LOG_FILE", tmp_path / "server.log")
    return tmp_path


def _fill(aws: EmbeddedAws) -> dict[str, Any]:
    return {"orchestratorStateMachineArn": "arn:x", "endpointUrl": aws.endpoint_url, "region": aws.region}


def test_up_twice_and_down_twice(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch: a second `up` that starts a second server, or a `down` that leaves the first."""
    monkeypatch.setattr(practice, "_fill", _fill)
    monkeypatch.setenv("LOCAL_AWS_PORT", "0")
    assert practice.up() == 0
    try:
        outputs = json.loads((folder / "outputs.json").read_text())
        first = capsys.readouterr().out
        assert f"export AWS_ENDPOINT_URL={outputs['endpointUrl']}" in first
        assert '    export PATH="$PWD/.venv/bin:$PATH"\n' in first
        assert "    export ORCHESTRATOR=arn:x\n" in first
        assert first.count("    aws ") == 3
        assert f"    {FORGET}\n" in first
        assert practice.up() == 0
        assert "already runs" in capsys.readouterr().out
        with EmbeddedAws.attach(outputs["endpointUrl"]) as aws:
            aws.client("dynamodb").list_tables()
    finally:
        assert practice.down() == 0
    stopped = capsys.readouterr().out
    assert "is stopped" in stopped
    assert "endpoint that is gone" in stopped
    assert f"    {FORGET}\n" in stopped
    assert not (folder / "outputs.json").exists()
    assert practice.down() == 0
    assert "nothing to stop" in capsys.readouterr().out


def test_a_failed_up_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch: a server without a stack that the next `up` takes for a good one."""
    started: list[EmbeddedAws] = []

    def fail(aws: EmbeddedAws) -> dict[str, Any]:
        started.append(aws)
        raise RuntimeError("planted")

    monkeypatch.setattr(practice, "_fill", fail)
    monkeypatch.setenv("LOCAL_AWS_PORT", "0")
    with pytest.raises(RuntimeError, match="planted"):
        practice.up()
    assert not (folder / "server.pid").exists()
    with pytest.raises(OSError, match="refused"):
        started[0].access_log()


@pytest.mark.parametrize(("asked", "found"), [("abc", "is 'abc'"), ("-1", "is '-1'"), ("taken", "in use")])
def test_a_wrong_port_is_one_sentence(
    asked: str, found: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Would catch: a traceback for a typing mistake, or a server on another port than was asked for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1]) if asked == "taken" else asked
        monkeypatch.setenv("LOCAL_AWS_PORT", port)
        assert practice.up() == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    for expected in (port, found, "expected", "start again."):
        assert expected in printed.err
    assert not (folder / "server.pid").exists()
