"""Services that are killed, restarted and overtaken while requests flow: nothing is lost, doubled or out of order."""

from pathlib import Path

from schemas.topics import SERVICES
from tests.faults.checker import findings
from tests.faults.ground import Ground, traffic

WRITTEN = {
    "reporting": "story",
    "scheduling": "runtime.outbox",
    "matching": "runtime.outbox",
    "intake": "runtime.outbox",
}
"""A table that each service writes in its transactions. Downstream first: whoever reads still has something to read."""


async def test_services_killed_in_the_midst_of_a_transaction_go_on_where_they_were(
    ground: Ground, tmp_path: Path
) -> None:
    async with traffic(ground, "killed", tmp_path) as flow:
        for nth, (service, table) in enumerate(WRITTEN.items(), 1):
            await flow.reach(nth / 6)
            async with ground.write_held_up(service, table):
                await ground.kill(service)
        await ground.start_missing()
        await flow.end()
        assert await findings(ground.stack, flow.ledger) == []
        assert flow.simulation.world.rests()


async def test_facts_on_their_way_when_kafka_dies_and_then_their_service_dies_still_arrive(
    ground: Ground, tmp_path: Path
) -> None:
    publishers = ("scheduling", "matching", "intake")
    async with traffic(ground, "silence", tmp_path) as flow:
        for nth, service in enumerate(publishers, 1):
            await flow.reach(nth / 6)
            await ground.execute(
                service,
                "UPDATE runtime.lease SET holder = 'nobody', epoch = epoch + 1, expires_at = now() + interval '4 min'",
            )
            await ground.until(service, "SELECT EXISTS (SELECT FROM runtime.outbox)")
        async with ground.no_kafka():
            for service in publishers:
                await ground.execute(service, "UPDATE runtime.lease SET expires_at = now()")
                await ground.until(service, "SELECT NOT EXISTS (SELECT FROM runtime.lease WHERE holder = 'nobody')")
                await ground.kill(service)
        await ground.start_missing()
        await flow.end()
        assert await findings(ground.stack, flow.ledger) == []
        assert flow.simulation.world.rests()


async def test_services_restarted_one_after_another_end_cleanly_and_lose_nothing(
    ground: Ground, tmp_path: Path
) -> None:
    async with traffic(ground, "rolling", tmp_path) as flow:
        await flow.reach(0.2)
        for service in SERVICES:
            assert await ground.stop(service) == 0, service
            await ground.start_missing()
        await flow.end()
        assert await findings(ground.stack, flow.ledger) == []
        assert flow.simulation.world.rests()


async def test_services_whose_positions_were_taken_by_a_newer_owner_join_anew_and_go_on(
    ground: Ground, tmp_path: Path
) -> None:
    async with traffic(ground, "fenced", tmp_path) as flow:
        for nth, service in enumerate(SERVICES, 1):
            await flow.reach(nth / 5)
            await ground.execute(service, "UPDATE runtime.consumer_position SET epoch = epoch + 1")
        await flow.end()
        assert await findings(ground.stack, flow.ledger) == []
        assert flow.simulation.world.rests()
