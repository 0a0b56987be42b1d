"""`fieldbridge simulate`: an outside world that asks, answers, reports and withdraws, with a ledger of its own."""

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from services.console.registry import read_agency, read_list
from services.console.screen import AsJson, Progress, out, progress, say, show_json, table
from services.console.sql import asking
from services.console.surroundings import Stack, here
from services.console.trouble import Trouble
from services.console.world.answering import Step, World
from services.console.world.asking import Asking, Burst
from services.console.world.population import Agency, roster
from services.console.world.simulation import Simulation, Tally, running
from services.intake.decisions.registry import UnusableRow

_ROSTER_SECONDS: Final = 60.0
_BAR: Final = 40
_LOOK_SECONDS: Final = 0.5
_MOST_REASONS: Final = 10


@dataclass(frozen=True, slots=True)
class Plan:
    """What a simulation is to do."""

    seed: int
    run: str
    requests: int
    rate: float
    burst: int = 0
    experts: int = 150
    with_roster: bool = True
    delivers: bool = False
    settle_seconds: float = 60.0
    ledger: Path | None = None

    @property
    def burst_numbers(self) -> range:
        """The burst comes in the middle."""
        start = (self.requests - self.burst) // 2
        return range(start, start + self.burst)


@dataclass(frozen=True, slots=True)
class Result:
    """How a simulation ended."""

    plan: Plan
    steps: dict[Step, int]
    reached: Counter[str]
    """How many requests have had a fact of each type."""
    tally: Tally
    at_rest: bool

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "run": self.plan.run,
            "seed": self.plan.seed,
            "requests": {step.value: count for step, count in self.steps.items()},
            "at_rest": self.at_rest,
            "sent": self.tally.sent,
            "acknowledged": self.tally.acknowledged,
            "unacknowledged": self.tally.unacknowledged,
            "taken": self.tally.taken,
            "refused": dict(self.tally.refused),
            "without_receipt": len(self.tally.awaiting_receipt),
            "seconds_to_confirmed": {"p50": self.tally.percentile(50), "p99": self.tally.percentile(99)},
        }


