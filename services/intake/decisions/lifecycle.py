"""The life of a request: which step follows which. Each function gives the request afterwards, or a refusal.

The same object as went in means that it was so already: nothing has happened. Withdrawal and cancellation end a
request whatever else is going on, even after scheduling has closed it: news of the closing may arrive before or after
them, and the end has to be the same.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from schemas.vocabulary import Ori, RequestId
from services.intake.decisions.clocks import RulingClock
from services.intake.decisions.problems import Problem, Refusal
from services.intake.decisions.request import Letter, Reopening, Request, Sensitive, Step, Terms
from services.intake.decisions.triage import Triage, Verdict

REOPENING_WITHIN: Final = timedelta(days=180)
"""How long after its closing a request can be taken up again [design decision]."""


class Ruling(StrEnum):
    """What the programme office says of a request."""

    ACCEPT = "accept"
    DECLINE = "decline"
    REFER_OUT = "refer_out"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class Information:
    """What an agency supplies besides changed terms; None leaves things as they were."""

    executive_support: Letter | None = None
    governing_body_support: Letter | None = None
    participating: tuple[Ori, ...] | None = None
    sensitive: Sensitive | None = None


_STEP_AFTER: Final = {
    Verdict.ACCEPT: Step.ACCEPTED,
    Verdict.AWAIT_RULING: Step.AWAITING_RULING,
    Verdict.ASK: Step.NEEDS_INFORMATION,
    Verdict.REFER_OUT: Step.REFERRED_OUT,
    Verdict.DECLINE: Step.DECLINED,
}
_STEP_RULED: Final = {
    Ruling.ACCEPT: Step.ACCEPTED,
    Ruling.DECLINE: Step.DECLINED,
    Ruling.REFER_OUT: Step.REFERRED_OUT,
    Ruling.CANCEL: Step.CANCELLED,
}


def unknown(request_id: RequestId) -> Refusal:
    """No request of this id was ever submitted."""
    return Refusal(f"no request {request_id} is known", (Problem("request_id", "names no known request"),))


def taken(request_id: RequestId) -> Refusal:
    """Another submission has this id already."""
    says = "is taken; the id of a request is unique among all requests"
    return Refusal(f"the id {request_id} names another request already", (Problem("request_id", says),))


def decided(request: Request, triage: Triage, clock: RulingClock | None) -> Request:
    """The request after triage; `clock` is there where a ruling is awaited. One that runs already runs on."""
    timed = replace(request, ruling_clock=clock and (request.ruling_clock or clock))
    return _moved(timed, _STEP_AFTER[triage.verdict])


def informed(request: Request, terms: Terms, information: Information) -> Request | Refusal:
    """The undecided request with what the agency has supplied."""
    if not request.is_undecided:
        if request.is_open:
            return Refusal("nothing is missing from this request; its terms are changed by amendment.submitted")
        return _over(request)
    sensitive = request.sensitive
    return replace(
        request,
        terms=terms,
        participating=request.participating if information.participating is None else information.participating,
        executive_support=information.executive_support or request.executive_support,
        governing_body_support=information.governing_body_support or request.governing_body_support,
        sensitive=sensitive.supplemented_by(information.sensitive) if information.sensitive else sensitive,
    )


def amended(request: Request, terms: Terms, faults: tuple[Problem, ...]) -> Request | Refusal:
    """The accepted request on other terms, unless something is wrong with them."""
    if not request.is_open:
        return _over(request)
    if faults:
        return Refusal("the request cannot be amended like this; its terms stay as they were", faults)
    return request if terms == request.terms else replace(request, terms=terms)


def withdrawn(request: Request) -> Request:
    """The agency withdraws: always heard. A request that has not come to anything stays as it is."""
    return _moved(request, Step.WITHDRAWN) if request.is_open or request.step is Step.CLOSED else request


def held(request: Request, reason: str) -> Request | Refusal:
    """The programme office puts an accepted request on hold."""
    if request.is_undecided:
        return Refusal("only a request that was accepted can be put on hold; this one waits for a decision already")
    return _moved(_with_hold(request, reason), Step.ON_HOLD) if request.is_active else _over(request)


def resumed(request: Request) -> Request | Refusal:
    """The programme office takes a request off hold."""
    if not request.is_open:
        return _over(request)
    return _moved(_with_hold(request, None), Step.ACCEPTED) if request.is_active else request


def ruled(request: Request, ruling: Ruling, refer_to: str | None) -> Request | Refusal:
    """The request after the programme office's ruling."""
    if request.step is _STEP_RULED[ruling]:
        return request
    if ruling is Ruling.CANCEL:
        may = request.is_open or request.step is Step.CLOSED
        return _moved(request, Step.CANCELLED) if may else _over(request)
    if request.is_active:
        return Refusal("the request was accepted already; it can be cancelled or put on hold")
    if not request.is_undecided:
        return _over(request)
    if ruling is Ruling.REFER_OUT and refer_to is None:
        return Refusal("a referral names who will help", (Problem("refer_to", "is missing"),))
    return _moved(request, _STEP_RULED[ruling])


