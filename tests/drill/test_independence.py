"""What proves the recovery must not share its mistakes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]

SHOW_MODULES = "import sys, localaws.proof, localaws.damage, localaws.evidence; print(*sorted(sys.modules), sep='\\n')"


def test_proof_loads_nothing_of_the_recovery() -> None:
    """The proof uses the recovery's own digest or serialiser and repeats its mistake."""
    command = [sys.executable, "-c", SHOW_MODULES]
    loaded = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True).stdout.split()
    assert "localaws.proof" in loaded
    foreign = ("handlers", "statemachines", "components", "boto3.dynamodb")
    assert [name for name in loaded if name.startswith(foreign)] == []
