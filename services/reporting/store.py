"""The projections in PostgreSQL: what is saved adds up with what is there; what is asked is read in one statement."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar

from schemas.vocabulary import RequestId
from services.reporting.decisions.numbers import PAIRING_TARGET, SMALL_BANDS, Duration, Overview, PartnerLoad
from services.reporting.decisions.story import Line, in_order
from services.reporting.decisions.views import (
    Agency,
    ExpertView,
    IntakeView,
    PartnerView,
    ReceiptKind,
    RequestView,
    Step,
)
from services.runtime.database import Database, Row
from services.runtime.service import Known

_KEYS: Final = {
    "story": "topic, key, sequence",
    "request": "request_id",
    "partner": "partner_id",
    "expert": "expert_id",
    "receipt_count": "source, type, outcome",
}


@dataclass(slots=True)
class Projections(Known):
    """What a batch adds to the projections."""

    story: dict[tuple[str, str, int], Line] = field(default_factory=dict)
    requests: dict[str, RequestView] = field(default_factory=dict)
    partners: dict[str, PartnerView] = field(default_factory=dict)
    experts: dict[str, ExpertView] = field(default_factory=dict)
    receipts: dict[ReceiptKind, int] = field(default_factory=dict)


_LATEST: Final = "excluded.{0}"
_LAST_SAID: Final = "coalesce(excluded.{0}, known.{0})"
_FIRST: Final = "coalesce(known.{0}, excluded.{0})"
_SUM: Final = "known.{0} + excluded.{0}"


@dataclass(frozen=True, slots=True)
class _Column:
    """A column, how what is newer adds up with what is there, and its value in a view."""

    name: str
    type: str
    adds_up: str
    value: Callable[[Any], Any]


def _column(name: str, type_: str, adds_up: str, attribute: str = "") -> _Column:
    return _Column(name, type_, adds_up, attrgetter(attribute or name))


def _list(name: str, adds_up: str) -> _Column:
    """Arrays of arrays must be rectangular in PostgreSQL, so lists travel as lines: no name holds a line break."""
    read = attrgetter(name)

    def lines(view: Any) -> str | None:
        names = read(view)
        return None if names is None else "\n".join(names)

    return _Column(name, "text[]", adds_up, lines)


def _of_agency(name: str, attribute: str) -> _Column:
    read: Callable[[Agency], str] = attrgetter(attribute)

    def value(view: IntakeView) -> str | None:
        return None if view.agency is None else read(view.agency)

    return _Column(name, "text", _LAST_SAID, value)


class _Part:
    """The columns of a table that one topic owns: written only where its sequence is newer than the row's."""

    def __init__(self, of_view: Callable[[Any], Any], sequence: str, *columns: _Column) -> None:
        self.of_view = of_view
        self.sequence = sequence
        self.columns = (_column(sequence, "bigint", _LATEST, "sequence"), *columns)

    @property
    def is_newer(self) -> str:
        return f"excluded.{self.sequence} > known.{self.sequence}"

    def taken(self) -> list[str]:
        """The columns as they are taken from arrays; a topic that says nothing adds nothing."""
        return [
            f"string_to_array({column.name}, E'\\n')"
            if column.type == "text[]"
            else f"coalesce({column.name}, 0)"
            if column.adds_up == _SUM or column.name == self.sequence
            else column.name
            for column in self.columns
        ]

    def set(self) -> list[str]:
        """The assignments of an update."""
        return [
            f"{column.name} = CASE WHEN {self.is_newer} THEN {column.adds_up.format(column.name)} "
            f"ELSE known.{column.name} END"
            for column in self.columns
        ]


V = TypeVar("V")


