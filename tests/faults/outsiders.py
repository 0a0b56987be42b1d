"""What other systems send that they should not, or not in that order."""

import json
from collections.abc import Mapping

from schemas.envelope import Envelope
from schemas.topics import Topic
from services.console import wire
from services.console.world.population import Message
from tests.faults.ground import Ground


def early_answers(asked: Message) -> list[Message]:
    """A withdrawal and an acceptance, which come before or after the request they are about."""
    actor = asked.body["actor"]
    about = {"request_id": asked.subject, "actor": actor}
    return [
        Message(asked.source, f"{asked.id}-withdrawn", "withdrawal.asked.v1", asked.subject, about),
        Message(
            asked.source,
            f"{asked.id}-early",
            "proposal.accepted.v1",
            asked.subject,
            about | {"match_id": f"{asked.subject}/m1"},
        ),
    ]


async def publish(
    ground: Ground, producer: wire.Publisher, topic: Topic, envelope: Envelope, body: Mapping[str, object]
) -> None:
    """Writes one event, whoever it pretends to be from."""
    acknowledged = await producer.send(
        ground.stack.topic(topic.name),
        value=json.dumps(body).encode(),
        key=envelope.subject.encode(),
        headers=envelope.headers(),
    )
    await acknowledged
