"""The days on which a session could start, as far as the agency, its experts and the way between them allow."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Final

from schemas.vocabulary import DateWindow, ExpertId
from services.scheduling.decisions.calendar import Busy, DaySet, Horizon, clashing, days_off, local_day
from services.scheduling.decisions.outline import LEAD_VIRTUAL, Hours, Outline
from services.scheduling.decisions.plan import Attendant, Order, Terms
from services.scheduling.decisions.travel import distance_km, travel_days

LOOK_AHEAD_DAYS: Final = 366
"""Sessions are placed within a year of the first possible day: nobody's calendar reaches further."""


@dataclass(frozen=True, slots=True)
class Calendar:
    """What takes one expert's time."""

    expert_id: ExpertId
    time_zone: str
    busy: tuple[Busy, ...]


@dataclass(frozen=True, slots=True)
class Board:
    """The agency's days that are looked at, and the calendars of those who come, who travel `travel` days each way."""

    time_zone: str
    today: date
    horizon: Horizon
    open_days: DaySet
    calendars: tuple[Calendar, ...]
    travel: int

    def earliest(self, outline: Outline) -> date:
        """The first day on which this session can be ready."""
        return max(self.horizon.first, self.today + timedelta(days=outline.lead))


@dataclass(frozen=True, slots=True)
class Choices:
    """The days on which one session can start, by its hours, the earliest hours first."""

    by_hours: tuple[tuple[Hours, DaySet], ...]

    @property
    def days(self) -> DaySet:
        found = 0
        for _, days in self.by_hours:
            found |= days
        return found

    def hours_on(self, nth: int) -> Hours:
        """The earliest hours on a day that is among the choices."""
        return next(hours for hours, days in self.by_hours if days >> nth & 1)


def lay_out(order: Order, attendants: Sequence[Attendant], now: datetime) -> Board | None:
    """The board for these experts; None where the agency's dates are over before anything can be ready."""
    today = local_day(order.site.time_zone, now)
    window = order.terms.window
    first = max(window.first, today + timedelta(days=LEAD_VIRTUAL))
    days = min((window.last - first).days + 1, LOOK_AHEAD_DAYS)
    if days <= 0:
        return None
    horizon = Horizon(first, days)
    return Board(
        order.site.time_zone,
        today,
        horizon,
        _open_days(horizon, order.terms),
        tuple(_calendar(attendant, horizon) for attendant in attendants),
        _travel(order, attendants),
    )


def choices(board: Board, outline: Outline) -> Choices:
    """When the session can start so that all its days are open and every expert can come."""
    starts = board.open_days & board.horizon.since(board.earliest(outline))
    for later in range(1, outline.days):
        starts &= board.open_days >> later
    return Choices(
        tuple((hours, starts & ~_prevented(board, outline, hours, board.calendars)) for hours in outline.hours)
    )


def days_lost(board: Board, outline: Outline, calendar: Calendar) -> int:
    """How many of the agency's open days this expert cannot start the session on, at whatever hour."""
    lost = board.open_days
    for hours in outline.hours:
        lost &= _prevented(board, outline, hours, (calendar,))
    return lost.bit_count()


def _open_days(horizon: Horizon, terms: Terms) -> DaySet:
    """Workdays in the agency's window that it has not blacked out."""
    days = horizon.workdays() & horizon.within(terms.window)
    for blackout in terms.blackouts:
        days &= ~horizon.within(blackout)
    return days


def _calendar(attendant: Attendant, horizon: Horizon) -> Calendar:
    # A week on either side holds every zone's day, the longest session and the longest way.
    nearby = DateWindow(horizon.first - timedelta(days=7), horizon.day(horizon.days + 7))
    zone = attendant.profile.time_zone
    off = (days_off(zone, window) for window in attendant.profile.unavailable if window.overlaps(nearby))
    taken = ((int(window.start.timestamp()), int(window.end.timestamp())) for window in attendant.taken)
    return Calendar(attendant.expert_id, zone, (*off, *taken))


def _travel(order: Order, attendants: Iterable[Attendant]) -> int:
    """The team travels together: the longest way counts."""
    place = order.site.place
    return max(
        travel_days(None if place is None else distance_km(place, attendant.profile.home)) for attendant in attendants
    )


def _prevented(board: Board, outline: Outline, hours: Hours, calendars: Iterable[Calendar]) -> DaySet:
    """The days on which these hours do not suit every one of the experts."""
    starts, ends = _occupied(board, outline, hours)
    prevented = 0
    for calendar in calendars:
        prevented |= clashing(starts, ends, calendar.busy)
        if not outline.on_site:
            suits = board.horizon.agreeable(board.time_zone, hours.start, hours.end, calendar.time_zone)
            prevented |= board.horizon.everything & ~suits
    return prevented


def _occupied(board: Board, outline: Outline, hours: Hours) -> tuple[list[int], list[int]]:
    """By starting day, the UTC seconds from which and to which the experts' time is taken."""
    moments, last = board.horizon.moments, outline.days - 1
    if outline.on_site and board.travel:
        return moments(board.time_zone, 0, -board.travel), moments(board.time_zone, 0, last + board.travel + 1)
    return moments(board.time_zone, hours.start), moments(board.time_zone, hours.end, last)
