"""Handles a batch of records inside one transaction: read, sort out, load, decide one by one, save, publish, park.

An event is handled once: facts by the sequence of their key, messages without a sequence by source and id. An event
that cannot be handled is parked with every later event of its key behind it; all others go through.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NamedTuple

from schemas.envelope import Envelope, NotAnEvent, read
from services.runtime import outbox, parking
from services.runtime.database import Database
from services.runtime.failpoints import Reach, unarmed
from services.runtime.inbox import UNSEEN, Slot, Standing, Stream, Tally
from services.runtime.logs import describe
from services.runtime.parking import Parked
from services.runtime.rawrecords import any_stray_bytes
from services.runtime.records import Record
from services.runtime.service import Event, Known, Service

_LONGEST_DETAIL: Final = 2000
BEHIND: Final = "an earlier event of this key is parked"


class Taken(NamedTuple):
    """A record after reading. `envelope` is None where it is no event; `unreadable` says why it cannot be handled."""

    record: Record
    stream: tuple[str, str] | None
    """Topic and key; None where the record has no key that can be read."""
    envelope: Envelope | None = None
    body: object | None = None
    unreadable: str | None = None

    @property
    def key(self) -> str | None:
        return None if self.stream is None else self.stream[1]


@dataclass(slots=True)
class Consequences:
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
    parked: list[Parked]
    moved: dict[tuple[str, str], Stream]
    """How far each key has been handled now."""
    sealed: list[outbox.Sealed]
    """The facts as they go out."""
    latencies: dict[str, list[float]]
    """By topic, the age in seconds of each event applied."""


class Handling:
    """The path of records through one service."""

    def __init__(self, service: Service, reach: Reach = unarmed) -> None:
        self.service = service
        self._reach = reach
        self.source = f"/fieldbridge/{service.name}"
        self._reads = {reads.topic.name: reads for reads in service.reads}
        self._sequenced = frozenset(name for name, reads in self._reads.items() if reads.topic.sequenced)

    def take(self, record: Record) -> Taken:
        """Reads the envelope and the body of a record; whatever the bytes are, this does not raise."""
        topic, key = record.topic, _text(record.key)
        stream = None if key is None else (topic, key)
        if any_stray_bytes(record.headers):
            return Taken(record, stream, unreadable="not a CloudEvent: the name of a header is not UTF-8")
        try:
            envelope, data = read(record.headers, record.value, record.timestamp)
        except NotAnEvent as error:
            return Taken(record, stream, unreadable=f"not a CloudEvent: {error}")
        if record.key is None and envelope.subject:
            stream = topic, envelope.subject
        reads = self._reads[topic]
        if reads.topic.sequenced and (envelope.sequence is None or stream is None):
            return Taken(record, stream, unreadable="an event of this topic needs a key and the attribute 'sequence'")
        try:
            return Taken(record, stream, envelope, reads.parse(envelope, data))
        except Exception as error:  # whatever a body makes its parser raise is of this record alone
            return Taken(record, stream, envelope, unreadable=f"the body breaks its schema: {describe(error)}")

    def messages(self, taken: Sequence[Taken]) -> list[tuple[str, str]]:
        """Source and id of what is known by them alone."""
        return [(one.envelope.source, one.envelope.id) for one in taken if one.envelope and not self.sequenced(one)]

    async def handle(
        self, db: Database, taken: Sequence[Taken], standing: Standing, now: datetime, refuse: str | None = None
    ) -> Handled:
        """Handles records in their order and saves the state that follows; the caller writes what else is returned.

        With `refuse`, no decision is made: every event that would be decided is parked with this detail instead.
        """
        streams, fresh = standing.streams, standing.fresh
        events = [
            self.event(one, now) if one.body is not None and not self._repeated(one, streams, fresh) else None
            for one in taken
        ]
        wanted = [event for event in events if event is not None]
        known = await self.service.decider.load(db, wanted) if wanted and refuse is None else None
        done = Consequences()
        tallies: dict[Slot, Tally] = defaultdict(Tally)
        parked: list[Parked] = []
        latencies: dict[str, list[float]] = defaultdict(list)
        filled: list[tuple[str, str]] = []
        for one, event in zip(taken, events, strict=True):
            record, stream = one.record, one.stream
            tally = tallies[record.topic, record.partition]
            at = UNSEEN if stream is None else streams.get(stream, UNSEEN)
            verdict = self._sort_out(one, at, fresh)
            if verdict is not None and verdict[0] == "duplicate":
                tally.duplicate += 1
                continue
            if verdict is None and event is not None:
                verdict = ("refuse", refuse) if refuse is not None else self.decide(event, known, done)
            if verdict is None:
                if stream is not None and record.topic in self._sequenced:
                    moved = self._advanced(one, at)
                    streams[stream] = done.moved[stream] = moved
                    if moved.blocked == "gap":
                        filled.append(stream)
                if event is None:
                    tally.ignored += 1
                else:
                    tally.applied += 1
                    latencies[record.topic].append((now - event.envelope.time).total_seconds())
            else:
                kind, detail = verdict
                if stream is not None and self.holds_a_place(one, kind):
                    blocked = at.blocked or ("gap" if kind == "gap" else "refused")
                    streams[stream] = done.moved[stream] = Stream(at.sequence, blocked)
                parked.append(Parked(record, one.key, REASONS[kind], clean(detail)))
                tally.parked += 1
        sealed = await self.save(db, done, now)
        await parking.park(db, parked, self.service.name)
        await parking.release_gaps(db, filled)
        return Handled(dict(tallies), parked, done.moved, sealed, latencies)

    def sequence(self, one: Taken) -> int | None:
        """The sequence that orders the events of a key; None where the topic has none, whatever its sources say."""
        return one.envelope.sequence if one.envelope is not None and self.sequenced(one) else None

    def _repeated(self, one: Taken, streams: dict[tuple[str, str], Stream], fresh: set[tuple[str, str]]) -> bool:
        envelope = one.envelope
        assert envelope is not None
        if self.sequenced(one):
            standing = streams.get(one.stream, UNSEEN) if one.stream is not None else UNSEEN
            return (envelope.sequence or 0) <= standing.sequence
        return (envelope.source, envelope.id) not in fresh

    def sequenced(self, one: Taken) -> bool:
        return one.record.topic in self._sequenced

    def event(self, one: Taken, now: datetime) -> Event[Any]:
        """An event that can be read, as the decider sees it."""
        assert one.envelope is not None
        return Event(one.record.topic, one.envelope, one.body, now)

    def _sort_out(self, one: Taken, standing: Stream, fresh: set[tuple[str, str]]) -> tuple[str, str] | None:
        """Why a record is not to be decided: a repeat, or a reason to park it; None where it is its turn.

        `standing` is that of its key.
        """
        if one.envelope is None:
            return ("unreadable", one.unreadable or "")
        if not self.sequenced(one):
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
                return ("behind", BEHIND)
            if sequence > standing.sequence + 1:
                return ("gap", f"sequence {sequence} came, {standing.sequence + 1} is missing")
        return None if one.unreadable is None else ("unreadable", one.unreadable)

    def decide(self, event: Event[Any], known: Known | None, done: Consequences) -> tuple[str, str] | None:
        """Decides one event; returns why it is refused, None where it is not."""
        assert known is not None
        try:
            self._reach("in_decision")
            changes, facts = self.service.decider.decide(known, event)
        except Exception as error:  # decisions are pure: what one raises is of this event alone, which is parked
            return ("refuse", describe(error))
        known.absorb(changes)
        done.absorb(changes)
        if facts:
            envelope = event.envelope
            cause = f"{self.source}:{event.topic}:{envelope.source}:{envelope.id}"
            for nth, body in enumerate(facts):
                done.facts.append(outbox.Consequence(body, cause, nth, envelope.traceparent))
        return None

    def _advanced(self, one: Taken, standing: Stream) -> Stream:
        """How far the key of an event has been handled after it."""
        assert one.envelope is not None
        assert one.envelope.sequence is not None
        return Stream(one.envelope.sequence, standing.blocked, one.envelope.traceparent)

    def holds_a_place(self, one: Taken, kind: str) -> bool:
        """Whether later events of the key have to wait for this one. Bytes that are no event hold nobody up."""
        if self.sequenced(one):
            return one.envelope is not None
        return kind in ("refuse", "behind")

    async def save(self, db: Database, done: Consequences, now: datetime) -> list[outbox.Sealed]:
        """Saves the state; returns the facts that follow, sealed."""
        if done.changes is not None:
            await self.service.decider.save(db, done.changes)
        return await outbox.seal(db, self.source, done.facts, now)


REASONS: Final = {
    "unreadable": parking.UNREADABLE,
    "refuse": parking.REFUSED,
    "gap": parking.GAP,
    "behind": parking.BEHIND,
    "discarded": parking.DISCARDED,
}


def _text(raw: bytes | None) -> str | None:
    if not raw:
        return None
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return None
    return None if "\x00" in text or len(text) > 512 else text


def clean(text: str) -> str:
    return text.replace("\x00", "\\0").encode("utf-8", "replace").decode()[:_LONGEST_DETAIL]
