"""Triage: whether the programme takes a request on, and if not, everything that stands in the way, named at once."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from enum import IntEnum
from typing import Final

from schemas.vocabulary import AgencyType, DateWindow, Ori, RequestId, TopicCode
from services.intake.decisions.problems import Problem
from services.intake.decisions.registry import Agency
from services.intake.decisions.request import Letter, Request, Terms
from services.intake.decisions.topics import OfferedTopic, offered_on

LONGEST_WINDOW_YEARS: Final = 3
"""Dates further apart than this plan nothing [design decision]."""
JOINT: Final = TopicCode("shared-services")
"""The topic that several agencies ask for together."""
FEDERAL_REFERRAL: Final = "the training office of the agency's own federal department"


class Verdict(IntEnum):
    """What becomes of a request; where several things stand in its way, the gravest decides."""

    ACCEPT = 0
    AWAIT_RULING = 1
    ASK = 2
    REFER_OUT = 3
    DECLINE = 4


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that stands in a request's way."""

    verdict: Verdict
    problem: Problem
    refer_to: str | None = None


@dataclass(frozen=True, slots=True)
class Triage:
    """The verdict on a request with all its reasons, the gravest first."""

    verdict: Verdict
    reasons: tuple[Problem, ...] = ()
    refer_to: str | None = None


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What triage looks at besides the request itself. `today` is the day on the agency's calendar."""

    agency: Agency | None
    registered: frozenset[Ori]
    """Those of the participating agencies that are in the registry."""
    open_topics: Mapping[TopicCode, RequestId]
    """Topics for which the agency has an open request, this one included."""
    topics: Mapping[TopicCode, OfferedTopic]
    today: date


def triage(request: Request, given: Circumstances) -> Triage:
    """Weighs a request. Precedence: declined, referred out, information or a ruling asked for, accepted."""
    found = sorted(
        (
            *_of_agency(request, given),
            *_of_topics(request.terms, given, "terms.topics"),
            *_of_dates(request.terms, given, "terms"),
            *_of_duplicates(request, request.terms, given, "terms.topics"),
            *_of_support(request, given),
            *_of_joint_topic(request.terms, request.participating, "participating"),
            *_of_participants(request, given),
            *_of_contacts(request),
        ),
        key=lambda finding: -finding.verdict,
    )
    return Triage(
        verdict=found[0].verdict if found else Verdict.ACCEPT,
        reasons=tuple(finding.problem for finding in found),
        refer_to=next((finding.refer_to for finding in found if finding.refer_to), None),
    )


def faults_of_amendment(request: Request, terms: Terms, given: Circumstances) -> tuple[Problem, ...]:
    """What keeps an accepted request from being given these terms; what it had before is not held against it."""
    had = frozenset(request.terms.topics)
    found = [*_of_topics(terms, given, "changes.topics", had), *_of_duplicates(request, terms, given, "changes.topics")]
    if JOINT not in had:
        found.extend(_of_joint_topic(terms, request.participating, "changes.topics"))
    if (terms.window, terms.blackouts) != (request.terms.window, request.terms.blackouts):
        found.extend(_of_dates(terms, given, "changes"))
    return tuple(finding.problem for finding in found)


def faults_of_reopening(request: Request, given: Circumstances) -> tuple[Problem, ...]:
    """What keeps a closed request from being taken up again: another one on its topics that is open meanwhile."""
    return tuple(finding.problem for finding in _of_duplicates(request, request.terms, given, "terms.topics"))


def _of_agency(request: Request, given: Circumstances) -> Iterator[Finding]:
    agency = given.agency
    if agency is None:
        yield Finding(
            Verdict.DECLINE,
            Problem(
                "ori",
                f"{request.ori} is not in the registry of agencies. An ORI is the nine-character identifier that the "
                "FBI gives a law-enforcement agency; the programme office adds an agency once its ORI is confirmed.",
            ),
        )
    elif agency.agency_type is AgencyType.FEDERAL:
        yield Finding(
            Verdict.REFER_OUT,
            Problem(
                "ori", "the programme serves state, local, Tribal and campus agencies; a federal agency has its own"
            ),
            refer_to=FEDERAL_REFERRAL,
        )
    elif agency.agency_type is AgencyType.UNKNOWN:
        yield Finding(
            Verdict.AWAIT_RULING,
            Problem("ori", "the registry does not know what type of agency this is; the programme office will rule"),
        )


