"""Plays one schedule to its end and judges it."""

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from services.runtime.handling import Handling
from services.runtime.inbox import Slot
from services.runtime.service import Decider, Event, FactBody
from tests.runtime import counting
from tests.schedules import verdict
from tests.schedules.actors import LOSSES, Actor, Fate
from tests.schedules.arena import LEASE_SECONDS, Arena
from tests.schedules.choices import Choices
from tests.schedules.drawn_log import drawn
from tests.schedules.interleaving import Ended, Interleaving
from tests.schedules.parking_operator import Operator
from tests.schedules.workers import Surroundings, Worker, start

_STEPS: Final = 150
"""How many steps anything may go wrong in."""
_MOST_STEPS: Final = 1500
_PASSES: Final = 8
_POLL_SECONDS: Final = 1

_LEFT: Final = """
SELECT (SELECT coalesce(sum(events), 0)::int FROM runtime.outbox) AS unpublished,
       (SELECT count(*) FROM runtime.parked WHERE state <> 'parked') AS marked,
       (SELECT count(*) FROM counted WHERE asked) AS asked,
       (SELECT json_object_agg(topic || '-' || "partition", next_offset) FROM runtime.consumer_position) AS read
"""
_POSITIONS: Final = 'SELECT topic, "partition", next_offset, owner FROM runtime.consumer_position'


@dataclass
class Played:
    """What came of a schedule: what does not hold of it, the choices that led there, and every step."""

    findings: list[str]
    choices: list[int]
    log: list[str]
    steps: list[str]

    def __str__(self) -> str:
        return "\n".join([*self.log, "", *self.steps, "", *self.findings])


async def play(arena: Arena, choices: Choices) -> Played:
    """Plays the schedule that these choices name. What goes wrong in it is a finding.

    Raises Stuck where nothing moves any more, and what asyncpg raises where the server is gone.
    """
    schedule = Schedule(arena, choices)
    played = Played(schedule.findings, choices.taken, schedule.scenario.describe(), schedule.interleaving.steps)
    await arena.clear()
    try:
        try:
            await schedule.play()
        except Ended as error:
            schedule.findings.append(str(error))
        played.steps = list(schedule.interleaving.steps)
        await schedule.interleaving.close()
    except Exception as error:
        schedule.interleaving.abandon()
        error.add_note(str(played))
        raise
    return played


@dataclass
class _Happening:
    """What may come from outside while the workers work, so many times at most."""

    left: int
    weight: float
    happen: Callable[[], Awaitable[None]]
    can_happen: Callable[[], bool] = lambda: True


