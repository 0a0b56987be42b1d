"""Runs the simulated outside world against a stack: publishes its submissions, hears the facts, keeps its ledger."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import quantiles
from time import monotonic
from typing import IO, Any, Final

from schemas.envelope import Envelope
from schemas.topics import ENGAGEMENTS, MATCHES, RECEIPTS, REQUESTS, SUBMISSIONS
from services.console import wire
from services.console.surroundings import Stack
from services.console.trouble import Trouble
from services.console.world.answering import Step, World
from services.console.world.population import Message

HEARD: Final = (RECEIPTS.name, REQUESTS.name, MATCHES.name, ENGAGEMENTS.name)

_TICK_SECONDS: Final = 0.02
_LOOK_SECONDS: Final = 0.25
_QUIET_SECONDS: Final = 3.0
"""How long nothing may happen before requests that could still be matched count as at rest."""


@dataclass(slots=True)
class Tally:
    """What a simulation has counted."""

    sent: int = 0
    acknowledged: int = 0
    unacknowledged: int = 0
    taken: int = 0
    refused: Counter[str] = field(default_factory=Counter[str])
    """Refused submissions by type and reason."""
    awaiting_receipt: dict[tuple[str, str], tuple[str, str]] = field(
        default_factory=dict[tuple[str, str], tuple[str, str]]
    )
    """Type and subject of what intake has not answered yet, by source and id."""
    seconds_to_confirmed: list[float] = field(default_factory=list[float])

    def percentile(self, percent: int) -> float | None:
        """Seconds from a request's submission to its confirmed plan, as heard outside; None where there are none."""
        times = self.seconds_to_confirmed
        if not times:
            return None
        return times[0] if len(times) == 1 else quantiles(times, n=100, method="inclusive")[percent - 1]


