"""As time passes: what took place stays as it was, and nothing starts before both approvals."""

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta

import pytest

from schemas import engagements
from schemas.vocabulary import DeliveryMode, Place
from tests.scheduling.scheduling_world import (
    BORIS,
    CHICAGO,
    NOW,
    REPORTS,
    SPRING,
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
    held,
    ids,
    interleavings,
    listed,
    off,
    on_day,
    other_dates,
    released,
    reported,
    resumed,
    types,
    withdrawn,
)


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
