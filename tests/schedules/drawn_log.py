"""What a schedule is about: the log that is read, what is wrong with some of its events, and who works on it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from schemas.envelope import Envelope
from services.runtime.inbox import Slot
from services.runtime.records import Record
from tests.schedules.choices import Choices

SUBMISSIONS: Final = "submissions"
REQUESTS: Final = "requests"
KEYS: Final = ("a", "b")
SOUND: Final = "sound"
RAISES: Final = "raises"
SPOILS: Final = "spoils"
UNREADABLE: Final = "unreadable"

Place = tuple[str, int, int]
"""Topic, partition and offset."""

_TIME: Final = datetime(2026, 1, 5, tzinfo=UTC)


@dataclass(frozen=True)
class Said:
    """One event as its publisher meant it. `token` is what the service remembers of it."""

    topic: str
    key: str
    number: int
    kind: str = SOUND
    announces: bool = False

    @property
    def token(self) -> str:
        return f"{self.topic[0]}{self.number}"


@dataclass
class Scenario:
    """The log by partition, as it is read; and which events it is made of."""

    log: dict[Slot, list[Record]] = field(default_factory=dict[Slot, list[Record]])
    said: list[Said] = field(default_factory=list[Said])
    workers: int = 2
    rounds: bool = False

    @property
    def ails(self) -> bool:
        """Whether anything of it will be parked."""
        return any(one.kind != SOUND for one in self.said) or self.disordered

    @property
    def disordered(self) -> bool:
        """Whether an event comes before its predecessor."""
        return any(
            first.number + 1 < second.number
            for lane in (self.lane(REQUESTS, key) for key in KEYS)
            for first, second in zip([Said(REQUESTS, "", 0), *lane], lane, strict=False)
        )

    def lane(self, topic: str, key: str) -> list[Said]:
        """Events of a key in the order of the log, the repeated ones too."""
        return [one for one in self.said if one.topic == topic and one.key == key]

    def record(self, topic: str, partition: int, offset: int) -> Record:
        """The record at a place."""
        return self.log[topic, partition][offset]

    def comes_again(self, topic: str, partition: int, offset: int) -> bool:
        """Whether the log has this event more than once."""
        records = self.log[topic, partition]
        return sum(dict(one.headers)["ce_id"] == dict(records[offset].headers)["ce_id"] for one in records) > 1

    def describe(self) -> list[str]:
        """The log for people."""
        return [
            f"{topic}-{number}: "
            + " ".join(
                f"{one.key}{one.token}{'' if one.kind == SOUND else f'({one.kind})'}{'!' if one.announces else ''}"
                for one in self.said
                if (one.topic, _partition(one.key, self.log)) == (topic, number)
            )
            for topic, number in self.log
        ]


def drawn(choices: Choices) -> Scenario:
    """A scenario; with the ordinary choices, a small one in which nothing is wrong."""
    apart = choices.choose([1, 2]) == 1
    scenario = Scenario(workers=2 + choices.choose([5, 1]), rounds=choices.chance(0.25))
    for number in range(2 if apart else 1):
        scenario.log[REQUESTS, number] = []
    with_submissions = choices.chance(0.4)
    if with_submissions:
        for number in range(2 if apart else 1):
            scenario.log[SUBMISSIONS, number] = []
    lanes = [_disturbed(_lane(REQUESTS, key, 2 + choices.among(4), scenario, choices), choices) for key in KEYS]
    if with_submissions:
        lanes += [_repeated(_lane(SUBMISSIONS, key, 1 + choices.among(3), scenario, choices), choices) for key in KEYS]
    for one in _merged(lanes):
        _append(scenario, one)
    return scenario


def _lane(topic: str, key: str, length: int, scenario: Scenario, choices: Choices) -> list[Said]:
    kinds = [SOUND] * length
    if choices.chance(0.15):
        kinds[choices.among(length)] = (RAISES, SPOILS, UNREADABLE)[choices.choose([4, 2, 1])]
    announces = scenario.rounds and topic == REQUESTS
    return [
        Said(topic, key, number, kind, announces and choices.chance(0.5)) for number, kind in enumerate(kinds, start=1)
    ]


def _disturbed(lane: list[Said], choices: Choices) -> list[Said]:
    """Two neighbours in the wrong order, seldom; and repeated events."""
    if choices.chance(0.15):
        place = choices.among(len(lane) - 1)
        lane[place], lane[place + 1] = lane[place + 1], lane[place]
    return _repeated(lane, choices)


def _repeated(lane: list[Said], choices: Choices) -> list[Said]:
    """Some events come again, later."""
    if choices.chance(0.3):
        first = choices.among(len(lane))
        last = first + choices.among(len(lane) - first)
        again = lane[first : last + 1]
        place = last + 1 + choices.among(len(lane) - last)
        return [*lane[:place], *again, *lane[place:]]
    return lane


def _merged(lanes: Sequence[Sequence[Said]]) -> list[Said]:
    longest = max(len(lane) for lane in lanes)
    return [lane[place] for place in range(longest) for lane in lanes if place < len(lane)]


def _partition(key: str, log: dict[Slot, list[Record]]) -> int:
    return KEYS.index(key) if (REQUESTS, 1) in log else 0


def _append(scenario: Scenario, one: Said) -> None:
    number = _partition(one.key, scenario.log)
    records = scenario.log[one.topic, number]
    name = f"{one.topic}-{one.key}-{one.number}"
    envelope = Envelope(
        id=name,
        source="/upstream",
        type="count.v1",
        subject=one.key,
        time=_TIME,
        sequence=one.number if one.topic == REQUESTS else None,
    )
    body: dict[str, object] = {"n": one.token, "announce": one.announces}
    if one.kind == RAISES:
        body["raise"] = name
    if one.kind == SPOILS:
        body["said"] = f"{one.token}\x00"
    value = b"no JSON" if one.kind == UNREADABLE else json.dumps(body).encode()
    records.append(
        Record(
            one.topic, number, len(records), one.key.encode(), value, envelope.headers(), int(_TIME.timestamp() * 1000)
        )
    )
    scenario.said.append(one)
