"""What matching knows, in PostgreSQL: a few set-based statements a batch or a round, however much it looks at."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Final, assert_never

from pydantic import TypeAdapter

from schemas.engagements import EngagementClosed, EngagementDelivered, EngagementFact, EngagementNotPlannable
from schemas.requests import (
    OfferAccepted,
    OfferDeclined,
    ProposalAccepted,
    ProposalDeclined,
    RequestAccepted,
    RequestAmended,
    RequestCancelled,
    RequestFact,
    RequestHeld,
    RequestReopened,
    RequestResumed,
    RequestWithdrawn,
)
from schemas.roster import ConflictDeclared, ConflictWaived, ExpertFact, PartnerFact, RosterBody
from schemas.vocabulary import ExpertId, MatchId, PartnerId, RequestId
from services.matching.decisions.bench import Roster
from services.matching.decisions.pool import Match, Request, Stage
from services.matching.decisions.roster import Expert, Partner
from services.matching.decisions.rounds import RECENT, Load
from services.runtime import service
from services.runtime.database import Database, Row, upsert
from services.runtime.service import Event

MOST_REQUESTS: Final = 1_000
"""Of one round: those due first. The others follow in the next rounds."""

OnRequest = (
    RequestAccepted
    | RequestAmended
    | RequestWithdrawn
    | RequestHeld
    | RequestResumed
    | RequestCancelled
    | RequestReopened
    | ProposalAccepted
    | ProposalDeclined
    | OfferAccepted
    | OfferDeclined
)
OnEngagement = EngagementNotPlannable | EngagementDelivered | EngagementClosed
Body = OnRequest | RosterBody | OnEngagement
"""What matching heeds. Whatever else its topics tell changes nothing here, and is passed over unread."""

_REQUEST: Final = TypeAdapter(Request)
_EXPERT: Final = TypeAdapter(Expert)
_PARTNER: Final = TypeAdapter(Partner)

_COLUMNS: Final = {"version", "changed"}
_REQUEST_COLUMNS: Final = {*_COLUMNS, "tried_on", "matches"}


@dataclass(slots=True)
class Known(service.Known):
    """What matching knows for one batch of events, by id."""

    requests: dict[RequestId, Request] = field(default_factory=dict[RequestId, Request])
    experts: dict[ExpertId, Expert] = field(default_factory=dict[ExpertId, Expert])
    partners: dict[PartnerId, Partner] = field(default_factory=dict[PartnerId, Partner])


@dataclass(slots=True)
class Board:
    """What a round looks at: the requests that are due for it, the whole roster, and what everybody holds."""

    requests: dict[RequestId, Request]
    roster: Roster
    held: dict[ExpertId, int] = field(default_factory=dict[ExpertId, int])
    served: dict[PartnerId, int] = field(default_factory=dict[PartnerId, int])
    proposed_at: dict[ExpertId, datetime] = field(default_factory=dict[ExpertId, datetime])

    @property
    def load(self) -> Load:
        return Load(self.held, self.served, self.proposed_at)


_POOL_COLUMNS: Final = "request_id, version, changed, tried_on, state"
# Rows are locked in one order everywhere, and written in it: experts, partners, requests, each in the order of its ids.
_REQUESTS: Final = f"SELECT {_POOL_COLUMNS} FROM pool WHERE request_id = ANY($1) ORDER BY request_id FOR UPDATE"
_MATCHES: Final = """
SELECT request_id, match_id, partner_id, expert_ids, proposed_at, stage, agency_agrees, partner_agrees
FROM match WHERE request_id = ANY($1) ORDER BY request_id, nth
"""
_EXPERTS: Final = """
SELECT expert_id AS id, version, changed, state FROM expert WHERE expert_id = ANY($1) ORDER BY expert_id FOR UPDATE
"""
_PARTNERS: Final = """
SELECT partner_id AS id, version, changed, state FROM partner WHERE partner_id = ANY($1) ORDER BY partner_id FOR UPDATE
"""


async def load(db: Database, events: Sequence[Event[Body]]) -> Known:
    """The experts, partners and requests the events speak of, locked."""
    request_ids, expert_ids, partner_ids = _spoken_of(events)
    return Known(
        experts=_experts(await db.fetch(_EXPERTS, list(expert_ids))) if expert_ids else {},
        partners=_partners(await db.fetch(_PARTNERS, list(partner_ids))) if partner_ids else {},
        requests=await _requests(db, await db.fetch(_REQUESTS, list(request_ids))) if request_ids else {},
    )


def _spoken_of(events: Sequence[Event[Body]]) -> tuple[set[RequestId], set[ExpertId], set[PartnerId]]:
    requests: set[RequestId] = set()
    experts: set[ExpertId] = set()
    partners: set[PartnerId] = set()
    for event in events:
        match event.body:
            case RequestFact() | EngagementFact() as fact:
                requests.add(fact.request_id)
            case ExpertFact() as fact:
                experts.add(fact.expert_id)
            case PartnerFact() as fact:
                partners.add(fact.partner_id)
            case ConflictDeclared() | ConflictWaived() as conflict:
                if conflict.expert_id is not None:
                    experts.add(conflict.expert_id)
                elif conflict.partner_id is not None:
                    partners.add(conflict.partner_id)
            case _:
                assert_never(event.body)
    return requests, experts, partners


async def _requests(db: Database, rows: Sequence[Row]) -> dict[RequestId, Request]:
    matches: defaultdict[str, list[Match]] = defaultdict(list)
    for row in await db.fetch(_MATCHES, [row["request_id"] for row in rows]):
        matches[row["request_id"]].append(_match(row))
    return {row["request_id"]: _request(row, tuple(matches[row["request_id"]])) for row in rows}


def _request(row: Row, matches: tuple[Match, ...]) -> Request:
    return replace(
        _REQUEST.validate_json(row["state"]),
        tried_on=row["tried_on"],
        matches=matches,
        changed=row["changed"],
        version=row["version"],
    )


def _match(row: Row) -> Match:
    return Match(
        match_id=row["match_id"],
        partner_id=row["partner_id"],
        expert_ids=tuple(row["expert_ids"]),
        proposed_at=row["proposed_at"],
        stage=Stage(row["stage"]),
        agency_agrees=row["agency_agrees"],
        partner_agrees=row["partner_agrees"],
    )


def _experts(rows: Sequence[Row]) -> dict[ExpertId, Expert]:
    return {
        row["id"]: replace(_EXPERT.validate_json(row["state"]), changed=row["changed"], version=row["version"])
        for row in rows
    }


def _partners(rows: Sequence[Row]) -> dict[PartnerId, Partner]:
    return {
        row["id"]: replace(_PARTNER.validate_json(row["state"]), changed=row["changed"], version=row["version"])
        for row in rows
    }


_SAVE_REQUESTS: Final = """
INSERT INTO pool AS known (request_id, version, step, held, due, tried_on, changed, state)
SELECT request_id, version + 1, step, held, due, tried_on, changed, state::jsonb
FROM unnest($1::text[], $2::int[], $3::text[], $4::boolean[], $5::timestamptz[], $6::date[], $7::boolean[], $8::text[])
    AS given (request_id, version, step, held, due, tried_on, changed, state)
