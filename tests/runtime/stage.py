"""A counting service's surroundings: its own topics and database, what is said to it, and what came of that."""

import asyncio
import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
from aiokafka.structs import ConsumerRecord

from deploy.local import postgres, servers
from schemas.envelope import Envelope
from tests.driving import Message, Worker, Workers, create_topics, drained, message, publish, read_log

MODULE = "tests.runtime.counting"
TOPICS = ("requests", "submissions")


@dataclass
class Stage:
    """One counting service, started as often as a test likes."""

    kafka: str
    database: str
    prefix: str
    workers: Workers
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def start(self, **settings: object) -> Worker:
        return self.workers.start("counting", MODULE, **settings)

    def key(self) -> str:
        """A key nobody used before."""
        return f"key-{next(self.numbers)}"

    def event(
        self, key: str, sequence: int | None = None, body: object = None, *, topic: str = "requests", **envelope: Any
    ) -> Message:
        """An event of a key; its sequence, where it has one, is what the service remembers of it."""
        attributes = {"id": uuid.uuid4().hex, "source": "/tests", "type": "count.v1", "time": datetime.now(UTC)}
        known = Envelope(subject=key, sequence=sequence, **attributes | envelope)
        return message(self.prefix + topic, known, {"n": sequence} if body is None else body)

    async def say(self, *messages: Message) -> None:
        await publish(self.kafka, messages)

    async def settle(self) -> None:
        """Waits until everything said has been handled and published."""
        await drained(self.kafka, self.database, self.prefix, TOPICS)

    async def fetch(self, query: str, *args: object) -> list[asyncpg.Record]:
        db = await asyncpg.connect(self.database)
        try:
            return await db.fetch(query, *args)
        finally:
            await db.close()

    async def counted(self, key: str) -> str:
        """What the service remembers of a key: its events in the order they were applied."""
        rows = await self.fetch("SELECT said FROM counted WHERE key = $1", key)
        return rows[0]["said"] if rows else ""

    async def parked(self, key: str) -> list[asyncpg.Record]:
        return await self.fetch("SELECT * FROM runtime.parked WHERE key = $1 ORDER BY id", key)

    async def mark(self, state: str, ids: Sequence[int]) -> None:
        """Does what `fieldbridge parked` does."""
        from services.runtime.database import connect
        from services.runtime.parking import mark

        db = await connect(self.database)
        try:
            await mark(db, state, ids=ids)
        finally:
            await db.close()

    async def facts(self, *keys: str) -> list[ConsumerRecord[bytes, bytes]]:
        """Facts of these keys (of all, where none is given) in the order of the log, each once."""
        first: dict[bytes, ConsumerRecord[bytes, bytes]] = {}
        for one in await read_log(self.kafka, self.prefix + "matches"):
            if not keys or (one.key or b"").decode() in keys:
                first.setdefault(dict(one.headers)["ce_id"], one)
        return list(first.values())

    async def totals(self, key: str) -> list[int]:
        """The counts that were published of a key."""
        return [json.loads(one.value)["total"] for one in await self.facts(key) if type_of(one) == "counted.v1"]

    async def check(self) -> None:
        """Judges log and tables: nothing lost, nothing doubled, the order of each key kept."""
        events = await self.fetch("SELECT key, total, said FROM counted")
        facts: dict[str, list[ConsumerRecord[bytes, bytes]]] = {}
        for one in await self.facts():
            facts.setdefault((one.key or b"").decode(), []).append(one)
        for row in events:
            published = facts.pop(row["key"])
            assert [int(dict(one.headers)["ce_sequence"]) for one in published] == list(range(1, len(published) + 1))
            totals = [json.loads(one.value)["total"] for one in published if type_of(one) == "counted.v1"]
            assert totals == list(range(1, row["total"] + 1)), f"the counts of {row['key']}"
        assert not facts, "facts of keys that were never counted"
        ends = {
            (topic, one.partition): one.offset + 1
            for topic in TOPICS
            for one in await read_log(self.kafka, self.prefix + topic)
        }
        positions = await self.fetch("SELECT * FROM runtime.consumer_position")
        assert {(row["topic"], row["partition"]): row["next_offset"] for row in positions if row["next_offset"]} == ends
        applied = sum(row["applied"] for row in positions)
        redriven = sum(row["total"] for row in events) - applied
        assert redriven >= 0, "fewer effects than events that were applied"


def type_of(record: ConsumerRecord[bytes, bytes]) -> str:
    return (dict(record.headers)["ce_type"] or b"").decode()


@contextmanager
def stage(addresses: servers.Addresses, folder: Path, lanes: int = 1) -> Iterator[Stage]:
    """A stage with topics and a database of its own; nothing it started survives it."""
    run = f"fbrt_{uuid.uuid4().hex[:8]}"
    url = asyncio.run(postgres.provision(addresses.postgres, ("counting",), lambda _: "only-on-loopback", run))[
        "counting"
    ]
    prefix = f"{run}-"
    asyncio.run(create_topics(addresses.kafka, prefix + "matches"))
    usual = {"kafka": addresses.kafka, "counting_database": url, "topic_prefix": prefix, "lanes": lanes}
    workers = Workers(folder, usual)
    try:
        yield Stage(addresses.kafka, url, prefix, workers)
    finally:
        workers.end_all()
        asyncio.run(_drop(addresses.postgres, f"{run}_counting"))


async def _drop(admin: str, name: str) -> None:
    try:
        db = await asyncpg.connect(admin, timeout=5)
    except (OSError, TimeoutError):
        return
    await db.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await db.execute(f"DROP ROLE IF EXISTS {name}")
    await db.close()
