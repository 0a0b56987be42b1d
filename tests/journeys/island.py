"""An agency with experts of its own within reach and nobody else's: journeys do not see one another's people."""

from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Any, Final, TypeVar

from schemas import submissions as said
from schemas.body import Contact, ExpertProfile, LetterOfSupport, Sensitive, Submission, Terms, TopicSkill
from schemas.engagements import (
    EngagementClosed,
    EngagementConfirmed,
    EngagementDelivered,
    EngagementPlanned,
    EngagementReplanned,
    Plan,
)
from schemas.matches import MatchConfirmed, MatchProposed
from schemas.receipts import ReceiptBody, SubmissionTaken
from schemas.requests import RequestAccepted
from schemas.roster import ExpertListed, PartnerSelected
from schemas.submissions import Actor
from schemas.vocabulary import (
    ActorRole,
    AgencyType,
    DateWindow,
    DeliveryMode,
    ExpertId,
    MatchId,
    Ori,
    PartnerId,
    Place,
    RequestId,
    TopicCode,
)
from services.console.registry import bring_in
from tests.journeys.outside import Outside

TOPIC: Final = TopicCode("active-shooter")
OFFICE: Final = Actor(role=ActorRole.PROGRAMME_OFFICE, id="COPS Office")

_OFFICE_SAYS: Final = (said.PlanCleared, said.RequestRuled, said.HoldAsked, said.ApplicationRuled)
_PARTNER_SAYS: Final = (
    said.OfferAccepted,
    said.OfferDeclined,
    said.PartnerApplied,
    said.ExpertListed,
    said.ExpertChanged,
    said.AvailabilityChanged,
)
_NUMBERS: Final = count()
_NEXT_TO_NOBODY_KM: Final = 50

S = TypeVar("S", bound=Submission)


def days_from_now(days: int) -> date:
    """A day so many days from today."""
    return datetime.now(UTC).date() + timedelta(days=days)


def days(first: int, last: int) -> DateWindow:
    """Days counted from today, both included."""
    return DateWindow(days_from_now(first), days_from_now(last))


@dataclass
class Island:
    """One agency, one partner and its experts, 50 km and less from one another and 150 km and more from all others."""

    outside: Outside
    number: int
    ori: Ori
    partner_id: PartnerId
    place: Place
    experts: list[ExpertId] = field(default_factory=list[ExpertId])
    requests: int = 0

    @property
    def executive(self) -> Actor:
        return Actor(role=ActorRole.AGENCY_EXECUTIVE, id=self.ori)

    @property
    def partner(self) -> Actor:
        return Actor(role=ActorRole.PARTNER, id=self.partner_id)

    async def say(self, kind: type[S], /, **fields: Any) -> ReceiptBody:
        """Says it as the one whose place it is to say it, unless another actor is given."""
        actor = OFFICE if kind in _OFFICE_SAYS else self.partner if kind in _PARTNER_SAYS else self.executive
        return await self.outside.say(kind.model_validate({"actor": actor} | fields))

    async def do(self, kind: type[S], /, **fields: Any) -> None:
        """Says it and has it taken."""
        receipt = await self.say(kind, **fields)
        assert isinstance(receipt, SubmissionTaken), receipt

    async def list_expert(self, **profile: Any) -> ExpertId:
        """Lists one more expert, who serves this island's agency."""
        expert_id = ExpertId(f"E-{self.number}-{len(self.experts) + 1}")
        known = ExpertProfile(
            partner_id=self.partner_id,
            skills=(TopicSkill(topic=TOPIC),),
            delivery_modes=(DeliveryMode.MEETING_FACILITATION,),
            agency_types=(AgencyType.MUNICIPAL,),
            home=self.place,
            time_zone="America/Chicago",
            travel_limit_km=_NEXT_TO_NOBODY_KM,
        )
        await self.do(said.ExpertListed, expert_id=expert_id, profile=known.model_copy(update=profile))
        await self.outside.hear(ExpertListed, expert_id)
        self.experts.append(expert_id)
        return expert_id

    def request(self, **fields: Any) -> said.RequestSubmitted:
        """The next request of the agency, complete unless fields say otherwise."""
        self.requests += 1
        complete: dict[str, Any] = {
            "request_id": RequestId(f"R-{self.number}-{self.requests}"),
            "actor": self.executive,
            "ori": self.ori,
            "terms": terms(),
            "executive_support": LetterOfSupport(signed_on=days_from_now(-3), reference="L-1"),
            "sensitive": Sensitive(
                executive=Contact(office="Chief of Police"), point_of_contact=Contact(office="Training unit")
            ),
        }
        return said.RequestSubmitted.model_validate(complete | fields)

    async def ask(self, **fields: Any) -> "Case":
        """The agency submits a request, and intake takes it."""
        body = self.request(**fields)
        receipt = await self.outside.say(body)
        assert isinstance(receipt, SubmissionTaken), receipt
        return Case(self, body.request_id)

    async def ask_and_be_accepted(self, **fields: Any) -> "Case":
        """The agency submits a request, and intake accepts it."""
        case = await self.ask(**fields)
        await self.outside.hear(RequestAccepted, case.request_id)
        return case


