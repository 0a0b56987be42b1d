"""Old ids are forgotten page by page, never more than asked; what is still needed stays, and nobody waits for it."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import asyncpg
import pytest

from schemas.topics import TOPICS
from services.runtime.database import Connection, connect
from services.runtime.retention import PAGES_AT_A_TIME, Turn, ask_for_pass, standing, take_turn
from services.runtime.settings import BadSetting, Settings
from tests.conftest import OpenDatabase
from tests.driving import Message, until
from tests.runtime.stage import Stage

DAYS = 200
OLD = timedelta(days=DAYS, minutes=1)
YOUNG = timedelta(days=DAYS, minutes=-1)
MOST_ROWS_OF_A_PAGE = 291  # PostgreSQL's limit for a page of 8 KiB

Open = Callable[[], Awaitable[Connection]]


@pytest.fixture
async def db(open_database: OpenDatabase) -> Connection:
    return await open_database("counting", "tests.runtime.counting.migrations")


@pytest.fixture
async def another(db: Connection, database_urls: dict[str, str]) -> AsyncIterator[Open]:
    """Opens further connections to the same database."""
    opened: list[Connection] = []

    async def open_one() -> Connection:
        opened.append(await connect(database_urls["counting"]))
        return opened[-1]

    yield open_one
    for connection in opened:
        await connection.close()


async def remember(db: Connection, source: str, ages: list[timedelta]) -> None:
    """Ids of messages that were handled so long ago; each is long, so that few fit on a page."""
    await db.execute(
        "INSERT INTO runtime.message_seen (source, id, seen_at)"
        " SELECT $1, rpad(nth || ' ', 200, 'x'), now() - age"
        " FROM unnest($2::interval[]) WITH ORDINALITY AS given (age, nth)",
        source,
        ages,
    )


async def remembered(db: Connection, of: str = "message_seen") -> set[str]:
    """Every row of a table, as text."""
    return {row["row"] for row in await db.fetch(f"SELECT one::text AS row FROM runtime.{of} AS one")}


async def turn(db: Connection, days: int = DAYS) -> Turn | None:
    async with db.transaction():
        return await take_turn(db, days)


async def whole_pass(db: Connection, days: int = DAYS) -> list[int]:
    """Takes turns until no pass is due; how many rows each removed."""
    removed: list[int] = []
    while (done := await turn(db, days)) is not None:
        removed.append(done.removed)
        assert len(removed) < 1000, "the pass has no end"
    return removed


async def test_ids_older_than_the_retention_go_and_all_else_stays_however_old(db: Connection) -> None:
    kept = {"stream_seen", "stream_out", "parked", "outbox", "consumer_position"}
    await db.execute(
        """
        INSERT INTO runtime.stream_seen (topic, key, sequence) VALUES ('requests', 'R-closed', 9);
        INSERT INTO runtime.stream_out (topic, key, sequence) VALUES ('matches', 'R-closed', 9);
        INSERT INTO runtime.consumer_position (topic, "partition", first_offset, next_offset, owner, moved_at)
            VALUES ('requests', 0, 7, 7, 'nobody', now() - interval '10 years');
        INSERT INTO runtime.outbox (topic, events, records, written_at)
            VALUES ('matches', 1, '', now() - interval '10 years');
        INSERT INTO runtime.parked (topic, "partition", "offset", headers, recorded_at, reason, detail, parked_at)
            VALUES ('requests', 0, 1, '', now(), 'refused', 'long ago', now() - interval '10 years');
        """
    )
    before = {name: await remembered(db, name) for name in kept}
    await remember(db, "/young", [YOUNG, timedelta(0)])
    young = await remembered(db)
    await remember(db, "/old", [OLD, timedelta(days=3000)])
    assert await whole_pass(db) == [2]
    assert await remembered(db) == young
    assert {name: await remembered(db, name) for name in kept} == before


@pytest.mark.parametrize("seed", range(5))
async def test_a_pass_forgets_every_old_id_wherever_it_lies_a_few_pages_at_a_time(db: Connection, seed: int) -> None:
    draw = random.Random(seed)

    def ages(count: int) -> list[timedelta]:
        return [draw.choice((OLD, YOUNG)) for _ in range(count)]

    await remember(db, "/first", ages(5000))
    # Space that was given free is used again, so that age and place have nothing to do with one another.
    await db.execute("DELETE FROM runtime.message_seen WHERE hashtext(id) % 3 = 0")
    await db.execute("VACUUM runtime.message_seen")
    await remember(db, "/second", ages(3000))
    old = "seen_at < now() - make_interval(days => 200)"
    young = {row["row"] for row in await db.fetch(f"SELECT m::text AS row FROM runtime.message_seen m WHERE NOT {old}")}
    count = f"SELECT count(*) FROM runtime.message_seen WHERE {old}"
    overall = await db.fetchval(count)
    beyond = await db.fetchval(f"{count} AND ctid >= $1", (PAGES_AT_A_TIME, 0))
    assert 0 < beyond < overall

    first = await turn(db)
    assert first == Turn(overall - beyond, more=True)
    assert await db.fetchval(count) == beyond
    removed = [first.removed, *await whole_pass(db)]
    assert max(removed) <= PAGES_AT_A_TIME * MOST_ROWS_OF_A_PAGE
    assert sum(removed) == (await standing(db)).removed == overall
    assert await remembered(db) == young


async def test_who_finds_another_at_a_batch_passes_by(db: Connection, another: Open) -> None:
    await remember(db, "/tests", [OLD, YOUNG])
    await ask_for_pass(db)
    other = await another()
    async with db.transaction():
        assert await take_turn(db, DAYS) == Turn(1, more=False)
        # Had it to wait for the other's lock, PostgreSQL would end it with an error.
        await other.execute("SET lock_timeout = '1ms'")
        assert await turn(other) is None
    assert len(await remembered(other)) == 1


async def test_processes_that_share_a_pass_remove_every_old_id_once(db: Connection, another: Open) -> None:
    await remember(db, "/tests", [OLD, YOUNG, OLD] * 3000)

    async def work() -> tuple[int, int]:
        mine = await another()
        turns = removed = 0
        while (await standing(mine)).due:
            if (done := await turn(mine)) is not None:
                turns, removed = turns + 1, removed + done.removed
        return turns, removed

    shares = await asyncio.gather(*(work() for _ in range(3)))
    assert sum(removed for _, removed in shares) == (await standing(db)).removed == 6000
    assert sum(turns for turns, _ in shares) > 3, "the pass was not long enough to be shared"
    assert len(await remembered(db)) == 3000


async def test_a_batch_that_was_cut_off_is_made_again(db: Connection) -> None:
    await remember(db, "/tests", [OLD] * 4000)
    first = await turn(db)
    assert first is not None
    await db.execute("BEGIN")
    assert await take_turn(db, DAYS) is not None
    await db.execute("ROLLBACK")
    assert first.removed + sum(await whole_pass(db)) == (await standing(db)).removed == 4000
    assert await remembered(db) == set()


async def test_a_pass_is_due_once_a_day_and_whenever_somebody_asks(db: Connection) -> None:
    async def hours_go_by(hours: int) -> None:
        await db.execute("UPDATE runtime.retention SET due_at = due_at - make_interval(hours => $1)", hours)

    assert (await standing(db)).due
    assert await whole_pass(db) == [0]
    await remember(db, "/tests", [OLD])
    await hours_go_by(23)
    assert not (await standing(db)).due
    assert await whole_pass(db) == []
    await hours_go_by(1)
    assert (await standing(db)).due
    assert await whole_pass(db) == [1]

    await remember(db, "/tests", [OLD])
    await ask_for_pass(db)
    assert await whole_pass(db) == [1]


async def test_who_asks_in_the_midst_of_a_pass_gets_a_whole_one(db: Connection) -> None:
    await remember(db, "/tests", [timedelta(days=150)] * 4000)
    assert await turn(db) == Turn(0, more=True)
    await ask_for_pass(db)
    assert sum(await whole_pass(db, days=149)) == 4000


@pytest.mark.parametrize("days", ["99", "0", "a year"])
def test_a_retention_shorter_than_a_message_can_lie_in_the_log_is_refused(days: str) -> None:
    given = {
        "FIELDBRIDGE_KAFKA": "127.0.0.1:9092",
        "FIELDBRIDGE_INTAKE_DATABASE": "postgresql://127.0.0.1/intake",
        "FIELDBRIDGE_RETENTION_DAYS": days,
    }
    with pytest.raises(BadSetting, match="FIELDBRIDGE_RETENTION_DAYS"):
        Settings.of_service("intake", given)


def test_ids_are_remembered_for_longer_than_kafka_keeps_two_copies_one_after_the_other() -> None:
    usual = Settings.model_validate({"kafka": "127.0.0.1:9092", "database": "postgresql://127.0.0.1/intake"})
    segment_days = 7
    for topic in TOPICS:
        if not topic.sequenced:
            assert topic.retention_days is not None, f"{topic.name} is kept for ever: so must be its ids"
            assert usual.retention_days > 2 * (topic.retention_days + segment_days), topic.name


async def test_a_repeated_message_is_refused_within_the_retention_and_new_beyond_it(own: Stage) -> None:
    worker = await own.start().ready()
    late, early = _message(own, "late"), _message(own, "early")
    await own.say(late, early)
    await own.settle()
    await worker.stop()
    await _make_older(own, "late", OLD)
    await _make_older(own, "early", YOUNG)
    await own.fetch("UPDATE runtime.retention SET due_at = now()")

    worker = await own.start().ready()

    async def told() -> bool:
        return await worker.metric("fieldbridge_retention_removed_total", "message_seen") == 1

    await until(told, "the metrics tell that the old id was removed")
    assert await worker.metric("fieldbridge_retention_overdue_seconds") == 0
    assert await worker.metric("fieldbridge_table_bytes", "runtime.message_seen") > 0
    await own.say(late, early)
    await own.settle()
    assert await own.counted("late") == "1 1"
    assert await own.counted("early") == "1"


async def test_messages_go_on_while_ids_are_being_forgotten_and_a_repeat_of_one_waits(own: Stage) -> None:
    await own.start().ready()
    first = _message(own, "first")
    await own.say(first)
    await own.settle()
    await _make_older(own, "first", OLD)
    forgetting = await asyncpg.connect(own.database)
    try:
        batch = forgetting.transaction()
        await batch.start()
        await ask_for_pass(forgetting)
        assert await take_turn(forgetting, DAYS) == Turn(1, more=False)
        await own.say(_message(own, "second"), own.event("third", 1))
        await own.settle()
        assert (await own.counted("second"), await own.counted("third")) == ("1", "1")

        await own.say(first)
        waiting = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        await until(lambda: own.fetch(waiting), "the repeat waits for the end of the batch")
        await batch.rollback()
    finally:
        await forgetting.close()
    await own.settle()
    assert await own.counted("first") == "1"


def _message(own: Stage, key: str) -> Message:
    return own.event(key, None, {"n": 1}, topic="submissions", id=key)


async def _make_older(own: Stage, message_id: str, age: timedelta) -> None:
    changed = await own.fetch(
        "UPDATE runtime.message_seen SET seen_at = now() - $2::interval WHERE id = $1 RETURNING id", message_id, age
    )
    assert changed, f"nothing is remembered of {message_id}"
