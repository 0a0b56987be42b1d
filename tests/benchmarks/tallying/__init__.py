"""The service that runs in the race: the real runtime with the useful work of the race as its decider."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.envelope import Envelope
from schemas.requests import RequestAccepted
from schemas.topics import TOPICS, Topic
from services.runtime.database import Database
from services.runtime.service import Decider, Event, FactBody, Known, Reads, Service
from tests.benchmarks.useful_work import UPSERT, Counted, FirstEvent, columns, tallied, validated


@dataclass
class Tallies(Known):
    """What the events of one batch add up to, by key."""

    by_key: dict[str, Counted] = field(default_factory=dict[str, Counted])


async def load(_: Database, __: Sequence[Event[Any]]) -> Tallies:
    """Nothing has to be known: the state is only added to, as the other contenders do."""
    return Tallies()


def decide(known: Tallies, event: Event[RequestAccepted]) -> tuple[Tallies, Sequence[FactBody]]:
    """Counts one event and says which follows."""
    key, sequence = event.envelope.subject, event.envelope.sequence or 0
    counted = known.by_key.get(key, Counted()).plus(event.body, sequence)
    return Tallies({key: counted}), [tallied(event.body, sequence)]


async def save(db: Database, changes: Tallies) -> None:
    """Adds what was counted to the state."""
    await db.execute(UPSERT, *columns(changes.by_key))


def service() -> Service:
    """The service of the race. It reads the topic that the driver names."""
    began = FirstEvent()

    def read(envelope: Envelope, data: bytes) -> RequestAccepted:
        began()
        return validated(envelope.type, data)

    return Service(
        name="tallying",
        reads=(Reads(_topic(), read),),
        decider=Decider(load=load, decide=decide, save=save),
        migrations="tests.benchmarks.tallying.migrations",
        rebuildable=True,  # its tables are emptied between laps, behind the offsets that its group has committed
    )


def _topic() -> Topic:
    return next(topic for topic in TOPICS if topic.name == os.environ["RACE_TOPIC"])
