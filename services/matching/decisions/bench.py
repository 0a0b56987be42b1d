"""The experts of a round in columns, so that a rule is one expression over all of them instead of a loop over pairs."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.vocabulary import (
    AgencyType,
    DateWindow,
    DeliveryMode,
    ExpertId,
    Level,
    PartnerId,
    Place,
    SwornBand,
    TopicCode,
)
from services.matching.decisions.conflicts import FELT_NEXT_DOOR, county
from services.matching.decisions.pool import Terms
from services.matching.decisions.roster import Expert, Partner, Profile

Flags = NDArray[np.bool_]
Whole = NDArray[np.int64]
Real = NDArray[np.float64]

SIZES: Final = (SwornBand.UNDER_10, SwornBand.FROM_10, SwornBand.FROM_50, SwornBand.FROM_100, SwornBand.FROM_500)
UNKNOWN_SIZE: Final = -1

SKILL_POINTS: Final = {Level.PRACTITIONER: 70, Level.INSTRUCTOR: 85, Level.LEAD: 100}


@dataclass(frozen=True, slots=True)
class Bench:
    """All listed experts, in the order of their ids, in columns; and indexes to those a rule may concern."""

    experts: tuple[Expert, ...]
    profiles: tuple[Profile, ...]
    partners: Mapping[PartnerId, Partner]
    row: Mapping[ExpertId, int]
    rows_of: Mapping[PartnerId, Whole]
    skill: Mapping[TopicCode, Whole]
    """Points of skill by topic; 0 where the expert does not cover it."""
    offers: Mapping[DeliveryMode, Flags]
    serves: Mapping[AgencyType, Flags]
    size: Whole
    home: Real
    """Homes as points on the unit sphere: a row a coordinate."""
    travel_limit_km: Real
    load_limit: Whole
    partner: Whole
    """Index of the partner among `rows_of`, whose keys are in order."""
    award_first: Whole
    """First day of the partner's award as an ordinal; without an award, a day after every other."""
    award_last: Whole
    off_row: Whole
    """The expert of each spell of days off; spells of one expert neither meet nor overlap."""
    off_first: Whole
    off_last: Whole
    tied: Mapping[str, frozenset[int]]
    """Experts whom a job or a declared conflict ties to an ORI, or to a whole county."""
    sells: Mapping[TopicCode, frozenset[int]]

    def __len__(self) -> int:
        return len(self.experts)

    @property
    def everybody(self) -> Flags:
        """All of them."""
        return np.ones(len(self), np.bool_)

    def only(self, row: int) -> Flags:
        """This one of them."""
        return np.arange(len(self)) == row


@dataclass(frozen=True)
class Roster:
    """All partners and experts as they stand at one time. The columns are made once, however many rounds they serve."""

    experts: Mapping[ExpertId, Expert]
    partners: Mapping[PartnerId, Partner]

    @cached_property
    def bench(self) -> Bench:
        """The listed experts in columns."""
        return bench(self.experts.values(), self.partners)


def bench(experts: Iterable[Expert], partners: Mapping[PartnerId, Partner]) -> Bench:
    """The listed experts in columns."""
    listed = [(one, one.profile) for one in sorted(experts, key=lambda one: one.expert_id) if one.profile is not None]
    ours = tuple(expert for expert, _ in listed)
    profiles = tuple(profile for _, profile in listed)
    rows_of: defaultdict[PartnerId, list[int]] = defaultdict(list)
    skill: defaultdict[TopicCode, Whole] = defaultdict(lambda: np.zeros(len(ours), np.int64))
    tied: defaultdict[str, set[int]] = defaultdict(set)
    sells: defaultdict[TopicCode, set[int]] = defaultdict(set)
    spells: list[tuple[int, int, int]] = []
    for row, (expert, profile) in enumerate(listed):
        rows_of[profile.partner_id].append(row)
        for one in profile.skills:
            skill[one.topic][row] = max(skill[one.topic][row], SKILL_POINTS[one.level])
        for topic in profile.vendor_topics:
            sells[topic].add(row)
        partner = partners.get(profile.partner_id)
        for tie in _ties(expert, partner, profile):
            tied[tie].add(row)
        spells.extend((row, first, last) for first, last in merged(expert.unavailable))
    partner_ids = sorted(rows_of)
    partner_index = {partner_id: nth for nth, partner_id in enumerate(partner_ids)}
    off = np.array(spells, np.int64).reshape(-1, 3)
    awards = np.array([_award_days(partners.get(one.partner_id)) for one in profiles], np.int64).reshape(-1, 2)
    return Bench(
        experts=ours,
        profiles=profiles,
        partners=partners,
        row={expert.expert_id: row for row, expert in enumerate(ours)},
        rows_of={partner_id: np.array(rows_of[partner_id], np.int64) for partner_id in partner_ids},
        skill=dict(skill),
        offers={mode: np.array([mode in one.delivery_modes for one in profiles], np.bool_) for mode in DeliveryMode},
        serves={kind: np.array([kind in one.agency_types for one in profiles], np.bool_) for kind in AgencyType},
        size=np.array([size_of(profile.sworn_band) for profile in profiles], np.int64),
        home=on_unit_sphere([profile.home for profile in profiles]),
        travel_limit_km=np.array([profile.travel_limit_km for profile in profiles], np.float64),
        load_limit=np.array([profile.load_limit for profile in profiles], np.int64),
        partner=np.array([partner_index[profile.partner_id] for profile in profiles], np.int64),
        award_first=awards[:, 0],
        award_last=awards[:, 1],
        off_row=off[:, 0],
        off_first=off[:, 1],
        off_last=off[:, 2],
        tied={tie: frozenset(rows) for tie, rows in tied.items()},
        sells={topic: frozenset(rows) for topic, rows in sells.items()},
    )


def skill_points(bench: Bench, terms: Terms) -> Whole:
    """Points of skill summed over the topics asked for."""
    points = np.zeros(len(bench), np.int64)
    for topic in terms.topics:
        points += bench.skill.get(topic, 0)
    return points


def on_unit_sphere(places: Sequence[Place]) -> Real:
    """The places as points on the unit sphere: a row a coordinate, a column a place."""
    latitude = np.radians([place.latitude for place in places])
    longitude = np.radians([place.longitude for place in places])
    return np.stack((np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)))


def size_of(band: SwornBand) -> int:
    """The band's rank among the sizes, or UNKNOWN_SIZE."""
    return UNKNOWN_SIZE if band is SwornBand.UNKNOWN else SIZES.index(band)


def merged(spells: Iterable[DateWindow]) -> list[tuple[int, int]]:
    """The same days as spells in order that neither meet nor overlap, as ordinals of their first and last days."""
    result: list[tuple[int, int]] = []
    for first, last in sorted((spell.first.toordinal(), spell.last.toordinal()) for spell in spells):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(last, result[-1][1]))
        else:
            result.append((first, last))
    return result


def _award_days(partner: Partner | None) -> tuple[int, int]:
    if partner is None or partner.award is None:
        return date.max.toordinal() + 1, 0
    period = partner.award.period
    return (0, date.max.toordinal()) if period is None else (period.first.toordinal(), period.last.toordinal())


def _ties(expert: Expert, partner: Partner | None, profile: Profile) -> Iterator[str]:
    for one in (*expert.conflicts, *(() if partner is None else partner.conflicts)):
        yield county(one.ori) if one.kind in FELT_NEXT_DOOR else one.ori
    for job in profile.employments:
        yield job.ori
