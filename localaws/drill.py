"""The rehearsal: destroy a sample application's tables, recover them with the real program, prove it. `make demo`.

The program is deployed into the embedded AWS exactly as it would be into an account. What proves the outcome shares no
code with it: see `localaws.proof`. Writes `build/drill/report.json` and `build/drill/report.html`; exit code 0 only
when every check held.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console

from localaws import damage, evidence, progress, proof, report, sample
from localaws.batches import BatchRefusedError
from localaws.damage import Damage
from localaws.deployment import DeploymentError, deploy
from localaws.evidence import Settings
from localaws.progress import Expected, Look, Observer, Tracker
from localaws.proof import Item, Proof
from localaws.server import EmbeddedAws, EmbeddedAwsError, asked_port

PROJECT = Path(__file__).resolve().parent.parent
FOLDER = PROJECT / "build" / "drill"
STACK = "local"
TEMPORARY_PREFIX = f"dr-{STACK}."

RECOVERY_TIMEOUT_SECONDS = 600.0
"""Ends a recovery that hangs. It takes one minute on an idle computer of two cores; six were seen on a crowded one."""

SETTLING_SECONDS = 10.0
"""How long after the recovery a mapping may take from Enabling to Enabled, and a table from DELETING to gone."""

TABLE_FIELDS = (
    "mode",
    "purgedItems",
    "copiedItems",
    "verifiedItems",
    "expiredItems",
    "sourceDigest",
    "destinationDigest",
    "verified",
    "durationSeconds",
    "consumedCapacity",
    "phaseSeconds",
    "forecast",
    "usd",
)
"""What the recovery says of a table; null where it never got that far."""


class DrillError(RuntimeError):
    """The drill cannot go on; the message is a sentence for the person who runs it."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that had to hold."""

    name: str
    ok: bool
    detail: str
    """What was seen: the evidence, or what is wrong."""


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How the recovery ended."""

    arn: str
    status: str
    output: Mapping[str, Any]
    error: str
    cause: str
    started: datetime
    ended: datetime

    @property
    def succeeded(self) -> bool:
        """Whether the execution itself claims success."""
        return self.status == "SUCCEEDED"


class Freeze:
    """Samples functions' settings while the recovery runs, and keeps the moment when most was frozen."""

    def __init__(self, lambda_client: Any, functions: Sequence[str], system: Sequence[str], probe: str) -> None:
        self._lambda = lambda_client
        self._functions = functions
        self._system = system
        self._probe = probe
        self._score = (0, 1)
        self.during: dict[str, Settings] = {}
        self.refused: bool | None = None
        """Whether a call of the probed function was refused while frozen; None if never tried."""

    def look(self, look: Look) -> None:
        """Sample once; does nothing more once everything was seen frozen. Asks Lambda, never the recovery's ledger."""
        if self.complete or look.status != "RUNNING":
            return
        settings = evidence.read_settings(self._lambda, self._functions)
        score = evidence.frozen_score(settings, self._system)
        if score[0] > self._score[0]:
            self.during, self._score = settings, score
        if self.complete:
            self.refused = evidence.invocation_is_refused(self._lambda, self._probe)

    @property
    def complete(self) -> bool:
        """Whether a moment was seen at which everything was frozen."""
        return self._score[0] == self._score[1]


