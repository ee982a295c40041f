"""Starting and stopping the server."""

import io
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from localaws.server import PROJECT_ROOT, EmbeddedAws, EmbeddedAwsError

from .conftest import until

HOLDER = """
import sys
from localaws.server import EmbeddedAws
aws = EmbeddedAws()
print(aws.process_id, aws.endpoint_url, flush=True)
sys.stdin.read()
"""


def _alive(process_id: int) -> bool:
    stat = Path(f"/proc/{process_id}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def _group(process_id: int) -> set[int]:
    members = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[2]) == process_id and fields[0] != "Z":  # a zombie has ended; init collects it
                members.add(int(entry.name))
    return members


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="counts processes through /proc")
def test_stop_ends_lambda_workers_and_removes_files(tmp_path: Path) -> None:
    """Would catch: Lambda workers that outlive the rehearsal and pile up until the machine is full."""
    with EmbeddedAws(log_path=tmp_path / "log") as aws:
        assert aws.process_id is not None
        group = aws.process_id
        aws.client("iam").create_role(RoleName="r", AssumeRolePolicyDocument="{}")
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("app.py", "import os\ndef handler(event, context): return os.getpid()\n")
        functions = aws.client("lambda")
        functions.create_function(
            FunctionName="f",
            Role=f"arn:aws:iam::{aws.account_id}:role/r",
            Runtime="python3.12",
            Handler="app.handler",
            Code={"ZipFile": buffer.getvalue()},
        )
        worker = int(functions.invoke(FunctionName="f")["Payload"].read())
        assert worker in _group(group)
        folders = set(Path(tempfile.gettempdir()).glob("localaws-*/ministack-lambda-f-*"))
        assert folders
    until(lambda: not _group(group))
    assert not any(folder.exists() for folder in folders)


def test_stopping_twice_is_harmless() -> None:
    """Would catch: a test's cleanup that fails after the test stopped the server itself."""
    aws = EmbeddedAws()
    aws.stop()
    aws.stop()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{aws.endpoint_url}/_localaws/health", timeout=2)  # noqa: S310


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")
def test_the_server_ends_with_a_killed_parent() -> None:
    """Would catch: a server left behind, with its port, by a test run that was killed."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER], cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    process_id = int(holder.stdout.readline().split()[0])
    assert _alive(process_id)
    holder.kill()
    holder.wait()
    until(lambda: not _alive(process_id))
    holder.stdin.close()
    holder.stdout.close()


def test_the_callers_profile_reaches_neither_server_nor_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch: a rehearsal that talks to the real account because the shell had a profile set."""
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAREAL")
    with EmbeddedAws() as other:
        environment = Path(f"/proc/{other.process_id}/environ")
        if environment.exists():
            assert b"production" not in environment.read_bytes()
            assert b"AKIAREAL" not in environment.read_bytes()
        assert other.client("sts").get_caller_identity()["Account"] == other.account_id


def test_a_taken_port_is_reported_with_the_log(aws: EmbeddedAws) -> None:
    """Would catch: a start that hangs, or that silently attaches to another server on the port."""
    taken = int(aws.endpoint_url.rpartition(":")[2])
    with pytest.raises(EmbeddedAwsError, match="Address already in use"):
        EmbeddedAws(taken)


def test_attached_server_survives_stop(aws: EmbeddedAws) -> None:
    """Would catch: a script that attaches to `make local-up` and takes it down on its way out."""
    with EmbeddedAws.attach(aws.endpoint_url) as attached:
        attached.client("dynamodb").list_tables()
    aws.client("dynamodb").list_tables()


def test_client_as_is_held_to_the_roles_policies(aws: EmbeddedAws, role: Callable[..., str]) -> None:
    """Would catch: permission tests that pass because everyone is root."""
    arn = role([{"Effect": "Allow", "Action": "dynamodb:ListTables", "Resource": "*"}])
    client = aws.client_as(arn, "dynamodb")
    client.list_tables()
    with pytest.raises(ClientError, match="AccessDenied"):
        client.describe_limits()


def test_log_pages_tell_who_did_what(aws: EmbeddedAws, role: Callable[..., str], table: Callable[..., str]) -> None:
    """Would catch: a test of least privilege that looks at an empty log and is content."""
    name = table()
    arn = role([{"Effect": "Allow", "Action": "dynamodb:PutItem", "Resource": f"*table/{name}"}])
    client = aws.client_as(arn, "dynamodb")
    client.put_item(TableName=name, Item={"pk": {"S": "a"}, "sk": {"N": "1"}})
    with pytest.raises(ClientError):
        client.batch_write_item(RequestItems={name: [{"PutRequest": {"Item": {"pk": {"S": "a"}, "sk": {"N": "2"}}}}]})
    aws.client("dynamodb").batch_get_item(RequestItems={name: {"Keys": [{"pk": {"S": "a"}, "sk": {"N": "1"}}]}})
    principal = f"assumed-role/{arn.rpartition('/')[2]}/localaws"
    entries = [(e["action"], e["outcome"], e["principal"].endswith(principal)) for e in aws.access_log(name)]
    assert ("PutItem", "ok", True) in entries
    assert ("BatchWriteItem", "denied", True) in entries
    assert ("BatchGetItem", "ok", False) in entries
    decisions = [(e["action"], e["decision"]) for e in aws.iam_log() if e["principal"].endswith(principal)]
    assert ("dynamodb:PutItem", "Allow") in decisions
    assert ("dynamodb:BatchWriteItem", "ImplicitDeny") in decisions
    assert all(entry["table"] == name for entry in aws.access_log(name))


def test_environment_is_what_the_cli_needs(aws: EmbeddedAws) -> None:
    """Would catch: example commands that miss a variable and ask the real AWS."""
    environment = {**{k: v for k, v in os.environ.items() if not k.startswith("AWS_")}, **aws.environment()}
    program = "import boto3; print(boto3.client('sts').get_caller_identity()['Account'])"
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == aws.account_id
