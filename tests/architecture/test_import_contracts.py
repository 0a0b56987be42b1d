"""Every import contract is kept by the tree, and each is seen to fail on an offence planted against it."""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACTS = [
    contract["name"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
]

# For each contract: a file of the copied tree, the line planted in it, and what the report must then say.
OFFENCES = {
    "Services are strangers; all stand on the runtime": (
        "services/matching/handlers.py",
        "import services.intake.store",
        "services.matching.handlers -> services.intake.store",
    ),
    "A service is app -> handlers -> store -> decisions, and has no other file": (
        "services/scheduling/utils.py",
        "",
        "services.scheduling.utils",
    ),
    "Services read the schemas; the schemas read nothing of ours": (
        "schemas/matches.py",
        "import services.runtime.records",
        "schemas.matches -> services.runtime.records",
    ),
    "The runtime carries envelopes and never looks inside": (
        "services/runtime/handling.py",
        "import schemas.requests",
        "services.runtime.handling -> schemas.requests",
    ),
    "Decisions know the vocabulary, not the events": (
        "services/scheduling/decisions/__init__.py",
        "import schemas.roster",
        "services.scheduling.decisions -> schemas.roster",
    ),
    "Decisions are pure": (
        "services/matching/decisions/__init__.py",
        "import logging",
        "services.matching.decisions -> logging",
    ),
    "Schemas are pydantic and nothing else": (
        "schemas/receipts.py",
        "import asyncio",
        "schemas.receipts -> asyncio",
    ),
    "The vocabulary and the topics know no library": (
        "schemas/vocabulary.py",
        "import pydantic",
        "schemas.vocabulary -> pydantic",
    ),
    "Only the runtime and the console know Kafka": (
        "services/reporting/store.py",
        "import aiokafka",
        "services.reporting.store -> aiokafka",
    ),
    "Only the console starts servers; the machine room knows no service": (
        "services/runtime/kafka.py",
        "import deploy.local.servers",
        "services.runtime.kafka -> deploy.local.servers",
    ),
}


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [command, "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(folder)},
    )


def copy_of_the_tree(folder: Path) -> Path:
    for package in ("services", "schemas", "deploy"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder / "pyproject.toml")
    return folder


@pytest.fixture(scope="module")
def report_on_offences(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = copy_of_the_tree(tmp_path_factory.mktemp("offences"))
    for file, line, _ in OFFENCES.values():
        place = folder / file
        before = place.read_text() if place.exists() else ""
        place.write_text(f"{before}\n{line}\n")
    result = lint(folder)
    assert result.returncode == 1, result.stdout + result.stderr
    return result.stdout


def test_the_tree_keeps_every_contract() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout


def test_every_contract_has_a_planted_offence() -> None:
    assert sorted(OFFENCES) == sorted(CONTRACTS)


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_planted_offence_breaks_the_contract(contract: str, report_on_offences: str) -> None:
    said = OFFENCES[contract][2]
    assert f"{contract} BROKEN" in report_on_offences
    details = report_on_offences.partition("Broken contracts")[2]
    section = details.partition(contract)[2]
    for other in CONTRACTS:
        if other != contract:
            section = section.partition(f"\n{other}\n")[0]
    assert said in section, section
