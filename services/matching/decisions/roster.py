"""Partners and experts as matching knows them, each with the conflicts of interest declared for it."""

from dataclasses import dataclass
from datetime import date

from schemas.vocabulary import (
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


@dataclass(frozen=True, slots=True)
class Conflict:
    """A declared conflict of interest with one agency."""

    conflict_id: ConflictId
    ori: Ori
    kind: ConflictKind
    waived: bool = False


@dataclass(frozen=True, slots=True)
class Skill:
    """A topic an expert covers, and how well."""

    topic: TopicCode
    level: Level


@dataclass(frozen=True, slots=True)
class Employment:
    """An agency an expert works or worked for; `until` is the last day, none while it goes on."""

    ori: Ori
    until: date | None


@dataclass(frozen=True, slots=True)
class Profile:
    """What a partner says of an expert it lists."""

    partner_id: PartnerId
    skills: tuple[Skill, ...]
    delivery_modes: frozenset[DeliveryMode]
    agency_types: frozenset[AgencyType]
    sworn_band: SwornBand
    home: Place
    travel_limit_km: int
    load_limit: int
    employments: tuple[Employment, ...] = ()
    vendor_topics: frozenset[TopicCode] = frozenset()


@dataclass(frozen=True, slots=True)
class Expert:
    """One expert. Without a profile it is not listed: never was, or has retired."""

    expert_id: ExpertId
    profile: Profile | None = None
    unavailable: tuple[DateWindow, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    changed: bool = False
    """A round has not looked at it since it last changed."""
    version: int = 0


@dataclass(frozen=True, slots=True)
class Award:
    """What a partner was selected for: requests at a time, and the days it may work in."""

    capacity: int
    period: DateWindow | None


@dataclass(frozen=True, slots=True)
class Partner:
    """One partner. Without an award it is not selected: not yet, or no longer."""

    partner_id: PartnerId
    award: Award | None = None
    conflicts: tuple[Conflict, ...] = ()
    changed: bool = False
    """A round has not looked at it since it last changed."""
    version: int = 0


def declare(conflicts: tuple[Conflict, ...], conflict: Conflict) -> tuple[Conflict, ...]:
    """The conflicts with one more; one that is known already stays as it is, waiver included."""
    known = any(one.conflict_id == conflict.conflict_id for one in conflicts)
    return conflicts if known else (*conflicts, conflict)


def waive(conflicts: tuple[Conflict, ...], conflict_id: ConflictId) -> tuple[Conflict, ...]:
    """The conflicts with this one waived."""
    return tuple(
        Conflict(one.conflict_id, one.ori, one.kind, waived=True) if one.conflict_id == conflict_id else one
        for one in conflicts
    )
