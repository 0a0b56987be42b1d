"""Topic `submissions`: what agencies, partners, experts and the programme office ask, answer and report.

Every submission names its actor; whether that actor may say it is intake's decision.
"""

from typing import Annotated, ClassVar, Final, get_args

from pydantic import Field

from schemas.body import (
    Audience,
    ConflictKey,
    Day,
    Days,
    ExpertKey,
    ExpertProfile,
    Headcount,
    LetterOfSupport,
    Line,
    MatchKey,
    OriKey,
    Part,
    PartnerKey,
    RequestKey,
    Sensitive,
    SessionKey,
    Submission,
    Terms,
    Text,
    Topic,
)
from schemas.topics import SUBMISSIONS
from schemas.vocabulary import ActorRole, ConflictKind, DeliveryMode, Urgency


class Actor(Part):
    """Who speaks: the role, and the ORI, partner id, expert id or office it speaks for."""

    role: ActorRole
    id: Line


class OnRequest(Submission):
    """Said of one request."""

    TOPIC: ClassVar[str] = SUBMISSIONS.name
    request_id: RequestKey
    """Chosen by the system that submits the request, unique among all requests."""
    actor: Actor

    @property
    def subject(self) -> str:
        return self.request_id


class OnPartner(Submission):
    """Said of one partner."""

    TOPIC: ClassVar[str] = SUBMISSIONS.name
    partner_id: PartnerKey
    actor: Actor

    @property
    def subject(self) -> str:
        return self.partner_id


class OnExpert(Submission):
    """Said of one expert."""

    TOPIC: ClassVar[str] = SUBMISSIONS.name
    expert_id: ExpertKey
    actor: Actor

    @property
    def subject(self) -> str:
        return self.expert_id


class OnConflict(Submission):
    """Said of one conflict of interest."""

    TOPIC: ClassVar[str] = SUBMISSIONS.name
    conflict_id: ConflictKey
    actor: Actor

    @property
    def subject(self) -> str:
        return self.conflict_id


class RequestSubmitted(OnRequest):
    """An agency asks for assistance."""

    TYPE: ClassVar[str] = "request.submitted.v1"
    ori: OriKey
    """The requesting agency; for a joint request, the lead agency."""
    participating: tuple[OriKey, ...] = Field(default=(), max_length=200)
    """Other agencies of a joint request."""
    terms: Terms
    executive_support: LetterOfSupport | None = None
    governing_body_support: LetterOfSupport | None = None
    """For a Tribal Nation: the support of its governing body."""
    host_facilities: Text | None = None
    public: bool = False
    """Whether anything about this request may be published. Nothing is unless the agency says so."""
    sensitive: Sensitive = Sensitive()


class Changes(Part):
    """The terms that change; what is absent stays as it was."""

    topics: tuple[Topic, ...] | None = Field(default=None, min_length=1, max_length=10)
    delivery_modes: tuple[DeliveryMode, ...] | None = Field(default=None, min_length=1, max_length=11)
    window: Days | None = None
    blackouts: tuple[Days, ...] | None = Field(default=None, max_length=100)
    urgency: Urgency | None = None
    audience: Audience | None = None


class AmendmentSubmitted(OnRequest):
    """The agency changes what it asks for."""

    TYPE: ClassVar[str] = "amendment.submitted.v1"
    changes: Changes
    sensitive: Sensitive | None = None


class InformationSupplied(OnRequest):
    """The agency answers what intake asked of it."""

    TYPE: ClassVar[str] = "information.supplied.v1"
    changes: Changes = Changes()
    participating: tuple[OriKey, ...] | None = Field(default=None, max_length=200)
    """The other agencies of a joint request, all of them; absent, they stay as they were."""
    executive_support: LetterOfSupport | None = None
    governing_body_support: LetterOfSupport | None = None
    sensitive: Sensitive | None = None


class WithdrawalAsked(OnRequest):
    """The agency withdraws, at any moment and without having to say why."""

    TYPE: ClassVar[str] = "withdrawal.asked.v1"
    reason: Text | None = None


class ReopeningAsked(OnRequest):
    """The agency asks to take up a closed request again."""

    TYPE: ClassVar[str] = "reopening.asked.v1"
    reason: Text


class ProposalAccepted(OnRequest):
    """The agency accepts the proposed partner and experts."""

    TYPE: ClassVar[str] = "proposal.accepted.v1"
    match_id: MatchKey


class ProposalDeclined(OnRequest):
    """The agency declines the proposed partner and experts; another match is looked for."""

    TYPE: ClassVar[str] = "proposal.declined.v1"
    match_id: MatchKey
    reason: Text


class OfferAccepted(OnRequest):
    """The partner takes the work."""

    TYPE: ClassVar[str] = "offer.accepted.v1"
    match_id: MatchKey


