"""What a scenario of the fault campaign is, and what it may use while requests flow."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic

from tests.faults.ground import Ground, Traffic
from tests.faults.recovery import Recovery, recovered


@dataclass(frozen=True)
class Scenario:
    """One fault: how it is injected while requests flow, and what it has to lead to."""

    fault: str
    """Of the list of faults: `F2`."""
    name: str
    """Unique among all scenarios."""
    sentence: str
    """What is done to whom."""
    inject: "Callable[[Field], Awaitable[None]]"
    """Returns when the fault has ended and everything is back."""
    alert: str | None = None
    """The alert rule that this fault has to raise: it lasts long enough for it to fire, or at least to be pending."""
    setting: Mapping[str, str] = field(default_factory=dict[str, str])
    """Environment of the services of this scenario."""
    halts: bool = False
    """Whether the right end is a named hard stop, not recovery."""
    spoils: bool = False
    """Whether it leaves something behind that the next scenario must not meet, such as parked events."""
    uninterrupted: bool = False
    """Whether it leaves something behind that only a person can mend, where it is cut short."""
    seeds: int | None = None
    """Of something so long that a few have to do: with how many seeds it is run; None for with all."""
    fires: tuple[str, ...] = ()
    """Further alert rules that have to fire, not only to be pending."""
    longest_seconds: float = 400.0
    """After how long injecting has failed."""


@dataclass
class Field:
    """What a scenario may use."""

    ground: Ground
    """A running stack on servers of its own."""
    chance: random.Random
    """Seeded: the same seed, the same fault."""
    traffic: Traffic
    """Requests that keep coming."""
    said: list[str] = field(default_factory=list[str])
    """Lines for the report: what was done when."""
    found: list[str] = field(default_factory=list[str])
    """What the scenario itself has seen that must not be."""
    recoveries: list[Recovery] = field(default_factory=list[Recovery])
    """One for each time that everything has gone on."""
    recovery: "asyncio.Task[Recovery] | None" = None
    """The one that is awaited."""
    began: float = field(default_factory=monotonic)

    def note(self, what: str) -> None:
        """A line for the report, with the seconds since the scenario began."""
        self.said.append(f"{monotonic() - self.began:5.1f} s: {what}")

    def ended(self) -> None:
        """The fault has ended now: recovery is measured from here. Where it is said again before everything has gone
        on, the last time counts."""
        if self.recovery is not None:
            self.recovery.cancel()
        self.recovery = asyncio.create_task(self._recover())

    async def _recover(self) -> Recovery:
        recovery = await recovered(self.ground.stack)
        self.recoveries.append(recovery)
        return recovery
