"""`path`: a request through all four services: how long, how many a second, and how long a backlog takes."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from time import monotonic, process_time
from typing import Any, Final

from services.console.surroundings import Stack
from services.console.world.population import Agency
from services.console.world.simulation import running
from tests.benchmarks import step_times
from tests.benchmarks.measuring import Report, Sheet, machine, percentile, tell, versions
from tests.benchmarks.step_times import CONFIRMED, RECEIPT, STEPS, Told
from tests.benchmarks.whole_stack import Site, ask, fall_silent, nothing, populate, site, world

RATES: Final = (100, 100, 100, 150, 200, 250, 300)
BACKLOGS: Final = (20_000, 40_000)
_WARM_REQUESTS: Final = 200
_WARM_RATE: Final = 50.0
_OFF_PACE: Final = 1.02
_GROWTH: Final = 1.5
_GROWTH_SECONDS: Final = 0.2
_PATIENCE_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is asked. An expert carries eight requests on average, and not every expert fits every request."""

    warm_seconds: float
    """How long is asked at each rate before anything counts: a broker is slow until its hot code is compiled."""
    seconds: float
    rates: Sequence[int]
    backlogs: Sequence[int]

    @classmethod
    def full(cls, rates: Sequence[int] = RATES, backlogs: Sequence[int] = BACKLOGS) -> "Plan":
        return cls(20.0, 60.0, rates, backlogs)

    @classmethod
    def quick(cls) -> "Plan":
        return cls(4.0, 6.0, (20, 40), (200, 400))

    def requests(self, rate: int) -> int:
        """Requests that count, asked at a rate."""
        return round(rate * self.seconds)

    def warm_requests(self, rate: int) -> int:
        """Requests asked at a rate before."""
        return round(rate * self.warm_seconds)


@dataclass(frozen=True, slots=True)
class Flow:
    """How it went at one rate. Waits are in seconds, from a request's submission to its confirmed engagement."""

    rate: int
    requests: int
    confirmed: int
    p50: float
    p99: float
    heard_p50: float | None
    """The same as the outside world hears it, which reads Kafka on the same cores."""
    heard_p99: float | None
    thirds: tuple[float, float, float]
    """Median wait of the requests submitted in each third of the time."""
    pace: float
    """How much longer than planned the asking took: 1 where the outside world kept up with itself."""
    driver: float
    """Share of a core that the outside world took."""

    @property
    def bounded(self) -> bool:
        """Whether those who came last waited no longer than those who came first, and the pace was kept."""
        return self.pace <= _OFF_PACE and self.thirds[2] <= _GROWTH * self.thirds[0] + _GROWTH_SECONDS


@dataclass(frozen=True, slots=True)
class Drained:
    """How long a backlog took: from the first of its receipts to the last confirmed engagement."""

    requests: int
    confirmed: int
    seconds: float
    start_seconds: float
    """From the command to start the services to the first receipt."""


def measure(plan: Plan) -> Report:
    """Measures at one rate after the other, each on a stack of its own, and then the backlogs. Raises Trouble."""
    on = machine()
    flows: list[Flow] = []
    straight: list[Told] = []
    for rate in plan.rates:
        with site() as place:
            flow, told = asyncio.run(_at_rate(place.stack, rate, plan))
        straight = straight or [one for one in told if one.straight]
        flows.append(flow)
        tell(
            f"{rate} requests/s: p50 {flow.p50:.2f} s, p99 {flow.p99:.2f} s, thirds "
            + ", ".join(f"{third:.2f}" for third in flow.thirds)
        )
        if not flow.bounded:
            break
    drained = [_backlog(requests, max(plan.backlogs)) for requests in plan.backlogs]
    figures = {
        "rates": [asdict(flow) | {"bounded": flow.bounded} for flow in flows],
        "steps": {step.name: _figures(step_times.seconds(step, straight)) for step in STEPS},
        "backlogs": [asdict(one) for one in drained],
    }
    sheets = [
        *([_rates(plan, flows), _steps(plan, straight)] if flows else []),
        *([_backlogs(drained)] if drained else []),
    ]
    asked = {"seconds at each rate": plan.seconds, "seconds before": plan.warm_seconds}
    return Report("path", asked, sheets, figures, on, versions())


