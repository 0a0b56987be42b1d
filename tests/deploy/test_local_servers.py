"""Real Kafka and real PostgreSQL, started and hurt the way a machine does it."""

# aiokafka ships no types
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from deploy.local import kafka, ports, postgres, processes, servers
from deploy.local.servers import Addresses, ServerDidNotStart

SERVICES = ("intake", "scheduling")
_T = TypeVar("_T")


def say_nothing(_: str) -> None:
    """Tests read results, not progress."""


def run(work: Coroutine[Any, Any, _T]) -> _T:
    return asyncio.run(work)


def start(folder: Path) -> Addresses:
    """Both servers on ports of their own, so that whatever else this machine runs is no concern of a test."""
    return servers.start(
        folder, say=say_nothing, kafka_port=ports.choose(), postgres_port=ports.choose(), durable=False
    )


@contextmanager
def listening() -> Generator[int]:
    """A port that somebody else has taken."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """Running servers in a folder with a space and a comma, deeper than the path of a unix socket may be."""
    place = tmp_path_factory.mktemp("servers") / "a folder, with spaces" / ("deep" * 30) / ".fieldbridge"
    start(place)
    yield place
    servers.stop(place, say=say_nothing)


@pytest.fixture
def up(folder: Path) -> Addresses:
    """The addresses of the shared servers, brought back if a test left one of them dead."""
    return servers.start(folder, say=say_nothing)


async def write(address: str, topic: str, value: bytes) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, 1)])
    finally:
        await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=address, enable_idempotence=True)
    await producer.start()
    try:
        await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


async def first_of(address: str, topic: str) -> bytes | None:
    consumer = AIOKafkaConsumer(bootstrap_servers=address, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, 0)])
        async with asyncio.timeout(30):
            return (await consumer.getone()).value
    finally:
        await consumer.stop()


async def ask(url: str, question: str) -> Any:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


def test_start_uses_what_runs_already(folder: Path, up: Addresses) -> None:
    before = (servers.pid(folder, "kafka"), servers.pid(folder, "postgres"))
    assert start(folder) == up == servers.running(folder)
    assert before == (servers.pid(folder, "kafka"), servers.pid(folder, "postgres"))


def test_addresses_are_written_for_this_account_only(folder: Path, up: Addresses) -> None:
    written = folder / "servers.json"
    assert written.stat().st_mode & 0o777 == 0o600
    records = json.loads(written.read_text())
    assert (records["kafka"]["address"], records["postgres"]["address"]) == (up.kafka, up.postgres)
    assert records["kafka"]["pid"] == servers.pid(folder, "kafka")


def test_both_listen_on_loopback_only(folder: Path, up: Addresses) -> None:
    for name in ("kafka", "postgres"):
        pid = servers.pid(folder, name)
        assert pid is not None
        listening_on = {c.laddr.ip for c in psutil.Process(pid).net_connections() if c.status == psutil.CONN_LISTEN}
        assert {address.removeprefix("::ffff:") for address in listening_on} == {"127.0.0.1"}


def test_postgres_runs_in_utc_and_asks_for_the_password(up: Addresses) -> None:
    assert run(ask(up.postgres, "SHOW timezone")) == "UTC"
    stranger = postgres.database_url(up.postgres.rpartition("@")[2].split("/")[0], "fieldbridge", "wrong", "postgres")
    with pytest.raises(asyncpg.InvalidPasswordError):
        run(ask(stranger, "SELECT 1"))


def test_a_killed_broker_comes_back_with_its_data_on_its_port(folder: Path, up: Addresses) -> None:
    run(write(up.kafka, "kept", b"an event"))
    servers.kill(folder, "kafka")
    assert servers.running(folder) is None
    assert servers.start_again(folder, "kafka", say=say_nothing) == up
    assert run(first_of(up.kafka, "kept")) == b"an event"


def test_a_killed_postgres_comes_back_with_its_data_on_its_port(folder: Path, up: Addresses) -> None:
    run(ask(up.postgres, "CREATE TABLE kept AS SELECT 42 AS answer"))
    servers.kill(folder, "postgres")
    assert servers.running(folder) is None
    assert servers.start_again(folder, "postgres", say=say_nothing) == up
    assert run(ask(up.postgres, "SELECT answer FROM kept")) == 42


def test_postgres_comes_back_though_its_children_outlived_it(folder: Path, up: Addresses) -> None:
    pid = servers.pid(folder, "postgres")
    assert pid is not None
    children = psutil.Process(pid).children()
    children[0].suspend()  # this one cannot notice that its parent is gone, and holds on to the shared memory
    os.kill(pid, signal.SIGKILL)
    assert servers.start(folder, say=say_nothing) == up
    assert not children[0].is_running() or children[0].status() == psutil.STATUS_ZOMBIE


def test_a_killed_server_is_nobodys_zombie(folder: Path, up: Addresses) -> None:
    servers.kill(folder, "kafka")
    assert [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE] == []


def test_a_paused_server_does_not_count_as_running_until_resumed(folder: Path, up: Addresses) -> None:
    for name in ("kafka", "postgres"):
        servers.pause(folder, name)
        assert servers.pid(folder, name) is not None
        assert servers.running(folder) is None
        servers.resume(folder, name)
        assert servers.running(folder) == up


def test_a_broken_aot_cache_does_not_prevent_a_start(folder: Path, up: Addresses) -> None:
    cached = list((kafka.find_cache(folder) / f"kafka-{kafka.VERSION}").glob("broker-*.aot"))
    if not cached:  # the first broker of this account writes it when it ends
        servers.stop(folder, say=say_nothing)
        cached = list((kafka.find_cache(folder) / f"kafka-{kafka.VERSION}").glob("broker-*.aot"))
    assert len(cached) == 1
    whole, broken = cached[0].with_suffix(".whole"), cached[0].with_suffix(".broken")
    shutil.copyfile(cached[0], whole)
    content = bytearray(cached[0].read_bytes())
    content[5_000_000:15_000_000] = os.urandom(10_000_000)
    broken.write_bytes(content)
    servers.kill(folder, "kafka")
    try:
        broken.replace(cached[0])  # never written in place: other brokers of this machine may have mapped it
        assert servers.start(folder, say=say_nothing) == up
    finally:
        whole.replace(cached[0])


def test_stop_ends_both_keeps_the_data_and_may_be_repeated(folder: Path, up: Addresses) -> None:
    run(ask(up.postgres, "CREATE TABLE stopped AS SELECT 1 AS one"))
    pids = [servers.pid(folder, name) for name in ("kafka", "postgres")]
    servers.stop(folder, say=say_nothing)
    servers.stop(folder, say=say_nothing)
    assert servers.running(folder) is None
    assert not any(pid is not None and psutil.pid_exists(pid) and _runs(pid) for pid in pids)
    assert servers.start(folder, say=say_nothing) == up
    assert run(ask(up.postgres, "SELECT one FROM stopped")) == 1


def _runs(pid: int) -> bool:
    return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_process_that_was_given_a_servers_old_number_is_left_alone(folder: Path, up: Addresses) -> None:
    servers.stop(folder, say=say_nothing)
    written = folder / "servers.json"
    records = json.loads(written.read_text())
    with subprocess.Popen(["sleep", "600"]) as stranger:
        records["kafka"]["pid"] = records["postgres"]["pid"] = stranger.pid
        written.write_text(json.dumps(records))
        assert servers.running(folder) is None
        servers.kill(folder, "kafka")
        servers.stop(folder, say=say_nothing)
        assert stranger.poll() is None
        stranger.kill()
    assert servers.start(folder, say=say_nothing) == up


def test_a_port_that_was_taken_meanwhile_is_exchanged(folder: Path, up: Addresses) -> None:
    servers.kill(folder, "kafka")
    port = int(up.kafka.rpartition(":")[2])
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(ServerDidNotStart, match=f"Port {port}"):
            servers.start_again(folder, "kafka", say=say_nothing)
        moved = servers.start(folder, say=say_nothing)
    assert moved.kafka != up.kafka
    assert moved.postgres == up.postgres
    run(write(moved.kafka, "moved", b"still a broker"))


def test_servers_of_another_folder_that_took_the_ports_first_are_not_taken_for_ones_own(
    up: Addresses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two starts may both have found a port free; the broker that answers there may then be the other's."""
    kafka_port, postgres_port = int(up.kafka.rpartition(":")[2]), int(urlsplit(up.postgres).port or 0)
    taken = [kafka_port, postgres_port]
    is_free = ports.is_free

    def free_when_first_asked(port: int) -> bool:
        if port in taken:
            taken.remove(port)
            return True
        return is_free(port)

    monkeypatch.setattr(ports, "is_free", free_when_first_asked)
    try:
        found = servers.start(
            tmp_path, say=say_nothing, kafka_port=kafka_port, postgres_port=postgres_port, durable=False
        )
        assert taken == []
        assert found.kafka != up.kafka
        assert urlsplit(found.postgres).port != postgres_port
        assert servers.running(tmp_path) == found
    finally:
        servers.stop(tmp_path, say=say_nothing)
    assert run(ask(up.postgres, "SELECT 1")) == 1
    run(write(up.kafka, "untouched", b"still here"))


