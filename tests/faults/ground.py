"""A stack on servers of its own, which a test may kill, stop and start again."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any, Final

import asyncpg
import psutil

from deploy.local import servers
from schemas.topics import SERVICES
from services.console.registry import SAMPLE, Row, bring_in, read_list
from services.console.simulate import registry
from services.console.stack import bring_up, find, standing, take_down
from services.console.surroundings import Process, Stack, Surroundings, read_record, write_record
from services.console.world.answering import World
from services.console.world.asking import Asking
from services.console.world.population import Agency, roster
from services.console.world.simulation import Simulation, running

SEED: Final = 2017
_PATIENCE_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.05


@dataclass(frozen=True)
class Population:
    """How many there are in the world of a stack."""

    agencies: int
    experts: int


FEW: Final = Population(agencies=100, experts=70)
"""Enough for some dozens of requests."""


def quiet(_: str) -> None:
    """Whoever starts and stops things has nothing to say here."""


def start_servers(folder: Path) -> servers.Addresses:
    """Has a Kafka and a PostgreSQL running that may be killed.

    Their ports are nobody's favourites: while one is dead, no other campaign or stack of this machine takes its port.
    """
    return servers.start(folder, say=quiet, kafka_port=0, postgres_port=0, durable=False)


@dataclass(frozen=True)
class Ground:
    """A running stack, its folder and the folder of its servers."""

    surroundings: Surroundings
    machine: Path

    @property
    def stack(self) -> Stack:
        stack = read_record(self.surroundings.home)
        assert stack is not None, "the stack was not started"
        return stack

    def process(self, service: str) -> psutil.Process:
        """The live process of a service."""
        process = find(self.stack.process(service))
        assert process is not None, f"{service} does not run"
        return process

    def adopt(self, service: str, process: Process) -> None:
        """Makes another process the stack's own, in place of one that has ended."""
        stack = self.stack
        write_record(self.surroundings.home, replace(stack, processes=stack.processes | {service: process}))

    async def kill(self, service: str) -> None:
        """Ends a service as a crash would."""
        process = self.process(service)
        process.kill()
        await asyncio.to_thread(process.wait, 10)

    async def stop(self, service: str) -> int | None:
        """Asks a service to end; returns its exit status."""
        process = self.process(service)
        process.terminate()
        return await asyncio.to_thread(process.wait, 30)

    async def start_missing(self) -> None:
        """Starts the services that do not run, and waits until all are ready."""
        await asyncio.to_thread(bring_up, self.surroundings, quiet)

    async def kill_server(self, name: servers.Name) -> None:
        await asyncio.to_thread(servers.kill, self.machine, name)

    async def stop_server(self, name: servers.Name) -> None:
        """Ends a server cleanly."""
        pid = servers.pid(self.machine, name)
        assert pid is not None, f"{name} does not run"
        process = psutil.Process(pid)
        process.send_signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)
        await asyncio.to_thread(process.wait, 60)

    async def start_server(self, name: servers.Name) -> None:
        """Starts a server again, on the port and data it had."""
        await asyncio.to_thread(lambda: servers.start_again(self.machine, name, say=quiet))

    async def all_ready(self) -> None:
        """Waits until every service says that it is ready."""
        deadline = monotonic() + _PATIENCE_SECONDS
        while True:
            standings = [await asyncio.to_thread(standing, self.stack, service) for service in SERVICES]
            waiting = {one.service: one.reasons for one in standings if not one.ready}
            if not waiting:
                return
            assert monotonic() < deadline, f"not ready: {waiting}"
            await asyncio.sleep(_POLL_SECONDS)

    async def execute(self, service: str, statement: str, *arguments: object) -> Any:
        """Does something to a service's database behind its back; returns the first value of the answer."""
        connection = await asyncpg.connect(self.stack.database(service))
        try:
            return await connection.fetchval(statement, *arguments)
        finally:
            await connection.close()

    async def rows(self, service: str, question: str, *arguments: object) -> list[asyncpg.Record]:
        """The answer of a service's database."""
        connection = await asyncpg.connect(self.stack.database(service))
        try:
            return await connection.fetch(question, *arguments)
        finally:
            await connection.close()

    async def until(self, service: str, question: str, *arguments: object) -> None:
        """Waits until a service's database answers the question with yes."""
        deadline = monotonic() + _PATIENCE_SECONDS
        while not await self.execute(service, question, *arguments):
            assert monotonic() < deadline, f"{service}: {question}"
            await asyncio.sleep(_POLL_SECONDS)

    @asynccontextmanager
    async def write_held_up(self, service: str, table: str) -> AsyncGenerator[None]:
        """Holds the service's writes to a table up, from when one waits until the end of the block."""
        connection = await asyncpg.connect(self.stack.database(service))
        try:
            await connection.execute(f"BEGIN; LOCK TABLE {table} IN SHARE MODE")
            waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = $1::text::regclass)"
            await self.until(service, waits, table)
            yield
        finally:
            await connection.close()

    @asynccontextmanager
    async def no_kafka(self) -> AsyncGenerator[None]:
        """Kafka is dead until the end of the block."""
        await self.kill_server("kafka")
        try:
            yield
        finally:
            await self.start_server("kafka")


