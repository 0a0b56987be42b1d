"""The checker: it holds where everything is right, and finds each thing that is planted wrong."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.topics import TOPICS
from services.console.checker.accounting import Acknowledged, audit
from services.console.checker.books import Booking, Books, Position
from services.console.checker.lives import Life
from services.console.contract import BODIES
from services.console.wire import LogRecord
from tests.console.console_world import (
    NOON,
    ORI,
    Fact,
    about,
    accepted,
    closed,
    confirmed,
    delivered,
    matched,
    planned,
    proposed,
    record,
    released,
    session,
)
from tests.console.ledgers import SOURCE, Ground, declared, listed, profile, selected, waived, warned

NEIGHBOUR = "TX0000999"
"""Another agency of the same county."""


@pytest.fixture
def ground() -> Ground:
    """Three requests: one with dates confirmed, one declined, one completed; one expert declined once before."""
    made = Ground()
    for nth in (1, 2, 3):
        made.submit(f"s{nth}", f"R{nth}")
        made.answer(f"s{nth}")
    declining = {"reasons": [{"field": "ori", "problem": "unknown"}], "submitted_at": NOON.isoformat()}
    made.tell(selected("P1"), listed("E1"), listed("E2"))
    made.tell(accepted("R1", ORI), proposed("R1", "E2"), released("R1", "E2"), proposed("R1", "E1", nth=2))
    made.tell(matched("R1", "E1", nth=2), planned("R1", [session("R1/s1.1", "E1", 1)], nth=2), confirmed("R1", nth=2))
    made.tell(about("R2", "request.declined.v1", **declining))
    made.tell(accepted("R3", "TX0000002"), proposed("R3", "E2"), matched("R3", "E2"))
    made.tell(planned("R3", [session("R3/s1.1", "E2", 1)]), confirmed("R3"))
    made.tell(
        about("R3", "session.reported.v1", session_id="R3/s1.1", held_on="2027-01-02"), delivered("R3"), closed("R3")
    )
    return made


def test_where_everything_is_right_every_check_holds_and_has_looked_at_something(ground: Ground) -> None:
    account = ground.audited([Acknowledged(SOURCE, "s1", 0, 0)])
    assert account.findings == []
    assert [check.name for check in account.checks if not check.looked_at] == []
    assert account.requests == {"closed": 1, "confirmed": 1, "declined": 1}
    assert account.submissions == {"taken": 3}


def test_a_record_that_is_said_again_is_no_finding(ground: Ground) -> None:
    ground.records += [replace(one, offset=90 + nth) for nth, one in enumerate(ground.records)]
    assert ground.findings() == []


def test_what_the_broker_acknowledged_must_be_in_the_log_where_it_said(ground: Ground) -> None:
    assert ground.findings([Acknowledged(SOURCE, "s1", 0, 0), Acknowledged(SOURCE, "s2", 0, 1)]) == []
    assert len(ground.findings([Acknowledged(SOURCE, "s1", 0, 1)])) == 1
    assert len(ground.findings([Acknowledged(SOURCE, "lost", 0, 99)])) == 1
    assert len(ground.findings([Acknowledged("/another", "s1", 0, 0)])) == 1


def test_a_submission_without_a_receipt_is_found_unless_it_is_parked(ground: Ground) -> None:
    ground.submit("s4", "R4")
    (finding,) = ground.findings()
    assert "s4 has no receipt" in finding
    ground.spoil.append(lambda books: books.dead.add((0, 3)))
    assert ground.findings() == []
    assert ground.audited().submissions == {"parked": 1, "taken": 3}


@pytest.mark.parametrize(("partition", "finds"), [(1, 1), (5, 0)])
def test_a_submission_has_no_receipt_to_show_once_receipts_of_any_partition_are_gone(
    ground: Ground, partition: int, finds: int
) -> None:
    ground.submit("s4", "R4")
    ground.spoil.append(lambda books: books.starts.update({("receipts", 1): 0, ("receipts", 5): partition == 5}))
    assert len(ground.findings()) == finds
    assert any("receipts are no longer kept" in note for note in ground.audited().notes) is not bool(finds)


def test_a_request_is_not_called_untaken_once_receipts_are_gone(ground: Ground) -> None:
    ground.tell(accepted("R4", ORI))
    ground.spoil.append(lambda books: books.starts.update({("receipts", 5): 1}))
    assert ground.findings() == []


def test_a_second_receipt_is_found_and_a_repeated_one_is_not(ground: Ground) -> None:
    ground.answer("s1")
    assert ground.findings() == []
    ground.answer("s1", receipt="another")
    (finding,) = ground.findings()
    assert "2 receipts" in finding


def test_a_receipt_for_what_nobody_submitted_is_found(ground: Ground) -> None:
    ground.answer("s9")
    (finding,) = ground.findings()
    assert "nobody submitted" in finding


def test_a_refused_submission_leads_to_no_request(ground: Ground) -> None:
    ground.submit("s4", "R4")
    ground.answer("s4", taken=False)
    assert ground.findings() == []
    assert ground.audited().submissions == {"refused": 1, "taken": 3}


def test_a_request_that_was_taken_and_of_which_no_fact_tells_is_found(ground: Ground) -> None:
    ground.submit("s4", "R4")
    ground.answer("s4")
    (finding,) = ground.findings()
    assert "R4 was taken, but no fact" in finding


def test_a_request_that_was_taken_twice_is_found(ground: Ground) -> None:
    ground.submit("s4", "R1")
    ground.answer("s4")
    (finding,) = ground.findings()
    assert "R1 was taken 2 times" in finding


def test_facts_of_a_request_that_was_never_taken_are_found(ground: Ground) -> None:
    ground.tell(accepted("R4", ORI))
    (finding,) = ground.findings()
    assert "R4 has facts, but was never taken" in finding


def test_a_story_that_begins_in_the_middle_is_found(ground: Ground) -> None:
    ground.submit("s4", "R4")
    ground.answer("s4")
    ground.tell(about("R4", "request.withdrawn.v1"))
    assert any("R4 begins with request.withdrawn.v1" in finding for finding in ground.findings())


def test_a_gap_in_a_sequence_is_found(ground: Ground) -> None:
    ground.append("requests", "R1", "clock.warned.v1", warned("R1"), sequence=3)
    (finding,) = ground.findings()
    assert "sequence 3 follows 1" in finding


def test_events_out_of_order_are_found(ground: Ground) -> None:
    for sequence in (3, 2):
        ground.append("requests", "R1", "clock.warned.v1", warned("R1"), sequence=sequence)
    found = ground.findings()
    assert any("sequence 3 follows 1" in finding for finding in found)
    assert any("sequence 2 comes late" in finding for finding in found)


def test_two_events_of_one_sequence_are_found(ground: Ground) -> None:
    ground.append("requests", "R1", "clock.warned.v1", warned("R1"), sequence=1, event_id="another")
    (finding,) = ground.findings()
    assert "another event has the sequence 1" in finding


def test_a_key_in_two_partitions_is_found(ground: Ground) -> None:
    other = record("requests", "R1", "clock.warned.v1", warned("R1"), sequence=2)
    ground.spoil.append(lambda books: books.take(replace(other, partition=1)))
    (finding,) = ground.findings()
    assert "are in partition 0, too" in finding


@pytest.mark.parametrize(
    ("position", "says"),
    [
        (Position(0, 2, 2, 0, 0, 0), "stands at 2"),
        (Position(1, 3, 2, 0, 0, 0), "began at 1"),
        (Position(0, 3, 2, 0, 0, 0), "accounts for 2 records"),
        (Position(0, 3, 4, 0, 0, 0), "accounts for 4 records"),
        (None, "has never read 3"),
    ],
)
def test_a_position_that_does_not_account_for_the_log_is_found(
    ground: Ground, position: Position | None, says: str
) -> None:
    def spoil(books: Books) -> None:
        if position is None:
            del books.positions["intake"]["submissions", 0]
        else:
            books.positions["intake"]["submissions", 0] = position

    ground.spoil.append(spoil)
    assert any(says in finding for finding in ground.findings())


def test_an_event_passed_over_as_a_duplicate_that_is_none_is_found(ground: Ground) -> None:
    ground.spoil.append(lambda books: books.positions["matching"].update({("roster", 0): Position(0, 3, 2, 1, 0, 0)}))
    (finding,) = ground.findings()
    assert "passed over 1 of roster as duplicates, the log repeats 0" in finding


def test_an_event_handled_twice_is_found(ground: Ground) -> None:
    ground.records.append(replace(ground.records[0], offset=3))
    ground.spoil.append(
        lambda books: books.positions["intake"].update({("submissions", 0): Position(0, 4, 4, 0, 0, 0)})
    )
    (finding,) = ground.findings()
    assert "passed over 0 of submissions as duplicates, the log repeats 1" in finding


def test_an_outbox_that_is_not_empty_is_found(ground: Ground) -> None:
    ground.spoil.append(lambda books: books.outboxes.update(matching=2))
    (finding,) = ground.findings()
    assert "the outbox of matching holds 2" in finding


def test_a_service_whose_table_says_something_else_than_the_log_is_found(ground: Ground) -> None:
    spoilt: dict[str, Callable[[Books], object]] = {
        "reporting says planned": lambda books: books.reported_steps.update(R1="planned"),
        "reporting says None": lambda books: books.reported_steps.pop("R1"),
        "reporting counts 1 requests planned, the log 0": lambda books: books.counted_steps.update(["planned"]),
        "intake says accepted": lambda books: books.intake_steps.update(R2="accepted"),
        "intake says closed": lambda books: books.intake_steps.update(R1="closed"),
        "matching says None": lambda books: books.matches.pop("R1"),
        "matching says ('R3/m1', 'confirmed')": lambda books: books.matches.update(R3=("R3/m1", "confirmed")),
        "is not booked": lambda books: books.bookings.clear(),
        "that the log does not have": lambda books: books.bookings.append(
            replace_booking(books.bookings[0], expert_id="E2")
        ),
    }
    for says, spoil in spoilt.items():
        ground.spoil = [spoil]
        assert any(says in finding for finding in ground.findings()), says


def replace_booking(booking: Booking, **fields: str) -> Booking:
    return booking._replace(**fields)


def test_an_expert_in_two_places_at_once_is_found_in_the_log_and_in_the_table(ground: Ground) -> None:
    ground.submit("s4", "R4")
    ground.answer("s4")
    ground.tell(accepted("R4", "TX0000004"), proposed("R4", "E1"), matched("R4", "E1"))
    ground.tell(planned("R4", [session("R4/s1.1", "E1", 1)]))
    (finding,) = ground.findings()
    assert "E1 is booked for" in finding
    ground.spoil.append(lambda books: setattr(books, "double_bookings", 1))
    assert any("1 overlapping" in finding for finding in ground.findings())


def test_sessions_that_follow_on_one_another_are_no_finding(ground: Ground) -> None:
    ground.submit("s4", "R4")
    ground.answer("s4")
    ground.tell(accepted("R4", "TX0000004"), proposed("R4", "E1"), matched("R4", "E1"))
    ground.tell(planned("R4", [session("R4/s1.1", "E1", 2), session("R4/s1.2", "E1", 0)]))
    assert ground.findings() == []


@pytest.mark.parametrize("gives_back", ["closed", "reported", "released"])
@given(clocks=st.lists(st.integers(-26 * 3600, 26 * 3600), min_size=3, max_size=3))
def test_a_clock_that_was_wrong_makes_no_plan_stand_longer_than_it_did(gives_back: str, clocks: list[int]) -> None:
    """Time is given back an hour after it was taken, and taken by another an hour later, by Kafka's clock."""
    ends = {
        "closed": closed("R4", "completed"),
        "reported": about("R4", "session.reported.v1", session_id="R4/s1.1"),
        "released": released("R4", "E2"),
    }
    course = [
        ("R4", planned("R4", [session("R4/s1.1", "E2", 7)])),
        ("R4", ends[gives_back]),
        ("R5", planned("R5", [session("R5/s1.1", "E2", 7)])),
    ]
    books = Books()
    for hour, (clock, (request_id, (_, event_type, body))) in enumerate(zip(clocks, course, strict=True)):
        moment = NOON + timedelta(hours=hour)
        life = books.lives.setdefault(request_id, Life())
        life.take(event_type, moment + timedelta(seconds=clock), body, moment)
        if gives_back == "released" and hour == 1:
            dropped = (
                "R4",
                "session.cancelled.v1",
                {"request_id": "R4", "session_id": "R4/s1.1", "reason": "released"},
            )
            life.take(dropped[1], moment + timedelta(seconds=clock), dropped[2], moment)
    assert not [one for one in audit(books, []).findings if "booked for" in one]


