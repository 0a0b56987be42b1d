"""What is counted and shown: how what a topic says adds up, the order of a story, and which counts may be published.

Each topic speaks of a request in a view of its own. Views add up with `+`: the later one holds, but for milestones,
which keep the first time they were reached. Adding is associative, so batches may be cut anywhere.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple, Protocol, Self, TypeVar

from schemas.vocabulary import ExpertId, MatchId, Ori, PartnerId, RequestId, SwornBand

THRESHOLD: Final = 5
"""Counts of agencies or requests below this are not published. A common choice of statistical offices; our decision."""

SMALL_BANDS: Final = (SwornBand.UNDER_10, SwornBand.FROM_10)
"""Bands of a small agency: under 50 sworn (domain.md, section 8)."""

PAIRING_TARGET: Final = timedelta(days=10)
"""From submission to a confirmed match: met in sibling programmes (domain.md, section 2)."""


class Step(StrEnum):
    """Where a request stands, in the order of the funnel."""

    NEEDS_INFORMATION = "needs_information"
    DECLINED = "declined"
    REFERRED_OUT = "referred_out"
    ACCEPTED = "accepted"
    UNFILLED = "unfilled"
    PROPOSED = "proposed"
    MATCHED = "matched"
    PLANNED = "planned"
    NOT_PLANNABLE = "not_plannable"
    CONFIRMED = "confirmed"
    DELIVERED = "delivered"
    FOLLOW_UP_DUE = "follow_up_due"
    CLOSED = "closed"
    ON_HOLD = "on_hold"
    WITHDRAWN = "withdrawn"
    CANCELLED = "cancelled"


V = TypeVar("V")


def _or(newer: V | None, older: V | None) -> V | None:
    return older if newer is None else newer


class AddsUp(Protocol):
    """A view that what is said later can be added to."""

    def __add__(self, later: Self, /) -> Self: ...


A = TypeVar("A", bound=AddsUp)


def _sum(earlier: A | None, later: A | None) -> A | None:
    if earlier is None or later is None:
        return later if earlier is None else earlier
    return earlier + later


@dataclass(frozen=True, slots=True)
class Agency:
    """Who asks, as the registry knew it."""

    ori: Ori
    name: str
    agency_type: str
    state: str
    sworn_band: str


@dataclass(frozen=True, slots=True)
class IntakeView:
    """What topic `requests` says of one request; None says nothing."""

    sequence: int
    time: datetime
    step: str | None = None
    on_hold: bool | None = None
    reopenings: int = 0
    agency: Agency | None = None
    topics: tuple[str, ...] | None = None
    urgency: str | None = None
    submitted_at: datetime | None = None
    answered_at: datetime | None = None
    accepted_at: datetime | None = None

    def __add__(self, later: "IntakeView") -> "IntakeView":
        return IntakeView(
            later.sequence,
            later.time,
            _or(later.step, self.step),
            _or(later.on_hold, self.on_hold),
            self.reopenings + later.reopenings,
            _or(later.agency, self.agency),
            _or(later.topics, self.topics),
            _or(later.urgency, self.urgency),
            _or(self.submitted_at, later.submitted_at),
            _or(self.answered_at, later.answered_at),
            _or(self.accepted_at, later.accepted_at),
        )


@dataclass(frozen=True, slots=True)
class MatchView:
    """What topic `matches` says of one request. Partner and experts are those of the match that holds, if any."""

    sequence: int
    time: datetime
    step: str
    attempt: int | None = None
    partner_id: PartnerId | None = None
    expert_ids: tuple[ExpertId, ...] = ()
    first_proposed_at: datetime | None = None
    confirmed_at: datetime | None = None

    def __add__(self, later: "MatchView") -> "MatchView":
        return MatchView(
            later.sequence,
            later.time,
            later.step,
            _or(later.attempt, self.attempt),
            later.partner_id,
            later.expert_ids,
            _or(self.first_proposed_at, later.first_proposed_at),
            _or(self.confirmed_at, later.confirmed_at),
        )


@dataclass(frozen=True, slots=True)
class EngagementView:
    """What topic `engagements` says of one request; None says nothing. `attempt` is the number of its match."""

    sequence: int
    time: datetime
    step: str | None = None
    attempt: int | None = None
    follow_up: bool | None = None
    completions: int = 0
    first_planned_at: datetime | None = None
    confirmed_at: datetime | None = None
    delivered_at: datetime | None = None
    closed_at: datetime | None = None

    def __add__(self, later: "EngagementView") -> "EngagementView":
        return EngagementView(
            later.sequence,
            later.time,
            _or(later.step, self.step),
            _or(later.attempt, self.attempt),
            _or(later.follow_up, self.follow_up),
            self.completions + later.completions,
            _or(self.first_planned_at, later.first_planned_at),
            _or(self.confirmed_at, later.confirmed_at),
            _or(self.delivered_at, later.delivered_at),
            _or(self.closed_at, later.closed_at),
        )


@dataclass(frozen=True, slots=True)
class RequestView:
    """What all topics say of one request; None where a topic has said nothing."""

    intake: IntakeView | None = None
    match: MatchView | None = None
    engagement: EngagementView | None = None

    def __add__(self, later: "RequestView") -> "RequestView":
        return RequestView(
            _sum(self.intake, later.intake),
            _sum(self.match, later.match),
            _sum(self.engagement, later.engagement),
        )


@dataclass(frozen=True, slots=True)
class PartnerView:
    """What topic `roster` says of one partner."""

    sequence: int
    time: datetime
    selected: bool
    name: str | None = None
    acronym: str | None = None
    capacity: int | None = None

    def __add__(self, later: "PartnerView") -> "PartnerView":
        return PartnerView(
            later.sequence,
            later.time,
            later.selected,
            _or(later.name, self.name),
            _or(later.acronym, self.acronym),
            _or(later.capacity, self.capacity),
        )


@dataclass(frozen=True, slots=True)
class ExpertView:
    """What topic `roster` says of one expert."""

    sequence: int
    time: datetime
    listed: bool
    partner_id: PartnerId | None = None
    topics: tuple[str, ...] | None = None
    delivery_modes: tuple[str, ...] | None = None
    load_limit: int | None = None

    def __add__(self, later: "ExpertView") -> "ExpertView":
        return ExpertView(
            later.sequence,
            later.time,
            later.listed,
            _or(later.partner_id, self.partner_id),
            _or(later.topics, self.topics),
            _or(later.delivery_modes, self.delivery_modes),
            _or(later.load_limit, self.load_limit),
        )


class ReceiptKind(NamedTuple):
    """What receipts are counted by: the system that submitted, the type of submission and the outcome."""

    source: str
    type: str
    outcome: str


_ATTEMPT: Final = re.compile(r"/m([0-9]{1,9})$")


def attempt_of(match_id: MatchId) -> int:
    """Which match of its request this is, counted from 1: matches are called `<request>/m<number>`.

    Raises ValueError where the id is not formed so.
    """
    found = _ATTEMPT.search(match_id)
    if found is None:
        raise ValueError(f"a match id ends in /m and a number: {match_id!r}")
    return int(found[1])


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


@dataclass(frozen=True, slots=True)
class Duration:
    """How long requests waited, in seconds: how many there are, and the median and 90th percentile."""

    count: int
    p50: float | None
    p90: float | None


@dataclass(frozen=True, slots=True)
class Overview:
    """The numbers of the programme as they are, before anything is hidden."""

    steps: Mapping[Step, int]
    agencies: int
    small_agencies: int
    larger_agencies: int
    topics: Mapping[str, int]
    states: Mapping[str, int]
    agency_types: Mapping[str, int]
    durations: Mapping[str, Duration]
    matched_in_time: int
    clocks: Mapping[str, tuple[int, int]]
    """By service level: requests warned of, and requests that missed it."""

    @property
    def requests(self) -> int:
        return sum(self.steps.values())


@dataclass(frozen=True, slots=True)
class Published:
    """Counts that may be shown. `rest` is the sum of the rows not shown, None where even that would tell too much."""

    rows: tuple[tuple[str, int], ...] = field(default=())
    rest: int | None = 0


def publishable(counts: Mapping[str, int], threshold: int = THRESHOLD) -> Published:
    """The rows that may be shown beside their total, largest first; all others are summed up, without their names.

    Rows under the threshold are hidden. What is hidden must not be found by subtraction: a single row, rows that are all
    equal or rows whose sum is under the threshold would be; the smallest rows still shown then join them, all that are
    equal at a time, until nobody who knows the total, what is shown and this very rule can tell a hidden count.
    """
    ranked = sorted(((label, count) for label, count in counts.items() if count > 0), key=lambda row: (-row[1], row[0]))
    shown = [row for row in ranked if row[1] >= threshold]
    hidden = [count for _, count in ranked[len(shown) :]]
    while hidden and shown and not _blurred(hidden, threshold):
        smallest = shown[-1][1]
        while shown and shown[-1][1] == smallest:
            hidden.append(shown.pop()[1])
    if hidden and sum(hidden) < threshold:
        return Published((), None)
    return Published(tuple(shown), sum(hidden))


def _blurred(hidden: Sequence[int], threshold: int) -> bool:
    return sum(hidden) >= threshold and min(hidden) < max(hidden)


def share(part: int, rest: int, threshold: int = THRESHOLD) -> float | None:
    """The part's share of the whole; None where either side is so small that the share would tell who it is."""
    if part + rest == 0 or 0 < part < threshold or 0 < rest < threshold:
        return None
    return part / (part + rest)


def enough(waited: Duration, threshold: int = THRESHOLD) -> Duration:
    """The wait as it may be shown: without percentiles where so few requests waited that they would tell of one."""
    return waited if waited.count >= threshold else Duration(waited.count, None, None)
