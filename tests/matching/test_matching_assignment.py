"""The assignment against two independent oracles: every assignment there is, and another algorithm."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ortools.graph.python.linear_sum_assignment import SimpleLinearSumAssignment

from services.matching.decisions.affinity import BEST
from services.matching.decisions.assignment import NOBODY, Pairs, Seats, assign

Case = tuple[int, dict[tuple[int, int], int], Seats]


def whole(values: list[int]) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    return np.array(values, np.int64)


def pairs_of(affinities: dict[tuple[int, int], int]) -> Pairs:
    rows = sorted(affinities)
    return Pairs(
        whole([request for request, _ in rows]),
        whole([expert for _, expert in rows]),
        whole([affinities[r] for r in rows]),
    )


@st.composite
def cases(draw: st.DrawFn, most: tuple[int, int, int] = (4, 4, 2)) -> Case:
    requests, experts, partners = (draw(st.integers(1, number)) for number in most)
    limits = [draw(st.integers(1, 4)) for _ in range(experts)]
    seats = Seats(
        load=whole([draw(st.integers(0, limit)) for limit in limits]),
        limit=whole(limits),
        recency=whole([draw(st.integers(0, 50)) for _ in range(experts)]),
        partner=whole([draw(st.integers(0, partners - 1)) for _ in range(experts)]),
        partner_free=whole([draw(st.integers(0, 4)) for _ in range(partners)]),
    )
    every = [(r, e) for r in range(requests) for e in range(experts) if seats.load[e] < seats.limit[e]]
    eligible = [pair for pair in every if draw(st.booleans())]
    return requests, {pair: draw(st.integers(0, BEST)) for pair in eligible}, seats


def worth(choice: tuple[int, ...], affinities: dict[tuple[int, int], int], seats: Seats) -> tuple[object, ...] | None:
    """What a choice of experts is worth, the greater the better; None where it may not be made."""
    taken = [choice.count(expert) for expert in range(seats.load.size)]
    served = [sum(taken[e] for e in range(len(taken)) if seats.partner[e] == p) for p in range(seats.partner_free.size)]
    if any((r, e) not in affinities for r, e in enumerate(choice) if e != NOBODY):
        return None
    if any(seats.load[e] + n > seats.limit[e] for e, n in enumerate(taken) if n):
        return None
    if any(n > seats.partner_free[p] for p, n in enumerate(served)):
        return None
    fit = sum(affinities[r, e] for r, e in enumerate(choice) if e != NOBODY)
    burden = sum(
        250 * (int(seats.load[e]) + nth) // int(seats.limit[e]) + int(seats.recency[e])
        for e, n in enumerate(taken)
        for nth in range(n)
    )
    return tuple(e != NOBODY for e in choice), fit - burden


@settings(max_examples=300)
@given(cases() | cases(most=(2, 9, 3)))
def test_no_other_assignment_serves_earlier_requests_or_fits_better(case: Case) -> None:
    requests, affinities, seats = case
    chosen = tuple(assign(requests, pairs_of(affinities), seats).tolist())
    possible = [
        value
        for choice in product(range(-1, seats.load.size), repeat=requests)
        if (value := worth(choice, affinities, seats)) is not None
    ]
    assert worth(chosen, affinities, seats) == max(possible)


@settings(max_examples=200)
@given(cases())
def test_serving_earlier_requests_first_never_serves_fewer(case: Case) -> None:
    requests, affinities, seats = case
    served = sum(e != NOBODY for e in assign(requests, pairs_of(affinities), seats).tolist())
    most = max(
        sum(e != NOBODY for e in choice)
        for choice in product(range(-1, seats.load.size), repeat=requests)
        if worth(choice, affinities, seats) is not None
    )
    assert served == most


@pytest.mark.parametrize(("requests", "experts"), [(40, 25), (9, 70)])
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_larger_pool_is_assigned_at_the_cost_another_algorithm_finds(requests: int, experts: int, seed: int) -> None:
    """One column for each place an expert has, so that the assignment problem with unit seats is the same problem."""
    random = np.random.default_rng(seed)
    limit = random.integers(2, 6, experts)
    load = np.minimum(random.integers(0, 3, experts), limit - 1)
    seats = Seats(load, limit, random.integers(0, 50, experts), np.zeros(experts, np.int64), whole([10_000]))
    affinity = random.integers(0, BEST + 1, (requests, experts))
    places = [(e, nth) for e in range(experts) for nth in range(int(limit[e] - load[e]))]
    assert len(places) >= requests, "everybody can be served"
    costs = np.zeros((len(places), len(places)), np.int64)
    for column, (e, nth) in enumerate(places):
        burden = 250 * (int(load[e]) + nth) // int(limit[e]) + int(seats.recency[e])
        costs[:requests, column] = BEST - affinity[:, e] + burden
    solver = SimpleLinearSumAssignment()
    for row in range(len(places)):
        for column in range(len(places)):
            solver.add_arc_with_cost(row, column, int(costs[row, column]))
    assert solver.solve() == solver.OPTIMAL
    chosen = assign(
        requests,
        Pairs(np.repeat(np.arange(requests), experts), np.tile(np.arange(experts), requests), affinity.ravel()),
        seats,
    )
    taken = np.bincount(chosen, minlength=experts)
    assert (chosen != NOBODY).all()
    cost = sum(BEST - int(affinity[r, e]) for r, e in enumerate(chosen.tolist())) + sum(
        250 * (int(load[e]) + nth) // int(limit[e]) + int(seats.recency[e])
        for e in range(experts)
        for nth in range(int(taken[e]))
    )
    assert cost == solver.optimal_cost()


def test_experts_who_fit_equally_well_share_the_load() -> None:
    seats = Seats(whole([0, 0, 0]), whole([6, 6, 6]), whole([0, 0, 0]), whole([0, 0, 0]), whole([100]))
    affinities = {(r, e): 800 for r in range(9) for e in range(3)}
    chosen = assign(9, pairs_of(affinities), seats)
    assert np.bincount(chosen).tolist() == [3, 3, 3]


def test_who_holds_less_of_what_they_can_hold_goes_first() -> None:
    seats = Seats(whole([2, 2]), whole([4, 10]), whole([0, 0]), whole([0, 0]), whole([100]))
    assert assign(1, pairs_of({(0, 0): 800, (0, 1): 800}), seats).tolist() == [1]


def test_who_was_proposed_longest_ago_goes_first_among_equals() -> None:
    seats = Seats(whole([0, 0]), whole([5, 5]), whole([30, 10]), whole([0, 0]), whole([100]))
    assert assign(1, pairs_of({(0, 0): 800, (0, 1): 800}), seats).tolist() == [1]


def test_nobody_is_assigned_where_nobody_is_eligible() -> None:
    nothing = whole([])
    assert assign(2, Pairs(nothing, nothing, nothing), Seats(nothing, nothing, nothing, nothing, nothing)).tolist() == [
        NOBODY,
        NOBODY,
    ]
