"""The environment of the peers: made once from a lock with hashes, apart from the project's own."""

import hashlib
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

from tests.benchmarks.measuring import tell
from tests.benchmarks.premises import TREE, home

LOCK: Final = TREE / "requirements-peers.lock"
TOOLS: Final = ("faststream", "quixstreams", "faust-streaming", "aiokafka", "confluent-kafka", "pydantic", "psycopg")


class NoPeers(Exception):
    """The environment of the peers could not be made; the message says why."""


def peers_python() -> Path:
    """The Python of the peers' environment, made now where it is missing or the lock has changed. Raises NoPeers."""
    folder = home() / "peers"
    python = folder / "bin" / "python"
    ready = folder / ".ready"
    wanted = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if python.exists() and ready.exists() and ready.read_text() == wanted:
        return python
    tell(f"making the environment of the peers in {folder}: about a minute, once")
    venv.create(folder, with_pip=True, clear=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*command, "--require-hashes", "-r", str(LOCK)], capture_output=True, text=True)
    if done.returncode:
        raise NoPeers(f"The peers could not be installed: {done.stderr.strip().splitlines()[-1:]}")
    ready.write_text(wanted)
    return python


def own_python() -> Path:
    """The Python of the project's environment."""
    return Path(sys.executable)
