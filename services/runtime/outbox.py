"""Facts on their way out: sealed with id, sequence and trace, and written in the transaction that decided them.

Each lies in the outbox as the bytes that Kafka is sent; the relay takes them as they are.
"""

# aiokafka and msgpack declare no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Final, NamedTuple, cast

import msgpack
from aiokafka.partitioner import murmur2

from schemas.envelope import consequence_id, consequence_traceparent, own_headers, shared_headers
from schemas.topics import TOPICS
from services.runtime.database import Database
from services.runtime.recordbatch import encoded, encoded_headers, joined
from services.runtime.records import Record
from services.runtime.service import FactBody

_SEQUENCED: Final = frozenset(topic.name for topic in TOPICS if topic.sequenced)

_NEXT_SEQUENCES: Final = """
INSERT INTO runtime.stream_out AS known (topic, key, sequence)
SELECT topic, key, count FROM unnest($1::text[], $2::text[], $3::bigint[]) AS given (topic, key, count)
ORDER BY topic, key
ON CONFLICT (topic, key) DO UPDATE SET sequence = known.sequence + excluded.sequence
RETURNING topic, key, sequence
"""


_ROW_BYTES: Final = 8_000
_FRAME_BYTES: Final = 10
"""Facts of one topic share a row up to what a page of PostgreSQL holds: a row costs more than a fact does."""

Outgoing = tuple[str, int, bytes]
"""A record on its way out: topic, hash of its key, its bytes."""


class Sealed(NamedTuple):
    """A row of the outbox: some records of a topic in their order, packed as `unsealed` reads them."""

    topic: str
    events: int
    records: bytes


class Consequence(NamedTuple):
    """A fact that follows from a cause. The cause names it, so that the same cause gives the same id."""

    body: FactBody
    cause: str
    nth: int
    traceparent: str | None


async def seal(db: Database, source: str, consequences: Sequence[Consequence], time: datetime) -> list[Sealed]:
    """Gives facts their ids, sequences and traces, in their order.

    The row of each key's sequence is locked before outbox ids are drawn, so that id order is commit order per key.
    """
    streams = [(one.body.TOPIC, one.body.subject) for one in consequences]
    counts = Counter(stream for stream in streams if stream[0] in _SEQUENCED)
    upcoming: dict[tuple[str, str], int] = {}
    if counts:
        rows = await db.fetch(
            _NEXT_SEQUENCES, [topic for topic, _ in counts], [key for _, key in counts], list(counts.values())
        )
        upcoming = {(topic, key): last - counts[topic, key] + 1 for topic, key, last in (row.values() for row in rows)}
    records: list[Outgoing] = []
    shared: dict[str, tuple[int, bytes]] = {}
    for (topic, subject), (body, cause, nth, traceparent) in zip(streams, consequences, strict=True):
        sequence = upcoming.get((topic, subject))
        if sequence is not None:
            upcoming[topic, subject] = sequence + 1
        if body.TYPE not in shared:
            headers = shared_headers(source, body.TYPE, time)
            shared[body.TYPE] = len(headers), encoded_headers(headers)
        alike, of_all = shared[body.TYPE]
        event_id = consequence_id(cause, nth)
        own = own_headers(event_id, subject, sequence, consequence_traceparent(traceparent, event_id))
        key, value = subject.encode(), body.model_dump_json().encode()
        records.append((topic, _hash(key), joined(key, value, alike + len(own), of_all, encoded_headers(own))))
    return rows_of(records)


def rows_of(records: Iterable[Outgoing]) -> list[Sealed]:
    """Rows of the outbox that hold these records, those of each topic in their order."""
    rows: list[Sealed] = []
    filling: dict[str, list[int | bytes]] = {}
    sizes: dict[str, int] = {}
    for topic, hashed, record in records:
        size = sizes.get(topic, 0) + len(record) + _FRAME_BYTES
        row = filling.setdefault(topic, [])
        if row and size > _ROW_BYTES:
            rows.append(_row(topic, row))
            filling[topic] = row = []
            size = len(record) + _FRAME_BYTES
        row += (hashed, record)
        sizes[topic] = size
    return rows + [_row(topic, row) for topic, row in filling.items()]


def _row(topic: str, records: list[int | bytes]) -> Sealed:
    return Sealed(topic, len(records) // 2, cast(bytes, msgpack.packb(records)))


def unsealed(records: bytes) -> Iterator[tuple[int, bytes]]:
    """The records of a row as they go on the wire, each behind the hash of its key that tells its partition."""
    packed = iter(cast("list[int | bytes]", msgpack.unpackb(records)))
    return cast("Iterator[tuple[int, bytes]]", zip(packed, packed, strict=True))


@lru_cache(maxsize=50_000)
def _hash(key: bytes | None) -> int:
    """What Kafka's own clients take a key's partition from; 0 without a key. Remembered: it is computed in Python."""
    return 0 if key is None else murmur2(key) & 0x7FFFFFFF


async def publish_dead(db: Database, dead: Sequence[tuple[Record, str, str]], service: str) -> None:
    """Writes parked records to their dead-letter topics: bytes and headers unchanged, the reason in headers beside."""
    rows = rows_of(
        (
            f"{record.topic}.dead",
            _hash(record.key),
            encoded(
                record.key,
                record.value,
                [
                    *record.headers,
                    ("fieldbridge_parked_by", service.encode()),
                    ("fieldbridge_reason", reason.encode()),
                    ("fieldbridge_detail", detail.encode()),
                    ("fieldbridge_partition", str(record.partition).encode()),
                    ("fieldbridge_offset", str(record.offset).encode()),
                ],
            ),
        )
        for record, reason, detail in dead
    )
    if rows:
        await db.copy_records_to_table(
            "outbox", schema_name="runtime", records=rows, columns=("topic", "events", "records")
        )
