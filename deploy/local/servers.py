"""Start and stop one Kafka and one PostgreSQL that live in one folder.

`start`, `running` and `stop` are all that the command line needs. Tests of faults also `kill`, `pause`, `resume` and
`start_again` one of the two.
"""

import json
import secrets
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from signal import Signals
from typing import Literal, Protocol, TypeAlias
from urllib.parse import urlsplit

import psutil

from deploy.local import kafka, locks, ports, postgres, processes
from deploy.local.processes import Say, ServerDidNotStart

Name: TypeAlias = Literal["kafka", "postgres"]

_NAMES: tuple[Name, ...] = ("kafka", "postgres")
_READY_SECONDS = 120.0
_PATIENCE_SECONDS = 15.0  # a server under heavy load must not be taken for dead
_POLL_SECONDS = 0.02
_TRIES = 4


@dataclass(frozen=True)
class Addresses:
    """Where the two servers are: Kafka's bootstrap address and the URL of PostgreSQL's administrator."""

    kafka: str
    postgres: str


@dataclass(frozen=True)
class Record:
    """What is written down of one server: where it is, and its process while it is meant to run."""

    address: str
    pid: int | None
    durable: bool = True

    @property
    def port(self) -> int:
        """The port in the address."""
        return urlsplit(self.address if "://" in self.address else f"kafka://{self.address}").port or 0


class LocalServer(Protocol):
    """What this module asks of Kafka and of PostgreSQL alike."""

    name: str
    setting: str
    folder: Path
    log: Path
    preferred_port: int
    polite_signal: Signals
    stop_seconds: float

    def make(self, say: Say) -> None: ...
    def launch(self, port: int) -> int: ...
    def repair(self) -> bool: ...
    def answers(self, port: int) -> bool: ...
    def address(self, port: int) -> str: ...
    def ended(self, *, cleanly: bool) -> None: ...
    def farewell(self) -> str | None: ...


def start(
    folder: Path,
    *,
    say: Say = print,
    kafka_port: int = kafka.Kafka.preferred_port,
    postgres_port: int = postgres.Postgres.preferred_port,
    durable: bool = True,
) -> Addresses:
    """Have both servers of `folder` running and answering, and return their addresses.

    What runs already is used as it is. A port that is taken gets another; a folder keeps its ports. `durable=False`
    lets PostgreSQL lose data when the machine (not the server) dies.

    Raises ServerDidNotStart; what this call has started is then stopped again.
    """
    preferred = {"kafka": kafka_port, "postgres": postgres_port}
    with _held(folder, say) as home:
        records = _read(home)
        begin = {
            name: _Beginning(_server(home, name, durable=durable), records.get(name), preferred[name], say)
            for name in _NAMES
        }
        # Kafka in this thread: it may have to be downloaded, and that is where Ctrl-C must be heard.
        with ThreadPoolExecutor(max_workers=1) as beside:
            other = beside.submit(begin["postgres"].ensure)
            try:
                records["kafka"] = begin["kafka"].ensure()
                records["postgres"] = replace(other.result(), durable=durable)
            except BaseException:
                other.exception()
                for beginning in begin.values():
                    beginning.undo()
                raise
        _write(home, records)
    return Addresses(records["kafka"].address, records["postgres"].address)


def running(folder: Path) -> Addresses | None:
    """The addresses of both servers of `folder` if both run and answer, else None."""
    records = _read(folder)
    for name in _NAMES:
        record = records.get(name)
        if record is None or not _is_up(_server(folder, name), record):
            return None
    return Addresses(records["kafka"].address, records["postgres"].address)


def stop(folder: Path, *, say: Say = print) -> None:
    """Stop both servers of `folder` cleanly, by force if they do not; nothing happens to what does not run.

    Raises ServerDidNotStart if the folder cannot be read.
    """
    if not folder.is_dir():
        return
    with _held(folder, say) as home:
        records = _read(home)
        with ThreadPoolExecutor(max_workers=len(_NAMES)) as both:
            for ended in [both.submit(_end, _server(home, name), records.get(name), say) for name in _NAMES]:
                ended.result()
        if records:
            _write(home, {name: replace(record, pid=None) for name, record in records.items()})


def pid(folder: Path, name: Name) -> int | None:
    """The process id of one server of `folder`, if it runs (also while it is held still)."""
    process = _process(folder, name)
    return process.pid if process else None


def kill(folder: Path, name: Name) -> None:
    """Kill one server and its children at once, as a crash would."""
    process = _process(folder, name)
    if process is not None:
        processes.kill(process)
        _server(folder, name).ended(cleanly=False)


def pause(folder: Path, name: Name) -> None:
    """Hold one server still: its connections stay open and nothing is answered."""
    process = _process(folder, name)
    if process is not None:
        processes.pause(process)


def resume(folder: Path, name: Name) -> None:
    """Let a server that was held still go on."""
    process = _process(folder, name)
    if process is not None:
        processes.resume(process)


def start_again(folder: Path, name: Name, *, say: Say = print) -> Addresses:
    """Start one server of `folder` on the port and data it had.

    Raises ServerDidNotStart, also if the folder was never started or the port is taken by someone else.
    """
    with _held(folder, say) as home:
        records = _read(home)
        record = records.get(name)
        if record is None or set(records) != set(_NAMES):
            raise ServerDidNotStart(f"{home} holds no servers that could be started again; start both first.")
        server = _server(home, name, durable=record.durable)
        records[name] = replace(
            _Beginning(server, record, record.port, say, fixed=True).ensure(), durable=record.durable
        )
        _write(home, records)
    return Addresses(records["kafka"].address, records["postgres"].address)


