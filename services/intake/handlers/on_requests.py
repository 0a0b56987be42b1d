"""What is said of a request: submitted, supplied, amended, withdrawn, answered, ruled on; and the facts that follow."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, assert_never

from pydantic import TypeAdapter

from schemas import body as parts
from schemas import engagements, requests
from schemas import submissions as said
from schemas.vocabulary import ActorRole, Outcome, PartnerId
from services.intake.decisions import authority, lifecycle, triage
from services.intake.decisions.authority import Speaker
from services.intake.decisions.clocks import ruling_clock
from services.intake.decisions.lifecycle import Information, Ruling
from services.intake.decisions.problems import Problem, Refusal
from services.intake.decisions.registry import Agency
from services.intake.decisions.request import Changes, Letter, Reopening, Request, Sensitive, Terms
from services.intake.decisions.triage import Circumstances, Triage, Verdict
from services.intake.handlers.answer import Answer, as_part, as_state, stated
from services.intake.store import Known
from services.runtime.service import Event, FactBody

OfRequest = (
    said.AmendmentSubmitted
    | said.InformationSupplied
    | said.WithdrawalAsked
    | said.ReopeningAsked
    | said.ProposalAccepted
    | said.ProposalDeclined
    | said.OfferAccepted
    | said.OfferDeclined
    | said.PlanApproved
    | said.PlanChangesAsked
    | said.PlanCleared
    | said.SessionReported
    | said.EvaluationReturned
    | said.RequestRuled
    | said.HoldAsked
)
"""What can be said of a request that was submitted before."""

Passed = (
    said.ProposalAccepted
    | said.ProposalDeclined
    | said.OfferAccepted
    | said.OfferDeclined
    | said.PlanApproved
    | said.PlanChangesAsked
    | said.PlanCleared
    | said.SessionReported
    | said.EvaluationReturned
)
"""What intake passes on once it is said by someone who may, while the request is active."""

_TERMS: Final = TypeAdapter(Terms)
_CHANGES: Final = TypeAdapter(Changes)
_SENSITIVE: Final = TypeAdapter(Sensitive)
_LETTER: Final = TypeAdapter(Letter)


def request_submitted(known: Known, event: Event[Any], body: said.RequestSubmitted) -> Answer:
    """A request comes in: it is weighed at once."""
    if body.request_id in known.requests:
        return lifecycle.taken(body.request_id)
    request = Request(
        request_id=body.request_id,
        ori=body.ori,
        terms=as_state(_TERMS, body.terms),
        submitted_at=event.received,
        participating=body.participating,
        executive_support=_letter(body.executive_support),
        governing_body_support=_letter(body.governing_body_support),
        host_facilities=body.host_facilities,
        public=body.public,
        sensitive=as_state(_SENSITIVE, body.sensitive),
    )
    return _weighed(known, event, request)


def of_request(known: Known, event: Event[Any], speaker: Speaker, body: OfRequest) -> Answer:
    """Something is said of a request that was submitted before."""
    request = known.requests.get(body.request_id)
    if request is None:
        return lifecycle.unknown(body.request_id)
    return _who_may(known, request, speaker, body) or _heard(known, event, request, body)


def _who_may(known: Known, request: Request, speaker: Speaker, body: OfRequest) -> Refusal | None:
    match body:
        case (
            said.AmendmentSubmitted()
            | said.InformationSupplied()
            | said.WithdrawalAsked()
            | said.ReopeningAsked()
            | said.ProposalAccepted()
            | said.ProposalDeclined()
            | said.PlanChangesAsked()
            | said.EvaluationReturned()
        ):
            return authority.agency(speaker, request.ori)
        case said.PlanApproved():
            return authority.executive(speaker, request.ori)
        case said.PlanCleared() | said.RequestRuled() | said.HoldAsked():
            return authority.programme_office(speaker)
        case said.OfferAccepted() | said.OfferDeclined():
            return authority.selected_partner(speaker, known.partners.get(PartnerId(speaker.id)))
        case said.SessionReported():
            return authority.reporter(speaker, request.ori, known.partners.get(PartnerId(speaker.id)))
        case _:
            assert_never(body)


def _heard(known: Known, event: Event[Any], request: Request, body: OfRequest) -> Answer:
    match body:
        case said.InformationSupplied():
            return _information_supplied(known, event, request, body)
        case said.AmendmentSubmitted():
            return _amendment_submitted(known, event, request, body)
        case said.WithdrawalAsked():
            fact = requests.RequestWithdrawn(request_id=request.request_id, reason=body.reason)
            return _moved(known, request, lifecycle.withdrawn(request), fact)
        case said.ReopeningAsked():
            return _reopening_asked(known, event, request, body)
        case said.RequestRuled():
            return _request_ruled(known, request, body)
        case said.HoldAsked(on_hold=True):
            fact = requests.RequestHeld(request_id=request.request_id, reason=body.reason)
            return _moved(known, request, lifecycle.held(request, body.reason), fact)
        case said.HoldAsked():
            fact = requests.RequestResumed(request_id=request.request_id, reason=body.reason)
            return _moved(known, request, lifecycle.resumed(request), fact)
        case said.SessionReported() | said.EvaluationReturned():
            facts = [_passed_on(body)] if lifecycle.counts_reports(request) else []
            return lifecycle.may_be_reported_on(request) or (Known(), facts)
        case (
            said.ProposalAccepted()
            | said.ProposalDeclined()
            | said.OfferAccepted()
            | said.OfferDeclined()
            | said.PlanApproved()
            | said.PlanChangesAsked()
            | said.PlanCleared()
        ):
            return lifecycle.may_be_answered(request) or (Known(), [_passed_on(body)])
        case _:
            assert_never(body)


def _information_supplied(known: Known, event: Event[Any], request: Request, body: said.InformationSupplied) -> Answer:
    information = Information(
        executive_support=_letter(body.executive_support),
        governing_body_support=_letter(body.governing_body_support),
        participating=body.participating,
        sensitive=None if body.sensitive is None else as_state(_SENSITIVE, body.sensitive),
    )
    after = lifecycle.informed(request, request.terms.changed_by(as_state(_CHANGES, body.changes)), information)
    return after if isinstance(after, Refusal) else _weighed(known, event, after)


def _amendment_submitted(known: Known, event: Event[Any], request: Request, body: said.AmendmentSubmitted) -> Answer:
    terms = request.terms.changed_by(as_state(_CHANGES, body.changes))
    if request.is_undecided:
        sensitive = None if body.sensitive is None else as_state(_SENSITIVE, body.sensitive)
        after = lifecycle.informed(request, terms, Information(sensitive=sensitive))
        return after if isinstance(after, Refusal) else _weighed(known, event, after)
    faults = triage.faults_of_amendment(request, terms, _circumstances(known, event.received, request))
    after = lifecycle.amended(request, terms, faults)
    if isinstance(after, Refusal):
        return after
    if after is request and body.sensitive is None:
        return Known(), []
    fact = requests.RequestAmended(
        request_id=request.request_id, terms=as_part(parts.Terms, after.terms), sensitive=body.sensitive
    )
    return _changed(known, after), [fact]


def _reopening_asked(known: Known, event: Event[Any], request: Request, body: said.ReopeningAsked) -> Answer:
    faults = triage.faults_of_reopening(request, _circumstances(known, event.received, request))
    after = lifecycle.reopening_asked(request, Reopening(event.received, body.reason), faults)
    return _moved(known, request, after, _reopened(request, body.reason))


def _request_ruled(known: Known, request: Request, body: said.RequestRuled) -> Answer:
    ruling = Ruling(body.ruling)
    after = lifecycle.ruled(request, ruling, body.refer_to)
    if isinstance(after, Refusal) or after is request:
        return _moved(known, request, after)
    if ruling is Ruling.CANCEL:
        fact = requests.RequestCancelled(request_id=request.request_id, reason=body.reason)
        return _moved(known, request, after, fact)
    verdict = {
        Ruling.ACCEPT: Verdict.ACCEPT,
        Ruling.DECLINE: Verdict.DECLINE,
        Ruling.REFER_OUT: Verdict.REFER_OUT,
    }[ruling]
    outcome = Triage(verdict, (Problem("", body.reason),), body.refer_to)
    return _changed(known, after), [_decided(request, known.agencies[request.ori].agency, outcome)]


def engagement_closed(
    known: Known, event: Event[Any], body: engagements.EngagementClosed
) -> tuple[Known, Sequence[FactBody]]:
    """Scheduling has closed the engagement of a request; only its completion is news to intake."""
    request = known.requests.get(body.request_id)
    if request is None or body.outcome is not Outcome.COMPLETED:
        return Known(), []
    after, granted = lifecycle.closed(request, event.envelope.time)
    if after is request:
        return Known(), []
    facts: list[FactBody] = []
    if granted is not None:
        facts.append(_reopened(after, granted.reason))
        if granted.hold is not None:
            facts.append(requests.RequestHeld(request_id=request.request_id, reason=granted.hold))
    return _changed(known, after), facts


def _weighed(known: Known, event: Event[Any], request: Request) -> Answer:
    given = _circumstances(known, event.received, request)
    outcome = triage.triage(request, given)
    clock = None
    if given.agency is not None and outcome.verdict is Verdict.AWAIT_RULING:
        clock = ruling_clock(event.received, given.agency.time_zone)
    after = lifecycle.decided(request, outcome, clock)
    return _changed(known, after), [_decided(request, given.agency, outcome)]


def _circumstances(known: Known, now: datetime, request: Request) -> Circumstances:
    standing = known.agencies.get(request.ori)
    return Circumstances(
        agency=standing.agency if standing else None,
        registered=frozenset(ori for ori in request.participating if ori in known.registered),
        open_topics=standing.open_topics if standing else {},
        topics=known.topics,
        today=standing.agency.day(now) if standing else now.date(),
    )


def _moved(known: Known, before: Request, after: Request | Refusal, *facts: FactBody) -> Answer:
    """The request has moved to another step, which these facts say."""
    if isinstance(after, Refusal):
        return after
    if after is before:
        return Known(), []
    return _changed(known, after), list(facts) if after.step is not before.step else []


def _changed(known: Known, request: Request) -> Known:
    changes = Known(requests={request.request_id: request})
    standing = known.agencies.get(request.ori)
    if standing is not None:
        changes.agencies[request.ori] = standing.with_request(request)
    return changes


def _decided(request: Request, agency: Agency | None, outcome: Triage) -> FactBody:
    """The fact of a verdict on a request, which still has its sensitive part."""
    known = None if agency is None else as_part(parts.Agency, agency)
    reasons = stated(outcome.reasons)
    match outcome.verdict:
        case Verdict.ACCEPT:
            assert known is not None, "an agency that is not in the registry is declined"
            return requests.RequestAccepted(
                request_id=request.request_id,
                agency=known,
                participating=request.participating,
                terms=as_part(parts.Terms, request.terms),
                public=request.public,
                submitted_at=request.submitted_at,
                sensitive=as_part(parts.Sensitive, request.sensitive),
            )
        case Verdict.ASK | Verdict.AWAIT_RULING:
            assert known is not None, "an agency that is not in the registry is declined"
            return requests.InformationRequested(
                request_id=request.request_id,
                agency=known,
                topics=request.terms.topics,
                missing=reasons,
                submitted_at=request.submitted_at,
            )
        case Verdict.REFER_OUT:
            assert outcome.refer_to is not None, "a referral names who helps"
            return requests.RequestReferredOut(
                request_id=request.request_id,
                agency=known,
                topics=request.terms.topics,
                refer_to=outcome.refer_to,
                reasons=reasons,
                submitted_at=request.submitted_at,
            )
        case Verdict.DECLINE:
            return requests.RequestDeclined(
                request_id=request.request_id,
                agency=known,
                topics=request.terms.topics,
                reasons=reasons,
                submitted_at=request.submitted_at,
            )
        case _:
            assert_never(outcome.verdict)


def _reopened(request: Request, reason: str) -> requests.RequestReopened:
    terms = as_part(parts.Terms, request.terms)
    return requests.RequestReopened(request_id=request.request_id, terms=terms, reason=reason)


def _passed_on(body: Passed) -> FactBody:
    """The fact that this was said by someone who may."""
    fields = body.model_dump(exclude={"actor"})
    match body:
        case said.ProposalAccepted():
            return requests.ProposalAccepted(**fields)
        case said.ProposalDeclined():
            return requests.ProposalDeclined(**fields)
        case said.OfferAccepted():
            return requests.OfferAccepted(**fields, partner_id=PartnerId(body.actor.id))
        case said.OfferDeclined():
            return requests.OfferDeclined(**fields, partner_id=PartnerId(body.actor.id))
        case said.PlanApproved():
            return requests.PlanApproved(**fields)
        case said.PlanChangesAsked():
            return requests.PlanChangesRequested(**fields)
        case said.PlanCleared():
            return requests.PlanCleared(**fields)
        case said.SessionReported():
            reporting = PartnerId(body.actor.id) if body.actor.role is ActorRole.PARTNER else None
            return requests.SessionReported(**fields, partner_id=reporting)
        case said.EvaluationReturned():
            return requests.EvaluationReturned(**fields)
        case _:
            assert_never(body)


def _letter(letter: parts.LetterOfSupport | None) -> Letter | None:
    return None if letter is None else as_state(_LETTER, letter)
