"""The command against the four services, real Kafka and real PostgreSQL."""

import asyncio
import json
import socket
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Any

import asyncpg
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from aiokafka.errors import NodeNotReadyError

from deploy.local import ports, servers
from schemas.topics import MATCHES, REQUESTS, SERVICES, SUBMISSIONS
from services.console import wire
from services.console.registry import SAMPLE
from services.console.stack import bring_up, fetch, pausing, take_down
from services.console.surroundings import Stack, Surroundings, read_record
from services.console.trouble import Trouble
from tests.console.conftest import Command
from tests.console.test_console_publishing import lines, withdrawal


@pytest.fixture(scope="module")
def surroundings(addresses: servers.Addresses, tmp_path_factory: pytest.TempPathFactory) -> Surroundings:
    run = uuid.uuid4().hex[:8]
    return Surroundings(
        home=tmp_path_factory.mktemp("console"),
        kafka=addresses.kafka,
        administrator=addresses.postgres,
        topic_prefix=f"console-{run}-",
        database_prefix=f"fbconsole_{run}",
    )


@pytest.fixture(scope="module")
def stack(surroundings: Surroundings) -> Iterator[Stack]:
    try:
        yield bring_up(surroundings, lambda _: None)
    finally:
        take_down(surroundings, lambda _: None)
        assert surroundings.administrator is not None
        asyncio.run(drop_databases(surroundings.administrator, surroundings.database_prefix))


async def drop_databases(administrator: str, prefix: str) -> None:
    connection = await asyncpg.connect(administrator)
    names = await connection.fetch("SELECT datname FROM pg_database WHERE starts_with(datname, $1)", prefix)
    for name in (row["datname"] for row in names):
        await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await connection.execute(f"DROP ROLE IF EXISTS {name}")
    await connection.close()


@pytest.fixture
def on_stack(fieldbridge: Command, stack: Stack, surroundings: Surroundings) -> Command:
    """Runs the command against the stack of these tests."""

    def run(*arguments: str, **more: Any) -> Any:
        assert stack.processes
        return fieldbridge(*arguments, FIELDBRIDGE_HOME=str(surroundings.home), **more)

    return run


@pytest.fixture
def registry(on_stack: Command) -> None:
    """The sample of agencies is in the registry."""
    assert on_stack("agencies", "import", str(SAMPLE)).returncode == 0


def request(request_id: str, ori: str) -> dict[str, Any]:
    today = datetime.now(UTC).date()
    return {
        "specversion": "1.0",
        "id": f"submission of {request_id}",
        "source": "/agencies/by-hand",
        "type": "request.submitted.v1",
        "time": datetime.now(UTC).isoformat(),
        "data": {
            "request_id": request_id,
            "actor": {"role": "agency_executive", "id": ori},
            "ori": ori,
            "terms": {
                "topics": ["officer-wellness"],
                "delivery_modes": ["virtual_coaching"],
                "window": {"first": str(today + timedelta(days=30)), "last": str(today + timedelta(days=90))},
            },
        },
    }


def test_a_list_of_agencies_is_imported_and_a_second_time_changes_nothing(
    on_stack: Command, registry: None, tmp_path: Path
) -> None:
    again = json.loads(on_stack("agencies", "import", str(SAMPLE), "--json").stdout)
    assert (again["added"], again["changed"], again["refused"]) == (0, 0, [])
    assert again["unchanged"] == len(SAMPLE.read_text().splitlines()) - 1

    rows = SAMPLE.read_text().splitlines()
    spoilt = tmp_path / "spoilt.csv"
    ori, _, rest = rows[2].split(",", 2)
    made = [rows[0], rows[1].replace(",", "?,", 1), rows[1] + ",surplus", f"{ori},Another Name,{rest}", rows[3]]
    spoilt.write_text("\n".join(made))
    done = on_stack("agencies", "import", str(spoilt), "--json")
    counts = json.loads(done.stdout)
    assert done.returncode == 1
    assert (counts["added"], counts["changed"], counts["unchanged"]) == (0, 1, 1)
    assert [refused["line"] for refused in counts["refused"]] == [2, 3]


