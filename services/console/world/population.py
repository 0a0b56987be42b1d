"""Who lives in the simulated outside world: the partners of the programme, their experts, and conflicts of interest.

Pure: the seed decides everything. Experts are offices, never persons. Which agencies and topics an expert serves is
invented; the partners are the programme's own (data/partners.csv).
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from importlib import resources
from random import Random
from typing import Any, Final, NamedTuple

from schemas.vocabulary import AgencyType, ConflictKind, DeliveryMode, Level, SwornBand

TOPIC_WEIGHTS: Final = {
    "training": 10,
    "active-shooter": 8,
    "intelligence-sharing": 7,
    "public-sector-coordination": 6,
    "officer-wellness": 5,
    "gun-violence": 4,
    "problem-solving": 4,
    "compstat": 3,
    "focused-deterrence": 3,
    "mass-demonstrations": 3,
    "gang-prevention": 3,
    "mass-casualty": 2,
    "shared-services": 2,
    "tribal": 1,
}
"""The 14 topics of 2017-2018 and how often each is asked for, after the order the programme's reports give."""

MODES: Final = (
    DeliveryMode.IN_PERSON_TRAINING,
    DeliveryMode.WEB_BASED_TRAINING,
    DeliveryMode.TRAIN_THE_TRAINER,
    DeliveryMode.VIRTUAL_COACHING,
    DeliveryMode.MEETING_FACILITATION,
    DeliveryMode.ON_SITE_CONSULTATION,
    DeliveryMode.PEER_EXCHANGE,
    DeliveryMode.STRATEGIC_PLANNING,
    DeliveryMode.POLICY_REVIEW,
    DeliveryMode.DATA_ANALYSIS,
)

PROGRAMME_OFFICE: Final = {"role": "programme_office", "id": "COPS Office"}

_ELIGIBLE: Final = tuple(kind for kind in AgencyType if kind not in (AgencyType.FEDERAL, AgencyType.UNKNOWN))
_SERVED: Final = {
    "IACLEA": (AgencyType.CAMPUS, AgencyType.MUNICIPAL, AgencyType.SPECIAL_JURISDICTION),
    "MCCA": (AgencyType.MUNICIPAL, AgencyType.COUNTY_OTHER, AgencyType.STATE_POLICE),
    "MCSA": (AgencyType.COUNTY_SHERIFF, AgencyType.COUNTY_OTHER, AgencyType.MUNICIPAL),
    "NSA": (AgencyType.COUNTY_SHERIFF, AgencyType.COUNTY_OTHER, AgencyType.TRIBAL, AgencyType.MUNICIPAL),
}
_BANDS: Final = (SwornBand.FROM_10, SwornBand.FROM_50, SwornBand.FROM_100, SwornBand.FROM_500)
_HOMES: Final = (
    (42.3601, -71.0589, "America/New_York"),
    (40.7128, -74.0060, "America/New_York"),
    (38.9072, -77.0369, "America/New_York"),
    (33.7490, -84.3880, "America/New_York"),
    (25.7617, -80.1918, "America/New_York"),
    (41.4993, -81.6944, "America/New_York"),
    (35.9606, -83.9207, "America/New_York"),
    (41.8781, -87.6298, "America/Chicago"),
    (44.9778, -93.2650, "America/Chicago"),
    (39.0997, -94.5786, "America/Chicago"),
    (29.7604, -95.3698, "America/Chicago"),
    (29.9511, -90.0715, "America/Chicago"),
    (35.1495, -90.0490, "America/Chicago"),
    (41.9779, -91.6656, "America/Chicago"),
    (39.7392, -104.9903, "America/Denver"),
    (40.7608, -111.8910, "America/Denver"),
    (35.0844, -106.6504, "America/Denver"),
    (43.6150, -116.2023, "America/Boise"),
    (33.4484, -112.0740, "America/Phoenix"),
    (34.0522, -118.2437, "America/Los_Angeles"),
    (37.7749, -122.4194, "America/Los_Angeles"),
    (47.6062, -122.3321, "America/Los_Angeles"),
    (61.2181, -149.9003, "America/Anchorage"),
    (21.3069, -157.8583, "Pacific/Honolulu"),
)
"""Latitude, longitude and time zone of cities across the country."""


class Agency(NamedTuple):
    """A real agency, as far as the outside world has to know it."""

    ori: str
    agency_type: str
    state: str


class Partner(NamedTuple):
    """A membership association of the programme. Its acronym is its id."""

    acronym: str
    name: str


@dataclass(frozen=True, slots=True)
class Message:
    """One submission to be: who sends it under which id, and what it says."""

    source: str
    id: str
    type: str
    subject: str
    body: Mapping[str, Any]


def partners() -> list[Partner]:
    """The partners of the programme."""
    text = resources.files("services.console").joinpath("data/partners.csv").read_text(encoding="utf-8")
    return [Partner(row["acronym"], row["name"]) for row in csv.DictReader(text.splitlines())]


