"""The maximum age of stream records, on a scale: AWS's smallest is a minute, which no test can wait for.

ministack compares it with a record's real age, and only when a batch has failed. AWS discards old records whether a
batch has failed or not; the consumer of a frozen function fails every batch, so that both come to the same.
"""

from typing import Any, Self

from localaws.emulator import patching, settings

_KEY = "MaximumRecordAgeInSeconds"


class ScaledAge(int):
    """An age that reads as it was set, and that the poller, which converts it with ``int()``, takes for shorter."""

    def __new__(cls, seconds: int) -> Self:
        """An age of so many seconds."""
        return super().__new__(cls, seconds)

    def __int__(self) -> int:
        return max(1, round(int.__index__(self) * settings.record_age_scale()))


def apply() -> None:
    """Scale every age that is set, but for -1, which is no limit."""
    from ministack.services import lambda_svc

    patching.require_names(lambda_svc, "_esms")

    def scaled(data: dict[str, Any]) -> dict[str, Any]:
        age = data.get(_KEY)
        return {**data, _KEY: ScaledAge(age)} if isinstance(age, int) and age > 0 else data

    def create(data: dict[str, Any]) -> Any:
        return original_create(scaled(data))

    original_create = patching.replace(lambda_svc, "_create_esm", "(data)", create)

    def update(esm_id: str, data: dict[str, Any]) -> Any:
        return original_update(esm_id, scaled(data))

    original_update = patching.replace(lambda_svc, "_update_esm", "(esm_id, data)", update)
