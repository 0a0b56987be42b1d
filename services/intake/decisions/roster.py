"""Who takes part: partners and their award, experts and their listing, conflicts of interest and their waiver.

Each function gives the state afterwards, or a refusal. The same object as went in means that nothing has happened.
An expert may be listed before the ruling on its partner is known here: the listing then waits for it.
"""

from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from schemas.vocabulary import (
    WAIVABLE,
    AgencyType,
    ConflictId,
    ConflictKind,
    DateWindow,
    DeliveryMode,
    ExpertId,
    Level,
    Ori,
    PartnerId,
    Place,
    SwornBand,
    TopicCode,
)
from services.intake.decisions.problems import Problem, Refusal


class PartnerStep(StrEnum):
    """How far a partner has come."""

    HEARD_OF = "heard_of"
    """Named by a listing, before any application."""
    APPLIED = "applied"
    SELECTED = "selected"
    NOT_SELECTED = "not_selected"
    SUSPENDED = "suspended"


class ExpertStep(StrEnum):
    """Where an expert stands on the roster."""

    WAITING = "waiting"
    """Listed by a partner on which no ruling is known here yet."""
    LISTED = "listed"
    RETIRED = "retired"


_RULING_AWAITED: Final = frozenset({PartnerStep.HEARD_OF, PartnerStep.APPLIED})


@dataclass(frozen=True, slots=True)
class Application:
    """What a membership association offers."""

    name: str
    acronym: str
    capacity: int


@dataclass(frozen=True, slots=True)
class Award:
    """What a selected partner was awarded."""

    name: str
    acronym: str
    capacity: int
    period: DateWindow | None = None


@dataclass(frozen=True, slots=True)
class Partner:
    """A membership association. `waiting` names the experts whose listing waits for its selection."""

    partner_id: PartnerId
    step: PartnerStep = PartnerStep.HEARD_OF
    application: Application | None = None
    award: Award | None = None
    waiting: tuple[ExpertId, ...] = ()
    selected_before: bool = False
    """It was selected before its newest application."""
    version: int = 0

    @property
    def was_selected(self) -> bool:
        """Whether it ever was selected, also where it is no longer."""
        return self.selected_before or self.step in (PartnerStep.SELECTED, PartnerStep.SUSPENDED)


@dataclass(frozen=True, slots=True)
class Skill:
    """A topic an expert covers."""

    topic: TopicCode
    level: Level


@dataclass(frozen=True, slots=True)
class Employment:
    """An agency an expert works or worked for."""

    ori: Ori
    until: date | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of an expert; intake passes it on."""

    partner_id: PartnerId
    skills: tuple[Skill, ...]
    delivery_modes: tuple[DeliveryMode, ...]
    agency_types: tuple[AgencyType, ...]
    sworn_band: SwornBand
    home: Place
    time_zone: str
    travel_limit_km: int
    load_limit: int
    employments: tuple[Employment, ...] = ()
    vendor_topics: tuple[TopicCode, ...] = ()
    unavailable: tuple[DateWindow, ...] = ()


@dataclass(frozen=True, slots=True)
class Expert:
    """A subject-matter expert of a partner."""

    expert_id: ExpertId
    profile: Profile
    step: ExpertStep
    version: int = 0

    @property
    def partner_id(self) -> PartnerId:
        return self.profile.partner_id


@dataclass(frozen=True, slots=True)
class Conflict:
    """A conflict of interest between an expert, or a whole partner, and an agency. `detail` stays restricted."""

    conflict_id: ConflictId
    ori: Ori
    kind: ConflictKind
    expert_id: ExpertId | None = None
    partner_id: PartnerId | None = None
    detail: str | None = None
    waived: bool = False
    version: int = 0


def unknown(field: str, given: str) -> Refusal:
    """The submission names somebody or something nobody has heard of."""
    return Refusal(f"no {field.removesuffix('_id')} {given} is known", (Problem(field, "names none that is known"),))


def applied(partner: Partner, application: Application) -> Partner:
    """The partner with its newest application. A selection already made holds until it is ruled on again."""
    step = PartnerStep.SELECTED if partner.step is PartnerStep.SELECTED else PartnerStep.APPLIED
    after = replace(partner, step=step, application=application, selected_before=partner.was_selected)
    return partner if after == partner else after


def selected(partner: Partner, capacity: int | None, period: DateWindow | None) -> Partner | Refusal:
    """The programme office selects a partner, or changes its award; without a capacity, what was applied for."""
    offer = partner.application
    if offer is None:
        return unknown("partner_id", partner.partner_id)
    award = Award(offer.name, offer.acronym, capacity or offer.capacity, period)
    if partner.step is PartnerStep.SELECTED and partner.award == award:
        return partner
    return replace(partner, step=PartnerStep.SELECTED, award=award, waiting=())


def not_selected(partner: Partner) -> Partner | Refusal:
    """The programme office does not select a partner, or ends its award."""
    if partner.application is None:
        return unknown("partner_id", partner.partner_id)
    if partner.step is PartnerStep.SELECTED:
        return replace(partner, step=PartnerStep.SUSPENDED, award=None)
    return replace(partner, step=PartnerStep.NOT_SELECTED) if partner.step is PartnerStep.APPLIED else partner


@dataclass(frozen=True, slots=True)
class Listing:
    """An expert after being listed, and the partner who may now have a listing waiting."""

    expert: Expert
    partner: Partner


def listed(expert: Expert | None, expert_id: ExpertId, profile: Profile, partner: Partner) -> Listing | Refusal:
    """A partner lists an expert who is new, has retired, or stands there just so already."""
    if expert is not None and expert.step is not ExpertStep.RETIRED:
        if expert.partner_id != profile.partner_id:
            return Refusal("another partner has listed this expert", (Problem("expert_id", "is another partner's"),))
        if expert.profile != profile:
            return Refusal("the expert is listed already; expert.changed changes what is known")
        return Listing(expert, partner)
    if not _is_time_zone(profile.time_zone):
        return _no_time_zone(profile)
    version = 0 if expert is None else expert.version
    if partner.step is PartnerStep.SELECTED:
        return Listing(Expert(expert_id, profile, ExpertStep.LISTED, version), partner)
    if partner.step in _RULING_AWAITED:
        waiting = tuple(dict.fromkeys((*partner.waiting, expert_id)))
        expert = Expert(expert_id, profile, ExpertStep.WAITING, version)
        return Listing(expert, replace(partner, waiting=waiting))
    return _not_of_the_programme(partner)


def no_longer_waiting(expert: Expert, partner_id: PartnerId) -> Expert:
    """The expert once the partner it waited for is selected."""
    waits = expert.step is ExpertStep.WAITING and expert.partner_id == partner_id
    return replace(expert, step=ExpertStep.LISTED) if waits else expert


def changed(expert: Expert, profile: Profile, partner: Partner) -> Expert | Refusal:
    """The expert's partner changes what is known of it."""
    if expert.step is ExpertStep.RETIRED:
        return Refusal("the expert has retired; expert.listed lists an expert again")
    if profile.partner_id != expert.partner_id:
        says = f"is not {expert.partner_id}: an expert changes partners by retiring and being listed again"
        return Refusal("an expert's partner does not change", (Problem("profile.partner_id", says),))
    if expert.step is ExpertStep.LISTED and partner.step is not PartnerStep.SELECTED:
        return _not_of_the_programme(partner)
    if expert.profile == profile:
        return expert
    return replace(expert, profile=profile) if _is_time_zone(profile.time_zone) else _no_time_zone(profile)


