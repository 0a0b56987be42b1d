"""F17: decisions that raise, and operators who redrive everything while requests flow, more than once."""

import asyncio
import os
import sys
from time import monotonic
from typing import Final

from schemas.topics import SERVICES
from tests.driving import TREE
from tests.faults.crew import crew
from tests.faults.scenario import Field, Scenario

_CHOSEN: Final = 2
_RAISES: Final = "in_decision=raise@0.02"
_PARKED_AT_LEAST: Final = 10
_PATIENCE_SECONDS: Final = 90.0


async def _redriven(field: Field) -> None:
    chosen = field.chance.sample(SERVICES, _CHOSEN)
    async with crew(field.ground) as workers:
        for service in chosen:
            assert await field.ground.stop(service) == 0, service
        raising = {service: workers.start(service, failpoints=_RAISES) for service in chosen}
        for service in chosen:
            enough = "SELECT count(*) >= $1 FROM runtime.parked"
            await field.ground.until(service, enough, _PARKED_AT_LEAST)
            field.note(f"{service} has parked {await _parked(field, service)} events")
        await asyncio.gather(_redrive_everything(field), _redrive_everything(field))
        field.note("everything was redriven twice at the same time, while decisions still raise")
        for service, worker in raising.items():
            assert await worker.stop() == 0, service
    field.ended()
    await field.ground.start_missing()
    deadline = monotonic() + _PATIENCE_SECONDS
    while left := sum([await _parked(field, service) for service in chosen]):
        assert monotonic() < deadline, f"{left} events stay parked, however often they are redriven"
        await asyncio.gather(_redrive_everything(field), _redrive_everything(field))
    field.note("everything was redriven, and nothing is parked any more")


async def _parked(field: Field, service: str) -> int:
    return await field.ground.execute(service, "SELECT count(*) FROM runtime.parked")


async def _redrive_everything(field: Field) -> None:
    """The operator's command. It fails where some events stay parked, or none was."""
    command = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "services.console", "parked", "redrive", "--all"),
        cwd=TREE,
        env=os.environ | {"FIELDBRIDGE_HOME": str(field.ground.surroundings.home)},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    await command.wait()


REDRIVEN: Final = Scenario(
    fault="F17",
    name="redriven",
    sentence="Decisions raise at random; everything parked is redriven while requests flow, twice at the same time, "
    "again and again",
    inject=_redriven,
)
