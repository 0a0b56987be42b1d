"""F18: faults of all kinds, drawn by lot, two at a time, for minutes."""

import asyncio
import random
from collections.abc import Sequence
from time import monotonic
from typing import Final

from schemas.topics import SERVICES
from services.console.stack import find
from tests.faults.ground import Ground
from tests.faults.scenario import Field, Scenario

_SEEDS: Final = 2
_LONGEST_PAUSE_SECONDS: Final = 3.0
_LONGEST_FAULT_SECONDS: Final = 180.0
_OF_PROCESSES: Final = frozenset({"F1", "F2", "F3", "F4", "F5", "F15", "F16", "F17"})
"""Faults of the services' processes; all others are of what is around them. One of each kind goes on at a time."""


def storm(minutes: float, scenarios: Sequence[Scenario]) -> Scenario:
    """All faults at once, of scenarios for the usual ground: those that recover, also where others cut them short."""
    fit = [one for one in scenarios if not (one.halts or one.spoils or one.seeds or one.setting or one.uninterrupted)]
    of_processes = [one for one in fit if one.fault in _OF_PROCESSES]
    of_surroundings = [one for one in fit if one.fault not in _OF_PROCESSES]

    async def inject(field: Field) -> None:
        until = monotonic() + minutes * 60
        await asyncio.gather(
            *(
                _one_after_another(field, random.Random(field.chance.random()), choice, until)
                for choice in (of_processes, of_surroundings)
                if choice
            )
        )
        await _calm(field)

    return Scenario(
        fault="F18",
        name="all-at-once",
        sentence=f"For {minutes:g} minutes faults drawn by lot, one of processes and one of servers at a time",
        inject=inject,
        seeds=_SEEDS,
        longest_seconds=minutes * 60 + 2 * _LONGEST_FAULT_SECONDS,
    )


async def _one_after_another(field: Field, chance: random.Random, choice: Sequence[Scenario], until: float) -> None:
    while monotonic() < until:
        await asyncio.sleep(chance.uniform(0, _LONGEST_PAUSE_SECONDS))
        scenario = chance.choice(choice)
        inner = Field(field.ground, random.Random(chance.random()), field.traffic, began=field.began)
        field.note(f"{scenario.fault} {scenario.name} begins")
        try:
            async with asyncio.timeout(_LONGEST_FAULT_SECONDS):
                await _all_there(field.ground)
                await scenario.inject(inner)
        except Exception as error:  # one fault may keep the other from being carried out: what counts is the end
            field.note(f"{scenario.name} was cut short by another: {type(error).__name__} {str(error)[:120]}")
        finally:
            if inner.recovery is not None:
                inner.recovery.cancel()


async def _all_there(ground: Ground) -> None:
    """Starts what a fault that was cut short has left dead."""
    processes = ground.stack.processes
    if any(service not in processes or find(processes[service]) is None for service in SERVICES):
        await ground.start_missing()


async def _calm(field: Field) -> None:
    """Everything is back: both servers, and one process of each service."""
    for name in ("kafka", "postgres"):
        await field.ground.start_server(name)
    for known in field.ground.stack.processes.values():
        process = find(known)
        if process is not None:
            process.resume()
    field.ended()
    await field.ground.start_missing()
