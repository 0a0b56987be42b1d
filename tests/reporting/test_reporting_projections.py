"""Projections are a pure function of the log: of neither the order between topics, nor the batches, nor repeats."""

import asyncio
import json
from collections import Counter
from dataclasses import replace
from functools import reduce
from itertools import permutations
from operator import add
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

import schemas
from schemas.envelope import Envelope, read_structured
from schemas.receipts import SubmissionRefused, SubmissionTaken
from schemas.roster import ExpertRetired, PartnerSuspended
from schemas.topics import SUBMISSIONS, TOPICS
from schemas.vocabulary import ExpertId, PartnerId, RequestId
from services.reporting import handlers, store
from services.reporting.app import service
from services.reporting.decisions.views import RequestView, Step
from services.runtime.database import Connection
from services.runtime.service import Event
from tests.reporting.lives import BEGIN, SECRET, Happening, Life, in_batches, interleaved, lives
from tests.reporting.reading import PARSE, OpenDatabase, read, read_all

EXAMPLES = sorted(
    path
    for path in (Path(schemas.__file__).parent / "examples").glob("*/*.json")
    if path.parent.name != SUBMISSIONS.name
)


async def steps(db: Connection) -> dict[str, str]:
    """The step of each request; that they are counted as they stand is seen to by the way."""
    found = {row["request_id"]: row["step"] for row in await db.fetch("SELECT request_id, step FROM request")}
    counted = await store.counts_by_step(db)
    assert {step.value: count for step, count in counted.items() if count} == Counter(found.values())
    return found


WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def examples() -> list[Happening]:
    """The stored examples of all facts, numbered anew per key so that none is taken for a repeat."""
    found: list[Happening] = []
    for number, path in enumerate(EXAMPLES, 1):
        envelope, data = read_structured(path.read_bytes())
        found.append(Happening(path.parent.name, envelope._replace(sequence=number), data))
    return found


def test_every_topic_that_names_reporting_as_a_reader_is_read() -> None:
    assert {reads.topic for reads in service().reads} == {topic for topic in TOPICS if "reporting" in topic.readers}


def test_the_lives_of_these_tests_come_to_rest_at_every_step() -> None:
    passing = {Step.NOT_PLANNABLE.value}
    assert {life.step for seed in range(4) for life in lives(250, seed)} == {step.value for step in Step} - passing


@pytest.mark.parametrize("seed", range(4))
async def test_every_request_stands_where_its_whole_life_says_whatever_the_order_of_topics(
    open_database: OpenDatabase, seed: int
) -> None:
    random = Random(seed)
    told = lives(250, seed)
    db = await open_database("reporting")
    await read_all(db, in_batches(interleaved(told, random), random, most=400))
    assert await steps(db) == {life.request_id: life.step for life in told}


async def test_a_topic_read_to_its_end_before_the_next_gives_the_same_tables_in_each_order_of_topics(
    open_database: OpenDatabase,
) -> None:
    told = lives(60, seed=11)
    db = await open_database("reporting")
    by_topic: dict[str, list[Happening]] = {}
    for life in told:
        for event in life.events:
            by_topic.setdefault(event.topic, []).append(event)
    digests: list[dict[str, str]] = []
    for order in permutations(by_topic):
        await store.clear(db)
        await read_all(db, [by_topic[topic] for topic in order])
        digests.append(await store.digest(db))
    assert all(digest == digests[0] for digest in digests)
    assert await steps(db) == {life.request_id: life.step for life in told}


async def test_a_plan_that_cannot_be_made_shows_until_the_match_is_released(open_database: OpenDatabase) -> None:
    life = Life(RequestId("R-1"), Random(0))
    for action in (life.accept, life.propose, life.confirm_match, life.find_no_dates):
        action()
    db = await open_database("reporting")
    await read(db, life.events[:-1])
    assert await steps(db) == {"R-1": "not_plannable"}
    await read(db, life.events[-1:])
    assert await steps(db) == {"R-1": "accepted"}


async def test_a_request_completed_while_on_hold_is_off_hold_when_it_is_reopened(open_database: OpenDatabase) -> None:
    life = Life(RequestId("R-1"), Random(0))
    for action in (life.accept, life.propose, life.confirm_match, life.plan, life.confirm_plan, life.hold):
        action()
    db = await open_database("reporting")
    life.finish_while_held()
    await read(db, life.events)
    assert await steps(db) == {"R-1": "closed"}
    life.reopen()
    await read(db, life.events[-1:])
    assert await steps(db) == {"R-1": "accepted"}


