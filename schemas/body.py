"""What all event bodies share: frozen, closed models whose CloudEvents type is their discriminator, and their fields.

Submissions come from other people's systems, so a field nobody knows is refused: it is a misspelling. Facts come from
the services themselves, so a field nobody knows is passed over: a newer release may add optional ones.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import date
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from schemas.envelope import Envelope
from schemas.vocabulary import (
    ID_PATTERN,
    ORI_PATTERN,
    TOPIC_CODE_PATTERN,
    AgencyType,
    ConflictId,
    DateWindow,
    DeliveryMode,
    ExpertId,
    Level,
    MatchId,
    Ori,
    PartnerId,
    Place,
    RequestId,
    SessionId,
    SwornBand,
    TopicCode,
    Urgency,
)

_ID = StringConstraints(pattern=ID_PATTERN, max_length=80)

RequestKey = Annotated[RequestId, StringConstraints(pattern=ID_PATTERN, max_length=60)]
"""Shorter than other ids: those of its matches and sessions begin with it."""
MatchKey = Annotated[MatchId, _ID]
SessionKey = Annotated[SessionId, _ID]
PartnerKey = Annotated[PartnerId, _ID]
ExpertKey = Annotated[ExpertId, _ID]
ConflictKey = Annotated[ConflictId, _ID]
OriKey = Annotated[Ori, StringConstraints(pattern=ORI_PATTERN)]
Topic = Annotated[TopicCode, StringConstraints(pattern=TOPIC_CODE_PATTERN, max_length=60)]

# PostgreSQL stores no NUL in text, so none is let in.
Line = Annotated[str, StringConstraints(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f]+$")]
Text = Annotated[str, StringConstraints(max_length=20_000, pattern=r"^[^\x00]*$")]

Day = Annotated[date, Field(ge=date(2000, 1, 1), le=date(2100, 1, 1))]
Moment = AwareDatetime
Headcount = Annotated[int, Field(ge=0, le=100_000)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]


def _in_order(window: DateWindow) -> DateWindow:
    if window.last < window.first:
        raise ValueError("the last day is before the first")
    if window.first.year < 2000 or window.last.year > 2100:
        raise ValueError("the days lie outside 2000 to 2100")
    return window


def _on_earth(place: Place) -> Place:
    if not (-90 <= place.latitude <= 90 and -180 <= place.longitude <= 180):
        raise ValueError("latitude goes from -90 to 90 and longitude from -180 to 180")
    return place


Days = Annotated[DateWindow, AfterValidator(_in_order)]
Location = Annotated[Place, AfterValidator(_on_earth)]


class Part(BaseModel):
    """A part of a body: frozen, and closed towards strangers."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Body(BaseModel):
    """What one event says. `TYPE` is its CloudEvents type, which tells the bodies of a topic apart."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)
    TYPE: ClassVar[str]
    TOPIC: ClassVar[str]
    UNKNOWN_FIELDS: ClassVar[Literal["forbid", "ignore"]]

    @property
    def subject(self) -> str:
        """Id of what the event is about: the CloudEvents subject, and the key of its Kafka record."""
        raise NotImplementedError


class Submission(Body):
    """Said by another system."""

    model_config = ConfigDict(extra="forbid")
    UNKNOWN_FIELDS: ClassVar[Literal["forbid", "ignore"]] = "forbid"


class Fact(Body):
    """Published by a service: it has happened."""

    model_config = ConfigDict(extra="ignore")
    UNKNOWN_FIELDS: ClassVar[Literal["forbid", "ignore"]] = "ignore"


class Contact(Part):
    """How to reach an office. Personal data: it stays inside the sensitive part of an event."""

    office: Line
    """Title of the office, such as 'Chief of Police'."""
    name: Line | None = None
    email: Annotated[str, StringConstraints(max_length=254, pattern=r"^[^@\s\x00]+@[^@\s\x00]+$")] | None = None
    telephone: Annotated[str, StringConstraints(max_length=40, pattern=r"^[0-9+()./ x-]+$")] | None = None


class Sensitive(Part):
    """Contact data and the narrative: never in logs, metrics or reports."""

    executive: Contact | None = None
    point_of_contact: Contact | None = None
    problem: Text | None = None
    """The problem in the agency's own words."""
    tried: Text | None = None
    """What was tried already."""
    goals: Text | None = None


