"""Where going on would lose events, the worker stops reading, stays up and names the reason."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete

from services.console.positions import Standing, go_on, look
from services.console.surroundings import Stack
from services.console.trouble import Trouble
from tests.driving import Message, Worker, until
from tests.runtime.stage import TOPICS, Stage


def _events(own: Stage, first: int, end: int) -> list[Message]:
    return [replace(own.event("k", number), partition=0) for number in range(first, end)]


async def _halted(worker: Worker, reason: str) -> None:
    async def says_so() -> bool:
        return any(f"halted ({reason})" in one for one in await worker.reasons())

    await until(says_so, f"it says that it is halted: {reason}")
    assert await worker.metric("fieldbridge_halted", reason) == 1
    assert await worker.metric("fieldbridge_ready") == 0
    assert (await worker.get("/livez"))[0] == 200
    assert worker.running
    assert f'"reason": "{reason}"' in worker.said()


async def _recreate(own: Stage, administrator: AIOKafkaAdminClient) -> None:
    topic = own.prefix + "requests"
    await administrator.delete_topics([topic])

    async def gone() -> bool:
        return topic not in await administrator.list_topics()

    await until(gone, "the topic is gone")
    await administrator.create_topics([NewTopic(topic, 8, 1)])

    async def there() -> bool:
        (described,) = cast("list[dict[str, Any]]", await administrator.describe_topics([topic]))
        return len(described["partitions"]) == 8 and all(one["leader"] >= 0 for one in described["partitions"])

    await until(there, "the topic is there again, and led")


async def _recreate_and_fill(own: Stage, administrator: AIOKafkaAdminClient) -> None:
    await _recreate(own, administrator)
    await own.say(*_events(own, 1, 40))


async def _add_partitions(own: Stage, administrator: AIOKafkaAdminClient) -> None:
    await administrator.create_partitions({own.prefix + "requests": NewPartitions(12)})


async def _delete(own: Stage, administrator: AIOKafkaAdminClient) -> None:
    topic = TopicPartition(own.prefix + "requests", 0)
    await administrator.delete_records({topic: RecordsToDelete(before_offset=8)})


async def _misplace(own: Stage, _: AIOKafkaAdminClient) -> None:
    await own.fetch(
        "UPDATE runtime.consumer_position SET first_offset = first_offset + 20, next_offset = next_offset + 20 "
        """WHERE topic = 'requests' AND "partition" = 0"""
    )


@asynccontextmanager
async def _administrator(own: Stage) -> AsyncGenerator[AIOKafkaAdminClient]:
    administrator = AIOKafkaAdminClient(bootstrap_servers=own.kafka)
    await administrator.start()
    try:
        yield administrator
    finally:
        await administrator.close()


_SURGERY = [
    (_delete, "position_before_log_start", 5),
    (_misplace, "position_past_log_end", 25),
    (_recreate, "topic_recreated", 5),
    (_recreate_and_fill, "topic_recreated", 5),
    (_add_partitions, "partitions_changed", 5),
]


@pytest.mark.parametrize(("harm", "reason", "position"), _SURGERY)
async def test_a_position_outside_the_log_or_in_another_log_is_never_moved(
    own: Stage, harm: Callable[..., Awaitable[None]], reason: str, position: int
) -> None:
    worker = await own.start().ready()
    await own.say(*_events(own, 1, 6))
    await own.settle()
    assert await worker.stop() == 0
    await own.say(*_events(own, 6, 11))
    async with _administrator(own) as administrator:
        await harm(own, administrator)
    halted = own.start()
    await _halted(halted, reason)
    rows = await own.fetch("SELECT next_offset FROM runtime.consumer_position WHERE topic = 'requests'")
    assert max(row["next_offset"] for row in rows) == position
    assert await own.counted("k") == "1 2 3 4 5"
    assert await halted.stop() == 0


def _stack(own: Stage) -> Stack:
    return Stack(own.kafka, own.prefix, {"counting": own.database})


_WAYS_ON = [
    # What was deleted leaves a gap, behind which the rest waits until somebody gives up what is lost.
    (_delete, 3, "1 2 3 4 5", ["gap", "gap"]),
    (_misplace, 0, "1 2 3 4 5 6", []),
    (_recreate, 0, "1 2 3 4 5 6", []),
    (_recreate_and_fill, 0, " ".join(map(str, range(1, 40))), []),
    (_add_partitions, 0, "1 2 3 4 5 6 7 8 9 10", []),
]


@pytest.mark.parametrize(("harm", "lost", "counted", "parked"), _WAYS_ON)
async def test_a_person_may_have_it_read_on_at_the_next_place_there_is(
    own: Stage, harm: Callable[..., Awaitable[None]], lost: int, counted: str, parked: list[str]
) -> None:
    worker = await own.start().ready()
    await own.say(*_events(own, 1, 6))
    await own.settle()
    await _committed_to_kafka(own, 5)
    assert await worker.stop() == 0
    await own.say(*_events(own, 6, 11))
    async with _administrator(own) as administrator:
        await harm(own, administrator)
    before = await look(_stack(own), "counting", TOPICS)
    assert any(one.standing is not Standing.IN_THE_LOG for one in before)

    moved = await go_on(_stack(own), "counting", TOPICS)
    assert sum(one.lost for one in moved) == lost
    worker = await own.start().ready()
    if harm in (_misplace, _recreate):
        # These events are not in the log any more, or were passed over: their publisher says the next anew.
        await own.say(*_events(own, 6, 7))
    await own.settle()
    assert await own.counted("k") == counted
    assert [row["reason"] for row in await own.parked("k")] == parked
    if parked:
        await own.mark("discard", [(await own.parked("k"))[0]["id"]])

        async def goes_on() -> bool:
            return await own.counted("k") == counted + " 10"

        await until(goes_on, "what waited behind the gap is handled")
    assert all(one.standing is Standing.IN_THE_LOG for one in await look(_stack(own), "counting", TOPICS))
    await own.say(own.event("another", 1))
    await own.settle()
    assert await own.counted("another") == "1"
    assert await worker.stop() == 0


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (_recreate, "topic_recreated"),
        (_recreate_and_fill, "topic_recreated"),
        (_add_partitions, "partitions_changed"),
    ],
)
async def test_a_log_that_is_replaced_or_split_under_a_running_worker_halts_it(
    own: Stage, harm: Callable[..., Awaitable[None]], reason: str
) -> None:
    worker = await own.start().ready()
    await own.say(*_events(own, 1, 6))
    await own.settle()
    async with _administrator(own) as administrator:
        await harm(own, administrator)
    await _halted(worker, reason)
    counted = [int(number) for number in (await own.counted("k")).split()]
    assert counted == list(range(1, len(counted) + 1)), "nothing is skipped or read twice until it notices"
    assert await worker.stop() == 0


async def test_when_everything_is_refused_the_worker_stops_reading(own: Stage) -> None:
    worker = await own.start(parking_limit=10, batch_events=5).ready()
    await own.say(*(replace(own.event(f"k{number}", 1, {"raise": "all"}), partition=0) for number in range(40)))
    await _halted(worker, "parking_limit")
    parked = await own.fetch("SELECT count(*) FROM runtime.parked")
    assert 10 <= parked[0][0] < 40
    assert await worker.stop() == 0
    await own.start().ready()
    await own.settle()
    assert (await own.fetch("SELECT count(*) FROM runtime.parked"))[0][0] == 40


async def test_a_long_queue_behind_one_refused_event_is_no_reason_to_stop(own: Stage) -> None:
    worker = await own.start(parking_limit=10, batch_events=5).ready()
    await own.say(own.event("k", 1, {"raise": "this one"}), *(own.event("k", number) for number in range(2, 40)))
    await own.settle()
    assert await worker.reasons() == []
    assert len(await own.parked("k")) == 39


async def test_a_database_older_than_what_was_published_from_it_is_not_worked_with(own: Stage) -> None:
    worker = await own.start().ready()
    await own.say(*_events(own, 1, 6))
    await own.settle()
    await _committed_to_kafka(own, 5)
    assert await worker.stop() == 0
    await own.fetch(
        "UPDATE runtime.consumer_position SET next_offset = next_offset - 3, applied = applied - 3 "
        """WHERE topic = 'requests' AND "partition" = 0"""
    )
    halted = own.start()
    await _halted(halted, "database_went_back")
    assert await own.counted("k") == "1 2 3 4 5"

    async def others_stop() -> bool:
        return "publishing failed" in halted.said()

    await until(others_stop, "the relay gets no connection any more")
    (reason,) = await halted.reasons()
    assert reason.startswith("halted (database_went_back)"), "that PostgreSQL does not answer would be untrue"
    assert await halted.stop() == 0
    with pytest.raises(Trouble, match="restore its latest"):
        await go_on(_stack(own), "counting", TOPICS)


async def test_a_database_that_is_set_back_under_a_running_worker_is_not_worked_with(own: Stage) -> None:
    worker = await own.start().ready()
    await own.say(*_events(own, 1, 6))
    await own.settle()
    await own.fetch(
        "UPDATE runtime.consumer_position SET next_offset = next_offset - 3, applied = applied - 3 "
        """WHERE topic = 'requests' AND "partition" = 0"""
    )
    await own.say(*_events(own, 6, 7))
    await _halted(worker, "database_went_back")
    assert await own.counted("k") == "1 2 3 4 5"
    assert await worker.stop() == 0


async def _committed_to_kafka(own: Stage, offset: int) -> None:
    async with _administrator(own) as administrator:

        async def said() -> bool:
            offsets = await administrator.list_consumer_group_offsets(own.prefix + "counting")
            place = offsets.get(TopicPartition(own.prefix + "requests", 0))
            return place is not None and place.offset == offset

        await until(said, f"the group has committed {offset}")
