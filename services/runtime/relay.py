"""Publishes the outbox to Kafka: one leader at a time, in id order, deleting only what the broker acknowledged.

The outbox is a delete queue. It is never paged by a cursor: ids become visible out of order under concurrent commits,
and a cursor would pass over rows for good.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from time import monotonic
from typing import Final

from services.runtime import kafka
from services.runtime.database import Failure, Pool, Row, meaning
from services.runtime.failpoints import armed
from services.runtime.health import Health
from services.runtime.kafka import KafkaError, Producer
from services.runtime.logs import describe, logger
from services.runtime.metrics import Metrics
from services.runtime.records import unpack_headers
from services.runtime.settings import Settings
from services.runtime.supervision import Stopping, Supervised, task

_POLL_SECONDS: Final = 0.5
_ROWS_AT_A_TIME: Final = 2000

_BYTES_AT_A_TIME: Final = 16 * 1024 * 1024

_NEXT: Final = """
SELECT id, topic, key, headers, value
FROM (
    SELECT *, sum(octet_length(value)) OVER (ORDER BY id) - octet_length(value) AS before
    FROM (SELECT id, topic, key, headers, value FROM runtime.outbox ORDER BY id LIMIT $1) AS first
) AS measured
WHERE before IS NULL OR before < $2
ORDER BY id
"""
_LEAD: Final = """
INSERT INTO runtime.lease AS known (name, epoch, holder, expires_at)
VALUES ('relay', 1, $1, clock_timestamp() + make_interval(secs => $2))
ON CONFLICT (name) DO UPDATE
SET epoch = known.epoch + 1, holder = excluded.holder, expires_at = excluded.expires_at
WHERE known.expires_at < clock_timestamp()
RETURNING epoch
"""
_RENEW: Final = """
UPDATE runtime.lease SET expires_at = clock_timestamp() + make_interval(secs => $2)
WHERE name = 'relay' AND epoch = $1
RETURNING epoch
"""
_DELETE: Final = """
WITH fence AS (
    UPDATE runtime.lease SET expires_at = clock_timestamp() + make_interval(secs => $2)
    WHERE name = 'relay' AND epoch = $1
    RETURNING epoch
), deleted AS (
    DELETE FROM runtime.outbox WHERE id = ANY($3) AND EXISTS (SELECT FROM fence)
)
SELECT epoch FROM fence
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
        self._renewed = 0.0
        self._producer: Producer | None = None

    async def on_stop(self) -> None:
        """Hands the lease back, so that another leads at once."""
        await super().on_stop()
        epoch, self._epoch = self._epoch, None
        if epoch is not None:
            try:
                async with asyncio.timeout(0.5), self._pool.transaction() as db:
                    await db.execute(_RESIGN, epoch)
            except Exception as error:
                log.warning("lease not handed back; it will expire", error=describe(error))
        await self._close()

    @task
    async def _run(self) -> None:
        while not self.should_stop:
            self._health.beat("relay")
            try:
                more = await self._turn()
            except Stopping:
                raise
            except KafkaError as error:
                self._health.kafka_away(describe(error))
                await self._failed(error)
                continue
            except Exception as error:
                if meaning(error) is Failure.DEFECT:
                    log.error("the relay failed and tries again", error=describe(error))
                else:
                    self._health.database_away(describe(error))
                await self._failed(error)
                continue
            if not more:
                await self.pause(_POLL_SECONDS)

    async def _turn(self) -> bool:
        """Publishes what is there; returns whether more may be."""
        self._woken.clear()
        if not await self._lead():
            return False
        async with self._pool.connection() as db:
            rows = await db.fetch(_NEXT, _ROWS_AT_A_TIME, _BYTES_AT_A_TIME)
        if not rows:
            return False
        await self._send(rows)
        self._reach("after_publish")
        async with self._pool.connection() as db:
            fence = await db.fetchval(_DELETE, self._epoch, self._settings.lease_seconds, [row["id"] for row in rows])
        self._reach("after_delete")
        self._lost() if fence is None else self._held()
        self._health.database_here()
        return True

    async def _send(self, rows: Sequence[Row]) -> None:
        producer = await self._producing()
        acknowledged = [
            await kafka.send(
                producer,
                self._settings.topic(row["topic"]),
                row["key"],
                row["value"],
                unpack_headers(row["headers"]),
            )
            for row in rows
        ]
        await asyncio.gather(*acknowledged)
        self._health.kafka_here()
        for topic, count in Counter(row["topic"] for row in rows).items():
            self._metrics.published.labels(topic).inc(count)

    async def _lead(self) -> bool:
        """Whether this process leads, after taking or renewing the lease where that is due."""
        lease = self._settings.lease_seconds
        if monotonic() - self._renewed < lease / 3:
            return self._epoch is not None
        self._renewed = monotonic()
        async with self._pool.connection() as db:
            if self._epoch is not None:
                if await db.fetchval(_RENEW, self._epoch, lease) is None:
                    self._lost()
                else:
                    self._held()
            if self._epoch is None:
                self._epoch = await db.fetchval(_LEAD, self._worker, lease)
                if self._epoch is not None:
                    self._held()
                    log.info("leads the relay", epoch=self._epoch)
        self._health.database_here()
        return self._epoch is not None

    def _held(self) -> None:
        self._renewed = monotonic()
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
        self._metrics.relay_failures.inc()
        log.warning("publishing failed and is repeated", error=describe(error))
        await self._close()
        await self.sleep(0.3)

    async def _close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await kafka.stopped(producer)