ORDER BY request_id
ON CONFLICT (request_id) DO UPDATE SET version = excluded.version, step = excluded.step, held = excluded.held,
    due = excluded.due, tried_on = excluded.tried_on, changed = excluded.changed, state = excluded.state
WHERE known.version = excluded.version - 1
"""
_SAVE_MATCHES: Final = """
INSERT INTO match AS known
    (match_id, request_id, nth, partner_id, expert_ids, proposed_at, stage, agency_agrees, partner_agrees)
SELECT match_id, request_id, nth, partner_id, ARRAY(SELECT jsonb_array_elements_text(expert_ids::jsonb)), proposed_at,
    stage, agency_agrees, partner_agrees
FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::timestamptz[], $7::text[], $8::boolean[],
    $9::boolean[])
    AS given (match_id, request_id, nth, partner_id, expert_ids, proposed_at, stage, agency_agrees, partner_agrees)
ORDER BY request_id, nth
ON CONFLICT (match_id) DO UPDATE SET stage = excluded.stage, agency_agrees = excluded.agency_agrees,
    partner_agrees = excluded.partner_agrees
WHERE (known.stage, known.agency_agrees, known.partner_agrees)
    IS DISTINCT FROM (excluded.stage, excluded.agency_agrees, excluded.partner_agrees)
"""
_SAVE_EXPERTS: Final = """
INSERT INTO expert AS known (expert_id, version, listed, changed, state)
SELECT id, version + 1, listed, changed, state::jsonb
FROM unnest($1::text[], $2::int[], $3::boolean[], $4::boolean[], $5::text[])
    AS given (id, version, listed, changed, state)
ORDER BY id
ON CONFLICT (expert_id) DO UPDATE SET version = excluded.version, listed = excluded.listed, changed = excluded.changed,
    state = excluded.state
