"""Intake on real PostgreSQL: what is loaded is what was saved, nothing is doubled, and few statements are enough."""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest

from schemas import submissions as said
from schemas.body import Body
from schemas.envelope import Envelope
from schemas.vocabulary import AgencyType, Ori, Place
from services.intake import app, store
from services.intake.decisions.registry import Agency
from services.intake.decisions.request import Step
from services.intake.store import ImportCounts, import_agencies
from services.runtime.database import Connection, Contention, Database, Row
from services.runtime.service import Event, FactBody
from tests.conftest import OpenDatabase
from tests.intake.intake_world import (
    NOW,
    ORI,
    REQUEST,
    World,
    agency,
    closed,
    contact,
    executive,
    kinds,
    office,
    partner,
    profile,
    say,
    submission,
    terms,
)


def events(bodies: Sequence[Body], at: datetime = NOW) -> list[Event[Any]]:
    return [
        Event(body.TOPIC, Envelope(f"e{nth}", "/tests", body.TYPE, body.subject, at), body, at)
        for nth, body in enumerate(bodies)
    ]


async def handle(db: Database, *bodies: Body) -> list[FactBody]:
    """Handles bodies as one batch, as the runtime does inside its transaction; returns the facts without receipts."""
    decider = app.service().decider
    batch = events(bodies)
    known = await decider.load(db, batch)
    changes = store.Known()
    told: list[FactBody] = []
    for event in batch:
        changed, facts = decider.decide(known, event)
        known.absorb(changed)
        changes.absorb(changed)
        told.extend(fact for fact in facts if not fact.TYPE.startswith("submission."))
    await decider.save(db, changes)
    return told


async def opened(open_database: OpenDatabase, *agencies: Agency) -> Connection:
    db = await open_database("intake")
    await import_agencies(db, agencies or (agency(),))
    return db


def life() -> list[Body]:
    """A request and a roster with something of everything in them."""
    return [
        say(said.ExpertListed, partner(), expert_id="X-1", profile=profile(vendor_topics=["training"])),
        say(said.PartnerApplied, partner(), partner_id="IACP", name="Chiefs", acronym="IACP", capacity=5),
        submission(executive_support=None),
        say(said.ApplicationRuled, office(), partner_id="IACP", selected=True, capacity=4),
        say(
            said.ConflictDisclosed, partner(), conflict_id="C-1", expert_id="X-1", ori=ORI, kind="family", detail="kin"
        ),
        say(said.InformationSupplied, contact(), executive_support={"signed_on": "2026-02-02", "reference": "L-2"}),
        say(said.ConflictDisclosed, partner(), conflict_id="C-2", partner_id="IACP", ori=ORI, kind="bargaining"),
        say(said.ReopeningAsked, executive(), reason="once more"),
        say(said.ConflictWaived, executive(), conflict_id="C-2"),
        say(said.HoldAsked, office(), reason="wait"),
        say(
            said.AvailabilityChanged,
            partner(),
            expert_id="X-1",
            unavailable=[{"first": "2026-05-01", "last": "2026-05-02"}],
        ),
        closed(),
    ]


async def test_one_batch_or_one_event_at_a_time_gives_the_same_facts_and_the_same_tables(
    open_database: OpenDatabase,
) -> None:
    db = await opened(open_database)
    together = await handle(db, *life())
    tables = "request", "open_topic", "partner", "expert", "conflict"
    at_once = [await contents(db, table) for table in tables]
    db = await opened(open_database)
    singly = [fact for body in life() for fact in await handle(db, body)]
    assert sorted(fact.model_dump_json() for fact in singly) == sorted(fact.model_dump_json() for fact in together)
    assert [await contents(db, table) for table in tables] == at_once
    assert all(at_once)


async def contents(db: Database, table: str) -> list[dict[str, object]]:
    rows = await db.fetch(f"SELECT * FROM {table} ORDER BY 1, 2")
    return [{name: value for name, value in row.items() if name != "version"} for row in rows]


async def test_what_is_loaded_is_what_was_decided(open_database: OpenDatabase) -> None:
    db = await opened(open_database, agency(agency_type=AgencyType.UNKNOWN))
    world = World(agency(agency_type=AgencyType.UNKNOWN))
    bodies = [body for body in life() if not isinstance(body, said.ReopeningAsked | said.HoldAsked)]
    for body in bodies:
        world.hear(body)
    await handle(db, *bodies)
    known = await app.service().decider.load(db, events(bodies))
    for part in ("requests", "partners", "experts", "conflicts"):
        loaded, decided = getattr(known, part), getattr(world.known, part)
        assert {key: unversioned(state) for key, state in loaded.items()} == {
            key: unversioned(state) for key, state in decided.items()
        }
        assert loaded
    assert known.agencies == world.known.agencies


