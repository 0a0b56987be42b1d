"""PostgreSQL as the services see it: the connection protocol, the pool, and what its failures mean."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import Enum, auto
from typing import Any, Final, Protocol, cast
from urllib.parse import urlsplit

import asyncpg

Row = Mapping[str, Any]

OLDEST_POSTGRES: Final = 15

_LONGEST_ANSWER_SECONDS: Final = 75.0
"""Above the server's own limit on a statement: a server that does not even report that is away."""

_SESSION: Final = {
    # Plans frozen while tables were empty are many times slower once they are full.
    "plan_cache_mode": "force_custom_plan",
    # What a slice looks up lies in memory or on a disk without a head: a row by its key, not a table read to its end.
    "random_page_cost": "1.1",
    # A worker that freezes inside a transaction holds up the new owner of its partitions for so long.
    "idle_in_transaction_session_timeout": "10s",
    "lock_timeout": "10s",
    # Also how long a process that is frozen in the midst of a COPY can keep its locks from a new owner.
    "statement_timeout": "15s",
    "timezone": "UTC",
    "jit": "off",
}


class Database(Protocol):
    """A connection inside a transaction that the runtime began and will end. Stores only send statements."""

    async def execute(self, query: str, *args: object) -> str: ...

    async def fetch(self, query: str, *args: object) -> Sequence[Row]: ...

    async def fetchrow(self, query: str, *args: object) -> Row | None: ...

    async def fetchval(self, query: str, *args: object) -> Any: ...

    async def copy_records_to_table(
        self,
        table_name: str,
        *,
        records: Iterable[Sequence[object]],
        columns: Sequence[str],
        schema_name: str | None = None,
    ) -> str: ...


class Connection(Database, Protocol):
    """A connection on which transactions can be begun."""

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str: ...

    def transaction(self) -> AbstractAsyncContextManager[object]: ...

    async def close(self) -> None: ...


class Contention(Exception):
    """A row changed between load and save. The runtime rolls the transaction back and runs the batch again."""


async def upsert(db: Database, statement: str, ids: Sequence[str], *columns: Sequence[object]) -> None:
    """Runs one set-based statement that has to write a row for each id.

    Raises Contention where it wrote fewer, because a row is not what it was when it was read.
    """
    status = await db.execute(statement, ids, *columns)
    written = int(status.rpartition(" ")[2])
    if written < len(ids):
        raise Contention(f"{len(ids) - written} of {len(ids)} rows have changed since they were read")


class UnusableDatabase(Exception):
    """The database cannot be used as it is; the message says why and what to do."""


class Failure(Enum):
    """What an exception of a transaction means for what was tried."""

    UNREACHABLE = auto()
    """The server is away, full or shutting down: wait and try again for as long as it takes."""
    CONTENDED = auto()
    """Another transaction was in the way: try again."""
    DEFECT = auto()
    """Trying again would fail again."""


_UNREACHABLE: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.CannotConnectNowError,
    asyncpg.exceptions.PostgresSystemError,
    asyncpg.exceptions.ReadOnlySQLTransactionError,
    asyncpg.exceptions.IdleInTransactionSessionTimeoutError,
    asyncpg.exceptions.InvalidAuthorizationSpecificationError,
    asyncpg.exceptions.InvalidCatalogNameError,
    # The database lets nobody in for now.
    asyncpg.exceptions.ObjectNotInPrerequisiteStateError,
    # What asyncpg raises where the server ended the session between two statements (MagicStack/asyncpg issue 784).
    asyncpg.InternalClientError,
)
_CONTENDED: Final = (
    Contention,
    asyncpg.exceptions.QueryCanceledError,
    asyncpg.exceptions.TransactionRollbackError,
    asyncpg.exceptions.LockNotAvailableError,
    asyncpg.exceptions.UniqueViolationError,
    asyncpg.exceptions.ExclusionViolationError,
)


_NO_SERVER: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""What connecting and closing may raise."""

_VAIN: Final = (
    asyncpg.exceptions.InvalidAuthorizationSpecificationError,
    asyncpg.exceptions.InvalidCatalogNameError,
    asyncpg.exceptions.InsufficientPrivilegeError,
    ValueError,
)
"""At the start of a service: what no waiting mends, only somebody who corrects the URL or the server."""


def meaning(error: BaseException) -> Failure:
    """What a failed transaction means: wait for the server, try again, or look for the event at fault."""
    if isinstance(error, _CONTENDED):
        return Failure.CONTENDED
    if isinstance(error, _UNREACHABLE):
        return Failure.UNREACHABLE
    if isinstance(error, asyncpg.InterfaceError) and not isinstance(error, ValueError):
        return Failure.UNREACHABLE
    return Failure.DEFECT


def address(url: str) -> str:
    """Host, port and database of a URL, without its password: for messages."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2] or "localhost"
    return f"{place}{parts.path}" if ":" in place else f"{place}:5432{parts.path}"


