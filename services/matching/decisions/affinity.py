"""How well an expert fits a request: 0 to 1000, a sum of parts each of which can be said in plain words.

The programme says it looks at subject expertise, fit with the community, geography and load. Load is no part
of how one pair fits, but of the whole round: see assignment.py. The weights are a design decision: expertise counts
most, and an expert for the mode the agency likes best fits no worse than a nearer one for another mode.
"""

from math import isnan
from textwrap import shorten
from typing import Final

import numpy as np

from schemas.vocabulary import ON_SITE_MODES, DeliveryMode, Level
from services.matching.decisions.bench import SKILL_POINTS, UNKNOWN_SIZE, Real, Whole, size_of
from services.matching.decisions.eligibility import Standing
from services.matching.decisions.pool import Asked, Terms
from services.matching.decisions.roster import Profile

SUBJECT: Final = 400
"""Share of the topics asked for that the expert covers, each by level."""
PEER: Final = 200
"""The core match is a peer from an agency of comparable or larger size."""
MODE: Final = 200
"""Halved for the second mode in the agency's order of preference, a third of it for the third, and so on."""
DISTANCE: Final = 100
"""Nearness to the agency, where the expert has to travel; half of it where travel is unknown or not needed."""
DAYS: Final = 100
"""Share of the open days of the window on which the expert is free."""
BEST: Final = SUBJECT + PEER + MODE + DISTANCE + DAYS

FAR_KM: Final = 4000.0
"""About the breadth of the contiguous United States: beyond it all places are equally far."""

LONGEST_LIST: Final = 200
"""Characters of a list of topics within a reason."""

_PEER_POINTS: Final = np.array([PEER, 120, 60, 0, 0], np.int64)
"""By how many size bands the expert's agency is the smaller one."""


def affinity(asked: Asked, standing: Standing, size: Whole) -> Whole:
    """How well each expert of the standing fits, whose agencies are of these sizes."""
    terms = asked.terms
    subject = SUBJECT * standing.skill // (SKILL_POINTS[Level.LEAD] * len(terms.topics))
    mode = np.array([MODE // (rank + 1) for rank in range(len(terms.delivery_modes))], np.int64)[standing.mode]
    days = DAYS * standing.free_days // max(standing.open_days, 1)
    return subject + _peer(size_of(asked.agency.sworn_band), size) + mode + _nearness(terms, standing) + days


def reasons(profile: Profile, asked: Asked, standing: Standing, nth: int) -> tuple[str, ...]:
    """Why the nth pair of the standing, whose expert's profile this is: one sentence for each part of the affinity."""
    mode = int(standing.mode[nth])
    return (
        _says_subject(profile, asked.terms),
        _says_peer(size_of(profile.sworn_band), size_of(asked.agency.sworn_band)),
        _says_mode(mode, asked.terms),
        _says_distance(float(standing.distance_km[nth]), asked.terms.delivery_modes[mode]),
        f"Free on {standing.free_days[nth]} of the {standing.open_days} days of the window.",
    )


def _peer(wanted: int, size: Whole) -> Whole:
    if wanted == UNKNOWN_SIZE:
        return np.full(size.shape, PEER // 2, np.int64)
    points = _PEER_POINTS[(wanted - size).clip(0, len(_PEER_POINTS) - 1)]
    return np.where(size == UNKNOWN_SIZE, PEER // 2, points)


def _nearness(terms: Terms, standing: Standing) -> Whole:
    on_site = np.array([mode in ON_SITE_MODES for mode in terms.delivery_modes], np.bool_)
    travels = on_site[standing.mode] & ~np.isnan(standing.distance_km)
    # Unlike `minimum`, `fmin` leaves no NaN, which is no whole number.
    near: Real = DISTANCE * (1 - np.fmin(standing.distance_km, FAR_KM) / FAR_KM)
    return np.where(travels, near.astype(np.int64), DISTANCE // 2)


def _says_subject(profile: Profile, terms: Terms) -> str:
    levels = {one.topic: one.level for one in sorted(profile.skills, key=lambda one: SKILL_POINTS[one.level])}
    covered = [f"{topic} as {levels[topic]}" for topic in terms.topics if topic in levels]
    missing = len(terms.topics) - len(covered)
    rest = f", but not {missing} of the {len(terms.topics)} topics" if missing else ""
    return f"Covers {shorten(', '.join(covered), LONGEST_LIST, placeholder=' and more')}{rest}."


def _says_peer(own: int, size: int) -> str:
    if UNKNOWN_SIZE in (size, own):
        return "The sizes of the agencies cannot be compared."
    if own > size:
        return "A peer from a larger agency."
    return "A peer from an agency of comparable size." if own == size else "Comes from a smaller agency."


def _says_mode(rank: int, terms: Terms) -> str:
    name = terms.delivery_modes[rank].replace("_", " ")
    return f"Offers {name}, number {rank + 1} of the {len(terms.delivery_modes)} modes the agency named."


def _says_distance(distance_km: float, mode: DeliveryMode) -> str:
    if mode not in ON_SITE_MODES:
        return "No travel is needed."
    return "The distance is not known." if isnan(distance_km) else f"About {distance_km:.0f} km from the agency."