class OfferDeclined(OnRequest):
    """The partner does not take the work; another match is looked for.

    An expert recuses by `conflict.disclosed` of the kind `recusal`.
    """

    TYPE: ClassVar[str] = "offer.declined.v1"
    match_id: MatchKey
    reason: Text


class PlanApproved(OnRequest):
    """The agency's executive approves this version of the work plan."""

    TYPE: ClassVar[str] = "plan.approved.v1"
    plan_version: Annotated[int, Field(ge=1, le=10_000)]


class PlanChangesAsked(OnRequest):
    """The agency wants other dates."""

    TYPE: ClassVar[str] = "plan.changes_asked.v1"
    plan_version: Annotated[int, Field(ge=1, le=10_000)]
    reason: Text
    window: Days | None = None
    blackouts: tuple[Days, ...] = Field(default=(), max_length=100)
    """Further days on which nothing can take place."""


class PlanCleared(OnRequest):
    """The programme office clears this version of the work plan to start."""

    TYPE: ClassVar[str] = "plan.cleared.v1"
    plan_version: Annotated[int, Field(ge=1, le=10_000)]


class SessionReported(OnRequest):
    """A session took place."""

    TYPE: ClassVar[str] = "session.reported.v1"
    session_id: SessionKey
    held_on: Day
    attended_in_person: Headcount = 0
    attended_virtually: Headcount = 0


class EvaluationReturned(OnRequest):
    """The agency evaluates what it was given."""

    TYPE: ClassVar[str] = "evaluation.returned.v1"
    goals_met: bool
    satisfaction: Annotated[int, Field(ge=1, le=5)]
    """From 1, very dissatisfied, to 5, very satisfied."""
    knowledge_increased: bool | None = None


class RequestRuled(OnRequest):
    """The programme office rules on a request that intake could not decide, or ends one."""

    TYPE: ClassVar[str] = "request.ruled.v1"
    ruling: Annotated[str, Field(pattern="^(accept|decline|refer_out|cancel)$")]
    refer_to: Line | None = None
    reason: Text


class HoldAsked(OnRequest):
    """The programme office puts a request on hold, or takes it off hold."""

    TYPE: ClassVar[str] = "hold.asked.v1"
    on_hold: bool = True
    reason: Text


class PartnerApplied(OnPartner):
    """A membership association applies to provide assistance."""

    TYPE: ClassVar[str] = "partner.applied.v1"
    name: Line
    acronym: Line
    capacity: Annotated[int, Field(ge=1, le=100_000)]
    """Requests it offers to serve at a time."""


class ApplicationRuled(OnPartner):
    """The programme office selects a partner, does not select it, or ends its award."""

    TYPE: ClassVar[str] = "application.ruled.v1"
    selected: bool
    capacity: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Awarded capacity, where it differs from what was applied for."""
    period: Days | None = None
    reason: Text | None = None


class ExpertListed(OnExpert):
    """A partner lists an expert."""

    TYPE: ClassVar[str] = "expert.listed.v1"
    profile: ExpertProfile


class ExpertChanged(OnExpert):
    """A partner changes what is known of an expert."""

    TYPE: ClassVar[str] = "expert.changed.v1"
    profile: ExpertProfile


class ExpertRetired(OnExpert):
    """An expert leaves the roster."""

    TYPE: ClassVar[str] = "expert.retired.v1"


class AvailabilityChanged(OnExpert):
    """All days on which an expert is not available from now on, in the expert's time zone."""

    TYPE: ClassVar[str] = "availability.changed.v1"
    unavailable: tuple[Days, ...] = Field(max_length=400)


class ConflictDisclosed(OnConflict):
    """A conflict of interest between an expert, or a whole partner, and an agency. Its detail stays restricted."""

    TYPE: ClassVar[str] = "conflict.disclosed.v1"
    expert_id: ExpertKey | None = None
    partner_id: PartnerKey | None = None
    ori: OriKey
    kind: ConflictKind
    detail: Text | None = None


class ConflictWaived(OnConflict):
    """The agency's executive waives a conflict that can be waived."""

    TYPE: ClassVar[str] = "conflict.waived.v1"
    reason: Text | None = None


SubmissionBody = (
    RequestSubmitted
    | AmendmentSubmitted
    | InformationSupplied
    | WithdrawalAsked
    | ReopeningAsked
    | ProposalAccepted
    | ProposalDeclined
    | OfferAccepted
    | OfferDeclined
    | PlanApproved
    | PlanChangesAsked
    | PlanCleared
    | SessionReported
    | EvaluationReturned
    | RequestRuled
    | HoldAsked
    | PartnerApplied
    | ApplicationRuled
    | ExpertListed
    | ExpertChanged
    | ExpertRetired
    | AvailabilityChanged
    | ConflictDisclosed
    | ConflictWaived
)

BODIES: Final[dict[str, type[SubmissionBody]]] = {body.TYPE: body for body in get_args(SubmissionBody)}
