"""Structured logs on standard error: one JSON object a line, or lines for people. No body of an event is ever logged."""

import logging
import sys
from typing import Any

import structlog
from structlog.typing import FilteringBoundLogger


def configure(service: str, level: str, layout: str) -> dict[str, Any]:
    """Sets structlog up and returns the `logging.config` dictionary that routes other libraries' logs the same way."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if layout == "json" else structlog.dev.ConsoleRenderer(colors=False)
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    structlog.contextvars.bind_contextvars(service=service)
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "structured": {
                "()": structlog.stdlib.ProcessorFormatter,
                "processors": [structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
                "foreign_pre_chain": [*shared, _service(service), structlog.stdlib.add_logger_name],
            }
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
        "root": {"handlers": ["stderr"], "level": "WARNING" if level == "INFO" else level},
    }


def _service(name: str) -> structlog.typing.Processor:
    def bind(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event.setdefault("service", name)
        return event

    return bind


def logger(part: str) -> FilteringBoundLogger:
    """A logger of one part of the runtime."""
    return structlog.get_logger(part=part)
