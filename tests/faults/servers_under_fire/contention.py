"""F12: others in the database who hold locks and connections, and transactions that have to be tried again."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Final
from urllib.parse import urlsplit

import asyncpg

from schemas.topics import SERVICES
from tests.driving import until
from tests.faults.ground import Ground
from tests.faults.scenario import Field, Scenario
from tests.faults.servers_under_fire.readiness import listening, recovers, told

FEW_CONNECTIONS: Final = 3
"""The least that a service can do with."""
_WRITTEN: Final = {service: "story" if service == "reporting" else "runtime.outbox" for service in SERVICES}
"""A table that every batch of a service writes."""
_CHOSEN: Final = 2
_PAST_LOCK_TIMEOUT_SECONDS: Final = 12.0
_WITHOUT_CONNECTIONS_SECONDS: Final = 5.0
_STRUCK_SECONDS: Final = 8.0
_SLOW_SECONDS: Final = 8.0

# A refusal at the update, and one that comes only with the commit.
_STRIKING: Final = """
CREATE SCHEMA disturbance;
CREATE FUNCTION disturbance.strike() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF random() < 0.2 THEN
        RAISE EXCEPTION 'struck' USING ERRCODE = (ARRAY['40001', '40P01', '55P03'])[1 + floor(3 * random())::int];
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER struck AFTER UPDATE ON runtime.consumer_position
    FOR EACH STATEMENT EXECUTE FUNCTION disturbance.strike();
CREATE TRIGGER struck AFTER UPDATE ON runtime.round FOR EACH STATEMENT EXECUTE FUNCTION disturbance.strike();
CREATE TRIGGER struck AFTER UPDATE ON runtime.lease FOR EACH STATEMENT EXECUTE FUNCTION disturbance.strike();
CREATE CONSTRAINT TRIGGER struck_late AFTER UPDATE ON runtime.stream_out
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.sequence % 7 = 0) EXECUTE FUNCTION disturbance.strike();
"""
# Longer than a statement may take, once in a while; a little, often.
_SLOWING: Final = """
CREATE SCHEMA disturbance;
CREATE SEQUENCE disturbance.calls;
CREATE FUNCTION disturbance.dawdle() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
    PERFORM pg_sleep(CASE WHEN nextval('disturbance.calls') % 8 = 3 THEN 20 ELSE 0.3 END);
    RETURN NULL;
END $$;
CREATE TRIGGER slowed AFTER UPDATE ON runtime.consumer_position
    FOR EACH STATEMENT EXECUTE FUNCTION disturbance.dawdle();
"""
_CALM: Final = "DROP SCHEMA IF EXISTS disturbance CASCADE"

_END_OTHERS: Final = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1 AND NOT (pid = ANY($2::int[]))
"""
_BATCH_WAITS: Final = """
SELECT EXISTS (
    SELECT FROM pg_locks AS waiting JOIN pg_locks AS held USING (pid)
    WHERE NOT waiting.granted AND waiting.relation = $1::text::regclass
      AND held.granted AND held.relation = 'runtime.consumer_position'::regclass)
"""


async def _struck(field: Field, service: str) -> None:
    """Serialization failures, deadlocks and lock timeouts, at a statement and at the commit."""
    async with _disturbed(field.ground, service, _STRIKING):
        await asyncio.sleep(_STRUCK_SECONDS)


async def _slowed(field: Field, service: str) -> None:
    """Statements that dawdle while their transaction holds its locks, some past the time a statement may take."""
    async with _disturbed(field.ground, service, _SLOWING):
        await asyncio.sleep(_SLOW_SECONDS)


async def _locked(field: Field, service: str) -> None:
    """Somebody holds a lock for longer than the service waits for one."""
    async with _connected(field.ground.stack.database(service)) as other, other.transaction():
        await other.execute(f"LOCK TABLE {_WRITTEN[service]} IN ACCESS EXCLUSIVE MODE")
        await asyncio.sleep(_PAST_LOCK_TIMEOUT_SECONDS)


