"""The story of one request: the events of three topics in the order of their causes."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from schemas.vocabulary import RequestId


@dataclass(frozen=True, slots=True)
class Line:
    """One event of a request's story. `body` is its JSON without the sensitive part, None where it is restricted."""

    topic: str
    request_id: RequestId
    sequence: int
    id: str
    type: str
    time: datetime
    body: str | None


_USUAL_ORDER: Final = {
    name: place
    for place, name in enumerate(
        (
            "request.information_requested.v1",
            "request.declined.v1",
            "request.referred_out.v1",
            "request.accepted.v1",
            "match.not_found.v1",
            "match.proposed.v1",
            "proposal.accepted.v1",
            "offer.accepted.v1",
            "proposal.declined.v1",
            "offer.declined.v1",
            "match.confirmed.v1",
            "engagement.not_plannable.v1",
            "engagement.planned.v1",
            "plan.changes_requested.v1",
            "request.amended.v1",
            "engagement.replanned.v1",
            "plan.approved.v1",
            "plan.cleared.v1",
            "engagement.confirmed.v1",
            "session.moved.v1",
            "session.reported.v1",
            "engagement.delivered.v1",
            "follow_up.due.v1",
            "evaluation.returned.v1",
            "clock.warned.v1",
            "clock.breached.v1",
            "request.held.v1",
            "request.resumed.v1",
            "request.withdrawn.v1",
            "request.cancelled.v1",
            "match.released.v1",
            "session.cancelled.v1",
            "engagement.closed.v1",
            "request.reopened.v1",
        )
    )
}


def in_order(lines: Iterable[Line]) -> list[Line]:
    """The lines of one request as they happened: each topic in its own sequence, topics merged by time.

    Clocks of two workers may differ, so within a topic the sequence is believed before the time. At the same moment
    what usually causes the other comes first.
    """
    queues: dict[str, list[Line]] = {}
    for line in sorted(lines, key=lambda line: line.sequence, reverse=True):
        queues.setdefault(line.topic, []).append(line)
    told: list[Line] = []
    while queues:
        topic = min(queues, key=lambda topic: (queues[topic][-1].time, _place(queues[topic][-1]), topic))
        told.append(queues[topic].pop())
        if not queues[topic]:
            del queues[topic]
    return told


def _place(line: Line) -> int:
    return _USUAL_ORDER.get(line.type, len(_USUAL_ORDER))
