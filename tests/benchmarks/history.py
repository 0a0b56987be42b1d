"""`history`: the whole stack upon millions of rows of history: waits, the plan of every statement, dead rows."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg

from schemas.topics import SERVICES
from services.console.stack import fetch
from services.console.surroundings import Stack
from services.console.world.population import Agency
from tests.benchmarks.measuring import Report, Sheet, machine, tell, versions
from tests.benchmarks.plans import EXPLAINING, Scan, read_scans
from tests.benchmarks.whole_stack import Site, ask, populate, site

_ROWS_AT_A_TIME: Final = 250_000
_SEEN: Final = (
    "INSERT INTO runtime.stream_seen (topic, key, sequence) "
    "SELECT 'requests', 'H-' || n, 8 FROM generate_series($1::bigint, $2::bigint) AS n"
)
_OUT: Final = (
    "INSERT INTO runtime.stream_out (topic, key, sequence) "
    "SELECT 'requests', 'H-' || n, 8 FROM generate_series($1::bigint, $2::bigint) AS n"
)
_MESSAGES: Final = (
    "INSERT INTO runtime.message_seen (source, id) "
    "SELECT '/outside/' || n % 50, 'h-' || n FROM generate_series($1::bigint, $2::bigint) AS n"
)
_STORY: Final = (
    "INSERT INTO story (topic, key, sequence, id, type, time, body) "
    "SELECT 'requests', 'H-' || n / 8, n % 8 + 1, 'h-' || n, 'request.accepted.v1', "
    "timestamptz '2026-01-01' + n * interval '1 second', '{\"public\": false}' "
    "FROM generate_series($1::bigint, $2::bigint) AS n"
)
_REQUEST: Final = (
    "INSERT INTO request (request_id, intake_sequence, intake_time, intake_step, ori, agency_type, state, topics, "
    "submitted_at, accepted_at) "
    "SELECT 'H-' || n / 8, 1, '2026-01-01', 'withdrawn', 'GA' || lpad((n % 20000)::text, 7, '0'), "
    "'municipal', 'GA', '{training}', '2026-01-01', '2026-01-01' "
    "FROM generate_series($1::bigint, $2::bigint) AS n WHERE n % 8 = 0"
)
_FILLING: Final[dict[str, dict[str, str]]] = {
    "intake": {"stream_seen": _SEEN, "stream_out": _OUT, "message_seen": _MESSAGES},
    "matching": {"stream_seen": _SEEN, "stream_out": _OUT},
    "scheduling": {"stream_seen": _SEEN, "stream_out": _OUT},
    "reporting": {"stream_seen": _SEEN, "message_seen": _MESSAGES, "story": _STORY, "request": _REQUEST},
}
_PAGES: Final = ("/metrics", "/")
_VACUUM: Final = """
SELECT relname, n_live_tup, n_dead_tup, autovacuum_count, pg_table_size(relid) AS bytes
FROM pg_stat_user_tables WHERE n_tup_upd + n_tup_del > 0 ORDER BY n_dead_tup DESC
"""
_MOST_SHOWN: Final = 12


@dataclass(frozen=True, slots=True)
class Plan:
    """How many rows, and how long the load before and after lasts."""

    rows: int
    seconds: float = 120.0
    rate: int = 50
    explained_requests: int = 200

    @classmethod
    def quick(cls) -> "Plan":
        return cls(200_000, 6.0, 10, 40)


@dataclass(frozen=True, slots=True)
class Flow:
    """How a load went: seconds from request to confirmed engagement, and of reporting's pages."""

    p50: float | None
    p99: float | None
    pages: Mapping[str, float]


def measure(plan: Plan) -> Report:
    """Measures one stack before and after its tables were filled. Raises Trouble or TooSlow."""
    on = machine()
    requests = round(plan.rate * plan.seconds)
    with site() as place:
        known = asyncio.run(populate(place.stack, max(2000, 2 * requests), 100 + requests))
        before = asyncio.run(_flow(place.stack, known, "before", requests, plan))
        asyncio.run(_fill(place.stack, plan.rows))
        after = asyncio.run(_flow(place.stack, known, "after", requests, plan))
        dead = asyncio.run(_vacuum(place.stack))
        scans = _explained(place, known, plan)
    sheets = [_waits(plan, before, after), _scans(scans), _dead(dead)]
    figures = {"before": before, "after": after, "whole tables read": scans, "tables": dead}
    return Report("history", {"rows of history": plan.rows, "rate": plan.rate}, sheets, figures, on, versions())


