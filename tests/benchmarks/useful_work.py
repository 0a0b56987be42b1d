"""The work that every contender of the race does: validate an event, add it to the state of its key, publish the next.

Contenders run in two environments, so this imports the schemas, pydantic and the standard library only.
"""

import json
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar, Final

from schemas.body import Fact, Headcount, RequestKey, Topic, parse
from schemas.envelope import Envelope, consequence_id, structured
from schemas.requests import BODIES, RequestAccepted

UPSERT: Final = """
INSERT INTO tally AS known (key, events, attendees, latest)
SELECT key, events, attendees, latest
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS given (key, events, attendees, latest)
ORDER BY key
ON CONFLICT (key) DO UPDATE
SET events = known.events + excluded.events, attendees = known.attendees + excluded.attendees,
    latest = greatest(known.latest, excluded.latest)
"""
"""Adds what a batch has counted to the state of its keys, whatever library sends it."""


SESSION: Final = {
    "plan_cache_mode": "force_custom_plan",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
}
"""Settings of PostgreSQL sessions that bear upon speed: every contender has those of the services."""

PATIENCE_SECONDS: Final = 0.2
"""How long a contender waits for a batch to fill."""


class Tallied(Fact):
    """The next event: one event of a request has been counted."""

    TYPE: ClassVar[str] = "request.tallied.v1"
    TOPIC: ClassVar[str] = "matches"
    request_id: RequestKey
    nth: int
    attendees: Headcount
    topics: tuple[Topic, ...]

    @property
    def subject(self) -> str:
        return self.request_id


@dataclass(frozen=True, slots=True)
class Counted:
    """What a batch adds to the state of one key."""

    events: int = 0
    attendees: int = 0
    latest: int = 0

    def plus(self, body: RequestAccepted, sequence: int) -> "Counted":
        """This and one event more."""
        attendees = self.attendees + body.terms.audience.in_person
        return Counted(self.events + 1, attendees, max(self.latest, sequence))


def columns(counted: dict[str, Counted]) -> tuple[list[str], list[int], list[int], list[int]]:
    """The arguments of `UPSERT`."""
    states = counted.values()
    return (
        list(counted),
        [state.events for state in states],
        [state.attendees for state in states],
        [state.latest for state in states],
    )


def validated(event_type: str, value: bytes) -> RequestAccepted:
    """The body of an event, checked against its schema. Raises pydantic.ValidationError, or ValueError for others."""
    body = parse(BODIES, event_type, value)
    if not isinstance(body, RequestAccepted):
        raise ValueError(f"no request was accepted: {event_type}")
    return body


def tallied(body: RequestAccepted, sequence: int) -> Tallied:
    """The event that follows."""
    return Tallied(
        request_id=body.request_id,
        nth=sequence,
        attendees=body.terms.audience.in_person,
        topics=body.terms.topics,
    )


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A record of the next topic: a CloudEvent with the JSON of its body."""

    key: bytes
    value: bytes
    envelope: Envelope

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        """The headers of binary mode."""
        return self.envelope.headers()

    def structured(self) -> bytes:
        """The value of structured mode. The body is JSON already and is not read again."""
        attributes = json.dumps(structured(self.envelope, None), separators=(",", ":"))
        return attributes.removesuffix("null}").encode() + self.value + b"}"


Headers = Iterable[tuple[str, bytes | None]]


@dataclass(slots=True)
class Batch:
    """One batch of a contender that has no runtime: fed record by record, then written and published."""

    tool: str
    counted: dict[str, Counted]
    outgoing: list[Outgoing]
    now: datetime

    @classmethod
    def begin(cls, tool: str) -> "Batch":
        return cls(tool, {}, [], datetime.now(UTC))

    def add(self, headers: Headers, value: bytes) -> None:
        """Validates a record, counts it and makes the event that follows."""
        named = dict(headers)
        body = validated(text(named, "ce_type"), value)
        sequence = int(text(named, "ce_sequence"))
        key = body.request_id
        self.counted[key] = self.counted.get(key, Counted()).plus(body, sequence)
        self.outgoing.append(following(self.tool, body, sequence, text(named, "ce_id"), self.now))


def following(tool: str, body: RequestAccepted, sequence: int, cause: str, now: datetime) -> Outgoing:
    """The record that follows from an event."""
    fact = tallied(body, sequence)
    envelope = Envelope(
        id=consequence_id(cause, 0), source=tool, type=fact.TYPE, subject=fact.subject, time=now, sequence=sequence
    )
    return Outgoing(fact.subject.encode(), fact.model_dump_json().encode(), envelope)


def text(headers: dict[str, bytes | None], name: str) -> str:
    """A header that has to be there. Raises ValueError."""
    raw = headers.get(name)
    if raw is None:
        raise ValueError(f"the header {name} is missing")
    return raw.decode()


@dataclass(frozen=True, slots=True)
class Orders:
    """What the driver of the race tells a contender, by environment variables."""

    kafka: str
    database: str
    group: str
    source: str
    target: str
    batch: int
    by_partition: bool
    """Whether the next events are grouped by partition before they are published, where a tool has two ways."""

    @classmethod
    def given(cls) -> "Orders":
        """Reads them. Raises KeyError where one is missing."""
        variables = os.environ
        return cls(
            kafka=variables["RACE_KAFKA"],
            database=variables["RACE_DATABASE"],
            group=variables["RACE_GROUP"],
            source=variables["RACE_SOURCE"],
            target=variables["RACE_TARGET"],
            batch=int(variables["RACE_BATCH"]),
            by_partition=variables["RACE_BY_PARTITION"] == "yes",
        )


class FirstEvent:
    """Writes down when a contender came by its first event: called at the earliest place its tool offers for it.

    Two numbers: seconds of the machine's monotonic clock, and of processor time of the contender so far.
    """

    def __init__(self) -> None:
        self._file: Path | None = Path(os.environ["RACE_BEGAN"])

    def __call__(self) -> None:
        if self._file is not None:
            self._file.write_text(json.dumps([time.monotonic(), time.process_time()]))
            self._file = None
