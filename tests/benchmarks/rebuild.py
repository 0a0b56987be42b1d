"""`rebuild`: reporting's tables made anew from Kafka's logs, as `fieldbridge replay reporting` does it."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Final

from services.console.surroundings import Stack
from services.console.world.simulation import running
from services.runtime import database
from services.runtime.database import Connection
from tests.benchmarks.measuring import Report, Sheet, Spread, machine, tell, versions
from tests.benchmarks.whole_stack import TooSlow, fall_silent, nothing, populate, site, world

_RATE: Final = 60.0
_EVENTS_A_REQUEST: Final = 14
"""About so many events of a request are read by reporting, its receipts among them."""
_POLL_SECONDS: Final = 0.02
_PATIENCE_SECONDS: Final = 900.0
_HANDLED: Final = "SELECT coalesce(sum(next_offset - first_offset), 0)::bigint FROM runtime.consumer_position"


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """One rebuild. `reading` is from the first event handled to the last, without the restart of the service."""

    events: int
    seconds: float
    reading: float
    identical: bool


def measure(events: int, repeats: int) -> Report:
    """Fills the log with at least so many events and rebuilds reporting from it. Raises Trouble or TooSlow."""
    on = machine()
    requests = events // _EVENTS_A_REQUEST + 1
    with site() as place:
        asyncio.run(_fill(place.stack, requests))
        done = [asyncio.run(_rebuild(place.stack, place.surroundings.home)) for _ in range(repeats)]
    for one in done:
        tell(f"{one.events:,} events in {one.seconds:.1f} s, {one.reading:.1f} s of them reading")
    whole = Spread.of([one.events / one.seconds for one in done])
    reading = Spread.of([one.events / one.reading for one in done])
    same = all(one.identical for one in done)
    sheet = Sheet(
        "Reporting from the log",
        ("what", "events/s, median#", "min - max#"),
        [
            ("from the first event to the last", f"{reading.median:,.0f}", reading.range),
            ("whole command: stop, empty, start, read", f"{whole.median:,.0f}", whole.range),
        ],
        [f"{done[0].events:,} events; the tables were {'identical' if same else 'NOT identical'} to those before."],
    )
    conditions = {"events": done[0].events, "rebuilds": repeats}
    figures = {"reading": reading, "whole": whole, "identical": same}
    return Report("rebuild", conditions, [sheet], figures, on, versions())


async def _fill(stack: Stack, requests: int) -> None:
    known = await populate(stack, agencies=max(2000, requests), experts=100 + requests // 4)
    async with running(stack, world("log", known), None) as simulation:
        await simulation.ask(range(requests), _RATE, range(0), nothing)
        await fall_silent(simulation, _PATIENCE_SECONDS)


async def _rebuild(stack: Stack, home: Path) -> Rebuilt:
    """Runs the command and watches the positions meanwhile: they vanish, and come back to where they were."""
    db = await database.connect(stack.database("reporting"))
    try:
        goal = await db.fetchval(_HANDLED)
        command = asyncio.create_task(asyncio.to_thread(_replay, home))
        await _until(db, command, lambda handled: handled < goal)
        await _until(db, command, lambda handled: handled > 0)
        began = monotonic()
        await _until(db, command, lambda handled: handled >= goal)
        reading = monotonic() - began
        said = await command
    finally:
        await db.close()
    return Rebuilt(said["events"], said["seconds"], reading, said["identical"])


async def _until(db: Connection, command: "asyncio.Task[Mapping[str, Any]]", holds: Callable[[int], bool]) -> None:
    """Waits for a number of events handled. Raises TooSlow where the command is over before."""
    while not holds(await db.fetchval(_HANDLED)):
        if command.done() and not holds(await db.fetchval(_HANDLED)):
            raise TooSlow(f"the rebuild ended unseen: {command.exception() or command.result()}")
        await asyncio.sleep(_POLL_SECONDS)


def _replay(home: Path) -> Mapping[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "services.console", "replay", "reporting", "--json"],
        env=os.environ | {"FIELDBRIDGE_HOME": str(home)},
        capture_output=True,
        text=True,
    )
    try:
        return json.loads(done.stdout)
    except ValueError:
        raise TooSlow(f"the rebuild failed: {done.stderr[-2000:]}") from None
