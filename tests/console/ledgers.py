"""Logs and tables of a small stack at rest, made by hand: what the tests of the checker spoil."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from schemas.topics import TOPICS
from services.console.checker.accounting import Account, Acknowledged, audit
from services.console.checker.books import Booking, Books, Position
from services.console.wire import LogRecord
from tests.console.console_world import NOON, ORI, Fact, record

SOURCE = "/agencies/TX"


@dataclass
class Ground:
    """Logs and tables of a small stack at rest, which a test may spoil before they are audited."""

    records: list[LogRecord] = field(default_factory=list[LogRecord])
    spoil: list[Callable[[Books], object]] = field(default_factory=list[Callable[[Books], object]])

    def append(self, *args: Any, **named: Any) -> LogRecord:
        """Puts one more record at the end of its topic's only partition."""
        made = record(*args, **named)
        made = replace(made, offset=sum(one.topic == made.topic for one in self.records))
        self.records.append(made)
        return made

    def submit(self, message_id: str, request_id: str, event_type: str = "request.submitted.v1") -> None:
        self.append("submissions", request_id, event_type, {}, event_id=message_id, source=SOURCE)

    def answer(self, message_id: str, *, taken: bool = True, receipt: str | None = None) -> None:
        body = {
            "submission_source": SOURCE,
            "submission_id": message_id,
            "submission_type": "request.submitted.v1",
        }
        event_type = "submission.taken.v1" if taken else "submission.refused.v1"
        if not taken:
            body["reason"] = "The topic is not offered."
        self.append("receipts", SOURCE, event_type, body, event_id=receipt or f"receipt of {message_id}")

    def tell(self, *facts: Fact, time: datetime = NOON) -> None:
        """Publishes facts, each with the next sequence of its key."""
        for topic, event_type, body in facts:
            key = body.get("request_id") or body.get("expert_id") or body.get("partner_id") or body["conflict_id"]
            so_far = {one.headers for one in map(_named, self.records) if (one.topic, one.key) == (topic, key)}
            self.append(topic, key, event_type, body, sequence=len(so_far) + 1, time=time)

    def books(self) -> Books:
        """The books of these logs, with the tables that belong to them."""
        books = Books()
        for one in self.records:
            books.take(one)
        for topic in (*(topic.name for topic in TOPICS), "submissions.dead"):
            books.starts[topic, 0] = 0
            books.ends[topic, 0] = sum(one.topic == topic for one in self.records)
        for topic in TOPICS:
            end, repeated = books.ends[topic.name, 0], books.repeats[topic.name]
            for service in topic.readers:
                position = Position(0, end, end - repeated, repeated, 0, 0)
                books.positions.setdefault(service, {})[topic.name, 0] = position
                books.outboxes[service] = 0
        for request_id, life in books.lives.items():
            books.reported_steps[request_id] = life.step
            books.counted_steps[life.step] += 1
            books.intake_steps[request_id] = life.step if life.step in _INTAKES_OWN else "accepted"
            if (match := life.live_match) is not None:
                books.matches[request_id] = (match.match_id, match.stage)
            books.bookings += [
                Booking(one.session_id, expert, one.start, one.end)
                for one in life.live_sessions
                for expert in one.experts
            ]
        return books

    def audited(self, ledger: Sequence[Acknowledged] = ()) -> Account:
        books = self.books()
        for spoil in self.spoil:
            spoil(books)
        return audit(books, ledger)

    def findings(self, ledger: Sequence[Acknowledged] = ()) -> list[str]:
        return self.audited(ledger).findings


_INTAKES_OWN = {"declined", "referred_out", "withdrawn", "cancelled", "closed", "on_hold", "needs_information"}


@dataclass(frozen=True)
class _Named:
    topic: str
    key: str
    headers: tuple[tuple[str, bytes | None], ...]


def _named(one: LogRecord) -> _Named:
    return _Named(one.topic, (one.key or b"").decode(), tuple(one.headers))


def profile(load_limit: int = 3, **more: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "partner_id": "P1",
        "skills": [{"topic": "training"}],
        "delivery_modes": ["in_person_training"],
        "agency_types": ["municipal"],
        "home": {"latitude": 30.0, "longitude": -97.0},
        "time_zone": "America/Chicago",
        "load_limit": load_limit,
    }
    return usual | more


def warned(request_id: str) -> dict[str, Any]:
    return {"request_id": request_id, "clock": "ruling", "due": NOON.isoformat()}


def listed(expert: str, **more: Any) -> Fact:
    return "roster", "expert.listed.v1", {"expert_id": expert, "profile": profile(**more)}


def selected(partner: str, capacity: int = 9) -> Fact:
    body = {"partner_id": partner, "name": "Association", "acronym": partner, "capacity": capacity}
    return "roster", "partner.selected.v1", body


def declared(conflict_id: str, kind: str = "family", ori: str = ORI, **who: str) -> Fact:
    return "roster", "conflict.declared.v1", {"conflict_id": conflict_id, "ori": ori, "kind": kind, **who}


def waived(conflict_id: str, **who: str) -> Fact:
    return "roster", "conflict.waived.v1", {"conflict_id": conflict_id, "ori": ORI, **who}
