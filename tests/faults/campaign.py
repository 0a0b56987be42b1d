"""Runs scenarios one after another: requests flow, the fault is injected, everything comes to rest, the judge looks."""

import asyncio
import os
import random
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Final

from schemas.topics import SERVICES
from services.console.stack import standing as standing_of
from services.console.trouble import Trouble
from tests.faults.alerts import Raised, raised, scraping
from tests.faults.checker import Judge, judging
from tests.faults.findings import Finding, Kind
from tests.faults.ground import Ground, Traffic, traffic
from tests.faults.outcome import Outcome
from tests.faults.recovery import Recovery
from tests.faults.resources import peak, unbounded, used
from tests.faults.scenario import Field, Scenario
from tests.faults.site import serving, standing

SESSION_TIMEOUT_SECONDS: Final = 6.0
"""The shortest that a broker grants."""
LONGEST_RECOVERY_SECONDS: Final = SESSION_TIMEOUT_SECONDS + 5.0
"""What recovery is held against where a campaign has the machine to itself."""

_LONGEST_DRAIN_SECONDS: Final = 150.0
_LONGEST_REST_SECONDS: Final = 60.0
_LONGEST_REASON: Final = 2000

Lay = Callable[[Path], AbstractContextManager[Ground]]
"""Lays a ground of its own in a folder, for a scenario that needs one."""


@dataclass(frozen=True)
class Turn:
    """One scenario with one seed."""

    scenario: Scenario
    seed: int


@dataclass(frozen=True)
class Plan:
    """What a campaign does."""

    turns: Sequence[Turn]
    requests: int
    """Least number of requests while one scenario runs."""
    rate: float
    """Requests a second."""
    wear: int
    """After how many requests a stack is replaced by a fresh one: the judge reads all of it each time."""
    grounds: Mapping[str, Lay]
    """Grounds of their own, by name of scenario."""
    longest_recovery: float = LONGEST_RECOVERY_SECONDS
    """Seconds after which recovery counts as too slow."""


Tell = Callable[[Turn, Outcome | None], None]


def carry_out(plan: Plan, folder: Path, tell: Tell) -> None:
    """Runs all turns; a finding stops nothing. `tell` is called before each turn, and after it with its outcome."""
    usual = deque(turn for turn in plan.turns if turn.scenario.name not in plan.grounds)
    others: dict[Lay, deque[Turn]] = {}
    for turn in plan.turns:
        if turn.scenario.name in plan.grounds:
            others.setdefault(plan.grounds[turn.scenario.name], deque()).append(turn)
    with _variables({"FIELDBRIDGE_SESSION_TIMEOUT_MS": str(round(SESSION_TIMEOUT_SECONDS * 1000))}):
        if usual:
            with serving(folder / "servers") as machine:
                while usual:
                    _on_one_stack(plan, usual, tell, standing(machine, folder))
        for nth, (lay, turns) in enumerate(others.items()):
            while turns:
                _on_one_stack(plan, turns, tell, lay(folder / f"ground-{nth}-{len(turns)}"))


def _on_one_stack(plan: Plan, waiting: deque[Turn], tell: Tell, laid: AbstractContextManager[Ground]) -> None:
    """Takes turns on one stack. That it cannot be laid, or ends in disorder, is a finding of one turn."""
    turn = waiting[0]
    try:
        with laid as ground:
            course = Course(plan, ground, tell, turn)
            try:
                asyncio.run(course.run(waiting))
            finally:
                turn = course.turn
    except Exception as error:  # a stack that cannot be laid is a finding, and the campaign goes on
        if waiting and waiting[0] is turn:
            waiting.popleft()
        failed = _not_carried_out(error)
        tell(turn, Outcome(turn.scenario.fault, turn.scenario.name, turn.seed, findings=(failed,)))


