"""The agency stops at any moment, and everybody it held is free again."""

import pytest

from schemas import submissions as said
from schemas.engagements import EngagementClosed, Plan, SessionCancelled
from schemas.matches import MatchNotFound, MatchReleased
from schemas.requests import RequestWithdrawn
from schemas.vocabulary import Outcome
from tests.journeys.island import Case, settle
from tests.journeys.outside import Outside, rows

STEPS = ("unfilled", "proposed", "matched", "planned", "confirmed")


async def brought_to(step: str, case: Case) -> None:
    match step:
        case "unfilled":
            await case.outside.hear(MatchNotFound, case.request_id)
        case "proposed":
            await case.proposed()
        case "matched":
            await case.matched()
        case "planned":
            await case.planned()
        case _:
            await case.approve(await case.planned())


@pytest.mark.parametrize("step", STEPS)
async def test_an_agency_that_withdraws_leaves_its_expert_and_their_calendar_free(outside: Outside, step: str) -> None:
    island = await settle(outside, experts=0)
    if step != "unfilled":
        await island.list_expert(load_limit=1)
    case = await island.ask()
    await brought_to(step, case)

    await case.do(said.WithdrawalAsked)
    await outside.hear(RequestWithdrawn, case.request_id)
    await outside.rest()

    bookings = await rows(outside.stack, "scheduling", "SELECT request_id FROM booking")
    assert case.request_id not in {booking["request_id"] for booking in bookings}
    released = [one.match_id for one in outside.told(MatchReleased, case.request_id)]
    assert released == ([] if step == "unfilled" else [case.match_id])
    # Withdrawn right after the match, the plan may or may not have been made first: what was planned is called off.
    plans = outside.told(Plan, case.request_id)
    assert plans or step not in ("planned", "confirmed")
    cancelled = {one.session_id for one in outside.told(SessionCancelled, case.request_id)}
    assert cancelled == {session.session_id for plan in plans for session in plan.sessions}
    assert {one.outcome for one in outside.told(EngagementClosed, case.request_id)} == (
        {Outcome.WITHDRAWN} if plans else set()
    )

    # The only expert carries one request at a time, so the next request shows that the first holds nobody any more.
    if step == "unfilled":
        await island.list_expert(load_limit=1)
    plan = await (await island.ask()).planned()
    assert not plans or [one.takes_place for one in plan.sessions] == [one.takes_place for one in plans[0].sessions]


async def test_a_second_withdrawal_changes_nothing(outside: Outside) -> None:
    island = await settle(outside)
    case = await island.ask()
    await case.proposed()
    await case.do(said.WithdrawalAsked)
    await case.do(said.WithdrawalAsked)
    await outside.rest()
    assert len(outside.told(RequestWithdrawn, case.request_id)) == 1
    assert len(outside.told(MatchReleased, case.request_id)) == 1


async def test_a_cancelled_request_leaves_nothing_booked(outside: Outside) -> None:
    island = await settle(outside)
    case = await island.ask()
    plan = await case.planned()
    await case.approve(plan)
    await case.do(said.RequestRuled, ruling="cancel", reason="The programme year has ended.")
    closed = await outside.hear(EngagementClosed, case.request_id)
    assert closed.outcome is Outcome.CANCELLED
    await outside.rest()
    bookings = await rows(outside.stack, "scheduling", "SELECT request_id FROM booking")
    assert case.request_id not in {booking["request_id"] for booking in bookings}
