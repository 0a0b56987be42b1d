"""The course of the race: its topics and tables, and what has to stand in them when a contender is done."""

# pyright: reportMissingTypeStubs=false

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol, cast

from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.envelope import read
from schemas.topics import REQUESTS
from services.runtime.database import Connection
from tests.benchmarks.race_input import RaceInput, Size
from tests.benchmarks.useful_work import Tallied
from tests.driving import ends_of, read_log

RACERS: Final = "R-2026-%"
"""The keys of the race, among those of a history."""

_HISTORY: Final = {
    "public.tally": "key",
    "runtime.stream_seen": "key",
    "runtime.stream_out": "key",
    "runtime.message_seen": "id",
}
_TABLES: Final = """
SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables
WHERE schemaname IN ('public', 'runtime') AND tablename <> 'schema_version'
  AND schemaname || '.' || tablename <> ALL($1)
"""


class Ends(Protocol):
    """What is used of aiokafka's consumer, which declares no types."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]: ...


class Wrong(Exception):
    """A contender ended early, came to no end or did other work than it was asked to; the message says what."""


@dataclass(frozen=True, slots=True)
class Course:
    """Where one round is run: the same input for all, read from the start by each."""

    kafka: str
    database: str
    prefix: str
    size: Size
    folder: Path
    topic: str = REQUESTS.name
    """Read by its name in the table of topics: whether it is sequenced decides how repeats are found."""
    keeps_history: bool = False

    @property
    def source(self) -> str:
        return f"{self.prefix}{self.topic}"

    @property
    def target(self) -> str:
        """The next topic. All write to it; each is judged by what it adds."""
        return f"{self.prefix}{Tallied.TOPIC}"


async def clear(db: Connection, course: Course) -> None:
    """Forgets what was handled, so that every contender starts from nothing; the history of other keys may stay."""
    tables = await db.fetch(_TABLES, list(_HISTORY) if course.keeps_history else [])
    await db.execute(f"TRUNCATE {', '.join(row['name'] for row in tables)}")
    if course.keeps_history:
        for table, column in _HISTORY.items():
            await db.execute(f"DELETE FROM {table} WHERE {column} LIKE $1", RACERS)
    await db.execute("ANALYZE")


async def length(course: Course) -> dict[int, int]:
    return {part.partition: end for part, end in (await ends_of(course.kafka, [course.target])).items()}


async def counted(db: Connection, course: Course) -> int:
    """How many events the state holds."""
    return await db.fetchval("SELECT coalesce(sum(events), 0)::bigint FROM tally WHERE key LIKE $1", RACERS)


@asynccontextmanager
async def watching(course: Course) -> AsyncGenerator[Callable[[], Awaitable[int]]]:
    """Tells how many records of the next topic can be read, without reading them: that takes processor time."""
    consumer = cast(Ends, AIOKafkaConsumer(bootstrap_servers=course.kafka))
    await consumer.start()
    partitions = [TopicPartition(course.target, number) for number in range(course.size.partitions)]

    async def published() -> int:
        return sum((await consumer.end_offsets(partitions)).values())

    try:
        yield published
    finally:
        await consumer.stop()


async def check(db: Connection, course: Course, before: dict[int, int], given: RaceInput) -> None:
    """Raises Wrong unless the state of every key is right and each event is followed by exactly one, in order."""
    rows = await db.fetch("SELECT key, events, attendees, latest FROM tally WHERE key LIKE $1", RACERS)
    state = {row["key"]: (row["events"], row["attendees"], row["latest"]) for row in rows}
    right = {key: (one.events, sum(one.attendees), one.events) for key, one in given.expected.items()}
    if state != right:
        raise Wrong(f"the state of {sum(state.get(key) != one for key, one in right.items())} keys is not right")
    said: dict[str, list[tuple[int, int]]] = {key: [] for key in given.expected}
    ids: Counter[str] = Counter()
    for record in await read_log(course.kafka, course.target):
        if record.offset < before[record.partition]:
            continue
        envelope, data = read(record.headers, record.value)
        fact = Tallied.model_validate_json(data)
        ids[envelope.id] += 1
        said[fact.request_id].append((fact.nth, fact.attendees))
    if len(ids) != course.size.events or max(ids.values()) > 1:
        raise Wrong(f"{len(ids)} next events with an id of their own instead of {course.size.events}")
    disorder = sum(said[key] != list(enumerate(one.attendees, 1)) for key, one in given.expected.items())
    if disorder:
        raise Wrong(f"the next events of {disorder} keys are not those that follow, in order")