def _of_topics(
    terms: Terms, given: Circumstances, field: str, had: frozenset[TopicCode] = frozenset()
) -> Iterator[Finding]:
    for nth, code in enumerate(terms.topics):
        topic = given.topics.get(code)
        if code in had or (topic is not None and topic.is_offered(given.today)):
            continue
        if topic is not None and topic.has_ended(given.today) and topic.refer_to is not None:
            says = f"the topic '{code}' is no longer offered here; {topic.refer_to} helps with it"
            yield Finding(Verdict.REFER_OUT, Problem(f"{field}.{nth}", says), topic.refer_to)
        else:
            listed = ", ".join(offered_on(given.topics, given.today))
            says = f"the topic '{code}' is not offered; offered are: {listed}"
            yield Finding(Verdict.DECLINE, Problem(f"{field}.{nth}", says))


def _of_dates(terms: Terms, given: Circumstances, field: str) -> Iterator[Finding]:
    if terms.window.last < given.today:
        yield Finding(Verdict.DECLINE, Problem(f"{field}.window", "the last day lies in the past"))
    if _years_later(terms.window.first, LONGEST_WINDOW_YEARS) < terms.window.last:
        says = f"the window is longer than {LONGEST_WINDOW_YEARS} years; please narrow it"
        yield Finding(Verdict.ASK, Problem(f"{field}.window", says))
    if _covers(terms.blackouts, terms.window):
        yield Finding(Verdict.ASK, Problem(f"{field}.blackouts", "the blackout dates leave no day of the window"))


def _of_duplicates(request: Request, terms: Terms, given: Circumstances, field: str) -> Iterator[Finding]:
    for nth, code in enumerate(terms.topics):
        other = given.open_topics.get(code)
        if other is not None and other != request.request_id:
            says = f"the agency's request {other} on '{code}' is still open; it can be amended or withdrawn"
            yield Finding(Verdict.DECLINE, Problem(f"{field}.{nth}", says))


def _of_support(request: Request, given: Circumstances) -> Iterator[Finding]:
    yield from _of_letter(request.executive_support, "executive_support", "the agency's executive", given.today)
    if given.agency is not None and given.agency.agency_type is AgencyType.TRIBAL:
        body = "the governing body of the Tribal Nation"
        yield from _of_letter(request.governing_body_support, "governing_body_support", body, given.today)


def _of_letter(letter: Letter | None, field: str, who: str, today: date) -> Iterator[Finding]:
    if letter is None:
        yield Finding(Verdict.ASK, Problem(field, f"a letter of support of {who} is needed"))
    elif letter.signed_on > today:
        yield Finding(Verdict.ASK, Problem(f"{field}.signed_on", f"the letter of {who} is dated in the future"))


def _of_joint_topic(terms: Terms, participating: tuple[Ori, ...], field: str) -> Iterator[Finding]:
    if JOINT in terms.topics and not participating:
        says = f"'{JOINT}' is asked for by several agencies together; please name the participating ones"
        yield Finding(Verdict.ASK, Problem(field, says))


def _of_participants(request: Request, given: Circumstances) -> Iterator[Finding]:
    for nth, ori in enumerate(request.participating):
        if ori not in given.registered:
            says = f"{ori} is not in the registry of agencies; please check it or have it added by the programme office"
            yield Finding(Verdict.ASK, Problem(f"participating.{nth}", says))


def _of_contacts(request: Request) -> Iterator[Finding]:
    if request.sensitive.executive is None:
        yield Finding(Verdict.ASK, Problem("sensitive.executive", "the contact of the agency's executive is needed"))
    if request.sensitive.point_of_contact is None:
        yield Finding(Verdict.ASK, Problem("sensitive.point_of_contact", "a point of contact is needed"))


def _covers(blackouts: tuple[DateWindow, ...], window: DateWindow) -> bool:
    """Whether no day of the window is left."""
    free = window.first
    for blackout in sorted(blackouts, key=lambda days: days.first):
        if blackout.first > free:
            break
        free = max(free, blackout.last + timedelta(days=1))
    return free > window.last


def _years_later(day: date, years: int) -> date:
    try:
        return day.replace(year=day.year + years)
    except ValueError:  # 29 February
        return date(day.year + years, 3, 1)
