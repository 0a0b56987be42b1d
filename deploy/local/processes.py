"""Server processes that outlive whoever started them: begin, recognise, end.

A process is recognised by a mark on its command line, never by a number alone: numbers are given out again.
"""

import errno
import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

import psutil

Say: TypeAlias = Callable[[str], None]

# A shell forks the server and leaves, so that the server is nobody's zombie; the server's own output goes to the log.
_FORK = '"$@" </dev/null >&2 & echo $!'
_PAUSE_SECONDS = 0.01
_STILL_SECONDS = 5.0
_TELLING = ("fatal", "panic", "error", "exception", "could not", "cannot")
_DISK_FULL = "no space left"
_FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED_BY_DISK = (*_FULL, errno.EACCES, errno.EPERM, errno.EROFS)
_LOG_TAIL = 64 * 1024


class ServerDidNotStart(Exception):
    """A local server is not there; the message is one sentence on what failed, where to look and what to do."""


@dataclass(frozen=True)
class Account:
    """The account of this machine that a server runs as."""

    user: int
    group: int


def mark(folder: Path) -> str:
    """The mark of the server that lives in `folder`, as it stands on its command line."""
    return "fieldbridge.server=" + hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:20]


def environment() -> dict[str, str]:
    """The whole environment of a server: what the shell of the starter happens to hold must not change it."""
    return {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}


def spawn(command: Sequence[str], *, cwd: Path, log: Path, account: Account | None = None) -> int:
    """Start `command` in a session of its own and return its process id.

    Raises ServerDidNotStart if the process cannot be made at all.
    """
    with log.open("ab") as output:
        forked = _run(["/bin/sh", "-c", _FORK, "sh", *command], cwd, output, account, session=True)
    if forked.returncode != 0:
        raise ServerDidNotStart(f"{command[0]} could not be started; see {log}.")
    return int(forked.stdout)


def run(command: Sequence[str], *, cwd: Path, account: Account | None = None) -> tuple[bool, str]:
    """Run a server's tool to its end; return whether it succeeded, and all it said."""
    done = _run(command, cwd, subprocess.STDOUT, account, session=False)
    return done.returncode == 0, done.stdout.decode(errors="replace")


def find(folder: Path, pid: int | None = None) -> psutil.Process | None:
    """The live server of `folder`: the process `pid` if it bears the mark, else whichever process bears it."""
    wanted = mark(folder)
    if pid is not None:
        known = _process(pid)
        if known is not None and _bears(known, wanted):
            return known
    bearers = {process.pid: process for process in psutil.process_iter() if _bears(process, wanted)}
    # A server's fresh child bears the mark until it renames itself: the server is the one without a marked parent.
    for process in bearers.values():
        if _parent(process) not in bearers:
            return process
    return None


def at_work_in(folder: Path, name: str) -> list[psutil.Process]:
    """The processes called `name` whose working directory is `folder`."""
    return [process for process in psutil.process_iter() if _works_in(process, folder, name)]


def alive(process: psutil.Process) -> bool:
    """Whether the process still runs (a zombie, which waits for its parent only, does not)."""
    try:
        if not process.is_running():
            return False
        # The first thread may be a zombie already while others still hold the server's port.
        return process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
    except psutil.Error:
        return False


def stopped(process: psutil.Process) -> bool:
    """Whether the process is held by SIGSTOP."""
    try:
        return process.status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False


def listens(process: psutil.Process, port: int) -> bool:
    """Whether it is this process that listens on the port, and not another server that took it first."""
    try:
        return any(
            one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in process.net_connections(kind="tcp")
        )
    except psutil.NoSuchProcess:
        return False


def end(process: psutil.Process, polite: signal.Signals, seconds: float) -> bool:
    """Ask the process to end, then make it; return whether asking was enough."""
    resume(process)
    family = _family(process)
    _send([process], polite)
    if _wait_gone([process], seconds):
        _wait_gone(family, 5)
        return True
    kill(process)
    return False