WHERE known.version = excluded.version - 1
"""
_SAVE_PARTNERS: Final = """
INSERT INTO partner AS known (partner_id, version, changed, state)
SELECT id, version + 1, changed, state::jsonb
FROM unnest($1::text[], $2::int[], $3::boolean[], $4::text[]) AS given (id, version, changed, state)
ORDER BY id
ON CONFLICT (partner_id) DO UPDATE SET version = excluded.version, changed = excluded.changed, state = excluded.state
WHERE known.version = excluded.version - 1
"""


async def save(db: Database, changes: Known) -> None:
    """Writes what has changed. Raises Contention where a row is not what it was when it was read."""
    if changes.experts:
        experts = list(changes.experts.values())
        await upsert(
            db,
            _SAVE_EXPERTS,
            [expert.expert_id for expert in experts],
            [expert.version for expert in experts],
            [expert.profile is not None for expert in experts],
            [expert.changed for expert in experts],
            [_EXPERT.dump_json(expert, exclude=_COLUMNS).decode() for expert in experts],
        )
    if changes.partners:
        partners = list(changes.partners.values())
        await upsert(
            db,
            _SAVE_PARTNERS,
            [partner.partner_id for partner in partners],
            [partner.version for partner in partners],
            [partner.changed for partner in partners],
            [_PARTNER.dump_json(partner, exclude=_COLUMNS).decode() for partner in partners],
        )
    if changes.requests:
        await _save_requests(db, list(changes.requests.values()))


async def _save_requests(db: Database, requests: Sequence[Request]) -> None:
    await upsert(
        db,
        _SAVE_REQUESTS,
        [request.request_id for request in requests],
        [request.version for request in requests],
        [request.step.value for request in requests],
        [request.held for request in requests],
        [request.asked.due if request.asked else None for request in requests],
        [request.tried_on for request in requests],
        [request.changed for request in requests],
        [_REQUEST.dump_json(request, exclude=_REQUEST_COLUMNS).decode() for request in requests],
    )
    matches = [(request, nth, one) for request in requests for nth, one in enumerate(request.matches, start=1)]
    if matches:
        await db.execute(
            _SAVE_MATCHES,
            [one.match_id for _, _, one in matches],
            [request.request_id for request, _, _ in matches],
            [nth for _, nth, _ in matches],
            [one.partner_id for _, _, one in matches],
            [json.dumps(one.expert_ids) for _, _, one in matches],
            [one.proposed_at for _, _, one in matches],
            [one.stage.value for _, _, one in matches],
            [one.agency_agrees for _, _, one in matches],
            [one.partner_agrees for _, _, one in matches],
        )


_NEWS: Final = """
SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS finished,
    (SELECT true FROM pool WHERE changed ORDER BY due NULLS FIRST, request_id LIMIT 1) AS requests,
    (SELECT true FROM expert WHERE changed ORDER BY expert_id LIMIT 1) AS experts,
    (SELECT true FROM partner WHERE changed ORDER BY partner_id LIMIT 1) AS partners,
    EXISTS (SELECT FROM pool WHERE step = 'waiting' AND NOT held AND tried_on < $1)
    OR EXISTS (SELECT FROM match JOIN pool USING (request_id) WHERE stage = 'proposed' AND tried_on < $1) AS resting,
    (SELECT ARRAY[count(*), sum(version)] FROM expert) || (SELECT ARRAY[count(*), sum(version)] FROM partner) AS edition
"""
# What has changed, and who rests, is ordered as its index is, so that the index itself is scanned: also before a table
# is first analyzed, when PostgreSQL takes half of it to be changed and would read it all. A scan marks the entries of
# rows that have moved on; a bitmap would collect them again each time. EXISTS would not do: it drops the order.
_CHANGED_EXPERTS: Final = "SELECT expert_id FROM expert WHERE changed ORDER BY expert_id FOR UPDATE"
_CHANGED_PARTNERS: Final = "SELECT partner_id FROM partner WHERE changed ORDER BY partner_id FOR UPDATE"
_TOUCHED: Final = """
SELECT request_id FROM match WHERE stage <> 'ended' AND (expert_ids && $1::text[] OR partner_id = ANY($2::text[]))
"""
_DUE: Final = """
SELECT request_id, state @> '{"freed": true}' AS freed FROM pool WHERE changed
ORDER BY due NULLS FIRST, request_id LIMIT $1
"""
_RESTING: Final = """
(SELECT request_id FROM pool WHERE step = 'waiting' AND NOT held AND NOT changed AND ($1 OR tried_on < $2)
 ORDER BY tried_on)
