"""Replacing functions of ministack, loudly: an unknown version, name or signature stops the start."""

import importlib.metadata
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

PINNED_VERSION = "1.5.33"


class MendError(RuntimeError):
    """ministack is not what the mends were written for."""


def require_version() -> None:
    """Refuse any ministack but the one the mends were written and tested against."""
    installed = importlib.metadata.version("ministack")
    if installed != PINNED_VERSION:
        raise MendError(
            f"The embedded AWS needs ministack {PINNED_VERSION} but found {installed}: "
            "review every module of localaws/emulator before changing the pin."
        )


def require(owner: ModuleType | type, name: str, signature: str) -> Callable[..., Any]:
    """Return `owner.name` after checking that its parameters still read as `signature`, e.g. "(table, pk_val)".

    Raises:
        MendError: the name is gone or its parameters changed.
    """
    label = f"{getattr(owner, '__name__', owner)}.{name}"
    target = getattr(owner, name, None)
    if not callable(target):
        raise MendError(f"{label} no longer exists in ministack {PINNED_VERSION}.")
    found = "(" + ", ".join(inspect.signature(target).parameters) + ")"
    if found != signature:
        raise MendError(f"{label} changed: expected the parameters {signature}, found {found}.")
    return target  # type: ignore[no-any-return]  # a callable, checked above


def require_names(owner: ModuleType, *names: str) -> None:
    """Check that `owner` still holds every attribute a mend reads or writes.

    Raises:
        MendError: naming the first that is missing.
    """
    for name in names:
        if not hasattr(owner, name):
            raise MendError(f"{owner.__name__}.{name} no longer exists in ministack {PINNED_VERSION}.")


def replace(owner: ModuleType | type, name: str, signature: str, replacement: Callable[..., Any]) -> Callable[..., Any]:
    """Put `replacement` where `owner.name` was and return the original. See `require` for `signature` and errors."""
    original = require(owner, name, signature)
    setattr(owner, name, replacement)
    return original