def unversioned(state: Any) -> dict[str, object]:
    return {name: getattr(state, name) for name in state.__slots__ if name != "version"}


async def test_contacts_and_narrative_are_gone_from_the_tables_once_intake_has_decided(
    open_database: OpenDatabase,
) -> None:
    db = await opened(open_database)
    contacts = {"executive": {"office": "Chief", "email": "chief@example.gov"}, "problem": "a secret worry"}
    await handle(db, submission(sensitive=contacts))
    assert "a secret worry" in str(await contents(db, "request"))
    assert "a secret worry" not in await db.fetchval("SELECT state::text FROM request")
    await handle(db, say(said.InformationSupplied, contact(), sensitive={"point_of_contact": {"office": "Captain"}}))
    stored = str(await contents(db, "request"))
    assert "accepted" in stored
    for secret in ("a secret worry", "chief@example.gov", "Captain"):
        assert secret not in stored


class Counting:
    """Passes statements on to the database and counts them."""

    def __init__(self, db: Database) -> None:
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


def crowd(size: int) -> list[Body]:
    """Requests of many agencies, with all their answers, and experts listed."""
    bodies: list[Body] = []
    for nth in range(size):
        ori, request = f"OH{nth:07}", f"R-{nth}"
        bodies.append(submission(ori=ori, request_id=request))
        bodies.append(say(said.ProposalAccepted, contact(ori), request_id=request, match_id="m1"))
        bodies.append(say(said.OfferAccepted, partner(), request_id=request, match_id="m1"))
        bodies.append(say(said.ExpertListed, partner(), expert_id=f"X-{nth}", profile=profile()))
    return bodies


async def test_the_number_of_statements_does_not_grow_with_the_batch(open_database: OpenDatabase) -> None:
    counts: list[int] = []
    for size in (2, 200):
        db = await opened(open_database, *(agency(Ori(f"OH{nth:07}")) for nth in range(size)))
        counting = Counting(db)
        await handle(counting, *crowd(size))
        assert await db.fetchval("SELECT count(*) FROM request WHERE step = 'accepted'") == size
        counts.append(counting.statements)
    assert counts[0] == counts[1]


async def test_an_answer_to_a_proposal_takes_two_statements_and_writes_nothing(open_database: OpenDatabase) -> None:
    db = await opened(open_database)
    await handle(db, submission())
    counting = Counting(db)
    assert await handle(counting, say(said.ProposalAccepted, contact(), match_id="m1"))
    assert counting.statements <= 2


async def test_while_one_worker_weighs_a_request_of_an_agency_another_has_to_wait(open_database: OpenDatabase) -> None:
    db = await opened(open_database)
    other = await open_database("intake")
    await import_agencies(db, [agency()])
    first, second = submission(), submission(request_id="R-2")
    await other.execute("SET lock_timeout = '20ms'")
    async with db.transaction():
        await app.service().decider.load(db, events([first]))
        with pytest.raises(asyncpg.LockNotAvailableError):
            await app.service().decider.load(other, events([second]))
        assert kinds(await handle(db, first)) == ["request.accepted.v1"]
    assert kinds(await handle(other, second)) == ["request.declined.v1"]


async def test_an_agency_has_at_most_one_open_request_on_a_topic_as_the_databases_own_fact(
    open_database: OpenDatabase,
) -> None:
    db = await opened(open_database)
    await handle(db, submission())
    await handle(db, submission(request_id="R-2", terms=terms(topics=["training"])))
    with pytest.raises(asyncpg.UniqueViolationError):
        await db.execute("UPDATE open_topic SET topic = 'active-shooter' WHERE request_id = 'R-2'")


async def test_a_topic_is_free_again_in_the_same_batch_in_which_its_request_is_withdrawn(
    open_database: OpenDatabase,
) -> None:
    db = await opened(open_database)
    await handle(db, submission())
    facts = await handle(db, say(said.WithdrawalAsked, contact()), submission(request_id="R-2"))
    assert kinds(facts) == ["request.withdrawn.v1", "request.accepted.v1"]
    assert await contents(db, "open_topic") == [{"ori": ORI, "topic": "active-shooter", "request_id": "R-2"}]


