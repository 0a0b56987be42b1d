"""What looking at the numbers costs the database: a fixed number of passes, and no more often than is cheap."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from services.reporting import store
from services.reporting.app import service
from services.runtime.database import Connection, Database, Pool
from services.runtime.health import Health
from services.runtime.metrics import Metrics
from services.runtime.pages import Pages
from services.runtime.service import Gauge, Service
from tests.reporting.reading import OpenDatabase

SCANS = (
    "SELECT sum(seq_scan + coalesce(idx_scan, 0)) FROM pg_stat_xact_user_tables WHERE relname IN ('request', 'expert')"
)


async def scans_of_the_overview(db: Connection, partners: int) -> int:
    """How often the overview goes through requests and experts where there are so many partners."""
    async with db.transaction():
        await db.execute(
            "INSERT INTO partner SELECT 'p' || n, 1, now(), 'P' || n, 'P', 1, true FROM generate_series(1, $1) AS n"
            " ON CONFLICT DO NOTHING",
            partners,
        )
        before = await db.fetchval(SCANS)
        seen = await store.overview(db)
        assert len(seen.partners) == partners
        return await db.fetchval(SCANS) - before


async def test_the_overview_goes_through_the_tables_as_often_for_many_partners_as_for_one(
    open_database: OpenDatabase,
) -> None:
    db = await open_database("reporting")
    for_one = await scans_of_the_overview(db, 1)
    assert 0 < for_one < 10
    assert await scans_of_the_overview(db, 40) == for_one


@pytest.mark.parametrize("fails", [False, True], ids=["read", "failed"])
async def test_gauges_that_take_long_are_not_read_at_every_scrape(
    open_database: OpenDatabase, database_urls: dict[str, str], fails: bool
) -> None:
    await open_database("reporting")
    reads = 0

    async def slow(db: Database) -> Mapping[tuple[str, ...], float]:
        nonlocal reads
        reads += 1
        await db.fetchval("SELECT pg_sleep(0.3)")
        if fails:
            await db.fetchval("SELECT 1 / 0")
        return {(): 7.0}

    app = web.Application()
    shown = Service("reporting", (), service().decider, gauges=(Gauge("fieldbridge_slow", "Slow.", (), slow),))
    pool = Pool(database_urls["reporting"], 3)
    await pool.open(print, cast(Any, None))
    try:
        Pages(shown, pool, Metrics("reporting"), Health()).add_to(
            cast(Any, SimpleNamespace(web=SimpleNamespace(web_app=app)))
        )
        async with TestClient(TestServer(app)) as client:
            for _ in range(3):
                text = await (await client.get("/metrics")).text()
                assert ("fieldbridge_slow 7.0" in text) is not fails
                assert "fieldbridge_outbox_depth 0.0" in text
    finally:
        await pool.close()
    assert reads == 1
