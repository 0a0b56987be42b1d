"""Moves records from Kafka into the service: reads slices of its partitions and runs each in one transaction."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Final


from services.runtime import inbox, kafka
from services.runtime.database import Failure, Pool, meaning
from services.runtime.handling import Handling, Taken, describe
from services.runtime.health import Halted, Health
from services.runtime.inbox import Claim, Slot
from services.runtime.kafka import Consumer, IllegalStateError, KafkaError, Message, Rebalance, TopicPartition
from services.runtime.logs import logger
from services.runtime.metrics import Metrics
from services.runtime.records import Record
from services.runtime.settings import Settings
from services.runtime.transactions import Slice, Transactions
from services.runtime.supervision import Supervised, task

_HINT_EVERY_SECONDS: Final = 1.0

log = logger("pump")


class Pump(Supervised):
    """One member of the service's consumer group, and the transactions of what it reads."""

    def __init__(
        self,
        settings: Settings,
        worker: str,
        handling: Handling,
        pool: Pool,
        metrics: Metrics,
        health: Health,
        committed: Callable[[frozenset[str]], None],
    ) -> None:
        super().__init__()
        self._settings = settings
        self._worker = worker
        self._handling = handling
        self._pool = pool
        self._metrics = metrics
        self._health = health
        self._committed = committed
        """Called after each commit with the topics that were read."""
        self._transactions = Transactions(pool, handling, metrics, health)
        self._topics = {settings.topic(reads.topic.name): reads.topic.name for reads in handling.service.reads}
        self._claims: dict[Slot, Claim] = {}
        self._unclaimed: set[TopicPartition] = set()
        self._working = asyncio.Lock()
        self._consumer: Consumer | None = None
        self._doubted: dict[TopicPartition, int] = {}
        self._hinted = 0.0
        self._moved = monotonic()

    async def on_start(self) -> None:
        self._health.beat("pump")

    async def on_stop(self) -> None:
        """Waits for the slice in hand, then leaves the group, so that others go on at once."""
        async with self._working:
            await self._leave()

    @task
    async def _run(self) -> None:
        try:
            await self._join()
            while not self.should_stop:
                self._health.beat("pump")
                await self._turn()
        except Halted as halted:
            self._health.halted = halted
            self._metrics.halted.labels(halted.reason).set(1)
            log.critical("halted", reason=halted.reason, why=str(halted))
            await self._leave()

    async def _turn(self) -> None:
        consumer = self._consumer
        assert consumer is not None
        try:
            if self._unclaimed:
                await self._claim(consumer)
            read = await consumer.getmany(timeout_ms=200, max_records=self._settings.batch_events)
        except KafkaError as error:
            self._health.kafka_away(describe(error))
            log.warning("reading from Kafka failed", error=describe(error))
            await asyncio.sleep(0.5)
            return
        async with self._working:
            if self.should_stop:
                return
            batch = await self._slice(consumer, read)
            if batch is not None:
                await self._handle(batch)
        self._observe(consumer)
        await self._hint(consumer)

    # --- membership of the group

    async def _join(self) -> None:
        self._consumer = kafka.consumer(self._settings, self._handling.service.name)
        self._consumer.subscribe(list(self._topics), listener=Rebalance(self._assigned, self._revoked))
        await kafka.started(self._consumer, self._settings, self._health.kafka_away)
        self._health.kafka_here()

    async def _leave(self) -> None:
        consumer, self._consumer = self._consumer, None
        self._claims.clear()
        self._unclaimed.clear()
        self._health.assigned = False
        self._metrics.partitions.set(0)
        if consumer is not None:
            await consumer.stop()

    async def _revoked(self) -> None:
        async with self._working:
            self._claims.clear()
            self._unclaimed.clear()

    def _assigned(self, partitions: set[TopicPartition]) -> None:
        self._metrics.rebalances.inc()
        self._metrics.partitions.set(len(partitions))
        self._unclaimed = set(partitions)
        self._health.assigned = True
        log.info("partitions assigned", partitions=len(partitions))

    async def _claim(self, consumer: Consumer) -> None:
        """Takes over the positions of what was assigned, and reads on from there and nowhere else."""
        partitions = sorted(self._unclaimed)
        starts = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
        try:
            async with self._pool.transaction() as db:
                claims = await inbox.claim(
                    db, self._worker, {self._slot(partition): starts[partition] for partition in partitions}
                )
        except Exception as error:
            if meaning(error) is Failure.DEFECT:
                raise
            self._health.database_away(describe(error))
            await asyncio.sleep(0.5)
            return
        self._health.database_here()
        async with self._working:
            if set(partitions) != self._unclaimed:
                return
            for partition in partitions:
                claim = claims[self._slot(partition)]
                _check_within_log(partition, claim.next_offset, starts[partition], ends[partition])
                try:
                    consumer.seek(partition, claim.next_offset)
                except IllegalStateError:
                    return
            self._claims = claims
            self._unclaimed = set()
            self._moved = monotonic()

    def _slot(self, partition: TopicPartition) -> Slot:
        return self._topics[partition.topic], partition.partition

    # --- slices

    async def _slice(self, consumer: Consumer, read: Mapping[TopicPartition, Sequence[Message]]) -> Slice | None:
        taken: list[Taken] = []
        spans: dict[Slot, tuple[int, int]] = {}
        for partition, messages in read.items():
            slot = self._slot(partition)
            claim = self._claims.get(slot)
            if claim is None:
                continue
            if messages[0].offset != claim.next_offset and not await self._gap_in_log(
                consumer, partition, claim, messages
            ):
                continue
            taken.extend(self._handling.take(_record(slot, message)) for message in messages)
            spans[slot] = (claim.next_offset, messages[-1].offset + 1)
        return Slice(taken, spans) if spans else None

    async def _gap_in_log(
        self, consumer: Consumer, partition: TopicPartition, claim: Claim, messages: Sequence[Message]
    ) -> bool:
        """Whether the log really has nothing between the position and these records; if in doubt, seeks again."""
        start = (await consumer.beginning_offsets([partition]))[partition]
        end = (await consumer.end_offsets([partition]))[partition]
        _check_within_log(partition, claim.next_offset, start, end)
        if messages[0].offset > claim.next_offset and self._doubted.get(partition) == claim.next_offset:
            return True
        self._doubted[partition] = claim.next_offset
        consumer.seek(partition, claim.next_offset)
        return False

    async def _handle(self, batch: Slice) -> None:
        lost = await self._transactions.run(batch, self._claims)
        for slot, (_, end) in batch.spans.items():
            if slot not in lost:
                self._claims[slot] = Claim(end, self._claims[slot].epoch)
        self._moved = monotonic()
        self._committed(frozenset(topic for topic, _ in batch.spans))
        if self._transactions.parked_in_a_row >= self._settings.parking_limit:
            raise Halted(
                "parking_limit",
                f"{self._transactions.parked_in_a_row} events in a row were parked and none was handled. See why with "
                "`fieldbridge parked list`, mend the cause, restart the service and redrive them.",
            )
        if lost:
            self._metrics.fenced.inc(len(lost))
            log.warning("fenced: a newer owner holds these positions; joining the group anew", partitions=len(lost))
            await self._leave()
            await self._join()

    # --- what others see

    async def _hint(self, consumer: Consumer) -> None:
        """Commits offsets to Kafka for lag tools; nothing is ever read from there."""
        if monotonic() - self._hinted < _HINT_EVERY_SECONDS or consumer is not self._consumer or not self._claims:
            return
        self._hinted = monotonic()
        offsets = {
            TopicPartition(self._settings.topic(topic), number): claim.next_offset
            for (topic, number), claim in self._claims.items()
        }
        try:
            await consumer.commit(offsets)
            self._health.kafka_here()
        except (KafkaError, IllegalStateError) as error:
            log.info("offsets not committed to Kafka", error=describe(error))

    def _observe(self, consumer: Consumer) -> None:
        behind: dict[str, int] = dict.fromkeys(self._topics.values(), 0)
        for (topic, number), claim in self._claims.items():
            end = _highwater(consumer, TopicPartition(self._settings.topic(topic), number))
            behind[topic] += max(0, end - claim.next_offset)
        for topic, events in behind.items():
            self._metrics.lag_events.labels(topic).set(events)
        self._metrics.position_age.set(monotonic() - self._moved if any(behind.values()) else 0)


def _check_within_log(partition: TopicPartition, position: int, start: int, end: int) -> None:
    if position < start:
        raise Halted(
            "position_before_log_start",
            f"The position of {partition.topic}-{partition.partition} is {position}, but its log starts at {start}: "
            "events were deleted before they were handled. Restore the log, or decide by hand where to go on.",
        )
    if position > end:
        raise Halted(
            "position_past_log_end",
            f"The position of {partition.topic}-{partition.partition} is {position}, but its log ends at {end}: the "
            "topic was recreated or truncated. Restore the log, or decide by hand where to go on.",
        )


def _record(slot: Slot, message: Message) -> Record:
    return Record(
        topic=slot[0],
        partition=slot[1],
        offset=message.offset,
        key=message.key,
        value=message.value,
        headers=message.headers,
        recorded_at=datetime.fromtimestamp(message.timestamp / 1000, UTC),
    )


def _highwater(consumer: Consumer, partition: TopicPartition) -> int:
    try:
        return consumer.highwater(partition) or 0
    except (IllegalStateError, AssertionError):
        return 0
