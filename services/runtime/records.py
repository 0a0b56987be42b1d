"""Kafka records as the runtime keeps them: with their bytes and headers unchanged, whatever they hold."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final


@dataclass(frozen=True, slots=True)
class Record:
    """One record of Kafka's log. `topic` is the name of the topic table, without a prefix."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    recorded_at: datetime


_PACK: Final = json.JSONEncoder(separators=(",", ":")).encode

Headers = Sequence[tuple[str, bytes | None]]


def pack_headers(headers: Headers) -> bytes:
    """Headers as one value for a bytea column; any bytes come back as they were."""
    return _PACK([[name, None if value is None else value.decode("latin-1")] for name, value in headers]).encode()


def unpack_headers(packed: bytes) -> list[tuple[str, bytes | None]]:
    """The headers that `pack_headers` packed."""
    return [(name, None if value is None else value.encode("latin-1")) for name, value in json.loads(packed)]
