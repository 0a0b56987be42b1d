"""`fieldbridge replay reporting`: empties the projections and has them made anew from Kafka's logs."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Annotated, Final

import typer

from schemas.topics import TOPICS
from services.console import wire
from services.console.screen import AsJson, out, progress, say, show_json, table
from services.console.stack import pausing
from services.console.surroundings import Stack, here
from services.console.trouble import Trouble
from services.reporting import store
from services.runtime import database, inbox
from services.runtime.database import Connection

_POLL_SECONDS: Final = 0.25
_FIRST_SECONDS: Final = 30.0
"""How long it may take to catch up before the tables are emptied."""
_LONGEST_DIGEST_SECONDS: Final = 300
_REPLAYABLE: Final = "reporting"
_READ: Final = tuple(topic.name for topic in TOPICS if _REPLAYABLE in topic.readers)

Ends = dict[tuple[str, int], int]


@dataclass(frozen=True, slots=True)
class Replayed:
    """How a replay went. `before` and `after` are digests by table; they can be compared if nothing came in between."""

    events: int
    seconds: float
    before: dict[str, str]
    after: dict[str, str]
    comparable: bool

    @property
    def identical(self) -> bool:
        return self.before == self.after


def replay(
    service: Annotated[
        str, typer.Argument(metavar="SERVICE", help="Only reporting can be replayed: it publishes nothing.")
    ],
    wait: Annotated[float, typer.Option(help="Seconds to wait until it has caught up.", min=1)] = 600.0,
    as_json: AsJson = False,
) -> None:
    """Make reporting's tables anew from the log, and say whether they are the same. Exit status 1 if they are not."""
    if service != _REPLAYABLE:
        raise Trouble(f"Only reporting can be replayed: {service} would decide and publish everything again.")
    surroundings = here()
    done = asyncio.run(_replay(surroundings.home, surroundings.stack(), wait))
    if as_json:
        show_json({"events": done.events, "seconds": done.seconds, "identical": done.identical, "tables": done.after})
    else:
        rows = [
            (name, digest[:16], "identical" if done.before.get(name) == digest else "different")
            for name, digest in done.after.items()
        ]
        rate = done.events / max(done.seconds, 0.001)
        out.print(
            table(
                f"{done.events:,} events in {done.seconds:.1f} s ({rate:,.0f}/s)",
                ("table", "digest", "as before"),
                rows,
            )
        )
    if not done.comparable:
        say("New events arrived meanwhile, so the tables cannot be the same: replay again when nothing moves.")
    elif not done.identical:
        raise typer.Exit(1)


async def _replay(home: Path, stack: Stack, seconds: float) -> Replayed:
    deadline = monotonic() + seconds
    connection = await database.connect(stack.database(_REPLAYABLE))
    try:
        async with wire.follower(stack, _READ) as logs:
            with progress() as shown:

                def tell(done: int, all_: int) -> None:
                    line = f"{done:,} of {all_:,} events"
                    shown.update(line, line)

                await _caught_up(connection, logs, min(deadline, monotonic() + _FIRST_SECONDS), tell)
                ends = await logs.ends()
                before = await digest_of(connection)
                began = monotonic()
                # A reader that has nothing to read would not notice that its positions are gone.
                with pausing(home, _REPLAYABLE, say):
                    async with connection.transaction():
                        await inbox.forget(connection)
                        await store.clear(connection)
                await _caught_up(connection, logs, deadline, tell)
                took = monotonic() - began
        comparable = await _unchanged(stack, ends)
        events = sum(ends.values()) - sum(logs.starts.values())
        return Replayed(events, took, before, await digest_of(connection), comparable)
    finally:
        await connection.close()


async def digest_of(connection: Connection) -> dict[str, str]:
    """One hash per table of reporting, however long its rows take to read."""
    async with connection.transaction():
        await connection.execute(f"SET LOCAL statement_timeout = '{_LONGEST_DIGEST_SECONDS}s'")
        return await store.digest(connection)


async def _caught_up(
    connection: Connection, logs: wire.Follower, deadline: float, tell: Callable[[int, int], None]
) -> None:
    """Waits until reporting stands at the end of every log. Raises Trouble where it takes too long."""
    while True:
        ends = await logs.ends()
        rows = await connection.fetch('SELECT topic, "partition", next_offset FROM runtime.consumer_position')
        positions = {(row["topic"], row["partition"]): row["next_offset"] for row in rows}
        start = logs.starts
        done = sum(positions.get(slot, start[slot]) - start[slot] for slot in ends)
        tell(done, sum(ends.values()) - sum(start.values()))
        if all(positions.get(slot, start[slot]) >= end for slot, end in ends.items()):
            return
        if monotonic() > deadline:
            raise Trouble("Reporting has not caught up in time: is it running? See `fieldbridge status`.")
        await asyncio.sleep(_POLL_SECONDS)


async def _unchanged(stack: Stack, ends: Ends) -> bool:
    async with wire.follower(stack, _READ) as logs:
        return await logs.ends() == ends
