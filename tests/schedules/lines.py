"""The product's connections in a schedule: each statement is a step, sent over a session of a real server."""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Final, cast

import asyncpg

from services.runtime.database import Connection, Pool, Row
from tests.schedules.actors import Actor, Sent, Session
from tests.schedules.interleaving import Interleaving

_VERB: Final = re.compile(r"\b(SELECT|INSERT|UPDATE|DELETE|TRUNCATE|SET)\b")
_TABLE: Final = re.compile(r"(?:FROM|INTO|UPDATE|JOIN) (?:runtime\.)?(?!unnest|LATERAL)(\w+)")


class Lines(Pool):
    """The pool of one actor."""

    def __init__(self, interleaving: Interleaving, actor: Actor, author: str) -> None:
        super().__init__("postgresql://", most=0)
        self._interleaving = interleaving
        self._actor = actor
        self._author = author

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Connection, None]:
        session = self._interleaving.take(self._actor)
        try:
            yield Line(self._interleaving, self._actor, session, self._author)
        finally:
            self._interleaving.give_back(self._actor, session)


class Line:
    """One connection of an actor."""

    def __init__(self, interleaving: Interleaving, actor: Actor, session: Session, author: str) -> None:
        self._interleaving = interleaving
        self._actor = actor
        self._session = session
        self._author = author
        self._connection = session.connection

    async def execute(self, query: str, *args: object) -> str:
        return await self._send(query, lambda: self._connection.execute(query, *args))

    async def fetch(self, query: str, *args: object) -> Sequence[Row]:
        return await self._send(query, lambda: self._connection.fetch(query, *args))

    async def fetchrow(self, query: str, *args: object) -> Row | None:
        return await self._send(query, lambda: self._connection.fetchrow(query, *args))

    async def fetchval(self, query: str, *args: object) -> Any:
        return await self._send(query, lambda: self._connection.fetchval(query, *args))

    async def copy_records_to_table(
        self,
        table_name: str,
        *,
        records: Iterable[Sequence[object]],
        columns: Sequence[str],
        schema_name: str | None = None,
    ) -> str:
        rows = [tuple(record) for record in records]
        return await self._send(
            f"INSERT INTO {table_name}",
            lambda: self._connection.copy_records_to_table(
                table_name, records=rows, columns=list(columns), schema_name=cast(str, schema_name)
            ),
        )

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[None, None]:
        self._check()
        await self._connection.execute("BEGIN")
        self._session.in_transaction = True
        try:
            yield
        except BaseException:
            if self._is_ours:
                await self._interleaving.roll_back(self._session)
            raise
        await self._send("COMMIT", lambda: self._connection.execute("COMMIT"), commits=True)

    async def close(self) -> None:
        """Sessions outlive their lines."""

    @property
    def _is_ours(self) -> bool:
        return not self._actor.dead and self._session in self._actor.sessions

    def _check(self) -> None:
        if not self._is_ours:
            raise asyncpg.InterfaceError("connection is closed")

    async def _send(self, query: str, run: Callable[[], Awaitable[Any]], *, commits: bool = False) -> Any:
        self._check()
        if query.startswith("SET LOCAL"):
            return await run()
        return await self._actor.send(_label(query), Sent(self._session, run, commits, self._author))


@cache
def _label(query: str) -> str:
    """What a statement does, in a few words."""
    verbs = _VERB.findall(query)
    tables = list(dict.fromkeys(_TABLE.findall(query)))
    return " ".join([*verbs[:1], *tables[:1]]) if verbs else " ".join(query.split())[:40]
