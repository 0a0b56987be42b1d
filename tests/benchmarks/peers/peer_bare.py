"""A bare `getmany` loop that only fences: the position of each partition moves in the transaction of its effects.

What the design of the runtime could cost at least: no sequences, no outbox, nothing is parked. The next events go
straight to Kafka before the commit, so a failed commit publishes them twice.
"""

# aiokafka declares no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import asyncio
import signal
from typing import Any, Final, cast

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from tests.benchmarks.useful_work import PATIENCE_SECONDS, SESSION, UPSERT, Batch, FirstEvent, Orders, columns

_CLAIM: Final = """
INSERT INTO fence ("partition", next_offset) SELECT number, 0 FROM unnest($1::int[]) AS given (number)
ON CONFLICT ("partition") DO UPDATE SET epoch = fence.epoch + 1
RETURNING "partition", next_offset, epoch
"""
_MOVE: Final = """
UPDATE fence SET next_offset = given.ending
FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[]) AS given (number, starting, ending, epoch)
WHERE "partition" = given.number AND next_offset = given.starting AND fence.epoch = given.epoch
"""


class Fenced(Exception):
    """Another process owns a partition now."""


async def main() -> None:
    """Reads, counts and publishes until SIGTERM."""
    orders, began = Orders.given(), FirstEvent()
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    db = await asyncpg.connect(orders.database, server_settings=SESSION)
    await db.execute(
        'CREATE TABLE IF NOT EXISTS fence ("partition" int PRIMARY KEY, next_offset bigint NOT NULL, '
        "epoch bigint NOT NULL DEFAULT 1); TRUNCATE fence"
    )
    producer = AIOKafkaProducer(bootstrap_servers=orders.kafka, enable_idempotence=True, acks="all")
    consumer = AIOKafkaConsumer(
        orders.source,
        bootstrap_servers=orders.kafka,
        group_id=orders.group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await producer.start()
    await consumer.start()
    claims: dict[int, tuple[int, int]] = {}
    while not stopping.is_set():
        read = cast(
            "dict[Any, list[Any]]",
            await consumer.getmany(timeout_ms=int(PATIENCE_SECONDS * 1000), max_records=orders.batch),
        )
        if not read:
            continue
        began()
        if not claims:
            rows = await db.fetch(_CLAIM, [part.partition for part in consumer.assignment()])
            claims = {row["partition"]: (row["next_offset"], row["epoch"]) for row in rows}
        batch = Batch.begin("/bare")
        for messages in read.values():
            for message in messages:
                batch.add(message.headers, message.value)
        moves = {part.partition: messages[-1].offset + 1 for part, messages in read.items()}
        async with db.transaction():
            await db.execute(UPSERT, *columns(batch.counted))
            sent = [
                await producer.send(orders.target, value=one.value, key=one.key, headers=one.headers)
                for one in batch.outgoing
            ]
            moved = await db.execute(
                _MOVE,
                list(moves),
                [claims[number][0] for number in moves],
                list(moves.values()),
                [claims[number][1] for number in moves],
            )
            if moved != f"UPDATE {len(moves)}":
                raise Fenced
            await asyncio.gather(*sent)
        claims |= {number: (end, claims[number][1]) for number, end in moves.items()}
    await consumer.stop()
    await producer.stop()
    await db.close()


asyncio.run(main())
