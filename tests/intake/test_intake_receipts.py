"""Every submission gets exactly one receipt, also the one nobody can read, and none of its input comes back."""

import json
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from schemas import receipts
from schemas import submissions as said
from schemas.envelope import Envelope, read_structured
from services.intake import app
from services.intake.handlers import Unusable
from tests.intake.intake_world import NOW, World, closed, contact, executive, kinds, say, submission

EXAMPLES = sorted((Path(__file__).parents[2] / "schemas" / "examples" / "submissions").glob("*.json"))


def envelope(event_type: str) -> Envelope:
    return Envelope("1", "/tests", event_type, "", NOW)


def read(event_type: str, data: bytes) -> said.SubmissionBody | Unusable:
    return app.read_submission(envelope(event_type), data)


def test_every_stored_example_of_a_submission_is_answered_once() -> None:
    assert EXAMPLES
    for example in EXAMPLES:
        told, data = read_structured(example.read_bytes())
        world = World()
        world.hear(app.read_submission(told, data))
        assert len(world.receipts) == 1


@given(st.sampled_from(sorted(said.BODIES)), st.binary(max_size=200))
def test_any_bytes_are_answered_once(event_type: str, data: bytes) -> None:
    world = World()
    world.hear(read(event_type, data))
    assert [type(receipt) for receipt in world.receipts] == [receipts.SubmissionRefused]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.sampled_from(sorted(said.BODIES)),
    st.sampled_from(["terms", "sensitive", "actor", "ori", "request_id", "expert_id", "detail", "profile", "reason"]),
    json_values,
)
def test_a_request_with_anything_in_any_field_is_answered_once(event_type: str, field: str, value: object) -> None:
    document = json.loads(submission().model_dump_json()) | {"reason": "because", field: value}
    world = World()
    world.hear(read(event_type, json.dumps(document).encode()))
    assert len(world.receipts) == 1


def test_a_submission_that_breaks_its_schema_is_told_which_fields_and_nothing_of_what_they_held() -> None:
    document = json.loads(submission().model_dump_json())
    document["sensitive"]["executive"]["email"] = "jane roe 555-0100"
    document["terms"]["urgency"] = "yesterday"
    document["colour"] = "blue"
    world = World()
    world.hear(read("request.submitted.v1", json.dumps(document).encode()))
    receipt = world.receipts[0]
    assert isinstance(receipt, receipts.SubmissionRefused)
    assert {problem.field for problem in receipt.problems} == {"sensitive.executive.email", "terms.urgency", "colour"}
    for value in ("jane", "roe", "555", "yesterday", "blue"):
        assert value not in receipt.model_dump_json()


def test_a_field_nobody_knows_is_named_without_control_characters_and_not_at_any_length() -> None:
    document = json.loads(submission().model_dump_json()) | {"\x00" + "x" * 500: 1}
    unusable = read("request.submitted.v1", json.dumps(document).encode())
    assert isinstance(unusable, Unusable)
    (problem,) = unusable.problems
    assert problem.field.startswith("?x")
    assert len(problem.field) < 100


def test_a_type_nobody_knows_is_refused_with_the_types_that_are_known() -> None:
    world = World()
    world.hear(read("request.submitted.v9", b"{}"))
    receipt = world.receipts[0]
    assert isinstance(receipt, receipts.SubmissionRefused)
    assert all(known in receipt.reason for known in said.BODIES)


def test_a_receipt_names_the_submission_as_its_sender_does() -> None:
    world = World()
    world.hear(submission())
    receipt = world.receipts[0]
    assert receipt.submission_source == "/tests"
    assert receipt.submission_type == "request.submitted.v1"
    assert receipt.subject == "/tests"


def test_a_submission_whose_subject_is_another_than_its_datas_is_refused() -> None:
    receipt = World().refusal(submission(), subject="R-2")
    assert [problem.field for problem in receipt.problems] == ["subject"]


def test_a_submission_without_a_subject_is_heard() -> None:
    world = World()
    assert kinds(world.hear(submission(), subject="")) == ["request.accepted.v1"]


def test_a_closing_gets_no_receipt() -> None:
    world = World()
    world.hear(submission())
    world.hear(closed())
    assert len(world.receipts) == 1


def test_a_refused_submission_and_a_repeated_one_are_answered_too() -> None:
    world = World()
    for body in (
        submission(),
        say(said.PlanApproved, contact(), plan_version=1),
        say(said.WithdrawalAsked, executive()),
        say(said.WithdrawalAsked, executive()),
    ):
        world.hear(body)
    assert [receipt.TYPE for receipt in world.receipts] == [
        "submission.taken.v1",
        "submission.refused.v1",
        "submission.taken.v1",
        "submission.taken.v1",
    ]
