"""Events of one key are handled once and in order, whatever comes twice, late, out of order or not at all."""

import json
from dataclasses import replace

import asyncpg
import pytest

from services.runtime import inbox
from services.runtime.database import Contention, connect
from services.runtime.inbox import Stream
from tests.runtime.stage import Stage


async def test_events_that_come_twice_or_late_are_applied_once(counting: Stage) -> None:
    key = counting.key()
    first, second, third = (counting.event(key, number) for number in (1, 2, 3))
    await counting.say(first, first, second, first, second, third)
    await counting.say(second, third)
    await counting.settle()
    assert await counting.counted(key) == "1 2 3"
    assert await counting.totals(key) == [1, 2, 3]
    assert not await counting.parked(key)


async def test_a_gap_that_is_filled_later_releases_what_waited_in_order(counting: Stage) -> None:
    key = counting.key()
    await counting.say(*(counting.event(key, number) for number in (1, 4, 3, 6, 4)))
    await counting.settle()
    assert await counting.counted(key) == "1"
    assert {row["reason"] for row in await counting.parked(key)} == {"gap"}

    await counting.say(counting.event(key, 2))
    await counting.settle()
    assert await counting.counted(key) == "1 2 3 4"
    assert [row["reason"] for row in await counting.parked(key)] == ["gap"]
    await counting.say(counting.event(key, 5))
    await counting.settle()
    assert await counting.counted(key) == "1 2 3 4 5 6"
    assert not await counting.parked(key)


async def test_redriving_over_a_gap_leaves_it_parked_until_the_missing_one_comes(counting: Stage) -> None:
    key = counting.key()
    await counting.say(counting.event(key, 1), counting.event(key, 3))
    await counting.settle()
    await _redrive(counting, key)
    assert [row["reason"] for row in await counting.parked(key)] == ["gap"]
    await counting.say(counting.event(key, 2))
    await counting.settle()
    assert await counting.counted(key) == "1 2 3"


@pytest.mark.parametrize("round_", range(6))
async def test_what_comes_while_a_gap_is_released_is_not_left_behind(counting: Stage, round_: int) -> None:
    keys = [counting.key() for _ in range(20)]
    await counting.say(*(counting.event(key, number) for key in keys for number in (1, 3)))
    await counting.settle()
    for number in (2, 4, 5, 6, 7):
        await counting.say(*(counting.event(key, number) for key in keys))
    await counting.settle()
    assert {await counting.counted(key) for key in keys} == {"1 2 3 4 5 6 7"}


async def test_a_refused_event_is_redriven_with_what_waits_behind_it_and_twice_changes_nothing(counting: Stage) -> None:
    key = counting.key()
    await counting.say(counting.event(key, 1), counting.event(key, 2, {"raise": "not yet"}), counting.event(key, 3))
    await counting.settle()
    await _redrive(counting, key)
    assert [row["reason"] for row in await counting.parked(key)] == ["refused", "behind"]
    await _mend(counting, key)
    await _redrive(counting, key)
    await _redrive(counting, key)
    assert await counting.counted(key) == "1 mended 3"
    await counting.say(counting.event(key, 4))
    await counting.settle()
    assert await counting.counted(key) == "1 mended 3 4"
    assert await counting.totals(key) == [1, 2, 3, 4]


async def test_discarding_lets_go_what_waited(counting: Stage) -> None:
    key = counting.key()
    await counting.say(counting.event(key, 1), counting.event(key, 2, {"raise": "never"}), counting.event(key, 3))
    await counting.settle()
    poison, _ = await counting.parked(key)
    await counting.mark("discard", [poison["id"]])
    await counting.settle()
    assert await counting.counted(key) == "1 3"
    await counting.say(counting.event(key, 4))
    await counting.settle()
    assert await counting.counted(key) == "1 3 4"


async def test_discarding_an_event_whose_sequence_is_unreadable_gives_up_its_place(counting: Stage) -> None:
    key = counting.key()
    broken = counting.event(key, 2)
    broken = replace(broken, headers=[one for one in broken.headers if one[0] != "ce_source"])
    await counting.say(counting.event(key, 1), broken, counting.event(key, 3), counting.event(key, 4))
    await counting.settle()
    poison, *_ = await counting.parked(key)
    await counting.mark("discard", [poison["id"]])
    await counting.settle()
    assert await counting.counted(key) == "1 3 4"


async def test_a_key_with_many_troubles_is_mended_in_one_go(counting: Stage) -> None:
    key = counting.key()
    broken = replace(counting.event(key, 3), headers=[])
    refused = counting.event(key, 2, {"raise": "not yet"})
    await counting.say(counting.event(key, 1), refused, broken, counting.event(key, 5), counting.event(key, 4))
    await counting.settle()
    await _mend(counting, key)
    rows = await counting.parked(key)
    await counting.mark("redrive", [rows[0]["id"]])
    await counting.mark("discard", [row["id"] for row in rows if row["reason"] == "unreadable"])
    await counting.settle()
    assert await counting.counted(key) == "1 mended 4 5"


async def test_discarding_a_stranger_s_litter_gives_up_no_place(counting: Stage) -> None:
    key = counting.key()
    litter = replace(counting.event(key, 9), headers=[])
    await counting.say(counting.event(key, 1), litter)
    await counting.settle()
    (poison,) = await counting.parked(key)
    await counting.mark("discard", [poison["id"]])
    await counting.settle()
    await counting.say(counting.event(key, 2))
    await counting.settle()
    assert await counting.counted(key) == "1 2"


