"""Days and hours: federal holidays, changes of clocks, hours that suit two zones, intervals that clash."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.vocabulary import DateWindow, Place
from services.scheduling.decisions.calendar import Horizon, clashing, days_off, is_zone, moment
from services.scheduling.decisions.travel import distance_km, travel_days
from tests.scheduling.federal_holidays import federal_holidays

ZONES = ("America/Chicago", "America/New_York", "America/Phoenix", "Pacific/Honolulu", "Pacific/Guam", "UTC")


def members(horizon: Horizon, found: int) -> list[date]:
    return [horizon.day(nth) for nth in range(horizon.days) if found >> nth & 1]


@given(st.dates(date(2021, 6, 19), date(2060, 1, 1)), st.integers(1, 800))
@settings(max_examples=60)
def test_workdays_are_neither_weekends_nor_holidays_of_the_federal_statute(first: date, length: int) -> None:
    horizon = Horizon(first, length)
    expected = [
        day
        for nth in range(length)
        if (day := first + timedelta(days=nth)).weekday() < 5 and day not in federal_holidays(day.year)
    ]
    assert members(horizon, horizon.workdays()) == expected


@given(
    st.dates(date(2026, 1, 1), date(2026, 12, 31)),
    st.integers(1, 40),
    st.dates(date(2025, 12, 1), date(2027, 2, 1)),
    st.integers(0, 60),
)
def test_a_window_and_a_first_day_cut_the_horizon_as_dates_do(first: date, length: int, start: date, more: int) -> None:
    horizon = Horizon(first, length)
    window = DateWindow(start, start + timedelta(days=more))
    everything = [first + timedelta(days=nth) for nth in range(length)]
    assert members(horizon, horizon.within(window)) == [day for day in everything if day in window]
    assert members(horizon, horizon.since(start)) == [day for day in everything if day >= start]


@pytest.mark.parametrize(
    ("day", "hour", "expected"),
    [
        ("2027-03-12", 9 * 60, "2027-03-12T15:00+00:00"),
        ("2027-03-15", 9 * 60, "2027-03-15T14:00+00:00"),
        ("2027-11-05", 9 * 60, "2027-11-05T14:00+00:00"),
        ("2027-11-08", 9 * 60, "2027-11-08T15:00+00:00"),
        # 02:30 does not exist on this day: an hour after 01:30 it is 03:30.
        ("2027-03-14", 2 * 60 + 30, "2027-03-14T08:30+00:00"),
        # 01:30 comes twice on this day: the first, still in summer time.
        ("2027-11-07", 1 * 60 + 30, "2027-11-07T06:30+00:00"),
    ],
)
def test_wall_times_become_utc_by_the_rules_of_that_day(day: str, hour: int, expected: str) -> None:
    found = moment("America/Chicago", date.fromisoformat(day), hour)
    assert found == datetime.fromisoformat(expected)
    assert found.tzinfo is UTC
    assert Horizon(date.fromisoformat(day), 1).moments("America/Chicago", hour) == [int(found.timestamp())]


def test_the_day_on_which_clocks_change_is_an_hour_shorter_or_longer() -> None:
    spring, autumn = date(2027, 3, 14), date(2027, 11, 7)
    hours = [
        (end - start) / 3600
        for start, end in (days_off("America/Chicago", DateWindow(day, day)) for day in (spring, autumn))
    ]
    assert hours == [23, 25]


@given(st.sampled_from(ZONES), st.dates(date(2026, 1, 1), date(2027, 12, 1)), st.integers(-3, 3))
def test_moments_shifted_by_days_are_those_of_the_later_day(zone: str, first: date, later: int) -> None:
    expected = [
        datetime(day.year, day.month, day.day, 9, tzinfo=ZoneInfo(zone)).timestamp()
        for nth in range(20)
        for day in [first + timedelta(days=nth + later)]
    ]
    assert Horizon(first, 20).moments(zone, 9 * 60, later) == expected


@given(
    st.sampled_from(ZONES), st.sampled_from(ZONES), st.integers(6, 20), st.dates(date(2026, 12, 20), date(2027, 12, 1))
)
@settings(max_examples=60)
def test_hours_suit_another_zone_when_its_own_clock_says_so(zone: str, other: str, hour: int, first: date) -> None:
    horizon = Horizon(first, 30)

    def suits(day: date) -> bool:
        start = datetime(day.year, day.month, day.day, hour, tzinfo=ZoneInfo(zone)).astimezone(ZoneInfo(other))
        end = start + timedelta(minutes=90)
        opens, closes = start.replace(hour=8, minute=0), start.replace(hour=18, minute=0)
        return opens <= start and end <= closes

    expected = [day for nth in range(30) if suits(day := first + timedelta(days=nth))]
    assert members(horizon, horizon.agreeable(zone, hour * 60, hour * 60 + 90, other)) == expected


@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=20),
    st.integers(1, 6),
    st.lists(st.tuples(st.integers(-5, 50), st.integers(1, 8)), max_size=4),
)
def test_a_day_clashes_when_its_interval_overlaps_a_busy_one(
    steps: list[int], length: int, raw: list[tuple[int, int]]
) -> None:
    starts = [sum(steps[: nth + 1]) for nth in range(len(steps))]
    ends = [start + length for start in starts]
    busy = [(start, start + more) for start, more in raw]
    expected = [
        any(begins < end and start < finishes for begins, finishes in busy)
        for start, end in zip(starts, ends, strict=True)
    ]
    found = clashing(starts, ends, busy)
    assert [bool(found >> nth & 1) for nth in range(len(starts))] == expected


@pytest.mark.parametrize("key", ["", "Nowhere/Town", "../etc/passwd", "/etc/passwd", "America", "a\x00b", "x" * 300])
def test_what_the_iana_database_does_not_have_is_no_zone(key: str) -> None:
    assert not is_zone(key)


def test_distances_agree_with_known_airports() -> None:
    # Great-circle distances as published for JFK-LAX (3,974 km) and JFK-LHR (5,540 km).
    jfk, lax, lhr = Place(40.6413, -73.7781), Place(33.9416, -118.4085), Place(51.4700, -0.4543)
    assert distance_km(jfk, lax) == pytest.approx(3974, rel=0.003)
    assert distance_km(jfk, lhr) == pytest.approx(5540, rel=0.003)
    assert distance_km(jfk, jfk) == 0
    assert distance_km(Place(0, 0), Place(0, 180)) == pytest.approx(20015, rel=0.001)


@pytest.mark.parametrize(
    ("distance", "expected"), [(None, 1), (0.0, 0), (100.0, 0), (100.1, 1), (3000.0, 1), (3000.1, 2), (20000.0, 2)]
)
def test_the_way_takes_days_by_its_length(distance: float | None, expected: int) -> None:
    assert travel_days(distance) == expected
