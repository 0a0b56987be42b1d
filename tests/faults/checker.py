"""The judge of every scenario: the console's audit, and what more the logs and tables have to say to one another.

Like the audit it knows the contract and nothing of the services' code.
"""

import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from schemas import submissions
from schemas.envelope import Envelope, NotAnEvent, read
from schemas.topics import DEAD_SUFFIX, ENGAGEMENTS, MATCHES, REQUESTS, SERVICES, SUBMISSIONS, TOPICS
from services.console import wire
from services.console.checker.accounting import audit
from services.console.checker.books import Books, read_databases, until_at_rest
from services.console.checking import read_ledger
from services.console.sql import Asked, ask, ask_each
from services.console.surroundings import Stack

_SAID_ONCE: Final = {
    "request.accepted.v1": (),
    "match.proposed.v1": ("match_id",),
    "match.confirmed.v1": ("match_id",),
    "match.released.v1": ("match_id",),
    "engagement.planned.v1": ("plan_version",),
    "engagement.replanned.v1": ("plan_version",),
    "engagement.not_plannable.v1": ("match_id",),
    "engagement.confirmed.v1": ("plan_version",),
    "engagement.delivered.v1": ("match_id",),
    "engagement.closed.v1": ("match_id",),
    "session.cancelled.v1": ("session_id",),
}
"""Facts that are true once of a request, or once of each of these."""

_UNKNOWN_TYPE: Final = "unknown"
"""Under what reporting counts the types that strangers make up."""
_SEQUENCED: Final = {topic.name: topic.publisher for topic in TOPICS if topic.sequenced}
_ABOUT_REQUESTS: Final = frozenset({REQUESTS.name, MATCHES.name, ENGAGEMENTS.name})
_PLANS: Final = frozenset({"engagement.planned.v1", "engagement.replanned.v1"})
_TRIES: Final = 4
_READ_SECONDS: Final = 0.5
_STEP_OF_ENGAGEMENT: Final = {"planned", "confirmed", "delivered"}


Counts = dict[str, dict[tuple[str, str], int]]
"""Of each service: the last sequence by topic and key."""


class Judge:
    """Reads the logs of one stack from their beginning, and on from there each time it is asked."""

    def __init__(self, stack: Stack, logs: wire.Follower) -> None:
        self._stack = stack
        self._logs = logs
        self._books = Books(starts=logs.starts)
        self._reached = dict(logs.starts)
        self._told: dict[tuple[str, str], Told] = {}

    async def findings(self, ledger: Path | None = None, seconds: float = 60.0) -> list[str]:
        """Everything that does not hold once the stack is at rest; empty where all is accounted for."""
        for _ in range(_TRIES):
            restless = await until_at_rest(self._stack, seconds)
            await self._read_on()
            await read_databases(self._stack, self._books)
            if restless is not None or await self._logs.ends() == self._books.ends:
                break
        else:
            restless = "events kept coming while the logs were read"
        account = audit(self._books, () if ledger is None else read_ledger(ledger))
        return [*([restless] if restless else []), *account.findings, *[more async for more in self._more()]]

    @property
    def set_aside(self) -> Counter[tuple[str, str, str]]:
        """How many events are parked, by service, topic and reason, as they were when last looked at."""
        return Counter((one.service, one.topic, one.reason) for one in self._books.parked)

    async def _read_on(self) -> None:
        self._books.ends = await self._logs.ends()
        while any(self._reached[slot] < end for slot, end in self._books.ends.items()):
            for record in await self._logs.next(_READ_SECONDS):
                self._reached[record.topic, record.partition] = record.offset + 1
                self._take(record)

    def _take(self, record: wire.LogRecord) -> None:
        self._books.take(record)
        if record.topic not in _ABOUT_REQUESTS:
            return
        try:
            envelope, data = read(record.headers, record.value)
        except NotAnEvent:
            return
        if envelope.source == f"/fieldbridge/{_SEQUENCED[record.topic]}":
            self._told.setdefault((record.topic, envelope.subject), Told()).take(envelope, data)

    async def _more(self) -> AsyncIterator[str]:
        """What the console's audit does not ask."""
        stack, books = self._stack, self._books
        for (topic, request_id), told in self._told.items():
            for finding in told.doubled(topic, request_id):
                yield finding
        for finding in (
            *_receipts_uncounted(books, await ask(stack, "reporting", _receipt_counts)),
            *_streams(books, await ask_each(stack, _published), await ask_each(stack, _seen)),
            *_engagements(books, await ask(stack, "scheduling", _engagement_steps)),
            *_stories(books, await ask(stack, "reporting", _story_lengths)),
        ):
            yield finding


@asynccontextmanager
async def judging(stack: Stack) -> AsyncGenerator[Judge]:
    """A judge of a stack. Raises Trouble where Kafka does not answer."""
    topics = [*(topic.name for topic in TOPICS), SUBMISSIONS.name + DEAD_SUFFIX]
    async with wire.follower(stack, topics, from_start=True) as logs:
        yield Judge(stack, logs)


async def findings(stack: Stack, ledger: Path | None = None, seconds: float = 60.0) -> list[str]:
    """Everything that does not hold of a stack, once it is at rest; empty where all is accounted for."""
    async with judging(stack) as judge:
        return await judge.findings(ledger, seconds)


