"""Lives of requests as logs of events, each with the step that a reader of the whole life would name: an oracle.

A life is told in the order of causes, one action after the other; the events of one action share one time. The step is
what the action just told means, found without looking at sequences, attempts or counters.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from random import Random

from schemas.body import Agency, Contact, Fact, Problem, Sensitive, Terms
from schemas.engagements import (
    EngagementClosed,
    EngagementConfirmed,
    EngagementDelivered,
    EngagementNotPlannable,
    EngagementPlanned,
    EngagementReplanned,
    FollowUpDue,
    Session,
    SessionCancelled,
    SessionMoved,
)
from schemas.envelope import Envelope
from schemas.matches import MatchConfirmed, MatchedExpert, MatchNotFound, MatchProposed, MatchReleased, Shortfall
from schemas.requests import (
    EvaluationReturned,
    InformationRequested,
    OfferAccepted,
    OfferDeclined,
    PlanApproved,
    PlanChangesRequested,
    PlanCleared,
    ProposalAccepted,
    ProposalDeclined,
    RequestAccepted,
    RequestAmended,
    RequestCancelled,
    RequestDeclined,
    RequestHeld,
    RequestReferredOut,
    RequestReopened,
    RequestResumed,
    RequestWithdrawn,
    SessionReported,
)
from schemas.vocabulary import (
    AgencyType,
    DateWindow,
    DeliveryMode,
    ExpertId,
    MatchId,
    Ori,
    Outcome,
    PartnerId,
    RequestId,
    SessionId,
    SwornBand,
    TimeWindow,
    TopicCode,
    Urgency,
)

Action = Callable[[], None]

SECRET = "SECRET-NARRATIVE"
BEGIN = datetime(2026, 3, 2, 15, tzinfo=UTC)

TOPICS = ("training", "active-shooter", "intelligence-sharing", "officer-wellness", "compstat", "tribal")
STATES = ("TX", "GA", "CA", "WI", "AZ", "OK", "NM", "MT")
TYPES = (AgencyType.MUNICIPAL, AgencyType.COUNTY_SHERIFF, AgencyType.CAMPUS, AgencyType.TRIBAL, AgencyType.STATE_POLICE)
PARTNERS = (PartnerId("iacp"), PartnerId("iaclea"), PartnerId("ntoa"))


@dataclass(frozen=True)
class Happening:
    """One event as it lies in Kafka's log."""

    topic: str
    envelope: Envelope
    data: bytes


