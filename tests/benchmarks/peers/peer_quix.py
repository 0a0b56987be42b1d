"""Quix Streams: validate and make the next event per message, `to_topic`, and a sink that writes at each checkpoint.

Its documentation ("Creating a Custom Sink") has sinks collect records until the checkpoint is committed; `commit_every`
gives the size of the batch. Its own PostgreSQL sink writes one statement for each partition and cannot add to a row, so
this sink writes one statement for all partitions, the same as every contender's.
"""

# Quix Streams and psycopg are installed in the environment of the peers only.
# pyright: reportMissingImports=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportUnknownArgumentType=false, reportUntypedBaseClass=false, reportUnknownParameterType=false

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import psycopg
from quixstreams import Application
from quixstreams.models import Deserializer, Serializer
from quixstreams.sinks import BaseSink

from schemas.requests import RequestAccepted
from tests.benchmarks.useful_work import (
    PATIENCE_SECONDS,
    SESSION,
    UPSERT,
    Counted,
    FirstEvent,
    Orders,
    Outgoing,
    columns,
    following,
    text,
    validated,
)

_UPSERT: Final = re.sub(r"\$\d", "%s", UPSERT)


class AsBytes(Deserializer):
    """Values as they came."""

    def __init__(self, began: FirstEvent) -> None:
        super().__init__()
        self._began = began

    def __call__(self, value: bytes, ctx: object) -> bytes:
        self._began()
        return value


class TallySink(BaseSink):
    """Adds up what a checkpoint holds and writes it when the checkpoint is committed."""

    def __init__(self, database: str) -> None:
        super().__init__()
        options = " ".join(f"-c {name}={value}" for name, value in SESSION.items())
        self._db = psycopg.connect(database, options=options)
        self._counted: dict[str, Counted] = {}

    def add(self, value: Any, key: Any, *_: Any, **__: Any) -> None:
        name = value.body.request_id
        self._counted[name] = self._counted.get(name, Counted()).plus(value.body, value.sequence)

    def flush(self) -> None:
        if self._counted:
            with self._db.transaction():
                self._db.execute(_UPSERT, columns(self._counted))
            self._counted = {}


class NextEvent(Serializer):
    """The value of the record that follows."""

    def __call__(self, value: Any, ctx: object) -> bytes:
        return value.outgoing.value


@dataclass(frozen=True, slots=True)
class Validated:
    """An event that has been validated, and the record that follows from it."""

    body: RequestAccepted
    sequence: int
    outgoing: Outgoing


def validate(value: bytes, key: Any, timestamp: int, headers: Any) -> Validated:
    """What the sink and the next topic need of a record."""
    named = dict(headers)
    body = validated(text(named, "ce_type"), value)
    sequence = int(text(named, "ce_sequence"))
    return Validated(body, sequence, following("/quix", body, sequence, text(named, "ce_id"), datetime.now(UTC)))


def headers_of_next(value: Any, *_: Any) -> Any:
    """The headers of the record that follows."""
    return value.outgoing.headers


orders = Orders.given()
app = Application(
    orders.kafka,
    consumer_group=orders.group,
    auto_offset_reset="earliest",
    commit_every=orders.batch,
    commit_interval=PATIENCE_SECONDS,
    loglevel="WARNING",
    auto_create_topics=False,
)
source = app.topic(orders.source, key_deserializer="bytes", value_deserializer=AsBytes(FirstEvent()))
target = app.topic(orders.target, key_serializer="bytes", value_serializer=NextEvent())
# One line without branches: at a branch Quix copies every value.
stream = app.dataframe(source).apply(validate, metadata=True).set_headers(headers_of_next)
stream.to_topic(target)
stream.sink(TallySink(orders.database))
app.run()
