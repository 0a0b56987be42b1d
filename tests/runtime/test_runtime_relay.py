"""The relay, where the brokers take some facts and refuse others."""

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from tests.driving import read_log, until
from tests.runtime.stage import Stage

_LARGE = "x" * 5_000


async def _limit_dead_letters(own: Stage, size: int) -> None:
    """Has the brokers refuse dead letters above this size."""
    administrator = AIOKafkaAdminClient(bootstrap_servers=own.kafka)
    await administrator.start()
    try:
        topic = ConfigResource(
            ConfigResourceType.TOPIC, own.prefix + "requests.dead", configs={"max.message.bytes": str(size)}
        )
        await administrator.alter_configs([topic])
    finally:
        await administrator.close()


async def test_what_a_broker_refuses_holds_up_nothing_else_and_has_nothing_else_repeated(own: Stage) -> None:
    worker = await own.start().ready()
    await _limit_dead_letters(own, 2_000)
    await own.say(own.event("refused", 1, {"raise": "too much", "why": _LARGE}), own.event("before", 1))

    async def refused(times: int) -> bool:
        return await worker.metric("fieldbridge_relay_failures_total") >= times

    await until(lambda: refused(2), "the broker has refused the dead letter twice")
    await own.say(own.event("after", 1))

    async def heard() -> bool:
        return await own.totals("after") == [1]

    await until(heard, "what was decided later is published all the same")
    await until(lambda: refused(4), "the broker has refused the dead letter four times")
    log = await read_log(own.kafka, own.prefix + "matches")
    assert [one.key for one in log] == [b"before", b"after"], "each fact once"
    assert len(await own.fetch("SELECT FROM runtime.outbox")) == 1, "only the dead letter waits"

    await _limit_dead_letters(own, 1_000_000)
    await own.settle()
    (dead,) = await read_log(own.kafka, own.prefix + "requests.dead")
    assert _LARGE.encode() in (dead.value or b"")
    assert await worker.stop() == 0
