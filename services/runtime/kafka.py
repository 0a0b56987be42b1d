"""Kafka's clients as the services use them, and the topics they need. The only place that opens a client."""

# aiokafka declares no types; this file gives those of what the services use.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportIncompatibleMethodOverride=false

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, Final, NamedTuple, Protocol, TypeVar, cast

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import IllegalStateError, KafkaError, KafkaTimeoutError, TopicAlreadyExistsError, for_code

from schemas.topics import DEAD_SUFFIX, Topic
from services.runtime import rawrecords
from services.runtime.recordbatch import RecordBatch
from services.runtime.settings import Settings

__all__ = ["IllegalStateError", "KafkaError", "KafkaTimeoutError", "TopicPartition"]

PATIENCE_SECONDS: Final = 10.0
"""How long a question to the brokers may stay without an answer."""

_LARGEST_DEAD: Final = 8 * 1024 * 1024
_LARGEST_BATCH: Final = 512 * 1024
"""Bytes of one partition in one request; brokers take a megabyte unless they are told otherwise."""

_LONGEST_FETCH_MILLISECONDS: Final = 250
_GATHERED_BYTES: Final = 256 * 1024
"""Enough for one transaction: some four hundred events."""

Outgoing = tuple[str, Iterable[tuple[int, bytes]]]
"""Records to be sent: name of the topic in the cluster, and each record's bytes behind the hash of its key."""

Wait = Callable[[float], Awaitable[None]]
"""Waits so many seconds; raises where waiting is to end."""


class Message(Protocol):
    """A record as aiokafka has parsed it; `timestamp` is in milliseconds since 1970."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class Client(Protocol):
    """What is started before it is used, and stopped afterwards."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...


C = TypeVar("C", bound=Client)


class Consumer(Protocol):
    """What the pump uses of aiokafka's consumer."""

    def subscribe(self, topics: Sequence[str], *, listener: ConsumerRebalanceListener) -> None: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int, max_records: int
    ) -> Mapping[TopicPartition, Sequence[Message]]: ...
    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]: ...
    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]: ...
    def seek(self, partition: TopicPartition, offset: int) -> None: ...
    def pause(self, *partitions: TopicPartition) -> None: ...
    def resume(self, *partitions: TopicPartition) -> None: ...
    async def position(self, partition: TopicPartition) -> int: ...
    async def committed(self, partition: TopicPartition) -> int | None: ...
    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None: ...
    def highwater(self, partition: TopicPartition) -> int | None: ...


