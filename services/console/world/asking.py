"""What the agencies of the simulated outside world ask for. Pure: the same seed and number ask for the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from functools import cached_property
from random import Random
from typing import Any, Final

from schemas.vocabulary import AgencyType, Urgency
from services.console.world.population import MODES, TOPIC_WEIGHTS, Agency

UNKNOWN_ORI: Final = "ZZ0000000"
UNKNOWN_TOPIC: Final = "drone-programmes"

_WITHDRAWS: Final = 0.03
_BURST_TOPICS: Final = ("active-shooter", "mass-casualty", "officer-wellness", "public-sector-coordination")
_TOPICS_OF_ONE_REQUEST: Final = 2
_PROBLEMS: Final = (
    "Burglaries and thefts from vehicles have doubled within a year, and our few officers cannot keep up.",
    "A training exercise showed that our plans do not fit those of the fire service and of the schools.",
    "Officers leave faster than we can train new ones, and those who stay tell us that they are worn out.",
    "We have data from three systems and nobody who can make one picture of them.",
)


class Kind(StrEnum):
    """What a request is like when it is first submitted."""

    COMPLETE = "complete"
    LETTER_MISSING = "letter_missing"
    """The executive's letter is missing and is supplied when asked for."""
    SILENT = "silent"
    """The letter is missing and the agency never answers."""
    FEDERAL = "federal"
    UNKNOWN_TYPE = "unknown_type"
    """The registry does not know the agency's type, so the programme office has to rule."""
    UNKNOWN_TOPIC = "unknown_topic"
    UNKNOWN_AGENCY = "unknown_agency"
    DUPLICATE = "duplicate"
    """The agency has another request on the same topic."""


_MIX: Final = (
    (Kind.COMPLETE, 0.78),
    (Kind.LETTER_MISSING, 0.09),
    (Kind.DUPLICATE, 0.03),
    (Kind.UNKNOWN_TOPIC, 0.03),
    (Kind.FEDERAL, 0.02),
    (Kind.UNKNOWN_TYPE, 0.02),
    (Kind.UNKNOWN_AGENCY, 0.02),
    (Kind.SILENT, 0.01),
)


class Leaves(StrEnum):
    """The moment at which an agency changes its mind and withdraws, in the order of a request's life."""

    AT_ONCE = "request.submitted.v1"
    ACCEPTED = "request.accepted.v1"
    PROPOSED = "match.proposed.v1"
    MATCHED = "match.confirmed.v1"
    PLANNED = "engagement.planned.v1"
    CONFIRMED = "engagement.confirmed.v1"


@dataclass(frozen=True, slots=True)
class Draft:
    """What one agency is about to ask. `leaves` is None where it does not withdraw."""

    number: int
    kind: Kind
    agency: Agency
    topics: tuple[str, ...]
    urgency: Urgency = Urgency.ROUTINE
    participating: tuple[str, ...] = ()
    leaves: Leaves | None = None


@dataclass(frozen=True, slots=True)
class Burst:
    """After a mass-casualty event, the agencies of one state ask for critical help under these numbers."""

    state: str
    numbers: range


