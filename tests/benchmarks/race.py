"""`runtime`: the runtime against peers that do the same useful work, in turn, on the same servers."""

# pyright: reportMissingTypeStubs=false

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient

from deploy.local.servers import Addresses
from services.runtime import database
from services.runtime.migration import migrate
from tests.benchmarks import premises
from tests.benchmarks.contenders import Contender, Lap, run
from tests.benchmarks.course import Course
from tests.benchmarks.measuring import Report, Sheet, Spread, machine, tell, versions, versions_in
from tests.benchmarks.peers_environment import TOOLS, own_python, peers_python
from tests.benchmarks.race_input import Size, write
from tests.driving import create_topics

OURS: Final = "Fieldbridge"
BATCHES: Final = (500, 2000)
_PEERS: Final = {"FastStream": "peer_faststream", "Quix Streams": "peer_quix", "Faust": "peer_faust"}
_GROUPED: Final = "FastStream, by partition"
MIGRATIONS: Final = "tests.benchmarks.tallying.migrations"
_BARE: Final = "bare getmany, fenced"


@dataclass(frozen=True, slots=True)
class Plan:
    """How large the race is."""

    size: Size
    rounds: int
    batches: Sequence[int] = BATCHES

    @classmethod
    def full(cls, rounds: int = 3) -> "Plan":
        return cls(Size(events=60_000, keys=3_000), rounds)

    @classmethod
    def quick(cls) -> "Plan":
        return cls(Size(events=6_000, keys=300), rounds=1)


def measure(plan: Plan) -> Report:
    """Runs all rounds. Raises Wrong where a contender does not do its work, NoPeers where they cannot be had."""
    peers, on = peers_python(), machine()
    starters = list(_contenders(plan, peers))
    with premises.own_servers() as (addresses, folder):
        url = premises.database(addresses, "tallying")
        laps = asyncio.run(_rounds(plan, starters, addresses, url, folder))
    return _report(plan, starters, laps, on, versions() | _of_peers(peers))


def _contenders(plan: Plan, peers: Path) -> Iterable[Contender]:
    for batch in plan.batches:
        mine = own_python()
        yield Contender(OURS, "tests.benchmarks.tallying", batch, mine)
        yield Contender(_BARE, "tests.benchmarks.peers.peer_bare", batch, mine)
        for name, module in _PEERS.items():
            arguments = ("worker",) if name == "Faust" else ()
            yield Contender(name, f"tests.benchmarks.peers.{module}", batch, peers, arguments)
        yield Contender(_GROUPED, f"tests.benchmarks.peers.{_PEERS['FastStream']}", batch, peers, by_partition=True)


async def _rounds(
    plan: Plan, starters: list[Contender], addresses: Addresses, url: str, folder: Path
) -> dict[str, list[Lap]]:
    """Events a second of each contender, round by round. The order rotates, so that nobody is always first."""
    kafka = addresses.kafka
    db = await database.connect(url)
    await migrate(db, "tallying", MIGRATIONS, url)
    await db.close()
    laps: dict[str, list[Lap]] = {one.label: [] for one in starters}
    for nth in range(plan.rounds):
        course = Course(kafka, url, f"r{nth}-", plan.size, folder)
        await create_topics(kafka, course.source, course.target, partitions=plan.size.partitions)
        given = await write(kafka, course.source, plan.size, seed=nth)
        tell(f"round {nth + 1} of {plan.rounds}: {plan.size.events:,} events of {given.mean_bytes:.0f} bytes")
        turn = nth * len(starters) // plan.rounds
        order = starters[turn:] + starters[:turn]
        if nth == 0:
            await run(order[0], course, given)  # the servers' own first steps are nobody's fault
        for one in order:
            await premises.settle(addresses.postgres)
            lap = await run(one, course, given)
            laps[one.label].append(lap)
            tell(f"  {one.label:28} {lap.rate:8,.0f} events/s, {lap.processor_micros:5.0f} us of processor an event")
        await _drop(kafka, course)
    return laps


async def _drop(kafka: str, course: Course) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.delete_topics([course.source, course.target])
    finally:
        await admin.close()


def _report(
    plan: Plan, starters: list[Contender], laps: dict[str, list[Lap]], on: dict[str, str], found: dict[str, str]
) -> Report:
    sheet = Sheet(
        "Events a second, from a contender's first event until the last next event can be read and the state is right",
        ("contender", "batch#", "median#", "min - max#", "Fieldbridge is#", "processor an event#"),
        notes=[
            "`Fieldbridge is`: the median over the rounds of Fieldbridge's rate divided by this contender's.",
            "Processor time is that of the contender's process alone.",
            "Fieldbridge and the bare loop fence their positions; the others do not, and lose or double when killed.",
        ],
    )
    figures: dict[str, object] = {}
    for one in starters:
        rates = [lap.rate for lap in laps[one.label]]
        ours = [lap.rate for lap in laps[f"{OURS} {one.batch}"]]
        ratio = median(mine / theirs for mine, theirs in zip(ours, rates, strict=True))
        spread = Spread.of(rates)
        micros = median(lap.processor_micros for lap in laps[one.label])
        sheet.rows.append(
            (one.name, one.batch, f"{spread.median:,.0f}", spread.range, f"{ratio:.2f} x", f"{micros:.0f} us")
        )
        figures[one.label] = {"rates": rates, "ratio": ratio, "processor_us": micros, **asdict(spread)}
    conditions = {
        "rounds": plan.rounds,
        "events": plan.size.events,
        "keys": plan.size.keys,
        "partitions": plan.size.partitions,
    }
    return Report("runtime", conditions, [sheet], figures, on, found)


def _of_peers(python: Path) -> dict[str, str]:
    return {f"{name} (peers)": version for name, version in versions_in(python, TOOLS).items()}