@dataclass
class Life:
    """The life of one request, told action by action."""

    request_id: RequestId
    random: Random
    time: datetime = BEGIN
    step: str = "none"
    events: list[Happening] = field(default_factory=list[Happening])
    attempt: int = 0
    plan_version: int = 0
    before_hold: str | None = None
    _sequences: dict[str, int] = field(default_factory=dict[str, int])

    def __post_init__(self) -> None:
        rank = self.random
        self.agency = Agency(
            ori=Ori(f"{rank.choice(STATES)}{rank.randrange(40):07d}"),
            name="Anywhere <Police> & Department",
            agency_type=rank.choices(TYPES, (12, 6, 3, 1, 1))[0],
            state=rank.choices(STATES, (12, 9, 9, 6, 4, 2, 1, 1))[0],
            time_zone="America/Chicago",
            sworn_band=rank.choice((SwornBand.UNDER_10, SwornBand.FROM_10, SwornBand.FROM_50, SwornBand.UNKNOWN)),
        )
        self.partner = rank.choice(PARTNERS)
        self.experts = (ExpertId(f"{self.partner}-x{rank.randrange(9)}"), ExpertId(f"{self.partner}-x9"))

    @property
    def match_id(self) -> MatchId:
        return MatchId(f"{self.request_id}/m{self.attempt}")

    @property
    def topics(self) -> tuple[TopicCode, ...]:
        return tuple(TopicCode(topic) for topic in self.random.sample(TOPICS, self.random.randint(1, 2)))

    def terms(self) -> Terms:
        return Terms(
            topics=self.topics,
            delivery_modes=(DeliveryMode.ON_SITE_CONSULTATION,),
            window=DateWindow(date(2026, 6, 1), date(2026, 12, 1)),
            urgency=self.random.choice(list(Urgency)),
        )

    def tell(self, step: str, *bodies: Fact) -> None:
        """An action, its events all of one time, and the step at which it leaves the request."""
        self.time += timedelta(seconds=self.random.randint(1, 200_000))
        for body in bodies:
            sequence = self._sequences[body.TOPIC] = self._sequences.get(body.TOPIC, 0) + 1
            envelope = Envelope(
                id=f"{body.TOPIC}/{self.request_id}/{sequence}",
                source="/fieldbridge/test",
                type=body.TYPE,
                subject=body.subject,
                time=self.time,
                sequence=sequence,
            )
            self.events.append(Happening(body.TOPIC, envelope, body.model_dump_json().encode()))
        self.step = step

    def go_on(self) -> bool:
        """Tells one more action that may happen now; False where nothing can."""
        if not (options := self._options()):
            return False
        self.random.choice(options)()
        return True

    def _options(self) -> list[Action]:
        always: list[Action] = [] if self.random.random() < 0.85 else [self.withdraw, self.cancel, self.hold]
        match self.step:
            case "none":
                return [*[self.accept] * 7, self.ask_information, self.decline, self.refer_out]
            case "needs_information":
                return [self.accept, self.decline, *always]
            case "accepted" | "unfilled":
                return [self.propose, self.propose, self.find_nobody, self.amend, *always]
            case "proposed":
                return [self.confirm_match, self.confirm_match, self.agency_declines, self.partner_declines, *always]
            case "matched":
                return [self.plan, self.plan, self.find_no_dates, *always]
            case "planned":
                return [self.confirm_plan, self.confirm_plan, self.replan, self.release, self.find_no_dates, *always]
            case "confirmed":
                return [self.deliver, self.deliver, self.move, self.replan, *always]
            case "delivered":
                return [self.follow_up, self.close]
            case "follow_up_due":
                return [self.close]
            case "closed":
                return [self.follow_up_after_closing, self.reopen]
            case "on_hold":
                held = [self.finish_while_held] if self.before_hold == "confirmed" else []
                return [self.resume, self.resume, self.withdraw, *held]
            case _:
                return []

    def accept(self) -> None:
        secret = Sensitive(executive=Contact(office=SECRET), problem=SECRET, tried=SECRET, goals=SECRET)
        self.tell(
            "accepted",
            RequestAccepted(
                request_id=self.request_id,
                agency=self.agency,
                terms=self.terms(),
                submitted_at=BEGIN,
                sensitive=secret,
            ),
        )

    def ask_information(self) -> None:
        missing = (Problem(field="executive_support", problem="The letter is missing."),)
        self.tell(
            "needs_information",
            InformationRequested(
                request_id=self.request_id,
                agency=self.agency,
                topics=self.topics,
                missing=missing,
                submitted_at=BEGIN,
            ),
        )

    def decline(self) -> None:
        reasons = (Problem(field="ori", problem="No agency is known by this ORI."),)
        self.tell("declined", RequestDeclined(request_id=self.request_id, reasons=reasons, submitted_at=BEGIN))

    def refer_out(self) -> None:
        self.tell(
            "referred_out",
            RequestReferredOut(
                request_id=self.request_id,
                agency=self.agency,
                refer_to="Bureau of Justice Assistance",
                reasons=(),
                submitted_at=BEGIN,
            ),
        )

    def amend(self) -> None:
        sensitive = Sensitive(problem=SECRET)
        self.tell(self.step, RequestAmended(request_id=self.request_id, terms=self.terms(), sensitive=sensitive))

    def find_nobody(self) -> None:
        reasons = (Shortfall(code="at_capacity", experts=3, says="Three experts are at capacity."),)
        self.tell("unfilled", MatchNotFound(request_id=self.request_id, reasons=reasons))

    def propose(self) -> None:
        self.attempt += 1
        experts = tuple(MatchedExpert(expert_id=expert, affinity=700, reasons=("peer",)) for expert in self.experts)
        self.tell(
            "proposed",
            MatchProposed(request_id=self.request_id, match_id=self.match_id, partner_id=self.partner, experts=experts),
        )

    def confirm_match(self) -> None:
        self.tell(
            "matched",
            ProposalAccepted(request_id=self.request_id, match_id=self.match_id),
            OfferAccepted(request_id=self.request_id, match_id=self.match_id, partner_id=self.partner),
            MatchConfirmed(
                request_id=self.request_id, match_id=self.match_id, partner_id=self.partner, expert_ids=self.experts
            ),
        )

    def _released(self) -> MatchReleased:
        return MatchReleased(
            request_id=self.request_id, match_id=self.match_id, expert_ids=self.experts, reason="No longer holds."
        )

    def _cancelled(self) -> SessionCancelled:
        return SessionCancelled(request_id=self.request_id, session_id=self._session().session_id, reason="Dropped.")

    def agency_declines(self) -> None:
        declined = ProposalDeclined(request_id=self.request_id, match_id=self.match_id, reason="Not a peer.")
        self.tell("accepted", declined, self._released())

    def partner_declines(self) -> None:
        declined = OfferDeclined(
            request_id=self.request_id, match_id=self.match_id, partner_id=self.partner, reason="No time."
        )
        self.tell("accepted", declined, self._released())

    def _session(self) -> Session:
        start = datetime(2026, 9, 1, 14, tzinfo=UTC)
        window = TimeWindow(start, start + timedelta(hours=8))
        return Session(
            session_id=SessionId(f"{self.request_id}/s{self.plan_version}.1"),
            title="On-site consultation",
            delivery_mode=DeliveryMode.ON_SITE_CONSULTATION,
            on_site=True,
            takes_place=window,
            occupies=window,
            time_zone="America/Chicago",
            expert_ids=self.experts,
        )

    def plan(self) -> None:
        self.plan_version += 1
        self.tell(
            "planned",
            EngagementPlanned(
                request_id=self.request_id,
                match_id=self.match_id,
                plan_version=self.plan_version,
                sessions=(self._session(),),
            ),
        )

    def replan(self) -> None:
        asked = PlanChangesRequested(request_id=self.request_id, plan_version=self.plan_version, reason="Other dates.")
        self.plan_version += 1
        self.tell(
            "planned",
            asked,
            EngagementReplanned(
                request_id=self.request_id,
                match_id=self.match_id,
                plan_version=self.plan_version,
                sessions=(self._session(),),
                reason="Other dates.",
            ),
        )

    def find_no_dates(self) -> None:
        reasons = (Problem(field="window", problem="No day is left."),)
        self.tell(
            "accepted",
            EngagementNotPlannable(request_id=self.request_id, match_id=self.match_id, reasons=reasons),
            self._released(),
        )

    def release(self) -> None:
        self.tell("accepted", self._released(), self._cancelled())

    def confirm_plan(self) -> None:
        self.tell(
            "confirmed",
            PlanApproved(request_id=self.request_id, plan_version=self.plan_version),
            PlanCleared(request_id=self.request_id, plan_version=self.plan_version),
            EngagementConfirmed(request_id=self.request_id, match_id=self.match_id, plan_version=self.plan_version),
        )

    def move(self) -> None:
        self.tell("confirmed", SessionMoved(request_id=self.request_id, session=self._session(), reason="A storm."))

    def deliver(self) -> None:
        self.tell(
            "delivered",
            SessionReported(
                request_id=self.request_id, session_id=self._session().session_id, held_on=date(2026, 9, 1)
            ),
            EngagementDelivered(request_id=self.request_id, match_id=self.match_id, delivered_on=self.time),
        )

    def follow_up(self) -> None:
        self.tell("follow_up_due", FollowUpDue(request_id=self.request_id, due=self.time))

    def follow_up_after_closing(self) -> None:
        self.tell("closed", FollowUpDue(request_id=self.request_id, due=self.time))

    def close(self) -> None:
        self.tell(
            "closed",
            EvaluationReturned(request_id=self.request_id, goals_met=True, satisfaction=5),
            EngagementClosed(request_id=self.request_id, match_id=self.match_id, outcome=Outcome.COMPLETED),
        )

    def complete(self) -> None:
        """The whole way without a detour."""
        for action in (self.accept, self.propose, self.confirm_match, self.plan, self.confirm_plan, self.deliver):
            action()
        self.close()

    def reopen(self) -> None:
        self.tell("accepted", RequestReopened(request_id=self.request_id, terms=self.terms(), reason="More to do."))

    def hold(self) -> None:
        self.before_hold = self.step
        self.tell("on_hold", RequestHeld(request_id=self.request_id, reason="A lawsuit."))

    def resume(self) -> None:
        assert self.before_hold is not None
        self.tell(self.before_hold, RequestResumed(request_id=self.request_id, reason="Settled."))
        self.before_hold = None

    def finish_while_held(self) -> None:
        self.deliver()
        self.close()
        self.before_hold = None

    def withdraw(self) -> None:
        self._end("withdrawn", RequestWithdrawn(request_id=self.request_id), Outcome.WITHDRAWN)

    def cancel(self) -> None:
        cancelled = RequestCancelled(request_id=self.request_id, reason="Out of the programme's reach.")
        self._end("cancelled", cancelled, Outcome.CANCELLED)

    def _end(self, step: str, said: Fact, outcome: Outcome) -> None:
        standing = self.before_hold or self.step
        bodies: list[Fact] = [said]
        if standing in ("proposed", "matched", "planned", "confirmed"):
            bodies.append(self._released())
        if standing in ("planned", "confirmed"):
            bodies.append(self._cancelled())
            bodies.append(EngagementClosed(request_id=self.request_id, match_id=self.match_id, outcome=outcome))
        self.before_hold = None
        self.tell(step, *bodies)


