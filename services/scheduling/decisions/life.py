"""How an engagement goes on: what is noted of each event, and what follows from everything noted so far.

Requests, matches and the roster come in any order towards each other. So every event is first noted, early or late, and
only then is looked at what follows: a plan once terms, match and experts are all known, its confirmation once both
approvals of that version are there, delivery once every session is reported, the end once it is evaluated too.
Time tells something as well: whatever comes is decided on the engagement `as_of` the moment it comes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeAlias

from schemas.vocabulary import DateWindow, ExpertId, MatchId, Outcome, RequestId, SessionId, TimeWindow
from services.scheduling.decisions.calendar import days_off, is_zone, local_day
from services.scheduling.decisions.drafting import draft
from services.scheduling.decisions.engagement import (
    Closed,
    Confirmed,
    Delivered,
    Engagement,
    FollowUp,
    Happening,
    Match,
    NotPlannable,
    OtherDates,
    Planned,
    Replanned,
    SessionDropped,
)
from services.scheduling.decisions.plan import Attendant, Expert, Order, Profile, Session, Site, Terms, Unplannable

FOLLOW_UP_AFTER: Final = timedelta(days=30)
"""A month after delivery the agency has had time to put to use what it was given. Our decision, not the programme's."""

Result: TypeAlias = tuple[Engagement, tuple[Happening, ...]]
Booked: TypeAlias = tuple[tuple[RequestId, TimeWindow], ...]
"""What takes one expert's time, and for which request."""


@dataclass(frozen=True, slots=True)
class Calendars:
    """The experts whose rows are at hand, what is booked of each, and the present moment."""

    experts: Mapping[ExpertId, Expert]
    booked: Mapping[ExpertId, Booked]
    now: datetime


def as_of(known: Engagement, now: datetime) -> Engagement:
    """Sessions of a confirmed plan whose time is over took place, reported or not; while on hold none does."""
    plan = known.plan
    if plan is None or not plan.confirmed or known.on_hold:
        return known
    over = sum(session.takes_place.end <= now for session in plan.sessions)
    return replace(known, plan=replace(plan, over=over)) if over > plan.over else known


def accept(known: Engagement, site: Site, terms: Terms, calendars: Calendars) -> Result:
    """Intake took the request on."""
    return _advance(replace(known, site=site, terms=terms), calendars)


def amend(known: Engagement, terms: Terms, calendars: Calendars) -> Result:
    """Other terms hold from now on; a plan they leave possible stays as it is."""
    if known.terms is not None and known.terms.window != terms.window:
        known = replace(known, asked_window=None)
    return _advance(_recheck_terms(replace(known, terms=terms)), calendars)


def reopen(known: Engagement, terms: Terms, calendars: Calendars) -> Result:
    """A closed request starts afresh: only the count of plans and a match confirmed ahead of this go on."""
    if known.ended is None:
        return amend(known, terms, calendars)
    afresh = Engagement(
        known.request_id,
        row_version=known.row_version,
        site=known.site,
        terms=terms,
        match=known.match,
        plans_made=known.plans_made,
    )
    return _advance(afresh, calendars)


def hold(known: Engagement) -> Result:
    """Nothing is planned or confirmed, and no session takes place, until it is off hold; what is planned stays."""
    return replace(known, on_hold=True), ()


def resume(known: Engagement, calendars: Calendars) -> Result:
    """What came meanwhile takes effect, and what was dated within the hold gets other dates."""
    if not known.on_hold:
        return known, ()
    known = _recheck_dates(known, calendars.now, "Its dates had passed when the request came off hold.")
    return _advance(replace(known, on_hold=False), calendars)


def end(known: Engagement, outcome: Outcome, reason: str) -> Result:
    """The agency has withdrawn or the programme has cancelled: no session that is still ahead takes place."""
    if known.ended is not None:
        return known, ()
    without_plan, dropped = _drop_plan(known, reason)
    ended = replace(without_plan, ended=outcome, on_hold=False, follow_up_on=None)
    closed = () if known.opened_for is None else (Closed(known.opened_for, outcome),)
    return ended, dropped + closed


def confirm_match(known: Engagement, match: Match, calendars: Calendars) -> Result:
    """Agency and partner agree on these experts; sessions planned with others do not take place."""
    if known.match == match:
        return known, ()
    dropped: tuple[Happening, ...] = ()
    if known.delivered_on is None:
        known, dropped = _drop_plan(known, "Other experts take over.")
    planned, happened = _advance(replace(known, match=match), calendars)
    return planned, dropped + happened


def release_match(known: Engagement, match_id: MatchId, reason: str) -> Result:
    """The experts are free again; the engagement waits for another match."""
    if known.match is None or known.match.match_id != match_id:
        return known, ()
    released = replace(known, match=None)
    return (released, ()) if known.delivered_on is not None else _drop_plan(released, reason)


