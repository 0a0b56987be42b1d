"""What every service shows over HTTP: `/metrics`, `/livez`, `/readyz`, and the pages of its own."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any, Final, cast

import faust
from aiohttp import web
from prometheus_client import Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from services.runtime import parking, retention
from services.runtime.database import Database, Pool
from services.runtime.health import Health
from services.runtime.logs import describe, logger
from services.runtime.metrics import Metrics
from services.runtime.service import Page, Service

Answer = Callable[[web.Request], Awaitable[web.Response]]

_READERS: Final = 2
"""Most connections that pages take at a time, beside the one for all scrapes: what moves events is not to wait for
those who look on."""

_LONGEST_SCRAPE_SECONDS: Final = 2.0
"""How long a scrape waits for the database. Prometheus takes one that is late for a process that is down, and the
database is late when somebody needs to know."""

_SHARE_OF_TIME: Final = 0.01
"""Of one connection's time, how much the gauges of a service may take: they read whole tables."""
_LONGEST_PAUSE_SECONDS: Final = 300.0

log = logger("pages")


class Pages:
    """The HTTP side of one service process, on the web server that Faust runs."""

    def __init__(self, service: Service, pool: Pool, metrics: Metrics, health: Health) -> None:
        self._service = service
        self._pool = pool
        self._metrics = metrics
        self._health = health
        self._reading = asyncio.Semaphore(_READERS)
        self._refreshing: asyncio.Task[None] | None = None
        self._gauges_due = 0.0
        self._gauges = {
            gauge.name: Gauge(gauge.name, gauge.says, gauge.labels, registry=metrics.registry)
            for gauge in service.gauges
        }

    def add_to(self, app: faust.App) -> None:
        """Adds the routes to the application's web server."""
        router = cast(web.Application, cast(Any, app.web).web_app).router
        router.add_get("/livez", self._livez)
        router.add_get("/readyz", self._readyz)
        router.add_get("/metrics", self._exposition)
        for page in self._service.pages:
            router.add_get(page.path, self._page(page))

    async def _livez(self, _: web.Request) -> web.Response:
        stalled = self._health.stalled()
        return _answer({"alive": not stalled, "stalled": stalled}, ok=not stalled)

    async def _readyz(self, _: web.Request) -> web.Response:
        """Who answers is said too: where stacks share a machine, a port may be another's service by now."""
        reasons = self._health.not_ready()
        said: dict[str, object] = {
            "ready": not reasons,
            "service": self._service.name,
            "pid": os.getpid(),
            "reasons": reasons,
        }
        return _answer(said, ok=not reasons)

    async def _exposition(self, _: web.Request) -> web.Response:
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh())
        await asyncio.wait((self._refreshing,), timeout=_LONGEST_SCRAPE_SECONDS)
        for observe in self._metrics.at_scrape:
            observe()
        used, opened = self._pool.use()
        self._metrics.pool_connections.labels("used").set(used)
        self._metrics.pool_connections.labels("open").set(opened)
        self._metrics.ready.set(0 if self._health.not_ready() else 1)
        return web.Response(body=generate_latest(self._metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _refresh(self) -> None:
        try:
            async with self._pool.connection() as db:
                await self._read_gauges(db)
        except Exception as error:  # whatever it is, what needs no database is still to be scraped
            log.warning("gauges of the database are as of the last scrape", error=describe(error))

    async def _read_gauges(self, db: Database) -> None:
        row = await db.fetchrow(
            "SELECT coalesce(sum(events), 0) AS depth, extract(epoch FROM clock_timestamp() - min(written_at)) AS age"
            " FROM runtime.outbox"
        )
        if row is not None:
            self._metrics.outbox_depth.set(row["depth"])
            self._metrics.outbox_age.set(row["age"] or 0)
        parked = await parking.count_by_reason(db)
        self._metrics.parked.clear()
        for (topic, reason), count in parked.items():
            self._metrics.parked.labels(topic, reason).set(count)
        self._metrics.retention_overdue.set(max(0.0, (await retention.standing(db)).overdue_seconds))
        for table in await retention.table_sizes(db):
            self._metrics.table_rows.labels(table.name, "live").set(table.live)
            self._metrics.table_rows.labels(table.name, "dead").set(table.dead)
            self._metrics.table_bytes.labels(table.name).set(table.bytes)
        began = monotonic()
        if began < self._gauges_due:
            return
        try:
            for gauge in self._service.gauges:
                exposed = self._gauges[gauge.name]
                read = await gauge.read(db)
                if gauge.labels:
                    exposed.clear()
                for labels, value in read.items():
                    (exposed.labels(*labels) if labels else exposed).set(value)
        finally:
            ended = monotonic()
            self._gauges_due = ended + min((ended - began) / _SHARE_OF_TIME, _LONGEST_PAUSE_SECONDS)

    def _page(self, page: Page) -> Answer:
        async def answer(request: web.Request) -> web.Response:
            asked = dict(request.query) | dict(request.match_info)
            began = monotonic()
            try:
                async with self._reading, self._pool.connection() as db:
                    shown = await page.answer(db, asked)
            except Exception as error:  # of a page of the service's own, which may raise anything
                log.error("page failed", path=page.path, error=describe(error), seconds=monotonic() - began)
                return web.Response(
                    text="This page cannot be shown now. Look at /readyz and at the log of the service.",
                    status=503,
                )
            return web.Response(text=shown.text, status=shown.status, content_type=shown.media_type, charset="utf-8")

        return answer


def _answer(said: dict[str, object], *, ok: bool) -> web.Response:
    return web.Response(text=json.dumps(said) + "\n", status=200 if ok else 503, content_type="application/json")
