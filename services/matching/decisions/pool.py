"""The life of one request in the pool: what it asks for, its matches one after the other, and who answered what.

A request is told of by two topics between which there is no order. What each topic says is therefore kept apart (what
the agency asks; which engagements are `over`), and the step follows from both, whichever spoke first.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Final

from schemas.vocabulary import (
    AgencyType,
    DateWindow,
    DeliveryMode,
    ExpertId,
    MatchId,
    Ori,
    PartnerId,
    Place,
    RequestId,
    SwornBand,
    TopicCode,
    Urgency,
)

PATIENCE: Final = {
    Urgency.CRITICAL: timedelta(0),
    Urgency.SOON: timedelta(days=10),
    Urgency.ROUTINE: timedelta(days=20),
}
"""How many days' head start a more urgent request has. Sibling programmes pair a request with an expert within ten days
(their service level), so one step of urgency is worth ten days of waiting, and nothing routine waits for ever."""


class Step(StrEnum):
    """Where a request stands in matching."""

    UNSEEN = "unseen"
    """Something was heard of it before it was accepted."""
    WAITING = "waiting"
    PROPOSED = "proposed"
    CONFIRMED = "confirmed"
    ENDED = "ended"


class Stage(StrEnum):
    """Where a match stands. Until it has ended it is part of its experts' and its partner's load."""

    PROPOSED = "proposed"
    CONFIRMED = "confirmed"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Agency:
    """The requesting agency, and the others of a joint request."""

    ori: Ori
    agency_type: AgencyType
    sworn_band: SwornBand
    place: Place | None
    participating: tuple[Ori, ...] = ()

    @property
    def oris(self) -> tuple[Ori, ...]:
        return (self.ori, *self.participating)


@dataclass(frozen=True, slots=True)
class Terms:
    """What is asked for, as far as matching looks at it. Delivery modes come in the order the agency prefers them."""

    topics: tuple[TopicCode, ...]
    delivery_modes: tuple[DeliveryMode, ...]
    window: DateWindow
    blackouts: tuple[DateWindow, ...]
    urgency: Urgency

    def are_planned_like(self, other: "Terms") -> bool:
        """Whether scheduling has the same days and the same kinds of sessions to choose from."""
        mine = (self.delivery_modes, self.window, self.blackouts)
        return mine == (other.delivery_modes, other.window, other.blackouts)


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks, for what, and since when. Waiting counts from then, also after a match was released."""

    agency: Agency
    terms: Terms
    since: datetime

    @property
    def due(self) -> datetime:
        """Who is due first goes first: the time of asking, later by the patience the urgency allows."""
        return self.since + PATIENCE[self.terms.urgency]


