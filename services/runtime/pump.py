"""A member of the service's consumer group: claims what it is assigned, and has lanes read and handle it."""

import asyncio
from contextlib import suppress
from time import monotonic, time
from typing import Final

from services.runtime import inbox, kafka
from services.runtime.database import Failure, Pool, meaning
from services.runtime.failpoints import armed
from services.runtime.handling import Handling
from services.runtime.health import Halted, Health
from services.runtime.inbox import Slot
from services.runtime.kafka import (
    Consumer,
    IllegalStateError,
    KafkaError,
    KafkaTimeoutError,
    Rebalance,
    TopicPartition,
)
from services.runtime.lane import Lane
from services.runtime.logguard import DATABASE_WENT_BACK, LogGuard
from services.runtime.logs import describe, logger
from services.runtime.metrics import Metrics
from services.runtime.settings import Settings
from services.runtime.supervision import Supervised, task
from services.runtime.topiclogs import TopicLog, topic_logs
from services.runtime.transactions import Committed, Transactions

_HINT_EVERY_SECONDS: Final = 1.0
_LONGEST_HINT_SECONDS: Final = 2.0
_RECOGNISE_EVERY_SECONDS: Final = 1.0
_TURN_SECONDS: Final = 0.1
_LONGEST_SLICE_SECONDS: Final = 0.8
"""How long a slice in hand may take when the group is left; then it is rolled back, and is the next owner's."""
_LONGEST_END_SECONDS: Final = 0.5
_LONGEST_LEAVE_SECONDS: Final = 2.4

log = logger("pump")


