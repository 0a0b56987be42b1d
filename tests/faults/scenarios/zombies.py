"""F2 and F5: processes that freeze, are given up, and come back when others have taken over."""

import asyncio
from typing import Final

from schemas.topics import SERVICES
from tests.driving import Worker
from tests.faults.crew import crew, froze, owns_nothing
from tests.faults.scenario import Field, Scenario
from tests.faults.scenarios.kills import SENDING, STEPS
from tests.faults.witness import witnessing

_CHOSEN: Final = 2
_HICCUP_SECONDS: Final = 4.0
"""Shorter than the session timeout, and than PostgreSQL bears with an idle transaction."""
_OVERTAKEN: Final = """
SELECT last_value > $1::bigint + 5 AND NOT EXISTS (SELECT FROM runtime.outbox WHERE id <= $1 + 5)
FROM runtime.outbox_id_seq
"""
_LATEST_PASSAGE: Final = 5


async def _zombie(field: Field) -> None:
    """One worker of a service freezes at a point of its work, another at any moment; both come back."""
    chosen = field.chance.sample(SERVICES, _CHOSEN)
    points = {service: field.chance.choice(STEPS[service]) for service in chosen}
    # Here nothing but the fence keeps whoever comes back from writing.
    points[chosen[0]] = "before_transaction"
    passages = {service: field.chance.randint(1, _LATEST_PASSAGE) for service in chosen}
    async with witnessing(field, chosen), crew(field.ground) as workers:
        frozen = {
            service: workers.start(service, failpoints=f"{points[service]}=stop@{passages[service]}")
            for service in chosen
        }
        field.note(f"{points}")
        await asyncio.gather(*(_froze_and_lost_all(field, service, worker) for service, worker in frozen.items()))
        field.note("others own everything; the frozen go on")
        for worker in frozen.values():
            worker.resume()
        field.ended()
        for service, worker in frozen.items():
            await worker.ready()
            await _froze_at_any_moment(field, service)
        for service, worker in frozen.items():
            assert await worker.stop() == 0, service


async def _froze_and_lost_all(field: Field, service: str, worker: Worker) -> None:
    await froze(worker, f"{service} freezes")
    field.note(f"{service} frozen")
    await owns_nothing(field.ground, service, worker.pid)


async def _froze_at_any_moment(field: Field, service: str) -> None:
    """The stack's own process, while the other worker of the service moves."""
    process = field.ground.process(service)
    process.suspend()
    field.note(f"{service} frozen at any moment")
    try:
        await owns_nothing(field.ground, service, process.pid)
    finally:
        process.resume()
        field.ended()


async def _relay_past_its_lease(field: Field) -> None:
    """A relay freezes with what it has published in hand; another takes the lease, publishes the same and deletes."""
    service = field.chance.choice(list(SENDING))
    passage = field.chance.randint(1, _LATEST_PASSAGE)
    async with witnessing(field, [service]), crew(field.ground) as workers:
        armed = workers.start(service, failpoints=f"after_publish=stop@{passage}")
        await armed.ready()
        first = field.ground.process(service)
        first.suspend()
        try:
            await _leads(field, service, armed.pid)
            field.note(f"{service}'s first relay frozen at any moment")
        finally:
            first.resume()
        await froze(armed, f"{service}'s relay freezes after publishing")
        await _leads(field, service, first.pid)
        field.note(f"{service}'s second relay frozen after publishing")
        armed.resume()
        field.ended()
        await armed.ready()
        assert await armed.stop() == 0, service


async def _hiccups(field: Field) -> None:
    """A worker holds rows of the outbox back, which have the lower ids, while others' rows are published."""
    async with crew(field.ground) as workers:
        frozen = {
            service: workers.start(service, failpoints=f"before_commit=stop@{field.chance.randint(1, _LATEST_PASSAGE)}")
            for service in SENDING
        }
        await asyncio.gather(*(_overtaken(field, service, worker) for service, worker in frozen.items()))
        field.ended()
        for service, worker in frozen.items():
            await worker.ready()
            assert await worker.stop() == 0, service


async def _overtaken(field: Field, service: str, worker: Worker) -> None:
    await froze(worker, f"{service} freezes before it commits")
    drawn = await field.ground.execute(service, "SELECT last_value FROM runtime.outbox_id_seq")
    meanwhile = "later rows were published"
    try:
        async with asyncio.timeout(_HICCUP_SECONDS):
            await field.ground.until(service, _OVERTAKEN, drawn)
    except TimeoutError:
        meanwhile = "nothing was published"
    worker.resume()
    field.note(f"{service} was frozen before it committed; meanwhile {meanwhile}")


async def _leads(field: Field, service: str, pid: int) -> None:
    holds = "SELECT EXISTS (SELECT FROM runtime.lease WHERE name = 'relay' AND holder LIKE '%:' || $1::text)"
    await field.ground.until(service, holds, str(pid))


ZOMBIE: Final = Scenario(
    fault="F2",
    name="zombie",
    sentence="Workers are frozen (SIGSTOP) past the session timeout, in decisions, transactions and anywhere; their "
    "partitions move to a second worker; they come back (SIGCONT)",
    inject=_zombie,
)
HICCUPS: Final = Scenario(
    fault="F2",
    name="hiccups",
    sentence="Workers are frozen (SIGSTOP) before a commit for less than any timeout, while others commit and publish; "
    "then they commit what they held back",
    inject=_hiccups,
)
RELAY_PAST_LEASE: Final = Scenario(
    fault="F5",
    name="relay-past-its-lease",
    sentence="The leading relay is frozen past its lease, once with published rows it has not deleted; another takes "
    "over and publishes them again; it comes back",
    inject=_relay_past_its_lease,
)
