"""`fieldbridge positions`: where a service reads its topics, and going on where its position is no place in the log."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

import typer

from schemas.topics import SERVICES, TOPICS
from services.console import wire
from services.console.screen import AsJson, out, say, show_json, table
from services.console.stack import pausing
from services.console.surroundings import Stack, here
from services.console.trouble import Trouble
from services.runtime import database, inbox
from services.runtime.database import Connection
from services.runtime.topiclogs import TopicLog

_REBUILDABLE: Final = "reporting"
"""It publishes nothing, so an older position of it is only read again."""


class Standing(StrEnum):
    """How a position stands to its log; but for the first, the names of what halts a service."""

    IN_THE_LOG = "in the log"
    TOPIC_RECREATED = "topic_recreated"
    PARTITIONS_CHANGED = "partitions_changed"
    POSITION_BEFORE_LOG_START = "position_before_log_start"
    POSITION_PAST_LOG_END = "position_past_log_end"
    DATABASE_WENT_BACK = "database_went_back"


@dataclass(frozen=True, slots=True)
class Position:
    """Where a service reads on in a partition. `log_start` and `log_end` are offsets of the log as it is now."""

    topic: str
    partition: int
    next_offset: int
    log_start: int
    log_end: int
    standing: Standing
    committed: int | None
    """What the group has told Kafka last."""

    @property
    def moved(self) -> int:
        """Where it would read on: the next place that there is in the log."""
        match self.standing:
            case Standing.TOPIC_RECREATED | Standing.POSITION_BEFORE_LOG_START:
                return self.log_start
            case Standing.POSITION_PAST_LOG_END:
                return self.log_end
            case _:
                return self.next_offset

    @property
    def lost(self) -> int:
        """Records that were deleted before they were handled, as far as that can be told."""
        return self.log_start - self.next_offset if self.standing is Standing.POSITION_BEFORE_LOG_START else 0


def positions(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help=f"One of {', '.join(SERVICES)}.")],
    move: Annotated[
        bool, typer.Option("--move", help="Read on at the next place there is; what was deleted is given up.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show where a service reads on. Exit status 1 if a position is no place in its log, which halts the service."""
    if service not in SERVICES:
        raise Trouble(f"There is no service {service!r}: the services are {', '.join(SERVICES)}.")
    topics = [topic.name for topic in TOPICS if service in topic.readers]
    surroundings = here()
    stack = surroundings.stack()
    found = asyncio.run(look(stack, service, topics))
    outside = [one for one in found if one.standing is not Standing.IN_THE_LOG]
    if move and outside:
        with pausing(surroundings.home, service, say):
            outside = asyncio.run(go_on(stack, service, topics))
    if as_json:
        show_json({"positions": found, "moved": [(one.topic, one.partition, one.moved) for one in outside if move]})
    else:
        _show(service, found)
        _advise(service, outside, moved=move)
    if outside and not move:
        raise typer.Exit(1)


async def look(stack: Stack, service: str, topics: Sequence[str]) -> list[Position]:
    """Every position of a service in these topics. Raises Trouble."""
    connection = await database.connect(stack.database(service))
    try:
        async with wire.group(stack, service, topics) as group:
            return (await _read(connection, service, group, topics))[0]
    finally:
        await connection.close()


async def go_on(stack: Stack, service: str, topics: Sequence[str]) -> list[Position]:
    """Moves every position that is no place in its log to the next that is; returns those, as they were.

    Raises Trouble, also where the database is older than what was published from it: no position mends that.
    """
    connection = await database.connect(stack.database(service))
    try:
        async with wire.group(stack, service, topics) as group:
            found, logs = await _read(connection, service, group, topics)
            outside = [one for one in found if one.standing is not Standing.IN_THE_LOG]
            if any(one.standing is Standing.DATABASE_WENT_BACK for one in outside):
                raise Trouble(
                    f"The database of {service} is older than facts that were published from it: restore its latest "
                    "state. To move a position would decide anew, or skip, what others have acted on."
                )
            # An offset that was committed beyond the position would count as a sign of an older database.
            back = {(one.topic, one.partition): one.moved for one in outside if (one.committed or 0) > one.moved}
            if back:
                await group.commit(back)
            recreated = {one.topic for one in outside if one.standing is Standing.TOPIC_RECREATED}
            async with connection.transaction():
                await inbox.read_on(
                    connection,
                    recreated,
                    {topic: log.topic_log.partitions for topic, log in logs.items() if topic not in recreated},
                    {(one.topic, one.partition): one.moved for one in outside if one.topic not in recreated},
                )
            return outside
    finally:
        await connection.close()


async def _read(
    connection: Connection, service: str, group: wire.Group, topics: Sequence[str]
) -> tuple[list[Position], dict[str, wire.Log]]:
    # A service that reads on meanwhile is past an end that was read before, or an offset that was committed after.
    before = await _next_offsets(connection, topics)
    logs = await group.logs(topics)
    now = await _next_offsets(connection, topics)
    rows = await connection.fetch("SELECT topic, id, partitions FROM runtime.followed_log")
    followed = {row["topic"]: TopicLog(row["id"], row["partitions"]) for row in rows}
    found: list[Position] = []
    for (topic, number), position in now.items():
        log = logs[topic]
        standing = Standing.IN_THE_LOG
        if log.topic_log.id != followed[topic].id:
            standing = Standing.TOPIC_RECREATED
        elif position < log.starts[number]:
            standing = Standing.POSITION_BEFORE_LOG_START
        elif before.get((topic, number), 0) > log.ends[number]:
            standing = Standing.POSITION_PAST_LOG_END
        elif position < log.committed.get(number, 0) and service != _REBUILDABLE:
            standing = Standing.DATABASE_WENT_BACK
        elif log.topic_log != followed[topic]:
            standing = Standing.PARTITIONS_CHANGED
        start, end, committed = log.starts.get(number, 0), log.ends.get(number, 0), log.committed.get(number)
        found.append(Position(topic, number, position, start, end, standing, committed))
    return found, logs


async def _next_offsets(connection: Connection, topics: Sequence[str]) -> dict[tuple[str, int], int]:
    rows = await connection.fetch(
        'SELECT topic, "partition", next_offset FROM runtime.consumer_position WHERE topic = ANY($1) '
        'ORDER BY topic, "partition"',
        topics,
    )
    return {(row["topic"], row["partition"]): row["next_offset"] for row in rows}


def _show(service: str, found: Sequence[Position]) -> None:
    rows = [
        (one.topic, one.partition, one.next_offset, one.log_start, one.log_end, one.standing.value) for one in found
    ]
    names = ("topic", "partition#", "position#", "log start#", "log end#", "standing")
    out.print(table(f"Where {service} reads on", names, rows))


def _advise(service: str, outside: Sequence[Position], *, moved: bool) -> None:
    lost = sum(one.lost for one in outside)
    if outside and moved:
        say(f"{len(outside)} positions were moved; {service} reads on.")
        if lost:
            say(
                f"{lost} records were deleted before they were handled. What follows them in a sequence will be parked "
                f"as `gap`: see `fieldbridge parked list --service {service}`."
            )
    elif outside:
        say(
            f"{len(outside)} positions are no place to read on"
            + (f", and {lost} records were deleted before they were handled" if lost else "")
            + f". If nothing can be restored, `fieldbridge positions {service} --move` has it read on."
        )
