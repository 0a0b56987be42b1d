"""The input of the race: accepted requests as intake publishes them, and what every contender must make of them."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final

from schemas.body import Agency, Audience, Contact, Sensitive, Terms
from schemas.envelope import Envelope
from schemas.requests import RequestAccepted
from schemas.vocabulary import (
    AgencyType,
    DateWindow,
    DeliveryMode,
    Ori,
    Place,
    RequestId,
    SwornBand,
    TopicCode,
    Urgency,
)
from tests.driving import Message, message, publish

TOPICS: Final = ("active-shooter", "training", "officer-wellness", "intelligence-sharing", "compstat")
_NOW: Final = datetime(2026, 11, 24, 12, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Size:
    """How much there is to do. Keys are spread evenly; each has its events in order."""

    events: int
    keys: int
    partitions: int = 8


@dataclass(frozen=True, slots=True)
class Expected:
    """What one key's events come to: what the state must hold and which events must follow."""

    events: int
    attendees: tuple[int, ...]
    """Of each event in order; event n says so again in the event that follows it."""


@dataclass(frozen=True, slots=True)
class RaceInput:
    """What was written to the topic, and what has to come of it."""

    expected: dict[str, Expected]
    mean_bytes: float
    """Of an event's value."""


async def write(kafka: str, topic: str, size: Size, seed: int) -> RaceInput:
    """Writes the events of one round to the topic."""
    dice = random.Random(seed)
    order = [nth for nth in range(size.keys) for _ in range(size.events // size.keys)]
    dice.shuffle(order)
    attendees: dict[int, list[int]] = {nth: [] for nth in range(size.keys)}
    sizes: list[int] = []

    def messages() -> Iterator[Message]:
        for nth in order:
            persons = dice.randint(5, 90)
            attendees[nth].append(persons)
            made = _event(topic, nth, len(attendees[nth]), persons, dice)
            sizes.append(len(made.value or b""))
            yield made

    await publish(kafka, messages())
    expected = {str(_request_id(nth)): Expected(len(said), tuple(said)) for nth, said in attendees.items()}
    return RaceInput(expected, sum(sizes) / len(sizes))


def _event(topic: str, nth: int, sequence: int, persons: int, dice: random.Random) -> Message:
    body = RequestAccepted(
        request_id=_request_id(nth),
        agency=Agency(
            ori=Ori(f"GA{nth % 1000:03d}0100"),
            name=f"Milledgeville Police Department {nth}",
            agency_type=AgencyType.MUNICIPAL,
            state="GA",
            time_zone="America/New_York",
            place=Place(33.0 + nth / 10_000, -83.228714),
            sworn_band=SwornBand.FROM_10,
        ),
        terms=Terms(
            topics=tuple(TopicCode(one) for one in dice.sample(TOPICS, 2)),
            delivery_modes=(DeliveryMode.IN_PERSON_TRAINING,),
            window=DateWindow(date(2027, 1, 11), date(2027, 5, 28)),
            urgency=Urgency.SOON,
            audience=Audience(roles=("patrol officers",), in_person=persons),
        ),
        submitted_at=_NOW,
        sensitive=Sensitive(point_of_contact=Contact(office="Training unit", email="training@agency.example")),
    )
    request_id = body.request_id
    envelope = Envelope(f"{request_id}-{sequence}", "/fieldbridge/intake", body.TYPE, request_id, _NOW, sequence)
    return message(topic, envelope, body.model_dump_json(exclude_defaults=True).encode())


def _request_id(nth: int) -> RequestId:
    return RequestId(f"R-2026-{nth:06d}")
