"""Servers are killed and frozen while events flow: the worker goes on by itself, and nothing is lost or doubled."""

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
from aiokafka.errors import KafkaError

from deploy.local import servers
from tests.driving import publish, until
from tests.runtime.stage import Stage, stage

KEYS = 40


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[tuple[Path, Stage]]:
    """Servers of this test's own, which it may kill, and a stage on them."""
    folder = tmp_path / "servers"
    folder.mkdir()
    addresses = servers.start(folder, say=lambda _: None, durable=False)
    try:
        with stage(addresses, tmp_path) as made:
            yield folder, made
    finally:
        servers.stop(folder, say=lambda _: None)


async def test_servers_that_die_and_come_back_cost_no_event(ground: tuple[Path, Stage]) -> None:
    folder, own = ground
    worker = await own.start(batch_events=20, session_timeout_ms=6000).ready()
    number = 0

    async def say_more(times: int) -> None:
        nonlocal number
        for _ in range(times):
            number += 1
            await _say_surely(own, number)

    await say_more(5)
    for server in ("postgres", "kafka"):
        said = asyncio.create_task(say_more(10))
        await asyncio.to_thread(servers.kill, folder, server)
        await until(partial(_notices, worker, server), f"it says that {server} is away")
        assert (await worker.get("/livez"))[0] == 200
        await asyncio.to_thread(partial(servers.start_again, folder, server, say=lambda _: None))
        await said
        await worker.ready()
    said = asyncio.create_task(say_more(10))
    await asyncio.to_thread(servers.pause, folder, "kafka")
    await until(partial(_notices, worker, "kafka"), "it says that Kafka does not answer")
    await asyncio.to_thread(servers.resume, folder, "kafka")
    await said
    await own.settle()

    expected = " ".join(str(nth) for nth in range(1, number + 1))
    rows = await own.fetch("SELECT said FROM counted")
    assert [row["said"] for row in rows] == [expected] * KEYS
    assert not await own.fetch("SELECT FROM runtime.parked")
    applied = await own.fetch("SELECT sum(applied) FROM runtime.consumer_position")
    assert applied[0][0] == KEYS * number
    await own.check()
    assert "Traceback" not in worker.said()
    # aiokafka alone says some forty lines a second while a broker is away.
    assert len(worker.said().splitlines()) < 200

    for server in ("kafka", "postgres"):
        await asyncio.to_thread(servers.kill, folder, server)
        await until(partial(_notices, worker, server), f"it says that {server} is away")
        assert await worker.stop() == 0
        if server == "kafka":
            await asyncio.to_thread(partial(servers.start_again, folder, server, say=lambda _: None))
            worker = await own.start().ready()


async def _say_surely(own: Stage, number: int) -> None:
    """Says an event of each key, as often as it takes: what came twice is known by its sequence."""
    events = [own.event(f"k{key}", number) for key in range(KEYS)]

    async def said() -> bool:
        try:
            await publish(own.kafka, events)
        except (KafkaError, OSError):
            return False
        return True

    await until(said, "the broker takes events")


async def _notices(worker: object, server: Literal["kafka", "postgres"]) -> bool:
    name = {"kafka": "Kafka", "postgres": "PostgreSQL"}[server]
    return any(name in reason for reason in await worker.reasons())  # type: ignore[attr-defined]
