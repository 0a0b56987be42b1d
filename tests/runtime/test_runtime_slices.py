"""How a worker cuts what it reads into slices."""

from dataclasses import replace

import asyncpg
from aiokafka import AIOKafkaProducer

from tests.driving import until
from tests.runtime.stage import Stage, type_of


async def test_whatever_comes_while_a_slice_is_handled_is_the_next_slice(own: Stage) -> None:
    worker = await own.start().ready()
    key = own.key()

    async def come(*sequences: int) -> None:
        for sequence in sequences:
            await own.say(replace(own.event(key, sequence), partition=5))

    async def held_up() -> bool:
        rows = await own.fetch(
            "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return bool(rows)

    await come(1)
    await own.settle()
    before = await worker.metric("fieldbridge_batch_events_count")
    db = await asyncpg.connect(own.database)
    async with db.transaction():
        await db.execute("SELECT FROM counted WHERE key = $1 FOR UPDATE", key)
        await come(2)
        await until(held_up, "a slice is held up by the row that is locked")
        await come(*range(3, 12))
    await db.close()
    await own.settle()
    assert await own.counted(key) == " ".join(str(sequence) for sequence in range(1, 12))
    assert await worker.metric("fieldbridge_batch_events_count") == before + 2


async def test_a_round_follows_what_was_applied_and_not_what_was_passed_over(own: Stage) -> None:
    worker = await own.start().ready()
    runs = "fieldbridge_round_runs_total", "announcing"
    key = own.key()
    await own.say(own.event(key, 1, {"announce": True}))
    await until(lambda: worker.metric(*runs), "the round has followed the event")
    await own.settle()
    db = await asyncpg.connect(own.database)
    # What a round would find, without an event that tells it to look.
    await db.execute("UPDATE counted SET asked = true")
    await db.close()
    await own.say(own.event(key, 2, type="other.v1"))
    await own.settle()
    assert await worker.metric(*runs) == 1
    await own.say(own.event(key, 3))

    async def again() -> bool:
        return await worker.metric(*runs) == 2

    await until(again, "the round has followed what was applied")


async def test_a_round_may_decide_longer_than_an_idle_transaction_lasts(own: Stage) -> None:
    worker = await own.start().ready()
    await own.say(own.event("k", 1, {"said": "slowly", "announce": True}))

    async def announced() -> bool:
        return "announced.v1" in [type_of(one) for one in await own.facts("k")]

    await until(announced, "the round has announced the key")
    assert await worker.metric("fieldbridge_round_failures_total", "announcing") == 0


async def test_what_other_systems_transactions_leave_in_the_log_is_passed(own: Stage) -> None:
    worker = await own.start().ready()
    producer = AIOKafkaProducer(bootstrap_servers=own.kafka, transactional_id=f"{own.prefix}outside")
    await producer.start()
    try:
        for key, kept in (("first", True), ("taken-back", False), ("second", True), ("never", False)):
            event = own.event(key, None, {"n": 1}, topic="submissions")
            await producer.begin_transaction()
            await producer.send_and_wait(event.topic, event.value, key=b"one", headers=event.headers)
            await (producer.commit_transaction() if kept else producer.abort_transaction())
    finally:
        await producer.stop()
    await own.settle()
    assert [await own.counted(key) for key in ("first", "taken-back", "second", "never")] == ["1", "", "1", ""]
    (position,) = await own.fetch(
        "SELECT next_offset, applied, absent FROM runtime.consumer_position "
        "WHERE topic = 'submissions' AND next_offset > 0"
    )
    # Two records that count, two that were taken back, and four markers.
    assert tuple(position.values()) == (8, 2, 6)

    async def nothing_waits() -> bool:
        return await worker.metric("fieldbridge_lag_events", "submissions") == 0

    await until(nothing_waits, "nothing waits")
    await own.say(replace(own.event("third", None, {"n": 1}, topic="submissions"), key=b"one"))
    await own.settle()
    assert await own.counted("third") == "1"
    assert await worker.stop() == 0
