"""Without a stack, whatever is wrong ends in one clear sentence, a status that is not 0, and no traceback."""

import socket
import subprocess
from pathlib import Path

import pytest

from services.console.surroundings import Stack, write_record
from tests.console.conftest import Command
from tests.console.test_console_publishing import lines, withdrawal

NEEDS_A_STACK = [
    ("status",),
    ("check",),
    ("simulate",),
    ("watch",),
    ("story", "R-1"),
    ("topics",),
    ("migrate",),
    ("parked", "list"),
    ("parked", "redrive", "--all"),
    ("replay", "reporting"),
    ("retention",),
    ("retention", "--now"),
]


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """What a command that failed had to say."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("fieldbridge: ")
    return done.stderr.removeprefix("fieldbridge: ").strip()


@pytest.fixture
def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def test_help_names_every_command(fieldbridge: Command) -> None:
    done = fieldbridge("--help")
    assert done.returncode == 0
    for name in (
        *("up", "down", "status", "demo", "serve", "migrate", "topics", "publish", "simulate", "check", "watch"),
        *("story", "parked", "replay", "retention", "agencies", "schemas"),
    ):
        assert f" {name} " in done.stdout, name


@pytest.mark.parametrize("arguments", NEEDS_A_STACK, ids=" ".join)
def test_without_a_stack_the_way_to_one_is_told(fieldbridge: Command, arguments: tuple[str, ...]) -> None:
    assert "fieldbridge up" in sentence(fieldbridge(*arguments))


@pytest.mark.parametrize("arguments", [("topics",), ("check",)], ids=" ".join)
def test_a_broker_that_is_away_is_named(
    fieldbridge: Command, tmp_path: Path, free_port: int, arguments: tuple[str, ...]
) -> None:
    write_record(tmp_path, Stack(kafka=f"127.0.0.1:{free_port}"))
    assert f"Kafka at 127.0.0.1:{free_port} does not answer" in sentence(fieldbridge(*arguments))


@pytest.mark.parametrize("arguments", [("simulate",), ("parked", "list"), ("migrate",)], ids=" ".join)
def test_a_database_that_is_away_is_named_without_its_password(
    fieldbridge: Command, tmp_path: Path, free_port: int, arguments: tuple[str, ...]
) -> None:
    databases = {"intake": f"postgresql://intake:hunter2@127.0.0.1:{free_port}/intake"}
    write_record(tmp_path, Stack(kafka="127.0.0.1:1", databases=databases))
    said = sentence(fieldbridge(*arguments))
    assert f"127.0.0.1:{free_port}" in said
    assert "hunter2" not in said


def test_only_one_server_of_ones_own_is_refused(fieldbridge: Command) -> None:
    assert "or neither" in sentence(fieldbridge("up", FIELDBRIDGE_KAFKA="127.0.0.1:1"))


def test_servers_that_are_away_are_named(fieldbridge: Command, free_port: int) -> None:
    done = fieldbridge(
        "up",
        FIELDBRIDGE_KAFKA=f"127.0.0.1:{free_port}",
        FIELDBRIDGE_POSTGRES=f"postgresql://admin:hunter2@127.0.0.1:{free_port}/postgres",
    )
    assert f"PostgreSQL at 127.0.0.1:{free_port}" in sentence(done)
    assert "hunter2" not in done.stderr


def test_a_wrong_setting_is_named(fieldbridge: Command) -> None:
    assert sentence(fieldbridge("status", FIELDBRIDGE_KAFKA="nonsense")).startswith("FIELDBRIDGE_KAFKA is 'nonsense'")


def test_a_service_that_does_not_exist_is_named(fieldbridge: Command) -> None:
    assert "There is no service 'billing'" in sentence(fieldbridge("serve", "billing"))
    assert "Only reporting can be replayed" in sentence(fieldbridge("replay", "matching"))


def test_to_redrive_or_discard_one_must_say_what(fieldbridge: Command, tmp_path: Path) -> None:
    write_record(tmp_path, Stack(kafka="127.0.0.1:1"))
    for verb in ("redrive", "discard"):
        assert "Say which events" in sentence(fieldbridge("parked", verb))
        assert "Say which events" in sentence(fieldbridge("parked", verb, "--all", "--key", "R-1"))
        assert "--service" in sentence(fieldbridge("parked", verb, "--id", "3"))


def test_what_is_published_is_checked_before_anything_is_sent(fieldbridge: Command, tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    file.write_text(lines(withdrawal(1), withdrawal(2, id=None)))
    assert sentence(fieldbridge("publish", str(file))) == "line 2: attribute 'id' is missing"
    assert sentence(fieldbridge("publish", "-", said="{")).startswith("line 1, column 2: this is not JSON")
    assert "There is no file" in sentence(fieldbridge("publish", str(tmp_path / "nowhere")))


def test_where_nothing_runs_there_is_nothing_to_stop(fieldbridge: Command) -> None:
    done = fieldbridge("down")
    assert (done.returncode, done.stderr.strip()) == (0, "Nothing was running.")


def test_the_demonstration_removes_no_folder_that_it_did_not_make(fieldbridge: Command, tmp_path: Path) -> None:
    precious = tmp_path / "demo" / "thesis.txt"
    precious.parent.mkdir()
    precious.write_text("all of it")
    assert "was not made by a demonstration" in sentence(fieldbridge("demo"))
    assert precious.read_text() == "all of it"


def test_the_generated_files_of_the_contract_are_written_once(fieldbridge: Command, tmp_path: Path) -> None:
    folder = str(tmp_path / "schemas")
    assert fieldbridge("schemas", "check", "--folder", folder).returncode == 1
    assert fieldbridge("schemas", "write", "--folder", folder).returncode == 0
    assert fieldbridge("schemas", "check", "--folder", folder).returncode == 0
    assert fieldbridge("schemas", "write", "--folder", folder, "--json").stdout == "[]\n"