def lives(count: int, seed: int, most_actions: int = 25) -> list[Life]:
    """As many lives as asked for, the same for the same seed."""
    random = Random(seed)
    told: list[Life] = []
    for number in range(1, count + 1):
        life = Life(RequestId(f"R-{number:05d}"), Random(random.random()))
        for _ in range(random.randint(1, most_actions)):
            if not life.go_on():
                break
        told.append(life)
    return told


def interleaved(told: Sequence[Life], random: Random) -> list[Happening]:
    """All events in an order that keeps only what Kafka keeps: the order of one key within one topic."""
    queues: dict[tuple[str, str], list[Happening]] = {}
    for life in told:
        for event in life.events:
            queues.setdefault((event.topic, event.envelope.subject), []).append(event)
    turns = [place for place, queue in queues.items() for _ in queue]
    random.shuffle(turns)
    heads = {place: iter(queue) for place, queue in queues.items()}
    return [next(heads[place]) for place in turns]


def in_batches(events: Iterable[Happening], random: Random, most: int) -> list[list[Happening]]:
    """The events cut into batches of random sizes."""
    batches: list[list[Happening]] = [[]]
    size = random.randint(1, most)
    for event in events:
        if len(batches[-1]) == size:
            batches.append([])
            size = random.randint(1, most)
        batches[-1].append(event)
    return batches