def approve(known: Engagement, plan_version: int, calendars: Calendars) -> Result:
    """The agency's executive approves this version; one that is not made yet is remembered."""
    if plan_version < known.plans_made:
        return known, ()
    return _advance(replace(known, approved=known.approved | {plan_version}), calendars)


def clear(known: Engagement, plan_version: int, calendars: Calendars) -> Result:
    """The programme office clears this version to start; one that is not made yet is remembered."""
    if plan_version < known.plans_made:
        return known, ()
    return _advance(replace(known, cleared=known.cleared | {plan_version}), calendars)


def ask_other_dates(known: Engagement, asked: OtherDates, calendars: Calendars) -> Result:
    """The agency wants other dates than this version has; what is asked of one not made yet is remembered."""
    if known.ended is not None or known.delivered_on is not None:
        return known, ()
    if asked.plan_version > known.plans_made:
        return replace(known, other_dates=(*known.other_dates, asked)), ()
    return _advance(_with_other_dates(known, asked), calendars)


def report(known: Engagement, session_id: SessionId, now: datetime) -> Result:
    """A session took place; one whose plan is not made yet is remembered."""
    version = _version_of(session_id, known.request_id)
    planned = known.plan.sessions if known.plan else ()
    expected = any(session.session_id == session_id for session in planned)
    if version is None or not (expected or version > known.plans_made):
        return known, ()
    return _conclude(replace(known, reported=known.reported | {session_id}), now)


def evaluate(known: Engagement, now: datetime) -> Result:
    """The agency evaluates what it was given, perhaps before the last report."""
    return _conclude(replace(known, evaluated=True), now)


def review_expert(known: Engagement, expert: Expert, calendars: Calendars) -> Result:
    """An expert of the match is now on the roster, or has other days off."""
    if expert.profile is not None:
        clash = _first_on_day_off(known.ahead, expert.profile, calendars.now)
        if clash is not None:
            why = f"Expert {expert.expert_id} is no longer available for '{clash.title}'."
            known = replace(known, replan_because=why)
    return _advance(known, calendars)


def remind(known: Engagement) -> Result:
    """A month has gone since delivery. Said once."""
    if known.follow_up_on is None:
        return known, ()
    return replace(known, follow_up_on=None), (FollowUp(known.follow_up_on),)


def _advance(known: Engagement, calendars: Calendars) -> Result:
    """Plans where a plan is wanted, then draws every conclusion."""
    happened: tuple[Happening, ...] = ()
    if known.may_start:
        known = _recheck_dates(known, calendars.now, "Its dates have passed before both approvals were there.")
    while (order := _wanted(known)) and (attendants := _attendants(known, calendars)):
        known, more = _plan(known, order, attendants, calendars.now)
        known = _with_remembered_dates(known)
        happened += more
    known, confirmed = _confirm(known)
    known, concluded = _conclude(known, calendars.now)
    return known, happened + confirmed + concluded


def _with_remembered_dates(known: Engagement) -> Engagement:
    for asked in known.other_dates:
        if asked.plan_version <= known.plans_made:
            known = _with_other_dates(known, asked)
    later = tuple(asked for asked in known.other_dates if asked.plan_version > known.plans_made)
    return replace(known, other_dates=later)


def _with_other_dates(known: Engagement, asked: OtherDates) -> Engagement:
    """The dates hold whichever version they were asked of; the version they were asked of is planned anew."""
    of_this_plan = known.plan is not None and known.plan.version == asked.plan_version
    blackouts = asked.blackouts
    if of_this_plan and asked.window is None and not blackouts:
        # Whoever wants other dates and names none does not want these.
        blackouts = tuple(_days_of(session) for session in known.ahead)
    known = replace(
        known,
        asked_window=asked.window or known.asked_window,
        asked_blackouts=known.asked_blackouts + blackouts,
    )
    if of_this_plan and known.ahead:
        return replace(known, replan_because=asked.reason or "The agency wants other dates.")
    return _recheck_terms(known)


def _wanted(known: Engagement) -> Order | None:
    """The plan to be drafted now, if any."""
    terms, match, plan = known.dates, known.match, known.plan
    if terms is None or known.site is None or match is None:
        return None
    if known.on_hold or known.ended is not None or known.delivered_on is not None:
        return None
    if plan is None:
        return Order(known.request_id, match.match_id, known.plans_made + 1, known.site, terms)
    if known.replan_because is None:
        return None
    return Order(
        known.request_id,
        match.match_id,
        known.plans_made + 1,
        known.site,
        terms,
        begun_in=plan.delivery_mode,
        held=known.held,
    )


