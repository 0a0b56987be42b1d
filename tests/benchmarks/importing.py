"""`import`: the registry of all agencies brought in, as `fieldbridge agencies import FILE` does it."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from time import monotonic
from typing import Any, Final

from services.runtime import database
from tests.benchmarks.measuring import Report, Sheet, Spread, machine, tell, versions
from tests.benchmarks.premises import TREE
from tests.benchmarks.whole_stack import Site, TooSlow, site

LIST: Final = TREE.parent / "shared" / "data" / "agencies.csv"
"""The list of all agencies, which is not part of the project."""


def measure(file: Path, repeats: int) -> Report:
    """Imports the file into an empty registry, and again where nothing has changed. Raises Trouble or TooSlow."""
    on = machine()
    first: list[float] = []
    again: list[float] = []
    rows = 0
    with site() as place:
        for _ in range(repeats):
            asyncio.run(_empty(place))
            seconds, said = _import(place.surroundings.home, file)
            rows = said["added"]
            first.append(seconds)
            seconds, said = _import(place.surroundings.home, file)
            if said["unchanged"] != rows:
                raise TooSlow(f"the second import of the same file changed something: {said}")
            again.append(seconds)
            tell(f"{rows:,} agencies in {first[-1]:.2f} s; again {again[-1]:.2f} s")
    measured = {"into an empty registry": Spread.of(first), "again, nothing changed": Spread.of(again)}
    sheet = Sheet(
        f"{rows:,} agencies, seconds of the whole command",
        ("what", "median s#", "min - max#"),
        [
            (name, f"{spread.median:.2f}", f"{spread.least:.2f} - {spread.most:.2f}")
            for name, spread in measured.items()
        ],
    )
    return Report("import", {"agencies": rows, "rounds": repeats}, [sheet], measured, on, versions())


async def _empty(place: Site) -> None:
    db = await database.connect(place.stack.database("intake"))
    try:
        await db.execute("TRUNCATE agency CASCADE")
    finally:
        await db.close()


def _import(home: Path, file: Path) -> tuple[float, dict[str, Any]]:
    began = monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "services.console", "agencies", "import", str(file), "--json"],
        env=os.environ | {"FIELDBRIDGE_HOME": str(home)},
        capture_output=True,
        text=True,
    )
    seconds = monotonic() - began
    try:
        return seconds, json.loads(done.stdout)
    except ValueError:
        raise TooSlow(f"the import failed: {done.stderr[-2000:]}") from None
