"""One Kafka and one PostgreSQL for the whole run; a topic prefix and truncated tables for each test."""

import asyncio
import os
import shutil
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
from hypothesis import HealthCheck, settings

from deploy.local import postgres, servers
from schemas.topics import SERVICES
from services.runtime.database import Connection, connect
from services.runtime.migration import migrate
from services.runtime.settings import Settings

# How long an example takes says how busy the machine is: nothing here is a matter of time.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

OpenDatabase = Callable[[str], Awaitable[Connection]]


_SERVERS = "FIELDBRIDGE_TEST_SERVERS"
"""The folder of the servers of this run, which its processes share."""


def pytest_configure(config: pytest.Config) -> None:
    """Before any process of the run starts a server."""
    if not hasattr(config, "workerinput"):
        os.environ[_SERVERS] = tempfile.mkdtemp(prefix="fieldbridge-tests-")


def pytest_unconfigure(config: pytest.Config) -> None:
    """When all processes of the run have ended."""
    if not hasattr(config, "workerinput"):
        folder = Path(os.environ.pop(_SERVERS))
        servers.stop(folder, say=lambda _: None)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def addresses() -> servers.Addresses:
    """Real servers: those that settings point at, else a pair that is started for this run and stopped at its end."""
    if (kafka := os.environ.get("FIELDBRIDGE_KAFKA")) and (admin := os.environ.get("FIELDBRIDGE_POSTGRES")):
        return servers.Addresses(kafka, admin)
    return servers.start(Path(os.environ[_SERVERS]), say=lambda _: None, durable=False)


@pytest.fixture(scope="session")
def database_urls(addresses: servers.Addresses) -> Iterator[dict[str, str]]:
    """A role and a database per service, of this run's own, with nothing in them."""
    run = f"fbtest_{uuid.uuid4().hex[:8]}"
    names = (*SERVICES, "counting")
    yield asyncio.run(postgres.provision(addresses.postgres, names, lambda _: "only-on-loopback", run))
    asyncio.run(_drop(addresses.postgres, [f"{run}_{name}" for name in names]))


async def _drop(admin_url: str, names: list[str]) -> None:
    connection = await asyncpg.connect(admin_url)
    for name in names:
        await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await connection.execute(f"DROP ROLE IF EXISTS {name}")
    await connection.close()


@pytest.fixture
async def open_database(database_urls: dict[str, str]) -> AsyncIterator[OpenDatabase]:
    """Opens a connection to a service's database: migrated, every table empty but those that migrations fill."""
    opened: list[Connection] = []

    async def open_one(service: str, package: str = "") -> Connection:
        url = database_urls[service]
        connection = await connect(url)
        opened.append(connection)
        await migrate(connection, service, package or f"services.{service}.migrations", url)
        await empty(connection)
        return connection

    yield open_one
    for connection in opened:
        await connection.close()


async def empty(connection: Connection) -> None:
    """Empties every table except the record of migrations and what migrations filled."""
    rows = await connection.fetch(
        """
        SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables
        WHERE schemaname IN ('public', 'runtime')
          AND tablename NOT IN ('schema_version', 'topic_of_assistance', 'topic_offering')
        """
    )
    if rows:
        await connection.execute(f"TRUNCATE {', '.join(row['name'] for row in rows)} RESTART IDENTITY CASCADE")


@pytest.fixture
def topic_prefix() -> str:
    """Keeps the topics and consumer groups of one test apart from all others."""
    return f"t{uuid.uuid4().hex[:10]}-"


@pytest.fixture
def settings_of(
    addresses: servers.Addresses, database_urls: dict[str, str], topic_prefix: str
) -> Callable[..., Settings]:
    """Settings of one service for one test."""

    def settings(service: str, **given: object) -> Settings:
        values = {"kafka": addresses.kafka, "database": database_urls[service], "topic_prefix": topic_prefix, "port": 0}
        return Settings.model_validate(values | given)

    return settings
