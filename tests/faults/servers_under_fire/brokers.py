"""Servers beside the usual pair: a broker with a second door for a way of its own, three brokers, one PostgreSQL."""

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Final

import psutil

from deploy.local import kafka, ports, processes
from deploy.local.processes import Say
from deploy.local.servers import LocalServer
from tests.faults.ground import quiet

_READY_SECONDS: Final = 90.0
_POLL_SECONDS: Final = 0.05

Lines = Callable[[int, int], str]
"""Lines for a broker's properties, from its port and its controller's; what was said before is overruled."""

_INTERNAL_TOPICS: Final = """\
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
"""


class Broker(kafka.Kafka):
    """A broker with more to say in its properties than the usual one."""

    def __init__(self, folder: Path, lines: Lines, controller_port: int | None = None, cluster: str = "") -> None:
        super().__init__(folder)
        self._lines = lines
        self._chosen_controller_port = controller_port
        self._cluster = cluster

    def make(self, say: Say) -> None:
        super().make(say)
        if self._cluster:
            properties = self.folder / "data" / "meta.properties"
            kept = [line for line in properties.read_text().splitlines() if not line.startswith("cluster.id=")]
            properties.write_text("\n".join([*kept, f"cluster.id={self._cluster}", ""]))

    def _controller_port(self) -> int | None:
        return self._chosen_controller_port or super()._controller_port()

    def _write_properties(self, name: str, port: int, controller_port: int, data: str) -> None:
        super()._write_properties(name, port, controller_port, data)
        with (self.folder / name).open("a") as properties:
            properties.write(self._lines(port, controller_port))


def with_a_second_door(door: int, way: int) -> Lines:
    """Whoever comes in by the door is told that the broker is where the way begins."""
    host = ports.LOOPBACK

    def lines(port: int, controller_port: int) -> str:
        return (
            f"listeners=PLAINTEXT://{host}:{port},DOOR://{host}:{door},CONTROLLER://{host}:{controller_port}\n"
            f"advertised.listeners=PLAINTEXT://{host}:{port},DOOR://{host}:{way}\n"
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,DOOR:PLAINTEXT\n"
            "inter.broker.listener.name=PLAINTEXT\n"
        )

    return lines


def one_of(node: int, controller_ports: Sequence[int]) -> Lines:
    """One of several brokers, each of which holds a replica of everything."""
    voters = ",".join(f"{number}@{ports.LOOPBACK}:{port}" for number, port in enumerate(controller_ports, 1))

    def lines(_: int, __: int) -> str:
        return f"node.id={node}\ncontroller.quorum.voters={voters}\n{_INTERNAL_TOPICS}"

    return lines


@dataclass
class Running:
    """A server that was started here, and its process."""

    server: LocalServer
    port: int
    process: psutil.Process

    @property
    def address(self) -> str:
        """What a client connects to."""
        return self.server.address(self.port)

    def kill(self) -> None:
        """Ends it as a crash would."""
        processes.kill(self.process)
        self.server.ended(cleanly=False)

    def start_again(self) -> None:
        """Starts it on the port and the data it had, and waits until it answers."""
        self.process = _launched(self.server, self.port)


@contextmanager
def running(servers: Sequence[LocalServer]) -> Generator[list[Running]]:
    """Starts servers at the same time: brokers answer when most of them are there. None survives the block."""
    for server in servers:
        server.make(quiet)
    started: list[Running] = []
    try:
        with ThreadPoolExecutor(max_workers=len(servers)) as all_:
            for done in [all_.submit(_start, server, started) for server in servers]:
                done.result()
        yield sorted(started, key=lambda one: servers.index(one.server))
    finally:
        for one in started:
            # Nothing of their data is wanted any more, and the last of three brokers takes a minute to end cleanly.
            one.kill()


def _start(server: LocalServer, started: list[Running]) -> None:
    port = ports.choose()
    started.append(Running(server, port, _launched(server, port)))


def _launched(server: LocalServer, port: int) -> psutil.Process:
    processes.renew_log(server.log)
    process = psutil.Process(server.launch(port))
    deadline = monotonic() + _READY_SECONDS
    while not (processes.listens(process, port) and server.answers(port)):
        log = processes.log_tail(server.log)
        if not processes.alive(process) or monotonic() > deadline:
            processes.kill(process)
            raise AssertionError(f"{server.name} on port {port} does not answer; its log ends:\n{log[-2000:]}")
        sleep(_POLL_SECONDS)
    return process
