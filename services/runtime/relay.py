"""Publishes the outbox to Kafka: one leader at a time, in id order, deleting only what the broker acknowledged.

The outbox is a delete queue. It is never paged by a cursor: ids become visible out of order under concurrent commits,
and a cursor would pass over rows for good.
"""

import asyncio
from collections.abc import Sequence
from time import monotonic, time
from typing import Final

from services.runtime import kafka
from services.runtime.database import Failure, Pool, Row, meaning
from services.runtime.failpoints import armed
from services.runtime.health import Health
from services.runtime.kafka import KafkaError, Producer
from services.runtime.logs import describe, logger
from services.runtime.metrics import Metrics
from services.runtime.outbox import unsealed
from services.runtime.settings import LONGEST_LEASE_SECONDS, Settings
from services.runtime.supervision import Stopping, Supervised, task

_POLL_SECONDS: Final = 0.5
_SHORTEST_POLL_SECONDS: Final = 0.02
_LONGER: Final = 1.5
_LONGEST_DELETE_SECONDS: Final = 0.05
"""For how long rows that were published may wait, so that they are deleted as the next ones are read."""
_ROWS_AT_A_TIME: Final = 500
_BYTES_AT_A_TIME: Final = 16 * 1024 * 1024
_LATE_SECONDS: Final = 5.0
_FIRST_REST_SECONDS: Final = 0.3
_LONGEST_REST_SECONDS: Final = 3.0
"""After a failure: what was not acknowledged is sent again, perhaps with records that were."""

_LEAD: Final = """
INSERT INTO runtime.lease AS known (name, epoch, holder, expires_at)
VALUES ('relay', 1, $1, clock_timestamp() + make_interval(secs => $2))
ON CONFLICT (name) DO UPDATE
SET epoch = known.epoch + 1, holder = excluded.holder, expires_at = excluded.expires_at
WHERE known.expires_at < clock_timestamp() OR known.expires_at > clock_timestamp() + make_interval(secs => $3)
RETURNING epoch
"""
"""A lease that ends later than any can was taken before the database's clock was set back: nobody waits for its end."""
_NEXT: Final = """
WITH fence AS (
    UPDATE runtime.lease SET expires_at = clock_timestamp() + make_interval(secs => $2)
    WHERE name = 'relay' AND epoch = $1
    RETURNING epoch, set_config('synchronous_commit', 'off', true)
), deleted AS (
    DELETE FROM runtime.outbox WHERE id = ANY($3) AND EXISTS (SELECT FROM fence)
), upcoming AS (
    SELECT *, sum(octet_length(records)) OVER (ORDER BY id) - octet_length(records) AS before
    FROM (
        SELECT id, topic, events, records FROM runtime.outbox WHERE id <> ALL($3) ORDER BY id LIMIT $4
    ) AS first
)
SELECT lease.epoch, id, topic, events, records
FROM (SELECT (SELECT epoch FROM fence) AS epoch) AS lease
LEFT JOIN upcoming ON before < $5
ORDER BY id
"""
"""Deletes under the fence what was published and says what comes next; one row without an id where nothing does.

The commit does not wait for the disk: a deletion that is lost with the server leaves rows that are published again, as
after the death of a relay, and their readers know their sequence.
"""
_RESIGN: Final = "UPDATE runtime.lease SET expires_at = clock_timestamp() WHERE name = 'relay' AND epoch = $1"

log = logger("relay")


