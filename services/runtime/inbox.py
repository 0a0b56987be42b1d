"""What has been handled: positions fenced by an epoch, the sequence of each key, and ids of messages without one.

Kafka's committed offsets are only a hint for lag tools. These tables are the authority, because they move in the same
transaction as the effects.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from services.runtime.database import Contention, Database
from services.runtime.outbox import Sealed
from services.runtime.topiclogs import TopicLog

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

_FOLLOW: Final = """
INSERT INTO runtime.followed_log (topic, id, partitions)
SELECT topic, id, partitions FROM unnest($1::text[], $2::uuid[], $3::int[]) AS given (topic, id, partitions)
ORDER BY topic
ON CONFLICT DO NOTHING
"""

_FORGET_LOGS: Final = """
WITH forgotten AS (DELETE FROM runtime.consumer_position WHERE topic = ANY($1))
DELETE FROM runtime.followed_log WHERE topic = ANY($1)
"""

_READ_ON: Final = """
WITH log AS (
    UPDATE runtime.followed_log AS known SET partitions = given.partitions
    FROM unnest($1::text[], $2::int[]) AS given (topic, partitions) WHERE known.topic = given.topic
)
UPDATE runtime.consumer_position AS known
SET next_offset = given.next_offset, absent = known.absent + given.next_offset - known.next_offset,
    epoch = known.epoch + 1, moved_at = clock_timestamp()
FROM unnest($3::text[], $4::int[], $5::bigint[]) AS given (topic, number, next_offset)
WHERE known.topic = given.topic AND known."partition" = given.number
"""

_TAKE_UP: Final = """
WITH "position" AS (
    SELECT known.topic, known."partition", known.next_offset, known.epoch
    FROM runtime.consumer_position AS known
    JOIN unnest($1::text[], $2::int[]) AS given (topic, number)
        ON known.topic = given.topic AND known."partition" = number
    ORDER BY known.topic, known."partition"
    FOR NO KEY UPDATE OF known
), stream AS (
    SELECT known.topic, known.key, known.sequence, known.blocked
    FROM runtime.stream_seen AS known
    JOIN unnest($3::text[], $4::text[]) AS given (topic, key) USING (topic, key)
    ORDER BY known.topic, known.key
    FOR NO KEY UPDATE OF known
), message AS (
    INSERT INTO runtime.message_seen (source, id)
    SELECT source, id FROM unnest($5::text[], $6::text[]) AS given (source, id) ORDER BY source, id
    ON CONFLICT DO NOTHING
    RETURNING source, id
)
SELECT 'position' AS what, topic, NULL AS key, "partition"::bigint AS number, next_offset, epoch, NULL AS blocked
FROM "position"
UNION ALL SELECT 'stream', topic, key, sequence, NULL, NULL, blocked FROM stream
UNION ALL SELECT 'message', source, id, NULL, NULL, NULL, NULL FROM message
"""

_MOVE_ON: Final = """
WITH "position" AS (
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
), stream AS (
    INSERT INTO runtime.stream_seen AS known (topic, key, sequence, blocked, traceparent)
    SELECT topic, key, sequence, blocked, traceparent
    FROM unnest($8::text[], $9::text[], $10::bigint[], $11::text[], $12::text[])
        AS given (topic, key, sequence, blocked, traceparent)
    ORDER BY topic, key
    ON CONFLICT (topic, key) DO UPDATE
    SET sequence = excluded.sequence, blocked = excluded.blocked,
        traceparent = coalesce(excluded.traceparent, known.traceparent)
    WHERE known.sequence <= excluded.sequence
    RETURNING 1
), fact AS (
    INSERT INTO runtime.outbox (topic, events, records)
    SELECT topic, events, records
    FROM unnest($13::text[], $14::int[], $15::bytea[]) WITH ORDINALITY AS given (topic, events, records, nth)
    ORDER BY nth
)
SELECT count(*) FROM stream
"""

_SEEN: Final = """
SELECT known.topic, known.key, known.sequence, known.blocked
FROM runtime.stream_seen AS known
JOIN unnest($1::text[], $2::text[]) AS given (topic, key) USING (topic, key)
ORDER BY known.topic, known.key
FOR NO KEY UPDATE OF known
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


class Stream(NamedTuple):
    """How far one key of one topic has been handled, and whether an event of it is parked."""

    sequence: int = 0
    blocked: str | None = None
    traceparent: str | None = None


