"""Runs actors against a real PostgreSQL one statement at a time, in an order that choices decide.

An actor is a coroutine of the product. Before each statement, and wherever it would wait for time to pass, it stands
at a gate; one gate is opened at a time. An actor whose statement waits for a lock is noticed, and others go on; which
of several that wait for one lock gets it first is the server's choice, all else is the schedule's.

A connection can be lost at the gate of any statement, with its actor or without: before the server got the statement,
after, or so that the server gets it only later. The session itself is kept and rolled back, as the server does it when
a client is gone: a new connection would cost more than the whole schedule.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from tests.schedules.actors import Actor, Fate, Sent, Session, State

_ASK_AFTER_SECONDS: Final = 0.0006
"""A statement that has not been answered by then may wait for a lock."""
_GIVE_UP_AFTER_SECONDS: Final = 30.0

_BLOCKED: Final = "SELECT pid, pg_blocking_pids(pid) AS by FROM unnest($1::int[]) AS pid"


class Stuck(Exception):
    """Nothing moves any more, and nobody waits for a lock."""


class Ended(Exception):
    """An actor has raised what the product should have caught."""


@dataclass(eq=False)
class Ghost:
    """What still reaches the server of an actor that has lost its connection; `sent` is None for the end of it."""

    label: str
    session: Session
    sent: Sent | None


class Interleaving:
    """The actors of one schedule, their sessions, and the account of their steps.

    `committed` is told after each commit who had begun the transaction, while nobody takes another step.
    """

    def __init__(
        self,
        observer: "asyncpg.Connection[asyncpg.Record]",
        sessions: Iterable[Session],
        committed: Callable[[str], Awaitable[None]],
    ) -> None:
        self.actors: list[Actor] = []
        self.ghosts: list[Ghost] = []
        self.steps: list[str] = []
        self._changed = asyncio.Event()
        self._observer = observer
        self._free = list(sessions)
        self._used: list[Session] = []
        self._committed = committed
        self._blocked: set[int] = set()
        self._orphans: set[asyncio.Task[None]] = set()

    def enter(self, name: str, work: Callable[[Actor], Awaitable[None]]) -> Actor:
        """A new actor, which comes to its first gate by itself."""
        actor = Actor(name, self._changed, self._begin, self._finished)
        self.actors.append(actor)

        async def act() -> None:
            try:
                await work(actor)
            finally:
                actor.state = State.ENDED
                self._changed.set()

        actor.task = asyncio.create_task(act())
        return actor

    def say(self, step: str) -> None:
        """Adds a line to the account."""
        self.steps.append(step)

    # --- steps

    def ready(self, after: Actor | None) -> list[Actor]:
        """Who could go on: the one whose turn it was first, unless it yields; then the others in turn."""
        if after is None or after not in self.actors:
            return [actor for actor in self.actors if actor.ready]
        place = self.actors.index(after)
        others = [actor for actor in (*self.actors[place + 1 :], *self.actors[:place]) if actor.ready]
        if not after.ready:
            return others
        return [*others, after] if after.standing is not None and after.standing.yields else [after, *others]

    async def go(self, actor: Actor) -> None:
        """Opens an actor's gate, and waits until nothing moves any more."""
        assert actor.standing is not None
        self.say(f"{actor.name}: {actor.standing.label}")
        actor.go(Fate.RUNS)
        await self.settle()

    async def deliver(self, ghost: Ghost) -> None:
        """What was on its way reaches the server."""
        self.ghosts.remove(ghost)
        self.say(ghost.label)
        if ghost.sent is None:
            await self._end(ghost.session)
        else:
            self._orphan(ghost.sent)
        await self.settle()

    async def cut(self, actor: Actor, fate: Fate) -> None:
        """The actor stands at a statement, and loses its connection there."""
        gate = actor.standing
        assert gate is not None
        assert gate.statement is not None
        self.say(f"{actor.name}: {gate.label} {fate.value}; it lives on")
        actor.sessions.remove(gate.statement.session)
        await self._lose(gate.statement, fate, f"{actor.name}: {gate.label}")
        actor.go(fate)
        await self.settle()

    def waiting(self) -> list[Actor]:
        """Who waits for a lock."""
        return [actor for actor in self.actors if actor.state is State.IN_DATABASE]

    async def give_up(self, actor: Actor) -> None:
        """The actor waits for a lock, and has waited long enough."""
        self.say(f"{actor.name} has waited too long")
        for session in actor.sessions:
            if (pending := session.pending) is not None:
                await self._observer.execute("SELECT pg_cancel_backend($1)", session.pid)
                await asyncio.wait({pending})
        await self.settle()

    async def kill(self, actor: Actor, fate: Fate) -> None:
        """The actor ends where it stands; its statement has that fate, unless it was sent already."""
        assert actor.task is not None
        actor.dead = True
        gate = actor.standing if actor.state is State.AT_GATE else None
        statement = gate.statement if gate is not None else None
        label = f"{actor.name}: {gate.label}" if gate is not None else actor.name
        self.say(f"{label} {fate.value}; it dies" if statement is not None else f"{actor.name} dies")
        self.actors.remove(actor)
        actor.task.cancel()
        await asyncio.wait({actor.task})
        for session in actor.sessions:
            if statement is not None and statement.session is session:
                await self._lose(statement, fate, label)
            elif session.pending is not None:
                self._follow(session, session.pending)
            else:
                await self._end(session)
        await self.settle()

    async def close(self) -> None:
        """Ends what is left of the schedule."""
        while self.actors or self.ghosts:
            with suppress(Ended):
                if self.actors:
                    await self.kill(self.actors[0], Fate.UNSENT)
                else:
                    await self.deliver(self.ghosts[0])

    def abandon(self) -> None:
        """Nothing can be ended in order any more: whoever is cancelled now leaves the server alone."""
        for actor in self.actors:
            actor.dead = True

    # --- sessions

    def take(self, actor: Actor) -> Session:
        """A session for an actor."""
        session = self._free.pop()
        self._used.append(session)
        actor.sessions.append(session)
        return session

    def give_back(self, actor: Actor, session: Session) -> None:
        """The actor needs it no more; a session that was lost or left by the dead is none of theirs."""
        if not actor.dead and session in actor.sessions:
            actor.sessions.remove(session)
            self._release(session)

    async def roll_back(self, session: Session) -> None:
        """Ends a session's transaction without effect."""
        await session.connection.execute("ROLLBACK")
        session.in_transaction = False
        self._blocked.clear()

    def _begin(self, sent: Sent) -> "asyncio.Future[Any]":
        pending = asyncio.ensure_future(self._run(sent))
        sent.session.pending = pending
        pending.add_done_callback(self._answer)
        return pending

    async def _run(self, sent: Sent) -> Any:
        answer = await sent.run()
        if sent.commits:
            sent.session.in_transaction = False
            await self._committed(sent.author)
        return answer

    def _answer(self, pending: "asyncio.Future[Any]") -> None:
        if not pending.cancelled() and pending.exception() is not None:
            # A transaction that fails gives its locks back before it is rolled back.
            self._blocked.clear()
        self._changed.set()

    def _finished(self, sent: Sent) -> None:
        """The server has answered: what ended a transaction may have let others go on."""
        sent.session.pending = None
        if not sent.session.in_transaction:
            self._blocked.clear()
        self._changed.set()

    async def _lose(self, sent: Sent, fate: Fate, label: str) -> None:
        if fate is Fate.UNHEARD:
            self._orphan(sent)
        elif fate is Fate.LATE:
            self.ghosts.append(Ghost(f"{label} arrives late", sent.session, sent))
        elif fate is Fate.LINGERS and sent.session.in_transaction:
            self.ghosts.append(Ghost(f"the server notices that {label} never came", sent.session, None))
        else:
            await self._end(sent.session)

    def _orphan(self, sent: Sent) -> None:
        self._follow(sent.session, self._begin(sent))

    def _follow(self, session: Session, pending: "asyncio.Future[Any]") -> None:
        """A statement without a client: when it is done, the server finds that out and ends the session."""

        async def follow() -> None:
            await asyncio.wait({pending})
            await self._end(session)

        orphan = asyncio.create_task(follow())
        self._orphans.add(orphan)
        orphan.add_done_callback(self._orphans.discard)

    async def _end(self, session: Session) -> None:
        if session.in_transaction:
            await self.roll_back(session)
        self._blocked.clear()
        self._release(session)

    def _release(self, session: Session) -> None:
        session.pending = None
        self._used.remove(session)
        self._free.append(session)
        self._changed.set()

    # --- quiet

    async def settle(self) -> None:
        """Waits until every actor stands at a gate, or waits for a lock that somebody at a gate holds.

        Raises Ended where an actor has ended by itself, and Stuck where this takes too long.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _GIVE_UP_AFTER_SECONDS
        while True:
            self._changed.clear()
            thinking = any(actor.state is State.THINKING for actor in self.actors) or self._answered()
            running = {session.pid for session in self._used if session.pending is not None}
            if not thinking and running <= self._blocked:
                break
            asks = loop.call_later(_ASK_AFTER_SECONDS, self._changed.set)
            await self._changed.wait()
            asks.cancel()
            if loop.time() >= asks.when() and running and not thinking:
                self._blocked = await self._held_up(running)
            if loop.time() > deadline:
                raise Stuck(f"waited {_GIVE_UP_AFTER_SECONDS:.0f} s for quiet after {self.steps[-1:]}")
        self._raise_what_ended_actors()

    def _answered(self) -> bool:
        """Whether the server has answered somebody who has not heard it yet."""
        return any(session.pending is not None and session.pending.done() for session in self._used)

    async def _held_up(self, running: set[int]) -> set[int]:
        """Those that wait for a transaction whose next step is nobody's but the schedule's.

        Who waits in a circle is not among them: the server ends that by itself.
        """
        rows = await self._observer.fetch(_BLOCKED, list(running))
        held = {session.pid for session in self._used if session.in_transaction and session.pending is None}
        found: set[int] = set()
        while more := {row["pid"] for row in rows if row["pid"] not in found and {*row["by"]} & (held | found)}:
            found |= more
        return found

    def _raise_what_ended_actors(self) -> None:
        ended = [actor for actor in self.actors if actor.state is State.ENDED]
        self.actors = [actor for actor in self.actors if actor not in ended]
        for actor in ended:
            if actor.task is not None and actor.task.done() and (error := actor.task.exception()) is not None:
                raise Ended(f"{actor.name} ended: {type(error).__name__}: {error}") from error
