"""The whole suite: look at every scenario, strike every place, on several servers at once; a table and a report."""

from __future__ import annotations

import argparse
import json
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from localaws.faults.cases import NOT_REACHED, SCENARIOS, Case, Scenario, Seen, generate, spread
from localaws.faults.recoveries import Outcome, Recoveries, definitions
from localaws.faults.stack import stack
from localaws.server import PROJECT_ROOT

REPORT = PROJECT_ROOT / "build" / "faults" / "report.json"
SERVERS = 2


def main(arguments: Sequence[str] = ()) -> int:
    """Run the suite; returns 0 only if every case was survived and every state was struck that should be."""
    parser = argparse.ArgumentParser(prog="python -m localaws faults")
    parser.add_argument("--cases", type=int, default=0, metavar="N", help="a spread of N cases")
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose fault or place has the text")
    options = parser.parse_args(arguments)

    def choose(cases: list[Case]) -> list[Case]:
        chosen = [case for case in cases if options.only in f"{case.fault} {case.where}"]
        return spread(chosen, options.cases) if options.cases else chosen

    began = time.monotonic()
    print(f"Starting {SERVERS} embedded AWS and looking at {len(SCENARIOS)} courses of a recovery …", flush=True)
    outcomes, not_reached = run(SERVERS, SCENARIOS, choose, lambda text: print(text, flush=True))
    document = summary(outcomes, not_reached, time.monotonic() - began)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(document, indent=2) + "\n")
    print(table(outcomes))
    for state in not_reached:
        print(f"Never entered, and so not struck: {state}: {NOT_REACHED.get(state, 'FAILED: no reason is listed')}")
    listed = [state for state in NOT_REACHED if state not in not_reached]
    for state in listed:
        print(f"FAILED: listed in NOT_REACHED, but entered, or no state: {state}")
    print(
        f"{document['pairs']} pairs of fault and place in {document['seconds']:.0f} s: "
        f"{document['survived']} survived, "
        f"{document['lostItems']} items lost, {document['leftOverItems']} left over, "
        f"{document['changedSettings']} settings changed. {REPORT.relative_to(PROJECT_ROOT)}"
    )
    exact = not listed and all(state in NOT_REACHED for state in not_reached)
    return 0 if exact and outcomes and all(outcome.survived for outcome in outcomes) else 1


def run(
    servers: int,
    scenarios: Sequence[Scenario],
    choose: Callable[[list[Case]], list[Case]],
    say: Callable[[str], None],
) -> tuple[list[Outcome], list[str]]:
    """Look at the scenarios, then try the chosen cases; returns their outcomes and the states that were not reached.

    Raises:
        RuntimeError: a server could not be started.
    """
    pool = _Pool(servers, say)

    def look(recoveries: Recoveries, scenario: Scenario) -> Seen | Outcome:
        try:
            return recoveries.look(scenario)
        except Exception as error:  # noqa: BLE001  # a course that fails without the fault is a failed case as well
            say(f"FAILED   the course '{scenario.name}': {error}")
            course = Case(fault="none", where=f"course: {scenario.name}", scenario=scenario, rule={})
            return _broken(course, f"{type(error).__name__}: {error}")

    seen = pool.work(list(scenarios), look, renew=lambda one: isinstance(one, Outcome))
    everything, not_reached = generate([one for one in seen if isinstance(one, Seen)], pool.definitions)
    cases = choose(everything)
    say(f"{len(cases)} of {len(everything)} cases\n")
    progress = _Progress(len(cases), say)

    def attempt(recoveries: Recoveries, case: Case) -> Outcome:
        try:
            outcome = recoveries.try_case(case)
        except Exception as error:  # noqa: BLE001  # whatever happens in one case is that case's failure
            outcome = _broken(case, f"{type(error).__name__}: {error}")
        progress.tell(outcome)
        return outcome

    outcomes = [one for one in seen if isinstance(one, Outcome)]
    outcomes += pool.work(cases, attempt, renew=lambda outcome: not outcome.survived)
    pool.close()
    return outcomes, not_reached


