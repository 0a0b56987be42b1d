"""Scheduling on real PostgreSQL: nobody is booked twice, nothing is lost between workers, a batch is few statements."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import asyncpg
import pytest

from schemas import requests
from schemas.engagements import EngagementBody, Plan
from schemas.vocabulary import ExpertId, RequestId
from services.runtime.database import Connection, Contention, Database, Row
from services.runtime.service import Event
from services.scheduling import store
from services.scheduling.app import service
from services.scheduling.decisions.engagement import Engagement
from services.scheduling.store import Knowledge
from tests.conftest import OpenDatabase
from tests.scheduling.scheduling_world import (
    ANNA,
    NOW,
    ONE,
    SPRING,
    WINTER,
    Body,
    World,
    accepted,
    approved,
    cleared,
    confirmed,
    days,
    evaluated,
    event,
    listed,
    off,
    other_dates,
    released,
    reported,
    terms,
    types,
    withdrawn,
)

BORIS = ExpertId("E2")
TWO = RequestId("R2")
DECIDER = service().decider


def decide(known: Knowledge, events: Iterable[Event[Any]]) -> tuple[Knowledge, list[EngagementBody]]:
    changes, facts = Knowledge(), list[EngagementBody]()
    for one in events:
        changed, said = DECIDER.decide(known, one)
        known.absorb(changed)
        changes.absorb(changed)
        facts += [fact for fact in said if isinstance(fact, EngagementBody)]
    return changes, facts


async def hears(db: Connection, *bodies: Body, at: datetime = NOW) -> list[EngagementBody]:
    """One batch in one transaction."""
    events = [event(body, at) for body in bodies]
    async with db.transaction():
        changes, facts = decide(await store.load(db, events), events)
        await store.save(db, changes)
    return facts


async def bookings(db: Database) -> set[tuple[str, str, datetime, datetime]]:
    rows = await db.fetch("SELECT expert_id, session_id, lower(occupies) AS a, upper(occupies) AS b FROM booking")
    return {(row["expert_id"], row["session_id"], row["a"], row["b"]) for row in rows}


async def steps(db: Database) -> dict[str, str]:
    return {row["request_id"]: row["step"] for row in await db.fetch("SELECT request_id, step FROM engagement")}


async def book(db: Database, session_id: str, expert_id: str, start: datetime, hours: int) -> None:
    await db.execute("INSERT INTO expert (expert_id, version) VALUES ($1, 0) ON CONFLICT DO NOTHING", expert_id)
    await db.execute(
        "INSERT INTO booking (expert_id, occupies, request_id, session_id) VALUES ($1, tstzrange($2, $3), 'R1', $4)",
        expert_id,
        start,
        start + timedelta(hours=hours),
        session_id,
    )


async def test_the_database_itself_refuses_to_book_an_expert_twice(open_database: OpenDatabase) -> None:
    db = await open_database("scheduling")
    noon = datetime(2026, 12, 1, 12, tzinfo=UTC)
    await book(db, "R1/s1.1", "E1", noon, 4)
    await book(db, "R1/s1.2", "E1", noon + timedelta(hours=4), 1)
    await book(db, "R1/s1.3", "E2", noon, 4)
    with pytest.raises(asyncpg.ExclusionViolationError):
        await book(db, "R1/s1.4", "E1", noon + timedelta(hours=3), 4)


async def test_what_is_saved_is_what_is_loaded_and_bookings_are_the_sessions_ahead(open_database: OpenDatabase) -> None:
    db = await open_database("scheduling")
    heard = (
        accepted(),
        listed(unavailable=[days("2026-12-24", "2027-01-02")]),
        confirmed(experts=[ANNA, BORIS]),
        listed(BORIS),
        other_dates(1, SPRING),
        approved(2),
        cleared(2),
        reported("R1/s2.1"),
        approved(7),
        other_dates(5, None, days("2027-05-01", "2027-05-02")),
    )
    world = World()
    for body in heard:
        world.hears(body)
        await hears(db, body)
    loaded = await store.load(db, [event(evaluated()), event(off())])
    stored = loaded.engagements[ONE]
    expected = world.engagement()
    assert stored.row_version > 1
    assert without_version(stored) == without_version(expected)
    assert loaded.experts[ANNA].profile == world.known.experts[ANNA].profile
    assert await bookings(db) == {
        (expert_id, session.session_id, session.occupies.start, session.occupies.end)
        for session in expected.outstanding
        for expert_id in session.expert_ids
    }
    assert {window for _, window in loaded.booked[ANNA]} == set(world.booked())


def without_version(engagement: Engagement) -> dict[str, object]:
    return {name: getattr(engagement, name) for name in Engagement.__dataclass_fields__ if name != "row_version"}


STREAMS: tuple[Sequence[Body], ...] = (
    (accepted(), other_dates(1, SPRING), approved(2), cleared(2), reported("R1/s2.1")),
    (accepted(TWO), withdrawn(TWO)),
    (confirmed(1, experts=[ANNA, BORIS]),),
    (confirmed(1, TWO), released(1, TWO)),
    (listed(),),
    (listed(BORIS),),
)


@pytest.mark.parametrize("seed", range(12))
async def test_any_interleaving_in_batches_of_any_size_ends_as_event_by_event(
    open_database: OpenDatabase, seed: int
) -> None:
    db = await open_database("scheduling")
    random = Random(seed)
    waiting = [list(stream) for stream in STREAMS]
    order: list[Body] = []
    while any(waiting):
        order.append(random.choice([stream for stream in waiting if stream]).pop(0))
    world = World()
    world.hears(*order)
    said: list[EngagementBody] = []
    while order:
        size = random.randint(1, 5)
        said += await hears(db, *order[:size])
        order = order[size:]
    assert said == world.facts
    assert await steps(db) == {"R1": "confirmed", "R2": "withdrawn"}
    assert await bookings(db) == {
        (expert_id, session.session_id, session.occupies.start, session.occupies.end)
        for session in world.engagement().outstanding
        for expert_id in session.expert_ids
    }


@pytest.mark.parametrize(
    "planning",
    [
        requests.RequestAmended(request_id=ONE, terms=terms(SPRING)),
        requests.RequestResumed(request_id=ONE, reason="inquiry over"),
        requests.RequestReopened(request_id=ONE, terms=terms(SPRING), reason="again"),
        other_dates(1, SPRING),
        off(SPRING, WINTER),
    ],
    ids=lambda body: body.TYPE,
)
@pytest.mark.parametrize("before", [(), (withdrawn(),), (requests.RequestHeld(request_id=ONE, reason="an inquiry"),)])
async def test_whatever_may_lead_to_a_plan_finds_the_experts_it_needs(
    open_database: OpenDatabase, planning: Body, before: Sequence[Body]
) -> None:
    db = await open_database("scheduling")
    ahead = (accepted(), listed(), listed(BORIS), confirmed(experts=[ANNA, BORIS]), *before)
    world = World()
    world.hears(*ahead)
    await hears(db, *ahead)
    assert await hears(db, planning) == world.hears(planning)


@pytest.mark.parametrize("approvals", [(approved(), cleared()), (cleared(), approved())])
async def test_an_approval_too_late_for_its_dates_finds_the_experts_it_needs(
    open_database: OpenDatabase, approvals: tuple[Body, Body]
) -> None:
    db = await open_database("scheduling")
    first, second = approvals
    ahead = (accepted(), listed(), listed(BORIS), confirmed(experts=[ANNA, BORIS]), first)
    world = World()
    world.hears(*ahead)
    await hears(db, *ahead)
    late = world.plans()[0].sessions[1].takes_place.end
    said = await hears(db, second, at=late)
    assert said == world.hears(second, at=late)
    assert types(said) == ["engagement.replanned"]


async def test_a_session_that_took_place_stays_booked_until_it_is_reported_or_its_match_is_over(
    open_database: OpenDatabase,
) -> None:
    db = await open_database("scheduling")

    async def booked() -> list[str]:
        return sorted(session_id for _, session_id, _, _ in await bookings(db))

    world = World()
    world.hears(accepted(), listed(), confirmed(), approved(), cleared())
    await hears(db, accepted(), listed(), confirmed(), approved(), cleared())
    over = world.plans()[0].sessions[1].takes_place.end
    await hears(db, other_dates(1), at=over)
    assert await booked() == ["R1/s1.1", "R1/s1.2", "R1/s2.3"]
    assert types(await hears(db, accepted(TWO), confirmed(1, TWO), at=over)) == ["engagement.planned"]
    await hears(db, reported("R1/s1.2"), at=over)
    assert await booked() == ["R1/s1.1", "R1/s2.3", "R2/s1.1", "R2/s1.2", "R2/s1.3"]
    assert types(await hears(db, released(), at=over)) == ["session.cancelled"]
    assert await booked() == ["R2/s1.1", "R2/s1.2", "R2/s1.3"]
    assert await hears(db, reported("R1/s1.1"), at=over) == []


async def test_a_plan_stored_before_it_was_counted_what_is_over_still_loads_and_goes_on(
    open_database: OpenDatabase,
) -> None:
    db = await open_database("scheduling")
    world = World()
    world.hears(accepted(), listed(), confirmed(), approved(), cleared())
    await hears(db, accepted(), listed(), confirmed(), approved(), cleared())
    stored = await db.fetchval(
        "UPDATE engagement SET state = state #- '{plan,over}' RETURNING state -> 'plan' ? 'over'"
    )
    assert stored is False
    said = await hears(db, other_dates(1), at=world.plans()[0].sessions[0].takes_place.end)
    assert [session.session_id for fact in said if isinstance(fact, Plan) for session in fact.sessions] == [
        "R1/s1.1",
        "R1/s2.2",
        "R1/s2.3",
    ]


@asynccontextmanager
async def another_worker(db: Connection, events: Sequence[Event[Any]]) -> AsyncGenerator[None]:
    """Loads and decides in a transaction that is saved and committed when the body is done."""
    async with db.transaction():
        changes, _ = decide(await store.load(db, events), events)
        await store.save(db, changes)
        yield


async def blocked_until_committed(
    first: Connection, second: Connection, watching: Connection, ahead: Body, behind: Body
) -> list[EngagementBody]:
    """The facts of `behind` when its worker has to wait for the worker of `ahead`."""
    pid = await second.fetchval("SELECT pg_backend_pid()")
    async with another_worker(first, [event(ahead)]):
        waiting = asyncio.create_task(hears(second, behind))
        async with asyncio.timeout(20):
            while not await watching.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", pid):
                assert not waiting.done(), "the second worker did not wait for the first"
    return await waiting


async def three_connections(open_database: OpenDatabase) -> tuple[Connection, Connection, Connection]:
    return (
        await open_database("scheduling"),
        await open_database("scheduling"),
        await open_database("scheduling"),
    )


async def test_a_listing_that_meets_a_match_in_another_worker_is_not_missed(open_database: OpenDatabase) -> None:
    first, second, watching = await three_connections(open_database)
    await hears(first, accepted())
    said = await blocked_until_committed(first, second, watching, confirmed(), listed())
    assert types(said) == ["engagement.planned"]


async def test_a_match_that_meets_a_listing_in_another_worker_is_planned(open_database: OpenDatabase) -> None:
    first, second, watching = await three_connections(open_database)
    await hears(first, accepted())
    said = await blocked_until_committed(first, second, watching, listed(), confirmed())
    assert types(said) == ["engagement.planned"]


async def test_two_workers_never_plan_the_same_expert_at_once(open_database: OpenDatabase) -> None:
    first, second, watching = await three_connections(open_database)
    await hears(first, accepted(), accepted(TWO), listed())
    said = await blocked_until_committed(first, second, watching, confirmed(), confirmed(1, TWO))
    assert types(said) == ["engagement.planned"]
    assert len(await bookings(watching)) == 6


async def test_a_request_first_heard_of_by_two_workers_is_contended_and_goes_through_when_tried_again(
    open_database: OpenDatabase,
) -> None:
    first, second, watching = await three_connections(open_database)
    await hears(first, listed())
    with pytest.raises(Contention):
        await blocked_until_committed(first, second, watching, accepted(), confirmed())
    assert types(await hears(second, confirmed())) == ["engagement.planned"]


async def test_a_batch_that_read_an_engagement_which_changed_since_is_contended(open_database: OpenDatabase) -> None:
    db = await open_database("scheduling")
    await hears(db, accepted())
    stale = await store.load(db, [event(withdrawn())])
    await hears(db, approved())
    changes, _ = decide(stale, [event(withdrawn())])
    with pytest.raises(Contention):
        await store.save(db, changes)


async def test_an_expert_changed_by_another_worker_is_contended(open_database: OpenDatabase) -> None:
    db = await open_database("scheduling")
    await hears(db, listed())
    stale = await store.load(db, [event(off())])
    await hears(db, off(SPRING))
    changes, _ = decide(stale, [event(off())])
    with pytest.raises(Contention):
        await store.save(db, changes)


class Counted:
    """A real connection that counts the statements sent over it."""

    def __init__(self, db: Connection) -> None:
        self.db = db
        self.statements = 0

    async def execute(self, query: str, *args: object) -> str:
        self.statements += 1
        return await self.db.execute(query, *args)

    async def fetch(self, query: str, *args: object) -> Sequence[Row]:
        self.statements += 1
        return await self.db.fetch(query, *args)

    async def fetchrow(self, query: str, *args: object) -> Row | None:
        self.statements += 1
        return await self.db.fetchrow(query, *args)

    async def fetchval(self, query: str, *args: object) -> Any:
        self.statements += 1
        return await self.db.fetchval(query, *args)

    async def copy_records_to_table(
        self,
        table_name: str,
        *,
        records: Iterable[Sequence[object]],
        columns: Sequence[str],
        schema_name: str | None = None,
    ) -> str:
        self.statements += 1
        return await self.db.copy_records_to_table(
            table_name, records=records, columns=columns, schema_name=schema_name
        )


async def test_a_batch_takes_as_many_statements_for_two_hundred_requests_as_for_one(
    open_database: OpenDatabase,
) -> None:
    db = await open_database("scheduling")

    async def statements(first: int, count: int) -> int:
        ids = [RequestId(f"R{nth}") for nth in range(first, first + count)]
        experts = [ExpertId(f"E{nth}") for nth in range(first, first + count)]
        events = [event(accepted(one)) for one in ids]
        events += [event(confirmed(1, one, [expert])) for one, expert in zip(ids, experts, strict=True)]
        events += [event(listed(expert)) for expert in experts]
        counted = Counted(db)
        async with db.transaction():
            changes, facts = decide(await store.load(counted, events), events)
            await store.save(counted, changes)
        assert types(facts) == ["engagement.planned"] * count
        return counted.statements

    assert await statements(0, 1) == await statements(1, 200) <= 10


async def test_a_batch_that_concerns_nobody_sends_no_statement(open_database: OpenDatabase) -> None:
    counted = Counted(await open_database("scheduling"))
    assert await store.load(counted, []) == Knowledge()
    assert counted.statements == 0


async def test_the_follow_up_is_loaded_when_due_and_not_again(open_database: OpenDatabase) -> None:
    db = await open_database("scheduling")
    await hears(db, accepted(), listed(), confirmed(), approved(), cleared())
    await hears(db, *(reported(f"R1/s1.{nth}") for nth in (1, 2, 3)), evaluated())
    due = NOW + timedelta(days=30)
    assert await store.load_due(db, due - timedelta(seconds=1)) is None
    known = await store.load_due(db, due)
    assert known is not None
    changes, facts = service().rounds[0].decide(known, due)
    assert [fact.TYPE for fact in facts] == ["follow_up.due.v1"]
    await store.save(db, changes)
    assert await store.load_due(db, due) is None


async def test_gauges_count_engagements_by_step_and_bookings_ahead(open_database: OpenDatabase) -> None:
    db = await open_database("scheduling")
    await hears(db, accepted(), listed(), confirmed(), accepted(TWO), accepted(RequestId("R3")))
    now = datetime.now(UTC)
    await book(db, "R9/s1.1", "E9", now - timedelta(days=2), 24)
    await book(db, "R9/s1.2", "E9", now + timedelta(days=2), 24)
    ahead = {row[1] for row in await bookings(db) if row[3] > now}
    read = {gauge.name: await gauge.read(db) for gauge in service().gauges}
    assert read["fieldbridge_scheduling_engagements"] == {("planned",): 1, ("waiting",): 2}
    assert read["fieldbridge_scheduling_bookings"] == {(): len(ahead)}
    assert "R9/s1.1" not in ahead
    assert "R9/s1.2" in ahead
