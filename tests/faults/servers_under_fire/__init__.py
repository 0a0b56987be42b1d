"""Scenarios of servers, network, database, disk, clock and log."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from tests.faults.ground import Ground
from tests.faults.scenario import Scenario
from tests.faults.servers_under_fire.away import (
    BROKER_KILLED,
    KAFKA_UNREACHABLE,
    ONE_OF_THREE_KILLED,
    POSTGRES_KILLED,
)
from tests.faults.servers_under_fire.clocks import CLOCK_STEPPED, DATABASE_CLOCK_SET_BACK, SUMMER_TIME
from tests.faults.servers_under_fire.contention import CONTENTION
from tests.faults.servers_under_fire.disks import why_none
from tests.faults.servers_under_fire.full_disk import KAFKA_FULL, POSTGRES_FULL
from tests.faults.servers_under_fire.grounds import clustered, cramped_kafka, cramped_postgres, detoured
from tests.faults.servers_under_fire.network import COMMITS_CUT, NETWORK_TO_KAFKA, NETWORK_TO_POSTGRES
from tests.faults.servers_under_fire.poison import POISONED
from tests.faults.servers_under_fire.restoring import PUBLISHER_RESTORED, READER_RESTORED
from tests.faults.servers_under_fire.surgery import SURGERY

_ALL: Final[tuple[Scenario, ...]] = (
    BROKER_KILLED,
    ONE_OF_THREE_KILLED,
    KAFKA_UNREACHABLE,
    NETWORK_TO_KAFKA,
    NETWORK_TO_POSTGRES,
    POSTGRES_KILLED,
    READER_RESTORED,
    PUBLISHER_RESTORED,
    COMMITS_CUT,
    POSTGRES_FULL,
    KAFKA_FULL,
    POISONED,
    CONTENTION,
    CLOCK_STEPPED,
    SUMMER_TIME,
    DATABASE_CLOCK_SET_BACK,
    *SURGERY,
)

_WHY_NOT: Final[Mapping[str, str]] = {POSTGRES_FULL.name: why_none(), KAFKA_FULL.name: why_none()}

SKIPPED: Final[Mapping[str, str]] = {name: why for name, why in _WHY_NOT.items() if why}
"""Scenarios that cannot be carried out on this machine, and why."""

SCENARIOS: Final[tuple[Scenario, ...]] = tuple(scenario for scenario in _ALL if scenario.name not in SKIPPED)

LAY: Final[Mapping[str, Callable[[Path], AbstractContextManager[Ground]]]] = {
    ONE_OF_THREE_KILLED.name: clustered,
    KAFKA_UNREACHABLE.name: detoured,
    NETWORK_TO_KAFKA.name: detoured,
    NETWORK_TO_POSTGRES.name: detoured,
    COMMITS_CUT.name: detoured,
    POSTGRES_FULL.name: cramped_postgres,
    KAFKA_FULL.name: cramped_kafka,
}
"""How to lay the ground of scenarios that need one of their own. Scenarios with the same function can share one."""
