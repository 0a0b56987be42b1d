"""Carries out what an operator marked: redrives or discards parked events, in sequence, while traffic goes on."""

from datetime import UTC, datetime
from typing import Final

from services.runtime.database import Failure, Pool, meaning
from services.runtime.handling import Handling
from services.runtime.health import Health
from services.runtime.logs import describe, logger
from services.runtime.redriving import Redriving
from services.runtime.supervision import Supervised, task
from services.runtime.transactions import SPLIT_AFTER, Committed

_LOOK_EVERY_SECONDS: Final = 0.5
_AGAIN_SECONDS: Final = 0.1
_KEYS_AT_A_TIME: Final = 500

log = logger("redriver")


class Redriver(Supervised):
    """Looks for marked events and handles them in transactions of their own."""

    def __init__(self, handling: Handling, pool: Pool, health: Health, committed: Committed) -> None:
        super().__init__()
        self._redriving = Redriving(handling)
        self._topics = frozenset(reads.topic.name for reads in handling.service.reads)
        self._pool = pool
        self._health = health
        self._committed = committed

    @task
    async def _run(self) -> None:
        most = _KEYS_AT_A_TIME
        contended = 0
        while not self.should_stop:
            self._health.beat("redriver")
            try:
                any_done = await self._once(most)
                contended = 0
                if any_done:
                    self._committed(self._topics, True)
                    most = min(_KEYS_AT_A_TIME, most * 2 + 1)
                    continue
            except Exception as error:  # what it means is asked below; a defect is narrowed down to its event
                log.warning("redrive failed and is tried again", keys=most, error=describe(error))
                cause = meaning(error)
                contended += cause is Failure.CONTENDED
                if cause is Failure.DEFECT or contended >= SPLIT_AFTER:
                    contended = 0
                    if most == 0:
                        await self._refuse_first(error)
                    most //= 10
                    continue
                if cause is Failure.CONTENDED:
                    await self.sleep(_AGAIN_SECONDS)
                    continue
            await self.sleep(_LOOK_EVERY_SECONDS)

    async def _once(self, most: int) -> bool:
        async with self._pool.transaction() as db:
            if not await db.fetchval("SELECT EXISTS (SELECT FROM runtime.parked WHERE state <> 'parked')"):
                return False
            done = await self._redriving.redrive(db, datetime.now(UTC), most)
        log.info("parked events handled again", settled=done.settled, still_parked=done.still_parked)
        return True

    async def _refuse_first(self, error: Exception) -> None:
        try:
            async with self._pool.transaction() as db:
                await self._redriving.refuse_first(db, f"loading or saving: {describe(error)}")
        except Exception as failed:  # the event stays marked, and is come back to
            log.warning("event not parked again", error=describe(failed))
            await self.sleep(_LOOK_EVERY_SECONDS)
