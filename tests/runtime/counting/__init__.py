"""A service for tests of the runtime: it counts the events of each key and publishes each new count.

An event's body is a JSON object; `n` is remembered in order, `raise` makes the decision raise, and `said` is stored as
text, so that a NUL character in it makes saving fail.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from schemas.envelope import Envelope
from schemas.topics import REQUESTS, SUBMISSIONS
from services.runtime.database import Contention, Database
from services.runtime.service import Decider, Event, FactBody, Known, Reads, Service


@dataclass(frozen=True)
class Counted:
    """A fact: this many events of the key have been applied."""

    TYPE: ClassVar[str] = "counted.v1"
    TOPIC: ClassVar[str] = "matches"
    key: str
    total: int

    @property
    def subject(self) -> str:
        return self.key

    def model_dump_json(self) -> str:
        return json.dumps({"key": self.key, "total": self.total})


@dataclass(frozen=True)
class Count:
    version: int = 0
    total: int = 0
    said: str = ""


@dataclass
class Counts(Known):
    by_key: dict[str, Count] = field(default_factory=dict[str, Count])


async def load(db: Database, events: Sequence[Event[Any]]) -> Counts:
    rows = await db.fetch(
        "SELECT * FROM counted WHERE key = ANY($1) ORDER BY key FOR UPDATE",
        list({event.envelope.subject for event in events}),
    )
    return Counts({row["key"]: Count(row["version"], row["total"], row["said"]) for row in rows})


def decide(known: Counts, event: Event[Any]) -> tuple[Counts, Sequence[FactBody]]:
    key = event.envelope.subject
    if event.body.get("raise"):
        raise ValueError("this event cannot be decided")
    before = known.by_key.get(key, Count())
    said = f"{before.said} {event.body.get('said', event.body.get('n', '?'))}".strip()
    after = Count(before.version, before.total + 1, said)
    return Counts({key: after}), [Counted(key, after.total)]


async def save(db: Database, changes: Counts) -> None:
    states = changes.by_key
    written = await db.fetch(
        """
        INSERT INTO counted (key, version, total, said)
        SELECT * FROM unnest($1::text[], $2::int[], $3::bigint[], $4::text[])
        ON CONFLICT (key) DO UPDATE SET version = excluded.version, total = excluded.total, said = excluded.said
        WHERE counted.version = excluded.version - 1
        RETURNING key
        """,
        list(states),
        [state.version + 1 for state in states.values()],
        [state.total for state in states.values()],
        [state.said for state in states.values()],
    )
    if len(written) != len(states):
        raise Contention


def parse(envelope: Envelope, data: bytes) -> object | None:
    if envelope.type != "count.v1":
        return None
    body = json.loads(data)
    if not isinstance(body, dict):
        raise ValueError("not an object")
    return body


def service() -> Service:
    return Service(
        name="counting",
        reads=(Reads(REQUESTS, parse), Reads(SUBMISSIONS, parse)),
        decider=Decider(load=load, decide=decide, save=save),
        migrations="tests.runtime.counting.migrations",
    )
