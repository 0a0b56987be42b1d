"""Conflicts of interest: what bars an expert, what clears it, and that nothing else does."""

from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from schemas.vocabulary import ConflictId, ConflictKind, DateWindow, Ori, TopicCode
from services.matching.decisions.conflicts import conflict_with, years_before
from services.matching.decisions.roster import Conflict, Employment, declare, waive
from tests.matching.matching_builders import SPRINGFIELD, TODAY, TOPIC, WINDOW, asked, expert, partner

HERE = SPRINGFIELD.ori
NEXT_DOOR = Ori("IL0160100")
ELSEWHERE = Ori("MO0480000")
JOINT = replace(SPRINGFIELD, participating=(ELSEWHERE,))


def conflict(kind: ConflictKind, ori: Ori = HERE, *, waived: bool = False) -> tuple[Conflict, ...]:
    return (Conflict(ConflictId("C1"), ori, kind, waived),)


@pytest.mark.parametrize("kind", ConflictKind)
def test_every_declared_kind_bars_the_expert_and_every_expert_of_the_partner(kind: ConflictKind) -> None:
    assert conflict_with(expert(conflicts=conflict(kind)), partner(), asked(), TODAY) is kind
    assert conflict_with(expert(), partner(conflicts=conflict(kind)), asked(), TODAY) is kind


@pytest.mark.parametrize("kind", ConflictKind)
def test_a_waiver_clears_bargaining_and_nothing_else(kind: ConflictKind) -> None:
    barred = conflict_with(expert(), partner(conflicts=conflict(kind, waived=True)), asked(), TODAY)
    assert barred is (None if kind is ConflictKind.BARGAINING else kind)


@pytest.mark.parametrize("kind", ConflictKind)
def test_a_conflict_with_a_participating_agency_counts(kind: ConflictKind) -> None:
    assert conflict_with(expert(conflicts=conflict(kind, ELSEWHERE)), partner(), asked(JOINT), TODAY) is kind
    assert conflict_with(expert(conflicts=conflict(kind, ELSEWHERE)), partner(), asked(), TODAY) is None


@pytest.mark.parametrize("kind", ConflictKind)
def test_only_litigation_and_labour_disputes_reach_the_neighbours(kind: ConflictKind) -> None:
    barred = conflict_with(expert(conflicts=conflict(kind, NEXT_DOOR)), partner(), asked(), TODAY)
    assert (barred is not None) == (kind in {ConflictKind.LITIGATION, ConflictKind.LABOUR_DISPUTE})


@pytest.mark.parametrize(
    ("until", "barred"),
    [
        (None, True),
        (date(2026, 2, 1), True),
        (date(2023, 3, 2), True),
        (date(2023, 3, 1), False),
        (date(2010, 1, 1), False),
    ],
)
def test_employment_bars_while_it_lasts_and_for_three_years_after(until: date | None, barred: bool) -> None:
    assert date(2026, 3, 2) == TODAY
    found = conflict_with(expert(employments=(Employment(HERE, until),)), partner(), asked(), TODAY)
    assert found is (ConflictKind.EMPLOYMENT if barred else None)


def test_employment_is_counted_back_from_a_window_that_lies_before_today() -> None:
    lately = expert(employments=(Employment(HERE, date(2022, 6, 1)),))
    assert conflict_with(lately, partner(), asked(window=WINDOW), TODAY) is None
    assert conflict_with(lately, partner(), asked(window=DateWindow(date(2025, 6, 1), date(2026, 6, 1))), TODAY)


def test_employment_elsewhere_bars_from_a_joint_request_only() -> None:
    there = expert(employments=(Employment(ELSEWHERE, None),))
    assert conflict_with(there, partner(), asked(), TODAY) is None
    assert conflict_with(there, partner(), asked(JOINT), TODAY) is ConflictKind.EMPLOYMENT


def test_a_vendor_is_barred_where_any_topic_asked_for_is_its_own() -> None:
    vendor = expert(vendor_topics=frozenset({TopicCode("compstat")}))
    assert conflict_with(vendor, partner(), asked(topics=(TOPIC, TopicCode("compstat"))), TODAY)
    assert conflict_with(vendor, partner(), asked(), TODAY) is None


@pytest.mark.parametrize(
    ("day", "earlier"),
    [
        (date(2024, 2, 29), date(2021, 2, 28)),
        (date(2026, 3, 2), date(2023, 3, 2)),
        (date(2027, 2, 28), date(2024, 2, 28)),
    ],
)
def test_three_years_earlier_is_a_day_also_of_a_leap_day(day: date, earlier: date) -> None:
    assert years_before(day, 3) == earlier


def test_declaring_again_does_not_undo_a_waiver() -> None:
    [one] = conflict(ConflictKind.BARGAINING)
    cleared = waive((one,), one.conflict_id)
    assert declare(cleared, one) == cleared
    assert cleared[0].waived


def test_waiving_an_unknown_conflict_changes_nothing() -> None:
    declared: Any = conflict(ConflictKind.BARGAINING)
    assert waive(declared, ConflictId("C2")) == declared
