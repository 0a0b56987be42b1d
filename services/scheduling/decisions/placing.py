"""Places sessions in their order on days, exactly: dynamic programming over sets of days.

The state is (session, day on which it starts). All states of one session are one set of days, so a step of the
programme is a few shifts of an int instead of a loop over pairs of days.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from services.scheduling.decisions.calendar import DaySet


@dataclass(frozen=True, slots=True)
class Stage:
    """One session as the search sees it. Gaps are counted from the last day of the session before to its first day."""

    starts: DaySet
    length: int
    min_gap: int
    max_gap: int


@dataclass(frozen=True, slots=True)
class NoRoom:
    """No order-keeping choice of days reaches this stage."""

    stage: int


def place(stages: Sequence[Stage]) -> tuple[int, ...] | NoRoom:
    """The day on which each session starts: earliest finish, then least idle time, then each as early as can be."""
    if not stages:
        return ()
    reachable: list[DaySet] = []
    for nth, stage in enumerate(stages):
        starts = stage.starts if nth == 0 else stage.starts & _after(reachable[-1], stages[nth - 1], stage)
        if not starts:
            return NoRoom(nth)
        reachable.append(starts)
    reachable[-1] = _earliest(reachable[-1])
    for nth in range(len(stages) - 2, -1, -1):
        reachable[nth] &= _before(reachable[nth + 1], stages[nth], stages[nth + 1])
    # With the finish fixed and the lengths given, the latest first day is the least idle time.
    chosen = [reachable[0].bit_length() - 1]
    for nth in range(1, len(stages)):
        reachable[nth] &= _after(1 << chosen[-1], stages[nth - 1], stages[nth])
        chosen.append(_earliest(reachable[nth]).bit_length() - 1)
    return tuple(chosen)


def _earliest(days: DaySet) -> DaySet:
    return days & -days


def _after(starts: DaySet, stage: Stage, following: Stage) -> DaySet:
    if following.max_gap < following.min_gap:
        return 0
    return _spread(starts << (stage.length - 1 + following.min_gap), following.max_gap - following.min_gap)


def _before(starts: DaySet, stage: Stage, following: Stage) -> DaySet:
    if following.max_gap < following.min_gap:
        return 0
    furthest = stage.length - 1 + following.max_gap
    # Spread upwards from the furthest day back; the shift comes last so that no day below the horizon is lost early.
    return _spread(starts, following.max_gap - following.min_gap) >> furthest


def _spread(days: DaySet, further: int) -> DaySet:
    """Every day and the `further` days after it, by doubling."""
    covered = 1
    while covered <= further:
        step = min(covered, further + 1 - covered)
        days |= days << step
        covered += step
    return days
