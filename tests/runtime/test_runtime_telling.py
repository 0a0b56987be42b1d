"""What a worker tells: metrics in base units, structured logs without a word of what events said, traces."""

import asyncio
import json
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace

import asyncpg
import pytest
import structlog

from services.runtime import logs
from tests.driving import Worker, until
from tests.runtime.stage import Stage, type_of

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SECRET = "jane.doe@police.example"


async def test_promtool_finds_nothing_to_say_about_the_metrics(counting: Stage, worker: Worker) -> None:
    if (promtool := shutil.which("promtool")) is None:  # it is no Python package; continuous integration installs it
        pytest.skip("promtool is not installed; it comes with Prometheus")
    await counting.say(counting.event(counting.key(), 1))
    await counting.settle()
    _, page = await worker.get("/metrics")
    checking = [promtool, "check", "metrics"]
    done = await asyncio.to_thread(subprocess.run, checking, input=page, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


async def test_every_metric_says_what_it_is_and_names_no_key(counting: Stage, worker: Worker) -> None:
    key = counting.key()
    await counting.say(counting.event(key, 1), counting.event(key, 2, {"raise": SECRET}))
    await counting.settle()
    _, page = await worker.get("/metrics")
    families = set(re.findall(r"^# TYPE (\w+) ", page, re.MULTILINE))
    assert families == set(re.findall(r"^# HELP (\w+) \S+", page, re.MULTILINE))
    assert all(name.startswith("fieldbridge_") for name in families)
    assert not {name for name in families if re.search(r"_(ms|millis|minutes|kb|bytes_total)$", name)}
    assert f'"{key}"' not in page
    assert SECRET not in page


@pytest.mark.parametrize("lanes", [1, 2])
async def test_what_waits_is_told_while_the_pump_is_held_up(own: Stage, lanes: int) -> None:
    worker = await own.start(lanes=lanes).ready()
    key = own.key()
    await own.say(replace(own.event(key, 1), partition=3))
    await own.settle()
    assert await worker.metric("fieldbridge_lag_events", "requests") == 0
    assert await worker.metric("fieldbridge_lag_seconds", "requests") == 0

    async def told(events: int) -> bool:
        waiting = await worker.metric("fieldbridge_lag_events", "requests")
        age = await worker.metric("fieldbridge_lag_seconds", "requests")
        return waiting == events and age > 0 and await worker.metric("fieldbridge_position_age_seconds") > 0

    db = await asyncpg.connect(own.database)
    async with db.transaction():
        await db.execute("SELECT FROM counted WHERE key = $1 FOR UPDATE", key)
        for waiting in range(1, 4):
            await own.say(replace(own.event(key, waiting + 1), partition=3))
            await until(lambda waiting=waiting: told(waiting), f"the metrics tell that {waiting} wait and for how long")
    await db.close()
    await own.settle()
    assert await worker.metric("fieldbridge_lag_events", "requests") == 0
    assert await worker.metric("fieldbridge_lag_seconds", "requests") == 0


async def test_pages_that_hang_do_not_hold_up_what_moves_events(counting: Stage, worker: Worker) -> None:
    db = await asyncpg.connect(counting.database)
    async with db.transaction():
        await db.execute("LOCK TABLE runtime.parked IN ACCESS EXCLUSIVE MODE")
        hanging = [asyncio.create_task(worker.get("/parked", 30)) for _ in range(12)]
        scrapes = [asyncio.create_task(worker.get("/metrics", 30)) for _ in range(12)]
        key = counting.key()
        await counting.say(counting.event(key, 1))
        await until(lambda: counting.counted(key), "the event is applied although two dozen of these want the database")
        assert not any(page.done() for page in hanging)
    await db.close()
    assert {status for status, _ in await asyncio.gather(*hanging, *scrapes)} == {200}


async def test_metrics_are_told_while_the_database_does_not_answer(counting: Stage, worker: Worker) -> None:
    await counting.say(counting.event(counting.key(), 1, {"raise": SECRET}))
    await counting.settle()
    (there,) = await counting.fetch(
        "SELECT count(*) FROM runtime.parked WHERE topic = 'requests' AND reason = 'refused'"
    )
    parked = ("fieldbridge_parked", "refused", "requests")

    async def told() -> bool:
        return await worker.metric(*parked) == there["count"]

    await until(told, "what is parked is told")
    db = await asyncpg.connect(counting.database)
    async with db.transaction():
        await db.execute("LOCK TABLE runtime.parked IN ACCESS EXCLUSIVE MODE")
        pages = [asyncio.create_task(worker.get("/parked", 30)) for _ in range(2)]
        for _ in range(2):
            assert await worker.metric("fieldbridge_ready") == 1
            assert await worker.metric(*parked) == there["count"]
    await db.close()
    await asyncio.gather(*pages)


async def test_a_trace_goes_through_decisions_and_rounds(counting: Stage) -> None:
    key = counting.key()
    parent = f"00-{TRACE}-00f067aa0ba902b7-01"
    await counting.say(counting.event(key, 1, {"announce": True}, traceparent=parent))

    async def announced() -> bool:
        return "announced.v1" in [type_of(one) for one in await counting.facts(key)]

    await until(announced, "the round has announced the key")
    parents = [(dict(one.headers)["ce_traceparent"] or b"").decode() for one in await counting.facts(key)]
    spans = {one.split("-")[2] for one in [parent, *parents]}
    assert {one.split("-")[1] for one in parents} == {TRACE}
    assert len(spans) == 3


def test_a_failure_that_repeats_itself_is_logged_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("counting", "INFO", "json")
    try:
        relay, pump = logs.logger("relay"), logs.logger("pump")
        for _ in range(50):
            relay.warning("publishing failed", error="ConnectionError")
            relay.warning("publishing failed", error="TimeoutError")
            pump.warning("publishing failed", error="ConnectionError")
            relay.warning("leads no more")
    finally:
        structlog.reset_defaults()
        structlog.contextvars.clear_contextvars()
    said = Counter((line["part"], line.get("error")) for line in map(json.loads, capsys.readouterr().err.splitlines()))
    assert said == {
        ("relay", "ConnectionError"): 1,
        ("relay", "TimeoutError"): 1,
        ("pump", "ConnectionError"): 1,
        ("relay", None): 50,
    }


async def test_logs_are_structured_and_hold_no_word_of_an_event(counting: Stage, worker: Worker) -> None:
    key, loose = counting.key(), counting.key()
    await counting.say(
        counting.event(key, 1, {"raise": SECRET}),
        counting.event(counting.key(), 1, {"said": f"{SECRET}\x00"}),
        counting.event(counting.key(), 1, f'["{SECRET}"]'.encode()),
        counting.event(loose, None, f'{{"{SECRET}": '.encode(), topic="submissions"),
        replace(counting.event(key, 1), headers=[(SECRET, SECRET.encode())]),
    )
    await counting.settle()
    await counting.mark("redrive", [row["id"] for row in await counting.parked(key)])
    await counting.settle()
    said = worker.said()
    assert SECRET not in said
    lines = [json.loads(line) for line in said.splitlines()]
    assert all({"event", "level", "timestamp", "service"} <= line.keys() for line in lines)
    assert {line["reason"] for line in lines if line["event"] == "event parked"} >= {"refused", "unreadable"}
    details = await counting.fetch("SELECT detail FROM runtime.parked")
    assert not [row["detail"] for row in details if SECRET in row["detail"]]
