"""How the simulated outside world answers: agencies, partners and the programme office.

Pure and seeded: an answer depends on the seed, the number of the request and the fact it answers, whatever order facts
come in. The same fact heard twice is answered with the same id.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any, Final

from services.console.world.asking import Asking, Draft, Kind, Leaves
from services.console.world.population import (
    PROGRAMME_OFFICE,
    Message,
    agency_source,
    office_source,
    partner_source,
)

_ACCEPTS_PROPOSAL: Final = 0.92
_ACCEPTS_OFFER: Final = 0.97
_APPROVES_PLAN: Final = 0.94
_RULES_IN_FAVOUR: Final = 0.7
_SENDS_TWICE: Final = 0.02

_ORDER: Final[dict[str, int]] = {moment: nth for nth, moment in enumerate(Leaves)}


class Step(StrEnum):
    """Where a request stands, as far as the outside world can tell from the facts it hears."""

    SUBMITTED = "submitted"
    REFUSED = "refused"
    NEEDS_INFORMATION = "needs_information"
    DECLINED = "declined"
    REFERRED_OUT = "referred_out"
    ACCEPTED = "accepted"
    UNFILLED = "unfilled"
    PROPOSED = "proposed"
    MATCHED = "matched"
    PLANNED = "planned"
    CONFIRMED = "confirmed"
    DELIVERED = "delivered"
    CLOSED = "closed"
    WITHDRAWN = "withdrawn"
    CANCELLED = "cancelled"


_UNDER_WAY: Final = {
    Step.SUBMITTED,
    Step.NEEDS_INFORMATION,
    Step.ACCEPTED,
    Step.PROPOSED,
    Step.MATCHED,
    Step.PLANNED,
    Step.DELIVERED,
}
_OVER: Final = {Step.REFUSED, Step.DECLINED, Step.REFERRED_OUT, Step.WITHDRAWN, Step.CANCELLED, Step.CLOSED}


@dataclass(slots=True)
class Asked:
    """A request that was submitted, and what has been heard of it."""

    draft: Draft
    intake: Step = Step.SUBMITTED
    times_questioned: int = 0
    match_id: str | None = None
    match: Step | None = None
    planned_match: str | None = None
    engagement: Step | None = None
    sessions: tuple[Mapping[str, Any], ...] = ()
    withdrawing: bool = False
    heard: set[str] = field(default_factory=set[str])
    """Types of the facts that were heard of it."""

    @property
    def step(self) -> Step:
        """Where the request stands. What a match that is over had led to no longer counts."""
        if self.intake is not Step.ACCEPTED:
            return self.intake
        holds = self.match in (Step.PROPOSED, Step.MATCHED)
        if self.engagement is not None and holds and self.planned_match == self.match_id:
            return self.engagement
        return self.match or Step.ACCEPTED

    def rests(self, *, delivers: bool) -> bool:
        """Whether nothing more is to be expected of the request as things stand."""
        step = self.step
        if step is Step.NEEDS_INFORMATION and not self.withdrawing:
            return self.draft.kind is Kind.SILENT or self.times_questioned > 1
        if self.withdrawing or (delivers and step is Step.CONFIRMED):
            return step in _OVER
        return step not in _UNDER_WAY

    def note(self, event_type: str, body: Mapping[str, Any]) -> None:
        """Takes in what a fact says about where the request stands."""
        self.heard.add(event_type)
        match event_type:
            case "request.accepted.v1":
                self.intake = Step.ACCEPTED
            case "request.information_requested.v1":
                self.intake = Step.NEEDS_INFORMATION
                self.times_questioned += 1
            case "request.declined.v1":
                self.intake = Step.DECLINED
            case "request.referred_out.v1":
                self.intake = Step.REFERRED_OUT
            case "request.withdrawn.v1":
                self.intake = Step.WITHDRAWN
            case "request.cancelled.v1":
                self.intake = Step.CANCELLED
            case "match.proposed.v1":
                self.match_id, self.match = body["match_id"], Step.PROPOSED
            case "match.confirmed.v1":
                self.match_id, self.match = body["match_id"], Step.MATCHED
            case "match.not_found.v1":
                self.match = Step.UNFILLED
            case "match.released.v1":
                self.match = Step.ACCEPTED
            case "engagement.planned.v1" | "engagement.replanned.v1":
                self.planned_match, self.engagement = body["match_id"], Step.PLANNED
                self.sessions = tuple(body["sessions"])
            case "engagement.not_plannable.v1":
                self.planned_match, self.engagement = body["match_id"], Step.ACCEPTED
            case "engagement.confirmed.v1":
                self.planned_match, self.engagement = body["match_id"], Step.CONFIRMED
            case "engagement.delivered.v1":
                self.engagement = Step.DELIVERED
            case "engagement.closed.v1":
                self.engagement = Step.CLOSED
            case _:
                return


@dataclass
class World:
    """Everyone outside. `ask` and `hear` return what they say; nothing is sent here."""

    run: str
    asking: Asking
    delivers: bool = False
    """Whether sessions are reported and evaluations returned after a plan is confirmed."""
    asked: dict[str, Asked] = field(default_factory=dict[str, Asked])

    def request_id(self, number: int) -> str:
        """Id of the numbered request of this run."""
        return f"R-{self.run}-{number:06d}"

    def steps(self) -> Counter[Step]:
        """How many requests stand at each step."""
        return Counter(one.step for one in self.asked.values())

    def reached(self) -> Counter[str]:
        """How many requests have had a fact of each type."""
        return Counter(event_type for one in self.asked.values() for event_type in one.heard)

    def rests(self) -> bool:
        """Whether nothing more is to be expected of any request."""
        return all(one.rests(delivers=self.delivers) for one in self.asked.values())

    def ask(self, number: int) -> list[Message]:
        """Submits the numbered request, sometimes twice, as systems do that are not sure of having been heard."""
        draft = self.asking.draft(number)
        asked = self.asked[self.request_id(number)] = Asked(draft)
        submitted = self._say(draft, "submitted", Leaves.AT_ONCE, self.asking.body(draft))
        times = 2 if self._chance(draft, "twice") < _SENDS_TWICE else 1
        return [submitted] * times + self._withdrawal(asked, Leaves.AT_ONCE)

    def hear(self, event_type: str, body: Mapping[str, Any]) -> list[Message]:
        """What the outside world says to a fact. Facts about requests that are not its own are nothing to it."""
        asked = self.asked.get(body.get("request_id", ""))
        if asked is None:
            return []
        asked.note(event_type, body)
        return [*self._answers(asked, event_type, body), *self._withdrawal(asked, event_type)]

    def refused(self, request_id: str) -> None:
        """The submission of the request itself was refused, so there will be no facts."""
        self.asked[request_id].intake = Step.REFUSED

    def _answers(self, asked: Asked, event_type: str, body: Mapping[str, Any]) -> Iterator[Message]:
        draft = asked.draft
        if draft.leaves is not None and _ORDER[draft.leaves] <= _ORDER.get(event_type, -1):
            return
        match event_type:
            case "request.information_requested.v1":
                yield from self._inform(draft)
            case "match.proposed.v1":
                yield self._answer_proposal(draft, body["match_id"])
                yield self._answer_offer(draft, body["match_id"], body["partner_id"])
            case "engagement.planned.v1" | "engagement.replanned.v1":
                yield from self._answer_plan(draft, body["plan_version"], body["sessions"])
            case "engagement.confirmed.v1" if self.delivers:
                yield from self._deliver(draft, asked.sessions)
            case _:
                return

    def _inform(self, draft: Draft) -> Iterator[Message]:
        if draft.kind is Kind.UNKNOWN_TYPE:
            ruling = "accept" if self._chance(draft, "ruling") < _RULES_IN_FAVOUR else "decline"
            said = {"ruling": ruling, "reason": "The programme office has looked at the agency's statute."}
            yield self._say(draft, "ruled", "request.ruled.v1", said, actor=PROGRAMME_OFFICE)
        elif draft.kind is not Kind.SILENT:
            letters = self.asking.letters(draft)
            yield self._say(draft, "informed", "information.supplied.v1", letters, actor=_point_of_contact(draft))

    def _answer_proposal(self, draft: Draft, match_id: str) -> Message:
        attempt = match_id.rpartition("/")[2]
        if self._chance(draft, f"proposal/{attempt}") < _ACCEPTS_PROPOSAL:
            event_type, reason = "proposal.accepted.v1", {}
        else:
            event_type, reason = "proposal.declined.v1", {"reason": "We would rather work with another expert."}
        said = {"match_id": match_id, **reason}
        return self._say(draft, f"{attempt}-agency", event_type, said, actor=_point_of_contact(draft))

    def _answer_offer(self, draft: Draft, match_id: str, partner_id: str) -> Message:
        attempt = match_id.rpartition("/")[2]
        if self._chance(draft, f"offer/{attempt}") < _ACCEPTS_OFFER:
            event_type, reason = "offer.accepted.v1", {}
        else:
            event_type, reason = "offer.declined.v1", {"reason": "The expert recuses."}
        said = {"match_id": match_id, **reason}
        partner = {"role": "partner", "id": partner_id}
        source = partner_source(self.run, partner_id)
        return self._say(draft, f"{attempt}-partner", event_type, said, actor=partner, source=source)

    def _answer_plan(self, draft: Draft, version: int, sessions: list[Mapping[str, Any]]) -> Iterator[Message]:
        plan = {"plan_version": version}
        yield self._say(draft, f"p{version}-office", "plan.cleared.v1", plan, actor=PROGRAMME_OFFICE)
        if self._chance(draft, f"plan/{version}") < _APPROVES_PLAN:
            yield self._say(draft, f"p{version}-agency", "plan.approved.v1", plan)
            return
        day = sessions[0]["takes_place"]["start"][:10]
        changes = {**plan, "reason": "Another event is on that day.", "blackouts": [{"first": day, "last": day}]}
        yield self._say(draft, f"p{version}-agency", "plan.changes_asked.v1", changes, actor=_point_of_contact(draft))

    def _deliver(self, draft: Draft, sessions: tuple[Mapping[str, Any], ...]) -> Iterator[Message]:
        for session in sessions:
            session_id: str = session["session_id"]
            report = {
                "session_id": session_id,
                "held_on": session["takes_place"]["start"][:10],
                "attended_in_person": 24 if session["on_site"] else 0,
                "attended_virtually": 0 if session["on_site"] else 31,
            }
            name = session_id.rpartition("/")[2]
            yield self._say(draft, f"{name}-held", "session.reported.v1", report, actor=_point_of_contact(draft))
        evaluation = {
            "goals_met": self._chance(draft, "goals") < 0.93,
            "satisfaction": 5 if self._chance(draft, "satisfaction") < 0.7 else 4,
            "knowledge_increased": True,
        }
        yield self._say(draft, "evaluated", "evaluation.returned.v1", evaluation)

    def _withdrawal(self, asked: Asked, event_type: str) -> list[Message]:
        draft = asked.draft
        if asked.withdrawing or draft.leaves is None or draft.leaves != event_type:
            return []
        asked.withdrawing = True
        return [self._say(draft, "withdrawn", "withdrawal.asked.v1", {}, actor=_point_of_contact(draft))]

    def _say(
        self,
        draft: Draft,
        what: str,
        event_type: str,
        said: Mapping[str, Any],
        *,
        actor: Mapping[str, str] | None = None,
        source: str | None = None,
    ) -> Message:
        """A submission about a request; where nobody else is named, the agency's executive speaks."""
        request_id = self.request_id(draft.number)
        if source is None:
            office = actor is PROGRAMME_OFFICE
            source = office_source(self.run) if office else agency_source(self.run, draft.agency.state)
        speaker = {"role": "agency_executive", "id": draft.agency.ori} if actor is None else actor
        body = {"request_id": request_id, "actor": speaker, **said}
        return Message(source, f"{self.run}-{draft.number:06d}-{what}", str(event_type), request_id, body)

    def _chance(self, draft: Draft, what: str) -> float:
        return Random(f"{self.asking.seed}/{draft.number}/{what}").random()


def _point_of_contact(draft: Draft) -> dict[str, str]:
    return {"role": "point_of_contact", "id": draft.agency.ori}
