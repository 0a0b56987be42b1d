"""Scheduling's tables: what a batch has to know, read and written with a few statements however many events it has."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from pydantic import TypeAdapter

from schemas.matches import MatchConfirmed, MatchFact, MatchReleased
from schemas.requests import (
    EvaluationReturned,
    PlanApproved,
    PlanChangesRequested,
    PlanCleared,
    RequestAccepted,
    RequestAmended,
    RequestCancelled,
    RequestFact,
    RequestHeld,
    RequestReopened,
    RequestResumed,
    RequestWithdrawn,
    SessionReported,
)
from schemas.roster import AvailabilityChanged, ExpertChanged, ExpertListed
from schemas.vocabulary import ExpertId, RequestId, TimeWindow
from services.runtime.database import Contention, Database, Row, upsert
from services.runtime.service import Event, Known
from services.scheduling.decisions.engagement import Engagement
from services.scheduling.decisions.life import Booked
from services.scheduling.decisions.plan import Expert, Profile

_STATE: Final = TypeAdapter(Engagement)
_PROFILE: Final = TypeAdapter(Profile)
_PLANNING: Final = (
    RequestAccepted,
    RequestAmended,
    RequestReopened,
    RequestResumed,
    PlanApproved,
    PlanCleared,
    PlanChangesRequested,
    MatchConfirmed,
)
"""After these an engagement may be planned, so its experts' calendars are needed."""
OnRequest = (
    RequestAccepted
    | RequestAmended
    | RequestReopened
    | RequestHeld
    | RequestResumed
    | RequestWithdrawn
    | RequestCancelled
    | PlanApproved
    | PlanCleared
    | PlanChangesRequested
    | SessionReported
    | EvaluationReturned
)
OnMatch = MatchConfirmed | MatchReleased
OnExpert = ExpertListed | ExpertChanged | AvailabilityChanged
"""After these the engagements of an expert may be planned. Of who retires, is suspended or has a conflict, matching
releases the matches."""
Body = OnRequest | OnMatch | OnExpert
"""What scheduling heeds. Whatever else its topics tell changes nothing here, and is passed over unread."""
_REMINDED_AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Knowledge(Known):
    """Engagements, experts and the time booked of each expert. Bookings are stored as their engagements say."""

    engagements: dict[RequestId, Engagement] = field(default_factory=dict[RequestId, Engagement])
    experts: dict[ExpertId, Expert] = field(default_factory=dict[ExpertId, Expert])
    booked: dict[ExpertId, Booked] = field(default_factory=dict[ExpertId, Booked])


async def load(db: Database, events: Sequence[Event[Body]]) -> Knowledge:
    """Locks the experts whose calendars matter, then the engagements, both in the order of their ids."""
    named = _named(event.body for event in events)
    experts = named.matched | named.listed | await _experts_of(db, named)
    profiles = await _lock_experts(db, experts)
    engagements = await _lock_engagements(db, named)
    for engagement in engagements.values():
        team = set(engagement.match.expert_ids) if engagement.match else set[ExpertId]()
        if (engagement.request_id in named.planning or team & named.listed) and not team <= experts:
            raise Contention(f"request {engagement.request_id} had another match before its experts were locked")
    booked = await _booked(db, experts, min(event.received for event in events)) if experts else {}
    return Knowledge(engagements, profiles, booked)


@dataclass(frozen=True, slots=True)
class _Named:
    """Whom a batch speaks of: requests, those that may be planned, experts of matches, experts of the roster."""

    requests: set[RequestId]
    planning: set[RequestId]
    matched: set[ExpertId]
    listed: set[ExpertId]


def _named(bodies: Iterable[Body]) -> _Named:
    named = _Named(set(), set(), set(), set())
    for body in bodies:
        if isinstance(body, RequestFact | MatchFact):
            named.requests.add(body.request_id)
        if isinstance(body, _PLANNING):
            named.planning.add(body.request_id)
        if isinstance(body, MatchConfirmed):
            named.matched.update(body.expert_ids)
        if isinstance(body, OnExpert):
            named.listed.add(body.expert_id)
    return named


async def _experts_of(db: Database, named: _Named) -> set[ExpertId]:
    """The experts of the matches that may be planned, or that one of the roster's experts is part of."""
    if not named.planning and not named.listed:
        return set()
    rows = await db.fetch(
        """
        SELECT DISTINCT unnest(expert_ids) AS expert_id FROM engagement
        WHERE expert_ids <> '{}' AND (request_id = ANY($1::text[]) OR expert_ids && $2::text[])
        """,
        sorted(named.planning),
        sorted(named.listed),
    )
    return {row["expert_id"] for row in rows}


async def _lock_experts(db: Database, experts: set[ExpertId]) -> dict[ExpertId, Expert]:
    if not experts:
        return {}
    ids = sorted(experts)
    # A row for everybody named: what is not there could not be locked, and a match that waits for an expert to be
    # listed would be missed by a listing stored at the same time.
    await db.execute("INSERT INTO expert (expert_id, version) SELECT unnest($1::text[]), 0 ON CONFLICT DO NOTHING", ids)
    rows = await db.fetch(
        "SELECT expert_id, version, profile FROM expert WHERE expert_id = ANY($1::text[]) "
        "ORDER BY expert_id FOR UPDATE",
        ids,
    )
    return {row["expert_id"]: _expert(row) for row in rows}


def _expert(row: Row) -> Expert:
    profile = None if row["profile"] is None else _PROFILE.validate_json(row["profile"])
    return Expert(row["expert_id"], row["version"], profile)


