"""Handles a batch of records inside one transaction: read, sort out, load, decide one by one, save, publish, park.

An event is handled once: facts by the sequence of their key, messages without a sequence by source and id. An event
that cannot be handled is parked with every later event of its key behind it; all others go through.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from schemas.envelope import Envelope, NotAnEvent, read
from services.runtime import inbox, outbox, parking
from services.runtime.database import Database
from services.runtime.inbox import Slot, Stream, Tally
from services.runtime.logs import describe
from services.runtime.parking import Parked, ParkedRow
from services.runtime.rawrecords import any_stray_bytes
from services.runtime.records import Record
from services.runtime.service import Event, FactBody, Known, Service

_LONGEST_DETAIL: Final = 2000
_BEHIND: Final = "an earlier event of this key is parked"


@dataclass(frozen=True, slots=True)
class Taken:
    """A record after reading. `envelope` is None where it is no event; `unreadable` says why it cannot be handled."""

    record: Record
    key: str | None
    envelope: Envelope | None = None
    body: object | None = None
    unreadable: str | None = None

    @property
    def stream(self) -> tuple[str, str] | None:
        return None if self.key is None else (self.record.topic, self.key)


@dataclass(slots=True)
class _Consequences:
    """What a batch has led to so far, before anything is written."""

    changes: Known | None = None
    facts: list[outbox.Consequence] = field(default_factory=list[outbox.Consequence])
    moved: dict[tuple[str, str], Stream] = field(default_factory=dict[tuple[str, str], Stream])

    def absorb(self, changes: Known) -> None:
        if self.changes is None:
            # A copy: deciders may return one shared value whenever nothing changes.
            self.changes = changes.copied()
        else:
            self.changes.absorb(changes)


@dataclass(frozen=True, slots=True)
class Handled:
    """What became of a batch."""

    tallies: dict[Slot, Tally]
    facts: list[FactBody]
    parked: list[Parked]
    latencies: dict[str, list[float]]
    """By topic, the age in seconds of each event applied."""


@dataclass(frozen=True, slots=True)
class Redriven:
    """What became of parked events: how many are settled, how many stay parked, and the facts that followed."""

    settled: int
    still_parked: int
    facts: list[FactBody]


class Handling:
    """The path of records through one service."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.source = f"/fieldbridge/{service.name}"
        self._reads = {reads.topic.name: reads for reads in service.reads}

    def take(self, record: Record) -> Taken:
        """Reads the envelope and the body of a record; whatever the bytes are, this does not raise."""
        key = _text(record.key)
        if any_stray_bytes(record.headers):
            return Taken(record, key, unreadable="not a CloudEvent: the name of a header is not UTF-8")
        try:
            envelope, data = read(record.headers, record.value)
        except NotAnEvent as error:
            return Taken(record, key, unreadable=f"not a CloudEvent: {error}")
        key = key if key is not None or record.key is not None else (envelope.subject or None)
        reads = self._reads[record.topic]
        if reads.topic.sequenced and (envelope.sequence is None or key is None):
            return Taken(record, key, unreadable="an event of this topic needs a key and the attribute 'sequence'")
        try:
            return Taken(record, key, envelope, reads.parse(envelope, data))
        except Exception as error:
            return Taken(record, key, envelope, unreadable=f"the body breaks its schema: {describe(error)}")

    async def handle(self, db: Database, taken: Sequence[Taken], now: datetime, refuse: str | None = None) -> Handled:
        """Handles records in their order and writes everything that follows, positions apart.

        With `refuse`, no decision is made: every event that would be decided is parked with this detail instead.
        """
        streams = await inbox.streams(db, (one.stream for one in taken if one.stream is not None))
        fresh = await inbox.remember_messages(
            db, [(one.envelope.source, one.envelope.id) for one in taken if one.envelope and not self._sequenced(one)]
        )
        events = [
            self._event(one, one.envelope, now)
            for one in taken
            if one.envelope is not None
            and one.body is not None
            and not self._repeated(one, one.envelope, streams, fresh)
        ]
        known = await self.service.decider.load(db, events) if events and refuse is None else None
        done = _Consequences()
        tallies: dict[Slot, Tally] = defaultdict(Tally)
        parked: list[Parked] = []
        latencies: dict[str, list[float]] = defaultdict(list)
        filled: list[tuple[str, str]] = []
        for one in taken:
            tally = tallies[one.record.topic, one.record.partition]
            verdict = self._sort_out(one, streams, fresh)
            if verdict is not None and verdict[0] == "duplicate":
                tally.duplicate += 1
                continue
            if verdict is None and one.body is not None:
                verdict = ("refuse", refuse) if refuse is not None else self._decide(one, known, now, done)
            if verdict is None:
                self._advance(one, streams, done, filled)
                if one.body is None:
                    tally.ignored += 1
                else:
                    tally.applied += 1
                    assert one.envelope is not None
                    latencies[one.record.topic].append((now - one.envelope.time).total_seconds())
            else:
                kind, detail = verdict
                self._block(one, kind, streams, done)
                parked.append(Parked(one.record, one.key, _REASONS[kind], _clean(detail)))
                tally.parked += 1
        await self._write(db, done, now)
        await parking.park(db, parked, self.service.name)
        await parking.release_gaps(db, filled)
        return Handled(dict(tallies), [fact.body for fact in done.facts], parked, latencies)

    async def redrive(self, db: Database, now: datetime, most: int) -> Redriven:
        """Handles again, in their order, the parked events of up to so many keys that hold a marked one.

        A discarded event counts as handled without effect. What only waited behind others goes on with them. With 0,
        a single event is handled, and those behind it the next time.
        """
        keys, rows, taken = await self._marked(db, max(1, most))
        streams = await inbox.streams(db, ((topic, key) for topic, key in keys if key is not None))
        awaited = _sequences_ahead(rows, taken, self._sequence)
        later: list[ParkedRow] = []
        if most == 0:
            rows, later = _up_to_first(rows)
        events = [
            self._event(one, one.envelope, now)
            for row in rows
            if (one := taken[row.id]).envelope is not None and one.body is not None and row.goes_on
        ]
        known = await self.service.decider.load(db, events) if events else None
        done = _Consequences()
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
            if stream is not None and self._holds_a_place(one, kind):
                stuck.setdefault(stream, "gap" if kind == "gap" else "refused")
            still.append((row.id, _REASONS[kind], _clean(detail)))
        for stream in set(streams) | set(done.moved):
            standing = done.moved.get(stream, streams.get(stream, Stream()))
            blocked = stuck.get(stream) or (streams.get(stream, Stream()).blocked if later else None)
            done.moved[stream] = Stream(standing.sequence, blocked)
        await self._write(db, done, now)
        await parking.settle(db, settled, still)
        await parking.mark_again(db, [row.id for row in later if row.goes_on])
        return Redriven(len(settled), len(still), [fact.body for fact in done.facts])

    async def refuse_first(self, db: Database, detail: str) -> None:
        """Parks the first marked event again, whose effects cannot be loaded or saved, and its key behind it."""
        _, rows, _ = await self._marked(db, 1)
        first, later = _up_to_first(rows)
        behind = [(row.id, parking.BEHIND, _BEHIND) for row in later if row.goes_on]
        await parking.settle(db, [], [*((row.id, parking.REFUSED, detail) for row in first[-1:]), *behind])

    async def _marked(
        self, db: Database, most: int
    ) -> tuple[list[tuple[str, str | None]], list[ParkedRow], dict[int, Taken]]:
        """Keys with a marked event, locked, and all their parked events in the order they are to be handled in."""
        # A key is held before its parked events are read: the pump, which parks under the same lock, can add none.
        keys = await parking.marked_keys(db, most)
        await inbox.hold_streams(db, ((topic, key) for topic, key in keys if key is not None))
        rows = await parking.of_keys(db, keys, most)
        taken = {row.id: replace(self.take(row.record), key=row.key) for row in rows}
        places: dict[int, tuple[int, int]] = {}
        highest: dict[tuple[str, str | None], int] = defaultdict(int)
        for row in rows:
            # Where a sequence cannot be read, the event's place is where it stands in the log.
            stream = (row.record.topic, row.key)
            sequence = self._sequence(taken[row.id])
            highest[stream] = max(highest[stream], sequence or 0)
            places[row.id] = (sequence or highest[stream], row.id)
        return keys, sorted(rows, key=lambda row: places[row.id]), taken

    def _redriven(
        self,
        row: ParkedRow,
        one: Taken,
        streams: dict[tuple[str, str], Stream],
        stuck: dict[tuple[str, str], str],
        known: Known | None,
        now: datetime,
        done: _Consequences,
        awaited: Mapping[tuple[str, str], list[int]],
    ) -> tuple[str, str] | None:
        """Why a parked event stays parked; None where it is settled."""
        stream = one.stream
        if stream is not None and stream in stuck and row.state != "discard":
            return ("behind", _BEHIND)
        if not row.goes_on and row.state != "discard":
            return (_KIND_OF_REASON[row.reason], row.detail)
        sequence = self._sequence(one)
        standing = done.moved.get(stream, streams.get(stream, Stream())) if stream is not None else Stream()
        if sequence is not None and sequence <= standing.sequence:
            return None
        if row.state != "discard":
            if one.unreadable is not None:
                return ("unreadable", one.unreadable)
            if sequence is not None and sequence > standing.sequence + 1:
                return ("gap", f"sequence {sequence} came, {standing.sequence + 1} is missing")
            if one.body is not None and (verdict := self._decide(one, known, now, done)) is not None:
                return verdict
        elif stream is not None and sequence is None and self._sequenced(one):
            # Its sequence cannot be read: it was the missing one if a later event of the key waits for one.
            ahead = [other for other in awaited.get(stream, []) if other > standing.sequence]
            sequence = standing.sequence + 1 if ahead and min(ahead) > standing.sequence + 1 else None
        if stream is not None and sequence is not None:
            done.moved[stream] = Stream(max(sequence, standing.sequence))
        return None

    def _sequence(self, one: Taken) -> int | None:
        """The sequence that orders the events of a key; None where the topic has none, whatever its sources say."""
        return one.envelope.sequence if one.envelope is not None and self._sequenced(one) else None

    def _repeated(
        self,
        one: Taken,
        envelope: Envelope,
        streams: dict[tuple[str, str], Stream],
        fresh: set[tuple[str, str]],
    ) -> bool:
        if self._sequenced(one):
            standing = streams.get(one.stream, Stream()) if one.stream is not None else Stream()
            return (envelope.sequence or 0) <= standing.sequence
        return (envelope.source, envelope.id) not in fresh

    def _sequenced(self, one: Taken) -> bool:
        return self._reads[one.record.topic].topic.sequenced

    def _event(self, one: Taken, envelope: Envelope, now: datetime) -> Event[Any]:
        return Event(one.record.topic, envelope, one.body, now)

    def _sort_out(
        self, one: Taken, streams: dict[tuple[str, str], Stream], fresh: set[tuple[str, str]]
    ) -> tuple[str, str] | None:
        """Why a record is not to be decided: a repeat, or a reason to park it; None where it is its turn."""
        if one.envelope is None:
            return ("unreadable", one.unreadable or "")
        standing = streams.get(one.stream, Stream()) if one.stream is not None else Stream()
        if not self._sequenced(one):
            message = (one.envelope.source, one.envelope.id)
            if message not in fresh:
                return ("duplicate", "")
            fresh.discard(message)
            if standing.blocked is not None:
                return ("behind", "an earlier message of this key is parked")
        else:
            sequence = one.envelope.sequence or 0
            if sequence <= standing.sequence:
                return ("duplicate", "")
            if standing.blocked == "refused":
                return ("behind", _BEHIND)
            if sequence > standing.sequence + 1:
                return ("gap", f"sequence {sequence} came, {standing.sequence + 1} is missing")
        return None if one.unreadable is None else ("unreadable", one.unreadable)

    def _decide(self, one: Taken, known: Known | None, now: datetime, done: _Consequences) -> tuple[str, str] | None:
        assert known is not None
        assert one.envelope is not None
        event = self._event(one, one.envelope, now)
        try:
            changes, facts = self.service.decider.decide(known, event)
        except Exception as error:
            return ("refuse", describe(error))
        known.absorb(changes)
        done.absorb(changes)
        cause = f"{self.source}:{one.record.topic}:{one.envelope.source}:{one.envelope.id}"
        done.facts.extend(
            outbox.Consequence(body, cause, nth, one.envelope.traceparent) for nth, body in enumerate(facts)
        )
        return None

    def _advance(
        self,
        one: Taken,
        streams: dict[tuple[str, str], Stream],
        done: _Consequences,
        filled: list[tuple[str, str]],
    ) -> None:
        if one.stream is None or one.envelope is None or one.envelope.sequence is None or not self._sequenced(one):
            return
        blocked = streams.get(one.stream, Stream()).blocked
        if blocked == "gap":
            filled.append(one.stream)
        streams[one.stream] = done.moved[one.stream] = Stream(one.envelope.sequence, blocked, one.envelope.traceparent)

    def _block(self, one: Taken, kind: str, streams: dict[tuple[str, str], Stream], done: _Consequences) -> None:
        if one.stream is None or not self._holds_a_place(one, kind):
            return
        standing = streams.get(one.stream, Stream())
        blocked = standing.blocked or ("gap" if kind == "gap" else "refused")
        streams[one.stream] = done.moved[one.stream] = Stream(standing.sequence, blocked)

    def _holds_a_place(self, one: Taken, kind: str) -> bool:
        """Whether later events of the key have to wait for this one. Bytes that are no event hold nobody up."""
        if self._sequenced(one):
            return one.envelope is not None
        return kind in ("refuse", "behind")

    async def _write(self, db: Database, done: _Consequences, now: datetime) -> None:
        if done.changes is not None:
            await self.service.decider.save(db, done.changes)
        await outbox.publish(db, self.source, done.facts, now)
        await inbox.remember_streams(db, done.moved)


_REASONS: Final = {
    "unreadable": parking.UNREADABLE,
    "refuse": parking.REFUSED,
    "gap": parking.GAP,
    "behind": parking.BEHIND,
}
_KIND_OF_REASON: Final = {
    parking.UNREADABLE: "unreadable",
    parking.REFUSED: "refuse",
    parking.GAP: "gap",
    parking.BEHIND: "behind",
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


def _text(raw: bytes | None) -> str | None:
    if not raw:
        return None
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    return None if "\x00" in text or len(text) > 512 else text


def _clean(text: str) -> str:
    return text.replace("\x00", "\\0").encode("utf-8", "replace").decode()[:_LONGEST_DETAIL]
