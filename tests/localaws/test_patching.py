"""The mends refuse a ministack they were not written for."""

import importlib.metadata
from types import ModuleType

import pytest

from localaws.emulator import patching


@pytest.fixture
def module() -> ModuleType:
    """A module with one function."""
    made = ModuleType("made")

    def scan(data: object, limit: int = 1) -> object:
        return data, limit

    made.scan = scan  # type: ignore[attr-defined]
    return made


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch: an upgrade that runs without anyone having looked at the mends."""
    patching.require_version()
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "1.5.34")
    with pytest.raises(patching.MendError, match=r"1\.5\.33 but found 1\.5\.34"):
        patching.require_version()


def test_a_changed_signature_is_refused(module: ModuleType) -> None:
    """Would catch: a mend called with other arguments than it expects, e.g. a table where a name was."""
    assert patching.require(module, "scan", "(data, limit)") is module.scan
    with pytest.raises(patching.MendError, match=r"expected the parameters \(data\), found \(data, limit\)"):
        patching.require(module, "scan", "(data)")


def test_a_lost_name_is_refused(module: ModuleType) -> None:
    """Would catch: a mend set on a name that nothing calls any more."""
    with pytest.raises(patching.MendError, match="no longer exists"):
        patching.replace(module, "_scan", "(data)", lambda data: data)
    with pytest.raises(patching.MendError, match="no longer exists"):
        patching.require_names(module, "scan", "gone")