def roster(seed: int, run: str, experts: int, agencies: Sequence[Agency], today: date) -> Iterator[Message]:
    """What fills the roster: partners apply and are selected, list their experts, and conflicts are disclosed.

    Experts carry on average eight requests at a time. About one in three has a conflict with some agency.
    """
    dice = Random(f"{seed}/roster")
    known = partners()
    listed = [_expert(seed, dice, nth, known[nth % len(known)].acronym, agencies, today) for nth in range(experts)]
    for partner in known:
        capacity = sum(profile["load_limit"] for _, profile in listed if profile["partner_id"] == partner.acronym)
        yield from _admission(run, partner, max(1, capacity))
    for expert_id, profile in listed:
        partner_id = profile["partner_id"]
        body = {"expert_id": expert_id, "actor": {"role": "partner", "id": partner_id}, "profile": profile}
        yield Message(partner_source(run, partner_id), f"{run}-listed-{expert_id}", "expert.listed.v1", expert_id, body)
    if agencies:
        yield from _conflicts(dice, run, [expert_id for expert_id, _ in listed], agencies)


def partner_source(run: str, partner_id: str) -> str:
    """The system a partner sends from."""
    return f"/outside/{run}/partners/{partner_id}"


def office_source(run: str) -> str:
    """The system the programme office sends from."""
    return f"/outside/{run}/programme-office"


def agency_source(run: str, state: str) -> str:
    """The system the agencies of a state send from."""
    return f"/outside/{run}/agencies/{state}"


def _admission(run: str, partner: Partner, capacity: int) -> Iterator[Message]:
    partner_id = partner.acronym
    yield Message(
        partner_source(run, partner_id),
        f"{run}-applied-{partner_id}",
        "partner.applied.v1",
        partner_id,
        {
            "partner_id": partner_id,
            "actor": {"role": "partner", "id": partner_id},
            "name": partner.name,
            "acronym": partner_id,
            "capacity": capacity,
        },
    )
    yield Message(
        office_source(run),
        f"{run}-ruled-{partner_id}",
        "application.ruled.v1",
        partner_id,
        {
            "partner_id": partner_id,
            "actor": PROGRAMME_OFFICE,
            "selected": True,
            "capacity": capacity,
            "reason": "Meets the published criteria.",
        },
    )


def _expert(
    seed: int, dice: Random, nth: int, partner_id: str, agencies: Sequence[Agency], today: date
) -> tuple[str, dict[str, Any]]:
    names = list(TOPIC_WEIGHTS)
    # The first topic goes round, so that every topic has its experts however few there are.
    topics = [names[nth % len(names)], *dice.sample(names, 5)]
    latitude, longitude, time_zone = dice.choice(_HOMES)
    first_off = today + timedelta(days=dice.randint(10, 120))
    profile: dict[str, Any] = {
        "partner_id": partner_id,
        "skills": [{"topic": topic, "level": dice.choice(list(Level)).value} for topic in dict.fromkeys(topics)],
        "delivery_modes": [mode.value for mode in dice.sample(MODES, dice.randint(6, 9))],
        "agency_types": [kind.value for kind in _SERVED.get(partner_id, _ELIGIBLE)],
        "sworn_band": dice.choice(_BANDS).value,
        "home": {"latitude": latitude, "longitude": longitude},
        "time_zone": time_zone,
        "travel_limit_km": dice.choice((2500, 5000, 20_100, 20_100)),
        "load_limit": dice.randint(5, 11),
        "unavailable": [
            {"first": first_off.isoformat(), "last": (first_off + timedelta(days=dice.randint(2, 12))).isoformat()}
        ],
    }
    if agencies and dice.random() < 0.5:
        until = None if dice.random() < 0.4 else (today - timedelta(days=dice.randint(100, 3000))).isoformat()
        profile["employments"] = [{"ori": dice.choice(agencies).ori, "until": until}]
    return f"{partner_id}-{seed}-{nth:04d}", profile


def _conflicts(dice: Random, run: str, experts: Sequence[str], agencies: Sequence[Agency]) -> Iterator[Message]:
    kinds = (ConflictKind.FAMILY, ConflictKind.LITIGATION, ConflictKind.LABOUR_DISPUTE, ConflictKind.RECUSAL)
    for expert_id in experts:
        if dice.random() < 0.35:
            agency, kind = dice.choice(agencies), dice.choice(kinds)
            body = {"expert_id": expert_id, "actor": {"role": "expert", "id": expert_id}}
            yield _disclosure(run, f"C-{expert_id}-{agency.ori}", body, agency, kind)
    # A union whose local chapter bargains with the agency helps it only with the executive's waiver.
    for nth, agency in enumerate(dice.sample(agencies, min(len(agencies), 20))):
        conflict_id = f"C-FOP-{agency.ori}"
        body = {"partner_id": "FOP", "actor": {"role": "partner", "id": "FOP"}}
        yield _disclosure(run, conflict_id, body, agency, ConflictKind.BARGAINING)
        if nth % 2:
            yield Message(
                agency_source(run, agency.state),
                f"{run}-waived-{conflict_id}",
                "conflict.waived.v1",
                conflict_id,
                {"conflict_id": conflict_id, "actor": {"role": "agency_executive", "id": agency.ori}},
            )


def _disclosure(run: str, conflict_id: str, said: dict[str, Any], agency: Agency, kind: ConflictKind) -> Message:
    actor = said["actor"]
    source = f"/outside/{run}/{actor['role']}s"
    body = {"conflict_id": conflict_id, **said, "ori": agency.ori, "kind": kind.value}
    return Message(source, f"{run}-disclosed-{conflict_id}", "conflict.disclosed.v1", conflict_id, body)
