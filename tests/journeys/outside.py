"""What a test says to the services and hears of them: only through Kafka, as any other system would."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final, NamedTuple, TypeVar
from uuid import uuid4

from schemas import engagements, matches, receipts, requests, roster
from schemas.body import Body, Fact, Submission, parse
from schemas.envelope import Envelope, Header, read
from schemas.receipts import ReceiptBody, SubmissionRefused, SubmissionTaken
from schemas.topics import ENGAGEMENTS, MATCHES, RECEIPTS, REQUESTS, ROSTER, SUBMISSIONS, TOPICS
from services.console import wire
from services.console.sql import Asked, ask, ask_each
from services.console.surroundings import Stack

SOURCE: Final = "/journeys/outside"

_BODIES: Final[Mapping[str, Mapping[str, type[Fact]]]] = {
    RECEIPTS.name: receipts.BODIES,
    REQUESTS.name: requests.BODIES,
    ROSTER.name: roster.BODIES,
    MATCHES.name: matches.BODIES,
    ENGAGEMENTS.name: engagements.BODIES,
}
_PATIENCE_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.05

F = TypeVar("F", bound=Body)


class Heard(NamedTuple):
    """One fact, as it stood on its topic."""

    topic: str
    envelope: Envelope
    body: Fact


@dataclass
class Outside:
    """The other systems. They hear everything that is published from when they begin to listen."""

    stack: Stack
    producer: wire.Publisher
    logs: wire.Follower
    traceparent: str | None = None
    """Of everything said from now on."""
    heard: list[Heard] = field(default_factory=list[Heard])

    async def say(self, body: Submission, *, message_id: str | None = None, times: int = 1) -> ReceiptBody:
        """Says something, several times if asked to, and returns the receipt."""
        message_id = message_id or str(uuid4())
        envelope = Envelope(
            message_id, SOURCE, body.TYPE, body.subject, datetime.now(UTC), traceparent=self.traceparent
        )
        for _ in range(times):
            await self.send(envelope.headers(), body.subject, body.model_dump_json().encode())
        return await self.receipt(message_id)

    async def send(self, headers: list[Header], key: str, value: bytes) -> None:
        """Puts bytes on the topic of submissions."""
        topic = self.stack.topic(SUBMISSIONS.name)
        acknowledged = await self.producer.send(topic, value=value, key=key.encode(), headers=headers)
        await acknowledged

    async def receipt(self, message_id: str) -> ReceiptBody:
        """The answer to the submission of this id."""

        def answers(one: Heard) -> bool:
            return isinstance(one.body, SubmissionTaken | SubmissionRefused) and one.body.submission_id == message_id

        found = await self._first(answers, f"a receipt for submission {message_id}")
        assert isinstance(found.body, SubmissionTaken | SubmissionRefused)
        return found.body

    async def hear(self, kind: type[F], subject: str, /, **fields: object) -> F:
        """The first fact of this kind about this subject whose fields are as given; waits until there is one."""

        def fits(one: Heard) -> bool:
            return (
                isinstance(one.body, kind)
                and one.body.subject == subject
                and all(getattr(one.body, name) == value for name, value in fields.items())
            )

        found = await self._first(fits, f"{kind.TYPE} of {subject} {fields or ''}", subject)
        assert isinstance(found.body, kind)
        return found.body

    def told(self, kind: type[F], subject: str) -> list[F]:
        """All facts of this kind about this subject heard so far."""
        return [one.body for one in self.heard if isinstance(one.body, kind) and one.body.subject == subject]

    def story(self, topic: str, subject: str) -> list[str]:
        """Types of the facts of one topic about this subject heard so far, in the order of the log."""
        return [one.body.TYPE for one in self.heard if one.topic == topic and one.body.subject == subject]

    async def rest(self) -> None:
        """Waits until everything said, and all that follows from it, has been handled and heard."""
        left = "nothing has been looked at"
        deadline = monotonic() + _PATIENCE_SECONDS
        while True:
            ends = await self.logs.ends()
            standings = await ask_each(self.stack, _standing)
            left = _left(ends, standings)
            if left is None and await self.logs.ends() == ends:
                async for record in self.logs.until(ends):
                    self._note(record)
                return
            assert monotonic() < deadline, f"the services did not come to rest: {left or 'events keep coming'}"
            await asyncio.sleep(_POLL_SECONDS)

    async def _first(self, fits: Callable[[Heard], bool], awaited: str, subject: str = "") -> Heard:
        looked_at = 0
        deadline = monotonic() + _PATIENCE_SECONDS
        while True:
            for one in self.heard[looked_at:]:
                if fits(one):
                    return one
            looked_at = len(self.heard)
            assert monotonic() < deadline, f"awaited {awaited}; heard of it: {self._summary(subject)}"
            for record in await self.logs.next(0.2):
                self._note(record)

    def _note(self, record: wire.LogRecord) -> None:
        if record.topic == SUBMISSIONS.name:
            return
        envelope, data = read(record.headers, record.value)
        body = parse(_BODIES[record.topic], envelope.type, data)
        assert body is not None, f"{envelope.type} is no event of {record.topic}"
        self.heard.append(Heard(record.topic, envelope, body))

    def _summary(self, subject: str) -> list[str]:
        return [one.body.TYPE for one in self.heard if subject in ("", one.body.subject)]


class Standing(NamedTuple):
    """How far one service has come, in one snapshot of its database."""

    positions: dict[tuple[str, int], int]
    outbox: int
    round_has_work: bool


async def _standing(db: Asked) -> Standing:
    rows = await db.fetch(
        """
        SELECT topic, "partition", next_offset, (SELECT coalesce(sum(events), 0)::int FROM runtime.outbox) AS outbox,
            to_regclass('pool') IS NOT NULL AS has_round
        FROM runtime.consumer_position
        """
    )
    positions = {(row["topic"], row["partition"]): row["next_offset"] for row in rows}
    work = bool(rows and rows[0]["has_round"]) and await db.fetchval(
        """
        SELECT EXISTS (SELECT FROM pool WHERE changed) OR EXISTS (SELECT FROM expert WHERE changed)
            OR EXISTS (SELECT FROM partner WHERE changed)
        """
    )
    return Standing(positions, rows[0]["outbox"] if rows else 0, work)


def _left(ends: Mapping[tuple[str, int], int], standings: Mapping[str, Standing]) -> str | None:
    for topic in TOPICS:
        for service in topic.readers:
            for (name, number), end in ends.items():
                reached = standings[service].positions.get((name, number), 0)
                if name == topic.name and reached < end:
                    return f"{service} stands at {reached} of {end} in {name}-{number}"
    for service, standing in standings.items():
        if standing.outbox:
            return f"the outbox of {service} holds {standing.outbox}"
        if standing.round_has_work:
            return f"the round of {service} has work to do"
    return None


@asynccontextmanager
async def listening(stack: Stack) -> AsyncGenerator[Outside]:
    """The other systems, listening from now on."""
    topics = [topic.name for topic in TOPICS]
    async with wire.publisher(stack) as producer, wire.follower(stack, topics) as logs:
        yield Outside(stack, producer, logs)


async def rows(stack: Stack, service: str, query: str) -> list[dict[str, Any]]:
    """What a service's database answers."""

    async def question(db: Asked) -> list[dict[str, Any]]:
        return [dict(row) for row in await db.fetch(query)]

    return await ask(stack, service, question)
