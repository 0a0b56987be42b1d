"""`fieldbridge parked`: events that a service could not handle, for an operator to look at, redrive or discard."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Annotated, Any, Final, TypeVar

import typer

from schemas.topics import SERVICES
from services.console.screen import AsJson, out, progress, say, show_json, table
from services.console.surroundings import Stack, here
from services.console.trouble import Trouble
from services.runtime import database
from services.runtime.database import Connection
from services.runtime.parking import ParkedRow, count_parked, find_parked, list_parked, mark

_POLL_SECONDS: Final = 0.25
_LONGEST_VALUE: Final = 20_000
_MOST_LISTED: Final = 10_000

T = TypeVar("T")

Service = Annotated[str | None, typer.Option(help=f"Only this service: {', '.join(SERVICES)}.")]
Key = Annotated[str | None, typer.Option(help="Only events of this key, such as a request id.")]
Ids = Annotated[list[int] | None, typer.Option("--id", help="These events of the service; may be repeated.")]
Everything = Annotated[bool, typer.Option("--all", help="All parked events.")]
Wait = Annotated[float, typer.Option(help="Seconds to wait for the running service.", min=0)]

app: Final = typer.Typer(help="Events that could not be handled.", no_args_is_help=True)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the events of one service that were marked."""

    service: str
    marked: int
    settled: int
    """Handled, or discarded: no longer parked."""
    parked_again: int
    waiting: int
    """Not looked at by the service yet."""


@app.command("list")
def list_(service: Service = None, key: Key = None, as_json: AsJson = False) -> None:
    """List parked events, oldest first."""

    async def look(db: Connection, _: str) -> tuple[list[ParkedRow], int]:
        return await list_parked(db, key=key, most=_MOST_LISTED), await count_parked(db, key=key)

    looked = asyncio.run(_on(here().stack(), service, look))
    found = {name: rows for name, (rows, _) in looked.items()}
    if as_json:
        show_json([_described(name, row) for name, rows in found.items() for row in rows])
    else:
        _show_list(found)
    for name, (rows, count) in looked.items():
        if count > len(rows):
            say(f"and {count - len(rows):,} more of {name}: the oldest {len(rows):,} are shown.")


def _show_list(found: Mapping[str, list[ParkedRow]]) -> None:
    rows = [
        (name, row.id, row.record.topic, f"{row.record.partition}/{row.record.offset}", row.key, row.reason, row.detail)
        for name, rows in found.items()
        for row in rows
    ]
    if rows:
        out.print(table("Parked events", ("service", "id#", "topic", "place", "key", "reason", "detail"), rows))
    else:
        say("Nothing is parked.")


