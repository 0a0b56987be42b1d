"""Kafka's own view of a stack's topics, and what an administrator can do to them."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, cast

from aiokafka.admin import AIOKafkaAdminClient

from schemas.topics import TOPICS
from services.console.surroundings import Stack


@asynccontextmanager
async def administering(stack: Stack) -> AsyncGenerator[AIOKafkaAdminClient]:
    """A client that may create, change and delete topics."""
    client = AIOKafkaAdminClient(bootstrap_servers=stack.kafka)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def fully_replicated(stack: Stack) -> bool:
    """Whether every replica of every partition is in sync."""
    async with administering(stack) as client:
        described = cast(
            "list[dict[str, Any]]", await client.describe_topics([stack.topic(topic.name) for topic in TOPICS])
        )
    return all(
        len(partition["isr"]) == len(partition["replicas"]) for topic in described for partition in topic["partitions"]
    )
