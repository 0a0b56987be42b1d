"""The judge of every scenario: the console's audit, and what more the logs and tables have to say to one another.

Like the audit it knows the contract and nothing of the services' code.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from schemas import submissions
from schemas.envelope import NotAnEvent, read
from schemas.topics import ENGAGEMENTS, MATCHES, REQUESTS, SERVICES, TOPICS
from services.console import wire
from services.console.checker.accounting import audit
from services.console.checker.books import Books, read_books
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
_STEP_OF_ENGAGEMENT: Final = {"planned", "confirmed", "delivered"}


Counts = dict[str, dict[tuple[str, str], int]]
"""Of each service: the last sequence by topic and key."""


class Said(NamedTuple):
    """One fact of the log."""

    id: str
    type: str
    body: dict[str, Any]


async def findings(stack: Stack, ledger: Path | None = None, seconds: float = 60.0) -> list[str]:
    """Everything that does not hold of a stack, once it is at rest; empty where all is accounted for."""
    books, restless = await read_books(stack, seconds, lambda _: None)
    account = audit(books, () if ledger is None else read_ledger(ledger))
    more = [
        *_doubled(await _facts(stack)),
        *_receipts_uncounted(books, await ask(stack, "reporting", _receipt_counts)),
        *_streams(books, await ask_each(stack, _published), await ask_each(stack, _seen)),
        *_engagements(books, await ask(stack, "scheduling", _engagement_steps)),
        *_stories(books, await ask(stack, "reporting", _story_lengths)),
    ]
    return [*([restless] if restless else []), *account.findings, *more]


async def _facts(stack: Stack) -> dict[tuple[str, str], list[Said]]:
    """The facts about each request, by topic, without those that Kafka holds twice under the same id."""
    told: dict[tuple[str, str], dict[str, Said]] = {}
    async with wire.follower(stack, (REQUESTS.name, MATCHES.name, ENGAGEMENTS.name), from_start=True) as logs:
        async for record in logs.until(await logs.ends()):
            try:
                envelope, data = read(record.headers, record.value)
            except NotAnEvent:
                continue
            if envelope.source == f"/fieldbridge/{_SEQUENCED[record.topic]}":
                said = Said(envelope.id, envelope.type, json.loads(data))
                told.setdefault((record.topic, envelope.subject), {}).setdefault(envelope.id, said)
    return {key: list(facts.values()) for key, facts in told.items()}


def _doubled(told: dict[tuple[str, str], list[Said]]) -> Iterator[str]:
    """Facts that are said again with another id, and counts that skip or repeat a number."""
    for (topic, request_id), facts in told.items():
        times = Counter(
            (said.type, *(said.body[field] for field in _SAID_ONCE[said.type]))
            for said in facts
            if said.type in _SAID_ONCE
        )
        for what, count in times.items():
            if count > 1:
                yield f"{topic} says {count} times of {request_id}: {what}"
        matches = [said.body["match_id"] for said in facts if said.type == "match.proposed.v1"]
        if matches != [f"{request_id}/m{nth}" for nth in range(1, len(matches) + 1)]:
            yield f"the matches of {request_id} are not counted from 1: {matches}"
        plans = [said.body["plan_version"] for said in facts if said.type.endswith("planned.v1")]
        if plans != list(range(1, len(plans) + 1)):
            yield f"the plans of {request_id} are not counted from 1: {plans}"


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
