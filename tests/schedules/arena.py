"""The database schedules are played in, and what is opened once for many of them."""

import uuid
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, cast

import asyncpg

from deploy.local import postgres
from services.runtime.database import Connection, connect
from services.runtime.health import Health
from services.runtime.metrics import Metrics
from services.runtime.migration import migrate
from services.runtime.settings import Settings
from tests.schedules.actors import Session

LEASE_SECONDS: Final = 3
_SESSIONS: Final = 20
_PACKAGE: Final = "tests.runtime.counting.migrations"
_TRUNCATE_EVERY: Final = 100

# The product asks the database what time it is: here the schedule says so, through a function that is found first.
# The cursor belongs to a relay that is broken on purpose.
_SIMULATED: Final = """
CREATE SCHEMA simulated;
CREATE SEQUENCE simulated.seconds;
CREATE FUNCTION simulated.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
    AS 'SELECT to_timestamp(last_value) FROM simulated.seconds';
CREATE TABLE simulated.outbox_cursor (last bigint NOT NULL);
INSERT INTO simulated.outbox_cursor VALUES (0);
"""
_TABLES: Final = (
    "runtime.consumer_position",
    "runtime.stream_seen",
    "runtime.message_seen",
    "runtime.stream_out",
    "runtime.outbox",
    "runtime.parked",
    "runtime.lease",
    "runtime.round",
    "counted",
)


@dataclass
class Arena:
    """Connections of the simulation's own, and sessions for the actors of one schedule after another."""

    observer: Connection
    """For what the schedule itself asks and does."""
    locks: "asyncpg.Connection[asyncpg.Record]"
    """For the question who waits for whom, which is asked while other things happen."""
    sessions: list[Session]
    settings: Settings
    metrics: Metrics = field(default_factory=lambda: Metrics("counting"))
    health: Health = field(default_factory=Health)
    played: int = 0
    seconds: int = 1_700_000_000
    """What time it is, by the workers' clocks and the database's."""

    async def clear(self) -> None:
        """Makes the tables as they were at first."""
        self.played += 1
        if self.played % _TRUNCATE_EVERY:
            emptying = "; ".join(f"DELETE FROM {table}" for table in _TABLES)
        else:
            emptying = f"TRUNCATE {', '.join(_TABLES)}"
        await self.observer.execute(f"{emptying}; UPDATE simulated.outbox_cursor SET last = 0")

    async def pass_time(self, seconds: int) -> None:
        """Moves all clocks."""
        self.seconds += seconds
        await self.observer.fetchval("SELECT setval('simulated.seconds', $1)", self.seconds)


@asynccontextmanager
async def arena(admin_url: str) -> AsyncGenerator[Arena, None]:
    """A database of its own with the runtime's tables and those of the counting service."""
    run = f"fbsched_{uuid.uuid4().hex[:8]}"
    name = f"{run}_counting"
    url = (await postgres.provision(admin_url, ("counting",), lambda _: "only-on-loopback", run))["counting"]
    admin = await asyncpg.connect(admin_url)
    opened: list[asyncpg.Connection[asyncpg.Record]] = []
    try:
        await admin.execute(f"ALTER DATABASE {name} SET search_path = simulated, pg_catalog, public")
        # How long the server lets transactions wait for one another in a circle before it ends one of them.
        await admin.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '5ms'")
        first = await connect(url)
        await first.execute("SET search_path = public")
        await migrate(first, "counting", _PACKAGE, url)
        await first.execute(_SIMULATED)
        await first.close()
        for _ in range(_SESSIONS + 2):
            opened.append(cast("asyncpg.Connection[asyncpg.Record]", await connect(url)))
            # Tables this small have one plan: to plan each statement anew would take longer than to run it.
            await opened[-1].execute("SET plan_cache_mode = force_generic_plan")
        yield Arena(
            cast(Connection, opened[0]),
            opened[1],
            [Session(connection, connection.get_server_pid()) for connection in opened[2:]],
            Settings.model_validate({"kafka": "127.0.0.1:1", "database": url, "lease_seconds": LEASE_SECONDS}),
        )
    finally:
        for connection in opened:
            connection.terminate()
        await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await admin.execute(f"DROP ROLE IF EXISTS {name}")
        await admin.close()
