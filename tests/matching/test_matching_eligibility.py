"""The hard rules in columns say what the same rules say expert by expert and day by day."""

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import date, timedelta
from math import acos, cos, isclose, radians, sin
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.vocabulary import (
    ON_SITE_MODES,
    AgencyType,
    ConflictId,
    ConflictKind,
    DateWindow,
    DeliveryMode,
    ExpertId,
    Level,
    Ori,
    PartnerId,
    Place,
    SwornBand,
    TopicCode,
)
from services.matching.decisions.affinity import affinity
from services.matching.decisions.bench import bench
from services.matching.decisions.conflicts import conflict_with
from services.matching.decisions.eligibility import Reason, Standing, standing
from services.matching.decisions.pool import Agency, Request
from services.matching.decisions.roster import Conflict, Employment, Expert, Partner, Skill
from tests.matching.matching_builders import (
    CHICAGO,
    DENVER,
    SPRINGFIELD,
    TODAY,
    TOPIC,
    WINDOW,
    asked,
    expert,
    partner,
    request,
)

NEW_YORK = Place(40.71, -74.01)
HONOLULU = Place(21.31, -157.86)
TOPICS = tuple(map(TopicCode, ("active-shooter", "compstat", "tribal")))
MODES = (DeliveryMode.IN_PERSON_TRAINING, DeliveryMode.WEB_BASED_TRAINING, DeliveryMode.PEER_EXCHANGE)
ORIS = tuple(map(Ori, ("IL0160000", "IL0160100", "MO0480000")))
PLACES = (CHICAGO, DENVER, NEW_YORK)
PARTNERS = (PartnerId("IACP"), PartnerId("NOBLE"))
EXPERTS = tuple(ExpertId(f"E{nth}") for nth in range(8))
EARLIEST = TODAY - timedelta(days=20)


