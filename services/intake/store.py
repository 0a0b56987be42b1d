"""What intake knows, in PostgreSQL: a few set-based statements a batch, however many events it has."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from pydantic import TypeAdapter

from schemas.vocabulary import (
    AgencyType,
    ConflictId,
    ConflictKind,
    ExpertId,
    Ori,
    PartnerId,
    Place,
    RequestId,
    SwornBand,
    TopicCode,
)
from services.intake.decisions.registry import Agency, Standing
from services.intake.decisions.request import Request, Sensitive
from services.intake.decisions.roster import Conflict, Expert, Partner
from services.intake.decisions.topics import OfferedTopic
from services.runtime import service
from services.runtime.database import Contention, Database, Row, upsert

_REQUEST: Final = TypeAdapter(Request)
_SENSITIVE: Final = TypeAdapter(Sensitive)
_PARTNER: Final = TypeAdapter(Partner)
_EXPERT: Final = TypeAdapter(Expert)


@dataclass(slots=True)
class Known(service.Known):
    """What intake knows for one batch, by id."""

    agencies: dict[Ori, Standing] = field(default_factory=dict[Ori, Standing])
    registered: dict[Ori, bool] = field(default_factory=dict[Ori, bool])
    """Agencies that are in the registry, of those that are only named."""
    topics: dict[TopicCode, OfferedTopic] = field(default_factory=dict[TopicCode, OfferedTopic])
    requests: dict[RequestId, Request] = field(default_factory=dict[RequestId, Request])
    partners: dict[PartnerId, Partner] = field(default_factory=dict[PartnerId, Partner])
    experts: dict[ExpertId, Expert] = field(default_factory=dict[ExpertId, Expert])
    conflicts: dict[ConflictId, Conflict] = field(default_factory=dict[ConflictId, Conflict])


@dataclass(slots=True)
class Wanted:
    """Ids of what a batch's events may need."""

    agencies: set[Ori] = field(default_factory=set[Ori])
    """Agencies that submit a request: they are locked, and their open topics are read."""
    agencies_of: set[RequestId] = field(default_factory=set[RequestId])
    """Requests whose agencies are wanted likewise."""
    named: set[Ori] = field(default_factory=set[Ori])
    """Agencies of which only has to be known whether they are in the registry."""
    requests: set[RequestId] = field(default_factory=set[RequestId])
    partners: set[PartnerId] = field(default_factory=set[PartnerId])
    ruled_on: set[PartnerId] = field(default_factory=set[PartnerId])
    """Partners wanted together with the experts that wait for their selection."""
    consulted: set[PartnerId] = field(default_factory=set[PartnerId])
    """Partners that are only looked at, without being locked."""
    experts: set[ExpertId] = field(default_factory=set[ExpertId])
    conflicts: set[ConflictId] = field(default_factory=set[ConflictId])


_AGENCY_COLUMNS: Final = (
    "ori, name, agency_type, state, county, latitude, longitude, time_zone, sworn_officers, sworn_band, active"
)
_ASKING: Final = "SELECT DISTINCT ori FROM request WHERE id = ANY($1)"
_AGENCIES: Final = f"SELECT {_AGENCY_COLUMNS} FROM agency WHERE ori = ANY($1) ORDER BY ori FOR NO KEY UPDATE"
_OPEN_TOPICS: Final = "SELECT ori, topic, request_id FROM open_topic WHERE ori = ANY($1)"
_REGISTERED: Final = "SELECT ori FROM agency WHERE ori = ANY($1)"
_TOPICS: Final = "SELECT code, first_day, last_day, refer_to FROM topic_of_assistance"
_REQUESTS: Final = "SELECT id, version, state, sensitive FROM request WHERE id = ANY($1) ORDER BY id FOR UPDATE"
_PARTNERS: Final = "SELECT id, version, state FROM partner WHERE id = ANY($1) ORDER BY id FOR UPDATE"
_CONSULTED: Final = "SELECT id, version, state FROM partner WHERE id = ANY($1)"
_EXPERTS: Final = "SELECT id, version, state FROM expert WHERE id = ANY($1) ORDER BY id FOR UPDATE"
_CONFLICTS: Final = """
SELECT id, version, ori, kind, expert_id, partner_id, detail, waived FROM conflict WHERE id = ANY($1)
ORDER BY id FOR UPDATE
"""
_DUE: Final = """
SELECT id, version, state, sensitive FROM request WHERE rings_at <= $1 ORDER BY id LIMIT 1000 FOR UPDATE
"""
_IMPORT_AGENCIES: Final = f"""
INSERT INTO agency AS known ({_AGENCY_COLUMNS})
SELECT {_AGENCY_COLUMNS} FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::float8[],
    $7::float8[], $8::text[], $9::int[], $10::text[], $11::boolean[]) AS given ({_AGENCY_COLUMNS})
ORDER BY ori
ON CONFLICT (ori) DO UPDATE SET name = excluded.name, agency_type = excluded.agency_type, state = excluded.state,
    county = excluded.county, latitude = excluded.latitude, longitude = excluded.longitude,
    time_zone = excluded.time_zone, sworn_officers = excluded.sworn_officers, sworn_band = excluded.sworn_band,
    active = excluded.active
WHERE known.* IS DISTINCT FROM excluded.*
RETURNING xmax = 0 AS added
"""

