"""Bytes of strangers: an envelope is read or is no event, a body is read or breaks its schema; nothing else happens."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.body import parse
from schemas.envelope import Envelope, NotAnEvent, consequence_id, consequence_traceparent, read, read_structured
from services.console.contract import BODIES

TRACEPARENT: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
EXAMPLES: Final = sorted((Path(__file__).parents[2] / "schemas" / "examples").rglob("*.json"))
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def headers(**changed: bytes | str | None) -> list[tuple[str, bytes | None]]:
    """The headers of a well-formed event, some of them changed; None leaves one out."""
    attributes: dict[str, bytes | str | None] = {
        "content_type": "application/json",
        "ce_specversion": "1.0",
        "ce_id": "e-1",
        "ce_source": "urn:example:portal",
        "ce_type": "withdrawal.asked.v1",
        "ce_subject": "R-1",
        "ce_time": "2026-06-15T09:30:00-04:00",
    }
    return [
        (
            name.replace("_", "-") if name == "content_type" else name,
            value.encode() if isinstance(value, str) else value,
        )
        for name, value in (attributes | changed).items()
        if value is not None
    ]


def document(**changed: object) -> bytes:
    """A well-formed event in structured mode, some members changed."""
    members: dict[str, object] = {
        "specversion": "1.0",
        "id": "e-1",
        "source": "urn:example:portal",
        "type": "withdrawal.asked.v1",
        "subject": "R-1",
        "time": "2026-06-15T09:30:00-04:00",
        "data": {"request_id": "R-1"},
    }
    return json.dumps(members | changed).encode()


def test_binary_and_structured_mode_give_the_same_event() -> None:
    binary, body = read(headers(), b'{"request_id":"R-1"}')
    told = read([("content-type", b"application/cloudevents+json; charset=utf-8")], document())
    assert told == (binary, body)
    assert binary.time == datetime(2026, 6, 15, 13, 30, tzinfo=UTC)


@pytest.mark.parametrize("missing", ["ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time"])
@pytest.mark.parametrize("value", [None, b""])
def test_an_attribute_that_is_missing_or_empty_is_named(missing: str, value: bytes | None) -> None:
    with pytest.raises(NotAnEvent, match=missing.removeprefix("ce_")):
        read(headers(**{missing: value}), b"{}")


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_what_does_not_say_when_it_happened_had_by_then_when_kafka_had_it(mode: str) -> None:
    recorded = datetime(2026, 6, 15, 13, 30, 0, 250_000, tzinfo=UTC)
    timestamp = round(recorded.timestamp() * 1000)
    timeless = json.dumps({name: said for name, said in json.loads(document()).items() if name != "time"}).encode()
    told = {
        "binary": (headers(ce_time=None), b"{}"),
        "structured": ([("content-type", b"application/cloudevents+json")], timeless),
    }[mode]
    assert read(*told, timestamp)[0].time == recorded
    with pytest.raises(NotAnEvent, match="time"):
        read(*told, 10**17)


def test_when_it_happened_is_for_the_source_to_say() -> None:
    assert read(headers(), b"{}", 0)[0].time == datetime(2026, 6, 15, 13, 30, tzinfo=UTC)


@pytest.mark.parametrize("attribute", ["ce_id", "ce_source", "ce_type", "ce_subject"])
@pytest.mark.parametrize("value", [b"\xff\xfe", b"a\x00b", b"a\nb", b"a\x7fb", b"x" * 513, b"\xed\xa0\x80"], ids=repr)
def test_an_attribute_that_is_no_plain_text_is_refused(attribute: str, value: bytes) -> None:
    with pytest.raises(NotAnEvent, match=attribute.removeprefix("ce_")):
        read(headers(**{attribute: value}), b"{}")


@pytest.mark.parametrize("attribute", ["id", "source", "type", "subject"])
@pytest.mark.parametrize("value", ["a\ud800b", "a\x00b", "x" * 513], ids=repr)
def test_an_attribute_of_structured_mode_that_is_no_plain_text_is_refused(attribute: str, value: str) -> None:
    with pytest.raises(NotAnEvent, match=attribute):
        read_structured(document(**{attribute: value}))


@pytest.mark.parametrize("version", ["0.3", "1", "1.0.2", "2.0", "1.0 ", "١.٠"])
def test_only_version_1_0_of_the_envelope_is_read(version: str) -> None:
    with pytest.raises(NotAnEvent, match="specversion"):
        read(headers(ce_specversion=version), b"{}")


@pytest.mark.parametrize(
    "time",
    [
        "yesterday",
        "2026-06-15",
        "2026-06-15T09:30:00",
        "2026-13-01T00:00:00Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "2026-06-15T09:30:00+99:99",
        "\x00",
    ],
    ids=repr,
)
def test_a_time_that_is_no_moment_is_refused(time: str) -> None:
    with pytest.raises(NotAnEvent, match="time"):
        read(headers(ce_time=time), b"{}")


@pytest.mark.parametrize("sequence", ["0", "-1", "+1", "1.5", "1e3", " 1", "1\n", "", "٣", "1_000", "9" * 19])
def test_a_sequence_that_does_not_count_from_one_is_refused(sequence: str) -> None:
    with pytest.raises(NotAnEvent, match="sequence"):
        read(headers(ce_sequence=sequence), b"{}")


@pytest.mark.parametrize("sequence", [1, 2**53, 10**18 - 1])
def test_a_sequence_that_counts_from_one_is_read(sequence: int) -> None:
    envelope, _ = read(headers(ce_sequence=str(sequence)), b"{}")
    assert envelope.sequence == sequence


def test_a_sequence_may_be_a_number_in_structured_mode() -> None:
    envelope, _ = read_structured(document(sequence=7))
    assert envelope.sequence == 7


@pytest.mark.parametrize("traceparent", ["", "00-xyz-01", TRACEPARENT.upper(), TRACEPARENT + "\n", "00" * 3000])
def test_a_malformed_trace_is_dropped_and_the_event_read(traceparent: str) -> None:
    envelope, _ = read(headers(ce_traceparent=traceparent), b"{}")
    assert envelope.traceparent is None


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"id":' * 50_000,
        b"1" * 10_000,
        document(data="\ud800"),
        document(specversion=1.0),
        document(specversion=True),
        document(id=None),
        document(id=["e-1"]),
        document(time=1750000000),
        document().replace(b'"data"', b'"data_base64"'),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_value_that_is_no_event_in_structured_mode_is_refused(value: bytes | None) -> None:
    with pytest.raises(NotAnEvent):
        read([("content-type", b"application/cloudevents+json")], value)


def test_a_null_value_is_no_event() -> None:
    with pytest.raises(NotAnEvent, match="null"):
        read(headers(), None)


def read_or_refused(given_headers: list[tuple[str, bytes | None]], value: bytes | None) -> None:
    """Reading ends in NotAnEvent, or in an envelope that is plain text throughout and survives being written again."""
    try:
        envelope, body = read(given_headers, value)
    except NotAnEvent:
        return
    for attribute in (envelope.id, envelope.source, envelope.type, envelope.subject, envelope.traceparent or ""):
        assert not CONTROL.search(attribute)
    assert envelope.time.tzinfo is UTC
    assert read(envelope.headers(), body) == (envelope, body)


NAMES = st.sampled_from([name for name, _ in headers()] + ["ce_sequence", "ce_traceparent", "ce_", "x"]) | st.text()
VALUES = st.none() | st.binary() | st.text(alphabet=st.characters(codec="utf-8")).map(str.encode)


@given(st.lists(st.tuples(NAMES, VALUES)), st.none() | st.binary())
def test_any_headers_and_any_value_are_an_event_or_refused(
    given_headers: list[tuple[str, bytes | None]], value: bytes | None
) -> None:
    read_or_refused(given_headers, value)


@given(NAMES, VALUES, st.binary())
@example("ce_traceparent", (TRACEPARENT + "\n").encode(), b"{}")
def test_a_good_event_with_any_header_changed_is_an_event_or_refused(
    name: str, changed: bytes | None, value: bytes
) -> None:
    read_or_refused([*headers(), (name, changed)], value)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["1.0", "R-1", "\ud800", 10**400]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.just("data"), inner, max_size=4),
    max_leaves=12,
)
MEMBERS = st.sampled_from(["specversion", "id", "source", "type", "subject", "time", "sequence", "traceparent", "data"])


@given(st.dictionaries(MEMBERS | st.text(), JSON))
def test_a_good_document_with_any_members_changed_is_an_event_or_refused(members: dict[str, Any]) -> None:
    read_or_refused([("content-type", b"application/cloudevents+json")], document(**members))


def parsed_or_refused(topic: str, event_type: str, data: bytes) -> None:
    try:
        assert parse(BODIES[topic], event_type, data) is not None
    except ValidationError:
        return


EVENTS = st.sampled_from([(topic, event_type) for topic, bodies in BODIES.items() for event_type in bodies])


@given(EVENTS, st.binary() | JSON.map(json.dumps).map(str.encode))
@example(("engagements", "engagement.planned.v1"), b"[" * 100_000)
def test_any_bytes_are_a_body_or_refused_by_its_schema(event: tuple[str, str], data: bytes) -> None:
    parsed_or_refused(*event, data)


def places(value: Any) -> list[Any]:
    """Keys of an object, indices of an array, nothing else."""
    match value:
        case dict():
            return sorted(cast("dict[str, Any]", value))
        case list():
            return list(range(len(cast("list[Any]", value))))
        case _:
            return []


@given(st.data(), st.sampled_from(EXAMPLES), JSON | st.sampled_from(["0001-01-01T00:00:00+14:00", "9999-12-31", 1e308]))
def test_an_example_with_anything_put_anywhere_is_a_body_or_refused_by_its_schema(
    data: st.DataObject, path: Path, strange: object
) -> None:
    stored = json.loads(path.read_bytes())
    place: Any = stored["data"]
    while True:
        key = data.draw(st.sampled_from(places(place)))
        inner = place[key]
        if not places(inner) or data.draw(st.booleans()):
            break
        place = inner
    place[key] = strange
    parsed_or_refused(path.parent.name, path.stem, json.dumps(stored["data"]).encode())


def test_a_type_that_nobody_knows_has_no_body() -> None:
    assert parse(BODIES["requests"], "request.accepted.v99", b"not even JSON") is None


def test_a_cause_always_names_the_same_consequences() -> None:
    names = [consequence_id(cause, nth) for cause in ("a", "b") for nth in range(50)]
    assert names == [consequence_id(cause, nth) for cause in ("a", "b") for nth in range(50)]
    assert len(set(names)) == len(names)


def test_a_consequence_goes_on_in_its_cause_s_trace_with_a_span_of_its_own() -> None:
    follows = consequence_traceparent(TRACEPARENT, consequence_id("a", 0))
    assert follows is not None
    assert follows.split("-")[:2] == TRACEPARENT.split("-")[:2]
    assert follows.split("-")[2] != TRACEPARENT.split("-")[2]
    event = Envelope("e", "s", "t", "k", datetime(2026, 1, 1, tzinfo=UTC), traceparent=follows)
    assert read(event.headers(), b"{}")[0].traceparent == follows
    assert consequence_traceparent(None, consequence_id("a", 0)) is None
