"""Which functions belong to the system, as the state machine passes it."""

from __future__ import annotations

import pytest

from handlers.core.freeze import Selection


def test_everything_is_read() -> None:
    """A field that is dropped freezes more than the operator configured, or less."""
    selection = Selection.from_event(
        {
            "namePrefix": "prod-app-",
            "tag": {"key": "system", "value": "licensing"},
            "exclude": ["prod-app-health", "prod-app-health"],
            "eventSourceMappings": False,
        }
    )
    assert selection.name_prefix == "prod-app-"
    assert selection.tag == ("system", "licensing")
    assert selection.exclude == frozenset({"prod-app-health"})
    assert selection.event_source_mappings is False


@pytest.mark.parametrize("absent", [{}, {"namePrefix": None, "tag": None}])
def test_nothing_is_made_up(absent: dict[str, None]) -> None:
    """A missing prefix becomes the empty one, with which every function of the account begins."""
    selection = Selection.from_event({**absent, "exclude": [], "eventSourceMappings": True})
    assert selection.name_prefix is None
    assert selection.tag is None


@pytest.mark.parametrize("missing", ["exclude", "eventSourceMappings"])
def test_a_payload_that_lacks_a_field_is_refused(missing: str) -> None:
    """A misspelt exclude is taken for none, and the recovery freezes its own functions."""
    event: dict[str, object] = {"namePrefix": "a", "tag": None, "exclude": [], "eventSourceMappings": True}
    del event[missing]
    with pytest.raises(KeyError, match=missing):
        Selection.from_event(event)
