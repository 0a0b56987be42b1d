"""The life of an engagement: the same end whichever topic speaks first, nobody booked twice, freed at any moment."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import engagements, matches, requests, roster
from schemas.vocabulary import DateWindow, DeliveryMode, ExpertId, Outcome, Place, RequestId, TimeWindow
from services.scheduling.app import service
from services.scheduling.decisions.engagement import Step
from tests.scheduling.scheduling_world import (
    ANNA,
    CHICAGO,
    NOW,
    ONE,
    SPRING,
    WINTER,
    Body,
    World,
    accepted,
    approved,
    cleared,
    confirmed,
    days,
    evaluated,
    interleavings,
    listed,
    match_id,
    off,
    other_dates,
    released,
    reported,
    terms,
    types,
    withdrawn,
)

BORIS = ExpertId("E2")
TWO = RequestId("R2")
REPORTS = (reported("R1/s1.1"), reported("R1/s1.2"), reported("R1/s1.3"))
WHOLE_LIFE = (accepted(), listed(), confirmed(), approved(), cleared(), *REPORTS, evaluated())


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


def on_day(window: TimeWindow) -> DateWindow:
    """The day on which it starts."""
    return DateWindow(window.start.date(), window.start.date())


def ids(plan: engagements.Plan) -> list[str]:
    return [session.session_id for session in plan.sessions]


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


def begun() -> World:
    """A world in which a plan of three sessions is confirmed."""
    world = World()
    world.hears(accepted(), listed(), listed(BORIS), confirmed(), approved(), cleared())
    return world


def after(nth: int, world: World) -> datetime:
    """The moment at which one of the sessions planned last is over."""
    return world.plans()[-1].sessions[nth - 1].takes_place.end


SECOND_DAY = begun().plans()[0].sessions[1].takes_place
MOVES = [
    off(on_day(SECOND_DAY)),
    other_dates(1),
    amended(SPRING),
    amended(WINTER, DeliveryMode.PEER_EXCHANGE),
]


@pytest.mark.parametrize("move", MOVES)
def test_a_session_that_took_place_is_kept_whether_its_report_comes_before_another_plan_or_after(move: Body) -> None:
    ends: list[World] = []
    for order in interleavings([[REPORTS[0]], [move]]):
        world = begun()
        over = after(1, world)
        world.hears(*order, at=over)
        ends.append(world)
        (first, replanned) = world.plans()
        assert replanned.sessions[0] == first.sessions[0]
        assert ids(replanned) == ["R1/s1.1", "R1/s2.2", "R1/s2.3"]
        assert min(session.takes_place.start for session in replanned.sessions[1:]) > over
        assert_nobody_is_booked_twice(world)
        said = world.hears(approved(2), cleared(2), reported("R1/s2.2"), reported("R1/s2.3"), at=over)
        assert types(said) == ["engagement.confirmed", "engagement.delivered"]
    assert ends[0].plans() == ends[1].plans()


def test_a_session_is_not_over_before_its_end() -> None:
    world = begun()
    world.hears(other_dates(1), at=after(1, world) - timedelta(seconds=1))
    assert ids(world.plans()[-1]) == ["R1/s2.1", "R1/s2.2", "R1/s2.3"]


def test_an_engagement_is_delivered_only_once_what_took_place_is_reported_too() -> None:
    world = begun()
    over = after(1, world)
    world.hears(other_dates(1), at=over)
    assert len(world.booked()) == 3
    said = world.hears(approved(2), cleared(2), reported("R1/s2.2"), reported("R1/s2.3"), at=over)
    assert types(said) == ["engagement.confirmed"]
    assert types(world.hears(REPORTS[0], at=over)) == ["engagement.delivered"]


def test_what_took_place_is_kept_through_plans_that_nobody_approves() -> None:
    world = begun()
    over = after(1, world)
    world.hears(other_dates(1), other_dates(2), other_dates(3), at=over)
    assert ids(world.plans()[-1]) == ["R1/s1.1", "R1/s4.2", "R1/s4.3"]
    assert types(world.hears(approved(4), cleared(4), at=over)) == ["engagement.confirmed"]


def test_once_all_took_place_nothing_is_left_to_move() -> None:
    world = begun()
    over = after(3, world)
    assert world.hears(*MOVES, at=over) == []
    assert types(world.hears(*REPORTS, at=over)) == ["engagement.delivered"]


def test_sessions_of_a_plan_that_was_never_confirmed_did_not_take_place() -> None:
    world = World()
    world.hears(accepted(), listed(), confirmed(), approved())
    world.hears(other_dates(1), at=after(2, world))
    assert ids(world.plans()[-1]) == ["R1/s2.1", "R1/s2.2", "R1/s2.3"]


ENDS_OF_A_MATCH = [
    released(),
    withdrawn(),
    cancelled(),
    confirmed(2, experts=[BORIS]),
    off(days("2026-11-01", "2027-12-31")),
]


@pytest.mark.parametrize("ending", ENDS_OF_A_MATCH)
@pytest.mark.parametrize("took_place", [0, 1, 2, 3])
def test_a_session_that_took_place_is_never_called_off(ending: Body, took_place: int) -> None:
    world = begun()
    sessions = ids(world.plans()[0])
    said = world.hears(ending, at=after(took_place, world) if took_place else NOW)
    called_off = [fact.session_id for fact in said if isinstance(fact, engagements.SessionCancelled)]
    untouched = took_place == 3 and ending == ENDS_OF_A_MATCH[-1]
    assert called_off == sessions[took_place:]
    assert len(world.booked()) == (3 if untouched else 0)


def test_other_experts_start_from_the_first_session_whether_the_report_of_the_others_is_late_or_not() -> None:
    for order in interleavings([[REPORTS[0]], [released(), confirmed(2, experts=[BORIS])]]):
        world = begun()
        world.hears(*order, at=after(1, world))
        assert ids(world.plans()[-1]) == ["R1/s2.1", "R1/s2.2", "R1/s2.3"]
        assert len(world.booked(BORIS)) == 3


@pytest.mark.parametrize("approvals", [(approved(), cleared()), (cleared(), approved())])
@pytest.mark.parametrize("took_place", [0, 1])
def test_a_plan_whose_dates_pass_before_both_approvals_gets_other_dates_instead(
    approvals: Sequence[Body], took_place: int
) -> None:
    world = World()
    world.hears(accepted(), listed(), confirmed())
    late = world.plans()[0].sessions[took_place].takes_place.start + timedelta(seconds=1)
    world.hears(approvals[0])
    (replanned,) = world.hears(approvals[1], at=late)
    assert isinstance(replanned, engagements.EngagementReplanned)
    assert replanned.reason == "Its dates have passed before both approvals were there."
    assert ids(replanned) == ["R1/s2.1", "R1/s2.2", "R1/s2.3"]
    assert all(session.takes_place.start > late for session in replanned.sessions)
    assert types(world.hears(*approvals, at=late)) == []
    assert types(world.hears(approved(2), at=late)) == []
    assert types(world.hears(cleared(2), at=late)) == ["engagement.confirmed"]


def test_approvals_that_are_there_when_the_first_session_begins_are_in_time() -> None:
    world = World()
    world.hears(accepted(), listed(), confirmed(), approved())
    assert types(world.hears(cleared(), at=world.plans()[0].sessions[0].takes_place.start)) == ["engagement.confirmed"]


def test_a_plan_whose_dates_pass_and_for_which_no_others_are_left_is_given_up() -> None:
    world = World()
    world.hears(accepted(), listed(), confirmed(), approved())
    said = world.hears(cleared(), at=datetime.combine(WINTER.last, time(18), UTC))
    assert types(said) == ["session.cancelled"] * 3 + ["engagement.not_plannable"]


@pytest.mark.parametrize("approvals", [(), (approved(),), (approved(), cleared())])
def test_sessions_dated_within_a_hold_get_other_dates_after_it(approvals: Sequence[Body]) -> None:
    for order in interleavings([[held()], approvals]):
        world = World()
        world.hears(accepted(), listed(), confirmed(), *order)
        late = after(2, world)
        (replanned,) = world.hears(resumed(), at=late)
        assert isinstance(replanned, engagements.EngagementReplanned)
        assert replanned.reason == "Its dates had passed when the request came off hold."
        assert ids(replanned) == ["R1/s2.1", "R1/s2.2", "R1/s2.3"]
        assert all(session.takes_place.start > late for session in replanned.sessions)
        assert types(world.hears(approved(2), cleared(2), at=late)) == ["engagement.confirmed"]


def test_a_hold_moves_neither_what_took_place_before_it_nor_what_is_reported_during_it() -> None:
    world = begun()
    first, second = after(1, world), after(2, world)
    world.hears(held(), at=first)
    world.hears(resumed(), at=second)
    assert ids(world.plans()[-1]) == ["R1/s1.1", "R1/s2.2", "R1/s2.3"]
    world = begun()
    world.hears(held(), REPORTS[0], at=first)
    world.hears(REPORTS[1], at=second)
    assert world.hears(resumed(), at=second) == []


def test_a_request_that_is_not_on_hold_has_nothing_to_resume() -> None:
    world = World()
    world.hears(accepted(), listed(), confirmed())
    assert world.hears(resumed(), at=after(2, world)) == []


def test_what_is_dated_within_a_hold_is_called_off_with_the_rest() -> None:
    world = begun()
    world.hears(held())
    said = world.hears(withdrawn(), at=after(2, world))
    assert types(said) == ["session.cancelled"] * 3 + ["engagement.closed"]


def test_an_expert_who_moves_on_the_way_home_is_not_booked_before_being_there() -> None:
    far, near = Place(61.2, -149.9), CHICAGO
    world = World()
    world.hears(accepted(), listed(home=far, zone="America/Chicago"), confirmed(), approved(), cleared())
    visit, advice = world.plans()[0].sessions[1:]
    assert visit.occupies.end - visit.takes_place.end > timedelta(days=2)
    moved = listed(home=near, zone="America/Chicago", unavailable=[on_day(advice.takes_place)])
    assert types(world.hears(moved, at=visit.takes_place.end)) == ["engagement.replanned"]
    assert world.plans()[-1].sessions[2].takes_place.start >= visit.occupies.end
    assert_nobody_is_booked_twice(world)


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
    body.model_validate(json.loads(Path(f"schemas/examples/{topic}/{body.TYPE}.json").read_text())["data"])
    for topic, bodies in (("requests", requests.BODIES), ("matches", matches.BODIES), ("roster", roster.BODIES))
    for body in bodies.values()
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


def assert_nobody_is_booked_twice(world: World) -> None:
    for booked in world.known.booked.values():
        for (_, one), (_, other) in combinations(booked, 2):
            assert not one.overlaps(other)


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


SOUP = st.one_of(
    st.builds(accepted, st.sampled_from([ONE, TWO])),
    st.builds(confirmed, st.integers(1, 3), st.sampled_from([ONE, TWO]), st.sampled_from([(ANNA,), (ANNA, BORIS)])),
    st.builds(released, st.integers(1, 3), st.sampled_from([ONE, TWO])),
    st.builds(listed, st.sampled_from([ANNA, BORIS])),
    st.builds(
        off,
        st.sampled_from([days("2026-12-01", "2026-12-20"), days("2027-01-01", "2027-02-15"), WINTER]),
        expert_id=st.sampled_from([ANNA, BORIS]),
    ),
    st.builds(approved, st.integers(1, 4), st.sampled_from([ONE, TWO])),
    st.builds(cleared, st.integers(1, 4), st.sampled_from([ONE, TWO])),
    st.builds(reported, st.sampled_from([f"R1/s{version}.{nth}" for version in (1, 2, 3) for nth in (1, 2, 3)])),
    st.builds(withdrawn, st.sampled_from([ONE, TWO])),
    st.builds(other_dates, st.integers(1, 3), st.sampled_from([None, SPRING, WINTER])),
    st.sampled_from([held(), resumed(), cancelled(), evaluated(), reopened(SPRING), amended(SPRING)]),
)


@settings(max_examples=300)
@given(st.lists(SOUP, max_size=40))
def test_whatever_comes_in_whatever_order_the_facts_stay_in_order_and_nobody_is_booked_twice(heard: list[Body]) -> None:
    world = World()
    for body in heard:
        world.hears(body)
        assert_nobody_is_booked_twice(world)
    booked = {(request_id, window) for windows in world.known.booked.values() for request_id, window in windows}
    assert booked == {
        (request_id, session.occupies)
        for request_id, known in world.known.engagements.items()
        for session in known.outstanding
    }
    for request_id in world.known.engagements:
        facts = [fact for fact in world.facts if fact.request_id == request_id]
        versions = [fact.plan_version for fact in facts if isinstance(fact, engagements.Plan)]
        assert versions == list(range(1, len(versions) + 1))
        for nth, fact in enumerate(facts):
            if isinstance(fact, engagements.EngagementConfirmed):
                assert approved(fact.plan_version, request_id) in heard
                assert cleared(fact.plan_version, request_id) in heard
                assert any(
                    isinstance(earlier, engagements.Plan) and earlier.plan_version == fact.plan_version
                    for earlier in facts[:nth]
                )
            if isinstance(fact, engagements.EngagementDelivered):
                assert "engagement.confirmed" in types(facts[:nth])


PACE = st.sampled_from([0, 0, 0, 1, 4, 15])
"""Days from one event to the next."""
LATER = st.lists(st.tuples(SOUP, PACE), max_size=25)


@settings(max_examples=300)
@given(LATER)
def test_however_time_passes_what_took_place_stays_and_nothing_starts_before_both_approvals(
    later: list[tuple[Body, int]],
) -> None:
    world, now = World(), NOW
    world.hears(accepted(), listed(), listed(BORIS), confirmed(), approved(), cleared())
    plan, took_place, reports = world.plans()[0], set[str](), set[str]()
    in_force = True
    for body, days_later in later:
        now += timedelta(days=days_later)
        if in_force and not world.engagement().on_hold:
            took_place |= {session.session_id for session in plan.sessions if session.takes_place.end <= now}
        if isinstance(body, requests.SessionReported):
            reports.add(body.session_id)
        for fact in world.hears(body, at=now):
            match fact:
                case _ if fact.request_id != ONE:
                    pass
                case engagements.EngagementPlanned():
                    plan, in_force = fact, False
                case engagements.EngagementReplanned():
                    assert took_place & set(ids(plan)) <= set(ids(fact))
                    plan, in_force = fact, False
                case engagements.EngagementConfirmed():
                    last = max((nth for nth, one in enumerate(ids(plan), 1) if one in reports | took_place), default=0)
                    assert all(session.takes_place.start >= now for session in plan.sessions[last:])
                    in_force = True
                case engagements.SessionCancelled():
                    assert fact.session_id not in took_place
                    in_force = False
                case _:
                    pass
        assert_nobody_is_booked_twice(world)
