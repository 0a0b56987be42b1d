"""What is known of one request's engagement, and what can happen to it. How it goes on is in `life`."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from schemas.vocabulary import DateWindow, ExpertId, MatchId, Outcome, RequestId, SessionId
from services.scheduling.decisions.plan import Plan, Reason, Session, Site, Terms


class Step(StrEnum):
    """How far an engagement has come."""

    WAITING = "waiting"
    PLANNED = "planned"
    CONFIRMED = "confirmed"
    DELIVERED = "delivered"
    COMPLETED = "completed"
    WITHDRAWN = "withdrawn"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Match:
    """The experts who are to hold the sessions."""

    match_id: MatchId
    expert_ids: tuple[ExpertId, ...]


@dataclass(frozen=True, slots=True)
class OtherDates:
    """The agency wants other dates than a version of the plan has."""

    plan_version: int
    reason: str
    window: DateWindow | None
    blackouts: tuple[DateWindow, ...]


@dataclass(frozen=True, slots=True)
class Engagement:
    """What scheduling knows of one request. `row_version` counts the times it was stored."""

    request_id: RequestId
    row_version: int = 0
    site: Site | None = None
    terms: Terms | None = None
    """As intake says."""
    asked_window: DateWindow | None = None
    """What the agency asked for instead when it saw a plan."""
    asked_blackouts: tuple[DateWindow, ...] = ()
    on_hold: bool = False
    match: Match | None = None
    """Confirmed and neither released, nor without a possible plan, nor delivered."""
    plan: Plan | None = None
    plans_made: int = 0
    replan_because: str | None = None
    other_dates: tuple[OtherDates, ...] = ()
    """Asked of versions that are not made yet."""
    approved: frozenset[int] = frozenset()
    cleared: frozenset[int] = frozenset()
    reported: frozenset[SessionId] = frozenset()
    evaluated: bool = False
    opened_for: MatchId | None = None
    """The match planned last since the request was accepted or reopened."""
    delivered_on: datetime | None = None
    follow_up_on: datetime | None = None
    ended: Outcome | None = None

    @property
    def step(self) -> Step:
        if self.ended is not None:
            return Step(self.ended.value)
        if self.delivered_on is not None:
            return Step.DELIVERED
        if self.plan is None:
            return Step.WAITING
        return Step.CONFIRMED if self.plan.confirmed else Step.PLANNED

    @property
    def outstanding(self) -> tuple[Session, ...]:
        """The sessions planned and not reported: they take their experts' time."""
        planned = self.plan.sessions if self.plan else ()
        return tuple(session for session in planned if session.session_id not in self.reported)

    @property
    def held(self) -> tuple[Session, ...]:
        """The sessions up to the last one that is reported or over: they are neither moved nor called off."""
        if self.plan is None:
            return ()
        reported = (n for n, one in enumerate(self.plan.sessions, 1) if one.session_id in self.reported)
        return self.plan.sessions[: max(self.plan.over, max(reported, default=0))]

    @property
    def ahead(self) -> tuple[Session, ...]:
        """The sessions that are still to be held."""
        return self.plan.sessions[len(self.held) :] if self.plan else ()

    @property
    def may_start(self) -> bool:
        """Whether a plan that is not confirmed yet has both approvals, and the request is not on hold."""
        if self.plan is None or self.plan.confirmed or self.on_hold or self.ended is not None:
            return False
        return self.plan.version in self.approved and self.plan.version in self.cleared

    @property
    def dates(self) -> Terms | None:
        """The terms with the dates the agency asked for since."""
        if self.terms is None:
            return None
        return replace(
            self.terms,
            window=self.asked_window or self.terms.window,
            blackouts=self.terms.blackouts + self.asked_blackouts,
        )


@dataclass(frozen=True, slots=True)
class Planned:
    """The first plan for a match."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class Replanned:
    """Another plan for the same match."""

    plan: Plan
    reason: str


@dataclass(frozen=True, slots=True)
class NotPlannable:
    """The sessions cannot be placed with these experts: another match is needed."""

    match_id: MatchId
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Both approvals of this version are there."""

    match_id: MatchId
    plan_version: int


@dataclass(frozen=True, slots=True)
class SessionDropped:
    """A planned session does not take place."""

    session_id: SessionId
    reason: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """Every session has been reported."""

    match_id: MatchId
    delivered_on: datetime


@dataclass(frozen=True, slots=True)
class FollowUp:
    """It is time to ask what has become of it."""

    due: datetime


@dataclass(frozen=True, slots=True)
class Closed:
    """The engagement is over."""

    match_id: MatchId
    outcome: Outcome


Happening: TypeAlias = Planned | Replanned | NotPlannable | Confirmed | SessionDropped | Delivered | FollowUp | Closed
