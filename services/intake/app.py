"""Intake, put together: what it reads, who decides, the ruling clock and the numbers it shows."""

import re
from collections.abc import Sequence
from typing import Any, Final

from pydantic import ValidationError

from schemas import body, submissions
from schemas.engagements import EngagementClosed
from schemas.envelope import Envelope
from schemas.topics import ENGAGEMENTS, SUBMISSIONS
from services.intake import handlers, store
from services.intake.decisions.problems import Problem
from services.runtime.database import Database
from services.runtime.service import Decider, Event, Gauge, Reads, Round, Service

_MOST_PROBLEMS: Final = 50
_LONGEST_NAME: Final = 60
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f]")


def service() -> Service:
    """Intake as the runtime runs it."""
    return Service(
        name="intake",
        reads=(Reads(SUBMISSIONS, read_submission), Reads(ENGAGEMENTS, body.only([EngagementClosed]))),
        decider=Decider(load=_load, decide=handlers.decide, save=store.save),
        rounds=(
            Round(
                name="ruling_clock",
                every_seconds=60,
                load=store.load_due,
                decide=handlers.ring_clocks,
                save=store.save,
                size=lambda known: len(known.requests),
            ),
        ),
        gauges=(
            Gauge(
                "fieldbridge_intake_requests",
                "Requests by the step they have reached.",
                ("step",),
                store.requests_by_step,
            ),
            Gauge(
                "fieldbridge_intake_agencies",
                "Agencies in the registry.",
                (),
                store.agencies_in_registry,
            ),
        ),
    )


def read_submission(envelope: Envelope, data: bytes) -> submissions.SubmissionBody | handlers.Unusable:
    """The body of a submission. What breaks the schema is answered by a receipt, which repeats none of the input."""
    try:
        read = body.parse(submissions.BODIES, envelope.type, data)
    except ValidationError as error:
        return handlers.Unusable("the submission breaks its schema", _problems(error))
    if read is None:
        return handlers.Unusable(f"the type is not known; known are: {', '.join(submissions.BODIES)}")
    return read


def _problems(error: ValidationError) -> tuple[Problem, ...]:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return tuple(Problem(_path(problem["loc"]), problem["msg"]) for problem in found[:_MOST_PROBLEMS])


def _path(location: Sequence[int | str]) -> str:
    # The name of a field nobody knows is the sender's own text.
    return ".".join(_UNPRINTABLE.sub("?", str(part))[:_LONGEST_NAME] for part in location)


async def _load(db: Database, events: Sequence[Event[Any]]) -> store.Known:
    return await store.load(db, handlers.wanted(events))
