"""Topic `requests`: the life of a request as the agency and the programme office decide it. Published by intake."""

from typing import Annotated, ClassVar, Final, get_args

from pydantic import Field

from schemas.body import (
    Agency,
    Day,
    Days,
    Fact,
    Headcount,
    Line,
    MatchKey,
    Moment,
    OriKey,
    PartnerKey,
    Problem,
    RequestKey,
    Sensitive,
    SessionKey,
    Terms,
    Text,
)
from schemas.topics import REQUESTS


class RequestFact(Fact):
    """Has happened to one request."""

    TOPIC: ClassVar[str] = REQUESTS.name
    request_id: RequestKey

    @property
    def subject(self) -> str:
        return self.request_id


class RequestAccepted(RequestFact):
    """Intake takes the request on: agency, topic and support are in order."""

    TYPE: ClassVar[str] = "request.accepted.v1"
    agency: Agency
    participating: tuple[OriKey, ...] = ()
    terms: Terms
    public: bool = False
    submitted_at: Moment
    sensitive: Sensitive = Sensitive()


class InformationRequested(RequestFact):
    """The agency owes an answer before intake can decide. Service-level clocks stop meanwhile."""

    TYPE: ClassVar[str] = "request.information_requested.v1"
    agency: Agency
    topics: tuple[Line, ...]
    missing: tuple[Problem, ...] = Field(min_length=1)
    submitted_at: Moment


class RequestReferredOut(RequestFact):
    """Another programme is the right one to help."""

    TYPE: ClassVar[str] = "request.referred_out.v1"
    agency: Agency | None = None
    topics: tuple[Line, ...] = ()
    refer_to: Line
    reasons: tuple[Problem, ...]
    submitted_at: Moment


class RequestDeclined(RequestFact):
    """The programme cannot take the request on, for these reasons."""

    TYPE: ClassVar[str] = "request.declined.v1"
    agency: Agency | None = None
    """None where the ORI is not in the registry."""
    topics: tuple[Line, ...] = ()
    reasons: tuple[Problem, ...] = Field(min_length=1)
    submitted_at: Moment


class RequestAmended(RequestFact):
    """The agency asks for something else; these are the terms that hold from now on."""

    TYPE: ClassVar[str] = "request.amended.v1"
    terms: Terms
    sensitive: Sensitive | None = None


class RequestWithdrawn(RequestFact):
    """The agency has withdrawn. It owes no reason."""

    TYPE: ClassVar[str] = "request.withdrawn.v1"
    reason: Text | None = None


class RequestHeld(RequestFact):
    """The programme office has put the request on hold: nothing is matched, nothing takes place."""

    TYPE: ClassVar[str] = "request.held.v1"
    reason: Text


class RequestResumed(RequestFact):
    """The request is off hold."""

    TYPE: ClassVar[str] = "request.resumed.v1"
    reason: Text


class RequestCancelled(RequestFact):
    """The programme office has ended the request."""

    TYPE: ClassVar[str] = "request.cancelled.v1"
    reason: Text


class RequestReopened(RequestFact):
    """A closed request is taken up again, on these terms."""

    TYPE: ClassVar[str] = "request.reopened.v1"
    terms: Terms
    reason: Text


class ProposalAccepted(RequestFact):
    """The agency has accepted the proposed partner and experts."""

    TYPE: ClassVar[str] = "proposal.accepted.v1"
    match_id: MatchKey


class ProposalDeclined(RequestFact):
    """The agency has declined the proposed partner and experts."""

    TYPE: ClassVar[str] = "proposal.declined.v1"
    match_id: MatchKey
    reason: Text


class OfferAccepted(RequestFact):
    """A partner takes the work. Matching checks that it is the partner of this match."""

    TYPE: ClassVar[str] = "offer.accepted.v1"
    match_id: MatchKey
    partner_id: PartnerKey


class OfferDeclined(RequestFact):
    """A partner does not take the work. Matching checks that it is the partner of this match."""

    TYPE: ClassVar[str] = "offer.declined.v1"
    match_id: MatchKey
    partner_id: PartnerKey
    reason: Text


class PlanApproved(RequestFact):
    """The agency's executive has approved this version of the work plan."""

    TYPE: ClassVar[str] = "plan.approved.v1"
    plan_version: Annotated[int, Field(ge=1)]


class PlanCleared(RequestFact):
    """The programme office has cleared this version of the work plan."""

    TYPE: ClassVar[str] = "plan.cleared.v1"
    plan_version: Annotated[int, Field(ge=1)]


class PlanChangesRequested(RequestFact):
    """The agency wants other dates than this version of the plan has."""

    TYPE: ClassVar[str] = "plan.changes_requested.v1"
    plan_version: Annotated[int, Field(ge=1)]
    reason: Text
    window: Days | None = None
    blackouts: tuple[Days, ...] = ()


class SessionReported(RequestFact):
    """A session has taken place."""

    TYPE: ClassVar[str] = "session.reported.v1"
    session_id: SessionKey
    held_on: Day
    attended_in_person: Headcount = 0
    attended_virtually: Headcount = 0
    partner_id: PartnerKey | None = None
    """The partner that reports it; none where the agency does."""


class EvaluationReturned(RequestFact):
    """The agency has evaluated what it was given."""

    TYPE: ClassVar[str] = "evaluation.returned.v1"
    goals_met: bool
    satisfaction: Annotated[int, Field(ge=1, le=5)]
    knowledge_increased: bool | None = None


class ClockWarned(RequestFact):
    """A service level is about to be missed."""

    TYPE: ClassVar[str] = "clock.warned.v1"
    clock: Line
    due: Moment


class ClockBreached(RequestFact):
    """A service level has been missed."""

    TYPE: ClassVar[str] = "clock.breached.v1"
    clock: Line
    due: Moment


RequestBody = (
    RequestAccepted
    | InformationRequested
    | RequestReferredOut
    | RequestDeclined
    | RequestAmended
    | RequestWithdrawn
    | RequestHeld
    | RequestResumed
    | RequestCancelled
    | RequestReopened
    | ProposalAccepted
    | ProposalDeclined
    | OfferAccepted
    | OfferDeclined
    | PlanApproved
    | PlanCleared
    | PlanChangesRequested
    | SessionReported
    | EvaluationReturned
    | ClockWarned
    | ClockBreached
)

BODIES: Final[dict[str, type[RequestBody]]] = {body.TYPE: body for body in get_args(RequestBody)}
