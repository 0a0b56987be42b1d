"""Puts reporting together: it reads every topic of facts, adds them up, and shows the result."""

from collections.abc import Mapping

from services.reporting import handlers, pages, store
from services.runtime.database import Database
from services.runtime.service import Decider, Gauge, Service


async def _funnel(db: Database) -> Mapping[tuple[str, ...], float]:
    return {(step.value,): count for step, count in (await store.counts_by_step(db)).items()}


def service() -> Service:
    """The reporting service."""
    return Service(
        name="reporting",
        reads=handlers.READS,
        decider=Decider(handlers.load, handlers.decide, store.save),
        pages=pages.PAGES,
        rebuildable=True,
        gauges=(Gauge("fieldbridge_requests", "Requests by the step at which they stand.", ("step",), _funnel),),
    )
