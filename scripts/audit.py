"""Audits what the project depends on: exact pins, a consistent environment, no known vulnerability.

    python scripts/audit.py [--requirements FILE ...] [--osv-url URL]

Exit code 1 when a requirement is not pinned exactly, the environment differs from the pins or contradicts itself, or a
package has a known vulnerability in OSV's database. Where OSV cannot be asked (no way to the internet) the audit says
NOT AUDITED and ends with 0, or with 1 where AUDIT_REQUIRED=1 is set, as it should be in CI.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
_PIN = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[a-z0-9,_-]+\])?==(?P<version>[A-Za-z0-9.+!]+)")
_LONGEST_SECONDS = 300
_ANSWER_SECONDS = "5"  # how long OSV may take for one package


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit; returns the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/audit.py", description="Audit what the project depends on.")
    parser.add_argument(
        "--requirements", type=Path, nargs="+", help="audit only what these files pin, not the whole environment"
    )
    parser.add_argument("--osv-url", help="the vulnerability database to ask; OSV's own by default")
    asked = parser.parse_args(arguments)

    files = asked.requirements or sorted(PROJECT.glob("requirements*.txt"))
    problems = [problem for file in files for problem in unpinned(file)]
    if not asked.requirements:
        problems += [*not_as_pinned(files), *contradictions()]
    for problem in problems:
        print(problem)
    vulnerable, unaudited = vulnerabilities(asked.requirements, asked.osv_url)
    for line in vulnerable:
        print(line)
    if unaudited:
        print(f"NOT AUDITED: {unaudited}. Whether a dependency has a known vulnerability was not found out.")
    if problems or vulnerable:
        return 1
    if unaudited:
        return 1 if os.environ.get("AUDIT_REQUIRED") == "1" else 0
    print("Dependencies are pinned, consistent and without a known vulnerability.")
    return 0


def pins(file: Path) -> Iterator[tuple[str, re.Match[str] | None]]:
    """(line, its parts or None where it is no exact pin) of every requirement of a file."""
    for text in file.read_text().splitlines():
        line = text.partition(" #")[0].strip()
        if line and not line.startswith(("#", "-r ")):
            yield line, _PIN.fullmatch(line)


def unpinned(file: Path) -> list[str]:
    """A sentence for each requirement that is not pinned exactly."""
    return [
        f"{file.name}: found {line!r}. Expected an exact pin, name==version." for line, pin in pins(file) if pin is None
    ]


def not_as_pinned(files: Sequence[Path]) -> list[str]:
    """A sentence for each pin that the environment does not have in that version."""
    wrong = []
    for file in files:
        for _, pin in pins(file):
            if pin is None:
                continue
            try:
                installed = importlib.metadata.version(pin["name"])
            except importlib.metadata.PackageNotFoundError:
                installed = "none"
            if installed != pin["version"]:
                wrong.append(
                    f"{pin['name']}: found {installed} installed. Expected {pin['version']}, as {file.name} pins it: "
                    "remove .venv and let make create it again."
                )
    return wrong


def contradictions() -> list[str]:
    """What pip finds inconsistent in the environment."""
    checked = _run([sys.executable, "-m", "pip", "check", "--disable-pip-version-check"])
    return [] if checked.returncode == 0 else (checked.stdout + checked.stderr).splitlines()


def vulnerabilities(requirements: Sequence[Path] | None, osv_url: str | None) -> tuple[list[str], str]:
    """(a line for each known vulnerability, why some or all packages could not be audited or "").

    pip-audit itself ends with 0 over packages that it could not audit, so its answer is read, not its exit code.
    """
    command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", "osv", "--format", "json"]
    command += ["--progress-spinner", "off", "--desc", "off", "--timeout", _ANSWER_SECONDS]
    if osv_url:
        command += ["--osv-url", osv_url]
    for file in requirements or ():
        command += ["--disable-pip", "--no-deps", "--requirement", str(file)]
    try:
        finished = _run(command)
        dependencies: list[dict[str, Any]] = json.loads(finished.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return [], f"OSV did not answer within {_LONGEST_SECONDS} seconds"
    except (ValueError, KeyError):
        lines = finished.stderr.strip().splitlines() or ["pip-audit said nothing"]
        return [], f"OSV could not be asked ({lines[-1][:120]})"
    found = [
        f"{package['name']} {package['version']}: {problem['id']}, fixed in "
        f"{', '.join(problem['fix_versions']) or 'no version yet'}."
        for package in dependencies
        for problem in package.get("vulns", ())
    ]
    skipped = [package["name"] for package in dependencies if "vulns" not in package]
    if not dependencies:
        return found, "pip-audit saw no package at all"
    return found, f"OSV does not know {', '.join(skipped)}" if skipped else ""


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=_LONGEST_SECONDS, check=False)


if __name__ == "__main__":
    sys.exit(main())
