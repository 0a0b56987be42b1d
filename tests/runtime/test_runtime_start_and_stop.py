"""A worker starts or says in one sentence why not, and ends after SIGTERM whatever it is doing."""

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from time import time
from urllib.parse import urlsplit, urlunsplit

import pytest
from aiokafka import AIOKafkaProducer

from deploy.local import ports
from tests.driving import TREE, Worker, publish, until
from tests.runtime.stage import Stage

PASSWORD = "only-on-loopback"


async def _end(worker: Worker) -> None:
    assert await worker.stop() == 0
    assert "Traceback" not in worker.said()


@pytest.fixture
def nobody() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", ports.choose())) as server:
        yield server.getsockname()[1]


async def test_an_idle_worker_ends_leaves_its_group_and_hands_back_its_lease(own: Stage) -> None:
    worker = await own.start(session_timeout_ms=60_000, lease_seconds=60).ready()
    await own.say(own.event("k", 1))
    await own.settle()
    await _end(worker)
    # Were the group not left or the lease not handed back, the next one would wait for a minute.
    after = await own.start(session_timeout_ms=60_000, lease_seconds=60).ready(20)
    await own.say(own.event("k", 2))
    await own.settle()
    assert await own.counted("k") == "1 2"
    await _end(after)


async def test_a_worker_under_load_ends_and_the_next_goes_on_where_it_stopped(own: Stage) -> None:
    worker = await own.start(batch_events=50).ready()
    events = [own.event(f"k{key}", number) for number in range(1, 31) for key in range(100)]
    said = asyncio.create_task(publish(own.kafka, events))
    await until(lambda: own.fetch("SELECT FROM runtime.consumer_position WHERE applied > 100"), "it is at work")
    await _end(worker)
    await said
    after = await own.start().ready()
    await own.settle()
    await own.check()
    assert {row["total"] for row in await own.fetch("SELECT total FROM counted")} == {30}
    await _end(after)


async def test_a_worker_that_waits_for_kafka_says_so_and_ends(own: Stage) -> None:
    worker = own.start(kafka=f"127.0.0.1:{ports.choose()}")
    await until(lambda: _waits(worker, "Kafka"), "it says on /readyz that it waits for Kafka")
    assert '"waiting for Kafka' in worker.said()
    await _end(worker)


async def test_a_worker_that_waits_for_postgres_says_so_and_ends(own: Stage) -> None:
    worker = own.start(counting_database=_elsewhere(own, ports.choose()))
    await until(lambda: _waits(worker, "PostgreSQL"), "it says on /readyz that it waits for PostgreSQL")
    assert '"waiting for PostgreSQL' in worker.said()
    assert (await worker.get("/livez"))[0] == 200
    assert PASSWORD not in worker.said()
    await _end(worker)


async def test_a_worker_whose_servers_take_connections_and_say_nothing_ends(own: Stage, nobody: int) -> None:
    for settings in ({"kafka": f"127.0.0.1:{nobody}"}, {"counting_database": _elsewhere(own, nobody)}):
        worker = own.start(**settings)
        await until(partial(_listens, worker), "it has begun")
        await _end(worker)


def _elsewhere(own: Stage, port: int) -> str:
    url = urlsplit(own.database)
    return urlunsplit(url._replace(netloc=f"{url.username}:{PASSWORD}@127.0.0.1:{port}"))


async def _waits(worker: Worker, server: str) -> bool:
    return any(server in reason for reason in await worker.reasons())


