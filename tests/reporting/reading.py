"""Reads events into reporting's tables as the runtime does."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime

from services.reporting import handlers, store
from services.runtime.database import Connection
from services.runtime.service import Event
from tests.reporting.lives import Happening

OpenDatabase = Callable[[str], Awaitable[Connection]]

PARSE = {reads.topic.name: reads.parse for reads in handlers.READS}


async def read(db: Connection, batch: Sequence[Happening]) -> None:
    """Does with a batch what the runtime does: load, decide one by one, save, in one transaction."""
    async with db.transaction():
        known = await handlers.load(db, [])
        for event in batch:
            body = PARSE[event.topic](event.envelope, event.data)
            changes, facts = handlers.decide(known, Event(event.topic, event.envelope, body, datetime.now(UTC)))
            assert facts == ()
            known.absorb(changes)
        await store.save(db, known)


async def read_all(db: Connection, batches: Iterable[Sequence[Happening]]) -> None:
    for batch in batches:
        await read(db, batch)