def test_what_is_published_is_answered_and_its_story_told(on_stack: Command, registry: None) -> None:
    ori = SAMPLE.read_text().splitlines()[1].split(",")[0]
    taken = on_stack("publish", "-", "--wait", "--json", said=json.dumps(request("R-by-hand", ori)))
    assert taken.returncode == 0, taken.stderr
    assert [one["answer"] for one in json.loads(taken.stdout)] == ["taken"]

    again = on_stack("publish", "-", "--wait", "--json", said=json.dumps(request("R-by-hand", ori)))
    assert [one["answer"] for one in json.loads(again.stdout)] == ["taken"], "the answer is that to the first"

    refused = on_stack("publish", "-", "--wait", "--json", said=lines(withdrawal(1), withdrawal(2)))
    assert refused.returncode == 1
    assert [one["answer"] for one in json.loads(refused.stdout)] == ["refused", "refused"]
    assert all(one["reason"] for one in json.loads(refused.stdout))

    story: dict[str, Any] = json.loads(on_stack("story", "R-by-hand", "--json").stdout)
    assert [event["type"] for event in story["story"]] == ["request.information_requested.v1"]
    shown = on_stack("story", "R-by-hand").stdout
    assert "needs information" in shown
    assert "executive_support" in shown
    assert on_stack("story", "R-of-nobody").returncode == 1