class _Beginning:
    """One server on its way to answering, and what it takes to undo that."""

    def __init__(
        self, server: LocalServer, record: Record | None, preferred: int, say: Say, *, fixed: bool = False
    ) -> None:
        self._server = server
        self._record = record
        self._preferred = preferred
        self._say = say
        self._fixed = fixed
        self._begun: psutil.Process | None = None

    def ensure(self) -> Record:
        """The server's record once it answers: the one it has if it is up, else that of a new process."""
        if self._record is not None and _is_up(self._server, self._record, patience=_PATIENCE_SECONDS):
            self._say(f"{self._server.name} is running already on port {self._record.port}")
            return self._record
        try:
            self._clear_away()
            began = time.monotonic()
            self._server.make(self._say)
            record = self._launch()
        except BaseException as error:
            self.undo()
            if isinstance(error, OSError):
                raise ServerDidNotStart(processes.explain(error, self._server.folder)) from error
            raise
        self._say(f"{self._server.name} is ready on port {record.port} after {time.monotonic() - began:.1f} s")
        return record

    def undo(self) -> None:
        """Kill what this has started, if anything."""
        if self._begun is not None:
            processes.kill(self._begun)
            self._server.ended(cleanly=False)

    def _clear_away(self) -> None:
        process = processes.find(self._server.folder, self._record.pid if self._record else None)
        if process is not None:
            self._say(f"{self._server.name} runs but does not answer as it should; starting it again")
            _end_process(self._server, process)

    def _launch(self) -> Record:
        for _ in range(_TRIES):
            port = self._port()
            processes.renew_log(self._server.log)
            pid = self._server.launch(port)
            try:
                self._begun = psutil.Process(pid)
                if _await_answer(self._server, self._begun, port):
                    return Record(self._server.address(port), pid)
                processes.kill(self._begun)
            except psutil.NoSuchProcess:
                self._begun = None  # it ended before anybody looked at it; its log says why
            log = processes.log_tail(self._server.log)
            if not (_lost_the_port(log) and not self._fixed) and not self._server.repair():
                break
        raise self._failure()

    def _port(self) -> int:
        before = self._record.port if self._record else None
        port = ports.choose(before, self._preferred)
        wanted = before or self._preferred
        if port != wanted and self._fixed:
            raise ServerDidNotStart(
                f"Port {wanted}, which {self._server.name} had, is taken by another program; end it and try again."
            )
        if port != wanted:
            self._say(f"Port {wanted} is taken; {self._server.name} will listen on {port}")
        return port

    def _failure(self) -> ServerDidNotStart:
        line = processes.telling_line(processes.log_tail(self._server.log))
        advice = processes.advice(line, self._server.setting)
        return ServerDidNotStart(f"{self._server.name} did not start (log: {self._server.log}): {line}; {advice}.")


def _server(folder: Path, name: Name, *, durable: bool = True) -> LocalServer:
    home = folder.absolute()
    if name == "kafka":
        return kafka.Kafka(home / name)
    return postgres.Postgres(home / name, durable=durable)


def _process(folder: Path, name: Name) -> psutil.Process | None:
    record = _read(folder).get(name)
    return processes.find(_server(folder, name).folder, record.pid if record else None)


def _is_up(server: LocalServer, record: Record, patience: float = 0) -> bool:
    """Whether the recorded process runs and answers, within `patience` seconds if it is still on its way."""
    process = processes.find(server.folder, record.pid)
    if process is None or process.pid != record.pid:
        return False
    deadline = time.monotonic() + patience
    while processes.alive(process) and not processes.stopped(process):
        try:
            if processes.listens(process, record.port) and server.answers(record.port):
                return True
        except (OSError, ServerDidNotStart):
            return False
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return False


def _await_answer(server: LocalServer, process: psutil.Process, port: int) -> bool:
    deadline = time.monotonic() + _READY_SECONDS
    while processes.alive(process):
        if processes.listens(process, port) and server.answers(port):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return False


def _lost_the_port(log: str) -> bool:
    return "address already in use" in log.lower()


def _end(server: LocalServer, record: Record | None, say: Say) -> None:
    process = processes.find(server.folder, record.pid if record else None)
    if process is None:
        return
    farewell = server.farewell()
    if farewell:
        say(farewell)
    clean = _end_process(server, process)
    say(f"{server.name} has stopped" if clean else f"{server.name} did not stop by itself and was killed")


def _end_process(server: LocalServer, process: psutil.Process) -> bool:
    clean = processes.end(process, server.polite_signal, server.stop_seconds)
    server.ended(cleanly=clean)
    return clean


@contextmanager
def _held(folder: Path, say: Callable[[str], None]) -> Generator[Path]:
    """The folder's full path, made if need be, while nobody else starts or stops its servers."""
    processes.require_posix()
    home = folder.absolute()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with locks.held(
            home / "lock", lambda: say("Another start or stop of these servers is at work; waiting for it")
        ):
            yield home
    except OSError as error:
        raise ServerDidNotStart(processes.explain(error, home)) from error


def _read(folder: Path) -> dict[Name, Record]:
    """The records in `folder`; none if there is no readable file."""
    try:
        written = json.loads((folder / "servers.json").read_text())
        return {name: Record(**written[name]) for name in _NAMES if name in written}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _write(folder: Path, records: dict[Name, Record]) -> None:
    text = json.dumps({name: vars(record) for name, record in records.items()}, indent=2)
    made = folder / f".servers.{secrets.token_hex(4)}"
    made.touch(mode=0o600)
    made.write_text(text + "\n")
    made.replace(folder / "servers.json")
