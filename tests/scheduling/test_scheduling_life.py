"""The life of an engagement: the same end whichever topic speaks first, freed at any moment."""

import json
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest

from schemas import engagements, requests
from schemas.vocabulary import DateWindow, DeliveryMode, Outcome, RequestId
from services.scheduling.app import service
from services.scheduling.decisions.engagement import Step
from tests.scheduling.scheduling_world import (
    ANNA,
    BORIS,
    NOW,
    ONE,
    REPORTS,
    SPRING,
    WHOLE_LIFE,
    WINTER,
    Body,
    World,
    accepted,
    amended,
    approved,
    assert_nobody_is_booked_twice,
    cancelled,
    cleared,
    confirmed,
    days,
    evaluated,
    held,
    ids,
    interleavings,
    listed,
    match_id,
    off,
    on_day,
    other_dates,
    released,
    reopened,
    reported,
    resumed,
    terms,
    types,
    withdrawn,
)


def rest(world: World) -> tuple[object, ...]:
    """Where an engagement has come to, apart from how many plans it took."""
    known = world.engagement()
    planned = (known.plan.match_id, len(known.outstanding)) if known.plan else None
    return known.step, known.on_hold, planned, tuple(sorted(map(str, world.booked(ANNA)))), len(world.booked(BORIS))


def all_ends(*streams: Sequence[Body]) -> list[World]:
    ends: list[World] = []
    for order in interleavings(streams):
        world = World()
        world.hears(*order)
        ends.append(world)
    assert len({rest(world) for world in ends}) == 1
    return ends


def test_a_request_is_planned_confirmed_delivered_and_closed() -> None:
    world = World()
    assert types(world.hears(accepted(), listed())) == []
    assert types(world.hears(confirmed())) == ["engagement.planned"]
    assert types(world.hears(approved())) == []
    assert types(world.hears(cleared())) == ["engagement.confirmed"]
    assert types(world.hears(*REPORTS)) == ["engagement.delivered"]
    assert types(world.hears(evaluated())) == ["engagement.closed"]
    assert world.engagement().step is Step.COMPLETED
    assert world.booked() == []


def test_the_whole_life_ends_the_same_in_every_interleaving_and_says_the_same() -> None:
    ends = all_ends((accepted(), approved(), cleared(), *REPORTS, evaluated()), (confirmed(),), (listed(),))
    assert len(ends) == 9 * 8
    for world in ends:
        assert types(world.facts) == [
            "engagement.planned",
            "engagement.confirmed",
            "engagement.delivered",
            "engagement.closed",
        ]


def test_a_withdrawal_that_overtakes_match_or_roster_leaves_nothing_planned() -> None:
    for world in all_ends((accepted(), withdrawn()), (confirmed(), released()), (listed(),)):
        assert world.engagement().step is Step.WITHDRAWN
        assert types(world.facts).count("engagement.closed") == types(world.facts).count("engagement.planned")
        assert_every_session_is_accounted_for(world)


def test_a_hold_delays_plan_and_confirmation_and_loses_neither() -> None:
    for world in all_ends((accepted(), held(), approved(), cleared(), resumed()), (confirmed(),), (listed(),)):
        assert world.engagement().step is Step.CONFIRMED


def test_nothing_is_planned_or_confirmed_while_on_hold() -> None:
    world = World()
    assert types(world.hears(accepted(), listed(), held(), confirmed(), approved(), cleared())) == []
    assert types(world.hears(resumed())) == ["engagement.planned", "engagement.confirmed"]
    late = World()
    late.hears(accepted(), listed(), confirmed(), held())
    assert types(late.hears(approved(), cleared())) == []
    assert len(late.booked()) == 3
    assert types(late.hears(resumed())) == ["engagement.confirmed"]


def test_other_dates_asked_of_a_plan_hold_whenever_match_and_roster_arrive() -> None:
    requests_said = (accepted(), other_dates(1, SPRING), approved(2), cleared(2))
    for world in all_ends(requests_said, (confirmed(),), (listed(),)):
        assert world.engagement().step is Step.CONFIRMED
        assert [plan.plan_version for plan in world.plans()] == [1, 2]
        assert within(SPRING, world)


def test_an_amended_window_holds_whenever_match_and_roster_arrive() -> None:
    for world in all_ends((accepted(), amended(SPRING)), (confirmed(),), (listed(),)):
        assert world.engagement().step is Step.PLANNED
        assert within(SPRING, world)


def test_a_second_match_takes_over_and_the_first_experts_are_free() -> None:
    ends = all_ends(
        (accepted(),),
        (confirmed(1), released(1), confirmed(2, experts=[BORIS])),
        (listed(),),
        (listed(BORIS),),
    )
    for world in ends:
        assert world.booked(ANNA) == []
        assert len(world.booked(BORIS)) == 3
        assert_every_session_is_accounted_for(world)


