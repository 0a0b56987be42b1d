"""Shows a process another time: Python runs this file at its start where its folder is on the path.

The file that FIELDBRIDGE_CLOCK names holds the seconds to add to the wall clock, and may change at any time. The
monotonic clock stays as it is. (libfaketime cannot do this: it breaks how Python 3.11 sleeps.)
"""

import datetime
import os
import time
from datetime import tzinfo
from pathlib import Path
from typing import Self

_FILE = Path(os.environ["FIELDBRIDGE_CLOCK"])
_LOOK_SECONDS = 0.1

_time_ns = time.time_ns
_real = datetime.datetime
_offset = 0
_looked = 0.0


def _shift_seconds() -> int:
    global _offset, _looked
    if time.monotonic() - _looked > _LOOK_SECONDS:
        _looked = time.monotonic()
        _offset = int(_FILE.read_text() or _offset)
    return _offset


def shown_ns() -> int:
    """Nanoseconds since 1970, as this process is to see them."""
    return _time_ns() + _shift_seconds() * 1_000_000_000


def shown() -> float:
    """Seconds since 1970, as this process is to see them."""
    return shown_ns() / 1e9


class _AnyDatetime(type):
    def __instancecheck__(cls, value: object) -> bool:
        return isinstance(value, _real)

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, _real)


class _Shown(_real, metaclass=_AnyDatetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls.fromtimestamp(shown(), tz)

    @classmethod
    def utcnow(cls) -> Self:
        return cls.fromtimestamp(shown(), datetime.UTC).replace(tzinfo=None)

    @classmethod
    def today(cls) -> Self:
        return cls.fromtimestamp(shown())


time.time = shown
time.time_ns = shown_ns
datetime.datetime = _Shown
