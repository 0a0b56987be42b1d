"""Who may be proposed for a request at all: hard rules, in an order that gives whoever is ruled out a first reason."""

from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from typing import Final

import numpy as np

from schemas.vocabulary import ON_SITE_MODES, AgencyType, DateWindow
from services.matching.decisions.bench import Bench, Flags, Real, Whole, merged, skill_points
from services.matching.decisions.conflicts import conflict_with, county
from services.matching.decisions.pool import Agency, Asked, Request, Terms
from services.matching.decisions.roster import Award

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


REASONS: Final = tuple(Reason)
_INDEX: Final = {reason: nth for nth, reason in enumerate(REASONS)}
ELIGIBLE: Final = -1
NO_MODE: Final = -1


@dataclass(frozen=True, slots=True)
class Standing:
    """How experts stand towards one request, loads aside."""

    reason: Whole
    """Index into REASONS of what rules the expert out first, or ELIGIBLE."""
    skill: Whole
    """Points of skill summed over the topics asked for."""
    mode: Whole
    """Index into the request's delivery modes of the first the expert can serve, or NO_MODE."""
    distance_km: Real
    """From the expert's home to the agency; NaN where the agency's place is unknown."""
    free_days: Whole
    """Days of the window on which agency and expert both can."""
    open_days: int
    """Days of the window, from today on, on which the agency can."""

    def of(self, rows: Whole) -> "Standing":
        """The same of these rows only."""
        return Standing(
            self.reason[rows],
            self.skill[rows],
            self.mode[rows],
            self.distance_km[rows],
            self.free_days[rows],
            self.open_days,
        )


def standing(bench: Bench, request: Request, asked: Asked, today: date) -> Standing:
    """How every expert stands towards the request. An agency of unknown type or place is nobody's hindrance."""
    agency, terms = asked.agency, asked.terms
    skill = skill_points(bench, terms)
    distance = _distance_km(bench, agency)
    mode, offered = _first_mode(bench, terms, distance)
    open_days, free_days = _days(bench, terms, today)
    ruled_out = {
        Reason.NO_EXPERT_FOR_TOPIC: skill == 0,
        Reason.AGENCY_TYPE: ~_serves(bench, agency),
        Reason.DELIVERY_MODE: ~offered,
        Reason.PARTNER_NOT_SELECTED: _not_selected(bench, terms),
        Reason.CONFLICT_OF_INTEREST: _conflicted(bench, asked, today),
        Reason.DECLINED_BEFORE: _banned(bench, request),
        Reason.TOO_FAR: mode == NO_MODE,
        Reason.UNAVAILABLE: free_days == 0,
    }
    return Standing(first_reason(bench, ruled_out), skill, mode, distance, free_days, open_days)


def first_reason(bench: Bench, ruled_out: dict[Reason, Flags]) -> Whole:
    """Index into REASONS of the first that rules each expert out, or ELIGIBLE; whom each rules out comes in order."""
    reason = np.full(len(bench), ELIGIBLE, np.int64)
    for one, flags in reversed(ruled_out.items()):
        reason[flags] = _INDEX[one]
    return reason


def _none(bench: Bench) -> Flags:
    return np.zeros(len(bench), np.bool_)


def _serves(bench: Bench, agency: Agency) -> Flags:
    return ~_none(bench) if agency.agency_type is AgencyType.UNKNOWN else bench.serves[agency.agency_type]


def _distance_km(bench: Bench, agency: Agency) -> Real:
    """Great-circle distances by the haversine formula."""
    if agency.place is None:
        return np.full(len(bench), np.nan)
    latitude, longitude = np.radians(agency.place.latitude), np.radians(agency.place.longitude)
    half_chord = (
        np.sin((bench.latitude - latitude) / 2) ** 2
        + np.cos(latitude) * np.cos(bench.latitude) * np.sin((bench.longitude - longitude) / 2) ** 2
    )
    return 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.minimum(half_chord, 1.0)))


def _first_mode(bench: Bench, terms: Terms, distance: Real) -> tuple[Whole, Flags]:
    """The first mode each expert can serve, travel considered; and who offers any at all."""
    reachable = ~(distance > bench.travel_limit_km)
    mode = np.full(len(bench), NO_MODE, np.int64)
    offered = _none(bench)
    for rank, wanted in reversed(tuple(enumerate(terms.delivery_modes))):
        offers = bench.offers[wanted]
        offered = offered | offers
        mode[offers & reachable if wanted in ON_SITE_MODES else offers] = rank
    return mode, offered


def _days(bench: Bench, terms: Terms, today: date) -> tuple[int, Whole]:
    """How many days of the window are not past and not ruled out by the agency, and each expert's free ones of them."""
    open_days = 0
    busy = np.zeros(len(bench), np.int64)
    for first, last in open_spells(terms, today):
        open_days += last - first + 1
        overlap = np.minimum(bench.off_last, last) - np.maximum(bench.off_first, first) + 1
        busy += np.bincount(bench.off_row, np.maximum(overlap, 0), len(bench)).astype(np.int64)
    return open_days, open_days - busy


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


def _not_selected(bench: Bench, terms: Terms) -> Flags:
    flags = _none(bench)
    for partner_id, rows in bench.rows_of.items():
        partner = bench.partners.get(partner_id)
        if partner is None or partner.award is None or not _covers(partner.award, terms.window):
            flags[rows] = True
    return flags


def _covers(award: Award, window: DateWindow) -> bool:
    return award.period is None or (window.first in award.period and window.last in award.period)


def _conflicted(bench: Bench, asked: Asked, today: date) -> Flags:
    """The rule itself is asked only of those whom something ties to an agency of the request or to its topics."""
    suspects: set[int] = set()
    for ori in asked.agency.oris:
        suspects |= bench.tied.get(ori, frozenset()) | bench.tied.get(county(ori), frozenset())
    for topic in asked.terms.topics:
        suspects |= bench.sells.get(topic, frozenset())
    flags = _none(bench)
    for row in suspects:
        partner = bench.partners.get(bench.profiles[row].partner_id)
        flags[row] = conflict_with(bench.experts[row], partner, asked, today) is not None
    return flags


def _banned(bench: Bench, request: Request) -> Flags:
    flags = _none(bench)
    for expert_id in request.barred_experts:
        row = bench.row.get(expert_id)
        if row is not None:
            flags[row] = True
    for partner_id in request.banned_partners:
        flags[bench.rows_of.get(partner_id, np.empty(0, np.int64))] = True
    return flags
