"""Structured logs on standard error: one JSON object a line, or lines for people. No body of an event is ever logged.

The text of an exception may hold what an event said: of such only the kind and the place in the code are shown.
"""

# aiokafka declares no types; only its exceptions are used here.
# pyright: reportMissingTypeStubs=false

import logging
import sys
import traceback
from time import monotonic
from typing import Any, Final, cast

import structlog
from aiokafka.errors import KafkaError
from pydantic import ValidationError
from structlog.typing import EventDict, FilteringBoundLogger, Processor

_SAME_LINE_SECONDS: Final = 10.0
_LONGEST_LINE_KNOWN: Final = 60
_MOST_LINES_KNOWN: Final = 1000
_OF_THE_MACHINE: Final = (OSError, KafkaError)
"""Exceptions whose text speaks of servers and files, never of an event."""


def configure(service: str, level: str, layout: str) -> dict[str, Any]:
    """Sets structlog up and returns the `logging.config` dictionary that routes other libraries' logs the same way."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _frames,
    ]
    renderer: Processor = (
        structlog.processors.JSONRenderer() if layout == "json" else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[*shared, _without_repeats(), renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(service=service)
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"described": {"()": _Described}, "seldom": {"()": _Seldom}},
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
                "foreign_pre_chain": [*shared, _service(service), structlog.stdlib.add_logger_name],
            }
        },
        "handlers": {
            "stderr": {"class": "logging.StreamHandler", "formatter": "structured", "filters": ["seldom", "described"]}
        },
        "root": {"handlers": ["stderr"], "level": "WARNING" if level == "INFO" else level},
    }


def _service(name: str) -> Processor:
    def bind(_: object, __: str, event: EventDict) -> EventDict:
        event.setdefault("service", name)
        return event

    return bind


def _frames(_: object, __: str, event: EventDict) -> EventDict:
    """Turns an exception into its kind and the places it came through."""
    given: object = event.pop("exc_info", None)
    if isinstance(given, tuple):
        given = cast("tuple[object, ...]", given)[1]
    error = given if isinstance(given, BaseException) else sys.exception() if given else None
    if error is not None:
        event["error"] = describe(error)
        event["came_through"] = [
            f"{frame.filename.rsplit('/', 1)[-1]}:{frame.lineno} {frame.name}"
            for frame in traceback.extract_tb(error.__traceback__)
        ]
    return event


class _Described(logging.Filter):
    """Libraries log exceptions as arguments of their messages: they are described instead."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(describe(arg) if isinstance(arg, BaseException) else arg for arg in record.args)
        return True


class _Repeats:
    """What is said again and again while a server is away: each such line passes now and then."""

    def __init__(self) -> None:
        self._passed: dict[tuple[str, ...], float] = {}

    def passes(self, *line: str) -> bool:
        """Whether this line was not said for a while."""
        now = monotonic()
        if now - self._passed.get(line, -_SAME_LINE_SECONDS) < _SAME_LINE_SECONDS:
            return False
        if len(self._passed) > _MOST_LINES_KNOWN:
            self._passed.clear()
        self._passed[line] = now
        return True


class _Seldom(logging.Filter):
    """Libraries say the same forty times a second while a server is away."""

    def __init__(self) -> None:
        super().__init__()
        self._repeats = _Repeats()

    def filter(self, record: logging.LogRecord) -> bool:
        return self._repeats.passes(record.name, str(record.msg)[:_LONGEST_LINE_KNOWN])


def _without_repeats() -> Processor:
    """Lets what a part of the runtime says of a failure that it tries to overcome pass now and then."""
    repeats = _Repeats()

    def drop(_: object, __: str, event: EventDict) -> EventDict:
        line = (str(event.get(name)) for name in ("part", "round", "event", "error"))
        if event["level"] == "warning" and "error" in event and not repeats.passes(*line):
            raise structlog.DropEvent
        return event

    return drop


def describe(error: BaseException) -> str:
    """An exception in one line that names the place in the code and never the value at fault."""
    if isinstance(error, ValidationError):
        return "; ".join(
            f"{'.'.join(str(part) for part in problem['loc']) or 'body'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_context=False, include_input=False)[:20]
        )
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno}" if frames else ""
    said = f": {' '.join(str(error).split())}" if isinstance(error, _OF_THE_MACHINE) and str(error) else ""
    return f"{type(error).__name__}{said}{place}"


def logger(part: str) -> FilteringBoundLogger:
    """A logger of one part of the runtime."""
    return structlog.get_logger(part=part)