def terms(**changes: Any) -> Terms:
    """What a request asks for: a preparation call and a meeting on site."""
    usual: dict[str, Any] = {
        "topics": (TOPIC,),
        "delivery_modes": (DeliveryMode.MEETING_FACILITATION,),
        "window": days(20, 90),
    }
    return Terms.model_validate(usual | changes)


@dataclass(frozen=True)
class Case:
    """One request of an island's agency on its way."""

    island: Island
    request_id: RequestId
    attempt: int = 1
    """Number of the match it is about."""

    @property
    def match_id(self) -> MatchId:
        return MatchId(f"{self.request_id}/m{self.attempt}")

    @property
    def outside(self) -> Outside:
        return self.island.outside

    def with_next_match(self) -> "Case":
        return replace(self, attempt=self.attempt + 1)

    async def do(self, kind: type[S], /, **fields: Any) -> None:
        """Says something of this request and has it taken."""
        await self.island.do(kind, request_id=self.request_id, **fields)

    async def proposed(self) -> MatchProposed:
        return await self.outside.hear(MatchProposed, self.request_id, match_id=self.match_id)

    async def matched(self) -> MatchConfirmed:
        """Agency and partner accept what is proposed."""
        await self.proposed()
        await self.do(said.ProposalAccepted, match_id=self.match_id)
        await self.do(said.OfferAccepted, match_id=self.match_id)
        return await self.outside.hear(MatchConfirmed, self.request_id, match_id=self.match_id)

    async def planned(self) -> EngagementPlanned:
        await self.matched()
        return await self.outside.hear(EngagementPlanned, self.request_id, match_id=self.match_id)

    async def replanned(self, plan_version: int) -> EngagementReplanned:
        return await self.outside.hear(EngagementReplanned, self.request_id, plan_version=plan_version)

    async def approve(self, plan: Plan) -> EngagementConfirmed:
        """The executive approves the plan and the programme office clears it."""
        await self.do(said.PlanApproved, plan_version=plan.plan_version)
        await self.do(said.PlanCleared, plan_version=plan.plan_version)
        return await self.outside.hear(EngagementConfirmed, self.request_id, plan_version=plan.plan_version)

    async def deliver(self, plan: Plan) -> EngagementClosed:
        """Every session is reported, and the agency evaluates what it was given."""
        for session in plan.sessions:
            held_on = session.takes_place.start.date()
            await self.do(said.SessionReported, session_id=session.session_id, held_on=held_on, attended_in_person=9)
        await self.outside.hear(EngagementDelivered, self.request_id, match_id=plan.match_id)
        await self.do(said.EvaluationReturned, goals_met=True, satisfaction=5)
        return await self.outside.hear(EngagementClosed, self.request_id, match_id=plan.match_id)


async def settle(outside: Outside, experts: int = 1) -> Island:
    """An island nobody has been on: its agency is in the registry, its partner selected, its experts known to all."""
    number = next(_NUMBERS)
    place = Place(34.0 + 2 * (number % 7), -116.0 + 2 * (number // 7))
    island = Island(outside, number, Ori(f"KS{number:03}0000"), PartnerId(f"P-{number}"), place)
    row = {
        "ori": island.ori,
        "agency_name": f"Police of island {number}",
        "agency_type": AgencyType.MUNICIPAL.value,
        "state": "KS",
        "lat": str(place.latitude),
        "lng": str(place.longitude),
        "years_reported_of_10": "9",
    }
    await bring_in(outside.stack, [(2, row)], lambda _: None)
    about = {"partner_id": island.partner_id}
    await island.do(said.PartnerApplied, **about, name=f"Association {number}", acronym=f"A{number}", capacity=10)
    await island.do(said.ApplicationRuled, **about, selected=True)
    await outside.hear(PartnerSelected, island.partner_id)
    for _ in range(experts):
        await island.list_expert()
    await outside.rest()
    return island
