"""The words of the programme as types: ids, agency types, delivery modes, steps, dates and places.

Decisions import this module, so it knows neither pydantic nor any event.
"""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import NewType

RequestId = NewType("RequestId", str)
MatchId = NewType("MatchId", str)
SessionId = NewType("SessionId", str)
PartnerId = NewType("PartnerId", str)
ExpertId = NewType("ExpertId", str)
ConflictId = NewType("ConflictId", str)
Ori = NewType("Ori", str)
"""FBI Originating Agency Identifier, 9 characters: the key of an agency. Names are never keys."""
TopicCode = NewType("TopicCode", str)
"""A topic of assistance, such as `active-shooter`. The list of topics is data with a period of validity."""

ORI_PATTERN = r"^[A-Z]{2}[A-Z0-9]{7}$"
ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,79}$"
TOPIC_CODE_PATTERN = r"^[a-z0-9]+(-[a-z0-9]+)*$"


class AgencyType(StrEnum):
    """Kind of law-enforcement agency. A Tribal Nation is a sovereign government, never a kind of city."""

    MUNICIPAL = "municipal"
    COUNTY_SHERIFF = "county_sheriff"
    STATE_POLICE = "state_police"
    STATE_OTHER = "state_other"
    COUNTY_OTHER = "county_other"
    CAMPUS = "campus"
    TRIBAL = "tribal"
    SPECIAL_JURISDICTION = "special_jurisdiction"
    FEDERAL = "federal"
    UNKNOWN = "unknown"


class SwornBand(StrEnum):
    """Number of officers with full arrest powers, in bands. A small agency has under 50."""

    UNDER_10 = "under_10"
    FROM_10 = "10_to_49"
    FROM_50 = "50_to_99"
    FROM_100 = "100_to_499"
    FROM_500 = "500_and_over"
    UNKNOWN = "unknown"


class DeliveryMode(StrEnum):
    """How assistance reaches the agency."""

    IN_PERSON_TRAINING = "in_person_training"
    WEB_BASED_TRAINING = "web_based_training"
    TRAIN_THE_TRAINER = "train_the_trainer"
    VIRTUAL_COACHING = "virtual_coaching"
    MEETING_FACILITATION = "meeting_facilitation"
    ON_SITE_CONSULTATION = "on_site_consultation"
    PEER_EXCHANGE = "peer_exchange"
    STRATEGIC_PLANNING = "strategic_planning"
    POLICY_REVIEW = "policy_review"
    DATA_ANALYSIS = "data_analysis"
    RESOURCE_REFERRAL = "resource_referral"


ON_SITE_MODES = frozenset(
    {
        DeliveryMode.IN_PERSON_TRAINING,
        DeliveryMode.TRAIN_THE_TRAINER,
        DeliveryMode.MEETING_FACILITATION,
        DeliveryMode.ON_SITE_CONSULTATION,
        DeliveryMode.PEER_EXCHANGE,
        DeliveryMode.STRATEGIC_PLANNING,
    }
)
"""Modes for which the expert travels to the agency: matching weighs the distance, scheduling the days of travel."""


class Urgency(StrEnum):
    """How soon the agency needs help; `critical` follows a mass-casualty event or unrest."""

    ROUTINE = "routine"
    SOON = "soon"
    CRITICAL = "critical"


class Level(StrEnum):
    """An expert's command of a topic."""

    PRACTITIONER = "practitioner"
    INSTRUCTOR = "instructor"
    LEAD = "lead"


class ActorRole(StrEnum):
    """Who speaks in a submission."""

    AGENCY_EXECUTIVE = "agency_executive"
    POINT_OF_CONTACT = "point_of_contact"
    PARTNER = "partner"
    EXPERT = "expert"
    PROGRAMME_OFFICE = "programme_office"


class ConflictKind(StrEnum):
    """Real or apparent conflicts of interest."""

    EMPLOYMENT = "employment"
    FAMILY = "family"
    VENDOR_INTEREST = "vendor_interest"
    LITIGATION = "litigation"
    LABOUR_DISPUTE = "labour_dispute"
    BARGAINING = "bargaining"
    RECUSAL = "recusal"


WAIVABLE = frozenset({ConflictKind.BARGAINING})
"""Only a partner's local chapter that bargains with the agency can be waived, and only by its executive."""


class Outcome(StrEnum):
    """How an engagement ended."""

    COMPLETED = "completed"
    WITHDRAWN = "withdrawn"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class DateWindow:
    """Calendar days, both ends included, in the time zone of whoever named them."""

    first: date
    last: date

    def __contains__(self, day: date) -> bool:
        return self.first <= day <= self.last

    def overlaps(self, other: "DateWindow") -> bool:
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """An interval of time, start included, end excluded; both carry a UTC offset."""

    start: datetime
    end: datetime

    def overlaps(self, other: "TimeWindow") -> bool:
        return self.start < other.end and other.start < self.end


@dataclass(frozen=True, slots=True)
class Place:
    """WGS84 degrees."""

    latitude: float
    longitude: float
