"""Servers that belong to these tests alone, and a stack on them that all scenarios share."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local import servers
from services.console.surroundings import Surroundings
from tests.faults.ground import Ground, clear, lay, quiet, start_servers


@pytest.fixture(scope="session")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a Kafka and a PostgreSQL that may be killed; nobody else's, whatever the settings say."""
    folder = tmp_path_factory.mktemp("faults")
    # The shortest that a broker grants: until then, a killed member's partitions are nobody's.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIELDBRIDGE_SESSION_TIMEOUT_MS", "6000")
        try:
            start_servers(folder)
            yield folder
        finally:
            servers.stop(folder, say=quiet)


@pytest.fixture(scope="session")
def ground(machine: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """The stack of the scenarios, with agencies and a roster."""
    yield from _laid(machine, tmp_path_factory.mktemp("ground"))


@pytest.fixture(scope="module")
def other_ground(machine: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """A second stack on the same servers, for a module that leaves it spoilt."""
    yield from _laid(machine, tmp_path_factory.mktemp("other_ground"))


def _laid(machine: Path, home: Path) -> Iterator[Ground]:
    addresses = servers.running(machine)
    assert addresses is not None, "the servers do not run"
    run = uuid.uuid4().hex[:8]
    surroundings = Surroundings(
        home=home,
        kafka=addresses.kafka,
        administrator=addresses.postgres,
        topic_prefix=f"faults-{run}-",
        database_prefix=f"fbfaults_{run}",
    )
    ground = Ground(surroundings, machine)
    try:
        yield lay(surroundings, machine)
    finally:
        clear(ground)
