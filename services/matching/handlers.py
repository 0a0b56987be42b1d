"""What follows from an event, and from a round: event -> what is known -> decision -> facts."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, assert_never

from schemas import engagements, matches, requests, roster
from schemas.body import ExpertProfile
from schemas.body import Terms as TermsSaid
from schemas.matches import MatchBody
from schemas.vocabulary import Outcome
from services.matching.decisions import pool
from services.matching.decisions.pool import Agency, Asked, Confirmed, Decided, Released, Request, Terms
from services.matching.decisions.roster import (
    Award,
    Conflict,
    Employment,
    Expert,
    Partner,
    Profile,
    Skill,
    declare,
    waive,
)
from services.matching.decisions.rounds import Found, NotFound, Proposed, matching_round
from services.matching.store import Board, Body, Known, OnEngagement, OnRequest
from services.runtime.service import Event

Decision = tuple[Known, Sequence[MatchBody]]

LONGEST_REASON: Final = 2_000
"""Characters of a reason, which may quote what somebody said at any length."""

_NOTHING: Final[Sequence[MatchBody]] = ()


def decide(known: Known, event: Event[Body]) -> Decision:
    """What changes by one event, and the facts that follow. Only a round proposes; events confirm and release."""
    match event.body:
        case requests.RequestFact() as body:
            return _on_request(known, body, event.envelope.time)
        case engagements.EngagementFact() as body:
            return _on_engagement(known, body)
        case roster.PartnerFact() as body:
            return _on_partner(known, body), _NOTHING
        case roster.ExpertFact() as body:
            return _on_expert(known, body), _NOTHING
        case roster.ConflictDeclared() | roster.ConflictWaived() as body:
            return _on_conflict(known, body), _NOTHING
        case _:
            assert_never(event.body)


def _on_request(known: Known, body: OnRequest, time: datetime) -> Decision:
    request = known.requests.get(body.request_id, Request(body.request_id))
    match body:
        case requests.RequestAccepted():
            decided = pool.accept(request, _asked(body))
        case requests.RequestAmended():
            decided = pool.amend(request, _terms(body.terms))
        case requests.RequestReopened():
            decided = pool.reopen(request, _terms(body.terms), time)
        case requests.RequestHeld():
            decided = pool.hold(request)
        case requests.RequestResumed():
            decided = pool.resume(request)
        case requests.RequestWithdrawn():
            decided = pool.leave(request, "The agency has withdrawn.")
        case requests.RequestCancelled():
            decided = pool.leave(request, "The programme office has cancelled the request.")
        case requests.ProposalAccepted():
            decided = pool.agency_accepts(request, body.match_id)
        case requests.ProposalDeclined():
            decided = pool.agency_declines(request, body.match_id, body.reason)
        case requests.OfferAccepted():
            decided = pool.partner_accepts(request, body.match_id, body.partner_id)
        case requests.OfferDeclined():
            decided = pool.partner_declines(request, body.match_id, body.partner_id, body.reason)
        case _:
            assert_never(body)
    return _decision(request, decided)


def _on_engagement(known: Known, body: OnEngagement) -> Decision:
    request = known.requests.get(body.request_id, Request(body.request_id))
    match body:
        case engagements.EngagementNotPlannable():
            decided = pool.not_plannable(request, body.match_id, " ".join(one.problem for one in body.reasons))
        case engagements.EngagementDelivered():
            decided = pool.delivered(request, body.match_id)
        case engagements.EngagementClosed(outcome=Outcome.COMPLETED):
            decided = pool.delivered(request, body.match_id)
        case engagements.EngagementClosed():
            decided = pool.called_off(request, body.match_id, f"The engagement was {body.outcome}.")
        case _:
            assert_never(body)
    return _decision(request, decided)


def _decision(before: Request, decided: Decided) -> Decision:
    after, endings = decided
    if after == before:
        return Known(), _NOTHING
    return Known(requests={after.request_id: after}), [_ending(one) for one in endings]


def _on_partner(known: Known, body: roster.PartnerSelected | roster.PartnerSuspended) -> Known:
    partner = known.partners.get(body.partner_id, Partner(body.partner_id))
    match body:
        case roster.PartnerSelected():
            award = Award(body.capacity, body.period)
        case roster.PartnerSuspended():
            award = None
        case _:
            assert_never(body)
    return Known(partners={partner.partner_id: replace(partner, award=award, changed=True)})


def _on_expert(
    known: Known,
    body: roster.ExpertListed | roster.ExpertChanged | roster.ExpertRetired | roster.AvailabilityChanged,
) -> Known:
    expert = known.experts.get(body.expert_id, Expert(body.expert_id))
    match body:
        case roster.ExpertListed() | roster.ExpertChanged():
            after = replace(expert, profile=_profile(body.profile), unavailable=body.profile.unavailable)
        case roster.ExpertRetired():
            after = replace(expert, profile=None)
        case roster.AvailabilityChanged():
            after = replace(expert, unavailable=body.unavailable)
        case _:
            assert_never(body)
    return Known(experts={expert.expert_id: replace(after, changed=True)})


def _on_conflict(known: Known, body: roster.ConflictDeclared | roster.ConflictWaived) -> Known:
    """What is declared of somebody who is not on the roster yet is kept until they are."""
    if body.expert_id is not None:
        expert = known.experts.get(body.expert_id, Expert(body.expert_id))
        after = replace(expert, conflicts=_conflicts(expert.conflicts, body), changed=True)
        return Known(experts={expert.expert_id: after})
    if body.partner_id is not None:
        partner = known.partners.get(body.partner_id, Partner(body.partner_id))
        return Known(
            partners={partner.partner_id: replace(partner, conflicts=_conflicts(partner.conflicts, body), changed=True)}
        )
    return Known()


def _conflicts(
    conflicts: tuple[Conflict, ...], body: roster.ConflictDeclared | roster.ConflictWaived
) -> tuple[Conflict, ...]:
    match body:
        case roster.ConflictDeclared():
            return declare(conflicts, Conflict(body.conflict_id, body.ori, body.kind))
        case roster.ConflictWaived():
            return waive(conflicts, body.conflict_id)
        case _:
            assert_never(body)


def decide_round(board: Board, now: datetime) -> tuple[Known, Sequence[MatchBody]]:
    """What a round changes, and the facts that follow."""
    after, found = matching_round(board.requests, board.roster, board.load, now)
    experts, partners = board.roster.experts.values(), board.roster.partners.values()
    changes = Known(
        requests=after,
        experts={one.expert_id: replace(one, changed=False) for one in experts if one.changed},
        partners={one.partner_id: replace(one, changed=False) for one in partners if one.changed},
    )
    return changes, [_finding(one) for one in found]


def _finding(found: Found) -> MatchBody:
    match found:
        case Released():
            return _ending(found)
        case Proposed():
            one = found.expert
            return matches.MatchProposed(
                request_id=found.request_id,
                match_id=found.match.match_id,
                partner_id=found.match.partner_id,
                experts=(matches.MatchedExpert(expert_id=one.expert_id, affinity=one.affinity, reasons=one.reasons),),
            )
        case NotFound():
            return matches.MatchNotFound(
                request_id=found.request_id,
                reasons=tuple(
                    matches.Shortfall(code=one.reason, experts=one.experts, says=one.says) for one in found.reasons
                ),
                would_help=found.would_help,
            )
        case _:
            assert_never(found)


def _ending(ending: Confirmed | Released) -> MatchBody:
    match ending:
        case Confirmed():
            return matches.MatchConfirmed(
                request_id=ending.request_id,
                match_id=ending.match.match_id,
                partner_id=ending.match.partner_id,
                expert_ids=ending.match.expert_ids,
            )
        case Released():
            return matches.MatchReleased(
                request_id=ending.request_id,
                match_id=ending.match.match_id,
                expert_ids=ending.match.expert_ids,
                reason=ending.reason[:LONGEST_REASON],
            )
        case _:
            assert_never(ending)


def _asked(body: requests.RequestAccepted) -> Asked:
    said = body.agency
    agency = Agency(said.ori, said.agency_type, said.sworn_band, said.place, body.participating)
    return Asked(agency, _terms(body.terms), body.submitted_at)


def _terms(said: TermsSaid) -> Terms:
    return Terms(said.topics, said.delivery_modes, said.window, said.blackouts, said.urgency)


def _profile(said: ExpertProfile) -> Profile:
    return Profile(
        partner_id=said.partner_id,
        skills=tuple(Skill(one.topic, one.level) for one in said.skills),
        delivery_modes=frozenset(said.delivery_modes),
        agency_types=frozenset(said.agency_types),
        sworn_band=said.sworn_band,
        home=said.home,
        travel_limit_km=said.travel_limit_km,
        load_limit=said.load_limit,
        employments=tuple(Employment(one.ori, one.until) for one in said.employments),
        vendor_topics=frozenset(said.vendor_topics),
    )
