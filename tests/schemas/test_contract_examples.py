"""The stored examples: one for every event there is, readable in both modes and valid by the published schemas."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import jsonschema
import pytest
from pydantic import ValidationError

from schemas.body import parse
from schemas.envelope import Envelope, read, read_structured, structured
from schemas.topics import SUBMISSIONS, TOPICS
from services.console.contract import BODIES

SCHEMAS = Path(__file__).parents[2] / "schemas"
EXAMPLES = sorted((SCHEMAS / "examples").rglob("*.json"))
SEQUENCED = {topic.name for topic in TOPICS if topic.sequenced}

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")

formats = jsonschema.FormatChecker(["date"])


@formats.checks("date-time")
def is_moment(value: object) -> bool:
    return not isinstance(value, str) or RFC_3339.fullmatch(value) is not None


def name(path: Path) -> str:
    return path.relative_to(SCHEMAS / "examples").with_suffix("").as_posix()


def validator(example: str) -> Any:
    schema = json.loads((SCHEMAS / "json" / f"{example}.json").read_bytes())
    return jsonschema.Draft202012Validator(schema, format_checker=formats)


def load(path: Path) -> tuple[Envelope, bytes]:
    return read_structured(path.read_bytes())


each_example = pytest.mark.parametrize("path", EXAMPLES, ids=name)


def test_every_event_has_an_example_and_every_example_an_event() -> None:
    assert {name(path) for path in EXAMPLES} == {
        f"{topic}/{event_type}" for topic, bodies in BODIES.items() for event_type in bodies
    }


@each_example
def test_an_example_is_the_event_its_file_is_named_after(path: Path) -> None:
    envelope, data = load(path)
    topic, event_type = path.parent.name, path.stem
    body = parse(BODIES[topic], event_type, data)
    assert body is not None
    assert (body.TOPIC, body.TYPE) == (topic, event_type) == (path.parent.name, envelope.type)
    assert envelope.subject == body.subject
    assert (envelope.sequence is not None) == (topic in SEQUENCED)


@each_example
def test_an_example_survives_binary_mode_and_comes_back_as_it_is_stored(path: Path) -> None:
    envelope, data = load(path)
    assert read(envelope.headers(), data) == (envelope, data)
    assert structured(envelope, json.loads(data)) == json.loads(path.read_bytes())


@each_example
def test_what_a_service_writes_of_an_example_means_the_same(path: Path) -> None:
    envelope, data = load(path)
    body = parse(BODIES[path.parent.name], envelope.type, data)
    assert body is not None
    written = body.model_dump_json().encode()
    assert parse(BODIES[path.parent.name], envelope.type, written) == body
    validator(name(path)).validate(json.loads(written))


@each_example
def test_an_example_is_valid_by_its_published_schema(path: Path) -> None:
    validator(name(path)).validate(json.loads(path.read_bytes())["data"])


@each_example
def test_unknown_fields_are_refused_in_submissions_and_passed_over_in_facts(path: Path) -> None:
    envelope, data = load(path)
    bodies = BODIES[path.parent.name]
    with_more = json.dumps(json.loads(data) | {"a_field_of_tomorrow": 1}).encode()
    if path.parent.name == SUBMISSIONS.name:
        with pytest.raises(ValidationError, match="a_field_of_tomorrow"):
            parse(bodies, envelope.type, with_more)
    else:
        assert parse(bodies, envelope.type, with_more) == parse(bodies, envelope.type, data)


def spoilt(value: Any) -> Iterator[Any]:
    """The value with one thing changed, for every place in it: left out, null, of another type, empty, too much.

    Not changed are degrees and the order of days: JSON Schema does not tell what the models ask of them.
    """
    match value:
        case dict():
            members = cast("dict[str, Any]", value)
            for key, member in members.items():
                yield {other: kept for other, kept in members.items() if other != key}
                for changed in spoilt(member):
                    yield members | {key: changed}
            yield from (None, [], "text", members | {"a_field_of_tomorrow": 1})
        case list():
            items = cast("list[Any]", value)
            for index, item in enumerate(items):
                for changed in spoilt(item):
                    yield [*items[:index], changed, *items[index + 1 :]]
            yield from (None, {}, "text", [], items * 500)
        case str():
            yield from (None, {}, [], "", value + "\0", value * 2000)
        case int():
            yield from (None, {}, [], -1, 10**9)
        case _:
            yield from (None, {}, [])


@each_example
def test_models_and_published_schemas_judge_alike_whatever_is_changed_in_an_example(path: Path) -> None:
    envelope, data = load(path)
    judge = validator(name(path))
    for document in spoilt(json.loads(data)):
        try:
            parse(BODIES[path.parent.name], envelope.type, json.dumps(document).encode())
            taken = True
        except ValidationError:
            taken = False
        assert taken == judge.is_valid(document), document


def test_the_facts_of_one_key_follow_one_another_in_time_as_in_sequence() -> None:
    stories: defaultdict[tuple[str, str], list[Envelope]] = defaultdict(list)
    for path in EXAMPLES:
        envelope, _ = load(path)
        if envelope.sequence is not None:
            stories[path.parent.name, envelope.subject].append(envelope)
    for story in stories.values():
        story.sort(key=lambda envelope: envelope.sequence or 0)
        assert [envelope.time for envelope in story] == sorted(envelope.time for envelope in story)
        assert len({envelope.sequence for envelope in story}) == len(story)
    assert max(len(story) for story in stories.values()) > 15, "the examples tell the life of one request"


def contacts(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        if "office" in members:
            yield members
        for member in members.values():
            yield from contacts(member)


def test_examples_name_offices_and_never_persons() -> None:
    named = [contact for path in EXAMPLES for contact in contacts(json.loads(path.read_bytes()))]
    assert named
    for contact in named:
        assert contact.get("name") is None
        assert contact["email"].endswith("@example.gov")
