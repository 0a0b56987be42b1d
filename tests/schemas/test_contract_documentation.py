"""Every event says what it is for, every field what its name does not."""

import inspect
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest

from schemas.body import Body
from services.console.contract import BODIES, json_schemas

EVENTS: Final = [(topic, body) for topic, bodies in BODIES.items() for body in bodies.values()]

# fmt: off
SAYS_ITSELF: Final = frozenset({
    "acronym", "attended_in_person", "attended_virtually", "clock", "conflict_id", "delivered_on", "detail",
    "due", "email", "employments", "end", "expert_id", "expert_ids", "experts", "first", "goals", "goals_met",
    "held_on", "host_facilities", "id", "in_person", "knowledge_increased", "last", "latitude", "longitude",
    "match_id", "missing", "name", "on_hold", "on_site", "ori", "partner_id", "plan_version", "reason",
    "reasons", "refer_to", "role", "roles", "ruling", "says", "selected", "session_id", "sessions", "signed_on",
    "skills", "start", "state", "submission_id", "submission_source", "submission_type", "submitted_at",
    "telephone", "title", "topic", "topics", "virtual", "would_help",
})
# fmt: on
"""Fields whose name is the field's own word, see the vocabulary, or is told by the part they are in."""


@pytest.mark.parametrize(("topic", "body"), EVENTS, ids=[f"{topic}/{body.TYPE}" for topic, body in EVENTS])
def test_an_event_has_a_sentence_of_its_own_and_a_type_in_the_past_tense_s_place(topic: str, body: type[Body]) -> None:
    assert topic == body.TOPIC
    assert re.fullmatch(r"[a-z]+(_[a-z]+)*\.[a-z]+(_[a-z]+)*\.v[1-9][0-9]*", body.TYPE)
    says = inspect.cleandoc(body.__dict__["__doc__"] or "")
    assert re.fullmatch(r"[A-Z].{15,}\.", says, flags=re.DOTALL), "a whole sentence, not inherited"


def properties(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for part in (schema, *schema.get("$defs", {}).values()):
        yield from part.get("properties", {}).items()


def described(rules: dict[str, Any]) -> bool:
    return "description" in rules or any("$ref" in option for option in (rules, *rules.get("anyOf", ())))


def test_every_part_of_every_event_is_described() -> None:
    for name, schema in json_schemas().items():
        for part, rules in schema.get("$defs", {}).items():
            assert rules.get("description"), f"{part} in {name}"


def test_every_field_is_described_where_its_name_does_not_say_it() -> None:
    fields = [field for schema in json_schemas().values() for field in properties(schema)]
    somewhere = {name for name, rules in fields if described(rules)}
    assert {name for name, _ in fields} - somewhere - SAYS_ITSELF == set()


def test_no_field_is_excused_from_a_description_that_does_not_exist() -> None:
    assert {name for schema in json_schemas().values() for name, _ in properties(schema)} >= SAYS_ITSELF