def test_a_reopened_request_gets_a_new_engagement_with_its_new_match() -> None:
    ends = all_ends((accepted(), withdrawn(), reopened()), (confirmed(1), released(1), confirmed(2)), (listed(),))
    for world in ends:
        assert world.engagement().step is Step.PLANNED
        assert_every_session_is_accounted_for(world)


def test_days_off_are_kept_free_whether_they_come_before_or_after_the_plan() -> None:
    busy = days("2026-11-24", "2027-01-15")
    for world in all_ends((accepted(),), (confirmed(),), (listed(), off(busy))):
        assert all(window.start.date() > busy.last for window in world.booked())


def test_a_team_waits_for_the_last_of_its_experts_to_be_listed() -> None:
    for world in all_ends((accepted(),), (confirmed(experts=[ANNA, BORIS]),), (listed(),), (listed(BORIS),)):
        assert types(world.facts) == ["engagement.planned"]
        assert world.booked(ANNA) == world.booked(BORIS)


@pytest.mark.parametrize("ending", [withdrawn(), cancelled()])
@pytest.mark.parametrize("heard", range(1, len(WHOLE_LIFE) + 1))
def test_an_end_at_any_step_frees_every_expert_and_says_so_once(heard: int, ending: Body) -> None:
    world = World()
    world.hears(*WHOLE_LIFE[:heard])
    planned = bool(world.plans())
    outcome = Outcome.WITHDRAWN if isinstance(ending, requests.RequestWithdrawn) else Outcome.CANCELLED
    already = world.engagement().ended if ONE in world.known.engagements else None
    said = world.hears(ending)
    closed = [fact.outcome for fact in said if isinstance(fact, engagements.EngagementClosed)]
    assert closed == ([outcome] if planned and already is None else [])
    assert world.booked() == []
    assert_every_session_is_accounted_for(world)
    assert world.hears(ending, withdrawn(), cancelled()) == []


def test_approvals_of_another_version_confirm_nothing() -> None:
    world = World()
    world.hears(accepted(), listed(), confirmed(), other_dates(1, SPRING))
    assert types(world.hears(approved(1), cleared(1), approved(2), cleared(1))) == []
    assert types(world.hears(cleared(2))) == ["engagement.confirmed"]
    assert types(world.hears(cleared(2), approved(2))) == []


def test_a_change_to_an_approved_plan_needs_both_approvals_again() -> None:
    world = World()
    world.hears(accepted(), listed(), confirmed(), approved(), cleared())
    (replanned,) = world.hears(other_dates(1, None, days("2026-11-24", "2027-01-03")))
    assert isinstance(replanned, engagements.EngagementReplanned)
    assert (replanned.plan_version, replanned.reason) == (2, "court dates")
    assert types(world.hears(approved(2))) == []
    assert types(world.hears(cleared(2))) == ["engagement.confirmed"]


def test_an_agency_that_wants_other_dates_and_names_none_gets_none_of_these() -> None:
    world = World()
    world.hears(accepted(), listed(), confirmed())
    before = {window.start.date() for window in world.booked()}
    assert types(world.hears(other_dates(1))) == ["engagement.replanned"]
    assert before.isdisjoint(window.start.date() for window in world.booked())


def test_dates_asked_of_a_version_that_is_past_hold_if_the_plan_breaks_them() -> None:
    world = World()
    world.hears(accepted(), listed(), confirmed(), off(days("2026-11-24", "2026-12-10")))
    assert types(world.hears(other_dates(1, WINTER))) == []
    assert types(world.hears(other_dates(1, SPRING))) == ["engagement.replanned"]
    assert within(SPRING, world)


def test_an_amendment_that_the_plan_still_fits_changes_nothing() -> None:
    world = World()
    world.hears(accepted(), listed(), confirmed())
    assert types(world.hears(amended(days("2026-11-25", "2027-06-30")))) == []
    assert types(world.hears(amended(WINTER, DeliveryMode.POLICY_REVIEW))) == ["engagement.replanned"]


def test_dates_asked_for_outlive_an_amendment_of_something_else() -> None:
    world = World()
    world.hears(accepted(), listed(), confirmed(), other_dates(1, SPRING))
    assert types(world.hears(amended(WINTER))) == []
    assert types(world.hears(amended(days("2026-12-01", "2027-01-31")))) == ["engagement.replanned"]


def test_where_nothing_fits_the_sessions_are_dropped_and_the_reasons_said() -> None:
    world = World()
    world.hears(accepted(), listed(), confirmed(), approved(), cleared())
    said = world.hears(off(days("2026-11-01", "2027-12-31")))
    assert types(said) == ["session.cancelled"] * 3 + ["engagement.not_plannable"]
    assert world.booked() == []
    assert world.engagement().step is Step.WAITING
    assert types(world.hears(released(1), confirmed(2, experts=[BORIS]))) == []
    assert types(world.hears(listed(BORIS))) == ["engagement.planned"]


