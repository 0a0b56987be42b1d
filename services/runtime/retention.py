"""Forgets what has lost its use: the ids of messages without a sequence, once they are older than the retention.

`message_seen` is the only table that gains a row with every message and needs it for a time only. An offset is handled
once whatever this table holds, since positions are fenced; the ids are there for messages that their source, a copying
tool or a relay wrote to the log again. Everything else stays: the sequence of a key is needed for as long as its
publisher may say more, which is for ever, and a parked event until a person decides.

The table is swept page by page, by the physical place of its rows. They are never updated, so they keep their place,
and a pass over all pages meets every row that was old when it began. An index on time would cost every insert, and a
pass costs little: it reads ten million rows in seconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from services.runtime.database import Database, Pool
from services.runtime.logs import describe, logger
from services.runtime.metrics import Metrics
from services.runtime.settings import Settings
from services.runtime.supervision import Supervised, task

SWEPT: Final = "message_seen"

PAGES_AT_A_TIME: Final = 64
"""Pages that one transaction looks at: of 8 KiB each, and a page holds 291 rows at most."""
_EVERY_HOURS: Final = 24
_PAUSE_SECONDS: Final = 0.05
_LOOK_EVERY_SECONDS: Final = 60.0
_AFTER_FAILURE_SECONDS: Final = 5.0

# Were the row not looked for first, a conflict with it would wait for whoever is about to change it.
_ENTER: Final = """
INSERT INTO runtime.retention (swept) SELECT $1 WHERE NOT EXISTS (SELECT FROM runtime.retention WHERE swept = $1)
ON CONFLICT DO NOTHING
"""

_TAKE_UP: Final = """
SELECT next_page, pg_relation_size('runtime.message_seen') / current_setting('block_size')::bigint AS pages
FROM runtime.retention WHERE swept = $1 AND due_at <= clock_timestamp()
FOR UPDATE SKIP LOCKED
"""

_FORGET: Final = """
DELETE FROM runtime.message_seen
WHERE ctid >= $1 AND ctid < $2 AND seen_at < now() - make_interval(days => $3)
"""

_MOVE_ON: Final = """
UPDATE runtime.retention
SET next_page = $2::bigint, removed = removed + $3,
    due_at = CASE WHEN $2::bigint = 0 THEN clock_timestamp() + make_interval(hours => $4) ELSE due_at END
WHERE swept = $1
"""

_ASK: Final = """
INSERT INTO runtime.retention AS known (swept) VALUES ($1)
ON CONFLICT (swept) DO UPDATE SET next_page = 0, due_at = least(known.due_at, excluded.due_at)
"""

_STANDING: Final = """
SELECT removed, extract(epoch FROM clock_timestamp() - due_at)::float8 AS overdue
FROM runtime.retention WHERE swept = $1
"""

_TABLES: Final = """
SELECT CASE nspname WHEN 'public' THEN relname ELSE nspname || '.' || relname END AS name,
    pg_stat_get_live_tuples(one.oid) AS live, pg_stat_get_dead_tuples(one.oid) AS dead,
    pg_total_relation_size(one.oid) AS bytes
FROM pg_class AS one JOIN pg_namespace AS room ON room.oid = relnamespace
WHERE nspname IN ('public', 'runtime') AND relkind = 'r'
ORDER BY name
"""

log = logger("retention")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one transaction did: how many rows it removed, and whether the pass goes on."""

    removed: int
    more: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """Rows removed by all passes so far, and for how many seconds the next has been due; negative while it is not."""

    removed: int
    overdue_seconds: float

    @property
    def due(self) -> bool:
        return self.overdue_seconds >= 0


@dataclass(frozen=True, slots=True)
class TableSize:
    """A table as PostgreSQL's statistics have it; `bytes` with its indexes."""

    name: str
    live: int
    dead: int
    bytes: int


async def take_turn(db: Database, days: int) -> Turn | None:
    """Forgets what is older than so many days in the next few pages, inside a transaction that has been begun.

    None where no pass is due, or where another process is at it: this does not wait for others.
    """
    await db.execute(_ENTER, SWEPT)
    row = await db.fetchrow(_TAKE_UP, SWEPT)
    if row is None:
        return None
    first = row["next_page"]
    behind = first + PAGES_AT_A_TIME
    done = await db.execute(_FORGET, (first, 0), (behind, 0), days)
    removed = int(done.split()[-1])
    more = behind < row["pages"]
    await db.execute(_MOVE_ON, SWEPT, behind if more else 0, removed, _EVERY_HOURS)
    return Turn(removed, more)


async def ask_for_pass(db: Database) -> None:
    """Makes a pass over the whole table due at once."""
    await db.execute(_ASK, SWEPT)


async def standing(db: Database) -> Standing:
    """How the retention stands. Before its first turn it is due, and has been for no time."""
    row = await db.fetchrow(_STANDING, SWEPT)
    return Standing(0, 0.0) if row is None else Standing(row["removed"], row["overdue"])


async def table_sizes(db: Database) -> Sequence[TableSize]:
    """The tables of the runtime and of the service, by name. Rows are estimates, bytes are exact."""
    return [TableSize(row["name"], row["live"], row["dead"], row["bytes"]) for row in await db.fetch(_TABLES)]


class Retention(Supervised):
    """Takes turns at a pass when one is due, a pause after each, so that what moves events hardly notices.

    Several workers may share a pass: each turn goes on where the last one ended. Whether old rows go is told by the
    metrics; it does not touch whether the process is alive and ready.
    """

    def __init__(self, settings: Settings, pool: Pool, metrics: Metrics) -> None:
        super().__init__()
        self._days = settings.retention_days
        self._pool = pool
        self._metrics = metrics

    @task
    async def _run(self) -> None:
        while not self.should_stop:
            await self.pause(await self._turn())

    async def _turn(self) -> float:
        """Takes a turn where one is due; returns how many seconds to wait before the next."""
        try:
            async with self._pool.transaction() as db:
                turn = await take_turn(db, self._days)
        except Exception as error:
            log.warning("old rows not removed; tried again", error=describe(error))
            return _AFTER_FAILURE_SECONDS
        if turn is None:
            return _LOOK_EVERY_SECONDS
        self._metrics.retention_removed.labels(SWEPT).inc(turn.removed)
        return _PAUSE_SECONDS if turn.more else _LOOK_EVERY_SECONDS
