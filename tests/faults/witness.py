"""Notes in the databases which process moves positions and empties outboxes, whoever they belong to at that moment.

A process is known by the port its connection comes from, which the machine's list of sockets leads to its id.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import asyncpg
import psutil

from tests.faults.ground import Ground
from tests.faults.scenario import Field

_LOOK_SECONDS: Final = 0.25

_INSTALL: Final = (
    """
    CREATE SCHEMA witness;
    CREATE TABLE witness.wrote (what text, owner text, port integer, PRIMARY KEY (what, owner, port));
    CREATE FUNCTION witness.position() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO witness.wrote VALUES ('position', NEW.owner, inet_client_port()) ON CONFLICT DO NOTHING;
        RETURN NULL;
    END $$;
    CREATE FUNCTION witness.outbox() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO witness.wrote
        SELECT 'outbox', holder, inet_client_port() FROM runtime.lease
        WHERE name = 'relay' AND EXISTS (SELECT FROM gone)
        ON CONFLICT DO NOTHING;
        RETURN NULL;
    END $$;
    """,
    """
    CREATE TRIGGER witness AFTER UPDATE ON runtime.consumer_position FOR EACH ROW
        WHEN (OLD.epoch = NEW.epoch AND OLD.next_offset <> NEW.next_offset) EXECUTE FUNCTION witness.position()
    """,
    """
    CREATE TRIGGER witness AFTER DELETE ON runtime.outbox REFERENCING OLD TABLE AS gone
        FOR EACH STATEMENT EXECUTE FUNCTION witness.outbox()
    """,
)
"""One statement that locks a table each: two in one transaction would lock in another order than the services do."""
_REMOVE: Final = (
    "DROP TRIGGER IF EXISTS witness ON runtime.consumer_position",
    "DROP TRIGGER IF EXISTS witness ON runtime.outbox",
    "DROP SCHEMA IF EXISTS witness CASCADE",
)


class Witness:
    """What has been noted so far."""

    def __init__(self, ground: Ground, services: Sequence[str]) -> None:
        self._ground = ground
        self._services = services
        self._processes: dict[int, int] = {}
        self._port = urlsplit(ground.stack.database(services[0])).port or 5432

    async def install(self) -> None:
        for service in self._services:
            await self._run(service, *_REMOVE, *_INSTALL)

    async def remove(self) -> None:
        for service in self._services:
            await self._run(service, *_REMOVE)

    async def watch(self) -> None:
        """Keeps track of which process each connection belongs to, until cancelled."""
        while True:
            await asyncio.to_thread(self._look)
            await asyncio.sleep(_LOOK_SECONDS)

    def _look(self) -> None:
        for connection in psutil.net_connections("tcp4"):
            here, there = connection.laddr, connection.raddr
            if connection.pid is not None and here and there and there[1] == self._port:
                self._processes[here[1]] = connection.pid

    async def trespasses(self) -> list[str]:
        """Writes by a process that did not own what it wrote."""
        return [
            f"{service}: the {what} of {owner} was written by process {process}"
            for service in self._services
            for what, owner, process in await self._writes(service)
            if not owner.endswith(f":{process}")
        ]

    async def blindness(self) -> list[str]:
        """That nobody at all was seen to write."""
        return [
            f"the witness of {service} saw nobody write"
            for service in self._services
            if not await self._writes(service)
        ]

    async def _writes(self, service: str) -> list[tuple[str, str, int]]:
        """What was written, whose it was, and which process wrote it."""
        rows = await self._ground.rows(service, "SELECT what, owner, port FROM witness.wrote ORDER BY what, owner")
        return [
            (row["what"], row["owner"], self._processes[row["port"]]) for row in rows if row["port"] in self._processes
        ]

    async def _run(self, service: str, *scripts: str) -> None:
        connection = await asyncpg.connect(self._ground.stack.database(service))
        try:
            for script in scripts:
                await connection.execute(script)
        finally:
            await connection.close()


@asynccontextmanager
async def witnessing(field: Field, services: Sequence[str]) -> AsyncGenerator[None]:
    """Has a witness of what the processes of these services write until the end of the block.

    What it has seen is found also where the block fails: trespasses may be the reason.
    """
    witness = Witness(field.ground, services)
    await witness.install()
    watching = asyncio.create_task(witness.watch())
    try:
        yield
        field.found += await witness.blindness()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        field.found += await witness.trespasses()
        await witness.remove()
