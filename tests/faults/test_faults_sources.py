"""What other systems get wrong: they say things twice, out of order, or nothing anybody can read."""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import NamedTuple

from schemas.envelope import Envelope, Header
from schemas.topics import ENGAGEMENTS, MATCHES, REQUESTS, ROSTER, SUBMISSIONS, TOPICS, Topic
from services.console import wire
from services.console.simulate import registry
from services.console.world.simulation import running
from tests.faults.checker import findings, parked
from tests.faults.ground import SEED, Ground, traffic, world
from tests.faults.outsiders import early_answers

POISON_SOURCE = "/faults/poison"


async def test_submissions_twice_and_in_any_order_are_each_answered_once(ground: Ground, tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    outside = world("disorder", await registry(ground.stack))
    messages = [message for number in range(30) for message in outside.ask(number)]
    early = [answer for message in messages[:30] for answer in early_answers(message)]
    shuffled = 2 * (messages + early)
    Random(SEED).shuffle(shuffled)
    async with running(ground.stack, outside, ledger) as simulation:
        await simulation.publish(shuffled)
        await simulation.answered(60)
        assert await findings(ground.stack) == []
    acknowledged = [json.loads(line) for line in ledger.read_text().splitlines()]
    answered = simulation.tally.taken + simulation.tally.refused.total()
    assert answered == len({(one["source"], one["id"]) for one in acknowledged}) < len(acknowledged)
    assert await findings(ground.stack, ledger) == []


class Poison(NamedTuple):
    """Something nobody can handle. `parks` says whether a reader keeps it for an operator, or answers or skips it."""

    key: bytes | None
    headers: list[Header]
    value: bytes | None
    parks: bool


def headers(event_type: str, nth: int, subject: str, sequence: int | None = None) -> list[Header]:
    return Envelope(f"poison-{nth}", POISON_SOURCE, event_type, subject, datetime.now(UTC), sequence).headers()


def no_events(key: bytes) -> list[Poison]:
    """Records that are no CloudEvents at all."""
    whole = headers("request.submitted.v1", 0, "R")
    structured: list[Header] = [("content-type", b"application/cloudevents+json")]
    return [
        Poison(key, [], b"\xff\xfe\x00", True),
        Poison(key, [], None, True),
        Poison(None, [], b"{}", True),
        Poison(b"\xff\xfe", [], b"{}", True),
        Poison(key, [header for header in whole if header[0] != "ce_id"], b"{}", True),
        Poison(key, [*whole, ("ce_time", b"yesterday")], b"{}", True),
        Poison(key, [*whole, ("ce_specversion", b"0.3")], b"{}", True),
        Poison(key, [*whole, ("ce_source", b"\xc3\x28")], b"{}", True),
        Poison(key, [*whole, ("ce_sequence", b"-1")], b"{}", True),
        Poison(key, structured, b"[1, 2", True),
        Poison(key, structured, b"[" * 50_000, True),
        Poison(key, structured, b'{"specversion": "1.0", "id": "\\ud800"}', True),
    ]


def bad_submissions() -> list[Poison]:
    """CloudEvents that intake refuses with a receipt."""
    broken = (b"", b"{", b"null", b"[]", b'"text"', b"\xff", b"{}", b'{"ori": "\\u0000"}', b"[" * 50_000, b"NaN")
    bodies = [
        Poison(b"poison-1", headers("request.submitted.v1", nth, "poison-1"), body, False)
        for nth, body in enumerate(broken, 1)
    ]
    return [*bodies, Poison(b"poison-2", headers("request.imagined.v9", 90, "poison-2"), b"{}", False)]


def bad_facts(topic: Topic) -> list[Poison]:
    """CloudEvents that have no business on a topic of facts. They hold up their own key only.

    Their types are heeded by every reader of the topic: of what it passes over, a service reads no body.
    """
    heeded = {
        REQUESTS.name: "request.accepted.v1",
        ROSTER.name: "expert.listed.v1",
        MATCHES.name: "match.confirmed.v1",
        ENGAGEMENTS.name: "engagement.closed.v1",
    }[topic.name]
    keys = [f"poison-{topic.name}-{nth}" for nth in range(5)]
    return [
        Poison(keys[0].encode(), headers(heeded, 10, keys[0]), b"{}", True),
        Poison(keys[1].encode(), headers(heeded, 11, keys[1], 1), b'{"request_id": 7}', True),
        Poison(keys[1].encode(), headers(heeded, 12, keys[1], 2), b"{}", True),
        Poison(keys[2].encode(), headers(heeded, 13, keys[2], 5), b"{}", True),
        Poison(None, headers(heeded, 14, "", 1), b"{}", True),
        Poison(keys[3].encode(), headers("request.imagined.v9", 15, keys[3], 1), b"{}", False),
    ]


async def test_poison_between_good_events_is_set_aside_and_holds_nobody_up(ground: Ground, tmp_path: Path) -> None:
    before = {service: Counter(rows) for service, rows in (await parked(ground.stack)).items()}
    sent: list[tuple[Topic, Poison]] = []
    async with traffic(ground, "poison", tmp_path) as flow, wire.publisher(ground.stack) as producer:
        for nth in range(1, 4):
            await flow.reach(nth / 4)
            real = next(iter(flow.simulation.world.asked)).encode()
            doses = [(SUBMISSIONS, poison) for poison in no_events(real)]
            doses += [(topic, poison) for topic in TOPICS if topic.sequenced for poison in no_events(real)]
            if nth == 2:
                doses += [(SUBMISSIONS, poison) for poison in bad_submissions()]
                doses += [(topic, poison) for topic in TOPICS if topic.sequenced for poison in bad_facts(topic)]
            for topic, poison in doses:
                await send(ground, producer, topic, poison)
            sent += doses
        await flow.end()
        assert await findings(ground.stack, flow.ledger) == []
        assert flow.simulation.world.rests()
    await ground.all_ready()

    after = {service: Counter(rows) for service, rows in (await parked(ground.stack)).items()}
    expected = Counter((service, topic.name) for topic, poison in sent if poison.parks for service in topic.readers)
    kept = Counter(
        (service, topic)
        for service, rows in after.items()
        for (topic, _, _), count in (rows - before[service]).items()
        for _ in range(count)
    )
    assert kept == expected


async def send(ground: Ground, producer: wire.Publisher, topic: Topic, poison: Poison) -> None:
    acknowledged = await producer.send(
        ground.stack.topic(topic.name),
        value=poison.value,
        key=poison.key,
        headers=poison.headers,
    )
    await acknowledged
