"""Days and hours on which an agency and experts can work, in whole days and UTC seconds.

A set of days is an int: bit n stands for the nth day of a horizon. Wall times become UTC by the IANA rules of their
zone: an hour that a change of clocks skips is taken as the hour after the change, one that comes twice as the first.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from typing import Final, TypeAlias
from zoneinfo import ZoneInfo

from holidays import country_holidays

from schemas.vocabulary import DateWindow

DaySet: TypeAlias = int
Minute: TypeAlias = int
"""Minutes after local midnight."""
Busy: TypeAlias = tuple[int, int]
"""Seconds since 1970 in UTC: from, included, to, excluded."""

DAY: Final[Minute] = 24 * 60
WORKDAY_OPENS: Final[Minute] = 8 * 60
WORKDAY_CLOSES: Final[Minute] = 18 * 60
"""An expert is called between 08:00 and 18:00 of the expert's own clock."""

_SATURDAY: Final = 5


@lru_cache(maxsize=1024)
def is_zone(key: str) -> bool:
    """Whether the IANA database has this time zone."""
    try:
        ZoneInfo(key)
    except (LookupError, ValueError, OSError):
        return False
    return True


def moment(zone: str, day: date, minute: Minute) -> datetime:
    """This wall time as UTC."""
    wall = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(zone)) + timedelta(minutes=minute)
    return wall.astimezone(UTC)


def local_day(zone: str, at: datetime) -> date:
    """The calendar day in the zone at this moment."""
    return at.astimezone(ZoneInfo(zone)).date()


@lru_cache(maxsize=512)
def _moments_of_year(zone: str, minute: Minute, year: int) -> tuple[int, ...]:
    first = datetime(year, 1, 1, tzinfo=ZoneInfo(zone)) + timedelta(minutes=minute)
    return tuple(int((first + timedelta(days=n)).timestamp()) for n in range(_days_in(year)))


@cache
def _workdays_of_year(year: int) -> DaySet:
    first = date(year, 1, 1)
    closed = country_holidays("US", years=year)
    days = (first + timedelta(days=n) for n in range(_days_in(year)))
    return sum(1 << n for n, day in enumerate(days) if day.weekday() < _SATURDAY and day not in closed)


def _days_in(year: int) -> int:
    return (date(year + 1, 1, 1) - date(year, 1, 1)).days


@lru_cache(maxsize=1024)
def _agreeable_of_year(zone: str, starts: Minute, ends: Minute, other: str, year: int) -> DaySet:
    year_of_days = Horizon(date(year, 1, 1), _days_in(year))
    begin, finish = year_of_days.moments(zone, starts), year_of_days.moments(zone, ends)
    found = 0
    for days_apart in (-1, 0, 1):
        opening = year_of_days.moments(other, WORKDAY_OPENS, days_apart)
        closing = year_of_days.moments(other, WORKDAY_CLOSES, days_apart)
        for n in range(year_of_days.days):
            if opening[n] <= begin[n] and finish[n] <= closing[n]:
                found |= 1 << n
    return found


@dataclass(frozen=True, slots=True)
class Horizon:
    """The consecutive days of the agency's calendar that are looked at."""

    first: date
    days: int

    @property
    def everything(self) -> DaySet:
        return (1 << self.days) - 1

    def day(self, nth: int) -> date:
        return self.first + timedelta(days=nth)

    def within(self, window: DateWindow) -> DaySet:
        """The days of the horizon that lie in the window."""
        start = max((window.first - self.first).days, 0)
        end = min((window.last - self.first).days + 1, self.days)
        return (1 << end) - (1 << start) if end > start else 0

    def since(self, first: date) -> DaySet:
        """The days of the horizon from this one on."""
        skipped = max((first - self.first).days, 0)
        return self.everything >> skipped << skipped

    def workdays(self) -> DaySet:
        """Neither Saturday, Sunday nor federal holiday (5 U.S.C. 6103, observed days included)."""
        return self._by_year(_workdays_of_year)

    def agreeable(self, zone: str, starts: Minute, ends: Minute, other: str) -> DaySet:
        """The days on which these hours of one zone lie between 08:00 and 18:00 of one day in the other."""
        return self._by_year(lambda year: _agreeable_of_year(zone, starts, ends, other, year))

    def moments(self, zone: str, minute: Minute, days_later: int = 0) -> list[int]:
        """UTC seconds of one wall time on every day of the horizon, or so many days after each."""
        found: list[int] = []
        day = self.first + timedelta(days=days_later)
        while len(found) < self.days:
            skipped = day.timetuple().tm_yday - 1
            found += _moments_of_year(zone, minute, day.year)[skipped : skipped + self.days - len(found)]
            day = date(day.year + 1, 1, 1)
        return found

    def _by_year(self, days_of: Callable[[int], DaySet]) -> DaySet:
        found, placed, day = 0, 0, self.first
        while placed < self.days:
            found |= days_of(day.year) >> (day.timetuple().tm_yday - 1) << placed
            day = date(day.year + 1, 1, 1)
            placed = (day - self.first).days
        return found & self.everything


def days_off(zone: str, window: DateWindow) -> Busy:
    """From midnight to midnight in the zone of whoever is off."""
    midnight = _moments_of_year(zone, 0, window.first.year)[window.first.timetuple().tm_yday - 1]
    after = window.last + timedelta(days=1)
    return midnight, _moments_of_year(zone, 0, after.year)[after.timetuple().tm_yday - 1]


def clashing(starts: Sequence[int], ends: Sequence[int], busy: Iterable[Busy]) -> DaySet:
    """The days whose interval, from starts[day] to ends[day], overlaps a busy one. Both sequences ascend."""
    found = 0
    for begins, finishes in busy:
        first = bisect_right(ends, begins)
        last = bisect_left(starts, finishes)
        if last > first:
            found |= (1 << last) - (1 << first)
    return found
