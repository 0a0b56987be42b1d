"""What tells a topic's log from another one under the same name: the id Kafka gave it, and how many parts it has.

aiokafka speaks no version of the Metadata API that carries ids. Version 10 (Kafka 2.8, KIP-516) is laid out here.
"""

# What is asked here is aiokafka's own inside, which has no types; versions are pinned.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportPrivateUsage=false, reportIncompatibleMethodOverride=false
# pyright: reportAssignmentType=false

from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any
from uuid import UUID

from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.errors import NodeNotReadyError, for_code
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)


@dataclass(frozen=True, slots=True)
class TopicLog:
    """One log of a topic. A topic that is deleted and made again has another id."""

    id: UUID
    partitions: int


async def topic_logs(consumer: Any, topics: Iterable[str]) -> dict[str, TopicLog]:
    """The logs that now bear these names in the cluster. Raises KafkaError, also where one does not exist."""
    client: AIOKafkaClient = consumer._client
    node = client.get_random_node()
    # A question on the connection of fetches would wait until the broker has something to fetch.
    if node is None or not await client.ready(node, group=ConnectionGroup.COORDINATION):
        raise NodeNotReadyError("no broker is known")
    answer: Any = await client.send(node, _Metadata(topics), group=ConnectionGroup.COORDINATION)
    logs: dict[str, TopicLog] = {}
    for error, name, topic_id, _, partitions, *_ in answer.topics:
        if error:
            raise for_code(error)(f"topic {name}")
        logs[name] = TopicLog(topic_id, len(partitions))
    return logs


class _Uuid(AbstractType[UUID]):
    @classmethod
    def encode(cls, value: UUID) -> bytes:
        return value.bytes

    @classmethod
    def decode(cls, data: BytesIO) -> UUID:
        return UUID(bytes=data.read(16))


class _Response(Response):
    API_KEY = 3
    API_VERSION = 10
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString()),
                ("port", Int32),
                ("rack", CompactString()),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString()),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString()),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_authorized_operations", Int32),
        ("tags", TaggedFields),
    )


class _Request(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 3
    API_VERSION = 10
    RESPONSE_TYPE = _Response
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("name", CompactString()), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _Metadata(Request[_Request]):
    API_KEY = 3

    def __init__(self, topics: Iterable[str]) -> None:
        self._topics = list(topics)

    def build(self, request_struct_class: type[_Request]) -> _Request:
        named = [(UUID(int=0), topic, dict[int, bytes]()) for topic in self._topics]
        return request_struct_class(named, False, False, False, dict[int, bytes]())
