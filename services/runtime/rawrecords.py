"""Records that Kafka carries and aiokafka does not: header names that are not UTF-8, and neither key nor value.

aiokafka decodes header names while it parses a batch and raises CorruptRecordException for the whole batch, for ever:
the partition would stand still (aio-libs/aiokafka issue 321 describes the same dead end). It can write neither such
names nor a record whose key and value are both null. Here a name's stray bytes are lone surrogates (PEP 383), both
ways.
"""

# What is replaced here is aiokafka's own inside, which has no types; versions are pinned.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportPrivateUsage=false, reportIncompatibleMethodOverride=false, reportGeneralTypeIssues=false

from collections.abc import Awaitable, Iterator, Sequence
from typing import Any, SupportsIndex, cast

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy, _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy

_NO_COMPRESSION = 0
_ONE_RECORD = 1


def any_stray_bytes(headers: Sequence[tuple[str, bytes | None]]) -> bool:
    """Whether the name of a header is not UTF-8."""
    names = "".join([name for name, _ in headers])
    return not names.isascii() and any("\ud800" <= letter <= "\udfff" for letter in names)


def read_tolerantly() -> None:
    """From now on consumers of this process read records whose header names are not UTF-8."""
    fetcher.MemoryRecords = _Records


async def send_as_it_was(
    producer: Any, topic: str, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]
) -> Awaitable[object]:
    """Sends a record that the producer's `send` refuses, to the topic's first partition."""
    batch = _Batch()
    batch.append(timestamp=None, key=key, value=value, headers=[(_Name(name), content) for name, content in headers])
    batch.close()
    return await producer.send_batch(batch, topic, partition=0)


class _Records(_MemoryRecordsPy):
    def next_batch(self, *args: Any) -> Any:
        raw = self._next_slice
        return _Readable(super().next_batch(*args), raw)


class _Readable:
    """A batch of the wire that is read as usual, and again with care where it cannot be read as usual."""

    def __init__(self, batch: Any, raw: Any) -> None:
        self._batch = batch
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)

    def __next__(self) -> Any:
        return next(self._batch)

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(list(self._batch))
        except (CorruptRecordException, UnicodeDecodeError):
            careful = _DefaultRecordBatchPy(self._raw)
            careful._maybe_uncompress()
            careful._buffer = _Bytes(careful._buffer)
            return iter(list(careful))


class _Bytes(bytearray):
    """Bytes whose slices decode to text whatever they hold."""

    def __getitem__(self, place: SupportsIndex | slice) -> Any:
        found = super().__getitem__(place)
        return _Bytes(found) if isinstance(found, bytearray) else found

    def decode(self, *_: Any) -> str:
        return super().decode("utf-8", "surrogateescape")


class _Name(str):
    """A header name that is written with the bytes it was read from."""

    def encode(self, *_: Any) -> bytes:
        return super().encode("utf-8", "surrogateescape")


class _Batch(BatchBuilder):
    def __init__(self) -> None:
        super().__init__(_ONE_RECORD, _NO_COMPRESSION)
        self._builder = cast(
            Any,
            _DefaultRecordBatchBuilderPy(
                magic=2,
                compression_type=_NO_COMPRESSION,
                is_transactional=0,
                producer_id=-1,
                producer_epoch=-1,
                base_sequence=0,
                batch_size=_ONE_RECORD,
            ),
        )

    def _set_producer_state(self, producer_id: int, producer_epoch: int, base_sequence: int) -> None:
        self._builder.set_producer_state(producer_id, producer_epoch, base_sequence)
