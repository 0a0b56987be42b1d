"""F15: processes whose event loop hangs, and parts of services that stand still until somebody is told."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

import asyncpg

from schemas.envelope import Envelope
from schemas.topics import ROSTER, SERVICES
from services.console import wire
from tests.faults.crew import adopt, crew, hangs
from tests.faults.outsiders import publish
from tests.faults.scenario import Field, Scenario
from tests.faults.scenarios.kills import STEPS

_HUNG: Final = 70
"""Exit status of a process that its watchdog has ended."""
_WATCHED_SECONDS: Final = 30.0
"""Longer than the watchdog waits."""
_LATEST_PASSAGE: Final = 5
_STILL_SECONDS: Final = 170.0
_SILENT_SECONDS: Final = 75.0
_BAD_FACTS: Final = 110
_SLOW: Final = 4.0


async def _blocked(field: Field) -> None:
    """The event loop of a worker hangs: no heartbeat, no page, no progress, until the process ends itself."""
    service = field.chance.choice(SERVICES)
    point, passage = field.chance.choice(STEPS[service]), field.chance.randint(1, _LATEST_PASSAGE)
    async with crew(field.ground) as workers:
        assert await field.ground.stop(service) == 0, service
        worker = workers.start(service, failpoints=f"{point}=block@{passage}")
        adopt(field.ground, service, worker)
        await hangs(worker, f"{service} hangs at {point}, passage {passage}")
        field.note(f"{service} hangs at {point}, passage {passage}")
        assert await worker.ended(_WATCHED_SECONDS) == _HUNG, f"{service} ended otherwise than by its watchdog"
        field.note(f"{service} was ended by its watchdog")
        field.ended()
        await field.ground.start_missing()


async def _standing_still(field: Field) -> None:
    """Each service is kept from one thing for minutes, as long as the alert rules wait."""
    field.traffic.rate = _SLOW
    async with AsyncExitStack() as still:
        await still.enter_async_context(_without_database(field, "reporting"))
        await still.enter_async_context(_without_relay(field, "scheduling"))
        await still.enter_async_context(_without_round(field, "matching"))
        await _bad_facts(field)
        field.note("reporting has no database, scheduling no relay, matching no round; bad facts are parked")
        await asyncio.sleep(_STILL_SECONDS)
    field.ended()
    assert field.recovery is not None
    await field.recovery
    process = field.ground.process("intake")
    process.suspend()
    field.note("intake is frozen")
    try:
        await asyncio.sleep(_SILENT_SECONDS)
    finally:
        process.resume()
    field.ended()


@asynccontextmanager
async def _without_database(field: Field, service: str) -> AsyncGenerator[None]:
    administrator = field.ground.surroundings.administrator
    assert administrator is not None
    role = urlsplit(field.ground.stack.database(service)).username
    connection = await asyncpg.connect(administrator)
    try:
        await connection.execute(f"ALTER ROLE {role} NOLOGIN")
        await connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)
        yield
    finally:
        await connection.execute(f"ALTER ROLE {role} LOGIN")
        await connection.close()


@asynccontextmanager
async def _without_relay(field: Field, service: str) -> AsyncGenerator[None]:
    """Somebody who does nothing holds the lease."""
    take = "UPDATE runtime.lease SET holder = 'nobody', epoch = epoch + 1, expires_at = now() + interval '4 minutes'"
    await field.ground.execute(service, take)
    try:
        yield
    finally:
        await field.ground.execute(service, "UPDATE runtime.lease SET expires_at = now()")


@asynccontextmanager
async def _without_round(field: Field, service: str) -> AsyncGenerator[None]:
    connection = await asyncpg.connect(
        field.ground.stack.database(service), server_settings={"idle_in_transaction_session_timeout": "0"}
    )
    try:
        await connection.execute("BEGIN; LOCK TABLE runtime.round IN ACCESS EXCLUSIVE MODE")
        yield
    finally:
        await connection.close()


async def _bad_facts(field: Field) -> None:
    async with wire.publisher(field.ground.stack) as producer:
        for nth in range(_BAD_FACTS):
            key = f"bad-{field.chance.randrange(10**9)}"
            envelope = Envelope(f"bad-{nth}-{key}", "/faults/stalls", "expert.listed.v1", key, datetime.now(UTC), 1)
            await publish(field.ground, producer, ROSTER, envelope, {})


BLOCKED: Final = Scenario(
    fault="F15",
    name="event-loop-blocked",
    sentence="The event loop of a service drawn by lot hangs at a point drawn by lot; its watchdog ends the process, "
    "which is started again",
    inject=_blocked,
    alert="ServiceDown",
)
STANDING_STILL: Final = Scenario(
    fault="F15",
    name="standing-still",
    sentence="For minutes reporting has no database, scheduling no relay, matching no round, and bad facts come; then "
    "intake is frozen: every stall raises its alerts",
    inject=_standing_still,
    fires=(
        "ServiceNotReady",
        "TransactionsRetried",
        "ReadingStandsStill",
        "NobodyLeadsTheRelay",
        "OutboxStandsStill",
        "RoundFails",
        "EventsParked",
        "ManyEventsParked",
        "ServiceDown",
    ),
    spoils=True,
    seeds=1,
)