@pytest.mark.parametrize(("planned_at", "twice"), [(NOON, True), (NOON + timedelta(hours=2), False)])
def test_a_plan_that_is_over_counts_where_it_stood_at_the_same_time_as_another(
    ground: Ground, planned_at: datetime, twice: bool
) -> None:
    for nth in (4, 5):
        ground.submit(f"s{nth}", f"R{nth}")
        ground.answer(f"s{nth}")
        ground.tell(accepted(f"R{nth}", f"TX000000{nth}"))
    ground.tell(proposed("R4", "E2"), matched("R4", "E2"), planned("R4", [session("R4/s1.1", "E2", 7)]))
    ground.tell(closed("R4", "completed"), time=NOON + timedelta(hours=1))
    ground.tell(proposed("R5", "E2"), matched("R5", "E2"))
    ground.tell(planned("R5", [session("R5/s1.1", "E2", 7)]), time=planned_at)
    found = [finding for finding in ground.findings() if "nobody is booked twice" in finding]
    assert bool(found) is twice


# --- conflicts and loads


@pytest.mark.parametrize(
    ("facts", "in_conflict"),
    [
        ([declared("C1", expert_id="E1")], True),
        ([declared("C1", partner_id="P1")], True),
        ([declared("C1", expert_id="E1", ori="TX0000009")], False),
        ([declared("C1", expert_id="E2")], False),
        ([declared("C1", partner_id="P1", kind="bargaining")], True),
        ([declared("C1", partner_id="P1", kind="bargaining"), waived("C1", partner_id="P1")], False),
        ([declared("C1", partner_id="P1", kind="litigation"), waived("C1", partner_id="P1")], True),
        ([declared("C1", expert_id="E1", kind="litigation", ori=NEIGHBOUR)], True),
        ([declared("C1", partner_id="P1", kind="labour_dispute", ori=NEIGHBOUR)], True),
        ([declared("C1", expert_id="E1", kind="family", ori=NEIGHBOUR)], False),
        ([declared("C1", expert_id="E1", kind="litigation", ori="TX0010001")], False),
        ([listed("E1", employments=[{"ori": ORI, "until": None}])], True),
        ([listed("E1", employments=[{"ori": ORI, "until": (NOON.date() - timedelta(days=400)).isoformat()}])], True),
        ([listed("E1", employments=[{"ori": ORI, "until": date(2020, 1, 1).isoformat()}])], False),
        ([listed("E1", employments=[{"ori": "TX0000009", "until": None}])], False),
        ([listed("E1", vendor_topics=["training"])], True),
        ([listed("E1", vendor_topics=["compstat"])], False),
    ],
)
def test_a_match_that_holds_across_a_conflict_is_found(ground: Ground, facts: list[Fact], in_conflict: bool) -> None:
    ground.tell(*facts)
    found = [finding for finding in ground.findings() if "across a declared conflict" in finding]
    assert bool(found) is in_conflict