def test_a_server_that_nobody_wrote_down_is_replaced(folder: Path, up: Addresses) -> None:
    (folder / "servers.json").unlink()
    orphan = servers.pid(folder, "kafka")
    assert orphan is not None
    start(folder)
    assert servers.pid(folder, "kafka") not in (None, orphan)
    assert not psutil.pid_exists(orphan) or not _runs(orphan)


def test_two_starts_at_once_share_the_servers(tmp_path: Path) -> None:
    place = tmp_path / "once"
    program = (
        "import sys; from pathlib import Path; from deploy.local import servers; "
        "found = servers.start(Path(sys.argv[1]), say=lambda _: None, durable=False); "
        "print(found.kafka, found.postgres)"
    )
    with listening() as kafka_port, listening() as postgres_port:
        assert kafka_port != postgres_port
        command = [sys.executable, "-c", program, str(place)]
        root = Path(servers.__file__).parents[2]
        both = [subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        said = [one.communicate()[0] for one in both]
    try:
        assert [one.returncode for one in both] == [0, 0]
        assert said[0] == said[1]
        found = servers.running(place)  # after both starters are gone
        assert found is not None
        assert said[0].split() == [found.kafka, found.postgres]
    finally:
        servers.stop(place, say=say_nothing)


def test_half_made_data_is_made_again_and_taken_ports_avoided(tmp_path: Path) -> None:
    for half in ("kafka/data", "kafka/data.new", "postgres/data", "postgres/data.new"):
        (tmp_path / half).mkdir(parents=True)
        (tmp_path / half / "PG_VERSION").write_text("18\n")
    with listening() as kafka_port, listening() as postgres_port:
        try:
            found = servers.start(
                tmp_path, say=say_nothing, kafka_port=kafka_port, postgres_port=postgres_port, durable=False
            )
            assert str(kafka_port) not in found.kafka
            assert f":{postgres_port}/" not in found.postgres
            assert run(ask(found.postgres, "SELECT 1")) == 1
        finally:
            servers.stop(tmp_path, say=say_nothing)


def test_without_a_network_the_first_start_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(ServerDidNotStart, match="could not be downloaded") as refused:
        start(tmp_path / "servers")
    assert "\n" not in str(refused.value)
    assert servers.pid(tmp_path / "servers", "postgres") is None


def test_a_server_that_fails_says_what_failed_and_where_to_look(folder: Path, up: Addresses) -> None:
    servers.stop(folder, say=say_nothing)
    control = folder / "postgres" / "data" / "global" / "pg_control"
    whole = control.read_bytes()
    control.write_bytes(b"x" * len(whole))
    try:
        with pytest.raises(ServerDidNotStart) as refused:
            servers.start(folder, say=say_nothing)
        assert "PostgreSQL did not start" in str(refused.value)
        assert str(folder / "postgres" / "postgres.log") in str(refused.value)
        assert "\n" not in str(refused.value)
        assert servers.pid(folder, "kafka") is None
    finally:
        control.write_bytes(whole)


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ServerDidNotStart) as refused:
        start(tmp_path / "file" / "servers")
    assert str(tmp_path / "file") in str(refused.value)