async def test_everything_is_redriven_during_traffic(counting: Stage) -> None:
    keys = [counting.key() for _ in range(40)]
    await counting.say(*(counting.event(key, 1, {"raise": "not yet"}) for key in keys))
    await counting.settle()
    for key in keys:
        await _mend(counting, key)
    ids = [row["id"] for key in keys for row in await counting.parked(key)]
    for number in range(2, 12):
        await counting.say(*(counting.event(key, number) for key in keys))
        await counting.mark("redrive", ids)
    await counting.settle()
    expected = " ".join(["mended", *(str(number) for number in range(2, 12))])
    assert {await counting.counted(key) for key in keys} == {expected}


async def test_one_event_that_cannot_be_saved_does_not_keep_the_others_parked(counting: Stage) -> None:
    keys = [counting.key() for _ in range(12)]
    await counting.say(*(counting.event(key, 1, {"raise": "not yet"}) for key in keys))
    await counting.say(*(counting.event(key, 2) for key in keys))
    await counting.settle()
    for key in keys[1:]:
        await _mend(counting, key)
    await _mend(counting, keys[0], {"said": "\x00"})
    await counting.mark("redrive", [row["id"] for key in keys for row in await counting.parked(key)])
    await counting.settle()
    assert {await counting.counted(key) for key in keys[1:]} == {"mended 2"}
    assert [row["reason"] for row in await counting.parked(keys[0])] == ["refused", "behind"]
    await _mend(counting, keys[0])
    await _redrive(counting, keys[0])
    assert await counting.counted(keys[0]) == "mended 2"


async def test_one_event_that_is_always_in_somebodys_way_does_not_keep_the_others_parked(counting: Stage) -> None:
    stuck, free = counting.key(), counting.key()
    await counting.say(*(counting.event(key, 1, {"raise": "not yet"}) for key in (stuck, free)))
    await counting.settle()
    await _mend(counting, free)
    await _mend(counting, stuck, {"contend": True})
    await counting.mark("redrive", [row["id"] for key in (stuck, free) for row in await counting.parked(key)])
    await counting.settle()
    assert await counting.counted(free) == "mended"
    (parked,) = await counting.parked(stuck)
    assert parked["reason"] == "refused"
    await _mend(counting, stuck)
    await _redrive(counting, stuck)
    assert await counting.counted(stuck) == "mended"


async def test_messages_without_a_sequence_are_known_by_source_and_id(counting: Stage) -> None:
    key, other = counting.key(), counting.key()
    one = counting.event(key, None, {"n": 1}, topic="submissions", id=f"id-{key}")
    from_elsewhere = counting.event(key, None, {"n": 2}, topic="submissions", id=f"id-{key}", source="/elsewhere")
    again_elsewhere = replace(one, partition=(await _partitions(counting) - 1), key=other.encode())
    await counting.say(one, one, from_elsewhere)
    await counting.say(one, again_elsewhere)
    await counting.settle()
    assert await counting.counted(key) == "1 2"


async def test_a_sequence_that_a_stranger_claims_means_nothing_where_none_is_kept(counting: Stage) -> None:
    key = counting.key()
    await counting.say(
        counting.event(key, 7, {"raise": "not yet"}, topic="submissions"), counting.event(key, 7, topic="submissions")
    )
    await counting.settle()
    await _mend(counting, key)
    await _redrive(counting, key)
    assert await counting.counted(key) == "mended 7"


async def test_the_database_refuses_positions_that_do_not_add_up(counting: Stage) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await counting.fetch("UPDATE runtime.consumer_position SET applied = applied + 1")


async def test_decisions_may_share_one_value_that_says_nothing_changes(counting: Stage) -> None:
    key, other = counting.key(), counting.key()
    for number in (1, 3, 5):
        still = replace(counting.event(key, number, {"nothing": True}), partition=0)
        await counting.say(still, replace(counting.event(key, number + 1), partition=0))
        await counting.settle()
    await counting.say(replace(counting.event(other, 1, {"nothing": True}), partition=0))
    await counting.settle()
    assert await counting.counted(key) == "2 4 6"
    assert not await counting.parked(key)
    assert not await counting.parked(other)


async def test_a_key_that_was_handled_further_meanwhile_is_not_set_back(counting: Stage) -> None:
    db = await connect(counting.database)
    stream = ("requests", counting.key())
    await inbox.move_on(db, {}, {stream: Stream(5)}, [])
    with pytest.raises(Contention):
        await inbox.move_on(db, {}, {stream: Stream(4)}, [])
    assert await inbox.streams(db, [stream]) == {stream: Stream(5)}
    await db.close()


async def test_nothing_was_lost_or_doubled_in_all_of_this(counting: Stage) -> None:
    await counting.settle()
    await counting.check()


async def _redrive(counting: Stage, key: str) -> None:
    await counting.mark("redrive", [row["id"] for row in await counting.parked(key)])
    await counting.settle()


async def _mend(counting: Stage, key: str, body: object = None) -> None:
    """What a corrected release would do: the refused event can be decided now."""
    await counting.fetch(
        "UPDATE runtime.parked SET value = $2 WHERE key = $1 AND reason = 'refused'",
        key,
        json.dumps({"said": "mended"} if body is None else body).encode(),
    )


async def _partitions(counting: Stage) -> int:
    rows = await counting.fetch("SELECT count(*) FROM runtime.consumer_position WHERE topic = 'submissions'")
    return rows[0][0]
