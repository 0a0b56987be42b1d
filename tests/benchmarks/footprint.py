"""`footprint`: memory, processor and connections of each service, under load and idle, and how long a start takes."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import median
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
import psutil

from schemas.topics import SERVICES
from services.console.stack import find, pausing
from services.console.surroundings import Stack
from services.console.world.simulation import running
from tests.benchmarks.measuring import Report, Sheet, Spread, machine, tell, versions
from tests.benchmarks.whole_stack import Site, fall_silent, nothing, populate, quiet, site, world

_SAMPLE_SECONDS: Final = 1.0
_MIB: Final = 2**20
_PATIENCE_SECONDS: Final = 300.0
_SETTLING_SHARE: Final = 0.2
"""Of the load, before memory is expected to be flat."""
_CONNECTIONS: Final = """
SELECT datname, count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
GROUP BY datname
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to look."""

    load_seconds: float = 600.0
    idle_seconds: float = 60.0
    rate: int = 50
    starts: int = 3

    @classmethod
    def quick(cls) -> "Plan":
        return cls(load_seconds=15.0, idle_seconds=5.0, rate=10, starts=1)


@dataclass(slots=True)
class Watch:
    """What was seen of one service under load."""

    minutes: list[float] = field(default_factory=list[float])
    resident: list[float] = field(default_factory=list[float])
    """In MiB."""
    connections: int = 0
    """The most at a time."""

    @property
    def slope(self) -> float:
        """By how many MiB a minute the memory grows, by least squares, after it has settled."""
        first = round(_SETTLING_SHARE * len(self.minutes))
        x, y = self.minutes[first:], self.resident[first:]
        mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
        spread = sum((one - mean_x) ** 2 for one in x)
        return sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / spread if spread else 0.0


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything that was measured."""

    loaded: Mapping[str, Watch]
    requests: int
    idle: Mapping[str, float]
    """Share of a core."""
    idle_connections: Mapping[str, int]
    starts: Mapping[str, Spread]


def measure(plan: Plan) -> Report:
    """Measures one stack. Raises Trouble or TooSlow."""
    on = machine()
    with site() as place:
        loaded, requests = asyncio.run(_under_load(place, plan))
        idle, connections = asyncio.run(_idle(place, plan.idle_seconds))
        starts = {service: Spread.of([_start(place, service) for _ in range(plan.starts)]) for service in SERVICES}
    return _report(plan, Seen(loaded, requests, idle, connections, starts), on)


async def _under_load(place: Site, plan: Plan) -> tuple[dict[str, Watch], int]:
    requests = round(plan.load_seconds * plan.rate)
    known = await populate(place.stack, agencies=max(2000, requests), experts=100 + requests // 4)
    async with running(place.stack, world("load", known), None) as simulation, _watched(place) as watches:
        await simulation.ask(range(requests), float(plan.rate), range(0), nothing)
        tell(f"{requests:,} requests asked")
        await fall_silent(simulation, _PATIENCE_SECONDS)
    return watches, requests


@asynccontextmanager
async def _watched(place: Site) -> AsyncGenerator[dict[str, Watch]]:
    watches = {service: Watch() for service in SERVICES}
    processes = _processes(place.stack)
    began = monotonic()

    async def watch() -> None:
        while True:
            connections = await _connections(place)
            for service, process in processes.items():
                seen = watches[service]
                seen.minutes.append((monotonic() - began) / 60)
                seen.resident.append(process.memory_info().rss / _MIB)
                seen.connections = max(seen.connections, connections[service])
            await asyncio.sleep(_SAMPLE_SECONDS)

    watching = asyncio.create_task(watch())
    try:
        yield watches
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _idle(place: Site, seconds: float) -> tuple[dict[str, float], dict[str, int]]:
    """Shares of a core while nothing happens, and the connections then."""
    processes = _processes(place.stack)
    before = {service: _spent(process) for service, process in processes.items()}
    await asyncio.sleep(seconds)
    shares = {service: (_spent(process) - before[service]) / seconds for service, process in processes.items()}
    return shares, await _connections(place)


def _start(place: Site, service: str) -> float:
    """Seconds from the start of a service's process until it is ready."""
    with pausing(place.surroundings.home, service, quiet):
        began = monotonic()
    return monotonic() - began


def _processes(stack: Stack) -> dict[str, psutil.Process]:
    found = {service: find(stack.process(service)) for service in SERVICES}
    return {service: process for service, process in found.items() if process is not None}


def _spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


async def _connections(place: Site) -> dict[str, int]:
    """Connections of each service, by its database; those of the outside world are to none of them."""
    connection = await asyncpg.connect(place.surroundings.administrator)
    try:
        rows = {row["datname"]: row["count"] for row in await connection.fetch(_CONNECTIONS)}
    finally:
        await connection.close()
    return {service: rows.get(_database(place.stack, service), 0) for service in SERVICES}


def _database(stack: Stack, service: str) -> str:
    return urlsplit(stack.database(service)).path.removeprefix("/")


def _report(plan: Plan, seen: Seen, on: Mapping[str, str]) -> Report:
    sheet = Sheet(
        f"Under {plan.rate} requests/s for {plan.load_seconds:.0f} s ({seen.requests:,} requests), then idle for "
        f"{plan.idle_seconds:.0f} s",
        (
            "service",
            "resident MiB, median#",
            "most#",
            "MiB a minute#",
            "idle, of a core#",
            "connections, load#",
            "idle#",
            "start to ready, s#",
        ),
        notes=["Growth of memory by least squares, after the first fifth of the time."],
    )
    figures: dict[str, Any] = {}
    for service in SERVICES:
        watch, start = seen.loaded[service], seen.starts[service]
        sheet.rows.append(
            (
                service,
                f"{median(watch.resident):.0f}",
                f"{max(watch.resident):.0f}",
                f"{watch.slope:+.2f}",
                f"{seen.idle[service]:.1%}",
                watch.connections,
                seen.idle_connections[service],
                f"{start.median:.2f}",
            )
        )
        figures[service] = {
            "resident_mib": _thinned(watch.resident),
            "slope_mib_per_minute": watch.slope,
            "idle_share": seen.idle[service],
            "connections_loaded": watch.connections,
            "connections_idle": seen.idle_connections[service],
            "start_seconds": start,
        }
    sheet.rows.append(("all", "", "", "", f"{sum(seen.idle.values()):.1%}", *_sums(seen), ""))
    conditions = {"rate": plan.rate, "seconds": plan.load_seconds, "requests": seen.requests}
    return Report("footprint", conditions, [sheet], figures, on, versions())


def _sums(seen: Seen) -> tuple[int, int]:
    return sum(watch.connections for watch in seen.loaded.values()), sum(seen.idle_connections.values())


def _thinned(values: Sequence[float]) -> list[float]:
    """At most a hundred of the values, evenly spread."""
    every = max(1, len(values) // 100)
    return [round(value, 1) for value in values[::every]]