class _Pool:
    """Threads with a stack each; the servers are processes of their own, so threads are enough here."""

    def __init__(self, servers: int, say: Callable[[str], None]) -> None:
        self.definitions: dict[str, Any] = {}
        self._say = say
        self._tasks: queue.Queue[Any] = queue.Queue()
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self._threads = [threading.Thread(target=self._serve, args=(number,), daemon=True) for number in range(servers)]
        for thread in self._threads:
            thread.start()

    def work(
        self,
        things: Sequence[Any],
        do: Callable[[Recoveries, Any], Any],
        renew: Callable[[Any], bool] = lambda _: False,
    ) -> list[Any]:
        """Do something with each thing, in any order; results in theirs. `renew`: whether a new stack is needed after.

        Raises:
            RuntimeError: a thread failed.
        """
        results: list[Any] = [None] * len(things)
        left = threading.Semaphore(0)
        for index, thing in enumerate(things):
            self._tasks.put((index, thing, do, renew, results, left))
        for _ in things:
            while not left.acquire(timeout=0.5):
                if self._failure is not None:
                    raise RuntimeError("The fault suite cannot go on.") from self._failure
        return results

    def close(self) -> None:
        """Stop every server."""
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def _serve(self, number: int) -> None:
        generation, done = 0, False
        try:
            while not done:
                generation += 1
                done = self._serve_stack(f"faults-{number}-{generation}")
        except BaseException as error:  # noqa: BLE001  # told to whoever waits
            self._failure = error

    def _serve_stack(self, prefix: str) -> bool:
        """Work on one stack until there is no more to do (True) or a case has left it in disorder (False)."""
        with stack() as made:
            with self._lock:
                self.definitions = self.definitions or definitions(made)
            recoveries = Recoveries(made, prefix)
            while (task := self._tasks.get()) is not None:
                index, thing, do, renew, results, left = task
                results[index] = do(recoveries, thing)
                left.release()
                if renew(results[index]):
                    return False
        return True


class _Progress:
    """One line a case, as they end."""

    def __init__(self, total: int, say: Callable[[str], None]) -> None:
        self._total, self._say = total, say
        self._done = 0
        self._lock = threading.Lock()

    def tell(self, outcome: Outcome) -> None:
        """Say how one ended."""
        with self._lock:
            self._done += 1
            verdict = "survived" if outcome.survived else "FAILED  "
            starts = f"{outcome.starts} start{'s' if outcome.starts > 1 else ' '}"
            line = (
                f"{self._done:4}/{self._total} {verdict} {outcome.fault:26} {outcome.where:58} "
                f"struck {outcome.injected:4}, {starts} {outcome.seconds:5.1f} s"
            )
            self._say(line if outcome.survived else f"{line}\n          {outcome.remark[:600]}")


def _broken(case: Case, remark: str) -> Outcome:
    return Outcome(
        fault=case.fault,
        where=case.where,
        injected=0,
        starts=1,
        first_status="UNKNOWN",
        first_error="",
        survived=False,
        lost=0,
        left_over=0,
        changed_settings=0,
        left_tables=0,
        seconds=0.0,
        remark=remark,
    )


def summary(outcomes: Sequence[Outcome], not_reached: Sequence[str], seconds: float) -> dict[str, Any]:
    """The report."""
    return {
        "pairs": len({(outcome.fault, outcome.where) for outcome in outcomes}),
        "survived": sum(outcome.survived for outcome in outcomes),
        "lostItems": sum(outcome.lost for outcome in outcomes),
        "leftOverItems": sum(outcome.left_over for outcome in outcomes),
        "changedSettings": sum(outcome.changed_settings for outcome in outcomes),
        "leftTemporaryTables": sum(outcome.left_tables for outcome in outcomes),
        "statesNotReached": list(not_reached),
        "seconds": round(seconds, 1),
        "cases": [outcome.document() for outcome in outcomes],
    }


def table(outcomes: Sequence[Outcome]) -> str:
    """By fault: at how many places, how often it struck, how many cases were survived, and what was lost."""
    lines = [f"\n{'fault':28}{'places':>8}{'struck':>8}{'survived':>10}{'resumed':>9}{'lost items':>12}"]
    for fault in dict.fromkeys(outcome.fault for outcome in outcomes):
        mine = [outcome for outcome in outcomes if outcome.fault == fault]
        lines.append(
            f"{fault:28}{len(mine):8}{sum(one.injected for one in mine):8}{sum(one.survived for one in mine):10}"
            f"{sum(one.starts > 1 for one in mine):9}{sum(one.lost + one.left_over for one in mine):12}"
        )
    return "\n".join(lines) + "\n"
