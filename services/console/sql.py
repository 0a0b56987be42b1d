"""The services' databases as an observer sees them: plain connections that only ask."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar, cast
from urllib.parse import urlsplit

import asyncpg

from schemas.topics import SERVICES
from services.console.surroundings import Stack
from services.console.trouble import Trouble

T = TypeVar("T")


class Asked(Protocol):
    """A database that is asked."""

    async def fetch(self, query: str, *args: object) -> Sequence[Mapping[str, Any]]: ...

    async def fetchval(self, query: str, *args: object) -> Any: ...


@asynccontextmanager
async def asking(stack: Stack, service: str) -> AsyncGenerator[Asked]:
    """A connection to a service's database. Raises Trouble where it cannot be asked."""
    url = stack.database(service)
    where = f"{urlsplit(url).hostname}:{urlsplit(url).port or 5432}"
    try:
        connection = await asyncpg.connect(url, timeout=10, server_settings={"statement_timeout": "60s"})
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Trouble(
            f"The database of {service} at {where} cannot be asked ({_said(error)}): start it with `fieldbridge up`, "
            "or check its URL."
        ) from None
    try:
        yield cast(Asked, connection)
    except asyncpg.UndefinedTableError as error:
        raise Trouble(
            f"The database of {service} at {where} is not set up ({_said(error)}): run `fieldbridge migrate`."
        ) from None
    finally:
        await connection.close(timeout=5)


async def ask(stack: Stack, service: str, question: Callable[[Asked], Awaitable[T]]) -> T:
    """The answer of one service's database. Raises Trouble."""
    async with asking(stack, service) as db:
        return await question(db)


async def ask_each(stack: Stack, question: Callable[[Asked], Awaitable[T]]) -> dict[str, T]:
    """The answer of each service's database. Raises Trouble."""
    return {service: await ask(stack, service, question) for service in SERVICES}


def _said(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