class _Upsert(Generic[V]):
    """Adds views to the rows of a table in one statement and in key order, so that no two workers wait in a circle."""

    def __init__(self, table: str, key: str, *parts: _Part) -> None:
        self._parts = parts
        columns = [column for part in parts for column in part.columns]
        names = ", ".join([key, *(column.name for column in columns)])
        types = ["text[]", *(column.type if column.type == "text[]" else f"{column.type}[]" for column in columns)]
        self._statement = f"""
            INSERT INTO {table} AS known ({names})
            SELECT {", ".join([key, *(taken for part in parts for taken in part.taken())])}
            FROM unnest({", ".join(f"${place}::{type_}" for place, type_ in enumerate(types, 1))}) AS given ({names})
            ON CONFLICT ({key}) DO UPDATE SET {", ".join(each for part in parts for each in part.set())}
            WHERE {" OR ".join(part.is_newer for part in parts)}
        """

    async def save(self, db: Database, views: Mapping[str, V]) -> None:
        if views:
            keys = sorted(views)
            arrays: list[list[Any]] = [keys]
            for part in self._parts:
                said = [part.of_view(views[key]) for key in keys]
                arrays.extend([None if one is None else column.value(one) for one in said] for column in part.columns)
            await db.execute(self._statement, *arrays)


def _whole(view: V) -> V:
    return view


_REQUEST: Final = _Upsert[RequestView](
    "request",
    "request_id",
    _Part(
        attrgetter("intake"),
        "intake_sequence",
        _column("intake_time", "timestamptz", _LATEST, "time"),
        _column("intake_step", "text", _LAST_SAID, "step"),
        _column("on_hold", "boolean", _LAST_SAID),
        _column("reopenings", "integer", _SUM),
        _of_agency("ori", "ori"),
        _of_agency("agency_name", "name"),
        _of_agency("agency_type", "agency_type"),
        _of_agency("state", "state"),
        _of_agency("sworn_band", "sworn_band"),
        _list("topics", _LAST_SAID),
        _column("urgency", "text", _LAST_SAID),
        _column("submitted_at", "timestamptz", _FIRST),
        _column("answered_at", "timestamptz", _FIRST),
        _column("accepted_at", "timestamptz", _FIRST),
    ),
    _Part(
        attrgetter("match"),
        "match_sequence",
        _column("match_time", "timestamptz", _LATEST, "time"),
        _column("match_step", "text", _LATEST, "step"),
        _column("match_attempt", "integer", _LAST_SAID, "attempt"),
        _column("partner_id", "text", _LATEST),
        _list("expert_ids", _LATEST),
        _column("first_proposed_at", "timestamptz", _FIRST),
        _column("match_confirmed_at", "timestamptz", _FIRST, "confirmed_at"),
    ),
    _Part(
        attrgetter("engagement"),
        "engagement_sequence",
        _column("engagement_time", "timestamptz", _LATEST, "time"),
        _column("engagement_step", "text", _LAST_SAID, "step"),
        _column("engagement_attempt", "integer", _LAST_SAID, "attempt"),
        _column("follow_up", "boolean", _LAST_SAID),
        _column("completions", "integer", _SUM),
        _column("first_planned_at", "timestamptz", _FIRST),
        _column("confirmed_at", "timestamptz", _FIRST),
        _column("delivered_at", "timestamptz", _FIRST),
        _column("closed_at", "timestamptz", _FIRST),
    ),
)
_PARTNER: Final = _Upsert[PartnerView](
    "partner",
    "partner_id",
    _Part(
        _whole,
        "sequence",
        _column("time", "timestamptz", _LATEST),
        _column("selected", "boolean", _LATEST),
        _column("name", "text", _LAST_SAID),
        _column("acronym", "text", _LAST_SAID),
        _column("capacity", "integer", _LAST_SAID),
    ),
)
_EXPERT: Final = _Upsert[ExpertView](
    "expert",
    "expert_id",
    _Part(
        _whole,
        "sequence",
        _column("time", "timestamptz", _LATEST),
        _column("listed", "boolean", _LATEST),
        _column("partner_id", "text", _LAST_SAID),
        _list("topics", _LAST_SAID),
        _list("delivery_modes", _LAST_SAID),
        _column("load_limit", "integer", _LAST_SAID),
    ),
)

_SAVE_STORY: Final = """
INSERT INTO story (topic, key, sequence, id, type, time, body)
SELECT topic, key, sequence, id, type, time, body::jsonb
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::timestamptz[], $7::text[])
    AS given (topic, key, sequence, id, type, time, body)
ON CONFLICT DO NOTHING
"""

