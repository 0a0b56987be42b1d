"""One transaction a batch: fenced by the positions' epochs, tried again while servers are away, split at a defect."""

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Final

from services.runtime import inbox, parking
from services.runtime.database import Failure, Pool, meaning
from services.runtime.failpoints import Reach, unarmed
from services.runtime.handling import Handled, Handling, Taken
from services.runtime.health import Halted, Health
from services.runtime.inbox import Claim, Slot, Tally
from services.runtime.logguard import went_back
from services.runtime.logs import describe, logger
from services.runtime.metrics import Metrics

SPLIT_AFTER: Final = 8
"""How often a batch is tried again over contention before it is split."""
_REFUSE_AFTER: Final = 40
"""How often a single event is tried again over contention before it counts as a defect and is parked."""

_REFUSALS: Final = frozenset({parking.REFUSED, parking.UNREADABLE})

log = logger("pump")


@dataclass(frozen=True, slots=True)
class Slice:
    """Records of some partitions in log order, and for each partition where the slice starts and ends."""

    taken: Sequence[Taken]
    spans: Mapping[Slot, tuple[int, int]]

    def without(self, lost: set[Slot]) -> "Slice":
        return Slice(
            [one for one in self.taken if (one.record.topic, one.record.partition) not in lost],
            {slot: span for slot, span in self.spans.items() if slot not in lost},
        )

    def halves(self) -> tuple["Slice", "Slice"]:
        """Two slices, the first of which ends where the second starts. The records of a partition lie together."""
        middle = len(self.taken) // 2
        first, second = self.taken[:middle], self.taken[middle:]
        ahead = {(one.record.topic, one.record.partition) for one in first}
        behind = {(one.record.topic, one.record.partition) for one in second} | (self.spans.keys() - ahead)
        spans_first: dict[Slot, tuple[int, int]] = {}
        spans_second: dict[Slot, tuple[int, int]] = {}
        for one in first:
            slot = (one.record.topic, one.record.partition)
            start, end = self.spans[slot]
            spans_first[slot] = (start, one.record.offset + 1 if slot in behind else end)
        for slot in behind:
            start, end = self.spans[slot]
            spans_second[slot] = (spans_first[slot][1] if slot in spans_first else start, end)
        return Slice(first, spans_first), Slice(second, spans_second)


Committed = Callable[[frozenset[str], bool], None]
"""Called after each commit with topics whose events may have been applied, and whether anything is to be published."""


Rest = Callable[[float], Awaitable[None]]
"""Waits so many seconds; raises where the worker is to stop or to give its partitions away, which leaves the slice to
the next owner."""


class _NothingToDo(Exception):
    """The slice is not to be handled: these partitions have a newer owner, or its commit had reached the server."""

    def __init__(self, lost: set[Slot]) -> None:
        super().__init__(lost)
        self.lost = lost


