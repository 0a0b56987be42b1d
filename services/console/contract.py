"""The contract for people and tools of other languages: JSON Schemas and an AsyncAPI document, made from the models.

What lies in `schemas/json` is the published record. `write` brings it up to date with the models, and refuses to where
a published version would come to mean something else: such a change is a new version beside the old one.
Sources: JSON Schema 2020-12; AsyncAPI 3.0.0 with its Kafka bindings 0.5.0; CloudEvents 1.0.2, Kafka protocol binding.
"""

import inspect
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import yaml
from pydantic.json_schema import GenerateJsonSchema

from schemas import engagements, matches, receipts, requests, roster, submissions
from schemas.body import Body
from schemas.topics import DEAD_SUFFIX, ENGAGEMENTS, MATCHES, RECEIPTS, REQUESTS, ROSTER, SUBMISSIONS, TOPICS, Topic

Json: TypeAlias = dict[str, Any]

BODIES: Final[dict[str, Mapping[str, type[Body]]]] = {
    SUBMISSIONS.name: submissions.BODIES,
    RECEIPTS.name: receipts.BODIES,
    REQUESTS.name: requests.BODIES,
    ROSTER.name: roster.BODIES,
    MATCHES.name: matches.BODIES,
    ENGAGEMENTS.name: engagements.BODIES,
}
"""Every event there is: topic to type to body."""

# The edition of the document as a whole; each event carries the version of its own schema in its type.
_EDITION: Final = "1.0.0"
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_ASYNCAPI: Final = "asyncapi.yaml"
_JSON_FOLDER: Final = "json"
_KAFKA_BINDING: Final = "0.5.0"
_DAY_MS: Final = 24 * 60 * 60 * 1000
_MADE_BY: Final = "# Made from schemas/*.py by `fieldbridge schemas write`: change the models, not this file.\n"


class PublishedContractBroken(Exception):
    """The models no longer mean what was published; each line of the message names an event and what would break."""

    def __init__(self, breaks: list[str]) -> None:
        super().__init__(
            "\n".join(
                [*breaks, "Publish a new version beside the old one (type `....v2`) and keep the old one as it was."]
            )
        )
        self.breaks = breaks


def write(folder: Path) -> list[str]:
    """Writes what is stale under the folder of the schemas; returns the paths written.

    Raises PublishedContractBroken, and writes nothing, where a published schema would be broken.
    """
    breaks = list(_broken(folder / _JSON_FOLDER))
    if breaks:
        raise PublishedContractBroken(breaks)
    written = stale(folder)
    files = _files()
    for name in written:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(files[name], encoding="utf-8")
    return written


def stale(folder: Path) -> list[str]:
    """Paths under the folder of the schemas that are missing, differ from the models, or belong to no model."""
    files = _files()
    found = {path.relative_to(folder).as_posix() for path in (folder / _JSON_FOLDER).rglob("*.json")}
    differing = {
        name
        for name, text in files.items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text
    }
    return sorted(differing | found - files.keys())


def _files() -> dict[str, str]:
    schemas = {
        f"{_JSON_FOLDER}/{name}.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
        for name, schema in json_schemas().items()
    }
    document = yaml.dump(
        asyncapi_document(), Dumper=_WithoutAliases, sort_keys=False, allow_unicode=True, width=120, line_break="\n"
    )
    return schemas | {_ASYNCAPI: _MADE_BY + document}


class _WithoutAliases(yaml.SafeDumper):
    """Writes what occurs twice twice: an alias is harder to read."""

    def ignore_aliases(self, data: object) -> bool:
        return True


# JSON Schemas


class _PlainSchema(GenerateJsonSchema):
    """Leaves out titles of fields: they only repeat the field's name."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def json_schemas() -> dict[str, Json]:
    """The JSON Schema (2020-12) of every event's body, by `<topic>/<type>`."""
    return {
        f"{topic}/{event_type}": _json_schema(topic, event_type, body)
        for topic, bodies in BODIES.items()
        for event_type, body in bodies.items()
    }


