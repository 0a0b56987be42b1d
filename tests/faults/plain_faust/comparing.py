"""Kills, pauses and restarts of two workers of the plain Faust sink while events wait, and what became of them."""

# aiokafka declares no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

import asyncpg
import psutil
from aiokafka import AIOKafkaProducer

from deploy.local import servers
from tests.driving import TREE, create_topics
from tests.faults.site import serving

KILLS: Final = 8
PAUSES: Final = 7
RESTARTS: Final = 8
EVENTS: Final = 12_000
AGENTS: Final = ("one_by_one", "in_batches")

_TOPIC: Final = "plain-events"
_DATABASE: Final = "plain_faust"
_WORKERS: Final = 2
_SETTLED_SECONDS: Final = 45.0
"""How long nothing may be stored any more before the rest counts as lost: longer than Faust's recovery."""
_PATIENCE_SECONDS: Final = 120.0
_POLL_SECONDS: Final = 0.1
_BETWEEN_SECONDS: Final = (1.0, 4.0)


@dataclass(frozen=True)
class Comparison:
    """What became of the events."""

    agent: str
    events: int
    stored: int
    lost: int
    doubled: int
    """Times that an event was stored again."""
    kills: int = KILLS
    pauses: int = PAUSES
    restarts: int = RESTARTS
    seconds: float = 0.0


@dataclass
class _Workers:
    """The workers of the sink."""

    environment: dict[str, str]
    folder: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list[subprocess.Popen[bytes]])

    def start(self, nth: int) -> None:
        """Starts a worker, or starts it again."""
        with (self.folder / f"worker-{nth}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.plain_faust.sink", "worker", "-l", "warn", "--without-web"],
                cwd=TREE,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if nth < len(self.running):
            self.running[nth] = process
        else:
            self.running.append(process)

    def end(self) -> None:
        """Ends what still runs."""
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.wait()


def compare(seed: int, session_timeout_seconds: float, tell: Callable[[str], None]) -> list[Comparison]:
    """Runs the sink with each of its agents, under faults, on servers of its own."""
    return [_compare(agent, seed, session_timeout_seconds, tell) for agent in AGENTS]


def _compare(agent: str, seed: int, session_timeout_seconds: float, tell: Callable[[str], None]) -> Comparison:
    with tempfile.TemporaryDirectory(prefix="fieldbridge-plain-faust-") as folder, ExitStack() as stack:
        machine = stack.enter_context(serving(Path(folder) / "servers"))
        addresses = servers.running(machine)
        assert addresses is not None
        database = urlsplit(addresses.postgres)._replace(path=f"/{_DATABASE}").geturl()
        environment = os.environ | {
            "PLAIN_FAUST_AGENT": agent,
            "PLAIN_FAUST_KAFKA": addresses.kafka,
            "PLAIN_FAUST_POSTGRES": database,
            "PLAIN_FAUST_SESSION_TIMEOUT": str(session_timeout_seconds),
        }
        workers = _Workers(dict(environment), Path(folder))
        stack.callback(workers.end)
        return asyncio.run(
            _run(addresses, database, workers, random.Random(seed), session_timeout_seconds, tell, agent)
        )


async def _run(
    addresses: servers.Addresses,
    database: str,
    workers: _Workers,
    chance: random.Random,
    session_timeout_seconds: float,
    tell: Callable[[str], None],
    agent: str,
) -> Comparison:
    began = monotonic()
    administrator = await asyncpg.connect(addresses.postgres)
    await administrator.execute(f"CREATE DATABASE {_DATABASE}")
    await administrator.close()
    connection = await asyncpg.connect(database)
    await connection.execute("CREATE TABLE stored (id bigint PRIMARY KEY, times bigint NOT NULL)")
    await create_topics(addresses.kafka, _TOPIC)
    for nth in range(_WORKERS):
        workers.start(nth)
    faults = ["kill"] * KILLS + ["pause"] * PAUSES + ["restart"] * RESTARTS
    chance.shuffle(faults)
    await _publish(addresses.kafka)
    await _until_stored(connection, 1)
    for nth, fault in enumerate(faults, 1):
        tell(f"{agent}, {nth} of {len(faults)}: {fault}")
        await asyncio.sleep(chance.uniform(*_BETWEEN_SECONDS))
        await _harm(workers, chance.randrange(_WORKERS), fault, session_timeout_seconds)
    tell("waiting until nothing comes any more")
    await _settled(connection)
    stored, times = await connection.fetchrow("SELECT count(*), sum(times) FROM stored") or (0, 0)
    await connection.close()
    return Comparison(agent, EVENTS, stored, EVENTS - stored, int(times) - stored, seconds=monotonic() - began)


async def _publish(kafka: str) -> None:
    """Publishes all events: there is always one in hand when a fault comes."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka, enable_idempotence=True, acks="all")
    await producer.start()
    try:
        for number in range(EVENTS):
            await producer.send(_TOPIC, value=json.dumps({"id": number}).encode(), key=str(number % 997).encode())
        await producer.flush()
    finally:
        await producer.stop()


async def _harm(workers: _Workers, nth: int, fault: str, session_timeout_seconds: float) -> None:
    process = workers.running[nth]
    if fault == "pause":
        frozen = psutil.Process(process.pid)
        frozen.suspend()
        await asyncio.sleep(session_timeout_seconds + 2.0)
        frozen.resume()
        return
    process.kill() if fault == "kill" else process.terminate()
    await asyncio.to_thread(process.wait, 60)
    workers.start(nth)


async def _until_stored(connection: asyncpg.Connection, least: int) -> None:
    deadline = monotonic() + _PATIENCE_SECONDS
    while await connection.fetchval("SELECT count(*) FROM stored") < least:
        assert monotonic() < deadline, "the sink stores nothing"
        await asyncio.sleep(_POLL_SECONDS)


async def _settled(connection: asyncpg.Connection) -> None:
    """Waits until all are stored, or nothing has come for so long that nothing will."""
    before, since = None, monotonic()
    while True:
        now = await connection.fetchrow("SELECT count(*), sum(times) FROM stored")
        assert now is not None
        if now != before:
            before, since = now, monotonic()
        if monotonic() - since > _SETTLED_SECONDS:
            return
        await asyncio.sleep(_POLL_SECONDS)
