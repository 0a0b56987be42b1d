"""Whatever the bytes are, one record is parked, its key waits behind it, and everything else goes on."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from random import Random

import pytest
from aiokafka.structs import ConsumerRecord

from schemas.envelope import Envelope, structured
from services.runtime.records import pack_headers, unpack_headers
from tests.driving import Message, RawName, Worker, read_log
from tests.runtime.stage import Stage

Spoil = Callable[[Stage, Message], Message]


def _headers(given: Message, **changed: bytes | None) -> Message:
    kept = [(name, value) for name, value in given.headers if name not in changed]
    return replace(given, headers=[*kept, *((name, value) for name, value in changed.items() if value is not None)])


def _body(text: str) -> Spoil:
    return lambda _, good: replace(good, value=text.encode("utf-8", "surrogatepass"))


def _structured(**changed: object) -> Spoil:
    def spoil(_: Stage, good: Message) -> Message:
        envelope = Envelope("an-id", "/tests", "count.v1", (good.key or b"").decode(), datetime.now(UTC), 2)
        value = json.dumps(structured(envelope, {}) | changed).encode()
        return replace(good, value=value, headers=[("content-type", b"application/cloudevents+json")])

    return spoil


# An event that is readable enough to be known by its sequence holds its key up; so does what is only missing.
POISON: dict[str, Spoil] = {
    "a header name that is not UTF-8": lambda _, good: replace(
        good, headers=[*good.headers, (RawName(b"\xff\xfe\x80"), b"\x00\xff")]
    ),
    "a header value that is not UTF-8": lambda _, good: _headers(good, ce_type=b"\xff\xfe"),
    "a null header value": lambda _, good: replace(_headers(good, ce_id=None), headers=[("ce_id", None), ("x", None)]),
    "a null value": lambda _, good: replace(good, value=None),
    "an empty value": lambda _, good: replace(good, value=b""),
    "900 KB of no JSON": lambda _, good: replace(good, value=b"\xfe" * 900_000),
    "900 KB of JSON that is no object": _body(json.dumps("x" * 900_000)),
    "100,000 brackets": _body("[" * 100_000),
    "100,000 brackets in structured mode": lambda _, good: replace(
        good, value=b'{"data":' + b"[" * 100_000, headers=[("content-type", b"application/cloudevents+json")]
    ),
    "a lone surrogate's bytes": _body('{"n": "\ud800"}'),
    "a body that saving refuses": _body('{"said": "\\u0000"}'),
    "a decision that raises": _body('{"raise": "as asked"}'),
    "a NUL in the id": lambda _, good: _headers(good, ce_id=b"a\x00b"),
    "a lone surrogate in a structured attribute": _structured(source="\ud800"),
    "no source": lambda _, good: _headers(good, ce_source=None),
    "no sequence": lambda _, good: _headers(good, ce_sequence=None),
    "a sequence past all numbers": lambda _, good: _headers(good, ce_sequence=b"9" * 40),
    "a negative sequence": lambda _, good: _headers(good, ce_sequence=b"-2"),
    "a time that never was": lambda _, good: _headers(good, ce_time=b"2026-02-30T00:00:00Z"),
    "another version of the envelope": lambda _, good: _headers(good, ce_specversion=b"7.0"),
}


@pytest.mark.parametrize("kind", POISON)
async def test_one_record_is_parked_with_its_key_behind_it_and_others_go_on(
    counting: Stage, worker: Worker, kind: str
) -> None:
    key, other = counting.key(), counting.key()
    spoilt = POISON[kind](counting, counting.event(key, 2))
    first, behind = counting.event(key, 1), counting.event(key, 3)
    neighbours = [counting.event(other, number) for number in (1, 2)]
    await counting.say(*_in_one_partition(first, neighbours[0], spoilt, behind, neighbours[1]))
    await counting.settle()

    assert await counting.counted(key) == "1"
    assert await counting.counted(other) == "1 2"
    parked = await counting.parked(key)
    assert len(parked) == 2, [dict(row) for row in parked]
    poison, waiting = parked
    assert poison["reason"] in ("unreadable", "refused")
    assert waiting["reason"] in ("behind", "gap")
    assert (poison["raw_key"], poison["value"]) == (spoilt.key, spoilt.value)
    assert _as_written(unpack_headers(poison["headers"])) == _as_written(spoilt.headers)
    (dead,) = [one for one in await _dead(counting) if _came_from(one) == (poison["partition"], poison["offset"])]
    assert (dead.key, dead.value) == (spoilt.key, spoilt.value)
    assert _as_written(dead.headers[: len(spoilt.headers)]) == _as_written(spoilt.headers)
    assert worker.running


async def test_a_record_without_key_and_value_holds_nobody_up(counting: Stage) -> None:
    key = counting.key()
    nothing = Message(counting.prefix + "requests", None, None, [("x", b"y")])
    before = len(await _dead(counting))
    await counting.say(*_in_one_partition(counting.event(key, 1), nothing, counting.event(key, 2)))
    await counting.settle()
    assert await counting.counted(key) == "1 2"
    dead = (await _dead(counting))[before:]
    assert [(one.key, one.value, one.headers[0]) for one in dead] == [(None, None, ("x", b"y"))]


@pytest.mark.parametrize("raw_key", [None, b"", b"\xff\xfe", b"a\x00b", b"k" * 600], ids=repr)
async def test_a_key_that_names_nothing_is_parked_alone_in_a_topic_with_sequences(
    counting: Stage, raw_key: bytes | None
) -> None:
    event = replace(counting.event("", 1), key=raw_key)
    await counting.say(event)
    await counting.settle()
    rows = await counting.fetch(
        "SELECT key, reason, value FROM runtime.parked WHERE raw_key IS NOT DISTINCT FROM $1 AND value = $2",
        raw_key,
        event.value,
    )
    assert [(row["key"], row["reason"]) for row in rows] == [(None, "unreadable")]
    await counting.fetch("DELETE FROM runtime.parked WHERE key IS NULL")


@pytest.mark.parametrize("raw_key", [None, b"\xff\xfe", b"a\x00b"], ids=repr)
async def test_a_message_without_a_usable_key_is_handled_where_no_sequence_is_needed(
    counting: Stage, raw_key: bytes | None
) -> None:
    subject = counting.key()
    await counting.say(replace(counting.event(subject, None, {"n": 1}, topic="submissions"), key=raw_key))
    await counting.settle()
    assert await counting.counted(subject) == "1"


@pytest.mark.parametrize(("letters", "longest"), [("abcdefghijklmnopqrstuvwxyz0123456789", 512), ("一", 170)])
async def test_a_source_and_an_id_are_as_long_as_an_index_can_hold_and_no_longer(
    counting: Stage, worker: Worker, letters: str, longest: int
) -> None:
    """Random characters, since PostgreSQL compresses what it can."""
    chance = Random(longest)
    alphabet = letters if len(letters) > 1 else [chr(ord(letters) + nth) for nth in range(20_000)]

    def name(length: int) -> str:
        return "".join(chance.choices(alphabet, k=length))

    def submitted(key: str, length: int) -> Message:
        names = {"id": name(length), "source": name(length)}
        return counting.event(key, None, {"n": length}, topic="submissions", **names)

    within, beyond, after = (counting.key() for _ in range(3))
    await counting.say(submitted(within, longest), submitted(beyond, longest + 1), submitted(after, 20))
    await counting.settle()
    assert [await counting.counted(key) for key in (within, beyond, after)] == [str(longest), "", "20"]
    (parked,) = await counting.parked(beyond)
    assert parked["reason"] == "unreadable"
    assert "longer than 512 bytes" in parked["detail"]
    assert worker.running


async def test_a_timestamp_from_another_age_is_no_reason_to_stop(counting: Stage) -> None:
    key = counting.key()
    await counting.say(replace(counting.event(key, 1), timestamp_ms=1), counting.event(key, 2))
    await counting.settle()
    assert await counting.counted(key) == "1 2"


async def test_types_meant_for_others_are_passed_over_in_their_sequence(counting: Stage) -> None:
    key = counting.key()
    stranger = counting.event(key, 2, type="somebody.elses.v9")
    await counting.say(counting.event(key, 1), stranger, counting.event(key, 3))
    await counting.settle()
    assert await counting.counted(key) == "1 3"
    assert not await counting.parked(key)


async def test_poison_in_two_topics_at_once_parks_only_the_poison(counting: Stage) -> None:
    ordered, loose = counting.key(), counting.key()
    bodies: list[object] = [{"n": 1}, {"raise": "now"}, {"said": "\x00"}]
    events = [counting.event(f"{ordered}-{nth}", 1, body) for nth, body in enumerate(bodies)]
    messages = [
        counting.event(f"{loose}-{nth}", None, body, topic="submissions") for nth, body in enumerate([*bodies, b"[]"])
    ]
    await counting.say(*(one for pair in zip(events, messages, strict=False) for one in pair), messages[-1])
    await counting.settle()
    said = {key: await counting.counted(key) for key in (f"{ordered}-0", f"{loose}-0")}
    assert set(said.values()) == {"1"}
    reasons = {
        f"{stem}-{nth}": [row["reason"] for row in await counting.parked(f"{stem}-{nth}")]
        for stem, most in ((ordered, 3), (loose, 4))
        for nth in range(1, most)
    }
    assert reasons == {
        f"{ordered}-1": ["refused"],
        f"{ordered}-2": ["refused"],
        f"{loose}-1": ["refused"],
        f"{loose}-2": ["refused"],
        f"{loose}-3": ["unreadable"],
    }


def test_any_headers_come_back_from_the_database_as_they_were() -> None:
    headers = [("a", b"\x00\xff"), ("a", None), ("", b""), ("\udcff\u20ac", bytes(range(256)))]
    assert unpack_headers(pack_headers(headers)) == headers


def _in_one_partition(*messages: Message) -> list[Message]:
    return [replace(one, partition=0) for one in messages]


async def _dead(counting: Stage) -> list[ConsumerRecord[bytes, bytes]]:
    from services.runtime.rawrecords import read_tolerantly

    read_tolerantly()
    return await read_log(counting.kafka, counting.prefix + "requests.dead")


def _came_from(dead: ConsumerRecord[bytes, bytes]) -> tuple[int, int]:
    headers = dict(dead.headers)
    return int(headers["fieldbridge_partition"] or 0), int(headers["fieldbridge_offset"] or 0)


def _as_written(headers: object) -> list[tuple[bytes, bytes | None]]:
    return [
        (name.raw if isinstance(name, RawName) else name.encode("utf-8", "surrogateescape"), value)
        for name, value in headers  # type: ignore[attr-defined]
    ]
