"""The federal holidays of 5 U.S.C. 6103 by its own words, as an oracle for the library that scheduling uses."""

from datetime import date, timedelta
from functools import cache

MONDAY, THURSDAY, SATURDAY, SUNDAY = 0, 3, 5, 6


def _nth(year: int, month: int, weekday: int, nth: int) -> date:
    first = date(year, month, 1)
    return first + timedelta(days=(weekday - first.weekday()) % 7 + 7 * (nth - 1))


def _observed(day: date) -> list[date]:
    """One on a Saturday is also kept on the Friday before, one on a Sunday on the Monday after."""
    if day.weekday() == SATURDAY:
        return [day, day - timedelta(days=1)]
    if day.weekday() == SUNDAY:
        return [day, day + timedelta(days=1)]
    return [day]


@cache
def federal_holidays(year: int) -> frozenset[date]:
    """From 2021 on, when Juneteenth became one."""
    fixed = [
        date(year, 1, 1),
        date(year, 6, 19),
        date(year, 7, 4),
        date(year, 11, 11),
        date(year, 12, 25),
        date(year + 1, 1, 1),
    ]
    last_of_may = date(year, 5, 31)
    moving = [
        _nth(year, 1, MONDAY, 3),
        _nth(year, 2, MONDAY, 3),
        last_of_may - timedelta(days=last_of_may.weekday()),
        _nth(year, 9, MONDAY, 1),
        _nth(year, 10, MONDAY, 2),
        _nth(year, 11, THURSDAY, 4),
    ]
    return frozenset(day for kept in (*map(_observed, fixed), moving) for day in kept if day.year == year)
