"""Drives workers as processes of their own, and Kafka as the outside world does: for tests of what moves events."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from aiokafka.structs import ConsumerRecord
from prometheus_client.parser import text_string_to_metric_families

from deploy.local import ports
from schemas.envelope import Envelope
from services.runtime.rawrecords import read_tolerantly

TREE: Final = Path(__file__).resolve().parent.parent
PATIENCE_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.03


async def until(holds: Callable[[], Awaitable[Any]], awaited: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """Asks until the answer is true, and returns it; fails naming what was awaited."""
    deadline = time.monotonic() + seconds
    while True:
        answer = await holds()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:.0f} s in vain: {awaited}; last answer: {answer!r}")
        await asyncio.sleep(_POLL_SECONDS)


@dataclass
class Worker:
    """A service process. Faust renames its processes: it is known by its id alone."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def said(self) -> str:
        """Everything it wrote to its log."""
        return self.log.read_text(errors="replace")

    async def get(self, path: str, seconds: float = 5.0) -> tuple[int, str]:
        """Status and text of one of its pages; status 0 where it does not answer."""
        limit = aiohttp.ClientTimeout(total=seconds)
        try:
            async with (
                aiohttp.ClientSession(timeout=limit) as session,
                session.get(f"http://127.0.0.1:{self.port}{path}") as answer,
            ):
                return answer.status, await answer.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return 0, repr(error)

    async def reasons(self) -> list[str]:
        """Why it is not ready, as /readyz says it; empty where it is ready."""
        status, text = await self.get("/readyz")
        return json.loads(text)["reasons"] if status else ["it does not answer"]

    async def ready(self, seconds: float = PATIENCE_SECONDS) -> "Worker":
        """Waits until it is ready; fails with its log where it ends instead."""

        async def is_ready() -> bool:
            assert self.running, f"it ended with {self.process.returncode}:\n{self.said()[-3000:]}"
            status, text = await self.get("/readyz")
            return status == 200 and json.loads(text)["pid"] == self.pid

        await until(is_ready, f"the worker is ready; its log ends:\n{self.said()[-2000:]}", seconds)
        return self

    async def metrics(self) -> dict[tuple[str, tuple[str, ...]], float]:
        """Each sample of /metrics by its name and label values; empty where it does not answer."""
        status, text = await self.get("/metrics")
        if status != 200:
            return {}
        return {
            (sample.name, tuple(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    async def metric(self, name: str, *labels: str) -> float:
        """One sample, 0 where there is none."""
        return (await self.metrics()).get((name, labels), 0.0)

    def ask_to_stop(self) -> None:
        if self.running:
            self.process.send_signal(signal.SIGTERM)

    async def ended(self, seconds: float = 20.0) -> int:
        """Waits for its end and returns its exit code; kills it and fails where it does not end."""
        try:
            return await asyncio.to_thread(self.process.wait, seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"it did not end within {seconds:.0f} s; its log:\n{self.said()[-3000:]}") from None

    async def stop(self, seconds: float = 20.0) -> int:
        """SIGTERM; returns the exit code."""
        self.ask_to_stop()
        return await self.ended(seconds)

    def kill(self) -> None:
        """SIGKILL, as the machine would."""
        if self.running:
            self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """SIGSTOP: it keeps its connections and does nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)


@dataclass
class Workers:
    """Starts workers and sees to it that none survives. `settings` are FIELDBRIDGE_ variables without the prefix."""

    folder: Path
    settings: dict[str, str]
    started: list[Worker] = field(default_factory=list[Worker])

    def start(self, service: str, module: str = "", **settings: object) -> Worker:
        """Starts `python -m <module>` (services.<service> where not given) with the settings laid over the usual ones.

        The service's database is the setting `<service>_database`. A setting of None is left out.
        """
        port = int(str(settings.pop("port", None) or ports.choose()))
        given = self.settings | {"port": port, "host": "127.0.0.1"} | settings
        variables = {key: value for key, value in os.environ.items() if not key.startswith("FIELDBRIDGE_")}
        variables |= {f"FIELDBRIDGE_{key.upper()}": str(value) for key, value in given.items() if value is not None}
        variables["PYTHONPATH"] = str(TREE)
        log = self.folder / f"{service}-{len(self.started)}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", module or f"services.{service}"],
                cwd=TREE,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        worker = Worker(process, port, log)
        self.started.append(worker)
        return worker

    def end_all(self) -> None:
        """Kills what still runs."""
        for worker in self.started:
            if worker.running:
                worker.resume()
                worker.kill()


class RawName(str):
    """A header name that is written as any bytes at all."""

    raw: bytes

    def __new__(cls, raw: bytes) -> "RawName":
        made = super().__new__(cls, raw.decode("latin-1"))
        made.raw = raw
        return made

    def encode(self, *_: object, **__: object) -> bytes:
        return self.raw


@dataclass(frozen=True)
class Message:
    """A record to publish; `partition` is chosen by the key where it is None."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()
    partition: int | None = None
    timestamp_ms: int | None = None

    @property
    def odd(self) -> bool:
        """Whether aiokafka's producer refuses to write it."""
        return (self.key is None and self.value is None) or any(isinstance(name, RawName) for name, _ in self.headers)


def message(topic: str, envelope: Envelope, body: object, partition: int | None = None) -> Message:
    """An event as the outside world writes it; `body` is JSON as bytes, or what becomes JSON."""
    value = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Message(topic, envelope.subject.encode(), value, envelope.headers(), partition)


async def publish(kafka: str, messages: Iterable[Message]) -> None:
    """Publishes in order, and returns once the broker has acknowledged all."""
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka, enable_idempotence=True, acks="all", max_request_size=4 * 1024 * 1024
    )
    await producer.start()
    try:
        sent: list[asyncio.Future[Any]] = []
        for one in messages:
            if one.odd:
                await asyncio.gather(*sent)
                await _publish_odd(kafka, one)
                continue
            sent.append(
                await producer.send(
                    one.topic, one.value, one.key, one.partition, one.timestamp_ms, headers=list(one.headers)
                )
            )
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


async def _publish_odd(kafka: str, one: Message) -> None:
    """Writes a batch of one record with aiokafka's Python builder, which takes what its producer refuses."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    try:
        builder = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, -1, 1)
        builder.append(0, one.timestamp_ms, one.key, one.value, list(one.headers))
        batch = producer.create_batch()
        batch._builder = builder
        batch._relative_offset = 1
        partition = one.partition
        if partition is None:
            await producer.client._wait_on_metadata(one.topic)
            partition = producer._partition(one.topic, None, one.key, None, one.key, None)
        await (await producer.send_batch(batch, one.topic, partition=partition))
    finally:
        await producer.stop()


async def read_log(kafka: str, *topics: str) -> list[ConsumerRecord[bytes, bytes]]:
    """Every record of the topics as they stand now, in the order of each partition's log."""
    read_tolerantly()
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        await consumer._client.set_topics(topics)  # a consumer without a group learns of topics only so
        partitions = [
            TopicPartition(topic, number) for topic in topics for number in consumer.partitions_for_topic(topic) or ()
        ]
        if not partitions:
            return []
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        starts = await consumer.beginning_offsets(partitions)
        records: list[ConsumerRecord[bytes, bytes]] = []
        waiting = {part for part, end in ends.items() if end > starts[part]}
        while waiting:
            for part, batch in (await consumer.getmany(timeout_ms=200, max_records=5000)).items():
                records.extend(one for one in batch if one.offset < ends[part])
            waiting = {part for part in waiting if await consumer.position(part) < ends[part]}
        return sorted(records, key=lambda one: (one.topic, one.partition, one.offset))
    finally:
        await consumer.stop()


async def drained(kafka: str, database_url: str, topic_prefix: str, topics: Iterable[str]) -> None:
    """Waits until a service has handled all of the topics' records as they stand now and its outbox is empty.

    `topics` are names of the topic table. Every partition that holds a record must have a position at its end.
    """
    ends = await ends_of(kafka, [topic_prefix + topic for topic in topics])
    wanted = {(part.topic.removeprefix(topic_prefix), part.partition): end for part, end in ends.items() if end}
    db = await asyncpg.connect(database_url)

    async def is_drained() -> bool:
        rows = await db.fetch('SELECT topic, "partition", next_offset FROM runtime.consumer_position')
        standing = {(row["topic"], row["partition"]): row["next_offset"] for row in rows}
        reached = all(standing.get(slot, -1) >= end for slot, end in wanted.items())
        return reached and not await db.fetchval(
            "SELECT EXISTS (SELECT FROM runtime.outbox) OR EXISTS (SELECT FROM runtime.parked WHERE state <> 'parked')"
        )

    try:
        await until(is_drained, f"everything handled up to {wanted} and published")
    finally:
        await db.close()


async def ends_of(kafka: str, topics: Iterable[str]) -> dict[TopicPartition, int]:
    """Where the log of each partition ends."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka)
    await consumer.start()
    try:
        wanted = list(topics)
        await consumer._client.set_topics(wanted)
        return await consumer.end_offsets(
            [TopicPartition(topic, number) for topic in wanted for number in consumer.partitions_for_topic(topic) or ()]
        )
    finally:
        await consumer.stop()


async def create_topics(kafka: str, *topics: str, partitions: int = 8) -> None:
    """Creates topics as they are named, where they do not exist."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, partitions, 1) for topic in topics])
    finally:
        await admin.close()
