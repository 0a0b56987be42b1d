"""F7 and F9: a network that is slow, silent, broken or closed, and that breaks in the midst of a commit."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from tests.driving import until
from tests.faults.scenario import Field, Scenario
from tests.faults.servers_under_fire.grounds import Detoured
from tests.faults.servers_under_fire.proxy import CALM, Cut, Way, Weather
from tests.faults.servers_under_fire.readiness import listening, recovers, told

LATENCY_SECONDS: Final = 0.2
HOLE_SECONDS: Final = 8.0
_SLOW_SECONDS: Final = 6.0
_REFUSING_SECONDS: Final = 5.0
_RESETS: Final = 5
_CUTS: Final = 12
_SHARE_OF_COMMITS: Final = 0.1


async def _slow(field: Field, way: Way, _: str) -> None:
    await way.turn(Weather(delay_seconds=LATENCY_SECONDS))
    await asyncio.sleep(_SLOW_SECONDS)
    await way.turn(CALM)


async def _hole(field: Field, way: Way, server: str) -> None:
    async with listening(field.ground) as readiness:
        await way.turn(Weather(silent=True))
        await asyncio.sleep(HOLE_SECONDS)
    if server == "Kafka":
        told(field, readiness, f"{server} does not answer")
    await way.turn(CALM)


async def _resets(field: Field, way: Way, _: str) -> None:
    for _nth in range(_RESETS):
        assert await way.break_all(), "nothing was connected that could be broken"
        await asyncio.sleep(field.chance.uniform(0.1, 1.0))


async def _refusals(field: Field, way: Way, server: str) -> None:
    async with listening(field.ground) as readiness:
        await way.turn(Weather(refusing=True))
        await asyncio.sleep(_REFUSING_SECONDS)
    told(field, readiness, f"{server} does not answer")
    await way.turn(CALM)


_TROUBLES: Final[Mapping[str, Callable[[Field, Way, str], Awaitable[None]]]] = {
    f"{LATENCY_SECONDS * 1000:.0f} ms of latency": _slow,
    f"{HOLE_SECONDS:.0f} s of silence": _hole,
    f"{_RESETS} resets": _resets,
    f"{_REFUSING_SECONDS:.0f} s of refusals": _refusals,
}


async def _to_kafka(field: Field) -> None:
    await _all_troubles(field, _detoured(field).kafka_way, "Kafka")


async def _to_postgres(field: Field) -> None:
    await _all_troubles(field, _detoured(field).postgres_way, "PostgreSQL")


async def _all_troubles(field: Field, way: Way, server: str) -> None:
    for what in field.chance.sample(list(_TROUBLES), len(_TROUBLES)):
        await _TROUBLES[what](field, way, server)
        await recovers(field, f"{what} on the way to {server}")
    await field.ground.all_ready()


async def _commits_cut(field: Field) -> None:
    """Breaks connections in the midst of a commit, on both sides of the server's decision."""
    way = _detoured(field).postgres_way
    met: list[Cut] = []

    def whether() -> Cut | None:
        if field.chance.random() >= _SHARE_OF_COMMITS:
            return None
        met.append(field.chance.choice(list(Cut)))
        return met[-1]

    async def enough() -> bool:
        return min(met.count(cut) for cut in Cut) >= _CUTS

    way.cut_commits(whether)
    try:
        await until(enough, f"{_CUTS} commits of each kind are cut")
    finally:
        way.leave_commits()
    counts = ", ".join(f"{met.count(cut)} {cut.name.lower().replace('_', ' ')}" for cut in Cut)
    await recovers(field, f"commits cut: {counts}")


def _detoured(field: Field) -> Detoured:
    assert isinstance(field.ground, Detoured), "the scenario needs a detour"
    return field.ground


NETWORK_TO_KAFKA: Final = Scenario(
    fault="F7",
    name="network-to-kafka",
    sentence="Between services and Kafka: 200 ms of latency, 8 s of silence, resets, refusals, in any order",
    inject=_to_kafka,
)
NETWORK_TO_POSTGRES: Final = Scenario(
    fault="F7",
    name="network-to-postgres",
    sentence="Between services and PostgreSQL: 200 ms of latency, 8 s of silence, resets, refusals, in any order",
    inject=_to_postgres,
)
COMMITS_CUT: Final = Scenario(
    fault="F9",
    name="commits-cut",
    sentence="Connections break in the midst of a commit, before the server hears of it and after it is done",
    inject=_commits_cut,
)