def lay(surroundings: Surroundings, machine: Path, population: Population = FEW) -> Ground:
    """Brings a stack up, with agencies and a roster known to all."""
    ground = Ground(surroundings, machine)
    bring_up(surroundings, quiet)
    asyncio.run(_populate(ground.stack, population))
    return ground


def clear(ground: Ground) -> None:
    """Ends the services, also those that nobody knows of: where two faults meet, both may start the same service."""
    prefix = ground.surroundings.topic_prefix
    take_down(ground.surroundings, quiet)
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if child.environ().get("FIELDBRIDGE_TOPIC_PREFIX") == prefix:
                child.kill()


async def _populate(stack: Stack, population: Population) -> None:
    await bring_in(stack, _listed(population.agencies), lambda _: None)
    agencies = await registry(stack)
    async with running(stack, world("roster", agencies), None) as simulation:
        await simulation.publish(roster(SEED, "roster", population.experts, agencies, datetime.now(UTC).date()))
        await simulation.answered(_PATIENCE_SECONDS)


def _listed(agencies: int) -> list[tuple[int, Row]]:
    """Rows of so many agencies: the sample's, then the same under other identifiers, in counties of their own."""
    sample = [row for _, row in read_list(SAMPLE)]
    return [
        (nth, sample[nth] if nth < len(sample) else _like(sample[nth % len(sample)], *divmod(nth, len(sample))))
        for nth in range(agencies)
    ]


def _like(row: Row, lap: int, nth: int) -> Row:
    return row | {"ori": f"{row['state']}{lap:03d}{nth:04d}"}


def world(run: str, agencies: list[Agency]) -> World:
    """An outside world whose requests are all delivered in the end."""
    return World(run, Asking(SEED + sum(run.encode()), agencies, datetime.now(UTC).date()), delivers=True)


class Traffic:
    """Requests that keep coming, and the outside world that answers what is published.

    `requests` is how many come at least; where they are not to end before `end`, more follow at the same rate.
    """

    def __init__(
        self, simulation: Simulation, ledger: Path, requests: int, rate: float, *, endless: bool = False
    ) -> None:
        self.simulation = simulation
        self.ledger = ledger
        self.rate = rate
        """Requests a second; of those beyond the least number it may be changed."""
        self._requests = requests
        self._enough = not endless
        self._asking = asyncio.create_task(self._ask())

    async def _ask(self) -> None:
        await self.simulation.ask(range(self._requests), self.rate, range(0), lambda: None)
        asked = self._requests
        while not self._enough:
            at_a_time = max(1, round(self.rate / 4))
            await self.simulation.ask(range(asked, asked + at_a_time), self.rate, range(0), lambda: None)
            asked += at_a_time

    @property
    def submitted(self) -> int:
        """How many requests have been submitted so far."""
        return len(self.simulation.world.asked)

    async def reach(self, share: float) -> None:
        """Waits until this share of the requests has been submitted."""
        deadline = monotonic() + _PATIENCE_SECONDS
        while self.submitted < share * self._requests:
            assert not self._asking.done() or not self._asking.exception(), self._asking
            assert monotonic() < deadline, f"only {self.submitted} requests were submitted"
            await asyncio.sleep(_POLL_SECONDS)

    async def end(self, seconds: float = _PATIENCE_SECONDS) -> None:
        """Waits until every request has been submitted and every submission answered."""
        self._enough = True
        await self._asking
        await self.simulation.answered(seconds)

    async def cancel(self) -> None:
        self._asking.cancel()
        await asyncio.gather(self._asking, return_exceptions=True)


@asynccontextmanager
async def traffic(
    ground: Ground, run: str, folder: Path, requests: int = 48, rate: float = 16.0, *, endless: bool = False
) -> AsyncGenerator[Traffic]:
    """Requests of one run on their way."""
    ledger = folder / "ledger.jsonl"
    agencies = await registry(ground.stack)
    async with running(ground.stack, world(run, agencies), ledger) as simulation:
        flow = Traffic(simulation, ledger, requests, rate, endless=endless)
        try:
            yield flow
        finally:
            await flow.cancel()