UNION ALL
SELECT request_id FROM match JOIN pool USING (request_id)
WHERE stage = 'proposed' AND NOT changed AND tried_on < $2
"""
_LOCK: Final = "SELECT FROM pool WHERE request_id = ANY($1) ORDER BY request_id FOR UPDATE"
_WAKE: Final = """
UPDATE pool SET changed = true, state = state || '{"freed": false}' WHERE request_id = ANY($1)
"""
_LOOKED_AT: Final = f"""
SELECT {_POOL_COLUMNS} FROM pool
WHERE request_id IN (SELECT unnest($1::text[]) UNION
                     (SELECT request_id FROM pool WHERE changed AND request_id = ANY($2)
                      ORDER BY due NULLS FIRST, request_id LIMIT $3))
"""
# Only a change that is locked is this round's to look at, and to mark as looked at.
_LISTED: Final = "SELECT expert_id AS id, version FROM expert WHERE listed OR expert_id = ANY($1)"
_THESE_EXPERTS: Final = """
SELECT expert_id AS id, version, false AS changed, state FROM expert WHERE expert_id = ANY($1)
"""
_ALL_PARTNERS: Final = "SELECT partner_id AS id, version, partner_id = ANY($1) AS changed, state FROM partner"
_COUNTED: Final = "match_id, partner_id, expert_ids, proposed_at, stage <> 'ended' AS active"
_HELD: Final = f"SELECT {_COUNTED} FROM match WHERE stage <> 'ended' OR proposed_at > $1"
_WRITTEN: Final = f"SELECT {_COUNTED} FROM match WHERE written >= $1::bigint::text::xid8"


@dataclass(slots=True)
class _Holdings:
    """What experts and partners hold, and when each expert was last proposed, counted match by match."""

    held: Counter[ExpertId] = field(default_factory=Counter[ExpertId])
    served: Counter[PartnerId] = field(default_factory=Counter[PartnerId])
    proposed_at: dict[ExpertId, datetime] = field(default_factory=dict[ExpertId, datetime])
    active: set[MatchId] = field(default_factory=set[MatchId])
    """The matches that are counted as held."""

    def count(self, row: Row) -> None:
        """Counts a match as it stands now, however it was counted before."""
        match_id = MatchId(row["match_id"])
        change = row["active"] - (match_id in self.active)
        if row["active"]:
            self.active.add(match_id)
        else:
            self.active.discard(match_id)
        self.served[row["partner_id"]] += change
        for expert_id in row["expert_ids"]:
            self.held[expert_id] += change
            self.proposed_at[expert_id] = max(row["proposed_at"], self.proposed_at.get(expert_id, row["proposed_at"]))


class Boards:
    """Loads what rounds look at. Remembers from one round to the next what is large and of which little changes.

    That is the roster, and what everybody holds.
    """

    def __init__(self) -> None:
        self._holdings = _Holdings()
        self._finished: int | None = None
        """Matches written by transactions before this one have been counted."""
        self._edition: Sequence[int] = ()
        self._remembered: Roster | None = None
        self._experts: Mapping[ExpertId, Expert] = {}

    async def load(self, db: Database, now: datetime) -> Board | None:
        """What a round has to look at, or None where nothing has changed since the last.

        Once a day, and whenever the roster changes or load comes free, all who wait are looked at; else only requests
        that changed: what they can be given, nobody who waits longer could have been given. Once a day proposals that
        nobody has answered are looked at too. Requests and the changed part of the roster are locked; the rest of the
        roster is read as it stands, and whoever changes it meanwhile marks it for the next round.
        """
        today = now.date()
        (news,) = await db.fetch(_NEWS, today)
        if not (news["requests"] or news["experts"] or news["partners"] or news["resting"]):
            return None
        expert_ids: list[ExpertId] = []
        partner_ids: list[PartnerId] = []
        if news["experts"]:
            expert_ids = [row["expert_id"] for row in await db.fetch(_CHANGED_EXPERTS)]
        if news["partners"]:
            partner_ids = [row["partner_id"] for row in await db.fetch(_CHANGED_PARTNERS)]
        requests = await _requests_to_look_at(db, expert_ids, partner_ids, today, news["resting"])
        await self._count(db, news["finished"], now)
        return Board(
            requests=requests,
            roster=await self._roster(db, news["edition"], expert_ids, partner_ids),
            held=dict(self._holdings.held),
            served=dict(self._holdings.served),
            proposed_at=dict(self._holdings.proposed_at),
        )

    async def _count(self, db: Database, finished: int, now: datetime) -> None:
        """Counts the matches that were written since the last round, or all that count for anything.

        A match carries the number of the transaction that wrote it. All transactions before `finished` had ended when
        this round began; what later ones write is counted by the next round, if need be a second time. Numbers that
        have gone back are those of another server, of which nothing is known.
        """
        if self._finished is None or finished < self._finished:
            written, self._holdings = await db.fetch(_HELD, now - RECENT), _Holdings()
        else:
            written = await db.fetch(_WRITTEN, self._finished)
        for row in written:
            self._holdings.count(row)
        self._finished = finished

    async def _roster(
        self, db: Database, edition: Sequence[int], expert_ids: Sequence[ExpertId], partner_ids: Sequence[PartnerId]
    ) -> Roster:
        """The roster as it stands, with those marked whose change this round looks at.

        Each change of a row adds one to its version and none is ever deleted, so the sum tells editions apart. The
        edition was read first: what changes between is under a lower number than its own, and will be read again.
        """
        marked = bool(expert_ids or partner_ids)
        if self._remembered is not None and edition == self._edition and not marked:
            return self._remembered
        self._experts = await self._as_they_stand(db, expert_ids)
        changed = {expert_id: replace(self._experts[expert_id], changed=True) for expert_id in expert_ids}
        roster = Roster({**self._experts, **changed}, _partners(await db.fetch(_ALL_PARTNERS, partner_ids)))
        self._edition, self._remembered = edition, None if marked else roster
        return roster

    async def _as_they_stand(self, db: Database, expert_ids: Sequence[ExpertId]) -> dict[ExpertId, Expert]:
        """All who are listed, and these. Only who has changed is read."""
        versions = {row["id"]: row["version"] for row in await db.fetch(_LISTED, expert_ids)}
        known = self._experts
        stale = [one for one, version in versions.items() if one not in known or known[one].version != version]
        read = _experts(await db.fetch(_THESE_EXPERTS, stale)) if stale else {}
        return {one: read[one] if one in read else known[one] for one in versions}


async def _requests_to_look_at(
    db: Database, expert_ids: Sequence[str], partner_ids: Sequence[str], today: date, resting: bool
) -> dict[RequestId, Request]:
    """The requests of a round. Which they are is found out first, so that all are locked at once, in their order."""
    marked = bool(expert_ids or partner_ids)
    touched = [row["request_id"] for row in await db.fetch(_TOUCHED, expert_ids, partner_ids)] if marked else []
    due = await db.fetch(_DUE, MOST_REQUESTS)
    freed = [row["request_id"] for row in due if row["freed"]]
    chances = marked or bool(freed)
    woken = [row["request_id"] for row in await db.fetch(_RESTING, chances, today)] if chances or resting else []
    changed = [*(row["request_id"] for row in due), *woken]
    await db.execute(_LOCK, [*touched, *changed])
    if freed or woken:
        await db.execute(_WAKE, [*freed, *woken])
    requests = await _requests(db, await db.fetch(_LOOKED_AT, touched, changed, MOST_REQUESTS))
    # What came free after that was looked at is left for the next round, which wakes whoever waits for it.
    return {request_id: one for request_id, one in requests.items() if chances or not one.freed}


async def requests_by_step(db: Database) -> dict[tuple[str, ...], float]:
    """How many requests stand at each step."""
    rows = await db.fetch("SELECT step, count(*) AS requests FROM pool GROUP BY step")
    return {(row["step"],): row["requests"] for row in rows}


async def expert_load(db: Database) -> dict[tuple[str, ...], float]:
    """Requests that all listed experts together hold, and could hold at most."""
    held = await db.fetchval("SELECT coalesce(sum(cardinality(expert_ids)), 0) FROM match WHERE stage <> 'ended'")
    limit = await db.fetchval(
        "SELECT coalesce(sum((state->'profile'->>'load_limit')::bigint), 0) FROM expert WHERE listed"
    )
    return {("held",): float(held), ("limit",): float(limit)}


async def partner_load(db: Database) -> dict[tuple[str, ...], float]:
    """Requests that all selected partners together serve, and could serve at most."""
    held = await db.fetchval("SELECT count(*) FROM match WHERE stage <> 'ended'")
    limit = await db.fetchval("SELECT coalesce(sum((state->'award'->>'capacity')::bigint), 0) FROM partner")
    return {("held",): float(held), ("limit",): float(limit)}
