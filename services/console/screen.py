"""What a person or a program sees of a command: tables and progress for people, JSON for programs."""

import json
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from time import monotonic
from typing import Annotated, Final

import typer
from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table

_WIDTH_OF_FILES: Final = 160

out: Final = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_FILES)
"""Standard output: what was asked for."""
err: Final = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())
"""Standard error: progress and trouble."""

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

_LINE_EVERY_SECONDS: Final = 2.0
_REDRAWS_A_SECOND: Final = 5


def say(text: str) -> None:
    """Tells how things go; markup in the text is not interpreted."""
    err.print(escape(text))


def show_json(value: object) -> None:
    """Prints one JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=_as_json) + "\n")


def show_json_line(value: object) -> None:
    """Prints one JSON document in a line of its own, at once: for what goes on."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=_as_json) + "\n")
    sys.stdout.flush()


def _as_json(value: object) -> object:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table for people. Columns whose name ends in '#' hold numbers and are set flush right, without the '#'."""
    made = Table(title=title, title_justify="left", title_style="bold", header_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column.removesuffix("#"), justify="right" if column.endswith("#") else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell_text(cell) for cell in row))
    return made


def cell_text(cell: object) -> str:
    """A value as it stands in a table: nothing for None, thousands apart, markup made harmless."""
    if cell is None:
        return ""
    if isinstance(cell, int) and not isinstance(cell, bool):
        return f"{cell:,}"
    return escape(str(cell))


class Progress:
    """Progress that is redrawn in place on a terminal, and told in a line now and then elsewhere."""

    def __init__(self, live: Live | None) -> None:
        self._live = live
        self._told = float("-inf")
        self._last = ""

    def update(self, picture: RenderableType, line: str) -> None:
        """Shows the picture on a terminal, else the line if it is new and some time has passed since the last."""
        if self._live is not None:
            self._live.update(picture)
        elif line != self._last and monotonic() - self._told >= _LINE_EVERY_SECONDS:
            self.end_with(line)

    def end_with(self, line: str) -> None:
        """Tells the line at once where nothing is redrawn."""
        if self._live is None and line != self._last:
            say(line)
            self._told, self._last = monotonic(), line


@contextmanager
def progress() -> Generator[Progress]:
    """Progress on standard error for as long as the context lasts."""
    if not err.is_terminal:
        yield Progress(None)
        return
    with Live(console=err, refresh_per_second=_REDRAWS_A_SECOND, transient=True) as live:
        yield Progress(live)
