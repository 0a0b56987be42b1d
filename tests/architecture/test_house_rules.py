"""Rules of the house that no linter knows."""

import re
import subprocess
from pathlib import Path

import pytest

from schemas.topics import SERVICES, TOPICS
from services.runtime import database
from tests.benchmarks import useful_work

ROOT = Path(__file__).parents[2]
BANNED_NAMES = {"utils", "helpers", "manager", "base", "common", "util", "helper", "misc"}


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


@pytest.fixture(scope="module", autouse=True)
def in_a_checkout() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: the list of files is not known")


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert [path for path in tracked("*.py") if path.stem in BANNED_NAMES] == []


def test_every_service_has_the_same_files() -> None:
    for service in SERVICES:
        folder = ROOT / "services" / service
        present = {path.name for path in folder.iterdir()} - {"__pycache__"}
        assert {"__init__.py", "__main__.py", "app.py", "handlers.py", "store.py", "migrations"} <= present | {
            "handlers.py" if (folder / "handlers").is_dir() else ""
        }, service


def test_only_stores_and_the_runtime_speak_sql() -> None:
    statement = re.compile(r'"""\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM)\s|"(SELECT|INSERT INTO|UPDATE|DELETE FROM) ')
    speaking = {
        path.relative_to(ROOT).as_posix()
        for path in tracked("services/*.py")
        if statement.search(path.read_text()) and path.relative_to(ROOT).parts[1] not in ("runtime", "console")
    }
    assert {name for name in speaking if not name.endswith("/store.py")} == set()


def test_migrations_are_numbered_without_gaps() -> None:
    for folder in sorted((ROOT / "services").glob("*/migrations")):
        numbers = sorted(int(path.name.split("_")[0]) for path in folder.glob("*.sql"))
        assert numbers == list(range(1, len(numbers) + 1)), folder


def test_each_topic_has_one_publisher_and_known_readers() -> None:
    assert len({topic.name for topic in TOPICS}) == len(TOPICS)
    for topic in TOPICS:
        assert set(topic.readers) <= set(SERVICES)
        assert topic.publisher in {*SERVICES, "any system"}
        assert topic.publisher not in topic.readers


def test_no_lock_file_records_an_address() -> None:
    for lock in ("requirements.lock", "requirements-dev.lock"):
        text = (ROOT / lock).read_text()
        assert "://" not in text
        assert "--index-url" not in text
        for pinned in re.findall(r"^[a-z].*$", text, flags=re.MULTILINE):
            assert "==" in pinned, pinned


def test_nothing_pretends_to_be_kafka_or_postgres() -> None:
    pretending = re.compile(
        r"\b(mock|fake|stub)s?[_ -]?(kafka|broker|postgres|database|producer|consumer)|unittest\.mock|fakeredis",
        re.IGNORECASE,
    )
    found = [
        f"{path.relative_to(ROOT)}: {line}"
        for path in tracked("*.py")
        if path.name != "test_house_rules.py"
        for line in path.read_text().splitlines()
        if pretending.search(line)
    ]
    assert found == []


def test_contenders_have_all_session_settings_of_the_services_that_bear_upon_speed() -> None:
    ours = {name: value for name, value in database._SESSION.items() if not name.endswith("_timeout")}
    assert ours == useful_work.SESSION