class Schedule:
    """One schedule: its workers, the operator, and what happens to them."""

    def __init__(self, arena: Arena, choices: Choices) -> None:
        self.scenario = drawn(choices)
        self.interleaving = Interleaving(arena.locks, arena.sessions, self._check_owner)
        self._arena = arena
        self._choices = choices
        self._mended = False
        self._offsets: dict[Slot, int] = {}
        self._workers: list[Worker] = []
        service = replace(
            counting.service(), decider=Decider(load=counting.load, decide=self._decide, save=counting.save)
        )
        handling = Handling(service)
        log = {slot: [handling.take(record) for record in records] for slot, records in self.scenario.log.items()}
        self._around = Surroundings(arena, service, choices, self.interleaving, handling, log)
        self._operator = Operator(self._around, self.scenario)

    @property
    def findings(self) -> list[str]:
        return self._around.findings

    async def play(self) -> None:
        """From the first step until all is at rest and judged."""
        for slot in self.scenario.log:
            self._around.assigned[slot] = f"w{self._choices.among(self.scenario.workers)}"
        for number in range(self.scenario.workers):
            self._workers.append(self._start(f"w{number}", 1))
        if self.scenario.ails:
            self.interleaving.enter("operator", self._operator.work)
        await self.interleaving.settle()
        await self._explore()
        self._around.exploring = False
        self.interleaving.say("-- nothing more goes wrong")
        await self._come_to_rest()
        self.findings.extend(await verdict.stuck(self._arena.observer))
        self._mended = True
        self.interleaving.say("-- all is mended")
        await self._operator.mark_all(self._arena.observer)
        await self._come_to_rest()
        left = await verdict.gathered(self._arena.observer, self._around.published)
        operator = self._operator
        self.findings.extend(verdict.judged(self.scenario, left, operator.discarded, operator.perhaps_discarded))

    def _start(self, name: str, life: int) -> Worker:
        return start(self._around, name, life, rounds=self.scenario.rounds, redrives=self.scenario.ails)

    def _decide(self, known: counting.Counts, event: Event[Any]) -> tuple[counting.Counts, Sequence[FactBody]]:
        if self._mended:
            sound = {name: event.body[name] for name in ("n", "announce")}
            return counting.decide(known, event._replace(body=sound))
        return counting.decide(known, event)

    async def _check_owner(self, author: str) -> None:
        """After each commit of a slice: the positions it moved were its reader's own."""
        if not author:
            return
        for row in await self._arena.observer.fetch(_POSITIONS):
            slot, offset = (row["topic"], row["partition"]), row["next_offset"]
            before = self._offsets.get(slot, 0)
            self._offsets[slot] = offset
            if offset != before and row["owner"] != author:
                self.findings.append(
                    f"{author} moved {slot[0]}-{slot[1]} from {before} to {offset}, which {row['owner']} owns"
                )

    # --- while things go wrong

    async def _explore(self) -> None:
        """Opens one gate after another, and lets things happen in between."""
        happenings = self._happenings()
        switching = (0.4, 0.1, 0.8)[self._choices.among(3)]
        happening = (0.05, 0.0, 0.12)[self._choices.among(3)]
        current: Actor | None = None
        for _ in range(_STEPS):
            ready, ghosts = self.interleaving.ready(current), self.interleaving.ghosts
            if not ready and not ghosts:
                return
            could = [one for one in happenings if one.left and one.can_happen()]
            if could and self._choices.chance(happening):
                one = could[self._choices.choose([one.weight for one in could])]
                one.left -= 1
                await one.happen()
                continue
            others = len(ready) + len(ghosts) - 1
            place = self._choices.choose([1 - switching, *([switching / others] * others)]) if others else 0
            if place < len(ready):
                current = ready[place]
                await self.interleaving.go(current)
            else:
                await self.interleaving.deliver(ghosts[place - len(ready)])

    def _happenings(self) -> list[_Happening]:
        return [
            _Happening(3, 2, self._rebalance),
            _Happening(3, 2, self._let_time_pass),
            _Happening(2, 3, self._cut, lambda: bool(self._at_statements())),
            _Happening(2, 2, self._kill),
            _Happening(2, 2, self._give_up, lambda: bool(self.interleaving.waiting())),
            _Happening(1, 1, self._deploy, lambda: self.scenario.ails),
        ]

    async def _rebalance(self) -> None:
        slots = sorted(self.scenario.log)
        slot = slots[self._choices.among(len(slots))]
        readers = [worker.name for worker in self._workers if worker.name != self._around.assigned[slot]]
        self._around.assigned[slot] = readers[self._choices.among(len(readers))]
        self.interleaving.say(f"{slot[0]}-{slot[1]} is given to {self._around.assigned[slot]}")
        self._around.wake("pump")

    async def _let_time_pass(self) -> None:
        seconds = (LEASE_SECONDS + 1, _POLL_SECONDS)[self._choices.among(2)]
        self.interleaving.say(f"{seconds} s pass")
        await self._arena.pass_time(seconds)
        self._around.wake()

    async def _cut(self) -> None:
        actors = self._at_statements()
        await self.interleaving.cut(actors[self._choices.among(len(actors))], self._fate())

    async def _give_up(self) -> None:
        waiting = self.interleaving.waiting()
        await self.interleaving.give_up(waiting[self._choices.among(len(waiting))])

    def _at_statements(self) -> list[Actor]:
        return [
            actor
            for actor in self.interleaving.actors
            if actor.name != "operator" and actor.standing is not None and actor.standing.statement is not None
        ]

    def _fate(self) -> Fate:
        return LOSSES[self._choices.among(len(LOSSES))]

    async def _kill(self) -> None:
        place = self._choices.among(len(self._workers))
        fate = self._fate()
        worker = self._workers[place]
        for actor in worker.actors:
            await self.interleaving.kill(actor, fate)
        self._workers[place] = self._start(worker.name, worker.life + 1)
        await self.interleaving.settle()

    async def _deploy(self) -> None:
        self.interleaving.say("decisions are mended")
        self._mended = True

    # --- afterwards

    async def _come_to_rest(self) -> None:
        """Everything goes on without any more trouble until nothing is left to do."""
        for slot in self._around.assigned:
            self._around.assigned[slot] = self._workers[0].name
        left: list[str] = []
        for _ in range(_PASSES):
            await self._go_on()
            left = await self._left()
            if not left:
                return
            await self._arena.pass_time(LEASE_SECONDS + 1)
            for part in left:
                self._around.wake(part)
        self.findings.append(f"does not come to rest: there is work left for {', '.join(left)}")

    async def _go_on(self) -> None:
        """Everybody in turn, until all rest."""
        self._around.wake("pump")
        while self.interleaving.ghosts:
            await self.interleaving.deliver(self.interleaving.ghosts[0])
        current: Actor | None = None
        while ready := self.interleaving.ready(current):
            if len(self.interleaving.steps) > _MOST_STEPS:
                self.findings.append(f"still at work after {_MOST_STEPS} steps")
                return
            current = ready[0]
            await self.interleaving.go(current)

    async def _left(self) -> list[str]:
        """Who has work left."""
        row = await self._arena.observer.fetchrow(_LEFT)
        assert row is not None
        read = json.loads(row["read"] or "{}")
        behind = any(read.get(f"{slot[0]}-{slot[1]}", 0) < len(records) for slot, records in self.scenario.log.items())
        asked = row["asked"] and self.scenario.rounds
        left = {"pump": behind, "relay": row["unpublished"], "redriver": row["marked"], "round": asked}
        return [part for part, work in left.items() if work]
