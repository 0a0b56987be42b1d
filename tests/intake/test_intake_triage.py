"""Which requests the programme takes on, and everything that stands in the way, named at once."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import requests
from schemas import submissions as said
from schemas.vocabulary import AgencyType, DateWindow, Ori, TopicCode
from services.intake.decisions.request import Step
from services.intake.decisions.topics import OfferedTopic
from tests.intake.intake_world import NOW, ORI, TRIBAL, World, agency, contact, kinds, say, submission, terms, topics

ELIGIBLE = [kind for kind in AgencyType if kind not in (AgencyType.FEDERAL, AgencyType.UNKNOWN, AgencyType.TRIBAL)]
LETTER = {"signed_on": date(2026, 2, 1), "reference": "L-1"}


def fields(world: World) -> list[str]:
    fact = world.said[-1]
    match fact:
        case requests.InformationRequested():
            return [problem.field for problem in fact.missing]
        case requests.RequestDeclined() | requests.RequestReferredOut():
            return [problem.field for problem in fact.reasons]
        case _:
            return []


@pytest.mark.parametrize("kind", ELIGIBLE)
def test_a_complete_request_of_an_eligible_agency_is_accepted(kind: AgencyType) -> None:
    world = World(agency(agency_type=kind))
    world.hear(submission())
    assert kinds(world.said) == ["request.accepted.v1"]
    assert world.was_taken()
    assert world.request.step is Step.ACCEPTED


def test_an_accepted_request_says_what_was_asked_for_and_who_asks() -> None:
    world = World()
    asked = submission(host_facilities="A range", public=True)
    world.hear(asked)
    fact = world.said[0]
    assert isinstance(fact, requests.RequestAccepted)
    assert (fact.terms, fact.sensitive, fact.public) == (asked.terms, asked.sensitive, True)
    assert (fact.agency.ori, fact.agency.time_zone, fact.submitted_at) == (ORI, "America/New_York", NOW)


def test_intake_keeps_contacts_and_narrative_only_until_it_has_decided() -> None:
    world = World()
    parts = submission().sensitive.model_dump() | {"problem": "in our own words"}
    world.hear(submission(executive_support=None, sensitive=parts))
    assert world.request.sensitive.problem == "in our own words"
    decided = World()
    decided.hear(submission(sensitive=parts))
    assert decided.request.sensitive.problem is None
    assert decided.request.sensitive.executive is None


def test_an_unknown_ori_is_declined_and_told_what_an_ori_is() -> None:
    world = World()
    world.hear(submission(ori="ZZ0000000"))
    fact = world.said[0]
    assert isinstance(fact, requests.RequestDeclined)
    assert fact.agency is None
    assert "FBI" in fact.reasons[0].problem
    assert "programme office" in fact.reasons[0].problem


def test_a_federal_agency_is_referred_to_its_own_department() -> None:
    world = World(agency(agency_type=AgencyType.FEDERAL))
    world.hear(submission())
    fact = world.said[0]
    assert isinstance(fact, requests.RequestReferredOut)
    assert "department" in fact.refer_to


def test_an_agency_of_unknown_type_waits_for_a_ruling() -> None:
    world = World(agency(agency_type=AgencyType.UNKNOWN))
    world.hear(submission())
    assert kinds(world.said) == ["request.information_requested.v1"]
    assert world.request.step is Step.AWAITING_RULING
    assert world.request.ruling_clock is not None


def test_a_ruling_is_not_awaited_before_the_agency_has_answered() -> None:
    world = World(agency(agency_type=AgencyType.UNKNOWN))
    world.hear(submission(executive_support=None))
    assert world.request.step is Step.NEEDS_INFORMATION
    assert world.request.ruling_clock is None
    assert set(fields(world)) == {"ori", "executive_support"}


def test_a_tribal_agency_needs_the_support_of_its_governing_body() -> None:
    world = World(agency(TRIBAL, AgencyType.TRIBAL))
    world.hear(submission(ori=TRIBAL))
    assert fields(world) == ["governing_body_support"]
    supported = World(agency(TRIBAL, AgencyType.TRIBAL))
    supported.hear(submission(ori=TRIBAL, governing_body_support=LETTER))
    assert kinds(supported.said) == ["request.accepted.v1"]


def test_a_topic_never_heard_of_is_declined_with_the_list_of_offered_ones() -> None:
    world = World(offered=topics("training", "tribal"))
    world.hear(submission(terms=terms(topics=["juggling"])))
    fact = world.said[0]
    assert isinstance(fact, requests.RequestDeclined)
    assert "training, tribal" in fact.reasons[0].problem


@pytest.mark.parametrize(
    ("received", "expected"),
    [
        (datetime(2026, 3, 11, 3, 59, tzinfo=UTC), "request.accepted.v1"),
        (datetime(2026, 3, 11, 4, 0, tzinfo=UTC), "request.referred_out.v1"),
    ],
)
def test_a_topic_ends_with_its_last_day_on_the_agencys_calendar(received: datetime, expected: str) -> None:
    ending = OfferedTopic(TopicCode("training"), date(2017, 10, 1), date(2026, 3, 10), "the State academy")
    world = World(offered={ending.code: ending})
    world.hear(submission(terms=terms(topics=["training"])), at=received)  # New York is at UTC-4
    assert kinds(world.said) == [expected]


def test_a_topic_not_offered_yet_or_ended_without_a_successor_is_declined() -> None:
    later = OfferedTopic(TopicCode("training"), date(2027, 1, 1))
    ended = OfferedTopic(TopicCode("tribal"), date(2017, 10, 1), date(2020, 1, 1))
    world = World(offered={later.code: later, ended.code: ended})
    world.hear(submission(terms=terms(topics=["training", "tribal"])))
    assert kinds(world.said) == ["request.declined.v1"]
    assert fields(world) == ["terms.topics.0", "terms.topics.1"]


def test_a_second_open_request_on_a_topic_is_declined_and_the_first_is_named() -> None:
    world = World()
    world.hear(submission())
    world.hear(submission(request_id="R-2", terms=terms(topics=["training", "active-shooter"])))
    fact = world.said[-1]
    assert isinstance(fact, requests.RequestDeclined)
    assert [problem.field for problem in fact.reasons] == ["terms.topics.1"]
    assert "R-1" in fact.reasons[0].problem


def test_another_topic_or_another_agency_is_no_duplicate() -> None:
    other = Ori("OH0250200")
    world = World(agency(), agency(other))
    world.hear(submission())
    world.hear(submission(request_id="R-2", terms=terms(topics=["training"])))
    world.hear(submission(request_id="R-3", ori=other))
    assert kinds(world.said) == ["request.accepted.v1"] * 3


def test_a_topic_named_twice_in_a_request_counts_once() -> None:
    world = World()
    world.hear(submission(terms=terms(topics=["training", "training"])))
    assert world.request.terms.topics == ("training",)


def test_an_unknown_participating_agency_is_asked_about() -> None:
    other = Ori("OH0250200")
    world = World(agency(), agency(other))
    world.hear(submission(participating=[other, "ZZ0000000", ORI]))
    assert fields(world) == ["participating.1"]


def test_a_window_may_be_three_years_long_and_no_longer() -> None:
    first = date(2028, 2, 29)
    for last, expected in (
        (date(2031, 3, 1), "request.accepted.v1"),
        (date(2031, 3, 2), "request.information_requested.v1"),
    ):
        world = World()
        world.hear(submission(terms=terms(window={"first": first, "last": last})))
        assert kinds(world.said) == [expected]


FAULTS = {
    "unregistered": ("decline", "ori"),
    "federal": ("refer", "ori"),
    "untyped": ("rule", "ori"),
    "topic": ("decline", "terms.topics.0"),
    "past": ("decline", "terms.window"),
    "letter": ("ask", "executive_support"),
    "future_letter": ("ask", "executive_support.signed_on"),
    "participant": ("ask", "participating.0"),
    "executive": ("ask", "sensitive.executive"),
    "contact": ("ask", "sensitive.point_of_contact"),
}
"""What can be wrong with a request, what that leads to by itself, and the field that is named."""


@given(st.sets(st.sampled_from(sorted(FAULTS))))
def test_all_problems_are_named_at_once_and_the_gravest_decides(faults: set[str]) -> None:
    for stronger, weaker in (
        ("unregistered", {"federal", "untyped"}),
        ("federal", {"untyped"}),
        ("letter", {"future_letter"}),
    ):
        if stronger in faults:
            faults = faults - weaker
    kind = (
        AgencyType.FEDERAL if "federal" in faults else AgencyType.UNKNOWN if "untyped" in faults else AgencyType.CAMPUS
    )
    world = World(agency(Ori("OH0000001")) if "unregistered" in faults else agency(agency_type=kind))
    window = {"first": date(2026, 1, 1), "last": date(2026, 3, 3)} if "past" in faults else terms()["window"]
    signed_on = date(2027, 1, 1) if "future_letter" in faults else date(2026, 1, 1)
    contacts = submission().sensitive.model_dump()
    if "executive" in faults:
        contacts["executive"] = None
    if "contact" in faults:
        contacts["point_of_contact"] = None
    world.hear(
        submission(
            terms=terms(topics=["juggling"] if "topic" in faults else ["training"], window=window),
            executive_support=None if "letter" in faults else {"signed_on": signed_on, "reference": "L"},
            participating=["ZZ0000000"] if "participant" in faults else [],
            sensitive=contacts,
        )
    )
    leads_to = {FAULTS[fault][0] for fault in faults}
    gravest = next((one for one in ("decline", "refer", "ask", "rule") if one in leads_to), "accept")
    expected = {
        "decline": ("request.declined.v1", Step.DECLINED),
        "refer": ("request.referred_out.v1", Step.REFERRED_OUT),
        "ask": ("request.information_requested.v1", Step.NEEDS_INFORMATION),
        "rule": ("request.information_requested.v1", Step.AWAITING_RULING),
        "accept": ("request.accepted.v1", Step.ACCEPTED),
    }[gravest]
    assert (world.said[0].TYPE, world.request.step) == expected
    assert sorted(fields(world)) == sorted(FAULTS[fault][1] for fault in faults)


FIRST = date(2026, 5, 1)
spans = st.tuples(st.integers(-5, 25), st.integers(0, 12)).map(
    lambda span: DateWindow(FIRST + timedelta(span[0]), FIRST + timedelta(span[0] + span[1]))
)


@given(st.integers(0, 20), st.lists(spans, max_size=6))
def test_blackouts_are_asked_about_exactly_when_no_day_is_left(length: int, blackouts: list[DateWindow]) -> None:
    window = DateWindow(FIRST, FIRST + timedelta(length))
    left = [
        day for day in (FIRST + timedelta(n) for n in range(length + 1)) if not any(day in one for one in blackouts)
    ]
    world = World()
    world.hear(submission(terms=terms(window=window, blackouts=blackouts)))
    assert fields(world) == ([] if left else ["terms.blackouts"])


def test_information_that_is_supplied_is_weighed_again_until_nothing_is_missing() -> None:
    world = World()
    world.hear(submission(executive_support=None, sensitive={"executive": {"office": "Chief"}, "goals": "fewer"}))
    assert set(fields(world)) == {"executive_support", "sensitive.point_of_contact"}
    world.hear(say(said.InformationSupplied, contact(), sensitive={"point_of_contact": {"office": "Captain"}}))
    assert fields(world) == ["executive_support"]
    world.hear(say(said.InformationSupplied, contact(), executive_support=LETTER, changes={"urgency": "soon"}))
    fact = world.said[-1]
    assert isinstance(fact, requests.RequestAccepted)
    assert fact.terms.urgency == "soon"
    contacts = (fact.sensitive.executive, fact.sensitive.point_of_contact)
    assert [one.office for one in contacts if one] == ["Chief", "Captain"]
    assert fact.sensitive.goals == "fewer"


def test_a_request_that_waits_keeps_its_topics_from_others_and_one_that_was_declined_does_not() -> None:
    world = World()
    world.hear(submission(terms=terms(topics=["juggling", "training"])))
    assert world.known.agencies[ORI].open_topics == {}
    world.hear(submission(request_id="R-2", executive_support=None))
    assert world.known.agencies[ORI].open_topics == {"active-shooter": "R-2"}
    world.hear(submission(request_id="R-3"))
    assert kinds(world.said) == ["request.declined.v1", "request.information_requested.v1", "request.declined.v1"]


SHARED = terms(topics=["shared-services"])
WITH_SHARED = topics("active-shooter", "shared-services")


def test_shared_services_are_asked_for_by_several_agencies_together() -> None:
    other = Ori("OH0250200")
    world = World(agency(), agency(other), offered=WITH_SHARED)
    world.hear(submission(terms=SHARED, participating=[ORI]))
    assert (kinds(world.said), fields(world)) == (["request.information_requested.v1"], ["participating"])
    world.hear(say(said.InformationSupplied, contact(), participating=["ZZ0000000"]))
    assert fields(world) == ["participating.0"]
    world.hear(say(said.InformationSupplied, contact(), participating=[other]))
    fact = world.said[-1]
    assert isinstance(fact, requests.RequestAccepted)
    assert fact.participating == (other,)


def test_participants_stay_as_they_were_where_information_supplied_names_none() -> None:
    other = Ori("OH0250200")
    world = World(agency(), agency(other), offered=WITH_SHARED)
    world.hear(submission(terms=SHARED, participating=[other], executive_support=None))
    world.hear(say(said.InformationSupplied, contact(), executive_support=LETTER))
    assert world.request.participating == (other,)
    assert world.request.step is Step.ACCEPTED


def test_a_request_of_one_agency_is_not_amended_to_shared_services() -> None:
    world = World(offered=WITH_SHARED)
    world.hear(submission())
    receipt = world.refusal(say(said.AmendmentSubmitted, contact(), changes={"topics": ["shared-services"]}))
    assert [problem.field for problem in receipt.problems] == ["changes.topics"]
