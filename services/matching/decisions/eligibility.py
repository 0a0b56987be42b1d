"""Who may be proposed for a request at all: hard rules, in an order that gives whoever is ruled out a first reason."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from typing import Final, TypeAlias

import numpy as np

from schemas.vocabulary import ON_SITE_MODES, AgencyType, Place
from services.matching.decisions.bench import Bench, Flags, Real, Whole, merged, on_unit_sphere, skill_points
from services.matching.decisions.conflicts import conflict_with, county
from services.matching.decisions.pool import Agency, Asked, Request, Terms

EARTH_RADIUS_KM: Final = 6371.0


class Reason(StrEnum):
    """Why an expert cannot be proposed, in the order in which it is looked at."""

    NO_EXPERT_FOR_TOPIC = "no_expert_for_topic"
    AGENCY_TYPE = "agency_type"
    DELIVERY_MODE = "delivery_mode"
    PARTNER_NOT_SELECTED = "partner_not_selected"
    CONFLICT_OF_INTEREST = "conflict_of_interest"
    DECLINED_BEFORE = "declined_before"
    TOO_FAR = "too_far"
    UNAVAILABLE = "unavailable"
    AT_CAPACITY = "at_capacity"
    PARTNER_AT_CAPACITY = "partner_at_capacity"
    OUTCOMPETED = "outcompeted"


_NO_MODE: Final = -1
"""In place of a delivery mode, where an expert can serve none of those asked for."""


Ask: TypeAlias = tuple[Request, Asked]
"""A request, and what it asks for."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How experts stand towards one request: who is left, in columns, and why the others are not."""

    row: Whole
    """Rows of the bench, ascending."""
    skill: Whole
    """Points of skill summed over the topics asked for."""
    mode: Whole
    """Index into the request's delivery modes of the first the expert can serve, travel considered."""
    distance_km: Real
    """From the expert's home to the agency; NaN where the agency's place is unknown."""
    free_days: Whole
    """Days of the window on which agency and expert both can."""
    open_days: int
    """Days of the window, from today on, on which the agency can."""
    ruled_out: Mapping[Reason, int]
    """How many each rule has ruled out first, without those that ruled out nobody."""

    def without(self, reason: Reason, out: Flags) -> "Standing":
        """The same without these experts, whom the reason rules out."""
        if not (count := int(np.count_nonzero(out))):
            return self
        left = ~out
        return replace(
            self,
            row=self.row[left],
            skill=self.skill[left],
            mode=self.mode[left],
            distance_km=self.distance_km[left],
            free_days=self.free_days[left],
            ruled_out={**self.ruled_out, reason: count},
        )


def standing(bench: Bench, among: Flags, ask: Ask, today: date) -> Standing:
    """How these experts of the bench stand towards the request, loads aside.

    An agency of unknown type or place is nobody's hindrance.
    """
    request, asked = ask
    terms = asked.terms
    skill = skill_points(bench, terms)
    rules: tuple[tuple[Reason, Flags], ...] = (
        (Reason.NO_EXPERT_FOR_TOPIC, skill > 0),
        (Reason.AGENCY_TYPE, _serves(bench, asked.agency)),
        (Reason.DELIVERY_MODE, np.logical_or.reduce([bench.offers[mode] for mode in terms.delivery_modes])),
        (Reason.PARTNER_NOT_SELECTED, _selected(bench, terms)),
        (Reason.CONFLICT_OF_INTEREST, ~_conflicted(bench, among, asked, today)),
        (Reason.DECLINED_BEFORE, ~_banned(bench, request)),
    )
    ruled_out: dict[Reason, int] = {}
    count = int(np.count_nonzero(among))
    for reason, met in rules:
        among = among & met
        if (left := int(np.count_nonzero(among))) < count:
            ruled_out[reason] = count - left
            count = left
    row = np.flatnonzero(among)
    distance = _distance_km(bench, row, asked.agency.place)
    mode = _first_mode(bench, row, terms, distance)
    open_days, free_days = _days(bench, row, terms, today)
    found = Standing(row, skill[row], mode, distance, free_days, open_days, ruled_out)
    found = found.without(Reason.TOO_FAR, found.mode == _NO_MODE)
    return found.without(Reason.UNAVAILABLE, found.free_days == 0)


