"""The life of a request: what is heard at each step, and that news may come in any order between topics."""

from datetime import datetime, timedelta
from itertools import permutations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas import requests
from schemas import submissions as said
from schemas.body import Body
from schemas.vocabulary import AgencyType, Outcome
from services.intake.decisions.request import Step
from services.runtime.service import FactBody
from tests.intake.intake_world import (
    FIELDS,
    NOW,
    ORI,
    World,
    agency,
    closed,
    contact,
    days,
    executive,
    kinds,
    office,
    say,
    submission,
    terms,
)

WITHDRAWAL = say(said.WithdrawalAsked, contact(), reason=None)
HOLD = say(said.HoldAsked, office(), reason="a pending election")
RESUME = say(said.HoldAsked, office(), on_hold=False, reason="over")
CANCEL = say(said.RequestRuled, office(), ruling="cancel", reason="no funds")
REOPENING = say(said.ReopeningAsked, executive(), reason="the problem came back")
REPORT = say(said.SessionReported, contact(), session_id="R-1/s1.1", held_on="2026-05-05", attended_in_person=12)
EVALUATION = say(said.EvaluationReturned, contact(), goals_met=True, satisfaction=4)
PROPOSAL = say(said.ProposalAccepted, contact(), match_id="R-1/m1")


def ruling(word: str, refer_to: str | None = None) -> Body:
    return say(said.RequestRuled, office(), ruling=word, refer_to=refer_to, reason="ruled")


def at_step(step: Step) -> World:
    """A world whose request has come to this step."""
    kind = AgencyType.UNKNOWN if step is Step.AWAITING_RULING else AgencyType.MUNICIPAL
    world = World(agency(agency_type=kind))
    match step:
        case Step.NEEDS_INFORMATION:
            world.hear(submission(executive_support=None))
        case Step.DECLINED:
            world.hear(submission(terms=terms(topics=["juggling"])))
        case Step.REFERRED_OUT:
            world.hear(submission(executive_support=None))
            world.hear(ruling("refer_out", "the State academy"))
        case _:
            world.hear(submission())
    match step:
        case Step.ON_HOLD:
            world.hear(HOLD)
        case Step.WITHDRAWN:
            world.hear(WITHDRAWAL)
        case Step.CANCELLED:
            world.hear(CANCEL)
        case Step.CLOSED:
            world.hear(closed())
        case _:
            pass
    assert world.request.step is step
    world.said.clear()
    return world


STORED = [step for step in Step if step is not Step.IN_TRIAGE]
OPEN = [Step.NEEDS_INFORMATION, Step.AWAITING_RULING, Step.ACCEPTED, Step.ON_HOLD]
OVER = [Step.DECLINED, Step.REFERRED_OUT, Step.WITHDRAWN, Step.CANCELLED]


@pytest.mark.parametrize("step", STORED)
def test_a_withdrawal_is_heard_at_every_step_and_once(step: Step) -> None:
    world = at_step(step)
    world.hear(WITHDRAWAL)
    assert world.was_taken()
    assert kinds(world.said) == ([] if step in OVER else ["request.withdrawn.v1"])
    assert world.request.step is (step if step in OVER else Step.WITHDRAWN)
    world.hear(WITHDRAWAL)
    assert world.was_taken()
    assert len(world.said) == (0 if step in OVER else 1)


@pytest.mark.parametrize("step", STORED)
def test_an_agency_may_ask_again_on_a_topic_exactly_when_its_request_is_not_open(step: Step) -> None:
    world = at_step(step)
    world.hear(submission(request_id="R-2"))
    fact = world.said[-1]
    assert isinstance(fact, requests.RequestDeclined) == (step in OPEN)
    assert isinstance(fact, requests.RequestAccepted) == (step not in OPEN)


LATER = [
    kind for kind in said.BODIES.values() if issubclass(kind, said.OnRequest) and kind is not said.RequestSubmitted
]


@pytest.mark.parametrize("kind", LATER)
def test_nothing_can_be_said_of_a_request_nobody_knows(kind: type[said.OnRequest]) -> None:
    receipt = World().refusal(say(kind, executive(), **FIELDS.get(kind, {})))
    assert "R-1" in receipt.reason


