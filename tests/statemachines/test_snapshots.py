"""The definitions as people read them: what changed in a machine shows in the review of its snapshot."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from .definitions import DEFINITIONS

SNAPSHOTS = Path(__file__).parent / "snapshots"


@pytest.mark.parametrize("name", sorted(DEFINITIONS))
def test_definition_equals_its_snapshot(name: str) -> None:
    """Catches a change of a machine that nobody meant to make. ``make snapshots`` writes them anew."""
    text = json.dumps(DEFINITIONS[name](), indent=2) + "\n"
    snapshot = SNAPSHOTS / f"{name}.json"
    if os.environ.get("UPDATE_SNAPSHOTS"):
        snapshot.parent.mkdir(exist_ok=True)
        snapshot.write_text(text)
    assert snapshot.read_text() == text, "the definition changed; if that was meant: make snapshots"