class Relay(Supervised):
    """Leads the publication of one service's outbox while it holds the lease."""

    def __init__(
        self, settings: Settings, worker: str, service: str, pool: Pool, metrics: Metrics, health: Health
    ) -> None:
        super().__init__()
        self._settings = settings
        self._reach = armed(settings.failpoints)
        self._worker = worker
        self._service = service
        self._pool = pool
        self._metrics = metrics
        self._health = health
        self._epoch: int | None = None
        self._asked = 0.0
        self._producer: Producer | None = None
        self._published: list[int] = []
        """Ids of rows that the brokers have acknowledged and that are still to be deleted."""
        self._rest_seconds = _FIRST_REST_SECONDS

    async def on_stop(self) -> None:
        """Hands the lease back, so that another leads at once."""
        await super().on_stop()
        epoch, self._epoch = self._epoch, None
        if epoch is not None:
            try:
                async with asyncio.timeout(0.5), self._pool.transaction() as db:
                    await db.execute(_RESIGN, epoch)
            except Exception as error:  # nothing keeps a worker from its end: the lease expires by itself
                log.warning("lease not handed back; it will expire", error=describe(error))
        await self._close()

    @task
    async def _run(self) -> None:
        poll = _POLL_SECONDS
        while not self.should_stop:
            self._health.beat("relay")
            woken = self._woken.is_set()
            try:
                published = await self._turn()
            except Stopping:
                raise
            except KafkaError as error:
                self._health.kafka_away(describe(error))
                await self._failed(error)
                continue
            except Exception as error:  # what it means is asked below; facts wait in the outbox, so it goes on
                if meaning(error) is Failure.DEFECT:
                    log.error("the relay failed and tries again", error=describe(error))
                else:
                    self._health.database_away(describe(error))
                await self._failed(error)
                continue
            if not woken:
                # What is found unasked comes from other workers, whose commits wake nobody here: more may follow soon.
                poll = _SHORTEST_POLL_SECONDS if published else min(poll * _LONGER, _POLL_SECONDS)
            await self.pause(poll)

    async def _turn(self) -> bool:
        """Publishes what is there, until nothing is left or another leads; returns whether there was anything."""
        any_published = False
        self._woken.clear()
        while self._epoch is not None or await self._lead():
            self._health.beat("relay")
            self._woken.clear()
            rows = await self._next()
            if not rows or self.should_stop:
                break
            await self._send(rows)
            self._reach("after_publish")
            any_published = True
            if len(rows) < _ROWS_AT_A_TIME:
                await self.pause(_LONGEST_DELETE_SECONDS)
        return any_published

    async def _next(self) -> Sequence[Row]:
        """Renews the lease, deletes what was published and returns what is next; nothing where the lease is lost."""
        async with self._pool.connection() as db:
            rows = await db.fetch(
                _NEXT, self._epoch, self._settings.lease_seconds, self._published, _ROWS_AT_A_TIME, _BYTES_AT_A_TIME
            )
        self._health.database_here()
        if self._published:
            self._reach("after_delete")
        self._published = []
        if rows[0]["epoch"] is None:
            self._lost()
            return []
        self._held()
        return rows if rows[0]["id"] is not None else []

    async def _send(self, rows: Sequence[Row]) -> None:
        """Publishes rows. Raises KafkaError where some were refused; the others count as published all the same."""
        producer = await self._producing()
        outgoing = ((self._settings.topic(row["topic"]), unsealed(row["records"])) for row in rows)
        sent = await kafka.send(producer, outgoing, int(time() * 1000))
        answers = [asyncio.ensure_future(one.acknowledged) for one in sent]
        await self._answered(answers)
        failures = [(one.of, error) for one, answer in zip(sent, answers, strict=True) if (error := answer.exception())]
        refused = {nth for of, _ in failures for nth in of}
        for nth, row in enumerate(rows):
            if nth not in refused:
                self._published.append(row["id"])
                self._metrics.published.labels(row["topic"]).inc(row["events"])
        if failures:
            raise failures[0][1]
        self._rest_seconds = _FIRST_REST_SECONDS
        self._health.kafka_here()

    async def _answered(self, answers: Sequence[asyncio.Future[object]]) -> None:
        """Waits until the brokers have answered for each batch. They may be away: the producer sends it until then."""
        began = monotonic()
        while (await asyncio.wait(answers, timeout=_LATE_SECONDS))[1]:
            self._health.beat("relay")
            late = f"Kafka has not acknowledged facts for {monotonic() - began:.0f} s"
            self._health.obstacles["relay"] = late
            log.warning(late)
        self._health.obstacles.pop("relay", None)

    async def _lead(self) -> bool:
        """Whether this process leads now; asks for an expired lease from time to time."""
        if monotonic() - self._asked < self._settings.lease_seconds / 3:
            return False
        self._asked = monotonic()
        async with self._pool.connection() as db:
            self._epoch = await db.fetchval(_LEAD, self._worker, self._settings.lease_seconds, LONGEST_LEASE_SECONDS)
        self._health.database_here()
        if self._epoch is None:
            return False
        log.info("leads the relay", epoch=self._epoch)
        return True

    def _held(self) -> None:
        self._metrics.relay_leader.set(1)

    def _lost(self) -> None:
        log.warning("another process leads the relay now", epoch=self._epoch)
        self._epoch = None
        self._metrics.relay_leader.set(0)

    async def _producing(self) -> Producer:
        if self._producer is None:
            self._producer = await kafka.started(
                lambda: kafka.producer(self._settings, self._service),
                self._settings,
                self._waiting_for_kafka,
                self.rest,
            )
        return self._producer

    def _waiting_for_kafka(self, why: str) -> None:
        self._health.beat("relay")
        self._health.kafka_away(why)

    async def _failed(self, error: Exception) -> None:
        """Starts over with a fresh producer: what was not acknowledged is read from the outbox again."""
        if isinstance(error, KafkaError):
            self._metrics.relay_failures.inc()
        log.warning("publishing failed and is repeated", error=describe(error))
        await self._close()
        await self.sleep(self._rest_seconds)
        self._rest_seconds = min(2 * self._rest_seconds, _LONGEST_REST_SECONDS)

    async def _close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await kafka.stopped(producer)