@dataclass(frozen=True, slots=True)
class Match:
    """A partner and experts proposed for a request, and who has agreed so far."""

    match_id: MatchId
    partner_id: PartnerId
    expert_ids: tuple[ExpertId, ...]
    proposed_at: datetime
    stage: Stage = Stage.PROPOSED
    agency_agrees: bool = False
    partner_agrees: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One request as matching knows it. `version` is that of the stored row, 0 for a new one."""

    request_id: RequestId
    asked: Asked | None = None
    """None until it is accepted: something else of it was heard before."""
    held: bool = False
    gone: bool = False
    """Withdrawn or cancelled."""
    over: frozenset[MatchId] = frozenset()
    """Matches whose engagement was delivered or closed."""
    past: frozenset[MatchId] = frozenset()
    """Matches from before the request was last reopened."""
    made_for: Mapping[MatchId, Terms] = field(default_factory=dict[MatchId, Terms])
    """The terms each match was proposed for."""
    unplannable: frozenset[MatchId] = frozenset()
    """Matches for which no dates were found."""
    banned_experts: frozenset[ExpertId] = frozenset()
    banned_partners: frozenset[PartnerId] = frozenset()
    told: tuple[str, ...] = ()
    """The reasons last given for finding nobody."""
    tried_on: date | None = None
    """The day a round last looked for somebody, or whether its proposal could still be made."""
    matches: tuple[Match, ...] = ()
    freed: bool = False
    """A match of it has ended since a round last looked, so that others may find those it held free."""
    changed: bool = False
    """A round has not looked at it since it last changed."""
    version: int = 0

    @property
    def active(self) -> Match | None:
        """The match that holds now."""
        last = self.matches[-1] if self.matches else None
        return None if last is None or last.stage is Stage.ENDED else last

    @property
    def barred_experts(self) -> frozenset[ExpertId]:
        """Who was declined; and who could not be planned, while the terms are those that was tried with."""
        if self.asked is None:
            return self.banned_experts
        tried = (
            match.expert_ids
            for match in self.matches
            if match.match_id in self.unplannable
            and match.match_id in self.made_for
            and self.asked.terms.are_planned_like(self.made_for[match.match_id])
        )
        return self.banned_experts.union(*tried)

    @property
    def step(self) -> Step:
        match self.active:
            case Match(stage=Stage.PROPOSED):
                return Step.PROPOSED
            case Match():
                return Step.CONFIRMED
            case None if self.asked is None:
                return Step.UNSEEN
            case None if self.gone or self.over - self.past:
                return Step.ENDED
            case None:
                return Step.WAITING

    @property
    def next_match_id(self) -> MatchId:
        return MatchId(f"{self.request_id}/m{len(self.matches) + 1}")


@dataclass(frozen=True, slots=True)
class Confirmed:
    """Agency and partner have both agreed."""

    request_id: RequestId
    match: Match


@dataclass(frozen=True, slots=True)
class Released:
    """The match no longer holds, for this reason."""

    request_id: RequestId
    match: Match
    reason: str


Decided = tuple[Request, tuple[Confirmed | Released, ...]]


def accept(request: Request, asked: Asked) -> Decided:
    """Intake has taken the request on: it enters the pool."""
    return (request, ()) if request.asked is not None else (replace(request, asked=asked, changed=True), ())


def amend(request: Request, terms: Terms) -> Decided:
    """The agency asks for something else. The next round checks whether a proposal still fits."""
    if request.asked is None:
        return request, ()
    return replace(request, asked=replace(request.asked, terms=terms), told=(), changed=True), ()


def reopen(request: Request, terms: Terms, since: datetime) -> Decided:
    """A closed request is taken up again: it enters the pool anew, with the bans it had.

    That its engagement was closed may be heard only later; a match that still looks active is over all the same.
    """
    if request.asked is None:
        return request, ()
    ended = tuple(replace(match, stage=Stage.ENDED) for match in request.matches)
    return replace(
        request,
        asked=replace(request.asked, terms=terms, since=since),
        held=False,
        gone=False,
        past=request.over.union(match.match_id for match in ended),
        told=(),
        matches=ended,
        freed=request.freed or request.active is not None,
        changed=True,
    ), ()


def hold(request: Request) -> Decided:
    """The request is put on hold: nobody is looked for. An active match stays."""
    return replace(request, held=True), ()


def resume(request: Request) -> Decided:
    """The request is off hold."""
    return replace(request, held=False, changed=True), ()


def leave(request: Request, reason: str) -> Decided:
    """The agency withdraws, or the programme office cancels: the request leaves the pool and its experts are free."""
    if request.asked is None or request.gone:
        return request, ()
    return release(replace(request, gone=True), reason)


def agency_accepts(request: Request, match_id: MatchId) -> Decided:
    """The agency accepts the proposal. An answer to any but the active proposal changes nothing."""
    proposal = _open_proposal(request, match_id)
    return (request, ()) if proposal is None else _agree(request, replace(proposal, agency_agrees=True))


def partner_accepts(request: Request, match_id: MatchId, partner_id: PartnerId) -> Decided:
    """The proposed partner takes the work. Another partner's word changes nothing."""
    proposal = _open_proposal(request, match_id)
    if proposal is None or proposal.partner_id != partner_id:
        return request, ()
    return _agree(request, replace(proposal, partner_agrees=True))


