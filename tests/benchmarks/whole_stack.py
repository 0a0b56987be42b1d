"""The whole stack on servers of its own, with agencies and experts enough for what a benchmark asks of it."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Final

from services.console.registry import SAMPLE, Row, bring_in, read_list
from services.console.simulate import registry
from services.console.stack import bring_up, take_down
from services.console.surroundings import Stack, Surroundings, read_record
from services.console.world.answering import World
from services.console.world.asking import Asking
from services.console.world.population import Agency, roster
from services.console.world.simulation import Simulation, Tally, running
from tests.benchmarks.premises import own_servers

SEED: Final = 2017
_ROSTER_SECONDS: Final = 600.0
_SILENT_SECONDS: Final = 300.0
_POLL_SECONDS: Final = 0.25


class TooSlow(Exception):
    """Something did not come to its end in time; the message says what."""


def quiet(_: str) -> None:
    """Starting and stopping is no news here."""


@dataclass(frozen=True, slots=True)
class Site:
    """A stack of one benchmark."""

    surroundings: Surroundings
    folder: Path

    @property
    def stack(self) -> Stack:
        stack = read_record(self.surroundings.home)
        assert stack is not None, "the stack was not started"
        return stack

    def start(self) -> None:
        """Has all services running and ready."""
        bring_up(self.surroundings, quiet)

    def stop(self) -> None:
        """Ends the services; the servers run on."""
        take_down(self.surroundings, quiet)


@contextmanager
def site() -> Generator[Site]:
    """A stack that runs, with empty tables; it and its servers are gone at the end."""
    with own_servers() as (addresses, folder):
        surroundings = Surroundings(home=folder / "home", kafka=addresses.kafka, administrator=addresses.postgres)
        made = Site(surroundings, folder)
        try:
            made.start()
            yield made
        finally:
            made.stop()


async def populate(stack: Stack, agencies: int, experts: int) -> list[Agency]:
    """Imports so many agencies and lists so many experts; returns the agencies that may ask. Raises Trouble."""
    await bring_in(stack, many_agencies(agencies), lambda _: None)
    known = await registry(stack)
    async with running(stack, world("roster", known), None) as simulation:
        await simulation.publish(roster(SEED, "roster", experts, known, datetime.now(UTC).date()))
        await simulation.answered(_ROSTER_SECONDS)
    return known


def world(run: str, agencies: list[Agency]) -> World:
    """An outside world that answers at once, and whose requests rest once they are confirmed."""
    return World(run, Asking(SEED + sum(run.encode()), agencies, datetime.now(UTC).date()))


def many_agencies(number: int) -> list[tuple[int, Row]]:
    """As many agencies as wanted: those of the sample, again and again under ORIs that nobody has."""
    sample = read_list(SAMPLE)
    rows: list[tuple[int, Row]] = []
    for nth in range(number):
        line, row = sample[nth % len(sample)]
        lap = nth // len(sample)
        rows.append((line, row if lap == 0 else row | {"ori": _invented_ori(row["ori"] or "", nth)}))
    return rows


def _invented_ori(ori: str, nth: int) -> str:
    return f"{ori[:2]}{nth:05d}ZZ"


async def ask(stack: Stack, known: list[Agency], run: str, requests: int, rate: float) -> Tally:
    """Has requests asked at a rate and waits until nothing happens any more. Raises Trouble or TooSlow."""
    async with running(stack, world(run, known), None) as simulation:
        await simulation.ask(range(requests), rate, range(0), nothing)
        await fall_silent(simulation, _SILENT_SECONDS)
        return simulation.tally


async def fall_silent(simulation: Simulation, seconds: float, patience: float = 3.0) -> None:
    """Waits until nothing new is heard for a while, all submissions are answered and all requests rest. Raises TooSlow.

    Counts are compared first, because asking every request whether it rests takes time from what is measured. A round
    over a large backlog may say nothing for longer than the patience.
    """
    deadline = monotonic() + seconds
    before, since = _heard(simulation), monotonic()
    while monotonic() - since < patience or simulation.tally.awaiting_receipt or not simulation.world.rests():
        if monotonic() > deadline:
            steps = ", ".join(f"{count} {step}" for step, count in simulation.world.steps().items() if count)
            unanswered = len(simulation.tally.awaiting_receipt)
            raise TooSlow(f"{unanswered} submissions have no answer after {seconds:.0f} s; the requests: {steps}")
        await asyncio.sleep(_POLL_SECONDS)
        now = _heard(simulation)
        if now != before:
            before, since = now, monotonic()


def _heard(simulation: Simulation) -> tuple[int, int, int]:
    tally = simulation.tally
    return tally.sent, tally.taken, len(tally.seconds_to_confirmed)


def nothing() -> None:
    """Nobody looks on while requests are asked."""