class Drill:
    """One rehearsal, from an empty account to the verdict."""

    def __init__(self, aws: EmbeddedAws, console: Console, *, started: datetime) -> None:
        self._aws = aws
        self._console = console
        self._started = started
        self._functions = [each.name for each in (*sample.SYSTEM_FUNCTIONS, *sample.OTHER_FUNCTIONS)]
        self._system = [each.name for each in sample.SYSTEM_FUNCTIONS]
        self._incident_id = f"drill-{started:%Y%m%dT%H%M%SZ}"
        self._keys: dict[str, tuple[str, ...]] = {}
        self._snapshot: dict[str, list[Item]] = {}
        self._damage: dict[str, Damage] = {}
        self._restore_point: datetime | None = None
        self._before: dict[str, Settings] = {}
        self._after: dict[str, Settings] = {}
        self._freeze = Freeze(aws.client("lambda"), self._functions, self._system, probe=self._system[0])
        self._command = ""
        self._execution: Execution | None = None
        self._timeline: list[dict[str, Any]] = []
        self._proofs: dict[str, Proof] = {}
        self._sensitive: list[dict[str, Any]] = []
        self._checks: list[Check] = []
        self.problems: list[str] = []
        """Sentences: what failed. Empty after a good drill."""
        self.step_seconds: dict[str, float] = {}

    def run(self) -> None:
        """Rehearse; afterwards `problems` says what failed, and `result` is the report.

        Raises:
            DrillError: the rehearsal could not be carried out at all.
            ClientError, BotoCoreError: the embedded AWS refused something.
        """
        with self.step("Sample application"):
            sample.create(self._aws)
            self._take_snapshot()
        with self.step("Deployment"):
            outputs = deploy(PROJECT, STACK, self._aws)
        with self.step("Damage"):
            self._choose_restore_point()
            self._do_damage()
            self._before = self._settled_settings()
        with self.step("Recovery"):
            self._execution = self._recover(outputs)
        with self.step("Proof"):
            self._prove(self._execution)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Announce a step and time it."""
        self._say(f"\n[bold]{name}[/bold]")
        started = time.monotonic()
        try:
            yield
        finally:
            self.step_seconds[name] = round(time.monotonic() - started, 1)

    def result(self) -> dict[str, Any]:
        """The report: the recovery's output, and all that the rehearsal found out besides."""
        execution = self._execution
        output = dict(execution.output) if execution else {}
        ok = bool(self._checks) and not self.problems
        return {
            "incidentId": self._incident_id,
            "frozenFunctions": None,
            "releasedFunctions": None,
            "reportUri": None,
            **output,
            "status": "SUCCEEDED" if ok else "FAILED",
            "tables": self._tables(output),
            "sensitiveTables": self._sensitive,
            "functions": evidence.describe_functions(self._before, self._freeze.during, self._after, self._system),
            "timeline": [_in_text(entry) for entry in self._timeline],
            "checks": [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in self._checks],
            "problems": self.problems,
            "error": execution.error if execution else "",
            "cause": execution.cause if execution else "",
            "executionArn": execution.arn if execution else None,
            "executionStatus": execution.status if execution else None,
            "command": self._command,
            "restoreDateTime": _iso(self._restore_point) if self._restore_point else None,
            "recoverySeconds": round((execution.ended - execution.started).total_seconds(), 1) if execution else None,
            "startedAt": _iso(self._started),
            "finishedAt": _iso(datetime.now(UTC)),
            "stepSeconds": self.step_seconds,
        }

    # -- before ------------------------------------------------------------------------------------------------------

    def _take_snapshot(self) -> None:
        dynamodb = self._aws.client("dynamodb")
        for table in (*sample.PROTECTED_TABLES, *sample.SENSITIVE_TABLES):
            self._keys[table] = proof.key_names(dynamodb, table)
            self._snapshot[table] = proof.scan_table(dynamodb, table)
            self._say(f"  {table}: {len(self._snapshot[table]):,} items")

    def _choose_restore_point(self) -> None:
        self._restore_point = next_whole_second(datetime.now(UTC))
        self._say(
            f"  Restore point: {_iso(self._restore_point)}. PITR restores to a whole second, so the damage waits until "
            "that second is over."
        )
        wait_until(self._restore_point + timedelta(seconds=1))

    def _do_damage(self) -> None:
        dynamodb = self._aws.client("dynamodb")
        protected = {table: self._snapshot[table] for table in sample.PROTECTED_TABLES}
        self._damage = damage.damage_tables(dynamodb, protected)
        for table, done in self._damage.items():
            found = proof.compare(self._snapshot[table], proof.scan_table(dynamodb, table), self._keys[table])
            if (found.missing, found.changed, found.extra) != (len(done.deleted), len(done.changed), len(done.added)):
                raise DrillError(
                    f"{table} is not damaged as planned: {found.missing} items are missing, {found.changed} changed "
                    f"and {found.extra} extra. A rehearsal on it would prove nothing."
                )
            self._say(
                f"  {table}: {len(done.deleted):,} items deleted, {len(done.changed):,} changed, "
                f"{len(done.added):,} added"
            )

    def _settled_settings(self) -> dict[str, Settings]:
        deadline = time.monotonic() + SETTLING_SECONDS
        while True:
            settings = evidence.read_settings(self._aws.client("lambda"), self._functions)
            if evidence.settled(settings) or time.monotonic() > deadline:
                return settings
            time.sleep(0.1)

    # -- the recovery ------------------------------------------------------------------------------------------------

    def _recover(self, outputs: Mapping[str, Any]) -> Execution:
        if self._restore_point is None:
            raise DrillError("No restore point was chosen.")
        for name in ("orchestratorStateMachineArn", "ledgerTableName"):
            if not outputs.get(name):
                raise DrillError(f"The deployment has no stack output {name}; without it nothing can be recovered.")
        machine = str(outputs["orchestratorStateMachineArn"])
        request = {
            "incidentId": self._incident_id,
            "restoreDateTime": _iso(self._restore_point),
            "tables": [
                {"tableName": table, "tableNameRecoveryConfirmation": table} for table in sample.PROTECTED_TABLES
            ],
        }
        self._command = cli_command(self._aws.endpoint_url, machine, request)
        self._say("  An operator would type:")
        self._console.print(f"  {self._command}", style="cyan", markup=False, highlight=False, soft_wrap=True)
        started = datetime.now(UTC)
        stepfunctions = self._aws.client("stepfunctions")
        arn = stepfunctions.start_execution(stateMachineArn=machine, input=json.dumps(request))["executionArn"]
        self._watch(arn, str(outputs["ledgerTableName"]), started)
        ended = datetime.now(UTC)
        self._timeline = evidence.steps(stepfunctions, arn) + self._timeline
        return describe_end(stepfunctions.describe_execution(executionArn=arn), started, ended)

    def _watch(self, arn: str, ledger: str, started: datetime) -> None:
        expected = {
            table: Expected(
                original=len(self._snapshot[table]),
                damaged=len(self._snapshot[table]) - len(done.deleted) + len(done.added),
            )
            for table, done in self._damage.items()
        }
        observer = Observer(
            self._aws.client,
            ledger=ledger,
            incident_id=self._incident_id,
            execution_arn=arn,
            tables=sample.PROTECTED_TABLES,
            environment=STACK,
            since=started,
        )
        tracker = Tracker(expected)
        try:
            with progress.view(self._console) as shown:
                progress.watch(
                    observer, tracker, shown, on_look=self._freeze.look, timeout_seconds=RECOVERY_TIMEOUT_SECONDS
                )
        finally:
            self._timeline = tracker.timeline()

    # -- the proof ---------------------------------------------------------------------------------------------------

    def _prove(self, execution: Execution) -> None:
        error = "" if execution.succeeded else f", {execution.error or 'no error named'}"
        self._check(
            "The recovery says that it succeeded",
            execution.succeeded,
            f"its execution {execution.arn.rpartition(':')[2]} ended {execution.status}{error}",
        )
        for table in sample.PROTECTED_TABLES:
            self._prove_table(table)
        for table in sample.SENSITIVE_TABLES:
            self._prove_sensitive(table, execution)
        self._prove_functions()
        self._prove_nothing_is_left()
        self._prove_report(execution)

    def _prove_table(self, table: str) -> None:
        found = proof.compare(
            self._snapshot[table], proof.scan_table(self._aws.client("dynamodb"), table), self._keys[table]
        )
        self._proofs[table] = found
        self._check(
            f"{table} equals its state at the restore point",
            found.equal,
            f"{found.items:,} items compared: {found.missing:,} missing, {found.extra:,} extra, "
            f"{found.changed:,} changed",
        )

    def _prove_sensitive(self, table: str, execution: Execution) -> None:
        span = (execution.started, execution.ended)
        log = self._aws.access_log(table)
        _, others = evidence.requests_between(log, *span)
        control = sum(
            len(evidence.requests_between(self._aws.access_log(each), *span)[1]) for each in sample.PROTECTED_TABLES
        )
        now = proof.scan_table(self._aws.client("dynamodb"), table)
        found = proof.compare(self._snapshot[table], now, self._keys[table])
        ok = found.equal and not others and control > 0
        self._sensitive.append(
            {
                "tableName": table,
                "ok": ok,
                "equal": found.equal,
                "items": found.items,
                "requestsByOthers": len(others),
                "controlRequests": control,
            }
        )
        self._check(
            f"The sensitive table {table} was not touched",
            ok,
            f"equal to before: {'yes' if found.equal else 'no'}; requests by anyone but the rehearsal: "
            f"{len(others):,}; the same log holds {control:,} requests of the recovery on protected tables",
        )

    def _prove_functions(self) -> None:
        self._after = self._settled_settings()
        described = evidence.describe_functions(self._before, self._freeze.during, self._after, self._system)
        changed = [each["name"] for each in described if not each["restored"]]
        self._check(
            "Every function and event source has its former settings",
            not changed,
            f"differ: {', '.join(changed)}" if changed else _compared(described),
        )
        stopped, settings = evidence.frozen_score(self._freeze.during or self._before, self._system)
        self._check(
            "The whole system was seen frozen during the recovery",
            self._freeze.complete,
            f"{stopped if self._freeze.during else 0} of {settings} settings were seen stopped at once: the reserved "
            f"concurrency of {_counted(len(self._system), 'function')}, and "
            f"{_counted(settings - len(self._system), 'event source')}",
        )
        self._check(
            f"A call of {self._system[0]} during the recovery was refused",
            self._freeze.refused is True,
            {
                None: "not tried: the freeze was never complete",
                True: "Lambda answered TooManyRequestsException, as it does where nothing may run",
                False: "it ran",
            }[self._freeze.refused],
        )

    def _prove_nothing_is_left(self) -> None:
        deadline = time.monotonic() + SETTLING_SECONDS
        while left := evidence.tables_beginning_with(self._aws.client("dynamodb"), TEMPORARY_PREFIX):
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)  # a table stays in the list while it is being deleted
        seen = sum(entry["phase"] == "restore" and bool(entry["tableName"]) for entry in self._timeline)
        self._check(
            "The temporary tables are gone",
            not left,
            f"left: {', '.join(left)}"
            if left
            else f"{seen} seen during the recovery; now no table's name begins with “{TEMPORARY_PREFIX}”",
        )

    def _prove_report(self, execution: Execution) -> None:
        name = "The recovery's report is in S3"
        uri = str(execution.output.get("reportUri") or "")
        try:
            content = evidence.read_report(self._aws.client("s3"), uri)
        except (ValueError, ClientError) as error:
            self._check(name, False, str(error))
            return
        found = content.get("incidentId")
        self._check(name, found == self._incident_id, f"{uri}, of incident {found}")

    def _check(self, name: str, ok: bool, detail: str) -> None:
        self._checks.append(Check(name=name, ok=ok, detail=detail))
        mark = "[green]✓[/green]" if ok else "[red]✗[/red]"
        self._say(f"  {mark} {name}")
        if not ok:
            self.problems.append(f"Does not hold: {name}. {detail}".strip())

    def _tables(self, output: Mapping[str, Any]) -> list[dict[str, Any]]:
        reported = {entry.get("tableName"): entry for entry in output.get("tables", [])}
        return [self._table(table, reported.get(table, {})) for table in sample.PROTECTED_TABLES]

    def _table(self, table: str, reported: Mapping[str, Any]) -> dict[str, Any]:
        done, found = self._damage.get(table), self._proofs.get(table)
        return {
            "tableName": table,
            **dict.fromkeys(TABLE_FIELDS),
            **reported,
            "damagedItems": done.total if done else 0,
            "damage": done.counts() if done else None,
            "independentProof": found.to_json() if found else None,
        }

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)