async def _flow(stack: Stack, known: list[Agency], run: str, requests: int, plan: Plan) -> Flow:
    tally = await ask(stack, known, run, requests, plan.rate)
    flow = Flow(tally.percentile(50), tally.percentile(99), {page: _page(stack, page) for page in _PAGES})
    tell(f"{run}: {flow}")
    return flow


def _page(stack: Stack, path: str) -> float:
    began = monotonic()
    fetch(stack.process("reporting"), path, seconds=60.0)
    return monotonic() - began


async def _fill(stack: Stack, rows: int) -> None:
    for service, tables in _FILLING.items():
        # An administrator's patience: the services' own limit on a statement does not hold here.
        connection = await asyncpg.connect(stack.database(service))
        try:
            for table, statement in tables.items():
                began = monotonic()
                for first in range(1, rows + 1, _ROWS_AT_A_TIME):
                    await connection.execute(statement, first, min(rows, first + _ROWS_AT_A_TIME - 1))
                tell(f"{service}: {rows:,} rows of {table} in {monotonic() - began:.0f} s")
            await connection.execute("ANALYZE")
        finally:
            await connection.close()


async def _vacuum(stack: Stack) -> list[dict[str, Any]]:
    """What each service's tables hold that is dead, right after the load."""
    found: list[dict[str, Any]] = []
    for service in SERVICES:
        connection = await asyncpg.connect(stack.database(service))
        try:
            found += [{"service": service, **dict(row)} for row in await connection.fetch(_VACUUM)]
        finally:
            await connection.close()
    return sorted(found, key=lambda row: -row["n_dead_tup"])


def _explained(place: Site, known: list[Agency], plan: Plan) -> list[Scan]:
    """Has PostgreSQL log the plan of every statement of the services, during a short load and a look at the pages."""
    names = {urlsplit(place.stack.database(service)).path.removeprefix("/"): service for service in SERVICES}
    place.stop()
    asyncio.run(_explain(place, names))
    place.start()
    asyncio.run(ask(place.stack, known, "explained", plan.explained_requests, plan.rate))
    for page in _PAGES:
        _page(place.stack, page)
    large = asyncio.run(_large(place.stack, names))
    return read_scans(place.folder / "postgres" / "postgres.log", names, large)


async def _explain(place: Site, names: Iterable[str]) -> None:
    connection = await asyncpg.connect(place.surroundings.administrator)
    try:
        for name in names:
            for setting, value in EXPLAINING.items():
                await connection.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'")
    finally:
        await connection.close()


async def _large(stack: Stack, names: Mapping[str, str]) -> set[tuple[str, str]]:
    """Service and name of each table with at least 20,000 rows."""
    found: set[tuple[str, str]] = set()
    for service in names.values():
        connection = await asyncpg.connect(stack.database(service))
        try:
            rows = await connection.fetch(
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND reltuples >= 20000 AND relname !~ '^pg_'"
            )
        finally:
            await connection.close()
        found |= {(service, row["relname"]) for row in rows}
    return found


def _waits(plan: Plan, before: Flow, after: Flow) -> Sheet:
    sheet = Sheet(
        f"{plan.rate} requests/s for {plan.seconds:.0f} s, before and after {plan.rows:,} rows of history a table",
        ("what", "before, s#", "after, s#"),
    )
    for name, first, second in (("p50", before.p50, after.p50), ("p99", before.p99, after.p99)):
        sheet.rows.append((f"request to confirmed, {name}", f"{first or 0:.2f}", f"{second or 0:.2f}"))
    for page in _PAGES:
        sheet.rows.append((f"reporting's {page}", f"{before.pages[page]:.2f}", f"{after.pages[page]:.2f}"))
    return sheet


def _scans(scans: list[Scan]) -> Sheet:
    plans = sum(scan.plans for scan in scans if scan.table is None)
    sheet = Sheet(
        f"Statements that read a whole large table, among the plans of {plans:,} statements",
        ("service", "table", "times#", "statement"),
        notes=["A large table has at least 20,000 rows."],
    )
    whole = [scan for scan in scans if scan.table is not None]
    sheet.rows.extend((scan.service, scan.table, scan.plans, scan.statement) for scan in whole)
    if not whole:
        sheet.rows.append(("none", "", "", ""))
    return sheet


def _dead(tables: list[dict[str, Any]]) -> Sheet:
    sheet = Sheet(
        "Rows that are dead right after the load, and how often autovacuum came by",
        ("service", "table", "live#", "dead#", "autovacuum#", "size#"),
    )
    for row in tables[:_MOST_SHOWN]:
        counts = (f"{row['n_live_tup']:,}", f"{row['n_dead_tup']:,}", row["autovacuum_count"])
        sheet.rows.append((row["service"], row["relname"], *counts, f"{row['bytes'] / 2**20:.1f} MiB"))
    return sheet
