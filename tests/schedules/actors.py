"""What a schedule moves: actors that stand at gates, and the sessions over which their statements go."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

import asyncpg


class Fate(Enum):
    """What becomes of a statement."""

    RUNS = "runs"
    UNSENT = "is never sent, and the server notices at once"
    LINGERS = "is never sent, and the server notices late"
    UNHEARD = "runs, and its answer is lost"
    LATE = "arrives late, and its answer is lost"


LOSSES: Final = (Fate.UNSENT, Fate.UNHEARD, Fate.LATE, Fate.LINGERS)


class State(Enum):
    """Where an actor is."""

    THINKING = auto()
    AT_GATE = auto()
    IN_DATABASE = auto()
    ENDED = auto()


@dataclass(eq=False)
class Session:
    """One connection to the server, and the statement it is at."""

    connection: "asyncpg.Connection[asyncpg.Record]"
    pid: int
    in_transaction: bool = False
    pending: "asyncio.Future[Any] | None" = None


@dataclass(eq=False)
class Sent:
    """A statement on its way: how to run it, and whether a transaction commits with it, and whose."""

    session: Session
    run: Callable[[], Awaitable[Any]]
    commits: bool
    author: str


@dataclass(eq=False)
class Gate:
    """Where an actor waits for its turn. At the gate of a statement the connection can be lost."""

    label: str
    opened: "asyncio.Future[Fate]"
    statement: Sent | None = None
    resting: bool = False
    yields: bool = False


class Actor:
    """One thread of the product's work; `name` says whose."""

    def __init__(
        self,
        name: str,
        changed: asyncio.Event,
        begin: "Callable[[Sent], asyncio.Future[Any]]",
        finished: Callable[[Sent], None],
    ) -> None:
        self.name = name
        self.state = State.THINKING
        self.standing: Gate | None = None
        self.task: asyncio.Task[None] | None = None
        self.dead = False
        self.sessions: list[Session] = []
        self._changed = changed
        self._begin = begin
        self._finished = finished
        self._woken = False

    @property
    def ready(self) -> bool:
        """Whether it would go on if its gate were opened."""
        if self.state is not State.AT_GATE or self.standing is None:
            return False
        return self._woken or not self.standing.resting

    async def turn(self, label: str) -> None:
        """Waits for its turn."""
        await self._stand(Gate(label, asyncio.get_running_loop().create_future()))

    async def yields(self, label: str) -> None:
        """Waits for its turn after the others."""
        await self._stand(Gate(label, asyncio.get_running_loop().create_future(), yields=True))

    async def rests(self, label: str) -> None:
        """Waits until it is woken, and then for its turn. Whoever was woken since its last rest does not wait."""
        await self._stand(Gate(label, asyncio.get_running_loop().create_future(), resting=True, yields=True))
        self._woken = False

    def wake(self) -> None:
        """There may be something to do."""
        self._woken = True

    async def send(self, label: str, sent: Sent) -> Any:
        """Runs a statement when its turn has come. Raises what asyncpg raises where its connection is lost."""
        gate = Gate(label, asyncio.get_running_loop().create_future(), sent)
        if await self._stand(gate) is not Fate.RUNS:
            raise asyncpg.exceptions.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        self.state = State.IN_DATABASE
        try:
            return await asyncio.shield(self._begin(sent))
        finally:
            self.state = State.THINKING
            if not self.dead:
                self._finished(sent)

    def go(self, fate: Fate) -> None:
        """Opens the gate it stands at."""
        gate, self.standing = self.standing, None
        assert gate is not None
        self.state = State.THINKING
        gate.opened.set_result(fate)

    async def _stand(self, gate: Gate) -> Fate:
        self.standing = gate
        self.state = State.AT_GATE
        self._changed.set()
        return await gate.opened
