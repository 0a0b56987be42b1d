"""Rows of the FBI's list of agencies, and the sample that comes with the project."""

import csv
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.vocabulary import AgencyType, SwornBand
from services.intake.decisions.registry import ZONE_OF_STATE, Agency, UnusableRow, read_row, sworn_band

SAMPLE = Path(__file__).parents[2] / "services" / "console" / "data" / "agencies.csv"
GOOD = {
    "ori": "OH0250100",
    "agency_name": "Columbus Police Department",
    "agency_type": "municipal",
    "state": "OH",
    "county": "Franklin",
    "lat": "39.96",
    "lng": "-83.0",
    "sworn_officers": "49",
    "years_reported_of_10": "10",
    "zip": "43215",
}


def test_a_row_becomes_an_agency() -> None:
    agency = read_row(2, GOOD)
    assert isinstance(agency, Agency)
    assert (agency.ori, agency.agency_type, agency.county) == ("OH0250100", AgencyType.MUNICIPAL, "Franklin")
    assert (agency.time_zone, agency.sworn_band, agency.active) == ("America/New_York", SwornBand.FROM_10, True)


def test_what_is_not_known_stays_unknown() -> None:
    bare = {"ori": "OH0250100", "agency_name": "Columbus", "agency_type": "unknown", "state": "OH", "county": ""}
    agency = read_row(2, bare)
    assert isinstance(agency, Agency)
    assert (agency.place, agency.county, agency.sworn_officers, agency.active) == (None, None, None, False)
    assert agency.sworn_band is SwornBand.UNKNOWN
    assert agency.time_zone == "America/New_York"


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("ori", ""),
        ("ori", "oh0250100"),
        ("ori", "OH02501000"),
        ("ori", "OH0250100\n2"),
        ("agency_name", ""),
        ("agency_name", "x" * 301),
        ("agency_name", "a\x00b"),
        ("agency_type", "city"),
        ("state", "ZZ"),
        ("sworn_officers", "-1"),
        ("sworn_officers", "12.5"),
        ("sworn_officers", "9" * 30),
        ("years_reported_of_10", "11"),
        ("lat", "91"),
        ("lat", "nan"),
        ("lat", "north"),
        ("lng", "181"),
        ("lng", ""),
        ("county", "a\x1bb"),
    ],
)
def test_a_row_at_fault_is_named_by_line_and_column(column: str, text: str) -> None:
    row = read_row(17, GOOD | {column: text})
    assert isinstance(row, UnusableRow)
    assert row.line == 17
    assert [problem.field for problem in row.problems] == [column if column != "lng" or text else "lat"]


def test_a_row_that_is_too_short_is_refused() -> None:
    row = read_row(3, {"ori": "OH0250100", "agency_name": None, "agency_type": None, "state": None})
    assert isinstance(row, UnusableRow)
    assert [problem.field for problem in row.problems] == ["agency_name", "agency_type", "state"]


@given(st.dictionaries(st.sampled_from(sorted(GOOD)), st.none() | st.text(max_size=12), max_size=4))
def test_whatever_a_row_holds_it_is_read_or_refused(given_row: dict[str, str | None]) -> None:
    assert isinstance(read_row(2, GOOD | given_row), Agency | UnusableRow)


@pytest.mark.parametrize(
    ("sworn", "band"),
    [
        (0, "under_10"),
        (9, "under_10"),
        (10, "10_to_49"),
        (49, "10_to_49"),
        (50, "50_to_99"),
        (99, "50_to_99"),
        (100, "100_to_499"),
        (499, "100_to_499"),
        (500, "500_and_over"),
        (36_000, "500_and_over"),
        (None, "unknown"),
    ],
)
def test_the_band_follows_from_the_reported_number_alone(sworn: int | None, band: str) -> None:
    assert sworn_band(sworn) == band


@pytest.mark.parametrize(
    ("latitude", "longitude", "state", "zone"),
    [
        ("31.76", "-106.49", "TX", "America/Denver"),  # El Paso
        ("30.42", "-87.22", "FL", "America/Chicago"),  # Pensacola
        ("36.15", "-109.55", "AZ", "America/Denver"),  # Chinle, of the Navajo Nation, keeps summer time
        ("33.45", "-112.07", "AZ", "America/Phoenix"),
        ("13.47", "144.75", "GU", "Pacific/Guam"),
        ("30.0", "-40.0", "NY", "America/New_York"),  # in the Atlantic: the state's zone instead
    ],
)
def test_the_time_zone_is_that_of_the_place(latitude: str, longitude: str, state: str, zone: str) -> None:
    agency = read_row(2, GOOD | {"lat": latitude, "lng": longitude, "state": state})
    assert isinstance(agency, Agency)
    for moment in (datetime(2026, 1, 15, tzinfo=UTC), datetime(2026, 7, 15, tzinfo=UTC)):
        assert (
            moment.astimezone(ZoneInfo(agency.time_zone)).utcoffset() == moment.astimezone(ZoneInfo(zone)).utcoffset()
        )


def test_every_state_has_a_zone_that_exists() -> None:
    assert len(ZONE_OF_STATE) == 56  # 50 states, DC and five territories
    assert all(ZoneInfo(zone) for zone in ZONE_OF_STATE.values())


def sample() -> list[Agency | UnusableRow]:
    with SAMPLE.open(encoding="utf-8", newline="") as file:
        return [read_row(line, row) for line, row in enumerate(csv.DictReader(file), 2)]


def test_the_sample_has_about_a_hundred_agencies_of_every_kind_from_all_over_the_country() -> None:
    agencies = [row for row in sample() if isinstance(row, Agency)]
    assert len(agencies) == len(sample()) == 100
    assert len({agency.ori for agency in agencies}) == 100
    kinds = Counter(agency.agency_type for agency in agencies)
    assert set(kinds) == set(AgencyType)
    assert kinds[AgencyType.TRIBAL] >= 8
    assert kinds[AgencyType.CAMPUS] >= 10
    assert (kinds[AgencyType.FEDERAL], kinds[AgencyType.UNKNOWN]) == (1, 2)
    assert len({agency.state for agency in agencies}) >= 35


def test_every_agency_of_the_sample_keeps_a_time_zone_that_exists() -> None:
    for agency in sample():
        assert isinstance(agency, Agency)
        assert ZoneInfo(agency.time_zone)
