"""Of two who believe they own a partition or lead the relay, one alone has effects, whoever is frozen or killed."""

import asyncio
from functools import partial

import asyncpg
import msgpack
import pytest

from services.runtime.recordbatch import encoded
from tests.driving import Worker, publish, read_log, until
from tests.runtime.cutting import cutting, ending
from tests.runtime.stage import Stage

KEYS = 60


async def test_an_owner_whose_positions_are_claimed_writes_nothing_and_joins_anew(own: Stage) -> None:
    worker = await own.start(batch_events=20).ready()
    said = asyncio.create_task(_traffic(own, 1, 31))
    for step in range(1, 4):
        await until(partial(_applied_more_than, own, step * 200), "it is at work")
        await own.fetch("UPDATE runtime.consumer_position SET epoch = epoch + 1, owner = 'somebody else'")
        await until(partial(_owned_by, own, worker), "it has claimed its positions anew")
    await said
    await own.settle()
    assert await worker.metric("fieldbridge_fenced_total") > 0
    await _all_counted(own, 30)


async def test_an_owner_that_is_frozen_past_its_time_finds_another_in_its_place(own: Stage) -> None:
    settings: dict[str, object] = {"session_timeout_ms": 6000, "lease_seconds": 1, "batch_events": 20}
    frozen = await own.start(**settings).ready()
    said = asyncio.create_task(_traffic(own, 1, 21))
    await until(partial(_applied_more_than, own, 200), "it is at work")
    frozen.pause()
    other = own.start(**settings)
    await said
    await until(partial(_owned_by, own, other), "the other one has taken over")
    await own.settle()
    last = asyncio.create_task(_traffic(own, 21, 41))
    frozen.resume()
    await last
    await own.settle()
    assert frozen.running
    await _all_counted(own, 40)


async def test_an_owner_that_is_frozen_in_a_round_holds_nobody_up_for_longer_than_any_other(own: Stage) -> None:
    settings: dict[str, object] = {"session_timeout_ms": 6000, "lease_seconds": 1}
    frozen = await own.start(failpoints="in_round=stop@1", **settings).ready()
    await own.say(own.event("k", 1, {"n": 1, "announce": True}))
    other = own.start(**settings)
    await until(partial(_owned_by, own, other), "the other one has taken over")
    await own.say(own.event("k", 2))

    async def goes_on() -> bool:
        return await own.counted("k") == "1 2"

    # PostgreSQL bears with the frozen one's transaction for ten seconds, and kept it for a minute once.
    await until(goes_on, "what the round had looked at is free", seconds=30)
    frozen.resume()
    await own.settle()


async def test_a_slice_that_is_tried_again_and_again_keeps_nobody_from_joining_the_group(own: Stage) -> None:
    first = await own.start().ready()
    await own.say(own.event("k", 1, {"contend": True}))

    async def in_the_way() -> float:
        return await first.metric("fieldbridge_retries_total", "contended")

    await until(in_the_way, "somebody is in the way")
    second = await own.start().ready()

    async def shared() -> bool:
        return all([await worker.metric("fieldbridge_partitions") == 8 for worker in (first, second)])

    await until(shared, "each has half of the partitions")
    assert await own.parked("k") == [], "it was not waited for until the event was given up"


async def test_two_workers_share_the_partitions_and_the_survivor_takes_all(own: Stage) -> None:
    workers = [own.start(session_timeout_ms=6000, lease_seconds=1) for _ in range(2)]
    for worker in workers:
        await worker.ready()

    async def shared() -> bool:
        return all([await worker.metric("fieldbridge_partitions") == 8 for worker in workers])

    await until(shared, "each has half of the partitions")
    await _traffic(own, 1, 6)
    await own.settle()
    owners = await own.fetch("SELECT owner, count(*) FROM runtime.consumer_position GROUP BY owner")
    assert sorted(row["count"] for row in owners) == [8, 8]
    (leader,) = [one for one in workers if await one.metric("fieldbridge_relay_leader") == 1]
    survivor = workers[1 - workers.index(leader)]
    leader.kill()
    await _traffic(own, 6, 11)
    await until(partial(_owned_by, own, survivor), "the survivor owns everything")
    await own.settle()
    await _all_counted(own, 10)
    assert await survivor.metric("fieldbridge_relay_leader") == 1


