"""The registry of agencies: what intake knows of each by its ORI, and how a row of the FBI's list is read.

The list's columns are those of the FBI Crime Data Explorer: ori, agency_name, agency_type, state, county, lat, lng,
sworn_officers, years_reported_of_10. Other columns are passed over.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime
from types import MappingProxyType
from typing import Final
from zoneinfo import ZoneInfo

from tzfpy import get_tz

from schemas.vocabulary import ORI_PATTERN, AgencyType, Ori, Place, RequestId, SwornBand, TopicCode
from services.intake.decisions.problems import Problem
from services.intake.decisions.request import Request

COLUMNS: Final = ("ori", "agency_name", "agency_type", "state")
"""Columns without which no row can be read."""

_ORI: Final = re.compile(ORI_PATTERN)
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f]")
_LONGEST_NAME: Final = 300
_MOST_SWORN: Final = 1_000_000
_BANDS: Final = (
    (10, SwornBand.UNDER_10),
    (50, SwornBand.FROM_10),
    (100, SwornBand.FROM_50),
    (500, SwornBand.FROM_100),
    (_MOST_SWORN, SwornBand.FROM_500),
)
_ZONES_OF_STATES: Final = {
    "America/Anchorage": "AK",
    "America/Chicago": "AL AR IA IL KS LA MN MO MS ND NE OK SD TN TX WI",
    "America/Phoenix": "AZ",
    "America/Denver": "CO MT NM UT WY",
    "America/Boise": "ID",
    "America/Los_Angeles": "CA NV OR WA",
    "America/New_York": "CT DC DE FL GA KY MA MD ME NC NH NJ NY OH PA RI SC VA VT WV",
    "America/Detroit": "MI",
    "America/Indiana/Indianapolis": "IN",
    "Pacific/Honolulu": "HI",
    "Pacific/Guam": "GU MP",
    "Pacific/Pago_Pago": "AS",
    "America/Puerto_Rico": "PR",
    "America/St_Thomas": "VI",
}
ZONE_OF_STATE: Final[Mapping[str, str]] = MappingProxyType(
    {state: zone for zone, states in _ZONES_OF_STATES.items() for state in states.split()}
)
"""The time zone in which most people of a state or territory live: for agencies without a usable place."""


@dataclass(frozen=True, slots=True)
class Agency:
    """A law-enforcement agency. `active` says that it sent the FBI crime data in at least one of ten years."""

    ori: Ori
    name: str
    agency_type: AgencyType
    state: str
    county: str | None
    place: Place | None
    time_zone: str
    sworn_officers: int | None
    sworn_band: SwornBand
    active: bool

    def day(self, moment: datetime) -> date:
        """The day on the agency's calendar."""
        return moment.astimezone(ZoneInfo(self.time_zone)).date()


@dataclass(frozen=True, slots=True)
class Standing:
    """An agency and the topics for which it has an open request."""

    agency: Agency
    open_topics: Mapping[TopicCode, RequestId]

    def with_request(self, request: Request) -> "Standing":
        """How the agency stands once the request is as given."""
        others = {topic: holder for topic, holder in self.open_topics.items() if holder != request.request_id}
        own = dict.fromkeys(request.terms.topics, request.request_id) if request.is_open else {}
        return replace(self, open_topics=others | own)


@dataclass(frozen=True, slots=True)
class UnusableRow:
    """A row of an agency list that cannot be imported. Lines count from 1, the header included."""

    line: int
    problems: tuple[Problem, ...]


def read_row(line: int, columns: Mapping[str, str | None]) -> Agency | UnusableRow:
    """An agency from a row of the list; `columns` maps the column's name to its text."""
    row = {name: (text or "").strip() for name, text in columns.items()}
    problems = tuple(_faults(row))
    if problems:
        return UnusableRow(line, problems)
    place = _place(row)
    sworn = int(row["sworn_officers"]) if row.get("sworn_officers") else None
    return Agency(
        ori=Ori(row["ori"]),
        name=row["agency_name"],
        agency_type=AgencyType(row["agency_type"]),
        state=row["state"],
        county=row.get("county") or None,
        place=place,
        time_zone=_time_zone(row["state"], place),
        sworn_officers=sworn,
        sworn_band=sworn_band(sworn),
        active=int(row.get("years_reported_of_10") or 0) > 0,
    )


def sworn_band(sworn_officers: int | None) -> SwornBand:
    """The band of a reported number of sworn officers. Nothing is estimated: no number, no band."""
    if sworn_officers is None:
        return SwornBand.UNKNOWN
    return next(band for below, band in _BANDS if sworn_officers < below)


def _faults(row: Mapping[str, str]) -> list[Problem]:
    faults = [Problem(name, "is missing") for name in COLUMNS if not row.get(name)]
    if faults:
        return faults
    if not _ORI.match(row["ori"]):
        faults.append(Problem("ori", "an ORI has nine characters, A to Z and 0 to 9, the first two of them letters"))
    if len(row["agency_name"]) > _LONGEST_NAME or _UNPRINTABLE.search(row["agency_name"]):
        faults.append(Problem("agency_name", f"is longer than {_LONGEST_NAME} characters or has unprintable ones"))
    if row["agency_type"] not in set(AgencyType):
        faults.append(Problem("agency_type", f"is none of: {', '.join(AgencyType)}"))
    if row["state"] not in ZONE_OF_STATE:
        faults.append(Problem("state", "is no USPS code of a state or territory"))
    if _UNPRINTABLE.search(row.get("county", "")):
        faults.append(Problem("county", "has unprintable characters"))
    for name, most in (("sworn_officers", _MOST_SWORN - 1), ("years_reported_of_10", 10)):
        text = row.get(name, "")
        if text and not (text.isascii() and text.isdigit() and len(text) <= 7 and int(text) <= most):
            faults.append(Problem(name, f"is no whole number from 0 to {most}"))
    for name, most in (("lat", 90), ("lng", 180)):
        if row.get(name) and not _is_degrees(row[name], most):
            faults.append(Problem(name, f"is no number of degrees from -{most} to {most}"))
    if bool(row.get("lat")) != bool(row.get("lng")):
        faults.append(Problem("lat", "latitude and longitude come together or not at all"))
    return faults


def _is_degrees(text: str, most: int) -> bool:
    try:
        degrees = float(text)
    except ValueError:
        return False
    return math.isfinite(degrees) and -most <= degrees <= most


def _place(row: Mapping[str, str]) -> Place | None:
    return Place(float(row["lat"]), float(row["lng"])) if row.get("lat") else None


def _time_zone(state: str, place: Place | None) -> str:
    zone = get_tz(place.longitude, place.latitude) if place is not None else ""
    # A place off the coast lies in a nautical zone, which no agency's clock shows.
    return zone if zone and not zone.startswith("Etc/") else ZONE_OF_STATE[state]
