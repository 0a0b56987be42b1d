"""What reporting shows: the programme in numbers and the story of one request, each as a page and as JSON.

The programme's page names no agency: its counts go through `publishable`. A request's page is for the programme office.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any, Final, cast

from schemas.vocabulary import RequestId
from services.reporting import store
from services.reporting.decisions import (
    PAIRING_TARGET,
    THRESHOLD,
    Line,
    Overview,
    Published,
    Step,
    enough,
    publishable,
    share,
)
from services.runtime.database import Database, Row
from services.runtime.service import Page, PageAnswer

_STEP_MEANS: Final = {
    Step.NEEDS_INFORMATION: "the agency owes an answer",
    Step.DECLINED: "not taken on, with reasons",
    Step.REFERRED_OUT: "another programme helps",
    Step.ACCEPTED: "in the pool, to be matched",
    Step.UNFILLED: "in the pool, nobody fits yet",
    Step.PROPOSED: "agency and partner are asked",
    Step.MATCHED: "partner and experts agreed",
    Step.PLANNED: "dates wait for approval",
    Step.NOT_PLANNABLE: "no dates fit, back to matching",
    Step.CONFIRMED: "dates stand",
    Step.DELIVERED: "all sessions held",
    Step.FOLLOW_UP_DUE: "time to ask what became of it",
    Step.CLOSED: "completed",
    Step.ON_HOLD: "paused by the programme office",
    Step.WITHDRAWN: "by the agency",
    Step.CANCELLED: "by the programme office",
}
_WAITS: Final = {
    "answered": "First answer of intake",
    "proposed": "First proposal",
    "matched": "Match confirmed",
    "confirmed": "Dates confirmed",
}
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


async def counts(db: Database, _: Mapping[str, str]) -> PageAnswer:
    """The programme in numbers, as JSON."""
    seen = await store.overview(db)
    return _json(
        {
            "requests": seen.requests,
            "agencies": seen.agencies,
            "small_agency_share": share(seen.small_agencies, seen.larger_agencies),
            "steps": {step.value: count for step, count in seen.steps.items()},
            "topics": _table(publishable(seen.topics)),
            "states": _table(publishable(seen.states)),
            "agency_types": _table(publishable(seen.agency_types)),
            "seconds_from_submission": {
                name: {"requests": wait.count, "p50": wait.p50, "p90": wait.p90}
                for name, wait in ((name, enough(wait)) for name, wait in seen.durations.items())
            },
            "matched_in_time_share": _in_time(seen),
            "clocks": {name: {"warned": warned, "missed": missed} for name, (warned, missed) in seen.clocks.items()},
        }
    )


def _table(published: Published) -> dict[str, object]:
    return {"rows": dict(published.rows), "others": published.rest}


def _in_time(seen: Overview) -> float | None:
    return share(seen.matched_in_time, seen.durations["matched"].count - seen.matched_in_time)


async def request(db: Database, asked: Mapping[str, str]) -> PageAnswer:
    """One request and its whole story, as JSON."""
    request_id = RequestId(asked.get("id", ""))
    row = await store.request_of(db, request_id)
    if row is None:
        return _json({"error": _not_known(request_id)}, 404)
    story = await store.story_of(db, request_id)
    return _json({"request": dict(row), "story": [_event(line) for line in story]})


def _event(line: Line) -> dict[str, object]:
    return {
        "time": line.time,
        "topic": line.topic,
        "sequence": line.sequence,
        "type": line.type,
        "id": line.id,
        "body": None if line.body is None else json.loads(line.body),
    }


def _json(said: object, status: int = 200) -> PageAnswer:
    return PageAnswer(json.dumps(said, ensure_ascii=False, default=_plain) + "\n", status, "application/json")


def _plain(value: object) -> str:
    assert isinstance(value, datetime)
    return value.isoformat().replace("+00:00", "Z")


def _not_known(request_id: str) -> str:
    return (
        f"No request {request_id!r} is known here. Check the id; a request sent a moment ago appears as soon as intake "
        "has answered it."
    )


async def programme_page(db: Database, _: Mapping[str, str]) -> PageAnswer:
    """The programme in numbers, as a page."""
    seen = await store.overview(db)
    small = share(seen.small_agencies, seen.larger_agencies)
    in_progress = sum(seen.steps[step] for step in (Step.MATCHED, Step.PLANNED, Step.CONFIRMED))
    completed = sum(seen.steps[step] for step in (Step.DELIVERED, Step.FOLLOW_UP_DUE, Step.CLOSED))
    figures = (
        (f"{seen.requests:,}", "requests"),
        (f"{seen.agencies:,}", "agencies that asked"),
        (_percent(small), "of them small: under 50 sworn"),
        (f"{in_progress:,}", "matched and on the way"),
        (f"{completed:,}", "delivered"),
    )
    headline = "".join(f"<div><dt>{escape(says)}</dt><dd>{escape(number)}</dd></div>" for number, says in figures)
    return _page(
        "The programme in numbers",
        f"""
        <dl class="figures">{headline}</dl>
        <section aria-labelledby="steps"><h2 id="steps">Where requests stand</h2>{_funnel(seen)}</section>
        <div class="columns">
        <section aria-labelledby="waits"><h2 id="waits">How long agencies wait</h2>{_waits(seen)}</section>
        <section aria-labelledby="levels"><h2 id="levels">Service levels</h2>{_levels(seen)}</section>
        </div>
        <div class="columns">
        <section aria-labelledby="topics"><h2 id="topics">Topics</h2>{_counts("Topic", seen.topics)}</section>
        <section aria-labelledby="types"><h2 id="types">Types of agency</h2>{_counts("Type", seen.agency_types)}</section>
        <section aria-labelledby="states"><h2 id="states">States</h2>{_counts("State", seen.states)}</section>
        </div>
        <p class="note">Counts under {THRESHOLD} are not shown, nor are those from which they could be worked out: the
        rows left out are summed up as one. A request may name several topics.</p>
        <form action="/requests" method="get"><label for="id">Story of a request</label>
        <input id="id" name="id" required maxlength="80" placeholder="request id"> <button>Show</button></form>
        """,
    )


def _funnel(seen: Overview) -> str:
    most = max(seen.steps.values(), default=0)
    rows = "".join(
        f'<tr{"" if count else " class=none"}><th scope="row">{_words(step)} <small>{escape(_STEP_MEANS[step])}</small></th>'
        f"<td>{count:,}</td>{_bar(count, most)}</tr>"
        for step, count in seen.steps.items()
    )
    return _rows(("Step", "Requests", ""), rows, "funnel")


def _counts(heading: str, given: Mapping[str, int]) -> str:
    if not given:
        return "<p>Nothing yet.</p>"
    published = publishable(given)
    if published.rest is None:
        return "<p>Too few to show.</p>"
    rest = [("All others together", published.rest)] if published.rest else []
    most = max(count for _, count in (*published.rows, *rest))
    rows = "".join(
        f'<tr><th scope="row">{_words(label)}</th><td>{count:,}</td>{_bar(count, most)}</tr>'
        for label, count in (*published.rows, *rest)
    )
    return _rows((heading, "Requests", ""), rows)


def _waits(seen: Overview) -> str:
    waits = ((says, enough(seen.durations[name])) for name, says in _WAITS.items())
    rows = "".join(
        f'<tr><th scope="row">{escape(says)}</th><td>{wait.count:,}</td><td>{_span(wait.p50)}</td>'
        f"<td>{_span(wait.p90)}</td></tr>"
        for says, wait in waits
    )
    return _rows(("From submission to", "Requests", "Half within", "9 of 10 within"), rows)


def _levels(seen: Overview) -> str:
    pairing = (
        f"<p><strong>{_percent(_in_time(seen))}</strong> of {seen.durations['matched'].count:,} matches were confirmed within "
        f"{PAIRING_TARGET.days} days of the request.</p>"
    )
    clocks = "".join(
        f'<tr><th scope="row">{_words(clock)}</th><td>{warned:,}</td><td>{missed:,}</td></tr>'
        for clock, (warned, missed) in sorted(seen.clocks.items())
    )
    return pairing + (_rows(("Requests whose clock", "Warned", "Ran out"), clocks) if clocks else "")


async def request_page(db: Database, asked: Mapping[str, str]) -> PageAnswer:
    """One request and its whole story, as a page."""
    request_id = RequestId(asked.get("id", ""))
    row = await store.request_of(db, request_id)
    if row is None:
        return _page("Not known", f"<p>{escape(_not_known(request_id))}</p>", 404)
    story = await store.story_of(db, request_id)
    return _page(
        f"Request {request_id}",
        f"""
        <p class="standing"><strong>{_words(row["step"])}</strong> {escape(_STEP_MEANS[Step(row["step"])])}</p>
        <div class="columns">
        <section aria-labelledby="who"><h2 id="who">Who and what</h2>{_facts(_who(row))}</section>
        <section aria-labelledby="when"><h2 id="when">First reached</h2>{_facts(_when(row))}</section>
        </div>
        <section aria-labelledby="story"><h2 id="story">Story</h2>
        <ol class="story">{"".join(_told(line) for line in story)}</ol></section>
        """,
    )


def _who(row: Row) -> Iterable[tuple[str, str]]:
    if row["ori"] is not None:
        yield "Agency", f"{escape(row['agency_name'])} <small>{escape(row['ori'])}</small>"
        yield "Type", _words(row["agency_type"])
        yield "State", escape(row["state"])
        yield "Sworn", _words(row["sworn_band"])
    if row["topics"]:
        yield "Topics", ", ".join(escape(topic) for topic in row["topics"])
    if row["urgency"] is not None:
        yield "Urgency", _words(row["urgency"])
    if row["partner_id"] is not None:
        yield "Partner", escape(row["partner_id"])
        yield "Experts", ", ".join(escape(expert) for expert in row["expert_ids"])


def _when(row: Row) -> Iterable[tuple[str, str]]:
    return ((says, _moment(row[name])) for name, says in _MILESTONES.items() if row[name] is not None)


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    return f'<dl class="facts">{"".join(f"<dt>{escape(name)}</dt><dd>{markup}</dd>" for name, markup in facts)}</dl>'


def _told(line: Line) -> str:
    name, _, _ = line.type.rpartition(".v")
    head = f'<h3>{_words(name.replace(".", " "))}</h3><p class="meta">{_moment(line.time)} · {escape(line.topic)} {line.sequence}</p>'
    if line.body is None:
        return f"<li>{head}<p>The content is restricted.</p></li>"
    body = cast("dict[str, Any]", json.loads(line.body))
    gist = [(_words(field), escape(str(body[field]))) for field in _GIST if body.get(field) is not None]
    shown = escape(json.dumps(body, indent=2, ensure_ascii=False))
    return (
        f"<li>{head}{_facts(gist) if gist else ''}"
        f"<details><summary>Everything it says</summary><pre>{shown}</pre></details></li>"
    )


def _rows(headings: Sequence[str], rows: str, kind: str = "") -> str:
    head = "".join(f'<th scope="col">{escape(heading)}</th>' if heading else "<td></td>" for heading in headings)
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _bar(count: int, most: int) -> str:
    width = 100 * count / most if most else 0
    return f'<td class="bar" aria-hidden="true"><span style="width:{width:.1f}%"></span></td>'


def _words(name: str) -> str:
    """A code as words, escaped: `active-shooter` reads Active shooter."""
    words = name.replace("_", " ").replace("-", " ")
    return escape(words[:1].upper() + words[1:])


def _percent(part: float | None) -> str:
    return "–" if part is None else f"{100 * part:.0f} %"


def _moment(time: datetime) -> str:
    return f'<time datetime="{_plain(time)}">{time:%-d %B %Y, %H:%M:%S} UTC</time>'


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def _page(title: str, content: str, status: int = 200) -> PageAnswer:
    return PageAnswer(
        f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} · Fieldbridge</title><style>{_STYLE}</style></head>
<body><header><p><a href="/">Fieldbridge</a> Technical assistance, asked for by the agency</p><h1>{escape(title)}</h1></header>
<main>{content}</main></body></html>
""",
        status,
    )


