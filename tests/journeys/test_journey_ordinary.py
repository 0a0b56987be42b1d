"""An ordinary request from its submission to its close, followed event by event."""

import json

from schemas import submissions as said
from schemas.matches import MatchProposed
from schemas.requests import RequestReopened
from schemas.topics import ENGAGEMENTS, MATCHES, REQUESTS
from schemas.vocabulary import Outcome
from services.console.stack import fetch
from tests.journeys.island import settle
from tests.journeys.outside import Outside

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


async def test_an_ordinary_request_goes_from_submitted_to_closed(outside: Outside) -> None:
    island = await settle(outside)
    case = await island.ask_and_be_accepted()
    proposal = await case.proposed()
    assert [expert.expert_id for expert in proposal.experts] == island.experts
    assert proposal.partner_id == island.partner_id
    plan = await case.planned()
    assert {expert for session in plan.sessions for expert in session.expert_ids} == set(island.experts)
    await case.approve(plan)
    closed = await case.deliver(plan)

    assert closed.outcome is Outcome.COMPLETED
    await outside.rest()
    assert outside.story(MATCHES.name, case.request_id) == ["match.proposed.v1", "match.confirmed.v1"]
    assert outside.story(ENGAGEMENTS.name, case.request_id) == [
        "engagement.planned.v1",
        "engagement.confirmed.v1",
        "engagement.delivered.v1",
        "engagement.closed.v1",
    ]
    assert outside.story(REQUESTS.name, case.request_id) == [
        "request.accepted.v1",
        "proposal.accepted.v1",
        "offer.accepted.v1",
        "plan.approved.v1",
        "plan.cleared.v1",
        *["session.reported.v1"] * len(plan.sessions),
        "evaluation.returned.v1",
    ]
    for topic in (REQUESTS.name, MATCHES.name, ENGAGEMENTS.name):
        mine = [one.envelope for one in outside.heard if one.topic == topic and one.body.subject == case.request_id]
        assert [envelope.sequence for envelope in mine] == list(range(1, len(mine) + 1)), topic
    status, page = fetch(outside.stack.process("reporting"), f"/api/requests/{case.request_id}")
    assert (status, json.loads(page)["request"]["step"]) == (200, "closed")


async def test_a_trace_goes_from_the_submission_through_to_the_confirmed_engagement(outside: Outside) -> None:
    island = await settle(outside)
    outside.traceparent = f"00-{TRACE}-00f067aa0ba902b7-01"
    case = await island.ask()
    await case.approve(await case.planned())

    facts = [one.envelope for one in outside.heard if one.body.subject == case.request_id]
    assert {envelope.type for envelope in facts} >= {
        "request.accepted.v1",
        "match.proposed.v1",
        "match.confirmed.v1",
        "engagement.planned.v1",
        "engagement.confirmed.v1",
    }
    spans = [envelope.traceparent.split("-") for envelope in facts if envelope.traceparent is not None]
    assert len(spans) == len(facts), "every fact carries a trace"
    assert {trace for _, trace, _, _ in spans} == {TRACE}
    assert len({span for _, _, span, _ in spans}) == len(facts), "every fact is a span of its own"


async def test_a_closed_request_that_is_reopened_is_matched_anew(outside: Outside) -> None:
    island = await settle(outside)
    case = await island.ask()
    plan = await case.planned()
    await case.approve(plan)
    await case.deliver(plan)

    await case.do(said.ReopeningAsked, reason="Half of the shift could not attend.")
    await outside.hear(RequestReopened, case.request_id)
    second = case.with_next_match()
    again = await second.planned()
    assert again.plan_version == plan.plan_version + 1
    await second.approve(again)
    assert [one.match_id for one in outside.told(MatchProposed, case.request_id)] == [case.match_id, second.match_id]