def main() -> int:
    """Run the drill on an embedded AWS of its own; returns the exit code."""
    console = Console()
    started, clock = datetime.now(UTC), time.monotonic()
    console.print("[bold]Recovery drill[/bold] on an embedded AWS. Nothing leaves this computer.")
    FOLDER.mkdir(parents=True, exist_ok=True)
    log = FOLDER / "embedded-aws.log"
    # An earlier drill's report must not pass for this one's, should this one break off.
    for old in (log, FOLDER / "report.json", FOLDER / "report.html"):
        old.unlink(missing_ok=True)
    try:
        with EmbeddedAws(asked_port() or 0, log_path=log) as aws:
            drill = Drill(aws, console, started=started)
            drill.step_seconds["Embedded AWS"] = round(time.monotonic() - clock, 1)
            rehearse(drill)
            paths = report.write(drill.result(), FOLDER)
    except EmbeddedAwsError as error:
        console.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    conclude(console, drill, paths, log, time.monotonic() - clock)
    return 1 if drill.problems else 0


def rehearse(drill: Drill) -> None:
    """Run the drill; what stops it becomes one of its problems, so that the report is written in any case."""
    try:
        drill.run()
    except (DrillError, DeploymentError, BatchRefusedError, ClientError, BotoCoreError, TimeoutError, OSError) as error:
        drill.problems.append(f"The drill stopped: {error}")