async def connect(url: str) -> Connection:
    """One connection with the session settings of a service. Raises UnusableDatabase."""
    try:
        connection = await asyncpg.connect(url, server_settings=_SESSION, timeout=10)
    except _NO_SERVER as error:
        raise UnusableDatabase(f"PostgreSQL at {address(url)} cannot be used: {_reason(error)}") from None
    return cast(Connection, connection)


def _reason(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, asyncpg.exceptions.InvalidPasswordError):
        return f"{text}. Check user and password in the URL."
    if isinstance(error, asyncpg.exceptions.InvalidCatalogNameError):
        return f"{text}. Make it with `fieldbridge up` or with deploy/postgres/provision.sql, or check the URL."
    if isinstance(error, OSError):
        return f"{text}. Is the server running there?"
    return f"{text}."


class _Session(asyncpg.Connection):
    """A connection that keeps its session as it is: nothing here changes it outside a transaction.

    asyncpg's own reset at each return to the pool would cost a round trip to the server a batch, or several.
    """

    def get_reset_query(self) -> str:
        return ""


class Pool:
    """Connections to one service's database, few and counted.

    `repeatable`: what the service commits can be made anew, so that no commit has to wait for the disk. Should the
    server die, the last commits are lost, but all of each and none before another that is kept.
    """

    def __init__(self, url: str, most: int, *, repeatable: bool = False) -> None:
        self.url = url
        self._most = most
        self._session = _SESSION | ({"synchronous_commit": "off"} if repeatable else {})
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._barred = ""

    async def open(self, say: Callable[[str], None], wait: Callable[[float], Awaitable[None]]) -> None:
        """Connects, waiting for the server for as long as it takes. Raises UnusableDatabase where waiting is vain."""
        delay = 0.1
        while True:
            try:
                self._pool = await asyncpg.create_pool(
                    self.url,
                    min_size=1,
                    max_size=self._most,
                    connection_class=_Session,
                    server_settings=self._session,
                    timeout=10,
                    command_timeout=_LONGEST_ANSWER_SECONDS,
                    max_inactive_connection_lifetime=120,
                )
                version = await self._server_version()
            except _VAIN as error:
                raise UnusableDatabase(f"PostgreSQL at {address(self.url)} cannot be used: {_reason(error)}") from None
            except _NO_SERVER as error:
                await self.close()
                say(f"waiting for PostgreSQL at {address(self.url)}: {_reason(error)}")
                await wait(delay)
                delay = min(delay * 2, 2.0)
                continue
            if version < OLDEST_POSTGRES:
                raise UnusableDatabase(
                    f"PostgreSQL at {address(self.url)} is version {version}: {OLDEST_POSTGRES} or newer is needed."
                )
            return

    async def _server_version(self) -> int:
        async with self.connection() as db:
            return int(await db.fetchval("SELECT current_setting('server_version_num')::int")) // 10_000

    def bar(self, why: str) -> None:
        """From now on nobody gets a connection: nothing more is to be read from this database or written to it."""
        self._barred = why

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection, None]:
        """A connection from the pool; waits at most ten seconds for a free one."""
        if self._barred:
            raise ConnectionError(self._barred)
        if self._pool is None:
            raise ConnectionError("the pool of connections is not open")
        async with self._pool.acquire(timeout=10) as connection:
            yield cast(Connection, connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Connection, None]:
        """A connection inside a transaction that commits at the end, or rolls back where the body raises."""
        async with self.connection() as db, db.transaction():
            yield db

    def use(self) -> tuple[int, int]:
        """Connections in use, and open connections."""
        if self._pool is None:
            return 0, 0
        size = self._pool.get_size()
        return size - self._pool.get_idle_size(), size

    async def close(self) -> None:
        """Gives the connections back to the server."""
        pool, self._pool = self._pool, None
        if pool is not None:
            try:
                async with asyncio.timeout(0.5):
                    await pool.close()
            except _NO_SERVER:
                pool.terminate()
