"""The service level for a ruling: business hours with federal holidays, in the agency's time zone.

The programme office answers within two business days [domain, section 2: met in sibling programmes]. Business hours are
08:00 to 17:00 on the agency's clock, Monday to Friday, federal holidays excepted [design decision].
"""

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo

import holidays

OPENS: Final = time(8)
CLOSES: Final = time(17)
BUSINESS_DAY: Final = timedelta(hours=CLOSES.hour - OPENS.hour)
RULING_WARNED_AFTER: Final = BUSINESS_DAY
RULING_DUE_AFTER: Final = 2 * BUSINESS_DAY
RULING_CLOCK: Final = "ruling"


@dataclass(frozen=True, slots=True)
class RulingClock:
    """When a ruling is due, and the next moment at which something is to be said about it; None once all is said."""

    warns_at: datetime
    due: datetime
    rings_at: datetime | None


@dataclass(frozen=True, slots=True)
class Rung:
    """What a clock says when it rings."""

    warned: bool = False
    breached: bool = False


def ruling_clock(started: datetime, zone: str) -> RulingClock:
    """The clock of a ruling that is asked for at this moment."""
    warns_at = after_business_time(started, RULING_WARNED_AFTER, zone)
    return RulingClock(warns_at, after_business_time(started, RULING_DUE_AFTER, zone), rings_at=warns_at)


def ring(clock: RulingClock, now: datetime) -> tuple[RulingClock, Rung]:
    """What the clock says by now, each thing once. A clock looked at late, after its due time, says both."""
    if clock.rings_at is None or now < clock.rings_at:
        return clock, Rung()
    breached = now >= clock.due
    rung = Rung(warned=clock.rings_at == clock.warns_at, breached=breached)
    return replace(clock, rings_at=None if breached else clock.due), rung


def after_business_time(start: datetime, duration: timedelta, zone: str) -> datetime:
    """The moment, in UTC, when this much business time has passed in the time zone."""
    agency_zone = ZoneInfo(zone)
    local = start.astimezone(agency_zone).replace(tzinfo=None)
    day, remaining = local.date(), duration
    begins = max(local, datetime.combine(day, OPENS))
    while True:
        ends = datetime.combine(day, CLOSES)
        if is_business_day(day) and begins < ends:
            if remaining <= ends - begins:
                return (begins + remaining).replace(tzinfo=agency_zone).astimezone(UTC)
            remaining -= ends - begins
        day += timedelta(days=1)
        begins = datetime.combine(day, OPENS)


def is_business_day(day: date) -> bool:
    """Monday to Friday, and no federal holiday."""
    return day.weekday() < 5 and day not in _federal_holidays(day.year)


@cache
def _federal_holidays(year: int) -> frozenset[date]:
    # Days on which they are observed are among them, also New Year's Day of the next year on 31 December.
    return frozenset(holidays.country_holidays("US", years=year))
