"""F10: a disk without any room, first under PostgreSQL, then under Kafka."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

from deploy.local import servers
from schemas.topics import SERVICES
from services.console.stack import standing
from tests.driving import until
from tests.faults.scenario import Field, Scenario
from tests.faults.servers_under_fire.grounds import Cramped
from tests.faults.servers_under_fire.readiness import listening, recovers, told

_GOES_ON_SECONDS: Final = 5.0
"""How long it stays full after every service has met it."""
_AGAIN_SECONDS: Final = 0.2


async def _postgres_full(field: Field) -> None:
    await _full(field, "postgres", "PostgreSQL")


async def _kafka_full(field: Field) -> None:
    await _full(field, "kafka", "Kafka")


async def _full(field: Field, server: servers.Name, name: str) -> None:
    ground = field.ground
    assert isinstance(ground, Cramped), "the scenario needs a small disk"
    words = f"{name} does not answer"
    async with listening(ground) as readiness, _kept_full(ground):

        def saying() -> set[str]:
            return {service for service in SERVICES if readiness.first(service, words) is not None}

        async def met() -> bool:
            """Whether it was met by all whom it can meet: who hears of nothing from those in front writes nothing."""
            others = set(SERVICES) - saying()
            stand = [await asyncio.to_thread(standing, ground.stack, service) for service in others]
            return len(others) < len(SERVICES) and all(one.lag == 0 for one in stand)

        await until(met, f"every service that has something to do says {words!r}")
        await asyncio.sleep(_GOES_ON_SECONDS)
    told(field, readiness, words, saying())
    ground.disk.make_room()
    if servers.pid(ground.machine, server) is None:
        # A supervisor would do the same. The services know nothing of it.
        await ground.start_server(server)
        field.note(f"{name} had ended and was started again")
    await recovers(field, f"a full disk under {name}")
    await ground.all_ready()


@asynccontextmanager
async def _kept_full(ground: Cramped) -> AsyncGenerator[None]:
    """Fills up again whatever room the server makes for itself, until the end of the block."""

    wanted = True

    async def fill() -> None:
        while wanted:
            await asyncio.to_thread(ground.disk.fill)
            await asyncio.sleep(_AGAIN_SECONDS)

    filling = asyncio.create_task(fill())
    try:
        yield
    finally:
        wanted = False
        await filling


POSTGRES_FULL: Final = Scenario(
    fault="F10",
    name="no-room-for-postgres",
    sentence="The disk under PostgreSQL's data is filled to the last byte, until every service with something to do "
    "has said so; then there is room again",
    inject=_postgres_full,
)
KAFKA_FULL: Final = Scenario(
    fault="F10",
    name="no-room-for-kafka",
    sentence="The disk under Kafka's data is filled to the last byte, until every service with something to do has "
    "said so; then there is room again",
    inject=_kafka_full,
)