def _attendants(known: Engagement, calendars: Calendars) -> tuple[Attendant, ...] | None:
    """The experts of the match with their calendars; None while one of them is not on the roster yet."""
    # Their way home from what was held is not over yet.
    kept = {session.occupies for session in known.held}
    found: list[Attendant] = []
    for expert_id in known.match.expert_ids if known.match else ():
        profile = calendars.experts[expert_id].profile
        if profile is None:
            return None
        taken = calendars.booked.get(expert_id, ())
        lasting = tuple(window for request_id, window in taken if request_id != known.request_id or window in kept)
        found.append(Attendant(expert_id, profile, lasting))
    return tuple(found)


def _plan(known: Engagement, order: Order, attendants: Sequence[Attendant], now: datetime) -> Result:
    plan = draft(order, attendants, now)
    if isinstance(plan, Unplannable):
        # Matching looks for other experts; this match is not tried again.
        waiting, dropped = _drop_plan(replace(known, match=None), "No other dates can be found with these experts.")
        return waiting, (*dropped, NotPlannable(order.match_id, plan.reasons))
    planned = replace(
        known,
        plan=plan,
        plans_made=plan.version,
        replan_because=None,
        opened_for=plan.match_id,
        approved=frozenset(version for version in known.approved if version >= plan.version),
        cleared=frozenset(version for version in known.cleared if version >= plan.version),
    )
    happening = Planned(plan) if known.replan_because is None else Replanned(plan, known.replan_because)
    return planned, (happening,)


def _confirm(known: Engagement) -> Result:
    plan = known.plan
    if plan is None or not known.may_start:
        return known, ()
    return replace(known, plan=replace(plan, confirmed=True)), (Confirmed(plan.match_id, plan.version),)


def _conclude(known: Engagement, now: datetime) -> Result:
    """Delivered once every session of a confirmed plan is reported, completed once it is evaluated too."""
    plan = known.plan
    if plan is None or not plan.confirmed or known.ended is not None:
        return known, ()
    happened: tuple[Happening, ...] = ()
    if known.delivered_on is None and not known.outstanding:
        known = replace(
            known,
            # A match is spent once delivered: should the request be reopened, it waits for another one.
            match=None,
            replan_because=None,
            delivered_on=now,
            follow_up_on=now + FOLLOW_UP_AFTER,
        )
        happened += (Delivered(plan.match_id, now),)
    if known.delivered_on is not None and known.evaluated:
        known = replace(known, ended=Outcome.COMPLETED)
        happened += (Closed(plan.match_id, Outcome.COMPLETED),)
    return known, happened


def _drop_plan(known: Engagement, reason: str) -> Result:
    dropped = tuple(SessionDropped(session.session_id, reason) for session in known.ahead)
    return replace(known, plan=None, replan_because=None), dropped


def _recheck_dates(known: Engagement, now: datetime, why: str) -> Engagement:
    """A session that should have begun by now and was not held gets another date, and so do those after it."""
    if known.replan_because is None and any(session.takes_place.start < now for session in known.ahead):
        return replace(known, replan_because=why)
    return known


def _recheck_terms(known: Engagement) -> Engagement:
    terms, plan = known.dates, known.plan
    if terms is None or plan is None or not known.ahead:
        return known
    if plan.delivery_mode not in terms.delivery_modes:
        return replace(known, replan_because="The agency asks for another delivery mode.")
    for session in known.ahead:
        days = _days_of(session)
        if days.first not in terms.window or days.last not in terms.window:
            return replace(known, replan_because=f"'{session.title}' lies outside the agency's new dates.")
        if any(days.overlaps(blackout) for blackout in terms.blackouts):
            return replace(known, replan_because=f"'{session.title}' falls on a day the agency has blacked out.")
    return known


def _days_of(session: Session) -> DateWindow:
    window = session.takes_place
    return DateWindow(local_day(session.time_zone, window.start), local_day(session.time_zone, window.end))


def _first_on_day_off(sessions: Iterable[Session], profile: Profile, now: datetime) -> Session | None:
    """The first session ahead that takes time on which the expert is off."""
    if not is_zone(profile.time_zone):
        return None
    off = [days_off(profile.time_zone, window) for window in profile.unavailable]
    for session in sessions:
        start, end = session.occupies.start.timestamp(), session.occupies.end.timestamp()
        if session.takes_place.end > now and any(begins < end and start < finishes for begins, finishes in off):
            return session
    return None


def _version_of(session_id: SessionId, request_id: RequestId) -> int | None:
    """The plan version in a session's id; None where it is no session of this request."""
    prefix = f"{request_id}/s"
    version, _, number = session_id[len(prefix) :].partition(".")
    if not session_id.startswith(prefix) or not (version.isdecimal() and number.isdecimal()):
        return None
    return int(version)
