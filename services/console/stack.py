"""Starts and stops the whole stack on this machine: the two servers, the databases, the four services."""

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from signal import SIGTERM
from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
import psutil
from prometheus_client.parser import text_string_to_metric_families

from deploy.local import locks, ports, postgres, processes, servers
from deploy.local.processes import Say
from schemas.topics import SERVICES
from services.console.surroundings import (
    Process,
    Stack,
    Surroundings,
    database_variable,
    read_record,
    write_record,
)
from services.console.trouble import Trouble

FIRST_PORT: Final = 8101
_PORT_TAKEN: Final = ("address already in use", "no listening there")
_READY_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 15.0
_POLL_SECONDS: Final = 0.05
_SAME_PROCESS_SECONDS: Final = 1.0


def bring_up(surroundings: Surroundings, say: Say, *, durable: bool = True) -> Stack:
    """Has both servers, the databases and all four services running and ready. What runs already is left as it is.

    Raises Trouble or ServerDidNotStart; services that this call started are then stopped again.
    """
    with _held(surroundings.home, say):
        stack = provide(surroundings, say, durable=durable)
        running = {name: process for name, process in stack.processes.items() if find(process) is not None}
        started: dict[str, Process] = {}
        try:
            for nth, service in enumerate(SERVICES):
                if service not in running:
                    started[service] = _start(service, stack, surroundings.home, FIRST_PORT + nth)
                    stack = replace(stack, processes=running | started)
                    write_record(surroundings.home, stack)
            stack = _until_ready(stack, running, started, surroundings.home, say)
        except BaseException:
            _end(started, say)
            write_record(surroundings.home, replace(stack, processes=running))
            raise
        return stack


def provide(surroundings: Surroundings, say: Say, *, durable: bool = True) -> Stack:
    """Has both servers running and a database for each service; returns the stack as written down.

    Raises Trouble or ServerDidNotStart.
    """
    kafka, administrator = surroundings.kafka, surroundings.administrator
    if (kafka is None) != (administrator is None):
        raise Trouble(
            "Set both FIELDBRIDGE_KAFKA and FIELDBRIDGE_POSTGRES to use servers that exist, or neither to have both "
            "started here."
        )
    own = kafka is None or administrator is None
    if kafka is None or administrator is None:
        addresses = servers.start(surroundings.home, say=say, durable=durable)
        kafka, administrator = addresses.kafka, addresses.postgres
    before = read_record(surroundings.home)
    known = {} if before is None else before.databases
    stack = Stack(
        kafka=kafka,
        topic_prefix=surroundings.topic_prefix,
        databases=_provision(administrator, surroundings.database_prefix, known),
        processes={} if before is None else before.processes,
        own_servers=own,
    )
    write_record(surroundings.home, stack)
    return stack


def take_down(surroundings: Surroundings, say: Say) -> bool:
    """Stops the services and then the servers that `bring_up` started; returns whether there was anything to stop.

    Raises Trouble or ServerDidNotStart.
    """
    if not surroundings.home.is_dir():
        return False
    with _held(surroundings.home, say):
        stack = read_record(surroundings.home)
        any_service = False
        if stack is not None:
            any_service = _end(stack.processes, say)
            write_record(surroundings.home, replace(stack, processes={}))
        own = stack is None or stack.own_servers
        any_server = own and any(servers.pid(surroundings.home, name) is not None for name in ("kafka", "postgres"))
        if any_server:
            servers.stop(surroundings.home, say=say)
        return any_service or any_server


@contextmanager
def pausing(home: Path, service: str, say: Say) -> Generator[None]:
    """Stops one service and starts it again at the end. Of one that does not run here, asks to have it restarted."""
    with _held(home, say):
        stack = read_record(home)
        process = None if stack is None else stack.processes.get(service)
        if stack is None or process is None or find(process) is None:
            yield
            say(f"{service} was not started here: restart it now, so that it takes note.")
            return
        _end({service: process}, say)
        try:
            yield
        finally:
            started = {service: _start(service, stack, home, process.port)}
            stack = replace(stack, processes=stack.processes | started)
            write_record(home, stack)
            _until_ready(stack, {}, started, home, say)


