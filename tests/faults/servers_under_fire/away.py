"""F6 and F8: servers that are killed, end at once, or cannot be reached."""

import asyncio
import signal
from typing import Final

import psutil

from deploy.local import servers
from tests.driving import until
from tests.faults.scenario import Field, Scenario
from tests.faults.servers_under_fire.cluster import fully_replicated
from tests.faults.servers_under_fire.grounds import Clustered, Detoured
from tests.faults.servers_under_fire.proxy import CALM, Weather
from tests.faults.servers_under_fire.readiness import listening, recovers, told

UNREACHABLE_SECONDS: Final = 60.0
_LONGEST_AWAY_SECONDS: Final = 3.0
_TIMES: Final = 2


async def _broker_killed(field: Field) -> None:
    for _ in range(_TIMES):
        await asyncio.sleep(field.chance.uniform(0, 1))
        await field.ground.kill_server("kafka")
        seconds = field.chance.uniform(0, _LONGEST_AWAY_SECONDS)
        await asyncio.sleep(seconds)
        await field.ground.start_server("kafka")
        await recovers(field, f"Kafka killed and away for {seconds:.1f} s and its start")


async def _postgres_killed(field: Field) -> None:
    for how in field.chance.sample(["killed", "ended at once", "killed", "ended at once"], 2 * _TIMES):
        await asyncio.sleep(field.chance.uniform(0, 1))
        if how == "killed":
            await field.ground.kill_server("postgres")
        else:
            await _end_at_once(field)
        await asyncio.sleep(field.chance.uniform(0, _LONGEST_AWAY_SECONDS))
        await field.ground.start_server("postgres")
        await recovers(field, f"PostgreSQL {how}")


async def _end_at_once(field: Field) -> None:
    """What `pg_ctl stop -m immediate` does: no session ends cleanly, and the start after it is a crash recovery."""
    pid = servers.pid(field.ground.machine, "postgres")
    assert pid is not None, "PostgreSQL does not run"
    process = psutil.Process(pid)
    process.send_signal(signal.SIGQUIT)
    await asyncio.to_thread(process.wait, 30)


async def _kafka_unreachable(field: Field) -> None:
    ground = field.ground
    assert isinstance(ground, Detoured), "the scenario needs a detour"
    async with listening(ground) as readiness:
        await ground.kafka_way.turn(Weather(refusing=True))
        await asyncio.sleep(UNREACHABLE_SECONDS)
    told(field, readiness, "Kafka does not answer")
    # Such a process would be restarted, by whoever asks /livez or by its own watchdog.
    field.found += [
        f"while Kafka was away, {service} looked as if it hung"
        for service in ground.stack.processes
        if readiness.first(service, "makes no progress") is not None
    ]
    await ground.kafka_way.turn(CALM)
    await recovers(field, f"{UNREACHABLE_SECONDS:.0f} s without Kafka")
    await ground.all_ready()


async def _broker_of_three_killed(field: Field) -> None:
    """Each broker in turn. While one is lost, requests are to go on."""
    ground = field.ground
    assert isinstance(ground, Clustered), "the scenario needs three brokers"
    for broker in field.chance.sample(ground.brokers, len(ground.brokers)):
        await asyncio.to_thread(broker.kill)
        # The same measure as elsewhere: with two brokers left, the fault counts as ended once one is lost.
        await recovers(field, "the loss of one broker of three")
        await asyncio.to_thread(broker.start_again)

        async def replicated() -> bool:
            return await fully_replicated(ground.stack)

        await until(replicated, "every partition has its three replicas again", 90)


BROKER_KILLED: Final = Scenario(
    fault="F6",
    name="kafka-killed",
    sentence="The only broker is killed (SIGKILL) and started again after up to 3 s, twice",
    inject=_broker_killed,
)
ONE_OF_THREE_KILLED: Final = Scenario(
    fault="F6",
    name="one-of-three-brokers-killed",
    sentence="Each of three brokers is killed (SIGKILL) in turn; the other two go on, and it comes back",
    inject=_broker_of_three_killed,
)
KAFKA_UNREACHABLE: Final = Scenario(
    fault="F6",
    name="kafka-unreachable",
    sentence="Services cannot connect to Kafka for a minute, while other systems go on publishing to it",
    inject=_kafka_unreachable,
    alert="ServiceNotReady",
)
POSTGRES_KILLED: Final = Scenario(
    fault="F8",
    name="postgres-killed",
    sentence="PostgreSQL is killed (SIGKILL) and ended at once (SIGQUIT) in turn, and started again after up to 3 s",
    inject=_postgres_killed,
)