class Course:
    """The turns that one stack sees."""

    def __init__(self, plan: Plan, ground: Ground, tell: Tell, first: Turn) -> None:
        self._plan = plan
        self._ground = ground
        self._tell = tell
        self.turn = first
        """The turn that is taken, or was the last."""
        self._requests = 0
        self._setting: Mapping[str, str] = {}

    async def run(self, waiting: deque[Turn]) -> None:
        """Takes turns until none waits, or the stack is worn or spoilt."""
        async with judging(self._ground.stack) as judge:
            while waiting and self._requests < self._plan.wear:
                turn = self.turn = waiting.popleft()
                self._tell(turn, None)
                began = monotonic()
                with _variables(turn.scenario.setting):
                    outcome = await self._take(turn, judge)
                outcome = replace(outcome, seconds=monotonic() - began)
                self._requests += outcome.requests
                self._tell(turn, outcome)
                if outcome.findings or turn.scenario.halts or turn.scenario.spoils:
                    break

    async def _take(self, turn: Turn, judge: Judge) -> Outcome:
        scenario = turn.scenario
        outcome = Outcome(scenario.fault, scenario.name, turn.seed)
        try:
            await self._set(scenario.setting)
            return await self._play(turn, outcome, judge)
        except Exception as error:  # a scenario that fails is a finding, and the campaign goes on
            return replace(outcome, findings=(_not_carried_out(error),))

    async def _set(self, setting: Mapping[str, str]) -> None:
        """Starts the services again where they are to run with other settings."""
        if dict(setting) != dict(self._setting):
            await asyncio.gather(*(self._ground.stop(service) for service in SERVICES))
            await self._ground.start_missing()
            self._setting = setting

    async def _play(self, turn: Turn, outcome: Outcome, judge: Judge) -> Outcome:
        scenario, ground = turn.scenario, self._ground
        before = used(ground)
        folder = ground.surroundings.home / f"{scenario.name}-{turn.seed}"
        folder.mkdir()
        run = f"{scenario.name}.{turn.seed}"
        async with traffic(ground, run, folder, self._plan.requests, self._plan.rate, endless=True) as flow:
            field = Field(ground, random.Random(f"{turn.seed}/{scenario.name}"), flow)
            await flow.reach(min(1.0, self._plan.rate / self._plan.requests))
            try:
                alerts = await self._inject(scenario, field, folder)
            except Exception as error:  # a fault that cannot be injected is a finding, with what was done until then
                told = replace(_counted(outcome, flow.submitted, 0), said=tuple(field.said))
                return replace(told, findings=(_not_carried_out(error), *map(Finding.of, field.found)))
            outcome = replace(outcome, said=tuple(field.said), alert=", ".join(alerts))
            if scenario.halts:
                found = tuple(Finding.of(text) for text in field.found)
                return await self._halted(replace(_counted(outcome, flow.submitted, 0), findings=found))
            if field.recovery is None:
                field.ended()
            assert field.recovery is not None
            recovery = await field.recovery
            found = await _drained(flow)
            began = monotonic()
            found += await judge.findings(flow.ledger, _LONGEST_REST_SECONDS)
            found += _restless(flow)
        if not scenario.spoils:
            found += [f"{count} events are parked: {what}" for what, count in judge.set_aside.items()]
        after = used(ground)
        found += [*field.found, *unbounded(before, after), *_slow(recovery, self._plan.longest_recovery)]
        return replace(
            _counted(outcome, flow.submitted, flow.simulation.tally.acknowledged),
            findings=tuple(Finding.of(text) for text in found),
            recoveries=tuple(one.seconds for one in field.recoveries if one.seconds is not None),
            judging_seconds=monotonic() - began,
            resources=peak(after),
        )

    async def _inject(self, scenario: Scenario, field: Field, folder: Path) -> list[str]:
        """Injects the fault; returns how far its alerts came."""
        async with asyncio.timeout(scenario.longest_seconds), AsyncExitStack() as stack:
            wanted = [*([scenario.alert] if scenario.alert else []), *scenario.fires]
            scrapes = await stack.enter_async_context(scraping(self._ground)) if wanted else None
            await scenario.inject(field)
        if scrapes is None:
            return []
        states = {alert: await asyncio.to_thread(raised, alert, scrapes, folder) for alert in wanted}
        for alert, state in states.items():
            if state is Raised.QUIET or (state is Raised.PENDING and alert in scenario.fires):
                field.found.append(f"the alert {alert} is {state}")
        return [f"{alert} {state}" for alert, state in states.items()]

    async def _halted(self, outcome: Outcome) -> Outcome:
        """With the named hard stop that some service says it has come to."""
        reasons = [
            f"{service}: {reason}"
            for service in SERVICES
            for reason in (await asyncio.to_thread(standing_of, self._ground.stack, service)).reasons
            if reason.startswith("halted (")
        ]
        if reasons:
            return replace(outcome, halted="; ".join(reasons))
        return replace(outcome, findings=(*outcome.findings, Finding(Kind.OTHER, "no service has come to a hard stop")))


def _not_carried_out(error: Exception) -> Finding:
    why = " ".join(str(error).split())[:_LONGEST_REASON]
    return Finding(Kind.OTHER, f"the scenario could not be carried out: {type(error).__name__}: {why}")


def _counted(outcome: Outcome, requests: int, acknowledged: int) -> Outcome:
    return replace(outcome, requests=requests, acknowledged=acknowledged)


async def _drained(flow: Traffic) -> list[str]:
    """Waits until every submission has been answered; returns what is missing."""
    try:
        await flow.end(_LONGEST_DRAIN_SECONDS)
    except Trouble as trouble:
        return [str(trouble)]
    return []


def _restless(flow: Traffic) -> list[str]:
    asked, delivers = flow.simulation.world.asked, flow.simulation.world.delivers
    moving = [f"{name}: {one.step}" for name, one in asked.items() if not one.rests(delivers=delivers)]
    return [f"{len(moving)} requests do not come to rest: {', '.join(moving[:5])}"] if moving else []


def _slow(recovery: Recovery, longest: float) -> list[str]:
    if recovery.seconds is None:
        return [f"after the fault these stand still: {recovery.last}"]
    if recovery.seconds > longest:
        return [f"{recovery.last} moved only {recovery.seconds:.1f} s after the fault had ended"]
    return []


@contextmanager
def _variables(variables: Mapping[str, str]) -> Generator[None]:
    """Environment variables that services started meanwhile are given."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
