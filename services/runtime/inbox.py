"""What has been handled: positions fenced by an epoch, the sequence of each key, and ids of messages without one.

Kafka's committed offsets are only a hint for lag tools. These tables are the authority, because they move in the same
transaction as the effects.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from services.runtime.database import Contention, Database

Slot = tuple[str, int]
"""A partition: topic and number."""

_CLAIM: Final = """
INSERT INTO runtime.consumer_position AS known (topic, "partition", first_offset, next_offset, owner)
SELECT topic, number, start, start, $4
FROM unnest($1::text[], $2::int[], $3::bigint[]) AS given (topic, number, start)
ORDER BY topic, number
ON CONFLICT (topic, "partition") DO UPDATE SET epoch = known.epoch + 1, owner = excluded.owner
RETURNING topic, "partition", next_offset, epoch
"""

_LOCK_POSITIONS: Final = """
SELECT known.topic, known."partition", known.next_offset, known.epoch
FROM runtime.consumer_position AS known
JOIN unnest($1::text[], $2::int[]) AS given (topic, number) ON known.topic = given.topic AND known."partition" = number
ORDER BY known.topic, known."partition"
FOR NO KEY UPDATE OF known
"""

_MOVE: Final = """
UPDATE runtime.consumer_position AS known
SET next_offset = given.next_offset, applied = known.applied + given.applied,
    duplicate = known.duplicate + given.duplicate, parked = known.parked + given.parked,
    ignored = known.ignored + given.ignored,
    absent = known.absent + (given.next_offset - known.next_offset
        - given.applied - given.duplicate - given.parked - given.ignored),
    moved_at = clock_timestamp()
FROM unnest($1::text[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
    AS given (topic, number, next_offset, applied, duplicate, parked, ignored)
WHERE known.topic = given.topic AND known."partition" = given.number
"""

_SEEN: Final = """
SELECT known.topic, known.key, known.sequence, known.blocked
FROM runtime.stream_seen AS known
JOIN unnest($1::text[], $2::text[]) AS given (topic, key) USING (topic, key)
ORDER BY known.topic, known.key
FOR NO KEY UPDATE OF known
"""

_REMEMBER_STREAMS: Final = """
INSERT INTO runtime.stream_seen AS known (topic, key, sequence, blocked, traceparent)
SELECT topic, key, sequence, blocked, traceparent
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[])
    AS given (topic, key, sequence, blocked, traceparent)
ORDER BY topic, key
ON CONFLICT (topic, key) DO UPDATE
SET sequence = excluded.sequence, blocked = excluded.blocked,
    traceparent = coalesce(excluded.traceparent, known.traceparent)
WHERE known.sequence <= excluded.sequence
"""

_HOLD_STREAMS: Final = """
INSERT INTO runtime.stream_seen (topic, key, sequence)
SELECT topic, key, 0 FROM unnest($1::text[], $2::text[]) AS given (topic, key) ORDER BY topic, key
ON CONFLICT DO NOTHING
"""

_TRACES: Final = """
SELECT DISTINCT ON (key) key, traceparent FROM runtime.stream_seen
WHERE topic = ANY($1) AND key = ANY($2) AND traceparent IS NOT NULL
ORDER BY key, topic DESC
"""

_REMEMBER_MESSAGES: Final = """
INSERT INTO runtime.message_seen (source, id)
SELECT source, id FROM unnest($1::text[], $2::text[]) AS given (source, id) ORDER BY source, id
ON CONFLICT DO NOTHING
RETURNING source, id
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A position this process owns until another claims it: where to read on, and the epoch that fences it."""

    next_offset: int
    epoch: int


@dataclass(slots=True)
class Tally:
    """What became of the records of one partition slice."""

    applied: int = 0
    duplicate: int = 0
    parked: int = 0
    ignored: int = 0


@dataclass(frozen=True, slots=True)
class Stream:
    """How far one key of one topic has been handled, and whether an event of it is parked."""

    sequence: int = 0
    blocked: str | None = None
    traceparent: str | None = None


async def claim(db: Database, owner: str, log_starts: Mapping[Slot, int]) -> dict[Slot, Claim]:
    """Takes positions over from whoever held them; a partition never read before starts where its log starts."""
    rows = await db.fetch(
        _CLAIM,
        [topic for topic, _ in log_starts],
        [number for _, number in log_starts],
        list(log_starts.values()),
        owner,
    )
    return {(row["topic"], row["partition"]): Claim(row["next_offset"], row["epoch"]) for row in rows}


async def lock_positions(db: Database, slots: Iterable[Slot]) -> dict[Slot, Claim]:
    """The positions as they stand, locked until the transaction ends."""
    wanted = list(slots)
    rows = await db.fetch(_LOCK_POSITIONS, [topic for topic, _ in wanted], [number for _, number in wanted])
    return {(row["topic"], row["partition"]): Claim(row["next_offset"], row["epoch"]) for row in rows}


async def move_positions(db: Database, moves: Mapping[Slot, tuple[int, Tally]]) -> None:
    """Sets the next offset of each slice and adds up what became of its records."""
    tallies = [tally for _, tally in moves.values()]
    await db.execute(
        _MOVE,
        [topic for topic, _ in moves],
        [number for _, number in moves],
        [next_offset for next_offset, _ in moves.values()],
        [tally.applied for tally in tallies],
        [tally.duplicate for tally in tallies],
        [tally.parked for tally in tallies],
        [tally.ignored for tally in tallies],
    )


async def streams(db: Database, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Stream]:
    """How far these keys have been handled; their rows are locked."""
    wanted = sorted(set(keys))
    rows = await db.fetch(_SEEN, [topic for topic, _ in wanted], [key for _, key in wanted])
    return {(row["topic"], row["key"]): Stream(row["sequence"], row["blocked"]) for row in rows}


async def hold_streams(db: Database, keys: Iterable[tuple[str, str]]) -> None:
    """Locks these keys, also those of which nothing has been handled yet."""
    wanted = sorted(set(keys))
    await db.execute(_HOLD_STREAMS, [topic for topic, _ in wanted], [key for _, key in wanted])
    await streams(db, wanted)


async def remember_streams(db: Database, moved: Mapping[tuple[str, str], Stream]) -> None:
    """Writes how far keys have been handled. Raises Contention where one has been handled further meanwhile."""
    if moved:
        done = await db.execute(
            _REMEMBER_STREAMS,
            [topic for topic, _ in moved],
            [key for _, key in moved],
            [stream.sequence for stream in moved.values()],
            [stream.blocked for stream in moved.values()],
            [stream.traceparent for stream in moved.values()],
        )
        if int(done.split()[-1]) != len(moved):
            raise Contention


async def traces(db: Database, topics: Iterable[str], keys: Iterable[str]) -> dict[str, str]:
    """The trace that the last event of each key belonged to, for what a round decides about the key."""
    rows = await db.fetch(_TRACES, list(topics), list(keys))
    return {row["key"]: row["traceparent"] for row in rows}


async def remember_messages(db: Database, ids: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
    """Remembers messages by source and id; returns those not seen before."""
    if not ids:
        return set()
    distinct = sorted(set(ids))
    rows = await db.fetch(
        _REMEMBER_MESSAGES, [source for source, _ in distinct], [message_id for _, message_id in distinct]
    )
    return {(row["source"], row["id"]) for row in rows}


async def forget(db: Database) -> None:
    """Makes everything read so far count as never read: the next claim starts where the logs start.

    Only for a service that publishes nothing, together with its own tables, and while it does not run.
    """
    await db.execute("TRUNCATE runtime.consumer_position, runtime.stream_seen, runtime.message_seen, runtime.parked")
