"""The four services as processes of their own, once for all journeys; each journey's outside world begins anew."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from deploy.local import servers
from schemas.topics import SERVICES
from services.console.stack import bring_up, take_down
from services.console.surroundings import Stack, Surroundings
from tests.journeys.outside import Outside, listening


@pytest.fixture(scope="session")
def surroundings(addresses: servers.Addresses, tmp_path_factory: pytest.TempPathFactory) -> Surroundings:
    """A folder, topics and databases that are these journeys' own."""
    run = uuid.uuid4().hex[:8]
    return Surroundings(
        home=tmp_path_factory.mktemp("journeys"),
        kafka=addresses.kafka,
        administrator=addresses.postgres,
        topic_prefix=f"journeys-{run}-",
        database_prefix=f"fbjourneys_{run}",
    )


@pytest.fixture(scope="session")
def stack(surroundings: Surroundings) -> Iterator[Stack]:
    """The running services; whatever happens, they are stopped."""
    try:
        yield bring_up(surroundings, lambda _: None)
    finally:
        take_down(surroundings, lambda _: None)
        asyncio.run(_drop_databases(surroundings))


@pytest.fixture
def logs(surroundings: Surroundings) -> Path:
    """The folder with the services' logs."""
    return surroundings.home / "log"


@pytest.fixture
async def outside(stack: Stack) -> AsyncIterator[Outside]:
    """The other systems, as one journey plays them."""
    async with listening(stack) as systems:
        yield systems


async def _drop_databases(surroundings: Surroundings) -> None:
    assert surroundings.administrator is not None
    connection = await asyncpg.connect(surroundings.administrator)
    for service in SERVICES:
        name = f"{surroundings.database_prefix}_{service}"
        await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await connection.execute(f"DROP ROLE IF EXISTS {name}")
    await connection.close()
