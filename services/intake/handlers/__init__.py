"""From an event to the facts that follow: what is known, who may say it, the decision, the facts and the receipt.

Every submission is answered by exactly one receipt, also the one nobody can read.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, assert_never

from schemas import receipts, requests
from schemas import submissions as said
from schemas.engagements import EngagementClosed
from schemas.vocabulary import ActorRole, PartnerId
from services.intake.decisions import authority
from services.intake.decisions.authority import Speaker
from services.intake.decisions.clocks import RULING_CLOCK, ring
from services.intake.decisions.problems import Problem, Refusal
from services.intake.handlers import on_requests, on_roster
from services.intake.handlers.answer import Answer, Unusable, stated
from services.intake.store import Known, Wanted
from services.runtime.service import Event, FactBody

Body = said.SubmissionBody | EngagementClosed | Unusable
"""What intake heeds. Whatever else scheduling tells changes nothing here, and is passed over unread."""

__all__ = ["Unusable", "decide", "ring_clocks", "wanted"]


def wanted(events: Iterable[Event[Any]]) -> Wanted:
    """Ids of what these events may need."""
    ids = Wanted()
    for event in events:
        _want(ids, event.body)
    return ids


def _want(ids: Wanted, body: Body) -> None:
    match body:
        case said.RequestSubmitted():
            ids.requests.add(body.request_id)
            ids.agencies.add(body.ori)
            ids.named.update(body.participating)
        case said.AmendmentSubmitted() | said.InformationSupplied() | said.ReopeningAsked() | said.RequestRuled():
            ids.requests.add(body.request_id)
            ids.agencies_of.add(body.request_id)
            if isinstance(body, said.InformationSupplied):
                ids.named.update(body.participating or ())
        case said.OfferAccepted() | said.OfferDeclined() | said.SessionReported():
            ids.requests.add(body.request_id)
            if body.actor.role is ActorRole.PARTNER:
                ids.consulted.add(PartnerId(body.actor.id))
        case said.OnRequest() | EngagementClosed():
            ids.requests.add(body.request_id)
        case said.PartnerApplied():
            ids.partners.add(body.partner_id)
        case said.ApplicationRuled():
            ids.ruled_on.add(body.partner_id)
        case said.ExpertListed() | said.ExpertChanged():
            ids.experts.add(body.expert_id)
            ids.partners.add(body.profile.partner_id)
        case said.ExpertRetired() | said.AvailabilityChanged():
            ids.experts.add(body.expert_id)
        case said.ConflictDisclosed():
            ids.conflicts.add(body.conflict_id)
            ids.named.add(body.ori)
            if body.expert_id is not None:
                ids.experts.add(body.expert_id)
        case said.ConflictWaived():
            ids.conflicts.add(body.conflict_id)
        case Unusable():
            pass
        case _:
            assert_never(body)


def decide(known: Known, event: Event[Any]) -> tuple[Known, Sequence[FactBody]]:
    """What changes, and the facts that follow from one event."""
    body: Body = event.body
    match body:
        case EngagementClosed():
            return on_requests.engagement_closed(known, event, body)
        case Unusable():
            return Known(), [_refused(event, Refusal(body.reason, body.problems))]
        case _:
            answer = _misaddressed(event, body) or _answer(known, event, body)
    if isinstance(answer, Refusal):
        return Known(), [_refused(event, answer)]
    changes, facts = answer
    return changes, [*facts, _taken(event)]


def ring_clocks(known: Known, now: datetime) -> tuple[Known, Sequence[FactBody]]:
    """What the ruling clocks say by now, each thing once."""
    changes, facts = Known(), list[FactBody]()
    for request in known.requests.values():
        if request.ruling_clock is None:
            continue
        clock, rung = ring(request.ruling_clock, now)
        changes.requests[request.request_id] = replace(request, ruling_clock=clock)
        if rung.warned:
            facts.append(requests.ClockWarned(request_id=request.request_id, clock=RULING_CLOCK, due=clock.due))
        if rung.breached:
            facts.append(requests.ClockBreached(request_id=request.request_id, clock=RULING_CLOCK, due=clock.due))
    return changes, facts


def _misaddressed(event: Event[Any], body: said.SubmissionBody) -> Refusal | None:
    """Events are kept in order by their subject: one that names another would be out of order."""
    subject = event.envelope.subject
    if subject in ("", body.subject):
        return None
    return Refusal(
        "the event's subject is not what its data speaks of", (Problem("subject", f"is not {body.subject}"),)
    )


def _answer(known: Known, event: Event[Any], body: said.SubmissionBody) -> Answer:
    speaker = Speaker(body.actor.role, body.actor.id)
    match body:
        case said.RequestSubmitted():
            return authority.agency(speaker, body.ori) or on_requests.request_submitted(known, event, body)
        case said.PartnerApplied():
            return authority.partner(speaker, body.partner_id) or on_roster.partner_applied(known, body)
        case said.ApplicationRuled():
            return authority.programme_office(speaker) or on_roster.application_ruled(known, body)
        case said.ExpertListed():
            return authority.partner(speaker, body.profile.partner_id) or on_roster.expert_listed(known, body)
        case said.ExpertChanged() | said.ExpertRetired() | said.AvailabilityChanged():
            return on_roster.of_expert(known, speaker, body)
        case said.ConflictDisclosed():
            return on_roster.conflict_disclosed(known, speaker, body)
        case said.ConflictWaived():
            return on_roster.conflict_waived(known, speaker, body)
        case _:
            return on_requests.of_request(known, event, speaker, body)


def _taken(event: Event[Any]) -> receipts.SubmissionTaken:
    envelope = event.envelope
    return receipts.SubmissionTaken(
        submission_source=envelope.source, submission_id=envelope.id, submission_type=envelope.type
    )


def _refused(event: Event[Any], refusal: Refusal) -> receipts.SubmissionRefused:
    envelope = event.envelope
    return receipts.SubmissionRefused(
        submission_source=envelope.source,
        submission_id=envelope.id,
        submission_type=envelope.type,
        reason=refusal.reason,
        problems=stated(refusal.problems),
    )
