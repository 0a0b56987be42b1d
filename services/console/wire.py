"""Kafka as other systems see it: plain clients that publish, follow what is new, or read a whole log."""

# aiokafka declares no types; this file gives those of what the console uses.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import Any, Final, Protocol, TypeVar, cast

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from pydantic import ValidationError

from schemas.body import parse
from schemas.envelope import Envelope, NotAnEvent, read
from schemas.topics import DEAD_SUFFIX, SUBMISSIONS, TOPICS
from services.console.contract import BODIES
from services.console.surroundings import Stack
from services.console.trouble import Trouble
from services.runtime.rawrecords import read_tolerantly
from services.runtime.topiclogs import TopicLog, topic_logs

__all__ = ["KafkaError"]

_T = TypeVar("_T")

_CONNECT_SECONDS: Final = 10.0
_AGAIN_SECONDS: Final = 0.2
_CLOSE_SECONDS: Final = 10.0
_DELIVERY_MS: Final = 120_000
"""How long an unacknowledged record is sent again, also while brokers restart."""
_RECORDS_AT_A_TIME: Final = 5000
_PUBLISHERS: Final = {
    topic.name: f"/fieldbridge/{topic.publisher}" for topic in TOPICS if topic.name != SUBMISSIONS.name
}


class Acknowledgement(Protocol):
    """Where the broker has put a record."""

    partition: int
    offset: int


class Publisher(Protocol):
    """What the console uses of aiokafka's producer. `send` waits for room, its future for the broker."""

    async def send(
        self, topic: str, *, value: bytes, key: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> "asyncio.Future[Acknowledgement]": ...

    async def flush(self) -> None: ...


class _Message(Protocol):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class _Reader(Protocol):
    """What the console uses of aiokafka's consumer."""

    def assignment(self) -> set[TopicPartition]: ...

    def seek(self, partition: TopicPartition, offset: int) -> None: ...

    async def position(self, partition: TopicPartition) -> int: ...

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]: ...

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]: ...

    async def getmany(self, *, timeout_ms: int, max_records: int) -> dict[TopicPartition, list[_Message]]: ...


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record of Kafka's log; `topic` is the name of the topic table."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    published: datetime | None = None
    """When the broker appended it; None where it came from no log."""


@asynccontextmanager
async def publisher(stack: Stack) -> AsyncGenerator[Publisher]:
    """An idempotent producer that waits for all replicas. Raises Trouble where Kafka does not answer."""
    client = AIOKafkaProducer(
        bootstrap_servers=stack.kafka,
        client_id="fieldbridge-outside",
        enable_idempotence=True,
        acks="all",
        linger_ms=1,
        max_batch_size=256 * 1024,
        request_timeout_ms=_DELIVERY_MS,
    )
    await _require(stack, [SUBMISSIONS.name])
    async with _started(stack, client.start, client.stop):
        yield cast(Publisher, client)


@asynccontextmanager
async def follower(stack: Stack, topics: Iterable[str], *, from_start: bool = False) -> AsyncGenerator["Follower"]:
    """Reads all partitions of these topics, without a group, from their end or from their start. Raises Trouble."""
    names = {stack.topic(topic): topic for topic in topics}
    await _require(stack, names.values())
    read_tolerantly()
    client = AIOKafkaConsumer(
        *names,
        bootstrap_servers=stack.kafka,
        client_id="fieldbridge-outside",
        group_id=None,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        fetch_max_wait_ms=50,
        max_partition_fetch_bytes=8 * 1024 * 1024,
    )
    async with _started(stack, client.start, client.stop):
        made = Follower(stack, cast(_Reader, client), names)
        await made.begin(from_start=from_start)
        yield made


