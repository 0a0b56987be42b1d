"""What the services say of themselves while servers are away, and how soon they go on afterwards."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

from schemas.topics import SERVICES
from services.console.stack import fetch, find
from services.console.surroundings import Process
from services.console.trouble import Trouble
from tests.faults.ground import Ground
from tests.faults.scenario import Field

_POLL_SECONDS: Final = 0.2
_PATIENCE_SECONDS: Final = 45.0

SILENT: Final = "it does not answer"


@dataclass
class Readiness:
    """What each service has said of itself, and when it first said so, in seconds."""

    began: float = field(default_factory=monotonic)
    reasons: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])

    def first(self, service: str, words: str) -> float | None:
        """When a service first gave a reason that holds these words; None where it never did."""
        told = [seconds for reason, seconds in self.reasons.get(service, {}).items() if words in reason]
        return min(told, default=None)


@asynccontextmanager
async def listening(ground: Ground) -> AsyncGenerator[Readiness]:
    """Asks every service for its readiness, again and again, until the end of the block."""
    readiness = Readiness()
    asking = asyncio.create_task(_ask_on(ground, readiness))
    try:
        yield readiness
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def _ask_on(ground: Ground, readiness: Readiness) -> None:
    while True:
        for service, process in ground.stack.processes.items():
            for reason in await asyncio.to_thread(reasons, process):
                readiness.reasons.setdefault(service, {}).setdefault(reason, monotonic() - readiness.began)
        await asyncio.sleep(_POLL_SECONDS)


def reasons(process: Process) -> list[str]:
    """Why a service is not ready, in its own words."""
    if find(process) is None:
        return [SILENT]
    try:
        said: dict[str, Any] = json.loads(fetch(process, "/readyz", 2)[1])
        return [str(reason) for reason in said["reasons"]]
    except (Trouble, ValueError, KeyError):
        return [SILENT]


def told(heard: Field, readiness: Readiness, words: str, services: Iterable[str] = SERVICES) -> None:
    """Writes down when each service gave a reason that holds these words. That one never did is a finding."""
    times: list[str] = []
    for service in services:
        seconds = readiness.first(service, words)
        if seconds is None:
            last = ", ".join(readiness.reasons.get(service, {})) or "nothing"
            heard.found.append(f"{service} did not say {words!r} on /readyz, but {last}")
        else:
            times.append(f"{service} after {seconds:.1f} s")
        if readiness.first(service, SILENT) is not None:
            heard.found.append(f"{service}'s /readyz did not answer")
    heard.note(f"/readyz said {words!r}: {', '.join(times) or 'nobody'}")


async def halted(heard: Field, service: str, name: str) -> None:
    """Waits until a service says that it has come to this hard stop. That it does not is a finding."""
    deadline = monotonic() + _PATIENCE_SECONDS
    while not await says_halted(heard, service, name):
        if monotonic() > deadline:
            now = ", ".join(reasons(heard.ground.stack.process(service))) or "that it is ready"
            heard.found.append(f"{service} did not come to the hard stop {name}, it says {now}")
            return
        await asyncio.sleep(_POLL_SECONDS)
    heard.note(f"{service} has halted: {name}")


async def says_halted(heard: Field, service: str, name: str) -> bool:
    """Whether a service says that it has come to this hard stop."""
    process = heard.ground.stack.process(service)
    return any(reason.startswith(f"halted ({name})") for reason in await asyncio.to_thread(reasons, process))


async def recovers(heard: Field, what: str) -> None:
    """A fault has ended: waits until everything goes on."""
    heard.ended()
    assert heard.recovery is not None
    recovery = await heard.recovery
    after = "never" if recovery.seconds is None else f"{recovery.seconds:.1f} s later"
    heard.note(f"{what} has ended; everything went on {after}")
