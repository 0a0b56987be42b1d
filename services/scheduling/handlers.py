"""What each event means for an engagement: event -> what is known -> decision -> facts."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import assert_never

from schemas import body as contract
from schemas import matches, requests, roster
from schemas.body import Problem
from schemas.engagements import (
    EngagementBody,
    EngagementClosed,
    EngagementConfirmed,
    EngagementDelivered,
    EngagementNotPlannable,
    EngagementPlanned,
    EngagementReplanned,
    FollowUpDue,
    Session,
    SessionCancelled,
)
from schemas.vocabulary import ExpertId, Outcome, RequestId
from services.runtime.service import Event
from services.scheduling.decisions import engagement, life, plan
from services.scheduling.decisions.engagement import Engagement, Happening, Match, OtherDates
from services.scheduling.decisions.life import Booked, Calendars, Result
from services.scheduling.store import Body, Knowledge, OnExpert, OnMatch, OnRequest

Decision = tuple[Knowledge, Sequence[EngagementBody]]


def decide(known: Knowledge, event: Event[Body]) -> Decision:
    """What one event changes, and the facts that follow."""
    body = event.body
    if isinstance(body, OnExpert):
        return _on_expert(known, body, event.received)
    before = _engagement(known, body.request_id)
    present, calendars = life.as_of(before, event.received), _calendars(known, event.received)
    if isinstance(body, OnRequest):
        return _changes(known, [(before, _on_request(present, body, calendars))])
    return _changes(known, [(before, _on_match(present, body, calendars))])


def remind(known: Knowledge, now: datetime) -> Decision:
    """The round: every engagement loaded has its follow-up due at `now`."""
    return _changes(known, [(before, life.remind(before)) for before in known.engagements.values()])


def _on_request(known: Engagement, body: OnRequest, calendars: Calendars) -> Result:
    match body:
        case requests.RequestAccepted():
            site = plan.Site(body.agency.time_zone, body.agency.place)
            return life.accept(known, site, _terms(body.terms), calendars)
        case requests.RequestAmended():
            return life.amend(known, _terms(body.terms), calendars)
        case requests.RequestReopened():
            return life.reopen(known, _terms(body.terms), calendars)
        case requests.RequestHeld():
            return life.hold(known)
        case requests.RequestResumed():
            return life.resume(known, calendars)
        case requests.RequestWithdrawn():
            return life.end(known, Outcome.WITHDRAWN, "The agency has withdrawn its request.")
        case requests.RequestCancelled():
            return life.end(known, Outcome.CANCELLED, body.reason)
        case requests.PlanApproved():
            return life.approve(known, body.plan_version, calendars)
        case requests.PlanCleared():
            return life.clear(known, body.plan_version, calendars)
        case requests.PlanChangesRequested():
            asked = OtherDates(body.plan_version, body.reason, body.window, body.blackouts)
            return life.ask_other_dates(known, asked, calendars)
        case requests.SessionReported():
            return life.report(known, body.session_id, calendars.now)
        case requests.EvaluationReturned():
            return life.evaluate(known, calendars.now)
        case _:
            assert_never(body)


def _on_match(known: Engagement, body: OnMatch, calendars: Calendars) -> Result:
    match body:
        case matches.MatchConfirmed():
            return life.confirm_match(known, Match(body.match_id, body.expert_ids), calendars)
        case matches.MatchReleased():
            return life.release_match(known, body.match_id, body.reason)
        case _:
            assert_never(body)


def _on_expert(known: Knowledge, body: OnExpert, now: datetime) -> Decision:
    match body:
        case roster.ExpertListed() | roster.ExpertChanged():
            return _review(known, body.expert_id, _profile(body.profile), now)
        case roster.AvailabilityChanged():
            profile = known.experts[body.expert_id].profile
            if profile is None:
                return Knowledge(), ()
            return _review(known, body.expert_id, replace(profile, unavailable=body.unavailable), now)
        case _:
            assert_never(body)


def _review(known: Knowledge, expert_id: ExpertId, profile: plan.Profile, now: datetime) -> Decision:
    """The expert's engagements in turn: each sees the time the ones before it now take."""
    expert = replace(known.experts[expert_id], profile=profile)
    learned = Knowledge(experts={expert_id: expert})
    at_hand = Knowledge(experts={**known.experts, expert_id: expert}, booked=dict(known.booked))
    facts: list[EngagementBody] = []
    concerned = [one for one in known.engagements.values() if one.match and expert_id in one.match.expert_ids]
    for before in sorted(concerned, key=lambda one: one.request_id):
        present = life.as_of(before, now)
        changes, more = _changes(at_hand, [(before, life.review_expert(present, expert, _calendars(at_hand, now)))])
        at_hand.absorb(changes)
        learned.absorb(changes)
        facts += more
    return learned, facts


