"""A story reads in the order of causes, even where clocks tie or differ."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from schemas.vocabulary import RequestId
from services.reporting.decisions.story import Line, in_order
from tests.reporting.lives import BEGIN, Happening, Life, lives

SEEDS = st.integers(0, 10_000)


def lines(events: Sequence[Happening]) -> list[Line]:
    return [
        Line(
            event.topic,
            RequestId(event.envelope.subject),
            event.envelope.sequence or 0,
            event.envelope.id,
            event.envelope.type,
            event.envelope.time,
            event.data.decode(),
        )
        for event in events
    ]


def life(seed: int) -> Life:
    return lives(1, seed, most_actions=40)[0]


@given(SEEDS, st.randoms())
def test_a_story_is_told_as_it_happened_where_causes_and_effects_share_a_time(seed: int, random: Random) -> None:
    told = lines(life(seed).events)
    shuffled = random.sample(told, len(told))
    assert in_order(shuffled) == told


@given(SEEDS, st.randoms())
def test_clocks_that_differ_never_turn_the_order_within_a_topic(seed: int, random: Random) -> None:
    told = [
        replace(line, time=line.time + timedelta(seconds=random.randint(-300_000, 300_000)))
        for line in lines(life(seed).events)
    ]
    ordered = in_order(told)
    assert sorted(ordered, key=lambda line: line.id) == sorted(told, key=lambda line: line.id)
    for topic in {line.topic for line in told}:
        sequences = [line.sequence for line in ordered if line.topic == topic]
        assert sequences == sorted(sequences)


def test_an_event_of_a_newer_release_is_told_after_what_is_known_at_the_same_moment() -> None:
    request_id = RequestId("R-1")
    known = Line("requests", request_id, 1, "1", "request.accepted.v1", BEGIN, "{}")
    unknown = Line("matches", request_id, 1, "2", "match.dreamt_up.v1", BEGIN, "{}")
    assert in_order([unknown, known]) == [known, unknown]