@pytest.mark.parametrize("step", STORED)
def test_the_id_of_a_request_is_taken_for_ever(step: Step) -> None:
    receipt = at_step(step).refusal(submission(terms=terms(topics=["training"])))
    assert [problem.field for problem in receipt.problems] == ["request_id"]


@pytest.mark.parametrize("step", STORED)
def test_answers_are_heard_while_a_request_is_active_and_not_otherwise(step: Step) -> None:
    answers = [
        PROPOSAL,
        say(said.ProposalDeclined, contact(), match_id="R-1/m1", reason="too far"),
        say(said.PlanApproved, executive(), plan_version=2),
        say(said.PlanChangesAsked, contact(), plan_version=2, reason="later"),
        say(said.PlanCleared, office(), plan_version=2),
    ]
    for answer in answers:
        world = at_step(step)
        if step in (Step.ACCEPTED, Step.ON_HOLD):
            (fact,) = world.hear(answer)
            common = fact.model_dump_json(), answer.model_dump_json(exclude={"actor"})
            assert common[0] == common[1]
        else:
            world.refusal(answer)


@pytest.mark.parametrize("step", STORED)
def test_reports_are_heard_after_the_end_and_passed_on_unless_it_was_withdrawn_or_cancelled(step: Step) -> None:
    for report in (REPORT, EVALUATION):
        world = at_step(step)
        if step in (Step.ACCEPTED, Step.ON_HOLD, Step.CLOSED):
            assert kinds(world.hear(report)) == [report.TYPE]
        elif step in (Step.WITHDRAWN, Step.CANCELLED):
            assert world.hear(report) == []
            assert world.was_taken()
        else:
            world.refusal(report)


def test_a_hold_is_put_on_and_taken_off_once() -> None:
    world = at_step(Step.ACCEPTED)
    for body in (HOLD, HOLD, RESUME, RESUME):
        world.hear(body)
        assert world.was_taken()
    assert kinds(world.said) == ["request.held.v1", "request.resumed.v1"]
    assert world.request.step is Step.ACCEPTED


@pytest.mark.parametrize("step", [step for step in STORED if step not in (Step.ACCEPTED, Step.ON_HOLD)])
def test_only_an_accepted_request_is_put_on_hold(step: Step) -> None:
    at_step(step).refusal(HOLD)


@pytest.mark.parametrize("step", [Step.NEEDS_INFORMATION, Step.AWAITING_RULING])
@pytest.mark.parametrize(
    ("word", "fact", "ends"),
    [
        ("accept", "request.accepted.v1", Step.ACCEPTED),
        ("decline", "request.declined.v1", Step.DECLINED),
        ("refer_out", "request.referred_out.v1", Step.REFERRED_OUT),
        ("cancel", "request.cancelled.v1", Step.CANCELLED),
    ],
)
def test_the_programme_office_rules_once_on_what_intake_could_not_decide(
    step: Step, word: str, fact: str, ends: Step
) -> None:
    world = at_step(step)
    body = ruling(word, "the State academy" if word == "refer_out" else None)
    world.hear(body)
    assert (kinds(world.said), world.request.step) == ([fact], ends)
    assert world.request.ruling_clock is None
    world.hear(body)
    assert world.was_taken()
    assert len(world.said) == 1


def test_a_referral_must_name_who_helps() -> None:
    receipt = at_step(Step.AWAITING_RULING).refusal(ruling("refer_out"))
    assert [problem.field for problem in receipt.problems] == ["refer_to"]


@pytest.mark.parametrize("step", [Step.ACCEPTED, Step.ON_HOLD])
@pytest.mark.parametrize("word", ["decline", "refer_out"])
def test_a_request_that_was_accepted_is_not_declined_afterwards(step: Step, word: str) -> None:
    at_step(step).refusal(ruling(word, "somebody"))


