"""F11: records that nobody can handle, of every kind, on every topic, between good ones."""

import asyncio
import json
import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final, cast

from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from schemas.envelope import Envelope, Header
from schemas.topics import ENGAGEMENTS, MATCHES, RECEIPTS, REQUESTS, ROSTER, SUBMISSIONS, TOPICS, Topic
from tests.driving import TREE, Message, RawName, publish, until
from tests.faults.checker import parked
from tests.faults.scenario import Field, Scenario
from tests.faults.servers_under_fire.cluster import administering
from tests.faults.servers_under_fire.readiness import recovers

SOURCE: Final = "/faults/poison"
_PORTIONS: Final = 3
_PATIENCE_SECONDS: Final = 90.0
_POLL_SECONDS: Final = 0.2
_TWO_MEGABYTES: Final = 2 * 1024 * 1024
_LIMIT: Final = "max.message.bytes"
_DEEP: Final = b"[" * 50_000
_HEEDED_BY_ALL: Final = {
    REQUESTS.name: "request.accepted.v1",
    ROSTER.name: "expert.listed.v1",
    MATCHES.name: "match.confirmed.v1",
    ENGAGEMENTS.name: "engagement.closed.v1",
}
"""A type of each topic that every reader of the topic heeds: of what it passes over, a service reads no body."""


@dataclass(frozen=True)
class Dose:
    """One record. `parks` says whether every reader has to set it aside; else it is answered, or passed over."""

    topic: Topic
    message: Message
    parks: bool


def no_events(topic: str, key: bytes) -> Iterator[Message]:
    """Records that are no CloudEvents. They hold nobody up, not even the key they bear."""
    whole = _headers("request.submitted.v1", "R")
    structured: list[Header] = [("content-type", b"application/cloudevents+json")]

    def with_header(name: str, value: bytes) -> Message:
        return Message(topic, key, b"{}", [*(one for one in whole if one[0] != name), (name, value)])

    yield Message(topic, key, b"\xff\xfe\x00")
    yield Message(topic, key, None)
    yield Message(topic, None, None, whole)
    yield Message(topic, b"\xff\xfe", b"{}")
    yield Message(topic, key, bytes(_TWO_MEGABYTES))
    yield Message(topic, key, b"{}", [one for one in whole if one[0] != "ce_id"])
    yield Message(topic, key, b"{}", [(RawName(b"\xff\x80"), b""), ("ce_id", b"x")])
    yield with_header("ce_id", b"a\x00b")
    yield with_header("ce_id", b"x" * 100_000)
    yield with_header("ce_time", b"yesterday")
    yield with_header("ce_time", b"2026-13-45T99:99:99Z")
    yield with_header("ce_specversion", b"0.3")
    yield with_header("ce_source", b"\xc3\x28")
    yield with_header("ce_sequence", b"-1")
    yield with_header("ce_sequence", b"9" * 40)
    yield Message(topic, key, b"[1, 2", structured)
    yield Message(topic, key, _DEEP, structured)
    yield Message(topic, key, b'{"specversion": "1.0", "id": "\\ud800"}', structured)


def bad_bodies() -> Iterator[bytes]:
    """Bodies of CloudEvents that break every schema."""
    yield b""
    yield b"{"
    yield b"null"
    yield b"[]"
    yield b'"text"'
    yield b"\xff"
    yield b"{}"
    yield b"NaN"
    yield b"1e999"
    yield b'{"request_id": 7, "n": ' + b"9" * 5000 + b"}"
    yield b'{"request_id": "\\u0000"}'
    yield b'{"request_id": "\\ud800"}'
    yield _DEEP
    yield json.dumps({"request_id": "x" * _TWO_MEGABYTES}).encode()


def facts(topic: Topic) -> Iterator[tuple[Message, bool]]:
    """Events on a topic of facts that were not its publisher's. They hold up their own keys only."""
    name = _HEEDED_BY_ALL[topic.name]
    for body in bad_bodies():
        key = _key(topic)
        yield _event(topic, key, name, body, 1), True
        yield _event(topic, key, name, b"{}", 2), True
    yield _event(topic, _key(topic), name, b"{}", None), True
    yield _event(topic, _key(topic), name, b"{}", 5), True
    yield _event(topic, _key(topic), "request.imagined.v9", b"{}", 1), False


def submissions(chance: random.Random) -> Iterator[Message]:
    """Submissions of every type with one value that is no good, and those with no good body at all."""
    for body in bad_bodies():
        yield _event(SUBMISSIONS, _key(SUBMISSIONS), "request.submitted.v1", body, None)
    yield _event(SUBMISSIONS, _key(SUBMISSIONS), "request.imagined.v9", b"{}", None)
    for path in sorted((TREE / "schemas" / "examples" / SUBMISSIONS.name).glob("*.json")):
        example: dict[str, Any] = json.loads(path.read_text())
        for spoil in _SPOILS:
            body = json.loads(json.dumps(example["data"]))
            place, name = chance.choice(list(_leaves(body)))
            place[name] = spoil(place[name])
            yield _event(SUBMISSIONS, _key(SUBMISSIONS), example["type"], _as_json(body), None)


