"""`fieldbridge`: the command."""

import logging
import sys

import asyncpg
import typer

from deploy.local.processes import ServerDidNotStart
from services.console import (
    answer,
    checking,
    contracting,
    demo,
    operating,
    parked,
    positions,
    publishing,
    registry,
    replay,
    retention,
    simulate,
    story,
    wire,
)
from services.console.screen import say
from services.console.trouble import Trouble
from services.runtime.database import UnusableDatabase
from services.runtime.kafka import UnusableKafka
from services.runtime.settings import BadSetting

_INTERRUPTED = 130

app = typer.Typer(
    name="fieldbridge",
    help="Technical assistance for law-enforcement agencies that ask for it: run it, speak to it, check it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command(rich_help_panel="Run")(operating.up)
app.command(rich_help_panel="Run")(demo.demo)
app.command(rich_help_panel="Run")(operating.down)
app.command(rich_help_panel="Run")(operating.status)
app.command(rich_help_panel="Run")(operating.serve)
app.command(rich_help_panel="Run")(operating.migrate)
app.command(rich_help_panel="Run")(operating.topics)
app.command(rich_help_panel="Speak to it")(publishing.publish)
app.command(rich_help_panel="Speak to it")(answer.answer)
app.command(rich_help_panel="Speak to it")(simulate.simulate)
app.command(rich_help_panel="Look")(checking.check)
app.command(rich_help_panel="Look")(story.watch)
app.command(rich_help_panel="Look")(story.story)
app.add_typer(parked.app, name="parked", rich_help_panel="Look")
app.command(rich_help_panel="Look")(positions.positions)
app.command(rich_help_panel="Data")(replay.replay)
app.command(rich_help_panel="Data")(retention.retention)
app.add_typer(registry.app, name="agencies", rich_help_panel="Data")
app.add_typer(contracting.app, name="schemas", rich_help_panel="Data")


def main() -> None:
    """Runs the command line; what can go wrong for a person ends in one clear sentence and exit status 1."""
    # Kafka's client tells of every attempt to connect; the commands say themselves what went wrong.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    try:
        app()
    except (Trouble, ServerDidNotStart, UnusableDatabase, UnusableKafka, BadSetting) as trouble:
        _end(str(trouble))
    except wire.KafkaError as error:
        _end(f"Kafka failed ({type(error).__name__}): see `fieldbridge status`, then try again.")
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        _end(f"PostgreSQL failed ({' '.join(str(error).split())}): see `fieldbridge status`, then try again.")
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _end(sentence: str) -> None:
    say(f"fieldbridge: {sentence}")
    sys.exit(1)


if __name__ == "__main__":
    main()
