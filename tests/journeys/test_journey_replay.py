"""Reporting can be made anew from the log."""

import json
import os
import subprocess
import sys
from typing import Any

import asyncpg

from services.console.surroundings import Surroundings
from tests.journeys.island import settle
from tests.journeys.outside import Outside


def replay(surroundings: Surroundings) -> tuple[int, dict[str, Any]]:
    """Exit status and answer of the command."""
    done = subprocess.run(
        [sys.executable, "-m", "services.console", "replay", "reporting", "--json"],
        env=os.environ | {"FIELDBRIDGE_HOME": str(surroundings.home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


async def test_reporting_made_anew_from_the_log_is_identical_and_makes_good_what_was_spoilt(
    outside: Outside, surroundings: Surroundings
) -> None:
    island = await settle(outside)
    case = await island.ask()
    plan = await case.planned()
    await case.approve(plan)
    await case.deliver(plan)
    await outside.rest()

    status, first = replay(surroundings)
    assert (status, first["identical"]) == (0, True)
    assert first["events"] > 0

    connection = await asyncpg.connect(outside.stack.database("reporting"))
    await connection.execute(
        "UPDATE request SET agency_name = 'Police of Nowhere' WHERE request_id = $1", case.request_id
    )
    await connection.execute("DELETE FROM receipt_count WHERE type = 'request.submitted.v1'")
    await connection.close()
    status, second = replay(surroundings)
    assert (status, second["identical"]) == (1, False)
    assert second["tables"] == first["tables"]
