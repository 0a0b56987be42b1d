"""Who may be proposed for a request at all: hard rules, in an order that gives whoever is ruled out a first reason."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import date
from enum import StrEnum
from typing import Final, TypeAlias

import numpy as np

from schemas.vocabulary import ON_SITE_MODES, AgencyType
from services.matching.decisions.bench import Bench, Flags, Real, Whole, merged, skill_points
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


REASONS: Final = tuple(Reason)
_INDEX: Final = {reason: nth for nth, reason in enumerate(REASONS)}
ELIGIBLE: Final = -1
NO_MODE: Final = -1


Ask: TypeAlias = tuple[Request, Asked]
"""A request, and what it asks for."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How experts stand towards requests, loads aside: a row a request and a column an expert, or a row a pair."""

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
    open_days: Whole
    """Days of the window, from today on, on which the agency can."""

    def of(self, request: Whole, expert: Whole) -> "Standing":
        """The same of these pairs only."""
        return Standing(*(getattr(self, one.name)[request, expert] for one in fields(self)))

    @classmethod
    def joined(cls, parts: "Sequence[Standing]") -> "Standing":
        """The pairs of all parts."""
        return cls(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(cls)))


def standing(bench: Bench, asks: Sequence[Ask], today: date) -> Standing:
    """How every expert stands towards each of these requests, of which there is at least one.

    An agency of unknown type or place is nobody's hindrance.
    """
    skill = np.stack([skill_points(bench, asked.terms) for _, asked in asks])
    distance = _distance_km(bench, asks)
    mode, offered = _first_mode(bench, asks, distance)
    open_days, free_days = _days(bench, asks, today)
    ruled_out = {
        Reason.NO_EXPERT_FOR_TOPIC: skill == 0,
        Reason.AGENCY_TYPE: ~np.stack([_serves(bench, asked.agency) for _, asked in asks]),
        Reason.DELIVERY_MODE: ~offered,
        Reason.PARTNER_NOT_SELECTED: _not_selected(bench, asks),
        Reason.CONFLICT_OF_INTEREST: _conflicted(bench, asks, today),
        Reason.DECLINED_BEFORE: _banned(bench, asks),
        Reason.TOO_FAR: mode == NO_MODE,
        Reason.UNAVAILABLE: free_days == 0,
    }
    return Standing(
        first_reason(ruled_out, skill.shape),
        skill,
        mode,
        distance,
        free_days,
        np.broadcast_to(open_days[:, np.newaxis], skill.shape),
    )


def first_reason(ruled_out: dict[Reason, Flags], shape: tuple[int, ...]) -> Whole:
    """Index into REASONS of the first that rules each out, or ELIGIBLE; whom each rules out comes in order."""
    reason = np.full(shape, ELIGIBLE, np.int64)
    for one, flags in reversed(ruled_out.items()):
        np.copyto(reason, _INDEX[one], where=flags)
    return reason


def _none(bench: Bench, asks: Sequence[Ask]) -> Flags:
    return np.zeros((len(asks), len(bench)), np.bool_)


def _serves(bench: Bench, agency: Agency) -> Flags:
    if agency.agency_type is AgencyType.UNKNOWN:
        return np.ones(len(bench), np.bool_)
    return bench.serves[agency.agency_type]


def _distance_km(bench: Bench, asks: Sequence[Ask]) -> Real:
    """Great-circle distances by the haversine formula."""
    places = [asked.agency.place for _, asked in asks]
    latitude = np.radians([[np.nan if place is None else place.latitude] for place in places])
    longitude = np.radians([[np.nan if place is None else place.longitude] for place in places])
    half_chord = (
        np.sin((bench.latitude - latitude) / 2) ** 2
        + np.cos(latitude) * np.cos(bench.latitude) * np.sin((bench.longitude - longitude) / 2) ** 2
    )
    return 2 * EARTH_RADIUS_KM * np.arcsin(np.sqrt(np.minimum(half_chord, 1.0)))


def _first_mode(bench: Bench, asks: Sequence[Ask], distance: Real) -> tuple[Whole, Flags]:
    """The first mode each expert can serve, travel considered; and who offers any at all."""
    reachable = ~(distance > bench.travel_limit_km)
    mode = np.full(distance.shape, NO_MODE, np.int64)
    offered = _none(bench, asks)
    for nth, (_, asked) in enumerate(asks):
        for rank, wanted in reversed(tuple(enumerate(asked.terms.delivery_modes))):
            offers = bench.offers[wanted]
            offered[nth] |= offers
            np.copyto(mode[nth], rank, where=offers & reachable[nth] if wanted in ON_SITE_MODES else offers)
    return mode, offered


def _days(bench: Bench, asks: Sequence[Ask], today: date) -> tuple[Whole, Whole]:
    """How many days of each window are not past and not ruled out by the agency, and each expert's free ones of them.

    The days off that fall into each open spell are summed up by expert, and these by request.
    """
    spells = [(nth, *spell) for nth, (_, asked) in enumerate(asks) for spell in open_spells(asked.terms, today)]
    request, first, last = np.array(spells, np.int64).reshape(-1, 3).T
    open_days = np.bincount(request, last - first + 1, len(asks)).astype(np.int64)
    busy = np.zeros((len(asks), len(bench)), np.int64)
    if spells and bench.off_row.size:
        off = np.minimum(bench.off_last, last[:, np.newaxis]) - np.maximum(bench.off_first, first[:, np.newaxis]) + 1
        experts, requests = _begins(bench.off_row), _begins(request)
        summed = np.add.reduceat(np.add.reduceat(np.maximum(off, 0), experts, axis=1), requests, axis=0)
        busy[np.ix_(request[requests], bench.off_row[experts])] = summed
    return open_days, open_days[:, np.newaxis] - busy


def _begins(ascending: Whole) -> Whole:
    """Where each run of equal numbers begins."""
    return np.flatnonzero(np.diff(ascending, prepend=-1))


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


def _not_selected(bench: Bench, asks: Sequence[Ask]) -> Flags:
    windows = [asked.terms.window for _, asked in asks]
    first = np.array([[window.first.toordinal()] for window in windows], np.int64)
    last = np.array([[window.last.toordinal()] for window in windows], np.int64)
    return (bench.award_first > first) | (bench.award_last < last)


def _conflicted(bench: Bench, asks: Sequence[Ask], today: date) -> Flags:
    """The rule itself is asked only of those whom something ties to an agency of the request or to its topics."""
    flags = _none(bench, asks)
    for nth, (_, asked) in enumerate(asks):
        suspects: set[int] = set()
        for ori in asked.agency.oris:
            suspects |= bench.tied.get(ori, frozenset()) | bench.tied.get(county(ori), frozenset())
        for topic in asked.terms.topics:
            suspects |= bench.sells.get(topic, frozenset())
        for row in suspects:
            partner = bench.partners.get(bench.profiles[row].partner_id)
            flags[nth, row] = conflict_with(bench.experts[row], partner, asked, today) is not None
    return flags


def _banned(bench: Bench, asks: Sequence[Ask]) -> Flags:
    flags = _none(bench, asks)
    for nth, (request, _) in enumerate(asks):
        for expert_id in request.barred_experts:
            row = bench.row.get(expert_id)
            if row is not None:
                flags[nth, row] = True
        for partner_id in request.banned_partners:
            flags[nth, bench.rows_of.get(partner_id, np.empty(0, np.int64))] = True
    return flags
