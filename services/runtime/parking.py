"""Events that could not be handled wait here, bytes unchanged, until an operator redrives or discards them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.runtime.database import Database, Row
from services.runtime.outbox import publish_dead
from services.runtime.records import Record, pack_headers, unpack_headers

UNREADABLE: Final = "unreadable"
"""The bytes are no event, or its body breaks its schema."""
REFUSED: Final = "refused"
"""Deciding, loading or saving raised an exception."""
GAP: Final = "gap"
"""An earlier event of the key has not arrived."""
BEHIND: Final = "behind"
"""An earlier event of the key is parked."""
DISCARDED: Final = "discarded"
"""Discarded, and not yet its turn: an earlier event of the key is parked."""

_COLUMNS: Final = (
    "topic",
    "partition",
    "offset",
    "key",
    "raw_key",
    "headers",
    "value",
    "recorded_at",
    "reason",
    "detail",
)

_SHOWN: Final = """
SELECT id, topic, "partition", "offset", key, raw_key, headers, value, recorded_at, reason, detail, parked_at, state
FROM runtime.parked
"""


@dataclass(frozen=True, slots=True)
class Parked:
    """A record to park, why, and the key its successors wait behind (None where the record names none)."""

    record: Record
    key: str | None
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class ParkedRow:
    """A parked event as it stands in the database. `state` is parked, redrive or discard."""

    id: int
    record: Record
    key: str | None
    reason: str
    detail: str
    parked_at: datetime
    state: str

    @property
    def goes_on(self) -> bool:
        """Whether it is to be handled when its key is redriven: it was marked, or it only waited for others."""
        return self.state == "redrive" or (self.state == "parked" and self.reason in (GAP, BEHIND, DISCARDED))

    @property
    def discarded(self) -> bool:
        """Whether it is to have no effect when its turn comes."""
        return self.state == "discard" or self.reason == DISCARDED


def _row(row: Row) -> ParkedRow:
    return ParkedRow(
        id=row["id"],
        record=Record(
            topic=row["topic"],
            partition=row["partition"],
            offset=row["offset"],
            key=row["raw_key"],
            value=row["value"],
            headers=unpack_headers(row["headers"]),
            timestamp=round(row["recorded_at"].timestamp() * 1000),
        ),
        key=row["key"],
        reason=row["reason"],
        detail=row["detail"],
        parked_at=row["parked_at"],
        state=row["state"],
    )


async def park(db: Database, parked: Sequence[Parked], service: str) -> None:
    """Keeps the records and sends a copy of each to its dead-letter topic."""
    if not parked:
        return
    await db.copy_records_to_table(
        "parked",
        schema_name="runtime",
        columns=_COLUMNS,
        records=[
            (
                one.record.topic,
                one.record.partition,
                one.record.offset,
                one.key,
                one.record.key,
                pack_headers(one.record.headers),
                one.record.value,
                one.record.recorded_at,
                one.reason,
                one.detail,
            )
            for one in parked
        ],
    )
    await publish_dead(db, [(one.record, one.reason, one.detail) for one in parked], service)


async def list_parked(db: Database, *, key: str | None = None, most: int = 10_000) -> list[ParkedRow]:
    """Parked events, oldest first; of one key if given."""
    rows = await db.fetch(f"{_SHOWN} WHERE $1::text IS NULL OR key = $1 ORDER BY id LIMIT $2", key, most)
    return [_row(row) for row in rows]


async def count_parked(db: Database, *, key: str | None = None) -> int:
    """How many events are parked; of one key if given."""
    return int(await db.fetchval("SELECT count(*) FROM runtime.parked WHERE $1::text IS NULL OR key = $1", key))


async def find_parked(db: Database, event: int) -> ParkedRow | None:
    """The parked event of this id, or None."""
    row = await db.fetchrow(f"{_SHOWN} WHERE id = $1", event)
    return None if row is None else _row(row)


async def mark(db: Database, state: str, *, ids: Sequence[int] | None = None, key: str | None = None) -> int:
    """Marks parked events for the running service to redrive or discard; returns how many.

    A redrive takes every event of the same key along, since they wait behind one another; behind a discarded event
    those that only waited for it go on by themselves. Without ids and key, all parked events are marked.
    """
    result = await db.execute(
        """
        UPDATE runtime.parked AS one SET state = $1
        WHERE ($2::bigint[] IS NULL OR id = ANY($2) OR ($1 = 'redrive' AND key IS NOT NULL AND EXISTS (
                SELECT FROM runtime.parked AS other
                WHERE other.id = ANY($2) AND other.topic = one.topic AND other.key = one.key)))
          AND ($3::text IS NULL OR key = $3)
        """,
        state,
        None if ids is None else list(ids),
        key,
    )
    return int(result.split()[-1])


async def marked_keys(db: Database, most: int) -> list[tuple[str, str | None]]:
    """Topics and keys that hold a marked event, the earliest first; None stands for events without a key."""
    rows = await db.fetch(
        """
        SELECT topic, key FROM runtime.parked WHERE state <> 'parked' GROUP BY topic, key ORDER BY min(id) LIMIT $1
        """,
        most,
    )
    return [(row["topic"], row["key"]) for row in rows]


async def of_keys(db: Database, keys: Sequence[tuple[str, str | None]], most: int) -> list[ParkedRow]:
    """All parked events of these keys, and up to so many marked ones without a key, locked, in the order of the log."""
    named = [(topic, key) for topic, key in keys if key is not None]
    rows = await db.fetch(
        f"""
        {_SHOWN}
        WHERE (topic, key) IN (SELECT * FROM unnest($1::text[], $2::text[]))
           OR id IN (
                SELECT id FROM runtime.parked WHERE state <> 'parked' AND key IS NULL AND topic = ANY($3)
                ORDER BY id LIMIT $4)
        ORDER BY id
        FOR UPDATE
        """,
        [topic for topic, _ in named],
        [key for _, key in named],
        [topic for topic, key in keys if key is None],
        most,
    )
    return [_row(row) for row in rows]


async def mark_again(db: Database, ids: Sequence[int]) -> None:
    """These are to be handled next, after what stood before them."""
    if ids:
        await db.execute("UPDATE runtime.parked SET state = 'redrive' WHERE id = ANY($1) AND state = 'parked'", ids)


async def settle(db: Database, done: Sequence[int], still: Sequence[tuple[int, str, str]]) -> None:
    """Deletes what was redriven or discarded; what failed again stays parked with its new reason and detail."""
    if done:
        await db.execute("DELETE FROM runtime.parked WHERE id = ANY($1)", list(done))
    if still:
        await db.execute(
            """
            UPDATE runtime.parked AS one SET state = 'parked', reason = given.reason, detail = given.detail
            FROM unnest($1::bigint[], $2::text[], $3::text[]) AS given (id, reason, detail) WHERE one.id = given.id
            """,
            [row_id for row_id, _, _ in still],
            [reason for _, reason, _ in still],
            [detail for _, _, detail in still],
        )


async def release_gaps(db: Database, keys: Sequence[tuple[str, str]]) -> None:
    """Marks for redrive what waited for an event that has now arrived."""
    if keys:
        await db.execute(
            """
            UPDATE runtime.parked AS one SET state = 'redrive'
            FROM unnest($1::text[], $2::text[]) AS given (topic, key)
            WHERE one.topic = given.topic AND one.key = given.key AND one.state = 'parked'
            """,
            [topic for topic, _ in keys],
            [key for _, key in keys],
        )


async def count_by_reason(db: Database) -> dict[tuple[str, str], int]:
    """How many events are parked, by topic and reason."""
    rows = await db.fetch("SELECT topic, reason, count(*) AS events FROM runtime.parked GROUP BY topic, reason")
    return {(row["topic"], row["reason"]): row["events"] for row in rows}
