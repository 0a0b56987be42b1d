"""The operator of a schedule: marks parked events while the workers work, and in the end all of them."""

import json
from collections.abc import Sequence
from typing import Final

from services.runtime import parking
from services.runtime.database import Database, Failure, meaning
from services.runtime.parking import ParkedRow
from tests.schedules.actors import Actor
from tests.schedules.drawn_log import Place, Scenario
from tests.schedules.lines import Lines
from tests.schedules.workers import Surroundings

_REDRIVE_ALL: Final = 1
_REDRIVE_ONE: Final = 2
_DISCARD_ONE: Final = 3


class Operator:
    """Looks at what is parked whenever something has changed, and remembers what was discarded."""

    def __init__(self, around: Surroundings, scenario: Scenario) -> None:
        self.discarded: set[Place] = set()
        """What must not be applied."""
        self.perhaps_discarded: set[Place] = set()
        """What was discarded and then marked otherwise, or comes a second time: it may be applied or not."""
        self._around = around
        self._scenario = scenario

    async def work(self, actor: Actor) -> None:
        """Does so until the schedule ends; tries again where it is told to."""
        lines = Lines(self._around.interleaving, actor, "")
        while True:
            await actor.rests("looks at what is parked")
            while not await self._looked(lines):
                await actor.yields("looks again")

    async def mark_all(self, db: Database) -> None:
        """Discards what can never be read; all else is to be handled again."""
        rows = await parking.list_parked(db)
        unreadable = [row for row in rows if not _is_json(row.record.value)]
        others = [row for row in rows if row not in unreadable]
        if others:
            await self._mark(db, "redrive", others)
        if unreadable:
            await self._mark(db, "discard", unreadable)

    async def _looked(self, lines: Lines) -> bool:
        try:
            async with lines.connection() as db:
                rows = await parking.list_parked(db)
                if any(row.state != "parked" for row in rows):
                    self._around.wake("redriver")
                if rows and self._around.exploring:
                    await self._mark_some(db, rows)
        except Exception as error:
            if meaning(error) is not Failure.CONTENDED:
                raise
            return False
        return True

    async def _mark_some(self, db: Database, rows: Sequence[ParkedRow]) -> None:
        choices = self._around.choices
        disposable = _disposable(rows)
        act = choices.among(4 if disposable else 3)
        if act == _REDRIVE_ALL:
            await self._mark(db, "redrive", rows)
        elif act == _REDRIVE_ONE:
            await self._mark(db, "redrive", [rows[choices.among(len(rows))]])
        elif act == _DISCARD_ONE:
            await self._mark(db, "discard", [disposable[choices.among(len(disposable))]])

    async def _mark(self, db: Database, state: str, rows: Sequence[ParkedRow]) -> None:
        marked = await parking.mark(db, state, ids=[row.id for row in rows])
        self._around.interleaving.say(f"operator: {state} {', '.join(_named(row) for row in rows)}: {marked} marked")
        if state == "discard" and marked:
            places = {_place(row) for row in rows}
            again = {place for place in places if self._scenario.comes_again(*place)}
            self.discarded |= places - again
            self.perhaps_discarded |= again
        if state == "redrive":
            keys = {(row.record.topic, row.record.key) for row in rows}
            undone = {place for place in self.discarded if (place[0], self._scenario.record(*place).key) in keys}
            self.discarded -= undone
            self.perhaps_discarded |= undone
        self._around.wake("redriver")


def _disposable(rows: Sequence[ParkedRow]) -> list[ParkedRow]:
    """What may be discarded without giving up on an event that is still to come.

    Whoever discards the first of a key that waits for a missing event gives up on that one, and so does whoever
    discards again what was discarded and waits.
    """
    first: dict[tuple[str, str | None], ParkedRow] = {}
    for row in sorted(rows, key=lambda row: (_sequence(row), row.id)):
        first.setdefault((row.record.topic, row.key), row)
    waiting = {row.id for row in first.values() if row.reason == parking.GAP}
    return [row for row in rows if row.id not in waiting and row.reason != parking.DISCARDED]


def _sequence(row: ParkedRow) -> int:
    return int(dict(row.record.headers).get("ce_sequence") or b"0")


def _place(row: ParkedRow) -> Place:
    return row.record.topic, row.record.partition, row.record.offset


def _named(row: ParkedRow) -> str:
    return f"{row.key} {row.record.topic}-{row.record.partition}@{row.record.offset} ({row.reason})"


def _is_json(value: bytes | None) -> bool:
    try:
        json.loads(value or b"")
    except ValueError:
        return False
    return True