_SAVE_REQUESTS: Final = """
INSERT INTO request AS known (id, version, ori, step, rings_at, state, sensitive)
SELECT id, version + 1, ori, step, rings_at, state::jsonb, sensitive::jsonb
FROM unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::text[])
    AS given (id, version, ori, step, rings_at, state, sensitive)
ORDER BY id
ON CONFLICT (id) DO UPDATE SET version = excluded.version, step = excluded.step, rings_at = excluded.rings_at,
    state = excluded.state, sensitive = excluded.sensitive
WHERE known.version = excluded.version - 1
"""
_CLOSE_TOPICS: Final = """
DELETE FROM open_topic USING unnest($1::text[], $2::text[]) AS given (request_id, topics)
WHERE open_topic.request_id = given.request_id AND NOT given.topics::jsonb ? open_topic.topic
"""
_OPEN: Final = """
INSERT INTO open_topic (ori, topic, request_id)
SELECT ori, topic, request_id FROM unnest($1::text[], $2::text[], $3::text[]) AS given (ori, topic, request_id)
WHERE NOT EXISTS (SELECT FROM open_topic AS held WHERE held.request_id = given.request_id AND held.topic = given.topic)
ORDER BY ori, topic
"""
_SAVE_PARTNERS: Final = """
INSERT INTO partner AS known (id, version, step, state)
SELECT id, version + 1, step, state::jsonb
FROM unnest($1::text[], $2::int[], $3::text[], $4::text[]) AS given (id, version, step, state) ORDER BY id
ON CONFLICT (id) DO UPDATE SET version = excluded.version, step = excluded.step, state = excluded.state
WHERE known.version = excluded.version - 1
"""
_SAVE_EXPERTS: Final = """
INSERT INTO expert AS known (id, version, partner_id, step, state)
SELECT id, version + 1, partner_id, step, state::jsonb
FROM unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::text[]) AS given (id, version, partner_id, step, state)
ORDER BY id
ON CONFLICT (id) DO UPDATE SET version = excluded.version, partner_id = excluded.partner_id, step = excluded.step,
    state = excluded.state
WHERE known.version = excluded.version - 1
"""
_SAVE_CONFLICTS: Final = """
INSERT INTO conflict AS known (id, version, ori, kind, expert_id, partner_id, detail, waived)
SELECT id, version + 1, ori, kind, expert_id, partner_id, detail, waived
FROM unnest($1::text[], $2::int[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::boolean[])
    AS given (id, version, ori, kind, expert_id, partner_id, detail, waived)
ORDER BY id
ON CONFLICT (id) DO UPDATE SET version = excluded.version, waived = excluded.waived
WHERE known.version = excluded.version - 1
"""


