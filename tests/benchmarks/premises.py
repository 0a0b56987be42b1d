"""Where a benchmark takes place: servers of its own in a folder of its own, and what is left behind afterwards."""

import asyncio
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import asyncpg

from deploy.local import postgres, servers
from deploy.local.servers import Addresses

TREE: Final = Path(__file__).resolve().parent.parent.parent


def home() -> Path:
    """The project's data folder: results and the environment of the peers outlast a run."""
    return Path(os.environ.get("FIELDBRIDGE_HOME") or TREE / ".fieldbridge").absolute()


def results() -> Path:
    """Where reports are written."""
    return home() / "bench"


@contextmanager
def own_servers() -> Generator[tuple[Addresses, Path]]:
    """Kafka and PostgreSQL for one benchmark, durable as in production; stopped and removed at the end."""
    with tempfile.TemporaryDirectory(prefix="fieldbridge-bench-", ignore_cleanup_errors=True) as made:
        folder = Path(made)
        try:
            yield servers.start(folder, say=_silent), folder
        finally:
            servers.stop(folder, say=_silent)


def database(addresses: Addresses, name: str) -> str:
    """URL of a database of its own for one service."""
    return asyncio.run(postgres.provision(addresses.postgres, [name], lambda _: "only-on-loopback", "bench"))[name]


async def settle(administrator: str) -> None:
    """Has PostgreSQL write what it owes to the disk, so that one contender does not pay for the one before."""
    connection = await asyncpg.connect(administrator)
    try:
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


def _silent(_: str) -> None:
    """Starting and stopping servers is no news here."""