def test_a_full_disk_is_named_as_such() -> None:
    assert "is full" in processes.explain(OSError(28, "No space left on device"), Path("servers"))


class TestProvision:
    """A database per service, closed to the others."""

    async def _provision(self, up: Addresses, prefix: str, secret: str = "p@ss/word") -> dict[str, str]:
        return await postgres.provision(up.postgres, SERVICES, lambda service: f"{secret} {service}", prefix)

    def test_each_service_owns_its_database(self, up: Addresses) -> None:
        urls = run(self._provision(up, "owns"))
        assert run(ask(urls["intake"], "SELECT current_user || ' ' || current_database()")) == "owns_intake owns_intake"
        run(ask(urls["scheduling"], "CREATE EXTENSION btree_gist"))

    def test_settings_of_the_role_hold_in_its_sessions(self, up: Addresses) -> None:
        url = run(self._provision(up, "settings"))["intake"]
        expected = {
            "plan_cache_mode": "force_custom_plan",
            "idle_in_transaction_session_timeout": "1min",
            "lock_timeout": "10s",
            "statement_timeout": "1min",
        }
        assert {name: run(ask(url, f"SHOW {name}")) for name in expected} == expected

    def test_one_service_cannot_connect_to_anothers_database(self, up: Addresses) -> None:
        urls = run(self._provision(up, "closed"))
        crossed = urls["intake"].removesuffix("closed_intake") + "closed_scheduling"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            run(ask(crossed, "SELECT 1"))

    def test_again_and_at_once_changes_only_the_password(self, up: Addresses) -> None:
        urls = run(self._provision(up, "again"))
        run(ask(urls["intake"], "CREATE TABLE kept AS SELECT 1 AS one"))

        async def twice() -> list[dict[str, str]]:
            return await asyncio.gather(*(self._provision(up, "again", "new") for _ in range(2)))

        renewed = run(twice())[0]
        assert run(ask(renewed["intake"], "SELECT one FROM kept")) == 1
        with pytest.raises(asyncpg.InvalidPasswordError):
            run(ask(urls["intake"], "SELECT 1"))

    def test_an_administrator_without_superuser_rights_can_provision(self, up: Addresses) -> None:
        run(ask(up.postgres, "CREATE ROLE plain LOGIN CREATEDB CREATEROLE PASSWORD 'plain'"))
        plain = Addresses(up.kafka, up.postgres.replace(up.postgres.split("@")[0], "postgresql://plain:plain"))
        urls = run(self._provision(plain, "managed"))
        urls = run(self._provision(plain, "managed"))
        assert run(ask(urls["intake"], "SELECT 1")) == 1

    def test_a_name_that_postgres_would_cut_is_refused(self, up: Addresses) -> None:
        with pytest.raises(ValueError, match="longer"):
            run(self._provision(up, "x" * 60))

    def test_the_containers_script_does_the_same(self, up: Addresses) -> None:
        psql = postgres.find_programs(None).path("psql")
        server, _, secret = up.postgres.removeprefix("postgresql://fieldbridge:").partition("@")[::-1]
        host, port = server.split("/")[0].split(":")
        env = {
            "PATH": f"{Path(psql).parent}:/usr/bin:/bin",
            "PGHOST": host,
            "PGPORT": port,
            "PGPASSWORD": secret,
            "POSTGRES_USER": "fieldbridge",
            "POSTGRES_DB": "postgres",
            "FIELDBRIDGE_PROVISION_SQL": str(postgres.PROVISION_SQL),
            **{f"FIELDBRIDGE_{name}_PASSWORD": "it's a ${secret} \\ :x" for name in
               ("INTAKE", "MATCHING", "SCHEDULING", "REPORTING")},
        }  # fmt: skip
        script = postgres.PROVISION_SQL.with_name("init.sh")
        for _ in range(2):
            done = subprocess.run(["/bin/sh", str(script)], env=env, capture_output=True, text=True, check=False)
            assert done.stderr == ""
            assert done.returncode == 0
        url = postgres.database_url(
            f"{host}:{port}", "fieldbridge_intake", "it's a ${secret} \\ :x", "fieldbridge_intake"
        )
        assert run(ask(url, "SHOW plan_cache_mode")) == "force_custom_plan"