class LetterOfSupport(Part):
    """The executive's, or for a Tribal Nation the governing body's, support in writing."""

    signed_on: Day
    reference: Line
    """File reference of the letter."""


class Audience(Part):
    """For whom the assistance is."""

    roles: tuple[Line, ...] = Field(default=(), max_length=20)
    in_person: Headcount = 0
    virtual: Headcount = 0


class Terms(Part):
    """What a request asks for, as it now stands."""

    topics: tuple[Topic, ...] = Field(min_length=1, max_length=10)
    delivery_modes: tuple[DeliveryMode, ...] = Field(min_length=1, max_length=11)
    """In the order the agency prefers them."""
    window: Days
    """Earliest and latest day of delivery, in the agency's time zone."""
    blackouts: tuple[Days, ...] = Field(default=(), max_length=100)
    urgency: Urgency = Urgency.ROUTINE
    audience: Audience = Audience()


class Agency(Part):
    """The requesting agency as the registry knows it when the request is accepted."""

    ori: OriKey
    name: Line
    agency_type: AgencyType
    state: Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
    time_zone: Line
    """IANA time zone, such as 'America/Chicago'."""
    place: Location | None = None
    sworn_band: SwornBand = SwornBand.UNKNOWN


class TopicSkill(Part):
    """A topic an expert covers, and how well."""

    topic: Topic
    level: Level = Level.PRACTITIONER


class Employment(Part):
    """An agency an expert works or worked for: a conflict for three years after the last day."""

    ori: OriKey
    until: Day | None = None
    """Last day; none while it goes on."""


class ExpertProfile(Part):
    """What matching and scheduling have to know about an expert."""

    partner_id: PartnerKey
    skills: tuple[TopicSkill, ...] = Field(min_length=1, max_length=60)
    delivery_modes: tuple[DeliveryMode, ...] = Field(min_length=1, max_length=11)
    agency_types: tuple[AgencyType, ...] = Field(min_length=1, max_length=10)
    """Types of agency the expert is a peer of."""
    sworn_band: SwornBand = SwornBand.UNKNOWN
    """Size of the agency the expert comes from: the core match is a comparable or larger one."""
    home: Location
    time_zone: Line
    travel_limit_km: Annotated[int, Field(ge=0, le=20_100)] = 20_100
    """Greatest distance to a session on site, in kilometres."""
    load_limit: Annotated[int, Field(ge=0, le=1000)] = 5
    """Greatest number of requests held at a time."""
    employments: tuple[Employment, ...] = Field(default=(), max_length=50)
    vendor_topics: tuple[Topic, ...] = Field(default=(), max_length=60)
    """Topics in which the expert has a commercial interest."""
    unavailable: tuple[Days, ...] = Field(default=(), max_length=400)
    """Days off, in the expert's time zone. Where a submission changes an expert without them, they stay."""


class Problem(Part):
    """A field at fault, or a reason, in plain words."""

    field: Text
    """Dotted path of the field; empty where the whole is meant."""
    problem: Text


AnyBody = TypeVar("AnyBody", bound=Body)


def parse(bodies: Mapping[str, type[AnyBody]], event_type: str, data: bytes) -> AnyBody | None:
    """The body of an event of this type, or None for a type that is not in `bodies`.

    Raises pydantic.ValidationError where the data breaks the type's schema.
    """
    body = bodies.get(event_type)
    return None if body is None else body.model_validate_json(data, extra=body.UNKNOWN_FIELDS)


def only(bodies: Iterable[type[AnyBody]]) -> Callable[[Envelope, bytes], AnyBody | None]:
    """What parses events of these types, and passes over all others unread. It raises what `parse` raises."""
    known = {body.TYPE: body for body in bodies}
    return lambda envelope, data: parse(known, envelope.type, data)
