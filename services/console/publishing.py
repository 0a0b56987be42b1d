"""`fieldbridge publish FILE`: sends submissions as another system would, and tells what intake answered."""

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from time import monotonic
from typing import Annotated, Final, cast

import typer
from pydantic import ValidationError

from schemas.body import parse
from schemas.envelope import Envelope, NotAnEvent, read_structured
from schemas.receipts import SubmissionTaken
from schemas.submissions import BODIES
from schemas.topics import RECEIPTS, SUBMISSIONS
from services.console import wire
from services.console.screen import AsJson, out, show_json, table
from services.console.surroundings import Stack, here
from services.console.trouble import Trouble

_MOST_TOLD: Final = 20
_SOON_SECONDS: Final = 3.0


class NotPublishable(Trouble):
    """A document is no submission; the message names its place, the field and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Submission:
    """A submission ready to be sent; `place` says where in the file it stands."""

    place: str
    envelope: Envelope
    data: bytes


@dataclass(slots=True)
class Sent:
    """What became of one submission. `answer` is taken or refused once its receipt was read."""

    source: str
    id: str
    type: str
    subject: str
    partition: int
    offset: int
    answer: str | None = None
    reason: str | None = None
    problems: list[dict[str, str]] = field(default_factory=list[dict[str, str]])


def publish(
    file: Annotated[
        str, typer.Argument(help="CloudEvents as one JSON object, a JSON array or JSON lines; - reads standard input.")
    ],
    wait: Annotated[bool, typer.Option("--wait", help="Wait for intake's receipts and show them.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for receipts.", min=0.1)] = 30.0,
    as_json: AsJson = False,
) -> None:
    """Check submissions and send them to Kafka. Exit status 1 if one is refused or stays without an answer."""
    found = submissions(_read(file))
    stack = here().stack()
    sent = asyncio.run(_publish(stack, found, timeout if wait else None))
    if as_json:
        show_json(sent)
    else:
        columns = ("type", "subject", "id", "partition#", "offset#", *(("answer", "why") if wait else ()))
        out.print(table("Published", columns, [_row(one)[: len(columns)] for one in sent]))
    if wait and any(one.answer != "taken" for one in sent):
        unanswered = sum(one.answer is None for one in sent)
        if unanswered:
            raise Trouble(
                f"{unanswered} without a receipt after {timeout:g} s: is intake running? `fieldbridge status`."
            )
        raise typer.Exit(1)


def submissions(text: str) -> list[Submission]:
    """The submissions in a text. Raises NotPublishable, naming every document at fault."""
    found: list[Submission] = []
    faults: list[str] = []
    for place, document in _documents(text):
        try:
            found.append(_submission(place, document))
        except NotPublishable as fault:
            faults.append(str(fault))
    if faults:
        more = len(faults) - _MOST_TOLD
        raise NotPublishable("\n".join(faults[:_MOST_TOLD] + ([f"and {more} more"] if more > 0 else [])))
    if not found:
        raise NotPublishable("There is nothing to publish: the file is empty.")
    return found


def _read(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise Trouble(f"There is no file {file}.") from None
    except UnicodeDecodeError as error:
        raise Trouble(f"{file} is not UTF-8 text: byte {error.start} cannot be read.") from None
    except OSError as error:
        raise Trouble(f"{file} cannot be read: {error.strerror}.") from None


def _documents(text: str) -> Iterator[tuple[str, object]]:
    """Each document and its place. One that starts and ends in its first line makes the text JSON lines."""
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if len(lines) > 1 and _is_json(lines[0][1]):
        for number, line in lines:
            yield f"line {number}", _load(line, number)
        return
    if lines:
        document = _load(text, 1)
        if isinstance(document, list):
            for nth, one in enumerate(cast("list[object]", document), 1):
                yield f"event {nth}", one
        else:
            yield "event", document


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _load(text: str, first_line: int) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise NotPublishable(
            f"line {first_line + error.lineno - 1}, column {error.colno}: this is not JSON: {error.msg}."
        ) from None
    except ValueError:  # Python reads no integer of thousands of digits
        raise NotPublishable(f"line {first_line}: a number has too many digits.") from None
    except RecursionError:
        raise NotPublishable(f"line {first_line}: nested too deeply.") from None


def _submission(place: str, document: object) -> Submission:
    try:
        envelope, data = read_structured(json.dumps(document).encode())
    except NotAnEvent as error:
        raise NotPublishable(f"{place}: {error}") from None
    try:
        body = parse(BODIES, envelope.type, data)
    except ValidationError as error:
        faults = "; ".join(f"{_path(problem['loc'])}: {problem['msg']}" for problem in error.errors(include_url=False))
        raise NotPublishable(f"{place} ({envelope.type}): {faults}") from None
    if body is None:
        near = get_close_matches(envelope.type, BODIES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f": the types are {', '.join(BODIES)}"
        raise NotPublishable(f"{place}: type {envelope.type!r} is no submission{hint}")
    if envelope.subject not in ("", body.subject):
        raise NotPublishable(f"{place}: subject is {envelope.subject!r}, but the data is about {body.subject!r}")
    return Submission(place, _about(envelope, body.subject), data)


def _about(envelope: Envelope, subject: str) -> Envelope:
    # Submissions carry no sequence: their sources are strangers.
    return Envelope(
        envelope.id, envelope.source, envelope.type, subject, envelope.time, traceparent=envelope.traceparent
    )


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(("data", *(str(part) for part in location)))


async def _publish(stack: Stack, found: Sequence[Submission], seconds: float | None) -> list[Sent]:
    async with wire.publisher(stack) as producer:
        if seconds is None:
            return await _send(producer, stack, found)
        async with wire.follower(stack, [RECEIPTS.name]) as receipts:
            sent = await _send(producer, stack, found)
            soon = min(seconds, _SOON_SECONDS)
            await _hear(receipts, sent, soon)
            if any(one.answer is None for one in sent):
                # What was published before under the same id has had its receipt then.
                await _look_back(stack, sent)
                await _hear(receipts, sent, seconds - soon)
            return sent


async def _send(producer: wire.Publisher, stack: Stack, found: Sequence[Submission]) -> list[Sent]:
    try:
        acknowledged = [
            await producer.send(
                stack.topic(SUBMISSIONS.name),
                value=one.data,
                key=one.envelope.subject.encode(),
                headers=one.envelope.headers(),
            )
            for one in found
        ]
        answers = await asyncio.gather(*acknowledged)
    except wire.KafkaError as error:
        raise Trouble(f"Kafka did not take everything ({type(error).__name__}); publish the file again.") from None
    return [
        Sent(
            one.envelope.source,
            one.envelope.id,
            one.envelope.type,
            one.envelope.subject,
            answer.partition,
            answer.offset,
        )
        for one, answer in zip(found, answers, strict=True)
    ]


async def _hear(receipts: wire.Follower, sent: Sequence[Sent], seconds: float) -> None:
    """Notes the receipts that come, until all are there or the time is over."""
    waiting = _without_answer(sent)
    deadline = monotonic() + seconds
    while waiting and (left := deadline - monotonic()) > 0:
        for record in await receipts.next(min(1.0, left)):
            take_receipt(record, waiting)


async def _look_back(stack: Stack, sent: Sequence[Sent]) -> None:
    """Notes the receipts that were there already."""
    waiting = _without_answer(sent)
    async with wire.follower(stack, [RECEIPTS.name], from_start=True) as receipts:
        async for record in receipts.until(await receipts.ends()):
            take_receipt(record, waiting)


def _without_answer(sent: Sequence[Sent]) -> dict[tuple[str, str], list[Sent]]:
    waiting: dict[tuple[str, str], list[Sent]] = {}
    for one in sent:
        if one.answer is None:
            waiting.setdefault((one.source, one.id), []).append(one)
    return waiting


def take_receipt(record: wire.LogRecord, waiting: dict[tuple[str, str], list[Sent]]) -> None:
    """Notes the answer to what still waits for one; what is no receipt of intake's answers nothing."""
    if (receipt := wire.fact_of(record)) is None:
        return
    envelope, body = receipt
    for one in waiting.pop((body["submission_source"], body["submission_id"]), ()):
        one.answer = "taken" if envelope.type == SubmissionTaken.TYPE else "refused"
        one.reason = body.get("reason")
        one.problems = body.get("problems", [])


def _row(one: Sent) -> tuple[object, ...]:
    fields = [f"{problem['field']}: {problem['problem']}" for problem in one.problems]
    why = "\n".join([*([one.reason] if one.reason else []), *fields])
    return one.type, one.subject, one.id, one.partition, one.offset, one.answer or "no receipt yet", why
