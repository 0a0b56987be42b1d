"""The `fieldbridge` command as a person runs it: as a process, with a folder and an environment of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def fieldbridge(tmp_path: Path) -> Command:
    """Runs the command to its end, with these settings and no others."""

    def run(*arguments: str, said: str | None = None, **settings: str) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("FIELDBRIDGE_")}
        return subprocess.run(
            [sys.executable, "-m", "services.console", *arguments],
            env=inherited | {"FIELDBRIDGE_HOME": str(tmp_path)} | settings,
            input=said,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run
