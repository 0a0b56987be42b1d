"""The life of each request, told from Kafka's logs alone: what the services' own tables are held against."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from schemas.vocabulary import Outcome

TRIAGED: Final = {
    "request.accepted.v1": "accepted",
    "request.information_requested.v1": "needs_information",
    "request.declined.v1": "declined",
    "request.referred_out.v1": "referred_out",
}
"""The facts one of which opens the story of every request, and the step each leads to."""

_TURNS: Final = TRIAGED | {
    "request.withdrawn.v1": "withdrawn",
    "request.cancelled.v1": "cancelled",
    "request.reopened.v1": "accepted",
}
_GIVES_BACK: Final = frozenset(
    {
        "request.withdrawn.v1",
        "request.cancelled.v1",
        "match.released.v1",
        "session.reported.v1",
    }
)
"""Facts of other topics after which the time of a session, or of all sessions of the request, may go to another."""
_ENDS_PLAN: Final = frozenset(
    {
        "engagement.replanned.v1",
        "engagement.not_plannable.v1",
        "engagement.delivered.v1",
        "engagement.closed.v1",
        "session.cancelled.v1",
    }
)
"""Facts of an engagement that give back what stands before them in its own topic, in order."""
_UNKNOWN: Final = datetime.min.replace(tzinfo=UTC)
"""Instead of the time of a decision that was made by a clock ahead of Kafka's: before anything it is held against."""
_OVER: Final = frozenset({"declined", "referred_out", "withdrawn", "cancelled"})


class When(NamedTuple):
    """When a fact was decided, as it says, and when Kafka had it. A service's clock may have been wrong.

    So time is taken by when the later of both says, and given back by when the earlier does: nothing is said to have
    been at once that may not have been.
    """

    said: datetime
    published: datetime

    @property
    def latest(self) -> datetime:
        """By then it was committed."""
        return max(self)

    @property
    def earliest(self) -> datetime:
        """It was not decided before."""
        return self.said if self.said <= self.published else _UNKNOWN


class Session(NamedTuple):
    """Time that a session takes of its experts."""

    session_id: str
    experts: tuple[str, ...]
    start: datetime
    end: datetime


class Match(NamedTuple):
    """A match that holds its experts."""

    match_id: str
    partner_id: str
    experts: tuple[str, ...]
    stage: str
    """`proposed` or `confirmed`."""
    proposed_at: datetime


@dataclass(frozen=True, slots=True)
class Taken:
    """Time of experts that was taken by a plan, from when it was planned until something gave it back."""

    session: Session
    since: datetime
    """When it was decided, as the fact says. The transaction may have waited for others before it was committed."""
    known: datetime
    """When the fact was published: by then it was committed."""
    until: datetime | None = None