_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --paper: #fbfaf7; --line: #dcd9d1; --bar: #2f6f8f; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e6e1; --soft: #9aa4b1; --paper: #14181d; --line: #2e353d; --bar: #6db3d4; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 2.5rem 1.5rem 4rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; font-variant-numeric: tabular-nums; }
header p { margin: 0; color: var(--soft); }
header a { color: inherit; font-weight: 650; margin-right: .5rem; }
h1 { margin: .1rem 0 2rem; font-size: 2.1rem; line-height: 1.15; letter-spacing: -.015em; overflow-wrap: anywhere; }
h2 { margin: 2.5rem 0 .6rem; font-size: 1.15rem; }
h3 { margin: 0; font-size: 1rem; }
small, .note, .meta { color: var(--soft); font-size: .875rem; font-weight: 400; }
.funnel th small { margin-left: .6rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: 1.5rem; margin: 0; }
.figures div { display: flex; flex-direction: column-reverse; justify-content: flex-end; border-top: 3px solid var(--bar); padding-top: .5rem; }
.figures dd { margin: 0; font-size: 2.2rem; font-weight: 650; line-height: 1.2; letter-spacing: -.02em; }
.figures dt { color: var(--soft); }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); column-gap: 3rem; }
table { width: 100%; border-collapse: collapse; }
th, td { padding: .35rem .75rem .35rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
thead th, thead td { color: var(--soft); font-size: .875rem; font-weight: 400; vertical-align: bottom; }
tbody th { font-weight: 500; }
td, thead th:not(:first-child) { text-align: right; }
td.bar { width: 35%; padding-right: 0; text-align: left; }
.funnel td.bar { width: 45%; }
.bar span { display: block; height: .7rem; margin-top: .4rem; background: var(--bar); border-radius: 2px; }
tr.none th, tr.none td { color: var(--soft); font-weight: 400; }
.standing { margin: -1.2rem 0 0; } .standing strong { margin-right: .4rem; }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.25rem; margin: 0; }
.facts dt { color: var(--soft); } .facts dd { margin: 0; overflow-wrap: anywhere; }
.story { list-style: none; margin: 1rem 0 0; padding: 0 0 0 1.5rem; border-left: 2px solid var(--line); }
.story li { position: relative; margin-bottom: 1.4rem; }
.story li::before { content: ""; position: absolute; left: calc(-1.5rem - 6px); top: .45rem; width: 10px; height: 10px;
  border-radius: 50%; background: var(--bar); }
.story p { margin: 0; }
.story .facts { display: flex; flex-wrap: wrap; column-gap: .4rem; font-size: .9375rem; }
.story .facts dd { margin-right: .9rem; }
summary { color: var(--soft); font-size: .875rem; cursor: pointer; }
pre { margin: .4rem 0 0; padding: .75rem; overflow-x: auto; border: 1px solid var(--line); font-size: .8125rem; }
form { margin-top: 2rem; display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; }
input, button { font: inherit; padding: .3rem .6rem; color: inherit; background: transparent; border: 1px solid var(--soft);
  border-radius: 3px; }
a:focus-visible, input:focus-visible, button:focus-visible, summary:focus-visible { outline: 3px solid var(--bar); }
"""

PAGES: Final = (
    Page("/", programme_page),
    Page("/requests", request_page),
    Page("/requests/{id}", request_page),
    Page("/api/counts", counts),
    Page("/api/requests/{id}", request),
)
