"""The audit of dependencies, against a vulnerability database of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from scripts.audit import PROJECT, not_as_pinned, unpinned

BAD = {"name": "harmful", "version": "1.0.0"}
ADVISORY = {
    "id": "TEST-2026-1",
    "summary": "It does harm.",
    "affected": [
        {
            "package": {"name": "harmful", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "1.0.1"}]}],
        }
    ],
}


class Database(BaseHTTPRequestHandler):
    """Answers like OSV: knows one vulnerable version, and nothing against any other."""

    asked: list[dict[str, Any]]

    def do_POST(self) -> None:
        """Answer one query."""
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(query)
        bad = (query["package"]["name"], query["version"]) == (BAD["name"], BAD["version"])
        body = json.dumps({"vulns": [ADVISORY]} if bad else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def database() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """The address of a running database, and what it was asked."""
    asked: list[dict[str, Any]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneDatabase", (Database,), {"asked": asked}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1/query", asked
    server.shutdown()
    thread.join()
    server.server_close()


def audit(file: Path, osv_url: str, **environment: str) -> tuple[int, str]:
    """Run the audit of one requirements file as `make audit` does; returns exit code and output."""
    inherited = {name: value for name, value in os.environ.items() if name != "AUDIT_REQUIRED"}
    finished = subprocess.run(
        [sys.executable, "scripts/audit.py", "--requirements", str(file), "--osv-url", osv_url],
        cwd=PROJECT,
        env={**inherited, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return finished.returncode, finished.stdout + finished.stderr


def test_a_vulnerable_version_fails_the_audit(tmp_path: Path, database: tuple[str, list[dict[str, Any]]]) -> None:
    """Catches an audit that finds a vulnerability and lets it pass, or does not say what to install instead."""
    file = tmp_path / "requirements.txt"
    file.write_text("harmless==2.0\nharmful==1.0.0\n")
    code, output = audit(file, database[0])
    assert code == 1
    assert "harmful 1.0.0: TEST-2026-1, fixed in 1.0.1." in output
    assert "harmless" not in output


def test_clean_versions_pass(tmp_path: Path, database: tuple[str, list[dict[str, Any]]]) -> None:
    """Catches an audit that always fails, and one that passes because it asked about nothing."""
    file = tmp_path / "requirements.txt"
    file.write_text("harmless==2.0\nharmful==1.0.1\n")
    code, output = audit(file, database[0], AUDIT_REQUIRED="1")
    assert code == 0, output
    assert "NOT AUDITED" not in output
    asked = {(query["package"]["name"], query["version"]) for query in database[1]}
    assert asked == {("harmless", "2.0"), ("harmful", "1.0.1")}


def test_a_database_that_cannot_be_reached_is_said_and_fails_where_required(
    tmp_path: Path, database: tuple[str, list[dict[str, Any]]]
) -> None:
    """Catches a green audit that has audited nothing."""
    file = tmp_path / "requirements.txt"
    file.write_text("harmless==2.0\n")
    nowhere = database[0].replace("http://127.0.0.1:", "http://127.0.0.1:1/not-")
    for environment, expected in (({}, 0), ({"AUDIT_REQUIRED": "1"}, 1)):
        code, output = audit(file, nowhere, **environment)
        assert code == expected, output
        assert "NOT AUDITED: OSV could not be asked" in output
        assert "without a known vulnerability" not in output


def test_what_is_not_pinned_is_named(tmp_path: Path) -> None:
    """Catches a range, an open version or a missing package that the pins do not mean."""
    file = tmp_path / "requirements.txt"
    file.write_text("-r other.txt\n# a comment\nboto3>=1.0\npytest\nruff==0.0.1  # old\nnot-installed==1.0\nx[y]==1\n")
    assert [line.split("'")[1] for line in unpinned(file)] == ["boto3>=1.0", "pytest"]
    wrong = not_as_pinned([file])
    assert [line.partition(":")[0] for line in wrong] == ["ruff", "not-installed", "x"]


def test_the_projects_own_pins_are_exact() -> None:
    """Catches a requirement of the project that resolves to another version tomorrow."""
    files = sorted(PROJECT.glob("requirements*.txt"))
    assert len(files) >= 2
    assert [problem for file in files for problem in unpinned(file)] == []


def test_make_check_audits() -> None:
    """Catches an audit that nobody runs."""
    makefile = (PROJECT / "Makefile").read_text()
    check = next(line for line in makefile.splitlines() if line.startswith("check:"))
    assert "audit" in check.partition("##")[0].split()
    assert "scripts/audit.py" in makefile