async def test_the_match_of_a_completed_request_is_in_nobodys_hands_once_it_is_reopened(
    open_database: OpenDatabase,
) -> None:
    life = Life(RequestId("R-1"), Random(0))
    life.complete()
    db = await open_database("reporting")
    await read(db, life.events)
    closed = await store.request_of(db, life.request_id)
    life.reopen()
    life.hold()
    await read(db, life.events[-2:])
    held = await store.request_of(db, life.request_id)
    assert closed is not None
    assert held is not None
    assert (closed["step"], closed["partner_id"]) == ("closed", life.partner)
    assert (held["step"], held["partner_id"], held["expert_ids"]) == ("on_hold", None, None)


async def test_reading_the_log_again_after_clearing_gives_identical_tables(open_database: OpenDatabase) -> None:
    random = Random(3)
    events = interleaved(lives(200, seed=3), random) + examples()
    db = await open_database("reporting")
    await read_all(db, in_batches(events, random, most=700))
    once = await store.digest(db)
    await store.clear(db)
    assert await db.fetchval("SELECT count(*) FROM story") == 0
    await read_all(db, in_batches(events, random, most=50))
    assert await store.digest(db) == once


async def test_events_read_once_more_change_nothing(open_database: OpenDatabase) -> None:
    random = Random(4)
    events = interleaved(lives(100, seed=4), random)
    db = await open_database("reporting")
    await read(db, events)
    once = await store.digest(db)
    await read_all(db, in_batches(events, random, most=100))
    assert await store.digest(db) == once


async def test_a_changed_row_changes_the_digest_of_its_table_alone(open_database: OpenDatabase) -> None:
    db = await open_database("reporting")
    await read(db, [*lives(3, seed=5)[0].events, *examples()])
    for table, change in (
        ("story", "UPDATE story SET body = NULL WHERE sequence = (SELECT min(sequence) FROM story)"),
        ("request", "UPDATE request SET on_hold = true"),
        ("partner", "DELETE FROM partner"),
        ("expert", "UPDATE expert SET load_limit = load_limit + 1"),
        ("receipt_count", "UPDATE receipt_count SET count = count + 1"),
    ):
        before = await store.digest(db)
        await db.execute(change)
        after = await store.digest(db)
        assert {name for name in before if before[name] != after[name]} == {table}


async def test_workers_that_read_different_topics_of_the_same_requests_do_not_harm_each_other(
    open_database: OpenDatabase,
) -> None:
    random = Random(6)
    told = lives(300, seed=6)
    one, other = await open_database("reporting"), await open_database("reporting")
    events = interleaved(told, random)
    intake = [event for event in events if event.topic == "requests"]
    rest = [event for event in events if event.topic != "requests"]
    await asyncio.gather(
        read_all(one, in_batches(intake, random, most=60)), read_all(other, in_batches(rest, random, most=60))
    )
    together = await store.digest(one)
    assert await steps(one) == {life.request_id: life.step for life in told}
    await store.clear(one)
    await read(one, events)
    assert together == await store.digest(one)


async def test_workers_lock_requests_in_one_order_so_none_wait_in_a_circle(open_database: OpenDatabase) -> None:
    holder, one, other = [await open_database("reporting") for _ in range(3)]
    first, middle, last = (Life(RequestId(f"R-{number}"), Random(number)) for number in range(3))
    for life in (first, middle, last):
        life.accept()
        life.find_nobody()
        await read(holder, life.events)
        life.amend()
        life.propose()
    upwards = [life.events[2] for life in (first, middle, last)]
    downwards = [life.events[3] for life in (last, middle, first)]
    async with holder.transaction():
        await holder.execute("SELECT FROM request WHERE request_id = $1 FOR UPDATE", middle.request_id)
        reading = asyncio.gather(read(one, downwards), read(other, upwards))
        while await holder.fetchval(WAITING) < 2:
            assert not reading.done()
    await reading
    assert set((await steps(one)).values()) == {"proposed"}


