"""Ways to PostgreSQL that break at the worst moment."""

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit, urlunsplit

_COMMIT: Final = b"COMMIT;\x00"
_READY: Final = b"Z\x00\x00\x00\x05"
_FIELDS: Final = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"
_FATAL: Final = b"E" + struct.pack(">i", len(_FIELDS) + 4) + _FIELDS
_UNHEARD_SECONDS: Final = 0.1


@dataclass
class Way:
    """Connections through here break at every so many commits or answers."""

    url: str
    every: int
    seen: int = 0
    cut: int = 0

    def due(self) -> bool:
        self.seen += 1
        return self.every > 0 and self.seen % self.every == 0


Carry = Callable[
    [Way, asyncio.StreamReader, asyncio.StreamWriter, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]
]
"""Carries one connection: what comes from the client and goes to it, what comes from the server and goes to it."""


@asynccontextmanager
async def cutting(database: str, every: int) -> AsyncIterator[Way]:
    """A way to the database: every so many commits are done, and the client never hears of it."""
    async with _way(database, every, _without_answers) as way:
        yield way


@asynccontextmanager
async def ending(database: str) -> AsyncIterator[Way]:
    """A way to the database: the server ends a session right behind every so many answers, as it does when it stops.

    None at first: `every` is set once there is something to break.
    """
    async with _way(database, 0, _ended) as way:
        yield way


@asynccontextmanager
async def _way(database: str, every: int, carry: Carry) -> AsyncIterator[Way]:
    target = urlsplit(database)
    assert target.hostname is not None
    assert target.port is not None
    way = Way("", every)

    async def carried(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection(target.hostname, target.port)
        try:
            await carry(way, client, to_client, server, to_server)
        except OSError:
            return
        finally:
            to_server.close()
            to_client.close()

    listener = await asyncio.start_server(carried, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    way.url = urlunsplit(target._replace(netloc=f"{target.username}:{target.password}@127.0.0.1:{port}"))
    try:
        yield way
    finally:
        listener.close()


async def _without_answers(
    way: Way,
    client: asyncio.StreamReader,
    to_client: asyncio.StreamWriter,
    server: asyncio.StreamReader,
    to_server: asyncio.StreamWriter,
) -> None:
    back = asyncio.create_task(_copy(server, to_client))
    try:
        while data := await client.read(65_536):
            if _COMMIT in data and way.due():
                back.cancel()
                await asyncio.gather(back, return_exceptions=True)
                to_server.write(data)
                await server.read(65_536)
                way.cut += 1
                return
            to_server.write(data)
            await to_server.drain()
    finally:
        back.cancel()


async def _ended(
    way: Way,
    client: asyncio.StreamReader,
    to_client: asyncio.StreamWriter,
    server: asyncio.StreamReader,
    to_server: asyncio.StreamWriter,
) -> None:
    there = asyncio.create_task(_copy(client, to_server))
    try:
        while data := await server.read(65_536):
            if data[-6:-1] == _READY and way.due():
                to_client.write(data + _FATAL)
                way.cut += 1
                await asyncio.sleep(_UNHEARD_SECONDS)  # the client sends its next statement meanwhile
                return
            to_client.write(data)
            await to_client.drain()
    finally:
        there.cancel()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    except OSError:
        return
