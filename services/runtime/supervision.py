"""Faust's supervised services (mode) with types: what the parts of a worker are made of, and how they end."""

# mode declares its services without the types of their arguments; this file gives them.
# pyright: reportUnknownMemberType=false

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, cast

from mode import Service

DRAIN_SECONDS: Final = 1.0
"""How long a part may go on with what it has in hand after it was asked to stop."""


class Stopping(Exception):
    """The part was asked to stop while it waited for something."""


class Supervised(Service):
    """A part of a worker that is started, stopped and watched with it."""

    def __init__(self) -> None:
        super().__init__()
        self._woken = asyncio.Event()

    def begin(self, work: Awaitable[None]) -> None:
        """Runs something beside the part's tasks until it ends or the part stops."""
        self.add_future(work)

    def wake(self) -> None:
        """Ends the pause the part is in, or the next one."""
        self._woken.set()

    async def pause(self, seconds: float) -> None:
        """Waits until the part is woken or asked to stop, but no longer than this."""
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return

    async def rest(self, seconds: float) -> None:
        """Waits this long, for a server that is away. Raises Stopping where the part is asked to stop meanwhile."""
        await self.sleep(seconds)
        if self.should_stop:
            raise Stopping

    async def on_stop(self) -> None:
        """Lets the part's tasks end by themselves; what has not ended after a while is cancelled."""
        self.wake()
        await self._wait_for_futures(timeout=DRAIN_SECONDS)


def task(run: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    """Marks a method as a task that runs from start to stop; an exception it raises ends the worker."""

    async def until_stopping(part: Any) -> None:
        try:
            await run(part)
        except Stopping:
            return

    return cast("Callable[[Any], Awaitable[None]]", Service.task(until_stopping))