@dataclass(slots=True)
class Life:
    """What the log says of one request. Facts of one topic are taken in order, of different ones in any."""

    first: str | None = None
    ori: str | None = None
    participating: tuple[str, ...] = ()
    topics: tuple[str, ...] = ()
    intake: str | None = None
    held: bool = False
    reopened: int = 0
    reported: set[str] = field(default_factory=set[str])
    match: Match | None = None
    match_step: str | None = None
    planned_match: str | None = None
    engagement: str | None = None
    follow_up: bool = False
    completed: int = 0
    done_matches: set[str] = field(default_factory=set[str])
    """Matches that no longer hold their experts, because all was delivered or the engagement closed."""
    plan: dict[str, Session] = field(default_factory=dict[str, Session])
    matches: dict[str, Match] = field(default_factory=dict[str, Match])
    """Every match there ever was, as it was first proposed."""
    taken: list[Taken] = field(default_factory=list[Taken])
    """As the engagement's own facts tell it; `all_taken` takes those of other topics into account."""
    given_back: list[tuple[datetime, str | None]] = field(default_factory=list[tuple[datetime, "str | None"]])
    """When other topics gave the time of a session back; that of all sessions, where none is named."""

    @property
    def live_match(self) -> Match | None:
        """The match that holds its experts now."""
        if self.match is None or self.match_step not in ("proposed", "confirmed"):
            return None
        return None if self.match.match_id in self.done_matches else self.match

    @property
    def live_sessions(self) -> list[Session]:
        """Sessions that are planned and not reported yet: the time that is taken of experts."""
        if self.engagement not in ("planned", "confirmed"):
            return []
        return [session for session in self.plan.values() if session.session_id not in self.reported]

    @property
    def all_taken(self) -> list[Taken]:
        """Every time that was ever taken of experts for this request."""
        return [replace(one, until=min(self._ends(one), default=None)) for one in self.taken]

    def _ends(self, one: Taken) -> Iterator[datetime]:
        if one.until is not None:
            yield one.until
        for moment, session_id in self.given_back:
            if session_id == one.session.session_id or (session_id is None and moment > one.since):
                yield moment

    def _give_back(self, time: datetime, session_id: str | None = None) -> None:
        self.taken = [
            replace(one, until=time) if one.until is None and session_id in (None, one.session.session_id) else one
            for one in self.taken
        ]

    @property
    def step(self) -> str:
        """Where the request stands: exactly one of the steps there are."""
        if self.intake in _OVER:
            return self.intake
        if self.completed > self.reopened:
            return "closed"
        if self.held:
            return "on_hold"
        if self.intake != "accepted":
            return self.intake or "unknown"
        if self.match_step == "not_found":
            return "unfilled"
        if self.match is None or self.match_step == "released":
            return "accepted"
        if self.planned_match == self.match.match_id and self.engagement is not None:
            return "follow_up_due" if self.engagement == "delivered" and self.follow_up else self.engagement
        if self.match.match_id in self.done_matches:
            return "accepted"
        return "proposed" if self.match_step == "proposed" else "matched"

    def take(self, event_type: str, time: datetime, body: Mapping[str, Any], published: datetime | None = None) -> None:
        """Takes in one fact of the topics requests, matches or engagements."""
        when = When(time, time if published is None else published)
        kind, _, _ = event_type.partition(".")
        if event_type in _GIVES_BACK:
            self.given_back.append((when.earliest, body.get("session_id")))
        elif event_type in _ENDS_PLAN:
            self._give_back(when.earliest, body.get("session_id"))
        match kind:
            case "match":
                self._take_match(event_type, min(when), body)
            case "engagement" | "follow_up":
                self._take_engagement(event_type, when, body)
            case "session":
                self._take_session(event_type, when, body)
            case "request":
                self._take_request(event_type, body)
            case _:
                return

    def _take_request(self, event_type: str, body: Mapping[str, Any]) -> None:
        self.intake = _TURNS.get(event_type, self.intake)
        if event_type in TRIAGED and body.get("agency"):
            self.ori = body["agency"]["ori"]
            self.participating = tuple(body.get("participating", ()))
        if "terms" in body:
            self.topics = tuple(body["terms"]["topics"])
        if event_type == "request.held.v1":
            self.held = True
        elif event_type == "request.resumed.v1":
            self.held = False
        elif event_type == "request.reopened.v1":
            self.held = False
            self.reopened += 1

    def _take_match(self, event_type: str, time: datetime, body: Mapping[str, Any]) -> None:
        match event_type:
            case "match.proposed.v1":
                experts = tuple(expert["expert_id"] for expert in body["experts"])
                self.match = Match(body["match_id"], body["partner_id"], experts, "proposed", time)
                self.match_step = "proposed"
                self.matches[self.match.match_id] = self.match
            case "match.confirmed.v1":
                proposed_at = time if self.match is None else self.match.proposed_at
                experts = tuple(body["expert_ids"])
                self.match = Match(body["match_id"], body["partner_id"], experts, "confirmed", proposed_at)
                self.match_step = "confirmed"
            case "match.released.v1":
                self.match_step = "released"
            case _:
                self.match_step = "not_found"

    def _take_engagement(self, event_type: str, when: When, body: Mapping[str, Any]) -> None:
        match event_type:
            case "engagement.planned.v1" | "engagement.replanned.v1":
                self.planned_match, self.engagement, self.follow_up = body["match_id"], "planned", False
                self.plan = {session["session_id"]: _session(session) for session in body["sessions"]}
                self.taken += [Taken(session, when.said, when.latest) for session in self.plan.values()]
            case "engagement.not_plannable.v1":
                self.planned_match, self.engagement, self.plan = body["match_id"], "not_plannable", {}
            case "engagement.confirmed.v1":
                self.planned_match, self.engagement = body["match_id"], "confirmed"
            case "engagement.delivered.v1":
                self.planned_match, self.engagement = body["match_id"], "delivered"
                self.done_matches.add(body["match_id"])
            case "engagement.closed.v1":
                self.engagement, self.plan = None, {}
                self.done_matches.add(body["match_id"])
                self.completed += body["outcome"] == Outcome.COMPLETED
            case _:
                self.follow_up = True

    def _take_session(self, event_type: str, when: When, body: Mapping[str, Any]) -> None:
        match event_type:
            case "session.reported.v1":
                self.reported.add(body["session_id"])
            case "session.cancelled.v1":
                self.plan.pop(body["session_id"], None)
            case _:
                moved = _session(body["session"])
                self.plan[moved.session_id] = moved
                self._give_back(when.earliest, moved.session_id)
                self.taken.append(Taken(moved, when.said, when.latest))


def _session(said: Mapping[str, Any]) -> Session:
    occupies = said["occupies"]
    return Session(
        said["session_id"],
        tuple(said["expert_ids"]),
        datetime.fromisoformat(occupies["start"]),
        datetime.fromisoformat(occupies["end"]),
    )
