"""A round over everything: what it must never do, whom it serves first, and what it says."""

import random
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.matches import MatchNotFound, MatchProposed
from schemas.vocabulary import (
    AgencyType,
    ConflictKind,
    DateWindow,
    DeliveryMode,
    ExpertId,
    Level,
    PartnerId,
    RequestId,
    TopicCode,
    Urgency,
)
from services.matching.decisions.bench import Roster
from services.matching.decisions.roster import Skill
from services.matching.decisions.rounds import Load, NotFound, Proposed, matching_round
from services.matching.store import Body
from tests.matching.matching_builders import (
    DENVER,
    NOW,
    TOPIC,
    WINDOW,
    World,
    accepted,
    agency_accepts,
    agency_declines,
    closed,
    declared,
    expert,
    listed,
    partner,
    partner_accepts,
    request,
    retired,
    selected,
    suspended,
    unavailable,
    waived,
    withdrawn,
)

ORIS = ("IL0160000", "IL0160100", "MO0480000")
EXPERTS = ("E1", "E2", "E3")
PARTNERS = ("IACP", "NOBLE")
REQUESTS = ("R1", "R2", "R3", "R4")
COMPSTAT = Skill(TopicCode("compstat"), Level.LEAD)
MATCHES = tuple(f"{request_id}/m{nth}" for request_id in REQUESTS for nth in (1, 2))

ids = st.sampled_from
happenings = st.one_of(
    st.builds(accepted, ids(REQUESTS), ids(ORIS)),
    st.builds(listed, ids(EXPERTS), ids(PARTNERS), load_limit=st.integers(0, 2)),
    st.builds(retired, ids(EXPERTS)),
    st.builds(unavailable, ids(EXPERTS), ids((WINDOW, DateWindow(WINDOW.first, WINDOW.first)))),
    st.builds(selected, ids(PARTNERS), st.integers(1, 3)),
    st.builds(suspended, ids(PARTNERS)),
    st.builds(declared, ids(("C1", "C2")), ids(ORIS), ids(list(ConflictKind)), expert_id=ids(EXPERTS)),
    st.builds(declared, ids(("C3", "C4")), ids(ORIS), ids(list(ConflictKind)), partner_id=ids(PARTNERS)),
    st.builds(waived, ids(("C3", "C4")), ids(ORIS), partner_id=ids(PARTNERS)),
    st.builds(agency_accepts, ids(MATCHES)),
    st.builds(partner_accepts, ids(MATCHES), ids(PARTNERS)),
    st.builds(agency_declines, ids(MATCHES)),
    st.builds(withdrawn, ids(REQUESTS)),
    st.builds(closed, ids(MATCHES)),
)


class Ledger:
    """What an outsider knows who only reads the roster's events: who is listed by whom, and who must not meet whom."""

    def __init__(self) -> None:
        self.partner_of: dict[str, str] = {}
        self.limit: dict[str, int] = {}
        self.capacity: dict[str, int] = {}
        self.barred: dict[tuple[str, str], tuple[str, ConflictKind]] = {}
        self.ori_of: dict[str, str] = {}

    def read(self, body: Any) -> None:
        match body.TYPE:
            case "request.accepted.v1":
                self.ori_of.setdefault(body.request_id, body.agency.ori)
            case "expert.listed.v1":
                self.partner_of[body.expert_id] = body.profile.partner_id
                self.limit[body.expert_id] = body.profile.load_limit
            case "expert.retired.v1":
                self.partner_of.pop(body.expert_id, None)
            case "partner.selected.v1":
                self.capacity[body.partner_id] = body.capacity
            case "partner.suspended.v1":
                self.capacity.pop(body.partner_id, None)
            case "conflict.declared.v1":
                self.barred.setdefault((body.expert_id or body.partner_id, body.conflict_id), (body.ori, body.kind))
            case "conflict.waived.v1":
                known = self.barred.get((body.partner_id, body.conflict_id))
                if known is not None and known[1] is ConflictKind.BARGAINING:
                    self.barred[body.partner_id, body.conflict_id] = ("waived", known[1])
            case _:
                pass

    def objects(self, request_id: str, expert_id: str, partner_id: str) -> bool:
        """Whether these may not be matched."""
        ori = self.ori_of[request_id]
        next_door = {ConflictKind.LITIGATION, ConflictKind.LABOUR_DISPUTE}
        barred = any(
            other == ori or (kind in next_door and other[:5] == ori[:5])
            for (who, _), (other, kind) in self.barred.items()
            if who in (expert_id, partner_id)
        )
        return barred or self.partner_of.get(expert_id) != partner_id or partner_id not in self.capacity


