"""F14: what is done to a log behind the services' back. Each has to end in a named hard stop, never in a reset."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from time import monotonic
from typing import Any, Final, cast

from aiokafka.admin import NewPartitions, NewTopic, RecordsToDelete
from aiokafka.errors import KafkaError

from schemas.topics import ENGAGEMENTS, MATCHES, REQUESTS, Topic
from tests.driving import Message, ends_of, publish, read_log, until
from tests.faults.scenario import Field, Scenario
from tests.faults.servers_under_fire.cluster import administering
from tests.faults.servers_under_fire.readiness import halted, says_halted

_VICTIMS: Final = (REQUESTS, MATCHES, ENGAGEMENTS)
_BEHIND_SECONDS: Final = 2.0
"""How long readers are held still, so that they lie behind: not long enough for their partitions to move."""
_TRIES: Final = 8
_PASSED_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.1
_SOME_RECORDS: Final = 50
_STANDS_STILL_SECONDS: Final = 6.0
"""Longer than what is between two scrapes."""

Positions = dict[tuple[str, int], int]


async def _retention(field: Field) -> None:
    """Records are deleted that readers have not read. What one had fetched already, it has not lost."""
    topic = field.chance.choice(_VICTIMS)
    behind: list[str] = []
    for _ in range(_TRIES):
        ends = await _delete_what_is_unread(field, topic)
        behind = [service for service in topic.readers if await _lost(field, service, topic, ends)]
        if behind:
            break
    assert behind, f"no reader of {topic.name} lay behind, {_TRIES} times"
    field.note(f"{topic.name} now begins where it ended, behind the positions of {', '.join(behind)}")
    await _all_halt(field, topic, behind, "position_before_log_start")


async def _delete_what_is_unread(field: Field, topic: Topic) -> dict[int, int]:
    """Where each partition ended, and now begins."""
    processes = [field.ground.process(service) for service in topic.readers]
    for process in processes:
        process.suspend()
    try:
        await asyncio.sleep(_BEHIND_SECONDS)
        ends = await ends_of(field.ground.stack.kafka, [field.ground.stack.topic(topic.name)])
        async with administering(field.ground.stack) as client:
            await client.delete_records({slot: RecordsToDelete(before_offset=end) for slot, end in ends.items() if end})
    finally:
        for process in processes:
            process.resume()
    return {slot.partition: end for slot, end in ends.items()}


async def _lost(field: Field, service: str, topic: Topic, ends: dict[int, int]) -> bool:
    """Whether the service has come to a stop before these ends; False once it is past all of them."""
    deadline = monotonic() + _PASSED_SECONDS
    while any(
        position < ends[partition] for (_, partition), position in (await _positions(field, service, topic)).items()
    ):
        if await says_halted(field, service, "position_before_log_start") or monotonic() > deadline:
            return True
        await asyncio.sleep(_POLL_SECONDS)
    return False


async def _recreated(field: Field) -> None:
    """The topic is deleted and made again, empty."""
    topic = field.chance.choice(_VICTIMS)
    await _make_again(field, topic)
    await _all_halt(field, topic, topic.readers, "topic_recreated")


async def _recreated_and_grown(field: Field) -> None:
    """The topic is deleted and made again, and soon holds more records than were read of it."""
    topic = field.chance.choice(_VICTIMS)
    name = field.ground.stack.topic(topic.name)

    async def some() -> bool:
        return len(await read_log(field.ground.stack.kafka, name)) >= _SOME_RECORDS

    await until(some, f"{topic.name} holds {_SOME_RECORDS} records")
    records = await read_log(field.ground.stack.kafka, name)
    await _make_again(field, topic)
    await publish(
        field.ground.stack.kafka,
        (Message(name, one.key, one.value, one.headers, one.partition) for one in [*records, *records]),
    )
    field.note(f"{topic.name} was filled with {2 * len(records)} records")
    await _all_halt(field, topic, topic.readers, "topic_recreated")


async def _grown_wider(field: Field) -> None:
    """The topic gets more partitions, so that keys move."""
    topic = field.chance.choice(_VICTIMS)
    async with administering(field.ground.stack) as client:
        await client.create_partitions({field.ground.stack.topic(topic.name): NewPartitions(topic.partitions + 4)})
    field.note(f"{topic.name} has {topic.partitions + 4} partitions")
    await _all_halt(field, topic, topic.readers, "partitions_changed")


async def _make_again(field: Field, topic: Topic) -> None:
    name = field.ground.stack.topic(topic.name)
    async with administering(field.ground.stack) as client:
        await client.delete_topics([name])

        async def made() -> bool:
            try:
                answer = cast(Any, await client.create_topics([NewTopic(name, topic.partitions, 1)]))
            except KafkaError:
                return False
            return all(code == 0 for _, code, *_ in answer.topic_errors)

        await until(made, f"{name} is made again")
    field.note(f"{topic.name} was deleted and made again")


async def _all_halt(field: Field, topic: Topic, readers: Sequence[str], name: str) -> None:
    """These readers come to the hard stop, and none moves its positions in the topic any more."""
    await asyncio.gather(*(halted(field, service, name) for service in readers))
    before = [await _positions(field, service, topic) for service in readers]
    await asyncio.sleep(_STANDS_STILL_SECONDS)
    for service, then in zip(readers, before, strict=True):
        now = await _positions(field, service, topic)
        if now != then:
            field.found.append(f"{service} has halted and moves on in {topic.name}: from {then} to {now}")


async def _positions(field: Field, service: str, topic: Topic) -> Positions:
    rows = await field.ground.rows(
        service,
        'SELECT "partition", next_offset FROM runtime.consumer_position WHERE topic = $1 ORDER BY "partition"',
        topic.name,
    )
    return {(topic.name, row["partition"]): row["next_offset"] for row in rows}


def _surgery(name: str, sentence: str, inject: Callable[[Field], Awaitable[None]]) -> Scenario:
    return Scenario(fault="F14", name=name, sentence=sentence, inject=inject, halts=True, alert="ServiceHalted")


SURGERY: Final[Sequence[Scenario]] = (
    _surgery(
        "retention-past-the-position", "Records of a topic are deleted that its readers have not read", _retention
    ),
    _surgery("topic-recreated", "A topic is deleted and made again under running services", _recreated),
    _surgery(
        "topic-recreated-and-grown",
        "A topic is deleted and made again under running services, and filled beyond their positions",
        _recreated_and_grown,
    ),
    _surgery("partitions-increased", "A topic gets more partitions under running services", _grown_wider),
)
