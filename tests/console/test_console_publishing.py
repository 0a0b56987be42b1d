"""Reading what is to be published: every form is understood, and what is wrong is said with its place."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.console.publishing import NotPublishable, Sent, submissions, take_receipt
from tests.console.console_world import record


def withdrawal(number: int = 1, **changes: Any) -> dict[str, Any]:
    document = {
        "specversion": "1.0",
        "id": f"w-{number}",
        "source": "/agencies/TX0000001",
        "type": "withdrawal.asked.v1",
        "subject": f"R-{number}",
        "time": "2026-11-24T12:00:00-06:00",
        "data": {"request_id": f"R-{number}", "actor": {"role": "point_of_contact", "id": "TX0000001"}},
    }
    return {name: value for name, value in (document | changes).items() if value is not None}


def lines(*documents: dict[str, Any]) -> str:
    return "\n".join(json.dumps(document) for document in documents)


@pytest.mark.parametrize(
    "text",
    [
        lines(withdrawal(1), withdrawal(2)),
        "\n\n" + lines(withdrawal(1), withdrawal(2)).replace("\n", "\r\n\r\n") + "\n",
        json.dumps([withdrawal(1), withdrawal(2)]),
        json.dumps([withdrawal(1), withdrawal(2)], indent=2),
    ],
    ids=["lines", "lines between empty ones", "array", "indented array"],
)
def test_several_events_are_read_in_their_order(text: str) -> None:
    assert [one.envelope.id for one in submissions(text)] == ["w-1", "w-2"]


@pytest.mark.parametrize("indent", [None, 2])
def test_one_event_is_read(indent: int | None) -> None:
    (one,) = submissions(json.dumps(withdrawal(), indent=indent))
    assert one.envelope.subject == "R-1"
    assert one.envelope.time == datetime(2026, 11, 24, 18, tzinfo=UTC)
    assert json.loads(one.data) == withdrawal()["data"]


def test_the_subject_is_taken_from_the_data_where_it_is_missing() -> None:
    (one,) = submissions(json.dumps(withdrawal(subject=None)))
    assert one.envelope.subject == "R-1"


def test_a_sequence_is_not_passed_on() -> None:
    (one,) = submissions(json.dumps(withdrawal(sequence="7")))
    assert one.envelope.sequence is None


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (withdrawal(id=None), "attribute 'id' is missing"),
        (withdrawal(time="yesterday"), "attribute 'time' is not an RFC 3339 timestamp"),
        (withdrawal(data=None), "'data' is missing"),
        (withdrawal(type="withdrawal.asked"), "did you mean 'withdrawal.asked.v1'?"),
        (withdrawal(type="tea.served.v9"), "the types are"),
        (withdrawal(subject="R-2"), "subject is 'R-2', but the data is about 'R-1'"),
        (withdrawal(data={"request_id": "R-1"}), "data.actor: Field required"),
        (withdrawal(data=withdrawal()["data"] | {"resaon": "none"}), "data.resaon: Extra inputs are not permitted"),
        (withdrawal(data=withdrawal()["data"] | {"actor": {"role": "cat", "id": "x"}}), "data.actor.role: "),
        (withdrawal(data=[]), "data: "),
    ],
)
def test_what_is_wrong_is_said_with_its_field(document: dict[str, Any], says: str) -> None:
    with pytest.raises(NotPublishable) as fault:
        submissions(json.dumps(document))
    assert says in str(fault.value)


def test_every_document_at_fault_is_named_with_its_line() -> None:
    text = lines(withdrawal(1), withdrawal(2, time="?"), withdrawal(3), withdrawal(4, source=None))
    with pytest.raises(NotPublishable) as fault:
        submissions(text)
    assert [line.split(":")[0] for line in str(fault.value).splitlines()] == ["line 2", "line 4"]


def test_text_that_is_not_json_is_refused_with_line_and_column() -> None:
    with pytest.raises(NotPublishable, match=r"line 3, column 1: this is not JSON"):
        submissions(lines(withdrawal(1), withdrawal(2)) + "\noops")
    with pytest.raises(NotPublishable, match=r"line 2, column 9: this is not JSON"):
        submissions('{\n  "id": ?\n}')


def test_an_empty_file_is_refused() -> None:
    for text in ("", " \n\n", "[]"):
        with pytest.raises(NotPublishable, match="nothing to publish"):
            submissions(text)


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(NotPublishable):
        submissions("[" * 200_000)


def test_a_number_of_thousands_of_digits_is_refused() -> None:
    with pytest.raises(NotPublishable, match="line 1: a number has too many digits"):
        submissions('{"id": ' + "9" * 5000 + "}")


@given(st.text())
def test_any_text_is_either_read_or_refused(text: str) -> None:
    try:
        found = submissions(text)
    except NotPublishable:
        return
    assert found


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


@given(st.sampled_from(sorted(withdrawal())), json_values)
def test_any_value_of_any_attribute_is_either_read_or_refused(name: str, value: Any) -> None:
    document = withdrawal() | {name: value}
    try:
        (one,) = submissions(json.dumps(document))
    except NotPublishable:
        return
    assert one.envelope.subject == "R-1"


RECEIPT = {"submission_source": "/s", "submission_id": "1", "submission_type": "withdrawal.asked.v1"}
REFUSAL = RECEIPT | {"reason": "No such request.", "problems": [{"field": "request_id", "problem": "unknown"}]}


def test_a_receipt_answers_what_waits_for_it() -> None:
    sent = [Sent("/s", "1", "withdrawal.asked.v1", "R-1", 0, 0) for _ in range(2)]
    take_receipt(record("receipts", "/s", "submission.refused.v1", REFUSAL), {("/s", "1"): sent})
    assert [(one.answer, one.reason) for one in sent] == [("refused", "No such request.")] * 2
    assert sent[0].problems == [{"field": "request_id", "problem": "unknown"}]


@given(json_values)
@example([])
@example(RECEIPT | {"submission_source": []})
def test_what_is_no_receipt_answers_nothing(body: Any) -> None:
    sent = Sent("/s", "1", "withdrawal.asked.v1", "R-1", 0, 0)
    take_receipt(record("receipts", "/s", "submission.taken.v1", body), {("/s", "1"): [sent]})
    take_receipt(record("receipts", "/s", "submission.taken.v1", RECEIPT, source="/s"), {("/s", "1"): [sent]})
    assert sent.answer is None
