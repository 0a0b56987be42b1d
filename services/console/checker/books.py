"""Everything the checker knows: Kafka's logs from their beginning, and what the services' databases say.

It is read from outside, with plain clients, and shares nothing with the services but the contract.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from time import monotonic
from typing import Any, Final, NamedTuple

from schemas.envelope import Envelope, NotAnEvent, read
from schemas.topics import DEAD_SUFFIX, RECEIPTS, REQUESTS, ROSTER, SUBMISSIONS, TOPICS
from services.console import wire
from services.console.checker.lives import Life, When
from services.console.checker.roster import Roster
from services.console.sql import Asked, ask, ask_each
from services.console.surroundings import Stack

Slot = tuple[str, int]
MessageId = tuple[str, str]
"""Source and id of a submission."""

_DEAD: Final = SUBMISSIONS.name + DEAD_SUFFIX
_POLL_SECONDS: Final = 0.25
_QUIET_SECONDS: Final = 2.5
"""Longer than the longest pause of a round that has work to do."""
_TRIES: Final = 4


class Position(NamedTuple):
    """How far a service has handled one partition, and what became of its records."""

    first_offset: int
    next_offset: int
    applied: int
    duplicate: int
    parked: int
    ignored: int


class Parked(NamedTuple):
    """An event that waits for an operator."""

    service: str
    topic: str
    partition: int
    offset: int
    key: str | None
    reason: str


class Booking(NamedTuple):
    """Time of an expert that is taken, as scheduling's table has it."""

    session_id: str
    expert_id: str
    start: datetime
    end: datetime


@dataclass(slots=True)
class Stream:
    """The events of one key in one topic, in the order of the log."""

    partition: int
    ids: list[int | None] = field(default_factory=list["int | None"])
    """Hash of the id of each event, by sequence; None where one is missing."""
    faults: list[str] = field(default_factory=list[str])


