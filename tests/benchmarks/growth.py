"""`growth`: more workers of one service, and the same work upon ten million rows of history."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Final

from deploy.local.servers import Addresses
from schemas.topics import REQUESTS, SUBMISSIONS
from services.runtime import database
from services.runtime.database import Connection
from services.runtime.migration import migrate
from tests.benchmarks import premises
from tests.benchmarks.contenders import Contender, Lap, Running, process, run, standing
from tests.benchmarks.course import Course, Wrong, check, counted, length, watching
from tests.benchmarks.measuring import Report, Sheet, Spread, machine, tell, versions
from tests.benchmarks.peers_environment import own_python
from tests.benchmarks.race import MIGRATIONS
from tests.benchmarks.race_input import RaceInput, Size, write
from tests.driving import create_topics

_BATCH: Final = 1000
_POLL_SECONDS: Final = 0.02
_PATIENCE_SECONDS: Final = 300.0

_HISTORY: Final = {
    "tally": "INSERT INTO tally SELECT 'H-' || n, 20, 900, 20 FROM generate_series($1::bigint, $2::bigint) AS n",
    "stream_seen": (
        "INSERT INTO runtime.stream_seen (topic, key, sequence) "
        "SELECT 'requests', 'H-' || n, 20 FROM generate_series($1::bigint, $2::bigint) AS n"
    ),
    "stream_out": (
        "INSERT INTO runtime.stream_out (topic, key, sequence) "
        "SELECT 'matches', 'H-' || n, 20 FROM generate_series($1::bigint, $2::bigint) AS n"
    ),
    "message_seen": (
        "INSERT INTO runtime.message_seen (source, id) "
        "SELECT '/outside/' || n % 50, 'h-' || n FROM generate_series($1::bigint, $2::bigint) AS n"
    ),
}
_ROWS_AT_A_TIME: Final = 250_000


@dataclass(frozen=True, slots=True)
class Plan:
    """How large it is."""

    size: Size
    rounds: int
    workers: Sequence[int]
    rows: int

    @classmethod
    def full(cls, rounds: int, rows: int) -> "Plan":
        return cls(Size(events=240_000, keys=3_000), rounds, (1, 2, 4), rows)

    @classmethod
    def quick(cls) -> "Plan":
        return cls(Size(events=20_000, keys=1_000), 1, (1, 2), 20_000)


@dataclass(frozen=True, slots=True)
class Ground:
    """Where all of it takes place."""

    addresses: Addresses
    database: str
    folder: Path

    def course(self, prefix: str, size: Size, topic: str = REQUESTS.name, *, history: bool = False) -> Course:
        return Course(self.addresses.kafka, self.database, prefix, size, self.folder, topic, history)


def measure(plan: Plan) -> Report:
    """Measures workers first, then history. Raises Wrong."""
    on = machine()
    with premises.own_servers() as (addresses, folder):
        ground = Ground(addresses, premises.database(addresses, "tallying"), folder)
        together = asyncio.run(_workers(plan, ground))
        before, after = asyncio.run(_history(plan, ground))
    sheets = [_of_workers(plan, together), _of_history(plan, before, after)]
    figures = {
        "workers": {str(number): [lap.rate for lap in laps] for number, laps in together.items()},
        "before": {topic: [lap.rate for lap in laps] for topic, laps in before.items()},
        "after": {topic: [lap.rate for lap in laps] for topic, laps in after.items()},
    }
    conditions = {"events": plan.size.events, "batch": _BATCH, "rounds": plan.rounds, "rows of history": plan.rows}
    return Report("growth", conditions, sheets, figures, on, versions())


def _ours() -> Contender:
    return Contender("Fieldbridge", "tests.benchmarks.tallying", _BATCH, own_python())


# --- workers


async def _workers(plan: Plan, ground: Ground) -> dict[int, list[Lap]]:
    await _prepare(ground)
    laps: dict[int, list[Lap]] = {number: [] for number in plan.workers}
    for nth in range(plan.rounds):
        course = ground.course(f"w{nth}-", plan.size)
        given = await _input(course, seed=nth)
        for number in plan.workers:
            await premises.settle(ground.addresses.postgres)
            lap = await _together(course, given, number)
            laps[number].append(lap)
            tell(f"  {number} workers: {lap.events:,} events in {lap.seconds:.1f} s: {lap.rate:,.0f} events/s")
    return laps


async def _together(course: Course, given: RaceInput, number: int) -> Lap:
    """Several workers share the topic. Counted is from the moment when each of them has had an event."""
    async with standing(course) as db:
        before = await length(course)
        with ExitStack() as stack:
            workers = [stack.enter_context(process(_ours(), course)) for _ in range(number)]
            wanted = sum(before.values()) + course.size.events
            async with watching(course) as published:
                await _all_at_work(workers, db, course)
                first, began = await published(), monotonic()
                spent = sum(one.spent() for one in workers)
            ended = await workers[0].finish(db, wanted)
            spent = sum(one.spent() for one in workers) - spent
        await check(db, course, before, given)
    return Lap(wanted - first, ended - began, spent)


async def _all_at_work(workers: Sequence[Running], db: Connection, course: Course) -> None:
    deadline = monotonic() + _PATIENCE_SECONDS
    while not all(one.began.exists() for one in workers):
        if await counted(db, course) >= course.size.events:
            raise Wrong("all was done before every worker had an event: take more events")
        if monotonic() > deadline:
            raise Wrong(f"not every worker had an event within {_PATIENCE_SECONDS:.0f} s")
        await asyncio.sleep(_POLL_SECONDS)


# --- history


async def _history(plan: Plan, ground: Ground) -> tuple[dict[str, list[Lap]], dict[str, list[Lap]]]:
    before = {topic.name: await _laps(plan, ground, topic.name, "e") for topic in (REQUESTS, SUBMISSIONS)}
    db = await database.connect(ground.database)
    try:
        for table in _HISTORY:
            await _fill(db, table, plan.rows)
    finally:
        await db.close()
    await premises.settle(ground.addresses.postgres)
    after = {topic.name: await _laps(plan, ground, topic.name, "f") for topic in (REQUESTS, SUBMISSIONS)}
    return before, after


async def _laps(plan: Plan, ground: Ground, topic: str, stage: str) -> list[Lap]:
    course = ground.course(f"{stage}-{topic}-", plan.size, topic, history=True)
    given = await _input(course, seed=1)
    laps: list[Lap] = []
    for _ in range(plan.rounds):
        laps.append(await run(_ours(), course, given))
        tell(f"  {topic}: {laps[-1].rate:,.0f} events/s")
    return laps


async def _fill(db: Connection, table: str, rows: int) -> None:
    began = monotonic()
    for first in range(1, rows + 1, _ROWS_AT_A_TIME):
        await db.execute(_HISTORY[table], first, min(rows, first + _ROWS_AT_A_TIME - 1))
    tell(f"{rows:,} rows into {table} in {monotonic() - began:.0f} s")


async def _prepare(ground: Ground) -> None:
    db = await database.connect(ground.database)
    try:
        await migrate(db, "tallying", MIGRATIONS, ground.database)
    finally:
        await db.close()


async def _input(course: Course, seed: int) -> RaceInput:
    await create_topics(course.kafka, course.source, course.target, partitions=course.size.partitions)
    return await write(course.kafka, course.source, course.size, seed)


# --- tables


def _of_workers(plan: Plan, laps: Mapping[int, Sequence[Lap]]) -> Sheet:
    sheet = Sheet(
        "Workers of one service, 8 partitions, from the moment when each has had an event",
        ("workers#", "events/s, median#", "min - max#", "of one worker#", "processor an event#"),
        notes=["Kafka and PostgreSQL share the cores with the workers. One worker leads the relay."],
    )
    alone = [lap.rate for lap in laps[plan.workers[0]]]
    for number, run_ in laps.items():
        spread = Spread.of([lap.rate for lap in run_])
        ratio = median(lap.rate / one for lap, one in zip(run_, alone, strict=True))
        micros = median(lap.processor_micros for lap in run_)
        sheet.rows.append((number, f"{spread.median:,.0f}", spread.range, f"{ratio:.2f} x", f"{micros:.0f} us"))
    return sheet


def _of_history(plan: Plan, before: Mapping[str, Sequence[Lap]], after: Mapping[str, Sequence[Lap]]) -> Sheet:
    sheet = Sheet(
        f"The same work with {plan.rows:,} rows in each of {', '.join(_HISTORY)}",
        ("topic", "events/s before#", "after#", "after, of before#"),
        notes=["Repeats are found by the key's sequence in requests, by source and id in submissions."],
    )
    for topic, laps in before.items():
        first, second = (Spread.of([lap.rate for lap in some]) for some in (laps, after[topic]))
        cells = (f"{first.median:,.0f}", f"{second.median:,.0f}", f"{second.median / first.median:.2f} x")
        sheet.rows.append((topic, *cells))
    return sheet
