"""The judge itself: every kind of violation, planted in a stack that was in order, is found."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from schemas.envelope import Envelope, read
from schemas.topics import ENGAGEMENTS, MATCHES, REQUESTS, ROSTER, SUBMISSIONS
from services.console import wire
from services.console.stack import take_down
from tests.faults.checker import findings
from tests.faults.ground import Ground, quiet, traffic

_SWALLOW = """
CREATE TABLE swallowed (key text);
CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF position('{type}'::bytea IN NEW.records) > 0 AND NOT EXISTS (SELECT FROM swallowed) THEN
        INSERT INTO swallowed
        SELECT substring(split_part(encode(NEW.records, 'escape'), '{type}', 1) FROM '.*"request_id":"([^"]+)"');
        RETURN NULL;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER swallow BEFORE INSERT ON runtime.outbox FOR EACH ROW EXECUTE FUNCTION swallow();
"""
"""Loses a row of the outbox on its way, as a relay would that deletes before Kafka has acknowledged, and notes whose
fact of the type was the first in it."""


@pytest.fixture(scope="module")
def in_order(other_ground: Ground, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """A stack with delivered, planned and withdrawn requests and nothing wrong with it, whose services have ended."""
    folder = tmp_path_factory.mktemp("in_order")
    assert asyncio.run(_found_after_traffic(other_ground, "order", folder, delivers=False)) == []
    take_down(other_ground.surroundings, quiet)
    return other_ground


@pytest.fixture(scope="module")
def known() -> set[str]:
    """What was planted in the log and found: it cannot be taken out again."""
    return set()


async def _found_after_traffic(ground: Ground, run: str, folder: Path, *, delivers: bool) -> list[str]:
    async with traffic(ground, run, folder, requests=15, rate=30) as flow:
        flow.simulation.world.delivers = delivers
        await flow.end()
        return await findings(ground.stack, flow.ledger)


async def look(ground: Ground) -> set[str]:
    return set(await findings(ground.stack, seconds=0.1))


async def first_fact(ground: Ground, topic: str, event_type: str) -> tuple[Envelope, dict[str, Any], int]:
    """The first fact of this type, and the last sequence of its key."""
    found: tuple[Envelope, dict[str, Any]] | None = None
    last: dict[str, int] = {}
    async with wire.follower(ground.stack, [topic], from_start=True) as logs:
        async for record in logs.until(await logs.ends()):
            envelope, data = read(record.headers, record.value)
            last[envelope.subject] = max(envelope.sequence or 0, last.get(envelope.subject, 0))
            if found is None and envelope.type == event_type and envelope.source.startswith("/fieldbridge/"):
                found = envelope, json.loads(data)
    assert found is not None, f"there is no %s in {topic}"
    return *found, last[found[0].subject]


async def publish(ground: Ground, topic: str, envelope: Envelope, body: dict[str, Any]) -> None:
    async with wire.publisher(ground.stack) as producer:
        acknowledged = await producer.send(
            ground.stack.topic(topic),
            value=json.dumps(body).encode(),
            key=envelope.subject.encode(),
            headers=envelope.headers(),
        )
        await acknowledged


async def a_doubled_fact(ground: Ground) -> str:
    """The same decision, taken twice: another id and the next sequence."""
    envelope, body, last = await first_fact(ground, MATCHES.name, "match.proposed.v1")
    await publish(ground, MATCHES.name, envelope._replace(id=str(uuid4()), sequence=last + 1), body)
    return f"matches says 2 times of {envelope.subject}"


async def a_sequence_given_twice(ground: Ground) -> str:
    envelope, body, _ = await first_fact(ground, REQUESTS.name, "request.accepted.v1")
    await publish(ground, REQUESTS.name, envelope._replace(id=str(uuid4())), body)
    return "another event has the sequence 1 already"


async def a_gap(ground: Ground) -> str:
    envelope, body, last = await first_fact(ground, ENGAGEMENTS.name, "engagement.planned.v1")
    later = envelope._replace(id=str(uuid4()), sequence=last + 3)
    await publish(ground, ENGAGEMENTS.name, later, body)
    return f"sequence {last + 3} follows {last}"


async def a_conflict_crossed(ground: Ground) -> str:
    """A conflict with the agency of a match that holds, of which matching has taken no notice."""
    _, match, _ = await first_fact(ground, MATCHES.name, "match.confirmed.v1")
    ori = await ground.execute("reporting", "SELECT ori FROM request WHERE request_id = $1", match["request_id"])
    expert_id = match["expert_ids"][0]
    envelope = Envelope(
        str(uuid4()), "/fieldbridge/intake", "conflict.declared.v1", expert_id, datetime.now(UTC), sequence=99
    )
    body = {"conflict_id": "C-planted", "expert_id": expert_id, "ori": ori, "kind": "family"}
    await publish(ground, ROSTER.name, envelope, body)
    return f"{expert_id} has declared a conflict (family) with {ori}"


async def a_submission_without_a_receipt(ground: Ground) -> str:
    envelope = Envelope("unheard", "/faults", "request.submitted.v1", "R-unheard", datetime.now(UTC))
    await publish(ground, SUBMISSIONS.name, envelope, {})
    return "/faults unheard has no receipt and is not parked"


@pytest.mark.parametrize(
    "plant",
    [a_doubled_fact, a_sequence_given_twice, a_gap, a_conflict_crossed, a_submission_without_a_receipt],
    ids=lambda plant: plant.__name__,
)
async def test_what_is_wrong_in_the_log_is_found(
    in_order: Ground, known: set[str], plant: Callable[[Ground], Awaitable[str]]
) -> None:
    expected = await plant(in_order)
    found = await look(in_order)
    assert any(expected in finding for finding in found - known), expected
    known |= found


TABLES = {
    "a request that the funnel leaves out": (
        "reporting",
        "UPDATE step_count SET count = count + 1",
        "UPDATE step_count SET count = count - 1",
        "reporting counts",
    ),
    "a receipt that is not counted": (
        "reporting",
        "UPDATE receipt_count SET count = count - 1 WHERE type = 'offer.accepted.v1'",
        "UPDATE receipt_count SET count = count + 1 WHERE type = 'offer.accepted.v1'",
        "receipts",
    ),
    "a row that stays in the outbox": (
        "scheduling",
        "INSERT INTO runtime.outbox (topic, events, records) VALUES ('engagements', 1, '')",
        "DELETE FROM runtime.outbox",
        "the outbox of scheduling holds 1",
    ),
    "a record that is not accounted for": (
        "matching",
        "UPDATE runtime.consumer_position SET applied = applied - 1, absent = absent + 1 WHERE applied > 0",
        "UPDATE runtime.consumer_position SET applied = applied + 1, absent = absent - 1 WHERE absent > 0",
        "matching in requests",
    ),
    "an event that a reader has passed by": (
        "scheduling",
        "UPDATE runtime.stream_seen SET sequence = sequence - 1 WHERE topic = 'matches'",
        "UPDATE runtime.stream_seen SET sequence = sequence + 1 WHERE topic = 'matches'",
        "scheduling has seen",
    ),
    "a step that reporting has wrong": (
        "reporting",
        "UPDATE request SET on_hold = true WHERE intake_step = 'accepted'",
        "UPDATE request SET on_hold = NULL WHERE intake_step = 'accepted'",
        "reporting says on_hold",
    ),
    "an event that reporting does not tell": (
        "reporting",
        "UPDATE story SET topic = 'lost' WHERE topic = 'matches'",
        "UPDATE story SET topic = 'matches' WHERE topic = 'lost'",
        "reporting tells None matches",
    ),
    "a load that matching does not count": (
        "matching",
        "UPDATE match SET stage = 'ended', nth = nth + 1000 WHERE stage = 'confirmed'",
        "UPDATE match SET stage = 'confirmed', nth = nth - 1000 WHERE nth > 1000",
        "matching says None",
    ),
    "an engagement that scheduling has wrong": (
        "scheduling",
        "UPDATE engagement SET step = 'planned' WHERE step = 'confirmed'",
        "UPDATE engagement SET step = 'confirmed' WHERE step = 'planned'",
        "scheduling says planned, the log confirmed",
    ),
    "a double booking": (
        "scheduling",
        """
        ALTER TABLE booking DROP CONSTRAINT one_place_at_a_time;
        INSERT INTO booking SELECT expert_id, occupies, request_id, 'R-planted/s1.1' FROM booking LIMIT 1
        """,
        "DELETE FROM booking WHERE session_id = 'R-planted/s1.1'",
        "overlapping bookings",
    ),
    "time that is booked for nothing": (
        "scheduling",
        "UPDATE booking SET session_id = session_id || 'x'",
        "UPDATE booking SET session_id = rtrim(session_id, 'x')",
        "is booked for a session that the log does not have",
    ),
}


@pytest.mark.parametrize("violation", TABLES)
async def test_what_is_wrong_in_a_table_is_found(in_order: Ground, known: set[str], violation: str) -> None:
    service, plant, mend, expected = TABLES[violation]
    await run(in_order, service, plant)
    try:
        found = await look(in_order)
    finally:
        await run(in_order, service, mend)
    assert any(expected in finding for finding in found - known), expected


LOST = {"intake": "request.accepted.v1", "matching": "match.confirmed.v1", "scheduling": "engagement.confirmed.v1"}


async def test_a_fact_that_never_left_the_outbox_is_found(in_order: Ground, tmp_path: Path) -> None:
    for service, event_type in LOST.items():
        await run(in_order, service, _SWALLOW.replace("{type}", event_type))
    try:
        await in_order.start_missing()
        found = await _found_after_traffic(in_order, "losing", tmp_path, delivers=False)
        for service in LOST:
            key = await in_order.execute(service, "SELECT key FROM swallowed")
            assert [finding for finding in found if f"{service} counts" in finding and f"of {key}," in finding]
    finally:
        await asyncio.to_thread(take_down, in_order.surroundings, quiet)


async def run(ground: Ground, service: str, script: str) -> None:
    connection = await asyncpg.connect(ground.stack.database(service))
    try:
        await connection.execute(script)
    finally:
        await connection.close()
