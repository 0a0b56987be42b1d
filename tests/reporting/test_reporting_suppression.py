"""Small counts stay hidden even from a reader who knows the total, every label there could be, and the rule itself."""

from collections import defaultdict
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.reporting.decisions.numbers import Published, publishable, share

COUNTS = st.dictionaries(st.text(min_size=1, max_size=3), st.integers(0, 40), max_size=12)


def vectors(labels: int, total: int) -> Iterator[tuple[int, ...]]:
    """Every way in which so many labels can share a total."""
    if labels == 1:
        yield (total,)
        return
    for first in range(total + 1):
        for others in vectors(labels - 1, total - first):
            yield (first, *others)


def published(vector: tuple[int, ...], threshold: int) -> Published:
    return publishable(dict(zip("abcde", vector, strict=False)), threshold)


@pytest.mark.parametrize(("labels", "most", "threshold"), [(2, 40, 5), (3, 34, 5), (4, 24, 5), (4, 20, 3), (5, 14, 3)])
def test_a_reader_who_tries_all_possible_counts_never_learns_a_hidden_one(
    labels: int, most: int, threshold: int
) -> None:
    for total in range(1, most + 1):
        possible: dict[Published, list[tuple[int, ...]]] = defaultdict(list)
        for vector in vectors(labels, total):
            possible[published(vector, threshold)].append(vector)
        for shown, candidates in possible.items():
            for place, label in enumerate("abcde"[:labels]):
                values = {vector[place] for vector in candidates}
                if label not in dict(shown.rows) and values != {0}:
                    assert len(values) > 1, (shown, total, label, values)


@given(COUNTS)
def test_what_is_shown_is_true_at_or_over_the_threshold_and_largest_first(counts: dict[str, int]) -> None:
    rows = publishable(counts, 5).rows
    assert all(counts[label] == count >= 5 for label, count in rows)
    assert [count for _, count in rows] == sorted((count for _, count in rows), reverse=True)


@given(COUNTS)
def test_what_is_shown_and_the_rest_add_up_to_the_total(counts: dict[str, int]) -> None:
    shown = publishable(counts, 5)
    if shown.rest is not None:
        assert sum(count for _, count in shown.rows) + shown.rest == sum(counts.values())


@given(COUNTS)
def test_nothing_is_hidden_where_no_count_is_small(counts: dict[str, int]) -> None:
    large = {label: count + 5 for label, count in counts.items()}
    assert dict(publishable(large, 5).rows) == large


@given(COUNTS)
def test_the_rest_never_stands_for_a_single_row_or_less_than_the_threshold(counts: dict[str, int]) -> None:
    shown = publishable(counts, 5)
    hidden = [count for label, count in counts.items() if count and label not in dict(shown.rows)]
    if shown.rest:
        assert len(hidden) > 1
        assert shown.rest >= 5


def test_one_tribal_request_takes_the_smallest_row_shown_with_it() -> None:
    counts = {"municipal": 40, "county_sheriff": 21, "campus": 9, "tribal": 1}
    assert publishable(counts, 5) == Published((("municipal", 40), ("county_sheriff", 21)), 10)


def test_no_more_rows_are_taken_than_needed() -> None:
    counts = {"TX": 30, "GA": 20, "CA": 10, "WI": 2, "MT": 1}
    assert publishable(counts, 5) == Published((("TX", 30), ("GA", 20)), 13)
    assert publishable(counts | {"NM": 4}, 5) == Published((("TX", 30), ("GA", 20), ("CA", 10)), 7)


def test_where_all_together_are_few_nothing_is_said() -> None:
    assert publishable({"tribal": 2, "campus": 1}, 5) == Published((), None)
    assert publishable({"tribal": 4}, 5) == Published((), None)


def test_where_nothing_was_counted_nothing_is_hidden() -> None:
    assert publishable({}, 5) == Published((), 0)


@pytest.mark.parametrize(("part", "rest"), [(1, 40), (40, 4), (2, 2), (0, 3), (0, 0)])
def test_a_share_that_would_tell_of_a_few_is_not_shown(part: int, rest: int) -> None:
    assert share(part, rest, 5) is None


def test_a_share_of_enough_on_both_sides_is_shown() -> None:
    assert share(52, 48, 5) == 0.52
    assert share(0, 40, 5) == 0.0