UNSEEN: Final = Stream()
"""Of a key nothing has been handled yet."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a slice's records before they are handled."""

    positions: Mapping[Slot, Claim]
    streams: dict[tuple[str, str], Stream]
    fresh: set[tuple[str, str]]
    """Source and id of the messages not seen before."""


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


async def follow(db: Database, logs: Mapping[str, TopicLog]) -> dict[str, TopicLog]:
    """The logs that the positions are places in, by topic; of a topic never read before, the one given."""
    await db.execute(_FOLLOW, list(logs), [log.id for log in logs.values()], [log.partitions for log in logs.values()])
    rows = await db.fetch("SELECT topic, id, partitions FROM runtime.followed_log WHERE topic = ANY($1)", list(logs))
    return {row["topic"]: TopicLog(row["id"], row["partitions"]) for row in rows}


async def take_up(
    db: Database, slots: Iterable[Slot], keys: Iterable[tuple[str, str]], messages: Iterable[tuple[str, str]]
) -> Standing:
    """Locks the positions of a slice and the streams of its keys, and remembers its messages by source and id.

    All in one statement, since every batch begins with it. Whoever finds the position in other hands rolls back.
    """
    positions, streams, ids = list(slots), sorted(set(keys)), sorted(set(messages))
    rows = await db.fetch(
        _TAKE_UP,
        [topic for topic, _ in positions],
        [number for _, number in positions],
        [topic for topic, _ in streams],
        [key for _, key in streams],
        [source for source, _ in ids],
        [message_id for _, message_id in ids],
    )
    known: dict[Slot, Claim] = {}
    seen: dict[tuple[str, str], Stream] = {}
    fresh: set[tuple[str, str]] = set()
    for what, topic, key, number, next_offset, epoch, blocked in (tuple(row.values()) for row in rows):
        if what == "position":
            known[topic, number] = Claim(next_offset, epoch)
        elif what == "stream":
            seen[topic, key] = Stream(number, blocked)
        else:
            fresh.add((topic, key))
    return Standing(known, seen, fresh)


async def move_on(
    db: Database,
    moves: Mapping[Slot, tuple[int, Tally]],
    moved: Mapping[tuple[str, str], Stream],
    sealed: Sequence[Sealed],
) -> None:
    """Writes in one statement what every batch ends with: positions and tallies, streams, and facts on their way out.

    Raises Contention where a stream has been handled further meanwhile.
    """
    tallies = [tally for _, tally in moves.values()]
    written = await db.fetchval(
        _MOVE_ON,
        [topic for topic, _ in moves],
        [number for _, number in moves],
        [next_offset for next_offset, _ in moves.values()],
        [tally.applied for tally in tallies],
        [tally.duplicate for tally in tallies],
        [tally.parked for tally in tallies],
        [tally.ignored for tally in tallies],
        [topic for topic, _ in moved],
        [key for _, key in moved],
        [stream.sequence for stream in moved.values()],
        [stream.blocked for stream in moved.values()],
        [stream.traceparent for stream in moved.values()],
        [row.topic for row in sealed],
        [row.events for row in sealed],
        [row.records for row in sealed],
    )
    if written != len(moved):
        raise Contention


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


async def traces(db: Database, topics: Iterable[str], keys: Iterable[str]) -> dict[str, str]:
    """The trace that the last event of each key belonged to, for what a round decides about the key."""
    rows = await db.fetch(_TRACES, list(topics), list(keys))
    return {row["key"]: row["traceparent"] for row in rows}


async def read_on(
    db: Database, other_logs: Iterable[str], partitions: Mapping[str, int], positions: Mapping[Slot, int]
) -> None:
    """Has the next owners read on where a person decided; whoever owns the positions until then is fenced.

    Of `other_logs`, whose topics were made again, nothing has been read yet. The other topics have so many
    `partitions`, and `positions` are where to read on in them. What is left out counts as absent.
    """
    await db.execute(_FORGET_LOGS, list(other_logs))
    await db.execute(
        _READ_ON,
        list(partitions),
        list(partitions.values()),
        [topic for topic, _ in positions],
        [number for _, number in positions],
        list(positions.values()),
    )


async def forget(db: Database) -> None:
    """Makes everything read so far count as never read: the next claim starts where the logs start.

    Only for a service that publishes nothing, together with its own tables, and while it does not run.
    """
    await db.execute(
        "TRUNCATE runtime.consumer_position, runtime.followed_log, runtime.stream_seen, runtime.message_seen, "
        "runtime.parked"
    )