async def _at_rate(stack: Stack, rate: int, plan: Plan) -> tuple[Flow, list[Told]]:
    requests, before = plan.requests(rate), plan.warm_requests(rate)
    known = await populate(stack, agencies=max(2000, before + requests), experts=100 + (before + requests) // 4)
    await ask(stack, known, "warm", before, float(rate))
    run = f"at{rate}"
    async with running(stack, world(run, known), None) as simulation:
        began, spent, wall = monotonic(), process_time(), datetime.now(UTC)
        await simulation.ask(range(requests), float(rate), range(0), nothing)
        pace = (monotonic() - began) / (requests / rate)
        driver = (process_time() - spent) / (monotonic() - began)
        await fall_silent(simulation, _PATIENCE_SECONDS)
        tally = simulation.tally
    told = list((await step_times.tell(stack, run)).values())
    waits = [(_since(wall, one), _wait(one)) for one in told if CONFIRMED in one.first]
    third = requests / rate / 3
    thirds = [[wait for since, wait in waits if int(min(since // third, 2)) == nth] for nth in range(3)]
    flow = Flow(
        rate,
        requests,
        len(waits),
        percentile([wait for _, wait in waits], 50),
        percentile([wait for _, wait in waits], 99),
        tally.percentile(50),
        tally.percentile(99),
        (percentile(thirds[0], 50), percentile(thirds[1], 50), percentile(thirds[2], 50)),
        pace,
        driver,
    )
    return flow, told


def _since(wall: datetime, told: Told) -> float:
    return (STEPS[-1].begins(told) - wall).total_seconds()


def _wait(told: Told) -> float:
    return step_times.seconds(STEPS[-1], [told])[0]


def _backlog(requests: int, largest: int) -> Drained:
    """Submits requests while the services are down, then starts them. The pool is the same for every backlog."""
    with site() as place:
        known = asyncio.run(populate(place.stack, agencies=largest, experts=100 + largest // 4))
        asyncio.run(ask(place.stack, known, "warm", _WARM_REQUESTS, _WARM_RATE))
        place.stop()
        drained = asyncio.run(_drain(place, known, requests))
    tell(f"backlog of {requests:,}: {drained.seconds:.1f} s, {drained.confirmed:,} confirmed")
    return drained


async def _drain(place: Site, known: list[Agency], requests: int) -> Drained:
    run = f"b{requests}"
    async with running(place.stack, world(run, known), None) as simulation:
        for number in range(requests):
            await simulation.publish(simulation.world.ask(number))
        began = datetime.now(UTC)
        await asyncio.to_thread(place.start)
        await fall_silent(simulation, _PATIENCE_SECONDS + requests / 20)
    told = list((await step_times.tell(place.stack, run)).values())
    receipts = min(STEPS[0].ends(one) for one in told if RECEIPT in one.first)
    confirmed = [one.first[CONFIRMED] for one in told if CONFIRMED in one.first]
    return Drained(
        requests, len(confirmed), (max(confirmed) - receipts).total_seconds(), (receipts - began).total_seconds()
    )


def _figures(values: list[float]) -> dict[str, Any]:
    return {"p50": percentile(values, 50), "p99": percentile(values, 99)} if values else {}


def _rates(plan: Plan, flows: list[Flow]) -> Sheet:
    sheet = Sheet(
        f"Requests a second, asked for {plan.seconds:.0f} s: seconds from submission to confirmed engagement",
        (
            "requests/s#",
            "confirmed#",
            "p50#",
            "p99#",
            "heard p50#",
            "heard p99#",
            "p50 by thirds#",
            "driver#",
            "bounded",
        ),
        notes=[
            f"Each on a stack of its own, after {plan.warm_seconds:.0f} s at the same rate that do not count.",
            "`heard`: as the simulated outside world hears it. `driver`: share of a core that it took.",
            f"`bounded`: pace kept, last third waited at most {_GROWTH:g} x the first and {_GROWTH_SECONDS:g} s.",
        ],
    )
    for flow in flows:
        heard = [f"{value:.2f}" if value is not None else "" for value in (flow.heard_p50, flow.heard_p99)]
        thirds = " / ".join(f"{third:.2f}" for third in flow.thirds)
        waits = (f"{flow.p50:.2f}", f"{flow.p99:.2f}", *heard, thirds)
        sheet.rows.append((flow.rate, flow.confirmed, *waits, f"{flow.driver:.0%}", "yes" if flow.bounded else "no"))
    return sheet


def _steps(plan: Plan, straight: list[Told]) -> Sheet:
    sheet = Sheet(
        f"Where the time goes at {plan.rates[0]} requests/s: {len(straight):,} requests that went straight through",
        ("step", "who", "p50 ms#", "p99 ms#", "share of the median way#"),
        notes=[
            "From the time attribute of one event to the next: a decision's moment, before its commit and its relay."
        ],
    )
    whole = percentile(step_times.seconds(STEPS[-1], straight), 50)
    for step in STEPS:
        values = step_times.seconds(step, straight)
        p50, p99 = percentile(values, 50), percentile(values, 99)
        sheet.rows.append((step.name, step.by, f"{p50 * 1000:.0f}", f"{p99 * 1000:.0f}", f"{p50 / whole:.0%}"))
    return sheet


def _backlogs(drained: list[Drained]) -> Sheet:
    first = drained[0]
    sheet = Sheet(
        "A backlog that was submitted while the services were down, from the first receipt to the last confirmation",
        ("requests#", "confirmed#", "seconds#", "requests/s#", "of the first#", "start to first receipt#"),
    )
    for one in drained:
        sheet.rows.append(
            (
                one.requests,
                one.confirmed,
                f"{one.seconds:.1f}",
                f"{one.requests / one.seconds:.0f}",
                f"{one.seconds / first.seconds:.2f} x",
                f"{one.start_seconds:.1f} s",
            )
        )
    return sheet