def conclude(console: Console, drill: Drill, paths: tuple[Path, Path], log: Path, seconds: float) -> None:
    """Print the verdict, the times, and where to read on."""
    result = drill.result()
    console.print()
    if drill.problems:
        console.print("The drill FAILED.", style="bold red")
        for problem in drill.problems:
            console.print(f"  - {problem}", markup=False, highlight=False, soft_wrap=True)
        if result["cause"]:
            console.print("What the recovery reported:", style="bold")
            console.print(f"  {result['error']}: {result['cause']}", markup=False, highlight=False, soft_wrap=True)
        console.print("Where to look:", style="bold")
        if result["executionArn"]:
            console.print(f"  the execution       {result['executionArn']}", highlight=False, soft_wrap=True)
        console.print(f"  the embedded AWS    {log}", highlight=False, soft_wrap=True)
    else:
        items = sum(table["independentProof"]["items"] for table in result["tables"])
        console.print(
            f"[bold green]Every table is back.[/bold green] {items:,} items proven equal to their state at the "
            f"restore point, {result['restoreDateTime']}.",
            highlight=False,
            soft_wrap=True,
        )
    times = ", ".join(f"{name} {duration:.1f} s" for name, duration in drill.step_seconds.items())
    console.print(f"Took {seconds:.1f} s: {times}.", highlight=False, soft_wrap=True)
    for path in paths:
        console.print(f"  {path}", highlight=False, soft_wrap=True)


