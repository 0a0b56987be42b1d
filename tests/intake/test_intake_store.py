"""Intake on real PostgreSQL: what is loaded is what was saved, and nothing is doubled."""

import csv
import time
from pathlib import Path

from services.intake.decisions.registry import Agency, read_row
from services.intake.store import import_agencies


async def test_smoke(open_database):
    db = await open_database("intake")
    rows = [read_row(n, r) for n, r in enumerate(csv.DictReader(Path("/work/shared/data/agencies.csv").open()), 2)]
    good = [r for r in rows if isinstance(r, Agency)]
    print(len(rows), len(good), [r for r in rows if not isinstance(r, Agency)][:5])
    for _ in range(2):
        t = time.time()
        async with db.transaction():
            print(await import_agencies(db, good), time.time() - t)
    from services.intake import app
    from schemas.envelope import Envelope
    from services.runtime.service import Event
    from schemas import submissions as s
    from datetime import datetime, UTC
    import json

    b = dict(
        request_id="R1",
        actor=dict(role="agency_executive", id="AK0010100"),
        ori="AK0010100",
        terms=dict(
            topics=["training"],
            delivery_modes=["web_based_training"],
            window=dict(first="2027-01-01", last="2027-03-01"),
        ),
        executive_support=dict(signed_on="2026-10-01", reference="x"),
        sensitive=dict(executive=dict(office="Chief"), point_of_contact=dict(office="Lt")),
    )
    env = Envelope("1", "s", "request.submitted.v1", "R1", datetime.now(UTC))
    ev = Event("submissions", env, app.read_submission(env, json.dumps(b).encode()), datetime.now(UTC))
    svc = app.service()
    known = await svc.decider.load(db, [ev])
    ch, facts = svc.decider.decide(known, ev)
    for f in facts:
        print(f.TYPE, f.model_dump_json())
    await svc.decider.save(db, ch)
    known = await svc.decider.load(db, [ev])
    print(known)
    print(await db.fetch("select * from request"), await db.fetch("select * from open_topic"))