class Producer(Protocol):
    """What the relay uses of aiokafka's producer. `send_batch` gives the future of the broker's acknowledgement."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def partitions_for(self, topic: str) -> set[int]: ...
    async def send_batch(self, batch: RecordBatch, topic: str, *, partition: int) -> Awaitable[object]: ...


class Rebalance(ConsumerRebalanceListener):
    """aiokafka swallows what its listeners raise, so they only take note and the pump does the work."""

    def __init__(self, assigned: Callable[[set[TopicPartition]], None], revoked: Callable[[], Awaitable[None]]) -> None:
        self._note_assigned = assigned
        self._note_revoked = revoked

    async def on_partitions_revoked(self, revoked: object) -> None:
        await self._note_revoked()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        self._note_assigned(assigned)


class UnusableKafka(Exception):
    """Kafka cannot be used as it is; the message says why and what to do."""


def consumer(settings: Settings, service: str, *, unhurried: bool = False) -> Consumer:
    """A member of the service's consumer group; not started. Offsets are committed by hand, as a hint for lag tools.

    `unhurried`: nobody waits for what the service says, so that the brokers may gather records for a moment.

    Ranges are assigned, so that partitions of one number, which hold the same keys, go to the same worker. What other
    systems' transactions took back is not read.
    """
    rawrecords.read_tolerantly()
    rawrecords.read_plainly()
    client = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka,
        group_id=f"{settings.topic_prefix}{service}",
        client_id=f"fieldbridge-{service}",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        partition_assignment_strategy=(RangePartitionAssignor,),
        session_timeout_ms=settings.session_timeout_ms,
        heartbeat_interval_ms=max(300, settings.session_timeout_ms // 4),
        max_poll_interval_ms=600_000,
        request_timeout_ms=int(PATIENCE_SECONDS * 1000),
        isolation_level="read_committed",
        fetch_min_bytes=_GATHERED_BYTES if unhurried else 1,
        fetch_max_wait_ms=_LONGEST_FETCH_MILLISECONDS,
        metadata_max_age_ms=30_000,
    )
    return cast(Consumer, client)


def producer(settings: Settings, service: str) -> Producer:
    """An idempotent producer; not started."""
    client = AIOKafkaProducer(
        bootstrap_servers=settings.kafka,
        client_id=f"fieldbridge-{service}",
        enable_idempotence=True,
        acks="all",
        max_request_size=2 * _LARGEST_DEAD,
        request_timeout_ms=int(PATIENCE_SECONDS * 1000),
    )
    return cast(Producer, client)


class Sent(NamedTuple):
    """A batch that was handed to the producer: its acknowledgement, and which of what was outgoing it is made of."""

    acknowledged: Awaitable[object]
    of: list[int]


async def send(producer: Producer, outgoing: Iterable[Outgoing], timestamp: int) -> list[Sent]:
    """Hands records to the producer in their order.

    They go in a batch a partition: the producer's own call for each record costs many times what the record does.
    """
    batches: dict[tuple[str, int], tuple[RecordBatch, list[int]]] = {}
    sent: list[Sent] = []
    for nth, (topic, records) in enumerate(outgoing):
        partitions = len(await producer.partitions_for(topic))
        for hashed, record in records:
            place = topic, hashed % partitions
            batch, of = batches.get(place) or (RecordBatch(timestamp), [])
            if of and batch.size() + len(record) > _LARGEST_BATCH:
                sent.append(Sent(await producer.send_batch(batch, topic, partition=place[1]), of))
                batch, of = RecordBatch(timestamp), []
            if not of:
                batches[place] = batch, of
            if not of or of[-1] != nth:
                of.append(nth)
            batch.append(record)
    for (topic, partition), (batch, of) in batches.items():
        sent.append(Sent(await producer.send_batch(batch, topic, partition=partition), of))
    return sent


async def committed(consumer: Consumer, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
    """How far the group has said it handled partitions; without those it never said so of. Raises KafkaError."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            said = await asyncio.gather(*(consumer.committed(partition) for partition in partitions))
    except TimeoutError:
        raise KafkaTimeoutError("committed offsets were asked for in vain") from None
    return {partition: offset for partition, offset in zip(partitions, said, strict=True) if offset is not None}


async def started(make: Callable[[], C], settings: Settings, say: Callable[[str], None], wait: Wait) -> C:
    """Makes a client and starts it, waiting for the brokers and the topics for as long as it takes."""
    delay = 0.1
    while True:
        client = make()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await client.start()
            return client
        except (KafkaError, OSError, TimeoutError) as error:
            await _close(client)
            say(f"waiting for Kafka at {settings.kafka}: {type(error).__name__}")
        except BaseException:
            await _close(client)
            raise
        await wait(delay)
        delay = min(delay * 2, 2.0)


async def stopped(client: Client) -> None:
    """Stops a client; what it cannot finish in a second is left."""
    try:
        async with asyncio.timeout(1.0):
            await client.stop()
    except (KafkaError, OSError, TimeoutError):
        return


async def _close(client: Client) -> None:
    """Stops a client that may have started in part only."""
    with suppress(Exception):
        async with asyncio.timeout(0.5):
            await client.stop()


