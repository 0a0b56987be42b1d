"""Which sessions an engagement has, by its delivery mode.

A design decision of this system, not a rule of the programme. It is anchored in the service levels of sibling
programmes: a first consultation within a week, advice within 5 business days of the consultation, an event on site of
up to 2 days with 1 to 2 travel days, coaching by regular calls.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from schemas.vocabulary import DeliveryMode
from services.scheduling.decisions.calendar import Minute

LEAD_ON_SITE: Final = 7
"""Days between planning and the first day on site: time to approve the plan and to book the way."""
LEAD_VIRTUAL: Final = 2
"""Days between planning and a session by video: time to approve the plan."""


@dataclass(frozen=True, slots=True)
class Hours:
    """From and to, on the agency's clock; the end is that of the last day."""

    start: Minute
    end: Minute


@dataclass(frozen=True, slots=True)
class Outline:
    """One session before it has a date. Gaps are counted from the last day of the session before to its first day."""

    title: str
    delivery_mode: DeliveryMode
    on_site: bool
    days: int
    hours: tuple[Hours, ...]
    """What may be chosen from, the earliest first."""
    min_gap: int
    max_gap: int

    @property
    def lead(self) -> int:
        return LEAD_ON_SITE if self.on_site else LEAD_VIRTUAL


_ON_SITE_HOURS: Final = (Hours(9 * 60, 16 * 60 + 30),)
_CALL_STARTS: Final = tuple(hour * 60 for hour in (9, 11, 13, 15))


def _call(
    title: str, minutes: int, gaps: tuple[int, int], mode: DeliveryMode = DeliveryMode.VIRTUAL_COACHING
) -> Outline:
    return Outline(title, mode, False, 1, tuple(Hours(start, start + minutes) for start in _CALL_STARTS), *gaps)


def _visit(title: str, mode: DeliveryMode, days: int, gaps: tuple[int, int]) -> Outline:
    return Outline(title, mode, True, days, _ON_SITE_HOURS, *gaps)


_FIRST: Final = (0, 0)
"""Nothing lies before the first session."""
_AFTER_PREPARATION: Final = (3, 60)
_ADVICE: Final = (1, 7)
"""5 business days."""
_FOLLOWING_UP: Final = (7, 60)
_WEEKLY: Final = (5, 21)
_NEXT_MODULE: Final = (1, 14)
_RESULTS: Final = (5, 28)

_WEB: Final = DeliveryMode.WEB_BASED_TRAINING

OUTLINES: Final[Mapping[DeliveryMode, tuple[Outline, ...]]] = MappingProxyType(
    {
        DeliveryMode.IN_PERSON_TRAINING: (
            _call("Preparation call", 60, _FIRST),
            _visit("Training on site", DeliveryMode.IN_PERSON_TRAINING, 2, _AFTER_PREPARATION),
            _call("Follow-up call", 60, _FOLLOWING_UP),
        ),
        DeliveryMode.WEB_BASED_TRAINING: (
            _call("First module", 120, _FIRST, _WEB),
            _call("Second module", 120, _NEXT_MODULE, _WEB),
            _call("Questions and practice", 60, _NEXT_MODULE, _WEB),
        ),
        DeliveryMode.TRAIN_THE_TRAINER: (
            _call("Preparation call", 60, _FIRST),
            _visit("Instructors' course", DeliveryMode.TRAIN_THE_TRAINER, 2, _AFTER_PREPARATION),
            _call("Instructors' review", 120, _FOLLOWING_UP),
        ),
        DeliveryMode.VIRTUAL_COACHING: (
            _call("Opening call", 60, _FIRST),
            _call("Second coaching call", 60, _WEEKLY),
            _call("Third coaching call", 60, _WEEKLY),
            _call("Closing call", 60, _WEEKLY),
        ),
        DeliveryMode.MEETING_FACILITATION: (
            _call("Preparation call", 60, _FIRST),
            _visit("Facilitated meeting", DeliveryMode.MEETING_FACILITATION, 1, _AFTER_PREPARATION),
        ),
        DeliveryMode.ON_SITE_CONSULTATION: (
            _call("Opening call", 60, _FIRST),
            _visit("Consultation on site", DeliveryMode.ON_SITE_CONSULTATION, 2, _AFTER_PREPARATION),
            _call("Advice", 90, _ADVICE),
        ),
        DeliveryMode.PEER_EXCHANGE: (
            _call("Introduction", 60, _FIRST),
            _visit("Peer visit", DeliveryMode.PEER_EXCHANGE, 1, _AFTER_PREPARATION),
            _call("Review", 60, _FOLLOWING_UP),
        ),
        DeliveryMode.STRATEGIC_PLANNING: (
            _call("Opening call", 90, _FIRST),
            _visit("Planning workshop", DeliveryMode.STRATEGIC_PLANNING, 2, _AFTER_PREPARATION),
            _call("Review of the draft", 90, _RESULTS),
        ),
        DeliveryMode.POLICY_REVIEW: (
            _call("Scope of the review", 60, _FIRST, DeliveryMode.POLICY_REVIEW),
            _call("Findings", 90, _RESULTS, DeliveryMode.POLICY_REVIEW),
        ),
        DeliveryMode.DATA_ANALYSIS: (
            _call("Data and questions", 60, _FIRST, DeliveryMode.DATA_ANALYSIS),
            _call("Results", 90, _RESULTS, DeliveryMode.DATA_ANALYSIS),
        ),
        DeliveryMode.RESOURCE_REFERRAL: (_call("Referral", 60, _FIRST, DeliveryMode.RESOURCE_REFERRAL),),
    }
)