async def test_a_row_that_changed_since_it_was_read_is_not_overwritten(open_database: OpenDatabase) -> None:
    db = await opened(open_database)
    decider = app.service().decider
    batches = [
        events([body])
        for body in (
            submission(),
            say(said.PartnerApplied, partner(), partner_id="IACP", name="Chiefs", acronym="IACP", capacity=5),
            say(said.ExpertListed, partner(), expert_id="X-1", profile=profile()),
            say(said.ConflictDisclosed, office(), conflict_id="C-1", partner_id="FOP", ori=ORI, kind="family"),
        )
    ]
    for batch in batches:
        stale = await decider.load(db, batch)
        changes, _ = decider.decide(stale, batch[0])
        async with db.transaction():
            await decider.save(db, changes)
        with pytest.raises(Contention):
            async with db.transaction():
                await decider.save(db, changes)


async def test_two_workers_that_hear_of_a_partner_for_the_first_time_at_once_lose_no_listing(
    open_database: OpenDatabase,
) -> None:
    db = await opened(open_database)
    listing = say(said.ExpertListed, partner(), expert_id="X-1", profile=profile())
    applied = say(said.PartnerApplied, partner(), partner_id="IACP", name="Chiefs", acronym="IACP", capacity=5)
    decider = app.service().decider
    read_by_one = await decider.load(db, events([listing]))
    await handle(db, applied)
    await handle(db, say(said.ApplicationRuled, office(), partner_id="IACP", selected=True))
    changes, facts = decider.decide(read_by_one, events([listing])[0])
    assert kinds(facts) == ["submission.taken.v1"]
    with pytest.raises(Contention):
        async with db.transaction():
            await decider.save(db, changes)
    assert kinds(await handle(db, listing)) == ["expert.listed.v1"]


class Interrupted(Counting):
    """Lets something happen right before the nth statement."""

    def __init__(self, db: Database, nth: int, happen: Callable[[], Awaitable[object]]) -> None:
        super().__init__(db)
        self.nth = nth
        self.happen = happen

    async def fetch(self, query: str, *args: object) -> Sequence[Row]:
        if self.statements + 1 == self.nth:
            await self.happen()
        return await super().fetch(query, *args)


@pytest.mark.parametrize("nth", [1, 2])
async def test_a_ruling_on_a_request_that_is_stored_at_that_moment_finds_all_of_it_or_is_tried_again(
    open_database: OpenDatabase, nth: int
) -> None:
    db = await opened(open_database, agency(agency_type=AgencyType.UNKNOWN))
    other = await open_database("intake")
    await import_agencies(db, [agency(agency_type=AgencyType.UNKNOWN)])
    ruled = say(said.RequestRuled, office(), ruling="accept", reason="a campus police")

    async def submit() -> None:
        async with other.transaction():
            await handle(other, submission())

    try:
        facts = await handle(Interrupted(db, nth, submit), ruled)
    except Contention:
        facts = await handle(db, ruled)
    assert facts == [] or kinds(facts) == ["request.accepted.v1"]
    assert await contents(db, "request") != [], "the request was stored meanwhile"


async def test_an_event_about_a_declined_request_of_an_unknown_agency_is_answered(open_database: OpenDatabase) -> None:
    db = await opened(open_database)
    unknown = "ZZ0000000"
    assert kinds(await handle(db, submission(ori=unknown))) == ["request.declined.v1"]
    assert await handle(db, say(said.InformationSupplied, contact(unknown))) == []


async def test_participants_and_agencies_of_conflicts_are_looked_up_in_the_registry(
    open_database: OpenDatabase,
) -> None:
    other = Ori("OH0250200")
    db = await opened(open_database, agency(), agency(other))
    shared = terms(topics=["shared-services"])
    assert kinds(await handle(db, submission(terms=shared))) == ["request.information_requested.v1"]
    told = await handle(db, say(said.InformationSupplied, contact(), participating=[other]))
    assert kinds(told) == ["request.accepted.v1"]
    for ori, published in ((other, ["conflict.declared.v1"]), ("ZZ0000000", [])):
        about = {"conflict_id": f"C-{ori}", "expert_id": "X-1", "ori": ori, "kind": "family"}
        assert kinds(await handle(db, say(said.ConflictDisclosed, office(), **about))) == published


