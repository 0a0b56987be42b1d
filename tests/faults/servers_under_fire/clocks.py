"""F13: clocks that are stepped, and the hour that is skipped or repeated while services run."""

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from schemas.topics import SERVICES
from tests.faults.ground import Ground
from tests.faults.scenario import Field, Scenario
from tests.faults.servers_under_fire.grounds import variables
from tests.faults.servers_under_fire.readiness import recovers

CLOCKWORK: Final = Path(__file__).parent / "clockwork"

_UNTIL_FIRST_CHANGE_SECONDS: Final = 15
_BETWEEN_CHANGES_SECONDS: Final = 6
_STEPS: Final = 5
_BETWEEN_STEPS_SECONDS: Final = 3.0
_LARGEST_STEP_SECONDS: Final = 26 * 3600
_PUBLISHERS: Final = ("intake", "matching", "scheduling")


async def _clock_stepped(field: Field) -> None:
    """The wall clock of every service jumps, forth and back, up to a day; the monotonic clock does not."""
    offset = field.ground.surroundings.home / "clock"
    offset.write_text("0")
    path = os.pathsep.join([str(CLOCKWORK), *filter(None, [os.environ.get("PYTHONPATH")])])
    async with _services_with(field.ground, {"PYTHONPATH": path, "FIELDBRIDGE_CLOCK": str(offset)}):
        for _ in range(_STEPS):
            seconds = field.chance.randint(-_LARGEST_STEP_SECONDS, _LARGEST_STEP_SECONDS)
            offset.write_text(str(seconds))
            late = "late" if seconds < 0 else "early"
            field.note(f"the clocks of all services are {timedelta(seconds=abs(seconds))} {late}")
            await asyncio.sleep(_BETWEEN_STEPS_SECONDS)
        offset.write_text("0")
        await recovers(field, "stepping of clocks")


async def _hour_skipped_and_repeated(field: Field) -> None:
    """Services live in a time zone whose summer time begins while they run, and ends a little later."""
    begins = datetime.now(UTC) + timedelta(seconds=_UNTIL_FIRST_CHANGE_SECONDS)
    ends = begins + timedelta(seconds=_BETWEEN_CHANGES_SECONDS)
    async with _services_with(field.ground, {"TZ": zone(begins, ends)}):
        await _reached(begins)
        field.note("summer time has begun: an hour was skipped")
        await _reached(ends)
        field.note("summer time has ended: an hour is repeated")
        await recovers(field, "changing to and from summer time")


async def _database_clock_set_back(field: Field) -> None:
    """The lease of a relay that died just then ends an hour from now. Nobody else may have to wait for that."""
    service = field.chance.choice(_PUBLISHERS)
    await field.ground.kill(service)
    await field.ground.execute(service, "UPDATE runtime.lease SET expires_at = clock_timestamp() + interval '1 hour'")
    await field.ground.start_missing()
    await recovers(field, f"a lease of {service} that ends in an hour")


def zone(begins: datetime, ends: datetime) -> str:
    """A time zone in the notation of POSIX: UTC, but for one hour more between these two moments."""
    midnight = begins.replace(hour=0, minute=0, second=0, microsecond=0)
    day = begins.timetuple().tm_yday - 1
    first, last = (int((moment - midnight).total_seconds()) for moment in (begins, ends + timedelta(hours=1)))
    return f"STD0DST-1,{day}/{_clock(first)},{day}/{_clock(last)}"


def _clock(seconds: int) -> str:
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


async def _reached(moment: datetime) -> None:
    await asyncio.sleep(max(0.0, (moment - datetime.now(UTC)).total_seconds()))


@asynccontextmanager
async def _services_with(ground: Ground, given: dict[str, str]) -> AsyncGenerator[None]:
    """Starts all services again with these environment variables, and at the end of the block without them."""
    with variables(given):
        await _start_again(ground)
    try:
        yield
    finally:
        await _start_again(ground)


async def _start_again(ground: Ground) -> None:
    await asyncio.gather(*(ground.stop(service) for service in SERVICES))
    await ground.start_missing()


CLOCK_STEPPED: Final = Scenario(
    fault="F13",
    name="clocks-stepped",
    sentence="The wall clocks of all services jump by up to a day, forth and back",
    inject=_clock_stepped,
)
SUMMER_TIME: Final = Scenario(
    fault="F13",
    name="summer-time",
    sentence="Summer time begins and ends in the services' time zone while they run",
    inject=_hour_skipped_and_repeated,
)
DATABASE_CLOCK_SET_BACK: Final = Scenario(
    fault="F13",
    name="database-clock-set-back",
    sentence="A service dies, and PostgreSQL's clock is set back by an hour: its relay's lease ends in an hour",
    inject=_database_clock_set_back,
)