async def test_a_commit_whose_answer_is_lost_is_not_done_again(own: Stage) -> None:
    async with cutting(own.database, every=7) as way:
        worker = await own.start(counting_database=way.url, batch_events=20).ready()
        await _traffic(own, 1, 21)
        await own.settle()
        assert way.cut > 5
        assert await worker.stop() == 0
    await _all_counted(own, 20)


@pytest.mark.parametrize("every", [23, 31])
async def test_a_session_that_the_server_ends_behind_its_answer_is_no_reason_to_park(own: Stage, every: int) -> None:
    async with ending(own.database) as way:
        worker = await own.start(counting_database=way.url, batch_events=1).ready()
        way.every = every
        await _traffic(own, 1, 2)
        await own.settle()
        assert way.cut > 10
        assert await worker.stop() == 0
    await _all_counted(own, 1)


async def test_a_fact_that_is_committed_late_is_published_although_later_ones_are_gone(own: Stage) -> None:
    await own.start().ready()
    db = await asyncpg.connect(own.database)
    async with db.transaction():
        await db.execute(
            "INSERT INTO runtime.outbox (topic, events, records) VALUES ('matches', 1, $1)",
            msgpack.packb([0, encoded(b"late", b"{}", [])]),
        )
        await _traffic(own, 1, 3)
        await own.settle()
    await db.close()
    await own.settle()
    log = await read_log(own.kafka, own.prefix + "matches")
    assert [one.value for one in log if one.key == b"late"] == [b"{}"]
    assert len(log) == 2 * KEYS + 1


async def test_a_leader_that_lost_its_lease_deletes_nothing(own: Stage) -> None:
    worker = await own.start(lease_seconds=60).ready()
    await _traffic(own, 1, 2)
    await own.settle()
    stolen = "UPDATE runtime.lease SET epoch = epoch + 1, holder = 'somebody else' RETURNING epoch"
    assert [row["epoch"] for row in await own.fetch(stolen)] == [2]
    await own.say(own.event("k0", 2))
    await until(partial(_follows, worker), "it knows that somebody else leads")
    assert len(await own.fetch("SELECT FROM runtime.outbox")) == 1
    await own.fetch("UPDATE runtime.lease SET expires_at = clock_timestamp()")
    assert await worker.stop() == 0
    await own.start().ready()
    await own.settle()
    assert await own.totals("k0") == [1, 2]


async def test_a_lease_that_a_clock_set_back_has_left_behind_holds_nobody_up(own: Stage) -> None:
    worker = await own.start().ready()
    await _traffic(own, 1, 2)
    await own.settle()
    assert await worker.stop() == 0
    await own.fetch("UPDATE runtime.lease SET holder = 'nobody', expires_at = clock_timestamp() + interval '1 hour'")
    await own.start().ready()
    await _traffic(own, 2, 3)
    await own.settle()
    await _all_counted(own, 2)


async def _follows(worker: Worker) -> bool:
    return await worker.metric("fieldbridge_relay_leader") == 0


async def _traffic(own: Stage, first: int, end: int) -> None:
    """Events `first` to `end - 1` of every key, a few at a time."""
    for number in range(first, end):
        await publish(own.kafka, [own.event(f"k{key}", number) for key in range(KEYS)])


async def _applied_more_than(own: Stage, events: int) -> bool:
    rows = await own.fetch("SELECT coalesce(sum(applied), 0) FROM runtime.consumer_position")
    return rows[0][0] > events


async def _owned_by(own: Stage, worker: Worker) -> bool:
    rows = await own.fetch("SELECT DISTINCT owner FROM runtime.consumer_position")
    return len(rows) == 1 and rows[0]["owner"].endswith(f":{worker.pid}")


async def _all_counted(own: Stage, events: int) -> None:
    await own.check()
    rows = await own.fetch("SELECT said FROM counted")
    assert len(rows) == KEYS
    assert {row["said"] for row in rows} == {" ".join(str(number) for number in range(1, events + 1))}
    applied = await own.fetch("SELECT sum(applied) FROM runtime.consumer_position")
    assert applied[0][0] == KEYS * events
    assert not await own.fetch("SELECT FROM runtime.parked")
