"""How reporting's pages are written: the frame, tables, and values in plain words; all text is escaped here."""

import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from html import escape
from typing import Final

from services.reporting.decisions.views import Step
from services.runtime.service import PageAnswer

STEP_MEANS: Final = {
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


def table(headings: Sequence[str], rows: str, kind: str = "") -> str:
    """A table of rows that are markup already."""
    head = "".join(f'<th scope="col">{escape(heading)}</th>' if heading else "<td></td>" for heading in headings)
    return f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def bar(count: int, most: int) -> str:
    """A cell with a bar as long as the count beside the greatest one; for the eye only."""
    width = 100 * count / most if most else 0
    return f'<td class="bar" aria-hidden="true"><span style="width:{width:.1f}%"></span></td>'


def words(code: str) -> str:
    """A code as words, escaped: `active-shooter` reads Active shooter."""
    text = code.replace("_", " ").replace("-", " ")
    return escape(text[:1].upper() + text[1:])


def event_name(event_type: str) -> str:
    """What an event is called, escaped and without its version: `match.proposed.v1` reads Match proposed."""
    name, _, version = event_type.rpartition(".v")
    return words((name if version.isdigit() else event_type).replace(".", " "))


def percent(part: float | None) -> str:
    """A share in percent; a dash where it is not to be shown."""
    return "–" if part is None else f"{100 * part:.0f} %"


def moment(time: datetime) -> str:
    """A time in UTC, said aloud."""
    return f'<time datetime="{_plain(time)}">{time:%-d %B %Y, %H:%M:%S} UTC</time>'


def span(seconds: float | None) -> str:
    """A wait in its largest unit; a dash where it is not to be shown."""
    if seconds is None:
        return "–"
    for unit, length in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.1f} s"


def facts(named: Iterable[tuple[str, str]]) -> str:
    """A list of names and values; the values are markup already."""
    return f'<dl class="facts">{"".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in named)}</dl>'


def json_answer(said: object, status: int = 200) -> PageAnswer:
    """The answer as JSON, with times in RFC 3339."""
    return PageAnswer(json.dumps(said, ensure_ascii=False, default=_plain) + "\n", status, "application/json")


def _plain(value: object) -> str:
    assert isinstance(value, datetime)
    return value.isoformat().replace("+00:00", "Z")


def page(title: str, content: str, status: int = 200) -> PageAnswer:
    """A whole page around content that is markup already; it loads nothing from anywhere."""
    return PageAnswer(
        f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} · Fieldbridge</title><style>{_STYLE}</style></head>
<body><header><p><a href="/">Fieldbridge</a> Technical assistance, asked for by the agency</p>
<h1>{escape(title)}</h1></header>
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
@media (max-width: 40rem) { .funnel th small { display: block; margin: 0; line-height: 1.3; } }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: 1.5rem; margin: 0; }
.figures div { display: flex; flex-direction: column-reverse; justify-content: flex-end; padding-top: .5rem;
  border-top: 3px solid var(--bar); }
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
input, button { font: inherit; padding: .3rem .6rem; color: inherit; background: transparent;
  border: 1px solid var(--soft); border-radius: 3px; }
a:focus-visible, input:focus-visible, button:focus-visible, summary:focus-visible { outline: 3px solid var(--bar); }
"""
