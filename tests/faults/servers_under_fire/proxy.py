"""A way over TCP that can be made slow, silent, broken or closed, and that can break in the midst of a commit.

It runs in a thread and an event loop of its own, so that what it carries goes on whatever its user is waiting for.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from enum import Enum, auto
from time import monotonic
from typing import Any, Final, TypeVar

from deploy.local import ports

T = TypeVar("T")

_COMMIT: Final = b"COMMIT;\x00"
"""As asyncpg sends it: a simple query of its own."""
_CHUNK: Final = 65_536
_UNDER_WAY: Final = 256
"""Chunks of one direction that may be under way."""
_ABORT: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of a socket whose close sends a reset."""


@dataclass(frozen=True)
class Weather:
    """What becomes of the bytes on their way, in both directions."""

    delay_seconds: float = 0.0
    silent: bool = False
    """Nothing arrives. It has not got lost: once this has passed, all of it does."""
    refusing: bool = False
    """Nobody can connect, and whoever was connected is cut off."""


CALM: Final = Weather()


class Cut(Enum):
    """Where a connection breaks in the midst of a commit. The client sees the same both times."""

    BEFORE_THE_SERVER = auto()
    """The server never hears of the commit."""
    BEFORE_THE_CLIENT = auto()
    """The server commits, and its answer gets lost."""


class Way:
    """The way to one server."""

    def __init__(self, target_port: int) -> None:
        self.port = ports.choose()
        self.commits = 0
        """Commits that came by."""
        self.cuts = 0
        self._target_port = target_port
        self._weather = CALM
        self.speaks = asyncio.Event()
        self._cutting: Callable[[], Cut | None] = _nowhere
        self._loop = asyncio.new_event_loop()
        self._listener: asyncio.Server | None = None
        self._open: set[_Carried] = set()
        self._carrying: set[asyncio.Task[None]] = set()
        self.listens = threading.Event()

    async def turn(self, weather: Weather) -> None:
        """From now on, this weather."""
        await self._there(self._turn(weather))

    async def break_all(self) -> int:
        """Breaks every connection with a reset; returns how many there were."""
        return await self._there(self._break_all())

    def cut_commits(self, whether: Callable[[], Cut | None]) -> None:
        """From now on, asks at each commit whether to break its connection, and where."""
        self._cutting = whether

    def leave_commits(self) -> None:
        """From now on, commits go through."""
        self._cutting = _nowhere

    def serve(self) -> None:
        """Carries until `end` is called; runs in a thread of its own."""
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._turn(CALM))
        self.listens.set()
        self._loop.run_forever()
        self._loop.close()

    def end(self) -> None:
        """Breaks everything and stops."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _there(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    async def _turn(self, weather: Weather) -> None:
        self._weather = weather
        self.speaks.clear() if weather.silent else self.speaks.set()
        if weather.refusing and self._listener is not None:
            self._listener.close()
            self._listener = None
            await self._break_all()
        if not weather.refusing and self._listener is None:
            self._listener = await asyncio.start_server(self._carry, ports.LOOPBACK, self.port)

    async def _close(self) -> None:
        await self._turn(replace(CALM, refusing=True))
        await asyncio.gather(*self._carrying, return_exceptions=True)

    async def _break_all(self) -> int:
        broken = list(self._open)
        for carried in broken:
            carried.break_off()
        return len(broken)

    async def _carry(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)
        try:
            server, to_server = await asyncio.open_connection(ports.LOOPBACK, self._target_port)
        except OSError:
            _reset(to_client)
            return
        carried = _Carried(self, to_client, to_server)
        if self._weather.refusing:
            # It was let in a moment before.
            carried.break_off()
            return
        self._open.add(carried)
        there = asyncio.create_task(carried.copy(client, to_server, carried.may_ask))
        back = asyncio.create_task(carried.copy(server, to_client, carried.may_answer))
        try:
            await asyncio.wait((there, back), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (there, back):
                task.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
            self._open.discard(carried)
            carried.close()

    def passing(self, commit: bool) -> Cut | None:
        """Takes note of what goes to the server; says whether it is a commit that is to be cut."""
        if not commit:
            return None
        self.commits += 1
        cut = self._cutting()
        self.cuts += cut is not None
        return cut

    @property
    def weather(self) -> Weather:
        return self._weather


class _Carried:
    """One connection on its way."""

    def __init__(self, way: Way, to_client: asyncio.StreamWriter, to_server: asyncio.StreamWriter) -> None:
        self._way = way
        self._to_client = to_client
        self._to_server = to_server
        self._answer_gets_lost = False

    def may_ask(self, data: bytes) -> bool:
        """Whether these bytes may go to the server."""
        cut = self._way.passing(_COMMIT in data)
        if cut is Cut.BEFORE_THE_SERVER:
            self.break_off()
            return False
        self._answer_gets_lost = cut is Cut.BEFORE_THE_CLIENT
        return True

    def may_answer(self, _: bytes) -> bool:
        """Whether these bytes may go to the client."""
        if self._answer_gets_lost:
            self.break_off()
        return not self._answer_gets_lost

    async def copy(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, may_pass: Callable[[bytes], bool]
    ) -> None:
        """Carries one direction until it ends or breaks."""
        under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_UNDER_WAY)
        delivering = asyncio.create_task(self._deliver(under_way, sink))
        try:
            while data := await source.read(_CHUNK):
                if delivering.done() or not may_pass(data):
                    return
                await under_way.put((monotonic() + self._way.weather.delay_seconds, data))
            await under_way.join()
        except OSError:
            return
        finally:
            delivering.cancel()
            await asyncio.gather(delivering, return_exceptions=True)

    async def _deliver(self, under_way: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter) -> None:
        while True:
            due, data = await under_way.get()
            await asyncio.sleep(max(0.0, due - monotonic()))
            await self._way.speaks.wait()
            sink.write(data)
            await sink.drain()
            under_way.task_done()

    def break_off(self) -> None:
        """Breaks both ends, so that they see it broken, not ended."""
        for writer in (self._to_client, self._to_server):
            _reset(writer)

    def close(self) -> None:
        for writer in (self._to_client, self._to_server):
            writer.close()


def _nowhere() -> None:
    """No commit is cut."""


def _reset(writer: asyncio.StreamWriter) -> None:
    """Closes a connection so that the other side sees it broken, not ended."""
    held: socket.socket | None = writer.get_extra_info("socket")
    if held is not None:
        with suppress(OSError):
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
    writer.transport.abort()


@contextmanager
def way_to(port: int) -> Generator[Way]:
    """A way to what listens on this port of loopback, while the block lasts."""
    way = Way(port)
    thread = threading.Thread(target=way.serve, daemon=True)
    thread.start()
    assert way.listens.wait(30), f"nothing listens at port {way.port}"
    try:
        yield way
    finally:
        way.end()
        thread.join(10)
