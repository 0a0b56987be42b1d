"""Scenarios of the campaign in short: those that no other test has, and that are soon over."""

from collections import deque

import pytest

from tests.faults.campaign import Course, Plan, Turn
from tests.faults.ground import Ground
from tests.faults.outcome import Outcome
from tests.faults.scenario import Scenario
from tests.faults.scenarios import ALL
from tests.faults.scenarios.zombies import HICCUPS, RELAY_PAST_LEASE

SEED = 1


@pytest.mark.parametrize("scenario", [HICCUPS, RELAY_PAST_LEASE], ids=lambda scenario: scenario.name)
async def test_nothing_is_lost_doubled_or_put_out_of_order(ground: Ground, scenario: Scenario) -> None:
    told: list[Outcome] = []
    turn = Turn(scenario, SEED)
    plan = Plan([turn], requests=40, rate=16.0, wear=1, grounds={})
    await Course(plan, ground, lambda _, outcome: told.append(outcome) if outcome else None, turn).run(deque([turn]))
    (outcome,) = told
    assert outcome.findings == ()
    assert outcome.requests >= plan.requests
    assert outcome.said


def test_every_scenario_has_a_name_of_its_own() -> None:
    assert len({scenario.name for scenario in ALL}) == len(ALL)
