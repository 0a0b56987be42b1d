"""The workers of a schedule: the product's own transactions, relay, rounds and redriver, at the schedule's pace."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from aiokafka.record.default_records import DefaultRecordBatch
from mode.utils.times import Seconds

from schemas.topics import DEAD_SUFFIX
from services.runtime import inbox
from services.runtime.database import Failure, meaning
from services.runtime.failpoints import unarmed
from services.runtime.handling import Handling, Taken
from services.runtime.inbox import Claim, Slot
from services.runtime.kafka import KafkaError
from services.runtime.recordbatch import RecordBatch
from services.runtime.redriver import Redriver
from services.runtime.relay import Relay
from services.runtime.rounds import Rounds
from services.runtime.service import Service
from services.runtime.supervision import Supervised
from services.runtime.transactions import Committed, Slice, Transactions
from tests.schedules.actors import Actor
from tests.schedules.arena import Arena
from tests.schedules.choices import Choices
from tests.schedules.interleaving import Interleaving
from tests.schedules.lines import Lines

_REFUSAL: Final = 0.04
"""How likely Kafka fails at a batch."""
_NEVER_THERE: Final = 2
_ALL: Final = 1000
"""More records than a log has."""


@dataclass(frozen=True)
class Published:
    """A record in Kafka's log."""

    topic: str
    key: str
    headers: Mapping[str, str]
    value: bytes


@dataclass
class Surroundings:
    """What the workers of a schedule share: Kafka's log as plain records, and who is to read which partition of it."""

    arena: Arena
    service: Service
    choices: Choices
    interleaving: Interleaving
    handling: Handling
    log: Mapping[Slot, Sequence[Taken]]
    assigned: dict[Slot, str] = field(default_factory=dict[Slot, str])
    published: list[Published] = field(default_factory=list[Published])
    relays: "dict[str, PacedRelay]" = field(default_factory=lambda: dict[str, PacedRelay]())
    findings: list[str] = field(default_factory=list[str])
    exploring: bool = True
    """Whether anything may still go wrong."""

    def mine(self, worker: str) -> list[Slot]:
        """The partitions a worker is to read."""
        return sorted(slot for slot, reader in self.assigned.items() if reader == worker)

    def wake(self, part: str = "") -> None:
        """There may be something to do for these parts of all workers."""
        for actor in self.interleaving.actors:
            if actor.name.endswith(part):
                actor.wake()


class Paced(Supervised):
    """A part of a worker that waits for its turn where it would wait for time to pass."""

    actor: Actor

    async def sleep(self, n: Seconds) -> None:
        """Its next statement is a turn anyway."""

    async def pause(self, seconds: float) -> None:
        if self._woken.is_set():
            self.actor.wake()
        await self.actor.rests("goes on")

    def wake(self) -> None:
        super().wake()
        self.actor.wake()


class PacedRelay(Paced, Relay):
    """The relay, which publishes to a list."""

    def __init__(self, actor: Actor, around: Surroundings, author: str) -> None:
        self.actor = actor
        self._around = around
        arena, lines = around.arena, Lines(around.interleaving, actor, "")
        super().__init__(arena.settings, author, around.service.name, lines, arena.metrics, arena.health)

    @property
    def leads(self) -> bool:
        """Whether it believes so."""
        return self._epoch is not None

    async def work(self) -> None:
        """Runs until it is killed."""
        await Relay._run(self)

    async def _producing(self) -> "Writer":
        """A producer for what was just read from the outbox: whoever was given that must lead."""
        if sum(relay.leads for relay in self._around.relays.values()) > 1:
            epoch = await self._around.arena.observer.fetchval("SELECT epoch FROM runtime.lease")
            if epoch != self._epoch:
                self._around.findings.append(f"{self.actor.name} with epoch {self._epoch} leads beside {epoch}")
        return Writer(self.actor, self._around)


class Writer:
    """Puts the relay's batches into the log, one a turn. After a batch that failed, no other of its partition gets in:
    so it is with an idempotent producer."""

    def __init__(self, actor: Actor, around: Surroundings) -> None:
        self._actor = actor
        self._around = around
        self._failed: set[tuple[str, int]] = set()

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def partitions_for(self, topic: str) -> set[int]:
        return {0} if topic.endswith(DEAD_SUFFIX) else {0, 1}

    async def send_batch(self, batch: RecordBatch, topic: str, *, partition: int) -> Awaitable[object]:
        records = [
            Published(
                topic,
                (one.key or b"").decode(),
                {name: (content or b"").decode() for name, content in one.headers},
                one.value or b"",
            )
            for one in DefaultRecordBatch(bytes(batch._build()))
        ]
        named = " ".join(f"{one.key}{one.headers.get('ce_sequence', '')}" for one in records)
        await self._actor.turn(f"Kafka takes {topic} {named}")
        acknowledged: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        around = self._around
        fails = around.choices.choose([1 - _REFUSAL, _REFUSAL / 2, _REFUSAL / 2]) if around.exploring else 0
        if (topic, partition) not in self._failed and fails != _NEVER_THERE:
            around.published.extend(records)
        if fails:
            around.interleaving.say(f"{self._actor.name}: Kafka fails {'before' if fails == _NEVER_THERE else 'after'}")
            self._failed.add((topic, partition))
        if (topic, partition) in self._failed:
            acknowledged.set_exception(KafkaError())
            acknowledged.exception()  # The relay may die before it hears of it.
        else:
            acknowledged.set_result(None)
        return acknowledged


