"""The programme in numbers. It names no agency: what is counted by topic, type or state goes through `publishable`.

Steps, waits, clocks, partners and submissions are the programme's own work and tell of no agency, however few they are.
"""

from collections.abc import Mapping
from dataclasses import asdict
from html import escape
from typing import Final

from services.reporting import store
from services.reporting.decisions.numbers import (
    PAIRING_TARGET,
    THRESHOLD,
    Overview,
    Published,
    enough,
    publishable,
    share,
)
from services.reporting.decisions.views import Step
from services.reporting.pages.markup import STEP_MEANS, bar, event_name, json_answer, page, percent, span, table, words
from services.runtime.database import Database
from services.runtime.service import PageAnswer

_WAITS: Final = {
    "answered": "First answer of intake",
    "proposed": "First proposal",
    "matched": "Match confirmed",
    "confirmed": "Dates confirmed",
}


async def counts(db: Database, _: Mapping[str, str]) -> PageAnswer:
    """The programme in numbers, as JSON."""
    seen = await store.overview(db)
    return json_answer(
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
            "partners": [asdict(partner) for partner in seen.partners],
            "submissions": {
                name: {"taken": taken, "refused": refused} for name, (taken, refused) in seen.submissions.items()
            },
        }
    )


async def steps(db: Database, _: Mapping[str, str]) -> PageAnswer:
    """How many requests stand at each step, as JSON: for those who ask every second."""
    counted = await store.counts_by_step(db)
    return json_answer(
        {"requests": sum(counted.values()), "steps": {step.value: count for step, count in counted.items()}}
    )


def _table(published: Published) -> dict[str, object]:
    return {"rows": dict(published.rows), "others": published.rest}


def _in_time(seen: Overview) -> float | None:
    return share(seen.matched_in_time, seen.durations["matched"].count - seen.matched_in_time)


async def programme_page(db: Database, _: Mapping[str, str]) -> PageAnswer:
    """The programme in numbers, as a page."""
    seen = await store.overview(db)
    small = share(seen.small_agencies, seen.larger_agencies)
    in_progress = sum(seen.steps[step] for step in (Step.MATCHED, Step.PLANNED, Step.CONFIRMED))
    completed = sum(seen.steps[step] for step in (Step.DELIVERED, Step.FOLLOW_UP_DUE, Step.CLOSED))
    figures = (
        (f"{seen.requests:,}", "requests"),
        (f"{seen.agencies:,}", "agencies that asked"),
        (percent(small), "of them small: under 50 sworn"),
        (f"{in_progress:,}", "matched and on the way"),
        (f"{completed:,}", "delivered"),
    )
    headline = "".join(f"<div><dt>{escape(says)}</dt><dd>{escape(number)}</dd></div>" for number, says in figures)
    return page(
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
        <section aria-labelledby="types"><h2 id="types">Agency types</h2>{_counts("Type", seen.agency_types)}</section>
        <section aria-labelledby="states"><h2 id="states">States</h2>{_counts("State", seen.states)}</section>
        </div>
        <p class="note">In these three tables counts under {THRESHOLD} are not shown, nor are those from which they
        could be worked out: the rows left out are summed up as one. A request may name several topics. The other tables
        count the programme's own work and name no agency.</p>
        <div class="columns">
        <section aria-labelledby="partners"><h2 id="partners">Partners</h2>{_partners(seen)}</section>
        <section aria-labelledby="submissions"><h2 id="submissions">Submissions</h2>{_submissions(seen)}</section>
        </div>
        <form action="/requests" method="get"><label for="id">Story of a request</label>
        <input id="id" name="id" required maxlength="80" placeholder="request id"> <button>Show</button></form>
        """,
    )


def _funnel(seen: Overview) -> str:
    most = max(seen.steps.values(), default=0)
    rows = "".join(
        f'<tr{"" if count else " class=none"}><th scope="row">{words(step)} <small>{escape(STEP_MEANS[step])}</small>'
        f"</th><td>{count:,}</td>{bar(count, most)}</tr>"
        for step, count in seen.steps.items()
    )
    return table(("Step", "Requests", ""), rows, "funnel")


def _counts(heading: str, given: Mapping[str, int]) -> str:
    if not given:
        return "<p>Nothing yet.</p>"
    published = publishable(given)
    if published.rest is None:
        return "<p>Too few to show.</p>"
    rest = [("All others together", published.rest)] if published.rest else []
    most = max(count for _, count in (*published.rows, *rest))
    rows = "".join(
        f'<tr><th scope="row">{words(label)}</th><td>{count:,}</td>{bar(count, most)}</tr>'
        for label, count in (*published.rows, *rest)
    )
    return table((heading, "Requests", ""), rows)


def _waits(seen: Overview) -> str:
    waits = ((says, enough(seen.durations[name])) for name, says in _WAITS.items())
    rows = "".join(
        f'<tr><th scope="row">{escape(says)}</th><td>{wait.count:,}</td><td>{span(wait.p50)}</td>'
        f"<td>{span(wait.p90)}</td></tr>"
        for says, wait in waits
    )
    return table(("From submission to", "Requests", "Half within", "9 of 10 within"), rows)


def _levels(seen: Overview) -> str:
    pairing = (
        f"<p><strong>{percent(_in_time(seen))}</strong> of {seen.durations['matched'].count:,} matches were confirmed "
        f"within {PAIRING_TARGET.days} days of the request.</p>"
    )
    clocks = "".join(
        f'<tr><th scope="row">{words(clock)}</th><td>{warned:,}</td><td>{missed:,}</td></tr>'
        for clock, (warned, missed) in sorted(seen.clocks.items())
    )
    return pairing + (table(("Requests whose clock", "Warned", "Ran out"), clocks) if clocks else "")


def _partners(seen: Overview) -> str:
    if not seen.partners:
        return "<p>Nothing yet.</p>"
    rows = "".join(
        f'<tr{"" if partner.selected else " class=none"}><th scope="row">{escape(partner.name)}'
        f"{'' if partner.selected else ' <small>suspended</small>'}</th><td>{partner.experts:,}</td>"
        f"<td>{partner.in_hand:,} of {partner.capacity:,}</td></tr>"
        for partner in seen.partners
    )
    return table(("Partner", "Experts", "Requests in hand"), rows)


def _submissions(seen: Overview) -> str:
    if not seen.submissions:
        return "<p>Nothing yet.</p>"
    rows = "".join(
        f'<tr><th scope="row">{event_name(type_)}</th><td>{taken:,}</td><td>{refused:,}</td></tr>'
        for type_, (taken, refused) in sorted(seen.submissions.items())
    )
    return table(("Type", "Taken", "Refused"), rows)
