"""Commands that run the stack: up, down, status, serve, migrate, topics."""

import asyncio
import json
import os
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from schemas.topics import DEAD_SUFFIX, SERVICES, TOPICS
from services.console import stack as machine
from services.console import wire
from services.console.screen import AsJson, out, say, show_json, table
from services.console.surroundings import Stack, here
from services.console.trouble import Trouble
from services.runtime import database, kafka
from services.runtime.migration import migrate as bring_up_to_date
from services.runtime.settings import Settings


def up(as_json: AsJson = False) -> None:
    """Start Kafka, PostgreSQL and the four services, and leave them running."""
    stack = machine.bring_up(here(), say)
    rows = list(machine.addresses(stack))
    if as_json:
        show_json(dict(rows))
        return
    out.print(table("Running", ("what", "address"), rows))
    say("Stop with `fieldbridge down`; look with `fieldbridge status` or at the pages of reporting.")


def down() -> None:
    """Stop the services and the servers that `up` started. Their data stays."""
    if not machine.take_down(here(), say):
        say("Nothing was running.")


def status(as_json: AsJson = False) -> None:
    """Show how the services stand: running, ready, lag, outbox, parked, and the requests by step."""
    stack = here().stack()
    standings = [machine.standing(stack, service) for service in SERVICES]
    steps = _steps(stack)
    if as_json:
        show_json({"services": [asdict(one) for one in standings], "requests": steps})
    else:
        rows = [
            (
                one.service,
                "running" if one.running else "stopped" if one.address else "not started here",
                "ready" if one.ready else "; ".join(one.reasons) or "no",
                one.lag,
                one.outbox,
                one.parked,
                one.address,
            )
            for one in standings
        ]
        out.print(table("Services", ("service", "process", "ready", "lag#", "outbox#", "parked#", "address"), rows))
        if steps:
            out.print(table("Requests by step", ("step", "requests#"), list(steps.items())))
    if not all(one.ready for one in standings):
        raise typer.Exit(1)


def serve(
    service: Annotated[str, typer.Argument(help=f"One of {', '.join(SERVICES)}.", metavar="SERVICE")],
) -> None:
    """Run one service in the foreground until SIGTERM, with its settings from the environment."""
    if service not in SERVICES:
        raise Trouble(f"There is no service {service!r}: the services are {', '.join(SERVICES)}.")
    # The process becomes the service: signals and its exit status are the service's own.
    sys.stdout.flush()
    os.execv(  # noqa: S606 (no shell is wanted)
        sys.executable, [sys.executable, "-m", f"services.{service}"]
    )


def migrate(as_json: AsJson = False) -> None:
    """Bring the database of every service up to date. Services do this at their start by themselves."""
    done = asyncio.run(_migrate(here().stack()))
    if as_json:
        show_json(done)
        return
    for service, applied in done.items():
        say(f"{service}: " + (", ".join(applied) if applied else "up to date"))


def topics(
    create: Annotated[bool, typer.Option("--create", help="Create the topics that are missing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the topics: who publishes what to whom, and how much there is of it."""
    surroundings = here()
    stack = surroundings.stack()
    if create:
        for name in asyncio.run(_create_topics(stack)):
            say(f"created {name}")
    events = asyncio.run(wire.log_lengths(stack))
    rows = [
        (
            stack.topic(topic.name),
            topic.publisher,
            ", ".join(topic.readers),
            topic.key,
            topic.partitions,
            "for ever" if topic.retention_days is None else f"{topic.retention_days} days",
            events.get(topic.name, "missing"),
            events.get(topic.name + DEAD_SUFFIX, "missing"),
        )
        for topic in TOPICS
    ]
    names = ("topic", "publisher", "readers", "key", "partitions#", "kept", "events#", "dead letters#")
    if as_json:
        show_json([dict(zip((name.removesuffix("#") for name in names), row, strict=True)) for row in rows])
    else:
        out.print(table("Topics", names, rows))
    if any(topic.name not in events for topic in TOPICS):
        raise Trouble("Topics are missing: run `fieldbridge topics --create`, or start the services.")


def settings_of(stack: Stack, service: str) -> Settings:
    """The settings that a service of this stack runs with."""
    return Settings.of_service(service, machine.environment(stack, service, os.environ))


async def _migrate(stack: Stack) -> dict[str, list[str]]:
    done: dict[str, list[str]] = {}
    for service in SERVICES:
        url = stack.database(service)
        connection = await database.connect(url)
        try:
            applied = await bring_up_to_date(connection, service, f"services.{service}.migrations", url)
        finally:
            await connection.close()
        done[service] = [f"{migration.part}/{migration.name}" for migration in applied]
    return done


async def _create_topics(stack: Stack) -> list[str]:
    await wire.topics_there(stack)
    return await kafka.create_topics(settings_of(stack, SERVICES[0]), TOPICS, say)


def _steps(stack: Stack) -> dict[str, int]:
    try:
        status_code, text = machine.fetch(stack.process("reporting"), "/api/steps")
        counts: dict[str, Any] = json.loads(text)
    except (Trouble, ValueError):
        return {}
    return counts.get("steps", {}) if status_code == 200 else {}