def test_a_match_with_no_possible_plan_is_said_so_at_once() -> None:
    world = World()
    world.hears(accepted(), listed(unavailable=[days("2026-01-01", "2028-01-01")]))
    assert types(world.hears(confirmed())) == ["engagement.not_plannable"]


def test_days_off_that_touch_no_session_or_only_reported_ones_change_nothing() -> None:
    world = World()
    world.hears(accepted(), listed(), confirmed(), approved(), cleared(), REPORTS[0])
    sessions = world.plans()[0].sessions
    first, second = (session.takes_place for session in sessions[:2])
    assert world.hears(off(on_day(first))) == []
    assert types(world.hears(off(on_day(second)))) == ["engagement.replanned"]


def test_another_plan_keeps_what_was_held_and_goes_on_after_it() -> None:
    world = World()
    world.hears(accepted(), listed(), confirmed(), approved(), cleared(), REPORTS[0])
    first, second, _ = world.plans()[0].sessions
    world.hears(off(on_day(second.takes_place)))
    plan = world.plans()[-1]
    assert plan.sessions[0] == first
    assert ids(plan) == ["R1/s1.1", "R1/s2.2", "R1/s2.3"]
    assert plan.sessions[1].takes_place.start.date() > second.takes_place.start.date()
    said = world.hears(approved(2), cleared(2), reported("R1/s2.2"), reported("R1/s2.3"))
    assert types(said) == ["engagement.confirmed", "engagement.delivered"]


def test_all_that_was_held_is_kept_not_only_the_first() -> None:
    world = World()
    world.hears(accepted(), listed(), confirmed(), approved(), cleared(), *REPORTS[:2], other_dates(1))
    assert ids(world.plans()[-1]) == ["R1/s1.1", "R1/s1.2", "R1/s2.3"]


def test_a_session_before_one_that_was_reported_is_not_moved_for_want_of_its_own_report() -> None:
    world = World()
    world.hears(accepted(), listed(), confirmed(), approved(), cleared(), REPORTS[1])
    first, second, _ = world.plans()[0].sessions
    world.hears(other_dates(1))
    assert world.plans()[-1].sessions[:2] == (first, second)
    said = world.hears(approved(2), cleared(2), reported("R1/s2.3"), REPORTS[0])
    assert types(said) == ["engagement.confirmed", "engagement.delivered"]


def test_what_has_begun_goes_on_in_the_same_mode_though_a_better_liked_one_is_now_offered() -> None:
    modes = (DeliveryMode.POLICY_REVIEW, DeliveryMode.ON_SITE_CONSULTATION)
    world = World()
    world.hears(accepted(asked=terms(modes=modes)), listed(modes=modes[1:]), confirmed(), REPORTS[0], listed())
    assert types(world.hears(other_dates(1))) == ["engagement.replanned"]
    assert world.plans()[-1].sessions[1].delivery_mode is DeliveryMode.ON_SITE_CONSULTATION


def test_an_engagement_is_not_in_the_way_of_its_own_next_plan() -> None:
    world = World()
    world.hears(accepted(), listed(), confirmed())
    before = world.booked()
    assert types(world.hears(other_dates(1, WINTER))) == ["engagement.replanned"]
    assert world.booked() == before


def test_days_off_that_are_past_move_nothing_though_the_report_is_late() -> None:
    for late in (False, True):
        world = World()
        world.hears(accepted(), listed(), confirmed(), approved(), cleared())
        first, second, _ = (session.takes_place for session in world.plans()[0].sessions)
        said = world.hears(off(on_day(first)), at=second.start if late else NOW)
        assert types(said) == ([] if late else ["engagement.replanned"])


def test_executive_and_point_of_contact_who_both_want_other_dates_get_one_other_plan() -> None:
    for world in all_ends((accepted(), other_dates(1), other_dates(1)), (confirmed(),), (listed(),)):
        assert [plan.plan_version for plan in world.plans()] == [1, 2]


def test_other_dates_than_those_of_an_old_plan_say_nothing_against_those_of_the_new_one() -> None:
    world = World()
    world.hears(accepted(), listed(), confirmed(), other_dates(1))
    second = world.plans()[-1].sessions
    assert world.hears(other_dates(1)) == []
    assert types(world.hears(amended(days("2026-12-01", "2027-04-30")), approved(2), cleared(2))) == [
        "engagement.confirmed"
    ]
    assert world.plans()[-1].sessions == second


def test_a_report_frees_the_time_it_took() -> None:
    world = World()
    world.hears(accepted(), listed(), confirmed(), approved(), cleared())
    assert len(world.booked()) == 3
    world.hears(REPORTS[1])
    assert len(world.booked()) == 2