@dataclass(frozen=True)
class Asking:
    """All requests of a simulation, by number. Raises ValueError where no agency is eligible to ask."""

    seed: int
    agencies: Sequence[Agency]
    today: date
    burst: Burst | None = None

    def __post_init__(self) -> None:
        if not self._eligible:
            raise ValueError("no agency of an eligible type is known")

    @cached_property
    def _eligible(self) -> list[Agency]:
        found = [one for one in self.agencies if one.agency_type not in (AgencyType.FEDERAL, AgencyType.UNKNOWN)]
        Random(f"{self.seed}/agencies").shuffle(found)
        return found

    @cached_property
    def _of_type(self) -> dict[str, list[Agency]]:
        return _grouped(self.agencies, "agency_type")

    @cached_property
    def _of_state(self) -> dict[str, list[Agency]]:
        return _grouped(self._eligible, "state")

    def draft(self, number: int) -> Draft:
        """What the numbered request asks for."""
        dice = Random(f"{self.seed}/{number}")
        if self.burst is not None and number in self.burst.numbers:
            return self._burst_draft(number, self.burst)
        kind = dice.choices([kind for kind, _ in _MIX], [share for _, share in _MIX])[0]
        leaves = dice.choice(list(Leaves)) if dice.random() < _WITHDRAWS else None
        lap, place = divmod(number, len(self._eligible))
        agency = self._eligible[place]
        topics = self._topics(agency, lap, dice)
        if kind is Kind.UNKNOWN_AGENCY:
            agency = Agency(UNKNOWN_ORI, agency.agency_type, agency.state)
        elif kind is Kind.UNKNOWN_TOPIC:
            topics = (UNKNOWN_TOPIC,)
        elif kind in (Kind.FEDERAL, Kind.UNKNOWN_TYPE):
            wanted = AgencyType.FEDERAL if kind is Kind.FEDERAL else AgencyType.UNKNOWN
            special = self._of_type.get(wanted)
            agency, kind = (dice.choice(special), kind) if special else (agency, Kind.COMPLETE)
        elif kind is Kind.DUPLICATE:
            earlier = self._earlier(number)
            agency, topics, kind = (
                (earlier.agency, earlier.topics, kind) if earlier else (agency, topics, Kind.COMPLETE)
            )
        participating = self._neighbours(agency, dice) if "shared-services" in topics else ()
        urgency = dice.choices((Urgency.ROUTINE, Urgency.SOON), (0.8, 0.2))[0]
        return Draft(number, kind, agency, topics, urgency, participating, leaves)

    def body(self, draft: Draft) -> dict[str, Any]:
        """What the draft says when it is submitted, without who says it."""
        dice = Random(f"{self.seed}/{draft.number}/body")
        critical = draft.urgency is Urgency.CRITICAL
        first = self.today + timedelta(days=dice.randint(21, 30 if critical else 60))
        last = first + timedelta(days=dice.randint(40, 90))
        letters = {} if draft.kind in (Kind.LETTER_MISSING, Kind.SILENT) else self.letters(draft)
        return {
            "ori": draft.agency.ori,
            "participating": draft.participating,
            "terms": {
                "topics": draft.topics,
                "delivery_modes": [mode.value for mode in dice.sample(MODES, dice.randint(2, 3))],
                "window": {"first": first.isoformat(), "last": last.isoformat()},
                "blackouts": _blackouts(first, dice),
                "urgency": draft.urgency.value,
                "audience": {
                    "roles": ["patrol officers", "supervisors"],
                    "in_person": dice.randint(8, 60),
                    "virtual": dice.randint(0, 40),
                },
            },
            **letters,
            "host_facilities": "A classroom for thirty, with a projector.",
            "public": dice.random() < 0.2,
            "sensitive": {
                "executive": {"office": "Chief executive of the agency", "email": "executive@agency.example"},
                "point_of_contact": {"office": "Training unit", "email": "training@agency.example"},
                "problem": dice.choice(_PROBLEMS),
                "goals": "A plan that our own people can carry on with.",
            },
        }

    def letters(self, draft: Draft) -> dict[str, Any]:
        """The letters of support a request needs: the executive's, and for a Tribal Nation its governing body's."""
        signed_on = (self.today - timedelta(days=3)).isoformat()
        letters = {"executive_support": {"signed_on": signed_on, "reference": f"L-{draft.number:06d}"}}
        if draft.agency.agency_type == AgencyType.TRIBAL:
            letters["governing_body_support"] = {"signed_on": signed_on, "reference": f"Resolution {draft.number}"}
        return letters

    def largest_state(self) -> str:
        """The state with most eligible agencies."""
        return max(self._of_state, key=lambda state: (len(self._of_state[state]), state))

    def _topics(self, agency: Agency, lap: int, dice: Random) -> tuple[str, ...]:
        """Each time an agency's turn comes it asks for other topics than before, until the list has been gone through.

        Topics that are asked for more often tend to come first (weighted shuffle of Efraimidis and Spirakis).
        """
        order = Random(f"{self.seed}/{agency.ori}")
        offered = {
            topic: weight
            for topic, weight in TOPIC_WEIGHTS.items()
            if (topic == "tribal") <= (agency.agency_type == AgencyType.TRIBAL)
        }
        ranked = sorted(offered, key=lambda topic: order.random() ** (1 / offered[topic]), reverse=True)
        first = lap * _TOPICS_OF_ONE_REQUEST % (len(ranked) - 1)
        return tuple(ranked[first : first + (_TOPICS_OF_ONE_REQUEST if dice.random() < 0.3 else 1)])

    def _burst_draft(self, number: int, burst: Burst) -> Draft:
        agencies = self._of_state[burst.state]
        lap, place = divmod(number - burst.numbers.start, len(agencies))
        return Draft(
            number, Kind.COMPLETE, agencies[place], (_BURST_TOPICS[lap % len(_BURST_TOPICS)],), Urgency.CRITICAL
        )

    def _earlier(self, number: int) -> Draft | None:
        """A request shortly before that is likely to be open still."""
        for before in range(number - 1, max(-1, number - 12), -1):
            draft = self.draft(before)
            if draft.kind is Kind.COMPLETE and draft.leaves is None:
                return draft
        return None

    def _neighbours(self, agency: Agency, dice: Random) -> tuple[str, ...]:
        near = [one.ori for one in self._of_state.get(agency.state, []) if one.ori != agency.ori]
        return tuple(dice.sample(near, min(2, len(near))))


def _grouped(agencies: Sequence[Agency], attribute: str) -> dict[str, list[Agency]]:
    groups: dict[str, list[Agency]] = {}
    for agency in agencies:
        groups.setdefault(getattr(agency, attribute), []).append(agency)
    return groups


def _blackouts(first: date, dice: Random) -> list[dict[str, str]]:
    if dice.random() < 0.7:
        return []
    start = first + timedelta(days=dice.randint(3, 25))
    return [{"first": start.isoformat(), "last": (start + timedelta(days=dice.randint(0, 6))).isoformat()}]
