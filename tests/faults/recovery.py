"""How long the services take to go on after a fault has ended, seen from outside."""

import asyncio
from dataclasses import dataclass
from time import monotonic
from typing import Final

from schemas.topics import SERVICES, TOPICS
from services.console import wire
from services.console.sql import Asked, ask
from services.console.surroundings import Stack
from services.console.trouble import Trouble

_POLL_SECONDS: Final = 0.1
_GIVES_UP_SECONDS: Final = 90.0

Standing = dict[str, int]
"""What moves while a service makes progress: each of its positions by topic and partition, and its oldest fact."""


@dataclass(frozen=True)
class Recovery:
    """Seconds from a fault's end until every service that had work to do made its first progress; None where one
    never did."""

    seconds: float | None
    last: str
    """What made progress last, or makes none."""


async def recovered(stack: Stack) -> Recovery:
    """Waits until each service whose positions lie behind the logs has moved one, and each outbox has published."""
    began = monotonic()
    waiting: dict[str, Standing] | None = None
    last = ""
    while monotonic() - began < _GIVES_UP_SECONDS:
        try:
            if waiting is None:
                waiting = await _behind(stack)
            for what, before in list(waiting.items()):
                now = await ask(stack, what.partition(" ")[0], _standing)
                if any(now.get(place) != where for place, where in before.items()):
                    del waiting[what]
                    last = what
        except (Trouble, OSError, TimeoutError):
            pass
        if waiting is not None and not waiting:
            return Recovery(monotonic() - began, last)
        await asyncio.sleep(_POLL_SECONDS)
    return Recovery(None, ", ".join(sorted(waiting or {"everything"})))


async def _behind(stack: Stack) -> dict[str, Standing]:
    """What ought to move, by service and part: positions behind their logs' ends, and the oldest fact to publish."""
    standings = {service: await ask(stack, service, _standing) for service in SERVICES}
    async with wire.follower(stack, [topic.name for topic in TOPICS]) as logs:
        ends = await logs.ends()
    behind: dict[str, Standing] = {}
    for service, standing in standings.items():
        read = {topic.name for topic in TOPICS if service in topic.readers}
        for (topic, number), end in ends.items():
            slot = f"{topic}-{number}"
            if topic in read and standing.get(slot, 0) < end:
                behind.setdefault(f"{service} reading", {})[slot] = standing.get(slot, 0)
        if "outbox" in standing:
            behind[f"{service} publishing"] = {"outbox": standing["outbox"]}
    return behind


async def _standing(db: Asked) -> Standing:
    rows = await db.fetch(
        """
        SELECT topic || '-' || "partition" AS what, next_offset AS place FROM runtime.consumer_position
        UNION ALL SELECT 'outbox', min(id) FROM runtime.outbox HAVING count(*) > 0
        """
    )
    return {row["what"]: row["place"] for row in rows}