_COUNT_RECEIPTS: Final = """
INSERT INTO receipt_count AS known (source, type, outcome, count)
SELECT source, type, outcome, count
FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) AS given (source, type, outcome, count)
ON CONFLICT (source, type, outcome) DO UPDATE SET count = known.count + excluded.count
"""


async def save(db: Database, projections: Projections) -> None:
    """Adds a batch to the tables, with one statement per table."""
    await _save_story(db, projections.story)
    await _REQUEST.save(db, projections.requests)
    await _PARTNER.save(db, projections.partners)
    await _EXPERT.save(db, projections.experts)
    await _count_receipts(db, projections.receipts)


async def _save_story(db: Database, story: Mapping[tuple[str, str, int], Line]) -> None:
    if story:
        lines = [story[place] for place in sorted(story)]
        await db.execute(
            _SAVE_STORY,
            [line.topic for line in lines],
            [line.request_id for line in lines],
            [line.sequence for line in lines],
            [line.id for line in lines],
            [line.type for line in lines],
            [line.time for line in lines],
            [line.body for line in lines],
        )


async def _count_receipts(db: Database, receipts: Mapping[ReceiptKind, int]) -> None:
    if receipts:
        kinds = sorted(receipts)
        await db.execute(
            _COUNT_RECEIPTS,
            [kind.source for kind in kinds],
            [kind.type for kind in kinds],
            [kind.outcome for kind in kinds],
            [receipts[kind] for kind in kinds],
        )


async def counts_by_step(db: Database) -> dict[Step, int]:
    """The funnel: how many requests stand at each step, none left out."""
    found = {row["step"]: row["count"] for row in await db.fetch("SELECT step, count FROM step_count")}
    return {step: found.get(step.value, 0) for step in Step}


async def story_of(db: Database, request_id: RequestId) -> list[Line]:
    """Every event of one request in the order it happened; empty where nothing is known of it."""
    rows = await db.fetch(
        """
        SELECT topic, key, sequence, id, type, time, body::text AS body FROM story
        WHERE topic IN ('requests', 'matches', 'engagements') AND key = $1
        """,
        request_id,
    )
    return in_order(
        Line(row["topic"], row["key"], row["sequence"], row["id"], row["type"], row["time"], row["body"])
        for row in rows
    )


async def request_of(db: Database, request_id: RequestId) -> Row | None:
    """Who asked, for what, and where it stands, or None. Partner and experts are those in charge of it."""
    return await db.fetchrow(
        """
        SELECT request_id, step, ori, agency_name, agency_type, state, sworn_band, topics, urgency,
            CASE WHEN in_hand OR step IN ('delivered', 'follow_up_due', 'closed') THEN partner_id END AS partner_id,
            CASE WHEN in_hand OR step IN ('delivered', 'follow_up_due', 'closed') THEN expert_ids END AS expert_ids,
            submitted_at, answered_at, accepted_at, first_proposed_at, match_confirmed_at, first_planned_at,
            confirmed_at, delivered_at, closed_at
        FROM request WHERE request_id = $1
        """,
        request_id,
    )


_WAITS: Final = {
    "answered": "answered_at",
    "proposed": "first_proposed_at",
    "matched": "match_confirmed_at",
    "confirmed": "confirmed_at",
}


def _wait(milestone: str) -> str:
    waited = f"extract(epoch FROM {milestone} - submitted_at)"
    percentiles = f"percentile_cont(ARRAY[0.5, 0.9]) WITHIN GROUP (ORDER BY {waited})"
    return f"json_build_array(count({waited}), ({percentiles})[1], ({percentiles})[2])"


