"""Matching on real PostgreSQL: what is saved is what is loaded, and a round sees what it has to."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from schemas.matches import MatchBody, MatchConfirmed, MatchNotFound, MatchProposed, MatchReleased
from schemas.vocabulary import ConflictKind, DateWindow
from services.matching import store
from services.matching.app import service
from services.matching.store import Body
from services.runtime.database import Connection, Contention
from tests.conftest import OpenDatabase
from tests.matching.matching_builders import (
    NOW,
    TODAY,
    accepted,
    agency_accepts,
    agency_declines,
    amended,
    closed,
    declared,
    delivered,
    event,
    held,
    listed,
    partner_accepts,
    reopened,
    resumed,
    selected,
    suspended,
    unavailable,
    waived,
    withdrawn,
)

ROSTER = (selected("IACP"), selected("NOBLE"), listed("E1", "IACP"), listed("E2", "NOBLE"))


async def hear(db: Connection, *bodies: Body) -> Sequence[MatchBody]:
    """A batch of events as the runtime handles it: load, decide one by one, save."""
    decider = service().decider
    facts: list[MatchBody] = []
    async with db.transaction():
        events = [event(body) for body in bodies]
        known = await decider.load(db, events)
        done = store.Known()
        for one in events:
            changes, news = decider.decide(known, one)
            known.absorb(changes)
            done.absorb(changes)
            facts.extend(news)  # pyright: ignore[reportArgumentType]
        await decider.save(db, done)
    return facts


async def run_round(db: Connection, now: datetime = NOW) -> Sequence[MatchBody] | None:
    """A round as the runtime runs it, or None where there was nothing to do."""
    [matching] = service().rounds
    async with db.transaction():
        board = await matching.load(db, now)
        if board is None:
            return None
        changes, facts = matching.decide(board, now)
        await matching.save(db, changes)
    return facts  # pyright: ignore[reportReturnType]


async def test_a_request_goes_from_the_pool_to_a_confirmed_match(open_database: OpenDatabase) -> None:
    db = await open_database("matching")
    await hear(db, *ROSTER, accepted("R1"))
    [proposed] = await run_round(db) or ()
    assert isinstance(proposed, MatchProposed)
    assert proposed.match_id == "R1/m1"
    assert await hear(db, agency_accepts("R1/m1")) == []
    [confirmed] = await hear(db, partner_accepts("R1/m1", proposed.partner_id))
    assert isinstance(confirmed, MatchConfirmed)
    assert confirmed.expert_ids == (proposed.experts[0].expert_id,)
