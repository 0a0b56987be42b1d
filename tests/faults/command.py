"""The command line of the fault campaign."""

import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic
from typing import Annotated, Final, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.faults.broken.proving import prove
from tests.faults.campaign import LONGEST_RECOVERY_SECONDS, SESSION_TIMEOUT_SECONDS, Plan, Turn, carry_out
from tests.faults.outcome import Outcome
from tests.faults.plain_faust.comparing import compare
from tests.faults.report import Conditions, runs_of, write, write_comparisons, write_proofs
from tests.faults.scenario import Scenario
from tests.faults.scenarios import ALL
from tests.faults.scenarios.storm import storm
from tests.faults.servers_under_fire import LAY

FOLDER: Final = Path(".fieldbridge/faults")
_MOST_SHOWN: Final = 10
_ENDED: Final = 128 + signal.SIGTERM

app: Final = typer.Typer(add_completion=False)
err: Final = Console(stderr=True, highlight=False)


@app.command()
def main(
    seeds: Annotated[int, typer.Option(help="How many seeds: each scenario runs once with each.", min=1)] = 1,
    first_seed: Annotated[int, typer.Option(help="The first seed.", min=0)] = 1,
    requests_per_scenario: Annotated[int, typer.Option(help="Least requests while one scenario runs.", min=1)] = 500,
    rate: Annotated[float, typer.Option(help="Requests a second.", min=0.1)] = 100.0,
    only: Annotated[str, typer.Option(help="Only these faults or scenarios, separated by commas.")] = "",
    minutes: Annotated[float, typer.Option(help="Minutes of all faults at once (F18), with two seeds.", min=0)] = 0.0,
    wear: Annotated[int, typer.Option(help="After how many requests a stack is replaced by a fresh one.")] = 12_000,
    report: Annotated[Path, typer.Option(help="Where the report goes; the same as JSON beside it.")] = FOLDER
    / "report.md",
    part: Annotated[str, typer.Option(help="Only every Nth run from the Kth on, as K/N.")] = "1/1",
    recovery_within: Annotated[
        float, typer.Option(help="Seconds that recovery may take. Campaigns beside each other need more.", min=1)
    ] = LONGEST_RECOVERY_SECONDS,
    processes: Annotated[int, typer.Option(help="Campaigns that run beside each other, a part each.", min=1)] = 1,
    broken: Annotated[bool, typer.Option("--broken", help="Break three promises, and see each found.")] = False,
    plain_faust: Annotated[bool, typer.Option("--plain-faust", help="A plain Faust sink under F1 to F3.")] = False,
) -> None:
    """Break the real stack on purpose, and see whether anything was lost, doubled or put out of order.

    Exit status 1 on any violation; with --broken, if a break is not found.
    """
    # Ends what was started, also where the campaign is asked to end.
    signal.signal(signal.SIGTERM, _end)
    if plain_faust:
        write_comparisons(compare(first_seed, SESSION_TIMEOUT_SECONDS, err.print), report.with_name("plain-faust.json"))
    if broken:
        _prove(requests_per_scenario, rate, report.with_name("broken.json"))
    if plain_faust or broken:
        return
    known = [*ALL, *([storm(minutes, [one for one in ALL if one.name not in LAY])] if minutes else [])]
    chosen = _chosen(known, only)
    numbers = range(first_seed, first_seed + seeds)
    first, step = _part(part)
    turns = [turn for nth, seed in enumerate(numbers) for turn in _turns(chosen, seed, nth)][first - 1 :: step]
    conditions = Conditions(requests_per_scenario, rate, numbers, SESSION_TIMEOUT_SECONDS, recovery_within, processes)
    began = monotonic()
    outcomes: list[Outcome] = []

    def note(outcome: Outcome) -> None:
        outcomes.append(outcome)
        write(outcomes, chosen, conditions, report, monotonic() - began)

    try:
        if processes > 1:
            _side_by_side(processes, report, note)
        else:
            plan = Plan(turns, requests_per_scenario, rate, wear, LAY, recovery_within)
            with tempfile.TemporaryDirectory(prefix="fieldbridge-faults-") as folder, _Shown(len(turns), note) as shown:
                carry_out(plan, Path(folder), shown.tell)
    finally:
        err.print(f"The report is in {report}.")
    if any(outcome.findings for outcome in outcomes):
        raise typer.Exit(1)