def test_a_ruling_that_accepts_publishes_what_the_agency_had_sent() -> None:
    world = World()
    narrative = {"problem": "too many guns", "executive": {"office": "Chief"}}
    world.hear(submission(executive_support=None, sensitive=narrative))
    (fact,) = world.hear(ruling("accept"))
    assert isinstance(fact, requests.RequestAccepted)
    assert fact.sensitive.problem == "too many guns"


# Amendments


def test_an_amendment_gives_the_terms_that_hold_from_now_on() -> None:
    world = at_step(Step.ACCEPTED)
    (fact,) = world.hear(say(said.AmendmentSubmitted, contact(), changes={"topics": ["training"], "urgency": "soon"}))
    assert isinstance(fact, requests.RequestAmended)
    assert (fact.terms.topics, fact.terms.urgency) == (("training",), "soon")
    assert fact.terms.window == submission().terms.window
    assert world.known.agencies[ORI].open_topics == {"training": "R-1"}


def test_an_amendment_that_changes_nothing_is_harmless() -> None:
    world = at_step(Step.ACCEPTED)
    assert world.hear(say(said.AmendmentSubmitted, contact(), changes={"topics": ["active-shooter"]})) == []
    assert world.was_taken()


def test_an_amendment_that_cannot_be_is_refused_with_every_field_at_fault() -> None:
    world = at_step(Step.ACCEPTED)
    world.hear(submission(request_id="R-2", terms=terms(topics=["training"])))
    changes = {
        "topics": ["training", "juggling"],
        "window": {"first": "2026-01-01", "last": "2026-02-01"},
        "blackouts": [{"first": "2025-12-01", "last": "2026-03-01"}],
    }
    receipt = world.refusal(say(said.AmendmentSubmitted, contact(), changes=changes))
    assert {problem.field for problem in receipt.problems} == {
        "changes.topics.0",
        "changes.topics.1",
        "changes.window",
        "changes.blackouts",
    }


def test_a_topic_that_ended_after_it_was_accepted_is_not_held_against_an_amendment() -> None:
    world = at_step(Step.ACCEPTED)
    world.known.topics.clear()
    assert kinds(world.hear(say(said.AmendmentSubmitted, contact(), changes={"urgency": "critical"})))


def test_an_amendment_of_a_request_that_waits_is_weighed_with_it() -> None:
    world = at_step(Step.NEEDS_INFORMATION)
    (fact,) = world.hear(say(said.AmendmentSubmitted, contact(), changes={"topics": ["juggling"]}))
    assert isinstance(fact, requests.RequestDeclined)


@pytest.mark.parametrize("step", [step for step in STORED if step not in OPEN])
def test_what_is_over_is_neither_amended_nor_supplemented(step: Step) -> None:
    at_step(step).refusal(say(said.AmendmentSubmitted, contact(), changes={"urgency": "soon"}))
    at_step(step).refusal(say(said.InformationSupplied, contact()))


# Closing and reopening: news of two topics, in any order


def test_a_completed_request_is_reopened_with_its_terms() -> None:
    world = at_step(Step.CLOSED)
    (fact,) = world.hear(REOPENING, NOW + days(30))
    assert isinstance(fact, requests.RequestReopened)
    assert (fact.terms, fact.reason) == (submission().terms, "the problem came back")
    assert world.request.step is Step.ACCEPTED


@pytest.mark.parametrize("step", [*OVER, Step.NEEDS_INFORMATION, Step.AWAITING_RULING])
def test_only_a_completed_request_is_reopened(step: Step) -> None:
    at_step(step).refusal(REOPENING, NOW + days(1))


@pytest.mark.parametrize("step", [Step.NEEDS_INFORMATION, Step.AWAITING_RULING])
def test_whoever_wants_to_reopen_what_is_still_open_is_told_so_and_not_to_submit_it_anew(step: Step) -> None:
    assert "still open" in at_step(step).refusal(REOPENING).reason


def test_a_request_cannot_be_reopened_later_than_180_days_after_its_closing() -> None:
    assert at_step(Step.CLOSED).hear(REOPENING, NOW + timedelta(days=180))
    at_step(Step.CLOSED).refusal(REOPENING, NOW + timedelta(days=180, seconds=1))


