"""Scrapes the services as Prometheus would, and asks promtool which alert rules the scraped metrics raise."""

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path
from time import monotonic
from typing import Any, Final

import yaml
from prometheus_client.parser import text_string_to_metric_families

from services.console.stack import fetch
from services.console.surroundings import Process
from services.console.trouble import Trouble
from tests.driving import TREE
from tests.faults.ground import Ground

RULES: Final = TREE / "deploy" / "prometheus" / "alerts.yml"
SCRAPED_EVERY_SECONDS: Final = 5.0
"""As in deploy/prometheus/prometheus.yml."""

_LONGEST_SCRAPE_SECONDS: Final = 4.0
_JOB: Final = "fieldbridge"


class Raised(StrEnum):
    """How far an alert has come."""

    FIRING = "firing"
    PENDING = "pending"
    QUIET = "quiet"
    NOT_ASKED = "not asked: there is no promtool here"


Labels = tuple[tuple[str, str], ...]


class Scrapes:
    """Samples by name and labels, one place for each scrape; None where there was none."""

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names
        self._count = 0
        self._series: dict[tuple[str, Labels], list[float | None]] = {}

    def take(self, pages: dict[str, str | None]) -> None:
        """One scrape: the text of each service's metrics, None where it did not answer."""
        for service, text in pages.items():
            self._note("up", (("job", _JOB), ("service", service)), 0.0 if text is None else 1.0)
            for family in () if text is None else text_string_to_metric_families(text):
                for sample in family.samples:
                    if sample.name in self._names:
                        labels = sample.labels | {"job": _JOB, "service": service}
                        self._note(sample.name, tuple(sorted(labels.items())), sample.value)
        self._count += 1

    def _note(self, name: str, labels: Labels, value: float) -> None:
        values = self._series.setdefault((name, labels), [])
        values += [None] * (self._count - len(values))
        values.append(value)

    def as_input(self) -> list[dict[str, str]]:
        """In promtool's notation. A series that was not scraped is stale, as it is to Prometheus."""
        return [
            {
                "series": f"{name}{{{','.join(f'{label}={_quoted(value)}' for label, value in labels)}}}",
                "values": _notation(values + [None] * (self._count - len(values))),
            }
            for (name, labels), values in self._series.items()
        ]

    @property
    def seconds(self) -> float:
        """How long the scrapes went on."""
        return self._count * SCRAPED_EVERY_SECONDS


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _notation(values: Sequence[float | None]) -> str:
    """`stale` for the first sample that is missing, `_` for those after it."""
    noted: list[str] = []
    before: float | None = None
    for value in values:
        noted.append(repr(value) if value is not None else "stale" if before is not None else "_")
        before = value
    return " ".join(noted)


def names_in_rules(rules: Path = RULES) -> frozenset[str]:
    """The metrics that the rules look at."""
    return frozenset(re.findall(r"\bfieldbridge_\w+", rules.read_text()))


@asynccontextmanager
async def scraping(ground: Ground) -> AsyncGenerator[Scrapes]:
    """Scrapes the stack's own processes until the end of the block, and then once more, as Prometheus would go on."""
    scrapes = Scrapes(names_in_rules())
    task = asyncio.create_task(_scrape_on(ground, scrapes))
    try:
        yield scrapes
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await _scrape(ground, scrapes)


async def _scrape_on(ground: Ground, scrapes: Scrapes) -> None:
    due = monotonic()
    while True:
        await _scrape(ground, scrapes)
        due += SCRAPED_EVERY_SECONDS
        await asyncio.sleep(max(0.0, due - monotonic()))


async def _scrape(ground: Ground, scrapes: Scrapes) -> None:
    processes = ground.stack.processes
    pages = await asyncio.gather(*(asyncio.to_thread(_page, process) for process in processes.values()))
    scrapes.take(dict(zip(processes, pages, strict=True)))


def _page(process: Process) -> str | None:
    try:
        status, text = fetch(process, "/metrics", _LONGEST_SCRAPE_SECONDS)
    except Trouble:
        return None
    return text if status == 200 else None


def raised(alert: str, scrapes: Scrapes, folder: Path, rules: Path = RULES) -> Raised:
    """How far the alert came at any time of the scrapes."""
    promtool = shutil.which("promtool")
    if promtool is None:
        return Raised.NOT_ASKED
    for state in (Raised.FIRING, Raised.PENDING):
        if _ever(promtool, alert, state, scrapes, folder, rules):
            return state
    return Raised.QUIET


def _series(alert: str, state: Raised) -> str:
    return f'ALERTS{{alertname="{alert}",alertstate="{state}"}}'


def _ever(promtool: str, alert: str, state: Raised, scrapes: Scrapes, folder: Path, rules: Path) -> bool:
    seconds = max(1, round(scrapes.seconds))
    question: dict[str, Any] = {
        "rule_files": [str(rules)],
        "evaluation_interval": f"{SCRAPED_EVERY_SECONDS:g}s",
        "tests": [
            {
                "interval": f"{SCRAPED_EVERY_SECONDS:g}s",
                "input_series": scrapes.as_input(),
                "promql_expr_test": [
                    {
                        "expr": f"count(count_over_time({_series(alert, state)}[{seconds}s])) > bool 0",
                        "eval_time": f"{seconds}s",
                        "exp_samples": [{"labels": "{}", "value": 1}],
                    }
                ],
            }
        ],
    }
    asked = folder / f"{alert}-{state}.yml"
    asked.write_text(yaml.safe_dump(question))
    done = subprocess.run([promtool, "test", "rules", str(asked)], capture_output=True, text=True, check=False)
    if done.returncode and "got:" not in done.stdout + done.stderr:
        raise ValueError(f"promtool cannot tell: {(done.stdout + done.stderr).strip()[:500]}")
    return done.returncode == 0
