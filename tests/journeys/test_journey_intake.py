"""What intake answers: to the incomplete, the double, the malformed, and to those whose place it is not to speak."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from schemas import submissions as said
from schemas.body import LetterOfSupport, Submission
from schemas.engagements import EngagementConfirmed
from schemas.envelope import Envelope
from schemas.matches import MatchConfirmed
from schemas.receipts import SubmissionRefused, SubmissionTaken
from schemas.requests import InformationRequested, RequestAccepted, RequestDeclined
from schemas.submissions import Actor
from schemas.topics import REQUESTS
from schemas.vocabulary import ActorRole
from tests.journeys.island import OFFICE, days_from_now, settle
from tests.journeys.outside import SOURCE, Outside


async def test_an_agency_that_is_asked_for_information_supplies_it_and_is_accepted(outside: Outside) -> None:
    island = await settle(outside)
    case = await island.ask(executive_support=None)
    asked = await outside.hear(InformationRequested, case.request_id)
    assert [problem.field for problem in asked.missing] == ["executive_support"]
    assert outside.told(RequestAccepted, case.request_id) == []

    letter = LetterOfSupport(signed_on=days_from_now(-1), reference="L-2")
    await case.do(said.InformationSupplied, executive_support=letter)
    await outside.hear(RequestAccepted, case.request_id)
    await case.proposed()


async def test_a_second_request_on_the_same_topic_is_declined_and_told_which_is_open(outside: Outside) -> None:
    island = await settle(outside)
    first = await island.ask_and_be_accepted()
    second = await island.ask()
    declined = await outside.hear(RequestDeclined, second.request_id)
    (reason,) = declined.reasons
    assert reason.field == "terms.topics.0"
    assert first.request_id in reason.problem


async def test_the_same_submission_twice_has_one_effect(outside: Outside) -> None:
    island = await settle(outside)
    body = island.request()
    message_id = str(uuid4())
    await outside.say(body, message_id=message_id, times=2)
    await outside.say(body, message_id=message_id)
    await outside.rest()
    assert outside.story(REQUESTS.name, body.request_id) == ["request.accepted.v1"]
    receipts = [one.body for one in outside.heard if getattr(one.body, "submission_id", "") == message_id]
    assert [type(receipt) for receipt in receipts] == [SubmissionTaken]


async def test_a_request_id_that_is_taken_is_refused_to_another_submission(outside: Outside) -> None:
    island = await settle(outside)
    body = island.request()
    assert isinstance(await outside.say(body), SubmissionTaken)
    receipt = await outside.say(body)
    assert isinstance(receipt, SubmissionRefused)
    assert [problem.field for problem in receipt.problems] == ["request_id"]
    await outside.rest()
    assert outside.story(REQUESTS.name, body.request_id) == ["request.accepted.v1"]


MALFORMED: dict[str, tuple[dict[str, Any], set[str]]] = {
    "an ORI that is none": ({"ori": "Springfield"}, {"ori"}),
    "a field nobody knows": ({"colour": "blue"}, {"colour"}),
    "no actor": ({"actor": None}, {"actor"}),
    "dates the wrong way round and no topic": (
        {
            "terms": {
                "topics": [],
                "delivery_modes": ["policy_review"],
                "window": {"first": "2027-03-01", "last": "2027-02-01"},
            }
        },
        {"terms.topics", "terms.window"},
    ),
}


@pytest.mark.parametrize("fault", MALFORMED)
async def test_a_malformed_submission_gets_a_receipt_with_the_fields_at_fault(outside: Outside, fault: str) -> None:
    changes, fields = MALFORMED[fault]
    island = await settle(outside, experts=0)
    whole = island.request()
    body = json.dumps(whole.model_dump(mode="json") | changes).encode()
    envelope = Envelope(str(uuid4()), SOURCE, whole.TYPE, whole.request_id, datetime.now(UTC))
    await outside.send(envelope.headers(), whole.request_id, body)

    receipt = await outside.receipt(envelope.id)
    assert isinstance(receipt, SubmissionRefused)
    assert {problem.field for problem in receipt.problems} == fields
    await outside.rest()
    assert outside.story(REQUESTS.name, whole.request_id) == []
    # The same request, mended, is nobody's duplicate.
    assert isinstance(await outside.say(whole), SubmissionTaken)


async def test_a_submission_that_does_not_say_when_it_was_made_is_taken(outside: Outside) -> None:
    island = await settle(outside)
    body = island.request()
    envelope = Envelope(str(uuid4()), SOURCE, body.TYPE, body.request_id, datetime.now(UTC))
    timeless = [(name, value) for name, value in envelope.headers() if name != "ce_time"]
    await outside.send(timeless, body.request_id, body.model_dump_json().encode())
    assert isinstance(await outside.receipt(envelope.id), SubmissionTaken)
    await outside.hear(RequestAccepted, body.request_id)


async def test_an_answer_by_somebody_who_may_not_say_it_is_refused_and_changes_nothing(outside: Outside) -> None:
    island, stranger = await settle(outside), await settle(outside)
    contact = Actor(role=ActorRole.POINT_OF_CONTACT, id=island.ori)
    case = await island.ask()
    await case.proposed()
    about = {"request_id": case.request_id}

    async def refused(kind: type[Submission], actor: Actor, /, **fields: Any) -> None:
        receipt = await outside.say(kind.model_validate(about | {"actor": actor} | fields))
        assert isinstance(receipt, SubmissionRefused), f"{kind.TYPE} of {actor.role} {actor.id}"
        assert [problem.field for problem in receipt.problems] == ["actor"]

    await refused(said.ProposalAccepted, stranger.executive, match_id=case.match_id)
    await refused(said.ProposalAccepted, island.partner, match_id=case.match_id)
    await refused(said.OfferAccepted, island.executive, match_id=case.match_id)
    await refused(said.WithdrawalAsked, OFFICE)
    await refused(said.HoldAsked, island.executive, reason="We would rather wait.")
    # Another selected partner may speak, but its word counts for nothing in a match that is not its own.
    await case.do(said.ProposalAccepted, match_id=case.match_id)
    assert isinstance(
        await outside.say(said.OfferAccepted(**about, actor=stranger.partner, match_id=case.match_id)), SubmissionTaken
    )
    await outside.rest()
    assert outside.told(MatchConfirmed, case.request_id) == []

    plan = await case.planned()
    await refused(said.PlanApproved, contact, plan_version=plan.plan_version)
    await refused(said.PlanCleared, island.executive, plan_version=plan.plan_version)
    await case.do(said.PlanApproved, plan_version=plan.plan_version)
    await outside.rest()
    assert outside.told(EngagementConfirmed, case.request_id) == []
