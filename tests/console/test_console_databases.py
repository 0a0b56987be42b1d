"""Commands that look into the services' databases, on databases that the test has filled."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from services.console import parked, replay
from services.console.surroundings import Stack, write_record
from services.reporting import store
from services.runtime import parking
from services.runtime.database import Connection
from services.runtime.records import Record

OpenDatabase = Callable[[str], Awaitable[Connection]]

NOON_MS = round(datetime(2026, 11, 24, 12, tzinfo=UTC).timestamp() * 1000)


async def test_projections_are_compared_though_that_takes_longer_than_a_statement_of_a_service_may(
    open_database: OpenDatabase,
) -> None:
    db = await open_database("reporting")
    await db.execute("INSERT INTO receipt_count SELECT n::text, 't', 'taken', 1 FROM generate_series(1, 100000) AS n")
    expected = await store.digest(db)
    await db.execute("SET statement_timeout = '20ms'")
    with pytest.raises(asyncpg.QueryCanceledError):
        await store.digest(db)
    assert await replay.digest_of(db) == expected
    assert await db.fetchval("SHOW statement_timeout") == "20ms"


@pytest.fixture
async def three_parked(
    open_database: OpenDatabase, database_urls: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[int]:
    """Ids of three events that intake has parked, on the stack that commands find."""
    db = await open_database("intake")
    records = [Record("submissions", 0, offset, b"R-1", b"?", (), NOON_MS) for offset in range(3)]
    async with db.transaction():
        await parking.park(db, [parking.Parked(one, "R-1", parking.REFUSED, "?") for one in records], "intake")
    write_record(tmp_path, Stack("127.0.0.1:1", databases=database_urls))
    monkeypatch.setenv("FIELDBRIDGE_HOME", str(tmp_path))
    return [row.id for row in await parking.list_parked(db)]


async def test_a_list_that_is_cut_says_how_many_more_are_parked(
    three_parked: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parked, "_MOST_LISTED", 2)
    await asyncio.to_thread(parked.list_, "intake", None, True)
    shown = capsys.readouterr()
    assert [one["id"] for one in json.loads(shown.out)] == three_parked[:2]
    assert "and 1 more of intake" in shown.err
    monkeypatch.setattr(parked, "_MOST_LISTED", 3)
    await asyncio.to_thread(parked.list_, "intake", "R-1", True)
    assert "more" not in capsys.readouterr().err


async def test_one_parked_event_is_shown_by_its_id(three_parked: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    await asyncio.to_thread(parked.show, three_parked[1], "intake", False, True)
    assert json.loads(capsys.readouterr().out)["offset"] == 1