def _part(part: str) -> tuple[int, int]:
    first, _, step = part.partition("/")
    if not (first.isdecimal() and step.isdecimal() and 1 <= int(first) <= int(step)):
        raise typer.BadParameter(f"{part!r} is no part: 1/2 and 2/2 are the halves of a campaign")
    return int(first), int(step)


def _side_by_side(processes: int, report: Path, note: Callable[[Outcome], None]) -> None:
    """Runs the same command in several processes, a part of the runs each, and takes note of what came of them all."""
    reports = [report.with_name(f"{report.stem}-{nth}{report.suffix}") for nth in range(1, processes + 1)]
    parts: list[subprocess.Popen[bytes]] = []
    for nth, path in enumerate(reports, 1):
        path.with_suffix(".json").unlink(missing_ok=True)
        own = ["--processes", "1", "--part", f"{nth}/{processes}", "--report", str(path)]
        parts.append(subprocess.Popen([sys.executable, "-m", "tests.faults", *sys.argv[1:], *own]))
    try:
        for process in parts:
            process.wait()
    finally:
        for process in parts:
            process.terminate()
            process.wait()
        for outcome in (outcome for path in reports for outcome in runs_of(path)):
            note(outcome)


def _end(_: int, __: object) -> NoReturn:
    sys.exit(_ENDED)


def _prove(requests: int, rate: float, path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="fieldbridge-broken-") as folder:
        proofs = prove(Path(folder), requests, rate, err.print)
    write_proofs(proofs, path)
    for proof in proofs:
        err.print(f"{proof.name}: {f'found by {proof.scenario}' if proof.scenario else 'NOT FOUND'}")
    if not all(proof.scenario for proof in proofs):
        raise typer.Exit(1)


def _chosen(known: Sequence[Scenario], only: str) -> list[Scenario]:
    wanted = {name.strip() for name in only.split(",") if name.strip()}
    unknown = wanted - {scenario.fault for scenario in known} - {scenario.name for scenario in known}
    if unknown:
        raise typer.BadParameter(f"there is no fault or scenario {', '.join(sorted(unknown))}")
    return [scenario for scenario in known if not wanted or {scenario.fault, scenario.name} & wanted]


def _turns(chosen: Sequence[Scenario], seed: int, nth: int) -> list[Turn]:
    """The scenarios in an order of the seed's own, without those that are so long that fewer seeds have to do."""
    turns = [Turn(scenario, seed) for scenario in chosen if scenario.seeds is None or nth < scenario.seeds]
    random.Random(seed).shuffle(turns)
    return turns


class _Shown:
    """A line for each run that is over, and a bar for what is to come."""

    def __init__(self, turns: int, note: Callable[[Outcome], None]) -> None:
        self._note = note
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=err
        )
        self._task = self._bar.add_task("", total=turns)

    def tell(self, turn: Turn, outcome: Outcome | None) -> None:
        """Takes note of a turn that begins or, with its outcome, ends."""
        name = f"{turn.scenario.fault} {turn.scenario.name}, seed {turn.seed}"
        if outcome is None:
            self._bar.update(self._task, description=name)
            return
        self._note(outcome)
        recovery = f", recovered in {max(outcome.recoveries):.1f} s" if outcome.recoveries else ""
        verdict = f"{len(outcome.findings)} findings" if outcome.findings else "holds"
        self._bar.console.print(
            f"{name}: {verdict}; {outcome.requests} requests{recovery}, {outcome.seconds:.0f} s", markup=False
        )
        for finding in outcome.findings[:_MOST_SHOWN]:
            self._bar.console.print(f"    {finding.kind}: {finding.text}", markup=False)
        self._bar.advance(self._task)

    def __enter__(self) -> "_Shown":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