@dataclass(slots=True)
class Told:
    """What one topic says of one request. What Kafka holds twice under the same id was said once."""

    ids: set[str] = field(default_factory=set[str])
    times: Counter[tuple[str, ...]] = field(default_factory=Counter[tuple[str, ...]])
    matches: list[str] = field(default_factory=list[str])
    plans: list[int] = field(default_factory=list[int])

    def take(self, envelope: Envelope, data: bytes) -> None:
        """Takes in one fact."""
        if envelope.id in self.ids:
            return
        self.ids.add(envelope.id)
        if envelope.type not in _SAID_ONCE:
            return
        body: dict[str, Any] = json.loads(data)
        self.times[envelope.type, *(str(body[name]) for name in _SAID_ONCE[envelope.type])] += 1
        if envelope.type == "match.proposed.v1":
            self.matches.append(body["match_id"])
        if envelope.type in _PLANS:
            self.plans.append(body["plan_version"])

    def doubled(self, topic: str, request_id: str) -> Iterator[str]:
        """Facts that are said again with another id, and counts that skip or repeat a number."""
        for what, count in self.times.items():
            if count > 1:
                yield f"{topic} says {count} times of {request_id}: {' '.join(what)}"
        numbers = [match_id.rpartition("/m")[2] for match_id in self.matches]
        if numbers != [str(nth) for nth in range(1, len(numbers) + 1)]:
            yield f"the matches of {request_id} are not counted from 1: {self.matches}"
        if self.plans != list(range(1, len(self.plans) + 1)):
            yield f"the plans of {request_id} are not counted from 1: {self.plans}"


def _receipts_uncounted(books: Books, counted: dict[tuple[str, str, str], int]) -> Iterator[str]:
    """Reporting counts each receipt once."""
    given: Counter[tuple[str, str, str]] = Counter()
    for (source, message_id), receipts in books.receipts.items():
        event_type, _ = books.submissions.get((source, message_id), ("", ""))
        if event_type not in submissions.BODIES:
            event_type = _UNKNOWN_TYPE
        given.update((source, event_type, "taken" if taken else "refused") for taken in receipts.values())
    for key in sorted(given.keys() | counted.keys()):
        if given[key] != counted.get(key, 0):
            yield f"reporting counts {counted.get(key, 0)} receipts {key}, the log holds {given[key]}"


def _streams(books: Books, published: Counts, seen: Counts) -> Iterator[str]:
    """What each publisher has counted and each reader has seen of every key is what the log holds."""
    for topic in TOPICS:
        if not topic.sequenced:
            continue
        log = {key: len(stream.ids) for (name, key), stream in books.streams.items() if name == topic.name}
        counted = {key: last for (name, key), last in published[topic.publisher].items() if name == topic.name}
        for key in sorted(log.keys() | counted.keys()):
            if log.get(key) != counted.get(key):
                yield f"{topic.publisher} counts {counted.get(key)} {topic.name} of {key}, the log {log.get(key)}"
        for service in topic.readers:
            for key, length in log.items():
                reached = seen[service].get((topic.name, key))
                if reached != length:
                    yield f"{service} has seen {reached} of {length} {topic.name} of {key}"


def _engagements(books: Books, steps: dict[str, str]) -> Iterator[str]:
    """Scheduling's table and the log agree on which engagements are planned, confirmed or delivered."""
    for request_id, life in books.lives.items():
        told = life.engagement if life.engagement in _STEP_OF_ENGAGEMENT and life.plan else None
        step = steps.get(request_id)
        known = step if step in _STEP_OF_ENGAGEMENT else None
        if told != known:
            yield f"{request_id}: scheduling says {step}, the log {life.engagement}"


def _stories(books: Books, lengths: dict[tuple[str, str], int]) -> Iterator[str]:
    """Reporting tells every event about a request, once."""
    for (topic, key), stream in books.streams.items():
        if topic in (REQUESTS.name, MATCHES.name, ENGAGEMENTS.name) and lengths.get((topic, key)) != len(stream.ids):
            yield f"reporting tells {lengths.get((topic, key))} {topic} of {key}, the log holds {len(stream.ids)}"


async def _receipt_counts(db: Asked) -> dict[tuple[str, str, str], int]:
    rows = await db.fetch("SELECT source, type, outcome, count FROM receipt_count WHERE count <> 0")
    return {(row["source"], row["type"], row["outcome"]): row["count"] for row in rows}


async def _published(db: Asked) -> dict[tuple[str, str], int]:
    rows = await db.fetch("SELECT topic, key, sequence FROM runtime.stream_out")
    return {(row["topic"], row["key"]): row["sequence"] for row in rows}


async def _seen(db: Asked) -> dict[tuple[str, str], int]:
    rows = await db.fetch("SELECT topic, key, sequence FROM runtime.stream_seen")
    return {(row["topic"], row["key"]): row["sequence"] for row in rows}


async def _engagement_steps(db: Asked) -> dict[str, str]:
    return {row["request_id"]: row["step"] for row in await db.fetch("SELECT request_id, step FROM engagement")}


async def _story_lengths(db: Asked) -> dict[tuple[str, str], int]:
    rows = await db.fetch("SELECT topic, key, count(*) AS events FROM story GROUP BY topic, key")
    return {(row["topic"], row["key"]): row["events"] for row in rows}


async def parked(stack: Stack) -> dict[str, Sequence[tuple[str, str, str]]]:
    """Topic, key and reason of what each service has parked."""

    async def question(db: Asked) -> list[tuple[str, str, str]]:
        rows = await db.fetch("SELECT topic, coalesce(key, '') AS key, reason FROM runtime.parked ORDER BY id")
        return [(row["topic"], row["key"], row["reason"]) for row in rows]

    return {service: await ask(stack, service, question) for service in SERVICES}
