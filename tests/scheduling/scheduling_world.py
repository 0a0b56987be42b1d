"""Builders of what scheduling reads, and a world in which it decides event by event."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import combinations
from typing import Any, TypeVar

from schemas import matches, requests, roster
from schemas.body import Agency, ExpertProfile, Terms, TopicSkill
from schemas.engagements import EngagementBody, Plan
from schemas.envelope import Envelope
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
    SessionId,
    TimeWindow,
    TopicCode,
)
from services.runtime.service import Event
from services.scheduling.decisions.engagement import Engagement
from services.scheduling.decisions.plan import Expert
from services.scheduling.handlers import decide
from services.scheduling.store import Body, Knowledge

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
"""A Monday."""
CHICAGO = Place(41.88, -87.63)
DENVER = Place(39.74, -104.99)
ONE = RequestId("R1")
TWO = RequestId("R2")
ANNA = ExpertId("E1")
BORIS = ExpertId("E2")

T = TypeVar("T")


def days(first: str, last: str) -> DateWindow:
    return DateWindow(date.fromisoformat(first), date.fromisoformat(last))


WINTER = days("2026-12-01", "2027-03-31")
SPRING = days("2027-03-01", "2027-06-30")


def event(body: Body, received: datetime = NOW, sequence: int = 1) -> Event[Any]:
    envelope = Envelope(f"{body.TYPE}-{sequence}", "/test", body.TYPE, body.subject, received, sequence)
    return Event(body.TOPIC, envelope, body, received)


def terms(
    window: DateWindow = WINTER,
    blackouts: Sequence[DateWindow] = (),
    modes: Sequence[DeliveryMode] = (DeliveryMode.ON_SITE_CONSULTATION,),
) -> Terms:
    return Terms(
        topics=(TopicCode("training"),), delivery_modes=tuple(modes), window=window, blackouts=tuple(blackouts)
    )


def accepted(request_id: RequestId = ONE, asked: Terms | None = None, zone: str = "America/Chicago") -> Body:
    agency = Agency(
        ori=Ori("IL0160000"),
        name="A police department",
        agency_type=AgencyType.MUNICIPAL,
        state="IL",
        time_zone=zone,
        place=CHICAGO,
    )
    return requests.RequestAccepted(request_id=request_id, agency=agency, terms=asked or terms(), submitted_at=NOW)


def match_id(nth: int, request_id: RequestId = ONE) -> MatchId:
    return MatchId(f"{request_id}/m{nth}")


def confirmed(nth: int = 1, request_id: RequestId = ONE, experts: Sequence[ExpertId] = (ANNA,)) -> Body:
    return matches.MatchConfirmed(
        request_id=request_id, match_id=match_id(nth, request_id), partner_id=PartnerId("P1"), expert_ids=tuple(experts)
    )


def released(nth: int = 1, request_id: RequestId = ONE, experts: Sequence[ExpertId] = (ANNA,)) -> Body:
    return matches.MatchReleased(
        request_id=request_id, match_id=match_id(nth, request_id), expert_ids=tuple(experts), reason="no longer wanted"
    )


def listed(
    expert_id: ExpertId = ANNA,
    unavailable: Sequence[DateWindow] = (),
    modes: Sequence[DeliveryMode] = tuple(DeliveryMode),
    home: Place = DENVER,
    zone: str = "America/Denver",
) -> Body:
    profile = ExpertProfile(
        partner_id=PartnerId("P1"),
        skills=(TopicSkill(topic=TopicCode("training")),),
        delivery_modes=tuple(modes),
        agency_types=(AgencyType.MUNICIPAL,),
        home=home,
        time_zone=zone,
        unavailable=tuple(unavailable),
    )
    return roster.ExpertListed(expert_id=expert_id, profile=profile)


def off(*windows: DateWindow, expert_id: ExpertId = ANNA) -> Body:
    return roster.AvailabilityChanged(expert_id=expert_id, unavailable=windows)


def approved(version: int = 1, request_id: RequestId = ONE) -> Body:
    return requests.PlanApproved(request_id=request_id, plan_version=version)


def cleared(version: int = 1, request_id: RequestId = ONE) -> Body:
    return requests.PlanCleared(request_id=request_id, plan_version=version)


def reported(session_id: str, request_id: RequestId = ONE) -> Body:
    return requests.SessionReported(
        request_id=request_id, session_id=SessionId(session_id), held_on=date(2026, 12, 15), attended_in_person=12
    )


def evaluated(request_id: RequestId = ONE) -> Body:
    return requests.EvaluationReturned(request_id=request_id, goals_met=True, satisfaction=5)


def withdrawn(request_id: RequestId = ONE) -> Body:
    return requests.RequestWithdrawn(request_id=request_id)


def other_dates(version: int, window: DateWindow | None = None, *blackouts: DateWindow) -> Body:
    return requests.PlanChangesRequested(
        request_id=ONE, plan_version=version, reason="court dates", window=window, blackouts=blackouts
    )


def held() -> Body:
    return requests.RequestHeld(request_id=ONE, reason="an inquiry")


def resumed() -> Body:
    return requests.RequestResumed(request_id=ONE, reason="inquiry over")


def cancelled() -> Body:
    return requests.RequestCancelled(request_id=ONE, reason="no funds")


def reopened(window: DateWindow = WINTER) -> Body:
    return requests.RequestReopened(request_id=ONE, terms=terms(window), reason="again")


def amended(window: DateWindow = WINTER, *modes: DeliveryMode) -> Body:
    asked = terms(window, modes=modes) if modes else terms(window)
    return requests.RequestAmended(request_id=ONE, terms=asked)


REPORTS = (reported("R1/s1.1"), reported("R1/s1.2"), reported("R1/s1.3"))
WHOLE_LIFE = (accepted(), listed(), confirmed(), approved(), cleared(), *REPORTS, evaluated())


def experts_named(body: Body) -> set[ExpertId]:
    match body:
        case matches.MatchConfirmed():
            return set(body.expert_ids)
        case roster.ExpertListed() | roster.ExpertChanged() | roster.AvailabilityChanged():
            return {body.expert_id}
        case _:
            return set()


@dataclass
class World:
    """Everything scheduling knows, as if all of it were always loaded."""

    known: Knowledge = field(default_factory=Knowledge)
    facts: list[EngagementBody] = field(default_factory=list[EngagementBody])

    def hears(self, *bodies: Body, at: datetime = NOW) -> list[EngagementBody]:
        """Decides these events in turn and returns the facts that follow."""
        said: list[EngagementBody] = []
        for body in bodies:
            for expert_id in experts_named(body):
                self.known.experts.setdefault(expert_id, Expert(expert_id))
            changes, facts = decide(self.known, event(body, at))
            self.known.absorb(changes)
            said += facts
        self.facts += said
        return said

    def engagement(self, request_id: RequestId = ONE) -> Engagement:
        return self.known.engagements[request_id]

    def booked(self, expert_id: ExpertId = ANNA) -> list[TimeWindow]:
        return [window for _, window in self.known.booked.get(expert_id, ())]

    def plans(self) -> list[Plan]:
        return [fact for fact in self.facts if isinstance(fact, Plan)]


def types(facts: Iterable[EngagementBody]) -> list[str]:
    return [fact.TYPE.removesuffix(".v1") for fact in facts]


def interleavings(streams: Sequence[Sequence[T]]) -> Iterator[list[T]]:
    """Every order that keeps each stream's own order."""
    if not any(streams):
        yield []
        return
    for nth, stream in enumerate(streams):
        if stream:
            rest = [*streams[:nth], stream[1:], *streams[nth + 1 :]]
            for order in interleavings(rest):
                yield [stream[0], *order]


def on_day(window: TimeWindow) -> DateWindow:
    """The day on which it starts."""
    return DateWindow(window.start.date(), window.start.date())


def ids(plan: Plan) -> list[str]:
    return [session.session_id for session in plan.sessions]


def assert_nobody_is_booked_twice(world: World) -> None:
    for booked in world.known.booked.values():
        for (_, one), (_, other) in combinations(booked, 2):
            assert not one.overlaps(other)