class Chance:
    """A made-up world of a seed, small enough that every rule applies often."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def one(self, values: Iterable[Any]) -> Any:
        return self._random.choice(list(values))

    def some(self, values: Iterable[Any], least: int, most: int) -> tuple[Any, ...]:
        return tuple(self._random.sample(list(values), self._random.randint(least, most)))

    def spell(self) -> DateWindow:
        first = TODAY + timedelta(days=self._random.randint(-5, 20))
        return DateWindow(first, first + timedelta(days=self._random.randint(0, 15)))

    def conflicts(self) -> tuple[Conflict, ...]:
        one = Conflict(ConflictId("C"), self.one(ORIS), self.one(ConflictKind), self.one((True, False)))
        return self.one(((), (one,)))

    def expert(self, name: str) -> Expert:
        return expert(
            name,
            conflicts=self.conflicts(),
            unavailable=tuple(self.spell() for _ in range(self._random.randint(0, 4))),
            partner_id=self.one(PARTNERS),
            skills=tuple(Skill(topic, self.one(Level)) for topic in self.some(TOPICS, 1, 3)),
            delivery_modes=frozenset(self.some(MODES, 1, 3)),
            agency_types=frozenset(self.some((AgencyType.MUNICIPAL, AgencyType.TRIBAL), 1, 2)),
            sworn_band=self.one(SwornBand),
            home=self.one(PLACES),
            travel_limit_km=self.one((0, 1500, 20_000)),
            employments=tuple(Employment(ori, None) for ori in self.some(ORIS, 0, 1)),
            vendor_topics=frozenset(self.some(TOPICS, 0, 1)),
        )

    def partner(self, name: str) -> Partner:
        periods = (None, DateWindow(TODAY, TODAY + timedelta(days=25)), DateWindow(EARLIEST, date(2027, 1, 1)))
        one = partner(name, 10, self.one(periods), conflicts=self.conflicts())
        return self.one((one, one, one, replace(one, award=None)))

    def request(self) -> Request:
        types = (AgencyType.MUNICIPAL, AgencyType.TRIBAL, AgencyType.UNKNOWN)
        place = self.one((*PLACES, None))
        agency = Agency(self.one(ORIS), self.one(types), self.one(SwornBand), place, self.some(ORIS, 0, 1))
        asks = request(
            agency=agency,
            topics=self.some(TOPICS, 1, 3),
            delivery_modes=self.some(MODES, 1, 3),
            window=self.spell(),
            blackouts=tuple(self.spell() for _ in range(self._random.randint(0, 2))),
        )
        return replace(
            asks,
            banned_experts=frozenset(self.some(EXPERTS, 0, 2)),
            banned_partners=frozenset(self.some(PARTNERS, 0, 1)),
        )


def distance_km(a: Place, b: Place) -> float:
    """By the spherical law of cosines: another formula than the one under test."""
    if a == b:
        return 0.0
    first, second = radians(a.latitude), radians(b.latitude)
    angle = sin(first) * sin(second) + cos(first) * cos(second) * cos(radians(b.longitude - a.longitude))
    return 6371.0 * acos(angle)


def oracle(one: Expert, partners: dict[PartnerId, Partner], subject: Request) -> Reason | None:
    """The first reason against the expert, rule by rule and day by day."""
    assert subject.asked is not None
    assert one.profile is not None
    agency, terms, profile = subject.asked.agency, subject.asked.terms, one.profile
    days = [EARLIEST + timedelta(days=n) for n in range(80)]
    open_days = {
        d for d in days if d >= TODAY and d in terms.window and not any(d in black for black in terms.blackouts)
    }
    wanted = [mode for mode in terms.delivery_modes if mode in profile.delivery_modes]
    near = agency.place is None or distance_km(profile.home, agency.place) <= profile.travel_limit_km
    its = partners[profile.partner_id]
    if not any(skill.topic in terms.topics for skill in profile.skills):
        return Reason.NO_EXPERT_FOR_TOPIC
    if agency.agency_type not in profile.agency_types | {AgencyType.UNKNOWN}:
        return Reason.AGENCY_TYPE
    if not wanted:
        return Reason.DELIVERY_MODE
    if its.award is None or (its.award.period and not {terms.window.first, terms.window.last} <= in_period(its, days)):
        return Reason.PARTNER_NOT_SELECTED
    if conflict_with(one, its, subject.asked, TODAY):
        return Reason.CONFLICT_OF_INTEREST
    if one.expert_id in subject.banned_experts or profile.partner_id in subject.banned_partners:
        return Reason.DECLINED_BEFORE
    if not near and all(mode in ON_SITE_MODES for mode in wanted):
        return Reason.TOO_FAR
    if not any(all(day not in spell for spell in one.unavailable) for day in open_days):
        return Reason.UNAVAILABLE
    return None


def in_period(one: Partner, days: list[date]) -> set[date]:
    assert one.award is not None
    assert one.award.period is not None
    return {day for day in days if day in one.award.period}


@settings(max_examples=300)
@given(st.integers(0, 2**32 - 1))
def test_each_expert_is_ruled_out_by_the_first_rule_that_applies(seed: int) -> None:
    chance = Chance(seed)
    partners = {name: chance.partner(name) for name in PARTNERS}
    experts = [chance.expert(name) for name in EXPERTS]
    requests = [chance.request() for _ in range(3)]
    listed = bench(experts, partners)
    for one in requests:
        assert one.asked is not None
        reasons = [oracle(expert, partners, one) for expert in experts]
        found = standing(listed, listed.everybody, (one, one.asked), TODAY)
        assert found.row.tolist() == [row for row, reason in enumerate(reasons) if reason is None]
        assert found.ruled_out == Counter(reason for reason in reasons if reason is not None)
        assert all(0 <= total <= 1000 for total in affinity(one.asked, found, listed.size[found.row]).tolist())
        for row, reason in enumerate(reasons):
            alone = standing(listed, listed.only(row), (one, one.asked), TODAY)
            assert alone.ruled_out == ({} if reason is None else {reason: 1})
            if reason is None:
                place = found.row.tolist().index(row)
                assert _columns(alone, 0) == _columns(found, place)


def _columns(of: Standing, nth: int) -> list[str]:
    return [str(column[nth]) for column in (of.row, of.skill, of.mode, of.distance_km, of.free_days)]


def test_the_made_up_worlds_have_every_reason_and_none() -> None:
    reasons: set[Reason | None] = set()
    for seed in range(100):
        chance = Chance(seed)
        partners = {name: chance.partner(name) for name in PARTNERS}
        reasons.update(oracle(chance.expert(name), partners, asks) for name in EXPERTS for asks in [chance.request()])
    assert reasons == {None, *Reason} - {Reason.AT_CAPACITY, Reason.PARTNER_AT_CAPACITY, Reason.OUTCOMPETED}


def fit(one: Expert, **given: Any) -> int:
    """The affinity of this expert to a request on these terms."""
    agency = given.pop("agency", SPRINGFIELD)
    subject = request(agency=agency, **given)
    assert subject.asked is not None
    listed = bench([one], {PartnerId("IACP"): partner()})
    found = standing(listed, listed.everybody, (subject, subject.asked), TODAY)
    assert found.ruled_out == {}
    (total,) = affinity(subject.asked, found, listed.size).tolist()
    return int(total)


def test_the_best_expert_there_could_be_has_affinity_1000() -> None:
    assert fit(expert()) == 1000


LESS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("a lower level", {"skills": (Skill(TOPIC, Level.PRACTITIONER),)}, {}),
    ("a smaller agency", {"sworn_band": SwornBand.UNDER_10}, {}),
    ("an unknown size", {"sworn_band": SwornBand.UNKNOWN}, {}),
    ("a longer way", {"home": NEW_YORK}, {}),
    ("days off", {"unavailable": (DateWindow(WINDOW.first, WINDOW.first + timedelta(days=20)),)}, {}),
    ("a topic not covered", {}, {"topics": (TOPIC, TopicCode("compstat"))}),
    (
        "a mode the agency likes less",
        {"delivery_modes": frozenset({DeliveryMode.WEB_BASED_TRAINING})},
        {"delivery_modes": (DeliveryMode.IN_PERSON_TRAINING, DeliveryMode.WEB_BASED_TRAINING)},
    ),
]


@pytest.mark.parametrize(("expert_has", "request_has"), [case[1:] for case in LESS], ids=[case[0] for case in LESS])
def test_whatever_fits_less_lowers_the_affinity(expert_has: dict[str, Any], request_has: dict[str, Any]) -> None:
    assert fit(expert(**expert_has), **request_has) < fit(expert())


def test_a_peer_from_a_larger_agency_is_as_good_as_one_of_the_same_size() -> None:
    assert fit(expert(sworn_band=SwornBand.FROM_500)) == fit(expert(sworn_band=SwornBand.FROM_50))


@pytest.mark.parametrize(
    "other", sorted(set(DeliveryMode) - {DeliveryMode.IN_PERSON_TRAINING, DeliveryMode.DATA_ANALYSIS})
)
def test_no_distance_outweighs_the_mode_the_agency_likes_best(other: DeliveryMode) -> None:
    modes = (DeliveryMode.IN_PERSON_TRAINING, other, DeliveryMode.DATA_ANALYSIS)
    preferred = expert(home=HONOLULU, delivery_modes=frozenset({modes[0]}))
    near = expert(home=CHICAGO, delivery_modes=frozenset({other}))
    assert fit(preferred, delivery_modes=modes) >= fit(near, delivery_modes=modes)


@settings(max_examples=100)
@given(*[st.floats(-89, 89), st.floats(-179, 179)] * 2)
@example(0.0, -1.0, 0.0, 179.0)
def test_distances_agree_with_another_formula(lat1: float, lon1: float, lat2: float, lon2: float) -> None:
    listed = bench([expert(home=Place(lat1, lon1), travel_limit_km=20_100)], {PartnerId("IACP"): partner()})
    agency = replace(SPRINGFIELD, place=Place(lat2, lon2))
    (found,) = standing(listed, listed.everybody, (request(agency=agency), asked(agency)), TODAY).distance_km.tolist()
    first, second = radians(lat1), radians(lat2)
    angle = sin(first) * sin(second) + cos(first) * cos(second) * cos(radians(lon2 - lon1))
    assert isclose(cos(found / 6371.0), angle, abs_tol=1e-9)


def test_an_expert_beyond_the_travel_limit_is_proposed_for_what_needs_no_travel() -> None:
    far = expert(home=DENVER, travel_limit_km=100)
    both = (DeliveryMode.IN_PERSON_TRAINING, DeliveryMode.WEB_BASED_TRAINING)
    listed = bench([far], {PartnerId("IACP"): partner()})
    assert standing(listed, listed.everybody, (request(), asked()), TODAY).ruled_out == {Reason.TOO_FAR: 1}
    assert standing(listed, listed.everybody, (request(), asked(delivery_modes=both)), TODAY).mode.tolist() == [1]
