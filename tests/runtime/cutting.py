"""A way to PostgreSQL that breaks at the worst moment: the commit is done, and the client never hears of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

_COMMIT = b"COMMIT;\x00"


@dataclass
class Way:
    """Connections through here lose the answer to every so many commits."""

    url: str
    every: int
    commits: int = 0
    cut: int = 0


@asynccontextmanager
async def cutting(database: str, every: int) -> AsyncIterator[Way]:
    """Serves a way to the database on loopback while the context lasts."""
    target = urlsplit(database)
    assert target.hostname is not None
    assert target.port is not None
    way = Way("", every)

    async def carry(client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_connection(target.hostname, target.port)
        back = asyncio.create_task(_copy(server, to_client))
        try:
            while data := await client.read(65_536):
                way.commits += _COMMIT in data
                if _COMMIT in data and way.commits % way.every == 0:
                    back.cancel()
                    await asyncio.gather(back, return_exceptions=True)
                    to_server.write(data)
                    await server.read(65_536)
                    way.cut += 1
                    return
                to_server.write(data)
                await to_server.drain()
        except OSError:
            return
        finally:
            back.cancel()
            to_server.close()
            to_client.close()

    listener = await asyncio.start_server(carry, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    way.url = urlunsplit(target._replace(netloc=f"{target.username}:{target.password}@127.0.0.1:{port}"))
    try:
        yield way
    finally:
        listener.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    except OSError:
        return
