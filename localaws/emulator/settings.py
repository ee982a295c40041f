"""Durations of the emulated control plane, each overridable by an environment variable; read when they are needed."""

import os
import tempfile
from pathlib import Path


def work_folder(process_id: int) -> Path:
    """Where the server with this process id, and the Lambda workers it starts, keep their files."""
    return Path(tempfile.gettempdir(), f"localaws-{process_id}")


def seconds(name: str, default: float) -> float:
    """The number in the environment variable `name`, in real seconds (the wait scale of state machines does not apply).

    Raises:
        ValueError: it is set but not a number, or negative.
    """
    value = float(os.environ.get(name, default))
    if value < 0:
        raise ValueError(f"{name} must not be negative, found {value}.")
    return value


def restore_seconds() -> float:
    """How long a restored table is CREATING. On AWS it is minutes to an hour."""
    return seconds("LOCAL_AWS_RESTORE_SECONDS", 2.0)


def backup_seconds() -> float:
    """How long an on-demand backup is CREATING. On AWS it is seconds to minutes."""
    return seconds("LOCAL_AWS_BACKUP_SECONDS", 1.0)


def pitr_lag_seconds() -> float:
    """How far the latest restorable time is behind now: 0 here, so that a rehearsal need not wait; about 300 on AWS."""
    return seconds("LOCAL_AWS_PITR_LAG_SECONDS", 0.0)


def record_age_scale() -> float:
    """What an event source mapping's maximum record age is multiplied by; 1 as on AWS."""
    return seconds("LOCAL_AWS_RECORD_AGE_SCALE", 1.0)
