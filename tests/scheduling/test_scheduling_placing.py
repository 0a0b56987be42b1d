"""Sessions are placed exactly: every answer is compared with trying all choices of days."""

from collections.abc import Sequence
from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st

from services.scheduling.decisions.placing import NoRoom, Stage, place

HORIZON = 14


@st.composite
def stages(draw: st.DrawFn) -> Stage:
    shortest = draw(st.integers(1, 5))
    return Stage(
        starts=draw(st.integers(0, 2**HORIZON - 1)),
        length=draw(st.integers(1, 3)),
        min_gap=shortest,
        max_gap=draw(st.integers(shortest - 1, shortest + 5)),
    )


def keeps_order(chosen: Sequence[int], asked: Sequence[Stage]) -> bool:
    last_days = [day + stage.length - 1 for day, stage in zip(chosen, asked, strict=True)]
    return all(
        stage.min_gap <= day - last_day <= stage.max_gap
        for stage, day, last_day in zip(asked[1:], chosen[1:], last_days, strict=False)
    )


def every_way(asked: Sequence[Stage]) -> list[tuple[int, ...]]:
    days = [[day for day in range(HORIZON) if stage.starts >> day & 1] for stage in asked]
    return [chosen for chosen in product(*days) if keeps_order(chosen, asked)]


def finish_then_idle_then_days(chosen: Sequence[int], asked: Sequence[Stage]) -> tuple[int, int, Sequence[int]]:
    finish = chosen[-1] + asked[-1].length
    idle = finish - chosen[0] - sum(stage.length for stage in asked)
    return finish, idle, chosen


@settings(max_examples=400)
@given(st.lists(stages(), min_size=1, max_size=4))
def test_the_days_chosen_are_the_best_of_all_ways(asked: list[Stage]) -> None:
    ways = every_way(asked)
    placed = place(asked)
    if ways:
        assert placed == min(ways, key=lambda chosen: finish_then_idle_then_days(chosen, asked))
    else:
        assert isinstance(placed, NoRoom)


@settings(max_examples=200)
@given(st.lists(stages(), min_size=1, max_size=4))
def test_where_there_is_no_room_the_stage_named_is_the_first_that_cannot_be_reached(asked: list[Stage]) -> None:
    placed = place(asked)
    if isinstance(placed, NoRoom):
        assert not every_way(asked[: placed.stage + 1])
        assert placed.stage == 0 or every_way(asked[: placed.stage])


def test_an_earlier_finish_is_worth_more_than_a_shorter_pause() -> None:
    first = Stage(starts=0b0_0000_0001, length=1, min_gap=0, max_gap=0)
    either = Stage(starts=0b1_0001_0000, length=1, min_gap=1, max_gap=8)
    assert place([first, either]) == (0, 4)


def test_the_first_session_moves_up_to_the_second_when_that_does_not_delay_the_end() -> None:
    whenever = Stage(starts=0b0_0000_1111, length=1, min_gap=0, max_gap=0)
    fixed = Stage(starts=0b1_0000_0000, length=1, min_gap=2, max_gap=8)
    assert place([whenever, fixed]) == (3, 8)
