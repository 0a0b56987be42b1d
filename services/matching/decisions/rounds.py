"""One matching round: what changed is checked again, then the whole pool is matched at once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from itertools import repeat
from typing import Final

import numpy as np

from schemas.vocabulary import ExpertId, PartnerId, RequestId
from services.matching.decisions.affinity import affinity, reasons
from services.matching.decisions.assignment import NOBODY, RECENCY_WEIGHT, Pairs, Seats, assign
from services.matching.decisions.bench import Bench, Real, Roster, Whole
from services.matching.decisions.conflicts import conflict_with
from services.matching.decisions.eligibility import Ask, Reason, Standing, standing
from services.matching.decisions.explain import SAYS, Shortfall, shortfalls, would_help
from services.matching.decisions.pool import (
    Match,
    Released,
    Request,
    Stage,
    Step,
    propose,
    release,
)
from services.matching.decisions.roster import Partner

RECENT: Final = timedelta(days=30)
"""For how long it counts that an expert was proposed before others who fit equally well."""


@dataclass(frozen=True, slots=True)
class Load:
    """What is held when the round begins: active matches of each expert and partner, and who was proposed lately."""

    experts: Mapping[ExpertId, int]
    partners: Mapping[PartnerId, int]
    proposed_at: Mapping[ExpertId, datetime]


@dataclass(frozen=True, slots=True)
class Chosen:
    """An expert of a proposal, with the fit and the reasons."""

    expert_id: ExpertId
    affinity: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Proposed:
    """A partner and its expert are proposed for the request."""

    request_id: RequestId
    match: Match
    expert: Chosen


@dataclass(frozen=True, slots=True)
class NotFound:
    """Nobody can be proposed, for other reasons than were last given."""

    request_id: RequestId
    reasons: tuple[Shortfall, ...]
    would_help: tuple[str, ...]


Found = Proposed | NotFound | Released


def matching_round(
    requests: Mapping[RequestId, Request], roster: Roster, load: Load, now: datetime
) -> tuple[dict[RequestId, Request], list[Found]]:
    """The requests as the round leaves them, and what follows.

    What a match that is released here held is given out by the next round, in which all who wait for it take part.
    Equal input gives equal output, in whatever order it comes.
    """
    listed = roster.bench
    after, released = _recheck(listed, requests, now.date())
    waiting = [one for one in after.values() if one.step is Step.WAITING and not one.held and not one.changed]
    found: list[Found] = [*released]
    for one in _match(listed, waiting, load, now):
        request = replace(after[one.request_id], tried_on=now.date())
        match one:
            case Proposed():
                after[one.request_id] = propose(request, one.match)
                found.append(one)
            case NotFound():
                told = tuple(shortfall.reason for shortfall in one.reasons)
                after[one.request_id] = replace(request, told=told)
                if told != request.told:
                    found.append(one)
    return after, found


def _recheck(
    listed: Bench, requests: Mapping[RequestId, Request], today: date
) -> tuple[dict[RequestId, Request], list[Released]]:
    """Every request looked at; those whose active match may no longer stand are released, and still to be looked at."""
    after: dict[RequestId, Request] = {}
    released: list[Released] = []
    for request_id in sorted(requests):
        request = requests[request_id]
        objection = _objection(listed, request, today)
        if objection is None:
            tried_on = today if request.step is Step.PROPOSED else request.tried_on
            after[request_id] = replace(request, freed=False, changed=False, tried_on=tried_on)
        else:
            after[request_id], endings = release(request, objection)
            released.extend(endings)
    return after, released


def _objection(listed: Bench, request: Request, today: date) -> str | None:
    """Why the active match may no longer stand, or None.

    A confirmed match ends only where somebody has left or a conflict of interest has come up; whatever else changes
    then is for scheduling and the people concerned. A proposal has to be one that could be made today, loads aside.
    """
    match, asked = request.active, request.asked
    if match is None or asked is None:
        return None
    partner = listed.partners.get(match.partner_id)
    if partner is None or partner.award is None:
        return "The partner is no longer selected."
    for expert_id in match.expert_ids:
        row = listed.row.get(expert_id)
        if row is None or listed.profiles[row].partner_id != match.partner_id:
            return "The partner no longer lists the expert."
        if conflict_with(listed.experts[row], partner, asked, today) is not None:
            # What was disclosed is restricted, and this reason goes out with the expert's id and the agency's request.
            return "The expert is no longer available for this request."
        if match.stage is Stage.PROPOSED:
            against = standing(listed, listed.only(row), (request, asked), today).ruled_out
            if against:
                (reason,) = against
                return f"Something has changed: the expert is now one of those who {SAYS[reason]}."
    return None


@dataclass(frozen=True, slots=True)
class _Candidates:
    """Who is eligible for one request, loads included, and how well each of them fits."""

    ask: Ask
    standing: Standing
    affinity: Whole


def _match(listed: Bench, waiting: Sequence[Request], load: Load, now: datetime) -> Iterator[Proposed | NotFound]:
    """An expert for each waiting request, or why there is none. Who is due first goes first."""
    asks = [(one, one.asked) for one in waiting if one.asked is not None]
    if not asks:
        return
    asks.sort(key=lambda ask: (ask[1].due, ask[0].request_id))
    seats = _seats(listed, load, now)
    candidates = _candidates(listed, seats, asks, now.date())
    pairs = Pairs(
        np.repeat(np.arange(len(asks)), [one.affinity.size for one in candidates]),
        np.concatenate([one.standing.row for one in candidates]),
        np.concatenate([one.affinity for one in candidates]),
    )
    rows: list[int] = assign(len(asks), pairs, seats).tolist()
    for one, row in zip(candidates, rows, strict=True):
        if row == NOBODY:
            yield _not_found(one)
        else:
            yield _proposed(listed, one, row, int(seats.load[row]), now)


def _seats(listed: Bench, load: Load, now: datetime) -> Seats:
    return Seats(
        load=np.fromiter(map(load.experts.get, listed.row, repeat(0)), np.int64),
        limit=listed.load_limit,
        recency=_recency(listed, load, now),
        partner=listed.partner,
        partner_free=np.array([_free(listed.partners.get(one), load) for one in listed.rows_of], np.int64),
    )


def _recency(listed: Bench, load: Load, now: datetime) -> Whole:
    """What having been proposed lately costs each expert. Who is no longer listed falls into a place past the last."""
    row = np.fromiter(map(listed.row.get, load.proposed_at, repeat(len(listed))), np.int64)
    proposed_at = np.fromiter(map(datetime.timestamp, load.proposed_at.values()), np.float64)
    share: Real = (now.timestamp() - proposed_at) / RECENT.total_seconds()
    cost = np.zeros(len(listed) + 1, np.int64)
    cost[row] = RECENCY_WEIGHT * (1 - share.clip(0, 1))
    return cost[:-1]


def _free(partner: Partner | None, load: Load) -> int:
    if partner is None or partner.award is None:
        return 0
    return max(0, partner.award.capacity - load.partners.get(partner.partner_id, 0))


def _candidates(listed: Bench, seats: Seats, asks: Sequence[Ask], today: date) -> list[_Candidates]:
    full = seats.load >= seats.limit
    partner_full = (seats.partner_free == 0)[seats.partner]
    found: list[_Candidates] = []
    for ask in asks:
        stands = standing(listed, listed.everybody, ask, today)
        stands = stands.without(Reason.AT_CAPACITY, full[stands.row])
        stands = stands.without(Reason.PARTNER_AT_CAPACITY, partner_full[stands.row])
        found.append(_Candidates(ask, stands, affinity(ask[1], stands, listed.size[stands.row])))
    return found


def _proposed(listed: Bench, candidates: _Candidates, row: int, held: int, now: datetime) -> Proposed:
    (request, asked), stands = candidates.ask, candidates.standing
    nth = int(np.searchsorted(stands.row, row))
    profile, expert_id = listed.profiles[row], listed.experts[row].expert_id
    match = Match(request.next_match_id, profile.partner_id, (expert_id,), now)
    why = (*reasons(profile, asked, stands, nth), f"Holds {held} of at most {profile.load_limit} requests.")
    return Proposed(request.request_id, match, Chosen(expert_id, int(candidates.affinity[nth]), why))


def _not_found(candidates: _Candidates) -> NotFound:
    ruled_out = {**candidates.standing.ruled_out, Reason.OUTCOMPETED: candidates.affinity.size}
    why_not = shortfalls(ruled_out)
    return NotFound(candidates.ask[0].request_id, why_not, would_help(why_not))
