"""From an event to what it adds to the projections. Nothing is loaded: views add up in the database as in memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, assert_never

from schemas import engagements, matches, receipts, requests, roster, submissions
from schemas.body import Agency as AgencyPart
from schemas.body import AnyBody, Body, ExpertProfile, only, parse
from schemas.engagements import EngagementBody
from schemas.envelope import Envelope
from schemas.matches import MatchBody
from schemas.receipts import ReceiptBody
from schemas.requests import RequestBody
from schemas.roster import RosterBody
from schemas.topics import ENGAGEMENTS, MATCHES, RECEIPTS, REQUESTS, ROSTER
from schemas.vocabulary import Outcome, RequestId
from services.reporting.decisions.story import Line
from services.reporting.decisions.views import (
    AddsUp,
    Agency,
    EngagementView,
    ExpertView,
    IntakeView,
    MatchView,
    PartnerView,
    ReceiptKind,
    RequestView,
    attempt_of,
)
from services.reporting.store import Projections
from services.runtime.database import Database
from services.runtime.service import Event, FactBody, Reads

_UNKNOWN_TYPE: Final = "unknown"
_LONGEST_SOURCE: Final = 512

B = TypeVar("B")


@dataclass(frozen=True, slots=True)
class Told(Generic[B]):
    """A body, and its JSON as the story may keep it: without the sensitive part, None where all of it is restricted."""

    body: B
    text: str | None


def told(bodies: Mapping[str, type[AnyBody]]) -> Callable[[Envelope, bytes], Told[AnyBody] | None]:
    """Parses the bodies of a topic about requests and keeps what the story may keep of their JSON."""

    def parse_and_keep(envelope: Envelope, data: bytes) -> Told[AnyBody] | None:
        body = parse(bodies, envelope.type, data)
        return None if body is None else Told(body, _kept(body, data))

    return parse_and_keep


def _kept(body: Body, data: bytes) -> str | None:
    """The JSON as it came where it holds nothing sensitive: writing it anew costs as much as parsing it.

    What agencies say of the work in evaluations is restricted. An escape may spell the name of the sensitive part.
    """
    if isinstance(body, requests.EvaluationReturned):
        return None
    if b"sensitive" in data or b"\\u" in data:
        return body.model_dump_json(exclude={"sensitive"})
    return data.decode()


READS: Final = (
    Reads(REQUESTS, told(requests.BODIES)),
    Reads(MATCHES, told(matches.BODIES)),
    Reads(ENGAGEMENTS, told(engagements.BODIES)),
    Reads(ROSTER, only(roster.BODIES.values())),
    Reads(RECEIPTS, only(receipts.BODIES.values())),
)


async def load(_: Database, __: Sequence[Event[Any]]) -> Projections:
    """Nothing: what is stored adds up with what is saved inside the database."""
    return Projections()


def decide(known: Projections, event: Event[Any]) -> tuple[Projections, Sequence[FactBody]]:
    """What the event adds to the projections. Publishes nothing."""
    if event.topic == REQUESTS.name:
        return _request(known, event), ()
    if event.topic == MATCHES.name:
        return _match(known, event), ()
    if event.topic == ENGAGEMENTS.name:
        return _engagement(known, event), ()
    if event.topic == ROSTER.name:
        return _roster(known, event), ()
    if event.topic == RECEIPTS.name:
        return _receipt(known, event), ()
    raise ValueError(f"topic {event.topic} is not read")


A = TypeVar("A", bound=AddsUp)


def _after(views: Mapping[str, A], key: str, later: A) -> A:
    """The later view, added to what the batch has said before."""
    earlier = views.get(key)
    return later if earlier is None else earlier + later


def _sequence(envelope: Envelope) -> int:
    if envelope.sequence is None:
        raise ValueError("an event of this topic has a sequence")
    return envelope.sequence


def _request(known: Projections, event: Event[Told[RequestBody]]) -> Projections:
    body = event.body.body
    return _said(known, event, body.request_id, RequestView(intake=intake_view(event.envelope, body)))


def _match(known: Projections, event: Event[Told[MatchBody]]) -> Projections:
    body = event.body.body
    return _said(known, event, body.request_id, RequestView(match=match_view(event.envelope, body)))


def _engagement(known: Projections, event: Event[Told[EngagementBody]]) -> Projections:
    body = event.body.body
    return _said(known, event, body.request_id, RequestView(engagement=engagement_view(event.envelope, body)))


def _said(known: Projections, event: Event[Told[Any]], request_id: RequestId, view: RequestView) -> Projections:
    envelope = event.envelope
    sequence = _sequence(envelope)
    line = Line(event.topic, request_id, sequence, envelope.id, envelope.type, envelope.time, event.body.text)
    return Projections(
        story={(event.topic, request_id, sequence): line},
        requests={request_id: _after(known.requests, request_id, view)},
    )


def _roster(known: Projections, event: Event[RosterBody]) -> Projections:
    body = event.body
    match body:
        case roster.PartnerSelected() | roster.PartnerSuspended():
            partner = partner_view(event.envelope, body)
            return Projections(partners={body.partner_id: _after(known.partners, body.partner_id, partner)})
        case roster.ExpertListed() | roster.ExpertChanged() | roster.ExpertRetired():
            expert = expert_view(event.envelope, body)
            return Projections(experts={body.expert_id: _after(known.experts, body.expert_id, expert)})
        case roster.AvailabilityChanged() | roster.ConflictDeclared() | roster.ConflictWaived():
            return Projections()
        case _:
            assert_never(body)


def _receipt(known: Projections, event: Event[ReceiptBody]) -> Projections:
    kind = receipt_kind(event.body)
    return Projections(receipts={kind: known.receipts.get(kind, 0) + 1})


def intake_view(envelope: Envelope, body: RequestBody) -> IntakeView:
    """What a fact of intake says of its request."""
    sequence, time = _sequence(envelope), envelope.time
    match body:
        case requests.RequestAccepted():
            return IntakeView(
                sequence,
                time,
                step="accepted",
                agency=_agency(body.agency),
                topics=_distinct(body.terms.topics),
                urgency=body.terms.urgency,
                submitted_at=body.submitted_at,
                answered_at=time,
                accepted_at=time,
            )
        case requests.InformationRequested():
            return _answered(envelope, body, "needs_information")
        case requests.RequestReferredOut():
            return _answered(envelope, body, "referred_out")
        case requests.RequestDeclined():
            return _answered(envelope, body, "declined")
        case requests.RequestAmended():
            return IntakeView(sequence, time, topics=_distinct(body.terms.topics), urgency=body.terms.urgency)
        case requests.RequestReopened():
            return IntakeView(
                sequence,
                time,
                step="accepted",
                on_hold=False,
                reopenings=1,
                topics=_distinct(body.terms.topics),
                urgency=body.terms.urgency,
            )
        case requests.RequestWithdrawn():
            return IntakeView(sequence, time, step="withdrawn")
        case requests.RequestCancelled():
            return IntakeView(sequence, time, step="cancelled")
        case requests.RequestHeld():
            return IntakeView(sequence, time, on_hold=True)
        case requests.RequestResumed():
            return IntakeView(sequence, time, on_hold=False)
        case (
            requests.ProposalAccepted()
            | requests.ProposalDeclined()
            | requests.OfferAccepted()
            | requests.OfferDeclined()
            | requests.PlanApproved()
            | requests.PlanCleared()
            | requests.PlanChangesRequested()
            | requests.SessionReported()
            | requests.EvaluationReturned()
            | requests.ClockWarned()
            | requests.ClockBreached()
        ):
            return IntakeView(sequence, time)
        case _:
            assert_never(body)


def _answered(
    envelope: Envelope,
    body: requests.InformationRequested | requests.RequestReferredOut | requests.RequestDeclined,
    step: str,
) -> IntakeView:
    return IntakeView(
        _sequence(envelope),
        envelope.time,
        step=step,
        agency=None if body.agency is None else _agency(body.agency),
        topics=_distinct(body.topics),
        submitted_at=body.submitted_at,
        answered_at=envelope.time,
    )


def _agency(agency: AgencyPart) -> Agency:
    return Agency(agency.ori, agency.name, agency.agency_type, agency.state, agency.sworn_band)


def _distinct(topics: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(topics))


def match_view(envelope: Envelope, body: MatchBody) -> MatchView:
    """What a fact of matching says of its request."""
    sequence, time = _sequence(envelope), envelope.time
    match body:
        case matches.MatchProposed():
            return MatchView(
                sequence,
                time,
                "proposed",
                attempt=attempt_of(body.match_id),
                partner_id=body.partner_id,
                expert_ids=tuple(expert.expert_id for expert in body.experts),
                first_proposed_at=time,
            )
        case matches.MatchConfirmed():
            return MatchView(
                sequence,
                time,
                "confirmed",
                attempt=attempt_of(body.match_id),
                partner_id=body.partner_id,
                expert_ids=body.expert_ids,
                confirmed_at=time,
            )
        case matches.MatchNotFound():
            return MatchView(sequence, time, "not_found")
        case matches.MatchReleased():
            return MatchView(sequence, time, "released", attempt=attempt_of(body.match_id))
        case _:
            assert_never(body)


def engagement_view(envelope: Envelope, body: EngagementBody) -> EngagementView:
    """What a fact of scheduling says of its request."""
    sequence, time = _sequence(envelope), envelope.time
    match body:
        case engagements.EngagementPlanned() | engagements.EngagementReplanned():
            return EngagementView(
                sequence, time, "planned", attempt_of(body.match_id), follow_up=False, first_planned_at=time
            )
        case engagements.EngagementNotPlannable():
            return EngagementView(sequence, time, "not_plannable", attempt_of(body.match_id))
        case engagements.EngagementConfirmed():
            return EngagementView(sequence, time, "confirmed", attempt_of(body.match_id), confirmed_at=time)
        case engagements.EngagementDelivered():
            return EngagementView(sequence, time, "delivered", attempt_of(body.match_id), delivered_at=time)
        case engagements.FollowUpDue():
            return EngagementView(sequence, time, follow_up=True)
        case engagements.EngagementClosed(outcome=Outcome.COMPLETED):
            return EngagementView(sequence, time, "closed", attempt_of(body.match_id), completions=1, closed_at=time)
        case engagements.EngagementClosed():
            return EngagementView(sequence, time, "dropped", attempt_of(body.match_id))
        case engagements.SessionMoved() | engagements.SessionCancelled():
            return EngagementView(sequence, time)
        case _:
            assert_never(body)


def partner_view(envelope: Envelope, body: roster.PartnerSelected | roster.PartnerSuspended) -> PartnerView:
    """What a fact of the roster says of a partner."""
    sequence, time = _sequence(envelope), envelope.time
    if isinstance(body, roster.PartnerSuspended):
        return PartnerView(sequence, time, selected=False)
    return PartnerView(sequence, time, True, body.name, body.acronym, body.capacity)


def expert_view(
    envelope: Envelope, body: roster.ExpertListed | roster.ExpertChanged | roster.ExpertRetired
) -> ExpertView:
    """What a fact of the roster says of an expert."""
    sequence, time = _sequence(envelope), envelope.time
    if isinstance(body, roster.ExpertRetired):
        return ExpertView(sequence, time, listed=False)
    profile: ExpertProfile = body.profile
    return ExpertView(
        sequence,
        time,
        True,
        profile.partner_id,
        tuple(skill.topic for skill in profile.skills),
        tuple(profile.delivery_modes),
        profile.load_limit,
    )


def receipt_kind(body: ReceiptBody) -> ReceiptKind:
    """Under what a receipt is counted. Strangers choose types freely: one that no contract names counts as unknown."""
    known = body.submission_type in submissions.BODIES
    return ReceiptKind(
        body.submission_source[:_LONGEST_SOURCE],
        body.submission_type if known else _UNKNOWN_TYPE,
        "taken" if isinstance(body, receipts.SubmissionTaken) else "refused",
    )