def kill(process: psutil.Process) -> None:
    """Kill the process and its children at once, and wait until they are gone."""
    family = _family(process)
    _send(family, signal.SIGKILL)
    _wait_gone(family, 10)


def pause(process: psutil.Process) -> None:
    """Hold the process and its children still (SIGSTOP); returns once they are, which may take a moment."""
    family = _family(process)
    _send(family, signal.SIGSTOP)
    deadline = time.monotonic() + _STILL_SECONDS
    while any(alive(one) and not stopped(one) for one in family) and time.monotonic() < deadline:
        time.sleep(_PAUSE_SECONDS)


def resume(process: psutil.Process) -> None:
    """Let the process and its children go on (SIGCONT)."""
    _send(_family(process), signal.SIGCONT)


def renew_log(log: Path) -> None:
    """Keep the log of the run before as `<name>.1` and begin an empty one."""
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists():
        log.replace(log.with_name(log.name + ".1"))
    log.touch(mode=0o600)


def log_tail(log: Path) -> str:
    """The end of the log, or nothing if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LOG_TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def telling_line(text: str) -> str:
    """The line of a log that most likely says what went wrong: a full disk, else the last that speaks of an error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    full = [line for line in lines if _DISK_FULL in line.lower()]
    speaking = [line for line in lines if any(word in line.lower() for word in _TELLING) and not _is_frame(line)]
    return (full or speaking or lines or ["the log is empty"])[-1][:300]


def advice(line: str, setting: str) -> str:
    """What to do about the failure that `line` tells of; `setting` points at a server that exists already."""
    if _DISK_FULL in line.lower():
        return "make room on the disk and start again"
    return f"put right what it names and start again, or point {setting} at a server that exists already"


def explain(error: OSError, folder: Path) -> str:
    """One sentence for what the operating system refused while preparing `folder`."""
    where = error.filename or folder
    if error.errno in _FULL:
        return f"The disk that holds {folder} is full; make room and start again."
    if error.errno in REFUSED_BY_DISK:
        return f"{where} cannot be written ({error.strerror}); choose another folder or correct its permissions."
    return f"The servers could not be prepared in {folder}: {error.strerror or error} ({where})."


def require_posix() -> None:
    """Raise ServerDidNotStart on a system that neither server is started on."""
    if sys.platform == "win32":
        raise ServerDidNotStart(
            "Local servers run on Linux and macOS only; use WSL, or point FIELDBRIDGE_KAFKA and FIELDBRIDGE_POSTGRES "
            "at servers that exist already."
        )


def _run(
    command: Sequence[str], cwd: Path, errors: int | IO[bytes], account: Account | None, *, session: bool
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        command,
        cwd=cwd,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        start_new_session=session,
        umask=0o077,
        user=account.user if account else None,
        group=account.group if account else None,
        extra_groups=[] if account else None,
        check=False,
    )


def _is_frame(line: str) -> bool:
    return line.startswith(("at ", "... "))


def _process(pid: int) -> psutil.Process | None:
    try:
        return psutil.Process(pid)
    except psutil.Error:
        return None


def _bears(process: psutil.Process, wanted: str) -> bool:
    try:
        return any(word in (wanted, "-D" + wanted) for word in process.cmdline()) and alive(process)
    except psutil.Error:
        return False


def _works_in(process: psutil.Process, folder: Path, name: str) -> bool:
    try:
        return process.name() == name and Path(process.cwd()) == folder.resolve() and alive(process)
    except psutil.Error:
        return False


def _parent(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.Error:
        return None


def _family(process: psutil.Process) -> list[psutil.Process]:
    try:
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return [process]


def _send(family: Sequence[psutil.Process], what: signal.Signals) -> None:
    for process in family:
        try:
            process.send_signal(what)
        except psutil.NoSuchProcess:
            continue


def _wait_gone(family: Sequence[psutil.Process], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(alive(process) for process in family):
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE_SECONDS)
    return True
