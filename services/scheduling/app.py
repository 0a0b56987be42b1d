"""Puts scheduling together: what it reads, who decides, and the round that reminds of follow-ups."""

from typing import get_args

from schemas.body import only
from schemas.topics import MATCHES, REQUESTS, ROSTER
from services.runtime.service import Decider, Gauge, Reads, Round, Service
from services.scheduling import handlers, store


def service() -> Service:
    """The scheduling service."""
    return Service(
        name="scheduling",
        reads=(
            Reads(REQUESTS, only(get_args(store.OnRequest))),
            Reads(MATCHES, only(get_args(store.OnMatch))),
            Reads(ROSTER, only(get_args(store.OnExpert))),
        ),
        decider=Decider(load=store.load, decide=handlers.decide, save=store.save),
        rounds=(
            Round(
                name="follow_up",
                every_seconds=60,
                load=store.load_due,
                decide=handlers.remind,
                save=store.save,
                size=lambda known: len(known.engagements),
            ),
        ),
        gauges=(
            Gauge(
                name="fieldbridge_scheduling_engagements",
                says="Engagements by the step they have reached.",
                labels=("step",),
                read=store.count_engagements,
            ),
            Gauge(
                name="fieldbridge_scheduling_bookings",
                says="Bookings of experts' time that is not over.",
                labels=(),
                read=store.count_bookings,
            ),
        ),
    )
