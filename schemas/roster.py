"""Topic `roster`: partners, experts, their availability and their conflicts of interest. Published by intake."""

from typing import Annotated, ClassVar, Final, get_args

from pydantic import Field

from schemas.body import ConflictKey, Days, ExpertKey, ExpertProfile, Fact, Line, OriKey, PartnerKey, Text
from schemas.topics import ROSTER
from schemas.vocabulary import ConflictKind


class PartnerFact(Fact):
    """Has happened to one partner."""

    TOPIC: ClassVar[str] = ROSTER.name
    partner_id: PartnerKey

    @property
    def subject(self) -> str:
        return self.partner_id


class ExpertFact(Fact):
    """Has happened to one expert."""

    TOPIC: ClassVar[str] = ROSTER.name
    expert_id: ExpertKey

    @property
    def subject(self) -> str:
        return self.expert_id


class PartnerSelected(PartnerFact):
    """The programme office has selected the partner, or changed its award."""

    TYPE: ClassVar[str] = "partner.selected.v1"
    name: Line
    acronym: Line
    capacity: Annotated[int, Field(ge=1)]
    """Greatest number of requests served at a time."""
    period: Days | None = None


class PartnerSuspended(PartnerFact):
    """The partner is proposed for no further request."""

    TYPE: ClassVar[str] = "partner.suspended.v1"
    reason: Text | None = None


class ExpertListed(ExpertFact):
    """A partner has listed an expert."""

    TYPE: ClassVar[str] = "expert.listed.v1"
    profile: ExpertProfile


class ExpertChanged(ExpertFact):
    """What is known of an expert has changed."""

    TYPE: ClassVar[str] = "expert.changed.v1"
    profile: ExpertProfile


class ExpertRetired(ExpertFact):
    """The expert has left the roster."""

    TYPE: ClassVar[str] = "expert.retired.v1"


class AvailabilityChanged(ExpertFact):
    """All days on which the expert is not available from now on."""

    TYPE: ClassVar[str] = "availability.changed.v1"
    unavailable: tuple[Days, ...]


class ConflictDeclared(Fact):
    """An expert, or a whole partner, has a conflict of interest with an agency."""

    TOPIC: ClassVar[str] = ROSTER.name
    TYPE: ClassVar[str] = "conflict.declared.v1"
    conflict_id: ConflictKey
    expert_id: ExpertKey | None = None
    partner_id: PartnerKey | None = None
    ori: OriKey
    kind: ConflictKind

    @property
    def subject(self) -> str:
        return self.expert_id or self.partner_id or self.conflict_id


class ConflictWaived(Fact):
    """The agency's executive has waived the conflict."""

    TOPIC: ClassVar[str] = ROSTER.name
    TYPE: ClassVar[str] = "conflict.waived.v1"
    conflict_id: ConflictKey
    expert_id: ExpertKey | None = None
    partner_id: PartnerKey | None = None
    ori: OriKey

    @property
    def subject(self) -> str:
        return self.expert_id or self.partner_id or self.conflict_id


RosterBody = (
    PartnerSelected
    | PartnerSuspended
    | ExpertListed
    | ExpertChanged
    | ExpertRetired
    | AvailabilityChanged
    | ConflictDeclared
    | ConflictWaived
)

BODIES: Final[dict[str, type[RosterBody]]] = {body.TYPE: body for body in get_args(RosterBody)}
