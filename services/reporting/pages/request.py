"""One request and its whole story: for the programme office, without the sensitive part."""

import json
import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final, cast

from schemas.vocabulary import ID_PATTERN, RequestId
from services.reporting import store
from services.reporting.decisions.story import Line
from services.reporting.decisions.views import Step
from services.reporting.pages.markup import STEP_MEANS, event_name, facts, json_answer, moment, page, words
from services.runtime.database import Database, Row
from services.runtime.service import PageAnswer

_MILESTONES: Final = {
    "submitted_at": "Submitted",
    "answered_at": "First answered",
    "accepted_at": "Accepted",
    "first_proposed_at": "First proposed",
    "match_confirmed_at": "Match confirmed",
    "first_planned_at": "First planned",
    "confirmed_at": "Dates confirmed",
    "delivered_at": "Delivered",
    "closed_at": "Closed",
}
_GIST: Final = (
    "match_id",
    "partner_id",
    "plan_version",
    "session_id",
    "held_on",
    "outcome",
    "refer_to",
    "clock",
    "due",
    "reason",
)
"""Fields of an event that are shown beside its name; all others are a click away."""


async def request(db: Database, asked: Mapping[str, str]) -> PageAnswer:
    """One request and its whole story, as JSON."""
    request_id = asked.get("id", "")
    found = await _find(db, request_id)
    if found is None:
        return json_answer({"error": _not_known(request_id)}, 404)
    row, story = found
    return json_answer({"request": dict(row), "story": [_event(line) for line in story]})


async def _find(db: Database, text: str) -> tuple[Row, list[Line]] | None:
    """The request and its story; None where it is not known, or where the text cannot be an id at all."""
    if re.fullmatch(ID_PATTERN, text) is None:
        return None
    request_id = RequestId(text)
    row = await store.request_of(db, request_id)
    return None if row is None else (row, await store.story_of(db, request_id))


def _event(line: Line) -> dict[str, object]:
    return {
        "time": line.time,
        "topic": line.topic,
        "sequence": line.sequence,
        "type": line.type,
        "id": line.id,
        "body": None if line.body is None else json.loads(line.body),
    }


def _not_known(request_id: str) -> str:
    return (
        f"No request {request_id!r} is known here. Check the id; a request sent a moment ago appears as soon as intake "
        "has answered it."
    )


async def request_page(db: Database, asked: Mapping[str, str]) -> PageAnswer:
    """One request and its whole story, as a page."""
    request_id = asked.get("id", "")
    found = await _find(db, request_id)
    if found is None:
        return page("Not known", f"<p>{escape(_not_known(request_id))}</p>", 404)
    row, story = found
    return page(
        f"Request {request_id}",
        f"""
        <p class="standing"><strong>{words(row["step"])}</strong> {escape(STEP_MEANS[Step(row["step"])])}</p>
        <div class="columns">
        <section aria-labelledby="who"><h2 id="who">Who and what</h2>{facts(_who(row))}</section>
        <section aria-labelledby="when"><h2 id="when">First reached</h2>{facts(_when(row))}</section>
        </div>
        <section aria-labelledby="story"><h2 id="story">Story</h2>
        <ol class="story">{"".join(_told(line) for line in story)}</ol></section>
        """,
    )


def _who(row: Row) -> Iterable[tuple[str, str]]:
    if row["ori"] is not None:
        yield "Agency", f"{escape(row['agency_name'])} <small>{escape(row['ori'])}</small>"
        yield "Type", words(row["agency_type"])
        yield "State", escape(row["state"])
        yield "Sworn", words(row["sworn_band"])
    if row["topics"]:
        yield "Topics", ", ".join(escape(topic) for topic in row["topics"])
    if row["urgency"] is not None:
        yield "Urgency", words(row["urgency"])
    if row["partner_id"] is not None:
        yield "Partner", escape(row["partner_id"])
        yield "Experts", ", ".join(escape(expert) for expert in row["expert_ids"])


def _when(row: Row) -> Iterable[tuple[str, str]]:
    return ((says, moment(row[name])) for name, says in _MILESTONES.items() if row[name] is not None)


def _told(line: Line) -> str:
    head = (
        f"<h3>{event_name(line.type)}</h3>"
        f'<p class="meta">{moment(line.time)} · {escape(line.topic)} {line.sequence}</p>'
    )
    if line.body is None:
        return f"<li>{head}<p>The content is restricted.</p></li>"
    body = cast("dict[str, Any]", json.loads(line.body))
    gist = [(words(field), escape(str(body[field]))) for field in _GIST if body.get(field) is not None]
    shown = escape(json.dumps(body, indent=2, ensure_ascii=False))
    return (
        f"<li>{head}{facts(gist) if gist else ''}"
        f"<details><summary>Everything it says</summary><pre>{shown}</pre></details></li>"
    )