def _serves(bench: Bench, agency: Agency) -> Flags:
    if agency.agency_type is AgencyType.UNKNOWN:
        return np.ones(len(bench), np.bool_)
    return bench.serves[agency.agency_type]


def _selected(bench: Bench, terms: Terms) -> Flags:
    first, last = terms.window.first.toordinal(), terms.window.last.toordinal()
    return (bench.award_first <= first) & (bench.award_last >= last)


def _conflicted(bench: Bench, among: Flags, asked: Asked, today: date) -> Flags:
    """The rule itself is asked only of those whom something ties to an agency of the request or to its topics."""
    suspects: set[int] = set()
    for ori in asked.agency.oris:
        suspects |= bench.tied.get(ori, frozenset()) | bench.tied.get(county(ori), frozenset())
    for topic in asked.terms.topics:
        suspects |= bench.sells.get(topic, frozenset())
    flags = np.zeros(len(bench), np.bool_)
    for row in suspects:
        partner = bench.partners.get(bench.profiles[row].partner_id)
        flags[row] = among[row] and conflict_with(bench.experts[row], partner, asked, today) is not None
    return flags


def _banned(bench: Bench, request: Request) -> Flags:
    flags = np.zeros(len(bench), np.bool_)
    for expert_id in request.barred_experts:
        row = bench.row.get(expert_id)
        if row is not None:
            flags[row] = True
    for partner_id in request.banned_partners:
        flags[bench.rows_of.get(partner_id, np.empty(0, np.int64))] = True
    return flags


def _distance_km(bench: Bench, row: Whole, place: Place | None) -> Real:
    """Great-circle distances, from the chords between points on the unit sphere."""
    if place is None:
        return np.full(row.size, np.nan)
    squares: list[Real] = [
        (home[row] - there) ** 2 for home, there in zip(bench.home, on_unit_sphere([place]), strict=True)
    ]
    chord = np.sqrt(squares[0] + squares[1] + squares[2])
    return 2 * EARTH_RADIUS_KM * np.arcsin(np.minimum(chord / 2, 1.0))


def _first_mode(bench: Bench, row: Whole, terms: Terms, distance: Real) -> Whole:
    """The first mode each expert can serve, travel considered."""
    reachable = ~(distance > bench.travel_limit_km[row])
    mode = np.full(row.size, _NO_MODE, np.int64)
    for rank, wanted in reversed(tuple(enumerate(terms.delivery_modes))):
        offers = bench.offers[wanted][row]
        np.copyto(mode, rank, where=offers & reachable if wanted in ON_SITE_MODES else offers)
    return mode


def _days(bench: Bench, row: Whole, terms: Terms, today: date) -> tuple[int, Whole]:
    """How many days of the window are not past and not ruled out by the agency, and each expert's free ones of them."""
    open_days = 0
    busy = np.zeros(len(bench))
    for first, last in open_spells(terms, today):
        open_days += last - first + 1
        off = np.minimum(bench.off_last, last) - np.maximum(bench.off_first, first) + 1
        busy += np.bincount(bench.off_row, np.maximum(off, 0), len(bench))
    return open_days, open_days - busy[row].astype(np.int64)


def open_spells(terms: Terms, today: date) -> list[tuple[int, int]]:
    """The window from today on without the agency's blackouts, as ordinals of first and last days."""
    spells: list[tuple[int, int]] = []
    start = max(terms.window.first, today).toordinal()
    end = terms.window.last.toordinal()
    for first, last in merged(terms.blackouts):
        spells.append((start, min(first - 1, end)))
        start = max(start, last + 1)
    spells.append((start, end))
    return [(first, last) for first, last in spells if first <= last]