def _json_schema(topic: str, event_type: str, body: type[Body]) -> Json:
    made = body.model_json_schema(schema_generator=_PlainSchema)
    head: Json = {
        "$schema": _DIALECT,
        "$id": f"urn:fieldbridge:{topic}:{event_type}",
        "title": made.pop("title"),
        "description": made.pop("description"),
    }
    parts: dict[str, Json] | None = made.pop("$defs", None)
    if parts is not None and body.UNKNOWN_FIELDS == "ignore":
        # A reader of facts passes over fields it does not know in their parts, too.
        parts = {
            name: {rule: said for rule, said in part.items() if rule != "additionalProperties"}
            for name, part in parts.items()
        }
    return head | made | ({} if parts is None else {"$defs": parts})


# AsyncAPI


def asyncapi_document() -> Json:
    """The AsyncAPI 3.0 document: a channel per topic with its messages, and what each service reads and publishes."""
    return {
        "asyncapi": "3.0.0",
        "id": "urn:fieldbridge",
        "info": {
            "title": "Fieldbridge",
            "version": _EDITION,
            "description": "Technical assistance for law-enforcement agencies as events on Kafka. Other systems write "
            "to `submissions` and read everything else. Events are CloudEvents 1.0 in binary mode; structured mode is "
            "read too. A published version of an event only ever gains optional fields; a reader passes over fields "
            "it does not know.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "local": {
                "host": "127.0.0.1:9092",
                "protocol": "kafka",
                "description": "Where a stack on this machine listens unless told otherwise; `fieldbridge up` "
                "prints the address. A topic prefix, where one is set, comes before every address here.",
            }
        },
        "channels": {topic.name: _channel(topic) for topic in TOPICS}
        | {topic.name + DEAD_SUFFIX: _dead_channel(topic) for topic in TOPICS},
        "operations": dict(operation for topic in TOPICS for operation in _operations(topic)),
        "components": {
            "schemas": {"cloudEvent": _cloud_event_headers()},
            "messages": {"parked": _parked_message()},
        },
    }


def _channel(topic: Topic) -> Json:
    return {
        "address": topic.name,
        "description": f"{topic.holds[0].upper()}{topic.holds[1:]}. Published by {topic.publisher}.",
        "messages": {event_type: _message(topic, body) for event_type, body in BODIES[topic.name].items()},
        "bindings": _topic_binding(topic.name, topic.partitions, topic.retention_days),
    }


def _topic_binding(name: str, partitions: int, retention_days: int | None) -> Json:
    return {
        "kafka": {
            "topic": name,
            "partitions": partitions,
            "topicConfiguration": {
                "cleanup.policy": ["delete"],
                "retention.ms": -1 if retention_days is None else retention_days * _DAY_MS,
            },
            "bindingVersion": _KAFKA_BINDING,
        }
    }


def _message(topic: Topic, body: type[Body]) -> Json:
    of_its_own: Json = {"properties": {"ce_type": {"const": body.TYPE}}}
    if topic.sequenced:
        of_its_own["required"] = ["ce_sequence"]
    return {
        "name": body.TYPE,
        "title": body.__name__,
        "summary": inspect.getdoc(body),
        "contentType": "application/json",
        "headers": {"allOf": [{"$ref": "#/components/schemas/cloudEvent"}, of_its_own]},
        "payload": {"$ref": f"./{_JSON_FOLDER}/{topic.name}/{body.TYPE}.json"},
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": f"The {topic.key}; the same as ce_subject."},
                "bindingVersion": _KAFKA_BINDING,
            }
        },
    }


