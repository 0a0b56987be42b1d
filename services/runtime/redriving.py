"""Handles parked events again, in the sequence of their keys, inside one transaction."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.runtime import inbox, parking
from services.runtime.database import Database
from services.runtime.handling import BEHIND, REASONS, Consequences, Handling, Taken, clean
from services.runtime.inbox import UNSEEN, Stream
from services.runtime.parking import ParkedRow
from services.runtime.service import Known


@dataclass(frozen=True, slots=True)
class Redriven:
    """What became of parked events: how many are settled, how many stay parked, and the facts that followed."""

    settled: int
    still_parked: int


class Redriving:
    """The way of parked events through one service."""

    def __init__(self, handling: Handling) -> None:
        self._handling = handling

    async def redrive(self, db: Database, now: datetime, most: int) -> Redriven:
        """Handles again, in their order, the parked events of up to so many keys that hold a marked one.

        A discarded event counts as handled without effect once its turn has come. What only waited behind others goes
        on with them. With 0, a single event is handled, and those behind it the next time.
        """
        keys, rows, taken = await self._marked(db, max(1, most))
        streams = await inbox.streams(db, ((topic, key) for topic, key in keys if key is not None))
        awaited = _sequences_ahead(rows, taken, self._handling.sequence)
        later: list[ParkedRow] = []
        if most == 0:
            rows, later = _up_to_first(rows)
        events = [
            self._handling.event(one, now) for row in rows if (one := taken[row.id]).body is not None and row.goes_on
        ]
        known = await self._handling.service.decider.load(db, events) if events else None
        done = Consequences()
        settled: list[int] = []
        still: list[tuple[int, str, str]] = []
        stuck: dict[tuple[str, str], str] = {}
        for row in rows:
            one = taken[row.id]
            stream = one.stream
            verdict = self._redriven(row, one, streams, stuck, known, now, done, awaited)
            if verdict is None:
                settled.append(row.id)
                continue
            kind, detail = verdict
            if stream is not None and self._handling.holds_a_place(one, kind):
                stuck.setdefault(stream, "gap" if kind == "gap" else "refused")
            still.append((row.id, REASONS[kind], clean(detail)))
        for stream in set(streams) | set(done.moved):
            standing = done.moved.get(stream, streams.get(stream, UNSEEN))
            blocked = stuck.get(stream) or (streams.get(stream, UNSEEN).blocked if later else None)
            done.moved[stream] = Stream(standing.sequence, blocked)
        await inbox.move_on(db, {}, done.moved, await self._handling.save(db, done, now))
        await parking.settle(db, settled, still)
        await parking.mark_again(db, [row.id for row in later if row.goes_on])
        return Redriven(len(settled), len(still))

    async def refuse_first(self, db: Database, detail: str) -> None:
        """Parks the first marked event again, whose effects cannot be loaded or saved, and its key behind it."""
        _, rows, _ = await self._marked(db, 1)
        first, later = _up_to_first(rows)
        behind = [(row.id, parking.BEHIND, BEHIND) for row in later if row.goes_on and not row.discarded]
        await parking.settle(db, [], [*((row.id, parking.REFUSED, detail) for row in first[-1:]), *behind])

    async def _marked(
        self, db: Database, most: int
    ) -> tuple[list[tuple[str, str | None]], list[ParkedRow], dict[int, Taken]]:
        """Keys with a marked event, locked, and all their parked events in the order they are to be handled in."""
        # A key is held before its parked events are read: the pump, which parks under the same lock, can add none.
        keys = await parking.marked_keys(db, most)
        await inbox.hold_streams(db, ((topic, key) for topic, key in keys if key is not None))
        rows = await parking.of_keys(db, keys, most)
        taken = {row.id: self._taken(row) for row in rows}
        places: dict[int, tuple[int, int]] = {}
        highest: dict[tuple[str, str | None], int] = defaultdict(int)
        for row in rows:
            # Where a sequence cannot be read, the event's place is where it stands in the log.
            stream = (row.record.topic, row.key)
            sequence = self._handling.sequence(taken[row.id])
            highest[stream] = max(highest[stream], sequence or 0)
            places[row.id] = (sequence or highest[stream], row.id)
        return keys, sorted(rows, key=lambda row: places[row.id]), taken

    def _taken(self, row: ParkedRow) -> Taken:
        stream = None if row.key is None else (row.record.topic, row.key)
        return self._handling.take(row.record)._replace(stream=stream)

    def _redriven(
        self,
        row: ParkedRow,
        one: Taken,
        streams: dict[tuple[str, str], Stream],
        stuck: dict[tuple[str, str], str],
        known: Known | None,
        now: datetime,
        done: Consequences,
        awaited: Mapping[tuple[str, str], list[int]],
    ) -> tuple[str, str] | None:
        """Why a parked event stays parked; None where it is settled."""
        stream = one.stream
        if stream is not None and stream in stuck:
            if not row.discarded:
                return ("behind", BEHIND)
            if self._handling.sequenced(one):
                # Were it settled now, the events before it would look as if they had been handled.
                return ("discarded", BEHIND)
        if not row.goes_on and not row.discarded:
            return (_KIND_OF_REASON[row.reason], row.detail)
        sequence = self._handling.sequence(one)
        standing = done.moved.get(stream, streams.get(stream, UNSEEN)) if stream is not None else UNSEEN
        if sequence is not None and sequence <= standing.sequence:
            return None
        if not row.discarded:
            if one.unreadable is not None:
                return ("unreadable", one.unreadable)
            if sequence is not None and sequence > standing.sequence + 1:
                return ("gap", f"sequence {sequence} came, {standing.sequence + 1} is missing")
            if one.body is not None:
                verdict = self._handling.decide(self._handling.event(one, now), known, done)
                if verdict is not None:
                    return verdict
        elif stream is not None and sequence is None and self._handling.sequenced(one):
            # Its sequence cannot be read: it was the missing one if a later event of the key waits for one.
            ahead = [other for other in awaited.get(stream, []) if other > standing.sequence]
            sequence = standing.sequence + 1 if ahead and min(ahead) > standing.sequence + 1 else None
        if stream is not None and sequence is not None:
            done.moved[stream] = Stream(max(sequence, standing.sequence))
        return None


_KIND_OF_REASON: Final = {
    parking.UNREADABLE: "unreadable",
    parking.REFUSED: "refuse",
    parking.GAP: "gap",
    parking.BEHIND: "behind",
    parking.DISCARDED: "discarded",
}


def _up_to_first(rows: Sequence[ParkedRow]) -> tuple[list[ParkedRow], list[ParkedRow]]:
    """The rows up to the first that is to be handled or discarded, and those after it."""
    end = next((nth for nth, row in enumerate(rows, 1) if row.goes_on or row.state == "discard"), len(rows))
    return list(rows[:end]), list(rows[end:])


def _sequences_ahead(
    rows: Sequence[ParkedRow], taken: Mapping[int, Taken], sequence_of: Callable[[Taken], int | None]
) -> dict[tuple[str, str], list[int]]:
    ahead: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in rows:
        one = taken[row.id]
        sequence = sequence_of(one)
        if one.stream is not None and sequence is not None:
            ahead[one.stream].append(sequence)
    return ahead