@dataclass(slots=True)
class Books:
    """What was read. Logs are taken in record by record and not kept."""

    starts: dict[Slot, int] = field(default_factory=dict[Slot, int])
    ends: dict[Slot, int] = field(default_factory=dict[Slot, int])
    records: Counter[Slot] = field(default_factory=Counter[Slot])
    repeats: Counter[str] = field(default_factory=Counter[str])
    """Records that say again what their topic has said before."""
    foreign: Counter[str] = field(default_factory=Counter[str])
    """Records of a topic that are no events of the contract, or that its publisher did not write."""
    submissions: dict[MessageId, tuple[str, str]] = field(default_factory=dict[MessageId, tuple[str, str]])
    """Type and subject of each submission."""
    places: dict[tuple[int, int], MessageId] = field(default_factory=dict[tuple[int, int], MessageId])
    """Which submission stands at a partition and offset."""
    receipts: dict[MessageId, dict[str, bool]] = field(default_factory=dict[MessageId, dict[str, bool]])
    """Receipts of each submission by their own id, and whether they say that it was taken."""
    dead: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    """Partition and offset of submissions that were parked at some time."""
    streams: dict[tuple[str, str], Stream] = field(default_factory=dict[tuple[str, str], Stream])
    lives: dict[str, Life] = field(default_factory=dict[str, Life])
    roster: Roster = field(default_factory=Roster)

    positions: dict[str, dict[Slot, Position]] = field(default_factory=dict[str, dict[Slot, Position]])
    outboxes: dict[str, int] = field(default_factory=dict[str, int])
    parked: list[Parked] = field(default_factory=list[Parked])
    intake_steps: dict[str, str] = field(default_factory=dict[str, str])
    reported_steps: dict[str, str] = field(default_factory=dict[str, str])
    counted_steps: Counter[str] = field(default_factory=Counter[str])
    """How many requests stand at each step, as reporting has counted them."""
    matches: dict[str, tuple[str, str]] = field(default_factory=dict[str, tuple[str, str]])
    """Active match of a request and its stage, as matching's table has them."""
    bookings: list[Booking] = field(default_factory=list[Booking])
    double_bookings: int = 0

    def take(self, record: wire.LogRecord) -> None:
        """Takes in one record of a log."""
        self.records[record.topic, record.partition] += 1
        if record.topic == _DEAD:
            self._take_dead(record)
        elif record.topic == SUBMISSIONS.name:
            self._take_submission(record)
        elif (fact := wire.fact_of(record)) is None:
            self.foreign[record.topic] += 1
        elif record.topic == RECEIPTS.name:
            self._take_receipt(*fact)
        elif self._is_next(record, fact[0]):
            self._take_fact(record, *fact)

    def _take_dead(self, record: wire.LogRecord) -> None:
        headers = wire.headers_of(record)
        partition, offset = headers.get("fieldbridge_partition"), headers.get("fieldbridge_offset")
        if partition is not None and offset is not None and partition.isdigit() and offset.isdigit():
            self.dead.add((int(partition), int(offset)))
        else:
            self.foreign[record.topic] += 1

    def _take_submission(self, record: wire.LogRecord) -> None:
        try:
            # When it happened is of no account here.
            envelope, _ = read(record.headers, record.value, 0)
        except NotAnEvent:
            self.foreign[record.topic] += 1
            return
        message = (envelope.source, envelope.id)
        self.places[record.partition, record.offset] = message
        if message in self.submissions:
            self.repeats[record.topic] += 1
        else:
            self.submissions[message] = (
                envelope.type,
                envelope.subject or (record.key or b"").decode(errors="replace"),
            )

    def _take_receipt(self, envelope: Envelope, body: Mapping[str, Any]) -> None:
        receipts = self.receipts.setdefault((body["submission_source"], body["submission_id"]), {})
        if envelope.id in receipts:
            self.repeats[RECEIPTS.name] += 1
        receipts[envelope.id] = envelope.type == "submission.taken.v1"

    def _is_next(self, record: wire.LogRecord, envelope: Envelope) -> bool:
        """Whether the fact is new; notes what is wrong with its place in the stream of its key."""
        key = (record.key or b"").decode(errors="replace")
        stream = self.streams.setdefault((record.topic, key), Stream(record.partition))
        sequence, known = envelope.sequence or 0, len(stream.ids)
        where = f"{record.topic} {key} at {record.partition}/{record.offset}"
        if record.partition != stream.partition:
            stream.faults.append(f"{where}: events of this key are in partition {stream.partition}, too")
        event = hash(envelope.id)
        if 1 <= sequence <= known and stream.ids[sequence - 1] == event:
            self.repeats[record.topic] += 1
            return False
        if sequence == known + 1:
            stream.ids.append(event)
        elif 1 <= sequence <= known and stream.ids[sequence - 1] is not None:
            stream.faults.append(f"{where}: another event has the sequence {sequence} already")
        elif 1 <= sequence <= known:
            stream.faults.append(f"{where}: sequence {sequence} comes late, after {known}")
            stream.ids[sequence - 1] = event
        else:
            stream.faults.append(f"{where}: sequence {sequence} follows {known}")
            stream.ids += [*[None] * (sequence - known - 1), event]
        return True

    def _take_fact(self, record: wire.LogRecord, envelope: Envelope, body: Mapping[str, Any]) -> None:
        if record.topic == ROSTER.name:
            self.roster.take(envelope.type, When(envelope.time, record.published or envelope.time).latest, body)
            return
        life = self.lives.setdefault(envelope.subject, Life())
        if record.topic == REQUESTS.name and life.first is None:
            life.first = envelope.type
        life.take(envelope.type, envelope.time, body, record.published)


async def read_books(stack: Stack, seconds: float, say: Callable[[str], None]) -> tuple[Books, str | None]:
    """Waits until the stack is at rest and reads everything; also returns why it was not at rest, if it was not.

    Raises Trouble where Kafka or a database does not answer.
    """
    restless = await until_at_rest(stack, seconds)
    books = Books()
    for _ in range(_TRIES):
        books = Books()
        say("reading Kafka's logs and the databases")
        async with wire.follower(stack, _watched(), from_start=True) as logs:
            books.starts, books.ends = logs.starts, await logs.ends()
            async for record in logs.until(books.ends):
                books.take(record)
            await read_databases(stack, books)
            moved = await logs.ends() != books.ends
        if restless is not None or not moved:
            return books, restless
        restless = await until_at_rest(stack, seconds)
    return books, restless or "events kept coming while the logs were read"


