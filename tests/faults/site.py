"""Where the campaign takes place: servers of its own, and one fresh stack after another on them."""

# aiokafka declares no types.
# pyright: reportMissingTypeStubs=false

import asyncio
import uuid
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import asyncpg
from aiokafka.admin import AIOKafkaAdminClient

from deploy.local import servers
from schemas.topics import SERVICES
from services.console.surroundings import Surroundings
from tests.faults.ground import Ground, Population, clear, lay, quiet, start_servers

MANY: Final = Population(agencies=3000, experts=280)
"""Enough for some thousands of requests."""


@contextmanager
def serving(folder: Path) -> Generator[Path]:
    """A Kafka and a PostgreSQL that may be killed, whatever the settings say; the folder they live in."""
    start_servers(folder)
    try:
        yield folder
    finally:
        servers.stop(folder, say=quiet)


@contextmanager
def standing(machine: Path, home: Path, population: Population = MANY) -> Generator[Ground]:
    """A fresh stack on the servers of a folder; nothing of it stays."""
    # A scenario that failed may have left a server dead.
    addresses = start_servers(machine)
    run = uuid.uuid4().hex[:8]
    surroundings = Surroundings(
        home=home / run,
        kafka=addresses.kafka,
        administrator=addresses.postgres,
        topic_prefix=f"faults-{run}-",
        database_prefix=f"fbfaults_{run}",
    )
    try:
        yield lay(surroundings, machine, population)
    finally:
        clear(Ground(surroundings, machine))
        with suppress(Exception):
            # The servers may be down, after a fault; what is left there does no harm.
            asyncio.run(_remove(surroundings))


async def _remove(surroundings: Surroundings) -> None:
    assert surroundings.administrator is not None
    assert surroundings.kafka is not None
    connection = await asyncpg.connect(surroundings.administrator)
    for service in SERVICES:
        await connection.execute(f"DROP DATABASE IF EXISTS {surroundings.database_prefix}_{service} WITH (FORCE)")
        await connection.execute(f"DROP ROLE IF EXISTS {surroundings.database_prefix}_{service}")
    await connection.close()
    admin = AIOKafkaAdminClient(bootstrap_servers=surroundings.kafka)
    await admin.start()
    await admin.delete_topics(
        [name for name in await admin.list_topics() if name.startswith(surroundings.topic_prefix)]
    )
    await admin.close()
