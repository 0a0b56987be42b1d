"""Choices are repeated as they were recorded, and made fewer without losing what they show."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tests.schedules.choices import Choices, simplest

recordings = st.lists(st.integers(0, 4), max_size=30)


@given(st.integers(0, 1000), st.lists(st.integers(1, 6), max_size=40))
def test_a_recording_repeats_what_a_seed_drew(seed: int, alternatives: list[int]) -> None:
    drawn = Choices(seed)
    first = [drawn.among(number) for number in alternatives]
    again = Choices(recorded=drawn.taken)
    assert [again.among(number) for number in alternatives] == first


@given(recordings, st.lists(st.integers(1, 6), max_size=40))
def test_whatever_was_recorded_names_an_alternative_that_is_there(recorded: list[int], alternatives: list[int]) -> None:
    choices = Choices(recorded=recorded)
    assert all(choices.among(number) < number for number in alternatives)


@given(recordings, st.integers(1, 20))
async def test_the_simplest_choices_fail_as_well_and_every_one_of_them_is_needed(
    recorded: list[int], needed: int
) -> None:
    async def fails(choices: Sequence[int]) -> bool:
        return sum(choices) >= needed

    if sum(recorded) < needed:
        return
    simple = await simplest(recorded, fails, most=100_000)
    assert sum(simple) == needed
    assert 0 not in simple
