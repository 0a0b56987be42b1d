"""Plans that do not stay as they were: other dates, other availability, a hold."""

from datetime import timedelta
from itertools import combinations

from schemas import submissions as said
from schemas.body import TopicSkill
from schemas.engagements import EngagementConfirmed, Plan
from schemas.requests import PlanApproved, PlanCleared, RequestHeld
from schemas.vocabulary import DateWindow, TopicCode
from tests.journeys.island import TOPIC, days, settle, terms
from tests.journeys.outside import Outside, rows


def days_of(plan: Plan) -> DateWindow:
    """The days a plan reaches over, with a day on both sides for the time zones."""
    first = min(session.occupies.start for session in plan.sessions).date() - timedelta(days=1)
    return DateWindow(first, max(session.occupies.end for session in plan.sessions).date() + timedelta(days=1))


def keeps_off(plan: Plan, off: DateWindow) -> bool:
    return all(
        session.occupies.end.date() < off.first or session.occupies.start.date() > off.last for session in plan.sessions
    )


async def booked(outside: Outside, plan: Plan) -> list[str]:
    found = await rows(outside.stack, "scheduling", "SELECT request_id, session_id FROM booking")
    return sorted(row["session_id"] for row in found if row["request_id"] == plan.request_id)


async def test_the_agency_asks_for_other_dates_and_confirms_the_plan_that_has_them(outside: Outside) -> None:
    island = await settle(outside)
    case = await island.ask()
    first = await case.planned()
    unwanted = days_of(first)
    await case.do(said.PlanApproved, plan_version=1)
    await case.do(said.PlanChangesAsked, plan_version=1, reason="The fair is in town.", blackouts=(unwanted,))
    second = await case.replanned(2)
    assert keeps_off(second, unwanted)

    await case.do(said.PlanCleared, plan_version=1)
    await case.do(said.PlanCleared, plan_version=2)
    await outside.hear(PlanCleared, case.request_id, plan_version=2)
    await outside.rest()
    assert outside.told(EngagementConfirmed, case.request_id) == [], "the approval of the plan before is void"
    await case.do(said.PlanApproved, plan_version=2)
    await outside.hear(EngagementConfirmed, case.request_id, plan_version=2)
    assert await booked(outside, second) == sorted(session.session_id for session in second.sessions)


async def test_an_expert_who_is_no_longer_available_leads_to_another_plan(outside: Outside) -> None:
    island = await settle(outside)
    (expert_id,) = island.experts
    case = await island.ask()
    first = await case.planned()
    await case.approve(first)
    off = days_of(first)
    await island.do(said.AvailabilityChanged, expert_id=expert_id, unavailable=(off,))
    second = await case.replanned(2)
    assert expert_id in second.reason
    assert keeps_off(second, off)

    await case.approve(second)
    await outside.rest()
    assert await booked(outside, second) == sorted(session.session_id for session in second.sessions)


async def test_a_plan_approved_during_a_hold_is_confirmed_when_the_request_is_resumed(outside: Outside) -> None:
    island = await settle(outside)
    case = await island.ask()
    plan = await case.planned()
    await case.do(said.HoldAsked, reason="The mayor has to be heard.")
    await outside.hear(RequestHeld, case.request_id)
    await case.do(said.PlanApproved, plan_version=plan.plan_version)
    await case.do(said.PlanCleared, plan_version=plan.plan_version)
    await outside.hear(PlanApproved, case.request_id)
    await outside.rest()
    assert outside.told(EngagementConfirmed, case.request_id) == []
    assert await booked(outside, plan) == sorted(session.session_id for session in plan.sessions)

    await case.do(said.HoldAsked, on_hold=False, reason="The mayor has been heard.")
    await outside.hear(EngagementConfirmed, case.request_id, plan_version=plan.plan_version)


async def test_two_engagements_of_one_expert_never_take_the_same_time(outside: Outside) -> None:
    other_topic = TopicCode("officer-wellness")
    island = await settle(outside, experts=0)
    await island.list_expert(skills=(TopicSkill(topic=TOPIC), TopicSkill(topic=other_topic)))
    narrow = days(20, 45)
    cases = [await island.ask(terms=terms(topics=(topic,), window=narrow)) for topic in (TOPIC, other_topic)]
    plans = [await case.planned() for case in cases]
    taken = [session.occupies for plan in plans for session in plan.sessions]
    assert [(one, other) for one, other in combinations(taken, 2) if one.overlaps(other)] == []
