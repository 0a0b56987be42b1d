"""Of what its topics tell, each service reads what concerns it, and passes over the rest."""

import json
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import pytest

from schemas.envelope import Envelope
from services.console.contract import BODIES
from services.runtime.service import Service

PASSED_OVER = {
    "intake": {
        "engagement.planned.v1",
        "engagement.replanned.v1",
        "engagement.not_plannable.v1",
        "engagement.confirmed.v1",
        "session.moved.v1",
        "session.cancelled.v1",
        "engagement.delivered.v1",
        "follow_up.due.v1",
    },
    "matching": {
        "request.information_requested.v1",
        "request.referred_out.v1",
        "request.declined.v1",
        "plan.approved.v1",
        "plan.cleared.v1",
        "plan.changes_requested.v1",
        "session.reported.v1",
        "evaluation.returned.v1",
        "clock.warned.v1",
        "clock.breached.v1",
        "engagement.planned.v1",
        "engagement.replanned.v1",
        "engagement.confirmed.v1",
        "session.moved.v1",
        "session.cancelled.v1",
        "follow_up.due.v1",
    },
    "scheduling": {
        "request.information_requested.v1",
        "request.referred_out.v1",
        "request.declined.v1",
        "proposal.accepted.v1",
        "proposal.declined.v1",
        "offer.accepted.v1",
        "offer.declined.v1",
        "clock.warned.v1",
        "clock.breached.v1",
        "match.proposed.v1",
        "match.not_found.v1",
        "expert.retired.v1",
        "partner.selected.v1",
        "partner.suspended.v1",
        "conflict.declared.v1",
        "conflict.waived.v1",
    },
    "reporting": set[str](),
}


@pytest.mark.parametrize("name", PASSED_OVER)
def test_a_service_reads_what_concerns_it(name: str) -> None:
    service: Service = import_module(f"services.{name}.app").service()
    over: set[str] = set()
    for reads in service.reads:
        for event_type in BODIES[reads.topic.name]:
            example = json.loads(Path(f"schemas/examples/{reads.topic.name}/{event_type}.json").read_text())
            envelope = Envelope("1", "/test", event_type, example["subject"], datetime(2026, 11, 23, tzinfo=UTC), 1)
            if reads.parse(envelope, json.dumps(example["data"]).encode()) is None:
                over.add(event_type)
                assert reads.parse(envelope, b"{") is None
    assert over == PASSED_OVER[name]
