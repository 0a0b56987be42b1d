"""Runs the campaign against each break, in a copy of the tree, until it is found."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.driving import TREE
from tests.faults.broken.breaks import BREAKS, Break

_COPIED: Final = ("services", "schemas", "deploy", "tests")
_SEEDS: Final = 3
_NOT_CARRIED_OUT: Final = "the scenario could not be carried out"


@dataclass(frozen=True)
class Proof:
    """How a break was found."""

    name: str
    sentence: str
    scenario: str
    """The scenario that showed it; empty where none did."""
    findings: tuple[str, ...] = ()


def prove(folder: Path, requests: int, rate: float, tell: Callable[[str], None]) -> list[Proof]:
    """Breaks each promise in turn and looks whether the judge notices."""
    return [_prove(one, folder / one.name, requests, rate, tell) for one in BREAKS]


def copy_with(broken: Break, tree: Path) -> None:
    """Copies what runs to a tree of its own and breaks it there. Raises NotThere."""
    for name in _COPIED:
        shutil.copytree(TREE / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for edit in broken.edits:
        edit.apply(tree)


def _prove(broken: Break, tree: Path, requests: int, rate: float, tell: Callable[[str], None]) -> Proof:
    copy_with(broken, tree)
    for seed in range(1, _SEEDS + 1):
        for scenario in broken.scenarios:
            tell(f"{broken.name}: {scenario}, seed {seed}")
            findings = _findings(tree, scenario, seed, requests, rate)
            if findings:
                return Proof(broken.name, broken.sentence, f"{scenario}, seed {seed}", tuple(findings))
    return Proof(broken.name, broken.sentence, "")


def _findings(tree: Path, scenario: str, seed: int, requests: int, rate: float) -> list[str]:
    """What the judge has found. That a scenario could not be carried out does not count."""
    report = tree / "report.md"
    command = [sys.executable, "-m", "tests.faults", "--only", scenario, "--first-seed", str(seed)]
    command += ["--requests-per-scenario", str(requests), "--rate", str(rate), "--report", str(report)]
    subprocess.run(command, cwd=tree, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    told: dict[str, Any] = json.loads(report.with_suffix(".json").read_text())
    return [
        one["text"] for run in told["runs"] for one in run["findings"] if not one["text"].startswith(_NOT_CARRIED_OUT)
    ]
