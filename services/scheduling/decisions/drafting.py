"""Drafts the dated sessions of an engagement, or says in plain words why there is no room for them."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta

from schemas.vocabulary import DeliveryMode, SessionId, TimeWindow
from services.scheduling.decisions.calendar import is_zone, local_day, moment
from services.scheduling.decisions.candidates import Board, choices, days_lost, lay_out
from services.scheduling.decisions.outline import LEAD_VIRTUAL, OUTLINES, Hours, Outline
from services.scheduling.decisions.placing import NoRoom, Stage, place
from services.scheduling.decisions.plan import Attendant, Order, Plan, Reason, Session, Site, Unplannable
from services.scheduling.decisions.travel import distance_km


def draft(order: Order, attendants: Sequence[Attendant], now: datetime) -> Plan | Unplannable:
    """The plan in the first delivery mode whose sessions can be placed, or every reason why none can."""
    if unknown := tuple(_unknown_zones(order.site, attendants)):
        return Unplannable(unknown)
    board = lay_out(order, attendants, now)
    if board is None:
        return Unplannable((_too_late(order, now),))
    reasons: list[Reason] = []
    for mode in _modes(order):
        outlines = OUTLINES[mode][len(order.held) :]
        unfit = tuple(_unfit(mode, outlines, order, attendants))
        sessions = _sessions(mode, outlines, order, board) if not unfit else Unplannable(unfit)
        if not isinstance(sessions, Unplannable):
            whole = (*order.held, *sessions)
            return Plan(order.match_id, order.plan_version, mode, whole, over=len(order.held))
        reasons += sessions.reasons
    return Unplannable(tuple(reasons))


def _unknown_zones(site: Site, attendants: Iterable[Attendant]) -> Iterable[Reason]:
    if not is_zone(site.time_zone):
        yield Reason("agency.time_zone", f"The agency's time zone {site.time_zone!r} is not in the IANA database.")
    for attendant in attendants:
        zone = attendant.profile.time_zone
        if not is_zone(zone):
            yield Reason("", f"The time zone {zone!r} of expert {attendant.expert_id} is not in the IANA database.")


def _modes(order: Order) -> tuple[DeliveryMode, ...]:
    """What has begun goes on in the same mode if the agency still wants it; else the agency's order holds."""
    modes, begun = order.terms.delivery_modes, order.begun_in
    if begun is None or begun not in modes:
        return modes
    return (begun, *(mode for mode in modes if mode is not begun))


def _unfit(
    mode: DeliveryMode, outlines: Sequence[Outline], order: Order, attendants: Iterable[Attendant]
) -> Iterable[Reason]:
    """Why these experts cannot deliver in this mode, whatever the dates."""
    site = order.site
    if not outlines and mode is not order.begun_in:
        held = f"{len(order.held)} sessions held in another mode"
        yield Reason("terms.delivery_modes", f"{_named(mode)}: after {held}, nothing of it would be left to give.")
    on_site = any(outline.on_site for outline in outlines)
    for attendant in attendants:
        profile = attendant.profile
        if mode not in profile.delivery_modes:
            yield Reason("terms.delivery_modes", f"{_named(mode)}: expert {attendant.expert_id} does not offer it.")
        elif on_site and site.place and (distance := distance_km(site.place, profile.home)) > profile.travel_limit_km:
            yield Reason(
                "terms.delivery_modes",
                f"{_named(mode)}: the agency is {distance:.0f} km from expert {attendant.expert_id}, "
                f"who travels {profile.travel_limit_km} km at most.",
            )


def _sessions(
    mode: DeliveryMode, outlines: Sequence[Outline], order: Order, board: Board
) -> tuple[Session, ...] | Unplannable:
    options = [choices(board, outline) for outline in outlines]
    stages: list[Stage] = []
    for nth, (outline, option) in enumerate(zip(outlines, options, strict=True)):
        if nth == 0:
            starts = option.days & board.horizon.since(_after_held(order, outline, board))
            stages.append(Stage(starts, outline.days, 0, 0))
        else:
            stages.append(Stage(option.days, outline.days, _gap(outlines[nth - 1], outline, board), outline.max_gap))
    placed = place(stages)
    if isinstance(placed, NoRoom):
        outline, stage = outlines[placed.stage], stages[placed.stage]
        first_day = board.earliest(outline)
        if placed.stage == 0:
            when = f"from {max(first_day, _after_held(order, outline, board))} on"
        else:
            when = f"from {first_day} on, {stage.min_gap} to {stage.max_gap} days after the session before it"
        return Unplannable((_no_room(mode, outline, when, board),))
    return tuple(
        _session(order, board, outline, board.horizon.day(day), option.hours_on(day), len(order.held) + nth)
        for nth, (outline, option, day) in enumerate(zip(outlines, options, placed, strict=True), start=1)
    )


def _gap(before: Outline | Session, outline: Outline, board: Board) -> int:
    """Least days from the last day of the session before, so that the way home and there falls into neither."""
    return max(outline.min_gap, 1 + board.travel * (before.on_site + outline.on_site))


def _after_held(order: Order, outline: Outline, board: Board) -> date:
    """What remains comes after what was held, by the least gap; late is better than never, so there is no greatest."""
    if not order.held:
        return board.horizon.first
    last = order.held[-1]
    return local_day(last.time_zone, last.takes_place.end) + timedelta(days=_gap(last, outline, board))


def _session(order: Order, board: Board, outline: Outline, day: date, hours: Hours, number: int) -> Session:
    zone, last_day = board.time_zone, day + timedelta(days=outline.days - 1)
    takes_place = occupies = TimeWindow(moment(zone, day, hours.start), moment(zone, last_day, hours.end))
    if outline.on_site and board.travel:
        way = timedelta(days=board.travel)
        occupies = TimeWindow(moment(zone, day - way, 0), moment(zone, last_day + way + timedelta(days=1), 0))
    return Session(
        session_id=SessionId(f"{order.request_id}/s{order.plan_version}.{number}"),
        title=outline.title,
        delivery_mode=outline.delivery_mode,
        on_site=outline.on_site,
        takes_place=takes_place,
        occupies=occupies,
        time_zone=zone,
        expert_ids=tuple(calendar.expert_id for calendar in board.calendars),
    )


def _too_late(order: Order, now: datetime) -> Reason:
    earliest = local_day(order.site.time_zone, now) + timedelta(days=LEAD_VIRTUAL)
    return Reason(
        "terms.window",
        f"The agency's dates end on {order.terms.window.last}; a session can be ready on {earliest} at the earliest.",
    )


def _no_room(mode: DeliveryMode, outline: Outline, when: str, board: Board) -> Reason:
    """Says which calendar takes how many of the days."""
    horizon, workdays = board.horizon, board.horizon.workdays()
    blocked = [
        f"{horizon.days - workdays.bit_count()} are weekends or federal holidays",
        f"{(workdays & ~board.open_days).bit_count()} more are blacked out by the agency",
    ]
    blocked += [
        f"{days_lost(board, outline, calendar)} of the {board.open_days.bit_count()} left do not suit expert "
        f"{calendar.expert_id} (days off, hours, other sessions and the way there)"
        for calendar in board.calendars
    ]
    length = "a day" if outline.days == 1 else f"{outline.days} days in a row"
    return Reason(
        "terms.window",
        f"{_named(mode)}: no room for '{outline.title}' ({length} {when}). "
        f"Of the {horizon.days} days from {horizon.first} to {horizon.day(horizon.days - 1)}, {'; '.join(blocked)}.",
    )


def _named(mode: DeliveryMode) -> str:
    return mode.value.replace("_", " ").capitalize()
