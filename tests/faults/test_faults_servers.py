"""Kafka and PostgreSQL that go away while requests flow, cleanly or not."""

from pathlib import Path

import pytest

from deploy.local.servers import Name
from tests.faults.checker import findings
from tests.faults.ground import Ground, traffic


@pytest.mark.parametrize("end", ["stopped", "killed"])
@pytest.mark.parametrize("server", ["postgres", "kafka"])
async def test_a_server_that_went_away_and_came_back_has_cost_nothing(
    ground: Ground, tmp_path: Path, server: Name, end: str
) -> None:
    async with traffic(ground, f"{server}-{end}", tmp_path) as flow:
        await flow.reach(0.3)
        await (ground.kill_server(server) if end == "killed" else ground.stop_server(server))
        await ground.start_server(server)
        await ground.all_ready()
        await flow.end()
        assert await findings(ground.stack, flow.ledger) == []
        assert flow.simulation.world.rests()
