"""The service level for a ruling runs in business hours, on the agency's clock, and speaks once."""

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.intake.decisions.clocks import BUSINESS_DAY, after_business_time, is_business_day, ring, ruling_clock

EASTERN = "America/New_York"


def at(text: str, zone: str = EASTERN) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


@pytest.mark.parametrize(
    "day",
    ["2026-01-01", "2026-07-03", "2026-11-26", "2026-12-25", "2021-12-31", "2026-06-19", "2026-10-12", "2026-03-07"],
)
def test_federal_holidays_as_observed_and_weekends_are_no_business_days(day: str) -> None:
    assert not is_business_day(date.fromisoformat(day))


@pytest.mark.parametrize("day", ["2026-01-02", "2026-11-27", "2026-07-06", "2026-12-24"])
def test_days_beside_holidays_are_business_days(day: str) -> None:
    assert is_business_day(date.fromisoformat(day))


@pytest.mark.parametrize(
    ("start", "due"),
    [
        ("2026-03-02 10:00", "2026-03-04 10:00"),  # Monday to Wednesday
        ("2026-03-05 10:00", "2026-03-09 10:00"),  # Thursday, over a weekend
        ("2026-03-07 12:00", "2026-03-10 17:00"),  # a Saturday counts from Monday's opening
        ("2026-03-02 19:30", "2026-03-04 17:00"),  # an evening counts from the next opening
        ("2026-11-25 16:00", "2026-11-30 16:00"),  # over Thanksgiving and a weekend
    ],
)
def test_two_business_days_end_at_the_same_time_of_day_or_at_closing(start: str, due: str) -> None:
    assert ruling_clock(at(start), EASTERN).due == at(due)


def test_the_agencys_time_zone_decides_when_business_begins() -> None:
    start = datetime(2026, 3, 2, 14, 0, tzinfo=UTC)  # 09:00 in New York, 04:00 in Honolulu
    assert ruling_clock(start, EASTERN).due == at("2026-03-04 09:00")
    assert ruling_clock(start, "Pacific/Honolulu").due == at("2026-03-03 17:00", "Pacific/Honolulu")


def business_minutes(start: datetime, end: datetime, zone: str) -> int:
    """An independent count: minute by minute on the absolute clock."""
    moment, minutes = start, 0
    while moment < end:
        local = moment.astimezone(ZoneInfo(zone))
        minutes += is_business_day(local.date()) and time(8) <= local.time() < time(17)
        moment += timedelta(minutes=1)
    return minutes


moments = st.integers(0, 350 * 24 * 60).map(
    lambda minutes: datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
)


@settings(max_examples=25)
@given(
    moments,
    st.integers(1, 20 * 60),
    st.sampled_from([EASTERN, "America/Phoenix", "Pacific/Honolulu", "Pacific/Guam", "America/Anchorage"]),
)
def test_exactly_as_much_business_time_passes_as_was_asked_for(start: datetime, minutes: int, zone: str) -> None:
    end = after_business_time(start, timedelta(minutes=minutes), zone)
    assert business_minutes(start, end, zone) == minutes
    assert business_minutes(start, end - timedelta(minutes=1), zone) == minutes - 1


def test_a_week_with_a_change_of_clocks_keeps_the_time_of_day() -> None:
    clock = ruling_clock(at("2026-03-06 10:00"), EASTERN)  # clocks go forward on Sunday 8 March
    assert clock.due == at("2026-03-10 10:00")
    assert clock.due - at("2026-03-06 10:00").astimezone(UTC) == timedelta(days=4) - timedelta(hours=1)


def test_a_clock_warns_once_and_is_breached_once() -> None:
    clock = ruling_clock(at("2026-03-02 10:00"), EASTERN)
    assert clock.warns_at == at("2026-03-03 10:00")
    heard: list[tuple[bool, bool]] = []
    for hours in range(0, 200, 5):
        clock, rung = ring(clock, at("2026-03-02 10:00") + timedelta(hours=hours))
        heard.append((rung.warned, rung.breached))
    assert sum(warned for warned, _ in heard) == 1
    assert sum(breached for _, breached in heard) == 1
    assert heard.index((True, False)) < heard.index((False, True))
    assert clock.rings_at is None


def test_a_clock_that_nobody_looked_at_says_both_at_once() -> None:
    clock = ruling_clock(at("2026-03-02 10:00"), EASTERN)
    clock, rung = ring(clock, clock.due)
    assert (rung.warned, rung.breached, clock.rings_at) == (True, True, None)


def test_a_business_day_has_nine_hours() -> None:
    assert after_business_time(at("2026-03-02 08:00"), BUSINESS_DAY, EASTERN) == at("2026-03-02 17:00")