class Transactions:
    """Runs slices in transactions until each is committed, or its position belongs to somebody else."""

    def __init__(
        self,
        pool: Pool,
        handling: Handling,
        metrics: Metrics,
        health: Health,
        committed: Committed,
        reach: Reach = unarmed,
    ) -> None:
        self._pool = pool
        self._handling = handling
        self._metrics = metrics
        self._health = health
        self._committed = committed
        self._reach = reach
        self.parked_in_a_row = 0
        """Events refused since the last one that was applied; those that only wait behind them do not count."""

    async def run(self, batch: Slice, claims: Mapping[Slot, Claim], rest: Rest) -> set[Slot]:
        """Commits the slice; returns the partitions that have a newer owner, whose records are dropped.

        Raises Halted where the database is older than what was committed to it, and what `rest` raises.
        """
        lost: set[Slot] = set()
        refuse: str | None = None
        tries = contended = 0
        while batch.spans:
            try:
                await self._try(batch, claims, refuse, tries)
                fenced: set[Slot] = set()
            except _NothingToDo as found:
                fenced = found.lost
            except Halted:
                raise
            except Exception as error:  # what it means is asked next; a defect is narrowed down to its event
                tries += 1
                cause = meaning(error)
                alone = len(batch.taken) <= 1
                if cause is Failure.UNREACHABLE:
                    self._health.database_away(describe(error))
                    # What failed before the server went away may have failed for that.
                    refuse, contended = None, 0
                    await self._wait("unreachable", error, tries, rest)
                elif cause is Failure.CONTENDED and contended < (_REFUSE_AFTER if alone else SPLIT_AFTER):
                    contended += 1
                    await self._wait("contended", error, tries, rest)
                elif not alone:
                    first, second = batch.halves()
                    lost |= await self.run(first, claims, rest)
                    return lost | await self.run(second.without(lost), claims, rest)
                elif refuse is None:
                    refuse = f"loading or saving: {describe(error)}"
                else:
                    self._health.obstacles["parking"] = f"an event can neither be handled nor parked: {describe(error)}"
                    await self._wait("defect", error, tries, rest)
                continue
            self._health.database_here()
            self._health.obstacles.pop("parking", None)
            if not fenced:
                return lost
            lost |= fenced
            batch = batch.without(fenced)
        return lost

    async def _wait(self, cause: str, error: Exception, tries: int, rest: Rest) -> None:
        self._metrics.retries.labels(cause).inc()
        log.warning("transaction tried again", cause=cause, error=describe(error), tries=tries)
        await rest(min(2.0, 0.02 * 2 ** min(tries, 8)) * random.uniform(0.5, 1.0))  # noqa: S311 - spread, no secret

    async def _try(self, batch: Slice, claims: Mapping[Slot, Claim], refuse: str | None, tries: int) -> None:
        """One transaction. Raises _NothingToDo, which rolls it back, where a fence did not hold or all is committed."""
        began = monotonic()
        now = datetime.now(UTC)
        self._reach("before_transaction")
        async with self._pool.transaction() as db:
            standing = await inbox.take_up(
                db,
                batch.spans,
                (one.stream for one in batch.taken if one.stream is not None),
                self._handling.messages(batch.taken),
            )
            lost: set[Slot] = set()
            committed: set[Slot] = set()
            for slot, (start, end) in batch.spans.items():
                position = standing.positions.get(slot)
                if position is None or position.epoch != claims[slot].epoch:
                    lost.add(slot)
                elif tries and position.next_offset == end:
                    # The commit that seemed to fail had reached the server.
                    committed.add(slot)
                elif position.next_offset < start and not self._handling.service.rebuildable:
                    raise went_back(*slot, position.next_offset, start)
                elif position.next_offset != start:
                    lost.add(slot)
            if lost or committed:
                raise _NothingToDo(lost)
            handled = await self._handling.handle(db, batch.taken, standing, now, refuse)
            moves = {slot: (end, handled.tallies.get(slot, Tally())) for slot, (_, end) in batch.spans.items()}
            await inbox.move_on(db, moves, handled.moved, handled.sealed)
            self._reach("before_commit")
        self._reach("after_commit")
        applied = frozenset(topic for (topic, _), tally in handled.tallies.items() if tally.applied)
        self._committed(applied, bool(handled.sealed or handled.parked))
        self._count(handled, monotonic() - began, len(batch.taken))

    def _count(self, handled: Handled, seconds: float, events: int) -> None:
        metrics = self._metrics
        applied = 0
        for (topic, _), tally in handled.tallies.items():
            applied += tally.applied
            for outcome in ("applied", "duplicate", "ignored", "parked"):
                if count := getattr(tally, outcome):
                    metrics.events.labels(topic, outcome).inc(count)
        for topic, ages in handled.latencies.items():
            metrics.latencies.observe(topic, ages)
        for row in handled.sealed:
            metrics.facts.labels(row.topic).inc(row.events)
        metrics.batch_seconds.observe(seconds)
        metrics.batch_events.observe(events)
        refused = sum(one.reason in _REFUSALS for one in handled.parked)
        self.parked_in_a_row = 0 if applied else self.parked_in_a_row + refused
        for one in handled.parked:
            log.error(
                "event parked",
                topic=one.record.topic,
                partition=one.record.partition,
                offset=one.record.offset,
                reason=one.reason,
            )
