"""The short form of `make faults`: a spread of faults and places, each survived."""

from __future__ import annotations

from localaws.faults.cases import SCENARIOS, Case, spread
from localaws.faults.suite import run, summary

CASES = 14
CASES_OF_THE_DIFFERENTIAL = 7
LEAST_GENERATED = 200


def test_recoveries_survive_a_spread_of_faults() -> None:
    """Catches a recovery that loses an item, a setting or itself to a fault in its middle; `make faults` has them all.

    Three courses of a recovery are looked at here: the smooth one, one that failed with the tables purged, and one that
    writes only what differs.
    """
    generated: list[int] = []

    def choose(cases: list[Case]) -> list[Case]:
        generated.append(len(cases))
        chosen = spread([case for case in cases if case.scenario.mode is None], CASES)
        return [*chosen, *spread([case for case in cases if case.scenario.mode], CASES_OF_THE_DIFFERENTIAL)]

    scenarios = [one for one in SCENARIOS if one.name in ("smooth", "failed after the purge", "differential")]
    outcomes, _ = run(1, scenarios, choose, lambda _: None)
    assert generated[0] >= LEAST_GENERATED, "hardly any place was seen: the suite would strike nothing"
    assert [(one.fault, one.where, one.remark) for one in outcomes if not one.survived] == []
    report = summary(outcomes, [], 0.0)
    expected = CASES + CASES_OF_THE_DIFFERENTIAL
    assert (report["pairs"], report["survived"]) == (expected, expected)
    struck = {one.where for one in outcomes}
    assert any("differential-segment" in where for where in struck), "the worker was not struck"
    assert (report["lostItems"], report["leftOverItems"], report["changedSettings"]) == (0, 0, 0)
    assert all(one.injected for one in outcomes)
    assert any(one.starts == 2 for one in outcomes), "no fault was hard enough to need a second start"