async def load(db: Database, wanted: Wanted) -> Known:
    """Reads and locks what is wanted: agencies, requests, partners, experts, conflicts, each in the order of its id.

    Agencies come first because their rows stand for what an agency has open, which has no row of its own to lock.
    Raises Contention where a request was stored too late for its agency to be among them.
    """
    known = Known()
    oris = await _oris(db, wanted)
    if oris:
        await _load_agencies(db, oris, known)
    if wanted.requests:
        rows = await db.fetch(_REQUESTS, list(wanted.requests))
        known.requests.update((RequestId(row["id"]), _request(row)) for row in rows)
    for request in known.requests.values():
        if request.request_id in wanted.agencies_of and request.ori not in oris:
            raise Contention(f"request {request.request_id} was stored after its agency was looked for")
    await _load_registered(db, wanted, known)
    await _load_partners(db, wanted, known)
    ruled_on = (known.partners[partner_id] for partner_id in wanted.ruled_on & known.partners.keys())
    waiting = {expert_id for partner in ruled_on for expert_id in partner.waiting}
    if wanted.experts or waiting:
        rows = await db.fetch(_EXPERTS, list(wanted.experts | waiting))
        known.experts.update((ExpertId(row["id"]), _expert(row)) for row in rows)
    if wanted.conflicts:
        rows = await db.fetch(_CONFLICTS, list(wanted.conflicts))
        known.conflicts.update((ConflictId(row["id"]), _conflict(row)) for row in rows)
    return known


async def save(db: Database, changes: Known) -> None:
    """Writes what has changed. Raises Contention where a row is not what it was when it was read."""
    if changes.requests:
        await _save_requests(db, list(changes.requests.values()))
    if changes.partners:
        partners = list(changes.partners.values())
        await upsert(
            db,
            _SAVE_PARTNERS,
            [partner.partner_id for partner in partners],
            [partner.version for partner in partners],
            [partner.step.value for partner in partners],
            [_PARTNER.dump_json(partner, exclude={"version"}).decode() for partner in partners],
        )
    if changes.experts:
        experts = list(changes.experts.values())
        await upsert(
            db,
            _SAVE_EXPERTS,
            [expert.expert_id for expert in experts],
            [expert.version for expert in experts],
            [expert.partner_id for expert in experts],
            [expert.step.value for expert in experts],
            [_EXPERT.dump_json(expert, exclude={"version"}).decode() for expert in experts],
        )
    if changes.conflicts:
        conflicts = list(changes.conflicts.values())
        await upsert(
            db,
            _SAVE_CONFLICTS,
            [conflict.conflict_id for conflict in conflicts],
            [conflict.version for conflict in conflicts],
            [conflict.ori for conflict in conflicts],
            [conflict.kind.value for conflict in conflicts],
            [conflict.expert_id for conflict in conflicts],
            [conflict.partner_id for conflict in conflicts],
            [conflict.detail for conflict in conflicts],
            [conflict.waived for conflict in conflicts],
        )


async def load_due(db: Database, now: datetime) -> Known | None:
    """Requests whose ruling clock rings by now, with nothing else; None where there are none."""
    rows = await db.fetch(_DUE, now)
    return Known(requests={RequestId(row["id"]): _request(row) for row in rows}) if rows else None


@dataclass(frozen=True, slots=True)
class ImportCounts:
    """What an import did to the registry."""

    added: int
    changed: int
    unchanged: int


async def import_agencies(db: Database, agencies: Sequence[Agency]) -> ImportCounts:
    """Brings the registry to what the list says, in one statement. Of an ORI that is listed twice the last row counts.

    Agencies the list does not name stay: their requests refer to them.
    """
    rows = list({agency.ori: agency for agency in agencies}.values())
    touched = await db.fetch(
        _IMPORT_AGENCIES,
        [row.ori for row in rows],
        [row.name for row in rows],
        [row.agency_type.value for row in rows],
        [row.state for row in rows],
        [row.county for row in rows],
        [row.place.latitude if row.place else None for row in rows],
        [row.place.longitude if row.place else None for row in rows],
        [row.time_zone for row in rows],
        [row.sworn_officers for row in rows],
        [row.sworn_band.value for row in rows],
        [row.active for row in rows],
    )
    added = sum(row["added"] for row in touched)
    return ImportCounts(added, len(touched) - added, len(rows) - len(touched))


async def requests_by_step(db: Database) -> dict[tuple[str, ...], float]:
    """How many requests have reached each step."""
    rows = await db.fetch("SELECT step, count(*) AS requests FROM request GROUP BY step")
    return {(row["step"],): row["requests"] for row in rows}


async def agencies_in_registry(db: Database) -> dict[tuple[str, ...], float]:
    """How many agencies the registry has."""
    return {(): await db.fetchval("SELECT count(*) FROM agency")}