class Pump(Supervised):
    """Joins the group, claims positions, watches over the lanes and the logs, and tells lag tools how far it is."""

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
        self._topics = {settings.topic(reads.topic.name): reads.topic.name for reads in handling.service.reads}
        self._guard = LogGuard()
        transactions = Transactions(pool, handling, metrics, health, committed, self._reach)
        self._lanes = [
            Lane(f"lane {nth}", settings, handling, transactions, self._guard, health, self.rest)
            for nth in range(settings.lanes)
        ]
        self._running: set[asyncio.Task[int]] = set()
        self._unclaimed: set[TopicPartition] = set()
        self._consumer: Consumer | None = None
        self._ends: dict[TopicPartition, int] = {}
        """How far the logs went when last asked; a lane that is held up fetches nothing that would tell."""
        self._recognised = 0.0
        self._hinted = 0.0

    async def on_start(self) -> None:
        self._health.beat("pump")
        self._metrics.at_scrape.append(self.observe)

    async def on_stop(self) -> None:
        """Gives the task the time to let slices in hand come to their end and to leave the group."""
        self.wake()
        await self._wait_for_futures(timeout=_LONGEST_LEAVE_SECONDS)

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
            with suppress(Halted):
                await self._leave()

    async def _turn(self) -> None:
        consumer = self._consumer
        assert consumer is not None
        try:
            if self._unclaimed:
                await self._claim(consumer)
            await self._recognise(consumer)
        except KafkaError as error:
            self._health.kafka_away(describe(error))
            log.warning("asking Kafka failed", error=describe(error))
            await self.rest(0.5)
        if lost := await self._ended():
            self._metrics.fenced.inc(lost)
            log.warning("fenced: a newer owner holds these positions; joining the group anew", partitions=lost)
            await self._leave()
            await self._join()
            return
        await self._hint(consumer)

    async def _ended(self) -> int:
        """Gives the lanes a moment; returns how many partitions have a newer owner. Raises what has ended a lane."""
        if not self._running:
            await self.sleep(_TURN_SECONDS)
            return 0
        done, self._running = await asyncio.wait(
            self._running, timeout=_TURN_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        return sum(lane.result() for lane in done)

    # --- membership of the group

    async def _join(self) -> None:
        def beat_and_say(why: str) -> None:
            self._health.beat("pump")
            self._health.kafka_away(why)

        service = self._handling.service
        consumer = self._consumer = await kafka.started(
            lambda: kafka.consumer(self._settings, service.name, unhurried=service.rebuildable),
            self._settings,
            beat_and_say,
            self.rest,
        )

        # A consumer that is stopped may still hear of an assignment, which is none any more.
        def assigned(partitions: set[TopicPartition]) -> None:
            if consumer is self._consumer:
                self._assigned(partitions)

        async def revoked() -> None:
            if consumer is self._consumer:
                await self._revoked()

        consumer.subscribe(list(self._topics), listener=Rebalance(assigned, revoked))
        self._health.kafka_here()

    async def _leave(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_SLICE_SECONDS):
                await self._revoked()
        try:
            await self._end_lanes()
        finally:
            for lane in self._lanes:
                lane.give({}, {})
            consumer, self._consumer = self._consumer, None
            if consumer is not None:
                await kafka.stopped(consumer)

    async def _revoked(self) -> None:
        """Lets the slices in hand come to their end, so that the next owner finds their positions."""
        self._unclaimed.clear()
        self._ends.clear()
        self._health.assigned = False
        for lane in self._lanes:
            await lane.take_away()
        self._guard.follow({})
        self._metrics.partitions.set(0)

    async def _end_lanes(self) -> None:
        """Ends what reads for an assignment that is over. Raises what had ended it before."""
        running, self._running = self._running, set()
        if running:
            await asyncio.wait(running, timeout=_LONGEST_END_SECONDS)
        for lane in running:
            lane.cancel()
        for ended in await asyncio.gather(*running, return_exceptions=True):
            if isinstance(ended, Exception):
                raise ended

    def _assigned(self, partitions: set[TopicPartition]) -> None:
        self._metrics.rebalances.inc()
        self._metrics.partitions.set(len(partitions))
        self._unclaimed = set(partitions)
        self._health.assigned = True
        log.info("partitions assigned", partitions=len(partitions))

    async def _claim(self, consumer: Consumer) -> None:
        """Takes over the positions of what was assigned, and reads on from there and nowhere else."""
        await self._end_lanes()
        partitions = sorted(self._unclaimed)
        starts = await consumer.beginning_offsets(partitions)
        logs = await self._logs(consumer)
        committed = {} if self._handling.service.rebuildable else await kafka.committed(consumer, partitions)
        try:
            async with self._pool.transaction() as db:
                followed = await inbox.follow(db, logs)
                self._guard.follow(followed)
                self._guard.check_same(logs)
                claims = await inbox.claim(
                    db, self._worker, {self._slot(partition): starts[partition] for partition in partitions}
                )
                for partition, offset in committed.items():
                    self._guard.check_not_older(partition, claims[self._slot(partition)].next_offset, offset)
        except Exception as error:  # what it means is asked next
            if meaning(error) is Failure.DEFECT:
                raise
            self._health.database_away(describe(error))
            await self.rest(0.5)
            return
        self._health.database_here()
        # Only now does nobody else move the positions: an end read before could lie before a position of today.
        ends = await consumer.end_offsets(partitions)
        if set(partitions) != self._unclaimed:
            return
        self._guard.follow(followed)
        for partition in partitions:
            position = claims[self._slot(partition)].next_offset
            self._guard.check_start(partition, position, starts[partition])
            if not self._guard.within_end(partition, position, ends[partition]):
                return
            try:
                consumer.seek(partition, position)
            except (IllegalStateError, AssertionError):
                return  # aiokafka has taken it away meanwhile
        self._unclaimed = set()
        for nth, lane in enumerate(self._lanes):
            lane.give({one: self._slot(one) for one in partitions if one.partition % len(self._lanes) == nth}, claims)
            self._running.add(asyncio.create_task(lane.run(consumer)))

    async def _recognise(self, consumer: Consumer) -> None:
        """Once in a while, sees that the logs are still those that were claimed, and how far they go. Raises Halted."""
        if monotonic() - self._recognised >= _RECOGNISE_EVERY_SECONDS:
            self._recognised = monotonic()
            waiting = [partition for lane in self._lanes if lane.held_up for partition in lane.offsets()]
            try:
                async with asyncio.timeout(_LONGEST_HINT_SECONDS):
                    self._guard.check_same(await self._logs(consumer))
                    self._ends = await consumer.end_offsets(waiting) if waiting else {}
                self._health.kafka_here()
            except TimeoutError:
                raise KafkaTimeoutError("which logs there are, and how far they go, stayed without an answer") from None

    async def _logs(self, consumer: Consumer) -> dict[str, TopicLog]:
        found = await topic_logs(consumer, self._topics)
        return {self._topics[name]: log for name, log in found.items()}

    def _slot(self, partition: TopicPartition) -> Slot:
        return self._topics[partition.topic], partition.partition

    # --- what others see

    async def _hint(self, consumer: Consumer) -> None:
        """Commits offsets to Kafka for lag tools; nothing is ever read from there."""
        offsets = {partition: offset for lane in self._lanes for partition, offset in lane.offsets().items()}
        if monotonic() - self._hinted < _HINT_EVERY_SECONDS or not offsets:
            return
        self._hinted = monotonic()
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
        events: dict[str, int] = dict.fromkeys(self._topics.values(), 0)
        ages: dict[str, float] = dict.fromkeys(self._topics.values(), 0.0)
        position_age = 0.0
        for lane in self._lanes:
            for partition, offset in lane.offsets().items():
                topic = self._topics[partition.topic]
                waiting = max(_highwater(self._consumer, partition), self._ends.get(partition, 0)) - offset
                if waiting > 0:
                    still = monotonic() - lane.moved
                    newest = lane.newest.get(self._slot(partition))
                    events[topic] += waiting
                    ages[topic] = max(ages[topic], still if newest is None else time() - newest / 1000)
                    position_age = max(position_age, still)
        for topic in self._topics.values():
            self._metrics.lag_events.labels(topic).set(events[topic])
            self._metrics.lag_seconds.labels(topic).set(ages[topic])
        self._metrics.position_age.set(position_age)


def _highwater(consumer: Consumer | None, partition: TopicPartition) -> int:
    try:
        return 0 if consumer is None else consumer.highwater(partition) or 0
    except (IllegalStateError, AssertionError):
        return 0
