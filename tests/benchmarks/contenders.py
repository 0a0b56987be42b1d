"""Who takes part in the race, how each is started as a process of its own, and how it is seen to have finished."""

import asyncio
import json
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from deploy.local import ports
from services.runtime import database
from services.runtime.database import Connection
from tests.benchmarks.course import Course, Wrong, check, clear, counted, length, watching
from tests.benchmarks.premises import TREE
from tests.benchmarks.race_input import RaceInput

_POLL_SECONDS: Final = 0.02
_PATIENCE_SECONDS: Final = 240.0
_STOP_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Contender:
    """One tool at one size of batch."""

    name: str
    module: str
    batch: int
    python: Path
    arguments: tuple[str, ...] = ()
    by_partition: bool = False

    @property
    def label(self) -> str:
        return f"{self.name} {self.batch}"


@dataclass(frozen=True, slots=True)
class Lap:
    """How one contender did in one round."""

    events: int
    seconds: float
    processor_seconds: float
    """Of the contender's process alone; Kafka and PostgreSQL work beside it."""

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds

    @property
    def processor_micros(self) -> float:
        """Processor time of the contender's process for each event, in microseconds."""
        return self.processor_seconds / self.events * 1e6


async def run(contender: Contender, course: Course, given: RaceInput) -> Lap:
    """Has one process of a contender do the whole work and checks what it did. Raises Wrong."""
    async with standing(course) as db:
        before = await length(course)
        with process(contender, course) as running:
            ended = await running.finish(db, sum(before.values()) + course.size.events)
            moment, processor = running.first_event()
            spent = running.spent() - processor
        with blaming(running):
            await check(db, course, before, given)
    return Lap(course.size.events, ended - moment, spent)


@asynccontextmanager
async def standing(course: Course) -> AsyncGenerator[Connection]:
    """A connection to the database of the course, in which no contender has done anything yet."""
    db = await database.connect(course.database)
    try:
        await clear(db, course)
        yield db
    finally:
        await db.close()


@dataclass(frozen=True, slots=True)
class Running:
    """A process of a contender."""

    contender: Contender
    course: Course
    process: subprocess.Popen[bytes]
    began: Path
    log: Path

    async def finish(self, db: Connection, wanted: int) -> float:
        """Waits until the next events can be read and the state holds all; returns the moment. Raises Wrong."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        async with watching(self.course) as published_so_far:
            while True:
                published = await published_so_far()
                if published >= wanted and await counted(db, self.course) >= self.course.size.events:
                    return time.monotonic()
                with blaming(self):
                    if self.process.poll() is not None:
                        raise Wrong(f"it ended with status {self.process.returncode}")
                    if time.monotonic() > deadline:
                        raise Wrong(f"{wanted - published} events are missing after {_PATIENCE_SECONDS:.0f} s")
                await asyncio.sleep(_POLL_SECONDS)

    def first_event(self) -> tuple[float, float]:
        """When the process came by its first event, and the processor time it had taken until then. Raises Wrong."""
        with blaming(self):
            try:
                moment, processor = json.loads(self.began.read_text())
            except (OSError, ValueError):
                raise Wrong("it did not say when it began") from None
        return moment, processor

    def spent(self) -> float:
        """Seconds of processor time it has taken."""
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system


@contextmanager
def blaming(running: Running) -> Generator[None]:
    """Says of what is wrong whose fault it is, and what its log says."""
    try:
        yield
    except Wrong as wrong:
        log = running.log.read_text(errors="replace")
        raise Wrong(f"{running.contender.label}: {wrong}; its log ends:\n{log[-2000:]}") from None


@contextmanager
def process(contender: Contender, course: Course) -> Generator[Running]:
    """Starts a process of a contender, and ends it."""
    work = Path(tempfile.mkdtemp(prefix="contender-", dir=course.folder))
    began, log = work / "began", work / "log"
    with log.open("wb") as output:
        started = subprocess.Popen(
            [str(contender.python), "-m", contender.module, *contender.arguments],
            env=_environment(contender, course, began),
            cwd=work,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield Running(contender, course, started, began, log)
    finally:
        started.terminate()
        try:
            started.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def _environment(contender: Contender, course: Course, began: Path) -> dict[str, str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("FIELDBRIDGE_")}
    return variables | {
        "PYTHONPATH": str(TREE),
        "RACE_BEGAN": str(began),
        "RACE_KAFKA": course.kafka,
        "RACE_DATABASE": course.database,
        "RACE_GROUP": f"{course.prefix}{contender.label}".replace(" ", "-").replace(",", ""),
        "RACE_SOURCE": course.source,
        "RACE_TARGET": course.target,
        "RACE_TOPIC": course.topic,
        "RACE_BATCH": str(contender.batch),
        "RACE_BY_PARTITION": "yes" if contender.by_partition else "no",
        "FIELDBRIDGE_KAFKA": course.kafka,
        "FIELDBRIDGE_TALLYING_DATABASE": course.database,
        "FIELDBRIDGE_TOPIC_PREFIX": course.prefix,
        "FIELDBRIDGE_BATCH_EVENTS": str(contender.batch),
        "FIELDBRIDGE_LANES": "2",  # its process has a core to itself here
        "FIELDBRIDGE_PORT": str(ports.choose()),
    }
