"""Matching, put together: what it reads, who decides, its round and its gauges."""

from typing import get_args

from schemas.body import only
from schemas.roster import RosterBody
from schemas.topics import ENGAGEMENTS, REQUESTS, ROSTER
from services.matching import handlers, store
from services.runtime.service import Decider, Gauge, Reads, Round, Service


def service() -> Service:
    """The matching service."""
    return Service(
        name="matching",
        reads=(
            Reads(REQUESTS, only(get_args(store.OnRequest))),
            Reads(ROSTER, only(get_args(RosterBody))),
            Reads(ENGAGEMENTS, only(get_args(store.OnEngagement))),
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