def test_a_request_cannot_be_reopened_while_another_on_its_topic_is_open() -> None:
    world = at_step(Step.CLOSED)
    world.hear(submission(request_id="R-2"))
    receipt = world.refusal(REOPENING, NOW + days(1))
    assert "R-2" in receipt.problems[0].problem


@pytest.mark.parametrize("outcome", [Outcome.WITHDRAWN, Outcome.CANCELLED])
def test_scheduling_says_nothing_new_when_it_closes_what_was_withdrawn_or_cancelled(outcome: Outcome) -> None:
    world = at_step(Step.ACCEPTED)
    assert world.hear(closed(outcome)) == []
    assert world.request.step is Step.ACCEPTED


def test_news_of_an_engagement_whose_request_nobody_knows_is_harmless() -> None:
    world = World()
    assert world.hear(closed()) == []
    assert world.receipts == []


Moment = tuple[Body, datetime]


def end(order: list[Moment]) -> tuple[Step, set[str], list[str]]:
    """Where a request ends when its news comes in this order, and which facts were published."""
    world = at_step(Step.ACCEPTED)
    facts: list[FactBody] = []
    for body, moment in order:
        facts.extend(world.hear(body, moment))
    topics = world.known.agencies[ORI].open_topics
    return world.request.step, set(kinds(facts)), sorted(topics)


@pytest.mark.parametrize("asked", [WITHDRAWAL, CANCEL, REPORT, EVALUATION], ids=lambda body: body.TYPE)
@pytest.mark.parametrize("after_closing", [True, False])
def test_the_closing_may_be_heard_before_or_after_what_the_agency_or_office_says(
    asked: Body, after_closing: bool
) -> None:
    news: list[Moment] = [(closed(), NOW + days(2)), (asked, NOW + days(3 if after_closing else 1))]
    assert end(news) == end(news[::-1])


@pytest.mark.parametrize("asked_on", [1, 3, 181, 182.5], ids=lambda day: f"day {day}")
def test_a_wish_to_reopen_may_be_heard_before_the_closing_it_follows(asked_on: float) -> None:
    news: list[Moment] = [(closed(), NOW + days(2)), (REOPENING, NOW + timedelta(days=asked_on))]
    assert end(news) == end(news[::-1])
    reopened = 2 <= asked_on <= 182
    assert end(news)[0] is (Step.ACCEPTED if reopened else Step.CLOSED)


@example([REOPENING, HOLD])
@example([REOPENING, HOLD, REOPENING])
@given(st.lists(st.sampled_from([WITHDRAWAL, CANCEL, HOLD, RESUME, REOPENING, PROPOSAL]), max_size=5))
def test_wherever_the_closing_falls_among_submissions_the_request_ends_in_the_same_step(bodies: list[Body]) -> None:
    spoken: list[Moment] = [(body, NOW + timedelta(hours=n + 1)) for n, body in enumerate(bodies)]
    closing = (closed(), NOW + timedelta(minutes=30))  # happened before all of them, heard at any time
    ends = {end([*spoken[:n], closing, *spoken[n:]])[0] for n in range(len(spoken) + 1)}
    assert len(ends) == 1


def test_a_hold_put_on_between_the_wish_and_the_late_news_of_the_closing_is_published_again_after_the_reopening() -> (
    None
):
    world = at_step(Step.ACCEPTED)
    for body, moment in ((REOPENING, NOW + days(1)), (HOLD, NOW + days(2)), (closed(), NOW)):
        world.hear(body, moment)
    assert kinds(world.said) == ["request.held.v1", "request.reopened.v1", "request.held.v1"]
    assert world.request.step is Step.ON_HOLD


def test_every_order_of_two_withdrawals_a_cancellation_and_a_closing_leaves_no_topic_taken() -> None:
    for order in permutations([(WITHDRAWAL, NOW), (WITHDRAWAL, NOW), (CANCEL, NOW), (closed(), NOW)]):
        step, _, topics = end(list(order))
        assert step in (Step.WITHDRAWN, Step.CANCELLED)
        assert topics == []
