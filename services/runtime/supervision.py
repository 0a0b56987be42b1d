"""Faust's supervised services (mode) with types: what the parts of a worker are made of."""

# mode declares its services without the types of their arguments; this file gives them.
# pyright: reportUnknownMemberType=false

from collections.abc import Awaitable, Callable
from typing import Any, cast

from mode import Service


class Supervised(Service):
    """A part of a worker that is started, stopped and watched with it."""

    def __init__(self) -> None:
        super().__init__()

    def begin(self, work: Awaitable[None]) -> None:
        """Runs something beside the part's tasks until it ends or the part stops."""
        self.add_future(work)


def task(run: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
    """Marks a method as a task that runs from start to stop; an exception it raises ends the worker."""
    return cast("Callable[[Any], Awaitable[None]]", Service.task(run))