def _cloud_event_headers() -> Json:
    def text(says: str, **rules: object) -> Json:
        return {"type": "string", "description": says, **rules}

    return {
        "type": "object",
        "description": "CloudEvents attributes in the record's headers, each as UTF-8 text.",
        "required": ["ce_specversion", "ce_id", "ce_source", "ce_type"],
        "properties": {
            "content-type": text("Media type of the value.", const="application/json"),
            "ce_specversion": text("Version of CloudEvents.", const="1.0"),
            "ce_id": text("Unique within the source: the same source and id are the same event.", maxLength=512),
            "ce_source": text("The system that says it.", format="uri-reference", maxLength=512),
            "ce_type": text("Type and version of the event.", maxLength=512),
            "ce_subject": text("Id of what the event is about; the same as the record's key.", maxLength=512),
            "ce_time": text("When it happened, with a UTC offset; without it, when Kafka had it.", format="date-time"),
            "ce_sequence": text("Counts the events of one key in one topic from 1.", pattern="^[0-9]{1,18}$"),
            "ce_traceparent": text("W3C Trace Context.", pattern="^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"),
        },
    }


def _dead_channel(topic: Topic) -> Json:
    return {
        "address": topic.name + DEAD_SUFFIX,
        "description": f"Copies of what a service could not handle of `{topic.name}`, bytes and headers unchanged.",
        "messages": {"parked": {"$ref": "#/components/messages/parked"}},
        "bindings": _topic_binding(topic.name + DEAD_SUFFIX, partitions=1, retention_days=topic.retention_days),
    }


def _parked_message() -> Json:
    says = {
        "fieldbridge_parked_by": "Service that could not handle it.",
        "fieldbridge_reason": "unreadable, refused, gap or behind.",
        "fieldbridge_detail": "What is wrong, in plain words.",
        "fieldbridge_partition": "Partition it was read from.",
        "fieldbridge_offset": "Offset it was read at.",
    }
    return {
        "name": "parked",
        "summary": "A record as it came, with headers of its own beside those it had.",
        "contentType": "application/octet-stream",
        "headers": {
            "type": "object",
            "required": list(says),
            "properties": {name: {"type": "string", "description": text} for name, text in says.items()},
        },
    }


def _operations(topic: Topic) -> Iterator[tuple[str, Json]]:
    def operation(action: str, channel: str, summary: str) -> Json:
        return {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "summary": summary}

    if topic is not SUBMISSIONS:
        name = f"{topic.publisher}.publishes.{topic.name}"
        yield name, operation("send", topic.name, f"The service {topic.publisher} publishes {topic.holds}.")
    for reader in topic.readers:
        summary = f"The service {reader} reads {topic.holds}."
        yield f"{reader}.reads.{topic.name}", operation("receive", topic.name, summary)
        dead = topic.name + DEAD_SUFFIX
        summary = f"The service {reader} sets aside what it could not handle of `{topic.name}`."
        yield f"{reader}.parks.{topic.name}", operation("send", dead, summary)


# What would break those who rely on a published schema


def _broken(folder: Path) -> Iterator[str]:
    current = json_schemas()
    for path in sorted(folder.rglob("*.json")):
        name = path.relative_to(folder).as_posix().removesuffix(".json")
        if name not in current:
            yield f"{name}: published, and gone from the models"
            continue
        try:
            published = json.loads(path.read_bytes())
        except ValueError:
            yield f"{name}: the published file is not JSON; restore it"
            continue
        kept_for_ever = not name.startswith(f"{SUBMISSIONS.name}/")
        for change in breaking_changes(published, current[name], read_by_others=kept_for_ever):
            yield f"{name}: {change}"


def breaking_changes(published: Json, current: Json, *, read_by_others: bool) -> list[str]:
    """Why the current schema may not take the place of the published one; empty where it may.

    All that was valid must stay valid and keep its meaning: no field removed or newly required, no type, value or bound
    narrowed, no default changed. Where others read the event with the published schema, they must also understand what
    is written from now on: nothing widened, nothing new in a part that is closed. Keywords unknown here must not
    change.
    """
    old, new = _Schema.of(published), _Schema.of(current)
    changes = list(_refusals(old, new, "", kept=True))
    if read_by_others:
        changes += [f"for readers of today, {change}" for change in _refusals(new, old, "", kept=False)]
    return list(dict.fromkeys(changes))


