"""`fieldbridge retention`: what each service's tables hold by age and size, and what of it goes."""

import asyncio
from dataclasses import dataclass
from datetime import datetime
from time import monotonic
from typing import Annotated, Final

import asyncpg
import typer

from schemas.topics import SERVICES
from services.console.operating import settings_of
from services.console.screen import AsJson, out, progress, say, show_json, table
from services.console.surroundings import Stack, here
from services.console.trouble import Trouble
from services.runtime import database
from services.runtime import retention as forgetting
from services.runtime.database import Connection

_BUSY_SECONDS: Final = 0.1
_LONGEST_COUNT_SECONDS: Final = 300

_STAYS: Final = {
    "runtime.outbox": "until Kafka has it",
    "runtime.parked": "until redriven or discarded",
}
_OTHERWISE: Final = "whatever its age"

_AGES: Final = """
SELECT 'runtime.message_seen' AS name, count(*) AS rows, min(seen_at) AS oldest,
    count(*) FILTER (WHERE seen_at < now() - make_interval(days => $1)) AS past
FROM runtime.message_seen
UNION ALL SELECT 'runtime.outbox', count(*), min(written_at), 0 FROM runtime.outbox
UNION ALL SELECT 'runtime.parked', count(*), min(parked_at), 0 FROM runtime.parked
"""


@dataclass(frozen=True, slots=True)
class Holding:
    """What one table holds. Rows are counted where they go with time, and estimated elsewhere."""

    table: str
    rows: int
    dead: int
    bytes: int
    oldest: datetime | None
    past: int
    """Rows older than the retention, which the next pass removes."""
    stays: str


@dataclass(frozen=True, slots=True)
class Keeping:
    """What one service's database holds, its largest tables first."""

    days: int
    removed: int
    """Rows that all passes have removed so far."""
    next_pass_seconds: float
    tables: tuple[Holding, ...]


def retention(
    now: Annotated[bool, typer.Option("--now", help="Remove at once what is older than the retention.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show what the services' tables hold by age and size. Running services remove old rows by themselves every day."""
    stack = here().stack()
    kept = {service: asyncio.run(_keeping(stack, service, now)) for service in SERVICES}
    if as_json:
        show_json(kept)
        return
    for service, keeping in kept.items():
        rows = [
            (one.table, one.rows, one.dead, _size(one.bytes), _day(one.oldest), one.past or None, one.stays)
            for one in keeping.tables
        ]
        names = ("table", "rows#", "dead#", "size#", "oldest", "to go#", "stays")
        out.print(table(f"{service}: {_next_pass(keeping)}", names, rows))


async def _keeping(stack: Stack, service: str, now: bool) -> Keeping:
    """What a service's database holds, after a pass over its old rows where one is wanted. Raises Trouble."""
    days = settings_of(stack, service).retention_days
    url = stack.database(service)
    db = await database.connect(url)
    try:
        if now:
            began = monotonic()
            removed = await _pass(db, service, days)
            say(f"{service}: {removed:,} old rows removed in {monotonic() - began:.1f} s")
        return await _kept(db, days)
    except asyncpg.UndefinedTableError:
        raise Trouble(
            f"The database at {database.address(url)} is not up to date: run `fieldbridge migrate`."
        ) from None
    finally:
        await db.close()


async def _pass(db: Connection, service: str, days: int) -> int:
    """Makes a pass to its end, sharing it with workers that run; returns how many rows were removed."""
    before = (await forgetting.standing(db)).removed
    async with db.transaction():
        await forgetting.ask_for_pass(db)
    with progress() as shown:
        while (standing := await forgetting.standing(db)).due:
            if standing.removed > before:
                line = f"{service}: {standing.removed - before:,} old rows removed"
                shown.update(line, line)
            async with db.transaction():
                turn = await forgetting.take_turn(db, days)
            if turn is None:
                await asyncio.sleep(_BUSY_SECONDS)
    return standing.removed - before


async def _kept(db: Connection, days: int) -> Keeping:
    """What the tables hold; an empty one is left out, unless its rows come and go."""
    standing = await forgetting.standing(db)
    async with db.transaction():
        # There is no index on the age of rows: they are all read.
        await db.execute(f"SET LOCAL statement_timeout = '{_LONGEST_COUNT_SECONDS}s'")
        ages = {row["name"]: row for row in await db.fetch(_AGES, days)}
    tables: list[Holding] = []
    for size in await forgetting.table_sizes(db):
        age = ages.get(size.name)
        rows = size.live if age is None else int(age["rows"])
        if age is not None or rows or size.dead:
            oldest, past = (None, 0) if age is None else (age["oldest"], int(age["past"]))
            stays = f"{days} days" if size.name == "runtime.message_seen" else _STAYS.get(size.name, _OTHERWISE)
            tables.append(Holding(size.name, rows, size.dead, size.bytes, oldest, past, stays))
    tables.sort(key=lambda one: (-one.bytes, one.table))
    return Keeping(days, standing.removed, max(0.0, -standing.overdue_seconds), tuple(tables))


def _next_pass(keeping: Keeping) -> str:
    when = f"in {keeping.next_pass_seconds / 3600:.0f} h" if keeping.next_pass_seconds else "due now"
    return f"{keeping.removed:,} old rows removed so far, next pass {when}"


def _size(count: int) -> str:
    """A number of bytes for people."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:,.0f} {unit}"
        amount /= 1024
    return f"{amount:,.1f} GiB"


def _day(moment: datetime | None) -> str | None:
    return None if moment is None else f"{moment:%Y-%m-%d}"
