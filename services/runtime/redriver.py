"""Carries out what an operator marked: redrives or discards parked events, in sequence, while traffic goes on."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final


from services.runtime.database import Failure, Pool, meaning
from services.runtime.handling import Handling, describe
from services.runtime.health import Health
from services.runtime.logs import logger
from services.runtime.supervision import Supervised, task

_LOOK_EVERY_SECONDS: Final = 0.5
_KEYS_AT_A_TIME: Final = 500

log = logger("redriver")


class Redriver(Supervised):
    """Looks for marked events and handles them in transactions of their own."""

    def __init__(
        self, handling: Handling, pool: Pool, health: Health, committed: Callable[[frozenset[str]], None]
    ) -> None:
        super().__init__()
        self._handling = handling
        self._pool = pool
        self._health = health
        self._committed = committed

    @task
    async def _run(self) -> None:
        topics = frozenset(reads.topic.name for reads in self._handling.service.reads)
        while not self.should_stop:
            self._health.beat("redriver")
            try:
                if await self._once():
                    self._committed(topics)
                    continue
            except Exception as error:
                log.warning("redrive failed and is tried again", error=describe(error))
                if meaning(error) is Failure.DEFECT:
                    await self._return_to_parked()
            await asyncio.sleep(_LOOK_EVERY_SECONDS)

    async def _once(self) -> bool:
        async with self._pool.transaction() as db:
            if not await db.fetchval("SELECT EXISTS (SELECT FROM runtime.parked WHERE state <> 'parked')"):
                return False
            done, still, _ = await self._handling.redrive(db, datetime.now(UTC), _KEYS_AT_A_TIME)
        log.info("parked events handled again", done=done, still_parked=still)
        return True

    async def _return_to_parked(self) -> None:
        """Loading or saving fails whatever is tried: what was marked stays parked, for an operator to look at."""
        try:
            async with self._pool.transaction() as db:
                await db.execute("UPDATE runtime.parked SET state = 'parked' WHERE state = 'redrive'")
        except Exception as error:
            log.warning("marks not taken back", error=describe(error))