@given(st.integers(0, 10_000))
def test_what_a_topic_says_adds_up_the_same_wherever_batches_are_cut(seed: int) -> None:
    (life,) = lives(1, seed, most_actions=40)
    said: list[RequestView] = []
    for event in life.events:
        body = PARSE[event.topic](event.envelope, event.data)
        changes, _ = handlers.decide(store.Projections(), Event(event.topic, event.envelope, body, BEGIN))
        said.append(changes.requests[life.request_id])
    from_the_left = reduce(add, said)
    from_the_right = reduce(lambda later, earlier: earlier + later, reversed(said))
    assert from_the_left == from_the_right


async def test_milestones_keep_the_first_time_each_was_reached(open_database: OpenDatabase) -> None:
    told = lives(200, seed=8)
    db = await open_database("reporting")
    await read_all(db, in_batches(interleaved(told, Random(8)), Random(8), most=90))
    milestones = {
        "accepted_at": {"request.accepted.v1"},
        "first_proposed_at": {"match.proposed.v1"},
        "match_confirmed_at": {"match.confirmed.v1"},
        "first_planned_at": {"engagement.planned.v1", "engagement.replanned.v1"},
        "confirmed_at": {"engagement.confirmed.v1"},
        "delivered_at": {"engagement.delivered.v1"},
    }
    for life in told:
        row = await store.request_of(db, life.request_id)
        assert row is not None
        for column, types in milestones.items():
            times = [event.envelope.time for event in life.events if event.envelope.type in types]
            assert row[column] == min(times, default=None)


async def test_a_request_is_shown_with_the_terms_said_last_and_the_match_that_holds(
    open_database: OpenDatabase,
) -> None:
    life = Life(RequestId("R-1"), Random(2))
    db = await open_database("reporting")
    for action in (life.accept, life.propose, life.agency_declines, life.amend):
        action()
    await read(db, life.events)
    row = await store.request_of(db, life.request_id)
    assert row is not None
    assert row["partner_id"] is None
    assert row["expert_ids"] is None
    amended = json.loads(life.events[-1].data)["terms"]
    assert (row["topics"], row["urgency"]) == (amended["topics"], amended["urgency"])
    told = len(life.events)
    life.propose()
    await read(db, life.events[told:])
    row = await store.request_of(db, life.request_id)
    assert row is not None
    assert (row["partner_id"], row["expert_ids"]) == (life.partner, list(life.experts))


async def test_a_partner_that_is_suspended_keeps_its_name_and_an_expert_that_retires_its_topics(
    open_database: OpenDatabase,
) -> None:
    db = await open_database("reporting")
    found = {event.envelope.type: event for event in examples()}
    selected, listed = found["partner.selected.v1"], found["expert.listed.v1"]
    partner, expert = selected.envelope.subject, listed.envelope.subject
    suspended = PartnerSuspended(partner_id=PartnerId(partner))
    retired = ExpertRetired(expert_id=ExpertId(expert))
    await read(db, [selected, listed, after(selected, suspended), after(listed, retired)])
    row = await db.fetchrow("SELECT name, acronym, capacity, selected FROM partner WHERE partner_id = $1", partner)
    said = json.loads(selected.data)
    assert row is not None
    assert tuple(row.values()) == (said["name"], said["acronym"], said["capacity"], False)
    row = await db.fetchrow("SELECT topics, load_limit, listed FROM expert WHERE expert_id = $1", expert)
    profile = json.loads(listed.data)["profile"]
    assert row is not None
    assert tuple(row.values()) == ([skill["topic"] for skill in profile["skills"]], profile["load_limit"], False)


def after(event: Happening, body: PartnerSuspended | ExpertRetired) -> Happening:
    """The next event of the same key."""
    sequence = (event.envelope.sequence or 0) + 1
    envelope = event.envelope._replace(id=f"{event.envelope.id}+", type=body.TYPE, sequence=sequence)
    return Happening(event.topic, envelope, body.model_dump_json().encode())


def receipt(number: int, body: SubmissionTaken | SubmissionRefused) -> Happening:
    envelope = Envelope(str(number), "/fieldbridge/intake", body.TYPE, body.subject, BEGIN)
    return Happening(body.TOPIC, envelope, body.model_dump_json().encode())