def test_a_simulation_comes_to_rest_and_everything_is_accounted_for(
    on_stack: Command, registry: None, tmp_path: Path
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    arguments = ("--requests", "40", "--rate", "40", "--experts", "60", "--deliver", "--ledger", str(ledger))
    simulated = on_stack("simulate", "--run", "t", *arguments, "--json")
    assert simulated.returncode == 0, simulated.stderr
    result: dict[str, Any] = json.loads(simulated.stdout)
    assert sum(result["requests"].values()) == 40
    assert result["requests"]["closed"] > 20
    assert result["acknowledged"] == result["sent"] == len(ledger.read_text().splitlines())
    assert result["without_receipt"] == 0
    assert 0 < result["seconds_to_confirmed"]["p50"] <= result["seconds_to_confirmed"]["p99"]

    checked = on_stack("check", "--ledger", str(ledger), "--json")
    account: dict[str, Any] = json.loads(checked.stdout)
    assert (checked.returncode, account["findings"]) == (0, [])
    by_run = on_stack("check", "--json")
    assert sum(json.loads(by_run.stdout)["requests"].values()) >= 40


def test_the_checker_finds_what_is_missing_from_a_table_and_from_a_ledger(
    on_stack: Command, registry: None, stack: Stack, tmp_path: Path
) -> None:
    ori = SAMPLE.read_text().splitlines()[5].split(",")[0]
    assert on_stack("publish", "-", "--wait", said=json.dumps(request("R-to-lose", ori))).returncode == 0
    entry = {"source": "/lost", "id": "1", "topic": SUBMISSIONS.name, "partition": 0, "offset": 0}
    (tmp_path / "ledger").write_text(json.dumps(entry))
    lose = "UPDATE request SET step = 'cancelled' WHERE id = 'R-to-lose'"
    mend = "UPDATE request SET step = 'needs_information' WHERE id = 'R-to-lose'"
    asyncio.run(execute(stack.database("intake"), lose))
    try:
        found = on_stack("check", "--ledger", str(tmp_path / "ledger"), "--json")
    finally:
        asyncio.run(execute(stack.database("intake"), mend))
    assert found.returncode == 1
    findings = " ".join(json.loads(found.stdout)["findings"])
    assert "/lost 1 is not at 0/0" in findings
    assert "R-to-lose: intake says cancelled" in findings
    assert "Traceback" not in found.stderr


def test_what_cannot_be_handled_is_listed_shown_and_discarded(on_stack: Command, stack: Stack) -> None:
    asyncio.run(put_garbage(stack))
    assert on_stack("check", "--json").returncode == 0
    parked: list[dict[str, Any]] = json.loads(on_stack("parked", "list", "--json").stdout)
    assert {(one["service"], one["key"]) for one in parked} == {(service, "R-garbage") for service in REQUESTS.readers}
    first = parked[0]
    arguments = ("parked", "show", str(first["id"]), "--service", first["service"], "--json")
    assert "value" not in json.loads(on_stack(*arguments).stdout)
    assert json.loads(on_stack(*arguments, "--value").stdout)["value"] == "not an event"

    again = on_stack("parked", "redrive", "--key", "R-garbage", "--json")
    assert again.returncode == 1
    assert sum(one["parked_again"] for one in json.loads(again.stdout)) == len(REQUESTS.readers)
    gone = on_stack("parked", "discard", "--all", "--json")
    assert gone.returncode == 0
    assert sum(one["settled"] for one in json.loads(gone.stdout)) == len(REQUESTS.readers)
    assert json.loads(on_stack("parked", "list", "--json").stdout) == []
    assert "No such event" in on_stack("parked", "discard", "--key", "R-garbage").stderr
    assert on_stack("check", "--json").returncode == 0


@pytest.mark.parametrize("failures", [2, 1_000], ids=["another broker answers", "none answers"])
def test_a_broker_that_is_away_while_it_is_asked_is_asked_again(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    ask, away = AIOKafkaAdminClient.list_topics, iter(range(failures))

    async def list_topics(self: AIOKafkaAdminClient) -> Any:
        if next(away, None) is not None:
            raise NodeNotReadyError("node 3")
        return await ask(self)

    monkeypatch.setattr(AIOKafkaAdminClient, "list_topics", list_topics)
    monkeypatch.setattr(wire, "_CONNECT_SECONDS", 2.0)
    if failures < 10:
        assert SUBMISSIONS.name in asyncio.run(wire.topics_there(stack))
    else:
        with pytest.raises(Trouble, match=f"Kafka at {stack.kafka} does not answer .NodeNotReadyError."):
            asyncio.run(wire.topics_there(stack))


class _OfAnotherStack(BaseHTTPRequestHandler):
    """Answers as a service that is ready."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"ready": True, "service": "reporting", "pid": 1, "reasons": []}).encode())

    def log_request(self, code: object = "-", size: object = "-") -> None:
        return


@contextmanager
def silent() -> Generator[int]:
    """The port of somebody who listens and says nothing."""
    with socket.create_server((ports.LOOPBACK, 0)) as taken:
        yield taken.getsockname()[1]


@contextmanager
def service_of_another_stack() -> Generator[int]:
    """The port of a service that is ready, but is another stack's."""
    with HTTPServer((ports.LOOPBACK, 0), _OfAnotherStack) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("taker", [silent, service_of_another_stack], ids=["silent", "service of another stack"])
def test_a_service_that_was_paused_runs_again_though_its_port_is_taken(
    stack: Stack,
    surroundings: Surroundings,
    monkeypatch: pytest.MonkeyPatch,
    taker: Callable[[], AbstractContextManager[int]],
) -> None:
    said: list[str] = []
    with taker() as taken:
        choose, first = ports.choose, [taken]

        def taken_first(*wanted: int | None) -> int:
            return first.pop() if first else choose(*wanted)

        monkeypatch.setattr(ports, "choose", taken_first)
        with pausing(surroundings.home, "reporting", said.append):
            pass
    record = read_record(surroundings.home)
    assert record is not None
    assert any("was taken before reporting could listen" in line for line in said)
    assert fetch(record.process("reporting"), "/readyz")[0] == 200


def test_the_stack_tells_how_it_stands(on_stack: Command, stack: Stack) -> None:
    status: dict[str, Any] = json.loads(on_stack("status", "--json").stdout)
    assert [one["service"] for one in status["services"]] == list(SERVICES)
    assert all(one["running"] and one["ready"] for one in status["services"])
    topics: list[dict[str, Any]] = json.loads(on_stack("topics", "--json").stdout)
    assert {topic["topic"] for topic in topics} >= {stack.topic(SUBMISSIONS.name), stack.topic(REQUESTS.name)}
    assert json.loads(on_stack("migrate", "--json").stdout) == {service: [] for service in SERVICES}


def test_the_demonstration_accounts_for_everything_and_stops_what_it_started(
    fieldbridge: Command, addresses: servers.Addresses, tmp_path: Path
) -> None:
    settings = {"FIELDBRIDGE_KAFKA": addresses.kafka, "FIELDBRIDGE_POSTGRES": addresses.postgres}
    try:
        done = fieldbridge("demo", "--requests", "30", "--json", **settings)
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        assert told["findings"] == []
        assert sum(told["stand_at"].values()) == 30
        assert told["reached"]["confirmed"] > 10
        record = json.loads((tmp_path / "demo" / "stack.json").read_text())
        assert record["processes"] == {}
        assert "stays on the servers it was given: topics demo-" in done.stderr
    finally:
        asyncio.run(drop_databases(addresses.postgres, "fieldbridge_demo_"))


def test_what_the_tables_hold_is_shown_and_old_ids_go_when_asked(on_stack: Command, stack: Stack) -> None:
    long_ago = "INSERT INTO runtime.message_seen VALUES ('/long-ago', '1', now() - interval '201 days')"
    asyncio.run(execute(stack.database("intake"), long_ago))

    def ids_of_intake(*options: str) -> dict[str, Any]:
        shown = on_stack("retention", "--json", *options)
        assert shown.returncode == 0, shown.stderr
        kept: dict[str, Any] = json.loads(shown.stdout)
        assert list(kept) == list(SERVICES)
        (ids,) = [one for one in kept["intake"]["tables"] if one["table"] == "runtime.message_seen"]
        return ids | {"removed": kept["intake"]["removed"]}

    before = ids_of_intake()
    assert before["past"] == 1
    assert before["stays"] == "200 days"
    after = ids_of_intake("--now")
    assert (after["past"], after["rows"]) == (0, before["rows"] - 1)
    assert after["removed"] == before["removed"] + 1
    assert "runtime.message_seen" in on_stack("retention").stdout


def test_services_that_have_halted_read_on_once_a_person_has_looked(on_stack: Command, stack: Stack) -> None:
    asyncio.run(split_further(stack, MATCHES.name, 12))

    def reasons() -> dict[str, list[str]]:
        told: dict[str, Any] = json.loads(on_stack("status", "--json").stdout)
        return {one["service"]: one["reasons"] for one in told["services"] if one["reasons"]}

    deadline = monotonic() + 90
    while set(halted := reasons()) != set(MATCHES.readers):
        assert monotonic() < deadline, f"these have halted: {halted}"
    assert all("`fieldbridge positions`" in one for reasons in halted.values() for one in reasons)
    for service in MATCHES.readers:
        seen = on_stack("positions", service)
        assert seen.returncode == 1
        assert "partitions_changed" in seen.stdout
        assert f"positions {service} --move" in seen.stderr
        moved = on_stack("positions", service, "--move")
        assert moved.returncode == 0, moved.stderr
        now: dict[str, Any] = json.loads(on_stack("positions", service, "--json").stdout)
        assert {one["standing"] for one in now["positions"]} == {"in the log"}
    assert reasons() == {}
    assert on_stack("positions", "nobody").returncode == 1


async def split_further(stack: Stack, topic: str, partitions: int) -> None:
    administrator = AIOKafkaAdminClient(bootstrap_servers=stack.kafka)
    await administrator.start()
    await administrator.create_partitions({stack.topic(topic): NewPartitions(partitions)})
    await administrator.close()


async def execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


async def put_garbage(stack: Stack) -> None:
    async with wire.publisher(stack) as producer:
        sent = await producer.send(stack.topic(REQUESTS.name), value=b"not an event", key=b"R-garbage", headers=[])
        await sent
