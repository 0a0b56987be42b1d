"""Kafka's records as they go on the wire, record batch format 2 (KIP-98, magic 2).

A fact is encoded once, in the transaction that decides it, and lies in the outbox as the bytes that the relay sends: to
make an object of each on its way out, and bytes again, costs more than everything else a relay does. What depends on a
record's place in its batch stands before those bytes and is added when the batch is put together.
"""

# aiokafka declares no types for what computes a checksum.
# pyright: reportMissingTypeStubs=false

import struct
from collections.abc import Sequence
from typing import Final

from aiokafka.record.util import calc_crc32c

Headers = Sequence[tuple[str, bytes | None]]

_HEADER: Final = struct.Struct(">qiibIhiqqqhii")
"""Base offset, length, leader epoch, magic, CRC, attributes, last offset delta, first and last timestamp, producer id,
producer epoch, base sequence, number of records."""
_AFTER_LENGTH: Final = struct.calcsize(">qi")
_AFTER_CRC: Final = struct.calcsize(">qiibI")
_CRC: Final = struct.Struct(">I")
_MAGIC: Final = 2
_UNKNOWN: Final = -1
_NULL: Final = b"\x01"
_LONGEST_FRAME: Final = 12
"""Bytes at most before a record's own: its length, attributes, and place in the batch."""


def encoded(key: bytes | None, value: bytes | None, headers: Headers) -> bytes:
    """A record but for its place in a batch. Stray bytes of a header's name are lone surrogates (PEP 383)."""
    return joined(key, value, len(headers), encoded_headers(headers))


def encoded_headers(headers: Headers) -> bytes:
    """Headers without their number."""
    parts: list[bytes] = []
    for name, content in headers:
        parts.append(_NAMES.get(name) or _name(name))
        parts += _nullable(content)
    return b"".join(parts)


def joined(key: bytes | None, value: bytes | None, headers: int, *parts: bytes) -> bytes:
    """A record but for its place in a batch, of so many headers that were encoded in these parts."""
    return b"".join([*_nullable(key), *_nullable(value), _varint(headers), *parts])


class RecordBatch:
    """Records of one partition on their way, put together for `AIOKafkaProducer.send_batch`.

    The producer asks for it what it asks of the builder of its own that it makes batches with.
    """

    def __init__(self, timestamp: int) -> None:
        self._timestamp = timestamp
        """Of all records, in milliseconds since 1970."""
        self._records: list[bytes] = []
        self._size = _HEADER.size
        self._producer = (_UNKNOWN, _UNKNOWN, _UNKNOWN)
        self._buffer: bytearray | None = None

    def append(self, record: bytes) -> None:
        """Adds a record that `encoded` made."""
        self._records.append(record)
        self._size += len(record) + _LONGEST_FRAME

    def size(self) -> int:
        """Bytes at most."""
        return self._size

    def record_count(self) -> int:
        return len(self._records)

    def close(self) -> None:
        """Nobody but its maker adds to it."""

    def closed(self) -> bool:
        return True

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._producer = (producer_id, producer_epoch, base_sequence)

    def _build(self) -> bytearray:
        """The bytes of the whole batch: the same ones each time, so that a repetition is known as one."""
        if self._buffer is None:
            self._buffer = self._made()
        return self._buffer

    def _made(self) -> bytearray:
        parts: list[bytes] = [bytes(_HEADER.size)]
        for place, record in enumerate(self._records):
            # Attributes and the difference to the batch's timestamp are 0.
            frame = b"\x00\x00" + _varint(place)
            parts.append(_varint(len(frame) + len(record)))
            parts.append(frame)
            parts.append(record)
        buffer = bytearray().join(parts)
        _HEADER.pack_into(
            buffer,
            0,
            0,
            len(buffer) - _AFTER_LENGTH,
            _UNKNOWN,
            _MAGIC,
            0,
            0,
            len(self._records) - 1,
            self._timestamp,
            self._timestamp,
            *self._producer,
            len(self._records),
        )
        _CRC.pack_into(buffer, _AFTER_CRC - _CRC.size, calc_crc32c(buffer[_AFTER_CRC:]))
        return buffer


def _varint(number: int) -> bytes:
    """A whole number that is not negative, in zigzag and base 128 (Protocol Buffers' sint32)."""
    return _VARINTS[number] if number < len(_VARINTS) else _varint_of(number)


def _varint_of(number: int) -> bytes:
    left = number << 1
    digits = bytearray()
    while left > 0x7F:
        digits.append(left & 0x7F | 0x80)
        left >>= 7
    digits.append(left)
    return bytes(digits)


_VARINTS: Final = tuple(_varint_of(number) for number in range(8192))


_NAMES: Final[dict[str, bytes]] = {}
"""Names of headers with their lengths: those that the services write are few."""
_MOST_NAMES: Final = 100


def _name(name: str) -> bytes:
    raw = name.encode("utf-8", "surrogateescape")
    known = _varint(len(raw)) + raw
    if len(_NAMES) < _MOST_NAMES:
        _NAMES[name] = known
    return known


def _nullable(content: bytes | None) -> tuple[bytes, ...]:
    return (_NULL,) if content is None else (_varint(len(content)), content)
