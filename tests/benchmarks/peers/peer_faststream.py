"""FastStream on aiokafka: batches as its documentation has them ("Batching"), acknowledged after the work.

Tuned: bodies go to the handler as bytes, so that pydantic reads the JSON itself instead of checking what FastStream has
decoded; acknowledgements are awaited for a batch together (`no_confirm`). It publishes in one of two ways:

- by record, as "Using a Partition Key" has it: every event has its key and its headers;
- by partition ("Publishing in Batches"): a batch of FastStream goes to one partition and has one set of headers, so
  events are grouped by hand by the partition they came from, and are CloudEvents in structured mode, attributes and
  body in one JSON document. The fastest way found; it holds only where both topics have as many partitions.
"""

# FastStream is installed in the environment of the peers only.
# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportUntypedFunctionDecorator=false, reportUnknownParameterType=false

import asyncio
from collections import defaultdict
from typing import Any, Final

import asyncpg
from faststream import AckPolicy, FastStream
from faststream.kafka import KafkaBroker, KafkaPublishMessage
from faststream.kafka.annotations import KafkaMessage

from tests.benchmarks.useful_work import PATIENCE_SECONDS, SESSION, UPSERT, Batch, FirstEvent, Orders, columns

_ONE_BATCH_BYTES: Final = 4 * 1024 * 1024

orders = Orders.given()
began = FirstEvent()
broker = KafkaBroker(
    orders.kafka,
    enable_idempotence=True,
    acks="all",
    max_batch_size=_ONE_BATCH_BYTES if orders.by_partition else 16 * 1024,
    max_request_size=2 * _ONE_BATCH_BYTES,
    logger=None,
)
app = FastStream(broker)


async def as_bytes(message: Any) -> list[bytes]:
    """Bodies as they came."""
    began()
    return [record.value for record in message.raw_message]


@app.on_startup
async def connect() -> None:
    """Opens the connections that the handler uses."""
    app.context.set_global(
        "pool", await asyncpg.create_pool(orders.database, min_size=1, max_size=2, server_settings=SESSION)
    )


@broker.subscriber(
    orders.source,
    group_id=orders.group,
    batch=True,
    max_records=orders.batch,
    batch_timeout_ms=int(PATIENCE_SECONDS * 1000),
    auto_offset_reset="earliest",
    ack_policy=AckPolicy.ACK,
    decoder=as_bytes,
)
async def tally(message: KafkaMessage) -> None:
    """One batch: the state, then the next events."""
    batch = Batch.begin("/faststream")
    for record in message.raw_message:
        batch.add(record.headers, record.value)
    async with app.context.get("pool").acquire() as db, db.transaction():
        await db.execute(UPSERT, *columns(batch.counted))
    if orders.by_partition:
        await publish_by_partition([record.partition for record in message.raw_message], batch)
    else:
        await publish_by_record(batch)


async def publish_by_record(batch: Batch) -> None:
    """One call for each event."""
    sent = [
        await broker.publish(
            one.value,
            orders.target,
            key=one.key,
            headers={name: value.decode() for name, value in one.headers},
            no_confirm=True,
        )
        for one in batch.outgoing
    ]
    await asyncio.gather(*sent)


async def publish_by_partition(partitions: list[int], batch: Batch) -> None:
    """One call for each partition."""
    grouped: dict[int, list[KafkaPublishMessage]] = defaultdict(list)
    for partition, one in zip(partitions, batch.outgoing, strict=True):
        grouped[partition].append(KafkaPublishMessage(one.structured(), key=one.key))
    sent = [
        await broker.publish_batch(
            *messages,
            topic=orders.target,
            partition=partition,
            headers={"content-type": "application/cloudevents+json"},
            no_confirm=True,
        )
        for partition, messages in grouped.items()
    ]
    await asyncio.gather(*sent)


asyncio.run(app.run())