async def test_a_joint_request_may_be_amended_to_shared_services(open_database: OpenDatabase) -> None:
    other = Ori("OH0250200")
    db = await opened(open_database, agency(), agency(other))
    await handle(db, submission(participating=[other]))
    amendment = say(said.AmendmentSubmitted, contact(), changes={"topics": ["shared-services"]})
    assert kinds(await handle(db, amendment)) == ["request.amended.v1"]


# The ruling clock


async def test_the_ruling_clock_warns_and_is_breached_once_each(open_database: OpenDatabase) -> None:
    db = await opened(open_database, agency(agency_type=AgencyType.UNKNOWN))
    await handle(db, submission())
    (round_,) = app.service().rounds
    told: list[str] = []
    for hours in range(0, 24 * 8, 3):
        now = NOW + timedelta(hours=hours)
        known = await round_.load(db, now)
        if known is not None:
            changes, facts = round_.decide(known, now)
            await round_.save(db, changes)
            told.extend(kinds(facts))
    assert told == ["clock.warned.v1", "clock.breached.v1"]
    assert await round_.load(db, NOW + timedelta(days=100)) is None


async def test_no_clock_rings_for_a_request_that_was_ruled_on(open_database: OpenDatabase) -> None:
    db = await opened(open_database, agency(agency_type=AgencyType.UNKNOWN))
    await handle(db, submission(), say(said.RequestRuled, office(), ruling="accept", reason="a campus police"))
    (round_,) = app.service().rounds
    assert await round_.load(db, NOW + timedelta(days=100)) is None


# The registry


async def test_an_import_adds_changes_and_leaves_alone(open_database: OpenDatabase) -> None:
    db = await open_database("intake")
    first, second, third = (agency(Ori(f"OH000000{nth}")) for nth in range(3))
    assert await import_agencies(db, [first, second]) == ImportCounts(2, 0, 0)
    assert await import_agencies(db, [first, second]) == ImportCounts(0, 0, 2)
    moved = Agency(
        second.ori,
        second.name,
        second.agency_type,
        second.state,
        "Franklin",
        Place(41, -82),
        second.time_zone,
        None,
        second.sworn_band,
        active=False,
    )
    assert await import_agencies(db, [first, moved, third, third]) == ImportCounts(1, 1, 1)
    known = await store.load(db, store.Wanted(agencies={first.ori, moved.ori, third.ori}))
    assert {standing.agency for standing in known.agencies.values()} == {first, moved, third}


async def test_a_participating_agency_is_looked_up_in_the_registry(open_database: OpenDatabase) -> None:
    other = Ori("OH0250200")
    db = await opened(open_database, agency(), agency(other))
    facts = await handle(db, submission(participating=[other]))
    assert kinds(facts) == ["request.accepted.v1"]
    waiting = await handle(
        db, submission(request_id="R-2", terms=terms(topics=["training"]), participating=["ZZ0000000"])
    )
    assert kinds(waiting) == ["request.information_requested.v1"]
    await import_agencies(db, [agency(Ori("ZZ0000000"))])
    assert kinds(await handle(db, say(said.InformationSupplied, contact(), request_id="R-2"))) == [
        "request.accepted.v1"
    ]


async def test_the_fourteen_topics_of_the_programme_are_offered(open_database: OpenDatabase) -> None:
    db = await opened(open_database)
    known = await store.load(db, store.Wanted(agencies={ORI}))
    assert len(known.topics) == 14
    assert all(topic.is_offered(NOW.date()) for topic in known.topics.values())


async def test_the_gauges_count_requests_by_step_and_agencies(open_database: OpenDatabase) -> None:
    db = await opened(open_database, agency(), agency(Ori("OH0250200")))
    await handle(db, submission(), submission(request_id="R-2"), submission(request_id="R-3"))
    read = {gauge.name: await gauge.read(db) for gauge in app.service().gauges}
    assert read == {
        "fieldbridge_intake_requests": {("accepted",): 1, ("declined",): 2},
        "fieldbridge_intake_agencies": {(): 2},
    }


async def test_news_of_a_closing_is_written_down(open_database: OpenDatabase) -> None:
    db = await opened(open_database)
    await handle(db, submission(), closed())
    known = await store.load(db, store.Wanted(requests={REQUEST}))
    assert known.requests[REQUEST].step is Step.CLOSED
    assert known.requests[REQUEST].closed_at == NOW
    assert await contents(db, "open_topic") == []