def next_whole_second(moment: datetime) -> datetime:
    """The first whole second strictly after `moment`."""
    return moment.replace(microsecond=0) + timedelta(seconds=1)


def wait_until(
    moment: datetime,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return once the clock shows `moment`. A loop, because a sleep may end early and clocks may be set."""
    while (left := (moment - now()).total_seconds()) > 0:
        sleep(left)


def cli_command(endpoint_url: str, machine: str, request: Mapping[str, Any]) -> str:
    """The AWS CLI command that does the same, fit to be pasted into a shell."""
    return shlex.join(
        [
            "aws",
            "stepfunctions",
            "start-execution",
            "--endpoint-url",
            endpoint_url,
            "--state-machine-arn",
            machine,
            "--input",
            json.dumps(request),
        ]
    )


def describe_end(description: Mapping[str, Any], started: datetime, ended: datetime) -> Execution:
    """What DescribeExecution says of an execution that ended."""
    output = json.loads(description.get("output") or "{}")
    return Execution(
        arn=description["executionArn"],
        status=description["status"],
        output=output if isinstance(output, dict) else {},
        error=str(description.get("error") or ""),
        cause=str(description.get("cause") or ""),
        started=started,
        ended=ended,
    )


def _compared(described: Sequence[Mapping[str, Any]]) -> str:
    """How many functions were compared, and why more than are frozen."""
    others = sum(not each["inSystem"] for each in described)
    text = f"{_counted(len(described), 'function')} compared"
    return f"{text}, {others} of them another team's, which must not be touched at all" if others else text


def _counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _in_text(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _iso(value) if isinstance(value, datetime) else value for name, value in entry.items()}


def _iso(moment: datetime) -> str:
    """ISO 8601 in UTC; milliseconds only where there are any."""
    spec = "milliseconds" if moment.microsecond else "seconds"
    return moment.astimezone(UTC).isoformat(timespec=spec).replace("+00:00", "Z")


if __name__ == "__main__":
    sys.exit(main())
