"""Why nobody could be proposed for a request, in plain words, and what would help."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from services.matching.decisions.eligibility import Reason

SAYS: Final[Mapping[Reason, str]] = {
    Reason.NO_EXPERT_FOR_TOPIC: "cover none of the topics asked for",
    Reason.AGENCY_TYPE: "are not peers of this type of agency",
    Reason.DELIVERY_MODE: "offer none of the delivery modes asked for",
    Reason.PARTNER_NOT_SELECTED: "belong to a partner that is not selected for the whole window",
    Reason.CONFLICT_OF_INTEREST: "have a conflict of interest with an agency of this request",
    Reason.DECLINED_BEFORE: "have been declined for this request, have declined it, or found no dates on its terms",
    Reason.TOO_FAR: "would have to travel farther than they do",
    Reason.UNAVAILABLE: "are free on no day of the window",
    Reason.AT_CAPACITY: "hold as many requests as they can",
    Reason.PARTNER_AT_CAPACITY: "belong to a partner that serves as many requests as it can",
    Reason.OUTCOMPETED: "are needed for requests that are more urgent or have waited longer",
}
"""What is said of experts whom the reason rules out: experts who ..."""

_HELPS: Final[Mapping[Reason, str]] = {
    Reason.NO_EXPERT_FOR_TOPIC: "Partners list experts for these topics.",
    Reason.AGENCY_TYPE: "Partners list peers of this type of agency.",
    Reason.DELIVERY_MODE: "The agency accepts another delivery mode.",
    Reason.PARTNER_NOT_SELECTED: "The programme office selects the partner, or extends its award, for these dates.",
    Reason.CONFLICT_OF_INTEREST: "Where a partner bargains with the agency, the agency's executive may waive that.",
    Reason.DECLINED_BEFORE: "Partners list further experts; where no dates were found, the agency offers other dates.",
    Reason.TOO_FAR: "The agency accepts a virtual delivery mode.",
    Reason.UNAVAILABLE: "The agency offers a longer or a later window.",
    Reason.AT_CAPACITY: "Experts raise their load limits, or finish what they hold.",
    Reason.PARTNER_AT_CAPACITY: "The programme office raises the partner's capacity.",
    Reason.OUTCOMPETED: "More experts are listed; until then the request waits its turn.",
}


@dataclass(frozen=True, slots=True)
class Shortfall:
    """How many experts one reason ruled out first."""

    reason: Reason
    experts: int
    says: str


def shortfalls(ruled_out: Mapping[Reason, int]) -> tuple[Shortfall, ...]:
    """The reasons that ruled experts out, those looked at last first: whom they stopped came nearest to a match.

    `ruled_out` counts experts by their first reason.
    """
    found = tuple(
        Shortfall(reason, experts, f"Experts who {SAYS[reason]}: {experts}.")
        for reason in reversed(Reason)
        if (experts := ruled_out.get(reason, 0))
    )
    return found or (Shortfall(Reason.NO_EXPERT_FOR_TOPIC, 0, "No expert is listed."),)


def would_help(reasons: tuple[Shortfall, ...]) -> tuple[str, ...]:
    """What would bring a match, the most promising first."""
    return tuple(_HELPS[one.reason] for one in reasons if one.reason in _HELPS)
