"""Moves records from Kafka into the service: reads slices of its partitions and runs each in one transaction."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic, time
from typing import Final, NamedTuple

from services.runtime import inbox, kafka
from services.runtime.database import Failure, Pool, meaning
from services.runtime.failpoints import armed
from services.runtime.handling import Handling, Taken
from services.runtime.health import Halted, Health
from services.runtime.inbox import Claim, Slot
from services.runtime.kafka import (
    Consumer,
    IllegalStateError,
    KafkaError,
    KafkaTimeoutError,
    Message,
    Rebalance,
    TopicPartition,
)
from services.runtime.logguard import DATABASE_WENT_BACK, LogGuard
from services.runtime.logs import describe, logger
from services.runtime.metrics import Metrics
from services.runtime.records import Record
from services.runtime.settings import Settings
from services.runtime.supervision import Supervised, task
from services.runtime.topiclogs import TopicLog, topic_logs
from services.runtime.transactions import Committed, Slice, Transactions

_HINT_EVERY_SECONDS: Final = 1.0
_LONGEST_HINT_SECONDS: Final = 2.0
_LONGEST_READ_SECONDS: Final = 5.0
_RECOGNISE_EVERY_SECONDS: Final = 1.0
_TAKEN_IN_A_ROW: Final = 100

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
        committed: Committed,
    ) -> None:
        super().__init__()
        self._settings = settings
        self._worker = worker
        self._handling = handling
        self._pool = pool
        self._metrics = metrics
        self._health = health
        self._reach = armed(settings.failpoints)
        self._transactions = Transactions(pool, handling, metrics, health, self.rest, committed, self._reach)
        self._topics = {settings.topic(reads.topic.name): reads.topic.name for reads in handling.service.reads}
        self._claims: dict[Slot, Claim] = {}
        self._reached: dict[Slot, int] = {}
        """How far has been read of each claimed partition, which may be further than its position."""
        self._ahead: asyncio.Task[_Read | None] | None = None
        """What comes next, read while the slice in hand is committed."""
        self._unclaimed: set[TopicPartition] = set()
        self._working = asyncio.Lock()
        self._consumer: Consumer | None = None
        self._doubted: dict[TopicPartition, int] = {}
        self._guard = LogGuard()
        self._recognised = 0.0
        self._newest: dict[Slot, int] = {}
        self._hinted = 0.0
        self._moved = monotonic()

    async def on_start(self) -> None:
        self._health.beat("pump")
        self._metrics.at_scrape.append(self.observe)

    async def on_stop(self) -> None:
        """Lets the slice in hand come to its end, then leaves the group, so that others go on at once."""
        await super().on_stop()
        await self._leave()

    @task
    async def _run(self) -> None:
        try:
            await self._join()
            while not self.should_stop:
                self._health.beat("pump")
                await self._turn()
        except Halted as halted:
            self._health.halt("pump", halted)
            if halted.reason == DATABASE_WENT_BACK:
                # Rounds and the relay must not go on from there either.
                self._pool.bar(str(halted))
            self._metrics.halted.labels(halted.reason).set(1)
            log.critical("halted", reason=halted.reason, why=str(halted))
        finally:
            await self._leave()

    async def _turn(self) -> None:
        consumer = self._consumer
        assert consumer is not None
        lost: set[Slot] = set()
        try:
            if self._unclaimed:
                await self._drop_ahead()
                await self._claim(consumer)
            ahead, self._ahead = self._ahead, None
            read = await (ahead or self._read(consumer))
            async with self._working:
                if read is not None and read.claims is self._claims and not self.should_stop:
                    self._ahead = asyncio.create_task(self._read(consumer))
                    lost = await self._handle(read)
        except KafkaError as error:
            self._health.kafka_away(describe(error))
            log.warning("reading from Kafka failed", error=describe(error))
            self._read_again(consumer)
            await self.rest(0.5)
        except TimeoutError:
            self._read_again(consumer)
        if lost:
            self._metrics.fenced.inc(len(lost))
            log.warning("fenced: a newer owner holds these positions; joining the group anew", partitions=len(lost))
            await self._leave()
            await self._join()
            return
        await self._hint(consumer)

    # --- membership of the group

    async def _join(self) -> None:
        def beat_and_say(why: str) -> None:
            self._health.beat("pump")
            self._health.kafka_away(why)

        self._consumer = await kafka.started(
            lambda: kafka.consumer(self._settings, self._handling.service.name), self._settings, beat_and_say, self.rest
        )
        self._consumer.subscribe(list(self._topics), listener=Rebalance(self._assigned, self._revoked))
        self._health.kafka_here()

    async def _leave(self) -> None:
        consumer, self._consumer = self._consumer, None
        self._forget_assignment()
        await self._drop_ahead()
        if consumer is not None:
            await kafka.stopped(consumer)

    async def _revoked(self) -> None:
        async with self._working:
            self._forget_assignment()

    async def _drop_ahead(self) -> None:
        """What was read ahead belongs to an assignment that is over."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)

    def _forget_assignment(self) -> None:
        self._claims = {}
        self._unclaimed.clear()
        self._newest.clear()
        self._doubted.clear()
        self._guard.follow({})
        self._health.assigned = False
        self._metrics.partitions.set(0)
        self._metrics.position_age.set(0)
        for topic in self._topics.values():
            self._metrics.lag_events.labels(topic).set(0)
            self._metrics.lag_seconds.labels(topic).set(0)

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
        logs = await self._logs(consumer)
        committed = {} if self._handling.service.rebuildable else await kafka.committed(consumer, partitions)
        try:
            async with self._pool.transaction() as db:
                self._guard.follow(await inbox.follow(db, logs))
                self._guard.check_same(logs)
                claims = await inbox.claim(
                    db, self._worker, {self._slot(partition): starts[partition] for partition in partitions}
                )
                for partition, offset in committed.items():
                    self._guard.check_not_older(partition, claims[self._slot(partition)].next_offset, offset)
        except Exception as error:
            if meaning(error) is Failure.DEFECT:
                raise
            self._health.database_away(describe(error))
            await self.rest(0.5)
            return
        self._health.database_here()
        # Only now does nobody else move the positions: an end read before could lie before a position of today.
        ends = await consumer.end_offsets(partitions)
        async with self._working:
            if set(partitions) != self._unclaimed:
                return
            for partition in partitions:
                position = claims[self._slot(partition)].next_offset
                self._guard.check_start(partition, position, starts[partition])
                if not self._guard.within_end(partition, position, ends[partition]):
                    return
                try:
                    consumer.seek(partition, position)
                except IllegalStateError:
                    return
            self._claims = claims
            self._reached = {slot: claim.next_offset for slot, claim in claims.items()}
            self._unclaimed = set()
            self._moved = monotonic()

    async def _recognise(self, consumer: Consumer) -> None:
        """Once in a while, sees that the logs are still those that were claimed. Raises Halted."""
        if monotonic() - self._recognised >= _RECOGNISE_EVERY_SECONDS:
            self._recognised = monotonic()
            try:
                async with asyncio.timeout(_LONGEST_HINT_SECONDS):
                    found = await self._logs(consumer)
            except TimeoutError:
                raise KafkaTimeoutError("which logs there are stayed without an answer") from None
            self._guard.check_same(found)

    async def _logs(self, consumer: Consumer) -> dict[str, TopicLog]:
        found = await topic_logs(consumer, self._topics)
        return {self._topics[name]: log for name, log in found.items()}

    def _read_again(self, consumer: Consumer) -> None:
        """What a failed read had already taken from the consumer is lost: reads on from the positions."""
        for slot, claim in self._claims.items():
            with suppress(IllegalStateError):
                consumer.seek(self._partition(slot), claim.next_offset)
            self._reached[slot] = claim.next_offset
        self._doubted.clear()

    def _partition(self, slot: Slot) -> TopicPartition:
        return TopicPartition(self._settings.topic(slot[0]), slot[1])

    def _slot(self, partition: TopicPartition) -> Slot:
        return self._topics[partition.topic], partition.partition

    # --- slices

    async def _read(self, consumer: Consumer) -> "_Read | None":
        """The next records of the claimed partitions, with their envelopes and bodies. Raises KafkaError, Halted."""
        async with asyncio.timeout(_LONGEST_READ_SECONDS):
            await self._recognise(consumer)
            found = await consumer.getmany(timeout_ms=200, max_records=self._settings.batch_events)
        claims = self._claims
        taken: list[Taken] = []
        spans: dict[Slot, tuple[int, int]] = {}
        newest: dict[Slot, int] = {}
        for partition, messages in found.items():
            slot = self._slot(partition)
            reached = self._reached.get(slot) if slot in claims else None
            if reached is None:
                continue
            if messages[0].offset != reached and not await self._gap_in_log(consumer, partition, reached, messages):
                continue
            for nth, message in enumerate(messages, 1):
                taken.append(self._handling.take(_record(slot, message)))
                if not nth % _TAKEN_IN_A_ROW:
                    # The slice in hand is to go on as soon as PostgreSQL has answered.
                    await asyncio.sleep(0)
            self._reached[slot] = messages[-1].offset + 1
            spans[slot] = (reached, messages[-1].offset + 1)
            newest[slot] = messages[-1].timestamp
        return _Read(Slice(taken, spans), claims, newest) if spans else None

    async def _gap_in_log(
        self, consumer: Consumer, partition: TopicPartition, reached: int, messages: Sequence[Message]
    ) -> bool:
        """Whether the log really has nothing between what was read and these records; if in doubt, seeks again."""
        start = (await consumer.beginning_offsets([partition]))[partition]
        end = (await consumer.end_offsets([partition]))[partition]
        self._guard.check_start(partition, reached, start)
        within = self._guard.within_end(partition, reached, end)
        if within and messages[0].offset > reached and self._doubted.get(partition) == reached:
            return True
        self._doubted[partition] = reached
        consumer.seek(partition, reached)
        return False

    async def _handle(self, read: "_Read") -> set[Slot]:
        """Runs the slice; returns the partitions that have a newer owner."""
        batch = read.batch
        lost = await self._transactions.run(batch, self._claims)
        for slot, (_, end) in batch.spans.items():
            if slot not in lost and slot in self._claims:
                self._claims[slot] = Claim(end, self._claims[slot].epoch)
        self._newest |= read.newest
        self._moved = monotonic()
        if self._transactions.parked_in_a_row >= self._settings.parking_limit:
            raise Halted(
                "parking_limit",
                f"{self._transactions.parked_in_a_row} events in a row were refused and none was handled. See why with "
                "`fieldbridge parked list`, mend the cause, restart the service and redrive them.",
            )
        return lost

    # --- what others see

    async def _hint(self, consumer: Consumer) -> None:
        """Commits offsets to Kafka for lag tools; nothing is ever read from there."""
        if monotonic() - self._hinted < _HINT_EVERY_SECONDS or consumer is not self._consumer or not self._claims:
            return
        self._hinted = monotonic()
        offsets = {self._partition(slot): claim.next_offset for slot, claim in self._claims.items()}
        try:
            async with asyncio.timeout(_LONGEST_HINT_SECONDS):
                self._reach("before_hint")
                await consumer.commit(offsets)
                self._reach("after_hint")
            self._health.kafka_here()
        except TimeoutError:
            self._health.kafka_away("a commit of offsets stayed without an answer")
        except (KafkaError, IllegalStateError) as error:
            log.info("offsets not committed to Kafka", error=describe(error))

    def observe(self) -> None:
        """Sets the gauges of what waits; asked at each scrape, since a pump that is held up turns no rounds."""
        consumer = self._consumer
        if consumer is None:
            return
        now = time() * 1000
        behind: dict[str, int] = dict.fromkeys(self._topics.values(), 0)
        age: dict[str, float] = dict.fromkeys(self._topics.values(), 0.0)
        for slot, claim in self._claims.items():
            waiting = _highwater(consumer, self._partition(slot)) - claim.next_offset
            if waiting > 0:
                behind[slot[0]] += waiting
                handled = self._newest.get(slot)
                seconds = monotonic() - self._moved if handled is None else (now - handled) / 1000
                age[slot[0]] = max(age[slot[0]], seconds)
        for topic, events in behind.items():
            self._metrics.lag_events.labels(topic).set(events)
            self._metrics.lag_seconds.labels(topic).set(age[topic])
        self._metrics.position_age.set(monotonic() - self._moved if any(behind.values()) else 0)


class _Read(NamedTuple):
    """A slice that was read, by which claims, and the timestamp of each partition's last record."""

    batch: Slice
    claims: dict[Slot, Claim]
    newest: dict[Slot, int]


def _record(slot: Slot, message: Message) -> Record:
    return Record(
        topic=slot[0],
        partition=slot[1],
        offset=message.offset,
        key=message.key,
        value=message.value,
        headers=message.headers,
        timestamp=message.timestamp,
    )


def _highwater(consumer: Consumer, partition: TopicPartition) -> int:
    try:
        return consumer.highwater(partition) or 0
    except (IllegalStateError, AssertionError):
        return 0
