"""One counting worker that runs through many checks, and stages of their own for those that stop or break things."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.local import servers
from tests.driving import Worker
from tests.runtime.stage import Stage, stage


@pytest.fixture(scope="session")
def running(addresses: servers.Addresses, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, Worker]]:
    """A stage whose worker runs throughout, with two lanes: its tests use keys of their own."""
    with stage(addresses, tmp_path_factory.mktemp("running"), lanes=2) as made:
        worker = made.start(log_format="json")
        asyncio.run(worker.ready())
        yield made, worker


@pytest.fixture
def worker(running: tuple[Stage, Worker]) -> Worker:
    """The worker that runs throughout."""
    return running[1]


@pytest.fixture
def counting(running: tuple[Stage, Worker]) -> Stage:
    """The stage of the worker that runs throughout."""
    return running[0]


@pytest.fixture
def own(addresses: servers.Addresses, tmp_path: Path) -> Iterator[Stage]:
    """A stage of this test's own, on the servers of all, whose workers have one lane."""
    with stage(addresses, tmp_path) as made:
        yield made