def agency_declines(request: Request, match_id: MatchId, reason: str) -> Decided:
    """The agency does not want these experts, now or later, also where it had accepted them before."""
    match = _match(request, match_id)
    if match is None:
        return request, ()
    banned = replace(request, banned_experts=request.banned_experts.union(match.expert_ids))
    return _give_up(banned, match_id, f"The agency declined: {reason}")


def partner_declines(request: Request, match_id: MatchId, partner_id: PartnerId, reason: str) -> Decided:
    """The proposed partner does not take the work: it is not asked again for this request."""
    match = _match(request, match_id)
    if match is None or match.partner_id != partner_id:
        return request, ()
    banned = replace(request, banned_partners=request.banned_partners | {partner_id})
    return _give_up(banned, match_id, f"The partner declined: {reason}")


def not_plannable(request: Request, match_id: MatchId, reason: str) -> Decided:
    """No dates can be found with these experts: others are looked for, until the agency changes its terms.

    The terms that count are those the match was proposed for, since they are the same whether an amendment is heard
    before or after. Where scheduling had tried other terms already, the expert may be proposed and tried once more.
    """
    if _match(request, match_id) is None:
        return request, ()
    tried = replace(request, unplannable=request.unplannable | {match_id})
    return _give_up(tried, match_id, f"No dates could be found: {reason}")


def delivered(request: Request, match_id: MatchId) -> Decided:
    """The engagement of this match was delivered, or closed as completed: the request is served, the experts free."""
    active = request.active
    if active is not None and active.match_id == match_id:
        return replace(_end(request, active), over=request.over | {match_id}), ()
    return _conclude(request, match_id, "An earlier match of this request has been delivered.")


def called_off(request: Request, match_id: MatchId, reason: str) -> Decided:
    """The engagement of this match was closed undelivered, which may be heard before the withdrawal that caused it."""
    return _conclude(request, match_id, reason)


def propose(request: Request, match: Match) -> Request:
    """The round has found a partner and experts."""
    made_for = request.made_for if request.asked is None else {**request.made_for, match.match_id: request.asked.terms}
    return replace(request, matches=(*request.matches, match), made_for=made_for, told=())


def release(request: Request, reason: str) -> tuple[Request, tuple[Released, ...]]:
    """The active match no longer holds, and its experts are free; a request still wanted goes back to the pool."""
    active = request.active
    if active is None:
        return request, ()
    return _end(request, active), (Released(request.request_id, active, reason),)


def _match(request: Request, match_id: MatchId) -> Match | None:
    return next((match for match in request.matches if match.match_id == match_id), None)


def _open_proposal(request: Request, match_id: MatchId) -> Match | None:
    match = request.active
    return match if match is not None and match.match_id == match_id and match.stage is Stage.PROPOSED else None


def _with_last(request: Request, last: Match) -> Request:
    return replace(request, matches=(*request.matches[:-1], last))


def _end(request: Request, active: Match) -> Request:
    return replace(_with_last(request, replace(active, stage=Stage.ENDED)), freed=True, changed=True)


def _agree(request: Request, proposal: Match) -> Decided:
    if not (proposal.agency_agrees and proposal.partner_agrees):
        return _with_last(request, proposal), ()
    confirmed = replace(proposal, stage=Stage.CONFIRMED)
    return _with_last(request, confirmed), (Confirmed(request.request_id, confirmed),)


def _give_up(request: Request, match_id: MatchId, reason: str) -> Decided:
    active = request.active
    return (request, ()) if active is None or active.match_id != match_id else release(request, reason)


def _conclude(request: Request, match_id: MatchId, reason: str) -> Decided:
    known = replace(request, over=request.over | {match_id})
    return release(known, reason) if known.over - known.past else (known, ())