class Simulation:
    """One run of the outside world."""

    def __init__(
        self, stack: Stack, world: World, producer: wire.Publisher, facts: wire.Follower, ledger: IO[str] | None
    ) -> None:
        self.world = world
        self.tally = Tally()
        self._topic = stack.topic(SUBMISSIONS.name)
        self._producer = producer
        self._facts = facts
        self._ledger = ledger
        self._submitted: dict[str, float] = {}
        self._said: set[tuple[str, str]] = set()
        self._heard: dict[tuple[str, str], int] = {}
        """The last sequence heard of each key of a topic."""
        self._last_heard = monotonic()
        self._listener: asyncio.Task[None] | None = None

    async def publish(self, messages: Iterable[Message]) -> None:
        """Sends messages without waiting for each; acknowledgements are noted as they come."""
        for message in messages:
            await self._send(message)

    async def answered(self, seconds: float) -> None:
        """Waits until intake has answered everything sent so far. Raises Trouble where it takes longer."""
        deadline = monotonic() + seconds
        while self.tally.awaiting_receipt or self.tally.acknowledged + self.tally.unacknowledged < self.tally.sent:
            self._check_listener()
            if monotonic() > deadline:
                raise Trouble(
                    f"{len(self.tally.awaiting_receipt)} submissions have no receipt after {seconds:.0f} s: is intake "
                    "running? See `fieldbridge status`."
                )
            await asyncio.sleep(_TICK_SECONDS)

    async def ask(self, numbers: Sequence[int], rate: float, bursts: range, look: Callable[[], None]) -> None:
        """Submits the numbered requests at this rate a second. Those of the burst come all at once."""
        began = monotonic()
        looked = began
        paced = 0
        for number in numbers:
            self._submitted[self.world.request_id(number)] = monotonic()
            await self.publish(self.world.ask(number))
            if number in bursts:
                continue
            paced += 1
            while (ahead := paced / rate - (monotonic() - began)) > 0:
                self._check_listener()
                await asyncio.sleep(min(ahead, _TICK_SECONDS))
            if monotonic() - looked > _LOOK_SECONDS:
                looked = monotonic()
                look()
                await asyncio.sleep(0)

    async def settle(self, seconds: float, look: Callable[[], None]) -> bool:
        """Waits until every request rests; returns False where it takes longer than this."""
        deadline = monotonic() + seconds
        while monotonic() < deadline:
            self._check_listener()
            look()
            answered = not self.tally.awaiting_receipt and self.tally.sent == self.tally.acknowledged
            quiet = monotonic() - self._last_heard
            if answered and quiet > _LOOK_SECONDS and self.world.rests():
                others_may_help = self.world.steps()[Step.UNFILLED] > 0
                if not others_may_help or quiet > _QUIET_SECONDS:
                    return True
            await asyncio.sleep(_LOOK_SECONDS)
        return False

    async def listen(self) -> None:
        """Hears facts and answers them until cancelled."""
        while True:
            for record in await self._facts.next(0.2):
                self._last_heard = monotonic()
                for answer in self.hear(record):
                    await self._send(answer)

    def hear(self, record: wire.LogRecord) -> list[Message]:
        """What is said to one record. To what is no fact nobody says anything: the services park it."""
        if (fact := wire.fact_of(record)) is None:
            return []
        envelope, body = fact
        if record.topic == RECEIPTS.name:
            self._receipt(envelope.type, body)
            return []
        place = record.topic, envelope.subject
        if envelope.sequence is None or envelope.sequence <= self._heard.get(place, 0):
            # A relay that was killed says again what it had said, perhaps after later facts.
            return []
        self._heard[place] = envelope.sequence
        if envelope.type == "engagement.confirmed.v1":
            self._confirmed(body["request_id"])
        return self.world.hear(envelope.type, body)

    def start(self) -> None:
        """Begins to listen."""
        self._listener = asyncio.create_task(self.listen())

    async def stop(self) -> None:
        """Stops listening and waits for the acknowledgements that are still to come."""
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.gather(self._listener, return_exceptions=True)
        await self._producer.flush()
        # Acknowledgements are noted by callbacks, which run in the next turn of the loop.
        await asyncio.sleep(0)

    def _check_listener(self) -> None:
        if self._listener is not None and self._listener.done():
            self._listener.result()

    async def _send(self, message: Message) -> None:
        now = datetime.now(UTC)
        envelope = Envelope(message.id, message.source, message.type, message.subject, now)
        self.tally.sent += 1
        if (message.source, message.id) not in self._said:
            # What is said again is answered once, by the receipt of the first.
            self._said.add((message.source, message.id))
            self.tally.awaiting_receipt[message.source, message.id] = (message.type, message.subject)
        try:
            acknowledged = await self._producer.send(
                self._topic,
                value=json.dumps(message.body, separators=(",", ":")).encode(),
                key=message.subject.encode(),
                headers=envelope.headers(),
            )
        except wire.KafkaError:
            self._lost(envelope)
            return
        acknowledged.add_done_callback(partial(self._acknowledged, envelope))

    def _acknowledged(self, envelope: Envelope, answer: asyncio.Future[wire.Acknowledgement]) -> None:
        if answer.cancelled() or answer.exception() is not None:
            self._lost(envelope)
            return
        self.tally.acknowledged += 1
        if self._ledger is not None:
            place = answer.result()
            self._ledger.write(
                json.dumps(
                    {
                        "source": envelope.source,
                        "id": envelope.id,
                        "type": envelope.type,
                        "subject": envelope.subject,
                        "topic": SUBMISSIONS.name,
                        "partition": place.partition,
                        "offset": place.offset,
                        "time": envelope.time.isoformat(),
                    }
                )
                + "\n"
            )

    def _lost(self, envelope: Envelope) -> None:
        """Not acknowledged: it may or may not be in the log, so nothing is promised of it."""
        self.tally.unacknowledged += 1
        self.tally.awaiting_receipt.pop((envelope.source, envelope.id), None)

    def _receipt(self, event_type: str, body: dict[str, Any]) -> None:
        about = self.tally.awaiting_receipt.pop((body["submission_source"], body["submission_id"]), None)
        if about is None:
            return
        if event_type == "submission.taken.v1":
            self.tally.taken += 1
            return
        submission_type, subject = about
        self.tally.refused[f"{submission_type}: {body['reason']}"] += 1
        if submission_type == "request.submitted.v1":
            self.world.refused(subject)

    def _confirmed(self, request_id: str) -> None:
        submitted = self._submitted.pop(request_id, None)
        if submitted is not None:
            self.tally.seconds_to_confirmed.append(monotonic() - submitted)


@asynccontextmanager
async def running(stack: Stack, world: World, ledger: Path | None) -> AsyncGenerator[Simulation]:
    """A simulation that hears everything from now on. Raises Trouble."""
    try:
        file = None if ledger is None else ledger.open("a", encoding="utf-8")
    except OSError as error:
        raise Trouble(f"The ledger {ledger} cannot be written: {error.strerror}.") from None
    try:
        async with wire.publisher(stack) as producer, wire.follower(stack, HEARD) as facts:
            simulation = Simulation(stack, world, producer, facts, file)
            simulation.start()
            try:
                yield simulation
            finally:
                await simulation.stop()
    finally:
        if file is not None:
            file.close()
