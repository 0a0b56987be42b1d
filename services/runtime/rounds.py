"""Rounds: what must look at everything at once, run by one worker at a time, in the same kind of transaction.

The round's row is locked for the whole transaction, so the database itself sees to it that there is one. While a round
decides, it gives PostgreSQL signs of life: a worker that is frozen in a round gives none, its idle transaction is ended
as soon as any other, and it loses its locks, for which slices may wait.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final

from services.runtime import inbox, outbox
from services.runtime.database import Database, Failure, Pool, meaning
from services.runtime.failpoints import Reach
from services.runtime.health import Health
from services.runtime.logs import describe, logger
from services.runtime.metrics import Metrics
from services.runtime.relay import Relay
from services.runtime.service import FactBody, Round, Service
from services.runtime.supervision import Supervised, task

_SHORTEST_PAUSE_SECONDS: Final = 0.02
_BUSY_PAUSE_SECONDS: Final = 0.1
_BEAT_SECONDS: Final = 5.0
_FEW: Final = 16
"""So few are decided before another thread would get hold of the interpreter and give it back."""
_SIGN_OF_LIFE_SECONDS: Final = 2.0
"""Well within the time after which PostgreSQL ends an idle transaction."""

_TAKE: Final = "SELECT run FROM runtime.round WHERE name = $1 FOR UPDATE SKIP LOCKED"
# Were the row not looked for first, a conflict with it would wait for whoever is about to change it.
_MAKE: Final = """
INSERT INTO runtime.round (name) SELECT $1 WHERE NOT EXISTS (SELECT FROM runtime.round WHERE name = $1)
ON CONFLICT DO NOTHING
"""
_END: Final = """
WITH ended AS (
    UPDATE runtime.round SET run = run + 1 WHERE name = $1
)
INSERT INTO runtime.outbox (topic, events, records)
SELECT topic, events, records
FROM unnest($2::text[], $3::int[], $4::bytea[]) WITH ORDINALITY AS given (topic, events, records, nth)
ORDER BY nth
"""

log = logger("rounds")


class Rounds(Supervised):
    """Runs one round again and again: every so often, and soon after events of its topics were applied."""

    def __init__(
        self,
        service: Service,
        round_: Round[Any],
        pool: Pool,
        relay: Relay,
        metrics: Metrics,
        health: Health,
        reach: Reach,
    ) -> None:
        super().__init__()
        self._service = service
        self._round = round_
        self._pool = pool
        self._relay = relay
        self._metrics = metrics
        self._health = health
        self._reach = reach

    def applied(self, topics: frozenset[str]) -> None:
        """Events of these topics were applied."""
        if topics & self._round.after:
            self.wake()

    @task
    async def _run(self) -> None:
        while not self.should_stop:
            self._health.beat(f"round {self._round.name}")
            self._woken.clear()
            began = monotonic()
            try:
                if not await self._once():
                    await self.sleep(_BUSY_PAUSE_SECONDS)
                    self.wake()
            except Exception as error:  # whatever it is, it has rolled the round back, and the next is to be tried
                self._metrics.round_failures.labels(self._round.name).inc()
                log.warning("round failed and is tried again", round=self._round.name, error=describe(error))
                if meaning(error) is Failure.UNREACHABLE:
                    self._health.database_away(describe(error))
                await self.sleep(0.5)
                continue
            # A round costs about as much as the pause after it: under load, rounds grow rather than follow on.
            await self.sleep(max(_SHORTEST_PAUSE_SECONDS, min(1.0, monotonic() - began)))
            await self._await_next(began + self._round.every_seconds)

    async def _await_next(self, due: float) -> None:
        """Waits until the round is due or woken, in steps: a round that is seldom due is not to look stalled."""
        while not self.should_stop and not self._woken.is_set() and (left := due - monotonic()) > 0:
            self._health.beat(f"round {self._round.name}")
            await self.pause(min(left, _BEAT_SECONDS))

    async def _once(self) -> bool:
        """Runs the round in one transaction; False where another worker is running it."""
        began = monotonic()
        now = datetime.now(UTC)
        name = self._round.name
        async with self._pool.transaction() as db:
            run = await self._enter(db)
            if run is None:
                return False
            known = await self._round.load(db, now)
            self._health.database_here()
            if known is None:
                return True
            size = None if self._round.size is None else self._round.size(known)
            if size is not None:
                self._metrics.round_size.labels(name).set(size)
            self._reach("in_round")
            if size is not None and size <= _FEW:
                changes, facts = self._round.decide(known, now)
            else:
                changes, facts = await self._decided(db, known, now)
            await self._round.save(db, changes)
            sealed = await self._sealed(db, facts, f"round:{name}:{run}", now)
            await db.execute(
                _END,
                name,
                [row.topic for row in sealed],
                [row.events for row in sealed],
                [row.records for row in sealed],
            )
        self._metrics.round_seconds.labels(name).observe(monotonic() - began)
        self._metrics.round_runs.labels(name).inc()
        for body in facts:
            self._metrics.facts.labels(body.TOPIC).inc()
        if facts:
            self._relay.wake()
        return True

    async def _enter(self, db: Database) -> int | None:
        """Which run of the round this is; None where another worker is running it."""
        name = self._round.name
        run: int | None = await db.fetchval(_TAKE, name)
        if run is None:
            await db.execute(_MAKE, name)
            run = await db.fetchval(_TAKE, name)
        return run

    async def _decided(self, db: Database, known: Any, now: datetime) -> tuple[Any, Sequence[FactBody]]:
        """What a thread decides while the event loop goes on."""
        deciding = asyncio.create_task(asyncio.to_thread(self._round.decide, known, now))
        try:
            while not (await asyncio.wait([deciding], timeout=_SIGN_OF_LIFE_SECONDS))[0]:
                await db.execute("SELECT")
            return deciding.result()
        finally:
            deciding.cancel()

    async def _sealed(self, db: Database, facts: Sequence[FactBody], cause: str, now: datetime) -> list[outbox.Sealed]:
        if not facts:
            return []
        source = f"/fieldbridge/{self._service.name}"
        traces = await inbox.traces(
            db, (reads.topic.name for reads in self._service.reads), {fact.subject for fact in facts}
        )
        consequences = [
            outbox.Consequence(fact, f"{source}:{cause}", nth, traces.get(fact.subject))
            for nth, fact in enumerate(facts)
        ]
        return await outbox.seal(db, source, consequences, now)