class Follower:
    """A reader of whole topics."""

    def __init__(self, stack: Stack, client: _Reader, names: dict[str, str]) -> None:
        self._stack = stack
        self._client = client
        self._names = names
        self.starts: dict[tuple[str, int], int] = {}
        """First offset there is of each partition, when the reading began."""

    async def begin(self, *, from_start: bool) -> None:
        """Goes to where the reading begins. Raises Trouble."""
        partitions = list(self._client.assignment())
        starts = await _answer(self._stack, lambda: self._client.beginning_offsets(partitions))
        ends = await _answer(self._stack, lambda: self._client.end_offsets(partitions))
        for partition in partitions:
            self._client.seek(partition, (starts if from_start else ends)[partition])
        self.starts = {self._slot(partition): offset for partition, offset in starts.items()}

    async def ends(self) -> dict[tuple[str, int], int]:
        """Where the log of each partition ends now. Raises Trouble."""
        partitions = list(self._client.assignment())
        ends = await _answer(self._stack, lambda: self._client.end_offsets(partitions))
        return {self._slot(partition): offset for partition, offset in ends.items()}

    async def next(self, seconds: float) -> Iterator[LogRecord]:
        """What has arrived, waiting this long for something. Those of one partition come in order."""
        read = await self._client.getmany(timeout_ms=max(0, int(seconds * 1000)), max_records=_RECORDS_AT_A_TIME)
        return (
            LogRecord(
                self._names[partition.topic],
                partition.partition,
                message.offset,
                message.key,
                message.value,
                message.headers,
                _published(message.timestamp),
            )
            for partition, messages in read.items()
            for message in messages
        )

    async def until(self, ends: dict[tuple[str, int], int]) -> AsyncIterator[LogRecord]:
        """Everything from where the reading stands up to these ends. Raises Trouble where the log does not go on."""
        silent = 0
        while behind := [partition for partition in self._client.assignment() if await self._behind(partition, ends)]:
            progress = False
            for record in await self.next(0.5):
                progress = True
                if record.offset < ends[record.topic, record.partition]:
                    yield record
            silent = 0 if progress else silent + 1
            if silent > 60:
                raise Trouble(f"Kafka's log of {behind[0].topic} could not be read to its end: is the broker healthy?")

    async def _behind(self, partition: TopicPartition, ends: dict[tuple[str, int], int]) -> bool:
        return await self._client.position(partition) < ends[self._slot(partition)]

    def _slot(self, partition: TopicPartition) -> tuple[str, int]:
        return self._names[partition.topic], partition.partition


@dataclass(frozen=True, slots=True)
class Log:
    """A topic's log as it stands, and how far a consumer group has said it handled it. Offsets are by partition."""

    topic_log: TopicLog
    starts: dict[int, int]
    ends: dict[int, int]
    committed: dict[int, int]


class Group:
    """A consumer group, seen from outside: it is not joined."""

    def __init__(self, stack: Stack, client: AIOKafkaConsumer) -> None:
        self._stack = stack
        self._client = client

    async def logs(self, topics: Iterable[str]) -> dict[str, Log]:
        """The logs of these topics, by topic. Raises Trouble."""
        names = {self._stack.topic(topic): topic for topic in topics}
        logs = await _answer(self._stack, lambda: topic_logs(self._client, names))
        partitions = [TopicPartition(name, number) for name in names for number in range(logs[name].partitions)]
        self._client.assign(partitions)
        reader = cast(_Reader, self._client)
        starts = await _answer(self._stack, lambda: reader.beginning_offsets(partitions))
        ends = await _answer(self._stack, lambda: reader.end_offsets(partitions))
        committed = {one: await _answer(self._stack, partial(self._client.committed, one)) for one in partitions}
        return {
            topic: Log(
                logs[name],
                {one.partition: starts[one] for one in partitions if one.topic == name},
                {one.partition: ends[one] for one in partitions if one.topic == name},
                {one.partition: said for one, said in committed.items() if one.topic == name and said is not None},
            )
            for name, topic in names.items()
        }

    async def commit(self, offsets: Mapping[tuple[str, int], int]) -> None:
        """Says for the group how far it has handled partitions. Raises Trouble where it has members."""
        places = {
            TopicPartition(self._stack.topic(topic), number): offset for (topic, number), offset in offsets.items()
        }
        try:
            await self._client.commit(places)
        except KafkaError as error:
            raise Trouble(
                f"Kafka takes no offsets for this group ({type(error).__name__}): stop all processes of the service, "
                "wait until their session has run out, and try again."
            ) from None


