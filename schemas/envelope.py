"""The envelope of every event: CloudEvents 1.0 over Kafka, apart from the body.

Binary mode (attributes in `ce_*` headers, the body alone as value) is what is written; binary and structured mode are
both read. Sources: CloudEvents specification 1.0.2, its Kafka protocol binding, and its Distributed Tracing and
Sequence extensions.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, cast
from uuid import UUID, uuid5

Header = tuple[str, bytes]

_SPEC_VERSION: Final = "1.0"
_BINARY: Final = "application/json"
_STRUCTURED: Final = "application/cloudevents+json"
_CONSEQUENCES: Final = UUID("6b0e4a3c-3f61-5d0e-9a52-2f1d8c6e7b90")
_LONGEST_ATTRIBUTE: Final = 512
_UNPRINTABLE: Final = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_TRACEPARENT: Final = re.compile(r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")


class NotAnEvent(ValueError):
    """The record is no CloudEvent; the message says which attribute is missing or malformed."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """The CloudEvents attributes of one event.

    `time` is when it happened, as its source says. `sequence` counts the events of one key in one topic from 1; it is
    absent from submissions, whose sources are strangers, and from receipts. `traceparent` follows W3C Trace Context.
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
        attributes = [
            ("content-type", _BINARY),
            ("ce_specversion", _SPEC_VERSION),
            ("ce_id", self.id),
            ("ce_source", self.source),
            ("ce_type", self.type),
            ("ce_subject", self.subject),
            ("ce_time", self.time.isoformat().replace("+00:00", "Z")),
        ]
        if self.sequence is not None:
            attributes.append(("ce_sequence", str(self.sequence)))
        if self.traceparent is not None:
            attributes.append(("ce_traceparent", self.traceparent))
        return [(name, value.encode()) for name, value in attributes]


def read(headers: Iterable[tuple[str, bytes | None]], value: bytes | None) -> tuple[Envelope, bytes]:
    """The envelope and the body's JSON of a Kafka record in binary or structured mode.

    Raises NotAnEvent where an attribute the specification requires is missing or malformed.
    """
    named = dict(headers)
    content_type = _text(named, "content-type") or ""
    if content_type.startswith(_STRUCTURED):
        return read_structured(value)
    if value is None:
        raise NotAnEvent("the value is null: an event has a body")
    prefix = len("ce_")
    attributes: dict[str, str] = {}
    for name in named:
        if name.startswith("ce_"):
            text = _text(named, name)
            if text is not None:
                attributes[name[prefix:]] = text
    return _envelope(attributes), value


def read_structured(value: bytes | None) -> tuple[Envelope, bytes]:
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
    return _envelope(attributes), body


def _envelope(attributes: dict[str, str]) -> Envelope:
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
        time=_time(attributes.get("time")),
        sequence=None if sequence is None else _sequence(sequence),
        traceparent=traceparent if traceparent is not None and _TRACEPARENT.fullmatch(traceparent) else None,
    )


def _text(headers: dict[str, bytes | None], name: str) -> str | None:
    raw = headers.get(name)
    if raw is None:
        return None
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise NotAnEvent(f"header {name!r} is not UTF-8") from None


def _attribute(attributes: dict[str, str], name: str) -> str | None:
    value = attributes.get(name)
    if value is None:
        return None
    if len(value) > _LONGEST_ATTRIBUTE:
        raise NotAnEvent(f"attribute {name!r} is longer than {_LONGEST_ATTRIBUTE} characters")
    if _UNPRINTABLE.search(value):
        raise NotAnEvent(f"attribute {name!r} holds a control character or a lone surrogate")
    return value


def _required(attributes: dict[str, str], name: str) -> str:
    value = _attribute(attributes, name)
    if not value:
        raise NotAnEvent(f"attribute {name!r} is missing")
    return value


def _time(text: str | None) -> datetime:
    if text is None:
        raise NotAnEvent("attribute 'time' is missing")
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


def consequence_id(cause: str, nth: int) -> str:
    """The id of the nth fact that follows from a cause: handling the cause twice names the same facts."""
    return str(uuid5(_CONSEQUENCES, f"{cause}#{nth}"))


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
        "time": envelope.time.isoformat().replace("+00:00", "Z"),
        "datacontenttype": _BINARY,
    }
    if envelope.sequence is not None:
        document["sequence"] = str(envelope.sequence)
    if envelope.traceparent is not None:
        document["traceparent"] = envelope.traceparent
    return document | {"data": body}