def _engagement(known: Knowledge, request_id: RequestId) -> Engagement:
    return known.engagements.get(request_id) or Engagement(request_id)


def _calendars(known: Knowledge, now: datetime) -> Calendars:
    return Calendars(known.experts, known.booked, now)


def _changes(known: Knowledge, results: Iterable[tuple[Engagement, Result]]) -> Decision:
    changed = Knowledge()
    facts: list[EngagementBody] = []
    for before, (after, happened) in results:
        if after != before:
            changed.engagements[after.request_id] = after
            changed.booked.update(_booked_now(known, before, after))
        facts += (_fact(after.request_id, happening) for happening in happened)
    return changed, facts


def _booked_now(known: Knowledge, before: Engagement, after: Engagement) -> dict[ExpertId, Booked]:
    """What is booked of the experts at hand, where this engagement takes other time of them than before."""
    if after.outstanding == before.outstanding:
        return {}
    concerned = {expert_id for session in before.outstanding + after.outstanding for expert_id in session.expert_ids}
    return {
        expert_id: (
            *(booked for booked in known.booked.get(expert_id, ()) if booked[0] != after.request_id),
            *((after.request_id, session.occupies) for session in after.outstanding if expert_id in session.expert_ids),
        )
        for expert_id in concerned & known.experts.keys()
    }


def _terms(terms: contract.Terms) -> plan.Terms:
    return plan.Terms(terms.delivery_modes, terms.window, terms.blackouts)


def _profile(profile: contract.ExpertProfile) -> plan.Profile:
    return plan.Profile(
        home=profile.home,
        time_zone=profile.time_zone,
        delivery_modes=profile.delivery_modes,
        travel_limit_km=profile.travel_limit_km,
        unavailable=profile.unavailable,
    )


def _fact(request_id: RequestId, happening: Happening) -> EngagementBody:
    match happening:
        case engagement.Planned(planned):
            return EngagementPlanned(
                request_id=request_id,
                match_id=planned.match_id,
                plan_version=planned.version,
                sessions=_sessions(planned.sessions),
            )
        case engagement.Replanned(planned, reason):
            return EngagementReplanned(
                request_id=request_id,
                match_id=planned.match_id,
                plan_version=planned.version,
                sessions=_sessions(planned.sessions),
                reason=reason,
            )
        case engagement.NotPlannable(match_id, reasons):
            problems = tuple(Problem(field=reason.field, problem=reason.says) for reason in reasons)
            return EngagementNotPlannable(request_id=request_id, match_id=match_id, reasons=problems)
        case engagement.Confirmed(match_id, plan_version):
            return EngagementConfirmed(request_id=request_id, match_id=match_id, plan_version=plan_version)
        case engagement.SessionDropped(session_id, reason):
            return SessionCancelled(request_id=request_id, session_id=session_id, reason=reason)
        case engagement.Delivered(match_id, delivered_on):
            return EngagementDelivered(request_id=request_id, match_id=match_id, delivered_on=delivered_on)
        case engagement.FollowUp(due):
            return FollowUpDue(request_id=request_id, due=due)
        case engagement.Closed(match_id, outcome):
            return EngagementClosed(request_id=request_id, match_id=match_id, outcome=outcome)
        case _:
            assert_never(happening)


def _sessions(sessions: Iterable[plan.Session]) -> tuple[Session, ...]:
    return tuple(
        Session(
            session_id=session.session_id,
            title=session.title,
            delivery_mode=session.delivery_mode,
            on_site=session.on_site,
            takes_place=session.takes_place,
            occupies=session.occupies,
            time_zone=session.time_zone,
            expert_ids=session.expert_ids,
        )
        for session in sessions
    )
