"""What each topic says of a request, a partner or an expert, and how it adds up.

Views add up with `+`: what is said last holds, but for milestones, which keep the first time they were reached. Adding
is associative, so batches may be cut anywhere.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple, Protocol, Self, TypeVar

from schemas.vocabulary import ExpertId, MatchId, Ori, PartnerId


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
