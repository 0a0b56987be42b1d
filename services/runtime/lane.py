"""Some of a worker's partitions, read and handled one slice after another.

While much waits, the next slice is read as the last commits. While little does, what comes meanwhile is waited for.

Lanes of a worker go on side by side, so that one decides while PostgreSQL works for the other. Partitions of one number
hold the same keys in every topic, and share a lane.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Final, NamedTuple

from services.runtime.handling import Handling, Taken
from services.runtime.health import Halted, Health
from services.runtime.inbox import Claim, Slot
from services.runtime.kafka import Consumer, IllegalStateError, KafkaError, Message, TopicPartition
from services.runtime.logguard import LogGuard
from services.runtime.logs import describe, logger
from services.runtime.records import Record
from services.runtime.settings import Settings
from services.runtime.transactions import Rest, Slice, Transactions

_LONGEST_READ_SECONDS: Final = 5.0
_READ_MILLISECONDS: Final = 200
_LONGEST_END_SECONDS: Final = 0.4
_TAKEN_IN_A_ROW: Final = 100
_FULL_SHARE: Final = 0.25
"""Of the most events of a transaction: after a slice of so many, more is taken to wait already."""
_LONGEST_PAUSE_SECONDS: Final = 0.05
_LONG_SECONDS: Final = 0.5

log = logger("pump")


class _TakenAway(Exception):
    """The lane is to have no partitions any more: what it waits to try again is left to the next owner."""


class Lane:
    """Reads the partitions it was given and runs their slices, until they are taken from it.

    `claims` are the positions it owns: where handling goes on. `moved` is when one of them last moved.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        handling: Handling,
        transactions: Transactions,
        guard: LogGuard,
        health: Health,
        rest: Rest,
    ) -> None:
        self.name = name
        self.claims: dict[Slot, Claim] = {}
        self.newest: dict[Slot, int] = {}
        """The timestamp of the last record handled of each partition."""
        self.moved = monotonic()
        self._settings = settings
        self._handling = handling
        self._transactions = transactions
        self._guard = guard
        self._health = health
        self._rest = rest
        self._alone = settings.lanes == 1
        """Lanes share a connection: what a fetch left out that waits for records would wait for its end."""
        self._partitions: dict[TopicPartition, Slot] = {}
        self._reached: dict[Slot, int] = {}
        """How far has been read of each partition, which may be further than its position."""
        self._doubted: dict[TopicPartition, int] = {}
        self._working = asyncio.Lock()
        self._leaving = False

    def give(self, partitions: Mapping[TopicPartition, Slot], claims: Mapping[Slot, Claim]) -> None:
        """From now on these are its partitions, whose positions were claimed."""
        self._partitions = dict(partitions)
        self.claims = {slot: claims[slot] for slot in partitions.values()}
        self._reached = {slot: claim.next_offset for slot, claim in self.claims.items()}
        self.moved = monotonic()
        self.newest.clear()
        self._doubted.clear()
        self._leaving = False

    async def take_away(self) -> None:
        """Lets the slice in hand come to its end; from then on it has no partitions.

        A slice that fails is not tried again: the group waits for this worker, and after a while goes on without it.
        """
        self._leaving = True
        async with self._working:
            self.give({}, {})

    @property
    def held_up(self) -> bool:
        """Whether a slice has been in hand for longer than most take."""
        return self._working.locked() and monotonic() - self.moved > _LONG_SECONDS

    def offsets(self) -> dict[TopicPartition, int]:
        """Where handling goes on in each partition."""
        return {partition: self.claims[slot].next_offset for partition, slot in self._partitions.items()}

    async def run(self, consumer: Consumer) -> int:
        """Reads and handles while there are partitions; returns how many have a newer owner, as soon as any has.

        Raises Halted where reading on would skip or lose events, and Stopping where the worker stops.
        """
        ahead: asyncio.Task[_Read | None] | None = None
        try:
            while self.claims:
                self._health.beat(self.name)
                if not self._guard.sure:
                    await self._wait(0.1)
                    continue
                try:
                    upcoming, ahead = ahead, None
                    read = await (upcoming or self._read(consumer))
                except KafkaError as error:
                    self._health.kafka_away(describe(error))
                    log.warning("reading from Kafka failed", error=describe(error))
                    self._read_again(consumer)
                    await self._wait(0.5)
                    continue
                except TimeoutError:
                    self._read_again(consumer)
                    continue
                if read is None:
                    continue
                began = monotonic()
                full = self._full(len(read.batch.taken))
                async with self._working:
                    if read.claims is self.claims:
                        if full:
                            ahead = asyncio.create_task(self._read(consumer))
                        if lost := await self._handle(read):
                            return len(lost)
                if not full:
                    # A slice costs about as much as the pause after it: under load, slices grow rather than follow on.
                    await asyncio.sleep(min(_LONGEST_PAUSE_SECONDS, monotonic() - began))
            return 0
        except _TakenAway:
            return 0
        finally:
            self._health.beats.pop(self.name, None)
            if ahead is not None:
                # A `getmany` that is cancelled counts as under way for ever (aiokafka's fetch_context).
                await asyncio.wait([ahead], timeout=_LONGEST_END_SECONDS)
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)

    def _full(self, events: int) -> bool:
        """Whether more is taken to wait already behind a slice of so many events."""
        return events >= _FULL_SHARE * self._settings.batch_events

    async def _read(self, consumer: Consumer) -> "_Read | None":
        """The next records, with their envelopes and bodies; None where none came. Raises KafkaError, Halted."""
        claims = self.claims
        if not claims:
            return None  # aiokafka would read everybody's partitions
        try:
            consumer.resume(*self._partitions)
            async with asyncio.timeout(_LONGEST_READ_SECONDS):
                found = await consumer.getmany(
                    *self._partitions, timeout_ms=_READ_MILLISECONDS, max_records=self._settings.batch_events
                )
            if found and self._alone and not self._full(sum(map(len, found.values()))):
                # What were fetched now would be the first few records that come. Fetched at the next reading, it is
                # all that have come by then.
                consumer.pause(*self._partitions)
        except IllegalStateError:
            # They are somebody else's now, of which the pump is about to hear.
            await asyncio.sleep(0.05)
            return None
        async with asyncio.timeout(_LONGEST_READ_SECONDS):
            return await self._take(consumer, claims, found)

    async def _take(
        self,
        consumer: Consumer,
        claims: dict[Slot, Claim],
        found: Mapping[TopicPartition, Sequence[Message]],
    ) -> "_Read | None":
        """What was fetched as a slice; None where nothing was. Raises KafkaError, Halted."""
        taken: list[Taken] = []
        spans: dict[Slot, tuple[int, int]] = {}
        newest: dict[Slot, int] = {}
        for partition, slot in list(self._partitions.items()):
            if claims is not self.claims:
                return None
            messages, reached = found.get(partition, ()), self._reached[slot]
            as_reached = not messages or messages[0].offset == reached
            if not as_reached and not await self._gap_in_log(consumer, partition, reached, messages):
                continue
            end = await self._end_of(consumer, partition, messages[-1].offset + 1 if messages else reached)
            for nth, message in enumerate(messages, 1):
                taken.append(self._handling.take(_record(slot, message)))
                if not nth % _TAKEN_IN_A_ROW:
                    # Whoever waits for PostgreSQL is to go on as soon as it has answered.
                    await asyncio.sleep(0)
            if end > reached:
                spans[slot] = (reached, end)
            if messages:
                newest[slot] = messages[-1].timestamp
        if claims is not self.claims or not spans:
            return None
        self._reached |= {slot: end for slot, (_, end) in spans.items()}
        return _Read(Slice(taken, spans), claims, newest)

    async def _end_of(self, consumer: Consumer, partition: TopicPartition, end: int) -> int:
        """Where reading goes on. Behind the last record, the consumer may have passed what is none: markers of other
        systems' transactions, and what they took back. Raises Halted where it has passed what was deleted."""
        try:
            passed = await consumer.position(partition)
            if passed <= end:
                return end
            starts = await consumer.beginning_offsets([partition])
        except IllegalStateError:
            return end  # it is somebody else's now
        self._guard.check_start(partition, end, starts[partition])
        return passed

    async def _gap_in_log(
        self, consumer: Consumer, partition: TopicPartition, reached: int, messages: Sequence[Message]
    ) -> bool:
        """Whether the log really has nothing between what was read and these records; if in doubt, seeks again."""
        claims = self.claims
        start = (await consumer.beginning_offsets([partition]))[partition]
        end = (await consumer.end_offsets([partition]))[partition]
        if claims is not self.claims:
            return False
        self._guard.check_start(partition, reached, start)
        within = self._guard.within_end(partition, reached, end)
        if within and messages[0].offset > reached and self._doubted.get(partition) == reached:
            return True
        self._doubted[partition] = reached
        with suppress(IllegalStateError):
            consumer.seek(partition, reached)
        return False

    def _read_again(self, consumer: Consumer) -> None:
        """What a failed read had already taken from the consumer is lost: reads on from the positions."""
        for partition, slot in self._partitions.items():
            with suppress(IllegalStateError):
                consumer.seek(partition, self.claims[slot].next_offset)
            self._reached[slot] = self.claims[slot].next_offset
        self._doubted.clear()

    async def _handle(self, read: "_Read") -> set[Slot]:
        """Runs the slice; returns the partitions that have a newer owner. Raises Halted."""
        lost = await self._transactions.run(read.batch, self.claims, self._wait)
        for slot, (_, end) in read.batch.spans.items():
            if slot not in lost:
                self.claims[slot] = Claim(end, self.claims[slot].epoch)
        self.newest |= read.newest
        self.moved = monotonic()
        if self._transactions.parked_in_a_row >= self._settings.parking_limit:
            raise Halted(
                "parking_limit",
                f"{self._transactions.parked_in_a_row} events in a row were refused and none was handled. See why with "
                "`fieldbridge parked list`, mend the cause, restart the service and redrive them.",
            )
        return lost

    async def _wait(self, seconds: float) -> None:
        """For a server that is away: to wait for it in small steps is no stall. Raises _TakenAway, Stopping."""
        self._health.beat(self.name)
        if not self._leaving:
            await self._rest(seconds)
        if self._leaving:
            raise _TakenAway


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
