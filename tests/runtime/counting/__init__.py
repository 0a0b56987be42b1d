"""A service for tests of the runtime: it counts the events of each key and publishes each new count.

An event's body is a JSON object: `n` is remembered in order; `raise` makes the decision raise, with that text; `said`
is stored as text instead of `n`, so that a NUL character in it makes saving fail; `contend` makes loading fail as if
somebody were always in the way; `announce` has a round announce it, which takes five seconds where `said` is `slowly`,
longer than PostgreSQL bears with an idle transaction of this round; `nothing` changes nothing.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, ClassVar

from schemas.envelope import Envelope
from schemas.topics import REQUESTS, SUBMISSIONS
from services.runtime.database import Contention, Database
from services.runtime.service import Decider, Event, FactBody, Known, Page, PageAnswer, Reads, Round, Service


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


class Announced(Counted):
    """A fact of the round: somebody asked for the count of this key."""

    TYPE: ClassVar[str] = "announced.v1"


@dataclass(frozen=True)
class Count:
    version: int = 0
    total: int = 0
    said: str = ""
    asked: bool = False


@dataclass
class Counts(Known):
    by_key: dict[str, Count] = field(default_factory=dict[str, Count])


NOTHING = Counts()


async def load(db: Database, events: Sequence[Event[Any]]) -> Counts:
    if any(event.body.get("contend") for event in events):
        raise Contention
    rows = await db.fetch(
        "SELECT * FROM counted WHERE key = ANY($1) ORDER BY key FOR UPDATE",
        list({event.envelope.subject for event in events}),
    )
    return Counts({row["key"]: Count(row["version"], row["total"], row["said"], row["asked"]) for row in rows})


def decide(known: Counts, event: Event[Any]) -> tuple[Counts, Sequence[FactBody]]:
    key = event.envelope.subject
    if event.body.get("raise"):
        raise ValueError(event.body["raise"])
    if event.body.get("nothing"):
        return NOTHING, ()
    before = known.by_key.get(key, Count())
    said = f"{before.said} {event.body.get('said', event.body.get('n', '?'))}".strip()
    asked = before.asked or bool(event.body.get("announce"))
    after = Count(before.version, before.total + 1, said, asked)
    return Counts({key: after}), [Counted(key, after.total)]


async def save(db: Database, changes: Counts) -> None:
    states = changes.by_key
    written = await db.fetch(
        """
        INSERT INTO counted (key, version, total, said, asked)
        SELECT * FROM unnest($1::text[], $2::int[], $3::bigint[], $4::text[], $5::boolean[])
        ON CONFLICT (key) DO UPDATE
        SET version = excluded.version, total = excluded.total, said = excluded.said, asked = excluded.asked
        WHERE counted.version = excluded.version - 1
        RETURNING key
        """,
        list(states),
        [state.version + 1 for state in states.values()],
        [state.total for state in states.values()],
        [state.said for state in states.values()],
        [state.asked for state in states.values()],
    )
    if len(written) != len(states):
        raise Contention


async def load_asked(db: Database, _: datetime) -> Counts | None:
    rows = await db.fetch("SELECT * FROM counted WHERE asked ORDER BY key FOR UPDATE")
    if any(row["said"] == "slowly" for row in rows):
        await db.execute("SET LOCAL idle_in_transaction_session_timeout = '4s'")
    return (
        Counts({row["key"]: Count(row["version"], row["total"], row["said"], True) for row in rows}) if rows else None
    )


def announce(known: Counts, _: datetime) -> tuple[Counts, Sequence[FactBody]]:
    if any(count.said == "slowly" for count in known.by_key.values()):
        time.sleep(5.0)
    done = Counts({key: replace(count, asked=False) for key, count in known.by_key.items()})
    return done, [Announced(key, count.total) for key, count in known.by_key.items()]


def parse(envelope: Envelope, data: bytes) -> object | None:
    if envelope.type != "count.v1":
        return None
    body = json.loads(data)
    if not isinstance(body, dict):
        raise ValueError("not an object")
    return body


async def parked_page(db: Database, _: Mapping[str, str]) -> PageAnswer:
    return PageAnswer(str(await db.fetchval("SELECT count(*) FROM runtime.parked")))


def service() -> Service:
    return Service(
        name="counting",
        reads=(Reads(REQUESTS, parse), Reads(SUBMISSIONS, parse)),
        decider=Decider(load=load, decide=decide, save=save),
        rounds=(Round("announcing", 600.0, load_asked, announce, save, frozenset({"requests"})),),
        pages=(Page("/parked", parked_page),),
        migrations="tests.runtime.counting.migrations",
    )
