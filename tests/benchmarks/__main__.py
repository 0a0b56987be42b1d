"""`python -m tests.benchmarks`: each command measures one thing and writes its report to `.fieldbridge/bench`."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import typer

from deploy.local.processes import ServerDidNotStart
from services.console.trouble import Trouble
from tests.benchmarks import footprint, growth, history, importing, race, rebuild
from tests.benchmarks import path as through
from tests.benchmarks.course import Wrong
from tests.benchmarks.measuring import Report, tell
from tests.benchmarks.peers_environment import NoPeers
from tests.benchmarks.premises import results
from tests.benchmarks.whole_stack import TooSlow

app: Final = typer.Typer(no_args_is_help=True)

Quick = Annotated[bool, typer.Option("--quick", help="Small sizes: proves that it runs, measures nothing.")]


@app.callback()
def benchmarks() -> None:
    """Each command measures one thing and writes its report to `.fieldbridge/bench`."""
    # Without this, SIGTERM would leave the servers of the benchmark behind.
    signal.signal(signal.SIGTERM, _end)


Rounds = Annotated[int, typer.Option(help="Rounds.", min=1)]


@app.command("runtime")
def runtime(quick: Quick = False, rounds: Rounds = 3) -> None:
    """The runtime against FastStream, Quix Streams, Faust and a bare loop, on the same work."""
    _report(lambda: race.measure(race.Plan.quick() if quick else race.Plan.full(rounds)))


_RATES: Final = ",".join(map(str, through.RATES))
_BACKLOGS: Final = ",".join(map(str, through.BACKLOGS))
Numbers = Annotated[str, typer.Option(help="Numbers, separated by commas; none to leave this part out.")]


@app.command("path")
def path(
    quick: Quick = False,
    rates: Numbers = _RATES,
    backlogs: Numbers = _BACKLOGS,
) -> None:
    """Through all four services: waits at 100 requests/s and more, where the time goes, and backlogs."""
    plan = through.Plan.quick() if quick else through.Plan.full(_numbers(rates), _numbers(backlogs))
    _report(lambda: through.measure(plan))


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",") if number.strip()]
    except ValueError:
        raise typer.BadParameter(f"these are no whole numbers, separated by commas: {text}") from None


@app.command("rebuild")
def rebuild_(quick: Quick = False, rounds: Rounds = 3) -> None:
    """Reporting made anew from a log of 100,000 events."""
    _report(lambda: rebuild.measure(3_000 if quick else 100_000, 1 if quick else rounds))


@app.command("import")
def import_(
    rounds: Rounds = 3,
    file: Annotated[Path, typer.Option(help="CSV of all agencies; no part of the project.")] = importing.LIST,
) -> None:
    """All agencies of the country into the registry."""
    if not file.exists():
        tell(f"skipped: there is no list of all agencies at {file}")
        return
    _report(lambda: importing.measure(file, rounds))


@app.command("footprint")
def footprint_(
    quick: Quick = False,
    minutes: Annotated[float, typer.Option(help="How long the load lasts.", min=0.2)] = 10.0,
) -> None:
    """Memory, processor and connections of each service under load and idle; how long a start takes."""
    plan = footprint.Plan.quick() if quick else footprint.Plan(load_seconds=minutes * 60)
    _report(lambda: footprint.measure(plan))


@app.command("growth")
def growth_(
    quick: Quick = False,
    rounds: Rounds = 3,
    rows: Annotated[int, typer.Option(help="Rows of history in each table.", min=1)] = 10_000_000,
) -> None:
    """1, 2 and 4 workers of one service, and the same work upon millions of rows of history."""
    _report(lambda: growth.measure(growth.Plan.quick() if quick else growth.Plan.full(rounds, rows)))


@app.command("history")
def history_(
    quick: Quick = False,
    rows: Annotated[int, typer.Option(help="Rows of history in each table.", min=1)] = 10_000_000,
) -> None:
    """The whole stack upon millions of rows of history: waits, plans of all statements, vacuum."""
    _report(lambda: history.measure(history.Plan.quick() if quick else history.Plan(rows)))


@app.command("all")
def all_(quick: Quick = False) -> None:
    """Every benchmark in turn: about an hour, or a few minutes with --quick."""
    runtime(quick)
    path(quick=quick)
    rebuild_(quick)
    import_(rounds=1 if quick else 3)
    footprint_(quick)
    growth_(quick)
    history_(quick)


def _end(_: int, __: object) -> None:
    sys.exit(1)


def _report(measure: Callable[[], Report]) -> None:
    try:
        tell(f"written to {measure().write(results())}")
    except (Wrong, NoPeers, TooSlow, Trouble, ServerDidNotStart) as error:
        tell(str(error))
        raise typer.Exit(1) from None


app()
