"""What the tests of the console share: a handful of agencies, and facts as the services would publish them."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from schemas.envelope import Envelope
from services.console.wire import LogRecord
from services.console.world.population import Agency

TODAY = date(2026, 11, 24)
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
ORI = "TX0000001"

Fact = tuple[str, str, dict[str, Any]]
"""Topic, type and body."""

AGENCIES = [
    *(Agency(f"TX{number:07d}", "municipal", "TX") for number in range(1, 13)),
    *(Agency(f"OK{number:07d}", "county_sheriff", "OK") for number in range(1, 6)),
    Agency("OKDI00100", "tribal", "OK"),
    Agency("TXU000100", "campus", "TX"),
    Agency("DCFBI0001", "federal", "DC"),
    Agency("TXX000001", "unknown", "TX"),
]


def record(
    topic: str,
    key: str,
    event_type: str,
    body: Mapping[str, Any],
    *,
    sequence: int | None = None,
    event_id: str | None = None,
    source: str | None = None,
    offset: int = 0,
    partition: int = 0,
    time: datetime = NOON,
) -> LogRecord:
    """A record of Kafka's log, as the publisher of its topic writes it unless another source is given."""
    publishers = {"requests": "intake", "receipts": "intake", "roster": "intake", "matches": "matching"}
    envelope = Envelope(
        id=event_id or f"{topic}/{key}/{sequence}/{event_type}",
        source=source or f"/fieldbridge/{publishers.get(topic, 'scheduling')}",
        type=event_type,
        subject=key,
        time=time,
        sequence=sequence,
    )
    return LogRecord(topic, partition, offset, key.encode(), json.dumps(body).encode(), envelope.headers())


def session(session_id: str, expert: str, day: int) -> dict[str, Any]:
    """A session of two hours that takes the expert's whole day."""
    start = datetime(2027, 1, 1, tzinfo=UTC) + timedelta(days=day)
    takes_place = {
        "start": (start + timedelta(hours=15)).isoformat(),
        "end": (start + timedelta(hours=17)).isoformat(),
    }
    occupies = {"start": start.isoformat(), "end": (start + timedelta(days=1)).isoformat()}
    return {
        "session_id": session_id,
        "title": "Workshop",
        "delivery_mode": "in_person_training",
        "on_site": True,
        "takes_place": takes_place,
        "occupies": occupies,
        "time_zone": "America/Chicago",
        "expert_ids": [expert],
    }


def agency(ori: str) -> dict[str, Any]:
    return {"ori": ori, "name": "Police", "agency_type": "municipal", "state": "TX", "time_zone": "America/Chicago"}


def accepted(request_id: str, ori: str) -> Fact:
    terms = {
        "topics": ["training"],
        "delivery_modes": ["in_person_training"],
        "window": {"first": "2027-01-01", "last": "2027-03-01"},
    }
    body = {"request_id": request_id, "agency": agency(ori), "terms": terms, "submitted_at": NOON.isoformat()}
    return "requests", "request.accepted.v1", body


def proposed(request_id: str, expert: str, partner: str = "P1", nth: int = 1) -> Fact:
    body = {
        "request_id": request_id,
        "match_id": f"{request_id}/m{nth}",
        "partner_id": partner,
        "experts": [{"expert_id": expert, "affinity": 800, "reasons": ["fits"]}],
    }
    return "matches", "match.proposed.v1", body


def matched(request_id: str, expert: str, partner: str = "P1", nth: int = 1) -> Fact:
    body = {
        "request_id": request_id,
        "match_id": f"{request_id}/m{nth}",
        "partner_id": partner,
        "expert_ids": [expert],
    }
    return "matches", "match.confirmed.v1", body


def released(request_id: str, expert: str, nth: int = 1) -> Fact:
    body = {"request_id": request_id, "match_id": f"{request_id}/m{nth}", "expert_ids": [expert], "reason": "declined"}
    return "matches", "match.released.v1", body


def planned(request_id: str, sessions: Iterable[dict[str, Any]], nth: int = 1, version: int = 1) -> Fact:
    body = {
        "request_id": request_id,
        "match_id": f"{request_id}/m{nth}",
        "plan_version": version,
        "sessions": list(sessions),
    }
    return "engagements", "engagement.planned.v1", body


def confirmed(request_id: str, nth: int = 1) -> Fact:
    body = {"request_id": request_id, "match_id": f"{request_id}/m{nth}", "plan_version": 1}
    return "engagements", "engagement.confirmed.v1", body


def delivered(request_id: str, nth: int = 1) -> Fact:
    body = {"request_id": request_id, "match_id": f"{request_id}/m{nth}", "delivered_on": NOON.isoformat()}
    return "engagements", "engagement.delivered.v1", body


def closed(request_id: str, outcome: str = "completed", nth: int = 1) -> Fact:
    body = {"request_id": request_id, "match_id": f"{request_id}/m{nth}", "outcome": outcome}
    return "engagements", "engagement.closed.v1", body


def about(request_id: str, event_type: str, **fields: Any) -> Fact:
    """A fact of the topic requests."""
    return "requests", event_type, {"request_id": request_id, **fields}