async def test_what_can_never_work_ends_with_one_sentence(own: Stage) -> None:
    url = urlsplit(own.database)
    database = own.database
    place = f"{url.hostname}:{url.port}"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        wrong: list[tuple[dict[str, object], str]] = [
            ({"port": port}, f"FIELDBRIDGE_PORT is {port}"),
            ({"host": "nowhere.invalid"}, "FIELDBRIDGE_HOST is 'nowhere.invalid'"),
            ({"kafka": None}, "FIELDBRIDGE_KAFKA is not set"),
            ({"kafka": "localhost"}, "FIELDBRIDGE_KAFKA is 'localhost'"),
            ({"batch_events": "many"}, "FIELDBRIDGE_BATCH_EVENTS is 'many'"),
            ({"counting_database": None}, "FIELDBRIDGE_COUNTING_DATABASE is not set"),
            ({"counting_database": "mysql://x:secret@y/z"}, "FIELDBRIDGE_COUNTING_DATABASE is (hidden)"),
            ({"counting_database": database.replace("only-on-loopback", "wrong")}, "password authentication failed"),
            ({"counting_database": f"postgresql://nobody:x@{place}/x"}, "Check user and password"),
            ({"counting_database": database.rpartition("/")[0] + "/elsewhere"}, "does not exist"),
            ({"counting_database": "postgresql://u:secret@localhost:nan/x"}, "cannot be used"),
        ]
        workers = [(own.start(**settings), sentence) for settings, sentence in wrong]
        for worker, sentence in workers:
            assert await worker.ended(30) != 0
            _said_one_sentence(worker, sentence)


async def test_a_database_of_another_release_ends_the_worker_with_one_sentence(own: Stage) -> None:
    await _end(await own.start().ready())
    await own.fetch("UPDATE runtime.schema_version SET checksum = 'x' WHERE part = 'counting'")
    edited = own.start()
    assert await edited.ended() != 0
    _said_one_sentence(edited, "was edited after the database")
    await own.fetch("INSERT INTO runtime.schema_version VALUES ('runtime', 9999, '9999_later.sql', 'x')")
    newer = own.start()
    assert await newer.ended() != 0
    _said_one_sentence(newer, "was made by a newer release")


async def test_a_migration_that_the_database_refuses_ends_the_worker_with_one_sentence(own: Stage) -> None:
    await own.fetch("CREATE TABLE counted (mine text)")
    worker = own.start()
    assert await worker.ended() != 0
    _said_one_sentence(worker, "cannot be brought up to date")


def _said_one_sentence(worker: Worker, sentence: str) -> None:
    said = worker.said()
    assert "Traceback" not in said
    assert "secret" not in said
    *log, last = said.strip().splitlines()
    assert last.startswith("fieldbridge counting: ")
    assert sentence in last
    assert all(line.startswith("{") for line in log), said


async def test_a_worker_that_is_asked_to_end_while_it_starts_ends(own: Stage) -> None:
    for _ in range(3):
        worker = own.start()
        await until(partial(_listens, worker), "it has begun")
        await _end(worker)


async def _listens(worker: Worker) -> bool:
    return (await worker.get("/livez"))[0] == 200


def test_a_service_imports_no_library_that_belongs_to_another() -> None:
    listing = "import sys, tests.runtime.counting, services.runtime.worker; print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", listing], cwd=TREE, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert not loaded & {"ortools", "numpy", "pandas", "typer", "tzfpy"}


async def test_pages_say_how_the_worker_is(worker: Worker) -> None:
    ready = {"ready": True, "service": "counting", "pid": worker.pid, "reasons": []}
    assert json.loads((await worker.get("/readyz"))[1]) == ready
    assert json.loads((await worker.get("/livez"))[1]) == {"alive": True, "stalled": []}


async def test_topics_take_the_time_of_the_broker(own: Stage) -> None:
    """Retention goes by it: what a publisher with a wrong clock says is kept as long as all else."""
    await own.start().ready()
    began = int(time() * 1000)
    async with AIOKafkaProducer(bootstrap_servers=own.kafka) as producer:
        for name in ("submissions", "requests", "requests.dead"):
            told = await producer.send_and_wait(own.prefix + name, b"{}", timestamp_ms=0)
            assert began - 1000 <= told.timestamp <= int(time() * 1000) + 1000