@pytest.mark.parametrize(
    "session_id", ["R1/s1.9", "R1/s0.1", "R2/s1.1", "R1/s1", "R1/sx.1", "R1", "R1/s1.1.1", "R1/s1.1/s1.1"]
)
def test_a_report_of_no_session_of_this_engagement_is_harmless(session_id: str) -> None:
    world = World()
    world.hears(accepted(), listed(), confirmed(), approved(), cleared())
    before = world.engagement()
    assert world.hears(reported(session_id)) == []
    assert world.engagement() == before


def test_an_evaluation_before_the_last_report_closes_once_that_comes() -> None:
    world = World()
    world.hears(accepted(), listed(), confirmed(), approved(), cleared(), evaluated(), *REPORTS[:2])
    assert types(world.hears(REPORTS[2])) == ["engagement.delivered", "engagement.closed"]


def test_a_completed_request_that_is_reopened_waits_for_another_match() -> None:
    world = World()
    world.hears(*WHOLE_LIFE)
    assert types(world.hears(reopened())) == []
    (planned,) = world.hears(confirmed(2))
    assert isinstance(planned, engagements.EngagementPlanned)
    assert (planned.plan_version, planned.match_id) == (2, "R1/m2")
    assert types(world.hears(approved(2))) == []


def test_a_match_that_was_confirmed_ahead_of_the_reopening_is_planned_with_it() -> None:
    world = World()
    world.hears(*WHOLE_LIFE)
    assert types(world.hears(confirmed(2))) == []
    assert types(world.hears(reopened())) == ["engagement.planned"]


@pytest.mark.parametrize("ahead", [(confirmed(2),), (confirmed(2), released(2))])
def test_a_match_for_the_next_engagement_leaves_a_delivered_one_to_its_evaluation(ahead: Sequence[Body]) -> None:
    world = World()
    world.hears(*WHOLE_LIFE[:-1])
    assert world.hears(*ahead) == []
    assert world.hears(evaluated()) == [
        engagements.EngagementClosed(request_id=ONE, match_id=match_id(1), outcome=Outcome.COMPLETED)
    ]


def test_reopening_what_is_open_is_an_amendment() -> None:
    world = World()
    world.hears(accepted(), listed(), confirmed())
    assert world.hears(reopened(WINTER)) == []
    assert types(world.hears(reopened(SPRING))) == ["engagement.replanned"]


def test_one_listing_plans_all_who_waited_for_the_expert_without_overlap() -> None:
    world = World()
    ids = [RequestId(f"R{nth}") for nth in range(1, 6)]
    for request_id in ids:
        world.hears(accepted(request_id), confirmed(1, request_id))
    assert types(world.hears(listed())) == ["engagement.planned"] * 5
    assert len(world.booked()) == 15
    assert_nobody_is_booked_twice(world)


EXAMPLES = [
    body.model_validate(json.loads(Path(f"schemas/examples/{body.TOPIC}/{body.TYPE}.json").read_text())["data"])
    for body in get_args(Body)
]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.TYPE)
def test_an_event_about_others_is_taken_and_leaves_an_engagement_as_it_is(example: Body) -> None:
    world = World()
    world.hears(accepted(), listed(), confirmed())
    before = world.engagement(), world.known.experts[ANNA], world.booked()
    assert example.subject not in (ONE, ANNA)
    world.hears(example)
    assert (world.engagement(), world.known.experts[ANNA], world.booked()) == before


def test_the_follow_up_is_due_a_month_after_delivery_and_said_once() -> None:
    world = World()
    world.hears(*WHOLE_LIFE)
    reminder = service().rounds[0]
    changes, facts = reminder.decide(world.known, NOW)
    assert facts == [engagements.FollowUpDue(request_id=ONE, due=NOW + timedelta(days=30))]
    world.known.absorb(changes)
    assert reminder.decide(world.known, NOW)[1] == []


def within(window: DateWindow, world: World) -> bool:
    sessions = world.plans()[-1].sessions
    return all(one.takes_place.start.date() in window and one.takes_place.end.date() in window for one in sessions)


def assert_every_session_is_accounted_for(world: World) -> None:
    """Every session ever planned is ahead, reported, cancelled or replaced by another plan."""
    for request_id, known in world.known.engagements.items():
        plans = [plan for plan in world.plans() if plan.request_id == request_id]
        replaced = {
            session.session_id
            for plan, following in pairwise(plans)
            if isinstance(following, engagements.EngagementReplanned)
            for session in plan.sessions
        }
        said = {fact.session_id for fact in world.facts if isinstance(fact, engagements.SessionCancelled)}
        ahead = {session.session_id for session in known.outstanding}
        for plan in plans:
            for session in plan.sessions:
                assert session.session_id in replaced | said | ahead | known.reported
        assert not said & ahead