def retired(expert: Expert) -> Expert:
    """The expert off the roster."""
    return expert if expert.step is ExpertStep.RETIRED else replace(expert, step=ExpertStep.RETIRED)


def available_except(expert: Expert, unavailable: tuple[DateWindow, ...]) -> Expert | Refusal:
    """The expert with all its days off replaced."""
    if expert.step is ExpertStep.RETIRED:
        return Refusal("the expert has retired; there is no availability to change")
    if expert.profile.unavailable == unavailable:
        return expert
    return replace(expert, profile=replace(expert.profile, unavailable=unavailable))


def disclosed(known: Conflict | None, disclosure: Conflict, *, registered: bool) -> Conflict | Refusal:
    """A conflict put on record. The same once more is harmless; other content under a known id is refused.

    One with an agency that is not `registered` would keep nobody from anything: most likely the ORI is misspelt.
    """
    if (disclosure.expert_id is None) == (disclosure.partner_id is None):
        says = "name either the expert or the partner who has the conflict"
        return Refusal(says, (Problem("expert_id", says), Problem("partner_id", says)))
    if known is None:
        return disclosure if registered else _not_in_registry(disclosure.ori)
    if replace(known, waived=False, version=0) != disclosure:
        says = "is taken by another conflict of interest"
        return Refusal(f"the id {known.conflict_id} names another conflict already", (Problem("conflict_id", says),))
    return known


def waived(conflict: Conflict) -> Conflict | Refusal:
    """The agency's executive waives a conflict that can be waived."""
    if conflict.kind not in WAIVABLE:
        kinds = ", ".join(sorted(WAIVABLE))
        return Refusal(f"a conflict of this kind cannot be waived; what can be waived: {kinds}")
    return conflict if conflict.waived else replace(conflict, waived=True)


def _is_time_zone(name: str) -> bool:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _no_time_zone(profile: Profile) -> Refusal:
    says = f"{profile.time_zone} is no time zone; zones are named as in the IANA database, such as America/Chicago"
    return Refusal(says, (Problem("profile.time_zone", "is no IANA time zone"),))


def _not_in_registry(ori: Ori) -> Refusal:
    says = f"{ori} is not in the registry of agencies; please check it or have it added by the programme office"
    return Refusal(says, (Problem("ori", "is not in the registry of agencies"),))


def _not_of_the_programme(partner: Partner) -> Refusal:
    standing = partner.step.value.replace("_", " ")
    return Refusal(f"only a selected partner lists experts; {partner.partner_id} is {standing}")