async def _oris(db: Database, wanted: Wanted) -> set[Ori]:
    if not wanted.agencies_of:
        return wanted.agencies
    return wanted.agencies.union(row["ori"] for row in await db.fetch(_ASKING, list(wanted.agencies_of)))


async def _load_agencies(db: Database, oris: set[Ori], known: Known) -> None:
    rows = await db.fetch(_AGENCIES, list(oris))
    agencies = [_agency(row) for row in rows]
    open_topics: dict[Ori, dict[TopicCode, RequestId]] = {agency.ori: {} for agency in agencies}
    for row in await db.fetch(_OPEN_TOPICS, list(open_topics)):
        open_topics[row["ori"]][row["topic"]] = row["request_id"]
    known.agencies.update((agency.ori, Standing(agency, open_topics[agency.ori])) for agency in agencies)
    known.topics.update((TopicCode(row["code"]), _topic(row)) for row in await db.fetch(_TOPICS))


async def _load_registered(db: Database, wanted: Wanted, known: Known) -> None:
    undecided = (request for request in known.requests.values() if request.is_undecided)
    oris = wanted.named.union(*(request.participating for request in undecided))
    if oris:
        known.registered.update((Ori(row["ori"]), True) for row in await db.fetch(_REGISTERED, list(oris)))


async def _load_partners(db: Database, wanted: Wanted, known: Known) -> None:
    changing = wanted.partners | wanted.ruled_on
    for statement, ids in ((_PARTNERS, changing), (_CONSULTED, wanted.consulted - changing)):
        if ids:
            known.partners.update((PartnerId(row["id"]), _partner(row)) for row in await db.fetch(statement, list(ids)))


async def _save_requests(db: Database, requests: Sequence[Request]) -> None:
    await upsert(
        db,
        _SAVE_REQUESTS,
        [request.request_id for request in requests],
        [request.version for request in requests],
        [request.ori for request in requests],
        [request.step.value for request in requests],
        [request.ruling_clock.rings_at if request.ruling_clock else None for request in requests],
        [_REQUEST.dump_json(request, exclude={"version", "sensitive"}).decode() for request in requests],
        [_sensitive_json(request.sensitive) for request in requests],
    )
    topics = [request.terms.topics if request.is_open else () for request in requests]
    await db.execute(
        _CLOSE_TOPICS, [request.request_id for request in requests], [json.dumps(codes) for codes in topics]
    )
    opened = [(request, code) for request, codes in zip(requests, topics, strict=True) for code in codes]
    if opened:
        await db.execute(
            _OPEN,
            [request.ori for request, _ in opened],
            [code for _, code in opened],
            [request.request_id for request, _ in opened],
        )


def _sensitive_json(sensitive: Sensitive) -> str | None:
    return None if sensitive == Sensitive() else _SENSITIVE.dump_json(sensitive).decode()


def _request(row: Row) -> Request:
    sensitive = Sensitive() if row["sensitive"] is None else _SENSITIVE.validate_json(row["sensitive"])
    return replace(_REQUEST.validate_json(row["state"]), version=row["version"], sensitive=sensitive)


def _partner(row: Row) -> Partner:
    return replace(_PARTNER.validate_json(row["state"]), version=row["version"])


def _expert(row: Row) -> Expert:
    return replace(_EXPERT.validate_json(row["state"]), version=row["version"])


def _conflict(row: Row) -> Conflict:
    return Conflict(
        ConflictId(row["id"]),
        Ori(row["ori"]),
        ConflictKind(row["kind"]),
        row["expert_id"],
        row["partner_id"],
        row["detail"],
        row["waived"],
        row["version"],
    )


def _topic(row: Row) -> OfferedTopic:
    return OfferedTopic(TopicCode(row["code"]), row["first_day"], row["last_day"], row["refer_to"])


def _agency(row: Row) -> Agency:
    return Agency(
        ori=Ori(row["ori"]),
        name=row["name"],
        agency_type=AgencyType(row["agency_type"]),
        state=row["state"],
        county=row["county"],
        place=None if row["latitude"] is None else Place(row["latitude"], row["longitude"]),
        time_zone=row["time_zone"],
        sworn_officers=row["sworn_officers"],
        sworn_band=SwornBand(row["sworn_band"]),
        active=row["active"],
    )