class PacedRounds(Paced, Rounds):
    """A round."""

    def __init__(self, actor: Actor, around: Surroundings, relay: Relay) -> None:
        self.actor = actor
        arena, lines = around.arena, Lines(around.interleaving, actor, "")
        round_ = around.service.rounds[0]
        super().__init__(around.service, round_, lines, relay, arena.metrics, arena.health, unarmed)

    async def work(self) -> None:
        """Runs until it is killed."""
        await Rounds._run(self)

    async def _await_next(self, due: float) -> None:
        await self.pause(due)


class PacedRedriver(Paced, Redriver):
    """The redriver."""

    def __init__(self, actor: Actor, around: Surroundings, committed: Committed) -> None:
        self.actor = actor
        lines = Lines(around.interleaving, actor, "")
        super().__init__(around.handling, lines, around.arena.health, committed)

    async def work(self) -> None:
        """Runs until it is killed."""
        await Redriver._run(self)

    async def sleep(self, n: Seconds) -> None:
        await self.actor.rests("looks for marks")


class Reader:
    """Does what the pump does with the partitions it was given: claims them, and runs slice after slice."""

    def __init__(self, actor: Actor, around: Surroundings, worker: str, author: str, committed: Committed) -> None:
        self._actor = actor
        self._around = around
        self._worker = worker
        self._author = author
        self._claiming = Lines(around.interleaving, actor, "")
        arena, lines = around.arena, Lines(around.interleaving, actor, author)
        self._transactions = Transactions(lines, around.handling, arena.metrics, arena.health, committed)

    async def work(self) -> None:
        """Runs until it is killed."""
        claims: dict[Slot, Claim] = {}
        while True:
            mine = self._around.mine(self._worker)
            if not mine:
                claims = {}
                await self._actor.rests("joins the group again")
            elif not claims or (set(mine) != set(claims) and await self._notices()):
                claims = await self._claim(mine)
            elif (batch := self._slice(claims)) is None:
                await self._actor.rests("reads on")
            elif await self._transactions.run(batch, claims, self._rest):
                self._around.interleaving.say(f"{self._actor.name} is fenced")
                claims = {}
            else:
                claims |= {slot: Claim(end, claims[slot].epoch) for slot, (_, end) in batch.spans.items()}

    async def _rest(self, _: float) -> None:
        await self._actor.yields("tries again")

    async def _notices(self) -> bool:
        """A worker that was paused learns late that its partitions are another's."""
        await self._actor.turn("polls")
        return not (self._around.exploring and self._around.choices.chance(0.5))

    async def _claim(self, slots: Sequence[Slot]) -> dict[Slot, Claim]:
        try:
            async with self._claiming.transaction() as db:
                return await inbox.claim(db, self._author, dict.fromkeys(slots, 0))
        except Exception as error:  # as the pump does: whatever is no defect is tried again
            if meaning(error) is Failure.DEFECT:
                raise
            await self._actor.yields("claims again")
            return {}

    def _slice(self, claims: Mapping[Slot, Claim]) -> Slice | None:
        """Some of the records that come next; None where all have been read."""
        log = self._around.log
        behind = [slot for slot in sorted(claims) if claims[slot].next_offset < len(log[slot])]
        if not behind:
            return None
        most = _ALL
        if self._around.exploring:
            first = self._around.choices.among(len(behind))
            behind = [*behind[first:], *behind[:first]]
            most = 4 - self._around.choices.choose([2, 2, 1, 1])
        taken: list[Taken] = []
        spans: dict[Slot, tuple[int, int]] = {}
        for slot in behind:
            start = claims[slot].next_offset
            if part := log[slot][start : start + most - len(taken)]:
                taken.extend(part)
                spans[slot] = (start, start + len(part))
        return Slice(taken, spans)


@dataclass
class Worker:
    """One process: what ends together when it is killed. `life` counts its starts."""

    name: str
    life: int
    actors: list[Actor] = field(default_factory=list[Actor])


def start(around: Surroundings, name: str, life: int, *, rounds: bool, redrives: bool) -> Worker:
    """A worker with all its parts, put together as `services.runtime.worker` does it."""
    worker = Worker(name, life)
    author = f"{name}.{life}"
    round_: list[PacedRounds] = []

    def committed(topics: frozenset[str], anything_to_publish: bool) -> None:
        # The relay that leads may be another worker's, and find out by polling only: here it polls soon.
        for relay in around.relays.values():
            if anything_to_publish and (relay is around.relays[name] or relay.leads):
                relay.wake()
        for one in round_:
            one.applied(topics)
        around.wake("operator")

    async def relay(actor: Actor) -> None:
        around.relays[name] = PacedRelay(actor, around, author)
        await around.relays[name].work()

    async def rounds_(actor: Actor) -> None:
        round_.append(PacedRounds(actor, around, around.relays[name]))
        await round_[0].work()

    parts: dict[str, Callable[[Actor], Awaitable[None]]] = {
        "relay": relay,
        "pump": lambda actor: Reader(actor, around, name, author, committed).work(),
    }
    if rounds:
        parts["round"] = rounds_
    if redrives:
        parts["redriver"] = lambda actor: PacedRedriver(actor, around, committed).work()
    for part, work in parts.items():
        worker.actors.append(around.interleaving.enter(f"{author} {part}", work))
    return worker
