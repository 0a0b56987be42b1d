"""Facts on their way out: sealed with id, sequence and trace, and written in the transaction that decided them."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple

from schemas.envelope import Envelope, consequence_id, consequence_traceparent
from schemas.topics import TOPICS
from services.runtime.database import Database
from services.runtime.records import Record, pack_headers
from services.runtime.service import FactBody

_SEQUENCED: Final = frozenset(topic.name for topic in TOPICS if topic.sequenced)

_NEXT_SEQUENCES: Final = """
INSERT INTO runtime.stream_out AS known (topic, key, sequence)
SELECT topic, key, count FROM unnest($1::text[], $2::text[], $3::bigint[]) AS given (topic, key, count)
ORDER BY topic, key
ON CONFLICT (topic, key) DO UPDATE SET sequence = known.sequence + excluded.sequence
RETURNING topic, key, sequence
"""


Sealed = tuple[str, bytes | None, bytes, bytes | None]
"""A record on its way out: topic, key, packed headers, value."""


class Consequence(NamedTuple):
    """A fact that follows from a cause. The cause names it, so that the same cause gives the same id."""

    body: FactBody
    cause: str
    nth: int
    traceparent: str | None


async def publish(db: Database, source: str, consequences: Sequence[Consequence], time: datetime) -> None:
    """Writes facts to the outbox in their order."""
    await _write(db, await seal(db, source, consequences, time))


async def seal(db: Database, source: str, consequences: Sequence[Consequence], time: datetime) -> list[Sealed]:
    """Gives facts their ids, sequences and traces, in their order.

    The row of each key's sequence is locked before outbox ids are drawn, so that id order is commit order per key.
    """
    if not consequences:
        return []
    counts = Counter((one.body.TOPIC, one.body.subject) for one in consequences if one.body.TOPIC in _SEQUENCED)
    upcoming: dict[tuple[str, str], int] = {}
    if counts:
        rows = await db.fetch(
            _NEXT_SEQUENCES, [topic for topic, _ in counts], [key for _, key in counts], list(counts.values())
        )
        upcoming = {(topic, key): last - counts[topic, key] + 1 for topic, key, last in (row.values() for row in rows)}
    sealed: list[Sealed] = []
    for one in consequences:
        stream = (one.body.TOPIC, one.body.subject)
        sequence = upcoming.get(stream)
        if sequence is not None:
            upcoming[stream] = sequence + 1
        event_id = consequence_id(one.cause, one.nth)
        envelope = Envelope(
            id=event_id,
            source=source,
            type=one.body.TYPE,
            subject=one.body.subject,
            time=time,
            sequence=sequence,
            traceparent=consequence_traceparent(one.traceparent, event_id),
        )
        sealed.append(
            (
                one.body.TOPIC,
                one.body.subject.encode(),
                pack_headers(envelope.headers()),
                one.body.model_dump_json().encode(),
            )
        )
    return sealed


async def publish_dead(db: Database, dead: Sequence[tuple[Record, str, str]], service: str) -> None:
    """Writes parked records to their dead-letter topics: bytes and headers unchanged, the reason in headers beside."""
    await _write(
        db,
        [
            (
                f"{record.topic}.dead",
                record.key,
                pack_headers(
                    [
                        *record.headers,
                        ("fieldbridge_parked_by", service.encode()),
                        ("fieldbridge_reason", reason.encode()),
                        ("fieldbridge_detail", detail.encode()),
                        ("fieldbridge_partition", str(record.partition).encode()),
                        ("fieldbridge_offset", str(record.offset).encode()),
                    ]
                ),
                record.value,
            )
            for record, reason, detail in dead
        ],
    )


async def _write(db: Database, records: Sequence[Sealed]) -> None:
    if records:
        await db.copy_records_to_table(
            "outbox", schema_name="runtime", records=records, columns=("topic", "key", "headers", "value")
        )
