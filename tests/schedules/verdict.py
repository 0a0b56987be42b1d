"""Judges a schedule by the log it read, the tables it left and the records it published.

Knows the tables, and nothing of the runtime's code but how it packs headers.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from services.runtime.database import Database, Row
from services.runtime.records import unpack_headers
from tests.schedules.drawn_log import KEYS, REQUESTS, SUBMISSIONS, Place, Said, Scenario
from tests.schedules.workers import Published

_DEAD: Final = ".dead"
_FACTS: Final = "matches"
_OUTCOMES: Final = ("applied", "duplicate", "parked", "ignored")
_FAILED: Final = ("refused", "unreadable")


@dataclass(frozen=True)
class Left:
    """What a schedule has left behind."""

    published: Sequence[Published]
    counted: Mapping[str, Any]
    seen: Mapping[tuple[str, str], Any]
    sent: Mapping[str, int]
    positions: Mapping[tuple[str, int], Any]
    parked: int


_TABLES: Final = ("counted", "stream_seen", "stream_out", "consumer_position", "parked")
_ALL: Final = "SELECT " + ", ".join(
    f"(SELECT coalesce(json_agg(to_json(one)), '[]') FROM {'' if table == 'counted' else 'runtime.'}{table} AS one)"
    f" AS {table}"
    for table in _TABLES
)


async def gathered(db: Database, published: Sequence[Published]) -> Left:
    """Reads the tables."""
    row = await db.fetchrow(_ALL)
    assert row is not None
    counted, seen, sent, positions, parked = (json.loads(row[table]) for table in _TABLES)
    return Left(
        published,
        {row["key"]: row for row in counted},
        {(row["topic"], row["key"]): row for row in seen},
        {row["key"]: row["sequence"] for row in sent},
        {(row["topic"], row["partition"]): row for row in positions},
        len(parked),
    )


def judged(scenario: Scenario, left: Left, discarded: Collection[Place], perhaps: Collection[Place]) -> list[str]:
    """Everything that does not hold, in plain words; empty where all is well."""
    places = _places(scenario)
    gone = {places[place] for place in discarded}
    maybe = {places[place] for place in perhaps}
    found: list[str] = []
    for key in KEYS:
        for topic in (REQUESTS, SUBMISSIONS):
            found += _applied(scenario, left, topic, key, gone, maybe)
        found += _seen(scenario, left, key)
        found += _facts(left, key)
    found += _positions(scenario, left)
    found += _dead(left)
    if left.parked:
        found.append(f"{left.parked} events are parked though nothing is wrong any more")
    return found


def _places(scenario: Scenario) -> dict[Place, tuple[str, str, int]]:
    """Which event stands where in the log."""
    places: dict[Place, tuple[str, str, int]] = {}
    for (topic, partition), records in scenario.log.items():
        for record in records:
            key = (record.key or b"").decode()
            identity = dict(record.headers)["ce_id"] or b""
            places[topic, partition, record.offset] = (topic, key, int(identity.decode().rpartition("-")[2]))
    return places


def _first(lane: Iterable[Said]) -> list[Said]:
    """Each event where it first comes."""
    return list({one.number: one for one in lane}.values())


def _applied(
    scenario: Scenario,
    left: Left,
    topic: str,
    key: str,
    discarded: Collection[tuple[str, str, int]],
    perhaps: Collection[tuple[str, str, int]],
) -> list[str]:
    """Each event once, in the order of its key; without those that were discarded."""
    lane = _first(scenario.lane(topic, key))
    if topic == REQUESTS:
        lane = sorted(lane, key=lambda one: one.number)
    row = left.counted.get(key)
    said: str = row["said"] if row else ""
    applied = [token for token in said.split() if token[0] == topic[0]]
    must = [one.token for one in lane if (topic, key, one.number) not in {*discarded, *perhaps}]
    may = [one.token for one in lane if (topic, key, one.number) not in discarded]
    wrong = [f"{token} of {key} was applied {times} times" for token, times in Counter(applied).items() if times > 1]
    wrong += [f"{token} of {key} was lost" for token in must if token not in applied]
    wrong += [f"{token} of {key} was discarded, and applied" for token in applied if token not in may]
    if not wrong and applied != [token for token in may if token in applied]:
        wrong.append(f"{key} was applied in the order {' '.join(applied)}, expected {' '.join(may)}")
    return wrong


def _seen(scenario: Scenario, left: Left, key: str) -> list[str]:
    lane = scenario.lane(REQUESTS, key)
    row = left.seen.get((REQUESTS, key))
    if row is None or row["sequence"] != max(one.number for one in lane):
        return [f"{key} was seen up to {row and row['sequence']}, its log ends at {max(one.number for one in lane)}"]
    return [
        f"{key} of {topic} is blocked, and nothing is parked"
        for topic in (REQUESTS, SUBMISSIONS)
        if (topic, key) in left.seen and left.seen[topic, key]["blocked"]
    ]


def _facts(left: Left, key: str) -> list[str]:
    """What a reader sees that drops what it has seen by its sequence: every fact once, in the order it was decided."""
    facts: list[Published] = []
    found: list[str] = []
    for one in left.published:
        if (one.topic, one.key) != (_FACTS, key):
            continue
        sequence = int(one.headers["ce_sequence"])
        if sequence > len(facts) + 1:
            return [f"fact {sequence} of {key} was published after {len(facts)}"]
        if sequence == len(facts) + 1:
            facts.append(one)
        elif one != facts[sequence - 1]:
            found.append(f"fact {sequence} of {key} was published in two versions")
    if len(facts) != left.sent.get(key, 0):
        found.append(f"{left.sent.get(key, 0)} facts of {key} were decided, {len(facts)} published")
    if len({one.headers["ce_id"] for one in facts}) != len(facts):
        found.append(f"two facts of {key} have one id")
    return found + _totals(left, key, facts)


def _totals(left: Left, key: str, facts: Sequence[Published]) -> list[str]:
    """Counts come one by one; an announcement says the count that stands."""
    row = left.counted.get(key)
    total = 0
    for fact in facts:
        counts = fact.headers["ce_type"] == "counted.v1"
        if json.loads(fact.value)["total"] != total + counts:
            return [f"fact {fact.headers['ce_sequence']} of {key} says {fact.value.decode()} after a count of {total}"]
        total += counts
    if total != (row["total"] if row else 0):
        return [f"{key} was counted to {row and row['total']}, and {total} counts were published"]
    return []


def _positions(scenario: Scenario, left: Left) -> list[str]:
    """Every record of the log has one outcome."""
    found: list[str] = []
    for slot, records in scenario.log.items():
        row = left.positions.get(slot)
        outcomes: dict[str, int] = {what: row[what] for what in _OUTCOMES} if row else {}
        if sum(outcomes.values()) != len(records) or row is None or row["next_offset"] != len(records):
            found.append(f"{slot[0]}-{slot[1]} has {len(records)} records; their outcomes are {outcomes}")
    applied = sum(row["applied"] for row in left.positions.values())
    parked = sum(row["parked"] for row in left.positions.values())
    effects = sum(row["total"] for row in left.counted.values())
    if not applied <= effects <= applied + parked:
        found.append(f"{applied} applied and {parked} parked, but {effects} effects")
    return found


def _dead(left: Left) -> list[str]:
    """A copy of every event that was parked was published."""
    copies = {
        (one.topic, one.headers["fieldbridge_partition"], one.headers["fieldbridge_offset"])
        for one in left.published
        if one.topic.endswith(_DEAD)
    }
    parked = sum(row["parked"] for row in left.positions.values())
    return [] if len(copies) == parked else [f"{parked} events were parked, {len(copies)} copies published"]


async def stuck(db: Database) -> list[str]:
    """Once all is at rest: a key waits where, and only where, an event of it is parked that failed."""
    standing = {(row["topic"], row["key"]): row for row in await db.fetch("SELECT * FROM runtime.stream_seen")}
    parked: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in await db.fetch("SELECT topic, key, headers, reason FROM runtime.parked"):
        parked[row["topic"], row["key"]].append(row)
    found = [
        f"{key} of {topic} is blocked, and nothing of it is parked"
        for (topic, key), row in standing.items()
        if row["blocked"] and (topic, key) not in parked
    ]
    for (topic, key), rows in parked.items():
        if topic == REQUESTS:
            found += _waiting(key, rows, standing[topic, key]["sequence"])
    return found


def _waiting(key: str, rows: Sequence[Row], sequence: int) -> list[str]:
    """Whether what waits has a reason to: the one whose turn it is has failed."""
    numbers = [int((dict(unpack_headers(row["headers"]))["ce_sequence"] or b"").decode()) for row in rows]
    first = min(numbers)
    if first > sequence + 1:
        return [f"{key} waits for {sequence + 1} though all of the log was read"]
    failed = any(row["reason"] in _FAILED for row, number in zip(rows, numbers, strict=True) if number == first)
    if failed or first <= sequence:
        return []
    return [f"{key} stands at {sequence}, and {first} is parked without having failed"]
