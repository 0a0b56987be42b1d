"""Matching, put together: what it reads, who decides, its round and its gauges."""

from schemas import engagements, requests, roster
from schemas.body import parse
from schemas.topics import ENGAGEMENTS, REQUESTS, ROSTER
from services.matching import handlers, store
from services.runtime.service import Decider, Gauge, Reads, Round, Service


def service() -> Service:
    """The matching service."""
    return Service(
        name="matching",
        reads=(
            Reads(REQUESTS, lambda envelope, data: parse(requests.BODIES, envelope.type, data)),
            Reads(ROSTER, lambda envelope, data: parse(roster.BODIES, envelope.type, data)),
            Reads(ENGAGEMENTS, lambda envelope, data: parse(engagements.BODIES, envelope.type, data)),
        ),
        decider=Decider(store.load, handlers.decide, store.save),
        rounds=(
            Round(
                name="matching",
                every_seconds=2.0,
                load=store.Boards().load,
                decide=handlers.decide_round,
                save=store.save,
                after=frozenset({REQUESTS.name, ROSTER.name, ENGAGEMENTS.name}),
                size=lambda board: len(board.requests),
            ),
        ),
        gauges=(
            Gauge(
                "fieldbridge_matching_pool",
                "Requests in matching by step.",
                ("step",),
                store.requests_by_step,
            ),
            Gauge(
                "fieldbridge_matching_expert_load",
                "Requests that all experts together hold, and could hold at most.",
                ("kind",),
                store.expert_load,
            ),
            Gauge(
                "fieldbridge_matching_partner_load",
                "Requests that all partners together serve, and could serve at most.",
                ("kind",),
                store.partner_load,
            ),
        ),
    )
