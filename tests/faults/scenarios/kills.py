"""F1 and F4: services that are killed at named points of their work, again and again."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from schemas.topics import SERVICES
from tests.driving import Workers
from tests.faults.crew import crew, died, keep
from tests.faults.scenario import Field, Scenario

_STEPS: Final = ("before_transaction", "in_decision", "before_commit", "after_commit", "before_hint", "after_hint")
STEPS: Final[Mapping[str, Sequence[str]]] = {
    "intake": _STEPS,
    "matching": (*_STEPS, "in_round"),
    "scheduling": _STEPS,
    "reporting": _STEPS,
}
"""The points of its work that each service comes by while requests flow."""
SENDING: Final[Mapping[str, Sequence[str]]] = dict.fromkeys(
    ("intake", "matching", "scheduling"), ("after_publish", "after_delete")
)
"""The points of the relays, of the services that publish."""

_DEATHS: Final = 3
_LATEST_PASSAGE: Final = 8


async def _killed(field: Field, points: Mapping[str, Sequence[str]], deaths: int) -> None:
    """Each service dies so many times, at points drawn by lot, and is started again each time."""
    fates = {
        service: [
            (point, field.chance.randint(1, _LATEST_PASSAGE))
            for point in field.chance.sample(points[service], min(deaths, len(points[service])))
        ]
        for service in points
    }
    async with crew(field.ground) as workers:
        for service in fates:
            await field.ground.kill(service)
        await asyncio.gather(*(_lives(field, workers, service, fate) for service, fate in fates.items()))
    await field.ground.all_ready()


async def _lives(field: Field, workers: Workers, service: str, fate: Sequence[tuple[str, int]]) -> None:
    for point, passage in fate:
        worker = workers.start(service, failpoints=f"{point}=kill@{passage}")
        await died(worker, f"{service} is killed at {point}, passage {passage}")
        field.note(f"{service} killed at {point}, passage {passage}")
    field.ended()
    keep(field.ground, service, workers)


async def _at_each_step(field: Field) -> None:
    await _killed(field, STEPS, _DEATHS)


async def _between_publishing_and_deleting(field: Field) -> None:
    await _killed(field, SENDING, len(SENDING["intake"]))


async def _at_any_moment(field: Field) -> None:
    """Whole processes, without a point: also in the midst of starting, joining and claiming."""
    for _ in range(_DEATHS):
        service = field.chance.choice(SERVICES)
        await asyncio.sleep(field.chance.uniform(0.0, 1.5))
        await field.ground.kill(service)
        field.note(f"{service} killed")
        field.ended()
        await field.ground.start_missing()


KILLED_AT_STEPS: Final = Scenario(
    fault="F1",
    name="killed-at-each-step",
    sentence="Every service is killed (SIGKILL) in decisions, before and after commits, and before and after hints to "
    "Kafka, and started again",
    inject=_at_each_step,
)
KILLED_AT_RANDOM: Final = Scenario(
    fault="F1",
    name="killed-at-any-moment",
    sentence="Services drawn by lot are killed (SIGKILL) at any moment and started again",
    inject=_at_any_moment,
)
RELAY_KILLED: Final = Scenario(
    fault="F4",
    name="relay-killed",
    sentence="Relays are killed after Kafka has acknowledged and before rows are deleted, and right after deleting",
    inject=_between_publishing_and_deleting,
)
