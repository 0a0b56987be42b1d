"""`fieldbridge answer REQUEST`: agency, partner and programme office say yes to what they are asked about one request.

For trying things out: a request published by hand is carried to its confirmed plan without writing four submissions.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import Annotated, Any, Final

import typer

from schemas.envelope import Envelope, consequence_id
from schemas.topics import SUBMISSIONS
from services.console import wire
from services.console.screen import say
from services.console.story import told_of
from services.console.surroundings import Stack, here
from services.console.trouble import Trouble
from services.console.world.population import PROGRAMME_OFFICE

_SOURCE: Final = "/fieldbridge/console/answer"
_LOOK_SECONDS: Final = 0.2
_AGREED: Final = frozenset({"confirmed", "delivered", "follow_up_due"})
_OVER: Final = frozenset({"declined", "referred_out", "withdrawn", "cancelled", "closed"})


def answer(
    request: Annotated[str, typer.Argument(metavar="REQUEST", help="Id of the request.")],
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the confirmed plan.", min=0.1)] = 30.0,
) -> None:
    """Say yes for everybody who is asked about one request, until its plan is confirmed."""
    stack = here().stack()
    deadline = monotonic() + timeout
    answered: set[str] = set()
    while (told := told_of(stack, request)) is None:
        if monotonic() > deadline:
            raise Trouble(f"No request {request!r} is known after {timeout:g} s: is its submission published?")
        sleep(_LOOK_SECONDS)
    while True:
        step = told["request"]["step"]
        if step in _AGREED:
            say(f"{request}: {step.replace('_', ' ')}. `fieldbridge story {request}` tells how.")
            return
        if step in _OVER or monotonic() > deadline:
            raise Trouble(f"{request} stands at {step.replace('_', ' ')}: see why with `fieldbridge story {request}`.")
        for event_id, submission_type, body in answers(told, answered):
            asyncio.run(_publish(stack, event_id, submission_type, {"request_id": request} | body))
            say(f"{request}: {submission_type}")
        sleep(_LOOK_SECONDS)
        told = told_of(stack, request) or told


def answers(told: Mapping[str, Any], answered: set[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Id of each fact that was not answered yet, and type and body of what is said to it."""
    ori: str | None = told["request"]["ori"]
    if ori is None:
        return  # reporting has read of the match before it read whose request it is
    for event in told["story"]:
        if event["id"] not in answered:
            answered.add(event["id"])
            for submission_type, body in _answers(ori, event["type"], event["body"] or {}):
                yield event["id"], submission_type, body


def _answers(ori: str, event_type: str, body: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Type and body of what is said to one fact. An answer to what no longer stands does no harm."""
    executive = {"role": "agency_executive", "id": ori}
    match event_type:
        case "match.proposed.v1":
            partner = {"role": "partner", "id": body["partner_id"]}
            about = {"match_id": body["match_id"]}
            return [
                ("proposal.accepted.v1", {"actor": executive} | about),
                ("offer.accepted.v1", {"actor": partner} | about),
            ]
        case "engagement.planned.v1" | "engagement.replanned.v1":
            about = {"plan_version": body["plan_version"]}
            return [
                ("plan.approved.v1", {"actor": executive} | about),
                ("plan.cleared.v1", {"actor": PROGRAMME_OFFICE} | about),
            ]
        case _:
            return []


async def _publish(stack: Stack, cause: str, submission_type: str, body: Mapping[str, Any]) -> None:
    envelope = Envelope(
        id=consequence_id(f"{cause}:{submission_type}", 0),
        source=_SOURCE,
        type=submission_type,
        subject=body["request_id"],
        time=datetime.now(UTC),
    )
    async with wire.publisher(stack) as producer:
        acknowledged = await producer.send(
            stack.topic(SUBMISSIONS.name),
            value=json.dumps(body).encode(),
            key=envelope.subject.encode(),
            headers=envelope.headers(),
        )
        await acknowledged
