"""Plays many schedules in processes of their own, stops at the first that fails, and makes it simple."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pytest
import structlog

from tests.schedules.arena import Arena, arena
from tests.schedules.breaks import BREAKS
from tests.schedules.choices import Choices, simplest
from tests.schedules.playing import Played, play

_TRIES: Final = 200
_REPEATS: Final = 3


@dataclass(frozen=True)
class Failure:
    """A schedule of which something does not hold. `simple` fails as well, in fewer steps."""

    seed: int
    drawn: str
    simple: str
    findings: list[str]
    steps: tuple[int, int]
    """Of the schedule as it was drawn, and of the simple one."""

    def __str__(self) -> str:
        return f"seed {self.seed}, {self.steps[0]} steps, made {self.steps[1]}:\n\n{self.simple}"


@dataclass(frozen=True)
class Explored:
    """How many schedules were played, how many steps they had, and the first that failed."""

    played: int
    steps: int
    failure: Failure | None


def explore(admin_url: str, seeds: Sequence[int], broken: str | None = None, *, simplify: bool = True) -> Explored:
    """Plays the schedules of these seeds until one fails; with a name of `BREAKS`, on a runtime broken that way."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    with pytest.MonkeyPatch.context() as patch:
        if broken is not None:
            BREAKS[broken](patch)
        return asyncio.run(_explore(admin_url, seeds, patch, simplify=simplify))


async def _explore(admin_url: str, seeds: Sequence[int], patch: pytest.MonkeyPatch, *, simplify: bool) -> Explored:
    steps = 0
    async with arena(admin_url) as ground:
        patch.setattr("services.runtime.relay.monotonic", lambda: ground.seconds)
        for nth, seed in enumerate(seeds, start=1):
            played = await play(ground, Choices(seed))
            steps += len(played.steps)
            if played.findings:
                simple = await _simple(ground, played) if simplify else played
                lengths = (len(played.steps), len(simple.steps))
                return Explored(nth, steps, Failure(seed, str(played), str(simple), played.findings, lengths))
    return Explored(len(seeds), steps, None)


async def _simple(ground: Arena, played: Played) -> Played:
    """The simplest schedule found that fails; the one that was drawn, where it does not fail again."""

    async def fails(choices: Sequence[int]) -> bool:
        return bool((await play(ground, Choices(recorded=choices))).findings)

    choices = await simplest(played.choices, fails, _TRIES)
    for _ in range(_REPEATS):
        again = await play(ground, Choices(recorded=choices))
        if again.findings:
            return again
    return played
