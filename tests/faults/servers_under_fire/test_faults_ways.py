"""What the scenarios rely on: ways break where they are told to, and clocks show what they are told to."""

import asyncio
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from deploy.local import servers
from tests.faults.servers_under_fire import clocks
from tests.faults.servers_under_fire.proxy import CALM, Cut, Way, Weather, way_to


def _over(way: Way, url: str) -> str:
    place = urlsplit(url)
    return place._replace(netloc=f"{place.username}:{place.password}@{place.hostname}:{way.port}").geturl()


@pytest.mark.parametrize(("cut", "committed"), [(Cut.BEFORE_THE_SERVER, False), (Cut.BEFORE_THE_CLIENT, True)])
async def test_a_commit_is_cut_on_either_side_of_the_server(
    addresses: servers.Addresses, cut: Cut, committed: bool
) -> None:
    judge = await asyncpg.connect(addresses.postgres)
    table = f"cut_{cut.name.lower()}"
    await judge.execute(f"CREATE TABLE {table} (n int)")
    try:
        with way_to(urlsplit(addresses.postgres).port or 5432) as way:
            client = await asyncpg.connect(_over(way, addresses.postgres))
            way.cut_commits(lambda: cut)
            with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)):
                async with client.transaction():
                    await client.execute(f"INSERT INTO {table} VALUES (1)")
            assert (way.commits, way.cuts) == (1, 1)
        assert bool(await judge.fetchval(f"SELECT count(*) FROM {table}")) is committed
    finally:
        await judge.execute(f"DROP TABLE {table}")
        await judge.close()


async def test_what_a_silent_way_held_back_arrives_when_it_speaks_again(addresses: servers.Addresses) -> None:
    with way_to(urlsplit(addresses.postgres).port or 5432) as way:
        client = await asyncpg.connect(_over(way, addresses.postgres))
        await way.turn(Weather(silent=True))
        asking = asyncio.create_task(client.fetchval("SELECT 42"))
        done, _ = await asyncio.wait([asking], timeout=0.5)
        assert not done
        await way.turn(CALM)
        assert await asyncio.wait_for(asking, 10) == 42
        await client.close()


async def test_a_refusing_way_lets_nobody_in_and_cuts_off_who_was(addresses: servers.Addresses) -> None:
    with way_to(urlsplit(addresses.postgres).port or 5432) as way:
        client = await asyncpg.connect(_over(way, addresses.postgres))
        await way.turn(Weather(refusing=True))
        with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)):
            await client.fetchval("SELECT 1")
        with pytest.raises(OSError):
            await asyncpg.connect(_over(way, addresses.postgres))
        await way.turn(CALM)
        again = await asyncpg.connect(_over(way, addresses.postgres))
        await again.close()


def test_the_made_up_zone_has_its_summer_time_between_two_moments() -> None:
    begins = datetime(2026, 11, 24, 23, 59, 50, tzinfo=UTC)
    ends = begins + timedelta(seconds=20)
    moments = [begins + timedelta(seconds=seconds) for seconds in (-1, 0, 19, 20)]
    code = "import sys, time; print(*(time.localtime(int(moment)).tm_isdst for moment in sys.argv[1:]))"
    ran = subprocess.run(
        [sys.executable, "-c", code, *(str(int(moment.timestamp())) for moment in moments)],
        env=os.environ | {"TZ": clocks.zone(begins, ends)},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert ran.stdout.split() == ["0", "1", "1", "0"]


def test_clockwork_shows_another_wall_clock_and_the_same_monotonic_one(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("-90000")
    code = (
        "import time; from datetime import UTC, datetime; from zoneinfo import ZoneInfo;"
        "print(time.time(), datetime.now(UTC).timestamp(), datetime.now(ZoneInfo('Asia/Tokyo')).timestamp(),"
        " isinstance(datetime.fromisoformat('2026-01-01'), datetime), time.monotonic())"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(clocks.CLOCKWORK), "FIELDBRIDGE_CLOCK": str(clock)},
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    *shown, is_datetime, _ = ran.stdout.split()
    expected = datetime.now(UTC).timestamp() - 90_000
    assert all(abs(float(seconds) - expected) < 60 for seconds in shown)
    assert is_datetime == "True"
