"""Drafts keep every calendar, finish as early as any could, and refuse only where nothing fits."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.vocabulary import DateWindow, DeliveryMode, ExpertId, MatchId, Place, RequestId, TimeWindow
from services.scheduling.decisions.drafting import draft
from services.scheduling.decisions.outline import OUTLINES, Outline
from services.scheduling.decisions.plan import Attendant, Order, Plan, Profile, Session, Site, Terms, Unplannable
from tests.scheduling.federal_holidays import federal_holidays
from tests.scheduling.scheduling_world import CHICAGO, DENVER, NOW, days

HOMES = {
    0: Place(41.9, -87.7),  # in Chicago
    1: DENVER,
    2: Place(61.2, -149.9),  # Anchorage, some 4,600 km away
}
ZONES = ("America/Chicago", "America/New_York", "America/Los_Angeles", "Pacific/Honolulu")


def expert(
    expert_id: str = "E1",
    unavailable: Sequence[DateWindow] = (),
    taken: Sequence[TimeWindow] = (),
    home: Place = DENVER,
    zone: str = "America/Denver",
    modes: Sequence[DeliveryMode] = tuple(DeliveryMode),
    limit_km: int = 20_000,
) -> Attendant:
    profile = Profile(home, zone, tuple(modes), limit_km, tuple(unavailable))
    return Attendant(ExpertId(expert_id), profile, tuple(taken))


def order(
    window: DateWindow,
    blackouts: Sequence[DateWindow] = (),
    modes: Sequence[DeliveryMode] = (DeliveryMode.ON_SITE_CONSULTATION,),
    place: Place | None = CHICAGO,
    zone: str = "America/Chicago",
) -> Order:
    terms = Terms(tuple(modes), window, tuple(blackouts))
    return Order(RequestId("R1"), MatchId("R1/m1"), 1, Site(zone, place), terms)


def planned(asked: Order, *attendants: Attendant) -> Plan:
    plan = draft(asked, attendants, NOW)
    assert isinstance(plan, Plan)
    return plan


def refusals(asked: Order, *attendants: Attendant) -> list[str]:
    plan = draft(asked, attendants, NOW)
    assert isinstance(plan, Unplannable)
    return [reason.says for reason in plan.reasons]


def at(day: date, minute: int, zone: str) -> datetime:
    return datetime.combine(day, time(minute // 60, minute % 60), ZoneInfo(zone))


def midnights(window: DateWindow, zone: str) -> tuple[datetime, datetime]:
    return at(window.first, 0, zone), at(window.last + timedelta(days=1), 0, zone)


def overlap(one: tuple[datetime, datetime], other: tuple[datetime, datetime]) -> bool:
    # Compared in UTC: two times of one zone are otherwise compared by the clock on the wall.
    start, end = (moment.astimezone(UTC) for moment in one)
    begins, finishes = (moment.astimezone(UTC) for moment in other)
    return start < finishes and begins < end


class Rules:
    """The rules in plain datetime arithmetic, one day and hour at a time."""

    def __init__(self, asked: Order, attendants: Sequence[Attendant], travel: int, now: datetime) -> None:
        self.asked, self.attendants, self.travel = asked, attendants, travel
        self.zone = asked.site.time_zone
        self.today = now.astimezone(ZoneInfo(self.zone)).date()

    def open(self, day: date) -> bool:
        terms = self.asked.terms
        return (
            day in terms.window
            and day.weekday() < 5
            and day not in federal_holidays(day.year)
            and not any(day in blackout for blackout in terms.blackouts)
        )

    def occupied(self, outline: Outline, day: date, start: int, end: int) -> tuple[datetime, datetime]:
        last = day + timedelta(days=outline.days - 1)
        if outline.on_site and self.travel:
            way = timedelta(days=self.travel)
            return midnights(DateWindow(day - way, last + way), self.zone)
        return at(day, start, self.zone), at(last, end, self.zone)

    def suits(self, one: Attendant, outline: Outline, day: date, start: int, end: int) -> bool:
        occupied = self.occupied(outline, day, start, end)
        busy = [midnights(window, one.profile.time_zone) for window in one.profile.unavailable]
        busy += [(window.start, window.end) for window in one.taken]
        if any(overlap(occupied, other) for other in busy):
            return False
        if outline.on_site:
            return True
        begins, finishes = (moment.astimezone(ZoneInfo(one.profile.time_zone)) for moment in occupied)
        return begins.date() == finishes.date() and time(8) <= begins.time() and finishes.time() <= time(18)

    def allows(self, outline: Outline, day: date, start: int, end: int) -> bool:
        ready = self.today + timedelta(days=7 if outline.on_site else 2)
        return (
            day >= ready
            and all(self.open(day + timedelta(days=nth)) for nth in range(outline.days))
            and all(self.suits(one, outline, day, start, end) for one in self.attendants)
        )

    def starts(self, outline: Outline) -> list[date]:
        window = self.asked.terms.window
        every_day = [window.first + timedelta(days=nth) for nth in range((window.last - window.first).days + 1)]
        return [
            day
            for day in every_day
            if any(self.allows(outline, day, hours.start, hours.end) for hours in outline.hours)
        ]

    def in_order(self, before: Outline, last: date, outline: Outline, day: date) -> bool:
        apart = (day - last).days
        travelling = self.travel * (before.on_site + outline.on_site)
        return outline.min_gap <= apart <= outline.max_gap and apart > travelling

    def ways(self, outlines: Sequence[Outline]) -> Iterator[list[date]]:
        """Every choice of starting days that keeps the rules."""
        starts = [self.starts(outline) for outline in outlines]

        def further(chosen: list[date]) -> Iterator[list[date]]:
            nth = len(chosen)
            if nth == len(outlines):
                yield chosen
                return
            for day in starts[nth]:
                last = chosen[-1] + timedelta(days=outlines[nth - 1].days - 1) if chosen else day
                if not chosen or self.in_order(outlines[nth - 1], last, outlines[nth], day):
                    yield from further([*chosen, day])

        yield from further([])


@st.composite
def windows(draw: st.DrawFn, first: date, reach: int, longest: int) -> DateWindow:
    start = first + timedelta(days=draw(st.integers(0, reach)))
    return DateWindow(start, start + timedelta(days=draw(st.integers(0, longest))))


@st.composite
def taken_times(draw: st.DrawFn, first: date) -> TimeWindow:
    start = datetime.combine(first, time(0), UTC) + timedelta(hours=draw(st.integers(0, 50 * 24)))
    return TimeWindow(start, start + timedelta(hours=draw(st.integers(1, 60))))


@st.composite
def problems(draw: st.DrawFn) -> tuple[Order, list[Attendant], int, datetime]:
    now = NOW + timedelta(hours=draw(st.integers(0, 14 * 24)))
    # Around Thanksgiving and Christmas, and around the change of clocks in March.
    first = draw(st.sampled_from([date(2026, 11, 20), date(2026, 12, 14), date(2027, 3, 5)]))
    window = DateWindow(first, first + timedelta(days=draw(st.integers(10, 45))))
    blackouts = draw(st.lists(windows(first, 45, 6), max_size=3))
    mode = draw(st.sampled_from(list(DeliveryMode)))
    travel = draw(st.sampled_from(list(HOMES)))
    attendants = [
        expert(
            f"E{nth}",
            unavailable=draw(st.lists(windows(first - timedelta(days=3), 45, 8), max_size=3)),
            taken=draw(st.lists(taken_times(first), max_size=3)),
            home=HOMES[travel],
            zone=draw(st.sampled_from(ZONES)),
        )
        for nth in range(draw(st.integers(1, 2)))
    ]
    return order(window, blackouts, (mode,), CHICAGO, draw(st.sampled_from(ZONES))), attendants, travel, now


@settings(max_examples=250)
@given(problems())
def test_a_draft_finishes_as_early_as_any_way_that_keeps_every_calendar_and_then_idles_least(
    problem: tuple[Order, list[Attendant], int, datetime],
) -> None:
    asked, attendants, travel, now = problem
    outlines = OUTLINES[asked.terms.delivery_modes[0]]
    rules = Rules(asked, attendants, travel, now)
    best = min(((way[-1], -way[0].toordinal()) for way in rules.ways(outlines)), default=None)
    plan = draft(asked, attendants, now)
    if best is None:
        assert isinstance(plan, Unplannable)
        return
    assert isinstance(plan, Plan)
    starts = [session.takes_place.start.astimezone(ZoneInfo(rules.zone)) for session in plan.sessions]
    assert (starts[-1].date(), -starts[0].date().toordinal()) == best


@settings(max_examples=250)
@given(problems())
def test_every_session_drafted_keeps_every_rule(problem: tuple[Order, list[Attendant], int, datetime]) -> None:
    asked, attendants, travel, now = problem
    plan = draft(asked, attendants, now)
    if isinstance(plan, Unplannable):
        return
    outlines = OUTLINES[plan.delivery_mode]
    rules = Rules(asked, attendants, travel, now)
    zone = ZoneInfo(rules.zone)
    last_days: list[date] = []
    for session, outline in zip(plan.sessions, outlines, strict=True):
        start, end = session.takes_place.start.astimezone(zone), session.takes_place.end.astimezone(zone)
        minutes = start.hour * 60 + start.minute, end.hour * 60 + end.minute
        assert minutes in [(hours.start, hours.end) for hours in outline.hours]
        assert (end.date() - start.date()).days == outline.days - 1
        assert rules.allows(outline, start.date(), *minutes)
        assert (session.occupies.start, session.occupies.end) == rules.occupied(outline, start.date(), *minutes)
        if last_days:
            assert rules.in_order(outlines[len(last_days) - 1], last_days[-1], outline, start.date())
        last_days.append(end.date())
    assert all(not one.occupies.overlaps(other.occupies) for one, other in pairwise(plan.sessions))
    assert all(session.expert_ids == tuple(one.expert_id for one in attendants) for session in plan.sessions)


def local(session: Session) -> str:
    return session.takes_place.start.astimezone(ZoneInfo(session.time_zone)).strftime("%a %Y-%m-%d %H:%M")


def test_a_visit_is_a_week_ahead_and_its_preparation_as_close_before_it_as_may_be() -> None:
    plan = planned(order(days("2026-11-01", "2027-03-01")), expert())
    # It is Monday 23 November: calls from the 25th on, at least 3 days before a visit from the 30th on. The 26th is
    # Thanksgiving. The way home takes the 2nd of December.
    assert [local(session) for session in plan.sessions] == [
        "Fri 2026-11-27 09:00",
        "Mon 2026-11-30 09:00",
        "Thu 2026-12-03 09:00",
    ]


def test_calls_are_at_nine_oclock_of_the_agency_before_and_after_clocks_change() -> None:
    plan = planned(order(days("2027-03-05", "2027-04-30"), modes=[DeliveryMode.VIRTUAL_COACHING]), expert())
    calls = [session.takes_place.start for session in plan.sessions]
    assert {local(session)[-5:] for session in plan.sessions} == {"09:00"}
    assert {call.hour for call in calls if call.date() < date(2027, 3, 14)} == {15}
    assert {call.hour for call in calls if call.date() > date(2027, 3, 14)} == {14}


@pytest.mark.parametrize(("home", "way"), [(HOMES[0], 0), (HOMES[1], 1), (HOMES[2], 2)])
def test_a_visit_takes_the_days_of_the_way_there_and_back(home: Place, way: int) -> None:
    visit = planned(order(days("2026-12-01", "2027-03-01")), expert(home=home)).sessions[1]
    zone = ZoneInfo("America/Chicago")
    first, last = visit.takes_place.start.astimezone(zone), visit.takes_place.end.astimezone(zone)
    if way == 0:
        assert visit.occupies == visit.takes_place
    else:
        assert visit.occupies.start == at(first.date() - timedelta(days=way), 0, "America/Chicago")
        assert visit.occupies.end == at(last.date() + timedelta(days=way + 1), 0, "America/Chicago")


def test_a_team_travels_as_long_as_the_one_who_comes_from_furthest() -> None:
    visit = planned(order(days("2026-12-01", "2027-03-01")), expert("E1"), expert("E2", home=HOMES[2])).sessions[1]
    assert visit.occupies.end - visit.occupies.start == timedelta(days=2 + 2 * 2)


def test_a_visit_to_an_agency_whose_place_is_not_known_counts_a_day_of_travel() -> None:
    visit = planned(order(days("2026-12-01", "2027-03-01"), place=None), expert(home=HOMES[0])).sessions[1]
    assert visit.occupies.end - visit.occupies.start == timedelta(days=2 + 2)


def test_the_first_mode_that_the_experts_offer_and_that_fits_is_taken() -> None:
    modes = [DeliveryMode.TRAIN_THE_TRAINER, DeliveryMode.ON_SITE_CONSULTATION, DeliveryMode.POLICY_REVIEW]
    offers = expert(modes=modes[1:])
    assert planned(order(days("2026-12-01", "2027-03-01"), modes=modes), offers).delivery_mode is modes[1]
    # Too short for a visit within its travel, long enough for two calls.
    assert planned(order(days("2026-12-01", "2026-12-09"), modes=modes), offers).delivery_mode is modes[2]


def test_a_refusal_says_for_every_mode_what_stands_in_the_way() -> None:
    asked = order(
        days("2026-12-01", "2026-12-18"),
        [days("2026-12-07", "2026-12-11")],
        [DeliveryMode.ON_SITE_CONSULTATION, DeliveryMode.DATA_ANALYSIS],
    )
    away = expert(unavailable=[days("2026-12-10", "2026-12-31")], modes=[DeliveryMode.ON_SITE_CONSULTATION])
    visit, analysis = refusals(asked, away)
    # A visit is 3 days after a call on the 1st at the earliest; after the 4th only the week without the expert is open.
    assert "no room for 'Consultation on site' (2 days in a row from 2026-12-01 on, 3 to 60 days after" in visit
    assert "Of the 18 days from 2026-12-01 to 2026-12-18, 4 are weekends or federal holidays" in visit
    assert "5 more are blacked out by the agency" in visit
    assert "5 of the 9 left do not suit expert E1" in visit
    assert analysis == "Data analysis: expert E1 does not offer it."


def test_a_refusal_of_what_comes_after_held_sessions_names_the_day_from_which_it_could_be_and_no_last_one() -> None:
    whole = planned(order(days("2026-12-01", "2027-03-31")), expert())
    visit = whole.sessions[1]
    ended = visit.takes_place.end.date()
    rest = replace(order(DateWindow(NOW.date(), ended + timedelta(days=90))), held=whole.sessions[:2])
    (says,) = refusals(rest, expert(unavailable=[DateWindow(ended, ended + timedelta(days=100))]))
    # A day for the way home lies between the visit and the advice.
    assert f"no room for 'Advice' (a day from {ended + timedelta(days=2)} on). " in says
    assert isinstance(draft(rest, [expert(unavailable=[DateWindow(ended, ended + timedelta(days=30))])], NOW), Plan)


def test_nothing_is_delivered_by_going_over_to_a_mode_that_has_fewer_sessions_than_were_held() -> None:
    coaching, review = DeliveryMode.VIRTUAL_COACHING, DeliveryMode.POLICY_REVIEW
    begun = planned(order(days("2026-12-01", "2027-03-31"), modes=[coaching]), expert())
    held = begun.sessions[: len(OUTLINES[review])]
    rest = replace(
        order(days("2026-12-01", "2027-03-31"), modes=[coaching, review]), begun_in=coaching, held=held, plan_version=2
    )
    assert planned(rest, expert()).delivery_mode is coaching
    no_room, nothing_left = refusals(rest, expert(unavailable=[days("2026-12-01", "2027-03-31")]))
    assert "no room for" in no_room
    assert nothing_left.startswith("Policy review: after 2 sessions held in another mode, nothing of it would be left")


def test_a_refusal_names_the_least_gap_that_the_way_home_leaves() -> None:
    far = expert(home=HOMES[2], zone="America/Chicago")
    visit = planned(order(days("2026-12-01", "2027-03-31")), far).sessions[1].takes_place
    window = DateWindow(date(2026, 12, 1), visit.end.date() + timedelta(days=2))
    (says,) = refusals(order(window), far)
    # Two days of travel lie between, though advice would otherwise come on the day after.
    assert "no room for 'Advice'" in says
    assert ", 3 to 7 days after the session before it" in says


def test_dates_that_are_over_before_anything_can_be_ready_are_refused_with_the_earliest_day() -> None:
    assert refusals(order(days("2026-11-01", "2026-11-24")), expert()) == [
        "The agency's dates end on 2026-11-24; a session can be ready on 2026-11-25 at the earliest."
    ]


def test_an_agency_beyond_an_experts_travel_limit_is_not_visited_but_may_be_called() -> None:
    stays = expert(limit_km=1000)
    visit = order(days("2026-12-01", "2027-03-01"))
    assert refusals(visit, stays) == [
        "On site consultation: the agency is 1478 km from expert E1, who travels 1000 km at most."
    ]
    call = order(days("2026-12-01", "2027-03-01"), modes=[DeliveryMode.VIRTUAL_COACHING])
    assert planned(call, stays).delivery_mode is DeliveryMode.VIRTUAL_COACHING


def test_hours_that_no_two_ends_of_the_world_share_are_refused() -> None:
    asked = order(days("2026-12-01", "2027-03-01"), modes=[DeliveryMode.VIRTUAL_COACHING], zone="Pacific/Guam")
    (says,) = refusals(asked, expert(zone="America/New_York"))
    assert "no room for 'Opening call'" in says


@pytest.mark.parametrize("zone", ["Nowhere/Town", "../../etc/passwd", ""])
def test_a_time_zone_nobody_knows_is_refused_by_name(zone: str) -> None:
    window = days("2026-12-01", "2027-03-01")
    assert refusals(order(window, zone=zone), expert(), expert("E2", zone=zone)) == [
        f"The agency's time zone {zone!r} is not in the IANA database.",
        f"The time zone {zone!r} of expert E2 is not in the IANA database.",
    ]


def test_every_outline_is_within_the_service_levels_it_is_anchored_in() -> None:
    assert OUTLINES.keys() == set(DeliveryMode)
    for mode, outlines in OUTLINES.items():
        assert 1 <= len(outlines) <= 4, mode
        assert all(outline.days <= (2 if outline.on_site else 1) for outline in outlines)
        assert all(1 <= outline.min_gap <= outline.max_gap for outline in outlines[1:])
        assert all(list(outline.hours) == sorted(outline.hours, key=lambda one: one.start) for outline in outlines)
        assert all(8 * 60 <= hours.start < hours.end <= 18 * 60 for outline in outlines for hours in outline.hours)
