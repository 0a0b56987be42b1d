"""Where the time of a request goes, step by step, told by the time attributes of its events in Kafka's logs."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from schemas.topics import ENGAGEMENTS, MATCHES, RECEIPTS, REQUESTS, SUBMISSIONS
from services.console import wire
from services.console.surroundings import Stack
from services.console.wire import LogRecord

_READ: Final = tuple(topic.name for topic in (SUBMISSIONS, RECEIPTS, REQUESTS, MATCHES, ENGAGEMENTS))

Moment = tuple[str, str]
"""Topic and type of an event."""

_SUBMITTED: Final = (SUBMISSIONS.name, "request.submitted.v1")
RECEIPT: Final = (RECEIPTS.name, "submission.taken.v1")
_ACCEPTED: Final = (REQUESTS.name, "request.accepted.v1")
_ASKED_BACK: Final = (REQUESTS.name, "request.information_requested.v1")
_PROPOSED: Final = (MATCHES.name, "match.proposed.v1")
_MATCHED: Final = (MATCHES.name, "match.confirmed.v1")
_PLANNED: Final = (ENGAGEMENTS.name, "engagement.planned.v1")
CONFIRMED: Final = (ENGAGEMENTS.name, "engagement.confirmed.v1")
_ANSWERS: Final = ("proposal.accepted.v1", "offer.accepted.v1")
_APPROVALS: Final = ("plan.approved.v1", "plan.cleared.v1")


@dataclass(slots=True)
class Told:
    """What the log says of one request: when each of its events was, the first and how many of them."""

    first: dict[Moment, datetime] = field(default_factory=dict[Moment, datetime])
    times: dict[Moment, int] = field(default_factory=dict[Moment, int])

    def note(self, moment: Moment, time: datetime) -> None:
        self.first.setdefault(moment, time)
        self.times[moment] = self.times.get(moment, 0) + 1

    def last_of(self, topic: str, types: Iterable[str]) -> datetime:
        """When the later of several events was."""
        return max(self.first[topic, event_type] for event_type in types)

    @property
    def straight(self) -> bool:
        """Whether it went from the submission to the confirmed engagement without a detour."""
        once = (RECEIPT, _ACCEPTED, _PROPOSED, _MATCHED, _PLANNED, CONFIRMED)
        answers = [(REQUESTS.name, event_type) for event_type in (*_ANSWERS, *_APPROVALS)]
        return _ASKED_BACK not in self.first and all(self.times.get(moment) == 1 for moment in (*once, *answers))


@dataclass(frozen=True, slots=True)
class Step:
    """A part of the way. `by` is who has to act in it."""

    name: str
    by: str
    begins: Callable[[Told], datetime]
    ends: Callable[[Told], datetime]


def _at(moment: Moment) -> Callable[[Told], datetime]:
    return lambda told: told.first[moment]


def _last(topic: str, types: Iterable[str]) -> Callable[[Told], datetime]:
    return lambda told: told.last_of(topic, types)


STEPS: Final = (
    Step("submitted -> receipt", "intake", _at(_SUBMITTED), _at(RECEIPT)),
    Step("receipt -> accepted", "intake", _at(RECEIPT), _at(_ACCEPTED)),
    Step("accepted -> proposed", "matching", _at(_ACCEPTED), _at(_PROPOSED)),
    Step("proposed -> answers are sent", "outside", _at(_PROPOSED), _last(SUBMISSIONS.name, _ANSWERS)),
    Step("answers are sent -> answered", "intake", _last(SUBMISSIONS.name, _ANSWERS), _last(REQUESTS.name, _ANSWERS)),
    Step("answered -> matched", "matching", _last(REQUESTS.name, _ANSWERS), _at(_MATCHED)),
    Step("matched -> planned", "scheduling", _at(_MATCHED), _at(_PLANNED)),
    Step("planned -> approvals are sent", "outside", _at(_PLANNED), _last(SUBMISSIONS.name, _APPROVALS)),
    Step(
        "approvals are sent -> approved",
        "intake",
        _last(SUBMISSIONS.name, _APPROVALS),
        _last(REQUESTS.name, _APPROVALS),
    ),
    Step("approved -> confirmed", "scheduling", _last(REQUESTS.name, _APPROVALS), _at(CONFIRMED)),
    Step("submitted -> confirmed", "all", _at(_SUBMITTED), _at(CONFIRMED)),
)


async def tell(stack: Stack, run: str) -> dict[str, Told]:
    """What the logs say of the requests of one run, by request id. Raises Trouble."""
    told: dict[str, Told] = {}
    async with wire.follower(stack, _READ, from_start=True) as logs:
        async for record in logs.until(await logs.ends()):
            headers = wire.headers_of(record)
            request_id = _request(record, headers)
            if request_id is not None and request_id.startswith(f"R-{run}-"):
                moment = (record.topic, (headers["ce_type"] or b"").decode())
                time = datetime.fromisoformat((headers["ce_time"] or b"").decode())
                told.setdefault(request_id, Told()).note(moment, time)
    return told


def _request(record: LogRecord, headers: Mapping[str, bytes | None]) -> str | None:
    """The request an event is about. Receipts are keyed by source; only those of the request itself are taken."""
    if record.topic != RECEIPTS.name:
        return None if record.key is None else record.key.decode()
    submission: str = json.loads(record.value or b"{}")["submission_id"]
    run_and_number, _, what = submission.rpartition("-")
    return f"R-{run_and_number}" if what == "submitted" else None


def seconds(step: Step, told: Iterable[Told]) -> list[float]:
    """How long a step took each of these requests."""
    return [(step.ends(one) - step.begins(one)).total_seconds() for one in told]
