"""What the checker's books say of one request, whatever topic is read first."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.console.checker.lives import Life
from tests.console.console_world import (
    NOON,
    ORI,
    Fact,
    about,
    accepted,
    closed,
    confirmed,
    delivered,
    matched,
    planned,
    proposed,
    released,
    session,
)

HELD = about("R", "request.held.v1")
REOPENED = about("R", "request.reopened.v1")
NOT_FOUND: Fact = ("matches", "match.not_found.v1", {"request_id": "R", "reasons": []})


def a_life() -> list[list[Fact]]:
    """A request that is held, resumed, declined once by its expert, replanned, delivered, closed and reopened."""
    terms = accepted("R", ORI)[2]["terms"]
    first, second = session("R/s1.1", "E2", 1), session("R/s2.1", "E2", 5)
    return [
        [
            accepted("R", ORI),
            about("R", "request.held.v1"),
            about("R", "request.resumed.v1"),
            about("R", "session.reported.v1", session_id="R/s2.1"),
            about("R", "request.reopened.v1", terms=terms, reason="again"),
        ],
        [proposed("R", "E1"), released("R", "E1"), proposed("R", "E2", nth=2), matched("R", "E2", nth=2)],
        [
            planned("R", [first], nth=2),
            ("engagements", "engagement.replanned.v1", planned("R", [second], nth=2, version=2)[2]),
            confirmed("R", nth=2),
            delivered("R", nth=2),
            closed("R", nth=2),
        ],
    ]


@given(data=st.data())
def test_a_life_ends_the_same_whatever_topic_is_read_first(data: st.DataObject) -> None:
    topics = a_life()
    turns = data.draw(st.permutations([nth for nth, facts in enumerate(topics) for _ in facts]))
    rests = [iter(facts) for facts in topics]
    life = Life()
    for turn in turns:
        _, event_type, body = next(rests[turn])
        life.take(event_type, NOON, body)
    assert (life.step, life.live_match, life.live_sessions) == ("accepted", None, [])


@pytest.mark.parametrize(
    ("facts", "step"),
    [
        ([], "accepted"),
        ([proposed("R", "E1")], "proposed"),
        ([proposed("R", "E1"), released("R", "E1")], "accepted"),
        ([NOT_FOUND], "unfilled"),
        ([proposed("R", "E1"), released("R", "E1"), NOT_FOUND], "unfilled"),
        ([NOT_FOUND, proposed("R", "E1")], "proposed"),
        ([matched("R", "E1")], "matched"),
        ([matched("R", "E1"), planned("R", [session("s", "E1", 1)])], "planned"),
        ([matched("R", "E1"), planned("R", [session("s", "E1", 1)]), confirmed("R")], "confirmed"),
        ([matched("R", "E1"), planned("R", []), confirmed("R"), delivered("R")], "delivered"),
        ([matched("R", "E1"), planned("R", []), confirmed("R"), released("R", "E1")], "accepted"),
        ([matched("R", "E1"), planned("R", []), closed("R")], "closed"),
        ([matched("R", "E1"), HELD], "on_hold"),
        ([matched("R", "E1"), HELD, about("R", "request.resumed.v1")], "matched"),
        ([matched("R", "E1"), HELD, closed("R"), REOPENED], "accepted"),
        ([matched("R", "E1"), about("R", "request.withdrawn.v1")], "withdrawn"),
        ([matched("R", "E1"), about("R", "request.withdrawn.v1"), closed("R", "withdrawn")], "withdrawn"),
        ([about("R", "request.cancelled.v1")], "cancelled"),
    ],
)
def test_the_log_tells_where_a_request_stands(facts: list[Fact], step: str) -> None:
    life = Life()
    for _, event_type, body in [accepted("R", ORI), *facts]:
        life.take(event_type, NOON, body)
    assert life.step == step


def test_the_time_of_an_expert_is_taken_until_the_session_is_reported_or_cancelled_or_moved() -> None:
    life = Life()
    sessions = [session(f"s{nth}", "E1", nth) for nth in (1, 2, 3)]
    for _, event_type, body in [accepted("R", ORI), matched("R", "E1"), planned("R", sessions), confirmed("R")]:
        life.take(event_type, NOON, body)
    life.take("session.reported.v1", NOON, {"request_id": "R", "session_id": "s1"})
    life.take("session.cancelled.v1", NOON, {"request_id": "R", "session_id": "s2", "reason": "ill"})
    life.take("session.moved.v1", NOON, {"request_id": "R", "session": session("s3", "E1", 8), "reason": "snow"})
    (left,) = life.live_sessions
    assert (left.session_id, left.start) == ("s3", datetime(2027, 1, 9, tzinfo=UTC))
