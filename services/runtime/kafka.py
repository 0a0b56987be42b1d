"""Kafka's clients as the services use them, and the topics they need. The only place that opens a client."""

# aiokafka declares no types; this file gives those of what the services use.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportIncompatibleMethodOverride=false

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, cast

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import IllegalStateError, KafkaConnectionError, KafkaError, TopicAlreadyExistsError, for_code

from schemas.topics import DEAD_SUFFIX, Topic
from services.runtime.settings import Settings

_LARGEST_DEAD: Final = 8 * 1024 * 1024


__all__ = ["IllegalStateError", "KafkaError", "TopicPartition"]


class Message(Protocol):
    """A record as aiokafka's consumer gives it; `timestamp` is in milliseconds since 1970."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class Consumer(Protocol):
    """What the pump uses of aiokafka's consumer."""

    def subscribe(self, topics: Sequence[str], *, listener: ConsumerRebalanceListener) -> None: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def getmany(self, *, timeout_ms: int, max_records: int) -> Mapping[TopicPartition, Sequence[Message]]: ...
    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]: ...
    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]: ...
    def seek(self, partition: TopicPartition, offset: int) -> None: ...
    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None: ...
    def highwater(self, partition: TopicPartition) -> int | None: ...


class Producer(Protocol):
    """What the relay uses of aiokafka's producer. `send` gives the future of the broker's acknowledgement."""

    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def send(
        self, topic: str, *, value: bytes | None, key: bytes | None, headers: Sequence[tuple[str, bytes]]
    ) -> Awaitable[object]: ...


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


def consumer(settings: Settings, service: str) -> Consumer:
    """A member of the service's consumer group; not started. Offsets are committed by hand, as a hint for lag tools.

    Ranges are assigned, so that partitions of one number, which hold the same keys, go to the same worker.
    """
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
        fetch_max_wait_ms=250,
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
        request_timeout_ms=10_000,
    )
    return cast(Producer, client)


async def started(client: Any, settings: Settings, say: Callable[[str], None]) -> None:
    """Starts a client, waiting for the brokers and the topics for as long as it takes."""
    delay = 0.1
    while True:
        try:
            await client.start()
            return
        except (KafkaConnectionError, KafkaError, OSError) as error:
            say(f"waiting for Kafka at {settings.kafka}: {type(error).__name__}")
            await asyncio.sleep(delay)
            delay = min(delay * 2, 2.0)


async def create_topics(settings: Settings, topics: Iterable[Topic], say: Callable[[str], None]) -> list[str]:
    """Creates the topics of the table that do not exist, each with its dead-letter topic; returns their names.

    Raises UnusableKafka where the cluster refuses.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka, client_id="fieldbridge-topics")
    await started(admin, settings, say)
    try:
        present = set(await admin.list_topics())
        wanted = [new for topic in topics for new in _new_topics(topic, settings)]
        missing = [new for new in wanted if new.name not in present]
        if not missing:
            return []
        answer = await admin.create_topics(missing)
        for name, code, *message in cast(Any, answer).topic_errors:
            error = for_code(code)
            if code and error is not TopicAlreadyExistsError:
                raise UnusableKafka(
                    f"Kafka at {settings.kafka} did not create topic {name}: {error.__name__} "
                    f"{message[0] if message else ''}. Create it by hand, or allow this client to create topics."
                )
        return [new.name for new in missing]
    finally:
        await admin.close()


def _new_topics(topic: Topic, settings: Settings) -> list[NewTopic]:
    retention = -1 if topic.retention_days is None else topic.retention_days * 86_400_000
    return [
        NewTopic(
            name=settings.topic(topic.name),
            num_partitions=topic.partitions,
            replication_factor=settings.replication_factor,
            topic_configs={"retention.ms": str(retention), "cleanup.policy": "delete"},
        ),
        NewTopic(
            name=settings.topic(topic.name + DEAD_SUFFIX),
            num_partitions=1,
            replication_factor=settings.replication_factor,
            topic_configs={
                "retention.ms": "-1",
                "cleanup.policy": "delete",
                "max.message.bytes": str(_LARGEST_DEAD),
            },
        ),
    ]
