"""`fieldbridge demo`: the whole path once, on real servers, from an empty stack to the verdict of the checker."""

import asyncio
import shutil
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Annotated, Any, Final

import typer

from services.console import checking, registry, simulate
from services.console.checker.accounting import Account
from services.console.screen import AsJson, out, say, show_json, table
from services.console.stack import addresses, bring_up, take_down
from services.console.surroundings import Stack, Surroundings, here
from services.console.trouble import Trouble
from services.console.world.answering import Step

_REST_SECONDS: Final = 60.0
_RATE: Final = 50.0
_MILESTONES: Final = (
    ("accepted", "request.accepted.v1"),
    ("asked for information", "request.information_requested.v1"),
    ("declined", "request.declined.v1"),
    ("referred out", "request.referred_out.v1"),
    ("matched", "match.confirmed.v1"),
    ("scheduled", "engagement.planned.v1"),
    ("confirmed", "engagement.confirmed.v1"),
    ("withdrawn", "request.withdrawn.v1"),
)


def demo(
    requests: Annotated[int, typer.Option(help="Number of requests.", min=1)] = 200,
    seed: Annotated[int, typer.Option(help="Same seed, same requests and answers.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the stack of the demonstration running.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the whole path: start everything, publish requests of real agencies, answer, schedule, check, and stop."""
    began = monotonic()
    run = simulate.new_run()
    apart = _apart(here(), run)
    _clear(apart)
    try:
        stack = bring_up(apart, say)
        result, account = asyncio.run(_carry_out(stack, apart.home / "ledger.jsonl", run, requests, seed))
        _show(stack, result, account, keep=keep, as_json=as_json)
    except BaseException:
        take_down(apart, say)
        raise
    if keep:
        say(f"Left running. Look with `FIELDBRIDGE_HOME={apart.home} fieldbridge status`, stop with `... down`.")
    else:
        take_down(apart, say)
    if not stack.own_servers:
        names = f"topics {apart.topic_prefix}*, databases and roles {apart.database_prefix}_*"
        say(f"What the demonstration made stays on the servers it was given: {names}.")
    say(f"The demonstration took {monotonic() - began:.0f} s.")
    if account.findings:
        raise Trouble(
            f"Not everything is accounted for: {len(account.findings)} findings, the first: {account.findings[0]}"
        )
    if not result.at_rest:
        raise Trouble(
            f"Not every request came to rest within {_REST_SECONDS:.0f} s; the logs are in {apart.home / 'log'}."
        )


def _apart(surroundings: Surroundings, run: str) -> Surroundings:
    """A place of the demonstration's own: a folder, and in servers that others use, topics and databases."""
    apart = replace(surroundings, home=surroundings.home / "demo", databases={})
    if surroundings.kafka is None:
        return apart
    return replace(
        apart,
        topic_prefix=f"{surroundings.topic_prefix}demo-{run}-",
        database_prefix=f"{surroundings.database_prefix}_demo_{run.replace('-', '_')}",
    )


def _clear(apart: Surroundings) -> None:
    """Stops and removes what an earlier demonstration has left."""
    if not apart.home.exists():
        return
    if any(apart.home.iterdir()) and not (apart.home / "stack.lock").exists():
        raise Trouble(f"{apart.home} was not made by a demonstration: set FIELDBRIDGE_HOME to another folder.")
    take_down(apart, say)
    try:
        shutil.rmtree(apart.home)
    except OSError as error:
        raise Trouble(f"What an earlier demonstration left in {apart.home} cannot be removed: {error}.") from None


async def _carry_out(stack: Stack, ledger: Path, run: str, requests: int, seed: int) -> tuple[simulate.Result, Account]:
    imported = await registry.bring_in(stack, registry.read_list(registry.SAMPLE), lambda _: None)
    say(f"imported {imported.added} agencies from the sample")
    plan = simulate.Plan(seed=seed, run=run, requests=requests, rate=_RATE, settle_seconds=_REST_SECONDS, ledger=ledger)
    result = await simulate.carry_out(stack, plan, await simulate.registry(stack))
    return result, await checking.examine(stack, ledger, _REST_SECONDS)


def _show(stack: Stack, result: simulate.Result, account: Account, *, keep: bool, as_json: bool) -> None:
    reached = {name: result.reached[event_type] for name, event_type in _MILESTONES}
    times = {"p50": result.tally.percentile(50), "p99": result.tally.percentile(99)}
    looks = dict(addresses(stack))
    if as_json:
        said: dict[str, Any] = {
            "reached": reached,
            "stand_at": {step.value: count for step, count in result.steps.items()},
            "seconds_to_confirmed": times,
            "submissions": account.submissions,
            "findings": account.findings,
            "addresses": looks,
        }
        show_json(said)
        return
    out.print(
        table("Requests that were", ("step", "requests#"), [("submitted", result.plan.requests), *reached.items()])
    )
    rows = [(step.value.replace("_", " "), result.steps[step]) for step in Step if result.steps.get(step)]
    out.print(table("Requests now at rest as", ("step", "requests#"), rows))
    out.print(
        table(
            "From request to confirmed plan",
            ("share of requests", "within#"),
            [(name, "" if seconds is None else f"{seconds:.2f} s") for name, seconds in times.items()],
        )
    )
    checking.show(account)
    title = "Addresses" if keep else "Addresses while it ran; `fieldbridge demo --keep` leaves it running"
    out.print(table(title, ("what", "address"), list(looks.items())))
