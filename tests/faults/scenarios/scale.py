"""F3: services that grow from one worker to three and back while requests flow."""

from typing import Final

from schemas.topics import SERVICES
from tests.faults.crew import crew
from tests.faults.scenario import Field, Scenario

_CHOSEN: Final = 2


async def _grow_and_shrink(field: Field) -> None:
    for service in field.chance.sample(SERVICES, _CHOSEN):
        async with crew(field.ground) as workers:
            added = [workers.start(service) for _ in range(2)]
            for worker in added:
                await worker.ready()
            assert await field.ground.stop(service) == 0, f"{service} did not end cleanly"
            await field.ground.start_missing()
            field.note(f"{service}: three workers, the first restarted")
            for worker in added:
                assert await worker.stop() == 0, f"a further worker of {service} did not end cleanly"
            field.note(f"{service}: one worker again")
            field.ended()


SCALED: Final = Scenario(
    fault="F3",
    name="scaled",
    sentence="Services drawn by lot go from one worker to three, the first is restarted, then the others end (SIGTERM)",
    inject=_grow_and_shrink,
)
