"""Plain Faust: an agent that takes batches of events, one statement a batch, and `topic.send` for each next event.

Tuned, by its settings reference: no leader topic, a poll that may return a whole batch, a buffer that holds one.
"""

# Faust declares its types in part only.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportUnknownParameterType=false, reportMissingTypeStubs=false, reportUntypedFunctionDecorator=false

from typing import Any

import asyncpg
import faust

from tests.benchmarks.useful_work import PATIENCE_SECONDS, SESSION, UPSERT, Batch, FirstEvent, Orders, columns

orders = Orders.given()
app = faust.App(
    orders.group,
    broker=f"kafka://{orders.kafka}",
    topic_disable_leader=True,
    topic_allow_declare=False,
    web_enabled=False,
    broker_max_poll_records=orders.batch,
    stream_buffer_maxsize=max(4096, orders.batch),
)
source = app.topic(orders.source, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
target = app.topic(orders.target, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")


@app.agent(source)
async def tally(stream: Any) -> None:
    """One batch: the state, then the next events."""
    began = FirstEvent()

    def first(value: bytes) -> bytes:
        began()
        return value

    stream.add_processor(first)
    db = await asyncpg.connect(orders.database, server_settings=SESSION)
    async for events in stream.take_events(orders.batch, within=PATIENCE_SECONDS):
        batch = Batch.begin("/faust")
        for event in events:
            batch.add(event.message.headers, event.value)
        async with db.transaction():
            await db.execute(UPSERT, *columns(batch.counted))
        for one in batch.outgoing:
            await target.send(key=one.key, value=one.value, headers=one.headers)


app.main()
