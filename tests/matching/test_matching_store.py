"""Matching on real PostgreSQL: what is saved is what is loaded, and a round sees what it has to."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

from schemas.matches import MatchBody, MatchConfirmed, MatchNotFound, MatchProposed, MatchReleased
from schemas.vocabulary import ConflictKind, DateWindow
from services.matching import store
from services.matching.handlers import decide, decide_round
from services.matching.store import Body
from services.runtime.database import Connection, Contention, connect
from tests.conftest import OpenDatabase, empty
from tests.matching.matching_builders import (
    NOW,
    TODAY,
    World,
    accepted,
    agency_accepts,
    agency_declines,
    amended,
    changed,
    declared,
    delivered,
    event,
    held,
    listed,
    not_plannable,
    partner_accepts,
    reopened,
    resumed,
    retired,
    selected,
    suspended,
    unavailable,
    waived,
    withdrawn,
)

ROSTER = (selected("IACP"), selected("NOBLE"), listed("E1", "IACP"), listed("E2", "NOBLE"))


async def hear(db: Connection, *bodies: Body) -> list[MatchBody]:
    """A batch of events as the runtime handles it: load, decide one by one, save."""
    facts: list[MatchBody] = []
    async with db.transaction():
        events = [event(body) for body in bodies]
        known, done = await store.load(db, events), store.Known()
        for one in events:
            changes, news = decide(known, one)
            known.absorb(changes)
            done.absorb(changes)
            facts.extend(news)
        await store.save(db, done)
    return facts


BOARDS: defaultdict[Connection, store.Boards] = defaultdict(store.Boards)
"""One for each database, as each process has one."""


async def has_news(db: Connection, now: datetime = NOW) -> bool:
    """Whether a round would have anything to look at."""
    async with db.transaction():
        return await BOARDS[db].load(db, now) is not None


async def run_round(db: Connection, now: datetime = NOW) -> list[MatchBody]:
    """A round as the runtime runs it."""
    async with db.transaction():
        board = await BOARDS[db].load(db, now)
        assert board is not None
        changes, facts = decide_round(board, now)
        await store.save(db, changes)
    return list(facts)


async def test_a_request_goes_from_the_pool_to_a_confirmed_match(open_database: OpenDatabase) -> None:
    db = await open_database("matching")
    await hear(db, *ROSTER, accepted("R1"))
    [proposed] = await run_round(db)
    assert isinstance(proposed, MatchProposed)
    assert proposed.match_id == "R1/m1"
    assert await hear(db, agency_accepts("R1/m1")) == []
    [confirmed] = await hear(db, partner_accepts("R1/m1", proposed.partner_id))
    assert isinstance(confirmed, MatchConfirmed)
    assert confirmed.expert_ids == (proposed.experts[0].expert_id,)


async def stored(db: Connection) -> list[object]:
    """Everything matching knows, as load gives it."""
    requests = [row["request_id"] for row in await db.fetch("SELECT request_id FROM pool")]
    experts = [row["expert_id"] for row in await db.fetch("SELECT expert_id FROM expert")]
    partners = [row["partner_id"] for row in await db.fetch("SELECT partner_id FROM partner")]
    events = [
        *[event(withdrawn(one)) for one in requests],
        *[event(retired(one)) for one in experts],
        *[event(suspended(one)) for one in partners],
    ]
    known = await store.load(db, events)
    return [known.requests, known.experts, known.partners]


async def test_what_is_saved_is_what_is_loaded(open_database: OpenDatabase) -> None:
    """The same story told to the database, one batch an event, and to a dictionary."""
    db = await open_database("matching")
    world = World()
    days_off = DateWindow(TODAY, TODAY + timedelta(days=3))
    story: list[Body | None] = [
        *ROSTER,
        unavailable("E2", days_off),
        declared("C1", "MO0480000", expert_id="E1"),
        declared("C2", kind=ConflictKind.BARGAINING, partner_id="NOBLE"),
        waived("C2", partner_id="NOBLE"),
        accepted("R1"),
        accepted("R2", blackouts=(days_off,)),
        held("R3"),
        delivered("R4/m1"),
        None,
        agency_declines("R1/m1"),
        agency_accepts("R2/m1"),
        None,
        amended("R1"),
        withdrawn("R2"),
        reopened("R2"),
        None,
    ]
    for body in story:
        if body is None:
            world.round()
            await run_round(db)
        else:
            world.hear(body)
            await hear(db, body)
    requests, experts, partners = await stored(db)
    assert unversioned(requests) == unversioned(world.known.requests)
    assert unversioned(experts) == unversioned(world.known.experts)
    assert unversioned(partners) == unversioned(world.known.partners)


def unversioned(part: Any) -> dict[str, object]:
    return {key: replace(one, version=0) for key, one in part.items()}


async def test_a_batch_is_decided_as_its_events_one_by_one_are(open_database: OpenDatabase) -> None:
    db = await open_database("matching")
    story = (*ROSTER, accepted("R1"), accepted("R2"), held("R2"), amended("R1"), resumed("R2"), withdrawn("R1"))
    await hear(db, *story)
    together = await stored(db)
    await empty(db)
    for body in story:
        await hear(db, body)
    apart = await stored(db)
    assert [unversioned(part) for part in together] == [unversioned(part) for part in apart]


async def test_two_workers_that_write_the_same_new_row_do_not_both_succeed(open_database: OpenDatabase) -> None:
    """A row that is not there yet cannot be locked; its version tells the second writer."""
    db = await open_database("matching")
    one, other = event(accepted("R1")), event(held("R1"))
    known = await store.load(db, [one]), await store.load(db, [other])
    await store.save(db, decide(known[0], one)[0])
    with pytest.raises(Contention):
        await store.save(db, decide(known[1], other)[0])


async def test_a_round_with_nothing_new_does_nothing(open_database: OpenDatabase) -> None:
    db = await open_database("matching")
    assert not await has_news(db)
    await hear(db, *ROSTER, accepted("R1"))
    assert len(await run_round(db)) == 1
    assert not await has_news(db)
    await hear(db, agency_accepts("R1/m1"))
    assert not await has_news(db), "an answer frees nobody"


async def test_who_was_not_found_is_tried_again_when_the_roster_changes_or_the_day_does(
    open_database: OpenDatabase,
) -> None:
    db = await open_database("matching")
    await hear(db, selected(), accepted("R1"), accepted("R2"), held("R2"))
    assert [type(fact) for fact in await run_round(db)] == [MatchNotFound]
    assert not await has_news(db)
    assert await run_round(db, NOW + timedelta(days=1)) == [], "looked at, with nothing new to say"
    assert not await has_news(db, NOW + timedelta(days=1))
    await hear(db, listed("E1"))
    [fact] = await run_round(db, NOW + timedelta(days=1))
    assert isinstance(fact, MatchProposed)


async def test_who_was_not_found_is_tried_again_when_load_comes_free(open_database: OpenDatabase) -> None:
    db = await open_database("matching")
    await hear(db, selected(), listed("E1", load_limit=1), accepted("R1"))
    await run_round(db)
    await hear(db, accepted("R2", ori="MO0480000"))
    assert [type(fact) for fact in await run_round(db)] == [MatchNotFound]
    await hear(db, agency_accepts("R1/m1"), partner_accepts("R1/m1"), delivered("R1/m1"))
    [fact] = await run_round(db)
    assert isinstance(fact, MatchProposed)
    assert fact.request_id == "R2"


async def test_load_is_what_is_active_and_nothing_else(open_database: OpenDatabase) -> None:
    db = await open_database("matching")
    await hear(
        db, selected(), listed("E1", load_limit=3), *(accepted(f"R{nth}", f"IL01600{nth:02}") for nth in range(6))
    )
    facts = await run_round(db)
    proposals = [fact for fact in facts if isinstance(fact, MatchProposed)]
    assert len(proposals) == 3
    assert await store.expert_load(db) == {("held",): 3, ("limit",): 3}
    assert await store.partner_load(db) == {("held",): 3, ("limit",): 100}
    await hear(db, withdrawn(proposals[0].request_id), delivered(proposals[1].match_id))
    assert await store.expert_load(db) == {("held",): 1, ("limit",): 3}
    assert await store.requests_by_step(db) == {("proposed",): 1, ("waiting",): 3, ("ended",): 2}
    again = [fact for fact in await run_round(db) if isinstance(fact, MatchProposed)]
    assert len(again) == 2


Count = tuple[Counter[str], Counter[str], dict[str, datetime]]
"""What experts and partners hold, and when each expert was last proposed."""


async def recounted(db: Connection) -> Count:
    """Counted from all matches anew."""
    held: Counter[str] = Counter()
    served: Counter[str] = Counter()
    proposed_at: dict[str, datetime] = {}
    for row in await db.fetch("SELECT partner_id, expert_ids, stage, proposed_at FROM match ORDER BY proposed_at"):
        for expert_id in row["expert_ids"]:
            held[expert_id] += row["stage"] != "ended"
            proposed_at[expert_id] = row["proposed_at"]
        served[row["partner_id"]] += row["stage"] != "ended"
    return held, served, proposed_at


async def seen(boards: store.Boards, db: Connection, now: datetime) -> Count:
    """As the round sees it that runs now, which has to be what is counted anew."""
    async with db.transaction():
        board = await boards.load(db, now)
        assert board is not None
        count = Counter(board.held), Counter(board.served), dict(board.proposed_at)
        assert count == await recounted(db)
        changes, _ = decide_round(board, now)
        await store.save(db, changes)
    return count


async def test_what_everybody_holds_is_counted_on_also_from_what_is_committed_late(
    open_database: OpenDatabase, database_urls: dict[str, str]
) -> None:
    """A worker that is slow to commit has written its match before rounds that have come and gone meanwhile."""
    db, other, boards = await open_database("matching"), await connect(database_urls["matching"]), store.Boards()
    await hear(db, *ROSTER, accepted("R1"), accepted("R2", "MO0480000"))
    assert (await seen(boards, db, NOW))[0].total() == 0
    slow = other.transaction()
    await slow.start()
    one = event(withdrawn("R1"))
    await store.save(other, decide(await store.load(other, [one]), one)[0])
    for nth, ori in enumerate(("WI0410000", "IL0160200", "IL0160300"), start=3):
        await hear(db, accepted(f"R{nth}", ori))
        held, served, _ = await seen(boards, db, NOW + timedelta(hours=nth))
        assert held.total() == served.total() == nth - 1, "the withdrawal is not committed"
    await slow.commit()
    await other.close()
    await hear(db, withdrawn("R2"))
    held, served, proposed_at = await seen(boards, db, NOW + timedelta(hours=6))
    assert held.total() == served.total() == 3
    assert set(proposed_at.values()) == {NOW + timedelta(hours=4), NOW + timedelta(hours=5)}


class Renumbered:
    """The same database on a server that numbers its transactions anew, as after a dump was restored."""

    def __init__(self, db: Connection) -> None:
        self._db = db

    async def fetch(self, query: str, *args: object) -> list[Any]:
        rows = [dict(row) for row in await self._db.fetch(query, *args)]
        return [row | {"finished": 3} if "finished" in row else row for row in rows]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


async def test_what_everybody_holds_is_counted_anew_where_transactions_are_numbered_anew(
    open_database: OpenDatabase,
) -> None:
    db, boards = await open_database("matching"), store.Boards()
    await hear(db, *ROSTER, accepted("R1"))
    await seen(boards, db, NOW)
    await hear(db, accepted("R2", "MO0480000"))
    await seen(boards, db, NOW)
    # Written under a number that the former server had passed.
    await db.execute("ALTER TABLE match DISABLE TRIGGER note_writer")
    await hear(db, withdrawn("R1"), accepted("R3", "WI0410000"))
    await db.execute("ALTER TABLE match ENABLE TRIGGER note_writer")
    held, _, _ = await seen(boards, cast(Connection, Renumbered(db)), NOW)
    assert held.total() == 1


async def test_an_expert_is_checked_again_for_all_that_is_active_and_no_more(open_database: OpenDatabase) -> None:
    db = await open_database("matching")
    await hear(db, selected(), listed("E1"), accepted("R1"), accepted("R2", "MO0480000"), accepted("R3", "WI0410000"))
    assert len(await run_round(db)) == 3
    await hear(db, delivered("R3/m1"))
    await run_round(db)
    await hear(db, declared("C1", "IL0160000", expert_id="E1"), declared("C2", "WI0410000", expert_id="E1"))
    [fact] = await run_round(db)
    assert isinstance(fact, MatchReleased)
    assert fact.match_id == "R1/m1"


async def test_a_roster_that_changed_for_another_worker_is_read_anew(
    open_database: OpenDatabase, database_urls: dict[str, str]
) -> None:
    db = await open_database("matching")
    await hear(db, selected(), listed("E1"))
    await run_round(db)
    await hear(db, accepted("R1"))
    await run_round(db)
    other = await connect(database_urls["matching"])
    await hear(other, retired("E1"), listed("E2"))
    await run_round(other)
    await other.close()
    await hear(db, accepted("R2"))
    proposals = [fact for fact in await run_round(db) if isinstance(fact, MatchProposed)]
    assert {one.expert_id for fact in proposals for one in fact.experts} == {"E2"}


async def test_a_conflict_that_is_declared_while_a_round_runs_is_checked_by_the_next(
    open_database: OpenDatabase, database_urls: dict[str, str]
) -> None:
    db = await open_database("matching")
    await hear(db, selected(), listed("E1"))
    await run_round(db)
    await hear(db, accepted("R1"))
    other = await connect(database_urls["matching"])
    async with db.transaction():
        board = await BOARDS[db].load(db, NOW)
        assert board is not None
        await hear(other, declared("C1", expert_id="E1"))
        changes, facts = decide_round(board, NOW)
        await store.save(db, changes)
    await other.close()
    assert [type(fact) for fact in facts] == [MatchProposed]
    assert [type(fact) for fact in await run_round(db)] == [MatchReleased]


async def test_a_pool_larger_than_a_round_is_matched_in_several_the_first_due_first(
    open_database: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOST_REQUESTS", 2)
    db = await open_database("matching")
    await hear(db, *(accepted(f"R{nth}", f"IL01600{nth:02}", NOW - timedelta(hours=nth)) for nth in range(5)))
    rounds = [await run_round(db) for _ in range(3)]
    assert [[fact.subject for fact in facts] for facts in rounds] == [["R4", "R3"], ["R2", "R1"], ["R0"]]
    await hear(db, selected(), listed("E1", load_limit=3))
    rounds = [await run_round(db) for _ in range(3)]
    proposals = [[fact.subject for fact in facts if isinstance(fact, MatchProposed)] for facts in rounds]
    assert proposals == [["R4", "R3"], ["R2"], []]


async def test_a_pool_larger_than_a_round_comes_to_an_end_also_where_every_request_has_freed_somebody(
    open_database: OpenDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOST_REQUESTS", 2)
    db = await open_database("matching")
    requests = [f"R{nth}" for nth in range(6)]
    await hear(db, selected(), listed("E1", load_limit=9), *(accepted(one, f"IL016000{one[1]}") for one in requests))
    for now in (NOW, NOW + timedelta(days=1)):
        rounds = 0
        while await has_news(db, now):
            await run_round(db, now)
            rounds += 1
            assert rounds < 3 * len(requests)
        if now is NOW:
            await hear(db, *(agency_declines(f"{one}/m1") for one in requests))
    assert await store.requests_by_step(db) == {("waiting",): 6}
    assert {row["tried_on"] for row in await db.fetch("SELECT tried_on FROM pool")} == {TODAY + timedelta(days=1)}


async def test_a_proposal_nobody_answers_is_looked_at_once_a_day_and_released_when_its_window_has_passed(
    open_database: OpenDatabase,
) -> None:
    db = await open_database("matching")
    await hear(db, selected(), listed("E1"), accepted("R1", window=DateWindow(TODAY, TODAY + timedelta(days=1))))
    assert [type(fact) for fact in await run_round(db)] == [MatchProposed]
    tomorrow, day_after = NOW + timedelta(days=1), NOW + timedelta(days=2)
    assert await run_round(db, tomorrow) == []
    assert not await has_news(db, tomorrow)
    [released] = await run_round(db, day_after)
    assert isinstance(released, MatchReleased)
    assert await store.expert_load(db) == {("held",): 0, ("limit",): 5}


def meanwhile(db: Connection, nth: int, happen: Callable[[], Awaitable[None]]) -> Any:
    """The connection, on which something happens right before the nth statement."""

    class Interrupted:
        statements = 0

        def __getattr__(self, name: str) -> Any:
            statement = getattr(db, name)
            if name == "transaction":
                return statement

            async def run(*args: object) -> Any:
                self.statements += 1
                if self.statements == nth:
                    await happen()
                return await statement(*args)

            return run

    return Interrupted()


A_BATCH_OF_REQUESTS = (amended("R1"), amended("R2"))
A_BATCH_OF_EVERYTHING = (*A_BATCH_OF_REQUESTS, unavailable("E1"), selected("IACP", 7))


@pytest.mark.parametrize("batch", [A_BATCH_OF_REQUESTS, A_BATCH_OF_EVERYTHING], ids=["requests", "everything"])
@pytest.mark.parametrize("given", [(), (changed("E1", load_limit=1),)], ids=["freed", "freed_and_changed"])
@pytest.mark.parametrize("round_is_first", [True, False])
async def test_a_round_and_a_batch_that_meet_at_any_statement_let_each_other_end(
    open_database: OpenDatabase,
    database_urls: dict[str, str],
    round_is_first: bool,
    given: tuple[Body, ...],
    batch: tuple[Body, ...],
) -> None:
    """R2 has freed a place of its expert, so R1 is to be woken; where the expert has changed, R3 is to be checked."""
    db = await open_database("matching")
    other, observer = await connect(database_urls["matching"]), await connect(database_urls["matching"])
    of_other = await other.fetchval("SELECT pg_backend_pid()")

    async def until_it_waits_or_has_ended(task: asyncio.Task[Any]) -> None:
        while not await observer.fetchval("SELECT pg_blocking_pids($1) <> '{}'", of_other):
            done, _ = await asyncio.wait((task,), timeout=0.001)
            if done:
                return

    for nth in range(2, 20):
        await empty(db)
        earlier = NOW - timedelta(hours=1)
        await hear(db, selected(), listed("E1", load_limit=2), accepted("R2", since=earlier))
        await hear(db, accepted("R1", ori="MO0480000"), accepted("R3", ori="WI0410000", since=earlier))
        assert {fact.TYPE for fact in await run_round(db)} == {"match.proposed.v1", "match.not_found.v1"}
        await hear(db, not_plannable("R2/m1"), *given)
        tasks: list[asyncio.Task[Any]] = []

        async def meet(tasks: list[asyncio.Task[Any]] = tasks) -> None:
            tasks.append(asyncio.create_task(hear(other, *batch) if round_is_first else run_round(other)))
            await until_it_waits_or_has_ended(tasks[0])

        interrupted = meanwhile(db, nth, meet)
        await (run_round(interrupted) if round_is_first else hear(interrupted, *batch))
        await asyncio.gather(*tasks)
    for connection in (other, observer):
        await connection.close()


async def test_what_has_changed_is_found_by_its_index_before_the_table_was_ever_analyzed(
    open_database: OpenDatabase,
) -> None:
    db = await open_database("matching")
    # In place of the table itself, which autovacuum may have analyzed: a temporary one is never.
    await db.execute("CREATE TEMP TABLE pool (LIKE pool INCLUDING ALL)")
    await hear(db, *(accepted(f"R{nth}") for nth in range(500)))

    async def plan(statement: str, *given: object) -> str:
        return "\n".join(row[0] for row in await db.fetch(f"EXPLAIN {statement}", *given))

    assert await db.fetchval("SELECT count(*) FROM pool WHERE changed") == 500
    due = await plan(store._DUE, store.MOST_REQUESTS)
    news = await plan(store._NEWS, TODAY)
    assert "Index Scan" in due
    assert not any(other in due for other in ("Sort", "Bitmap", "Seq Scan"))
    assert "Seq Scan on pool" not in news
