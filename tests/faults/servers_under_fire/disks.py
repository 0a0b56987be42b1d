"""Small disks of their own under a server's data, which can be filled to the last byte."""

import os
import re
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_MOST_AT_A_TIME: Final = 1024 * 1024
_BALLAST: Final = ".ballast"
_MAY_MOUNT: Final = 21
"""The bit of CAP_SYS_ADMIN among a process's capabilities."""


class SmallDisk:
    """A file system of so many megabytes in memory, mounted on a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ballast = folder / _BALLAST

    def fill(self) -> None:
        """Leaves no room at all."""
        with self._ballast.open("ab", buffering=0) as ballast:
            size = _MOST_AT_A_TIME
            while size:
                try:
                    ballast.write(bytes(size))
                except OSError:
                    size //= 2

    def make_room(self) -> None:
        """Gives everything back that was filled."""
        self._ballast.unlink(missing_ok=True)


def why_none() -> str:
    """Why no small disk can be had here; empty where it can."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return "a small disk takes root and the program mount"
    capabilities = re.search(r"^CapEff:\s*(\w+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if capabilities is None or not int(capabilities[1], 16) >> _MAY_MOUNT & 1:
        return "a small disk takes the right to mount (CAP_SYS_ADMIN), which this container lacks"
    return ""


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Generator[SmallDisk]:
    """A small disk on the folder while the block lasts."""
    folder.mkdir(parents=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0755", "tmpfs", str(folder)], check=True, timeout=10
    )
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False, timeout=10)
