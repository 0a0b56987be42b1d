"""Grounds that some faults need: ways between services and servers, three brokers, little room on a disk."""

import asyncio
import os
import uuid
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import asyncpg

from deploy.local import ports, postgres, servers
from services.console.surroundings import Stack, Surroundings
from tests.faults.ground import Ground, Population, clear, lay, quiet, start_servers
from tests.faults.servers_under_fire.brokers import Broker, Running, one_of, running, with_a_second_door
from tests.faults.servers_under_fire.disks import SmallDisk, small_disk
from tests.faults.servers_under_fire.proxy import Way, way_to

SOME: Final = Population(agencies=1500, experts=200)
"""Enough for what one scenario asks."""
_MEGABYTES: Final = 512
"""Of a small disk."""


@dataclass(frozen=True)
class Detoured(Ground):
    """Services reach both servers over ways that can be broken; the outside world and the judge go straight there."""

    kafka_way: Way
    postgres_way: Way
    kafka_port: int
    postgres_port: int

    @property
    def stack(self) -> Stack:
        """The stack as observers reach it."""
        stack = super().stack
        databases = {service: _at(url, self.postgres_port) for service, url in stack.databases.items()}
        return replace(stack, kafka=f"{ports.LOOPBACK}:{self.kafka_port}", databases=databases)


@contextmanager
def detoured(folder: Path) -> Generator[Detoured]:
    """Lays a stack whose services reach their servers over ways."""
    with ExitStack() as laid:
        door = ports.choose()
        kafka_way = laid.enter_context(way_to(door))
        broker = Broker(folder / "kafka", with_a_second_door(door, kafka_way.port))
        database = postgres.Postgres(folder / "postgres", durable=False)
        brokers, databases = laid.enter_context(running([broker, database]))
        postgres_way = laid.enter_context(way_to(databases.port))
        surroundings = _surroundings(
            folder, f"{ports.LOOPBACK}:{kafka_way.port}", _at(databases.address, postgres_way.port)
        )
        ground = Detoured(surroundings, folder, kafka_way, postgres_way, brokers.port, databases.port)
        laid.callback(clear, ground)
        lay(surroundings, folder, SOME)
        yield ground


@dataclass(frozen=True)
class Clustered(Ground):
    """Three brokers, each with a replica of everything; two of them acknowledge a record."""

    brokers: tuple[Running, ...]


@contextmanager
def clustered(folder: Path) -> Generator[Clustered]:
    """Lays a stack on three brokers."""
    with ExitStack() as laid:
        controller_ports = [ports.choose() for _ in range(3)]
        cluster = uuid.uuid4().hex[:22]
        servers = [
            Broker(folder / f"kafka-{node}", one_of(node, controller_ports), controller_port, cluster)
            for node, controller_port in enumerate(controller_ports, 1)
        ]
        *brokers, database = laid.enter_context(
            running([*servers, postgres.Postgres(folder / "postgres", durable=False)])
        )
        surroundings = _surroundings(folder, ",".join(broker.address for broker in brokers), database.address)
        laid.enter_context(variables({"FIELDBRIDGE_REPLICATION_FACTOR": "3"}))
        ground = Clustered(surroundings, folder, tuple(brokers))
        laid.callback(clear, ground)
        lay(surroundings, folder, SOME)
        yield ground


@dataclass(frozen=True)
class Cramped(Ground):
    """One of the two servers keeps its data on a small disk."""

    disk: SmallDisk


@contextmanager
def cramped_postgres(folder: Path) -> Generator[Cramped]:
    """Lays a stack whose PostgreSQL has a small disk."""
    with _cramped(folder, "postgres") as ground:
        yield ground


@contextmanager
def cramped_kafka(folder: Path) -> Generator[Cramped]:
    """Lays a stack whose Kafka has a small disk."""
    with _cramped(folder, "kafka") as ground:
        yield ground


@contextmanager
def _cramped(folder: Path, server: servers.Name) -> Generator[Cramped]:
    with ExitStack() as laid:
        disk = laid.enter_context(small_disk(folder / server, _MEGABYTES))
        addresses = start_servers(folder)
        laid.callback(servers.stop, folder, say=quiet)
        asyncio.run(_keep_logs_short(addresses.postgres))
        ground = Cramped(_surroundings(folder, addresses.kafka, addresses.postgres), folder, disk)
        laid.callback(clear, ground)
        lay(ground.surroundings, folder, SOME)
        yield ground


async def _keep_logs_short(administrator: str) -> None:
    """PostgreSQL's write-ahead log alone would otherwise fill the disk before its first checkpoint."""
    connection = await asyncpg.connect(administrator)
    try:
        await connection.execute("ALTER SYSTEM SET max_wal_size = '96MB'")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()


@contextmanager
def variables(given: Mapping[str, str]) -> Generator[None]:
    """Environment variables of services that are started meanwhile."""
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _surroundings(folder: Path, kafka_address: str, administrator: str) -> Surroundings:
    return Surroundings(
        home=folder / "stack",
        kafka=kafka_address,
        administrator=administrator,
        topic_prefix="faults-",
        database_prefix="fbfaults",
    )


def _at(url: str, port: int) -> str:
    """The same URL, over another port."""
    place = urlsplit(url)
    return place._replace(netloc=f"{place.username}:{place.password}@{place.hostname}:{port}").geturl()
