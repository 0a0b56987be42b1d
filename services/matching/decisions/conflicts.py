"""Conflicts of interest: hard, and looked at before anybody is invited."""

from datetime import date
from typing import Final

from schemas.vocabulary import WAIVABLE, ConflictKind, Ori
from services.matching.decisions.pool import Agency, Asked
from services.matching.decisions.roster import Conflict, Employment, Expert, Partner

RECENT_YEARS: Final = 3
"""How long a former employment stays a conflict."""

FELT_NEXT_DOOR: Final = frozenset({ConflictKind.LITIGATION, ConflictKind.LABOUR_DISPUTE})
"""Kinds that bar an expert from the agency's neighbours too."""


def county(ori: Ori) -> str:
    """State and county, the first five characters of an ORI: agencies that share them are neighbours."""
    return ori[:5]


def conflict_with(expert: Expert, partner: Partner | None, asked: Asked, today: date) -> ConflictKind | None:
    """What bars the expert from this request, or None.

    Every agency of a joint request counts, and what is declared of a partner counts for each of its experts. Only what
    is WAIVABLE is cleared by a waiver.
    """
    profile = expert.profile
    if profile is not None:
        if profile.vendor_topics.intersection(asked.terms.topics):
            return ConflictKind.VENDOR_INTEREST
        if any(_is_recent(job, asked, today) for job in profile.employments):
            return ConflictKind.EMPLOYMENT
    declared = (*expert.conflicts, *(() if partner is None else partner.conflicts))
    return next((one.kind for one in declared if _bars(one, asked.agency)), None)


def _is_recent(job: Employment, asked: Asked, today: date) -> bool:
    """Whether the expert worked there in the years before today, or before the window if that begins earlier."""
    cleared = years_before(min(today, asked.terms.window.first), RECENT_YEARS)
    return job.ori in asked.agency.oris and (job.until is None or job.until >= cleared)


def years_before(day: date, years: int) -> date:
    """The same day so many years earlier; of 29 February, the 28th where there is none."""
    try:
        return day.replace(year=day.year - years)
    except ValueError:
        return day.replace(year=day.year - years, day=28)


def _bars(conflict: Conflict, agency: Agency) -> bool:
    if conflict.waived and conflict.kind in WAIVABLE:
        return False
    if conflict.kind in FELT_NEXT_DOOR:
        return any(county(conflict.ori) == county(ori) for ori in agency.oris)
    return conflict.ori in agency.oris