class _Admin:
    """aiokafka's administrator, which is closed rather than stopped."""

    def __init__(self, settings: Settings) -> None:
        self.client = AIOKafkaAdminClient(
            bootstrap_servers=settings.kafka,
            client_id="fieldbridge-topics",
            request_timeout_ms=int(PATIENCE_SECONDS * 1000),
        )

    async def start(self) -> None:
        await self.client.start()

    async def stop(self) -> None:
        await self.client.close()


async def create_topics(
    settings: Settings, topics: Iterable[Topic], say: Callable[[str], None], wait: Wait = asyncio.sleep
) -> list[str]:
    """Creates the topics of the table that do not exist, each with its dead-letter topic; returns their names.

    Waits for the brokers for as long as it takes. Raises UnusableKafka where the cluster refuses.
    """
    while True:
        admin = await started(lambda: _Admin(settings), settings, say, wait)
        try:
            return await _create_missing(admin.client, settings, topics, say, wait)
        except KafkaError as error:
            say(f"waiting for Kafka at {settings.kafka}: {type(error).__name__}")
        finally:
            await stopped(admin)
        await wait(0.5)


async def _create_missing(
    admin: AIOKafkaAdminClient, settings: Settings, topics: Iterable[Topic], say: Callable[[str], None], wait: Wait
) -> list[str]:
    present = set(await admin.list_topics())
    wanted = [new for topic in topics for new in _new_topics(topic, settings)]
    missing = [new for new in wanted if new.name not in present]
    if missing:
        await _create(admin, settings, missing)
    await _await_leaders(admin, [new.name for new in wanted], say, wait)
    return [new.name for new in missing]


async def _create(admin: AIOKafkaAdminClient, settings: Settings, missing: list[NewTopic]) -> None:
    answer = await admin.create_topics(missing)
    for name, code, *message in cast(Any, answer).topic_errors:
        error = for_code(code)
        if not code or error is TopicAlreadyExistsError:
            continue
        if error.retriable:
            raise error
        raise UnusableKafka(
            f"Kafka at {settings.kafka} did not create topic {name}: {error.__name__} "
            f"{message[0] if message else ''}. Create it by hand, or allow this client to create topics."
        )


async def _await_leaders(admin: AIOKafkaAdminClient, names: list[str], say: Callable[[str], None], wait: Wait) -> None:
    """A creation is answered before the metadata shows it. A consumer that joined its group meanwhile would be
    assigned nothing of the topic, and look again only when its metadata expires. Partitions of which no broker becomes
    the leader for long are not waited for: the others go on."""
    began, delay = monotonic(), 0.02
    while True:
        described = cast("list[dict[str, Any]]", await admin.describe_topics(names))
        without = [
            topic["topic"]
            for topic in described
            if topic["error_code"] or not topic["partitions"] or any(one["leader"] < 0 for one in topic["partitions"])
        ]
        if not without:
            return
        if monotonic() - began > PATIENCE_SECONDS:
            say(f"no broker leads all partitions of {', '.join(sorted(without))}: what is in those has to wait")
            return
        await wait(delay)
        delay = min(delay * 1.5, 0.5)


def _new_topics(topic: Topic, settings: Settings) -> list[NewTopic]:
    retention = -1 if topic.retention_days is None else topic.retention_days * 86_400_000
    kept = {
        "retention.ms": str(retention),
        "cleanup.policy": "delete",
        # By the broker's clock: a publisher whose clock is wrong would have what it says deleted before its time.
        "message.timestamp.type": "LogAppendTime",
    }
    return [
        NewTopic(
            name=settings.topic(topic.name),
            num_partitions=topic.partitions,
            replication_factor=settings.replication_factor,
            topic_configs=kept,
        ),
        NewTopic(
            name=settings.topic(topic.name + DEAD_SUFFIX),
            num_partitions=1,
            replication_factor=settings.replication_factor,
            topic_configs=kept | {"max.message.bytes": str(_LARGEST_DEAD)},
        ),
    ]
