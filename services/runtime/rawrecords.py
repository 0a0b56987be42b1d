"""Records as aiokafka parses them, and those that Kafka carries and aiokafka cannot read.

aiokafka decodes header names while it parses a batch and raises CorruptRecordException for the whole batch, for ever:
the partition would stand still (aio-libs/aiokafka issue 321 describes the same dead end). Here a name's stray bytes are
lone surrogates (PEP 383). And it copies each record that it has parsed into another object, which costs as much as
parsing; here the first one is enough.
"""

# What is replaced here is aiokafka's own inside, which has no types; versions are pinned.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportPrivateUsage=false, reportIncompatibleMethodOverride=false, reportGeneralTypeIssues=false

from collections.abc import Iterator, Sequence
from typing import Any, SupportsIndex

from aiokafka.consumer import fetcher
from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import _MemoryRecordsPy


def any_stray_bytes(headers: Sequence[tuple[str, bytes | None]]) -> bool:
    """Whether the name of a header is not UTF-8."""
    names = "".join([name for name, _ in headers])
    return not names.isascii() and any("\ud800" <= letter <= "\udfff" for letter in names)


def read_tolerantly() -> None:
    """From now on consumers of this process read records whose header names are not UTF-8."""
    fetcher.MemoryRecords = _Records


def read_plainly() -> None:
    """From now on consumers of this process give records as they were parsed, without topic and partition."""
    fetcher.PartitionRecords = _Plain


class _Plain(fetcher.PartitionRecords):
    def _consumer_record(self, tp: Any, record: Any) -> Any:
        return record


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
