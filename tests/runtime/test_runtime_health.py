"""Alive means making progress; waiting for a server in small steps is progress, and a halt is no stall."""

from time import monotonic

from services.runtime.health import STALLED_AFTER_SECONDS, Halted, Health


def test_a_loop_without_a_turn_for_too_long_is_stalled_until_its_next_turn() -> None:
    health = Health(assigned=True)
    health.beats["pump"] = monotonic() - STALLED_AFTER_SECONDS - 1
    health.beat("relay")
    assert health.stalled() == ["pump"]
    assert health.not_ready() == ["the pump makes no progress"]
    health.beat("pump")
    assert (health.stalled(), health.not_ready()) == ([], [])


def test_a_halted_loop_is_not_stalled_and_not_ready() -> None:
    health = Health(assigned=True)
    health.beats["pump"] = monotonic() - STALLED_AFTER_SECONDS - 1
    health.halt("pump", Halted("parking_limit", "See why."))
    assert health.stalled() == []
    health.database_away("nothing more is read from it")
    assert health.not_ready() == ["halted (parking_limit): See why."]


def test_an_obstacle_is_told_until_it_is_gone() -> None:
    health = Health(assigned=True)
    health.database_away("refused")
    health.kafka_away("silence")
    assert health.not_ready() == ["PostgreSQL does not answer: refused", "Kafka does not answer: silence"]
    health.database_here()
    health.kafka_here()
    assert health.not_ready() == []
