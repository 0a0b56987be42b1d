"""Further processes of the services of a stack, which join those it was started with."""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Final

import psutil

from schemas.topics import SERVICES
from services.console.stack import environment
from services.console.surroundings import Process
from tests.driving import Worker, Workers
from tests.faults.ground import Ground

_PATIENCE_SECONDS: Final = 90.0
_POLL_SECONDS: Final = 0.05
_SILENT_SECONDS: Final = 2.0
_PREFIX: Final = "FIELDBRIDGE_"


@asynccontextmanager
async def crew(ground: Ground) -> AsyncGenerator[Workers]:
    """Starts workers with the settings of the stack's own processes. None survives the end of the block."""
    folder = ground.surroundings.home / "crew"
    folder.mkdir(exist_ok=True)
    variables: dict[str, str] = {}
    for service in SERVICES:
        variables |= environment(ground.stack, service, os.environ)
    settings = {
        name.removeprefix(_PREFIX).lower(): value for name, value in variables.items() if name.startswith(_PREFIX)
    }
    workers = Workers(folder, settings)
    try:
        yield workers
    finally:
        await asyncio.to_thread(workers.end_all)


def adopt(ground: Ground, service: str, worker: Worker) -> None:
    """Makes a worker the stack's own process, in place of one that has ended."""
    ground.adopt(service, Process(worker.pid, psutil.Process(worker.pid).create_time(), worker.port))


def keep(ground: Ground, service: str, workers: Workers) -> None:
    """Starts a worker that becomes the stack's own process and outlives the crew."""
    worker = workers.start(service)
    workers.started.remove(worker)
    adopt(ground, service, worker)


async def hangs(worker: Worker, awaited: str) -> None:
    """Waits until a worker listens and does not answer."""
    deadline = monotonic() + _PATIENCE_SECONDS
    while "TimeoutError" not in (await worker.get("/livez", _SILENT_SECONDS))[1]:
        assert worker.running, f"{awaited}: it ended; its log ends:\n{worker.said()[-2000:]}"
        assert monotonic() < deadline, f"{awaited}: it answers; its log ends:\n{worker.said()[-2000:]}"
        await asyncio.sleep(_POLL_SECONDS)


async def died(worker: Worker, awaited: str) -> None:
    """Waits until a worker has been killed, and not ended in any other way."""
    deadline = monotonic() + _PATIENCE_SECONDS
    while worker.running:
        assert monotonic() < deadline, f"{awaited}: it lives; its log ends:\n{worker.said()[-2000:]}"
        await asyncio.sleep(_POLL_SECONDS)
    code = worker.process.returncode
    assert code < 0, f"{awaited}: it ended with {code}; its log ends:\n{worker.said()[-2000:]}"


async def froze(worker: Worker, awaited: str) -> None:
    """Waits until a worker is held still."""
    deadline = monotonic() + _PATIENCE_SECONDS
    while psutil.Process(worker.pid).status() != psutil.STATUS_STOPPED:
        assert worker.running, f"{awaited}: it ended; its log ends:\n{worker.said()[-2000:]}"
        assert monotonic() < deadline, f"{awaited}: it moves; its log ends:\n{worker.said()[-2000:]}"
        await asyncio.sleep(_POLL_SECONDS)


async def owns_nothing(ground: Ground, service: str, pid: int) -> None:
    """Waits until others own every position that a process of this service owned."""
    await ground.until(
        service, "SELECT NOT EXISTS (SELECT FROM runtime.consumer_position WHERE owner LIKE '%:' || $1::text)", str(pid)
    )