_SPOILS: Final[tuple[Callable[[Any], object], ...]] = (
    lambda value: f"{value}\x00",
    lambda value: f"{value}\ud800",
    lambda _: 10**400,
    lambda _: -(2**63) - 1,
    lambda _: float("inf"),
    lambda _: None,
    lambda _: {"a": ["list"]},
    lambda _: "x" * 100_000,
    lambda _: "9999-12-31T23:59:59.999999-23:59",
    lambda _: "0001-01-01",
)
"""What becomes of one value of a good submission."""


def _leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a JSON document that holds a plain value: the container and the name in it."""
    for name in cast("Iterable[Any]", value if isinstance(value, dict) else range(len(value))):
        if isinstance(value[name], dict | list):
            yield from _leaves(value[name])
        else:
            yield value, name


def _as_json(body: object) -> bytes:
    return json.dumps(body).encode()


def _key(topic: Topic) -> str:
    return f"poison-{topic.name}-{uuid.uuid4().hex[:8]}"


def _headers(event_type: str, subject: str, sequence: int | None = None) -> list[Header]:
    return Envelope(uuid.uuid4().hex, SOURCE, event_type, subject, datetime.now(UTC), sequence).headers()


def _event(topic: Topic, key: str, event_type: str, body: bytes, sequence: int | None) -> Message:
    return Message(topic.name, key.encode(), body, _headers(event_type, key, sequence))


def doses(chance: random.Random, real_key: bytes) -> list[Dose]:
    """Some of everything, in any order but for the events of one key."""
    mixed: list[list[Dose]] = [
        [Dose(topic, message, parks=True)] for topic in TOPICS for message in no_events(topic.name, real_key)
    ]
    mixed += [[Dose(SUBMISSIONS, message, parks=False)] for message in submissions(chance)]
    mixed += [
        [Dose(RECEIPTS, _event(RECEIPTS, SOURCE, "submission.taken.v1", body, None), parks=True)]
        for body in bad_bodies()
    ]
    for topic in TOPICS:
        if topic.sequenced:
            by_key: dict[bytes | None, list[Dose]] = {}
            for message, parks in facts(topic):
                by_key.setdefault(message.key, []).append(Dose(topic, message, parks))
            mixed += by_key.values()
    chance.shuffle(mixed)
    return [dose for some in mixed for dose in some]


async def _poisoned(field: Field) -> None:
    await _allow_large_records(field)
    before = await _set_aside(field)
    real_key = next(iter(field.traffic.simulation.world.asked)).encode()
    given = doses(field.chance, real_key)
    portion = -(-len(given) // _PORTIONS)
    stack = field.ground.stack
    for start in range(0, len(given), portion):
        await publish(stack.kafka, (_in(stack.topic, dose.message) for dose in given[start : start + portion]))
        await asyncio.sleep(1)
    field.note(f"{len(given)} records of poison were published")
    expected = Counter((service, dose.topic.name) for dose in given if dose.parks for service in dose.topic.readers)
    kept = await _await_set_aside(field, before, expected)
    for what in sorted(expected.keys() | kept.keys()):
        if kept[what] != expected[what]:
            service, topic = what
            field.found.append(f"{service} keeps {kept[what]} records of poison of {topic}, not {expected[what]}")
    await recovers(field, "poison")
    await field.ground.all_ready()


async def _await_set_aside(
    field: Field, before: Mapping[tuple[str, str], int], expected: Counter[tuple[str, str]]
) -> Counter[tuple[str, str]]:
    deadline = monotonic() + _PATIENCE_SECONDS
    while True:
        kept = await _set_aside(field)
        kept.subtract(before)
        if all(kept[what] >= count for what, count in expected.items()) or monotonic() > deadline:
            return kept
        await asyncio.sleep(_POLL_SECONDS)


async def _set_aside(field: Field) -> Counter[tuple[str, str]]:
    rows = await parked(field.ground.stack)
    return Counter((service, topic) for service, all_ in rows.items() for topic, _, _ in all_)


async def _allow_large_records(field: Field) -> None:
    """As a cluster may, whose administrator has raised the limit; the broker would refuse 2 MB otherwise."""
    limit = str(2 * _TWO_MEGABYTES)
    names = [field.ground.stack.topic(topic.name) for topic in TOPICS]
    async with administering(field.ground.stack) as client:
        await client.alter_configs(
            [
                ConfigResource(ConfigResourceType.TOPIC, name, configs={_LIMIT: limit, "retention.ms": "-1"})
                for name in names
            ]
        )

        async def known() -> bool:
            answers = cast(
                Any, await client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
            )
            entries = [entry for answer in answers for resource in answer.resources for entry in resource[-1]]
            limits = [value for name, value, *_ in entries if name == _LIMIT]
            return limits == [limit] * len(names)

        await until(known, "the broker knows that large records are allowed")


def _in(named: Callable[[str], str], message: Message) -> Message:
    return Message(named(message.topic), message.key, message.value, message.headers)


POISONED: Final = Scenario(
    fault="F11",
    name="poison",
    sentence="On every topic: bytes that are no event, bodies that break their schema, wrong types and versions, "
    "missing headers, null values, 2 MB, deep nesting, NUL characters, lone surrogates, numbers and dates out of range",
    inject=_poisoned,
    spoils=True,
    alert="EventsParked",
)
