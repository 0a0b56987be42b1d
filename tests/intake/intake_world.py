"""Intake without a database: what is known is folded as the runtime folds it, event after event."""

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import count
from typing import Final

from schemas import engagements, receipts
from schemas import submissions as said
from schemas.body import Body
from schemas.envelope import Envelope
from schemas.vocabulary import AgencyType, Ori, Outcome, Place, RequestId, SwornBand, TopicCode
from services.intake import handlers
from services.intake.decisions.registry import Agency, Standing
from services.intake.decisions.request import Request
from services.intake.decisions.topics import OfferedTopic
from services.intake.store import Known
from services.runtime.service import Event, FactBody

NOW: Final = datetime(2026, 3, 4, 15, 0, tzinfo=UTC)
ORI: Final = Ori("OH0250100")
TRIBAL: Final = Ori("AZDI01400")
REQUEST: Final = RequestId("R-1")
Parts = Mapping[str, object]

_ids = count(1)


def agency(
    ori: Ori = ORI, agency_type: AgencyType = AgencyType.MUNICIPAL, time_zone: str = "America/New_York"
) -> Agency:
    """An agency of the registry."""
    return Agency(
        ori, f"Agency {ori}", agency_type, ori[:2], None, Place(40, -83), time_zone, 30, SwornBand.FROM_10, active=True
    )


def topics(*codes: str) -> dict[TopicCode, OfferedTopic]:
    """Topics offered since the programme was redesigned."""
    return {TopicCode(code): OfferedTopic(TopicCode(code), date(2017, 10, 1)) for code in codes}


def executive(ori: str = ORI) -> Parts:
    return {"role": "agency_executive", "id": ori}


def contact(ori: str = ORI) -> Parts:
    return {"role": "point_of_contact", "id": ori}


def office() -> Parts:
    return {"role": "programme_office", "id": "programme-office"}


def partner(partner_id: str = "IACP") -> Parts:
    return {"role": "partner", "id": partner_id}


def expert(expert_id: str = "X-1") -> Parts:
    return {"role": "expert", "id": expert_id}


def terms(**given: object) -> Parts:
    """Terms with nothing wrong about them."""
    usual = {
        "topics": ["active-shooter"],
        "delivery_modes": ["in_person_training"],
        "window": {"first": date(2026, 5, 1), "last": date(2026, 7, 1)},
    }
    return usual | given


def submission(**given: object) -> said.RequestSubmitted:
    """A request with nothing missing; None takes a part out."""
    ori = given.get("ori", ORI)
    usual: dict[str, object] = {
        "request_id": REQUEST,
        "actor": executive(str(ori)),
        "ori": ori,
        "terms": terms(),
        "executive_support": {"signed_on": date(2026, 2, 1), "reference": "L-1"},
        "sensitive": {
            "executive": {"office": "Chief of Police"},
            "point_of_contact": {"office": "Training Lieutenant"},
        },
    }
    return said.RequestSubmitted.model_validate(usual | given)


def profile(partner_id: str = "IACP", **given: object) -> Parts:
    """What a partner says of an expert."""
    usual = {
        "partner_id": partner_id,
        "skills": [{"topic": "active-shooter"}],
        "delivery_modes": ["in_person_training"],
        "agency_types": ["municipal"],
        "home": {"latitude": 40, "longitude": -83},
        "time_zone": "America/New_York",
    }
    return usual | given