def find(process: Process) -> psutil.Process | None:
    """The live process, or None where it has ended (its id may belong to another since)."""
    try:
        found = psutil.Process(process.pid)
        same = abs(found.create_time() - process.began) < _SAME_PROCESS_SECONDS
    except psutil.Error:
        return None
    return found if same and processes.alive(found) else None


@dataclass(frozen=True, slots=True)
class Standing:
    """How one service stands. Numbers are None where it does not answer."""

    service: str
    address: str
    running: bool
    ready: bool
    reasons: tuple[str, ...] = ()
    lag: int | None = None
    outbox: int | None = None
    parked: int | None = None


def standing(stack: Stack, service: str) -> Standing:
    """Asks a service how it stands."""
    process = stack.processes.get(service)
    if process is None or find(process) is None:
        return Standing(service, "" if process is None else process.url, running=False, ready=False)
    ready, reasons = _readiness(process)
    metrics = _scrape(process)
    return Standing(
        service,
        process.url,
        running=True,
        ready=ready,
        reasons=reasons,
        lag=metrics.get("fieldbridge_lag_events"),
        outbox=metrics.get("fieldbridge_outbox_depth"),
        parked=metrics.get("fieldbridge_parked", 0) if metrics else None,
    )


def fetch(process: Process, path: str, seconds: float = 10.0) -> tuple[int, str]:
    """Status and text of a service's page. Raises Trouble where it does not answer."""
    connection = HTTPConnection(ports.LOOPBACK, process.port, timeout=seconds)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, HTTPException, ValueError) as error:
        raise Trouble(f"{process.url} does not answer ({error}): see `fieldbridge status`.") from None
    finally:
        connection.close()


