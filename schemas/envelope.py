"""The envelope of every event: CloudEvents 1.0 over Kafka, apart from the body.

Binary mode (attributes in `ce_*` headers, the body alone as value) is what is written; binary and structured mode are
both read. Sources: CloudEvents specification 1.0.2, its Kafka protocol binding, and its Distributed Tracing and
Sequence extensions.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, NamedTuple, cast
from uuid import UUID

Header = tuple[str, bytes]

_SPEC_VERSION: Final = "1.0"
_BINARY: Final = "application/json"
_STRUCTURED: Final = "application/cloudevents+json"
_READ: Final = {
    name: f"ce_{name}" for name in ("specversion", "id", "source", "type", "subject", "time", "sequence", "traceparent")
}
_CONSEQUENCES: Final = hashlib.sha1(UUID("6b0e4a3c-3f61-5d0e-9a52-2f1d8c6e7b90").bytes, usedforsecurity=False)
_LONGEST_ATTRIBUTE: Final = 512
"""Bytes in UTF-8: source and id together are a key of an index, which in PostgreSQL has an end."""
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_TRACEPARENT: Final = re.compile(r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")


class NotAnEvent(ValueError):
    """The record is no CloudEvent; the message says which attribute is missing or malformed."""


class Envelope(NamedTuple):
    """The CloudEvents attributes of one event.

    `time` is when it happened, as its source says; where it does not say, when Kafka had it. `sequence` counts the
    events of one key in one topic from 1; it is absent from submissions, whose sources are strangers, and from
    receipts. `traceparent` follows W3C Trace Context.
    """

    id: str
    source: str
    type: str
    subject: str
    time: datetime
    sequence: int | None = None
    traceparent: str | None = None

    def headers(self) -> list[Header]:
        """The Kafka headers of binary mode."""
        return [
            *shared_headers(self.source, self.type, self.time),
            *own_headers(self.id, self.subject, self.sequence, self.traceparent),
        ]


def shared_headers(source: str, event_type: str, time: datetime) -> list[Header]:
    """The headers that events of a type have in common which one source publishes at one time."""
    return [
        ("content-type", _BINARY.encode()),
        ("ce_specversion", _SPEC_VERSION.encode()),
        ("ce_source", source.encode()),
        ("ce_type", event_type.encode()),
        ("ce_time", _rfc3339(time).encode()),
    ]


def own_headers(event_id: str, subject: str, sequence: int | None, traceparent: str | None) -> list[Header]:
    """The headers that each event has of its own."""
    headers = [("ce_id", event_id.encode()), ("ce_subject", subject.encode())]
    if sequence is not None:
        headers.append(("ce_sequence", b"%d" % sequence))
    if traceparent is not None:
        headers.append(("ce_traceparent", traceparent.encode()))
    return headers


def _rfc3339(time: datetime) -> str:
    return time.astimezone(UTC).isoformat().replace("+00:00", "Z")


def read(
    headers: Iterable[tuple[str, bytes | None]], value: bytes | None, timestamp: int | None = None
) -> tuple[Envelope, bytes]:
    """The envelope and the body's JSON of a Kafka record in binary or structured mode.

    `timestamp` is the record's own, in milliseconds since 1970; without it the attribute `time` has to be there, which
    the specification leaves to the source. Raises NotAnEvent where a required attribute is missing or one is malformed.
    """
    named = dict(headers)
    try:
        if value is not None and named["content-type"] == b"application/json" and named["ce_specversion"] == b"1.0":
            return _usual(named), value
    except (KeyError, AttributeError, ValueError):
        pass
    return _read_carefully(named, value, timestamp)


def _usual(headers: Mapping[str, bytes | None]) -> Envelope:
    """The envelope of an event as the services write it. Raises KeyError, AttributeError, ValueError for others.

    Most events are read here: what is of a batch rather than of an event is remembered.
    """
    sequence, traceparent = headers.get("ce_sequence"), headers.get("ce_traceparent")
    return Envelope(
        _plain(cast(bytes, headers["ce_id"])),
        _remembered_text(cast(bytes, headers["ce_source"])),
        _remembered_text(cast(bytes, headers["ce_type"])),
        _plain(cast(bytes, headers["ce_subject"])),
        _remembered_time(cast(bytes, headers["ce_time"])),
        None if sequence is None else _sequence(sequence.decode()),
        None if traceparent is None else _traceparent(traceparent.decode()),
    )


def _plain(raw: bytes) -> str:
    text = raw.decode()
    if not 0 < len(raw) <= _LONGEST_ATTRIBUTE or not text.isprintable():
        raise ValueError
    return text


_remembered_text = lru_cache(maxsize=1024)(_plain)


@lru_cache(maxsize=1024)
def _remembered_time(raw: bytes) -> datetime:
    return _time(raw.decode())


def _read_carefully(
    named: Mapping[str, bytes | None], value: bytes | None, timestamp: int | None
) -> tuple[Envelope, bytes]:
    """The same for every record, saying what is wrong where it is no event. Raises NotAnEvent."""
    if (named.get("content-type") or b"").startswith(_STRUCTURED.encode()):
        return read_structured(value, timestamp)
    if value is None:
        raise NotAnEvent("the value is null: an event has a body")
    attributes: dict[str, str] = {}
    for name, header in _READ.items():
        raw = named.get(header)
        if raw is not None:
            try:
                attributes[name] = raw.decode()
            except UnicodeDecodeError:
                raise NotAnEvent(f"header {header!r} is not UTF-8") from None
    return _envelope(attributes, timestamp), value


def read_structured(value: bytes | None, timestamp: int | None = None) -> tuple[Envelope, bytes]:
    """The envelope and the body's JSON of one event in the CloudEvents JSON format. Raises NotAnEvent."""
    if value is None:
        raise NotAnEvent("the value is null: an event in structured mode is a JSON object")
    try:
        document: object = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise NotAnEvent(f"the value is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise NotAnEvent("the value is not a JSON object")
    members = cast("dict[str, object]", document)
    if "data" not in members:
        raise NotAnEvent("the member 'data' is missing")
    attributes = {
        name: str(member)
        for name, member in members.items()
        if isinstance(member, str | int) and not isinstance(member, bool) and name != "data"
    }
    try:
        body = json.dumps(members["data"], separators=(",", ":"), ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise NotAnEvent(f"the member 'data' cannot be encoded as UTF-8: {error}") from None
    return _envelope(attributes, timestamp), body


def _envelope(attributes: Mapping[str, str], timestamp: int | None) -> Envelope:
    version = _required(attributes, "specversion")
    if version != _SPEC_VERSION:
        raise NotAnEvent(f"specversion is {version[:20]!r}: only {_SPEC_VERSION} is read")
    sequence = attributes.get("sequence")
    traceparent = attributes.get("traceparent")
    return Envelope(
        id=_required(attributes, "id"),
        source=_required(attributes, "source"),
        type=_required(attributes, "type"),
        subject=_attribute(attributes, "subject") or "",
        time=_time(attributes["time"]) if "time" in attributes else _received(timestamp),
        sequence=None if sequence is None else _sequence(sequence),
        traceparent=None if traceparent is None else _traceparent(traceparent),
    )


def _attribute(attributes: Mapping[str, str], name: str) -> str | None:
    value = attributes.get(name)
    if value is None:
        return None
    if len(value.encode(errors="surrogatepass")) > _LONGEST_ATTRIBUTE:
        raise NotAnEvent(f"attribute {name!r} is longer than {_LONGEST_ATTRIBUTE} bytes")
    if not value.isprintable() and _UNPRINTABLE.search(value):
        raise NotAnEvent(f"attribute {name!r} holds a control character or a lone surrogate")
    return value


def _required(attributes: Mapping[str, str], name: str) -> str:
    value = _attribute(attributes, name)
    if not value:
        raise NotAnEvent(f"attribute {name!r} is missing")
    return value


def _received(timestamp: int | None) -> datetime:
    try:
        if timestamp is not None:
            return datetime.fromtimestamp(timestamp / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    raise NotAnEvent("attribute 'time' is missing")


def _time(text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None:
            raise NotAnEvent(f"attribute 'time' has no UTC offset: {text[:40]!r}")
        return time.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        if isinstance(error, NotAnEvent):
            raise
        raise NotAnEvent(f"attribute 'time' is not an RFC 3339 timestamp: {text[:40]!r}") from None


def _sequence(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) < 1:
        raise NotAnEvent(f"attribute 'sequence' is not a positive whole number: {text[:40]!r}")
    return int(text)


def _traceparent(text: str) -> str | None:
    """The trace, unless it is malformed: nobody loses an event over that."""
    return text if _TRACEPARENT.fullmatch(text) else None


def consequence_id(cause: str, nth: int) -> str:
    """The id of the nth fact that follows from a cause: handling the cause twice names the same facts.

    A version 5 UUID (RFC 9562, section 5.5), which `uuid.uuid5` makes at several times the cost.
    """
    hashed = _CONSEQUENCES.copy()
    hashed.update(f"{cause}#{nth}".encode())
    digits = hashed.hexdigest()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


def consequence_traceparent(traceparent: str | None, consequence: str) -> str | None:
    """The trace goes on in the same trace id, with a span id of the consequence's own."""
    if traceparent is None:
        return None
    version, trace_id, _, flags = traceparent.split("-")
    return f"{version}-{trace_id}-{UUID(consequence).hex[:16]}-{flags}"


def structured(envelope: Envelope, body: object) -> dict[str, object]:
    """The event as one JSON object in the CloudEvents JSON format, for files and people."""
    document: dict[str, object] = {
        "specversion": _SPEC_VERSION,
        "id": envelope.id,
        "source": envelope.source,
        "type": envelope.type,
        "subject": envelope.subject,
        "time": _rfc3339(envelope.time),
        "datacontenttype": _BINARY,
    }
    if envelope.sequence is not None:
        document["sequence"] = str(envelope.sequence)
    if envelope.traceparent is not None:
        document["traceparent"] = envelope.traceparent
    return document | {"data": body}