@settings(max_examples=400)
@given(st.lists(st.one_of(happenings, st.none()), min_size=5, max_size=40))
def test_nobody_is_proposed_across_a_conflict_a_load_limit_or_a_capacity(happens: list[Body | None]) -> None:
    world, ledger = World(), Ledger()
    for body in [*happens, None, None]:
        if body is not None:
            ledger.read(body)
            world.hear(body)
            continue
        before = {one.active.match_id for one in world.known.requests.values() if one.active}
        world.round()
        active = [(one.request_id, one.active) for one in world.known.requests.values() if one.active]
        held = Counter(expert_id for _, match in active for expert_id in match.expert_ids)
        served = Counter(match.partner_id for _, match in active)
        for request_id, match in active:
            [expert_id] = match.expert_ids
            assert not ledger.objects(request_id, expert_id, match.partner_id)
            if match.match_id not in before:
                assert held[expert_id] <= ledger.limit[expert_id]
                assert served[match.partner_id] <= ledger.capacity[match.partner_id]


@settings(max_examples=100)
@given(st.lists(happenings, min_size=5, max_size=30), st.randoms(use_true_random=False))
def test_the_same_news_gives_the_same_round_whatever_order_it_is_held_in(
    happens: list[Body], shuffler: random.Random
) -> None:
    world = World()
    world.hear(*happens)
    known = world.known

    def shuffled(part: Any) -> Any:
        rows = list(part.items())
        shuffler.shuffle(rows)
        return dict(rows)

    first = matching_round(known.requests, Roster(known.experts, known.partners), Load({}, {}, {}), NOW)
    again = matching_round(
        shuffled(known.requests), Roster(shuffled(known.experts), shuffled(known.partners)), Load({}, {}, {}), NOW
    )
    assert again == first


def found(requests: Any, experts: Any, load: Load | None = None, capacity: int = 100) -> list[Any]:
    """What one round says of these requests and experts."""
    _, said = matching_round(
        {one.request_id: one for one in requests},
        Roster({one.expert_id: one for one in experts}, {PartnerId("IACP"): partner(capacity=capacity)}),
        load or Load({}, {}, {}),
        NOW,
    )
    return said


def proposed_for(said: list[Any]) -> list[str]:
    return [one.request_id for one in said if isinstance(one, Proposed)]


def test_the_most_urgent_request_is_served_where_there_is_one_place() -> None:
    three = [
        request("R1", urgency=Urgency.ROUTINE),
        request("R2", urgency=Urgency.CRITICAL),
        request("R3", urgency=Urgency.SOON),
    ]
    assert proposed_for(found(three, [expert(load_limit=1)])) == ["R2"]


def test_who_has_waited_longer_is_served_first_among_equally_urgent_ones() -> None:
    two = [request("R1"), request("R2", since=NOW - timedelta(seconds=1))]
    assert proposed_for(found(two, [expert(load_limit=1)])) == ["R2"]


def test_ten_days_of_waiting_make_up_for_one_step_of_urgency() -> None:
    for days, first in ((9, "R2"), (11, "R1")):
        two = [request("R1", since=NOW - timedelta(days=days)), request("R2", urgency=Urgency.SOON)]
        assert proposed_for(found(two, [expert(load_limit=1)])) == [first]


def test_an_expert_is_left_to_the_request_nobody_else_can_serve() -> None:
    both = expert("E1", load_limit=1, skills=(Skill(TOPIC, Level.LEAD), COMPSTAT))
    one = expert("E2", load_limit=1, skills=(Skill(TOPIC, Level.PRACTITIONER),))
    said = found([request("R1"), request("R2", topics=(COMPSTAT.topic,))], [both, one])
    assert {one.request_id: one.expert.expert_id for one in said} == {"R1": "E2", "R2": "E1"}


