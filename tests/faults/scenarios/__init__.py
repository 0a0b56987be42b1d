"""All scenarios of the fault campaign."""

from typing import Final

from tests.faults.scenario import Scenario
from tests.faults.scenarios.kills import KILLED_AT_RANDOM, KILLED_AT_STEPS, RELAY_KILLED
from tests.faults.scenarios.order import DISORDER
from tests.faults.scenarios.redrive import REDRIVEN
from tests.faults.scenarios.scale import SCALED
from tests.faults.scenarios.stalls import BLOCKED, STANDING_STILL
from tests.faults.scenarios.zombies import HICCUPS, RELAY_PAST_LEASE, ZOMBIE
from tests.faults.servers_under_fire import SCENARIOS

ALL: Final[tuple[Scenario, ...]] = (
    KILLED_AT_STEPS,
    KILLED_AT_RANDOM,
    ZOMBIE,
    HICCUPS,
    SCALED,
    RELAY_KILLED,
    RELAY_PAST_LEASE,
    BLOCKED,
    STANDING_STILL,
    DISORDER,
    REDRIVEN,
    *SCENARIOS,
)
