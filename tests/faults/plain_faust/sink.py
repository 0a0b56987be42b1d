"""A Faust application as its guide writes them: an agent that stores the events of a topic in PostgreSQL.

How often each event was stored is counted beside it, which is what the comparison asks about. Each event also takes
some time before it is stored, as if another system were asked about it. Settings are Faust's own defaults, but for the
session timeout, which is that of our services in the campaign.
"""

# Faust declares its types in part only.
# pyright: reportArgumentType=false
# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false, reportUntypedFunctionDecorator=false
# pyright: reportUnknownParameterType=false, reportMissingTypeArgument=false

import asyncio
import os

import asyncpg
import faust

ASKING_SECONDS = 0.02
STORE = """
INSERT INTO stored (id, times) VALUES ($1, 1) ON CONFLICT (id) DO UPDATE SET times = stored.times + 1
"""


class Happened(faust.Record, serializer="json"):
    """One event."""

    id: int


app = faust.App(
    "plain-faust",
    broker=f"kafka://{os.environ['PLAIN_FAUST_KAFKA']}",
    broker_session_timeout=float(os.environ["PLAIN_FAUST_SESSION_TIMEOUT"]),
    broker_heartbeat_interval=2.0,
    web_enabled=False,
    topic_disable_leader=True,
)
happened = app.topic("plain-events", value_type=Happened)
pools: list[asyncpg.Pool] = []
opened = asyncio.Event()


@app.task
async def connect() -> None:
    """Opens the pool when the worker starts."""
    pools.append(await asyncpg.create_pool(os.environ["PLAIN_FAUST_POSTGRES"], min_size=1, max_size=4))
    opened.set()


async def one_by_one(stream: faust.Stream[Happened]) -> None:
    """Stores each event as it comes."""
    async for event in stream:
        await asyncio.sleep(ASKING_SECONDS)
        await (await pool()).execute(STORE, event.id)


async def in_batches(stream: faust.Stream[Happened]) -> None:
    """Stores what has come within a second, up to a hundred events at a time."""
    async for events in stream.take(100, within=1.0):
        await asyncio.sleep(ASKING_SECONDS * len(events))
        await (await pool()).executemany(STORE, [(event.id,) for event in events])


async def pool() -> asyncpg.Pool:
    """The pool, which is opened when the worker starts."""
    await opened.wait()
    return pools[0]


store = app.agent(happened)(in_batches if os.environ["PLAIN_FAUST_AGENT"] == "in_batches" else one_by_one)

if __name__ == "__main__":
    app.main()