_OVERVIEW: Final = f"""
SELECT
    (SELECT json_object_agg(step, count) FROM step_count) AS steps,
    count(DISTINCT ori) AS agencies,
    count(DISTINCT ori) FILTER (WHERE sworn_band = ANY($1)) AS small_agencies,
    count(DISTINCT ori) FILTER (WHERE sworn_band <> ALL($1) AND sworn_band <> 'unknown') AS larger_agencies,
    (SELECT json_object_agg(topic, count) FROM
        (SELECT topic, count(*) FROM request, unnest(topics) AS topic GROUP BY topic) AS each) AS topics,
    (SELECT json_object_agg(state, count) FROM
        (SELECT state, count(*) FROM request WHERE state IS NOT NULL GROUP BY state) AS each) AS states,
    (SELECT json_object_agg(agency_type, count) FROM
        (SELECT agency_type, count(*) FROM request WHERE agency_type IS NOT NULL GROUP BY agency_type) AS each)
        AS agency_types,
    json_build_object({", ".join(f"'{name}', {_wait(milestone)}" for name, milestone in _WAITS.items())}) AS durations,
    count(*) FILTER (WHERE match_confirmed_at <= submitted_at + $2::interval) AS matched_in_time,
    (SELECT json_object_agg(clock, json_build_array(warned, breached)) FROM
        (SELECT body->>'clock' AS clock,
            count(DISTINCT key) FILTER (WHERE type = 'clock.warned.v1') AS warned,
            count(DISTINCT key) FILTER (WHERE type = 'clock.breached.v1') AS breached
        FROM story WHERE type IN ('clock.warned.v1', 'clock.breached.v1') GROUP BY clock) AS each) AS clocks,
    (SELECT json_agg(json_build_array(name, selected, coalesce(listed, 0), coalesce(held, 0), capacity) ORDER BY name)
        FROM partner
        LEFT JOIN (SELECT partner_id, count(*) AS listed FROM expert WHERE listed GROUP BY partner_id) AS roster
            USING (partner_id)
        LEFT JOIN (SELECT partner_id, count(*) AS held FROM request WHERE in_hand GROUP BY partner_id) AS load
            USING (partner_id)) AS partners,
    (SELECT json_object_agg(type, json_build_array(taken, refused)) FROM
        (SELECT type, coalesce(sum(count) FILTER (WHERE outcome = 'taken'), 0) AS taken,
            coalesce(sum(count) FILTER (WHERE outcome = 'refused'), 0) AS refused
        FROM receipt_count GROUP BY type) AS each) AS submissions
FROM request
"""


async def overview(db: Database) -> Overview:
    """The numbers of the programme, all as of one moment."""
    row = await db.fetchrow(_OVERVIEW, list(SMALL_BANDS), PAIRING_TARGET)
    assert row is not None
    steps = _counts(row["steps"])
    return Overview(
        steps={step: steps.get(step.value, 0) for step in Step},
        agencies=row["agencies"],
        small_agencies=row["small_agencies"],
        larger_agencies=row["larger_agencies"],
        topics=_counts(row["topics"]),
        states=_counts(row["states"]),
        agency_types=_counts(row["agency_types"]),
        durations={name: Duration(*figures) for name, figures in json.loads(row["durations"]).items()},
        matched_in_time=row["matched_in_time"],
        clocks=_pairs(row["clocks"]),
        partners=[PartnerLoad(*load) for load in json.loads(row["partners"] or "[]")],
        submissions=_pairs(row["submissions"]),
    )


def _counts(text: str | None) -> dict[str, int]:
    return json.loads(text) if text is not None else {}


def _pairs(text: str | None) -> dict[str, tuple[int, int]]:
    found: dict[str, list[int]] = json.loads(text) if text is not None else {}
    return {label: (one, other) for label, (one, other) in found.items()}


async def clear(db: Database) -> None:
    """Empties every projection, to be read again from the log."""
    await db.execute(f"TRUNCATE {', '.join(_KEYS)}")


async def digest(db: Database) -> dict[str, str]:
    """One hash per table over its rows in the order of their keys: equal where the tables are identical.

    Without `step_count`, which follows from `request` and keeps a 0 for a step that all have left.
    """
    return {
        table: await db.fetchval(
            f"SELECT md5(coalesce(string_agg(md5(t::text), '' ORDER BY {key}), '')) FROM {table} AS t"
        )
        for table, key in _KEYS.items()
    }
