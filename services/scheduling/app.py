"""Puts scheduling together: what it reads, who decides, and the round that reminds of follow-ups."""

from collections.abc import Mapping

from schemas import matches, requests, roster
from schemas.body import AnyBody, parse
from schemas.topics import MATCHES, REQUESTS, ROSTER, Topic
from services.runtime.service import Decider, Gauge, Reads, Round, Service
from services.scheduling import handlers, store


def service() -> Service:
    """The scheduling service."""
    return Service(
        name="scheduling",
        reads=(
            _reads(REQUESTS, requests.BODIES),
            _reads(MATCHES, matches.BODIES),
            _reads(ROSTER, roster.BODIES),
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


def _reads(topic: Topic, bodies: Mapping[str, type[AnyBody]]) -> Reads:
    return Reads(topic, lambda envelope, data: parse(bodies, envelope.type, data))