async def until_at_rest(stack: Stack, seconds: float) -> str | None:
    """Waits until everything is handled, no outbox holds anything and nothing new comes; else returns what is left."""
    deadline = monotonic() + seconds
    quiet_since = monotonic()
    before: object = None
    async with wire.follower(stack, _watched()) as logs:
        while True:
            ends = await logs.ends()
            positions, outboxes = await ask_each(stack, _positions), await ask_each(stack, _outbox)
            now = (ends, positions, outboxes)
            if now != before:
                before, quiet_since = now, monotonic()
            left = _left(ends, positions, outboxes)
            if left is None and monotonic() - quiet_since >= _QUIET_SECONDS:
                return None
            if monotonic() > deadline:
                return left or "events keep coming"
            await asyncio.sleep(_POLL_SECONDS)


def _left(
    ends: Mapping[Slot, int], positions: Mapping[str, dict[Slot, Position]], outboxes: Mapping[str, int]
) -> str | None:
    for topic in TOPICS:
        for service in topic.readers:
            for (name, number), end in ends.items():
                position = positions[service].get((name, number))
                reached = 0 if position is None else position.next_offset
                if name == topic.name and reached < end:
                    return f"{service} stands at {reached} of {end} in {name}-{number}"
    for service, depth in outboxes.items():
        if depth:
            return f"the outbox of {service} holds {depth}"
    return None


def _watched() -> list[str]:
    return [*(topic.name for topic in TOPICS), _DEAD]


async def read_databases(stack: Stack, books: Books) -> None:
    """Takes in what the services' databases say, in place of what they said before. Raises Trouble."""
    books.positions = await ask_each(stack, _positions)
    books.outboxes = await ask_each(stack, _outbox)
    parked = await ask_each(stack, _parked)
    books.parked = [Parked(service, *row) for service, rows in parked.items() for row in rows]
    books.intake_steps = await ask(stack, "intake", _steps_of("SELECT id AS request_id, step FROM request"))
    books.reported_steps = await ask(stack, "reporting", _steps_of("SELECT request_id, step FROM request"))
    books.counted_steps = await ask(stack, "reporting", _counted_steps)
    books.matches = await ask(stack, "matching", _active_matches)
    books.bookings = await ask(stack, "scheduling", _bookings)
    books.double_bookings = await ask(stack, "scheduling", _double_bookings)


async def _positions(db: Asked) -> dict[Slot, Position]:
    rows = await db.fetch(
        'SELECT topic, "partition", first_offset, next_offset, applied, duplicate, parked, ignored '
        "FROM runtime.consumer_position"
    )
    return {(row["topic"], row["partition"]): Position(*list(row.values())[2:]) for row in rows}


async def _outbox(db: Asked) -> int:
    return await db.fetchval("SELECT coalesce(sum(events), 0)::int FROM runtime.outbox")


async def _parked(db: Asked) -> list[list[Any]]:
    rows = await db.fetch('SELECT topic, "partition", "offset", key, reason FROM runtime.parked ORDER BY id')
    return [list(row.values()) for row in rows]


def _steps_of(query: str) -> Callable[[Asked], Awaitable[dict[str, str]]]:
    async def answer(db: Asked) -> dict[str, str]:
        return {row["request_id"]: row["step"] for row in await db.fetch(query)}

    return answer


async def _counted_steps(db: Asked) -> Counter[str]:
    return Counter({row["step"]: row["count"] for row in await db.fetch("SELECT step, count FROM step_count")})


async def _active_matches(db: Asked) -> dict[str, tuple[str, str]]:
    rows = await db.fetch("SELECT request_id, match_id, stage FROM match WHERE stage <> 'ended'")
    return {row["request_id"]: (row["match_id"], row["stage"]) for row in rows}


async def _bookings(db: Asked) -> list[Booking]:
    rows = await db.fetch(
        "SELECT session_id, expert_id, lower(occupies) AS first, upper(occupies) AS last FROM booking"
    )
    return [Booking(*row.values()) for row in rows]


async def _double_bookings(db: Asked) -> int:
    return await db.fetchval(
        """
        SELECT count(*) FROM booking AS one JOIN booking AS other
            ON one.expert_id = other.expert_id AND one.session_id < other.session_id AND one.occupies && other.occupies
        """
    )
