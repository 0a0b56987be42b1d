"""What is published of the contract: made from the models, valid by its own standards, and never broken unseen."""

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar, cast

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from schemas.topics import SERVICES, SUBMISSIONS, TOPICS
from services.console.contract import (
    BODIES,
    PublishedContractBroken,
    asyncapi_document,
    breaking_changes,
    json_schemas,
    stale,
    write,
)

SCHEMAS = Path(__file__).parents[2] / "schemas"
Json = dict[str, Any]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of what is published, to spoil."""
    shutil.copytree(SCHEMAS / "json", tmp_path / "json")
    shutil.copy(SCHEMAS / "asyncapi.yaml", tmp_path)
    return tmp_path


def edit(path: Path, **changed: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


# Freshness


def test_the_published_files_are_fresh() -> None:
    assert stale(SCHEMAS) == [], "run `fieldbridge schemas write`"


def test_making_the_files_twice_gives_the_same_bytes(tmp_path: Path, copy: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    assert len(write(elsewhere)) == len(json_schemas()) + 1
    for path in elsewhere.rglob("*.*"):
        assert path.read_bytes() == (copy / path.relative_to(elsewhere)).read_bytes()
    assert write(elsewhere) == []


def test_a_file_that_is_missing_or_changed_or_nobody_s_is_stale(copy: Path) -> None:
    (copy / "json/matches/match.proposed.v1.json").unlink()
    edit(copy / "json/requests/plan.cleared.v1.json", description="Edited by hand.")
    (copy / "json/requests/nobody.knows.v1.json").write_text("{}")
    (copy / "asyncapi.yaml").write_text("asyncapi: 3.0.0\n")
    assert stale(copy) == [
        "asyncapi.yaml",
        "json/matches/match.proposed.v1.json",
        "json/requests/nobody.knows.v1.json",
        "json/requests/plan.cleared.v1.json",
    ]


def test_writing_mends_what_is_stale_and_nothing_else(copy: Path) -> None:
    edit(copy / "json/requests/plan.cleared.v1.json", description="Edited by hand.")
    assert write(copy) == ["json/requests/plan.cleared.v1.json"]
    assert stale(copy) == []


def test_writing_refuses_to_break_what_is_published_and_leaves_every_file_as_it_was(copy: Path) -> None:
    published = copy / "json/requests/plan.cleared.v1.json"
    fields = json.loads(published.read_text())["properties"]
    edit(published, properties=fields | {"cleared_by": {"type": "string"}})
    (copy / "json/requests/request.praised.v1.json").write_text("{}")
    (copy / "asyncapi.yaml").unlink()
    before = published.read_bytes()
    with pytest.raises(PublishedContractBroken) as refusal:
        write(copy)
    assert [one.split(":")[0] for one in refusal.value.breaks] == [
        "requests/plan.cleared.v1",
        "requests/request.praised.v1",
    ]
    assert "cleared_by" in refusal.value.breaks[0]
    assert published.read_bytes() == before
    assert not (copy / "asyncapi.yaml").exists()


def test_a_published_file_that_is_no_json_is_named(copy: Path) -> None:
    (copy / "json/requests/plan.cleared.v1.json").write_text("<<<<<<< HEAD")
    with pytest.raises(PublishedContractBroken, match=r"requests/plan\.cleared\.v1: .*not JSON"):
        write(copy)


# JSON Schemas


@pytest.mark.parametrize("name", json_schemas())
def test_a_published_schema_is_a_json_schema_with_a_name_of_its_own(name: str) -> None:
    schema = json.loads((SCHEMAS / "json" / f"{name}.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == "urn:fieldbridge:" + name.replace("/", ":")
    assert schema["description"]


# AsyncAPI


def test_the_asyncapi_document_is_valid_by_asyncapi_s_own_schema() -> None:
    rules = json.loads((Path(__file__).parent / "asyncapi-3.0.0.json").read_text())
    judge: Any = jsonschema.Draft7Validator(rules)
    document = yaml.safe_load((SCHEMAS / "asyncapi.yaml").read_text())
    judge.validate(document)
    document["channels"]["requests"]["bindings"]["kafka"]["partitions"] = 0
    assert not judge.is_valid(document), "the judge judges"


def references(value: Any) -> list[str]:
    match value:
        case dict():
            members = cast("Json", value)
            own = [members["$ref"]] if "$ref" in members else []
            return own + [found for member in members.values() for found in references(member)]
        case list():
            items = cast("list[Any]", value)
            return [found for item in items for found in references(item)]
        case _:
            return []


def test_every_reference_in_the_asyncapi_document_leads_somewhere() -> None:
    document = asyncapi_document()
    found = references(document)
    assert found
    for reference in found:
        if reference.startswith("#/"):
            place: Any = document
            for step in reference.removeprefix("#/").split("/"):
                place = place[step]
        else:
            assert (SCHEMAS / reference).is_file(), reference


def test_the_asyncapi_document_says_what_the_table_of_topics_says() -> None:
    document = asyncapi_document()
    said = {
        (name.split(".")[0], operation["action"], operation["channel"]["$ref"].removeprefix("#/channels/"))
        for name, operation in document["operations"].items()
    }
    reads = {(reader, "receive", topic.name) for topic in TOPICS for reader in topic.readers}
    sends = {(topic.publisher, "send", topic.name) for topic in TOPICS if topic is not SUBMISSIONS}
    parks = {(reader, "send", f"{topic.name}.dead") for topic in TOPICS for reader in topic.readers}
    assert said == reads | sends | parks
    assert {service for service, _, _ in said} == set(SERVICES)
    for topic in TOPICS:
        channel = document["channels"][topic.name]
        assert channel["messages"].keys() == BODIES[topic.name].keys()
        assert channel["bindings"]["kafka"]["partitions"] == topic.partitions
        for message in channel["messages"].values():
            wants_sequence = "ce_sequence" in message["headers"]["allOf"][1].get("required", [])
            assert wants_sequence == topic.sequenced


# What breaks a published schema


def thing(**changed: Any) -> Json:
    """A small published schema: open, one field required, with a closed part."""
    schema: Json = {
        "type": "object",
        "properties": {
            "id": {"type": "string", "maxLength": 10, "pattern": "^[a-z]*$"},
            "kind": {"enum": ["a", "b"], "type": "string"},
            "count": {"type": "integer", "minimum": 1, "maximum": 9},
            "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            "on": {"type": "string", "format": "date"},
            "parts": {"type": "array", "items": {"$ref": "#/$defs/Part"}, "minItems": 1},
        },
        "required": ["id"],
        "$defs": {
            "Part": {
                "type": "object",
                "properties": {"size": {"type": "number"}},
                "required": ["size"],
                "additionalProperties": False,
            }
        },
    }
    return schema | changed


def with_field(name: str, **rules: Any) -> Json:
    return thing(properties=thing()["properties"] | {name: rules})


def with_part(**rules: Any) -> Json:
    return thing(**{"$defs": {"Part": thing()["$defs"]["Part"] | rules}})


def without_field(name: str) -> Json:
    return thing(properties={key: rules for key, rules in thing()["properties"].items() if key != name})


class Breaks:
    """Changes nobody who relies on `thing()` survives."""

    EVERYONE: ClassVar[dict[str, tuple[Json, str]]] = {
        "a field removed": (without_field("count"), "count: the field is gone"),
        "a field of a part removed": (with_part(properties={}, required=[]), "parts[].size: the field is gone"),
        "an old field newly required": (thing(required=["id", "kind"]), "kind: could be absent"),
        "a new required field": (thing(**with_field("new", type="string") | {"required": ["id", "new"]}), "new: could"),
        "another type": (with_field("count", type="string"), "count: integer was allowed"),
        "null no longer allowed": (with_field("note", type="string", default=None), "note: null was allowed"),
        "an enum value removed": (with_field("kind", enum=["a"], type="string"), "kind: 'b' was allowed"),
        "an enum made a constant": (with_field("kind", const="a", type="string"), "kind: 'b' was allowed"),
        "text made an enum": (with_field("id", type="string", enum=["a"]), "id: anything was allowed"),
        "a lower bound raised": (with_field("count", type="integer", minimum=2, maximum=9), "count: minimum"),
        "an upper bound lowered": (with_field("count", type="integer", minimum=1, maximum=8), "count: maximum"),
        "a bound where none was": (with_field("on", type="string", format="date", maxLength=4), "on: maxLength"),
        "another pattern": (with_field("id", type="string", maxLength=10, pattern="^[a-f]*$"), "id: pattern"),
        "another format": (with_field("on", type="string", format="date-time"), "on: format"),
        "a part closed": (thing(additionalProperties=False), "the body: unknown fields were allowed"),
        "a default changed": (
            with_field("note", anyOf=[{"type": "string"}, {"type": "null"}], default=""),
            "note: absent meant None",
        ),
        "a rule this comparison does not know": (
            with_field("on", type="string", format="date", dependentX=1),
            "on: dep",
        ),
    }
    """The change, and how its complaint begins."""

    READERS: ClassVar[dict[str, tuple[Json, str]]] = {
        "an enum value added": (with_field("kind", enum=["a", "b", "c"], type="string"), "kind: 'c'"),
        "null newly allowed": (
            with_field("on", anyOf=[{"type": "string", "format": "date"}, {"type": "null"}]),
            "on: null",
        ),
        "a field newly optional": (thing(required=[]), "id: could be absent"),
        "a wider bound": (with_field("count", type="integer", minimum=0, maximum=9), "count: minimum"),
        "whole numbers made any numbers": (with_field("count", type="number", minimum=1, maximum=9), "count: number"),
        "a new field in a closed part": (
            with_part(properties={"size": {"type": "number"}, "colour": {"type": "string"}}),
            "parts[].colour: a field that is unknown there",
        ),
    }
    """Widenings: harmless where only our services read, not where others read what we write from now on."""


@pytest.mark.parametrize("read_by_others", [False, True])
@pytest.mark.parametrize("change", Breaks.EVERYONE)
def test_a_breaking_change_is_named(change: str, read_by_others: bool) -> None:
    schema, complaint = Breaks.EVERYONE[change]
    found = breaking_changes(thing(), schema, read_by_others=read_by_others)
    assert any(one.startswith(complaint) for one in found), found


@pytest.mark.parametrize("change", Breaks.READERS)
def test_a_widening_breaks_only_those_who_read(change: str) -> None:
    schema, complaint = Breaks.READERS[change]
    assert breaking_changes(thing(), schema, read_by_others=False) == []
    found = breaking_changes(thing(), schema, read_by_others=True)
    assert any(one.startswith(f"for readers of today, {complaint}") for one in found), found


@pytest.mark.parametrize(
    "schema",
    [
        thing(),
        with_field("new", type="string"),
        with_field("new", type="integer", default=3),
        thing(description="Said better.", title="Thing"),
        with_field("on", type="string", format="date", description="The day."),
        with_part(description="Said better."),
    ],
    ids=[
        "nothing",
        "an optional field",
        "an optional field with a default",
        "a note",
        "a field's note",
        "a part's note",
    ],
)
def test_an_addition_that_is_optional_breaks_nobody(schema: Json) -> None:
    assert breaking_changes(thing(), schema, read_by_others=True) == []


@pytest.mark.parametrize("name", json_schemas())
def test_no_published_schema_breaks_itself(name: str) -> None:
    schema = json_schemas()[name]
    assert breaking_changes(schema, schema, read_by_others=True) == []


@pytest.mark.parametrize("name", json_schemas())
def test_losing_any_one_field_breaks_any_published_schema(name: str) -> None:
    schema = json_schemas()[name]
    for lost in schema["properties"]:
        kept = {field: rules for field, rules in schema["properties"].items() if field != lost}
        found = breaking_changes(schema, schema | {"properties": kept}, read_by_others=False)
        assert f"{lost}: the field is gone" in found


def shape(kind: str, rules: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Json]:
    """Schemas of one type, with any of the rules."""
    always: dict[str, st.SearchStrategy[Any]] = {"type": st.just(kind)}
    return st.fixed_dictionaries(always, optional=rules)


NAMES = st.sampled_from("xyz")
NUMBERS = {"minimum": st.integers(0, 3), "maximum": st.integers(2, 5), "enum": st.lists(st.integers(0, 5), min_size=1)}
TEXTS = {"minLength": st.integers(0, 2), "maxLength": st.integers(1, 3), "enum": st.just(["", "a", "bb"])}
SCALARS = shape("integer", NUMBERS) | shape("string", TEXTS) | shape("null", {})
UNIONS = st.lists(SCALARS, min_size=1, max_size=3).map(lambda options: Json(anyOf=options))


def objects(inner: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    fields = st.dictionaries(NAMES, inner, max_size=3)
    required = st.lists(NAMES, unique=True)
    return shape("object", {"properties": fields, "required": required, "additionalProperties": st.just(value=False)})


def arrays(inner: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    return shape("array", {"items": inner, "maxItems": st.integers(0, 2)})


SMALL_SCHEMAS = objects(st.recursive(SCALARS | UNIONS, lambda inner: objects(inner) | arrays(inner), max_leaves=4))
SMALL_VALUES = st.recursive(
    st.none() | st.integers(-1, 6) | st.sampled_from(["", "a", "bb", "ccc", "dddd"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)


def closed(schema: Json) -> Json:
    """The schema of those who say only what it names."""
    inner: Json = {"additionalProperties": False} if schema.get("type") == "object" else {}
    if "properties" in schema:
        inner["properties"] = {name: closed(rules) for name, rules in schema["properties"].items()}
    if "items" in schema:
        inner["items"] = closed(schema["items"])
    return schema | inner


def valid(body: Json, schema: Json) -> bool:
    judge: Any = jsonschema.Draft202012Validator(schema)
    return judge.is_valid(body)


@given(SMALL_SCHEMAS, SMALL_SCHEMAS, st.lists(st.dictionaries(NAMES, SMALL_VALUES), max_size=20))
def test_where_no_break_is_found_all_that_was_said_by_the_published_schema_stays_valid(
    published: Json, current: Json, bodies: list[Json]
) -> None:
    if breaking_changes(published, current, read_by_others=False):
        return
    for body in bodies:
        assert valid(body, current) or not valid(body, closed(published))


@given(SMALL_SCHEMAS, SMALL_SCHEMAS, st.lists(st.dictionaries(NAMES, SMALL_VALUES), max_size=20))
def test_where_no_break_is_found_readers_of_today_understand_all_that_is_written_tomorrow(
    published: Json, current: Json, bodies: list[Json]
) -> None:
    if breaking_changes(published, current, read_by_others=True):
        return
    for body in bodies:
        assert valid(body, published) or not valid(body, closed(current))