async def _lock_engagements(db: Database, named: _Named) -> dict[RequestId, Engagement]:
    if not named.requests and not named.listed:
        return {}
    rows = await db.fetch(
        """
        SELECT request_id, version, state FROM engagement
        WHERE request_id = ANY($1::text[]) OR (expert_ids <> '{}' AND expert_ids && $2::text[])
        ORDER BY request_id FOR UPDATE
        """,
        sorted(named.requests),
        sorted(named.listed),
    )
    return {row["request_id"]: _engagement(row) for row in rows}


def _engagement(row: Row) -> Engagement:
    return replace(_STATE.validate_json(row["state"]), row_version=row["version"])


async def _booked(db: Database, experts: set[ExpertId], since: datetime) -> dict[ExpertId, Booked]:
    rows = await db.fetch(
        """
        SELECT expert_id, request_id, lower(occupies) AS starts, upper(occupies) AS ends FROM booking
        WHERE expert_id = ANY($1::text[]) AND occupies && tstzrange($2, NULL)
        """,
        sorted(experts),
        since,
    )
    found: defaultdict[ExpertId, list[tuple[RequestId, TimeWindow]]] = defaultdict(list)
    for row in rows:
        found[row["expert_id"]].append((row["request_id"], TimeWindow(row["starts"], row["ends"])))
    return {expert_id: tuple(windows) for expert_id, windows in found.items()}


async def save(db: Database, changes: Knowledge) -> None:
    """Writes experts, engagements and the bookings that these engagements now have. Raises Contention."""
    await _save_experts(db, changes.experts.values())
    if changes.engagements:
        await _save_engagements(db, changes.engagements.values())
        await _save_bookings(db, changes.engagements.values())


async def _save_experts(db: Database, experts: Iterable[Expert]) -> None:
    changed = [expert for expert in experts if expert.profile is not None]
    if not changed:
        return
    await upsert(
        db,
        """
        INSERT INTO expert (expert_id, version, profile)
        SELECT * FROM unnest($1::text[], $2::integer[], $3::jsonb[])
        ON CONFLICT (expert_id) DO UPDATE SET version = excluded.version, profile = excluded.profile
        WHERE expert.version = excluded.version - 1
        """,
        [expert.expert_id for expert in changed],
        [expert.row_version + 1 for expert in changed],
        [_PROFILE.dump_json(expert.profile).decode() for expert in changed if expert.profile],
    )


async def _save_engagements(db: Database, engagements: Iterable[Engagement]) -> None:
    changed = sorted(engagements, key=lambda engagement: engagement.request_id)
    await upsert(
        db,
        """
        INSERT INTO engagement (request_id, version, step, expert_ids, follow_up_on, state)
        SELECT id, version, step, ARRAY(SELECT jsonb_array_elements_text(state #> '{match,expert_ids}')),
            follow_up_on, state
        FROM unnest($1::text[], $2::integer[], $3::text[], $4::timestamptz[], $5::jsonb[])
            AS given (id, version, step, follow_up_on, state)
        ON CONFLICT (request_id) DO UPDATE SET
            version = excluded.version, step = excluded.step, expert_ids = excluded.expert_ids,
            follow_up_on = excluded.follow_up_on, state = excluded.state
        WHERE engagement.version = excluded.version - 1
        """,
        [engagement.request_id for engagement in changed],
        [engagement.row_version + 1 for engagement in changed],
        [engagement.step.value for engagement in changed],
        [engagement.follow_up_on for engagement in changed],
        [_STATE.dump_json(engagement).decode() for engagement in changed],
    )


async def _save_bookings(db: Database, engagements: Iterable[Engagement]) -> None:
    booked = [
        (expert_id, session.occupies, engagement.request_id, session.session_id)
        for engagement in engagements
        for session in engagement.outstanding
        for expert_id in session.expert_ids
    ]
    # The id of a session names the version of its plan: under the same id it never changes its time.
    await db.execute(
        "DELETE FROM booking WHERE request_id = ANY($1::text[]) AND session_id <> ALL($2::text[])",
        sorted(engagement.request_id for engagement in engagements),
        sorted({session_id for _, _, _, session_id in booked}),
    )
    if booked:
        await db.execute(
            """
            INSERT INTO booking (expert_id, occupies, request_id, session_id)
            SELECT expert_id, tstzrange(starts, ends), request_id, session_id
            FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[], $4::text[], $5::text[])
                AS given (expert_id, starts, ends, request_id, session_id)
            ON CONFLICT (session_id, expert_id) DO NOTHING
            """,
            [expert_id for expert_id, _, _, _ in booked],
            [occupies.start for _, occupies, _, _ in booked],
            [occupies.end for _, occupies, _, _ in booked],
            [request_id for _, _, request_id, _ in booked],
            [session_id for _, _, _, session_id in booked],
        )


async def load_due(db: Database, now: datetime) -> Knowledge | None:
    """The engagements whose follow-up is due, oldest first; None where there is none."""
    rows = await db.fetch(
        """
        SELECT request_id, version, state FROM engagement
        WHERE request_id IN (
            SELECT request_id FROM engagement WHERE follow_up_on <= $1 ORDER BY follow_up_on, request_id LIMIT $2)
        ORDER BY request_id FOR UPDATE
        """,
        now,
        _REMINDED_AT_ONCE,
    )
    if not rows:
        return None
    return Knowledge({row["request_id"]: _engagement(row) for row in rows})


async def count_engagements(db: Database) -> Mapping[tuple[str, ...], float]:
    """Engagements by step."""
    rows = await db.fetch("SELECT step, count(*) AS many FROM engagement GROUP BY step")
    return {(row["step"],): float(row["many"]) for row in rows}


async def count_bookings(db: Database) -> Mapping[tuple[str, ...], float]:
    """Bookings that are not over."""
    return {(): float(await db.fetchval("SELECT count(*) FROM booking WHERE upper(occupies) > now()"))}
