"""Whatever the order of statements, whoever dies and whatever is lost: each event once, in order, and published."""

from concurrent.futures import ProcessPoolExecutor

import pytest

from deploy.local import servers
from tests.schedules.breaks import BREAKS
from tests.schedules.conftest import PROCESSES
from tests.schedules.exploring import explore

BUDGET = 500
"""Schedules within which a runtime that is broken has to be noticed."""

BROKEN = {
    "fence_without_epoch": "owns",
    "outbox_paged_by_cursor": "work left for relay",
    "relay_without_fence": "leads beside",
    "no_sequence_check": "was applied",
    "redriver_that_holds_nothing": "is parked without having failed",
}
"""What is found of each break."""


def test_no_schedule_loses_doubles_or_reorders_anything(
    addresses: servers.Addresses, processes: ProcessPoolExecutor, seeds: range
) -> None:
    parts = [seeds[part::PROCESSES] for part in range(min(PROCESSES, len(seeds)))]
    explored = [one.result() for one in [processes.submit(explore, addresses.postgres, part) for part in parts]]
    played, steps = sum(one.played for one in explored), sum(one.steps for one in explored)
    print(f"{played} schedules of {steps / played:.0f} steps each")
    failures = [str(one.failure) for one in explored if one.failure is not None]
    assert not failures, "\n\n\n".join(failures)


@pytest.mark.parametrize("broken", BREAKS)
def test_a_runtime_that_is_broken_is_noticed(
    addresses: servers.Addresses, processes: ProcessPoolExecutor, broken: str
) -> None:
    explored = processes.submit(explore, addresses.postgres, range(BUDGET), broken, simplify=False).result()
    assert explored.failure is not None, f"{explored.played} schedules of {explored.steps} steps, and none failed"
    assert any(BROKEN[broken] in one for one in explored.failure.findings), explored.failure.drawn


def test_a_schedule_that_fails_is_told_in_few_steps(
    addresses: servers.Addresses, processes: ProcessPoolExecutor
) -> None:
    explored = processes.submit(explore, addresses.postgres, range(BUDGET), "no_sequence_check").result()
    assert explored.failure is not None
    drawn, simple = explored.failure.steps
    assert simple < drawn
    assert explored.failure.findings[0] in explored.failure.drawn
