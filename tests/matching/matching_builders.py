"""Requests, experts, partners and events for the tests of matching, each with defaults that fit each other."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any

from schemas import engagements, requests, roster
from schemas.body import Agency as AgencySaid
from schemas.body import ExpertProfile
from schemas.body import Terms as TermsSaid
from schemas.envelope import Envelope
from schemas.matches import MatchBody
from schemas.vocabulary import (
    AgencyType,
    ConflictId,
    ConflictKind,
    DateWindow,
    DeliveryMode,
    ExpertId,
    Level,
    MatchId,
    Ori,
    Outcome,
    PartnerId,
    Place,
    RequestId,
    SwornBand,
    TopicCode,
    Urgency,
)
from services.matching.decisions.bench import Roster
from services.matching.decisions.pool import Agency, Asked, Request, Terms
from services.matching.decisions.roster import Award, Expert, Partner, Profile, Skill
from services.matching.handlers import decide, decide_round
from services.matching.store import Board, Body, Known
from services.runtime.service import Event

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
TODAY = NOW.date()
WINDOW = DateWindow(date(2026, 4, 1), date(2026, 6, 30))
TOPIC = TopicCode("active-shooter")
CHICAGO = Place(41.88, -87.63)
DENVER = Place(39.74, -104.99)

_ids = count(1)


SPRINGFIELD = Agency(Ori("IL0160000"), AgencyType.MUNICIPAL, SwornBand.FROM_50, CHICAGO)


def terms(**given: Any) -> Terms:
    return replace(Terms((TOPIC,), (DeliveryMode.IN_PERSON_TRAINING,), WINDOW, (), Urgency.ROUTINE), **given)


def asked(agency: Agency = SPRINGFIELD, since: datetime = NOW, **given: Any) -> Asked:
    return Asked(agency, terms(**given), since)


def request(request_id: str = "R1", agency: Agency = SPRINGFIELD, since: datetime = NOW, **given: Any) -> Request:
    """A request that waits; what is given are its terms."""
    return Request(RequestId(request_id), asked(agency, since, **given), changed=True)


def profile(**given: Any) -> Profile:
    usual = Profile(
        partner_id=PartnerId("IACP"),
        skills=(Skill(TOPIC, Level.LEAD),),
        delivery_modes=frozenset(DeliveryMode),
        agency_types=frozenset(AgencyType),
        sworn_band=SwornBand.FROM_50,
        home=CHICAGO,
        travel_limit_km=20_000,
        load_limit=5,
    )
    return replace(usual, **given)


def expert(expert_id: str = "E1", *, conflicts: Any = (), unavailable: Any = (), **given: Any) -> Expert:
    return Expert(ExpertId(expert_id), profile(**given), unavailable, conflicts)


def partner(partner_id: str = "IACP", capacity: int = 100, period: DateWindow | None = None, **given: Any) -> Partner:
    return Partner(PartnerId(partner_id), Award(capacity, period), **given)


class World:
    """What matching knows, kept in a dictionary instead of a database: events go in, rounds are run, facts come out."""

    def __init__(self) -> None:
        self.known = Known()
        self.facts: list[MatchBody] = []

    def hear(self, *bodies: Body) -> list[MatchBody]:
        """The facts that follow from these events, in this order."""
        heard: list[MatchBody] = []
        for body in bodies:
            changes, facts = decide(self.known, event(body))
            self.known.absorb(changes)
            heard.extend(facts)
        self.facts.extend(heard)
        return heard

    def round(self, now: datetime = NOW) -> list[MatchBody]:
        """The facts that follow from a round over everything."""
        changes, facts = decide_round(self._board(), now)
        self.known.requests.update(changes.requests)
        self.known.experts.update(changes.experts)
        self.known.partners.update(changes.partners)
        self.facts.extend(facts)
        return list(facts)

    def _board(self) -> Board:
        board = Board(dict(self.known.requests), Roster(dict(self.known.experts), dict(self.known.partners)))
        for one in self.known.requests.values():
            for match in one.matches:
                for expert_id in match.expert_ids:
                    board.proposed_at[expert_id] = max(board.proposed_at.get(expert_id, NOW), match.proposed_at)
            if one.active is not None:
                board.served[one.active.partner_id] = board.served.get(one.active.partner_id, 0) + 1
                for expert_id in one.active.expert_ids:
                    board.held[expert_id] = board.held.get(expert_id, 0) + 1
        return board


def event(body: Body, received: datetime = NOW) -> Event[Body]:
    nth = next(_ids)
    return Event(body.TOPIC, Envelope(f"event-{nth}", "/test", body.TYPE, body.subject, received, nth), body, received)


def terms_said(**given: Any) -> TermsSaid:
    usual = {"topics": (TOPIC,), "delivery_modes": (DeliveryMode.IN_PERSON_TRAINING,), "window": WINDOW}
    return TermsSaid.model_validate({**usual, **given})


def accepted(request_id: str = "R1", ori: str = "IL0160000", since: datetime = NOW, **given: Any) -> Body:
    return requests.RequestAccepted(
        request_id=RequestId(request_id),
        agency=AgencySaid(
            ori=Ori(ori),
            name="Springfield Police Department",
            agency_type=AgencyType.MUNICIPAL,
            state=ori[:2],
            time_zone="America/Chicago",
            place=CHICAGO,
            sworn_band=SwornBand.FROM_50,
        ),
        terms=terms_said(**given),
        submitted_at=since,
    )


def amended(request_id: str = "R1", **given: Any) -> Body:
    return requests.RequestAmended(request_id=RequestId(request_id), terms=terms_said(**given))


def reopened(request_id: str = "R1", **given: Any) -> Body:
    return requests.RequestReopened(
        request_id=RequestId(request_id), terms=terms_said(**given), reason="More is needed."
    )


def withdrawn(request_id: str = "R1") -> Body:
    return requests.RequestWithdrawn(request_id=RequestId(request_id))


def cancelled(request_id: str = "R1") -> Body:
    return requests.RequestCancelled(request_id=RequestId(request_id), reason="No funds.")


def held(request_id: str = "R1") -> Body:
    return requests.RequestHeld(request_id=RequestId(request_id), reason="An election is near.")


def resumed(request_id: str = "R1") -> Body:
    return requests.RequestResumed(request_id=RequestId(request_id), reason="It is over.")


def agency_accepts(match_id: str) -> Body:
    return requests.ProposalAccepted(request_id=_request_of(match_id), match_id=MatchId(match_id))


def agency_declines(match_id: str) -> Body:
    return requests.ProposalDeclined(request_id=_request_of(match_id), match_id=MatchId(match_id), reason="No.")


def partner_accepts(match_id: str, partner_id: str = "IACP") -> Body:
    return requests.OfferAccepted(
        request_id=_request_of(match_id), match_id=MatchId(match_id), partner_id=PartnerId(partner_id)
    )


def partner_declines(match_id: str, partner_id: str = "IACP") -> Body:
    return requests.OfferDeclined(
        request_id=_request_of(match_id), match_id=MatchId(match_id), partner_id=PartnerId(partner_id), reason="No."
    )


def not_plannable(match_id: str) -> Body:
    return engagements.EngagementNotPlannable.model_validate(
        {
            "request_id": _request_of(match_id),
            "match_id": match_id,
            "reasons": [{"field": "window", "problem": "No two days in a row are free."}],
        }
    )


def delivered(match_id: str) -> Body:
    return engagements.EngagementDelivered(
        request_id=_request_of(match_id), match_id=MatchId(match_id), delivered_on=NOW + timedelta(days=60)
    )


def closed(match_id: str, outcome: Outcome = Outcome.COMPLETED) -> Body:
    return engagements.EngagementClosed(request_id=_request_of(match_id), match_id=MatchId(match_id), outcome=outcome)


def selected(partner_id: str = "IACP", capacity: int = 100, period: DateWindow | None = None) -> Body:
    return roster.PartnerSelected(
        partner_id=PartnerId(partner_id), name=partner_id, acronym=partner_id, capacity=capacity, period=period
    )


def suspended(partner_id: str = "IACP") -> Body:
    return roster.PartnerSuspended(partner_id=PartnerId(partner_id))


def listed(expert_id: str = "E1", partner_id: str = "IACP", **given: Any) -> Body:
    return roster.ExpertListed(expert_id=ExpertId(expert_id), profile=profile_said(partner_id, **given))


def changed(expert_id: str = "E1", partner_id: str = "IACP", **given: Any) -> Body:
    return roster.ExpertChanged(expert_id=ExpertId(expert_id), profile=profile_said(partner_id, **given))


def retired(expert_id: str = "E1") -> Body:
    return roster.ExpertRetired(expert_id=ExpertId(expert_id))


def unavailable(expert_id: str, *days: DateWindow) -> Body:
    return roster.AvailabilityChanged(expert_id=ExpertId(expert_id), unavailable=days)


def declared(
    conflict_id: str,
    ori: str = "IL0160000",
    kind: ConflictKind = ConflictKind.FAMILY,
    *,
    expert_id: str | None = None,
    partner_id: str | None = None,
) -> Body:
    return roster.ConflictDeclared(
        conflict_id=ConflictId(conflict_id),
        expert_id=None if expert_id is None else ExpertId(expert_id),
        partner_id=None if partner_id is None else PartnerId(partner_id),
        ori=Ori(ori),
        kind=kind,
    )


def waived(
    conflict_id: str, ori: str = "IL0160000", *, expert_id: str | None = None, partner_id: str | None = None
) -> Body:
    return roster.ConflictWaived(
        conflict_id=ConflictId(conflict_id),
        expert_id=None if expert_id is None else ExpertId(expert_id),
        partner_id=None if partner_id is None else PartnerId(partner_id),
        ori=Ori(ori),
    )


def profile_said(partner_id: str = "IACP", **given: Any) -> ExpertProfile:
    usual = {
        "partner_id": partner_id,
        "skills": ({"topic": TOPIC, "level": Level.LEAD},),
        "delivery_modes": tuple(DeliveryMode),
        "agency_types": tuple(AgencyType),
        "sworn_band": SwornBand.FROM_50,
        "home": CHICAGO,
        "time_zone": "America/Chicago",
    }
    return ExpertProfile.model_validate({**usual, **given})


def _request_of(match_id: str) -> RequestId:
    return RequestId(match_id.rpartition("/")[0])