def environment(stack: Stack, service: str, variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of a service process: as it is, with this stack's addresses and no other service's database."""
    foreign = {"FIELDBRIDGE_POSTGRES", *(database_variable(name) for name in SERVICES)}
    return {name: value for name, value in variables.items() if name not in foreign} | {
        "FIELDBRIDGE_KAFKA": stack.kafka,
        "FIELDBRIDGE_TOPIC_PREFIX": stack.topic_prefix,
        database_variable(service): stack.database(service),
    }


def log_file(home: Path, service: str) -> Path:
    """Where a service started by `bring_up` writes its log."""
    return home / "log" / f"{service}.log"


@contextmanager
def _held(home: Path, say: Say) -> Generator[None]:
    try:
        home.mkdir(parents=True, exist_ok=True)
        with locks.held(home / "stack.lock", lambda: say("Another `fieldbridge up` or `down` is at work; waiting")):
            yield
    except OSError as error:
        raise Trouble(processes.explain(error, home)) from None


def _provision(administrator: str, prefix: str, known: Mapping[str, str]) -> dict[str, str]:
    """Databases of the services. Passwords written down before are kept: running services use them."""

    def password(service: str) -> str:
        return urlsplit(known.get(service, "")).password or secrets.token_urlsafe(24)

    try:
        return postgres.run_apart(postgres.provision(administrator, SERVICES, password, prefix))
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        where = urlsplit(administrator)
        raise Trouble(
            f"PostgreSQL at {where.hostname}:{where.port or 5432} cannot be set up: {' '.join(str(error).split())}. "
            "FIELDBRIDGE_POSTGRES is to be the URL of an administrator who may create roles and databases."
        ) from None


def _start(service: str, stack: Stack, home: Path, preferred: int) -> Process:
    before = stack.processes.get(service)
    port = ports.choose(None if before is None else before.port, preferred)
    log = log_file(home, service)
    processes.renew_log(log)
    settings = {"FIELDBRIDGE_HOST": ports.LOOPBACK, "FIELDBRIDGE_PORT": str(port)}
    with log.open("ab") as output:
        begun = subprocess.Popen(
            [sys.executable, "-m", f"services.{service}"],
            env=environment(stack, service, os.environ) | settings,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        return Process(begun.pid, psutil.Process(begun.pid).create_time(), port)
    except psutil.NoSuchProcess:
        raise _did_not_start(service, home) from None


def _until_ready(
    stack: Stack, running: Mapping[str, Process], started: dict[str, Process], home: Path, say: Say
) -> Stack:
    """Waits until all these are ready; what was started and lost its port to somebody else is started anew."""
    while lost := _await_ready({**running, **started}, home, say):
        started[lost] = _start(lost, stack, home, FIRST_PORT)
        stack = replace(stack, processes=stack.processes | started)
        write_record(home, stack)
    return stack


def _await_ready(starting: Mapping[str, Process], home: Path, say: Say) -> str | None:
    """Waits until all are ready. Returns a service whose port somebody else took before it could listen there."""
    waiting = dict(starting)
    deadline = time.monotonic() + _READY_SECONDS
    reasons: dict[str, tuple[str, ...]] = {}
    while waiting:
        for service, process in list(waiting.items()):
            if find(process) is None:
                if any(words in processes.log_tail(log_file(home, service)) for words in _PORT_TAKEN):
                    say(f"port {process.port} was taken before {service} could listen there; it gets another")
                    return service
                raise _did_not_start(service, home)
            ready, reasons[service] = _readiness(process)
            if ready:
                del waiting[service]
                say(f"{service} is ready at {process.url}")
        if waiting and time.monotonic() > deadline:
            why = "; ".join(f"{service}: {', '.join(reasons[service]) or 'no answer'}" for service in waiting)
            raise Trouble(f"Not ready after {_READY_SECONDS:.0f} s: {why}. The logs are in {home / 'log'}.")
        time.sleep(_POLL_SECONDS)
    return None


def _did_not_start(service: str, home: Path) -> Trouble:
    log = log_file(home, service)
    return Trouble(f"{service} ended at its start: {_last_words(processes.log_tail(log))} (log: {log})")


def _last_words(log: str) -> str:
    """The first error that a service logged, else the line of its log that tells most."""
    for line in log.splitlines():
        try:
            entry: dict[str, Any] = json.loads(line)
            if entry["level"] in ("error", "critical"):
                return str(entry["event"])
        except (ValueError, KeyError, TypeError):
            continue
    return processes.telling_line(log)


def _readiness(process: Process) -> tuple[bool, tuple[str, ...]]:
    try:
        status, text = fetch(process, "/readyz", 5)
    except Trouble:
        return False, ("it does not answer yet",)
    try:
        said: dict[str, Any] = json.loads(text)
        reasons: list[object] = said["reasons"]
        answers = said["pid"] == process.pid
    except (ValueError, KeyError, TypeError):
        return False, (f"what answers at {process.url} is no service",)
    if not answers:
        return False, (f"another process answers at {process.url}",)
    return status == 200, tuple(str(reason) for reason in reasons)


def _scrape(process: Process) -> dict[str, int]:
    """Each metric of a service, summed over its labels; empty where the service does not answer."""
    try:
        _, text = fetch(process, "/metrics", 5)
    except Trouble:
        return {}
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            sums[sample.name] = sums.get(sample.name, 0) + sample.value
    return {name: round(value) for name, value in sums.items()}


def _end(ending: Mapping[str, Process], say: Say) -> bool:
    """Asks the services to stop, all at once, and kills those that do not; returns whether any ran."""
    live = {service: found for service, process in ending.items() if (found := find(process)) is not None}
    for process in live.values():
        _ask_to_stop(process)
    for service, process in live.items():
        clean = processes.end(process, SIGTERM, _STOP_SECONDS)
        say(f"{service} has stopped" if clean else f"{service} did not stop by itself and was killed")
    return bool(live)


def _ask_to_stop(process: psutil.Process) -> None:
    try:
        process.terminate()
    except psutil.NoSuchProcess:
        return


def addresses(stack: Stack) -> Iterable[tuple[str, str]]:
    """What to look at: a name and an address each."""
    for service, process in stack.processes.items():
        yield service, process.url
    yield "Kafka", stack.kafka
    for service, url in stack.databases.items():
        parts = urlsplit(url)
        yield f"database of {service}", f"{parts.hostname}:{parts.port or 5432}{parts.path}"
