"""What a plan is made from, and what it is: agency and terms, experts, dated sessions, reasons why there are none."""

from dataclasses import dataclass

from schemas.vocabulary import DateWindow, DeliveryMode, ExpertId, MatchId, Place, RequestId, SessionId, TimeWindow


@dataclass(frozen=True, slots=True)
class Site:
    """Where the agency is, and by which clock it lives."""

    time_zone: str
    place: Place | None


@dataclass(frozen=True, slots=True)
class Terms:
    """What the request asks for, as far as dates go. The modes are in the order the agency prefers them."""

    delivery_modes: tuple[DeliveryMode, ...]
    window: DateWindow
    blackouts: tuple[DateWindow, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """What scheduling has to know of an expert; days off are in the expert's time zone."""

    home: Place
    time_zone: str
    delivery_modes: tuple[DeliveryMode, ...]
    travel_limit_km: int
    unavailable: tuple[DateWindow, ...]


@dataclass(frozen=True, slots=True)
class Expert:
    """An expert somebody has named; the profile is there once the roster lists the expert.

    `row_version` counts the times the row was stored.
    """

    expert_id: ExpertId
    row_version: int = 0
    profile: Profile | None = None


@dataclass(frozen=True, slots=True)
class Attendant:
    """An expert of the match, and what takes the expert's time already."""

    expert_id: ExpertId
    profile: Profile
    taken: tuple[TimeWindow, ...] = ()


@dataclass(frozen=True, slots=True)
class Session:
    """One dated session. `occupies` is the experts' time it takes, travel included; times are UTC."""

    session_id: SessionId
    title: str
    delivery_mode: DeliveryMode
    on_site: bool
    takes_place: TimeWindow
    occupies: TimeWindow
    time_zone: str
    """The agency's."""
    expert_ids: tuple[ExpertId, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """One version of the dated sessions of a match."""

    match_id: MatchId
    version: int
    delivery_mode: DeliveryMode
    sessions: tuple[Session, ...]
    confirmed: bool = False
    over: int = 0
    """How many of the sessions, from the first on, are over: a report or, once confirmed, the time has said so."""


@dataclass(frozen=True, slots=True)
class Order:
    """The plan that is to be drafted. What was held of the plan before it stays as it is."""

    request_id: RequestId
    match_id: MatchId
    plan_version: int
    site: Site
    terms: Terms
    begun_in: DeliveryMode | None = None
    held: tuple[Session, ...] = ()


@dataclass(frozen=True, slots=True)
class Reason:
    """Why there is no plan; `field` names the field of the request that would have to change, or is empty."""

    field: str
    says: str


@dataclass(frozen=True, slots=True)
class Unplannable:
    """The sessions can be placed in none of the delivery modes asked for."""

    reasons: tuple[Reason, ...]
