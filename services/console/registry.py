"""`fieldbridge agencies import FILE`: brings the registry of agencies up to date with a list."""

import asyncio
import csv
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from services.console.screen import AsJson, err, out, show_json, table
from services.console.surroundings import Stack, here
from services.console.trouble import Trouble
from services.intake.decisions.problems import Problem
from services.intake.decisions.registry import COLUMNS, Agency, UnusableRow, read_row
from services.intake.store import import_agencies
from services.runtime import database

SAMPLE: Final = Path(str(resources.files("services.console").joinpath("data/agencies.csv")))
"""About a hundred real agencies, which the demonstration imports."""

_ROWS_AT_A_TIME: Final = 2000
_MOST_SHOWN: Final = 20
_LARGEST_FIELD: Final = 100_000
_SURPLUS: Final = "\0 surplus"
"""Name under which cells beyond the header's are kept; no header can have it."""

Row = dict[str, str | None]

app: Final = typer.Typer(help="The registry of agencies.", no_args_is_help=True)


@app.callback()
def agencies() -> None:
    """The registry of agencies."""


@dataclass(slots=True)
class Imported:
    """What an import did. `refused` are the rows that cannot be used; all others are in the registry now."""

    added: int = 0
    changed: int = 0
    unchanged: int = 0
    refused: list[UnusableRow] = field(default_factory=list[UnusableRow])


@app.command("import")
def import_file(
    file: Annotated[Path, typer.Argument(help=f"CSV with at least the columns {', '.join(COLUMNS)}.")],
    as_json: AsJson = False,
) -> None:
    """Import a list of agencies. Doing it again changes nothing. Exit status 1 if rows cannot be used."""
    rows = read_list(file)
    stack = here().stack()
    with Progress(
        TextColumn(file.name), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=err, transient=True
    ) as bar:
        task = bar.add_task("rows", total=len(rows))
        done = asyncio.run(bring_in(stack, rows, lambda count: bar.advance(task, count)))
    if as_json:
        show_json(asdict(done))
    else:
        counts = [("added", done.added), ("changed", done.changed), ("unchanged", done.unchanged)]
        out.print(
            table(
                f"{len(rows):,} rows of {file.name}", ("what", "agencies#"), [*counts, ("refused", len(done.refused))]
            )
        )
        if done.refused:
            out.print(_refusals(done.refused))
    if done.refused:
        raise typer.Exit(1)


def read_list(file: Path) -> list[tuple[int, Row]]:
    """The rows of a CSV file with the line each ends in, the header's being 1. Raises Trouble."""
    csv.field_size_limit(_LARGEST_FIELD)
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            reader = csv.DictReader(text, strict=True, restkey=_SURPLUS)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise Trouble(f"{file} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}.")
            return [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise Trouble(f"There is no file {file}.") from None
    except UnicodeDecodeError as error:
        raise Trouble(f"{file} is not UTF-8 text: byte {error.start} cannot be read.") from None
    except csv.Error as error:
        raise Trouble(f"{file} is no CSV file: {error}.") from None
    except OSError as error:
        raise Trouble(f"{file} cannot be read: {error.strerror}.") from None


async def bring_in(stack: Stack, rows: Sequence[tuple[int, Row]], advance: Callable[[int], object]) -> Imported:
    """Imports the rows into intake's database in one transaction. Raises Trouble or UnusableDatabase."""
    done = Imported()
    connection = await database.connect(stack.database("intake"))
    try:
        if await connection.fetchval("SELECT to_regclass('agency')") is None:
            raise Trouble("Intake's database has no registry yet: run `fieldbridge up` or `fieldbridge migrate` first.")
        async with connection.transaction():
            for first in range(0, len(rows), _ROWS_AT_A_TIME):
                batch = rows[first : first + _ROWS_AT_A_TIME]
                read = [read_agency(line, row) for line, row in batch]
                done.refused += [one for one in read if isinstance(one, UnusableRow)]
                counts = await import_agencies(connection, [one for one in read if not isinstance(one, UnusableRow)])
                done.added += counts.added
                done.changed += counts.changed
                done.unchanged += counts.unchanged
                advance(len(batch))
    finally:
        await connection.close()
    return done


def read_agency(line: int, row: Row) -> Agency | UnusableRow:
    """The agency of a row, or what is wrong with it."""
    if _SURPLUS in row:
        return UnusableRow(line, (Problem("", "has more columns than the header"),))
    return read_row(line, row)


def _refusals(refused: Sequence[UnusableRow]) -> object:
    rows = [(row.line, problem.field, problem.problem) for row in refused for problem in row.problems]
    shown = rows[:_MOST_SHOWN]
    more = [(None, "", f"and {len(rows) - len(shown):,} more")] if len(rows) > len(shown) else []
    return table("Rows that cannot be used", ("line#", "field", "what is wrong"), [*shown, *more])