def test_a_conflict_with_an_agency_that_takes_part_counts_as_one_with_the_requester(ground: Ground) -> None:
    ground.submit("s4", "R4")
    ground.answer("s4")
    topic, event_type, body = accepted("R4", "TX0000004")
    ground.tell((topic, event_type, body | {"participating": ["TX0000005"]}), proposed("R4", "E2"))
    ground.tell(declared("C1", expert_id="E2", ori="TX0000005"))
    assert any("R4/m1 of R4: E2 has declared" in finding for finding in ground.findings())


def test_a_match_that_no_longer_holds_is_in_no_conflict(ground: Ground) -> None:
    ground.tell(declared("C1", expert_id="E2"), declared("C2", expert_id="E2", ori="TX0000002"))
    assert ground.findings() == []


def test_a_match_that_was_proposed_across_a_known_conflict_is_found_though_it_ended(ground: Ground) -> None:
    ground.tell(declared("C1", expert_id="E2"), time=NOON - timedelta(hours=1))
    (finding,) = ground.findings()
    assert "E2 has declared a conflict" in finding


def test_more_requests_than_an_expert_or_a_partner_may_hold_are_found(ground: Ground) -> None:
    for nth in (4, 5, 6):
        ground.submit(f"s{nth}", f"R{nth}")
        ground.answer(f"s{nth}")
        ground.tell(accepted(f"R{nth}", f"TX000000{nth}"), proposed(f"R{nth}", "E1"))
    assert [finding for finding in ground.findings() if "over load" in finding] == [
        "nobody over load limit or capacity: E1 holds 4 requests, 3 are allowed"
    ]
    ground.tell(("roster", "expert.changed.v1", {"expert_id": "E1", "profile": profile(load_limit=4)}))
    assert ground.findings() == []


