"""The simulated outside world: what it asks and answers is valid, decided by its seed alone, and told once."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.submissions import BODIES
from services.console.surroundings import Stack
from services.console.world.answering import Step, World
from services.console.world.asking import UNKNOWN_ORI, Asking, Burst, Kind, Leaves
from services.console.world.population import TOPIC_WEIGHTS, Agency, Message, roster
from services.console.world.simulation import HEARD, Simulation
from tests.console.console_world import (
    AGENCIES,
    TODAY,
    Fact,
    about,
    accepted,
    closed,
    confirmed,
    delivered,
    matched,
    planned,
    proposed,
    record,
    released,
    session,
)

FACTS = {"submission.taken.v1", "match.proposed.v1", "engagement.planned.v1", "engagement.confirmed.v1"}
BODIES_OF = st.dictionaries(
    st.sampled_from(["request_id", "match_id", "submission_source", "submission_id"]),
    st.sampled_from(["R-t-000000", "", []]),
    max_size=2,
)
"""Bodies that lack what every fact has."""


def world(seed: int = 1, *, run: str = "t", delivers: bool = True) -> World:
    return World(run, Asking(seed, AGENCIES, TODAY), delivers)


def valid(message: Message) -> bool:
    body = BODIES[message.type].model_validate_json(json.dumps(message.body))
    return body.subject == message.subject


def numbers_of(kind: Kind, seed: int = 1) -> Iterator[int]:
    asking = Asking(seed, AGENCIES, TODAY)
    return (number for number in range(5000) if asking.draft(number).kind is kind)


def staying(world: World) -> int:
    """Number of a complete request that is not withdrawn."""
    return next(n for n in range(100) if (draft := world.asking.draft(n)).kind is Kind.COMPLETE and not draft.leaves)


@given(seed=st.integers(0, 2**32), number=st.integers(0, 10_000))
def test_every_request_is_a_valid_submission_under_its_own_id(seed: int, number: int) -> None:
    outside = world(seed)
    messages = outside.ask(number)
    assert messages
    assert all(valid(message) and message.subject == outside.request_id(number) for message in messages)


@given(seed=st.integers(0, 2**32), number=st.integers(0, 10_000))
def test_the_same_seed_and_number_ask_for_the_same(seed: int, number: int) -> None:
    assert world(seed).ask(number) == world(seed).ask(number)


def test_other_seeds_ask_for_something_else() -> None:
    asked = [[world(seed).ask(number)[0].body["terms"] for number in range(30)] for seed in (1, 2)]
    assert asked[0] != asked[1]


def test_a_run_of_another_name_says_the_same_under_other_ids() -> None:
    one, other = world(run="a").ask(5), world(run="b").ask(5)
    assert [message.body["terms"] for message in one] == [message.body["terms"] for message in other]
    assert not {message.id for message in one} & {message.id for message in other}


def test_every_kind_of_request_occurs_and_most_are_complete() -> None:
    asking = Asking(1, AGENCIES, TODAY)
    kinds = Counter(asking.draft(number).kind for number in range(2000))
    assert set(kinds) == set(Kind)
    assert kinds[Kind.COMPLETE] > 1000


def test_each_kind_carries_what_its_name_says() -> None:
    outside = world()
    bodies = {kind: outside.ask(next(numbers_of(kind)))[0].body for kind in Kind}
    types = {agency.ori: agency.agency_type for agency in AGENCIES}
    assert bodies[Kind.UNKNOWN_AGENCY]["ori"] == UNKNOWN_ORI
    assert not set(bodies[Kind.UNKNOWN_TOPIC]["terms"]["topics"]) & set(TOPIC_WEIGHTS)
    assert types[bodies[Kind.FEDERAL]["ori"]] == "federal"
    assert types[bodies[Kind.UNKNOWN_TYPE]["ori"]] == "unknown"
    assert "executive_support" not in bodies[Kind.LETTER_MISSING]
    assert "executive_support" not in bodies[Kind.SILENT]
    assert "executive_support" in bodies[Kind.COMPLETE]


def test_a_duplicate_repeats_agency_and_topic_of_a_request_shortly_before() -> None:
    asking = Asking(1, AGENCIES, TODAY)
    number = next(numbers_of(Kind.DUPLICATE))
    draft = asking.draft(number)
    before = [asking.draft(earlier) for earlier in range(max(0, number - 12), number)]
    assert any(one.agency == draft.agency and one.topics == draft.topics for one in before)


def test_agencies_do_not_repeat_a_topic_by_accident() -> None:
    asking = Asking(3, AGENCIES, TODAY)
    eligible = sum(one.agency_type not in ("federal", "unknown") for one in AGENCIES)
    asked: Counter[tuple[str, str]] = Counter()
    for number in range(6 * eligible):
        draft = asking.draft(number)
        if draft.kind in (Kind.COMPLETE, Kind.LETTER_MISSING, Kind.SILENT):
            asked.update((draft.agency.ori, topic) for topic in draft.topics)
    assert max(asked.values()) == 1


def test_only_tribal_agencies_ask_for_tribal_support_and_bring_their_governing_bodys_letter() -> None:
    asking = Asking(1, [agency for agency in AGENCIES if agency.state == "OK"], TODAY)
    drafts = [asking.draft(number) for number in range(200)]
    tribal = [draft for draft in drafts if draft.agency.agency_type == "tribal"]
    assert any("tribal" in draft.topics for draft in tribal)
    assert all("tribal" not in draft.topics for draft in drafts if draft not in tribal)
    complete = next(draft for draft in tribal if draft.kind is Kind.COMPLETE)
    assert "governing_body_support" in asking.body(complete)


@given(number=st.integers(0, 10_000))
def test_dates_lie_three_weeks_to_five_months_ahead(number: int) -> None:
    window = world().ask(number)[0].body["terms"]["window"]
    first, last = date.fromisoformat(window["first"]), date.fromisoformat(window["last"])
    assert TODAY + timedelta(days=21) <= first < last <= TODAY + timedelta(days=150)


def test_after_an_incident_the_agencies_of_one_state_ask_for_critical_help() -> None:
    asking = Asking(1, AGENCIES, TODAY, Burst("TX", range(10, 20)))
    drafts = [asking.draft(number) for number in range(30)]
    assert all(draft.agency.state == "TX" and draft.urgency == "critical" for draft in drafts[10:20])
    assert not any(draft.urgency == "critical" for draft in drafts[:10] + drafts[20:])
    assert len({draft.agency for draft in drafts[10:20]}) == 10
    assert asking.largest_state() == "TX"


def test_without_an_eligible_agency_nobody_can_ask() -> None:
    with pytest.raises(ValueError, match="no agency of an eligible type"):
        Asking(1, [Agency("DCFBI0001", "federal", "DC")], TODAY)


# --- answers


def life(request_id: str) -> list[list[Fact]]:
    """The facts of a request that goes well on its second match, by topic."""
    first, second = session(f"{request_id}/s1.1", "E1", 3), session(f"{request_id}/s1.2", "E1", 9)
    return [
        [about(request_id, "request.information_requested.v1"), accepted(request_id, "TX0000001")],
        [
            proposed(request_id, "E1"),
            released(request_id, "E1"),
            proposed(request_id, "E2", nth=2),
            matched(request_id, "E2", nth=2),
        ],
        [
            planned(request_id, [first, second], nth=2),
            confirmed(request_id, nth=2),
            delivered(request_id, nth=2),
            closed(request_id, nth=2),
        ],
    ]


@st.composite
def interleaved(draw: st.DrawFn, by_topic: Sequence[Sequence[Fact]]) -> list[Fact]:
    """The facts in an order that keeps the order within each topic."""
    turns = draw(st.permutations([nth for nth, facts in enumerate(by_topic) for _ in facts]))
    rests = [iter(facts) for facts in by_topic]
    return [next(rests[turn]) for turn in turns]


@given(data=st.data(), number=st.integers(0, 300))
def test_answers_are_the_same_whatever_topic_speaks_first(data: st.DataObject, number: int) -> None:
    request_id = world().request_id(number)
    in_order = [fact for topic in life(request_id) for fact in topic]
    outcomes: list[tuple[dict[str, Message], Step]] = []
    for told in (in_order, data.draw(interleaved(life(request_id)))):
        outside = world()
        outside.ask(number)
        said = {message.id: message for _, event_type, body in told for message in outside.hear(event_type, body)}
        assert all(valid(message) for message in said.values())
        outcomes.append((said, outside.asked[request_id].step))
    assert outcomes[0] == outcomes[1]


def test_a_fact_heard_twice_is_answered_under_the_same_id() -> None:
    outside = world()
    number = staying(outside)
    outside.ask(number)
    _, event_type, body = proposed(outside.request_id(number), "E1")
    once, twice = outside.hear(event_type, body), outside.hear(event_type, body)
    assert once
    assert once == twice


def test_a_proposal_is_answered_by_the_agency_and_by_the_partner_it_names() -> None:
    outside = world()
    number = staying(outside)
    outside.ask(number)
    answers = outside.hear(*proposed(outside.request_id(number), "E1", partner="NSA")[1:])
    actors = {message.body["actor"]["role"]: message.body["actor"]["id"] for message in answers}
    assert actors == {"point_of_contact": outside.asking.draft(number).agency.ori, "partner": "NSA"}


def test_a_plan_needs_the_agency_and_the_programme_office() -> None:
    outside = world()
    number = staying(outside)
    outside.ask(number)
    answers = outside.hear(*planned(outside.request_id(number), [session("s", "E1", 1)])[1:])
    assert {message.type for message in answers} <= {"plan.cleared.v1", "plan.approved.v1", "plan.changes_asked.v1"}
    assert {message.body["actor"]["role"] for message in answers} >= {"programme_office"}
    assert len(answers) == 2


def test_every_session_is_reported_and_the_engagement_evaluated_only_where_delivery_is_simulated() -> None:
    for delivers in (True, False):
        outside = world(delivers=delivers)
        number = staying(outside)
        request_id = outside.request_id(number)
        outside.ask(number)
        outside.hear(*planned(request_id, [session(f"{request_id}/s1.{n}", "E1", n) for n in range(3)])[1:])
        types = Counter(message.type for message in outside.hear(*confirmed(request_id)[1:]))
        expected = {"session.reported.v1": 3, "evaluation.returned.v1": 1} if delivers else {}
        assert types == expected


def test_what_is_missing_is_supplied_by_the_agency_and_an_unknown_type_is_ruled_on_by_the_office() -> None:
    outside = world()
    expected = {
        Kind.LETTER_MISSING: "information.supplied.v1",
        Kind.UNKNOWN_TYPE: "request.ruled.v1",
        Kind.SILENT: None,
    }
    for kind, event_type in expected.items():
        number = next(n for n in numbers_of(kind) if outside.asking.draft(n).leaves is None)
        outside.ask(number)
        answers = outside.hear(*about(outside.request_id(number), "request.information_requested.v1")[1:])
        assert [message.type for message in answers] == ([] if event_type is None else [event_type])
        assert all(valid(message) for message in answers)


@pytest.mark.parametrize("moment", list(Leaves))
def test_an_agency_that_leaves_withdraws_once_and_answers_nothing_from_then_on(moment: Leaves) -> None:
    outside = world()
    number = next(
        n for n in range(20_000) if (draft := outside.asking.draft(n)).leaves is moment and draft.kind is Kind.COMPLETE
    )
    request_id = outside.request_id(number)
    said = [message.type for message in outside.ask(number)]
    facts = [accepted(request_id, "TX0000001"), proposed(request_id, "E1"), matched(request_id, "E1")]
    facts += [planned(request_id, [session("s", "E1", 1)]), confirmed(request_id)]
    for _, event_type, body in facts:
        said += [message.type for message in outside.hear(event_type, body)]
    assert said.count("withdrawal.asked.v1") == 1
    assert said[-1] == "withdrawal.asked.v1"


def test_facts_about_the_requests_of_others_are_nothing_to_it() -> None:
    assert world().hear(*proposed("R-somebody-else", "E1")[1:]) == []


def test_accepting_is_the_rule_and_declining_happens() -> None:
    outside = world()
    answers: Counter[str] = Counter()
    for number in range(1500):
        outside.ask(number)
        answers.update(message.type for message in outside.hear(*proposed(outside.request_id(number), "E1")[1:]))
    agencies = answers["proposal.accepted.v1"] + answers["proposal.declined.v1"]
    partners = answers["offer.accepted.v1"] + answers["offer.declined.v1"]
    # Four standard deviations around the shares it says it has.
    assert 0.892 < answers["proposal.accepted.v1"] / agencies < 0.948
    assert 0.952 < answers["offer.accepted.v1"] / partners < 0.988


# --- where requests stand


@given(data=st.data())
def test_where_a_request_stands_does_not_depend_on_the_order_of_topics(data: st.DataObject) -> None:
    outside = world()
    number = staying(outside)
    outside.ask(number)
    for _, event_type, body in data.draw(interleaved(life(outside.request_id(number)))):
        outside.hear(event_type, body)
    assert outside.asked[outside.request_id(number)].step is Step.CLOSED
    assert outside.rests()


def test_a_released_match_takes_its_plan_with_it() -> None:
    outside = world()
    number = staying(outside)
    request_id = outside.request_id(number)
    outside.ask(number)
    told = [accepted(request_id, "TX0000001"), proposed(request_id, "E1"), matched(request_id, "E1")]
    for _, event_type, body in [*told, planned(request_id, [session("s", "E1", 1)]), released(request_id, "E1")]:
        outside.hear(event_type, body)
    assert outside.asked[request_id].step is Step.ACCEPTED
    outside.hear("match.not_found.v1", {"request_id": request_id, "reasons": []})
    assert outside.asked[request_id].step is Step.UNFILLED
    assert outside.rests()


def test_a_request_rests_only_when_nothing_more_is_to_come() -> None:
    outside = world(delivers=False)
    number = staying(outside)
    request_id = outside.request_id(number)
    outside.ask(number)
    resting = [outside.rests()]
    told = [accepted(request_id, "TX0000001"), proposed(request_id, "E1"), matched(request_id, "E1")]
    for _, event_type, body in [*told, planned(request_id, [session("s", "E1", 1)]), confirmed(request_id)]:
        outside.hear(event_type, body)
        resting.append(outside.rests())
    assert resting == [False] * 5 + [True]


def test_a_request_whose_submission_was_refused_rests() -> None:
    outside = world()
    outside.ask(0)
    outside.refused(outside.request_id(0))
    assert outside.asked[outside.request_id(0)].step is Step.REFUSED
    assert outside.rests()


# --- what is heard


@given(
    st.sampled_from(HEARD), st.sampled_from(sorted(FACTS)), st.none() | st.integers() | st.lists(st.text()) | BODIES_OF
)
def test_nothing_that_is_no_fact_is_answered_or_ends_the_listening(topic: str, event_type: str, body: Any) -> None:
    outside = world()
    outside.ask(0)
    simulation = Simulation(Stack("127.0.0.1:1"), outside, cast(Any, None), cast(Any, None), None)
    assert simulation.hear(record(topic, outside.request_id(0), event_type, body)) == []


def test_a_fact_said_again_after_later_ones_puts_nothing_back() -> None:
    outside = world()
    number = staying(outside)
    request_id = outside.request_id(number)
    outside.ask(number)
    simulation = Simulation(Stack("127.0.0.1:1"), outside, cast(Any, None), cast(Any, None), None)
    said: Counter[str] = Counter()
    records = []
    for topic, event_type, body in (fact for facts in life(request_id) for fact in facts):
        said[topic] += 1
        records.append(record(topic, request_id, event_type, body, sequence=said[topic]))
    for one in records:
        simulation.hear(one)
    assert outside.asked[request_id].step is Step.CLOSED
    for one in records[:-1]:
        assert simulation.hear(one) == []
    assert outside.asked[request_id].step is Step.CLOSED


# --- the roster


def the_roster(seed: int = 1, experts: int = 60) -> list[Message]:
    return list(roster(seed, "t", experts, AGENCIES, TODAY))


def test_everything_that_fills_the_roster_is_valid_and_said_once() -> None:
    messages = the_roster()
    assert all(valid(message) for message in messages)
    assert len({(message.source, message.id) for message in messages}) == len(messages)


def test_the_roster_is_decided_by_its_seed() -> None:
    assert the_roster(4) == the_roster(4)
    assert the_roster(4) != the_roster(5)


def test_every_topic_has_experts_and_partners_can_carry_what_their_experts_can() -> None:
    profiles = [message.body["profile"] for message in the_roster() if message.type == "expert.listed.v1"]
    assert {skill["topic"] for profile in profiles for skill in profile["skills"]} == set(TOPIC_WEIGHTS)
    capacities = {
        message.subject: message.body["capacity"] for message in the_roster() if message.type == "application.ruled.v1"
    }
    carried: Counter[str] = Counter()
    for profile in profiles:
        carried[profile["partner_id"]] += profile["load_limit"]
    assert capacities == carried


def test_nobody_in_the_roster_is_a_person() -> None:
    said = json.dumps([message.body for message in the_roster()])
    assert '"email"' not in said
    assert '"telephone"' not in said


def test_conflicts_of_interest_are_disclosed_and_only_bargaining_is_waived() -> None:
    messages = the_roster()
    disclosed = {m.subject: m.body["kind"] for m in messages if m.type == "conflict.disclosed.v1"}
    waived = {message.subject for message in messages if message.type == "conflict.waived.v1"}
    assert len(set(disclosed.values())) > 2
    assert waived
    assert {disclosed[conflict_id] for conflict_id in waived} == {"bargaining"}