def simulate(
    requests: Annotated[int | None, typer.Option(help="Number of requests.", min=1)] = None,
    rate: Annotated[float, typer.Option(help="Requests a second.", min=0.01)] = 20.0,
    seconds: Annotated[
        float | None, typer.Option(help="How long to go on asking, instead of a number.", min=0.1)
    ] = None,
    burst: Annotated[
        int, typer.Option(help="Requests of one state that come at once, after a mass-casualty event.", min=0)
    ] = 0,
    seed: Annotated[int, typer.Option(help="Same seed, same requests and answers.")] = 1,
    run: Annotated[
        str | None, typer.Option(help="Name of this run, part of every id; made from the time otherwise.")
    ] = None,
    experts: Annotated[int, typer.Option(help="Experts to list before.", min=1)] = 150,
    no_roster: Annotated[bool, typer.Option("--no-roster", help="List no partners and experts before.")] = False,
    deliver: Annotated[bool, typer.Option("--deliver", help="Report sessions and return evaluations, too.")] = False,
    settle: Annotated[float, typer.Option(help="Seconds to wait afterwards until every request rests.", min=0)] = 60.0,
    ledger: Annotated[Path | None, typer.Option(help="Append every acknowledged submission to this file.")] = None,
    agencies: Annotated[
        Path | None, typer.Option(help="CSV of the agencies that ask, instead of the registry.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Let an outside world ask for assistance and answer. Exit status 1 if requests do not come to rest."""
    stack = here().stack()
    number = requests if requests is not None else round(rate * seconds) if seconds is not None else 100
    plan = Plan(
        seed=seed,
        run=run or new_run(),
        requests=max(1, number) + burst,
        rate=rate,
        burst=burst,
        experts=experts,
        with_roster=not no_roster,
        delivers=deliver,
        settle_seconds=settle,
        ledger=ledger,
    )
    known = asyncio.run(registry(stack)) if agencies is None else read_agencies(agencies)
    result = asyncio.run(carry_out(stack, plan, known))
    if as_json:
        show_json(result.as_json())
    else:
        out.print(summary(result))
        if result.tally.refused:
            out.print(
                table("Refused", ("submission and reason", "count#"), result.tally.refused.most_common(_MOST_REASONS))
            )
    if not result.at_rest:
        raise Trouble(
            f"Not every request came to rest within {settle:g} s: see `fieldbridge status`, and `fieldbridge story` of "
            f"one of the requests R-{plan.run}-...."
        )


def new_run() -> str:
    """A name for a run that no earlier one has."""
    return datetime.now(UTC).strftime("%y%m%d-%H%M%S")


async def carry_out(stack: Stack, plan: Plan, agencies: list[Agency]) -> Result:
    """Runs the plan to its end, showing how requests proceed. Raises Trouble."""
    today = datetime.now(UTC).date()
    try:
        world = World(plan.run, _asking(plan, agencies), plan.delivers)
    except ValueError as error:
        raise Trouble(f"Nobody can ask: {error}. Import agencies with `fieldbridge agencies import FILE`.") from None
    say(f"run {plan.run}, seed {plan.seed}: {plan.requests} requests of {len(agencies):,} agencies")
    async with running(stack, world, plan.ledger) as simulation:
        with progress() as shown:
            if plan.with_roster:
                await simulation.publish(roster(plan.seed, plan.run, plan.experts, agencies, today))
                await simulation.answered(_ROSTER_SECONDS)
            look = _Look(simulation, plan.requests, shown)
            await simulation.ask(range(plan.requests), plan.rate, plan.burst_numbers, look)
            at_rest = await simulation.settle(plan.settle_seconds, look)
            shown.end_with(look.line())
    return Result(plan, dict(world.steps()), world.reached(), simulation.tally, at_rest)


def summary(result: Result) -> Table:
    """The result as a table for people."""
    tally = result.tally
    p50, p99 = tally.percentile(50), tally.percentile(99)
    rows: list[tuple[str, object]] = [
        *((step.value.replace("_", " "), result.steps[step]) for step in Step if result.steps.get(step)),
        ("submissions acknowledged", tally.acknowledged),
        ("submissions not acknowledged", tally.unacknowledged),
        ("taken", tally.taken),
        ("refused", tally.refused.total()),
        ("without a receipt", len(tally.awaiting_receipt)),
        ("request to confirmed plan, p50", "" if p50 is None else f"{p50:.2f} s"),
        ("request to confirmed plan, p99", "" if p99 is None else f"{p99:.2f} s"),
    ]
    return table(f"Run {result.plan.run}", ("what", "count#"), rows)


async def registry(stack: Stack) -> list[Agency]:
    """The active agencies of the registry, and those of types that are not eligible as they are. Raises Trouble."""
    async with asking(stack, "intake") as db:
        rows = await db.fetch(
            "SELECT ori, agency_type, state FROM agency "
            "WHERE active OR agency_type IN ('federal', 'unknown') ORDER BY ori"
        )
    if not rows:
        raise Trouble("The registry holds no agency: run `fieldbridge agencies import FILE` first.")
    return [Agency(row["ori"], row["agency_type"], row["state"]) for row in rows]


def read_agencies(path: Path) -> list[Agency]:
    """The agencies of a list as `fieldbridge agencies import` takes it. Raises Trouble."""
    found: list[Agency] = []
    for line, row in read_list(path):
        read = read_agency(line, row)
        if isinstance(read, UnusableRow):
            faults = "; ".join(f"{problem.field} {problem.problem}" for problem in read.problems)
            raise Trouble(f"{path}, line {line}: {faults}.")
        found.append(Agency(read.ori, read.agency_type, read.state))
    return found


class _Look:
    """Shows how far the requests are, each time it is called, but not more often than is of use."""

    def __init__(self, simulation: Simulation, requests: int, shown: Progress) -> None:
        self._simulation = simulation
        self._requests = requests
        self._shown = shown
        self._next = 0.0

    def __call__(self) -> None:
        if monotonic() >= self._next:
            self._next = monotonic() + _LOOK_SECONDS
            steps = self._simulation.world.steps()
            self._shown.update(self._picture(steps), self._line(steps))

    def line(self) -> str:
        """The counts in one line."""
        return self._line(self._simulation.world.steps())

    def _line(self, steps: Counter[Step]) -> str:
        counts = ", ".join(f"{steps[step]} {step.value.replace('_', ' ')}" for step in Step if steps[step])
        return f"{steps.total()}/{self._requests} submitted: {counts}"

    def _picture(self, steps: Counter[Step]) -> Table:
        most = max(steps.values(), default=1)
        rows = [
            (step.value.replace("_", " "), steps[step], "█" * round(_BAR * steps[step] / most))
            for step in Step
            if steps[step]
        ]
        return table(f"{steps.total()} of {self._requests} requests submitted", ("step", "requests#", ""), rows)


def _asking(plan: Plan, agencies: list[Agency]) -> Asking:
    today = datetime.now(UTC).date()
    asking = Asking(plan.seed, agencies, today)
    if not plan.burst:
        return asking
    return Asking(plan.seed, agencies, today, Burst(asking.largest_state(), plan.burst_numbers))
