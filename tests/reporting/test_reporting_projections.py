"""Projections are a pure function of the log: of neither the order between topics, nor the batches, nor repeats."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from random import Random

import pytest

from services.reporting import handlers, store
from services.runtime.database import Connection
from services.runtime.service import Event
from tests.reporting.lives import Happening, in_batches, interleaved, lives

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


@pytest.mark.parametrize("seed", range(4))
async def test_every_request_stands_where_its_whole_life_says_whatever_the_order_of_topics(
    open_database: OpenDatabase, seed: int
) -> None:
    random = Random(seed)
    told = lives(250, seed)
    db = await open_database("reporting")
    await read_all(db, in_batches(interleaved(told, random), random, most=400))
    rows = await db.fetch("SELECT request_id, step FROM request")
    assert {row["request_id"]: row["step"] for row in rows} == {life.request_id: life.step for life in told}