# --- hostile records


def test_garbage_is_noted_and_spoils_nothing(ground: Ground) -> None:
    garbage = [
        LogRecord(topic.name, 0, 50, key, value, headers)
        for topic in TOPICS
        for key in (None, b"R1", b"\xff")
        for value in (None, b"", b"\x00\xff", b"[]", b"{}")
        for headers in (
            [],
            [("ce_id", None)],
            [("ce_id", b"\xff")],
            [("content-type", b"application/cloudevents+json")],
        )
    ]
    ground.records += garbage

    def keep_positions(books: Books) -> None:
        for service, positions in books.positions.items():
            for slot, one in positions.items():
                strange = books.foreign[slot[0]]
                books.positions[service][slot] = one._replace(applied=one.applied - strange, parked=strange)

    ground.spoil.append(keep_positions)
    account = ground.audited()
    assert account.findings == []
    assert sum(str(len(garbage) // len(TOPICS)) in note for note in account.notes) == len(TOPICS)


def test_a_stranger_who_writes_to_a_topic_of_facts_is_noted_and_not_believed(ground: Ground) -> None:
    ground.append(
        "requests", "R1", "request.withdrawn.v1", {"request_id": "R1"}, sequence=2, source="/somebody", event_id="x"
    )
    account = ground.audited()
    assert account.requests["confirmed"] == 1
    assert any("not of its publisher" in note for note in account.notes)


names = st.sampled_from(
    ["ce_id", "ce_type", "ce_source", "fieldbridge_partition", "fieldbridge_offset", "content-type"]
)


@given(st.binary(max_size=200), st.lists(st.tuples(names, st.binary() | st.none())))
def test_no_bytes_make_the_checker_fail(value: bytes, headers: list[tuple[str, bytes | None]]) -> None:
    books = Books()
    for topic in (*(topic.name for topic in TOPICS), "submissions.dead"):
        books.take(LogRecord(topic, 0, 0, value, value, headers))
    audit(books)


bodies = st.dictionaries(
    st.sampled_from(["request_id", "match_id", "sessions", "experts", "terms", "agency", "profile", "expert_id"]),
    st.none() | st.integers() | st.text() | st.lists(st.text()) | st.dictionaries(st.text(), st.text()),
)


@given(st.data(), bodies)
def test_no_body_under_the_name_of_its_publisher_makes_the_checker_fail(data: st.DataObject, body: Any) -> None:
    books = Books()
    for topic, types in BODIES.items():
        event_type = data.draw(st.sampled_from(sorted(types)))
        books.take(record(topic, "R1", event_type, body, sequence=data.draw(st.none() | st.integers(1, 3))))
    audit(books)


# --- lives
