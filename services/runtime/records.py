"""Kafka records as the runtime keeps them: with their bytes and headers unchanged, whatever they hold."""

# msgpack declares no types.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownArgumentType=false

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, cast

import msgpack


class Record(NamedTuple):
    """One record of Kafka's log.

    `topic` is the name of the topic table, without a prefix; `timestamp` is in milliseconds since 1970.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    timestamp: int

    @property
    def recorded_at(self) -> datetime:
        """The timestamp as a time; its producer may have set any number."""
        try:
            return datetime.fromtimestamp(self.timestamp / 1000, UTC)
        except (ValueError, OverflowError, OSError):
            return datetime.fromtimestamp(0, UTC)


Headers = Sequence[tuple[str, bytes | None]]

_ANY_NAME: Final = "surrogatepass"
"""Names that are no UTF-8 hold lone surrogates (PEP 383)."""


def pack_headers(headers: Headers) -> bytes:
    """Headers as one value for a bytea column, in MessagePack; any bytes come back as they were."""
    return cast(bytes, msgpack.packb(headers, unicode_errors=_ANY_NAME))


def unpack_headers(packed: bytes) -> list[tuple[str, bytes | None]]:
    """The headers that `pack_headers` packed."""
    return list(msgpack.unpackb(packed, unicode_errors=_ANY_NAME, use_list=False))