def may_be_answered(request: Request) -> Refusal | None:
    """Answers to proposals and plans are heard while a request is active."""
    if request.is_active:
        return None
    if request.is_open:
        return Refusal("the request has not been accepted yet; there is nothing to answer")
    return _over(request)


def may_be_reported_on(request: Request) -> Refusal | None:
    """Reports and evaluations are heard of whatever was taken on, also afterwards."""
    if request.step in (Step.ACCEPTED, Step.ON_HOLD, Step.CLOSED, Step.WITHDRAWN, Step.CANCELLED):
        return None
    return Refusal("no assistance was given for this request; there is nothing to report")


def counts_reports(request: Request) -> bool:
    """Whether a report is passed on: not once the request was withdrawn or cancelled."""
    return request.is_active or request.step is Step.CLOSED


def reopening_asked(request: Request, wish: Reopening, faults: tuple[Problem, ...]) -> Request | Refusal:
    """The agency wants a closed request taken up again, unless something stands in the way.

    Scheduling's news that it is closed may still be on its way: then the wish is remembered.
    """
    if request.is_active:
        # Only a hold between two wishes makes a difference to which of them is granted.
        earlier = request.wishes if request.wishes and request.wishes[-1].hold is not None else request.wishes[:-1]
        return replace(request, wishes=(*earlier, wish))
    if request.step in (Step.NEEDS_INFORMATION, Step.AWAITING_RULING):
        return Refusal("the request is still open: it waits for information or for the programme office's ruling")
    if request.step is not Step.CLOSED or request.closed_at is None:
        return Refusal("only a completed request can be reopened; please submit a new one")
    if not _in_time(request.closed_at, wish):
        return Refusal(f"a request can be reopened within {REOPENING_WITHIN.days} days; please submit a new one")
    if faults:
        return Refusal("the request cannot be reopened", faults)
    return _reopened(request) if wish.asked_at >= request.closed_at else request


def closed(request: Request, closed_at: datetime) -> tuple[Request, Reopening | None]:
    """Scheduling has completed the request; a wish to reopen it that was uttered since then is granted at once."""
    if not request.is_active:
        return request, None
    over = replace(_moved(request, Step.CLOSED), closed_at=closed_at)
    granted = next((wish for wish in request.wishes if wish.asked_at >= closed_at and _in_time(closed_at, wish)), None)
    if granted is None:
        return over, None
    return _moved(_reopened(over), Step.ACCEPTED if granted.hold is None else Step.ON_HOLD), granted


def _in_time(closed_at: datetime, wish: Reopening) -> bool:
    return wish.asked_at <= closed_at + REOPENING_WITHIN


def _reopened(request: Request) -> Request:
    return replace(_moved(request, Step.ACCEPTED), closed_at=None)


def _with_hold(request: Request, reason: str | None) -> Request:
    wishes = tuple(replace(wish, hold=reason) for wish in request.wishes)
    return request if wishes == request.wishes else replace(request, wishes=wishes)


def _moved(request: Request, step: Step) -> Request:
    if step is request.step:
        return request
    after = replace(request, step=step)
    if after.is_undecided:
        return after
    # Decided: contact data and the narrative have gone out with the fact and are needed here no longer.
    return replace(after, sensitive=Sensitive(), ruling_clock=None, wishes=after.wishes if after.is_active else ())


def _over(request: Request) -> Refusal:
    return Refusal(f"the request is not open: it is {request.step.value.replace('_', ' ')}")