async def test_receipts_are_counted_by_source_type_and_outcome_over_batches(open_database: OpenDatabase) -> None:
    db = await open_database("reporting")
    receipts: list[Happening] = []
    for number in range(30):
        source, kind = f"/portal/{number % 2}", ("request.submitted.v1", "withdrawal.asked.v1")[number % 3 == 0]
        taken = SubmissionTaken(submission_source=source, submission_id=str(number), submission_type=kind)
        refused = SubmissionRefused(**taken.model_dump(), reason="No.")
        receipts.append(receipt(number, refused if number % 5 == 0 else taken))
    await read_all(db, in_batches(receipts, Random(1), most=7))
    rows = await db.fetch("SELECT source, type, outcome, count FROM receipt_count")
    expected = Counter(
        (
            f"/portal/{number % 2}",
            "withdrawal.asked.v1" if number % 3 == 0 else "request.submitted.v1",
            "refused" if number % 5 == 0 else "taken",
        )
        for number in range(30)
    )
    assert {tuple(row.values())[:3]: row["count"] for row in rows} == expected


async def test_types_that_strangers_invent_are_counted_as_one_and_long_sources_are_cut(
    open_database: OpenDatabase,
) -> None:
    db = await open_database("reporting")
    invented = [
        SubmissionRefused(
            submission_source="ß" * 20_000,
            submission_id=str(n),
            submission_type=f"invented.{n}",
            reason="Unknown type.",
        )
        for n in range(20)
    ]
    await read(db, [receipt(number, body) for number, body in enumerate(invented)])
    row = await db.fetchrow("SELECT source, type, outcome, count FROM receipt_count")
    assert row is not None
    assert tuple(row.values()) == ("ß" * 512, "unknown", "refused", 20)


@pytest.mark.parametrize("example", examples(), ids=lambda example: f"{example.topic}/{example.envelope.type}")
async def test_no_example_leaves_contact_data_or_narrative_in_any_table(
    open_database: OpenDatabase, example: Happening
) -> None:
    db = await open_database("reporting")
    await read(db, [example])
    held = await everything(db)
    assert "sensitive" not in held
    for secret in texts(json.loads(example.data).get("sensitive")):
        assert secret not in held


async def everything(db: Connection) -> str:
    """All rows of all tables of the service, as text."""
    tables = await db.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    assert tables
    held = [await db.fetchval(f"SELECT string_agg(t::text, ' ') FROM {row['tablename']} AS t") for row in tables]
    return " ".join(text for text in held if text is not None)


def texts(part: Any) -> list[str]:
    """All texts in a part of a body."""
    if isinstance(part, dict):
        return [text for member in cast("dict[str, Any]", part).values() for text in texts(member)]
    return [part] if isinstance(part, str) else []


async def test_the_sensitive_part_is_left_out_however_its_name_is_spelt(open_database: OpenDatabase) -> None:
    life = Life(RequestId("R-1"), Random(0))
    life.accept()
    (accepted,) = life.events
    escaped = replace(accepted, data=accepted.data.replace(b'"sensitive"', b'"\\u0073ensitive"'))
    assert SECRET.encode() in escaped.data
    assert b'"sensitive"' not in escaped.data
    db = await open_database("reporting")
    await read(db, [escaped])
    held = await everything(db)
    assert life.agency.ori in held
    assert SECRET not in held


async def test_an_evaluation_is_restricted_so_the_story_tells_only_that_it_came(open_database: OpenDatabase) -> None:
    life = Life(RequestId("R-1"), Random(0))
    for action in (
        life.accept,
        life.propose,
        life.confirm_match,
        life.plan,
        life.confirm_plan,
        life.deliver,
        life.close,
    ):
        action()
    db = await open_database("reporting")
    await read(db, life.events)
    told = {line.type: line.body for line in await store.story_of(db, life.request_id)}
    assert told["evaluation.returned.v1"] is None
    assert "satisfaction" not in await everything(db)


async def test_what_holds_nothing_sensitive_is_kept_as_it_came_with_fields_of_newer_releases(
    open_database: OpenDatabase,
) -> None:
    life = Life(RequestId("R-1"), Random(0))
    life.accept()
    life.find_nobody()
    newer = replace(life.events[-1], data=life.events[-1].data[:-1] + b',"since":"2026-03-01"}')
    db = await open_database("reporting")
    await read(db, [life.events[0], newer])
    (*_, last) = await store.story_of(db, life.request_id)
    assert last.body is not None
    assert json.loads(last.body) == json.loads(newer.data)