def test_a_partner_at_capacity_is_proposed_no_more() -> None:
    three = [request(name) for name in ("R1", "R2", "R3")]
    load = Load({}, {PartnerId("IACP"): 1}, {})
    said = found(three, [expert("E1"), expert("E2")], load, capacity=2)
    assert proposed_for(said) == ["R1"]
    assert [[(r.reason, r.experts) for r in one.reasons] for one in said if isinstance(one, NotFound)] == [
        [("outcompeted", 2)]
    ] * 2


def test_a_proposal_says_why_and_how_well_it_fits() -> None:
    world = World()
    world.hear(selected(), listed(home=DENVER), accepted())
    [fact] = world.round()
    assert isinstance(fact, MatchProposed)
    [one] = fact.experts
    topic, size, mode, distance, days, load = one.reasons
    assert topic == "Covers active-shooter as lead."
    assert size == "A peer from an agency of comparable size."
    assert mode == "Offers in person training, number 1 of the 1 modes the agency named."
    assert days == "Free on 91 of the 91 days of the window."
    assert load == "Holds 0 of at most 5 requests."
    km = int(distance.removeprefix("About ").removesuffix(" km from the agency."))
    assert km == pytest.approx(1480, abs=10), "as the crow flies from Chicago to Denver"
    assert one.affinity == 400 + 200 + 200 + 100 * (4000 - km) // 4000 + 100


WHY: list[tuple[str, dict[str, Any]]] = [
    ("no_expert_for_topic", {"skills": (COMPSTAT,)}),
    ("agency_type", {"agency_types": frozenset({AgencyType.CAMPUS})}),
    ("delivery_mode", {"delivery_modes": frozenset({DeliveryMode.DATA_ANALYSIS})}),
    ("partner_not_selected", {"partner_id": PartnerId("NSA")}),
    ("conflict_of_interest", {"vendor_topics": frozenset({TOPIC})}),
    ("too_far", {"home": DENVER, "travel_limit_km": 1000}),
    ("unavailable", {"unavailable": (WINDOW,)}),
    ("at_capacity", {"load_limit": 1}),
]


@pytest.mark.parametrize(("code", "expert_has"), WHY, ids=[code for code, _ in WHY])
def test_a_request_nobody_is_found_for_is_told_why(code: str, expert_has: dict[str, Any]) -> None:
    others = [expert("E2", **expert_has), expert("E3", **expert_has)]
    load = Load({ExpertId("E2"): 1, ExpertId("E3"): 1}, {}, {})
    [said] = found([request()], others, load)
    assert isinstance(said, NotFound)
    assert [(one.reason, one.experts) for one in said.reasons] == [(code, 2)]
    assert len(said.would_help) == 1


def test_an_empty_roster_is_a_reason_too() -> None:
    world = World()
    world.hear(accepted())
    [fact] = world.round()
    assert isinstance(fact, MatchNotFound)
    assert [(one.code, one.experts, one.says) for one in fact.reasons] == [
        ("no_expert_for_topic", 0, "No expert is listed.")
    ]


def test_the_reasons_account_for_every_expert() -> None:
    experts = [expert(f"E{nth}", **has) for nth, (_, has) in enumerate(WHY[:-1])]
    [said] = found([request()], experts)
    assert sum(one.experts for one in said.reasons) == len(experts)
    assert len(said.reasons) == len(experts)


def test_a_round_over_nothing_says_nothing() -> None:
    assert matching_round({}, Roster({}, {}), Load({}, {}, {}), NOW) == ({}, [])


def test_what_a_released_match_held_is_given_out_when_all_who_wait_take_part() -> None:
    world = World()
    world.hear(selected(), listed("E1", load_limit=1), accepted("R1"))
    world.round()
    world.hear(declared("C1", expert_id="E1"), accepted("R2", ori="MO0480000"))
    assert {type(fact).__name__ for fact in world.round()} == {"MatchReleased", "MatchNotFound"}
    [fact] = [fact for fact in world.round() if isinstance(fact, MatchProposed)]
    assert fact.request_id == RequestId("R2")