@asynccontextmanager
async def group(stack: Stack, service: str, topics: Iterable[str]) -> AsyncGenerator[Group]:
    """The consumer group of a service. Raises Trouble where Kafka does not answer or topics are missing."""
    await _require(stack, topics)
    client = AIOKafkaConsumer(
        bootstrap_servers=stack.kafka,
        client_id="fieldbridge-positions",
        group_id=stack.topic(service),
        enable_auto_commit=False,
    )
    async with _started(stack, client.start, client.stop):
        yield Group(stack, client)


async def topics_there(stack: Stack) -> set[str]:
    """The topics of the table and dead-letter topics that exist. Raises Trouble where Kafka does not answer."""
    client = AIOKafkaAdminClient(bootstrap_servers=stack.kafka)
    async with _started(stack, client.start, client.close):
        present = set(await _answer(stack, client.list_topics))
    names = (name for topic in TOPICS for name in (topic.name, topic.name + DEAD_SUFFIX))
    return {name for name in names if stack.topic(name) in present}


async def log_lengths(stack: Stack) -> dict[str, int]:
    """Number of records in the log of each topic of the table and each dead-letter topic that exists."""
    there = await topics_there(stack)
    if not there:
        return {}
    async with follower(stack, there) as reading:
        ends = await reading.ends()
    lengths = dict.fromkeys(there, 0)
    for (topic, number), end in ends.items():
        lengths[topic] += end - reading.starts[topic, number]
    return lengths


def _published(milliseconds: int) -> datetime | None:
    """A record's timestamp; its producer may have set any number."""
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def headers_of(record: LogRecord) -> dict[str, bytes | None]:
    """Headers by name; of repeated ones the last."""
    return dict(record.headers)


def fact_of(record: LogRecord) -> tuple[Envelope, dict[str, Any]] | None:
    """Envelope and body of a fact or receipt; None where the record is nothing that the topic's publisher would say."""
    try:
        envelope, data = read(record.headers, record.value)
        known = parse(BODIES[record.topic], envelope.type, data)
    except (NotAnEvent, ValidationError):
        return None
    if known is None or envelope.source != _PUBLISHERS[record.topic]:
        return None
    return envelope, cast("dict[str, Any]", json.loads(data))


async def _require(stack: Stack, topics: Iterable[str]) -> None:
    if missing := set(topics) - await topics_there(stack):
        raise Trouble(
            f"Kafka at {stack.kafka} lacks the topics {', '.join(sorted(missing))}: run `fieldbridge topics --create`, "
            "or start the services, which create them."
        )


async def _answer(stack: Stack, question: Callable[[], Awaitable[_T]]) -> _T:
    """Asks again while a broker that is asked is away: of several, another may answer. Raises Trouble."""
    deadline = monotonic() + _CONNECT_SECONDS
    while True:
        try:
            return await asyncio.wait_for(question(), timeout=_CONNECT_SECONDS)
        except (KafkaError, OSError, TimeoutError) as error:
            if monotonic() > deadline:
                raise _silent(stack, error) from None
        await asyncio.sleep(_AGAIN_SECONDS)


def _silent(stack: Stack, error: Exception) -> Trouble:
    return Trouble(
        f"Kafka at {stack.kafka} does not answer ({type(error).__name__}): run `fieldbridge up`, or set "
        "FIELDBRIDGE_KAFKA to a broker that runs."
    )


@asynccontextmanager
async def _started(
    stack: Stack, start: Callable[[], Awaitable[None]], stop: Callable[[], Awaitable[None]]
) -> AsyncGenerator[None]:
    try:
        await asyncio.wait_for(start(), timeout=_CONNECT_SECONDS)
    except (KafkaError, OSError, TimeoutError) as error:
        await _end(stop)
        raise _silent(stack, error) from None
    try:
        yield
    finally:
        await _end(stop)


async def _end(stop: Callable[[], Awaitable[None]]) -> None:
    try:
        await asyncio.wait_for(stop(), timeout=_CLOSE_SECONDS)
    except (KafkaError, OSError, TimeoutError):
        return
