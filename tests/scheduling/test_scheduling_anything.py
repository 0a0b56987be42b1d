"""Whatever comes in whatever order: the facts stay in order, nobody is booked twice, what took place stays."""

from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import engagements, requests
from tests.scheduling.scheduling_world import (
    ANNA,
    BORIS,
    NOW,
    ONE,
    SPRING,
    TWO,
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
    listed,
    off,
    other_dates,
    released,
    reopened,
    reported,
    resumed,
    types,
    withdrawn,
)

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