async def _deadlocked(field: Field, service: str) -> None:
    """The service's batch and somebody else wait for one another, until the server ends the batch."""
    async with _administrator_in(field.ground, service) as other:
        # The other one is more patient, so that it is the service's transaction that the server ends.
        await other.execute("SET deadlock_timeout = '3s'")
        before = await _deadlocks(other)

        async def batch_waits() -> bool:
            return bool(await other.fetchval(_BATCH_WAITS, _WRITTEN[service]))

        async def goes_through() -> bool:
            """False where the batch had looked for a deadlock before there was one, which it does only once."""
            try:
                async with other.transaction():
                    await other.execute(f"LOCK TABLE {_WRITTEN[service]} IN SHARE MODE")
                    await until(batch_waits, f"a batch of {service} waits for the lock")
                    await other.execute("UPDATE runtime.consumer_position SET owner = owner")
            except asyncpg.DeadlockDetectedError:
                return False
            return True

        async def told_of_it() -> bool:
            return await _deadlocks(other) > before

        await until(goes_through, f"the server ends a batch of {service}")
        await until(told_of_it, f"the server has found a deadlock in {service}'s database")


async def _without_connections(field: Field, service: str) -> None:
    """Others have taken all the connections that the service's role may have."""
    url = field.ground.stack.database(service)
    role = urlsplit(url).username
    taken: list[asyncpg.Connection] = []
    async with _administrator_in(field.ground, service) as administrator:
        try:
            await administrator.execute(f"ALTER ROLE {role} CONNECTION LIMIT {FEW_CONNECTIONS}")

            async def all_taken() -> bool:
                """Ends the service's connections, and is quicker than the service to take one, sooner or later."""
                kept = [one.get_server_pid() for one in taken]
                await administrator.execute(_END_OTHERS, role, kept)
                with suppress(asyncpg.TooManyConnectionsError):
                    taken.append(await asyncpg.connect(url, timeout=5))
                return len(taken) == FEW_CONNECTIONS

            await until(all_taken, f"all connections of {role} are taken")
            async with listening(field.ground) as readiness:
                await asyncio.sleep(_WITHOUT_CONNECTIONS_SECONDS)
            told(field, readiness, "PostgreSQL does not answer", [service])
        finally:
            await administrator.execute(f"ALTER ROLE {role} CONNECTION LIMIT -1")
            for one in taken:
                await one.close()


_DISTURBANCES: Final[Mapping[str, Callable[[Field, str], Awaitable[None]]]] = {
    "failures of serialization": _struck,
    "slow statements under a lock": _slowed,
    "a lock held for 12 s": _locked,
    "a deadlock": _deadlocked,
    "all connections taken": _without_connections,
}


async def _contention(field: Field) -> None:
    for what in field.chance.sample(list(_DISTURBANCES), len(_DISTURBANCES)):
        chosen = field.chance.sample(SERVICES, _CHOSEN)
        await asyncio.gather(*(_DISTURBANCES[what](field, service) for service in chosen))
        await recovers(field, f"{what} in the databases of {' and '.join(chosen)}")


@asynccontextmanager
async def _disturbed(ground: Ground, service: str, script: str) -> AsyncGenerator[None]:
    async with _administrator_in(ground, service) as other:
        # It locks several tables, perhaps in another order than the service, whose transaction the server ends then.
        await other.execute("SET deadlock_timeout = '60s'")
        await other.execute(script)
        try:
            yield
        finally:
            await other.execute(_CALM)


async def _deadlocks(connection: asyncpg.Connection) -> int:
    return int(await connection.fetchval("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"))


@asynccontextmanager
async def _administrator_in(ground: Ground, service: str) -> AsyncGenerator[asyncpg.Connection]:
    """The administrator, in a service's database."""
    assert ground.surroundings.administrator is not None
    database = urlsplit(ground.stack.database(service)).path
    async with _connected(urlsplit(ground.surroundings.administrator)._replace(path=database).geturl()) as connection:
        yield connection


@asynccontextmanager
async def _connected(url: str) -> AsyncGenerator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


CONTENTION: Final = Scenario(
    fault="F12",
    name="contention",
    sentence="Deadlocks, failures of serialization at statements and commits, locks held past their limit, slow "
    "statements under locks, and every connection taken by others, with a pool of three",
    inject=_contention,
    setting={"FIELDBRIDGE_POOL_CONNECTIONS": str(FEW_CONNECTIONS)},
)
