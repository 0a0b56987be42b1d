"""The test of the compose file leaves nothing running, however it ends."""

import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from deploy import compose_test
from deploy.compose_test import Engine, Failed, Stack


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What an engine was told that only writes it down."""
    noted = tmp_path / "told"
    compose = tmp_path / "compose"
    compose.write_text(f'#!/bin/sh\necho "$@" >> {noted}\n')
    compose.chmod(0o755)
    monkeypatch.setattr(compose_test, "find_engine", lambda: Engine(str(compose), (str(compose),), ()))
    return noted


@pytest.mark.parametrize(
    "ends",
    [Failed("no"), KeyboardInterrupt(), subprocess.TimeoutExpired("agencies", 1), KeyError("services")],
    ids=repr,
)
def test_everything_is_taken_down_however_it_ends(
    told: Path, monkeypatch: pytest.MonkeyPatch, ends: BaseException
) -> None:
    def test(_: Stack) -> None:
        raise ends

    monkeypatch.setattr(compose_test, "test", test)
    with suppress(KeyError, subprocess.TimeoutExpired):
        assert compose_test.main() == 1
    assert told.read_text().split()[-2:] == ["down", "--volumes"]
