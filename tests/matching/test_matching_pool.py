"""The life of a request in matching, told in events; and that it ends the same whichever topic speaks first."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.matches import MatchConfirmed, MatchNotFound, MatchProposed, MatchReleased
from schemas.vocabulary import DateWindow, DeliveryMode, Outcome, RequestId, Urgency
from services.matching.decisions.pool import Request, Step
from services.matching.store import Body
from tests.matching.matching_builders import (
    World,
    accepted,
    agency_accepts,
    agency_declines,
    amended,
    cancelled,
    changed,
    closed,
    declared,
    delivered,
    held,
    listed,
    not_plannable,
    partner_accepts,
    partner_declines,
    reopened,
    resumed,
    retired,
    selected,
    suspended,
    withdrawn,
)

ROSTER = (selected("IACP"), selected("NOBLE"), listed("E1", "IACP"), listed("E2", "NOBLE"))


def proposed() -> World:
    """One request, proposed to one of two experts of two partners."""
    world = World()
    world.hear(*ROSTER, accepted())
    [proposal] = world.round()
    assert isinstance(proposal, MatchProposed)
    assert (proposal.match_id, proposal.partner_id, proposal.experts[0].expert_id) == ("R1/m1", "IACP", "E1")
    return world


def confirmed() -> World:
    world = proposed()
    [fact] = world.hear(agency_accepts("R1/m1"), partner_accepts("R1/m1"))
    assert isinstance(fact, MatchConfirmed)
    return world


def the_request(world: World) -> Request:
    return world.known.requests[RequestId("R1")]


@pytest.mark.parametrize("nth", [0, 1])
def test_a_match_is_confirmed_once_both_have_agreed_whoever_is_first(nth: int) -> None:
    world = proposed()
    answers = [agency_accepts("R1/m1"), partner_accepts("R1/m1")]
    assert world.hear(answers.pop(nth)) == []
    [fact] = world.hear(*answers)
    assert isinstance(fact, MatchConfirmed)
    assert (fact.match_id, fact.partner_id, fact.expert_ids) == ("R1/m1", "IACP", ("E1",))
    assert world.hear(agency_accepts("R1/m1"), partner_accepts("R1/m1")) == []


def test_another_partner_cannot_take_or_decline_the_work() -> None:
    world = proposed()
    assert world.hear(agency_accepts("R1/m1"), partner_accepts("R1/m1", "NOBLE")) == []
    assert world.hear(partner_declines("R1/m1", "NOBLE")) == []
    assert the_request(world).step is Step.PROPOSED


def test_an_answer_to_a_match_nobody_proposed_changes_nothing() -> None:
    world = proposed()
    before = the_request(world)
    assert world.hear(agency_accepts("R1/m2"), partner_accepts("R1/m2"), agency_declines("R1/m2")) == []
    assert the_request(world) == before


def test_an_answer_that_comes_after_the_release_changes_nothing_but_who_is_asked_again() -> None:
    world = proposed()
    world.hear(retired("E1"))
    world.round()
    assert world.hear(agency_accepts("R1/m1"), partner_accepts("R1/m1"), agency_declines("R1/m1")) == []
    assert the_request(world).banned_experts == {"E1"}


@pytest.mark.parametrize("decline", [agency_declines, partner_declines, not_plannable])
def test_whoever_was_declined_is_not_proposed_again(decline: Callable[..., Body]) -> None:
    world = confirmed()
    [fact] = world.hear(decline("R1/m1"))
    assert isinstance(fact, MatchReleased)
    assert (fact.match_id, fact.expert_ids) == ("R1/m1", ("E1",))
    [again] = world.round()
    assert isinstance(again, MatchProposed)
    assert (again.match_id, again.experts[0].expert_id) == ("R1/m2", "E2")
    world.hear(partner_declines("R1/m2", "NOBLE") if decline is partner_declines else decline("R1/m2"))
    [nobody] = world.round()
    assert isinstance(nobody, MatchNotFound)
    assert [(one.code, one.experts) for one in nobody.reasons] == [("declined_before", 2)]
    assert len(nobody.would_help) == 1


LATER = DateWindow(date(2026, 7, 1), date(2026, 9, 30))


@pytest.mark.parametrize(
    "other_terms", [{"window": LATER}, {"blackouts": (LATER,)}, {"delivery_modes": (DeliveryMode.PEER_EXCHANGE,)}]
)
def test_who_could_not_be_planned_is_asked_again_on_other_terms_and_not_on_those_that_failed(
    other_terms: dict[str, Any],
) -> None:
    for events in interleavings([[amended(**other_terms)], [not_plannable("R1/m1")], [retired("E2")]]):
        world = confirmed()
        world.hear(*events)
        [again] = world.round()
        assert isinstance(again, MatchProposed)
        assert (again.match_id, again.experts[0].expert_id) == ("R1/m2", "E1")
        world.hear(not_plannable("R1/m2"))
        assert [type(fact) for fact in world.round()] == [MatchNotFound]


def test_terms_that_scheduling_does_not_look_at_give_nobody_another_try() -> None:
    world = confirmed()
    world.hear(not_plannable("R1/m1"), amended(urgency=Urgency.CRITICAL), retired("E2"))
    assert [type(fact) for fact in world.round()] == [MatchNotFound]
    world.hear(amended(window=LATER), amended())
    assert [type(fact) for fact in world.round()] == [MatchNotFound]


@pytest.mark.parametrize("leave", [withdrawn, cancelled])
@pytest.mark.parametrize("so_far", [proposed, confirmed])
def test_a_request_that_ends_frees_its_experts_and_is_not_matched_again(
    leave: Callable[[], Body], so_far: Callable[[], World]
) -> None:
    world = so_far()
    [fact] = world.hear(leave())
    assert isinstance(fact, MatchReleased)
    assert world.hear(leave()) == []
    assert world.round() == []
    assert the_request(world).step is Step.ENDED


def test_a_held_request_is_not_matched_until_it_is_resumed() -> None:
    world = World()
    world.hear(*ROSTER, accepted(), held())
    assert world.round() == []
    world.hear(resumed())
    assert [type(fact) for fact in world.round()] == [MatchProposed]


def test_a_hold_keeps_the_active_match_and_its_answers() -> None:
    world = proposed()
    facts = world.hear(held(), agency_accepts("R1/m1"), partner_accepts("R1/m1"))
    assert [type(fact) for fact in facts] == [MatchConfirmed]


def test_a_hold_that_is_heard_before_the_request_is_accepted_holds() -> None:
    world = World()
    world.hear(*ROSTER, held(), accepted())
    assert world.round() == []


def test_terms_that_a_proposal_no_longer_fits_release_it() -> None:
    world = World()
    online, on_site = DeliveryMode.WEB_BASED_TRAINING, DeliveryMode.PEER_EXCHANGE
    world.hear(selected(), listed("E1", delivery_modes=(online,)), listed("E2", delivery_modes=(on_site,)))
    world.hear(accepted(delivery_modes=(online,)))
    assert [fact.experts[0].expert_id for fact in world.round() if isinstance(fact, MatchProposed)] == ["E1"]
    world.hear(amended(delivery_modes=(on_site,)))
    assert [type(fact) for fact in world.round()] == [MatchReleased]
    [again] = world.round()
    assert isinstance(again, MatchProposed)
    assert again.experts[0].expert_id == "E2"


def test_terms_that_a_proposal_still_fits_leave_it() -> None:
    world = proposed()
    world.hear(amended(delivery_modes=(DeliveryMode.PEER_EXCHANGE,)))
    assert world.round() == []
    assert the_request(world).step is Step.PROPOSED


@pytest.mark.parametrize(
    "news", [retired("E1"), suspended("IACP"), declared("C1", expert_id="E1"), changed("E1", "NOBLE")]
)
@pytest.mark.parametrize("so_far", [proposed, confirmed])
def test_a_match_is_checked_again_when_the_roster_changes(news: Body, so_far: Callable[[], World]) -> None:
    world = so_far()
    world.hear(news)
    [fact] = world.round()
    assert isinstance(fact, MatchReleased)
    [again] = world.round()
    assert isinstance(again, MatchProposed)
    assert again.experts[0].expert_id == "E2"


def test_a_confirmed_match_outlives_a_change_that_would_end_a_proposal() -> None:
    smaller = changed("E1", delivery_modes=(DeliveryMode.POLICY_REVIEW,))
    for world, released in ((proposed(), [MatchReleased]), (confirmed(), [])):
        world.hear(smaller)
        assert [type(fact) for fact in world.round()] == released


def test_what_is_delivered_is_no_longer_checked_and_frees_the_expert() -> None:
    world = confirmed()
    assert world.hear(delivered("R1/m1")) == []
    world.hear(retired("E1"), closed("R1/m1"))
    assert world.round() == []
    assert the_request(world).active is None


def test_a_reopened_request_is_matched_anew_with_its_bans_and_the_next_number() -> None:
    world = confirmed()
    world.hear(agency_declines("R1/m1"))
    world.round()
    world.hear(agency_accepts("R1/m2"), partner_accepts("R1/m2", "NOBLE"), delivered("R1/m2"), closed("R1/m2"))
    world.hear(reopened())
    [again] = world.round()
    assert isinstance(again, MatchProposed)
    assert (again.match_id, again.experts[0].expert_id) == ("R1/m3", "E2")


def test_a_reopened_request_is_no_longer_held() -> None:
    world = confirmed()
    world.hear(held(), delivered("R1/m1"), closed("R1/m1"), reopened())
    assert [type(fact) for fact in world.round()] == [MatchProposed]


def test_nothing_is_said_again_while_the_reasons_are_the_same() -> None:
    world = World()
    world.hear(selected(), accepted())
    assert [type(fact) for fact in world.round()] == [MatchNotFound]
    assert world.round() == []
    world.hear(listed("E1", agency_types=("campus",)))
    [other] = world.round()
    assert isinstance(other, MatchNotFound)
    assert [one.code for one in other.reasons] == ["agency_type"]
    world.hear(amended())
    assert [type(fact) for fact in world.round()] == [MatchNotFound], "the agency has asked anew"


# What each topic says of a confirmed match, in the topic's order. Between the topics every order may come about.
BY_REQUESTS: tuple[tuple[Body, ...], ...] = (
    (),
    (withdrawn(),),
    (cancelled(), withdrawn()),
    (held(), withdrawn()),
    (held(), resumed()),
    (held(), amended(), resumed()),
    (agency_declines("R1/m1"),),
    (partner_declines("R1/m1"), withdrawn()),
    (agency_accepts("R1/m1"), partner_accepts("R1/m1")),
    (reopened(),),
    (amended(), reopened(), held()),
    (amended(window=LATER),),
    (reopened(window=LATER),),
    (withdrawn(), reopened()),
)
BY_ENGAGEMENTS: tuple[tuple[Body, ...], ...] = (
    (),
    (not_plannable("R1/m1"),),
    (delivered("R1/m1"),),
    (delivered("R1/m1"), closed("R1/m1")),
    (closed("R1/m1", Outcome.WITHDRAWN),),
    (closed("R1/m1", Outcome.CANCELLED),),
)
BY_ROSTER: tuple[tuple[Body, ...], ...] = (
    (),
    (retired("E1"), listed("E1")),
    (declared("C1", expert_id="E1"),),
    (suspended("IACP"), selected("IACP", 3)),
)


def interleavings(streams: Sequence[Sequence[Body]]) -> Sequence[list[Body]]:
    """All ways in which the streams may be heard, each stream in its own order."""
    if not any(streams):
        return [[]]
    return [
        [stream[0], *rest]
        for nth, stream in enumerate(streams)
        if stream
        for rest in interleavings([*streams[:nth], stream[1:], *streams[nth + 1 :]])
    ]


def end_of(world: World, events: Sequence[Body]) -> object:
    world.hear(*events)
    settled = [
        replace(one, changed=False)
        for part in (world.known.requests, world.known.experts, world.known.partners)
        for _, one in sorted(part.items())
    ]
    return settled, world.round()[-1:] if the_request(world).step is Step.WAITING else None


@pytest.mark.parametrize("by_engagements", BY_ENGAGEMENTS)
@pytest.mark.parametrize("by_requests", BY_REQUESTS)
def test_all_topics_may_come_in_any_order(by_requests: Sequence[Body], by_engagements: Sequence[Body]) -> None:
    for by_roster in BY_ROSTER:
        ends = [end_of(confirmed(), events) for events in interleavings((by_requests, by_engagements, by_roster))]
        assert all(end == ends[0] for end in ends)


@pytest.mark.parametrize("leave", [withdrawn, cancelled])
@pytest.mark.parametrize("outcome", [Outcome.WITHDRAWN, Outcome.CANCELLED])
def test_the_match_is_released_once_whoever_tells_of_the_withdrawal_first(
    leave: Callable[[], Body], outcome: Outcome
) -> None:
    for events in interleavings([[leave()], [closed("R1/m1", outcome)]]):
        assert [type(fact) for fact in confirmed().hear(*events)] == [MatchReleased]


@pytest.mark.parametrize("early", [(delivered("R1/m1"),), (delivered("R1/m1"), closed("R1/m1")), (closed("R1/m1"),)])
def test_an_engagement_heard_of_before_its_request_ends_it_in_either_order(early: Sequence[Body]) -> None:
    for events in interleavings([[accepted()], early, [selected()], [listed()]]):
        world = World()
        world.hear(*events)
        assert the_request(world).step is Step.ENDED
        assert world.round() == []


def test_a_delivery_heard_after_another_match_was_proposed_ends_that_one() -> None:
    world = confirmed()
    world.hear(agency_declines("R1/m1"))
    world.round()
    assert the_request(world).step is Step.PROPOSED
    [fact] = world.hear(delivered("R1/m1"))
    assert isinstance(fact, MatchReleased)
    assert fact.match_id == "R1/m2"
    assert the_request(world).step is Step.ENDED


@given(st.lists(st.sampled_from([event for by in (BY_REQUESTS, BY_ENGAGEMENTS) for events in by for event in events])))
def test_hearing_anything_twice_in_a_row_is_hearing_it_once(events: list[Body]) -> None:
    once, twice = confirmed(), confirmed()
    once.hear(*events)
    twice.hear(*(event for event in events for _ in range(2)))
    assert replace(the_request(twice), changed=False) == replace(the_request(once), changed=False)
    assert twice.facts == once.facts


@given(st.lists(st.sampled_from([event for by in (BY_REQUESTS, BY_ENGAGEMENTS) for events in by for event in events])))
def test_every_proposal_ends_at_most_once_and_at_most_one_is_active(events: list[Body]) -> None:
    world = proposed()
    for event in events:
        world.hear(event)
        world.round()
    ids = [fact.match_id for fact in world.facts if isinstance(fact, MatchProposed)]
    ended = [fact.match_id for fact in world.facts if isinstance(fact, MatchReleased)]
    assert ids == [f"R1/m{nth}" for nth in range(1, len(ids) + 1)]
    assert len(ended) == len(set(ended))
    assert all(match.stage == "ended" for match in the_request(world).matches[:-1])
