"""A request as intake keeps it: what the agency asks for, what supports it, and the step it has reached."""

from dataclasses import dataclass, fields, replace
from datetime import date, datetime
from enum import StrEnum
from typing import Final

from schemas.vocabulary import DateWindow, DeliveryMode, Ori, RequestId, TopicCode, Urgency
from services.intake.decisions.clocks import RulingClock


class Step(StrEnum):
    """How far a request has come. Whether it is open is kept apart: see `Request.is_open`."""

    IN_TRIAGE = "in_triage"
    """Submitted and not yet decided; never stored."""
    NEEDS_INFORMATION = "needs_information"
    AWAITING_RULING = "awaiting_ruling"
    ACCEPTED = "accepted"
    ON_HOLD = "on_hold"
    DECLINED = "declined"
    REFERRED_OUT = "referred_out"
    WITHDRAWN = "withdrawn"
    CANCELLED = "cancelled"
    CLOSED = "closed"
    """Completed, as scheduling has said."""


_UNDECIDED: Final = frozenset({Step.IN_TRIAGE, Step.NEEDS_INFORMATION, Step.AWAITING_RULING})
_ACTIVE: Final = frozenset({Step.ACCEPTED, Step.ON_HOLD})


@dataclass(frozen=True, slots=True)
class Audience:
    """For whom the assistance is."""

    roles: tuple[str, ...] = ()
    in_person: int = 0
    virtual: int = 0


@dataclass(frozen=True, slots=True)
class Changes:
    """The terms an agency changes; None leaves a term as it was."""

    topics: tuple[TopicCode, ...] | None = None
    delivery_modes: tuple[DeliveryMode, ...] | None = None
    window: DateWindow | None = None
    blackouts: tuple[DateWindow, ...] | None = None
    urgency: Urgency | None = None
    audience: Audience | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What a request asks for. A topic or delivery mode named twice counts once."""

    topics: tuple[TopicCode, ...]
    delivery_modes: tuple[DeliveryMode, ...]
    window: DateWindow
    blackouts: tuple[DateWindow, ...] = ()
    urgency: Urgency = Urgency.ROUTINE
    audience: Audience = Audience()

    def __post_init__(self) -> None:
        object.__setattr__(self, "topics", tuple(dict.fromkeys(self.topics)))
        object.__setattr__(self, "delivery_modes", tuple(dict.fromkeys(self.delivery_modes)))

    def changed_by(self, changes: Changes) -> "Terms":
        """The terms with these changes made."""
        return replace(self, **_given(changes))


@dataclass(frozen=True, slots=True)
class Letter:
    """A letter of support."""

    signed_on: date
    reference: str


@dataclass(frozen=True, slots=True)
class Contact:
    """How to reach an office."""

    office: str
    name: str | None = None
    email: str | None = None
    telephone: str | None = None


@dataclass(frozen=True, slots=True)
class Sensitive:
    """Contact data and the narrative. Intake keeps them only until it has decided on the request."""

    executive: Contact | None = None
    point_of_contact: Contact | None = None
    problem: str | None = None
    tried: str | None = None
    goals: str | None = None

    def supplemented_by(self, other: "Sensitive") -> "Sensitive":
        """With whatever the other gives in the place of what was there."""
        return replace(self, **_given(other))


@dataclass(frozen=True, slots=True)
class Reopening:
    """An agency's wish to take a request up again, remembered while the request does not look closed yet.

    `hold` says why the programme office has put the request on hold since: that goes for the reopened one.
    """

    asked_at: datetime
    reason: str
    hold: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One agency's request for assistance. `version` counts the times it was stored."""

    request_id: RequestId
    ori: Ori
    terms: Terms
    submitted_at: datetime
    participating: tuple[Ori, ...] = ()
    executive_support: Letter | None = None
    governing_body_support: Letter | None = None
    host_facilities: str | None = None
    public: bool = False
    sensitive: Sensitive = Sensitive()
    step: Step = Step.IN_TRIAGE
    ruling_clock: RulingClock | None = None
    closed_at: datetime | None = None
    wishes: tuple[Reopening, ...] = ()
    """To reopen it, in the order of their time: remembered until scheduling's news of its closing arrives."""
    version: int = 0

    def __post_init__(self) -> None:
        others = tuple(ori for ori in dict.fromkeys(self.participating) if ori != self.ori)
        object.__setattr__(self, "participating", others)

    @property
    def is_undecided(self) -> bool:
        """Intake has not decided on it: information or a ruling is awaited."""
        return self.step in _UNDECIDED

    @property
    def is_active(self) -> bool:
        """Taken on, and neither over nor given up; it may be on hold."""
        return self.step in _ACTIVE

    @property
    def is_open(self) -> bool:
        return self.is_undecided or self.is_active


def _given(part: Changes | Sensitive) -> dict[str, object]:
    return {field.name: value for field in fields(part) if (value := getattr(part, field.name)) is not None}