_NOTES: Final = frozenset({"$schema", "$id", "$defs", "title", "description", "default", "examples", "deprecated"})
_LOWER: Final = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems"})
_UPPER: Final = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems"})
_STRUCTURE: Final = frozenset({"type", "enum", "const", "properties", "required", "additionalProperties", "items"})


@dataclass(frozen=True)
class _Schema:
    """A schema within its document, references followed."""

    document: Json
    rules: Json

    @classmethod
    def of(cls, document: Json) -> "_Schema":
        return cls(document, document).at(document)

    def at(self, rules: Json) -> "_Schema":
        while "$ref" in rules:
            target: Any = self.document
            for step in rules["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            rules = target | {name: rule for name, rule in rules.items() if name != "$ref"}
        return _Schema(self.document, rules)

    @property
    def alternatives(self) -> list["_Schema"]:
        return [self.at(option) for option in self.rules["anyOf"]] if "anyOf" in self.rules else [self]

    @property
    def values(self) -> list[object] | None:
        return [self.rules["const"]] if "const" in self.rules else self.rules.get("enum")

    @property
    def fields(self) -> Json:
        return self.rules.get("properties", {})

    @property
    def closed(self) -> bool:
        return self.rules.get("additionalProperties") is False


def _refusals(written: _Schema, read: _Schema, where: str, *, kept: bool) -> Iterator[str]:
    """What a writer may say that a reader refuses; where it is to be `kept`, also what the reader would lose."""
    if kept and written.rules.get("default") != read.rules.get("default"):
        yield f"{where or 'the body'}: absent meant {written.rules.get('default')!r} and means another thing"
    options = read.alternatives
    for alternative in written.alternatives:
        refusals = [list(_narrowed(alternative, option, where, kept=kept)) for option in options]
        if all(refusals):
            yield from min(refusals, key=len)


def _narrowed(written: _Schema, read: _Schema, where: str, *, kept: bool) -> Iterator[str]:
    place = where or "the body"
    said, wanted = written.rules.get("type"), read.rules.get("type")
    if wanted is not None and said != wanted and (said, wanted) != ("integer", "number"):
        yield f"{place}: {said or 'anything'} was allowed and only {wanted} is"
        return
    if read.values is not None:
        gone = (
            ["anything"] if written.values is None else [repr(one) for one in written.values if one not in read.values]
        )
        if gone:
            yield f"{place}: {', '.join(gone)} was allowed and no longer is"
    for rule in sorted(read.rules.keys() - _NOTES - _STRUCTURE - {"anyOf"}):
        if _tighter(rule, written.rules.get(rule), read.rules[rule]):
            yield f"{place}: {rule} was {written.rules.get(rule)!r} and is {read.rules[rule]!r}"
    yield from _narrowed_fields(written, read, where, kept=kept)
    if "items" in read.rules:
        inner = written.at(written.rules.get("items", {}))
        yield from _refusals(inner, read.at(read.rules["items"]), f"{where}[]", kept=kept)


def _tighter(rule: str, before: Any, now: Any) -> bool:
    if before is not None and rule in _LOWER:
        return now > before
    if before is not None and rule in _UPPER:
        return now < before
    return before != now


def _narrowed_fields(written: _Schema, read: _Schema, where: str, *, kept: bool) -> Iterator[str]:
    prefix = f"{where}." if where else ""
    for name in sorted(set(read.rules.get("required", ())) - set(written.rules.get("required", ()))):
        yield f"{prefix}{name}: could be absent and is required"
    for name, rules in written.fields.items():
        if name in read.fields:
            yield from _refusals(written.at(rules), read.at(read.fields[name]), f"{prefix}{name}", kept=kept)
        elif kept or read.closed:
            yield f"{prefix}{name}: {'the field is gone' if kept else 'a field that is unknown there is refused'}"
    if kept and read.closed and not written.closed:
        yield f"{where or 'the body'}: unknown fields were allowed and are refused"
