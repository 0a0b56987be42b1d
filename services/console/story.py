"""`fieldbridge story REQUEST` and `fieldbridge watch`: what reporting knows, at the command line."""

import json
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final
from urllib.parse import quote
from zoneinfo import ZoneInfo

import typer

from services.console.screen import AsJson, out, progress, show_json, show_json_line, table
from services.console.stack import fetch
from services.console.surroundings import Stack, here
from services.console.trouble import Trouble

_BAR: Final = 40
_LONGEST: Final = 300
_UNTOLD: Final = frozenset(
    {"request_id", "agency", "terms", "affinity", "experts", "sessions", "session", "submitted_at"}
)


def story(
    request: Annotated[str, typer.Argument(metavar="REQUEST", help="Id of the request.")], as_json: AsJson = False
) -> None:
    """Tell the whole story of one request, in the order things happened."""
    told = told_of(here().stack(), request)
    if told is None:
        raise Trouble(f"No request {request!r} is known. See what became of its submission on the topic `receipts`.")
    if as_json:
        show_json(told)
        return
    rows = [
        (_moment(event["time"]), event["topic"], _name(event["type"]), "\n".join(_gist(event["body"] or {})))
        for event in told["story"]
    ]
    step = str(told["request"].get("step", "")).replace("_", " ")
    out.print(table(f"{request}: {step}", ("time (UTC)", "told by", "what", "more"), rows))


def watch(
    every: Annotated[float, typer.Option(help="Seconds between looks.", min=0.1)] = 1.0, as_json: AsJson = False
) -> None:
    """Watch how many requests stand at each step, until Ctrl-C."""
    stack = here().stack()
    with progress() as shown:
        while True:
            _, told = _ask(stack, "/api/steps")
            steps: dict[str, int] = told["steps"]
            line = (
                ", ".join(f"{count} {step.replace('_', ' ')}" for step, count in steps.items() if count)
                or "no requests"
            )
            if as_json:
                show_json_line({"time": datetime.now(UTC).isoformat(), "steps": steps})
            else:
                most = max(*steps.values(), 1)
                rows = [
                    (step.replace("_", " "), count, "█" * round(_BAR * count / most)) for step, count in steps.items()
                ]
                shown.update(table(f"{told['requests']:,} requests", ("step", "requests#", ""), rows), line)
            time.sleep(every)


def told_of(stack: Stack, request: str) -> dict[str, Any] | None:
    """What reporting tells of a request: how it stands and its story; None where it knows none of this id."""
    status, told = _ask(stack, f"/api/requests/{quote(request, safe='')}")
    return None if status == 404 else told


def _ask(stack: Stack, path: str) -> tuple[int, dict[str, Any]]:
    status, text = fetch(stack.process("reporting"), path)
    try:
        told: dict[str, Any] = json.loads(text)
    except ValueError:
        raise Trouble(f"Reporting answered {path} with {status} and no JSON: see its log.") from None
    if status not in (200, 404):
        raise Trouble(f"Reporting answered {path} with {status}: {told.get('error', 'see its log')}.")
    return status, told


def _name(event_type: str) -> str:
    """`request.information_requested.v1` as words."""
    return " ".join(event_type.split(".")[:-1]).replace("_", " ")


def _moment(text: str) -> str:
    return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _gist(body: Mapping[str, Any]) -> Iterator[str]:
    """What an event says, in lines short enough for a table."""
    for session in body.get("sessions", ()):
        starts = datetime.fromisoformat(session["takes_place"]["start"]).astimezone(ZoneInfo(session["time_zone"]))
        yield f"{starts:%Y-%m-%d %H:%M} {session['time_zone']}: {session['title']}"
    for expert in body.get("experts", ()):
        yield f"{expert['expert_id']} ({expert['affinity']}): {'; '.join(expert['reasons'])}"[:_LONGEST]
    for name, value in body.items():
        if name not in _UNTOLD and value not in (None, [], {}, ""):
            yield f"{name.replace('_', ' ')}: {_plain(value)}"[:_LONGEST]


def _plain(value: Any) -> str:
    match value:
        case {"field": field, "problem": problem}:
            return f"{field}: {problem}"
        case {"code": _, "says": says}:
            return str(says)
        case {"first": first, "last": last}:
            return f"{first} to {last}"
        case [*parts]:
            return "; ".join(_plain(part) for part in parts)
        case {**parts}:
            return ", ".join(f"{name} {_plain(part)}" for name, part in parts.items())
        case _:
            return str(value)
