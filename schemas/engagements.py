"""Topic `engagements`: the dated sessions of the assistance given for a request. Published by scheduling."""

from typing import Annotated, ClassVar, Final, get_args

from pydantic import AfterValidator, Field

from schemas.body import ExpertKey, Fact, Line, MatchKey, Moment, Part, Problem, RequestKey, SessionKey, Text
from schemas.topics import ENGAGEMENTS
from schemas.vocabulary import DeliveryMode, Outcome, TimeWindow


def _with_offset(window: TimeWindow) -> TimeWindow:
    if window.start.tzinfo is None or window.end.tzinfo is None or window.end <= window.start:
        raise ValueError("a time window has UTC offsets and ends after it starts")
    return window


Window = Annotated[TimeWindow, AfterValidator(_with_offset)]


class EngagementFact(Fact):
    """Has happened to the engagement of one request."""

    TOPIC: ClassVar[str] = ENGAGEMENTS.name
    request_id: RequestKey

    @property
    def subject(self) -> str:
        return self.request_id


class Session(Part):
    """One dated delivery of an engagement."""

    session_id: SessionKey
    title: Line
    delivery_mode: DeliveryMode
    on_site: bool
    takes_place: Window
    occupies: Window
    """The expert's time this takes, travel included."""
    time_zone: Line
    """IANA time zone of the agency, in which people read the times."""
    expert_ids: tuple[ExpertKey, ...] = Field(min_length=1)


class Plan(EngagementFact):
    """A dated work plan that the agency and the programme office are asked to approve."""

    match_id: MatchKey
    plan_version: Annotated[int, Field(ge=1)]
    sessions: tuple[Session, ...] = Field(min_length=1)


class EngagementPlanned(Plan):
    """The first dated plan."""

    TYPE: ClassVar[str] = "engagement.planned.v1"


class EngagementReplanned(Plan):
    """Another plan takes the place of the one before; it needs both approvals again."""

    TYPE: ClassVar[str] = "engagement.replanned.v1"
    reason: Text


class EngagementNotPlannable(EngagementFact):
    """The sessions cannot be placed with these experts within the dates the agency gave."""

    TYPE: ClassVar[str] = "engagement.not_plannable.v1"
    match_id: MatchKey
    reasons: tuple[Problem, ...] = Field(min_length=1)


class EngagementConfirmed(EngagementFact):
    """Agency and programme office have both approved this version of the plan."""

    TYPE: ClassVar[str] = "engagement.confirmed.v1"
    match_id: MatchKey
    plan_version: Annotated[int, Field(ge=1)]


class SessionMoved(EngagementFact):
    """One session takes place at another time."""

    TYPE: ClassVar[str] = "session.moved.v1"
    session: Session
    reason: Text


class SessionCancelled(EngagementFact):
    """One session does not take place; the time of its experts is free again."""

    TYPE: ClassVar[str] = "session.cancelled.v1"
    session_id: SessionKey
    reason: Text


class EngagementDelivered(EngagementFact):
    """Every session has been reported."""

    TYPE: ClassVar[str] = "engagement.delivered.v1"
    match_id: MatchKey
    delivered_on: Moment


class FollowUpDue(EngagementFact):
    """It is time to ask the agency what has become of it."""

    TYPE: ClassVar[str] = "follow_up.due.v1"
    due: Moment


class EngagementClosed(EngagementFact):
    """The engagement is over."""

    TYPE: ClassVar[str] = "engagement.closed.v1"
    match_id: MatchKey
    outcome: Outcome


EngagementBody = (
    EngagementPlanned
    | EngagementReplanned
    | EngagementNotPlannable
    | EngagementConfirmed
    | SessionMoved
    | SessionCancelled
    | EngagementDelivered
    | FollowUpDue
    | EngagementClosed
)

BODIES: Final[dict[str, type[EngagementBody]]] = {body.TYPE: body for body in get_args(EngagementBody)}