FIELDS: dict[type[Body], dict[str, object]] = {
    said.ReopeningAsked: {"reason": "more"},
    said.ProposalAccepted: {"match_id": "R-1/m1"},
    said.ProposalDeclined: {"match_id": "R-1/m1", "reason": "no"},
    said.OfferAccepted: {"match_id": "R-1/m1"},
    said.OfferDeclined: {"match_id": "R-1/m1", "reason": "no"},
    said.PlanApproved: {"plan_version": 1},
    said.PlanChangesAsked: {"plan_version": 1, "reason": "later"},
    said.PlanCleared: {"plan_version": 1},
    said.SessionReported: {"session_id": "R-1/s1.1", "held_on": "2026-05-05"},
    said.EvaluationReturned: {"goals_met": True, "satisfaction": 5},
    said.RequestRuled: {"ruling": "cancel", "reason": "no funds"},
    said.HoldAsked: {"reason": "wait"},
    said.AmendmentSubmitted: {"changes": {"urgency": "soon"}},
    said.PartnerApplied: {"partner_id": "IACP", "name": "Chiefs", "acronym": "IACP", "capacity": 3},
    said.ApplicationRuled: {"partner_id": "IACP", "selected": True},
    said.ExpertListed: {"expert_id": "X-9", "profile": profile()},
    said.ExpertChanged: {"expert_id": "X-1", "profile": profile(load_limit=1)},
    said.ExpertRetired: {"expert_id": "X-1"},
    said.AvailabilityChanged: {"expert_id": "X-1", "unavailable": []},
    said.ConflictDisclosed: {"conflict_id": "C-9", "expert_id": "X-1", "ori": ORI, "kind": "family"},
    said.ConflictWaived: {"conflict_id": "C-1"},
}
"""What each kind of submission says besides its actor and subject."""


def say(kind: type[Body], actor: Parts, /, **given: object) -> Body:
    """A submission of this kind about the request, partner or expert that the other parts name."""
    subject = {"request_id": REQUEST} if issubclass(kind, said.OnRequest) else {}
    return kind.model_validate(subject | given | {"actor": actor})


def closed(outcome: Outcome = Outcome.COMPLETED) -> engagements.EngagementClosed:
    """Scheduling's news that the engagement is over."""
    return engagements.EngagementClosed.model_validate(
        {"request_id": REQUEST, "match_id": "R-1/m1", "outcome": outcome}
    )


class World:
    """What intake knows, and everything it has said, receipts apart."""

    def __init__(self, *agencies: Agency, offered: Mapping[TopicCode, OfferedTopic] | None = None) -> None:
        self.known = Known(
            agencies={one.ori: Standing(one, {}) for one in agencies or (agency(),)},
            registered={one.ori: True for one in agencies or (agency(),)},
            topics=dict(offered or topics("active-shooter", "training", "tribal")),
        )
        self.said: list[FactBody] = []
        self.receipts: list[receipts.ReceiptBody] = []

    def hear(self, body: object, at: datetime = NOW, subject: str | None = None) -> Sequence[FactBody]:
        """Handles one event, received and happened at this time; returns its facts without the receipt."""
        kind = getattr(body, "TYPE", "unreadable.v1")
        about = subject if subject is not None else getattr(body, "subject", "")
        topic = getattr(body, "TOPIC", said.SUBMISSIONS.name)
        event = Event(topic, Envelope(f"e{next(_ids)}", "/tests", kind, about, at), body, at)
        changes, facts = handlers.decide(self.known, event)
        self.known.absorb(changes)
        told = [fact for fact in facts if not isinstance(fact, receipts.Receipt)]
        self.receipts.extend(
            fact for fact in facts if isinstance(fact, receipts.SubmissionTaken | receipts.SubmissionRefused)
        )
        self.said.extend(told)
        return told

    def refusal(self, body: object, at: datetime = NOW, subject: str | None = None) -> receipts.SubmissionRefused:
        """Handles one event that must be refused without any effect, and returns the receipt."""
        before = (dict(self.known.requests), dict(self.known.partners), dict(self.known.experts))
        assert self.hear(body, at, subject) == []
        assert (self.known.requests, self.known.partners, self.known.experts) == before
        receipt = self.receipts[-1]
        assert isinstance(receipt, receipts.SubmissionRefused)
        return receipt

    def was_taken(self) -> bool:
        """Whether the last submission was taken."""
        return isinstance(self.receipts[-1], receipts.SubmissionTaken)

    @property
    def request(self) -> Request:
        return self.known.requests[REQUEST]


def kinds(facts: Sequence[FactBody]) -> list[str]:
    """The types of these facts, in their order."""
    return [fact.TYPE for fact in facts]


def days(n: int) -> timedelta:
    return timedelta(days=n)
