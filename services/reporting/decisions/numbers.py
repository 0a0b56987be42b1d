"""The numbers of the programme, and which of them may be shown without telling of one agency."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from schemas.vocabulary import SwornBand
from services.reporting.decisions.views import Step

THRESHOLD: Final = 5
"""Counts of agencies or requests below this are not published. A common choice of statistical offices; our decision."""

SMALL_BANDS: Final = (SwornBand.UNDER_10, SwornBand.FROM_10)
"""Bands of a small agency: under 50 sworn, as reports in the field count them."""

PAIRING_TARGET: Final = timedelta(days=10)
"""From submission to a confirmed match: the service level of sibling programmes."""


@dataclass(frozen=True, slots=True)
class Duration:
    """How long requests waited, in seconds: how many there are, and the median and 90th percentile."""

    count: int
    p50: float | None
    p90: float | None


@dataclass(frozen=True, slots=True)
class PartnerLoad:
    """A partner's experts on the roster, and the requests it has in hand beside the most it may have at a time."""

    name: str
    selected: bool
    experts: int
    in_hand: int
    capacity: int


@dataclass(frozen=True, slots=True)
class Overview:
    """The numbers of the programme as they are, before anything is hidden."""

    steps: Mapping[Step, int]
    agencies: int
    small_agencies: int
    larger_agencies: int
    topics: Mapping[str, int]
    states: Mapping[str, int]
    agency_types: Mapping[str, int]
    durations: Mapping[str, Duration]
    matched_in_time: int
    clocks: Mapping[str, tuple[int, int]]
    """By service level: requests warned of, and requests that missed it."""
    partners: Sequence[PartnerLoad]
    submissions: Mapping[str, tuple[int, int]]
    """By type: how many were taken, and how many refused."""

    @property
    def requests(self) -> int:
        return sum(self.steps.values())


@dataclass(frozen=True, slots=True)
class Published:
    """Counts that may be shown. `rest` is the sum of the rows not shown, None where even that would tell too much."""

    rows: tuple[tuple[str, int], ...] = ()
    rest: int | None = 0


def publishable(counts: Mapping[str, int], threshold: int = THRESHOLD) -> Published:
    """The rows that may be shown beside their total, largest first; all others are summed up, without their names.

    Rows under the threshold are hidden. What is hidden must not be found by subtraction, as a single row would be, or
    rows that are all equal, or rows whose sum is under the threshold. The smallest rows still shown then join them, all
    that are equal at a time, until nobody who knows the total, what is shown and this very rule can tell a hidden one.
    """
    ranked = sorted(((label, count) for label, count in counts.items() if count > 0), key=lambda row: (-row[1], row[0]))
    shown = [row for row in ranked if row[1] >= threshold]
    hidden = [count for _, count in ranked[len(shown) :]]
    while hidden and shown and not _blurred(hidden, threshold):
        smallest = shown[-1][1]
        while shown and shown[-1][1] == smallest:
            hidden.append(shown.pop()[1])
    if hidden and sum(hidden) < threshold:
        return Published((), None)
    return Published(tuple(shown), sum(hidden))


def _blurred(hidden: Sequence[int], threshold: int) -> bool:
    return sum(hidden) >= threshold and min(hidden) < max(hidden)


def share(part: int, rest: int, threshold: int = THRESHOLD) -> float | None:
    """The part's share of the whole; None where either side is so small that the share would tell who it is."""
    if part + rest == 0 or 0 < part < threshold or 0 < rest < threshold:
        return None
    return part / (part + rest)


def enough(waited: Duration, threshold: int = THRESHOLD) -> Duration:
    """The wait as it may be shown: without percentiles where so few requests waited that they would tell of one."""
    return waited if waited.count >= threshold else Duration(waited.count, None, None)