@app.command()
def show(
    event: Annotated[int, typer.Argument(metavar="ID", help="Id from `parked list`.")],
    service: Annotated[str, typer.Option(help="The service that parked it.")],
    value: Annotated[bool, typer.Option("--value", help="Show its bytes, too: they may hold personal data.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one parked event with its headers."""
    row = asyncio.run(_on(here().stack(), service, lambda db, _: find_parked(db, event)))[service]
    if row is None:
        raise Trouble(f"{service} has no parked event {event}: see `fieldbridge parked list --service {service}`.")
    said = _described(service, row) | {"headers": {name: _text(content) for name, content in row.record.headers}}
    if value:
        said["value"] = _text(row.record.value)[:_LONGEST_VALUE]
    if as_json:
        show_json(said)
        return
    headers = said.pop("headers")
    out.print(table(f"Parked by {service}", ("what", "is"), [*said.items(), *headers.items()]))


@app.command()
def redrive(
    service: Service = None,
    key: Key = None,
    ids: Ids = None,
    everything: Everything = False,
    wait: Wait = 30.0,
    as_json: AsJson = False,
) -> None:
    """Have parked events handled again, in sequence. Exit status 1 if some stay parked."""
    _carry_out("redrive", service, key, ids, everything, wait, as_json)


@app.command()
def discard(
    service: Service = None,
    key: Key = None,
    ids: Ids = None,
    everything: Everything = False,
    wait: Wait = 30.0,
    as_json: AsJson = False,
) -> None:
    """Give parked events up: they count as handled without effect. A copy stays in the dead-letter topic."""
    _carry_out("discard", service, key, ids, everything, wait, as_json)


def _carry_out(
    state: str,
    service: str | None,
    key: str | None,
    ids: list[int] | None,
    everything: bool,
    wait: float,
    as_json: bool,
) -> None:
    if sum((bool(key), bool(ids), everything)) != 1:
        raise Trouble("Say which events: with --id and --service, with --key, or with --all.")
    if ids and service is None:
        raise Trouble("Ids are each service's own: say which with --service.")
    outcomes = asyncio.run(_mark_and_wait(here().stack(), service, state, ids, key, wait))
    if as_json:
        show_json(outcomes)
    else:
        verb = "redriven" if state == "redrive" else "discarded"
        rows = [(one.service, one.marked, one.settled, one.parked_again, one.waiting) for one in outcomes]
        out.print(table("Parked events", ("service", "marked#", f"{verb}#", "parked again#", "waiting#"), rows))
    waiting = sum(one.waiting for one in outcomes)
    if waiting:
        raise Trouble(
            f"{waiting} events stay marked until their service looks at them: is it running? `fieldbridge status`."
        )
    if not any(one.marked for one in outcomes):
        raise Trouble("No such event is parked: see `fieldbridge parked list`.")
    if any(one.parked_again for one in outcomes):
        raise typer.Exit(1)


async def _mark_and_wait(
    stack: Stack, service: str | None, state: str, ids: list[int] | None, key: str | None, seconds: float
) -> list[Outcome]:
    async def act(db: Connection, name: str) -> Outcome:
        async with db.transaction():
            await mark(db, state, ids=ids, key=key)
            marked = {row["id"] for row in await db.fetch("SELECT id FROM runtime.parked WHERE state <> 'parked'")}
        return await _outcome(db, name, marked, seconds)

    return list((await _on(stack, service, act)).values())


async def _outcome(db: Connection, service: str, marked: set[int], seconds: float) -> Outcome:
    deadline = monotonic() + seconds
    with progress() as shown:
        while True:
            rows = await db.fetch("SELECT id, state FROM runtime.parked WHERE id = ANY($1)", sorted(marked))
            waiting = sum(row["state"] != "parked" for row in rows)
            line = f"{service}: {len(marked) - waiting} of {len(marked)}"
            shown.update(line, line)
            if not waiting or monotonic() > deadline:
                return Outcome(service, len(marked), len(marked) - len(rows), len(rows) - waiting, waiting)
            await asyncio.sleep(_POLL_SECONDS)


async def _on(stack: Stack, service: str | None, act: Callable[[Connection, str], Awaitable[T]]) -> dict[str, T]:
    if service is not None and service not in SERVICES:
        raise Trouble(f"There is no service {service!r}: the services are {', '.join(SERVICES)}.")
    done: dict[str, T] = {}
    for name in SERVICES if service is None else (service,):
        connection = await database.connect(stack.database(name))
        try:
            done[name] = await act(connection, name)
        finally:
            await connection.close()
    return done


def _described(service: str, row: ParkedRow) -> dict[str, Any]:
    return {
        "service": service,
        "id": row.id,
        "topic": row.record.topic,
        "partition": row.record.partition,
        "offset": row.record.offset,
        "key": row.key,
        "reason": row.reason,
        "detail": row.detail,
        "recorded_at": row.record.recorded_at.isoformat(),
        "parked_at": row.parked_at.isoformat(),
        "state": row.state,
    }


def _text(content: bytes | None) -> str:
    if content is None:
        return "null"
    try:
        return json.dumps(json.loads(content), ensure_ascii=False) if content[:1] in b"{[" else content.decode()
    except ValueError:
        return repr(content)
