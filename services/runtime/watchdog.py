"""Ends a process that hangs: whatever restarts it does more good than an event loop that no longer turns.

Nothing is lost by it. The transaction in hand is rolled back, and the next owner of the partitions reads on from their
positions.
"""

import asyncio
import os
import threading
from time import sleep
from typing import Final

from services.runtime.health import Health
from services.runtime.logs import logger

HUNG: Final = 70
"""Exit status of a process that was ended because it hung."""

_TICK_SECONDS: Final = 0.5
_PART_TIMES: Final = 8
"""A part may wait for an answer of a server while the event loop turns: it has so many times the limit."""

log = logger("watchdog")


class Watchdog:
    """A thread beside the event loop that counts how long the loop, or one of its parts, has not turned."""

    def __init__(self, health: Health, limit_seconds: float) -> None:
        self._health = health
        self._limit = limit_seconds
        self._turns = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watches the loop from its first turn until the process ends."""
        loop.call_soon(self._turn, loop)
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        self._turns += 1
        loop.call_later(_TICK_SECONDS, self._turn, loop)

    def _watch(self) -> None:
        # Ticks are counted, not seconds of the clock: a process that was suspended as a whole did not hang.
        seen: dict[str, float] = {}
        quiet: dict[str, int] = {}
        while True:
            sleep(_TICK_SECONDS)
            for part, sign in (("event loop", self._turns), *tuple(self._health.beats.items())):
                quiet[part] = quiet[part] + 1 if seen.get(part) == sign else 0
                seen[part] = sign
                seconds = quiet[part] * _TICK_SECONDS
                if seconds >= self._limit * (1 if part == "event loop" else _PART_TIMES):
                    log.critical("hangs and is ended", part=part, seconds=seconds)
                    os._exit(HUNG)
