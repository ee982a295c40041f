"""The errors an operator sees.

A class name here is the error name in Step Functions (Lambda reports the exception's class as ``errorType``), so names
are part of the public interface. Each message is a sentence that says what was found, what was expected and what to do.
"""

from collections.abc import Mapping

# A value longer than this is a mistake that its beginning shows; what to do must follow within what a cause may have.
_LONGEST_SHOWN = 120


def shown(value: object) -> str:
    """How a message shows a value of the input: on one line, printable, and never long.

    Look-alikes, invisible and control characters become escapes, so that the difference can be seen.
    """
    if isinstance(value, str):
        text = ascii(value[: _LONGEST_SHOWN + 1])
        return text if len(value) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}… ({len(value)} characters)"
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, Mapping):
        return "an object"
    return "an array" if isinstance(value, list) else "a number"


class RecoveryError(Exception):
    """Base of every error with a public name. Not raised itself."""


class InvalidRequest(RecoveryError):  # noqa: N818 - the name is the public error name
    """The input has the wrong shape, or contradicts an earlier start of the same incident."""


class ConfirmationMismatch(RecoveryError):  # noqa: N818
    """The confirmation is missing or is not the name of the table to be overwritten."""


class SensitiveTable(RecoveryError):  # noqa: N818
    """A sensitive table was named. No part of the system may touch it."""


class UnknownTable(RecoveryError):  # noqa: N818
    """The table is not protected by this stack, or does not exist."""


class RestoreTimeOutOfRange(RecoveryError):  # noqa: N818
    """The restore time lies outside the PITR window of a table, or the table has no PITR."""


class KeySchemaMismatch(RecoveryError):  # noqa: N818
    """Source and destination have different primary keys."""


class RecoveryInProgress(RecoveryError):  # noqa: N818
    """Another execution holds the lock of the environment or of a table."""


class GuardianAtWork(RecoveryInProgress):
    """The guardian is clearing up after the incident's last execution; the orchestrator waits for it."""


class DestinationNotEmpty(RecoveryError):  # noqa: N818
    """Items were found in the destination after its purge: something is still writing."""


class VerificationFailed(RecoveryError):  # noqa: N818
    """Source and destination differ after the copy."""


class CapacityExhausted(RecoveryError):  # noqa: N818
    """A whole invocation passed without one page getting through the table's write capacity. Resumable."""


class ReleaseIncomplete(RecoveryError):  # noqa: N818
    """Some functions or event source mappings could not be put back yet. Everything else was."""


class FreezeIncomplete(RecoveryError):  # noqa: N818
    """Something does not freeze, or not stay frozen: see the message. Retried by the state machine."""


class DiscardIncomplete(RecoveryError):  # noqa: N818
    """Some stream consumers do not skip the reset's records. The tables are verified, the functions stay frozen."""


class StaleWorker(RecoveryError):  # noqa: N818
    """The worker's execution has ended, or its phase is over: it must not touch anything any more."""


class CheckpointConflict(RecoveryError):  # noqa: N818
    """Another worker moved this segment's checkpoint. Retried by the state machine; never the operator's to solve."""


FINAL_ERRORS: tuple[str, ...] = (
    InvalidRequest.__name__,
    ConfirmationMismatch.__name__,
    SensitiveTable.__name__,
    UnknownTable.__name__,
    RestoreTimeOutOfRange.__name__,
    KeySchemaMismatch.__name__,
    RecoveryInProgress.__name__,
    DestinationNotEmpty.__name__,
    VerificationFailed.__name__,
    StaleWorker.__name__,
)
"""Names of errors that trying again cannot mend: no state machine retries them."""
