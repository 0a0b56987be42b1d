"""How many schedules are played, and the processes that play them."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Final

import pytest

USUAL: Final = 1200
PROCESSES: Final = 2


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--schedules", type=int, default=USUAL, help=f"how many schedules of pump, relay and leases to play ({USUAL})"
    )
    parser.addoption("--first-schedule", type=int, default=0, help="the seed of the first of them (0)")


@pytest.fixture
def seeds(request: pytest.FixtureRequest) -> range:
    """The seeds of the schedules that are played. A run of all tests has not heard the options, and takes the usual."""
    option = request.config.option
    first: int = getattr(option, "first_schedule", 0)
    most: int = getattr(option, "schedules", USUAL)
    return range(first, first + most)


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    """Processes to play schedules in: one plays while another waits for PostgreSQL."""
    with ProcessPoolExecutor(PROCESSES, multiprocessing.get_context("spawn")) as pool:
        yield pool
        pool.shutdown(cancel_futures=True)
