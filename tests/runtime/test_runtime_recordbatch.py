"""Batches that the runtime puts together are read by Kafka's clients as what went in."""

from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import given
from hypothesis import strategies as draw

from services.runtime.outbox import rows_of, unsealed
from services.runtime.recordbatch import RecordBatch, encoded, encoded_headers, joined

_NAMES = draw.text(draw.characters(exclude_categories=["Cs"]), max_size=20)
_BYTES = draw.none() | draw.binary(max_size=40) | draw.integers(120, 20_000).map(bytes)
_RECORDS = draw.tuples(_BYTES, _BYTES, draw.lists(draw.tuples(_NAMES, _BYTES), max_size=4))


@given(draw.lists(_RECORDS, min_size=1, max_size=300), draw.integers(0, 2**50), draw.integers(0, 2**30))
def test_a_batch_is_read_as_what_went_in(
    records: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]], timestamp: int, sequence: int
) -> None:
    batch = RecordBatch(timestamp)
    for key, value, headers in records:
        batch.append(encoded(key, value, headers))
    batch._set_producer_state(7, 3, sequence)
    wire = bytes(batch._build())
    read = DefaultRecordBatch(wire)
    assert read.validate_crc()
    assert (read.producer_id, read.base_offset, read.next_offset) == (7, 0, len(records))
    assert [(one.key, one.value, list(one.headers)) for one in read] == records
    assert [(one.offset, one.timestamp) for one in DefaultRecordBatch(wire)] == [
        (nth, timestamp) for nth in range(len(records))
    ]
    assert batch.record_count() == len(records)
    assert batch.size() >= len(wire)
    assert bytes(batch._build()) == wire


def test_headers_encoded_apart_are_the_same_headers() -> None:
    shared, own = [("a", b"1"), ("b", None)], [("c", b"")]
    apart = joined(b"k", b"v", 3, encoded_headers(shared), encoded_headers(own))
    assert apart == encoded(b"k", b"v", [*shared, *own])


@given(draw.lists(draw.tuples(draw.sampled_from("abc"), draw.integers(0, 2**31 - 1), draw.binary(max_size=9_000))))
def test_rows_of_the_outbox_hold_every_record_once_and_keep_the_order_of_each_topic(
    records: list[tuple[str, int, bytes]],
) -> None:
    rows = rows_of(records)
    for topic in "abc":
        of_topic = [one for row in rows if row.topic == topic for one in unsealed(row.records)]
        assert [tuple(one) for one in of_topic] == [
            (hashed, record) for name, hashed, record in records if name == topic
        ]
    assert sum(row.events for row in rows) == len(records)
    assert all(len(row.records) <= 8_020 or row.events == 1 for row in rows)


def test_a_name_that_was_no_utf_8_goes_out_with_the_bytes_it_came_with() -> None:
    batch = RecordBatch(0)
    batch.append(encoded(None, None, [("\udcff\udcfe", b"x")]))
    assert b"\x04\xff\xfe\x02x" in bytes(batch._build())
