"""Older copies of one service's database, put back while the service runs on."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

import asyncpg

from deploy.local import servers
from tests.faults.ground import Ground

_PATIENCE_SECONDS: Final = 30.0


class Backup:
    """A copy of one service's database as it was at a moment."""

    def __init__(self, administrator: str, database: str) -> None:
        self._administrator = administrator
        self._database = database
        self._copy = f"{database}_older"
        self._newer = f"{database}_newer"

    async def take(self) -> None:
        """Copies the database. Its connections are ended for that, which the service has to bear."""
        async with _administering(self._administrator) as db:
            await db.execute(f"DROP DATABASE IF EXISTS {self._copy}")
            async with _nobody_in(db, self._database):
                await db.execute(f"CREATE DATABASE {self._copy} OWNER {self._database} TEMPLATE {self._database}")

    async def restore(self) -> None:
        """Puts the copy in the place of the database. What was committed since is set aside."""
        await self._exchange(self._copy, self._newer)

    async def undo(self) -> None:
        """Puts the database back as it was when the copy took its place."""
        await self._exchange(self._newer, self._copy)

    async def discard(self) -> None:
        """Removes what is set aside."""
        async with _administering(self._administrator) as db:
            for aside in (self._copy, self._newer):
                await db.execute(f"DROP DATABASE IF EXISTS {aside} WITH (FORCE)")

    async def _exchange(self, comes: str, goes: str) -> None:
        async with _administering(self._administrator) as db, _nobody_in(db, self._database):
            await db.execute(f"ALTER DATABASE {self._database} RENAME TO {goes}")
            await db.execute(f"ALTER DATABASE {comes} RENAME TO {self._database}")
            await db.execute(f"ALTER DATABASE {goes} ALLOW_CONNECTIONS true")


def backup_of(ground: Ground, service: str) -> Backup:
    """The backup of a service; nothing is in it before it is taken."""
    addresses = servers.running(ground.machine)
    assert addresses is not None, "the servers do not run"
    return Backup(addresses.postgres, urlsplit(ground.stack.database(service)).path.removeprefix("/"))


@asynccontextmanager
async def _administering(url: str) -> AsyncGenerator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def _nobody_in(db: asyncpg.Connection, database: str) -> AsyncGenerator[None]:
    """No connections to the database until the end of the block."""
    await db.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
    try:
        deadline = monotonic() + _PATIENCE_SECONDS
        while await db.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1", database
        ):
            assert monotonic() < deadline, f"connections to {database} do not end"
            await asyncio.sleep(0.02)
        yield
    finally:
        await db.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS true")
