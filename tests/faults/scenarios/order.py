"""F16: what comes in twice, out of order, or with gaps."""

import asyncio
from datetime import UTC, datetime
from typing import Final

from schemas.envelope import Envelope
from schemas.topics import ROSTER
from services.console import wire
from services.console.simulate import registry
from services.console.world.simulation import running
from tests.faults.ground import world
from tests.faults.outsiders import early_answers, publish
from tests.faults.scenario import Field, Scenario

_REQUESTS: Final = 40
_GAPS: Final = 20
_ANSWERED_SECONDS: Final = 120.0
_SOURCE: Final = "/faults/gaps"
_ALL_SEEN: Final = """
SELECT count(*) = cardinality($1::text[]) FROM runtime.stream_seen
WHERE topic = 'roster' AND key = ANY($1) AND sequence = 3 AND blocked IS NULL
"""


async def _submissions_in_disorder(field: Field) -> None:
    """Another outside world says everything twice and answers before it is asked."""
    run = f"disorder.{field.chance.randrange(10**9)}"
    outside = world(run, await registry(field.ground.stack))
    messages = [message for number in range(_REQUESTS) for message in outside.ask(number)]
    shuffled = 2 * (messages + [answer for message in messages for answer in early_answers(message)])
    field.chance.shuffle(shuffled)
    async with running(field.ground.stack, outside, field.traffic.ledger.with_name("disorder.jsonl")) as simulation:
        await simulation.publish(shuffled)
        await simulation.answered(_ANSWERED_SECONDS)
    field.note(f"{len(shuffled)} submissions about {_REQUESTS} requests came twice and in any order")


async def _facts_with_gaps(field: Field) -> None:
    """Facts of one key come as 1, 3, 3, 2: the third waits for the second, and is then handled, once."""
    keys = [f"gap-{field.chance.randrange(10**9)}" for _ in range(_GAPS)]
    async with wire.publisher(field.ground.stack) as producer:
        for key in keys:
            for sequence in (1, 3, 3, 2):
                envelope = Envelope(
                    f"{key}-{sequence}", _SOURCE, "availability.changed.v1", key, datetime.now(UTC), sequence
                )
                await publish(field.ground, producer, ROSTER, envelope, {"expert_id": key, "unavailable": []})
    for service in ROSTER.readers:
        await field.ground.until(service, _ALL_SEEN, keys)
    field.note(f"{len(keys)} streams of the roster came with a gap that was filled later")


async def _disorder(field: Field) -> None:
    await asyncio.gather(_submissions_in_disorder(field), _facts_with_gaps(field))
    field.ended()


DISORDER: Final = Scenario(
    fault="F16",
    name="disorder",
    sentence="Submissions come twice and in any order, answers before their questions; facts come twice and with gaps "
    "that are filled later",
    inject=_disorder,
)
