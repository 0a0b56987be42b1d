"""Who gets whom: one min-cost flow over all requests, experts and partners of a round.

    source -> request -> expert -> partner -> sink, and request -> sink for those nobody is found for

The flow is optimal in this order: requests of higher precedence before others, then as many requests as possible, then
the best fit and the fairest load. The first two never disagree: the sets of requests that can be served together are
the independent sets of a matroid (a gammoid: linked to the sink through capacities), and in a matroid the set of
greatest weight is also a largest one, and the same one for any weights in the order of precedence. Weights that fall
by equal steps therefore give the exact lexicographic order, and fit into 64 bits where powers of two would not.

Not all eligible pairs have to take part, only so many of each request that one of them is free whatever the others
are given: see `_enough`. What is left out is no loss, unlike where each request keeps its best few.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from ortools.graph.python.min_cost_flow import SimpleMinCostFlow

from services.matching.decisions.affinity import BEST
from services.matching.decisions.bench import Whole

LOAD_WEIGHT: Final = 250
"""Cost of a full load; an empty one is free, those between are in proportion. As each further request of an expert
costs more, an optimal flow spreads load evenly among experts who fit equally well."""
RECENCY_WEIGHT: Final = 50
"""Greatest cost of an expert for having been proposed a moment ago."""
NOBODY: Final = -1


@dataclass(frozen=True, slots=True)
class Pairs:
    """The eligible pairs, one a row, by request: index of the request, index of the expert, affinity of the two."""

    request: Whole
    expert: Whole
    affinity: Whole


@dataclass(frozen=True, slots=True)
class Seats:
    """What the experts and partners can still take, by index. An expert who is in a pair has a load below the limit."""

    load: Whole
    limit: Whole
    recency: Whole
    """Cost of each expert for having been proposed lately, 0 to RECENCY_WEIGHT."""
    partner: Whole
    """Index of each expert's partner."""
    partner_free: Whole


def load_cost(held: Whole, limit: Whole) -> Whole:
    """Cost of one more request for an expert who holds so many."""
    return LOAD_WEIGHT * held // np.maximum(limit, 1)


def assign(requests: int, pairs: Pairs, seats: Seats) -> Whole:
    """The index of the expert of each request, or NOBODY. Requests are numbered by precedence.

    Equal input gives equal output: of several optimal assignments it is always the same one.
    """
    if requests == 0 or pairs.request.size == 0:
        return np.full(requests, NOBODY, np.int64)
    experts, partners = seats.load.size, seats.partner_free.size
    expert_node, partner_node = requests, requests + experts
    sink = partner_node + partners
    pairs = _enough(pairs, seats)
    flow = cast(_Network, SimpleMinCostFlow())
    chosen = _arcs(flow, pairs.request, expert_node + pairs.expert, np.ones_like(pairs.request), BEST - pairs.affinity)
    expert, capacity, cost = _places(pairs, seats)
    _arcs(flow, expert_node + expert, partner_node + seats.partner[expert], capacity, cost)
    every_partner = np.arange(partners)
    _arcs(flow, partner_node + every_partner, np.full(partners, sink), seats.partner_free, np.zeros(partners, np.int64))
    every_request = np.arange(requests)
    dearest = requests * (BEST + LOAD_WEIGHT + RECENCY_WEIGHT) + 1
    _arcs(
        flow, every_request, np.full(requests, sink), np.ones(requests, np.int64), dearest * (requests - every_request)
    )
    supplies = np.append(np.ones(requests, np.int64), -requests)
    flow.set_nodes_supplies(np.append(every_request, sink).astype(np.int32), supplies)
    status = flow.solve()
    if status != SimpleMinCostFlow.OPTIMAL:
        raise ArithmeticError(f"the assignment of {requests} requests was not solved: {status}")
    taken = flow.flows(chosen) > 0
    result = np.full(requests, NOBODY, np.int64)
    result[pairs.request[taken]] = pairs.expert[taken]
    return result


def _enough(pairs: Pairs, seats: Seats) -> Pairs:
    """Pairs among which there is an optimal assignment: of each request and partner as many as there are requests.

    They are the cheapest for experts as they stand. Where a request is given another expert of the same partner, the
    other requests leave one of these without a place taken, who costs no more in that place: places of an expert only
    grow dearer. Partners that could serve every request hold nobody up and count as one.
    """
    begins = np.flatnonzero(np.diff(pairs.request, prepend=-1))
    requests = begins.size
    scarce = np.where(seats.partner_free < requests, np.arange(1, seats.partner_free.size + 1), 0)
    first_place = load_cost(seats.load, seats.limit) + seats.recency
    # Made distinct by position: which of equals are kept does not hang on how they are partitioned.
    cost = (BEST - pairs.affinity + first_place[pairs.expert]) * pairs.request.size + np.arange(pairs.request.size)
    group = scarce[seats.partner[pairs.expert]]
    kept = np.ones(group.size, np.bool_)
    for begin, end in pairwise([*begins.tolist(), group.size]):
        of_request = group[begin:end]
        for one in np.flatnonzero(np.bincount(of_request) > requests).tolist():
            alike = begin + np.flatnonzero(of_request == one)
            kept[alike[np.argpartition(cost[alike], requests)[requests:]]] = False
    return Pairs(pairs.request[kept], pairs.expert[kept], pairs.affinity[kept])


class _Network(Protocol):
    """The solver, with the array types that its own type stubs get wrong."""

    def add_arcs_with_capacity_and_unit_cost(
        self, tails: NDArray[np.int32], heads: NDArray[np.int32], capacities: Whole, unit_costs: Whole
    ) -> NDArray[np.int32]: ...

    def set_nodes_supplies(self, nodes: NDArray[np.int32], supplies: Whole) -> None: ...

    def solve(self) -> object: ...

    def flows(self, arcs: NDArray[np.int32]) -> Whole: ...


def _arcs(flow: _Network, tails: Whole, heads: Whole, capacities: Whole, costs: Whole) -> NDArray[np.int32]:
    return flow.add_arcs_with_capacity_and_unit_cost(
        tails.astype(np.int32), heads.astype(np.int32), capacities.astype(np.int64), costs.astype(np.int64)
    )


def _places(pairs: Pairs, seats: Seats) -> tuple[Whole, Whole, Whole]:
    """Each expert's free places as (expert, places, cost of each), places of equal cost together."""
    wanted = np.bincount(pairs.expert, minlength=seats.load.size)
    free = np.minimum(seats.limit - seats.load, wanted)
    expert = np.repeat(np.arange(seats.load.size), np.maximum(free, 0))
    nth = np.arange(expert.size) - np.repeat(np.cumsum(np.maximum(free, 0)) - np.maximum(free, 0), np.maximum(free, 0))
    cost = load_cost(seats.load[expert] + nth, seats.limit[expert]) + seats.recency[expert]
    span = int(cost.max(initial=0)) + 1
    grouped, places = np.unique(expert * span + cost, return_counts=True)
    return grouped // span, places, grouped % span
